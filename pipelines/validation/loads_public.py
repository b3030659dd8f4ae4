"""Our models beside public ones: loads of the same person in the same task, moment arms, gravity, strength."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any, Final

import numpy as np

from cohort.loading.base_model import MUSCLE_OF_GROUP, SPINAL_JOINTS, BaseModel, Floats
from cohort.loading.equilibrium import fascicle_wrenches, gravity_wrenches, pose_models
from cohort.loading.personalise import PersonalModels, personalise
from cohort.loading.solve import CONVENTIONS, RESERVE_LIMIT_NM, STANDARD, solve_loads
from cohort.loading.tasks import FLEXION60_5KG, STANDING, Task
from cohort.rows import LoadRow
from cohort.terms import LUMBAR_VERTEBRAE
from pipelines.validation.loads_in_vivo import HIDDEN_ACTIVATION, place_in_range
from pipelines.validation.loads_models import (
    NamedModel,
    Table,
    by_level,
    distinct_reasons,
    level_columns,
)
from pipelines.validation.loads_people import person

HEIGHT_M: Final = 1.75
MASS_KG: Final = 75.0
TOLERANCE: Final = 0.15
"""Beyond the range of the other models, that still counts as inside."""
PLACE: Final = "place of ours"
TASKS_COMPARED: Final = (STANDING, FLEXION60_5KG)

WEAK_N_PER_CM2: Final = 46.0
"""Specific tension of the model of Raabe & Chaudhari, derived from its forces and published areas; ours is 100."""
COMMON_N_PER_CM2: Final = 100.0

LEAST_ACTIVATIONS: Final = (0.0, HIDDEN_ACTIVATION)
THORACOLUMBAR: Final = "thoracolumbar, Bruno family, 75.3 kg"
REFERENCES: Final[dict[tuple[str, str, float], tuple[int, ...]]] = {
    ("standing", "joint_below", 0.0): (375, 349, 348, 388, 518),
    ("standing", "joint_below", 0.01): (587, 556, 557, 623, 830),
    ("standing", "vertebra_mean", 0.01): (599, 574, 561, 592, 712),
    ("flexion60_5kg", "joint_below", 0.0): (2284, 2451, 2620, 2865, 3257),
    ("flexion60_5kg", "joint_below", 0.01): (2502, 2673, 2845, 3087, 3499),
    ("flexion60_5kg", "vertebra_mean", 0.01): (2354, 2594, 2760, 2966, 3283),
}
"""Axial loads of L1 to L5 (N) by task, convention and least activation: a male thoracolumbar model of the family of
Bruno et al. 2015, as it is (without a licence, so it is not among the public models), solved level by level in the same
posture with the same method."""


def public_table(models: Sequence[NamedModel]) -> Table:
    """Axial loads of one man in all models of men, and whether ours lie in the range of the others.

    Only models with the same least activation are compared. A model that cannot hold the posture does not count for the
    range; the weak one counts with our specific tension.
    """
    table: Table = []
    for task, least in product(TASKS_COMPARED, LEAST_ACTIVATIONS):
        solved = {name: _solve(base, task, least) for name, base in _bases(models).items()}
        for convention in CONVENTIONS:
            block = {"task": task.name, "convention": convention, "least activation": least}
            table += [
                block | row for row in _public_rows(models, REFERENCES.get(tuple(block.values())), convention, solved)
            ]
    return table


def _bases(models: Sequence[NamedModel]) -> dict[str, BaseModel]:
    """Base models of men by name; those of low specific tension a second time with ours."""
    bases = {}
    for model in models:
        if model.sex != "M":
            continue
        bases[model.name] = model.base
        if "Raabe" in model.name:
            ratio = COMMON_N_PER_CM2 / WEAK_N_PER_CM2
            bases[f"{model.name}, strength x {ratio:.2f}"] = replace(
                model.base, strength_n=model.base.strength_n * ratio
            )
    return bases


def _solve(base: BaseModel, task: Task, least: float) -> list[LoadRow]:
    assumptions = replace(STANDARD, min_activation=least)
    return solve_loads(base, [person("M", HEIGHT_M, MASS_KG)], task, assumptions=assumptions)


def _public_rows(
    models: Sequence[NamedModel],
    reference: tuple[int, ...] | None,
    convention: str,
    solved: dict[str, list[LoadRow]],
) -> Table:
    """Rows of one task, convention and least activation, then the place of ours if there is anything to compare."""
    ours = next(model.name for model in models if model.sex == "M" and not model.public)
    loads = {name: by_level(rows, convention)[0] for name, rows in solved.items()}
    rows: Table = [
        _row(name, level_columns(load), distinct_reasons(solved[name]), solved[name][0].reserve_max_nm)
        for name, load in loads.items()
    ]
    others = [loads[name] for name, found in solved.items() if name != ours and _holds(found)]
    if reference is not None:
        others.append(np.array(reference, dtype=np.float64))
        rows.append(_row(THORACOLUMBAR, level_columns(others[-1]), "printed, not scaled", None))
    if others:
        rows.append(_row(PLACE, _places(loads[ours], np.array(others)), "", None))
    return rows


def _row(name: str, columns: dict[str, Any], state: str, reserve: float | None) -> dict[str, Any]:
    return {"model": name, **columns, "state": state, "reserve N m": None if reserve is None else round(reserve, 2)}


def _holds(rows: Sequence[LoadRow]) -> bool:
    return max(row.reserve_max_nm for row in rows) <= RESERVE_LIMIT_NM


def _places(ours: Floats, others: Floats) -> dict[str, str]:
    limits = zip(LUMBAR_VERTEBRAE, ours, others.min(axis=0), others.max(axis=0), strict=True)
    return {level: place_in_range(float(load), float(low), float(high), TOLERANCE) for level, load, low, high in limits}


def moment_arm_table(models: Sequence[NamedModel]) -> Table:
    """Moment arms of the groups of fascicles at each joint in standing, mm, of models scaled to one stature.

    Mean over the fascicles that cross the joint, weighted by strength; flexion-extension of both sides (extension
    positive) and lateral bending of the right side (to the right positive), about the axes of the upper body.
    """
    table: Table = []
    for model in models:
        arms, strength = _standing_arms(model)
        groups = np.array(model.base.group)
        right = np.array(model.base.side) == "right"
        for group in (name for name in MUSCLE_OF_GROUP if (groups == name).any()):
            for plane, axis, chosen in (("extension", 2, groups == group), ("bend", 0, (groups == group) & right)):
                row = _weighted(arms[:, axis, chosen], strength[chosen], model.base.spans[chosen].T)
                table.append({"group": group, "plane": plane, "model": model.name, **row})
    return sorted(table, key=lambda row: (row["plane"] != "extension", list(MUSCLE_OF_GROUP).index(row["group"])))


def _standing_arms(model: NamedModel) -> tuple[Floats, Floats]:
    """Moment at unit tension [joint, axis x y z, fascicle], mm, and strength [fascicle], N, of one standing person."""
    personal = personalise(model.base, [person(model.sex, HEIGHT_M, MASS_KG)])
    pose = pose_models(model.base, personal, STANDING)
    moment = fascicle_wrenches(model.base, personal, pose)[0, :, 3:]
    axes = pose.rotation[0, model.base.joint_body]
    return 1e3 * np.matmul(axes.transpose(0, 2, 1), moment), personal.strength_n[0]


def _weighted(arms: Floats, strength: Floats, spans: Any) -> dict[str, float | None]:
    """Mean moment arm at each joint; None where no fascicle of the group crosses it."""
    weight = strength[None] * spans
    total = weight.sum(axis=1)
    return _joint_columns((arms * weight).sum(axis=1) / np.where(total > 0.0, total, np.nan))


def capacity_table(models: Sequence[NamedModel]) -> Table:
    """What muscles can give and gravity asks for, by joint, for one person (the female model: a woman) in all models.

    Gravity: flexion moment of all that lies above the joint, hand loads included; and the mass above the joint without
    hand loads, with the height of its centre. A load over that moment tells moment arms from weight: it is what the
    muscles make of a newton metre.
    """
    rows = [(name, model.name, values) for model in models for name, values in _capacity(model).items()]
    order = list(dict.fromkeys(name for name, _, _ in rows))
    return [
        {"figure": name, "model": model, **_joint_columns(values)}
        for name, model, values in sorted(rows, key=lambda row: order.index(row[0]))
    ]


def _capacity(model: NamedModel) -> dict[str, Floats]:
    """Figures [joint] of one model."""
    arms, strength = _standing_arms(model)
    force = strength * (arms[:, 2] > 0.0)
    extension = (arms[:, 2] * force).sum(axis=1)
    subject = person(model.sex, HEIGHT_M, MASS_KG)
    personal = personalise(model.base, [subject])
    weight = {task.name: _gravity_moment(model.base, personal, task) for task in TASKS_COMPARED}
    load = by_level(solve_loads(model.base, [subject], FLEXION60_5KG), "joint_below")[0][::-1]
    return {
        "greatest extension moment, standing, N m": extension / 1e3,
        "mean arm of extensors, standing, mm": extension / force.sum(axis=1),
        "mass above, kg": model.base.distal @ personal.mass_kg[0],
        "its centre above the joint, standing, mm": 1e3 * _centre_height_m(model.base, personal),
        **{f"moment of gravity, {name}, N m": moment for name, moment in weight.items()},
        "load over moment of gravity, flexion60_5kg, N/(N m)": np.append(load, np.nan) / weight[FLEXION60_5KG.name],
    }


def _centre_height_m(base: BaseModel, personal: PersonalModels) -> Floats:
    """Height [joint] of the centre of mass of all bodies above each joint over that joint, arms hanging."""
    pose = pose_models(base, personal, STANDING)
    height = (pose.origin_m + np.matmul(pose.rotation, personal.com_m[..., None])[..., 0])[0, :, 1]
    mass = base.distal * personal.mass_kg[0]
    return np.asarray(mass @ height / mass.sum(axis=1) - pose.origin_m[0, base.joint_body, 1])


def _joint_columns(values: Floats) -> dict[str, float | None]:
    """Values [joint] as columns; None where there is none."""
    pairs = zip(SPINAL_JOINTS, values, strict=True)
    return {joint: None if np.isnan(value) else round(float(value), 1) for joint, value in pairs}


def _gravity_moment(base: BaseModel, personal: PersonalModels, task: Task) -> Floats:
    """Flexion moment [joint] of weight about the axes of the upper bodies, N m."""
    pose = pose_models(base, personal, task)
    moment = gravity_wrenches(base, personal, pose, hand_kg=task.hand_kg)[0, :, 3:]
    axes = pose.rotation[0, base.joint_body]
    return np.asarray(-np.matmul(axes.transpose(0, 2, 1), moment[:, :, None])[:, 2, 0])


def strength_table(models: Sequence[NamedModel]) -> Table:
    """Total strength (kN, both sides) and number of fascicles of each group, as the base models have them."""
    table: Table = []
    for group in MUSCLE_OF_GROUP:
        row: dict[str, Any] = {"group": group}
        for model in models:
            members = np.array(model.base.group) == group
            total = float(model.base.strength_n[members].sum()) / 1e3
            row[model.name] = f"{total:.2f} ({int(members.sum())})" if members.any() else None
        table.append(row)
    return table
