"""From the file index to exams: which series, whose demographics, and what each stage must have as its fingerprint."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
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
from cohort.rows import FileRow, QualityRow, WantedRow
from cohort.store.layout import exam_store_path, label_store_path, measure_path
from cohort.tables.stages import STAGES
from pipelines.fingerprint import NOTHING, STAGE_VERSIONS, Parts, chained, digest, digest_of_plain


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
    def is_hashed(self) -> bool:
        """Whether the content of all chosen files is known."""
        return all(row.content_sha256 for row in self.chosen)

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
    assumptions: Assumptions = field(default_factory=Assumptions)
    personalise: Personalisation = field(default_factory=Personalisation)
    """Which measurements change the base model."""
    impute: bool = False
    """Whether a typical height or mass stands in for an unknown one."""

    def parts(self, stage: str, inputs: str, sex: str | None) -> Parts:
        """What the fingerprint of a stage of one exam is made of.

        Parameters
        ----------
        inputs : digest of what the stage is given of this exam
        sex : F or M, which decides the base model; None where unknown
        """
        parameters, artefacts = self._shared[stage, sex if stage == "load" else None]
        return Parts(STAGE_VERSIONS[stage], inputs, parameters, artefacts)

    @cached_property
    def recipe(self) -> str:
        """Digest of all that is the same for every exam."""
        shared = [[stage, sex, *parts] for (stage, sex), parts in self._shared.items()]
        return digest([STAGE_VERSIONS, shared])

    @cached_property
    def models(self) -> str:
        """Digest of code versions, weights and base models: what a change of numbers is compared for."""
        return digest([STAGE_VERSIONS, self.weights, self.base_models])

    @cached_property
    def _shared(self) -> dict[tuple[str, str | None], tuple[str, str]]:
        """Stage and sex -> digests of parameters and artefacts."""
        names = ("tasks", "assumptions", "personalise", "impute")
        of_loads = digest({name: getattr(self, name) for name in names})
        sexes = (None, *self.base_models)
        return {
            ("convert", None): (NOTHING, NOTHING),
            ("segment", None): (NOTHING, digest(self.weights)),
            ("measure", None): (NOTHING, NOTHING),
            **{("load", sex): (of_loads, digest(self.base_models[sex]) if sex else NOTHING) for sex in sexes},
        }


WITH_INPUTS: Final = ("convert", "measure", "load")
"""Stages that are given something of the exam itself."""

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
    return [make_exam(groups[exam_id], subjects, rules) for exam_id in sorted(groups)]


def make_exam(rows: Sequence[FileRow], subjects: SubjectTable | None, rules: SelectRules = STANDARD_RULES) -> Exam:
    """One exam from all its rows (but those of `NO_PART_OF_AN_EXAM`)."""
    exam_id = str(rows[0].exam_id)
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
    """What each stage of one exam is to have, and the paths that follow from it."""

    exam_id: str
    parts: Mapping[str, Parts]
    """Stage -> what its fingerprint is made of."""

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Stage -> fingerprint, in the order of the chain; each stage's is the next one's upstream."""
        return chained(self.parts)

    @property
    def exam_path(self) -> str:
        """Exam store relative to STORE."""
        return str(exam_store_path(Path(), self.exam_id, self.fingerprints["convert"]))

    @property
    def labels_path(self) -> str:
        """Label store relative to STORE."""
        return str(label_store_path(Path(), self.exam_id, self.fingerprints["segment"]))

    @property
    def measured_path(self) -> str:
        """Measured rows relative to STORE."""
        return str(measure_path(Path(), self.exam_id, self.fingerprints["measure"]))


def plan_exam(exam: Exam, artefacts: Artefacts) -> ExamPlan:
    """Gather what the stages depend on: convert on the chosen images alone, measure on the known number of vertebrae,
    load on demographics, tasks, assumptions and base models.

    Rules of the selection count through the images that they choose: a rule that changes no choice redoes nothing.
    """
    inputs = {
        "convert": images_digest(exam.sagittal, exam.axial, exam.axial_weighting),
        "measure": digest(exam.vertebrae),
        "load": digest(exam.demographics),
    }
    return make_plan(exam.exam_id, inputs, exam.demographics.sex, artefacts)


def plan_wanted(row: WantedRow, artefacts: Artefacts) -> ExamPlan | None:
    """The plan of an exam from its row in the table `wanted`; None where no series was chosen."""
    if row.convert is None:
        return None
    inputs = {stage: getattr(row, f"{stage}_inputs") for stage in WITH_INPUTS}
    return make_plan(row.exam_id, inputs, row.sex, artefacts)


def make_plan(exam_id: str, inputs: Mapping[str, str], sex: str | None, artefacts: Artefacts) -> ExamPlan:
    """A plan from digests of what the stages are given of the exam itself.

    Parameters
    ----------
    inputs : stage -> digest, of the stages of `WITH_INPUTS`
    sex : F or M, which decides the base model; None where unknown
    """
    return ExamPlan(exam_id, {stage: artefacts.parts(stage, inputs.get(stage, NOTHING), sex) for stage in STAGES})


def images_digest(sagittal: Iterable[FileRow], axial: Iterable[FileRow], axial_weighting: str | None) -> str:
    """Digest of the images that conversion is given."""
    images = {"sagittal": _images(sagittal), "axial": _images(axial), "axial_weighting": axial_weighting}
    return digest_of_plain(images)


def _images(rows: Iterable[FileRow]) -> list[list[str | int]]:
    """SOP instance, frame (-1 in a single-frame file) and file content of each image, in an order of their own."""
    return sorted(
        [row.instance_id or "", -1 if row.frame is None else row.frame, row.content_sha256 or ""] for row in rows
    )
