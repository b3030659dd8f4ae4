"""Bring annotations into a store: read, match, place, check, write; then tell what became of them."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from cohort.annotations.assemble import Sheet, assemble
from cohort.annotations.classes import ClassTable
from cohort.annotations.exams import Exams
from cohort.annotations.gather import Gathered, gather_files, gather_mdai, read_paths, sheet_of
from cohort.annotations.gather_seg import SegLine, gather_segs, seg_lines
from cohort.annotations.mask_table import MaskLine, read_mask_table
from cohort.annotations.rows import AnnotationRow, read_annotation_rows, replace_annotation_rows
from cohort.annotations.rules import apply_rules
from cohort.annotations.store import (
    Annotation,
    annotated_exams,
    annotation_attributes,
    check_reader,
    readers_of,
    remove_annotation,
    write_annotation,
)
from cohort.archive.pseudonym import Pseudonyms, load_or_create_key
from cohort.errors import ConfigurationError, RefusedError
from cohort.review.annotation_overlay import annotation_overlay
from cohort.store.layout import review_directory
from pipelines.config import RunConfig
from pipelines.lock import only_run
from pipelines.progress import LINE_EVERY_S

FORMATS: Final = ("mdai", "dicom-seg", "nifti", "mha", "png")


@dataclass(frozen=True)
class ImportRequest:
    """What is to be imported."""

    source: Path
    """A file, or a folder of files."""
    store: Path
    format: str
    """One of `FORMATS`."""
    table: Path | None
    """Which exam each mask file is of; not for MD.ai, and for DICOM SEG only where its UIDs are not the exam's."""
    classes: ClassTable
    readers: Mapping[str, str]
    """MD.ai's code of a user -> code of the reader; "" is everybody else."""


@dataclass
class Imported:
    """What became of it."""

    n_annotations: int = 0
    """Exams times readers with something that could be taken."""
    n_written: int = 0
    """Of these, new or changed ones."""
    n_empty: int = 0
    """Exams times readers of which nothing was left."""
    rows: list[AnnotationRow] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    """Pages of doubtful annotations, relative to STORE."""

    def to_json(self) -> str:
        """One object with counts, and every row."""
        found = {
            "annotations": self.n_annotations,
            "written": self.n_written,
            "unchanged": self.n_annotations - self.n_written,
            "nothing_left": self.n_empty,
            "rows": self.counts(),
            "pictures": self.pictures,
            "details": [asdict(row) for row in self.rows],
        }
        return json.dumps(found, indent=1)

    def counts(self) -> list[dict[str, object]]:
        """Rows by status and reason, most frequent first."""
        counts = Counter((row.status, row.reason) for row in self.rows)
        return [{"status": status, "reason": reason, "n": n} for (status, reason), n in counts.most_common()]


def import_annotations(request: ImportRequest, config: RunConfig, report: Callable[[str], None]) -> Imported:
    """Import everything a request names; what is there already is not written again.

    A reader's former annotation of an exam is replaced as a whole. One exam's failure is its row. Killed in between,
    the same command goes on with what is missing.

    Raises
    ------
    ConfigurationError
        if the store's pseudonym key is missing, or the tables of the request cannot be used
    """
    with only_run(request.store, "annotations import", report):
        return _import(request, config, report)


def _import(request: ImportRequest, config: RunConfig, report: Callable[[str], None]) -> Imported:
    exams = Exams(request.store, store_pseudonyms(config, request.store))
    gathered = _gather(request, exams)
    exams.load_files({exam_id for exam_id, _ in gathered.parts})
    done = Imported(rows=list(gathered.rows))
    last = time.monotonic()
    for n, ((exam_id, reader), parts) in enumerate(sorted(gathered.parts.items()), start=1):
        sheet = Sheet(exam_id, reader, tool=parts[0][0], source=parts[0][1])
        try:
            images = exams.images(exam_id)
        except RefusedError as error:
            sheet.note(error.reason, "refused", detail=error.detail)
        else:
            sheet = sheet_of(exam_id, reader, parts, images)
            _take(request.store, assemble(images.exam, sheet), sheet, done)
        done.rows += sheet.rows
        if time.monotonic() - last > LINE_EVERY_S or n == len(gathered.parts):
            last = time.monotonic()
            report(f"{n} of {len(gathered.parts)} annotations read, {done.n_written} new or changed")
    replace_annotation_rows(request.store, done.rows, drawn=set(gathered.parts), sources=gathered.sources)
    return done


def store_pseudonyms(config: RunConfig, store: Path) -> Pseudonyms:
    """Those of the store; `ConfigurationError` without its key, for a new one would match nothing."""
    key_file = config.privacy.key_file
    if not key_file.exists():
        raise ConfigurationError(
            "the pseudonym key that the store was made with is not here; name it in [privacy] key_file of --config"
        )
    return Pseudonyms(load_or_create_key(key_file, store=store))


def _gather(request: ImportRequest, exams: Exams) -> Gathered:
    if request.format == "mdai":
        paths = _files(request.source, (".json",))
        return gather_mdai(paths, exams.exam_id, exams.pseudonyms, request.classes, request.readers)
    if request.format == "dicom-seg":
        return gather_segs(_seg_lines(request), exams.exam_id, exams.pseudonyms, request.classes)
    if request.table is None:
        raise ConfigurationError("mask files need --table: which exam and reader each of them is of")
    lines = _mask_lines(request, request.table)
    return gather_files(lines, exams.exam_id, exams.pseudonyms, request.classes, request.format)


def _files(source: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files to read; `ConfigurationError` where a folder has none, as one whose files lie in folders of their own."""
    paths = list(read_paths(source, suffixes))
    if not paths:
        raise ConfigurationError(f"folder {source.name!r} has no file that ends in {' or '.join(suffixes)}")
    return paths


def _mask_lines(request: ImportRequest, table: Path) -> list[MaskLine]:
    folder = request.source if request.source.is_dir() else request.source.parent
    lines = read_mask_table(table, folder, request.readers.get(""))
    if request.source.is_file():
        return [line for line in lines if line.path.resolve() == request.source.resolve()]
    return lines


def _seg_lines(request: ImportRequest) -> list[SegLine]:
    """Files of a table, else all of a folder: they name their study themselves."""
    if request.table is None:
        return seg_lines(_files(request.source, (".dcm", ".seg")), request.readers.get(""))
    lines = _mask_lines(request, request.table)
    return [SegLine(line.path, line.reader, line.exam, line.complete) for line in lines]


def _take(store: Path, drawn: Annotation, sheet: Sheet, done: Imported) -> None:
    """Check and write one annotation, and a page about it where there are doubts."""
    taken = apply_rules(drawn, sheet)
    if taken.labelled:
        changed = write_annotation(store, taken)
        done.n_annotations += 1
        done.n_written += changed
    else:
        changed = remove_annotation(store, drawn.exam_id, drawn.reader)  # what it replaces must not stay either
        done.n_empty += 1
    page = review_directory(store, drawn.exam_id) / f"annotation-{drawn.reader}.png"
    if not sheet.rows:
        page.unlink(missing_ok=True)
    elif (page.exists() and not changed and taken.labelled) or annotation_overlay(drawn, taken, sheet.rows, page):
        done.pictures.append(str(page.relative_to(store)))


@dataclass(frozen=True)
class Listed:
    """One annotation of a store."""

    exam_id: str
    reader: str
    tool: str
    drawn_at: str | None
    slices: Mapping[str, int]
    """Label array -> annotated slices."""
    n_flagged: int
    n_refused: int


def list_annotations(store: Path) -> list[Listed]:
    """All annotations of a store, by exam and reader."""
    counts = Counter((row.exam_id, row.reader, row.status) for row in read_annotation_rows(store))
    return [
        _listed(store, exam_id, reader, counts)
        for exam_id in annotated_exams(store)
        for reader in readers_of(store, exam_id)
    ]


def _listed(store: Path, exam_id: str, reader: str, counts: Mapping[tuple[str | None, str, str], int]) -> Listed:
    attributes = annotation_attributes(store, exam_id, reader)
    slices: Counter[str] = Counter()
    for key, numbers in attributes["slices"].items():
        slices[key.rsplit("/", 1)[1]] += len(numbers)
    n_flagged, n_refused = (counts.get((exam_id, reader, status), 0) for status in ("flagged", "refused"))
    return Listed(exam_id, reader, attributes["tool"], attributes["drawn_at"], dict(slices), n_flagged, n_refused)


def parse_readers(given: Sequence[str]) -> dict[str, str]:
    """`--reader` options: CODE for all, or ID=CODE for one of MD.ai's users.

    Raises
    ------
    ConfigurationError
        for a code that is none
    """
    found = {}
    for text in given:
        user, _, code = text.rpartition("=")
        found[user] = check_reader(code)
    return found
