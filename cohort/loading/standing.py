"""How a person with a spine of their own stands: the tilt that brings the trunk's weight over the pelvis.

A scan is taken lying down and shows no more than T12 to S1; it says how vertebrae follow each other, not how the whole
stands. Nobody stands with the weight of the trunk far before or behind its base, where muscles would have to hold it
all day: posture settles where little effort is needed, and the thoracic spine, which is not in view, gives way. So all
that L5/S1 carries, and the pelvis with it, is turned until its centre of mass lies as far before L5/S1 as in the base
model (times stature). The rule is this project's own choice. Keeping the thorax of the base model upright instead puts
that centre up to some centimetres before or behind L5/S1 in people whose lordosis is not the base model's, and makes
their loads in standing up to twice as large.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cohort.loading.base_model import BaseModel, Floats
from cohort.loading.rest_posture import place_bodies


@dataclass(frozen=True, eq=False)
class Standing:
    """Sagittal angles of many subjects in upright standing."""

    tilt_rad: Floats
    """[subject] turn of the pelvis about z against the base model's, backward positive."""
    lean_rad: Floats
    """[subject] turn of the thorax about z against the base model's, backward positive."""


def balance_standing(base: BaseModel, rotation: Floats, offset_m: Floats, com_m: Floats, stature: Floats) -> Standing:
    """Find the angles at which subjects stand in balance.

    Parameters
    ----------
    rotation, offset_m, com_m : [subject, body, 3, 3], [subject, body, 3], [subject, body, 3] as in `PersonalModels`
    stature : [subject] over the base model's
    """
    axes, centre = _above_lowest_joint(base, rotation, offset_m, com_m)
    generic_axes, generic = _above_lowest_joint(base, base.rest_rotation[None], base.rest_offset_m[None], base.com_m)
    reach = np.hypot(centre[:, 0], centre[:, 1])
    forward = np.clip(generic[:, 0] * stature / reach, -1.0, 1.0)
    tilt = np.arccos(forward) - np.arctan2(centre[:, 1], centre[:, 0])
    return Standing(tilt, tilt + _sagittal_angle(axes) - _sagittal_angle(generic_axes))


def _above_lowest_joint(base: BaseModel, rotation: Floats, offset_m: Floats, com_m: Floats) -> tuple[Floats, Floats]:
    """Axes [subject, 3, 3] of the thorax, and place [subject, 3] of the centre of mass above L5/S1 from that joint.

    Arms count at their shoulders: they hang down whichever way the thorax turns.
    """
    axes, origin = place_bodies(base, rotation, offset_m)
    place = origin + np.matmul(axes, np.broadcast_to(com_m, origin.shape)[..., None])[..., 0]
    for arm, hand in zip(base.arm_bodies, base.hand_bodies, strict=True):
        place[:, arm] = place[:, hand] = origin[:, arm]
    share = np.where(base.distal[0], base.mass_kg, 0.0)
    centre = np.einsum("b,sbi->si", share / share.sum(), place)
    return axes[:, base.joint_body[-1]], centre - origin[:, base.joint_body[0]]


def _sagittal_angle(axes: Floats) -> Floats:
    """Angle [subject] of axes [subject, 3, 3] about z."""
    return np.arctan2(axes[:, 1, 0], axes[:, 0, 0])
