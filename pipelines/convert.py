"""Stage convert: DICOM files of the chosen series -> exam store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cohort.archive.pseudonym import Pseudonyms, load_or_create_key
from cohort.store.convert import convert_exam
from cohort.store.layout import exam_store_path
from pipelines.outcome import Result, WorkItem


@dataclass(frozen=True)
class ConvertTask:
    """Where the files are and where the store goes."""

    store: Path
    archive: Path
    key_file: Path
    sagittal: tuple[str, ...]
    """Files relative to the archive."""
    axial: tuple[str, ...]
    attributes: Mapping[str, Any]


def convert(item: WorkItem) -> Result:
    """Publish the exam store of one exam."""
    task: ConvertTask = item.task
    target = exam_store_path(task.store, item.exam_id, item.fingerprint)
    converted = convert_exam(
        target,
        exam_id=item.exam_id,
        sagittal=[task.archive / relative for relative in task.sagittal],
        axial=[task.archive / relative for relative in task.axial],
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
