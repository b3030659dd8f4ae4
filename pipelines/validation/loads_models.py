"""The models that the validation of loads compares: the shipped ones of both sexes, and public ones where given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from cohort.loading.adopt import adopt_base_model
from cohort.loading.assumptions import Assumptions
from cohort.loading.base_model import BaseModel, Floats, read_base_model
from cohort.loading.model_names import READY
from cohort.loading.solve import STANDARD, solve_loads
from cohort.loading.subject import LoadingSubject
from cohort.loading.tasks import Task
from cohort.rows import LoadRow
from cohort.terms import LUMBAR_VERTEBRAE
from models.musculoskeletal.build import build_base_model
from pipelines.validation.loads_people import Sex
from pipelines.validation.real_scans import Report

Table = list[dict[str, Any]]
"""Rows of one table of the report, all with the same keys."""

PUBLIC: Final = {
    "lfb": ("LFB_from_Pose2Sim.osim", "lifting full body, Beaucage-Gauvreau 2019"),
    "fbls": ("FBLS_Raabe2016.osim", "full-body lumbar spine, Raabe & Chaudhari 2016"),
}
"""Ready table of names (`cohort.loading.model_names.READY`) -> file in the folder of public models, and title."""
PHYSICS: Final = frozenset({"muscle_saturated", "not_in_equilibrium", "not_converged", "fibre_length_out_of_range"})
"""Reason codes of the solution, not of what was measured."""


@dataclass(frozen=True, eq=False)
class NamedModel:
    """A base model that takes part, under the name that the tables give it."""

    name: str
    sex: Sex
    base: BaseModel
    public: bool


def shipped_models(folder: Path) -> list[NamedModel]:
    """Build the default models of both sexes in a folder."""
    return [
        NamedModel(f"ours, {name}", sex, read_base_model(build_base_model(name, folder / f"{name}.osim")), public=False)
        for name, sex in (("male", "M"), ("female", "F"))
    ]


def adopt_public_models(source: Path | None, folder: Path, report: Report) -> list[NamedModel]:
    """Adopt the public models that lie in `source`; says which are left out and why. Both are of men."""
    if source is None:
        report("without public models: no folder was given")
        return []
    found = []
    for key, (name, title) in PUBLIC.items():
        if not (source / name).is_file():
            report(f"without {title}: {name} is not in the folder of public models")
            continue
        path = adopt_base_model(source / name, READY[key], folder / f"{key}.osim")
        found.append(NamedModel(title, "M", read_base_model(path), public=True))
    return found


def axial_n(
    base: BaseModel,
    subjects: Sequence[LoadingSubject],
    task: Task,
    *,
    assumptions: Assumptions = STANDARD,
    convention: str = "joint_below",
) -> Floats:
    """Axial loads [subject, 5] of L1 to L5, by the batch engine, newtons."""
    return by_level(solve_loads(base, subjects, task, assumptions=assumptions), convention)


def by_level(rows: Sequence[LoadRow], convention: str, column: str = "axial_n") -> Floats:
    """One column of the rows of one convention as [subject, 5], L1 to L5, in the order of the rows."""
    chosen = [row for row in rows if row.convention == convention]
    values = np.array([getattr(row, column) for row in chosen], dtype=np.float64)
    levels = [row.level for row in chosen[: len(LUMBAR_VERTEBRAE)]]
    order = [levels.index(level) for level in LUMBAR_VERTEBRAE]
    return np.asarray(values.reshape(-1, len(LUMBAR_VERTEBRAE))[:, order])


def level_columns(values: Floats) -> dict[str, float]:
    """Values [5] of L1 to L5 as columns of a table, whole newtons."""
    return {level: round(float(value)) for level, value in zip(LUMBAR_VERTEBRAE, values, strict=True)}


def distinct_reasons(rows: Sequence[LoadRow]) -> str:
    """Reason codes of the physics in these rows (those of missing measurements left out), or `ok`."""
    codes = {reason for row in rows for reason in (row.reasons or "").split("+") if reason}
    return ", ".join(sorted(codes & PHYSICS)) or "ok"
