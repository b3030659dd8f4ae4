"""The phantom's paraspinal muscles: areas like those people outlined, on their own side, clear of the midline."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from cohort.terms import MUSCLE_LABELS, SIDES
from models.phantom.anatomy import draw_anatomy
from models.phantom.bodies import Body
from models.phantom.sampling import Subject, draw_subject, plane, tissue_at, voxel_centres
from models.phantom.slices import draw_samples

N_ADULTS = 20
PIXEL_MM = 2.4

# mm2 of one side. Multifidus and erector spinae: human masks of two adults of MyoSegmenTUM, by level of the body, which
# are no published range. Psoas and quadratus at the discs: controls of medscimonit 951651 Table 2, mean -+ one standard
# deviation.
BODY_RANGES = {
    ("multifidus", "L2"): (260, 370),
    ("multifidus", "L3"): (350, 550),
    ("multifidus", "L4"): (700, 1080),
    ("multifidus", "L5"): (870, 1080),
    ("erector_spinae", "L2"): (1840, 2280),
    ("erector_spinae", "L3"): (1810, 2120),
    ("erector_spinae", "L4"): (1070, 1990),
    ("erector_spinae", "L5"): (200, 1150),
}
DISC_RANGES = {
    ("psoas", "L1"): (225, 621),
    ("psoas", "L2"): (675, 1349),
    ("psoas", "L3"): (1033, 1915),
    ("psoas", "L4"): (1252, 2270),
    ("psoas", "L5"): (1097, 2033),
    ("quadratus_lumborum", "L1"): (192, 482),
    ("quadratus_lumborum", "L2"): (270, 736),
    ("quadratus_lumborum", "L3"): (402, 966),
}
"""Of the disc below the level named."""


@dataclass(frozen=True, eq=False)
class Cut:
    """A horizontal plane around the spine of one adult."""

    body: str
    x_mm: npt.NDArray[np.float64]
    """[n] distance from the spine's middle, left positive."""
    labels: npt.NDArray[np.uint8]
    """[n] values of MUSCLE_LABELS."""


def _cut(subject: Subject, body: str, height: npt.NDArray[np.float64]) -> Cut:
    grid = plane(
        height + np.array([0.0, 25.0, 0.0]), (1, 0, 0), (0, 1, 0), size=80, spacing_mm=PIXEL_MM, thickness_mm=4
    )
    points = voxel_centres(grid, 0).reshape(-1, 3)
    spine = np.interp(height[2], np.linspace(-200.0, 320.0, 521), subject.soft.track[:, 0])
    return Cut(body, points[:, 0] - spine, tissue_at(subject, points)[3])


@pytest.fixture(scope="module")
def adults() -> list[Subject]:
    return [draw_subject(draw_anatomy(seed, n_lumbar=5)) for seed in range(N_ADULTS)]


@pytest.fixture(scope="module")
def through_bodies(adults: list[Subject]) -> list[list[Cut]]:
    """[adult][level] S1 to L1."""
    return [[_cut(one, body.name, body.centre) for body in _s1_to_l1(one)] for one in adults]


def _s1_to_l1(subject: Subject) -> tuple[Body, ...]:
    first = subject.anatomy.first_mobile
    return subject.anatomy.bodies[first - 1 : first + 5]


def _areas_outside(cuts: list[list[Cut]], ranges: dict[tuple[str, str], tuple[int, int]]) -> dict[tuple[str, str], int]:
    """Mean areas of one side that lie outside their ranges, mm2."""
    areas = {}
    for muscle, level in ranges:
        values = [MUSCLE_LABELS[muscle, side] for side in SIDES]
        pixels = [np.isin(one.labels, values).sum() for own in cuts for one in own if one.body == level]
        assert len(pixels) == N_ADULTS
        areas[muscle, level] = float(np.mean(pixels)) * PIXEL_MM**2 / len(SIDES)
    return {key: round(areas[key]) for key, (low, high) in ranges.items() if not low <= areas[key] <= high}


def test_mean_areas_of_multifidus_and_erector_spinae_are_those_of_two_outlined_adults(
    through_bodies: list[list[Cut]],
) -> None:
    assert not _areas_outside(through_bodies, BODY_RANGES)


def test_mean_areas_of_psoas_and_quadratus_at_the_discs_are_in_the_published_ranges(adults: list[Subject]) -> None:
    below_mm = np.array([0, 0, 4.0])
    cuts = [
        [_cut(one, body.name, body.endplate_centre(-1) - below_mm) for body in _s1_to_l1(one)[1:]] for one in adults
    ]
    assert not _areas_outside(cuts, DISC_RANGES)


def test_every_label_is_on_its_own_side_and_multifidus_keeps_clear_of_the_midline(
    through_bodies: list[list[Cut]],
) -> None:
    for cut in itertools.chain.from_iterable(through_bodies):
        for (muscle, side), value in MUSCLE_LABELS.items():
            lateral = cut.x_mm[cut.labels == value] * (1 if side == "left" else -1)
            assert (lateral > (2.0 if muscle == "multifidus" else 0.0)).all(), (muscle, side, cut.body)


def test_the_border_of_multifidus_lies_far_apart_in_different_people(through_bodies: list[list[Cut]]) -> None:
    value = MUSCLE_LABELS["multifidus", "left"]
    reach = [one.x_mm[one.labels == value].max() for own in through_bodies for one in own if one.body == "L4"]
    assert 0.10 < np.std(reach) / np.mean(reach) < 0.25


def test_the_same_seed_gives_the_same_axial_slices_and_another_seed_does_not() -> None:
    (first,), (again,), (other,) = (draw_samples(seed, "axial", 1, size=64) for seed in (5, 5, 6))
    assert np.array_equal(first.tissue, again.tissue)
    assert np.array_equal(first.masks, again.masks)
    assert not np.array_equal(first.tissue, other.tissue)
    assert not np.array_equal(first.masks, other.masks)
