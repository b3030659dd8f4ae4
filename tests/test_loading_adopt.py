"""Base models from elsewhere, adopted: the same mechanics as in their own files, by OpenSim; refusals that help."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import opensim
import pytest
from foreign_model import BODIES, JOINTS, write_foreign_model

from cohort.errors import ConfigurationError
from cohort.loading.adopt import adopt_base_model, adoption_sha256
from cohort.loading.base_model import SPINAL_JOINTS, read_base_model, rotation, vector
from cohort.loading.model_names import MUSCLES, READY, ModelNames
from models.musculoskeletal.build import build_base_model

FOREIGN = ModelNames(height_m=1.75, carried={"Abdomen": "L2"})
FLEXION = np.radians(-45.0)
IN_FILE = {"multifidus_L2_T11_r": "multifidus_L2_T11", "multifidus_L2_T11_l": "multifidus_L2_T11_L"}
"""Adopted name -> name in the file, where they differ."""
ARM_BODIES = ("humerus", "ulna", "radius", "hand")


@dataclass(frozen=True)
class Case:
    """A model in its own file and adopted."""

    file: Path
    names: ModelNames
    adopted: Path
    flexion: dict[str, float]
    """Coordinate that leads the lumbar couplers -> its value in 45 degrees of lumbar flexion."""
    hanging: dict[str, float]
    """Coordinates that bring the arms down exactly; empty where none do."""

    def lower_joints(self) -> list[str]:
        """Joints of the file whose centre is the file's own."""
        return [
            name
            for name, joint in zip(self.names.joints, SPINAL_JOINTS, strict=True)
            if joint not in self.names.centres_m
        ]


@pytest.fixture(scope="module", params=["foreign", "lfb", "fbls"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("adopted")
    if request.param == "foreign":
        file, names = write_foreign_model(folder / "foreign.osim"), FOREIGN
        flexion = {"L5_S1_IVDjnt_FE": FLEXION / 7.0}
        hanging = {f"shoulder_{side}_LB": 0.0 for side in "RL"}
    else:
        public: Path = request.getfixturevalue("public_models")
        file = public / {"lfb": "LFB_from_Pose2Sim.osim", "fbls": "FBLS_Raabe2016.osim"}[request.param]
        names, hanging = READY[request.param], {}
        flexion = {"L5_S1_Flex_Ext": FLEXION * 0.14} if request.param == "lfb" else {"flex_extension": FLEXION}
    return Case(file, names, adopt_base_model(file, names, folder / "adopted.osim"), flexion, hanging)


@dataclass(frozen=True)
class Posed:
    """An OpenSim model in a posture."""

    model: Any
    state: Any

    def body(self, name: str) -> Any:
        return self.model.getBodySet().get(name)

    def bodies(self) -> list[str]:
        return [body.getName() for body in _each(self.model.getBodySet())]

    def parents(self) -> dict[str, str]:
        return {_base(one.getChildFrame()): _base(one.getParentFrame()) for one in _each(self.model.getJointSet())}

    def carried_by(self, joint: str) -> set[str]:
        """Bodies distal to a joint."""
        root, parents = _base(self.model.getJointSet().get(joint).getChildFrame()), self.parents()
        return {name for name in self.bodies() if root in _chain(name, parents)}

    def centre(self, joint: str) -> np.ndarray:
        return vector(self.model.getJointSet().get(joint).getChildFrame().getPositionInGround(self.state))

    def gravity(self, joint: str, *, but: Sequence[str] = ()) -> np.ndarray:
        """First moment of mass [3] (kg m) about the joint of all that it carries."""
        bodies = [self.body(n) for n in self.carried_by(joint) if not n.startswith(tuple(but))]
        places = [vector(body.findStationLocationInGround(self.state, body.getMassCenter())) for body in bodies]
        return sum((b.getMass() * (p - self.centre(joint)) for b, p in zip(bodies, places, strict=True)), np.zeros(3))

    def wrench(self, muscle: str, joint: str) -> np.ndarray:
        """Force and moment [6] of a muscle at unit tension on all that a joint carries."""
        path = _path(self.model.getMuscles().get(muscle))
        found = opensim.ArrayPointForceDirection()
        path.getPointForceDirections(self.state, found)
        total, carried = np.zeros(6), self.carried_by(joint)
        for one in (found.get(index) for index in range(found.getSize())):
            if _base(one.frame()) in carried:
                place, pull = vector(one.frame().findStationLocationInGround(self.state, one.point())), one.direction()
                total += np.concatenate([vector(pull), np.cross(place - self.centre(joint), vector(pull))])
        return total

    def touches(self, muscle: str) -> set[str]:
        """Bodies of the points and wrap surfaces of a muscle."""
        path = _path(self.model.getMuscles().get(muscle))
        points = {_base(point.getParentFrame()) for point in _each(path.getPathPointSet())}
        around = {wrap.getWrapObjectName() for wrap in _each(path.getWrapSet())}
        return points | {
            name
            for name in self.bodies()
            if around & {surface.getName() for surface in _each(self.body(name).getWrapObjectSet())}
        }


def _each(found: Any) -> Iterator[Any]:
    return (found.get(index) for index in range(found.getSize()))


def _base(frame: Any) -> str:
    return str(frame.findBaseFrame().getName())


def _chain(body: str, parents: dict[str, str]) -> Iterator[str]:
    while body in parents:
        yield body
        body = parents[body]


def _path(muscle: Any) -> Any:
    return opensim.GeometryPath.safeDownCast(muscle.updPath())


def posed(file: Path, coordinates: dict[str, float]) -> Posed:
    """Open a model in its default posture but for some coordinates; couplers hold."""
    opensim.Logger.setLevelString("Off")
    model = opensim.Model(str(file))
    state = model.initSystem()
    for name, value in coordinates.items():
        model.getCoordinateSet().get(name).setValue(state, value, False)
    model.assemble(state)
    model.realizePosition(state)
    return Posed(model, state)


def bent(case: Case) -> tuple[Posed, Posed]:
    """The file's model in flexion, and the adopted one with its vertebrae turned as much."""
    rest, theirs = posed(case.file, case.hanging), posed(case.file, case.hanging | case.flexion)
    uppers = [_base(rest.model.getJointSet().get(name).getChildFrame()) for name in case.names.joints]
    turns = [rotation(rest.body(name), rest.state).T @ rotation(theirs.body(name), theirs.state) for name in uppers]
    angles = np.array([np.arctan2(turn[1, 0], turn[0, 0]) for turn in turns])
    steps = np.diff(angles, prepend=0.0)
    return theirs, posed(case.adopted, {f"{joint}_FE": float(a) for joint, a in zip(SPINAL_JOINTS, steps, strict=True)})


def same_muscles(case: Case, theirs: Posed, ours: Posed, *, but: Sequence[str]) -> int:
    """Require equal wrenches of all muscles that touch no body in `but`; return how many there were."""
    names = [muscle.getName() for muscle in _each(ours.model.getMuscles())]
    pairs = [(name, IN_FILE.get(name, name)) for name in names]
    pairs = [(a, b) for a, b in pairs if not any(body.startswith(tuple(but)) for body in theirs.touches(b))]
    for joint in case.lower_joints():
        adopted = SPINAL_JOINTS[case.names.joints.index(joint)]
        for a, b in pairs:
            np.testing.assert_allclose(ours.wrench(a, adopted), theirs.wrench(b, joint), atol=2e-6, err_msg=b)
    return len(pairs)


def test_mass_and_gravity_moments_are_those_of_the_file(case: Case) -> None:
    theirs, ours = posed(case.file, case.hanging), posed(case.adopted, {})
    assert ours.model.getTotalMass(ours.state) == pytest.approx(theirs.model.getTotalMass(theirs.state), abs=1e-9)
    but = ("arm", "hand") if not case.hanging else ()
    theirs_but = ARM_BODIES if not case.hanging else case.names.carried
    for joint in case.lower_joints():
        adopted = SPINAL_JOINTS[case.names.joints.index(joint)]
        ours_moment = ours.gravity(adopted, but=but)
        # Bodies on couplers (1 g) are carried by a vertebra here, by the sacrum there.
        np.testing.assert_allclose(ours_moment, theirs.gravity(joint, but=theirs_but), atol=5e-4)


def test_moment_arms_in_the_neutral_posture_are_those_of_the_file(case: Case) -> None:
    ours = posed(case.adopted, {})
    but = () if case.hanging else ARM_BODIES
    assert same_muscles(case, posed(case.file, case.hanging), ours, but=(*but, *case.names.carried)) >= 16


def test_moment_arms_in_flexion_are_those_of_the_file_on_its_couplers(case: Case) -> None:
    theirs, ours = bent(case)
    but = () if case.hanging else ARM_BODIES
    assert same_muscles(case, theirs, ours, but=(*but, *case.names.carried)) >= 16


def test_bodies_on_couplers_are_carried_by_the_body_that_stays_nearest(case: Case) -> None:
    rest, theirs = posed(case.file, case.hanging), posed(case.file, case.hanging | case.flexion)
    uppers = [_base(rest.model.getJointSet().get(name).getChildFrame()) for name in case.names.joints]
    for slave, carrier in case.names.carried.items():
        points = [
            vector(point.getLocation(theirs.state))
            for muscle in _each(rest.model.getMuscles())
            for point in _each(_path(muscle).getPathPointSet())
            if _base(point.getParentFrame()) == slave
        ] or [vector(one.get_translation()) for one in _each(rest.body(slave).getWrapObjectSet())]
        before, after = (_placed(one, slave, np.array(points)) for one in (rest, theirs))
        error = {body: np.linalg.norm(_placed(theirs, body, _local(rest, body, before)) - after) for body in uppers}
        nearest = min(error, key=lambda body: error[body])
        assert ("L5", "L4", "L3", "L2", "L1", "thorax")[uppers.index(nearest)] == carrier


def _placed(posed: Posed, body: str, points: np.ndarray) -> np.ndarray:
    frame = posed.body(body)
    return vector(frame.getPositionInGround(posed.state)) + points @ rotation(frame, posed.state).T


def _local(posed: Posed, body: str, places: np.ndarray) -> np.ndarray:
    frame = posed.body(body)
    return np.asarray((places - vector(frame.getPositionInGround(posed.state))) @ rotation(frame, posed.state))


def test_strengths_and_fibres_are_those_of_the_file(case: Case) -> None:
    base, theirs = read_base_model(case.adopted), posed(case.file, {})
    for number, name in enumerate(base.fascicles):
        muscle = theirs.model.getMuscles().get(IN_FILE.get(name, name))
        found = base.strength_n[number], base.optimal_fibre_m[number], base.tendon_slack_m[number]
        wanted = muscle.getMaxIsometricForce(), muscle.getOptimalFiberLength(), muscle.getTendonSlackLength()
        assert found == pytest.approx(wanted)
    assert base.height_m == pytest.approx(case.names.height_m)
    assert base.geometry == "opensim"


def test_lumbar_axes_run_from_joint_to_joint(case: Case) -> None:
    base = read_base_model(case.adopted)
    np.testing.assert_allclose(base.vertebral_axis[1:-1], np.tile([0.0, 1.0, 0.0], (5, 1)), atol=1e-12)
    assert base.vertebral_length_m == pytest.approx([0.034] * 5, abs=0.007)


def test_arms_hang_and_keep_their_mass(case: Case) -> None:
    base, theirs = read_base_model(case.adopted), posed(case.file, {})
    for arm, hand in zip(base.arm_bodies, base.hand_bodies, strict=True):
        below = base.rest_offset_m[hand] + base.com_m[hand]
        assert np.abs(below[[0, 2]]).max() < 1e-9
        assert below[1] < -0.4
        assert base.rest_rotation[hand] == pytest.approx(np.eye(3), abs=1e-12)
        assert base.parent[hand] == arm
    mass = sum(theirs.body(n).getMass() for n in theirs.bodies() if n.startswith(ARM_BODIES))
    assert base.mass_kg[[*base.arm_bodies, *base.hand_bodies]].sum() == pytest.approx(mass)


def test_conditional_and_moving_points_are_those_of_straight_legs(tmp_path: Path) -> None:
    file = write_foreign_model(tmp_path / "a.osim")
    base = read_base_model(adopt_base_model(file, FOREIGN, tmp_path / "b.osim"))
    psoas, oblique = (base.fascicles.index(name) for name in ("Ps_L2_TP_r", "EO1_r"))
    # Origin, pelvic rim, the one conditional point that is active, insertion on the femur, which is part of the pelvis.
    assert (base.point_fascicle == psoas).sum() == 4
    places = base.point_m[base.point_fascicle == psoas][1:]
    np.testing.assert_allclose(places, [(-0.02, -0.05, 0.08), (0.01, -0.06, 0.075), (-0.09, -0.116, 0.094)], atol=1e-12)
    np.testing.assert_allclose(base.point_m[base.point_fascicle == oblique][-1], (0.0, 0.04, 0.11), atol=1e-12)
    assert "glut_max_r" not in base.fascicles
    adopted = posed(base.osim_path, {})
    path = _path(adopted.model.getMuscles().get("Ps_L2_TP_r"))
    assert [path.getWrapSet().get(0).get_range(end) for end in range(2)] == [2, 4]


def test_all_missing_names_are_told_with_the_nearest_there_is(tmp_path: Path) -> None:
    file = write_foreign_model(tmp_path / "mine.osim")
    names = replace(
        FOREIGN,
        joints=("L5_S1_IVD_joint", *JOINTS[1:5], "nothing"),
        hands=("hand_r", "paw"),
        carried={"Bauch": "L2"},
        height_m=None,
    )
    with pytest.raises(ConfigurationError) as refusal:
        adopt_base_model(file, names, tmp_path / "b.osim")
    message = str(refusal.value)
    for text in (
        "'mine.osim' has no joint 'L5_S1_IVD_joint' (there is 'L5_S1_IVDjnt')",
        "joint 'nothing'",
        "body 'hand_r' (there is 'hand_R')",
        "body 'paw'",
        "body 'Bauch'",
        "marker 'vertex' (or height_m)",
        "marker 'sole' (or height_m)",
    ):
        assert text in message
    assert str(tmp_path) not in message


def test_all_fascicles_without_a_group_are_told(tmp_path: Path) -> None:
    groups = {group: pattern for group, pattern in MUSCLES.items() if group not in ("psoas", "external_oblique")}
    file = write_foreign_model(tmp_path / "a.osim")
    for wrong, lacking in (
        (replace(FOREIGN, groups=groups), ("Ps_L2_TP_r", "Ps_L2_TP_l", "EO1_r", "EO1_l")),
        (replace(FOREIGN, groups=MUSCLES | {"psoas": "Ps_.*|EO.*"}), ("EO1_r", "EO1_l")),
        (replace(FOREIGN, sides=("_l", "_r")), ("Ps_L2_TP_l (its side)", "EO1_r (its side)", "MF_m1s_l (its side)")),
    ):
        with pytest.raises(ConfigurationError) as refusal:
            adopt_base_model(file, wrong, tmp_path / "b.osim")
        assert all(name in str(refusal.value) for name in lacking)
        assert "glut" not in str(refusal.value)


def test_wrong_order_of_joints_and_wrong_sides_are_refused(tmp_path: Path) -> None:
    file = write_foreign_model(tmp_path / "a.osim")
    with pytest.raises(ConfigurationError, match="is not on"):
        adopt_base_model(file, replace(FOREIGN, joints=JOINTS[::-1]), tmp_path / "b.osim")
    for swapped in ({"arms": ("humerus_L", "humerus_R")}, {"hands": ("hand_L", "hand_R")}):
        with pytest.raises(ConfigurationError, match="z to the right"):
            adopt_base_model(file, replace(FOREIGN, **swapped), tmp_path / "b.osim")


def test_a_vertebra_without_mass_is_refused(tmp_path: Path) -> None:
    file = write_foreign_model(tmp_path / "a.osim")
    model = opensim.Model(str(file))
    model.getBodySet().get(BODIES[1]).setMass(0.0)
    model.finalizeConnections()
    model.printToXML(str(tmp_path / "light.osim"))
    with pytest.raises(ConfigurationError, match="L4 would have a mass of 0 kg"):
        adopt_base_model(tmp_path / "light.osim", FOREIGN, tmp_path / "b.osim")


def test_a_stature_in_centimetres_is_refused(tmp_path: Path) -> None:
    file = write_foreign_model(tmp_path / "a.osim")
    with pytest.raises(ConfigurationError, match=r"a stature of 175 m, not between 1\.2 and 2\.3"):
        adopt_base_model(file, replace(FOREIGN, height_m=175.0), tmp_path / "b.osim")


@pytest.mark.parametrize(
    "wrong",
    [
        {"joints": ("a",)},
        {"hands": ("a",)},
        {"groups": {"biceps": "x"}},
        {"groups": {"psoas": "("}},
        {"carried": {"Abdomen": "L6"}},
        {"centres_m": {"T12_L1": (0.0, 0.0)}},
        {"centres_m": {"T11_T12": (0.0, 0.0, 0.0)}},
        {"centres_m": {"T12_L1": (0.0, float("nan"), 0.0)}},
        {"height_m": 0.0},
        {"height_m": float("nan")},
        {"female_height_m": -1.63},
        {"sacral_slope_deg": 400.0},
        {"sacral_slope_deg": float("nan")},
    ],
)
def test_tables_of_names_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="names of base models"):
        ModelNames(**wrong)


def test_fingerprint_follows_file_and_names(tmp_path: Path) -> None:
    file = write_foreign_model(tmp_path / "a.osim")
    first = adoption_sha256(file, FOREIGN)
    assert adoption_sha256(file, FOREIGN) == first
    assert adoption_sha256(file, replace(FOREIGN, height_m=1.8)) != first
    file.write_text(file.read_text() + "\n")
    assert adoption_sha256(file, FOREIGN) != first
    with pytest.raises(ConfigurationError, match=r"'none\.osim' cannot be read"):
        adoption_sha256(tmp_path / "none.osim", FOREIGN)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.osim").write_text("<nothing/>")
    with pytest.raises(ConfigurationError, match=r"'x\.osim' is not a readable OpenSim model"):
        adopt_base_model(tmp_path / "x.osim", FOREIGN, tmp_path / "b.osim")


def test_default_muscles_of_a_file_change_no_other_model(tmp_path: Path) -> None:
    """Neither does a file that this process has read change what an adopted or a shipped model says."""
    file = write_foreign_model(tmp_path / "a.osim")
    text = file.read_text()
    start = text.index(">", text.index("<Model name")) + 1
    default = '<defaults><Thelen2003Muscle name="default"><KshapeActive>9</KshapeActive></Thelen2003Muscle></defaults>'
    file.write_text(text[:start] + default + text[start:])
    shipped = build_base_model("male", tmp_path / "male.osim")
    adopted = adopt_base_model(file, FOREIGN, tmp_path / "b.osim")
    for _ in range(2):
        for path in (adopted, shipped):
            model = opensim.Model(str(path))
            assert opensim.Thelen2003Muscle.safeDownCast(model.getMuscles().get(0)).get_KshapeActive() == 0.45
        opensim.Model(str(file))
