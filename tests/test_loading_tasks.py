"""Tasks: what they may ask for, how postures are shared out, and where bodies then stand, against OpenSim."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import opensim
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cohort.errors import ConfigurationError
from cohort.loading.assumptions import Assumptions
from cohort.loading.base_model import HANDS, BaseModel, read_base_model, rotation, vector
from cohort.loading.equilibrium import (
    arm_axes,
    balance,
    coordinate_axes,
    fascicle_lengths,
    fascicle_wrenches,
    gravity_wrenches,
    pose_models,
)
from cohort.loading.opensim_engine import statics_model
from cohort.loading.passive import passive_moments
from cohort.loading.personalise import PersonalModels, personalise
from cohort.loading.subject import LoadingSubject
from cohort.loading.tasks import DEFAULT_TASKS, LIMITS, STANDING, TASKS, WILKE_SITTING, Task
from models.musculoskeletal.build import build_base_model

PERSON = LoadingSubject(
    exam_id="person",
    sex="F",
    height_m=1.68,
    mass_kg=64.0,
    vertebra_centroids_mm={
        "S1": (0.0, 28.0, -118.0),
        "L5": (0.0, 6.0, -86.0),
        "L4": (0.0, -3.0, -52.0),
        "L3": (0.0, -5.0, -18.0),
        "L2": (0.0, -2.0, 15.0),
        "L1": (0.0, 4.0, 47.0),
        "T12": (0.0, 11.0, 78.0),
    },
)

tasks = st.builds(
    Task,
    name=st.just("random"),
    trunk_flexion_deg=st.floats(-10.0, 60.0),
    lumbar_share=st.floats(0.0, 1.0),
    pelvic_retroversion_deg=st.floats(-5.0, 5.0),
    lateral_bend_deg=st.floats(-25.0, 25.0),
    axial_turn_deg=st.floats(-15.0, 15.0),
    arm_elevation_deg=st.floats(-20.0, 120.0),
    right_hand_kg=st.floats(0.0, 8.0),
    left_hand_kg=st.floats(0.0, 8.0),
)
few = settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return read_base_model(build_base_model("female", tmp_path_factory.mktemp("models") / "female.osim"))


@pytest.fixture(scope="module")
def models(base: BaseModel) -> PersonalModels:
    return personalise(base, [PERSON])


def posed(base: BaseModel, models: PersonalModels, task: Task, assumptions: Assumptions) -> tuple[Any, Any]:
    """OpenSim's model of the person in the task, and its state."""
    model = statics_model(base, models, task, assumptions).model
    for hand, load_kg in zip(HANDS, task.hand_kg, strict=True):
        body = model.getBodySet().get(hand)
        body.setMass(body.getMass() + load_kg)
    state = model.initSystem()
    model.realizeVelocity(state)
    return model, state


@pytest.mark.parametrize("name", TASKS)
def test_tasks_that_ship_are_named_and_within_limits(name: str) -> None:
    task = TASKS[name]
    assert task.name == name
    assert task.joint_angles_rad.shape == (6, 3)
    turned = np.degrees(task.joint_angles_rad[:, 0].sum() + task.pelvis_tilt_rad)
    assert turned == pytest.approx(-task.trunk_flexion_deg)


def test_thorax_flexes_by_what_lumbar_spine_and_pelvis_give_together() -> None:
    task = Task(name="x", trunk_flexion_deg=40.0, lumbar_share=0.6, pelvic_retroversion_deg=10.0)
    lumbar = np.degrees(task.joint_angles_rad[:, 0].sum())
    assert lumbar == pytest.approx(-34.0)
    assert lumbar + np.degrees(task.pelvis_tilt_rad) == pytest.approx(-40.0)
    assert np.degrees(WILKE_SITTING.joint_angles_rad[:, 0].sum() + WILKE_SITTING.pelvis_tilt_rad) == pytest.approx(0.0)


def test_bend_and_turn_are_shared_completely() -> None:
    angles = Task(name="x", lateral_bend_deg=20.0, axial_turn_deg=-6.0).joint_angles_rad
    np.testing.assert_allclose(np.degrees(angles.sum(axis=0)), [0.0, 20.0, -6.0])
    assert (angles[:, 1] > 0.0).all()
    assert (angles[:, 2] < 0.0).all()


def test_default_tasks_are_in_the_table() -> None:
    assert DEFAULT_TASKS == ("standing", "standing_5kg", "flexion30", "flexion60_5kg")
    assert set(DEFAULT_TASKS) < set(TASKS)


@pytest.mark.parametrize("field", LIMITS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e3, 1e3])
def test_impossible_values_are_named(field: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=rf"task 'x': {field} is between .* not {value:g}"):
        Task(name="x", **{field: value})


def test_more_lumbar_flexion_than_spines_have_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"82\.5 degrees of lumbar flexion, at most 65; lower"):
        Task(name="x", trunk_flexion_deg=110.0)
    assert Task(name="x", trunk_flexion_deg=110.0, lumbar_share=0.5).lumbar_flexion_deg == 55.0


@pytest.mark.parametrize("name", ["", "Standing", "a b", "a/b", "-a"])
def test_names_are_words(name: str) -> None:
    with pytest.raises(ConfigurationError, match="name of a task"):
        Task(name=name)


def test_a_bend_to_the_right_lowers_the_right_shoulder_and_a_turn_to_the_left_takes_it_forward(
    base: BaseModel, models: PersonalModels
) -> None:
    right, left = base.arm_bodies
    bent = pose_models(base, models, Task(name="x", lateral_bend_deg=15.0)).origin_m[0]
    assert bent[right, 1] < bent[left, 1] - 0.05
    assert bent[[right, left], 2].mean() > 0.02
    turned = pose_models(base, models, Task(name="x", axial_turn_deg=15.0)).origin_m[0]
    assert turned[right, 0] > turned[left, 0] + 0.05


def test_raised_arms_are_in_front(base: BaseModel, models: PersonalModels) -> None:
    pose = pose_models(base, models, Task(name="x", trunk_flexion_deg=60.0, arm_elevation_deg=90.0))
    for arm, hand in zip(base.arm_bodies, base.hand_bodies, strict=True):
        reach = pose.origin_m[0, hand] - pose.origin_m[0, arm]
        np.testing.assert_allclose(reach[[1, 2]], 0.0, atol=1e-9)
        assert reach[0] > 0.4


def test_hanging_arms_face_where_the_thorax_does() -> None:
    c, s = np.cos(0.5), np.sin(0.5)
    turned = np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])
    np.testing.assert_allclose(arm_axes(turned, 0.0), turned, atol=1e-12)


@few
@given(task=tasks)
def test_bodies_stand_and_fascicles_reach_where_opensim_has_them(
    base: BaseModel, models: PersonalModels, task: Task
) -> None:
    pose = pose_models(base, models, task)
    length = fascicle_lengths(base, models, pose)[0]
    model, state = posed(base, models, task, Assumptions())
    for number, name in enumerate(base.bodies):
        body = model.getBodySet().get(name)
        np.testing.assert_allclose(pose.origin_m[0, number], vector(body.getPositionInGround(state)), atol=1e-9)
        np.testing.assert_allclose(pose.rotation[0, number], rotation(body, state), atol=1e-9)
    for number, name in enumerate(base.fascicles):
        path = opensim.PathActuator.safeDownCast(model.getForceSet().get(name)).getGeometryPath()
        assert length[number] == pytest.approx(path.getLength(state), abs=1e-9)


@few
@given(task=tasks)
def test_moments_along_all_coordinates_equal_opensim(base: BaseModel, models: PersonalModels, task: Task) -> None:
    """Moment arms of three fascicles, and gravity by inverse dynamics, at 18 coordinates."""
    pose = pose_models(base, models, task)
    axes = np.matmul(coordinate_axes(task), pose.rotation[:, base.joint_body].transpose(0, 1, 3, 2))[0]
    arms = np.matmul(axes, fascicle_wrenches(base, models, pose)[0, :, 3:])
    gravity = np.matmul(axes, gravity_wrenches(base, models, pose, hand_kg=task.hand_kg)[0, :, 3:, None])[..., 0]
    model, state = posed(base, models, task, Assumptions())
    for name in ("MF_m2t_2_r", "LTpL_L4_l", "EO3_r"):
        path = opensim.PathActuator.safeDownCast(model.getForceSet().get(name))
        for joint, body in enumerate(base.joint_body):
            for axis, coordinate in enumerate(coordinates(model, base.bodies[body])):
                arm = path.computeMomentArm(state, coordinate)
                assert arms[joint, axis, base.fascicles.index(name)] == pytest.approx(arm, abs=2e-6)
    need = required_moments(model, state)
    for moment in gravity.ravel():
        assert np.abs(need + moment).min() < 1e-5


@few
@given(task=tasks)
def test_torques_of_passive_stiffness_have_its_moments_along_the_coordinates(
    base: BaseModel, models: PersonalModels, task: Task
) -> None:
    pose = pose_models(base, models, task)
    axes = np.matmul(coordinate_axes(task), pose.rotation[0, base.joint_body].transpose(0, 2, 1))
    torque = statics_model(base, models, task, Assumptions(passive_stiffness=True)).passive_torque_nm
    assert torque is not None
    np.testing.assert_allclose(
        np.matmul(axes, torque[:, :, None])[..., 0], passive_moments(task)[:, [1, 2, 0]], atol=1e-6
    )


def coordinates(model: Any, child: str) -> list[Any]:
    """The coordinates LB, AR, FE of a body's spinal joint."""
    joints = (model.getJointSet().get(index) for index in range(model.getJointSet().getSize()))
    joint = next(one for one in joints if one.getChildFrame().findBaseFrame().getName() == child)
    return [model.getCoordinateSet().get(f"{joint.getName()}_{axis}") for axis in ("LB", "AR", "FE")]


def required_moments(model: Any, state: Any) -> np.ndarray:
    """Moments that hold the model still against gravity, by OpenSim's inverse dynamics.

    One value per mobility in an order that OpenSim does not tell; those of the spinal joints are among them.
    """
    for index in range(model.getForceSet().getSize()):
        model.getForceSet().get(index).setAppliesForce(state, False)
    torque = opensim.InverseDynamicsSolver(model).solve(state)
    return np.array([torque.get(index) for index in range(torque.size())])


@few
@given(task=tasks)
def test_every_level_is_in_balance_about_three_axes(base: BaseModel, models: PersonalModels, task: Task) -> None:
    """Fascicles, reserves and gravity leave no moment; forces of all three and the reaction leave no force."""
    found = balance(base, models, task, Assumptions(min_activation=0.01))
    pull = fascicle_wrenches(base, models, found.pose)[0]
    load = gravity_wrenches(base, models, found.pose, hand_kg=task.hand_kg)[0]
    force = found.activation[0] * models.strength_n[0]
    assert found.converged.all()
    axes = np.matmul(coordinate_axes(task), found.pose.rotation[0, base.joint_body].transpose(0, 2, 1))
    moment = np.matmul(axes, (np.matmul(pull[:, 3:], force) + load[:, 3:])[..., None])[..., 0] + found.reserve_nm[0]
    np.testing.assert_allclose(moment, 0.0, atol=1e-6)
    np.testing.assert_allclose(np.matmul(pull[:, :3], force) + load[:, :3] + found.reaction_n[0], 0.0, atol=1e-6)


def test_standing_is_the_rest_posture(base: BaseModel) -> None:
    models = personalise(base, [replace(PERSON, vertebra_centroids_mm={}, disc_centroids_mm={})])
    assert not STANDING.joint_angles_rad.any()
    pose = pose_models(base, models, STANDING)
    thorax = pose.rotation[0, base.body("thorax")]
    np.testing.assert_allclose(thorax, np.eye(3), atol=1e-8)
