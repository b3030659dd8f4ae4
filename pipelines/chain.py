"""The chain convert -> segment -> measure -> load of all exams that need it: what to start when something has ended."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from cohort.tables.buckets import objects_of
from cohort.tables.ledger import Ledger, read_ledger
from cohort.tables.stages import later_stages
from pipelines.convert import ConvertTask, convert, image_sources
from pipelines.exams import ExamPlan, make_exam, plan_exam
from pipelines.index import FileIndex
from pipelines.job import Job
from pipelines.load import LoadTask, engine_difference, exams_at_once, load, load_batch
from pipelines.measure import MEASURE_BATCH, MeasureTask, measure
from pipelines.outcome import Outcome, WorkItem, commit_outcomes, each, ledger_row
from pipelines.plan import Plan
from pipelines.run_log import RunLog
from pipelines.segment import SegmentTask, segment_batch
from pipelines.summary import exam_row
from pipelines.wanted import EXAMS_PER_READ, read_exam_rows
from pipelines.window import Stage

COMMIT_EVERY_S: Final = 15.0
"""A killed run loses at most the results of this time."""

CHECKED = "load, checked"
"""Queue of the exams of stage load that OpenSim solves again."""


def chain_stages(job: Job) -> tuple[Stage, ...]:
    """How each stage is run.

    The loads of a batch of exams are one solve. Exams that OpenSim solves again have a queue of their own, one exam a
    task: they take seconds where others take milliseconds, and nobody waits for them.
    """
    config = job.config
    opensim_s = config.load.opensim_timeout_s * len(job.artefacts.tasks)
    exams_per_pass = config.segment.exams_per_task(job.device)
    return (
        Stage("convert", "CPU", partial(each, convert), time_limit_s=config.convert.time_limit_s),
        Stage("segment", "GPU", segment_batch, exams_per_pass, config.segment.time_limit_s),
        Stage("measure", "CPU", partial(each, measure), MEASURE_BATCH, config.measure.time_limit_s),
        Stage("load", "CPU", load_batch, exams_at_once(job.base_models.values()), config.load.time_limit_s),
        Stage(CHECKED, "CPU", partial(each, load), time_limit_s=config.load.time_limit_s + opensim_s),
    )


@dataclass(frozen=True)
class OpenExam:
    """An exam whose stages are under way."""

    plan: ExamPlan
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
        self._last_commit = time.monotonic()
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
            ledger = self._ledger_of(group)
            for rows in read_exam_rows(self._job, group):
                exam = make_exam(rows, self._job.subjects, self._job.config.select)
                plan = plan_exam(exam, self._job.artefacts)
                exam_id = exam.exam_id
                own = {key: ledger[key] for stage in plan.fingerprints if (key := (exam_id, stage)) in ledger}
                self._open[exam_id] = OpenExam(plan, own)
                yield self._item(plan, first[exam_id])

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
        if time.monotonic() - self._last_commit > COMMIT_EVERY_S:
            self.flush()
        if _goes_on(outcome):
            yield self._item(exam.plan, later_stages(outcome.stage)[0])
        else:
            self.n_ended += 1

    def flush(self) -> None:
        """Commit what is not committed yet, and let go of the exams that have ended."""
        if self._uncommitted:
            ids = dict.fromkeys(outcome.exam_id for outcome in self._uncommitted)
            rows = [exam_row(one.plan.exam, one.plan, one.ledger) for one in map(self._open.__getitem__, ids)]
            commit_outcomes(self._root, self._job.run_id, self._uncommitted, rows)
            for outcome in self._uncommitted:
                if not _goes_on(outcome):
                    del self._open[outcome.exam_id]
            self._uncommitted = []
        self._last_commit = time.monotonic()

    def _count_check(self, outcome: Outcome) -> None:
        loads = outcome.rows.get("loads")
        if loads is None or "opensim" not in loads["engine"].unique().to_pylist():
            return
        difference = engine_difference(objects_of("loads", loads))
        if difference is not None:
            self.n_checked += 1
            self.largest_difference = max(difference, self.largest_difference or 0.0)

    def _item(self, plan: ExamPlan, stage: str) -> WorkItem:
        task = self._task(plan, stage)
        queue = CHECKED if stage == "load" and task.with_opensim else None
        return WorkItem(plan.exam.exam_id, stage, plan.fingerprints[stage], task, plan.parts[stage], queue)

    def _task(self, plan: ExamPlan, stage: str) -> Any:
        job, store = self._job, self._job.store
        if stage == "convert":
            return self._convert_task(plan)
        if stage == "segment":
            batch = job.config.segment.batch_slices
            return SegmentTask(store, plan.exam_path(store), job.networks, batch, job.device)
        if stage == "measure":
            review = self._root if job.config.review.overlays else None
            return MeasureTask(store, plan.exam_path(store), plan.labels_path(store), plan.exam.vertebrae, review)
        return LoadTask(
            store=store,
            measured_path=plan.measured_path(store),
            demographics=plan.exam.demographics,
            tasks=job.artefacts.tasks,
            assumptions=job.artefacts.assumptions,
            base_models=job.base_models,
            with_opensim=self._draw_for_check(),
            opensim_timeout_s=job.config.load.opensim_timeout_s,
            use=job.artefacts.personalise,
            impute=job.artefacts.impute,
        )

    def _convert_task(self, plan: ExamPlan) -> ConvertTask:
        exam, source_of = plan.exam, self._index.source_of
        return ConvertTask(
            store=self._job.store,
            archive=self._job.archive,
            key_file=self._job.key_file,
            sagittal=image_sources(exam.sagittal, source_of),
            axial=image_sources(exam.axial, source_of),
            attributes={
                "subject_id": exam.subject_id,
                "vendor": exam.vendor,
                "field_t": exam.field_t,
                "axial_weighting": exam.axial_weighting,
            },
        )

    def _draw_for_check(self) -> bool:
        """The first exams that reach the stage are checked: any exam is as good as another, and waiting costs
        nothing."""
        self._sample -= 1
        return self._sample >= 0


def _goes_on(outcome: Outcome) -> bool:
    return outcome.status in ("ok", "flagged") and bool(later_stages(outcome.stage))
