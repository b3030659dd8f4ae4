"""People for the validation of loads: random ones of plausible size, curvature and muscles, and their measurements.

Measurements of a person are made from the geometry of a base model, so that without deviations the personalised model
is the base model, scaled. All distributions are this project's choice, of the size that adults show; they are there to
move every number that personalisation moves, not to describe a population.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, product
from typing import Final, Literal

import numpy as np

from cohort.loading.base_model import BaseModel, Floats
from cohort.loading.curvature import CHAIN, DISCS, frame_along
from cohort.loading.position import typical_place_m
from cohort.loading.strength import typical_area_cm2
from cohort.loading.subject import LoadingSubject, Point
from cohort.terms import MUSCLES, SIDES

Sex = Literal["M", "F"]

SEED: Final = 0
HEIGHT_M: Final = {"M": (1.77, 0.07), "F": (1.64, 0.065)}
"""Mean and standard deviation."""
BODY_MASS_INDEX: Final = (26.0, 4.0)
BODY_MASS_INDEX_LIMITS: Final = (17.0, 40.0)
JOINT_ANGLE_SD_DEG: Final = 4.0
"""Of each joint by itself: lordosis then varies by about 9 degrees."""
LENGTH_SD: Final = 0.05
"""Of the distance between neighbouring joints, relative."""
AREA_SD: Final = {"muscle": 0.20, "side": 0.06, "level": 0.05}
"""Of the logarithm of an area: of a muscle on both sides, of one side against the other, of one level."""
END_LENGTH_M: Final = 0.020
"""Distance of the centroids of S1 and T12 from their disc."""

PLACE_SD_MM: Final = 4.0
"""Of the centroid of a muscle on one side, forward and outward; levels of one muscle move together."""

Areas = dict[tuple[str, str, str], float]
Places = dict[tuple[str, str, str], Point]


@dataclass(frozen=True, eq=False)
class Spine:
    """A lumbar spine in the mid-sagittal plane, x forward, y up, metres, from the centroid of S1 upwards."""

    angle_rad: Floats
    """[7] of the axes of S1, L5 .. L1, T12 against the vertical, backward positive."""
    end_m: Floats
    """[8, 2] ends of these axes: centroid of S1, centres of the discs L5-S1 to T12-L1, centroid of T12."""

    @property
    def vertebra_centroids_mm(self) -> dict[str, Point]:
        """Level -> LPS."""
        discs = self.end_m[1:-1]
        bodies = [self.end_m[0], *(0.5 * (below + above) for below, above in pairwise(discs)), self.end_m[-1]]
        return {name: _lps(*at) for name, at in zip(CHAIN, bodies, strict=True)}

    @property
    def disc_centroids_mm(self) -> dict[str, Point]:
        """Disc -> LPS."""
        return {name: _lps(*at) for name, at in zip(DISCS, self.end_m[1:-1], strict=True)}

    def muscle_centroids_mm(self, place_m: Floats) -> Places:
        """(muscle, side, disc) -> LPS, of places [muscle, side, disc, (forward, outward)] in the discs' frames."""
        angle = 0.5 * (self.angle_rad[1:] + self.angle_rad[:-1])
        forward = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        found = {}
        for (m, muscle), (s, side), (d, disc) in product(enumerate(MUSCLES), enumerate(SIDES), enumerate(DISCS)):
            ahead, outward = place_m[m, s, d]
            if np.isfinite(ahead):
                at = self.end_m[1 + d] + ahead * forward[d]
                found[muscle, side, disc] = _lps(*at, right=outward if side == "right" else -outward)
        return found


def person(sex: Sex, height_m: float, mass_kg: float) -> LoadingSubject:
    """Somebody of whom nothing but sex, height and mass is known."""
    return LoadingSubject(exam_id=f"{sex}{height_m:g}m{mass_kg:g}kg", sex=sex, height_m=height_m, mass_kg=mass_kg)


def measured_person(base: BaseModel, sex: Sex, height_m: float, mass_kg: float) -> LoadingSubject:
    """Somebody who was measured and is typical: curvature of the base model, muscles of the tables of typical ones."""
    spine = bent_spine(base, height_m, np.zeros(len(DISCS)), np.ones(len(CHAIN) - 2))
    return _measured("measured", sex, height_m, mass_kg, spine, typical_areas(sex), _typical_places(height_m))


def random_person(base: BaseModel, sex: Sex, number: int) -> LoadingSubject:
    """Draw person `number`: the same for the same sex and number, however many are drawn."""
    rng = np.random.default_rng([SEED, number, ord(sex)])
    height_m = float(rng.normal(*HEIGHT_M[sex]))
    index = float(np.clip(rng.normal(*BODY_MASS_INDEX), *BODY_MASS_INDEX_LIMITS))
    bend = np.radians(rng.normal(0.0, JOINT_ANGLE_SD_DEG, len(DISCS)))
    spine = bent_spine(base, height_m, bend, rng.normal(1.0, LENGTH_SD, len(CHAIN) - 2))
    areas = _random_areas(sex, rng)
    shift = rng.normal(0.0, PLACE_SD_MM / 1e3, (len(MUSCLES), len(SIDES), 1, 2))
    name, mass_kg = f"{sex}{number}", index * height_m**2
    return _measured(name, sex, height_m, mass_kg, spine, areas, _typical_places(height_m) + shift)


def _measured(
    name: str, sex: Sex, height_m: float, mass_kg: float, spine: Spine, areas: Areas, place_m: Floats
) -> LoadingSubject:
    return LoadingSubject(
        exam_id=name,
        sex=sex,
        height_m=height_m,
        mass_kg=mass_kg,
        vertebra_centroids_mm=spine.vertebra_centroids_mm,
        disc_centroids_mm=spine.disc_centroids_mm,
        csa_cm2=areas,
        muscle_centroids_mm=spine.muscle_centroids_mm(place_m),
    )


def bent_spine(base: BaseModel, height_m: float, bend_rad: Floats, length_ratio: Floats) -> Spine:
    """The base model's spine at that height, bent and stretched.

    Parameters
    ----------
    bend_rad : [6] turn of L5/S1 .. T12/L1 away from the base model's, extension positive
    length_ratio : [5] distance between the joints of L5 .. L1 over the base model's at that height
    """
    stature = height_m / base.height_m
    length = np.concatenate([[END_LENGTH_M], base.vertebral_length_m * length_ratio, [END_LENGTH_M]]) * stature
    angle = np.concatenate([[0.0], np.cumsum(_rest_angles(base) + bend_rad)])
    steps = length[:, None] * np.stack([-np.sin(angle), np.cos(angle)], axis=1)
    return Spine(angle_rad=angle, end_m=np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)]))


def _typical_places(height_m: float) -> Floats:
    """[muscle, side, disc, (forward, outward)], the same on both sides."""
    return np.repeat(typical_place_m(height_m)[:, None], len(SIDES), axis=1)


def typical_areas(sex: Sex) -> Areas:
    """Cross-sectional areas (cm2) of a typical person, the same on both sides."""
    table = typical_area_cm2(sex)
    return {
        (muscle, side, disc): float(table[row, column])
        for row, muscle in enumerate(MUSCLES)
        for side in SIDES
        for column, disc in enumerate(DISCS)
        if np.isfinite(table[row, column])
    }


def _rest_angles(base: BaseModel) -> Floats:
    """Angle [6] of the axis of the upper vertebra against the lower at rest, backward positive."""
    fixed = frame_along(base.vertebral_axis)
    turn = np.matmul(fixed[:-1].transpose(0, 2, 1), np.matmul(base.rest_rotation[base.joint_body], fixed[1:]))
    return np.asarray(np.arctan2(turn[:, 1, 0], turn[:, 0, 0]))


def _lps(forward_m: float, up_m: float, right: float = 0.0) -> Point:
    return float(-1e3 * right), float(-1e3 * forward_m), float(1e3 * up_m)


def _random_areas(sex: Sex, rng: np.random.Generator) -> Areas:
    muscle = {name: rng.normal(0.0, AREA_SD["muscle"]) for name in MUSCLES}
    side = {(name, which): rng.normal(0.0, AREA_SD["side"]) for name in MUSCLES for which in SIDES}
    return {
        key: area * float(np.exp(muscle[key[0]] + side[key[:2]] + rng.normal(0.0, AREA_SD["level"])))
        for key, area in typical_areas(sex).items()
    }
