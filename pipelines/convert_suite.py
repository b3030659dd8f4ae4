"""Convert the geometry suite with this library: every part of every series, not only what a lumbar exam needs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cohort.archive.listing import list_files
from cohort.archive.parts import Part, split_parts
from cohort.archive.pseudonym import Pseudonyms
from cohort.archive.scan import read_file_rows
from cohort.archive.series import SeriesStacks, read_series
from cohort.archive.source import FileSource, ImageSource
from cohort.errors import RefusedError
from cohort.rows import FileRow
from models.geometry_suite.check import CaseResult, Volume, check_case
from models.geometry_suite.truth import Case, Truth
from pipelines.convert import image_sources

PSEUDONYMS: Final = Pseudonyms(bytes(32))
"""The suite has no patients: any key will do."""


@dataclass(frozen=True)
class ScannedCase:
    """Rows of the files of one case."""

    rows: list[FileRow]
    names: dict[str, str]
    """file_id -> path below the archive; of a member that of its .zip."""

    def images(self, rows: Iterable[FileRow]) -> tuple[ImageSource, ...]:
        """Where the images of some rows are."""
        return image_sources(rows, lambda row: FileSource(self.names[row.file_id], row.member))


@dataclass(frozen=True)
class ConvertedCase:
    """What the library made of one case."""

    reasons: dict[str, str]
    """File -> reason of its row, or of that of a member or frame; files without any reason are not there."""
    series: list[SeriesStacks] = field(default_factory=list)
    """One for each part of a series that could be read."""
    refusals: list[str] = field(default_factory=list)
    """Reasons of the parts that could not."""

    def volumes(self) -> Iterator[Volume]:
        """All stacks."""
        for one in self.series:
            for stack in one.stacks:
                yield Volume(stack.image, stack.geometry.to_lps)


def scan_case(archive: Path, case: Case) -> ScannedCase:
    """Read the headers of all files of a case."""
    names: dict[str, str] = {}
    rows: list[FileRow] = []
    for relative, size, mtime in list_files(archive / case.name):
        path = f"{case.name}/{relative}"
        of_file = read_file_rows(archive, path, size, mtime, PSEUDONYMS)
        names |= dict.fromkeys((row.file_id for row in of_file), path)
        rows += of_file
    return ScannedCase(rows, names)


def convert_case(archive: Path, case: Case) -> ConvertedCase:
    """Scan the files of a case and read every part of every series."""
    scanned = scan_case(archive, case)
    unusable = {scanned.names[row.file_id]: row.reason for row in scanned.rows if row.reason not in (None, "container")}
    converted = ConvertedCase(unusable)
    for part in _parts(scanned.rows):
        try:
            images = scanned.images(part.rows)
            converted.series.append(read_series(archive, images, "sagittal", pseudonyms=PSEUDONYMS))
        except RefusedError as error:
            converted.refusals.append(error.reason)
    return converted


def check_library(archive: Path, truth: Truth) -> list[CaseResult]:
    """`check_case` of every case as the library converts it."""
    return [check_case(case, convert_case(archive, case).volumes()) for case in truth.cases]


def _parts(rows: Iterable[FileRow]) -> Iterator[Part]:
    series: defaultdict[str, list[FileRow]] = defaultdict(list)
    for row in rows:
        if row.series_id:
            series[row.series_id].append(row)
    for one in series.values():
        yield from (part for part in split_parts(one) if part.usable)
