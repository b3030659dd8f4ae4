"""Stage load: measured rows and demographics -> loads of L1 to L5, by the batch engine, and by OpenSim for a sample."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from cohort.archive.demographics import Demographics
from cohort.errors import RefusedError
from cohort.loading.assumptions import Assumptions, Personalisation
from cohort.loading.base_model import BaseModel, read_base_model
from cohort.loading.opensim_engine import solve_with_opensim
from cohort.loading.personalise import EVERYTHING
from cohort.loading.solve import STANDARD, solve_loads
from cohort.loading.subject import LoadingSubject
from cohort.loading.tasks import Task
from cohort.rows import LoadRow, QualityRow
from pipelines.loading_inputs import LoadingInputs, impute_demographics, loading_inputs
from pipelines.measure import read_rows
from pipelines.outcome import Result, WorkItem

AGREEMENT_LIMIT = 0.005
"""Largest relative difference of axial load between the engines that is not flagged (docs/loads.md)."""

UPSTREAM_LIMIT = 0.05
"""Largest relative change of an axial load, when measurements that are flagged themselves are left out, that is not
flagged (own choice; see docs/loads.md)."""
SMALLEST_LOAD_N = 1.0


@dataclass(frozen=True)
class LoadTask:
    """Whose loads, in which tasks."""

    store: Path
    measured_path: str
    """Measured rows relative to STORE."""
    demographics: Demographics
    tasks: tuple[Task, ...]
    base_models: Mapping[str, Path]
    """Sex -> .osim file."""
    with_opensim: bool
    """Solve again with OpenSim itself."""
    opensim_timeout_s: float
    use: Personalisation = EVERYTHING
    """Which measurements change the base model."""
    impute: bool = False
    """Whether a typical height or mass stands in for an unknown one."""
    assumptions: Assumptions = STANDARD


def load(item: WorkItem) -> Result:
    """Compute the loads of one exam in all tasks.

    Raises
    ------
    RefusedError
        `no_demographics` without sex, or without height and weight unless the configuration lets typical ones stand in
    """
    task: LoadTask = item.task
    demographics = task.demographics
    if task.impute and demographics.sex is not None:
        demographics = impute_demographics(demographics, _base_model(str(task.base_models[demographics.sex])))
    inputs = loading_inputs(item.exam_id, demographics, read_rows(task.store / task.measured_path), use=task.use)
    subject = inputs.subject
    base_path = task.base_models[subject.sex]
    base = _base_model(str(base_path))
    rows = [
        row
        for one in task.tasks
        for row in solve_loads(base, [subject], one, use=task.use, assumptions=task.assumptions)
    ]
    unchecked: list[QualityRow] = []
    changes = _changes_without_doubted(base, inputs, rows, task)
    if task.with_opensim:
        checked, unchecked = _opensim_rows(subject, base_path, task)
        rows += checked
    rows = [_with_doubts(row, inputs, changes) for row in rows]
    quality = [*_flags(item.exam_id, rows), *_disagreement(item.exam_id, rows), *unchecked]
    flagged = next((row.reasons for row in rows if row.status != "ok" and row.reasons), None)
    reason = quality[0].reason if quality else flagged.split("+")[0] if flagged else None
    return Result(rows={"loads": rows, "quality": quality}, status="flagged" if reason else "ok", reason=reason)


Key = tuple[str, str, str]
"""Task, level and convention of a load."""


def _changes_without_doubted(
    base: BaseModel, inputs: LoadingInputs, rows: Sequence[LoadRow], task: LoadTask
) -> dict[Key, float]:
    """Relative change of each axial load when measurements that are flagged themselves are left out; empty where none
    is. Infinite where there is no load without them."""
    if inputs.without_doubted is None:
        return {}
    try:
        without = [
            row
            for one in task.tasks
            for row in solve_loads(
                base, [inputs.without_doubted], one, use=task.use, assumptions=task.assumptions, counterfactuals=False
            )
        ]
    except RefusedError:
        return {_key(row): math.inf for row in rows}
    return {_key(row): _change(row, other) for row, other in zip(rows, without, strict=True)}


def _change(row: LoadRow, other: LoadRow) -> float:
    if other.status == "refused":
        return math.inf
    return (other.axial_n - row.axial_n) / max(abs(row.axial_n), SMALLEST_LOAD_N)


def _key(row: LoadRow) -> Key:
    return row.task, row.level, row.convention


def _opensim_rows(subject: LoadingSubject, base_path: Path, task: LoadTask) -> tuple[list[LoadRow], list[QualityRow]]:
    """Rows of the reference engine, and flags for tasks that it could not solve: those lose the check, not the load."""
    rows: list[LoadRow] = []
    flags: list[QualityRow] = []
    for one in task.tasks:
        try:
            rows += solve_with_opensim(
                base_path,
                subject,
                one,
                use=task.use,
                assumptions=task.assumptions,
                timeout_s=task.opensim_timeout_s,
            )
        except RefusedError as error:
            structure = f"opensim {one.name}"
            flags.append(QualityRow(exam_id=subject.exam_id, stage="load", reason=error.reason, structure=structure))
    return rows, flags


@lru_cache(maxsize=4)
def _base_model(path: str) -> BaseModel:
    return read_base_model(Path(path))


def _with_doubts(row: LoadRow, inputs: LoadingInputs, changes: Mapping[Key, float]) -> LoadRow:
    change = changes.get(_key(row))
    if change is not None and math.isfinite(change):
        row = replace(row, change_without_doubted=change)
    if not (inputs.doubted or (change is not None and abs(change) > UPSTREAM_LIMIT)):
        return row
    reasons = [*(row.reasons.split("+") if row.reasons else []), "upstream_untrusted"]
    return replace(row, status="refused" if row.status == "refused" else "flagged", reasons="+".join(reasons))


def _flags(exam_id: str, rows: Sequence[LoadRow]) -> list[QualityRow]:
    """One flag per reason and task."""
    seen = {(reason, row.task) for row in rows for reason in (row.reasons or "").split("+") if reason}
    return [QualityRow(exam_id=exam_id, stage="load", reason=reason, structure=task) for reason, task in sorted(seen)]


def _disagreement(exam_id: str, rows: Sequence[LoadRow]) -> list[QualityRow]:
    difference = engine_difference(rows)
    if difference is None or difference <= AGREEMENT_LIMIT:
        return []
    return [
        QualityRow(exam_id=exam_id, stage="load", reason="engines_disagree", value=difference, limit=AGREEMENT_LIMIT)
    ]


def engine_difference(rows: Sequence[LoadRow]) -> float | None:
    """Largest relative difference of axial load between batch and opensim rows; None without a pair.

    Refused rows do not count: where an engine did not converge, that is its own reason.
    """
    by_engine: dict[str, dict[tuple[str, str, str], float]] = {"batch": {}, "opensim": {}}
    for row in rows:
        if row.status == "refused":
            continue
        by_engine[row.engine][row.task, row.level, row.convention] = row.axial_n
    pairs = [
        (by_engine["batch"][key], value) for key, value in by_engine["opensim"].items() if key in by_engine["batch"]
    ]
    if not pairs:
        return None
    return max(abs(ours - theirs) / max(abs(theirs), SMALLEST_LOAD_N) for ours, theirs in pairs)
