"""Exams as the tables remember them: all their files, or what was chosen of them and what stages are to have.

Choosing series costs milliseconds an exam. It is done once (`pipelines.wanted`); what works on exams later reads the
result back.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

import pyarrow.compute as pc
import pyarrow.dataset as ds

from cohort.archive.demographics import Demographics, VertebraCount
from cohort.archive.parts import split_parts
from cohort.errors import ConfigurationError
from cohort.rows import ExamRow, FileRow, WantedRow
from cohort.tables.buckets import objects_of, read_objects, table_dataset
from pipelines.exams import NO_PART_OF_AN_EXAM, Artefacts, ExamPlan, images_digest, plan_wanted
from pipelines.job import Job

EXAMS_PER_READ: Final = 4000
"""Tables are read through for each group; rows of files stay in columns until an exam's turn comes."""


def exam_row(exams: Sequence[ExamRow], exam_id: str) -> ExamRow:
    """The row of one exam; `ConfigurationError` with the nearest name where there is none."""
    found = next((row for row in exams if row.exam_id == exam_id), None)
    if found is not None:
        return found
    ids = [row.exam_id for row in exams]
    near = [one for one in ids if one.startswith(exam_id)] or difflib.get_close_matches(exam_id, ids, n=1)
    hint = (
        f"did you mean {near[0]!r}?" if near else f"it has {len(ids)} exams; list them with: select exam_id from exams"
    )
    raise ConfigurationError(f"the store has no exam {exam_id!r}; {hint}")


@dataclass(frozen=True)
class PlannedExam:
    """An exam of which series were chosen."""

    selected: ExamRow
    """As it stands before any stage (`pipelines.summary.selected_row`)."""
    plan: ExamPlan

    @property
    def demographics(self) -> Demographics:
        """What stage load is given."""
        return demographics_of(self.selected)

    @property
    def vertebrae(self) -> VertebraCount:
        """What stage measure is given."""
        return VertebraCount(self.selected.lumbar_vertebrae, self.selected.thoracic_vertebrae)


@dataclass(frozen=True)
class ChosenImages:
    """What stage convert is given: usable and damaged rows, in the order of files and frames."""

    sagittal: tuple[FileRow, ...]
    axial: tuple[FileRow, ...]

    def digest(self, selected: ExamRow) -> str:
        """To be compared with the plan's: other images may be in the index by now."""
        return images_digest(self.sagittal, self.axial, selected.axial_weighting)


def demographics_of(row: ExamRow) -> Demographics:
    """What is known of an exam's person, from its row."""
    return Demographics(**{one.name: getattr(row, one.name) for one in fields(Demographics)})


def read_planned(job: Job, exam_ids: Sequence[str]) -> list[PlannedExam]:
    """Exams in the order of `exam_ids`, with the plans of today's code, weights and parameters.

    An exam of which no series was chosen is left out.
    """
    exams = {row.exam_id: row for row in read_objects(job.store, "exams", exam_ids)}
    wanted = {row.exam_id: row for row in read_objects(job.store, "wanted", exam_ids)}
    known = [exam_id for exam_id in exam_ids if exam_id in exams and exam_id in wanted]
    found = [_planned(exams[exam_id], wanted[exam_id], job.artefacts) for exam_id in known]
    return [exam for exam in found if exam]


def _planned(row: ExamRow, wanted: WantedRow, artefacts: Artefacts) -> PlannedExam | None:
    plan = plan_wanted(wanted, artefacts)
    selected = replace(row, status=wanted.selected_status, reason=wanted.selected_reason, store_path=None)
    return PlannedExam(selected, plan) if plan else None


def read_exam_rows(job: Job, exam_ids: Sequence[str]) -> Iterator[list[FileRow]]:
    """All rows of each exam, in the order of `exam_ids`; an exam without rows is left out."""
    usable = ~pc.coalesce(ds.field("reason"), "").isin(sorted(NO_PART_OF_AN_EXAM))
    for start in range(0, len(exam_ids), EXAMS_PER_READ):
        group = exam_ids[start : start + EXAMS_PER_READ]
        files = _FilesByExam(job, ds.field("exam_id").isin(group) & usable)
        yield from filter(None, map(files.rows, group))


def read_images(job: Job, exams: Sequence[ExamRow]) -> Iterator[ChosenImages]:
    """The chosen images of each exam; empty where its series are no longer in the index."""
    series = {one for row in exams for one in (row.sagittal_series_id, row.axial_series_id) if one}
    of_these = ds.field("exam_id").isin([row.exam_id for row in exams])
    files = _FilesByExam(job, of_these & ds.field("series_id").isin(sorted(series)))
    for row in exams:
        rows = files.rows(row.exam_id)
        yield ChosenImages(
            sagittal=chosen_part(rows, row.sagittal_series_id, row.sagittal_part),
            axial=chosen_part(rows, row.axial_series_id, row.axial_part),
        )


def chosen_part(rows: Sequence[FileRow], series_id: str | None, number: int | None) -> tuple[FileRow, ...]:
    """Rows of the chosen part of a series among rows of its exam; none where nothing was chosen."""
    if number is None:
        return ()
    parts = split_parts([row for row in rows if row.series_id == series_id])
    return parts[number].rows if number < len(parts) else ()


class _FilesByExam:
    """Rows of the table `files` under a filter, as columns."""

    def __init__(self, job: Job, where: pc.Expression) -> None:
        self._table = table_dataset(job.store, "files").to_table(filter=where).sort_by("exam_id").combine_chunks()
        runs = pc.run_end_encode(self._table["exam_id"].combine_chunks())
        ends: list[int] = runs.run_ends.to_pylist()
        self._place = dict(zip(runs.values.to_pylist(), zip([0, *ends], ends, strict=False), strict=True))

    def rows(self, exam_id: str) -> list[FileRow]:
        """Rows of one exam; none where there are none."""
        begin, end = self._place.get(exam_id, (0, 0))
        return objects_of("files", self._table.slice(begin, end - begin))
