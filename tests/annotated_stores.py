"""Small stores with annotated exams: bright bodies, dark discs and grey muscles, drawn by readers as they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from small_networks import stack_of
from synthetic_tables import VENDORS, pseudonym

from cohort.annotations.store import Annotation, write_annotation
from cohort.rows import ExamRow, FileRow
from cohort.stacks import ImageStack, LabelledStack, Labels
from cohort.store.exam import write_exam
from cohort.store.layout import exam_store_path
from cohort.tables.commit import commit
from cohort.terms import DISC, MUSCLE_LABELS, SACRAL_BODY, VERTEBRAL_BODY

SPACING_MM = 2.0
N_SLICES = 4
DRAWN = (1, 2)
"""Slices that readers drew on."""


def spine(seed: int, *, head_down: bool = False) -> tuple[ImageStack, dict[str, Labels]]:
    """Sagittal slices [4, 64, 48] of three bodies, two discs between them and a sacrum, and what they are."""
    rng = np.random.default_rng(seed)
    body, disc = np.zeros((2, N_SLICES, 64, 48), np.uint8)
    left = int(rng.integers(10, 20))
    for k in range(4):
        top = 4 + 14 * k
        body[:, top : top + 10, left : left + 14] = SACRAL_BODY if k == 3 else VERTEBRAL_BODY
        if k < 3:
            disc[:, top + 11 : top + 13, left + 1 : left + 13] = DISC
    image = 300 + 600 * (body > 0) - 200 * (disc > 0) + rng.normal(0, 20, body.shape)
    arrays = {"vertebral_body": body, "disc": disc}
    if head_down:
        image, arrays = image[:, ::-1], {name: np.ascontiguousarray(mask[:, ::-1]) for name, mask in arrays.items()}
    stack = stack_of(np.ascontiguousarray(image).clip(1, None).astype(np.uint16), "sagittal", 0, SPACING_MM,
                     head_down=head_down)  # fmt: skip
    return stack, arrays


def trunk(seed: int) -> tuple[ImageStack, dict[str, Labels]]:
    """Axial slices [4, 48, 64] of the four muscles on both sides."""
    rng = np.random.default_rng(1000 + seed)
    muscle = np.zeros((N_SLICES, 48, 64), np.uint8)
    for (_, side), value in MUSCLE_LABELS.items():
        row, column = 4 + 11 * ((value - 1) // 2), 6 if side == "right" else 38
        muscle[:, row : row + 8, column : column + 18 + int(rng.integers(0, 3))] = value
    image = 700 - 400 * (muscle > 0) + rng.normal(0, 20, muscle.shape)
    return stack_of(image.clip(1, None).astype(np.uint16), "axial", 0, SPACING_MM), {"muscle": muscle}


def sparse(mask: Labels, slices: Sequence[int]) -> Labels:
    """The mask on some slices, nothing on the others."""
    out = np.zeros_like(mask)
    out[list(slices)] = mask[list(slices)]
    return out


def annotation(
    exam_id: str,
    drawn: Sequence[tuple[ImageStack, dict[str, Labels]]],
    *,
    reader: str = "A",
    slices: Sequence[int] = DRAWN,
) -> Annotation:
    """What a reader drew who looked at some slices of each stack."""
    return Annotation(
        exam_id=exam_id,
        reader=reader,
        drawn_at=None,
        tool="test",
        labelled=[
            LabelledStack(stack, {name: sparse(mask, slices) for name, mask in arrays.items()}, {})
            for stack, arrays in drawn
        ],
        slices={(stack.plane, stack.index, name): tuple(slices) for stack, arrays in drawn for name in arrays},
        levels={},
    )


def exam_of(number: int) -> str:
    """Pseudonym of an exam."""
    return pseudonym(f"annotated exam {number}")


def subject_of(number: int) -> str:
    """Pseudonym of its patient."""
    return pseudonym(f"annotated patient {number}")


def write_annotated_store(store: Path, n: int, *, readers: Sequence[str] = ("A",)) -> None:
    """Exams of so many patients, each drawn on by each reader; every third lies head down."""
    rows = []
    for number in range(n):
        exam_id, drawn = exam_of(number), [spine(number, head_down=number % 3 == 0), trunk(number)]
        path = exam_store_path(store, exam_id, "0" * 64)
        write_exam(path, [stack for stack, _ in drawn], {})
        for reader in readers:
            write_annotation(store, annotation(exam_id, drawn, reader=reader))
        rows.append(exam_row(number, str(path.relative_to(store))))
    commit(store, "run", {"exams": rows}, touched={})


def exam_row(number: int, store_path: str | None) -> ExamRow:
    """Row of table `exams`."""
    return ExamRow(exam_id=exam_of(number), subject_id=subject_of(number), status="ok", sex="FM"[number % 2],
                   vendor=VENDORS[number // 2 % 2], store_path=store_path)  # fmt: skip


def file_row(number: int, content_sha256: str) -> FileRow:
    """Row of table `files`."""
    return FileRow(file_id=pseudonym(f"{number} {content_sha256}"), size_bytes=1, mtime_ns=1, exam_id=exam_of(number),
                   subject_id=subject_of(number), content_sha256=content_sha256)  # fmt: skip
