"""Measurements that no body can have: flagged or refused, never a number that is not one."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scanned_people import Centroids, scanned_chain, scanned_muscles, subject

from cohort.errors import RefusedError
from cohort.loading.assumptions import Assumptions
from cohort.loading.base_model import BaseModel, read_base_model
from cohort.loading.curvature import CHAIN, DISCS, measure_curvature
from cohort.loading.personalise import geometry_problems, personalise
from cohort.loading.rest_posture import place_bodies, place_points
from cohort.loading.solve import solve_loads
from cohort.loading.tasks import STANDING, Task
from cohort.reasons import REASONS
from cohort.rows import LoadRow
from cohort.terms import MUSCLES, SIDES
from models.musculoskeletal.build import build_base_model


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return read_base_model(build_base_model("male", tmp_path_factory.mktemp("models") / "male.osim"))


def moved(chain: dict[str, Centroids], name: str, by: tuple[float, float, float]) -> dict[str, Centroids]:
    """Move one vertebra's or disc's centroid, LPS mm."""
    return {
        table: {key: tuple(np.add(place, by)) if key == name else place for key, place in centroids.items()}
        for table, centroids in chain.items()
    }  # type: ignore[return-value]


@pytest.mark.parametrize("height", [1.2, 2.3])
@pytest.mark.parametrize("mass", [30.0, 250.0])
def test_the_smallest_and_largest_people_have_flagged_loads(base: BaseModel, height: float, mass: float) -> None:
    rows = solve_loads(base, [subject(height_m=height, mass_kg=mass)], STANDING)
    assert {row.status for row in rows} == {"flagged"}
    assert all("extreme_demographics" in str(row.reasons) for row in rows)


@pytest.mark.parametrize(
    "known", [{"height_m": 1.19}, {"height_m": 2.31}, {"mass_kg": 29.9}, {"mass_kg": 250.1}, {"height_m": float("inf")}]
)
def test_people_beyond_them_are_refused(known: dict[str, float]) -> None:
    with pytest.raises(RefusedError, match=next(iter(known))) as refusal:
        subject(**known)
    assert refusal.value.reason == "implausible_demographics"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 1e300])
@pytest.mark.parametrize(
    ("field", "key"),
    [
        ("vertebra_centroids_mm", "L3"),
        ("disc_centroids_mm", "L3-L4"),
        ("muscle_centroids_mm", ("psoas", "left", "L3-L4")),
        ("csa_cm2", ("psoas", "left", "L3-L4")),
    ],
)
def test_numbers_that_are_none_are_refused_by_the_name_of_their_field(
    field: str, key: str | tuple[str, ...], number: float
) -> None:
    value = number if field == "csa_cm2" else (0.0, number, 0.0)
    with pytest.raises(RefusedError, match=f"{field}.*L3") as refusal:
        subject(**{field: {key: value}})
    assert refusal.value.reason == "implausible_geometry"


def test_a_spine_upside_down_is_not_used(base: BaseModel) -> None:
    chain = {
        table: {key: (x, y, -z) for key, (x, y, z) in centroids.items()}
        for table, centroids in scanned_chain(base, np.zeros(6)).items()
    }
    models = personalise(base, [subject(**chain)])
    assert models.curvature_source == ("default",)
    assert {"default_curvature", "implausible_curvature"} <= set(models.reasons[0])
    np.testing.assert_allclose(models.rest_rotation[0], base.rest_rotation)


@pytest.mark.parametrize(
    ("name", "by"),
    [
        ("L3-L4", (0.0, 0.0, 80.0)),
        ("L3-L4", (0.0, 0.0, 22.0)),
        ("L3-L4", (60.0, 0.0, 0.0)),
        ("L3-L4", (0.0, 40.0, 0.0)),
        ("L3", (0.0, 300.0, 0.0)),
        ("L3", (900.0, 0.0, 0.0)),
        ("S1", (0.0, 0.0, -60.0)),
    ],
    ids=["out of order", "too near", "beside", "too bent", "body behind", "body beside", "whole sacrum"],
)
def test_a_centroid_out_of_line_is_not_used_and_flagged(
    base: BaseModel, name: str, by: tuple[float, float, float]
) -> None:
    models = personalise(base, [subject(**moved(scanned_chain(base, np.zeros(6)), name, by))])
    assert "implausible_curvature" in models.reasons[0]
    joints = models.curvature_joints[0]
    assert not joints.all()
    np.testing.assert_allclose(
        models.rest_rotation[0, base.joint_body[~joints]], base.rest_rotation[base.joint_body[~joints]]
    )
    np.testing.assert_allclose(models.rest_rotation[0], base.rest_rotation, atol=1e-9)


def test_a_spine_that_curls_up_is_not_used(base: BaseModel) -> None:
    found = measure_curvature(base, [subject(**scanned_chain(base, np.full(6, 14.0), lying_deg=-32.0))])
    assert found.implausible.tolist() == [True]
    assert found.measured.tolist() == [False]
    assert np.isnan(found.joint_rotation).all()


def test_a_vertebra_missing_in_the_middle_leaves_its_joints_to_the_base_model(base: BaseModel) -> None:
    chain = scanned_chain(base, np.full(6, 4.0))
    del chain["vertebra_centroids_mm"]["L3"], chain["disc_centroids_mm"]["L3-L4"]
    models = personalise(base, [subject(**chain)])
    assert models.curvature_source == ("measured",)
    assert models.curvature_joints[0].tolist() == [True, False, False, False, True, True]
    assert "curvature_gap" in models.reasons[0]
    for joint, known in zip(base.joint_body, models.curvature_joints[0], strict=True):
        same = np.allclose(models.rest_rotation[0, joint], base.rest_rotation[joint])
        assert known == (not same)
    rows = solve_loads(base, [subject(**chain)], STANDING)
    assert {row.curvature_joints for row in rows} == {"L5_S1+L1_L2+T12_L1"}


def test_two_joints_are_no_curvature(base: BaseModel) -> None:
    chain = scanned_chain(base, np.full(6, 4.0))
    for disc in ("L3-L4", "L2-L3"):
        del chain["disc_centroids_mm"][disc]
    del chain["vertebra_centroids_mm"]["L3"]
    models = personalise(base, [subject(**chain)])
    assert (models.curvature_source, models.curvature_joints.any()) == (("default",), False)
    assert "default_curvature" in models.reasons[0]


def test_one_side_of_the_muscles_is_flagged(base: BaseModel) -> None:
    chain = scanned_chain(base, np.zeros(6))
    left = {key: place for key, place in scanned_muscles(chain).items() if key[1] == "left"}
    rows = solve_loads(base, [subject(csa_cm2=dict.fromkeys(left, 9.0), muscle_centroids_mm=left, **chain)], STANDING)
    assert all("muscle_missing" in str(row.reasons) for row in rows)
    assert_sound(rows)


@pytest.mark.parametrize(("bow_mm", "flagged"), [(5.0, False), (30.0, True), (-30.0, True)])
def test_a_spine_bent_to_the_side_is_flagged_and_one_that_lies_aslant_is_not(
    base: BaseModel, bow_mm: float, flagged: bool
) -> None:
    chain = scanned_chain(base, np.zeros(6))
    heights = [place[2] for centroids in chain.values() for place in centroids.values()]
    low, length = min(heights), max(heights) - min(heights)
    bent = {
        table: {
            name: (x + bow_mm * np.sin(np.pi * (z - low) / length) + 0.1 * (z - low), y, z)
            for name, (x, y, z) in centroids.items()
        }
        for table, centroids in chain.items()
    }
    rows = solve_loads(base, [subject(**bent)], STANDING)
    assert all(("lateral_curvature" in str(row.reasons)) == flagged for row in rows)
    assert all(row.curvature_source == "measured" for row in rows)
    assert_sound(rows)


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        ("order", "joint centres are out of order"),
        ("length", "a fascicle has no length"),
        ("far", "a path point is too far away"),
    ],
)
def test_a_model_that_is_no_body_is_told_from_its_neighbours(base: BaseModel, broken: str, problem: str) -> None:
    models = personalise(base, [subject(), subject()])
    axes, origin = place_bodies(base, models.rest_rotation, models.rest_offset_m)
    points = place_points(base, axes, origin, models.point_m)
    assert geometry_problems(base, origin, points) == [None, None]
    if broken == "order":
        origin[0, base.joint_body[[2, 3]]] = origin[0, base.joint_body[[3, 2]]]
    elif broken == "length":
        points[0, base.segment_start[7] + 1] = points[0, base.segment_start[7]]
    else:
        points[0, 3] += 2.0
    assert geometry_problems(base, origin, points) == [problem, None]


NUMBER = st.one_of(st.floats(-300.0, 300.0), st.floats(allow_nan=True, allow_infinity=True))
PLACE = st.tuples(NUMBER, NUMBER, NUMBER)
KEYS = [(muscle, side, disc) for muscle in MUSCLES for side in SIDES for disc in DISCS]


@settings(max_examples=150, deadline=None)
@given(
    vertebrae=st.dictionaries(st.sampled_from([*CHAIN, "L6", "T13"]), PLACE),
    discs=st.dictionaries(st.sampled_from(DISCS), PLACE),
    areas=st.dictionaries(st.sampled_from(KEYS), NUMBER),
    muscles=st.dictionaries(st.sampled_from(KEYS), PLACE),
)
def test_any_garbage_gives_finite_rows_or_a_refusal(
    base: BaseModel,
    vertebrae: Centroids,
    discs: Centroids,
    areas: dict[tuple[str, str, str], float],
    muscles: dict[tuple[str, str, str], tuple[float, float, float]],
) -> None:
    try:
        person = subject(
            vertebra_centroids_mm=vertebrae, disc_centroids_mm=discs, csa_cm2=areas, muscle_centroids_mm=muscles
        )
        rows = solve_loads(base, [person], STANDING)
    except RefusedError:
        return
    assert_sound(rows)


@settings(max_examples=60, deadline=None)
@given(
    noise=st.lists(st.tuples(*[st.floats(-25.0, 25.0)] * 3), min_size=13, max_size=13),
    forward=st.floats(-200.0, 200.0),
    outward=st.floats(-200.0, 200.0),
)
def test_spines_in_disorder_give_finite_rows_or_a_refusal(
    base: BaseModel, noise: list[tuple[float, float, float]], forward: float, outward: float
) -> None:
    chain = scanned_chain(base, np.zeros(6))
    muscles = scanned_muscles(chain, forward_mm=forward, outward_mm=outward)
    for name, by in zip([*CHAIN, *DISCS], noise, strict=True):
        chain = moved(chain, name, by)
    try:
        rows = solve_loads(base, [subject(muscle_centroids_mm=muscles, **chain)], STANDING)
    except RefusedError:
        return
    assert_sound(rows)


def assert_sound(rows: list[LoadRow]) -> None:
    assert len(rows) == 10
    for row in rows:
        assert all(np.isfinite(value) for value in asdict(row).values() if isinstance(value, float))
        assert (row.status == "flagged") == bool(row.reasons)
        assert all(reason in REASONS for reason in (row.reasons or "").split("+") if reason)


@pytest.mark.parametrize("low", [0.0, 0.1])
def test_tasks_at_their_limits_converge_for_weak_and_heavy_people(base: BaseModel, low: float) -> None:
    weak = {(muscle, side, "L3-L4"): 1.0 for muscle in MUSCLES for side in SIDES}
    people = [subject(), subject(height_m=1.2, mass_kg=250.0), subject(mass_kg=140.0, csa_cm2=weak)]
    for share, bend, turn in product((0.0, 0.5, 1.0), (-40.0, 40.0), (-25.0, 25.0)):
        task = Task(
            name="limits",
            trunk_flexion_deg=-30.0,
            lumbar_share=share,
            pelvic_retroversion_deg=50.0,
            lateral_bend_deg=bend,
            axial_turn_deg=turn,
            arm_elevation_deg=180.0,
            left_hand_kg=100.0,
        )
        rows = solve_loads(base, people, task, assumptions=Assumptions(min_activation=low), counterfactuals=False)
        assert {row.status for row in rows} == {"flagged"}
        assert all("not_in_equilibrium" in str(row.reasons) for row in rows)


def test_an_imputed_height_or_mass_is_flagged(base: BaseModel) -> None:
    for field in ("height_source", "mass_source"):
        rows = solve_loads(base, [replace(subject(), **{field: "imputed"})], STANDING)
        assert {getattr(row, field) for row in rows} == {"imputed"}
        assert all("imputed_demographics" in str(row.reasons) for row in rows)
