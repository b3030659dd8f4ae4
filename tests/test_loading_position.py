"""Muscles beside and behind the discs move the paths of their fascicles, and only theirs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scanned_people import scanned_chain, scanned_muscles, subject

from cohort.loading.assumptions import Personalisation
from cohort.loading.base_model import BaseModel, read_base_model
from cohort.loading.curvature import DISCS, frame_along
from cohort.loading.personalise import PersonalModels, personalise
from cohort.loading.position import typical_place_m
from cohort.loading.rest_posture import place_bodies, place_points
from cohort.terms import MUSCLES, SIDES
from models.musculoskeletal.build import build_base_model

Floats = npt.NDArray[np.float64]
POSITION_ALONE = Personalisation(curvature=False, strength=False)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return read_base_model(build_base_model("male", tmp_path_factory.mktemp("models") / "male.osim"))


@pytest.fixture(scope="module")
def chain(base: BaseModel) -> dict[str, dict[str, tuple[float, float, float]]]:
    return scanned_chain(base, np.zeros(6), lying_deg=7.0)


def fascicle_centroids(base: BaseModel, models: PersonalModels) -> Floats:
    """Strength-weighted centroids [muscle, side, disc, (forward, outward)], mm, of fascicles at the discs' planes."""
    axes, origin = place_bodies(base, models.rest_rotation, models.rest_offset_m)
    points = place_points(base, axes, origin, models.point_m)[0]
    carriers = [base.parent[base.joint_body[0]], *base.joint_body]
    axis = np.array([axes[0, body] @ own for body, own in zip(carriers, base.vertebral_axis, strict=True)])
    frames = frame_along(axis[:-1] + axis[1:])
    found = np.full((len(MUSCLES), len(SIDES), len(DISCS), 2), np.nan)
    for d, joint in enumerate(base.joint_body):
        away = points - origin[0, joint]
        height = away @ frames[d, :, 1]
        start = base.segment_start[height[base.segment_start] * height[base.segment_start + 1] < 0.0]
        share = height[start] / (height[start] - height[start + 1])
        crossing = away[start] + share[:, None] * (away[start + 1] - away[start])
        fascicle = base.point_fascicle[start]
        for m, muscle in enumerate(MUSCLES):
            for s, side in enumerate(SIDES):
                own = np.array([base.muscle[f] == muscle and base.side[f] == side for f in fascicle], dtype=bool)
                if own.any():
                    centre = np.average(crossing[own], axis=0, weights=base.strength_n[fascicle[own]]) * 1000.0
                    out = centre[2] if side == "right" else -centre[2]
                    found[m, s, d] = centre @ frames[d, :, 0], out
    return found


@pytest.mark.parametrize("height_m", [1.55, 1.75, 1.95])
def test_a_typical_person_keeps_the_base_models_paths(base: BaseModel, height_m: float) -> None:
    chain = scanned_chain(base, np.zeros(6), length_scale=height_m / base.height_m)
    muscles = scanned_muscles(chain, height_m=height_m)
    models = personalise(base, [subject(height_m=height_m, muscle_centroids_mm=muscles, **chain)], POSITION_ALONE)
    np.testing.assert_allclose(models.point_m[0], base.point_m * height_m / base.height_m, atol=1e-9)
    assert models.position_source == ("measured",)
    assert models.reasons == ((),)


def test_fascicles_and_masks_have_centroids_of_their_own(base: BaseModel) -> None:
    """Why people are compared with a typical person, not with the model: with less than a centimetre, they could be."""
    fascicles = fascicle_centroids(base, personalise(base, [subject()]))
    apart = np.abs(fascicles - typical_place_m(base.height_m)[:, None] * 1000.0)
    assert np.nanmax(apart) > 10.0
    assert np.nanmedian(apart) < 10.0


@pytest.mark.parametrize(("forward", "outward"), [(6.0, 0.0), (-8.0, 5.0), (0.0, -7.0)])
def test_fascicles_move_as_far_as_the_muscle(
    base: BaseModel, chain: dict[str, dict[str, tuple[float, float, float]]], forward: float, outward: float
) -> None:
    muscles = scanned_muscles(chain, forward_mm=forward, outward_mm=outward)
    generic, moved = (
        fascicle_centroids(base, personalise(base, [subject(muscle_centroids_mm=found, **chain)], POSITION_ALONE))
        for found in ({}, muscles)
    )
    change = (moved - generic)[:, :, :-1]
    known = ~np.isnan(change[..., 0])
    assert known.sum() >= 2 * (5 + 5 + 5 + 4)
    error = np.abs(change[known] - (forward, outward))
    assert error.mean() < 0.7
    assert np.quantile(error, 0.95) < 2.0  # the rest: fascicles that end near a plane cross it before and not after


def test_a_shift_that_changes_along_the_spine_is_followed(
    base: BaseModel, chain: dict[str, dict[str, tuple[float, float, float]]]
) -> None:
    outward = np.array([8.0, 6.0, 4.0, 2.0, 0.0, 0.0])
    muscles = scanned_muscles(chain, outward_mm=outward)
    generic, moved = (
        fascicle_centroids(base, personalise(base, [subject(muscle_centroids_mm=found, **chain)], POSITION_ALONE))
        for found in ({}, muscles)
    )
    change = (moved - generic)[..., 1]
    known = ~np.isnan(change)
    assert np.abs(change - outward)[known].max() < 3.0


def test_one_side_of_one_muscle_moves_alone(
    base: BaseModel, chain: dict[str, dict[str, tuple[float, float, float]]]
) -> None:
    moved = {
        key: (x + 9.0, y, z) if key[:2] == ("psoas", "left") else (x, y, z)
        for key, (x, y, z) in scanned_muscles(chain).items()
    }
    models = personalise(base, [subject(muscle_centroids_mm=moved, **chain)], POSITION_ALONE)
    shift = models.point_m[0] - base.point_m
    own = np.array([base.muscle[f] == "psoas" and base.side[f] == "left" for f in base.point_fascicle])
    np.testing.assert_allclose(shift[own, 2], -0.009, atol=1e-9)
    np.testing.assert_allclose(shift[~own], 0.0, atol=1e-9)


def test_a_person_who_moved_sideways_between_the_series_keeps_the_paths(
    base: BaseModel, chain: dict[str, dict[str, tuple[float, float, float]]]
) -> None:
    muscles = {key: (x + 6.0, y, z) for key, (x, y, z) in scanned_muscles(chain).items()}
    models = personalise(base, [subject(muscle_centroids_mm=muscles, **chain)], POSITION_ALONE)
    np.testing.assert_allclose(models.point_m[0], base.point_m, atol=1e-9)
    assert models.reasons == ((),)


def test_levels_between_and_beyond_measured_ones_follow_them(
    base: BaseModel, chain: dict[str, dict[str, tuple[float, float, float]]]
) -> None:
    whole = scanned_muscles(chain, forward_mm=np.array([2.0, 3.0, 4.0, 5.0, 6.0, 0.0]))
    some = {key: place for key, place in whole.items() if key[2] in ("L5-S1", "L1-L2")}
    first, second = (
        personalise(base, [subject(muscle_centroids_mm=found, **chain)], POSITION_ALONE).point_m
        for found in (whole, some)
    )
    muscle = np.array([base.muscle[f] == "multifidus" for f in base.point_fascicle])
    np.testing.assert_allclose(first[0, muscle], second[0, muscle], atol=1e-9)


def test_a_muscle_far_from_its_usual_place_is_held_and_flagged(
    base: BaseModel, chain: dict[str, dict[str, tuple[float, float, float]]]
) -> None:
    muscles = scanned_muscles(chain, outward_mm=35.0)
    models = personalise(base, [subject(muscle_centroids_mm=muscles, **chain)], POSITION_ALONE)
    assert np.abs(models.point_m[0] - base.point_m).max() == pytest.approx(0.020)
    assert models.reasons == (("implausible_position",),)


@pytest.mark.parametrize("place", [(-60.0, 0.0, 0.0), (3000.0, 0.0, 0.0), (0.0, 0.0, 90.0), (0.0, 400.0, 0.0)])
def test_a_muscle_that_cannot_be_there_moves_nothing_and_is_flagged(
    base: BaseModel, chain: dict[str, dict[str, tuple[float, float, float]]], place: tuple[float, float, float]
) -> None:
    muscles = scanned_muscles(chain)
    for key, (x, y, z) in muscles.items():
        if key[:2] == ("psoas", "left"):
            muscles[key] = (x + place[0] * 2.0, y + place[1], z + place[2])
    models = personalise(base, [subject(muscle_centroids_mm=muscles, **chain)], POSITION_ALONE)
    np.testing.assert_allclose(models.point_m[0], base.point_m, atol=1e-9)
    assert models.reasons == (("implausible_position",),)
    assert models.position_source == ("measured",)


def test_muscles_without_discs_are_of_no_use(base: BaseModel) -> None:
    muscles = scanned_muscles(scanned_chain(base, np.zeros(6)))
    models = personalise(base, [subject(muscle_centroids_mm=muscles)], POSITION_ALONE)
    np.testing.assert_allclose(models.point_m[0], base.point_m)
    assert (models.position_source, models.reasons) == (("default",), (("default_position",),))
