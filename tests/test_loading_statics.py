"""Geometry and gravity of the array model against OpenSim at the same posture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import opensim
import pytest

from cohort.errors import ConfigurationError
from cohort.loading.base_model import SPINAL_JOINTS, BaseModel, read_base_model
from cohort.loading.equilibrium import fascicle_wrenches, gravity_wrenches, pose_models
from cohort.loading.personalise import PersonalModels, personalise
from cohort.loading.subject import LoadingSubject
from cohort.loading.tasks import FLEXION60_5KG
from models.musculoskeletal.build import build_base_model

TASK = FLEXION60_5KG


@pytest.fixture(scope="module")
def osim_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_base_model("male", tmp_path_factory.mktemp("models") / "male.osim")


@pytest.fixture(scope="module")
def base(osim_path: Path) -> BaseModel:
    return read_base_model(osim_path)


@pytest.fixture(scope="module")
def generic(base: BaseModel) -> PersonalModels:
    subject = LoadingSubject(exam_id="generic", sex="M", height_m=base.height_m, mass_kg=base.total_mass_kg)
    return personalise(base, [subject])


@pytest.fixture(scope="module")
def posed(osim_path: Path) -> tuple[opensim.Model, opensim.State]:
    """OpenSim's model in 60 degrees flexion with hanging arms."""
    opensim.Logger.setLevelString("Off")
    model = opensim.Model(str(osim_path))
    for side in "rl":
        hand = model.getBodySet().get(f"hand_{side}")
        hand.setMass(hand.getMass() + 5.0)
    state = model.initSystem()
    angles = {"pelvis_tilt": np.radians(-15.0), "shoulder_r_FE": np.radians(60.0), "shoulder_l_FE": np.radians(60.0)}
    angles |= {f"{j}_FE": bend for j, bend in zip(SPINAL_JOINTS, TASK.joint_angles_rad[:, 0], strict=True)}
    for name, value in angles.items():
        model.getCoordinateSet().get(name).setValue(state, float(value), False)
    model.realizeVelocity(state)
    return model, state


def test_reads_the_whole_model(base: BaseModel) -> None:
    assert base.height_m == pytest.approx(1.75)
    assert base.total_mass_kg == pytest.approx(75.0)
    assert len(base.fascicles) == 210
    assert base.spans.any(axis=1).all()
    assert {m for m in base.muscle if m} == {"multifidus", "erector_spinae", "psoas", "quadratus_lumborum"}


def test_bodies_stand_where_opensim_has_them(
    base: BaseModel, generic: PersonalModels, posed: tuple[opensim.Model, opensim.State]
) -> None:
    pose = pose_models(base, generic, TASK)
    model, state = posed
    for number, name in enumerate(base.bodies):
        place = model.getBodySet().get(name).getPositionInGround(state)
        np.testing.assert_allclose(pose.origin_m[0, number], [place.get(i) for i in range(3)], atol=1e-9)


@pytest.mark.parametrize(
    "name", ["MF_m1t_2_r", "LTpT_T9_l", "IL_R5_r", "QL_post_I_1_L3_l", "Ps_L2_TP_r", "RA_l", "EO2_r"]
)
def test_moment_arms_equal_opensim(
    base: BaseModel, generic: PersonalModels, posed: tuple[opensim.Model, opensim.State], name: str
) -> None:
    pose = pose_models(base, generic, TASK)
    wrench = fascicle_wrenches(base, generic, pose)[0]
    model, state = posed
    muscle = model.getMuscles().get(name)
    for joint, (spine, body) in enumerate(zip(SPINAL_JOINTS, base.joint_body, strict=True)):
        moment = pose.rotation[0, body].T @ wrench[joint, 3:, base.fascicles.index(name)]
        for axis, suffix in enumerate(("LB", "AR", "FE")):
            arm = muscle.computeMomentArm(state, model.getCoordinateSet().get(f"{spine}_{suffix}"))
            assert moment[axis] == pytest.approx(arm, abs=2e-6)


def test_gravity_moments_equal_inverse_dynamics(
    base: BaseModel, generic: PersonalModels, posed: tuple[opensim.Model, opensim.State]
) -> None:
    pose = pose_models(base, generic, TASK)
    load = gravity_wrenches(base, generic, pose, hand_kg=(5.0, 5.0))[0]
    ours = [-load[j, 5] for j in range(6)]
    model, state = posed
    for index in range(model.getForceSet().getSize()):
        model.getForceSet().get(index).setAppliesForce(state, False)
    torque = opensim.InverseDynamicsSolver(model).solve(state)
    # OpenSim gives one value per mobility; the six of flexion are among them.
    theirs = np.array([torque.get(i) for i in range(torque.size())])
    for value in ours:
        assert np.abs(theirs - value).min() < 1e-6
    assert min(ours) > 50.0


def test_sagittal_models_are_symmetric(base: BaseModel, generic: PersonalModels) -> None:
    wrench = fascicle_wrenches(base, generic, pose_models(base, generic, TASK))[0]
    for right in range(0, len(base.fascicles), 2):
        assert base.fascicles[right][:-2] == base.fascicles[right + 1][:-2]
        mirror = np.array([1.0, 1.0, -1.0, -1.0, -1.0, 1.0])
        np.testing.assert_allclose(wrench[:, :, right] * mirror, wrench[:, :, right + 1], atol=1e-12)


def test_models_with_wrap_surfaces_are_refused(osim_path: Path, tmp_path: Path) -> None:
    model = opensim.Model(str(osim_path))
    cylinder = opensim.WrapCylinder()
    cylinder.setName("ribs")
    cylinder.set_radius(0.05)
    cylinder.set_length(0.3)
    model.getBodySet().get("thorax").addWrapObject(cylinder)
    model.finalizeConnections()
    opensim.GeometryPath.safeDownCast(model.getMuscles().get(0).updPath()).addPathWrap(cylinder)
    model.printToXML(str(tmp_path / "wrapped.osim"))
    with pytest.raises(ConfigurationError, match="wrap surfaces"):
        read_base_model(tmp_path / "wrapped.osim")


def test_files_that_are_no_model_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.osim").write_text("<not a model/>")
    with pytest.raises(ConfigurationError):
        read_base_model(tmp_path / "x.osim")
