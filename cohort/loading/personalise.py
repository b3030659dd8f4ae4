"""From the base model and measurements to one personal model per subject, as arrays with a leading subject axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from cohort.loading.assumptions import Personalisation
from cohort.loading.base_model import BaseModel, Floats, Geometry
from cohort.loading.curvature import Curvature, frame_along, has_variant, measure_curvature
from cohort.loading.strength import measure_strength
from cohort.loading.subject import LoadingSubject

EVERYTHING: Final = Personalisation()
Source = Literal["measured", "default", "imputed"]


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
    """[subject] turn of the pelvis about z that keeps the thorax as upright as the base model's, backward positive."""
    height_source: tuple[Source, ...]
    mass_source: tuple[Source, ...]
    curvature_source: tuple[Source, ...]
    strength_source: tuple[Source, ...]
    position_source: tuple[Source, ...]
    reasons: tuple[tuple[str, ...], ...]
    """[subject] reason codes of this step."""


def personalise(
    base: BaseModel, subjects: Sequence[LoadingSubject], use: Personalisation = EVERYTHING
) -> PersonalModels:
    """Scale, bend and strengthen the base model for each subject.

    - Height: all lengths times stature over the base model's stature. Mass: all masses in proportion.
    - Curvature: relative rotations of T12-S1 and the distances between their joints from centroids; a level outside the
      field of view keeps the base model's. Lying supine changes the lordosis little against standing; the scanner says
      nothing about balance in standing. So the thorax is kept upright as in the base model, and the pelvis takes the
      difference: sacral slope follows lordosis (Legaye et al. 1998).
    - Strength: see `cohort.loading.strength`.
    """
    stature = np.array([subject.height_m for subject in subjects]) / base.height_m
    mass = np.array([subject.mass_kg for subject in subjects]) / base.total_mass_kg
    curvature = measure_curvature(base, subjects)
    strength = measure_strength(base, subjects)
    scale = _body_scale(base, stature, curvature)
    rotation = _rest_rotation(base, curvature)
    parent_scale = scale[:, np.maximum(base.parent, 0)]
    return PersonalModels(
        base_name=base.name,
        geometry=base.geometry,
        body_scale=scale,
        mass_kg=base.mass_kg * mass[:, None],
        com_m=base.com_m * scale,
        rest_rotation=rotation,
        rest_offset_m=base.rest_offset_m * parent_scale,
        point_m=base.point_m * scale[:, base.point_body],
        strength_n=base.strength_n * strength.ratio,
        optimal_fibre_m=base.optimal_fibre_m * stature[:, None],
        tendon_slack_m=base.tendon_slack_m * stature[:, None],
        rest_tilt_rad=_thorax_angle(base, base.rest_rotation[None]) - _thorax_angle(base, rotation),
        height_source=tuple("measured" for _ in subjects),
        mass_source=tuple("measured" for _ in subjects),
        position_source=tuple("default" for _ in subjects),
        curvature_source=tuple("measured" if known else "default" for known in curvature.measured),
        strength_source=tuple("measured" if known else "default" for known in strength.measured),
        reasons=tuple(
            (
                *(() if curvature.measured[i] else ("default_curvature",)),
                *(() if strength.measured[i] else ("default_strength",)),
                *(("lumbar_variant",) if has_variant(subject) else ()),
                *(("muscle_missing",) if strength.incomplete[i] else ()),
                *(("implausible_csa",) if strength.clipped[i] else ()),
            )
            for i, subject in enumerate(subjects)
        ),
    )


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


def _thorax_angle(base: BaseModel, rotation: Floats) -> Floats:
    """Sagittal angle [subject] of the thorax against the pelvis at rest, backward positive."""
    total = np.eye(3)
    for body in base.joint_body:
        total = np.matmul(total, rotation[:, body])
    return np.arctan2(total[..., 1, 0], total[..., 0, 0])
