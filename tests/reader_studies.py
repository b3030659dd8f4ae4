"""Stores with made-up exams that several readers have annotated, and made-up pairs of readers of known agreement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import anatomy_shapes as shapes
import cv2
import numpy as np

from cohort.agreement.rows import PairRow
from cohort.annotations.store import AUTOMATIC, Annotation, write_annotation
from cohort.rows import ExamRow, LedgerRow
from cohort.stacks import LabelledStack
from cohort.store.exam import write_exam
from cohort.store.labels import write_labels
from cohort.store.layout import exam_store_path, label_store_path
from cohort.tables.commit import commit

EXAMS = ("aaaa2", "bbbb3")
"""Of the first all demographics are known; of the second person nobody knows the height."""
QUICK_RUN = """
[privacy]
key_file = "pseudonym.key"
[cluster]
workers = 1
device = "cpu"
[load]
tasks = ["standing"]
opensim_timeout_s = 0.01
[review]
overlays = false
"""
"""Configuration of a run that takes little time, with a key of its own."""
_FINGERPRINT = "0" * 64
_RUN = "20260101T000000-agree0"


@cache
def stacks(number: int, *, without: str | None = None) -> tuple[LabelledStack, ...]:
    """A sagittal and an axial stack with the true masks of one person of known shape; one structure may be left out."""
    blocks = {name: block for name, block in shapes.spine(x_mm=3.0 + number).items() if name != without}
    sagittal = shapes.sagittal_geometry(n=9, spacing=(1.1, 1.0), shape=(300, 180))
    axial = shapes.axial_geometry(n=14, spacing=1.3, size=150, middle_mm=(3.3, 40.0, 76.0))
    return shapes.sagittal_stack(blocks, sagittal), shapes.muscle_stack(axial, x_mm=3.0 + number)


def grown(labelled: Sequence[LabelledStack]) -> list[LabelledStack]:
    """The same masks, one pixel larger all around, as networks might draw them."""
    ring = np.ones((3, 3), np.uint8)
    return [
        replace(one, labels={
            name: np.where(mask > 0, mask, np.stack([cv2.dilate(plane, ring) for plane in mask])).astype(np.uint8)
            for name, mask in one.labels.items()
        })
        for one in labelled
    ]  # fmt: skip


def reading(
    exam_id: str, reader: str, labelled: Sequence[LabelledStack], slices: Mapping[str, Sequence[int]] | None = None
) -> Annotation:
    """A reader's annotation: on all slices, or of some label arrays on some slices alone."""
    seen, kept = {}, []
    for one in labelled:
        masks = {}
        for name, mask in one.labels.items():
            at = sorted((slices or {}).get(name, range(len(mask))))
            seen[one.stack.plane, one.stack.index, name] = tuple(at)
            masks[name] = np.where(np.isin(np.arange(len(mask)), at)[:, None, None], mask, 0).astype(np.uint8)
        kept.append(replace(one, labels=masks))
    return Annotation(exam_id, reader, None, "shapes", kept, seen, {})


def moved(labelled: Sequence[LabelledStack], rows: int) -> list[LabelledStack]:
    """The same masks, some rows lower in the picture."""
    return [
        replace(one, labels={name: np.roll(mask, rows, axis=1) for name, mask in one.labels.items()})
        for one in labelled
    ]


def annotated_store(store: Path) -> Path:
    """Two exams that the networks have segmented; anna annotated some sagittal slices of both, ben all of the first."""
    rows: dict[str, list[Any]] = {"exams": [], "ledger": []}
    for number, exam_id in enumerate(EXAMS):
        true = stacks(number)
        automatic = grown(true)
        exam_path, labels_path = (of(store, exam_id, _FINGERPRINT) for of in (exam_store_path, label_store_path))
        write_exam(exam_path, [one.stack for one in true], {"exam_id": exam_id})
        write_labels(labels_path, automatic, {})
        rows["exams"].append(exam_row(exam_id, str(exam_path.relative_to(store))))
        rows["ledger"].append(_segmented(exam_id, str(labels_path.relative_to(store))))
        middle = true[0].stack.geometry.n_slices // 2
        some = (middle - 2, middle, middle + 2)
        write_annotation(store, reading(exam_id, "anna", true, {"vertebral_body": some, "disc": some}))
    write_annotation(store, reading(EXAMS[0], "ben", stacks(0)))
    commit(store, _RUN, rows, touched={})
    return store


def exam_row(exam_id: str, store_path: str) -> ExamRow:
    known = exam_id == EXAMS[0]
    return ExamRow(
        exam_id=exam_id, subject_id=f"person of {exam_id}", status="ok", store_path=store_path, sex="F",
        sex_source="dicom", height_m=1.65 if known else None, height_source="dicom" if known else None, weight_kg=65.0,
        weight_source="dicom",
    )  # fmt: skip


def _segmented(exam_id: str, path: str) -> LedgerRow:
    return LedgerRow(
        exam_id=exam_id, stage="segment", fingerprint=_FINGERPRINT, status="ok", path=path, seconds=1.0, worker="cpu-0",
        run_id=_RUN,
    )  # fmt: skip


def pair(exam: int, first: float, second: float, *, reason: str | None = None, **named: Any) -> PairRow:
    """A pair of disc heights of one exam, whose person is of its own."""
    return PairRow(
        exam_id=f"exam{exam}", subject_id=f"person{exam}", quantity="disc_height_mm", structure="L4-L5", unit="mm",
        first_reader="anna", second_reader=AUTOMATIC, first=first, second=second, reason=reason, **named,
    )  # fmt: skip
