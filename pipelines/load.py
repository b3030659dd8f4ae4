"""Stage load: measured rows and demographics -> loads of L1 to L5, by the batch engine, and by OpenSim for a sample."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final, TypeVar

from cohort.archive.demographics import Demographics
from cohort.errors import RefusedError
from cohort.loading.assumptions import Assumptions, Personalisation
from cohort.loading.base_model import BaseModel, read_base_model
from cohort.loading.opensim_engine import solve_with_opensim
from cohort.loading.personalise import EVERYTHING
from cohort.loading.solve import STANDARD, solve_each
from cohort.loading.subject import LoadingSubject
from cohort.loading.tasks import Task
from cohort.rows import LoadRow, QualityRow
from pipelines.loading_inputs import LoadingInputs, impute_demographics, loading_inputs
from pipelines.measure import read_rows
from pipelines.outcome import Outcome, Result, WorkItem, guarded

AGREEMENT_LIMIT = 0.005
"""Largest relative difference of axial load between the engines that is not flagged (docs/loads.md)."""

UPSTREAM_LIMIT = 0.05
"""Largest relative change of an axial load, when measurements that are flagged themselves are left out, that is not
flagged (own choice; see docs/loads.md)."""
SMALLEST_LOAD_N = 1.0

BATCH_SIZE: Final = 64
"""Exams of one task, about a second. More save hardly any time: benchmarks/loads.py."""

WORST_FIRST: Final = (
    "not_converged",
    "not_in_equilibrium",
    "engines_disagree",
    "upstream_untrusted",
    "fibre_length_out_of_range",
    "implausible_posture",
    "implausible_curvature",
    "lumbar_variant",
    "extreme_demographics",
    "imputed_demographics",
    "implausible_csa",
    "implausible_position",
    "lateral_curvature",
    "curvature_gap",
    "default_curvature",
    "default_strength",
    "default_position",
    "muscle_missing",
    "muscle_saturated",
)
"""Reasons that flag loads; of those that an exam has, the ledger names the first (own order: no valid number, doubtful
number, doubtful input, missing input, remark)."""

Answer = TypeVar("Answer")


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


@dataclass(frozen=True)
class Settings:
    """What exams must have in common to be solved together."""

    base_model: Path
    tasks: tuple[Task, ...]
    use: Personalisation
    assumptions: Assumptions


@dataclass(frozen=True)
class Person:
    """One exam in front of the solver."""

    task: LoadTask
    settings: Settings
    inputs: LoadingInputs


@dataclass(frozen=True)
class Solved:
    """What the batch engine found for one person."""

    rows: list[LoadRow]
    without_doubted: list[LoadRow] | RefusedError | None
    """Loads without measurements that are flagged themselves, or why there are none; None where none is flagged."""


def exams_at_once(base_models: Iterable[Path]) -> int:
    """Exams of one task of the stage: `BATCH_SIZE`, but one where OpenSim finds paths around surfaces, person by
    person: then a batch saves nothing and its last exam would wait for the others."""
    return 1 if any(_base_model(str(path)).wrapped.any() for path in base_models) else BATCH_SIZE


def load(item: WorkItem) -> Result:
    """Compute the loads of one exam in all tasks, and again with OpenSim where its task asks for it.

    Raises
    ------
    RefusedError
        `no_demographics` without sex, or without height and weight unless the configuration lets typical ones stand
        in; `lumbar_variant`, `implausible_geometry` and `not_converged` where there is no load
    """
    (answer,) = _answers([item])
    return _unwrapped(answer)


def load_batch(items: Sequence[WorkItem]) -> list[Outcome]:
    """Compute the loads of many exams; those with the same base model and settings in one solve.

    Nothing is raised: a refusal or an exception is the outcome of its own exam. What an exam gets does not depend on
    the others. Its seconds are its share of the batch.
    """
    started = time.perf_counter()
    answers = _answers(items)
    share_s = (time.perf_counter() - started) / max(len(items), 1)
    return [_outcome(item, answer, share_s) for item, answer in zip(items, answers, strict=True)]


def _outcome(item: WorkItem, answer: Result | Exception, share_s: float) -> Outcome:
    outcome = guarded(lambda _: _unwrapped(answer), item)
    return replace(outcome, seconds=round(outcome.seconds + share_s, 3))


def _unwrapped(answer: Result | Exception) -> Result:
    if isinstance(answer, Exception):
        raise answer
    return answer


def _answers(items: Sequence[WorkItem]) -> list[Result | Exception]:
    """Result of every item, or what kept it from one."""
    return solve_people([tried(_person, item) for item in items])


def solve_people(people: Sequence[Person | Exception]) -> list[Result | Exception]:
    """Loads and flags of every person, or what kept them from any; persons of the same settings in one solve."""
    groups: defaultdict[Settings, dict[int, LoadingInputs]] = defaultdict(dict)
    for at, person in enumerate(people):
        if isinstance(person, Person):
            groups[person.settings][at] = person.inputs
    found: dict[int, Solved | Exception] = {}
    for settings, members in groups.items():
        found.update(zip(members, _solved(settings, list(members.values())), strict=True))
    return [
        person if isinstance(person, Exception) else tried(_result, person, found[at])
        for at, person in enumerate(people)
    ]


def tried(function: Callable[..., Answer], *arguments: Any) -> Answer | Exception:
    """What a function returns or raises: an exam's own error must not end its batch."""
    try:
        return function(*arguments)
    except Exception as error:  # becomes the exam's outcome in `guarded`
        return error


def _person(item: WorkItem) -> Person:
    task: LoadTask = item.task
    return person_of(item.exam_id, task, read_rows(task.store / task.measured_path))


def person_of(exam_id: str, task: LoadTask, rows: Mapping[str, Sequence[Any]]) -> Person:
    """One exam in front of the solver, from its measured rows; raises `RefusedError` as `loading_inputs` does."""
    demographics = task.demographics
    if task.impute and demographics.sex is not None:
        demographics = impute_demographics(demographics, _base_model(str(task.base_models[demographics.sex])))
    inputs = loading_inputs(exam_id, demographics, rows, use=task.use)
    base_model = task.base_models[inputs.subject.sex]
    return Person(task, Settings(base_model, task.tasks, task.use, task.assumptions), inputs)


def _solved(settings: Settings, group: Sequence[LoadingInputs]) -> list[Solved | Exception]:
    """Solve a group at once; if that fails as a whole, one by one, so that exactly the exam that caused it has it."""
    try:
        return _solved_together(settings, group)
    except Exception as error:  # becomes an outcome in `guarded`
        if len(group) == 1:
            return [error]
        return [answer for inputs in group for answer in _solved(settings, [inputs])]


def _solved_together(settings: Settings, group: Sequence[LoadingInputs]) -> list[Solved | Exception]:
    """Two solves for all: with every measurement, and without those that are flagged themselves."""
    base = _base_model(str(settings.base_model))
    solve = partial(solve_each, base, tasks=settings.tasks, use=settings.use, assumptions=settings.assumptions)
    whole = solve([inputs.subject for inputs in group])
    others = {at: inputs.without_doubted for at, inputs in enumerate(group) if inputs.without_doubted is not None}
    without = dict(zip(others, solve(list(others.values()), counterfactuals=False), strict=True))
    return [
        answer if isinstance(answer, RefusedError) else Solved(answer, without.get(at))
        for at, answer in enumerate(whole)
    ]


def _result(person: Person, solved: Solved | Exception) -> Result:
    """Rows, flags and doubts of one exam."""
    if isinstance(solved, Exception):
        raise solved
    task, inputs = person.task, person.inputs
    rows = list(solved.rows)
    unchecked: list[QualityRow] = []
    if task.with_opensim:
        checked, unchecked = _opensim_rows(inputs.subject, person.settings.base_model, task)
        rows += checked
    changes = _changes_without_doubted(solved)
    rows = [_with_doubts(row, inputs, changes) for row in rows]
    exam_id = inputs.subject.exam_id
    disagreement = _disagreement(exam_id, rows)
    quality = [*_flags(exam_id, rows), *disagreement, *unchecked]
    own = [row for row in rows if row.engine == "batch"]
    reason = _worst([*_reasons(own), *(flag.reason for flag in disagreement)])
    if reason is None and quality:
        reason = quality[0].reason
    return Result(rows={"loads": rows, "quality": quality}, status="flagged" if reason else "ok", reason=reason)


def _reasons(rows: Iterable[LoadRow]) -> list[str]:
    return [reason for row in rows for reason in (row.reasons or "").split("+") if reason]


def _worst(reasons: Sequence[str]) -> str | None:
    return next((reason for reason in WORST_FIRST if reason in reasons), reasons[0] if reasons else None)


Key = tuple[str, str, str]
"""Task, level and convention of a load."""


def _changes_without_doubted(solved: Solved) -> dict[Key, float]:
    """Relative change of each axial load when measurements that are flagged themselves are left out; empty where none
    is. Infinite where there is no load without them."""
    without = solved.without_doubted
    if without is None:
        return {}
    if isinstance(without, RefusedError):
        return {_key(row): math.inf for row in solved.rows}
    return {_key(row): _change(row, other) for row, other in zip(solved.rows, without, strict=True)}


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
    seen = {(reason, row.task) for row in rows for reason in _reasons([row])}
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
