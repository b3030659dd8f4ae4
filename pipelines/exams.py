"""From the file index to exams: which series, whose demographics, and what each stage must have as its fingerprint."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cohort.archive.candidates import STANDARD_RULES, SelectRules
from cohort.archive.demographics import (
    Demographics,
    SubjectTable,
    VertebraCount,
    exam_demographics,
    exam_vertebrae,
)
from cohort.archive.select import Choice, Selection, select_series
from cohort.loading.assumptions import Assumptions, Personalisation
from cohort.loading.tasks import Task
from cohort.rows import FileRow, QualityRow
from cohort.store.layout import exam_store_path, label_store_path, measure_path
from pipelines.fingerprint import fingerprint
from pipelines.plan import Wanted


@dataclass(frozen=True)
class Exam:
    """One exam of the archive as it stands today."""

    exam_id: str
    subject_id: str
    selection: Selection
    demographics: Demographics
    """Effective: the subject table before the files."""
    vertebrae: VertebraCount
    flags: tuple[QualityRow, ...]
    """Of demographics and vertebrae."""
    sagittal: tuple[FileRow, ...]
    """Rows of the chosen part: slices or frames that conversion reads, truncated ones too, because it says what became
    of each."""
    axial: tuple[FileRow, ...]
    vendor: str | None
    field_t: float | None

    @property
    def chosen(self) -> tuple[FileRow, ...]:
        """Rows of both chosen parts."""
        return (*self.sagittal, *self.axial)

    @property
    def axial_weighting(self) -> str | None:
        """Weighting of the axial images: t1; t2 where the rules accept it."""
        return self.selection.axial.weighting if self.selection.axial else None


@dataclass(frozen=True)
class Artefacts:
    """Hashes of everything a run brings with it that results depend on."""

    weights: Mapping[str, str]
    """Label array -> sha256 of the network (weights, and how slices are given to it)."""
    base_models: Mapping[str, str]
    """Sex -> sha256 of the base model's tables."""
    tasks: tuple[Task, ...]
    assumptions: Assumptions
    personalise: Personalisation = field(default_factory=Personalisation)
    """Which measurements change the base model."""
    impute: bool = False
    """Whether a typical height or mass stands in for an unknown one."""


NO_PART_OF_AN_EXAM: Final = frozenset(("container", "not_mr", "not_an_image"))
"""Reasons of files that say nothing on an MR exam: they stay in the file index alone."""


def group_exams(
    rows: Iterable[FileRow], subjects: SubjectTable | None, rules: SelectRules = STANDARD_RULES
) -> list[Exam]:
    """Exams in the order of their pseudonyms. Files without an exam stay in the file index alone."""
    groups: defaultdict[str, list[FileRow]] = defaultdict(list)
    for row in rows:
        if row.exam_id and row.reason not in NO_PART_OF_AN_EXAM:
            groups[row.exam_id].append(row)
    return [_exam(exam_id, groups[exam_id], subjects, rules) for exam_id in sorted(groups)]


def _exam(exam_id: str, rows: Sequence[FileRow], subjects: SubjectTable | None, rules: SelectRules) -> Exam:
    rows = sorted(rows, key=lambda row: (row.file_id, -1 if row.frame is None else row.frame))
    selection = select_series(rows, rules)
    demographics, flags = exam_demographics(rows, subjects)
    vertebrae, doubts = exam_vertebrae(rows, subjects)
    return Exam(
        exam_id=exam_id,
        subject_id=next((row.subject_id for row in rows if row.subject_id), exam_id),
        selection=selection,
        demographics=demographics,
        vertebrae=vertebrae,
        flags=(*flags, *doubts),
        sagittal=_rows(selection.sagittal),
        axial=_rows(selection.axial),
        vendor=next((row.vendor for row in rows if row.vendor), None),
        field_t=next((row.field_t for row in rows if row.field_t), None),
    )


def _rows(choice: Choice | None) -> tuple[FileRow, ...]:
    return choice.rows if choice else ()


@dataclass(frozen=True)
class ExamPlan:
    """Fingerprint of every stage of one exam, and the paths that follow from them."""

    exam: Exam
    convert: str
    segment: str
    measure: str
    load: str

    @property
    def wanted(self) -> list[Wanted]:
        """Stages in the order of the chain."""
        stages = ("convert", "segment", "measure", "load")
        return [Wanted(self.exam.exam_id, stage, getattr(self, stage)) for stage in stages]

    def exam_path(self, store: Path) -> str:
        """Exam store relative to STORE."""
        return str(exam_store_path(store, self.exam.exam_id, self.convert).relative_to(store))

    def labels_path(self, store: Path) -> str:
        """Label store relative to STORE."""
        return str(label_store_path(store, self.exam.exam_id, self.segment).relative_to(store))

    def measured_path(self, store: Path) -> str:
        """Measured rows relative to STORE."""
        return str(measure_path(store, self.exam.exam_id, self.measure).relative_to(store))


def plan_exam(exam: Exam, artefacts: Artefacts) -> ExamPlan:
    """Chain the fingerprints: convert depends on the chosen images alone, measure on the known number of vertebrae,
    load alone on demographics, tasks, assumptions and base models.

    Rules of the selection count through the images that they choose: a rule that changes no choice redoes nothing.
    """
    inputs = {"sagittal": _images(exam.sagittal), "axial": _images(exam.axial), "axial_weighting": exam.axial_weighting}
    convert = fingerprint("convert", inputs=inputs)
    segment = fingerprint("segment", upstream=[convert], artefacts=artefacts.weights)
    measure = fingerprint("measure", inputs=exam.vertebrae, upstream=[segment])
    sex = exam.demographics.sex
    load = fingerprint(
        "load",
        inputs=exam.demographics,
        parameters={
            "tasks": artefacts.tasks,
            "assumptions": artefacts.assumptions,
            "personalise": artefacts.personalise,
            "impute": artefacts.impute,
        },
        upstream=[measure],
        artefacts={"base_model": artefacts.base_models[sex]} if sex else {},
    )
    return ExamPlan(exam, convert, segment, measure, load)


def _images(rows: Iterable[FileRow]) -> list[list[str | int]]:
    """SOP instance, frame (-1 in a single-frame file) and file content of each image, in an order of their own."""
    return sorted(
        [row.instance_id or "", -1 if row.frame is None else row.frame, row.content_sha256 or ""] for row in rows
    )
