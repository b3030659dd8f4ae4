"""Places of fascicles from the centroids of muscles beside and behind the discs.

A fascicle's place in a base model and a muscle's centroid in a mask are not the same thing: at the disc planes the
strength-weighted centroids of the default man's fascicles lie up to 15 mm medial of the masks' centroids (quadratus
lumborum, erector spinae), about 5 mm in front of them (multifidus, erector spinae), and, because psoas is drawn as
straight lines to the pelvis, almost 30 mm in front of it at L5-S1. Moving paths by that difference would rebuild the
base model, not the person. So, as with strength, a person is compared with a typical one: the path points of a muscle
are moved by the difference between the person's centroid and the typical one of that stature, in the frame of the
disc. A typical person keeps the base model's paths.

Between levels the difference is interpolated along the spine, beyond the measured ones the nearest holds, and all
points of the muscle's fascicles on vertebrae, pelvis and thorax move with it. So models of Bruno et al. (2015, J
Biomech Eng 137:081003; 2017, J Orthop Res, doi 10.1002/jor.23524; abstracts alone were read) are fitted to CT, but to
the absolute places of muscles. Scans are taken lying down, and so is the typical person's. With a constant difference
the centroids of fascicles at the disc planes move by it to about 1 mm: no iteration is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from cohort.loading.base_model import BaseModel, Flags, Floats, Integers
from cohort.loading.curvature import DISCS, UNKNOWN, Curvature, frame_along, in_model_directions
from cohort.loading.subject import LoadingSubject, Point
from cohort.terms import MUSCLES, SIDES

TYPICAL_HEIGHT_M: Final = 1.70
"""Stature to which `TYPICAL_MM` belongs."""

TYPICAL_MM: Final[Mapping[str, tuple[tuple[float, float] | None, ...]]] = {
    "multifidus": ((-57.6, 22.0), (-58.7, 20.5), (-56.3, 17.5), (-52.6, 13.9), (-49.1, 12.0), None),
    "erector_spinae": ((-55.5, 46.8), (-55.6, 47.6), (-52.8, 45.5), (-50.0, 41.8), (-47.5, 38.9), None),
    "psoas": ((-0.9, 52.1), (-4.3, 45.9), (-4.3, 40.8), (-4.8, 36.2), (-6.8, 30.8), None),
    "quadratus_lumborum": (None, (-25.9, 71.9), (-24.3, 64.5), (-22.1, 56.3), (-20.5, 48.8), None),
}
"""Centroid of each muscle, forward and outward of the disc's centre, at L5-S1, L4-L5, L3-L4, L2-L3, L1-L2, T12-L1.
Working values: mean of the true masks of 40 healthy synthetic subjects of `models.phantom` (20 of each sex, version 5,
scaled to the stature above; standard deviations 2 to 6 mm), whose muscles are placed after a normalised table of 168
axial slices of real patients. Erector spinae and multifidus of one real person (MyoSegmenTUM, Burian et al. 2019), with
the vertebral body's centre read by eye, lie within about 5 mm of it. No table of a larger group could be read."""

SHIFT_LIMIT_M: Final = 0.020
"""Largest difference from a typical person, forward and outward (own choice, about twice the largest standard
deviation among phantoms); beyond it the shift is held at the limit and flagged."""
FARTHEST_M: Final = 0.150
"""Largest distance of a muscle's centroid from the disc's (own choice); beyond it the centroid is wrong."""
OFF_PLANE_LIMIT_M: Final = 0.025
"""Largest distance of a muscle's centroid from the disc's mid-plane (own choice): a slice some 25 degrees oblique."""

MIDLINE_LIMIT_M: Final = 0.015
"""Largest lateral distance between the middle of the muscles and the disc's centre (own choice): beyond it the person
moved between the series, or one of them is wrong."""


@dataclass(frozen=True, eq=False)
class Position:
    """Shifts of path points of many subjects."""

    shift_m: Floats
    """[subject, point, 3] in the frames of the points' bodies; 0 where nothing was measured."""
    measured: Flags
    """[subject] whether any muscle's place was measured."""
    clipped: Flags
    """[subject] a centroid could not be believed and was left out, or a shift was held at the limit."""


def measure_position(base: BaseModel, subjects: Sequence[LoadingSubject], curvature: Curvature) -> Position:
    """Shift the path points of measured muscles; those of others stay."""
    centroid = in_model_directions([_centroids(subject) for subject in subjects])
    place, impossible = _places(centroid, curvature)
    stature = np.array([subject.height_m for subject in subjects]) / TYPICAL_HEIGHT_M
    difference = place - stature[:, None, None, None, None] * _typical_m()[:, None]
    limited = np.clip(difference, -SHIFT_LIMIT_M, SHIFT_LIMIT_M)
    seen = ~np.isnan(limited[..., 0])
    return Position(
        shift_m=_point_shifts(base, _along_spine(limited)),
        measured=np.asarray(seen.any(axis=(1, 2, 3))),
        clipped=np.asarray((impossible | (seen & (limited != difference).any(axis=-1))).any(axis=(1, 2, 3))),
    )


def typical_place_m(height_m: float) -> Floats:
    """Typical places [muscle, disc, (forward, outward)] at a stature; NaN where no muscle is."""
    return np.asarray(_typical_m() * height_m / TYPICAL_HEIGHT_M)


def _typical_m() -> Floats:
    nothing = (np.nan, np.nan)
    return np.array([[place or nothing for place in TYPICAL_MM[muscle]] for muscle in MUSCLES]) / 1000.0


def _centroids(subject: LoadingSubject) -> list[list[list[Point]]]:
    """Muscle, side, disc: LPS mm."""
    known = subject.muscle_centroids_mm
    return [[[known.get((m, s, disc), UNKNOWN) for disc in DISCS] for s in SIDES] for m in MUSCLES]


def _places(centroid: Floats, curvature: Curvature) -> tuple[Floats, Flags]:
    """Places [subject, muscle, side, disc, (forward, outward)] in the discs' frames, and which were not believed.

    Lateral places count from the midline of the muscles seen on both sides, else from the disc: discs come from
    sagittal slices 4 to 5 mm apart, and a person who moves between the series would have all muscles moved to one side.
    """
    frame = frame_along(curvature.disc_axis)
    offset = centroid - curvature.disc_m[:, None, None]
    forward, off_plane = (np.einsum("smadi,sdi->smad", offset, frame[..., axis]) for axis in (0, 1))
    known = ~np.isnan(forward)
    near = (np.linalg.norm(offset, axis=-1) < FARTHEST_M) & (np.abs(off_plane) < OFF_PLANE_LIMIT_M)
    middle = np.where(near, offset[..., 2], np.nan).mean(axis=2)
    median = np.ma.median(np.ma.masked_invalid(middle), axis=1)  # type: ignore[no-untyped-call]
    midline = np.ma.filled(median, 0.0)[:, None, None]
    outward = (offset[..., 2] - midline) * _outward()[:, None]
    sound = known & near & (outward > 0.0) & (np.abs(midline) < MIDLINE_LIMIT_M)
    place = np.where(sound[..., None], np.stack([forward, outward], axis=-1), np.nan)
    return place, known & ~sound


def _outward() -> Floats:
    """[side] sign of z (right) that leads outwards."""
    return np.array([1.0 if side == "right" else -1.0 for side in SIDES])


def _along_spine(difference: Floats) -> Floats:
    """Fill unmeasured levels of [subject, muscle, side, disc, 2] between and beyond measured ones; 0 without any."""
    seen = ~np.isnan(difference[..., 0])
    levels = np.broadcast_to(np.arange(len(DISCS)), seen.shape)
    below = np.maximum.accumulate(np.where(seen, levels, -1), axis=-1)
    above = np.minimum.accumulate(np.where(seen, levels, len(DISCS))[..., ::-1], axis=-1)[..., ::-1]
    low = np.where(below < 0, above, below) % len(DISCS)
    high = np.where(above == len(DISCS), below, above) % len(DISCS)
    share = ((levels - low) / np.maximum(high - low, 1))[..., None]
    values = np.nan_to_num(difference)
    at_low, at_high = (np.take_along_axis(values, level[..., None], axis=-2) for level in (low, high))
    return np.asarray((1.0 - share) * at_low + share * at_high)


def _point_shifts(base: BaseModel, difference: Floats) -> Floats:
    """Shifts [subject, point, 3] in the frames of the bodies, interpolated between the levels around each point."""
    level, chain = _levels(base)
    muscle = [-1 if name is None else MUSCLES.index(name) for name in base.muscle]
    side = [SIDES.index(name) for name in base.side]
    of_point = base.point_fascicle
    moves = (chain >= 0) & (np.array(muscle)[of_point] >= 0)
    low = np.minimum(np.floor(level), len(DISCS) - 2).astype(np.int64)
    share = (level - low)[:, None]
    m, s = np.array(muscle)[of_point], np.array(side)[of_point]
    amount = (1.0 - share) * difference[:, m, s, low] + share * difference[:, m, s, low + 1]
    frame = frame_along(base.vertebral_axis)[np.maximum(chain, 0)]
    shift = amount[..., :1] * frame[..., 0] + amount[..., 1:] * _outward()[s][:, None] * frame[..., 2]
    return np.where(moves[:, None], shift, 0.0)


def _levels(base: BaseModel) -> tuple[Floats, Integers]:
    """Place [point] along the spine, 0 at the disc L5-S1 to 5 at T12-L1, and the point's place in the chain S1, L5..L1,
    T12 (-1 elsewhere)."""
    carriers = np.array([base.parent[base.joint_body[0]], *base.joint_body])
    chain = np.full(len(base.point_body), -1)
    level = np.zeros(len(base.point_body))
    for place, body in enumerate(carriers):
        on = base.point_body == body
        chain[on] = place
        if 0 < place < len(carriers) - 1:
            level[on] = place - 1 + base.point_m[on] @ base.vertebral_axis[place] / base.vertebral_length_m[place - 1]
        else:
            level[on] = 0.0 if place == 0 else len(DISCS) - 1.0
    return np.clip(level, 0.0, len(DISCS) - 1.0), chain
