"""Spinal loads of many subjects at once, with the batch engine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from cohort.errors import RefusedError
from cohort.loading.assumptions import Assumptions, Personalisation
from cohort.loading.base_model import SPINAL_JOINTS, BaseModel, Flags, Floats, Integers
from cohort.loading.equilibrium import Balance, balance
from cohort.loading.personalise import EVERYTHING, PersonalModels, personalise_each
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


@dataclass(frozen=True, eq=False)
class Part:
    """Models with a part of the measurements, of those subjects for whom that is neither all nor nothing."""

    chosen: Flags
    """[subject] whose models these are."""
    models: PersonalModels | None
    """None where nobody is chosen."""


@dataclass(frozen=True, eq=False)
class Variants:
    """Models of many subjects, once for all tasks."""

    whole: PersonalModels
    """With everything that `Personalisation` lets in."""
    parts: tuple[Part, ...]
    """With height and mass alone, with curvature added, with muscles added; empty without counterfactual loads."""


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

    As `solve_each`, but the first subject's refusal is raised.
    """
    answers = solve_each(base, subjects, [task], use=use, assumptions=assumptions, counterfactuals=counterfactuals)
    rows: list[LoadRow] = []
    for answer in answers:
        if isinstance(answer, RefusedError):
            raise answer
        rows += answer
    return rows


def solve_each(
    base: BaseModel,
    subjects: Sequence[LoadingSubject],
    tasks: Sequence[Task],
    *,
    use: Personalisation = EVERYTHING,
    assumptions: Assumptions = STANDARD,
    counterfactuals: bool = True,
) -> list[list[LoadRow] | RefusedError]:
    """For every subject, in this order, ten rows for each task (L1..L5 in both conventions), or why there are none.

    Without `counterfactuals` the columns of loads without curvature or muscles are empty and up to three solutions out
    of four are saved. What a subject gets does not depend on the others, nor on their order.

    Numbers that cannot be trusted are in rows with status flagged, or refused where the solver did not converge, and
    the reasons. A subject is refused with `not_converged` if a number is not finite and `implausible_geometry` as by
    `personalise`, which no input that a `LoadingSubject` accepts is known to cause; the others are solved.
    """
    answers: list[list[LoadRow] | RefusedError] = []
    for first in range(0, len(subjects), BATCH):
        batch = subjects[first : first + BATCH]
        sound, variants, refused = _sound_variants(base, batch, use, counterfactuals=counterfactuals)
        solved = iter(_solve_tasks(base, sound, tasks, variants, assumptions))
        answers.extend(refused[at] if at in refused else next(solved) for at in range(len(batch)))
    return answers


def _sound_variants(
    base: BaseModel, subjects: Sequence[LoadingSubject], use: Personalisation, *, counterfactuals: bool
) -> tuple[Sequence[LoadingSubject], Variants, dict[int, RefusedError]]:
    """Subjects whose models are those of a body, their models, and by place the refusals of the others."""
    variants, problems = personal_variants(base, subjects, use, counterfactuals=counterfactuals)
    sound = [subject for at, subject in enumerate(subjects) if at not in problems]
    if problems and sound:
        variants, _ = personal_variants(base, sound, use, counterfactuals=counterfactuals)
    return sound, variants, {at: RefusedError("implausible_geometry", what) for at, what in problems.items()}


def personal_variants(
    base: BaseModel, subjects: Sequence[LoadingSubject], use: Personalisation, *, counterfactuals: bool = True
) -> tuple[Variants, dict[int, str]]:
    """Models of the subjects, and by place what makes a subject's models not those of a body.

    A part that is switched off or was not measured changes nothing, so only what differs gets a model of its own.
    """
    whole, found = personalise_each(base, subjects, use)
    problems = {at: what for at, what in enumerate(found) if what}
    if not counterfactuals:
        return Variants(whole, ()), problems
    curved, muscled = _measured(whole)
    nothing = Personalisation(curvature=False, strength=False, position=False)
    curvature = Personalisation(curvature=use.curvature, strength=False, position=False)
    muscles = Personalisation(curvature=False, strength=use.strength, position=use.position)
    both = curved & muscled
    parts = []
    for chosen, part in ((curved | muscled, nothing), (both, curvature), (both, muscles)):
        places = np.flatnonzero(chosen).tolist()
        if not places:
            parts.append(Part(chosen, None))
            continue
        models, found = personalise_each(base, [subjects[at] for at in places], part)
        parts.append(Part(chosen, models))
        problems |= {at: what for at, what in zip(places, found, strict=True) if what}
    return Variants(whole, tuple(parts)), problems


def _measured(models: PersonalModels) -> tuple[Flags, Flags]:
    """[subject] whose curvature, and whose muscles (areas or places), were measured and are used."""
    curved = np.array([source == "measured" for source in models.curvature_source], dtype=bool)
    sources = zip(models.strength_source, models.position_source, strict=True)
    return curved, np.array(["measured" in pair for pair in sources], dtype=bool)


def _solve_tasks(
    base: BaseModel,
    subjects: Sequence[LoadingSubject],
    tasks: Sequence[Task],
    variants: Variants,
    assumptions: Assumptions,
) -> list[list[LoadRow] | RefusedError]:
    """Rows of all tasks, or the refusal of the first task that has none, for every subject of `variants`."""
    answers: list[list[LoadRow] | RefusedError] = [[] for _ in subjects]
    if not subjects:
        return answers
    for task in tasks:
        found = balance(base, variants.whole, task, assumptions)
        for at, rows in enumerate(task_rows(base, subjects, task, variants, found, assumptions)):
            so_far = answers[at]
            if not isinstance(so_far, RefusedError):
                answers[at] = rows if isinstance(rows, RefusedError) else so_far + rows
    return answers


def task_rows(
    base: BaseModel,
    subjects: Sequence[LoadingSubject],
    task: Task,
    variants: Variants,
    balanced: Balance,
    assumptions: Assumptions,
) -> list[list[LoadRow] | RefusedError]:
    """Ten rows, or the refusal `not_converged`, for every subject, from the whole models' balance in the task."""
    found = _reactions(base, balanced)
    forces = vertebral_forces(found)
    without = None
    if variants.parts:
        whole = np.where(found.converged[:, None, None], forces[..., 1], np.nan)
        without = _without_parts(base, task, assumptions, variants, whole)
    answers: list[list[LoadRow] | RefusedError] = []
    for at, subject in enumerate(subjects):
        try:
            answers.append(load_rows(subject, at, task, "batch", variants.whole, found, forces, without))
        except RefusedError as error:
            answers.append(error)
    return answers


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
    subject: LoadingSubject,
    number: int,
    task: Task,
    engine: str,
    models: PersonalModels,
    found: Reactions,
    forces: Floats,
    without: Floats | None = None,
) -> list[LoadRow]:
    """Ten rows of the subject at place `number` of `models`.

    Signs are those of the force that the upper part exerts on the lower: down along the axis = compression, forward =
    anterior shear, right = lateral shear. Raises RefusedError (`not_converged`) if a number is not finite.

    Parameters
    ----------
    forces : [subject, 5, 2, 3] of `vertebral_forces`
    without : [subject, 3, 5, 2] axial forces of `_without_parts`, NaN where there are none
    """
    if not (np.isfinite(forces[number]).all() and np.isfinite(found.reserve_nm[number]).all()):
        raise RefusedError("not_converged", f"engine {engine}, task {task.name}: reactions are not finite")
    shared = _shared_columns(subject, number, task, engine, models, found)
    flexion = (-found.reserve_nm[number, -2::-1, 2]).tolist()
    force = forces[number].tolist()
    axial = None if without is None else without[number].tolist()
    rows = []
    for at, level in enumerate(LUMBAR_VERTEBRAE):
        for which, convention in enumerate(CONVENTIONS):
            x, y, z = force[at][which]
            generic, curvature, muscle = (None,) * 3 if axial is None else (part[at][which] for part in axial)
            row = LoadRow(
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
            rows.append(row)
    return rows


def _shared_columns(
    subject: LoadingSubject, number: int, task: Task, engine: str, models: PersonalModels, found: Reactions
) -> dict[str, Any]:
    """Columns that are the same in all ten rows."""
    doubts = _doubts(found, number)
    reasons = (*doubts, *models.reasons[number])
    return {
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
        "status": "refused" if "not_converged" in doubts else "flagged" if reasons else "ok",
        "reasons": "+".join(reasons) or None,
    }


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


def _without_parts(base: BaseModel, task: Task, assumptions: Assumptions, variants: Variants, whole: Floats) -> Floats:
    """Axial forces [subject, 3, 5, 2] with height and mass alone, with curvature added, and with muscles added.

    `whole` [subject, 5, 2] is the load with everything; where a part has no models of its own, its load is that of the
    next variant that has the same. NaN where the solver did not converge.
    """
    curved, muscled = _measured(variants.whole)

    def solved(part: Part, otherwise: Floats) -> Floats:
        axial = otherwise.copy()
        if part.models is not None:
            found = _reactions(base, balance(base, part.models, task, assumptions))
            axial[part.chosen] = np.where(found.converged[:, None, None], vertebral_forces(found)[..., 1], np.nan)
        return axial

    nothing, curvature, muscles = variants.parts
    generic = solved(nothing, whole)
    with_curvature = solved(curvature, np.where(curved[:, None, None], whole, generic))
    with_muscles = solved(muscles, np.where(muscled[:, None, None], whole, generic))
    return np.stack([generic, with_curvature, with_muscles], axis=1)
