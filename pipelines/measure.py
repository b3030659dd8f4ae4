"""Stage measure: label store -> rows of anatomy, kept as JSON beside the stores for the stage that follows, and
overlays."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cohort.anatomy.measure import Measurements, measure_exam
from cohort.archive.demographics import VertebraCount
from cohort.review.overlay import write_overlays
from cohort.rows import TABLES
from cohort.stacks import LabelledStack
from cohort.store.exam import StoredExam, read_exam
from cohort.store.labels import read_labels
from cohort.store.layout import measure_path, review_directory
from cohort.store.publish import replacing
from pipelines.outcome import Result, WorkItem

MEASURE_BATCH: Final = 16
"""Exams of one task: half a second to a second each, and about as long again for the pictures, so a task lasts some 8
to 30 s. More exams would save little of the milliseconds that a task costs, and those of a killed task run again."""


@dataclass(frozen=True)
class MeasureTask:
    """Which masks to measure."""

    store: Path
    exam_path: str
    """Exam store relative to STORE."""
    labels_path: str
    """Label store relative to STORE."""
    vertebrae: VertebraCount
    review: Path | None
    """Folder whose review pictures are made anew: STORE, or where numbers wait for acceptance; None for no pictures."""


def measure(item: WorkItem) -> Result:
    """Measure one exam."""
    task: MeasureTask = item.task
    exam = read_exam(task.store / task.exam_path)
    labelled = read_labels(task.store / task.labels_path, exam)
    found = measure_labelled(item.exam_id, labelled, task.vertebrae, t2_axial=is_t2_axial(exam))
    rows = measured_rows(found)
    target = measure_path(task.store, item.exam_id, item.fingerprint)
    write_rows(target, rows)
    if task.review:
        write_overlays(review_directory(task.review, item.exam_id), found)
    return Result(
        rows=rows,
        path=str(target.relative_to(task.store)),
        status="ok" if found.status == "ok" else "flagged",
        reason=found.reason,
    )


def is_t2_axial(exam: StoredExam) -> bool:
    """Whether the axial images of an exam are T2-weighted, for want of T1."""
    return exam.attributes.get("axial_weighting") == "t2"


def measure_labelled(
    exam_id: str, labelled: Sequence[LabelledStack], vertebrae: VertebraCount, *, t2_axial: bool
) -> Measurements:
    """Measure the masks of one exam, of whatever origin: of several sagittal stacks the fullest, and all axial ones."""
    found = measure_exam(
        exam_id,
        _fullest_sagittal(labelled),
        [one for one in labelled if one.stack.plane == "axial"],
        n_lumbar=vertebrae.lumbar,
        n_thoracic=vertebrae.thoracic,
    )
    return _with_doubtful_muscles(found) if t2_axial else found


def _with_doubtful_muscles(found: Measurements) -> Measurements:
    """Flag the muscles of T2 images: the network has learned T1, and lean tissue is told from fat otherwise."""
    return dataclasses.replace(
        found,
        muscles=tuple(_doubtful(row) for row in found.muscles),
        muscle_levels=tuple(_doubtful(row) for row in found.muscle_levels),
    )


def _doubtful(row: Any) -> Any:
    status = "flagged" if row.status == "ok" else row.status
    return dataclasses.replace(row, status=status, reasons="+".join(filter(None, (row.reasons, "t2_axial"))))


def _fullest_sagittal(labelled: Sequence[LabelledStack]) -> LabelledStack | None:
    sagittal = [one for one in labelled if one.stack.plane == "sagittal"]
    return max(sagittal, key=lambda one: one.stack.geometry.n_slices, default=None)


def measured_rows(found: Measurements) -> dict[str, list[Any]]:
    """Rows of one exam by table."""
    return {
        "vertebrae": list(found.vertebrae),
        "discs": list(found.discs),
        "muscles": list(found.muscles),
        "muscle_levels": list(found.muscle_levels),
        "curvature": [found.curvature] if found.curvature else [],
        "quality": list(found.quality),
    }


def write_rows(path: Path, rows: dict[str, list[Any]]) -> None:
    """Write rows as JSON, visible only when complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {table: [dataclasses.asdict(row) for row in group] for table, group in rows.items()}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, allow_nan=False))


def read_rows(path: Path) -> dict[str, list[Any]]:
    """Read what `write_rows` wrote."""
    content = json.loads(path.read_text())
    return {table: [TABLES[table](**row) for row in group] for table, group in content.items()}
