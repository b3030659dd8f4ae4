"""Loads by hand: a free body cut at each joint, and the mirror image of a person in the mirror image of a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scanned_people import scanned_chain, scanned_muscles, subject

from cohort.loading.assumptions import Assumptions
from cohort.loading.base_model import BaseModel, read_base_model
from cohort.loading.curvature import DISCS
from cohort.loading.posed_subject import PosedSubject, solve_posed
from cohort.loading.solve import solve_loads
from cohort.loading.strength import typical_area_cm2
from cohort.loading.subject import LoadingSubject, Point
from cohort.loading.tasks import Task
from cohort.rows import LoadRow
from cohort.terms import LUMBAR_VERTEBRAE, MUSCLES, SIDES
from models.musculoskeletal.build import build_base_model

Vector = npt.NDArray[np.float64]

TWISTED = Task(
    name="twisted",
    trunk_flexion_deg=30.0,
    pelvic_retroversion_deg=8.0,
    lateral_bend_deg=20.0,
    axial_turn_deg=-12.0,
    arm_elevation_deg=25.0,
    right_hand_kg=9.0,
    left_hand_kg=1.0,
)
MIRRORED = replace(TWISTED, lateral_bend_deg=-20.0, axial_turn_deg=12.0, right_hand_kg=1.0, left_hand_kg=9.0)
HARD = Assumptions(min_activation=0.02, force_length=True, passive_stiffness=True)
OTHER = {"left": "right", "right": "left"}


@pytest.fixture(scope="module", params=["male", "female"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return read_base_model(build_base_model(request.param, tmp_path_factory.mktemp("models") / "base.osim"))


def person(base: BaseModel, seed: int) -> LoadingSubject:
    """Somebody with a spine, areas and places of muscles of their own, the two sides far apart."""
    rng = np.random.default_rng(seed)
    chain = scanned_chain(base, rng.normal(0.0, 5.0, 6))
    noisy = {
        table: {name: _point(np.array(place) + rng.normal(0.0, 1.5, 3)) for name, place in centroids.items()}
        for table, centroids in chain.items()
    }
    muscles = {key: _point(np.array(place) + rng.normal(0.0, 4.0, 3)) for key, place in scanned_muscles(chain).items()}
    typical = typical_area_cm2("M")
    areas = {
        (muscle, side, disc): float(typical[m, d] * rng.uniform(0.2, 1.8))
        for m, muscle in enumerate(MUSCLES)
        for side in SIDES
        for d, disc in enumerate(DISCS)
        if not np.isnan(typical[m, d])
    }
    mass = float(rng.uniform(55.0, 110.0))
    return subject(mass_kg=mass, csa_cm2=areas, muscle_centroids_mm=muscles, **noisy)


def _point(place: Vector) -> Point:
    return (float(place[0]), float(place[1]), float(place[2]))


def mirrored(one: LoadingSubject) -> LoadingSubject:
    def across(places: Mapping[str, Point]) -> dict[str, Point]:
        return {name: (-x, y, z) for name, (x, y, z) in places.items()}

    return replace(
        one,
        vertebra_centroids_mm=across(one.vertebra_centroids_mm),
        disc_centroids_mm=across(one.disc_centroids_mm),
        csa_cm2={(muscle, OTHER[side], disc): area for (muscle, side, disc), area in one.csa_cm2.items()},
        muscle_centroids_mm={
            (muscle, OTHER[side], disc): (-x, y, z)
            for (muscle, side, disc), (x, y, z) in one.muscle_centroids_mm.items()
        },
    )


def forces_on(posed: PosedSubject, joint: int, strength_n: Vector) -> list[tuple[Vector, Vector]]:
    """Force and point of application, in ground, of all that acts on the part of the body above a joint but for what
    the joint itself passes on: body weights, hand loads, and every piece of a fascicle that crosses the cut."""
    base, models = posed.base, posed.models
    above = {posed.base.bodies[base.joint_body[joint]]}
    for body, parent in enumerate(base.parent):
        if parent >= 0 and base.bodies[parent] in above:
            above.add(base.bodies[body])
    load = {"hand_r": posed.task.right_hand_kg, "hand_l": posed.task.left_hand_kg}
    found = []
    for number, name in enumerate(base.bodies):
        if name in above:
            mass = float(models.mass_kg[0, number]) + load.get(name, 0.0)
            found.append((np.array([0.0, -9.80665 * mass, 0.0]), posed.in_ground(name, models.com_m[0, number])))
    for fascicle in range(len(base.fascicles)):
        tension = float(posed.found.activation[0, fascicle] * strength_n[fascicle])
        path = [
            (base.bodies[base.point_body[i]], models.point_m[0, i])
            for i in np.flatnonzero(base.point_fascicle == fascicle)
        ]
        for (body, place), (next_body, next_place) in pairwise(path):
            if (body in above) != (next_body in above):
                here, there = posed.in_ground(body, place), posed.in_ground(next_body, next_place)
                if next_body in above:
                    here, there = there, here
                found.append((tension * (there - here) / np.linalg.norm(there - here), here))
    return found


def by_hand(posed: PosedSubject, strength_n: Vector) -> dict[tuple[str, str], Vector]:
    """(Vertebra, convention) -> compression, shear forward and to the right of the upper on the lower part."""
    base, pose = posed.base, posed.found.pose
    onto_lower = [sum(force for force, _ in forces_on(posed, joint, strength_n)) for joint in range(6)]
    centres = pose.origin_m[0, base.joint_body]
    loads = {}
    for number, level in enumerate(reversed(LUMBAR_VERTEBRAE)):
        up = (centres[number + 1] - centres[number]) / np.linalg.norm(centres[number + 1] - centres[number])
        right = pose.rotation[0, base.joint_body[number], :, 2]
        axes = np.array([-up, np.cross(up, right), right])
        loads[level, "joint_below"] = axes @ onto_lower[number]
        loads[level, "vertebra_mean"] = axes @ (onto_lower[number] + onto_lower[number + 1]) / 2.0
    return loads


@pytest.mark.parametrize("seed", [1, 2])
def test_loads_are_those_of_a_free_body_cut_at_each_joint(base: BaseModel, seed: int) -> None:
    posed = solve_posed(base, person(base, seed), TWISTED)
    loads = by_hand(posed, posed.models.strength_n[0])
    assert len(posed.rows) == len(loads) == 10
    for row in posed.rows:
        expected = loads[row.level, row.convention]
        np.testing.assert_allclose([row.axial_n, row.shear_ap_n, row.shear_lateral_n], expected, rtol=1e-7, atol=1e-4)
    assert max(abs(row.shear_lateral_n) for row in posed.rows) > 20.0


@pytest.mark.parametrize("seed", [1, 2])
def test_what_muscles_leave_of_the_moments_of_a_free_body_is_the_reserve(base: BaseModel, seed: int) -> None:
    posed = solve_posed(base, person(base, seed), replace(TWISTED, lateral_bend_deg=0.0, axial_turn_deg=0.0))
    centres = posed.found.pose.origin_m[0, base.joint_body]
    for joint, body in enumerate(base.joint_body):
        acting = forces_on(posed, joint, posed.models.strength_n[0])
        moment = sum(np.cross(place - centres[joint], force) for force, place in acting)
        # Without bend and turn the axes of the coordinates LB, AR and FE are those of the upper body.
        lacking = -posed.found.pose.rotation[0, body].T @ moment
        np.testing.assert_allclose(posed.found.reserve_nm[0, joint], lacking, atol=1e-6)
    flexion = {row.level: row.moment_flexion_nm for row in posed.rows}
    assert [flexion[level] for level in reversed(LUMBAR_VERTEBRAE)] == pytest.approx(
        list(-posed.found.reserve_nm[0, :5, 2])
    )


def signed(rows: list[LoadRow], side: float) -> Vector:
    return np.array(
        [
            (
                row.axial_n,
                row.shear_ap_n,
                side * row.shear_lateral_n,
                row.moment_flexion_nm,
                row.generic_axial_n,
                row.curvature_axial_n,
                row.muscle_axial_n,
                row.max_activation,
                row.reserve_max_nm,
            )
            for row in rows
        ],
        dtype=np.float64,
    )


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), assumptions=st.sampled_from([Assumptions(), HARD]))
def test_a_mirrored_person_in_the_mirrored_task_has_mirrored_loads(
    base: BaseModel, seed: int, assumptions: Assumptions
) -> None:
    one = person(base, seed)
    rows = solve_loads(base, [one], TWISTED, assumptions=assumptions)
    image = solve_loads(base, [mirrored(one)], MIRRORED, assumptions=assumptions)
    np.testing.assert_allclose(signed(rows, 1.0), signed(image, -1.0), rtol=1e-7, atol=1e-5)
    assert [(row.status, row.reasons) for row in rows] == [(row.status, row.reasons) for row in image]
    assert [row.curvature_joints for row in rows] == [row.curvature_joints for row in image]
