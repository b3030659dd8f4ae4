"""The chain convert -> segment -> measure -> load of all exams that need it: what to start when something has ended."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from cohort.rows import LoadRow
from cohort.tables.ledger import Ledger
from pipelines.convert import ConvertTask, convert, image_sources
from pipelines.exams import ExamPlan
from pipelines.fingerprint import STAGES, later_stages
from pipelines.index import FileIndex
from pipelines.job import Job
from pipelines.load import LoadTask, engine_difference, load
from pipelines.measure import MeasureTask, measure
from pipelines.outcome import Outcome, WorkItem, commit_outcomes, each, ledger_row
from pipelines.plan import Plan
from pipelines.segment import SegmentTask, segment_batch
from pipelines.window import Stage

COMMIT_EVERY_S = 15.0
"""A killed run loses at most the results of this time."""


def chain_stages(job: Job) -> tuple[Stage, ...]:
    """How each stage is run. Loads are solved one exam a task: OpenSim's sample takes seconds, the rest
    milliseconds."""
    segment = job.config.segment
    return (
        Stage("convert", "CPU", partial(each, convert), time_limit_s=job.config.convert.time_limit_s),
        Stage("segment", "GPU", segment_batch, segment.exams_per_task(job.device), segment.time_limit_s),
        Stage("measure", "CPU", partial(each, measure)),
        Stage("load", "CPU", partial(each, load)),
    )


class Chain:
    """Turns outcomes into the next work items, and commits them as they come."""

    def __init__(self, job: Job, plans: Mapping[str, ExamPlan], plan: Plan, ledger: Ledger, index: FileIndex) -> None:
        self._job, self._plans, self._index = job, plans, index
        self._todo = {(one.exam_id, one.stage) for one in plan.todo}
        self._sample = self._sample_size(plan)
        self._uncommitted: list[Outcome] = []
        self._last_commit = time.monotonic()
        self.ledger: Ledger = dict(ledger)
        """Latest attempts, those of this run included."""
        self.n_executed = 0
        self.n_checked = 0
        """Exams re-solved with OpenSim."""
        self.largest_difference: float | None = None

    def _sample_size(self, plan: Plan) -> int:
        n_loads = sum(one.stage == "load" for one in plan.todo)
        return max(1, math.ceil(n_loads * self._job.config.load.opensim_sample)) if n_loads else 0

    def first_items(self) -> list[WorkItem]:
        """For every exam the first stage that needs work."""
        items = []
        for exam_id in self._plans:
            stage = next((stage for stage in STAGES if (exam_id, stage) in self._todo), None)
            if stage:
                items.append(self._item(exam_id, stage))
        return items

    def on_outcome(self, outcome: Outcome) -> Iterator[WorkItem]:
        """Keep an outcome and start the exam's next stage."""
        self.n_executed += 1
        self._uncommitted.append(outcome)
        self.ledger[outcome.exam_id, outcome.stage] = ledger_row(outcome, run_id=self._job.run_id)
        self._job.progress.outcome(outcome)
        self._count_check(outcome)
        if time.monotonic() - self._last_commit > COMMIT_EVERY_S:
            self.flush()
        later = later_stages(outcome.stage)
        if outcome.status in ("ok", "flagged") and later:
            yield self._item(outcome.exam_id, later[0])

    def flush(self) -> None:
        """Commit what is not committed yet."""
        if self._uncommitted:
            commit_outcomes(self._job.store, self._job.run_id, self._uncommitted)
            self._uncommitted = []
        self._last_commit = time.monotonic()

    def _count_check(self, outcome: Outcome) -> None:
        rows: list[LoadRow] = list(outcome.rows.get("loads", ()))
        difference = engine_difference(rows)
        if difference is not None:
            self.n_checked += 1
            self.largest_difference = max(difference, self.largest_difference or 0.0)

    def _item(self, exam_id: str, stage: str) -> WorkItem:
        plan = self._plans[exam_id]
        return WorkItem(exam_id, stage, plan.fingerprints[stage], self._task(plan, stage), plan.parts[stage])

    def _task(self, plan: ExamPlan, stage: str) -> Any:
        job, store = self._job, self._job.store
        if stage == "convert":
            return self._convert_task(plan)
        if stage == "segment":
            batch = job.config.segment.batch_slices
            return SegmentTask(store, plan.exam_path(store), job.networks, batch, job.device)
        if stage == "measure":
            overlays = job.config.review.overlays
            return MeasureTask(store, plan.exam_path(store), plan.labels_path(store), plan.exam.vertebrae, overlays)
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
