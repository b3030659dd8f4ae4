"""Curvature of the lumbar spine from centroids: how L5..L1 follow each other, in angle and distance.

A vertebra's own axis runs from the centre of the disc below to the centre of the disc above it; that of S1 from its
body's centroid to the disc L5-S1, that of T12 from the disc T12-L1 to its body's centroid. Only relative angles and
distances are used, so it hardly matters how the patient lay in the scanner. Only the sagittal plane counts: between
sagittal slices 4 to 5 mm apart, lateral positions are too rough for angles between neighbours, and a lateral tilt of
the whole thorax, which nobody stands with, would come of it. Missing values are NaN inside this module.

Centroids that no spine can have (out of order, too near or far, too bent, beside the others) are not used and the
subject is marked; nothing is interpolated where a vertebra is missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from cohort.loading.base_model import BaseModel, Flags, Floats
from cohort.loading.subject import LoadingSubject, Point
from cohort.terms import disc_name

CHAIN: Final = ("S1", "L5", "L4", "L3", "L2", "L1", "T12")
"""Vertebrae from caudal to cranial."""
DISCS: Final = tuple(disc_name(above, below) for below, above in pairwise(CHAIN))
UNKNOWN: Final[Point] = (math.nan, math.nan, math.nan)
VARIANTS: Final = frozenset({"L6", "T13"})

LENGTH_RATIO_LIMITS: Final = (0.6, 1.5)
"""Measured over expected distance of the discs around a vertebra. Expected scales with stature; published adult models
have 30 to 40 mm, so anything outside is a wrong centroid or a wrong name."""
END_LENGTH_LIMITS_M: Final = (0.010, 0.035)
"""Distance of the centroid of S1 or T12 from its disc: about half a body and half a disc. A centroid of the whole
sacrum lies further away and says nothing about the axis of S1."""
ANGLE_LIMIT_DEG: Final = 45.0
"""Largest angle between neighbouring vertebrae (own choice); beyond it a centroid or a name is wrong."""
TOTAL_ANGLE_LIMIT_DEG: Final = 120.0
"""Largest angle between any two of S1 to T12 (own choice); published lordoses end near 90 degrees."""
LATERAL_STEP_LIMIT_M: Final = 0.030
"""Largest lateral distance of neighbouring discs (own choice): a tilt of about 40 degrees."""
LATERAL_CURVE_LIMIT_M: Final = 0.006
"""Largest lateral distance of a disc from the straight line nearest to all discs (own choice). Phantoms without
scoliosis stay below 4 mm with centres rounded to slices 5 mm apart; those with a Cobb angle of 26 degrees reach it."""
BODY_OFF_MIDDLE_LIMIT_M: Final = 0.015
"""Largest distance of a body's centroid from the middle of its two discs (own choice)."""
MIN_MEASURED_JOINTS: Final = 3
"""With fewer joints measured the curvature is the base model's."""


@dataclass(frozen=True, eq=False)
class Curvature:
    """Measured part of the lumbar chain of many subjects."""

    joint_rotation: Floats
    """[subject, joint, 3, 3] axes of the upper vertebra in the frame of the lower; NaN where not measured."""
    length_m: Floats
    """[subject, 5] distance of the discs below and above L5..L1; NaN where not measured."""
    disc_axis: Floats
    """[subject, 6, 3] normals of the discs L5-S1 .. T12-L1 in the scanner's sagittal plane (x front, y up, z = 0), the
    mean direction of the axes around them; NaN where unknown."""
    disc_m: Floats
    """[subject, 6, 3] centres of the discs, x front, y up, z right; NaN where unknown."""
    measured: Flags
    """[subject] whether enough joints were measured; otherwise rotations and lengths are NaN."""
    joints: Flags
    """[subject, joint] which joints' angles were measured and are used."""
    gap: Flags
    """[subject] a joint between measured ones was not measured."""
    lateral: Flags
    """[subject] the discs lie along a line bent to the side, which the sagittal curvature knows nothing of."""
    implausible: Flags
    """[subject] some centroids are such as no spine has; they are not used."""


def measure_curvature(base: BaseModel, subjects: Sequence[LoadingSubject]) -> Curvature:
    """Derive relative rotations and distances from the centroids of discs and vertebral bodies.

    A disc without a centroid of its own is placed half way between its two vertebral bodies.
    """
    vertebrae = in_model_directions([_neighbours(subject.vertebra_centroids_mm) for subject in subjects])
    seen = in_model_directions([_points(subject.disc_centroids_mm, DISCS) for subject in subjects])
    discs = np.where(np.isnan(seen), (vertebrae[:, 1:] + vertebrae[:, :-1]) / 2.0, seen)
    step = np.concatenate(
        [seen[:, :1] - vertebrae[:, :1], np.diff(discs, axis=1), vertebrae[:, -1:] - seen[:, -1:]], axis=1
    )
    stature = np.array([subject.height_m for subject in subjects]) / base.height_m
    sound = _sound_steps(step, stature[:, None] * base.vertebral_length_m, vertebrae, discs)
    along = np.where(sound[:, :, None], step * np.array([1.0, 1.0, 0.0]), np.nan)
    turn, joints, bent = _turns(along)
    measured = joints.sum(axis=1) >= MIN_MEASURED_JOINTS
    length = np.linalg.norm(along, axis=2)
    return Curvature(
        joint_rotation=np.where(measured[:, None, None, None], turn, np.nan),
        length_m=np.where(measured[:, None], length[:, 1:-1], np.nan),
        disc_axis=np.where(bent[:, :, None], np.nan, _between(along / length[:, :, None])),
        disc_m=discs,
        measured=measured,
        joints=joints & measured[:, None],
        gap=measured & _has_gap(joints),
        lateral=measured & (_off_line(discs) > LATERAL_CURVE_LIMIT_M),
        implausible=np.asarray((~np.isnan(step[:, :, 0]) & ~sound).any(axis=1) | bent.any(axis=1)),
    )


def _sound_steps(step: Floats, expected_m: Floats, vertebrae: Floats, discs: Floats) -> Flags:
    """[subject, 7] which steps along the axes of S1, L5..L1, T12 a spine can have: cranial, of a possible length, not
    sideways, with the body's centroid in their middle."""
    length = np.linalg.norm(step[:, :, :2], axis=2)
    ends = _within(length, END_LENGTH_LIMITS_M)
    sound = np.concatenate(
        [ends[:, :1], _within(length[:, 1:-1] / expected_m, LENGTH_RATIO_LIMITS), ends[:, -1:]], axis=1
    )
    sound &= (step[:, :, 1] > 0.0) & (np.abs(step[:, :, 2]) <= LATERAL_STEP_LIMIT_M)
    off_middle = np.linalg.norm(vertebrae[:, 1:-1] - (discs[:, 1:] + discs[:, :-1]) / 2.0, axis=2)
    sound[:, 1:-1] &= ~(off_middle > BODY_OFF_MIDDLE_LIMIT_M)
    return sound


def _turns(along: Floats) -> tuple[Floats, Flags, Flags]:
    """Rotations [subject, joint, 3, 3], which of them are measured, and which are too large to be believed.

    Where all of the spine bends too far, no angle is believed.
    """
    frames = frame_along(along)
    turn = np.matmul(frames[:, :-1].transpose(0, 1, 3, 2), frames[:, 1:])
    known = ~np.isnan(turn[:, :, 0, 0])
    bent = known & ~(turn[:, :, 1, 1] > np.cos(np.radians(ANGLE_LIMIT_DEG)))
    lean = np.degrees(np.arctan2(along[:, :, 0], along[:, :, 1]))
    seen = ~np.isnan(lean)
    total = np.where(seen, lean, -np.inf).max(axis=1) - np.where(seen, lean, np.inf).min(axis=1)
    bent |= (total > TOTAL_ANGLE_LIMIT_DEG)[:, None]
    joints = known & ~bent
    return np.where(joints[:, :, None, None], turn, np.nan), joints, bent


def _between(axis: Floats) -> Floats:
    """Mean directions [subject, 6, 3] of neighbouring unit vectors [subject, 7, 3]; one alone if the other is NaN."""
    below, above = axis[:, :-1], axis[:, 1:]
    total = np.where(np.isnan(below), above, below) + np.where(np.isnan(above), below, above)
    return np.asarray(total / np.linalg.norm(total, axis=-1, keepdims=True))


def _off_line(discs_m: Floats) -> Floats:
    """Largest lateral distance [subject] of discs [subject, 6, 3] from their regression line over height."""
    seen = ~np.isnan(discs_m[..., 2])
    count = np.maximum(seen.sum(axis=1, keepdims=True), 1)
    height, side = np.where(seen[..., None], discs_m[..., 1:], 0.0).transpose(2, 0, 1)
    height, side = (np.where(seen, one - one.sum(axis=1, keepdims=True) / count, 0.0) for one in (height, side))
    spread = np.maximum((height**2).sum(axis=1, keepdims=True), np.finfo(float).tiny)
    slope = (height * side).sum(axis=1, keepdims=True) / spread
    return np.asarray(np.abs(side - slope * height).max(axis=1))


def _has_gap(joints: Flags) -> Flags:
    """[subject] whether an unmeasured joint lies between measured ones."""
    below = np.logical_or.accumulate(joints, axis=1)
    above = np.logical_or.accumulate(joints[:, ::-1], axis=1)[:, ::-1]
    return np.asarray((~joints & below & above).any(axis=1))


def frame_along(axis: Floats) -> Floats:
    """Right-handed frames [..., 3, 3] whose y columns lie along `axis` [..., 3] and whose x has no lateral part."""
    y = axis / np.linalg.norm(axis, axis=-1, keepdims=True)
    x = np.cross(y, np.array([0.0, 0.0, 1.0]))
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    return np.stack([x, y, np.cross(x, y)], axis=-1)


def has_variant(subject: LoadingSubject) -> bool:
    """Whether the subject has a vertebra more than the model: L6 or T13."""
    return not VARIANTS.isdisjoint(subject.vertebra_centroids_mm)


def _neighbours(centroids_mm: Mapping[str, Point]) -> list[Point]:
    """Centroids of the chain, LPS mm; S1 is not the neighbour of L5 where there is an L6, nor T12 of L1 with a T13."""
    points = _points(centroids_mm, CHAIN)
    if "L6" in centroids_mm:
        points[0] = UNKNOWN
    if "T13" in centroids_mm:
        points[-1] = UNKNOWN
    return points


def _points(centroids_mm: Mapping[str, Point], names: Sequence[str]) -> list[Point]:
    return [centroids_mm.get(name, UNKNOWN) for name in names]


def in_model_directions(lps_mm: npt.ArrayLike) -> Floats:
    """Turn LPS mm [..., 3] (left, posterior, cranial) into x front, y up, z right, metres."""
    lps = np.asarray(lps_mm, dtype=np.float64)
    return np.stack([-lps[..., 1], lps[..., 2], -lps[..., 0]], axis=-1) / 1000.0


def _within(values: Floats, limits: tuple[float, float]) -> Flags:
    return np.asarray((values >= limits[0]) & (values <= limits[1]))
