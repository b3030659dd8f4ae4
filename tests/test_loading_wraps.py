"""Fascicles around wrap surfaces: OpenSim's lines of action in the batch engine, and both engines on the same model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import opensim
import pytest

from cohort.loading.adopt import adopt_base_model
from cohort.loading.base_model import SPINAL_JOINTS, BaseModel, read_base_model, vector
from cohort.loading.dialect import scale_wrap_surface
from cohort.loading.equilibrium import fascicle_wrenches, pose_models
from cohort.loading.model_names import READY
from cohort.loading.opensim_engine import solve_with_opensim
from cohort.loading.opensim_geometry import wrapped_lengths, wrapped_wrenches
from cohort.loading.osim_export import personal_opensim_model
from cohort.loading.personalise import personalise
from cohort.loading.solve import solve_loads
from cohort.loading.subject import LoadingSubject
from cohort.loading.tasks import FLEXION60_5KG, STANDING, Task
from models.musculoskeletal.build import build_base_model

AROUND = {
    "ribs": ("thorax", (-0.03, 0.05, 0.0), ("LTpT_T5", "LTpT_T7", "IL_R6")),
    "belly": ("L3", (0.06, 0.0, 0.0), ("EO2", "RA")),
    "brim": ("pelvis", (0.0, 0.0, 0.0), ("Ps_L1_VB", "Ps_L3_TP")),
}
"""Surface -> body, centre and the fascicles that may wrap around it."""
SIDEWAYS = Task(name="sideways", trunk_flexion_deg=20.0, lateral_bend_deg=15.0, axial_turn_deg=10.0, right_hand_kg=5.0)


def surface(name: str) -> Any:
    made: Any
    if name == "ribs":
        made = opensim.WrapCylinder()
        made.set_radius(0.04)
        made.set_length(0.4)
    elif name == "belly":
        made = opensim.WrapSphere()
        made.set_radius(0.1)
    else:
        made = opensim.WrapEllipsoid()
        made.set_dimensions(opensim.Vec3(0.03, 0.05, 0.2))
    made.setName(name)
    made.set_translation(opensim.Vec3(*AROUND[name][1]))
    made.set_xyz_body_rotation(opensim.Vec3(0.1, 0.2, -0.1))
    return made


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    """The default model with surfaces added."""
    folder = tmp_path_factory.mktemp("wrapped")
    model = opensim.Model(str(build_base_model("male", folder / "male.osim")))
    for name, (body, _, fascicles) in AROUND.items():
        made = surface(name)
        model.getBodySet().get(body).addWrapObject(made)
        model.finalizeConnections()
        for muscle in (model.getMuscles().get(f"{fascicle}_{side}") for fascicle in fascicles for side in "rl"):
            opensim.GeometryPath.safeDownCast(muscle.updPath()).addPathWrap(made)
    model.finalizeConnections()
    model.printToXML(str(folder / "wrapped.osim"))
    return read_base_model(folder / "wrapped.osim")


def person(seed: int, base: BaseModel) -> LoadingSubject:
    """A person of random size, curvature and strength."""
    rng = np.random.default_rng(seed)
    height = float(rng.uniform(1.55, 1.9))
    step = base.vertebral_length_m.mean() * height / base.height_m * 1000.0
    lordosis = np.radians(rng.normal((38.0, 22.0, 8.0, 0.0, -7.0, -14.0), 3.0))
    along = step * np.stack([np.zeros(6), np.sin(-lordosis), np.cos(lordosis)], axis=1)
    along[[0, -1]] *= 0.6
    discs = np.cumsum(np.vstack([np.zeros(3), along[1:-1] + 0.0, along[-1:]]), axis=0)
    names = ("L5-S1", "L4-L5", "L3-L4", "L2-L3", "L1-L2", "T12-L1")
    centres = {"S1": discs[0] - along[0]} | {
        level: (discs[number] + discs[number + 1]) / 2.0 for number, level in enumerate(("L5", "L4", "L3", "L2", "L1"))
    }
    centres["T12"] = discs[-1] + along[-1]
    areas = {"multifidus": 7.0, "erector_spinae": 17.0, "psoas": 15.0, "quadratus_lumborum": 7.0}
    return LoadingSubject(
        exam_id=str(seed),
        sex="M",
        height_m=height,
        mass_kg=float(rng.uniform(55.0, 100.0)),
        vertebra_centroids_mm={name: (float(at[0]), float(at[1]), float(at[2])) for name, at in centres.items()},
        disc_centroids_mm={
            name: (float(at[0]), float(at[1]), float(at[2])) for name, at in zip(names, discs, strict=True)
        },
        csa_cm2={
            (muscle, side, "L3-L4"): area * float(rng.uniform(0.8, 1.2))
            for muscle, area in areas.items()
            for side in ("left", "right")
        },
    )


def posed_in_opensim(base: BaseModel, subject: LoadingSubject, task: Task) -> tuple[Any, Any]:
    """The personalised model in a posture; the arms stay along the thorax."""
    models = personalise(base, [subject])
    model = personal_opensim_model(base, models)
    state = model.initSystem()
    angles = {
        f"{joint}_{axis}": float(angle)
        for joint, turns in zip(SPINAL_JOINTS, task.joint_angles_rad, strict=True)
        for axis, angle in zip(("FE", "LB", "AR"), turns, strict=True)
    }
    for name, value in {"pelvis_tilt": float(models.rest_tilt_rad[0]) + task.pelvis_tilt_rad, **angles}.items():
        model.getCoordinateSet().get(name).setValue(state, value, False)
    model.realizePosition(state)
    return model, state


def wrapped(base: BaseModel) -> list[str]:
    return [name for name, wraps in zip(base.fascicles, base.wrapped, strict=True) if wraps]


def test_wrapped_fascicles_are_known(base: BaseModel) -> None:
    names = {f"{fascicle}_{side}" for _, _, fascicles in AROUND.values() for fascicle in fascicles for side in "rl"}
    assert set(wrapped(base)) == names
    assert base.geometry == "opensim"


@pytest.mark.parametrize("task", [STANDING, FLEXION60_5KG, SIDEWAYS], ids=lambda task: task.name)
@pytest.mark.parametrize("seed", [1, 2])
def test_wrenches_and_lengths_are_those_of_the_personal_model_in_opensim(
    base: BaseModel, seed: int, task: Task
) -> None:
    subject = person(seed, base)
    models = personalise(base, [subject])
    assert models.curvature_source == models.strength_source == ("measured",)
    pose = pose_models(base, models, task)
    ours, lengths = wrapped_wrenches(base, models, pose)[0], wrapped_lengths(base, models, pose)[0]
    model, state = posed_in_opensim(base, subject, task)
    for number, name in enumerate(wrapped(base)):
        path = opensim.GeometryPath.safeDownCast(model.getMuscles().get(name).updPath())
        assert lengths[number] == pytest.approx(path.getLength(state), abs=1e-6)
        for joint, (spine, body) in enumerate(zip(SPINAL_JOINTS, base.joint_body, strict=True)):
            below = pose.rotation[0, base.parent[body]] @ models.rest_rotation[0, body]
            # The first of the three body-fixed turns, flexion, is about the z axis of the joint's lower frame.
            moment = below[:, 2] @ ours[joint, 3:, number]
            arm = path.computeMomentArm(state, model.getCoordinateSet().get(f"{spine}_FE"))
            assert moment == pytest.approx(arm, abs=2e-5), name


def test_surfaces_change_lines_of_action(base: BaseModel) -> None:
    models = personalise(base, [person(1, base)])
    pose = pose_models(base, models, FLEXION60_5KG)
    straight = read_base_model(build_base_model("male", base.osim_path.with_name("straight.osim")))
    around, direct = fascicle_wrenches(base, models, pose), fascicle_wrenches(straight, models, pose)
    np.testing.assert_array_equal(around[..., ~base.wrapped], direct[..., ~base.wrapped])
    changed = np.abs(around - direct).max(axis=(0, 1, 2)) > 1e-3
    names = {name[:-2] for name, other in zip(base.fascicles, changed, strict=True) if other}
    assert all(names.intersection(fascicles) for _, _, fascicles in AROUND.values())


def test_a_result_does_not_depend_on_who_came_before(base: BaseModel) -> None:
    people = [person(seed, base) for seed in range(6)]
    together = solve_loads(base, people, FLEXION60_5KG)
    alone = [row for one in reversed(people) for row in solve_loads(base, [one], FLEXION60_5KG)]
    by_key = {(row.exam_id, row.level, row.convention): row.axial_n for row in alone}
    assert [row.axial_n for row in together] == pytest.approx(
        [by_key[row.exam_id, row.level, row.convention] for row in together], rel=1e-9
    )


@pytest.mark.parametrize("kind", ["WrapCylinder", "WrapEllipsoid", "WrapSphere", "WrapTorus"])
def test_surfaces_of_every_kind_grow_with_their_body(kind: str) -> None:
    generic = getattr(opensim, kind)()
    generic.set_translation(opensim.Vec3(0.1, 0.2, 0.3))
    grown = generic.clone()
    scale_wrap_surface(grown, generic, np.array([2.0, 3.0, 2.0]))
    assert vector(grown.get_translation()) == pytest.approx([0.2, 0.6, 0.6])
    sizes = {
        "WrapCylinder": ("radius", "length"),
        "WrapEllipsoid": (),
        "WrapSphere": ("radius",),
        "WrapTorus": ("inner_radius", "outer_radius"),
    }
    as_kind = getattr(opensim, kind).safeDownCast(grown)
    for name in sizes[kind]:
        assert getattr(as_kind, f"get_{name}")() == pytest.approx(2.0 * getattr(generic, f"get_{name}")())
    if kind == "WrapEllipsoid":
        assert vector(as_kind.get_dimensions()) == pytest.approx(2.0 * vector(generic.get_dimensions()))


def largest_difference(base: BaseModel, subject: LoadingSubject, task: Task) -> float:
    """Of axial loads between the engines, relative; all other numbers are required to agree, too."""
    theirs = solve_with_opensim(base.osim_path, subject, task, timeout_s=300.0)
    ours = solve_loads(base, [subject], task)
    assert {row.geometry for row in (*ours, *theirs)} == {"opensim"}
    for a, b in zip(theirs, ours, strict=True):
        assert (a.level, a.convention) == (b.level, b.convention)
        assert b.shear_ap_n == pytest.approx(a.shear_ap_n, abs=0.005 * a.axial_n)
    return max(abs(b.axial_n - a.axial_n) / a.axial_n for a, b in zip(theirs, ours, strict=True))


@pytest.mark.parametrize("task", [STANDING, SIDEWAYS], ids=lambda task: task.name)
def test_engines_agree_on_a_wrapped_model(base: BaseModel, task: Task) -> None:
    assert largest_difference(base, person(3, base), task) < 0.001


@pytest.mark.parametrize(("file", "names"), [("LFB_from_Pose2Sim", "lfb"), ("FBLS_Raabe2016", "fbls")])
def test_engines_agree_on_public_models(public_models: Path, tmp_path: Path, file: str, names: str) -> None:
    base = read_base_model(adopt_base_model(public_models / f"{file}.osim", READY[names], tmp_path / "base.osim"))
    assert largest_difference(base, person(4, base), FLEXION60_5KG) < 0.005
