"""Spinal loads of many subjects in one task, with the batch engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from cohort.errors import RefusedError
from cohort.loading.assumptions import Assumptions, Personalisation
from cohort.loading.base_model import SPINAL_JOINTS, BaseModel, Flags, Floats
from cohort.loading.equilibrium import Balance, balance
from cohort.loading.personalise import EVERYTHING, PersonalModels, personalise
from cohort.loading.subject import LoadingSubject
from cohort.loading.tasks import Task
from cohort.rows import LoadRow
from cohort.terms import LUMBAR_VERTEBRAE

STANDARD: Final = Assumptions()
BATCH: Final = 256
"""Subjects solved at once; keeps the largest array near 100 MB."""
SATURATED: Final = 0.999
"""Activation at and above which a fascicle counts as at its limit."""
RESERVE_LIMIT_NM: Final = 1.0
"""Largest reserve moment that still counts as muscular balance: about 1 % of the moment at L5/S1 in 60 degrees
flexion."""


@dataclass(frozen=True, eq=False)
class Reactions:
    """What either engine finds for one subject; joints from L5/S1 to T12/L1."""

    reaction_n: Floats
    """[6, 3] force of the lower on the upper body of each joint, ground frame."""
    vertebra_axes: Floats
    """[5, 3, 3] axes of L5..L1 in ground."""
    reserve_nm: Floats
    """[6, 3] reserve moments in the frame of the upper body (about x, y, z)."""
    max_activation: float
    n_saturated: int
    converged: bool


def solve_loads(
    base: BaseModel,
    subjects: Sequence[LoadingSubject],
    task: Task,
    *,
    use: Personalisation = EVERYTHING,
    assumptions: Assumptions = STANDARD,
) -> list[LoadRow]:
    """Loads of L1..L5 in both conventions for every subject: ten rows each, in the order of `subjects`.

    Numbers that cannot be trusted are in rows with status flagged and the reasons. Raises RefusedError
    (`not_converged`) if a number is not finite, which no input that a `LoadingSubject` accepts is known to cause.
    """
    rows: list[LoadRow] = []
    for first in range(0, len(subjects), BATCH):
        batch = subjects[first : first + BATCH]
        models = personalise(base, batch, use)
        found = balance(base, models, task, assumptions)
        for number, subject in enumerate(batch):
            rows.extend(load_rows(subject, task, "batch", models, number, _reactions(base, found, number)))
    return rows


def load_rows(
    subject: LoadingSubject,
    task: Task,
    engine: str,
    models: PersonalModels,
    number: int,
    found: Reactions,
) -> Iterator[LoadRow]:
    """Rows of one subject, number `number` of `models`.

    `joint_below`: the reaction at the joint below the vertebra. `vertebra_mean`: the mean of the reactions at the
    joints below and above it (Bruno et al. 2015). Both in the vertebra's own frame. Signs are those of the force that
    the upper part exerts on the lower: down along the axis = compression, forward = anterior shear, right = lateral
    shear.
    """
    if not (np.isfinite(found.reaction_n).all() and np.isfinite(found.reserve_nm).all()):
        raise RefusedError("not_converged", f"engine {engine}, task {task.name}: reactions are not finite")
    reasons = (*_doubts(found), *models.reasons[number])
    for level in LUMBAR_VERTEBRAE:
        joint = LUMBAR_VERTEBRAE[::-1].index(level)
        below, above = (found.vertebra_axes[joint].T @ found.reaction_n[at] for at in (joint, joint + 1))
        for convention, force in (("joint_below", below), ("vertebra_mean", (below + above) / 2.0)):
            yield LoadRow(
                exam_id=subject.exam_id,
                task=task.name,
                level=level,
                engine=engine,
                convention=convention,
                axial_n=float(force[1]),
                shear_ap_n=float(-force[0]),
                shear_lateral_n=float(-force[2]),
                moment_flexion_nm=float(-found.reserve_nm[joint, 2]),
                generic_axial_n=None,
                curvature_axial_n=None,
                muscle_axial_n=None,
                max_activation=found.max_activation,
                n_saturated=found.n_saturated,
                reserve_max_nm=float(np.abs(found.reserve_nm).max()),
                base_model=models.base_name,
                geometry="polygon",
                height_source=models.height_source[number],
                mass_source=models.mass_source[number],
                curvature_source=models.curvature_source[number],
                curvature_joints=_joint_names(models.curvature_joints[number]),
                strength_source=models.strength_source[number],
                position_source=models.position_source[number],
                status="flagged" if reasons else "ok",
                reasons="+".join(reasons) or None,
            )


def _joint_names(measured: Flags) -> str | None:
    return "+".join(name for name, known in zip(SPINAL_JOINTS, measured, strict=True) if known) or None


def _doubts(found: Reactions) -> tuple[str, ...]:
    reasons = (
        ("not_converged", not found.converged),
        ("muscle_saturated", found.n_saturated > 0),
        ("not_in_equilibrium", bool(np.abs(found.reserve_nm).max() > RESERVE_LIMIT_NM)),
    )
    return tuple(reason for reason, holds in reasons if holds)


def _reactions(base: BaseModel, found: Balance, number: int) -> Reactions:
    return Reactions(
        reaction_n=found.reaction_n[number],
        vertebra_axes=found.pose.rotation[number, base.joint_body[:-1]],
        reserve_nm=found.reserve_nm[number],
        max_activation=float(found.activation[number].max()),
        n_saturated=int((found.activation[number] >= SATURATED).sum()),
        converged=bool(found.converged[number]),
    )
