"""Which exams of a store are annotated, on how many slices, and what they have in common."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import pyarrow.dataset as ds

from cohort.anatomy.orientation import standing_order
from cohort.annotations.store import Annotation, annotated_exams, read_annotation, readers_of
from cohort.errors import ConfigurationError, StoreError
from cohort.rows import ExamRow
from cohort.stacks import ImageStack
from cohort.store.exam import StoredExam, read_exam
from cohort.tables.buckets import read_objects, table_dataset
from pipelines.study.split import NETWORKS, StudyExam

LINE_EVERY: Final = 100
"""Exams between two lines of progress."""


def study_exams(store: Path, report: Callable[[str], None]) -> list[StudyExam]:
    """All exams that a person has annotated; those that cannot be used say why.

    Raises
    ------
    StoreError
        if the store has no tables
    ConfigurationError
        if nobody has annotated anything
    """
    ids = annotated_exams(store)
    if not ids:
        raise ConfigurationError(
            "no exam of this store is annotated by a reader: `cohort annotations import` does that"
        )
    rows = exam_rows(store, ids)
    files = _files(store, ids)
    found = []
    for done, exam_id in enumerate(ids, start=1):
        found.append(_study_exam(store, exam_id, rows.get(exam_id), files.get(exam_id, set())))
        if done % LINE_EVERY == 0:
            report(f"split: {done}/{len(ids)} annotated exams looked at")
    return found


def exam_rows(store: Path, exam_ids: Sequence[str]) -> dict[str, ExamRow]:
    """Rows of table `exams` by exam; those without are left out."""
    return {row.exam_id: row for row in read_objects(store, "exams", exam_ids)}


def _files(store: Path, exam_ids: Sequence[str]) -> dict[str, set[str]]:
    """Exam -> digests of its files."""
    files = table_dataset(store, "files")
    columns = ["exam_id", "content_sha256"]
    wanted = ds.field("exam_id").isin(list(exam_ids)) & ds.field("content_sha256").is_valid()
    found: dict[str, set[str]] = defaultdict(set)
    for row in files.to_table(columns=columns, filter=wanted).to_pylist():
        found[row["exam_id"]].add(f"file {row['content_sha256']}")
    return found


def _study_exam(store: Path, exam_id: str, row: ExamRow | None, files: set[str]) -> StudyExam:
    if row is None:
        return StudyExam(exam_id=exam_id, subject_id="", reason="no_exam_store")
    if row.store_path is None or not (store / row.store_path).is_dir():
        return StudyExam(exam_id=exam_id, subject_id=row.subject_id, reason="no_exam_store")
    try:
        exam = read_exam(store / row.store_path)
        annotations = [read_annotation(store, exam, exam_id, reader) for reader in readers_of(store, exam_id)]
    except StoreError:
        return StudyExam(exam_id=exam_id, subject_id=row.subject_id, reason="annotation_misfit")
    return StudyExam(
        exam_id=exam_id,
        subject_id=row.subject_id,
        sex=row.sex,
        vendor=row.vendor,
        slices={network: n for network in NETWORKS if (n := _n_slices(annotations, network))},
        images=frozenset(files | {f"slice {digest}" for digest in slice_digests(exam)}),
    )


def _n_slices(annotations: Sequence[Annotation], name: str) -> int:
    """Slices on which anybody drew something, or said that there is nothing; 0 where nothing was drawn at all."""
    drawn = any(one.labels[name].any() for a in annotations for one in a.labelled if name in one.labels)
    slices = {
        (plane, stack, k) for a in annotations for (plane, stack, of), ks in a.slices.items() if of == name for k in ks
    }
    return len(slices) if drawn else 0


def slice_digests(exam: StoredExam) -> Iterator[str]:
    """sha256 of each slice's pixels in standing order, so that a copy with other axes is found, too; slices of one
    value, which many exams have, are left out."""
    for stack in exam.stacks:
        yield from _stack_digests(stack)


def _stack_digests(stack: ImageStack) -> Iterator[str]:
    for image in standing_order(stack.geometry, stack.plane).apply(stack.image):
        if image.min() < image.max():
            yield hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()
