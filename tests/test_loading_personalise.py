"""What measurements change in the model, and what they leave alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import opensim
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scanned_people import scanned_chain, scanned_muscles, subject

from cohort.errors import RefusedError
from cohort.loading.assumptions import Personalisation
from cohort.loading.base_model import BaseModel, read_base_model
from cohort.loading.curvature import DISCS, measure_curvature
from cohort.loading.personalise import EVERYTHING, personalise
from cohort.loading.rest_posture import path_lengths, place_bodies, place_points
from cohort.loading.strength import measure_strength, typical_area_cm2
from cohort.terms import MUSCLES, SIDES
from models.musculoskeletal.build import build_base_model


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return read_base_model(build_base_model("male", tmp_path_factory.mktemp("models") / "male.osim"))


def lordosis_deg(base: BaseModel, rotation: np.ndarray) -> float:
    total = np.eye(3)
    for body in base.joint_body[1:5]:
        total = total @ rotation[body]
    return float(np.degrees(np.arctan2(total[1, 0], total[0, 0])))


def test_height_and_mass_scale_everything(base: BaseModel) -> None:
    models = personalise(base, [subject(height_m=1.925, mass_kg=90.0)])
    np.testing.assert_allclose(models.point_m[0], base.point_m * 1.1)
    np.testing.assert_allclose(models.rest_offset_m[0], base.rest_offset_m * 1.1)
    np.testing.assert_allclose(models.mass_kg[0], base.mass_kg * 1.2)
    assert models.curvature_source == ("default",)
    assert models.strength_source == ("default",)
    assert models.reasons == (("default_curvature", "default_strength", "default_position"),)


@settings(max_examples=20, deadline=None)
@given(
    height=st.floats(1.2, 2.3),
    mass=st.floats(30.0, 250.0),
    bend=st.lists(st.floats(-10.0, 10.0), min_size=6, max_size=6),
    scale=st.floats(0.8, 1.3),
)
def test_the_parts_of_the_body_weigh_what_the_person_weighs(
    base: BaseModel, height: float, mass: float, bend: list[float], scale: float
) -> None:
    chain = scanned_chain(base, np.array(bend), length_scale=scale)
    models = personalise(base, [subject(height_m=height, mass_kg=mass, **chain)])
    assert models.mass_kg[0].sum() == pytest.approx(mass)


def test_fibres_are_as_near_to_their_optimal_length_as_in_the_base_model(base: BaseModel) -> None:
    models = personalise(base, [subject(height_m=1.6, **scanned_chain(base, np.full(6, 4.0), length_scale=1.1))])
    generic = path_lengths(base, place_points(base, *place_bodies(base, *_rest(base)), base.point_m[None]))
    own = place_bodies(base, models.rest_rotation, models.rest_offset_m)
    longer = path_lengths(base, place_points(base, *own, models.point_m)) / generic
    np.testing.assert_allclose(models.optimal_fibre_m, base.optimal_fibre_m * longer)
    np.testing.assert_allclose(models.tendon_slack_m, base.tendon_slack_m * longer)
    assert longer.min() < 1.0 < longer.max()


def test_path_lengths_are_those_of_opensim(base: BaseModel) -> None:
    model = opensim.Model(str(base.osim_path))
    state = model.initSystem()
    ours = path_lengths(base, place_points(base, *place_bodies(base, *_rest(base)), base.point_m[None]))[0]
    theirs = [model.getMuscles().get(name).getLength(state) for name in base.fascicles]
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def _rest(base: BaseModel) -> tuple[np.ndarray, np.ndarray]:
    return base.rest_rotation[None], base.rest_offset_m[None]


@pytest.mark.parametrize("part", ["curvature", "strength", "position"])
def test_a_part_that_is_switched_off_changes_nothing_and_gives_no_reason(base: BaseModel, part: str) -> None:
    chain = scanned_chain(base, np.full(6, 4.0))
    person = subject(
        csa_cm2={key: 1.3 * area for key, area in typical().items()},
        muscle_centroids_mm=scanned_muscles(chain, forward_mm=5.0),
        **chain,
    )
    everything = personalise(base, [person])
    without = personalise(base, [person], replace(EVERYTHING, **{part: False}))
    generic = personalise(base, [person], Personalisation(curvature=False, strength=False, position=False))
    ours = {"curvature": "rest_rotation", "strength": "strength_n", "position": "point_m"}
    for name, array in ours.items():
        full, less = getattr(everything, array), getattr(without, array)
        source = getattr(without, f"{name}_source")
        assert (np.abs(full - less).max() > 1e-4) == (name == part)
        assert source == ("default",) if name == part else ("measured",)
    np.testing.assert_allclose(generic.strength_n[0], base.strength_n)
    np.testing.assert_allclose(generic.point_m[0], base.point_m)
    np.testing.assert_allclose(generic.rest_rotation[0], base.rest_rotation)
    assert everything.reasons == without.reasons == generic.reasons == ((),)
    assert without.curvature_joints.all() == (part != "curvature")


def test_the_base_models_own_centroids_change_nothing(base: BaseModel) -> None:
    models = personalise(base, [subject(**scanned_chain(base, np.zeros(6), lying_deg=7.0))])
    assert models.curvature_source == ("measured",)
    np.testing.assert_allclose(models.rest_rotation[0], base.rest_rotation, atol=1e-9)
    np.testing.assert_allclose(models.rest_offset_m[0], base.rest_offset_m, atol=1e-9)
    assert models.rest_tilt_rad[0] == pytest.approx(0.0, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(
    bend=st.lists(st.floats(-8.0, 8.0), min_size=6, max_size=6),
    lying=st.floats(-20.0, 20.0),
    scale=st.floats(0.85, 1.2),
)
def test_bends_and_distances_are_taken_over(base: BaseModel, bend: list[float], lying: float, scale: float) -> None:
    chain = scanned_chain(base, np.array(bend), lying_deg=lying, length_scale=scale)
    models = personalise(base, [subject(**chain)])
    generic = lordosis_deg(base, base.rest_rotation)
    assert lordosis_deg(base, models.rest_rotation[0]) == pytest.approx(generic + sum(bend[1:5]), abs=1e-6)
    upper = base.joint_body[1:]
    np.testing.assert_allclose(models.rest_offset_m[0, upper, 1], base.vertebral_length_m * scale, rtol=1e-9)


def test_levels_outside_the_field_of_view_keep_the_base_model(base: BaseModel) -> None:
    chain = scanned_chain(base, np.full(6, 4.0))
    for unseen in ("T12-L1", "L1-L2"):
        del chain["disc_centroids_mm"][unseen]
    for unseen in ("T12", "L1"):
        del chain["vertebra_centroids_mm"][unseen]
    models = personalise(base, [subject(**chain)])
    assert models.curvature_source == ("measured",)
    top = base.joint_body[4:]
    np.testing.assert_allclose(models.rest_rotation[0, top], base.rest_rotation[top])
    third = base.joint_body[2]
    assert np.abs(models.rest_rotation[0, third] - base.rest_rotation[third]).max() > 0.05


def test_bodies_alone_are_enough(base: BaseModel) -> None:
    bodies = scanned_chain(base, np.zeros(6))["vertebra_centroids_mm"]
    curvature = measure_curvature(base, [subject(vertebra_centroids_mm=bodies)])
    assert curvature.measured[0]
    assert np.isnan(curvature.joint_rotation[0, [0, 5]]).all()


def test_wrong_centroids_are_not_used(base: BaseModel) -> None:
    chain = scanned_chain(base, np.zeros(6), length_scale=2.5)
    far = scanned_chain(base, np.zeros(6))
    x, y, z = far["vertebra_centroids_mm"]["S1"]
    far["vertebra_centroids_mm"]["S1"] = (x, y, z - 40.0)  # the whole sacrum
    curvature = measure_curvature(base, [subject(**chain), subject(**far), subject()])
    assert curvature.measured.tolist() == [False, True, False]
    assert np.isnan(curvature.joint_rotation[1, 0]).all()


def test_a_sixth_lumbar_vertebra_is_not_bridged(base: BaseModel) -> None:
    bodies = scanned_chain(base, np.zeros(6))["vertebra_centroids_mm"]
    models = personalise(base, [subject(vertebra_centroids_mm=bodies | {"L6": (12.0, 40.0, -300.0)})])
    assert "lumbar_variant" in models.reasons[0]
    curvature = measure_curvature(base, [subject(vertebra_centroids_mm=bodies | {"L6": (12.0, 40.0, -300.0)})])
    assert np.isnan(curvature.length_m[0, 0])


def typical(sex: str = "M") -> dict[tuple[str, str, str], float]:
    area = typical_area_cm2(sex)
    return {
        (muscle, side, disc): float(area[m, d])
        for m, muscle in enumerate(MUSCLES)
        for side in SIDES
        for d, disc in enumerate(DISCS)
        if np.isfinite(area[m, d])
    }


@pytest.mark.parametrize("sex", ["M", "F"])
def test_typical_areas_give_the_base_models_strength(base: BaseModel, sex: str) -> None:
    strength = measure_strength(base, [subject(sex=sex, csa_cm2=typical(sex))])
    np.testing.assert_allclose(strength.ratio, 1.0)
    assert strength.measured[0]
    assert not strength.incomplete[0]
    assert not strength.clipped[0]


def test_one_side_of_one_muscle(base: BaseModel) -> None:
    csa = {key: area * (0.5 if key[:2] == ("psoas", "left") else 1.0) for key, area in typical().items()}
    ratio = measure_strength(base, [subject(csa_cm2=csa)]).ratio[0]
    weak = np.array([m == "psoas" and s == "left" for m, s in zip(base.muscle, base.side, strict=True)])
    np.testing.assert_allclose(ratio[weak], 0.5)
    np.testing.assert_allclose(ratio[~weak], 1.0)


def test_only_the_levels_that_a_fascicle_spans_count(base: BaseModel) -> None:
    csa = {key: area * (2.0 if key[2] == "L1-L2" else 1.0) for key, area in typical().items()}
    ratio = dict(zip(base.fascicles, measure_strength(base, [subject(csa_cm2=csa)]).ratio[0], strict=True))
    assert ratio["MF_m5s_r"] == pytest.approx(1.0)
    assert ratio["MF_m1s_r"] == pytest.approx((2.0 + 1.0 + 1.0) / 3.0)


def test_doubtful_areas_are_held_and_flagged(base: BaseModel) -> None:
    csa = {("psoas", "left", "L3-L4"): 90.0, ("multifidus", "right", "L4-L5"): 0.1}
    models = personalise(base, [subject(csa_cm2=csa)])
    ratio = models.strength_n[0] / base.strength_n
    assert ratio.max() == pytest.approx(2.0)
    assert ratio.min() == pytest.approx(0.3)
    assert {"muscle_missing", "implausible_csa"} <= set(models.reasons[0])


@pytest.mark.parametrize("area", [0.0, -1.0])
def test_an_area_that_is_not_positive_is_left_out_and_flagged(base: BaseModel, area: float) -> None:
    csa = typical() | {("psoas", "left", "L3-L4"): area}
    models = personalise(base, [subject(csa_cm2=csa)])
    np.testing.assert_allclose(models.strength_n[0], base.strength_n)
    assert "implausible_csa" in models.reasons[0]


@pytest.mark.parametrize("known", [{"height_m": 175.0}, {"mass_kg": float("nan")}, {"mass_kg": 7.5}])
def test_implausible_people_are_refused(known: dict[str, float]) -> None:
    with pytest.raises(RefusedError) as refusal:
        subject(**known)
    assert refusal.value.reason == "implausible_demographics"


def test_unknown_sex_is_refused() -> None:
    with pytest.raises(RefusedError) as refusal:
        replace(subject(), sex="O")  # type: ignore[arg-type]
    assert refusal.value.reason == "no_demographics"
