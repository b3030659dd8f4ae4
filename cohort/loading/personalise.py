"""From the base model and measurements to one personal model per subject, as arrays with a leading subject axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from cohort.errors import RefusedError
from cohort.loading.assumptions import Personalisation
from cohort.loading.base_model import BaseModel, Flags, Floats, Geometry
from cohort.loading.curvature import Curvature, frame_along, has_variant, measure_curvature
from cohort.loading.position import Position, measure_position
from cohort.loading.rest_posture import path_lengths, place_bodies, place_points
from cohort.loading.standing import Standing, balance_standing
from cohort.loading.strength import Strength, measure_strength
from cohort.loading.subject import LoadingSubject, Source

EVERYTHING: Final = Personalisation()
LEAN_LIMIT_DEG: Final = 15.0
"""Largest turn of the thorax against the base model's that brings a person into balance in standing (own choice);
beyond it a centroid or a name is more likely wrong than a person so shaped."""
FARTHEST_POINT_M: Final = 1.5
"""Largest distance of a path point from the pelvis's origin (own choice): fascicles end on thorax and arms."""
SHORTEST_PIECE_M: Final = 1e-5
"""Shortest piece of a path between two bodies that still has a direction (own choice)."""


@dataclass(frozen=True, eq=False)
class PersonalModels:
    """Models of many subjects; arrays as in `BaseModel` with the subject as first axis."""

    base_name: str
    geometry: Geometry
    """Where lines of action come from."""
    body_scale: Floats
    """[subject, body, 3] size of each body against the base model's, along its axes."""
    mass_kg: Floats
    """[subject, body]"""
    com_m: Floats
    """[subject, body, 3]"""
    rest_rotation: Floats
    """[subject, body, 3, 3]"""
    rest_offset_m: Floats
    """[subject, body, 3]"""
    point_m: Floats
    """[subject, point, 3]"""
    strength_n: Floats
    """[subject, fascicle]"""
    optimal_fibre_m: Floats
    """[subject, fascicle]"""
    tendon_slack_m: Floats
    """[subject, fascicle]"""
    rest_tilt_rad: Floats
    """[subject] turn of the pelvis about z in standing, against the base model's, backward positive."""
    height_source: tuple[Source, ...]
    mass_source: tuple[Source, ...]
    curvature_source: tuple[Source, ...]
    strength_source: tuple[Source, ...]
    position_source: tuple[Source, ...]
    curvature_joints: Flags
    """[subject, joint] joints whose angles are the subject's own; the others keep the base model's."""
    reasons: tuple[tuple[str, ...], ...]
    """[subject] reason codes of this step."""


def personalise(
    base: BaseModel, subjects: Sequence[LoadingSubject], use: Personalisation = EVERYTHING
) -> PersonalModels:
    """Scale, bend and strengthen the base model for each subject.

    - Height: all lengths times stature over the base model's stature. Mass: all masses in proportion, so that they add
      up to the subject's; what lumbar segments gain or lose in length changes no mass.
    - Curvature: relative rotations of T12-S1 and the distances between their joints from centroids; a level outside the
      field of view keeps the base model's. Lying supine changes the lordosis little against standing. How a person
      stands with that curvature: see `cohort.loading.standing`.
    - Strength: see `cohort.loading.strength`. Position of muscles: see `cohort.loading.position`.
    - Fibre and tendon lengths: as much longer as the fascicle's path at rest, so that fibres are at rest as near to
      their optimal length as in the base model.

    A part that `use` switches off has source `default` and no reason; one that could not be measured has source
    `default` and the reason `default_...`.

    Raises RefusedError (`implausible_geometry`) if a resulting model is not one of a body; the limits on measurements
    are there to keep this from happening. `personalise_each` says instead whose it is.
    """
    models, problems = personalise_each(base, subjects, use)
    for problem in filter(None, problems):
        raise RefusedError("implausible_geometry", problem)
    return models


def personalise_each(
    base: BaseModel, subjects: Sequence[LoadingSubject], use: Personalisation = EVERYTHING
) -> tuple[PersonalModels, list[str | None]]:
    """As `personalise`, but raise nothing: return the models of all subjects, and for each what makes it not one of a
    body, None where it is one. A model with a problem must not be used."""
    stature = np.array([subject.height_m for subject in subjects]) / base.height_m
    mass = np.array([subject.mass_kg for subject in subjects]) / base.total_mass_kg
    curvature = measure_curvature(base, subjects)
    strength = measure_strength(base, subjects)
    position = measure_position(base, subjects, curvature)
    scale, rotation = _shape(base, stature, curvature if use.curvature else None)
    offset = base.rest_offset_m * scale[:, np.maximum(base.parent, 0)]
    point = base.point_m * scale[:, base.point_body] + (position.shift_m if use.position else 0.0)
    longer, problems = _path_ratio(base, rotation, offset, point)
    com = base.com_m * scale
    standing = balance_standing(base, rotation, offset, com, stature)
    models = PersonalModels(
        base_name=base.name,
        geometry=base.geometry,
        body_scale=scale,
        mass_kg=base.mass_kg * mass[:, None],
        com_m=com,
        rest_rotation=rotation,
        rest_offset_m=offset,
        point_m=point,
        strength_n=base.strength_n * (strength.ratio if use.strength else np.ones_like(strength.ratio)),
        optimal_fibre_m=base.optimal_fibre_m * longer,
        tendon_slack_m=base.tendon_slack_m * longer,
        rest_tilt_rad=standing.tilt_rad,
        height_source=tuple(subject.height_source for subject in subjects),
        mass_source=tuple(subject.mass_source for subject in subjects),
        curvature_source=_sources(curvature.measured, used=use.curvature),
        strength_source=_sources(strength.measured, used=use.strength),
        position_source=_sources(position.measured, used=use.position),
        curvature_joints=curvature.joints & use.curvature,
        reasons=_reasons(subjects, use, curvature, strength, position, standing),
    )
    return models, problems


def _sources(measured: Flags, *, used: bool) -> tuple[Source, ...]:
    return tuple("measured" if known and used else "default" for known in measured)


def _reasons(
    subjects: Sequence[LoadingSubject],
    use: Personalisation,
    curvature: Curvature,
    strength: Strength,
    position: Position,
    standing: Standing,
) -> tuple[tuple[str, ...], ...]:
    """Reason codes of each subject; parts that are switched off give none."""
    n = len(subjects)
    holds: tuple[tuple[str, bool, Flags], ...] = (
        ("default_curvature", use.curvature, ~curvature.measured),
        ("curvature_gap", use.curvature, curvature.gap),
        ("lateral_curvature", use.curvature, curvature.lateral),
        ("implausible_curvature", use.curvature or use.position, curvature.implausible),
        ("implausible_posture", use.curvature, np.abs(standing.lean_rad) > np.radians(LEAN_LIMIT_DEG)),
        ("default_strength", use.strength, ~strength.measured),
        ("default_position", use.position, ~position.measured),
        ("implausible_position", use.position, position.clipped),
        ("lumbar_variant", True, np.fromiter(map(has_variant, subjects), bool, n)),
        ("muscle_missing", use.strength, strength.incomplete),
        ("implausible_csa", use.strength, strength.clipped),
        ("imputed_demographics", True, np.fromiter(map(_is_imputed, subjects), bool, n)),
        ("extreme_demographics", True, np.fromiter((one.is_extreme for one in subjects), bool, n)),
    )
    return tuple(tuple(reason for reason, used, found in holds if used and found[i]) for i in range(n))


def _is_imputed(subject: LoadingSubject) -> bool:
    return "imputed" in (subject.height_source, subject.mass_source)


def _shape(base: BaseModel, stature: Floats, curvature: Curvature | None) -> tuple[Floats, Floats]:
    """Scale factors [subject, body, 3] and rest rotations [subject, body, 3, 3]; stature alone without a curvature."""
    if curvature is None:
        scale = np.broadcast_to(stature[:, None, None], (len(stature), len(base.bodies), 3))
        return scale, np.repeat(base.rest_rotation[None], len(stature), axis=0)
    return _body_scale(base, stature, curvature), _rest_rotation(base, curvature)


def _path_ratio(
    base: BaseModel, rotation: Floats, offset_m: Floats, point_m: Floats
) -> tuple[Floats, list[str | None]]:
    """Length [subject, fascicle] of each path at rest over the base model's, and the subjects' problems."""
    axes, origin = place_bodies(base, rotation, offset_m)
    points = place_points(base, axes, origin, point_m)
    problems = geometry_problems(base, origin, points)
    generic = place_points(base, *place_bodies(base, base.rest_rotation[None], base.rest_offset_m[None]), base.point_m)
    return np.asarray(path_lengths(base, points) / path_lengths(base, generic)), problems


def geometry_problems(base: BaseModel, origin_m: Floats, points_m: Floats) -> list[str | None]:
    """Look at placed joints [subject, body, 3] and path points [subject, point, 3] at rest, in ground.

    Says for each subject whether a joint is not above the one below it in the line from L5/S1 to T12/L1, pieces of a
    fascicle have no length, or a path point is farther away than a body reaches; None for a sound one.
    """
    joints = origin_m[:, base.joint_body]
    up = joints[:, -1] - joints[:, 0]
    rising = np.einsum("sji,si->sj", np.diff(joints, axis=1), up).min(axis=1) > 0.0
    piece = points_m[:, base.segment_start + 1] - points_m[:, base.segment_start]
    long = np.linalg.norm(piece, axis=2).min(axis=1) > SHORTEST_PIECE_M
    pelvis = origin_m[:, base.parent[base.joint_body[0]], None]
    near = np.linalg.norm(points_m - pelvis, axis=2).max(axis=1) < FARTHEST_POINT_M
    checks = (
        ("joint centres are out of order", rising),
        ("a fascicle has no length", long),
        ("a path point is too far away", near),
    )
    return [next((what for what, sound in checks if not sound[i]), None) for i in range(len(origin_m))]


def _body_scale(base: BaseModel, stature: Floats, curvature: Curvature) -> Floats:
    """Scale factors [subject, body, 3]: stature everywhere, but L5..L1 as long as measured along their own axes."""
    scale = np.repeat(stature[:, None], len(base.bodies), axis=1)[:, :, None] * np.ones(3)
    along = curvature.length_m / base.vertebral_length_m
    lumbar = base.joint_body[:-1]
    scale[:, lumbar, 1] = np.where(np.isnan(along), scale[:, lumbar, 1], along)
    return scale


def _rest_rotation(base: BaseModel, curvature: Curvature) -> Floats:
    """Rotations [subject, body, 3, 3] against the parent, with the measured ones of the spinal joints put in.

    The measured rotation is between frames along vertebral axes; those frames are fixed in the model's bodies.
    """
    rotation = np.repeat(base.rest_rotation[None], len(curvature.measured), axis=0)
    fixed = frame_along(base.vertebral_axis)
    turn = np.matmul(np.matmul(fixed[:-1], curvature.joint_rotation), fixed[1:].transpose(0, 2, 1))
    spine = base.joint_body
    rotation[:, spine] = np.where(np.isnan(turn), rotation[:, spine], turn)
    return rotation
