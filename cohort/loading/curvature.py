"""Curvature of the lumbar spine from centroids: how L5..L1 follow each other, in angle and distance.

A vertebra's own axis runs from the centre of the disc below to the centre of the disc above it; that of S1 from its
body's centroid to the disc L5-S1, that of T12 from the disc T12-L1 to its body's centroid. Only relative angles and
distances are used, so it hardly matters how the patient lay in the scanner. Only the sagittal plane counts: between
sagittal slices 4 to 5 mm apart, lateral positions are too rough for angles between neighbours, and a lateral tilt of
the whole thorax, which nobody stands with, would come of it. Missing values are NaN inside this module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from cohort.loading.base_model import BaseModel, Flags, Floats
from cohort.loading.subject import LoadingSubject, Point
from cohort.terms import disc_name

CHAIN: Final = ("S1", "L5", "L4", "L3", "L2", "L1", "T12")
"""Vertebrae from caudal to cranial."""
DISCS: Final = tuple(disc_name(above, below) for below, above in pairwise(CHAIN))
VARIANTS: Final = frozenset({"L6", "T13"})

LENGTH_RATIO_LIMITS: Final = (0.6, 1.5)
"""Measured over expected distance of the discs around a vertebra. Expected scales with stature; published adult models
have 30 to 40 mm, so anything outside is a wrong centroid or a wrong name."""
END_LENGTH_LIMITS_M: Final = (0.010, 0.035)
"""Distance of the centroid of S1 or T12 from its disc: about half a body and half a disc. A centroid of the whole
sacrum lies further away and says nothing about the axis of S1."""
ANGLE_LIMIT_DEG: Final = 45.0
"""Largest angle between neighbouring vertebrae (project's choice); beyond it a centroid or a name is wrong."""
MIN_MEASURED_JOINTS: Final = 3
"""With fewer joints measured the curvature is the base model's."""


@dataclass(frozen=True, eq=False)
class Curvature:
    """Measured part of the lumbar chain of many subjects."""

    joint_rotation: Floats
    """[subject, joint, 3, 3] axes of the upper vertebra in the frame of the lower; NaN where not measured."""
    length_m: Floats
    """[subject, 5] distance of the discs below and above L5..L1; NaN where not measured."""
    measured: Flags
    """[subject] whether enough joints were measured; otherwise all values are NaN."""


def measure_curvature(base: BaseModel, subjects: Sequence[LoadingSubject]) -> Curvature:
    """Derive relative rotations and distances from the centroids of discs and vertebral bodies.

    A disc without a centroid of its own is placed half way between its two vertebral bodies.
    """
    vertebrae = np.array([_neighbours(subject.vertebra_centroids_mm) for subject in subjects])
    seen = np.array([_points(subject.disc_centroids_mm, DISCS) for subject in subjects])
    discs = np.where(np.isnan(seen), (vertebrae[:, 1:] + vertebrae[:, :-1]) / 2.0, seen)
    along = np.concatenate(
        [seen[:, :1] - vertebrae[:, :1], np.diff(discs, axis=1), vertebrae[:, -1:] - seen[:, -1:]], 1
    )
    length = np.linalg.norm(along, axis=2)
    stature = np.array([subject.height_m for subject in subjects]) / base.height_m
    expected = stature[:, None] * base.vertebral_length_m
    sound = np.concatenate(
        [
            _within(length[:, :1], END_LENGTH_LIMITS_M),
            _within(length[:, 1:-1] / expected, LENGTH_RATIO_LIMITS),
            _within(length[:, -1:], END_LENGTH_LIMITS_M),
        ],
        axis=1,
    )
    frames = frame_along(np.where(sound[:, :, None], along, np.nan))
    turn = np.matmul(frames[:, :-1].transpose(0, 1, 3, 2), frames[:, 1:])
    turn = np.where((turn[:, :, 1, 1] > np.cos(np.radians(ANGLE_LIMIT_DEG)))[:, :, None, None], turn, np.nan)
    measured = (~np.isnan(turn[:, :, 0, 0])).sum(axis=1) >= MIN_MEASURED_JOINTS
    body_length = np.where(sound[:, 1:-1], length[:, 1:-1], np.nan)
    return Curvature(
        joint_rotation=np.where(measured[:, None, None, None], turn, np.nan),
        length_m=np.where(measured[:, None], body_length, np.nan),
        measured=measured,
    )


def frame_along(axis: Floats) -> Floats:
    """Right-handed frames [..., 3, 3] whose y columns lie along `axis` [..., 3] and whose x has no lateral part."""
    y = axis / np.linalg.norm(axis, axis=-1, keepdims=True)
    x = np.cross(y, np.array([0.0, 0.0, 1.0]))
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    return np.stack([x, y, np.cross(x, y)], axis=-1)


def has_variant(subject: LoadingSubject) -> bool:
    """Whether the subject has a vertebra more than the model: L6 or T13."""
    return not VARIANTS.isdisjoint(subject.vertebra_centroids_mm)


def _neighbours(centroids_mm: Mapping[str, Point]) -> Floats:
    """Centroids [7, 3] of the chain; S1 is not the neighbour of L5 where there is an L6, nor T12 of L1 with a T13."""
    points = _points(centroids_mm, CHAIN)
    if "L6" in centroids_mm:
        points[0] = np.nan
    if "T13" in centroids_mm:
        points[-1] = np.nan
    return points


def _points(centroids_mm: Mapping[str, Point], names: Sequence[str]) -> Floats:
    """Sagittal places in the model's frame [name, 3], metres; LPS posterior and cranial -> x front, y up, z = 0."""
    lps = np.array([centroids_mm.get(name, (np.nan, np.nan, np.nan)) for name in names], dtype=np.float64)
    return np.stack([-lps[:, 1], lps[:, 2], 0.0 * lps[:, 0]], axis=1) / 1000.0


def _within(values: Floats, limits: tuple[float, float]) -> Flags:
    return np.asarray((values >= limits[0]) & (values <= limits[1]))
