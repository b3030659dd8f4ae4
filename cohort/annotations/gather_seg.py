"""Files of DICOM SEG for an import: which exam and reader each is of, read one by one when its exam's turn comes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import dcmread

from cohort.annotations.assemble import Drawing, Sheet
from cohort.annotations.classes import ClassTable, Meaning
from cohort.annotations.dicom_seg import TOOL, SegPart, read_seg
from cohort.annotations.gather import Gathered, source_of
from cohort.annotations.matching import ExamImages
from cohort.annotations.store import check_reader
from cohort.archive.header import quiet_pydicom
from cohort.archive.pseudonym import Pseudonyms
from cohort.errors import ConfigurationError, RefusedError


@dataclass(frozen=True)
class SegLine:
    """One file."""

    path: Path
    reader: str
    exam: str | None
    """As a table names it, whose word counts for copies with other UIDs; None: as the file's StudyInstanceUID does."""
    complete: bool
    """Slices without a frame have nothing of what is drawn on others; else they are unknown."""


def seg_lines(paths: Iterable[Path], reader: str | None) -> list[SegLine]:
    """Files that say themselves which exam they are of; `ConfigurationError` without a reader."""
    if reader is None:
        raise ConfigurationError("DICOM SEG needs --reader CODE: names in the files are not read")
    return [SegLine(path, check_reader(reader), None, complete=False) for path in paths]


def gather_segs(
    lines: Iterable[SegLine], exam_id: Callable[[str], str | None], pseudonyms: Pseudonyms, classes: ClassTable
) -> Gathered:
    """Sort files by exam and reader; those of no exam become rows.

    Parameters
    ----------
    exam_id : finds an exam of the store by its StudyInstanceUID, original or from a pseudonym, or by its pseudonym
    """
    found = Gathered()
    for line in lines:
        source = source_of(line.path)
        found.sources.add(source)
        try:
            known = exam_id(line.exam or _study_uid(line.path))
        except RefusedError as error:
            found.refuse(error.reason, line.reader, source, detail=error.detail)
            continue
        if known is None:
            found.refuse("study_unknown", line.reader, source, detail="1 file")
        else:
            found.parts[known, line.reader].append((TOOL, source, _FilePart(line, classes, pseudonyms).add))
    return found


def _study_uid(path: Path) -> str:
    try:
        with quiet_pydicom():
            header = dcmread(path, stop_before_pixels=True, specific_tags=["StudyInstanceUID"])
            return str(header.StudyInstanceUID)
    except Exception as error:  # pydicom raises a dozen kinds on files that are none or damaged
        raise RefusedError("mask_unreadable", f"no DICOM that can be read: {type(error).__name__}") from error


@dataclass(frozen=True, eq=False)
class _FilePart:
    line: SegLine
    classes: ClassTable
    pseudonyms: Pseudonyms

    def add(self, images: ExamImages, sheet: Sheet) -> None:
        """Read the file and add it to the sheet."""
        before = len(sheet.drawings), len(sheet.rows)
        try:
            with self.line.path.open("rb") as stream:
                file = read_seg(stream)
        except OSError as error:
            raise RefusedError("mask_unreadable", f"the file cannot be read: {type(error).__name__}") from error
        SegPart(file, self.classes, self.pseudonyms, named_by_table=self.line.exam is not None).add(images, sheet)
        drawn, said = sheet.drawings[before[0] :], sheet.rows[before[1] :]
        # A refused frame may be of any slice: then none is known to be empty.
        if self.line.complete and not any(row.status == "refused" for row in said):
            sheet.drawings += _nothing_elsewhere(images, drawn)


def _nothing_elsewhere(images: ExamImages, drawn: Iterable[Drawing]) -> list[Drawing]:
    """Say for all slices of the stacks that were drawn on that there is no more than what was drawn."""
    found = []
    for plane, index, array in {(*one.place[:2], one.meaning.array) for one in drawn}:
        grid = images.stack((plane, index, 0)).geometry
        nothing, nobody = np.zeros(grid.shape, bool), Meaning(array, 0, empty=True)
        found += [Drawing((plane, index, k), nobody, nothing) for k in range(grid.n_slices)]
    return found
