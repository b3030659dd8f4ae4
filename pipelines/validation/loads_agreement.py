"""Our engine against OpenSim's static optimisation and joint reaction, on the same personalised models."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import numpy as np

from cohort.errors import RefusedError
from cohort.loading.base_model import Floats
from cohort.loading.opensim_engine import solve_with_opensim
from cohort.loading.solve import CONVENTIONS, solve_loads
from cohort.loading.subject import LoadingSubject
from cohort.loading.tasks import Task
from cohort.rows import LoadRow
from pipelines.validation.loads_models import NamedModel, Table, by_level
from pipelines.validation.loads_people import random_person
from pipelines.validation.real_scans import Report

PROCESSES: Final = 2
TIMEOUT_S: Final = 180.0
PROGRESS_EVERY: Final = 20
LIMIT: Final = {False: 0.001, True: 0.005}
"""Largest relative difference of axial load that was asked for: shipped models, public ones."""


@dataclass(frozen=True, eq=False)
class Pair:
    """Loads of one person in one task by both engines."""

    model: str
    task: str
    axial_n: Floats
    """[engine, convention, 5] batch, then opensim; L1 to L5."""
    shear_n: Floats
    """[engine, convention, 2, 5] forward and lateral."""

    @property
    def axial_difference(self) -> Floats:
        """[convention, 5] relative to OpenSim's load."""
        return np.abs(self.axial_n[0] - self.axial_n[1]) / np.maximum(np.abs(self.axial_n[1]), 1.0)

    @property
    def shear_difference(self) -> Floats:
        """[convention, 2, 5] relative to OpenSim's whole force on the vertebra: shear by itself may be nought."""
        whole = np.sqrt(self.axial_n[1] ** 2 + (self.shear_n[1] ** 2).sum(axis=1))
        return np.abs(self.shear_n[0] - self.shear_n[1]) / np.maximum(whole, 1.0)[:, None]


@dataclass(frozen=True)
class Unsolved:
    """A case that has no loads to compare: one of the engines could not solve it."""

    model: str
    task: str
    reason: str


Case = tuple[NamedModel, Task, LoadingSubject]


def compare_engines(
    models: Sequence[NamedModel], tasks: Sequence[Task], n: int, report: Report
) -> tuple[list[Pair], list[Unsolved]]:
    """Solve `n` random people of every model in every task with both engines.

    OpenSim runs in children of its own, two at a time, each with a time limit.
    """
    cases = [
        (model, task, random_person(model.base, model.sex, number))
        for number, model, task in product(range(n), models, tasks)
    ]
    solved: list[Pair] = []
    unsolved: list[Unsolved] = []
    with ThreadPoolExecutor(PROCESSES) as pool:
        for number, outcome in enumerate(pool.map(_solve, cases), start=1):
            (solved if isinstance(outcome, Pair) else unsolved).append(outcome)
            if number % PROGRESS_EVERY == 0 or number == len(cases):
                report(f"{number} of {len(cases)} cases solved with OpenSim")
    return solved, unsolved


def _solve(case: Case) -> Pair | Unsolved:
    model, task, subject = case
    try:
        theirs = solve_with_opensim(model.base.osim_path, subject, task, timeout_s=TIMEOUT_S)
    except RefusedError as error:
        return Unsolved(model.name, task.name, error.reason)
    both = (solve_loads(model.base, [subject], task), theirs)
    refused = next((row.reasons for rows in both for row in rows if row.status == "refused" and row.reasons), None)
    if refused:
        return Unsolved(model.name, task.name, refused.split("+")[0])
    return Pair(
        model=model.name,
        task=task.name,
        axial_n=np.array([[by_level(rows, convention)[0] for convention in CONVENTIONS] for rows in both]),
        shear_n=np.array([[_shear(rows, convention) for convention in CONVENTIONS] for rows in both]),
    )


def _shear(rows: Sequence[LoadRow], convention: str) -> Floats:
    return np.array([by_level(rows, convention, column)[0] for column in ("shear_ap_n", "shear_lateral_n")])


def agreement_table(models: Sequence[NamedModel], pairs: Sequence[Pair], unsolved: Sequence[Unsolved]) -> Table:
    """Largest and median differences by model and task, all levels and both conventions together."""
    tasks = list(dict.fromkeys(one.task for one in (*pairs, *unsolved)))
    return [
        _agreement_row(model, task, _of(pairs, model, task), _of(unsolved, model, task))
        for model, task in product(models, tasks)
    ]


def _of(cases: Sequence[Any], model: NamedModel, task: str) -> list[Any]:
    return [one for one in cases if one.model == model.name and one.task == task]


def _agreement_row(model: NamedModel, task: str, pairs: Sequence[Pair], unsolved: Sequence[Unsolved]) -> dict[str, Any]:
    axial = np.array([pair.axial_difference for pair in pairs])
    shear = np.array([pair.shear_difference for pair in pairs])
    return {
        "model": model.name,
        "task": task,
        "n": len(pairs),
        "not solved": ", ".join(sorted({one.reason for one in unsolved})) or 0,
        "axial, median %": _percent(axial, np.median),
        "axial, largest %": _percent(axial, np.max),
        "shear, median %": _percent(shear, np.median),
        "shear, largest %": _percent(shear, np.max),
        "limit %": 100.0 * LIMIT[model.public],
        "kept": bool(pairs) and not unsolved and bool(axial.max() <= LIMIT[model.public]),
    }


def _percent(values: Floats, figure: Any) -> float | None:
    return round(100.0 * float(figure(values)), 5) if values.size else None


def scatter_points(pairs: Sequence[Pair]) -> Table:
    """Every pair of axial loads at the joint below, for a picture: newtons."""
    return [
        {
            "model": pair.model,
            "task": pair.task,
            "batch_n": [round(float(value), 5) for value in pair.axial_n[0, 0]],
            "opensim_n": [round(float(value), 5) for value in pair.axial_n[1, 0]],
        }
        for pair in pairs
    ]
