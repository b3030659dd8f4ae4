"""Stage convert: DICOM images of the chosen series -> exam store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cohort.archive.pseudonym import Pseudonyms, load_or_create_key
from cohort.archive.source import FileSource, ImageSource
from cohort.rows import FileRow
from cohort.store.convert import convert_exam
from cohort.store.layout import exam_store_path
from pipelines.outcome import Result, WorkItem

CONVERT_BATCH: Final = 32
"""Exams of one task, each a quarter of a second to a second: a task costs client and scheduler some milliseconds, and
lasts some 8 to 30 s."""


@dataclass(frozen=True)
class ConvertTask:
    """Where the images are and where the store goes."""

    store: Path
    archive: Path
    key_file: Path
    sagittal: tuple[ImageSource, ...]
    axial: tuple[ImageSource, ...]
    attributes: Mapping[str, Any]


def image_sources(rows: Iterable[FileRow], source_of: Callable[[FileRow], FileSource]) -> tuple[ImageSource, ...]:
    """Files of rows, each with the frames that the rows stand for."""
    frames: dict[FileSource, list[int]] = {}
    for row in rows:
        of_file = frames.setdefault(source_of(row), [])
        if row.frame is not None:
            of_file.append(row.frame)
    return tuple(ImageSource(file, tuple(sorted(numbers)) or None) for file, numbers in frames.items())


def convert(item: WorkItem) -> Result:
    """Publish the exam store of one exam."""
    task: ConvertTask = item.task
    target = exam_store_path(task.store, item.exam_id, item.fingerprint)
    converted = convert_exam(
        target,
        archive=task.archive,
        exam_id=item.exam_id,
        sagittal=task.sagittal,
        axial=task.axial,
        attributes={**task.attributes, "fingerprint": item.fingerprint},
        pseudonyms=Pseudonyms(load_or_create_key(task.key_file)),
    )
    flags = converted.quality
    return Result(
        rows={"quality": flags},
        path=str(target.relative_to(task.store)),
        status="flagged" if flags else "ok",
        reason=flags[0].reason if flags else None,
    )
