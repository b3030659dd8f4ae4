"""The chain convert -> segment -> measure -> load of all exams that need it: what to start when something has ended."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from cohort.tables.buckets import objects_of
from cohort.tables.ledger import Ledger, read_ledger
from cohort.tables.stages import STAGES, later_stages
from pipelines.commit_pace import CommitPace
from pipelines.convert import CONVERT_BATCH, ConvertTask, convert, image_sources
from pipelines.exams import ExamPlan
from pipelines.index import FileIndex
from pipelines.job import Job
from pipelines.load import LoadTask, engine_difference, exams_at_once, load, load_batch
from pipelines.measure import MEASURE_BATCH, MeasureTask, measure
from pipelines.outcome import Outcome, WorkItem, commit_outcomes, each, ledger_row
from pipelines.plan import Plan
from pipelines.read_exams import EXAMS_PER_READ, ChosenImages, PlannedExam, read_images, read_planned
from pipelines.run_log import RunLog
from pipelines.segment import SegmentTask, segment_batch
from pipelines.summary import exam_row
from pipelines.window import WINDOW_PER_SLOT, Stage

COMMIT_EVERY_S: Final = 15.0
"""A killed run loses at most the results of this time, or longer where commits are slow (`pipelines.commit_pace`)."""

CHECKED = "load, checked"
"""Queue of the exams of stage load that OpenSim solves again."""


def chain_stages(job: Job, *, n_exams: int, cpu_slots: int) -> tuple[Stage, ...]:
    """How each stage is run.

    A task of several exams costs the scheduler no more than one of a single exam; where there are few exams, batches
    are smaller, so that every worker gets some. The loads of a batch of exams are one solve. Exams that OpenSim solves
    again have a queue of their own, one exam a task: they take seconds where others take milliseconds, and nobody waits
    for them.

    Parameters
    ----------
    n_exams : of the plan
    cpu_slots : CPU tasks that run at once
    """
    config = job.config
    share = max(1, n_exams // (WINDOW_PER_SLOT * cpu_slots))
    opensim_s = config.load.opensim_timeout_s * len(job.artefacts.tasks)
    exams_per_pass = config.segment.exams_per_task(job.device)
    return (
        Stage("convert", "CPU", partial(each, convert), min(CONVERT_BATCH, share), config.convert.time_limit_s),
        Stage("segment", "GPU", segment_batch, exams_per_pass, config.segment.time_limit_s),
        Stage("measure", "CPU", partial(each, measure), min(MEASURE_BATCH, share), config.measure.time_limit_s),
        Stage("load", "CPU", load_batch, exams_at_once(job.base_models.values()), config.load.time_limit_s),
        Stage(CHECKED, "CPU", partial(each, load), time_limit_s=config.load.time_limit_s + opensim_s),
    )


@dataclass(frozen=True)
class OpenExam:
    """An exam whose stages are under way."""

    exam: PlannedExam
    ledger: Ledger
    """Its latest attempts, those of this run included."""


class Chain:
    """Turns outcomes into the next work items, and commits them as they come.

    Only exams that are under way are held in memory, however many wait.
    """

    def __init__(
        self, job: Job, plan: Plan, index: FileIndex, *, ledgers: Sequence[Path], root: Path, log: RunLog
    ) -> None:
        """Prepare a chain.

        Parameters
        ----------
        ledgers : folders of tables with earlier attempts; the last one counts
        root : folder whose tables, and pictures, get the results
        """
        self._job, self._plan, self._index = job, plan, index
        self._ledgers, self._root, self._log = ledgers, root, log
        self._sample = max(1, math.ceil(plan.stages["load"] * job.config.load.opensim_sample))
        self._open: dict[str, OpenExam] = {}
        self._uncommitted: list[Outcome] = []
        self._pace = CommitPace(COMMIT_EVERY_S)
        self.n_executed = 0
        self.n_ended = 0
        """Exams that came to their end."""
        self.n_checked = 0
        """Exams re-solved with OpenSim."""
        self.largest_difference: float | None = None

    def items(self) -> Iterator[WorkItem]:
        """For every exam of the plan the first stage that needs work, read from the store as they are asked for."""
        first = dict(zip(self._plan.exam_ids, self._plan.todo["stage"].to_pylist(), strict=True))
        exam_ids = list(first)
        for start in range(0, len(exam_ids), EXAMS_PER_READ):
            group = exam_ids[start : start + EXAMS_PER_READ]
            exams = read_planned(self._job, group)
            new = [exam for exam in exams if first[exam.plan.exam_id] == "convert"]
            images = read_images(self._job, [exam.selected for exam in new])
            ledger = self._ledger_of(group)
            for exam in exams:
                exam_id, stage = exam.plan.exam_id, first[exam.plan.exam_id]
                task = self._convert_task(exam, next(images)) if stage == "convert" else self._task(exam, stage)
                if task:
                    own = {key: ledger[key] for one in STAGES if (key := (exam_id, one)) in ledger}
                    self._open[exam_id] = OpenExam(exam, own)
                    yield self._item(exam.plan, stage, task)

    def _ledger_of(self, exam_ids: Sequence[str]) -> Ledger:
        found: Ledger = {}
        for folder in self._ledgers:
            found |= read_ledger(folder, exam_ids)
        return found

    def on_outcome(self, outcome: Outcome) -> Iterator[WorkItem]:
        """Keep an outcome and start the exam's next stage."""
        self.n_executed += 1
        self._uncommitted.append(outcome)
        exam = self._open[outcome.exam_id]
        exam.ledger[outcome.exam_id, outcome.stage] = ledger_row(outcome, run_id=self._job.run_id)
        for stage in later_stages(outcome.stage):
            exam.ledger.pop((outcome.exam_id, stage), None)
        self._job.progress.outcome(outcome)
        self._log.outcome(outcome)
        self._count_check(outcome)
        if self._pace.is_due:
            self.flush()
        if _goes_on(outcome):
            stage = later_stages(outcome.stage)[0]
            yield self._item(exam.exam.plan, stage, self._task(exam.exam, stage))
        else:
            self.n_ended += 1

    def flush(self) -> None:
        """Commit what is not committed yet, and let go of the exams that have ended."""
        if not self._uncommitted:
            return
        with self._pace.commit():
            ids = dict.fromkeys(outcome.exam_id for outcome in self._uncommitted)
            opened = map(self._open.__getitem__, ids)
            rows = [exam_row(one.exam.selected, one.exam.plan, one.ledger) for one in opened]
            commit_outcomes(self._root, self._job.run_id, self._uncommitted, rows)
        for outcome in self._uncommitted:
            if not _goes_on(outcome):
                del self._open[outcome.exam_id]
        self._uncommitted = []

    def _count_check(self, outcome: Outcome) -> None:
        loads = outcome.rows.get("loads")
        if loads is None or "opensim" not in loads["engine"].unique().to_pylist():
            return
        difference = engine_difference(objects_of("loads", loads))
        if difference is not None:
            self.n_checked += 1
            self.largest_difference = max(difference, self.largest_difference or 0.0)

    def _item(self, plan: ExamPlan, stage: str, task: Any) -> WorkItem:
        queue = CHECKED if stage == "load" and task.with_opensim else None
        return WorkItem(plan.exam_id, stage, plan.fingerprints[stage], task, plan.parts[stage], queue)

    def _task(self, exam: PlannedExam, stage: str) -> Any:
        job, store, plan = self._job, self._job.store, exam.plan
        if stage == "segment":
            batch = job.config.segment.batch_slices
            return SegmentTask(store, plan.exam_path, job.networks, batch, job.device)
        if stage == "measure":
            review = self._root if job.config.review.overlays else None
            return MeasureTask(store, plan.exam_path, plan.labels_path, exam.vertebrae, review)
        return LoadTask(
            store=store,
            measured_path=plan.measured_path,
            demographics=exam.demographics,
            tasks=job.artefacts.tasks,
            assumptions=job.artefacts.assumptions,
            base_models=job.base_models,
            with_opensim=self._draw_for_check(),
            opensim_timeout_s=job.config.load.opensim_timeout_s,
            use=job.artefacts.personalise,
            impute=job.artefacts.impute,
        )

    def _convert_task(self, exam: PlannedExam, images: ChosenImages) -> ConvertTask | None:
        """None where the index holds other images than those that were chosen: the next run chooses again."""
        row, source_of = exam.selected, self._index.source_of
        if images.digest(row) != exam.plan.parts["convert"].inputs:
            self._job.progress.note(f"exam {row.exam_id} is left for the next run: its files changed meanwhile")
            return None
        return ConvertTask(
            store=self._job.store,
            archive=self._job.archive,
            key_file=self._job.key_file,
            sagittal=image_sources(images.sagittal, source_of),
            axial=image_sources(images.axial, source_of),
            attributes={
                "subject_id": row.subject_id,
                "vendor": row.vendor,
                "field_t": row.field_t,
                "axial_weighting": row.axial_weighting,
            },
        )

    def _draw_for_check(self) -> bool:
        """The first exams that reach the stage are checked: any exam is as good as another, and waiting costs
        nothing."""
        self._sample -= 1
        return self._sample >= 0


def _goes_on(outcome: Outcome) -> bool:
    return outcome.status in ("ok", "flagged") and bool(later_stages(outcome.stage))
