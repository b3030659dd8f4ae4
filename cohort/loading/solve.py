"""Spinal loads of many subjects in one task, with the batch engine."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from cohort.errors import RefusedError
from cohort.loading.assumptions import Assumptions, Personalisation
from cohort.loading.base_model import SPINAL_JOINTS, BaseModel, Flags, Floats, Integers
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
CONVENTIONS: Final = ("joint_below", "vertebra_mean")


@dataclass(frozen=True, eq=False)
class Reactions:
    """What either engine finds; joints from L5/S1 to T12/L1."""

    reaction_n: Floats
    """[subject, 6, 3] force of the lower on the upper body of each joint, ground frame."""
    vertebra_axes: Floats
    """[subject, 5, 3, 3] axes of L5..L1 in ground."""
    reserve_nm: Floats
    """[subject, 6, 3] reserve moments about the coordinates LB, AR and FE."""
    max_activation: Floats
    """[subject]"""
    n_saturated: Integers
    """[subject]"""
    fibres_out_of_range: Integers
    """[subject] fascicles whose fibres are too short or too long to be active."""
    converged: Flags
    """[subject]"""


def solve_loads(
    base: BaseModel,
    subjects: Sequence[LoadingSubject],
    task: Task,
    *,
    use: Personalisation = EVERYTHING,
    assumptions: Assumptions = STANDARD,
    counterfactuals: bool = True,
) -> list[LoadRow]:
    """Loads of L1..L5 in both conventions for every subject: ten rows each, in the order of `subjects`.

    Without `counterfactuals` the columns of loads without curvature or muscles are empty and up to three solutions out
    of four are saved.

    Numbers that cannot be trusted are in rows with status flagged, or refused where the solver did not converge, and
    the reasons. Raises RefusedError, `not_converged` if a number is not finite and `implausible_geometry` as
    `personalise`, which no input that a `LoadingSubject` accepts is known to cause. It ends the whole call: the
    pipeline asks for one person at a time.
    """
    rows: list[LoadRow] = []
    for first in range(0, len(subjects), BATCH):
        batch = subjects[first : first + BATCH]
        models = personalise(base, batch, use)
        found = _reactions(base, balance(base, models, task, assumptions))
        forces = vertebral_forces(found)
        without = None
        if counterfactuals:
            whole = np.where(found.converged[:, None, None], forces[..., 1], np.nan)
            without = _without_parts(base, batch, task, use, assumptions, models, whole)
        rows.extend(load_rows(batch, task, "batch", models, found, forces, without))
    return rows


def vertebral_forces(found: Reactions) -> Floats:
    """Forces [subject, 5, 2, 3] of the lower on the upper part: L1..L5, both conventions, in the vertebra's frame.

    `joint_below`: the reaction at the joint below the vertebra. `vertebra_mean`: the mean of the reactions at the
    joints below and above it (Bruno et al. 2015).
    """
    into = found.vertebra_axes.transpose(0, 1, 3, 2)
    below = np.matmul(into, found.reaction_n[:, :-1, :, None])[..., 0]
    above = np.matmul(into, found.reaction_n[:, 1:, :, None])[..., 0]
    return np.stack([below, (below + above) / 2.0], axis=2)[:, ::-1]


def load_rows(
    subjects: Sequence[LoadingSubject],
    task: Task,
    engine: str,
    models: PersonalModels,
    found: Reactions,
    forces: Floats,
    without: Floats | None = None,
) -> Iterator[LoadRow]:
    """Rows of the subjects of `models`.

    Signs are those of the force that the upper part exerts on the lower: down along the axis = compression, forward =
    anterior shear, right = lateral shear.

    Parameters
    ----------
    forces : [subject, 5, 2, 3] of `vertebral_forces`
    without : [subject, 3, 5, 2] axial forces of `_without_parts`, NaN where there are none
    """
    for number, subject in enumerate(subjects):
        if not (np.isfinite(forces[number]).all() and np.isfinite(found.reserve_nm[number]).all()):
            raise RefusedError("not_converged", f"engine {engine}, task {task.name}: reactions are not finite")
        doubts = _doubts(found, number)
        reasons = (*doubts, *models.reasons[number])
        status = "refused" if "not_converged" in doubts else "flagged" if reasons else "ok"
        shared: dict[str, Any] = {
            "exam_id": subject.exam_id,
            "task": task.name,
            "engine": engine,
            "max_activation": float(found.max_activation[number]),
            "n_saturated": int(found.n_saturated[number]),
            "reserve_max_nm": float(np.abs(found.reserve_nm[number]).max()),
            "base_model": models.base_name,
            "geometry": models.geometry,
            "height_source": models.height_source[number],
            "mass_source": models.mass_source[number],
            "curvature_source": models.curvature_source[number],
            "curvature_joints": _joint_names(models.curvature_joints[number]),
            "strength_source": models.strength_source[number],
            "position_source": models.position_source[number],
            "status": status,
            "reasons": "+".join(reasons) or None,
        }
        flexion = (-found.reserve_nm[number, -2::-1, 2]).tolist()
        force = forces[number].tolist()
        axial = None if without is None else without[number].tolist()
        for at, level in enumerate(LUMBAR_VERTEBRAE):
            for which, convention in enumerate(CONVENTIONS):
                x, y, z = force[at][which]
                generic, curvature, muscle = (None,) * 3 if axial is None else (part[at][which] for part in axial)
                yield LoadRow(
                    level=level,
                    convention=convention,
                    axial_n=y,
                    shear_ap_n=-x,
                    shear_lateral_n=-z,
                    moment_flexion_nm=flexion[at],
                    generic_axial_n=_number(generic),
                    curvature_axial_n=_number(curvature),
                    muscle_axial_n=_number(muscle),
                    **shared,
                )


def _joint_names(measured: Flags) -> str | None:
    return "+".join(name for name, known in zip(SPINAL_JOINTS, measured, strict=True) if known) or None


def _number(value: float | None) -> float | None:
    """NaN never reaches a table."""
    return None if value is None or math.isnan(value) else value


def _doubts(found: Reactions, number: int) -> tuple[str, ...]:
    reasons = (
        ("not_converged", not found.converged[number]),
        ("muscle_saturated", found.n_saturated[number] > 0),
        ("not_in_equilibrium", np.abs(found.reserve_nm[number]).max() > RESERVE_LIMIT_NM),
        ("fibre_length_out_of_range", found.fibres_out_of_range[number] > 0),
    )
    return tuple(reason for reason, holds in reasons if holds)


def _reactions(base: BaseModel, found: Balance) -> Reactions:
    return Reactions(
        reaction_n=found.reaction_n,
        vertebra_axes=found.pose.rotation[:, base.joint_body[:-1]],
        reserve_nm=found.reserve_nm,
        max_activation=found.activation.max(axis=1),
        n_saturated=(found.activation >= SATURATED).sum(axis=1),
        fibres_out_of_range=found.fibres_out_of_range,
        converged=found.converged,
    )


def _without_parts(
    base: BaseModel,
    subjects: Sequence[LoadingSubject],
    task: Task,
    use: Personalisation,
    assumptions: Assumptions,
    models: PersonalModels,
    whole: Floats,
) -> Floats:
    """Axial forces [subject, 3, 5, 2] with height and mass alone, with curvature added, and with muscles added.

    A part that is switched off or was not measured changes nothing, so only what differs is solved; `whole`
    [subject, 5, 2] is the load with everything. NaN where the solver did not converge.
    """
    curved = np.array([source == "measured" for source in models.curvature_source])
    sources = zip(models.strength_source, models.position_source, strict=True)
    muscled = np.array(["measured" in pair for pair in sources])
    nothing = Personalisation(curvature=False, strength=False, position=False)
    curvature = Personalisation(curvature=use.curvature, strength=False, position=False)
    muscles = Personalisation(curvature=False, strength=use.strength, position=use.position)

    def solved(chosen: Flags, parts: Personalisation, otherwise: Floats) -> Floats:
        axial = otherwise.copy()
        if chosen.any():
            some = [subject for subject, wanted in zip(subjects, chosen, strict=True) if wanted]
            found = _reactions(base, balance(base, personalise(base, some, parts), task, assumptions))
            axial[chosen] = np.where(found.converged[:, None, None], vertebral_forces(found)[..., 1], np.nan)
        return axial

    generic = solved(curved | muscled, nothing, whole)
    with_curvature = solved(curved & muscled, curvature, np.where(curved[:, None, None], whole, generic))
    with_muscles = solved(curved & muscled, muscles, np.where(muscled[:, None, None], whole, generic))
    return np.stack([generic, with_curvature, with_muscles], axis=1)
