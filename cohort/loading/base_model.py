"""A spine model read once out of OpenSim into arrays: bodies, joint tree, fascicle paths, strengths, landmarks.

Frame of the model: x forward, y up, z to the right, metres. Spinal joints are ordered from caudal to cranial, L5/S1 to
T12/L1; bodies so that a parent comes before its children.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import opensim

from cohort.errors import ConfigurationError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Geometry = Literal["polygon", "opensim"]

SPINAL_JOINTS: Final = ("L5_S1", "L4_L5", "L3_L4", "L2_L3", "L1_L2", "T12_L1")
"""Joints whose moments must balance, named as in the .osim file; coordinates are `<joint>_FE`, `_LB`, `_AR`."""
PELVIS_TILT: Final = "pelvis_tilt"
"""Coordinate of the whole model about z against the ground, backward positive."""
ARMS: Final = ("arm_r", "arm_l")
HANDS: Final = ("hand_r", "hand_l")

MUSCLE_OF_GROUP: Final[Mapping[str, str | None]] = {
    "multifidus": "multifidus",
    "iliocostalis_lumborum": "erector_spinae",
    "iliocostalis_thoracis": "erector_spinae",
    "longissimus_lumborum": "erector_spinae",
    "longissimus_thoracis": "erector_spinae",
    "psoas": "psoas",
    "quadratus_lumborum": "quadratus_lumborum",
    "rectus_abdominis": None,
    "external_oblique": None,
    "internal_oblique": None,
    "transversus_abdominis": None,
    "latissimus_dorsi": None,
}
"""Groups of fascicles of a base model (groups of its force set), and the muscles of `cohort.terms` that they belong to;
None for those that are not measured on images."""


@dataclass(frozen=True, eq=False)
class BaseModel:
    """Arrays of a generic model at its rest posture (all coordinates zero)."""

    name: str
    """Name of the model in its file."""
    osim_path: Path
    bodies: tuple[str, ...]
    parent: Integers
    """[body] index of the parent, -1 for ground."""
    mass_kg: Floats
    """[body]"""
    com_m: Floats
    """[body, 3] centre of mass in the body's frame."""
    rest_rotation: Floats
    """[body, 3, 3] axes of the body in its parent's frame."""
    rest_offset_m: Floats
    """[body, 3] origin of the body, which is the centre of its joint, in the parent's frame."""
    joint_body: Integers
    """[joint] child body of each spinal joint: L5, L4, L3, L2, L1, thorax."""
    distal: Flags
    """[joint, body] whether a body is carried by a spinal joint."""
    fascicles: tuple[str, ...]
    """Fascicles that cross a spinal joint."""
    group: tuple[str, ...]
    """[fascicle] key of `MUSCLE_OF_GROUP`."""
    side: tuple[str, ...]
    """[fascicle] left or right."""
    strength_n: Floats
    """[fascicle] force at full activation and optimal fibre length."""
    optimal_fibre_m: Floats
    """[fascicle]"""
    tendon_slack_m: Floats
    """[fascicle]"""
    pennation_rad: Floats
    """[fascicle] at optimal fibre length."""
    spans: Flags
    """[fascicle, joint] which spinal joints a fascicle crosses."""
    point_body: Integers
    """[point] body that carries a path point; points of all fascicles one after the other."""
    point_m: Floats
    """[point, 3] in that body's frame."""
    point_fascicle: Integers
    """[point] ascending; fascicle whose path the point belongs to."""
    segment_start: Integers
    """[segment] index of the first point of each straight piece between two bodies; the second is the next point."""
    segment_fascicle: Integers
    """[segment] ascending; every fascicle has at least one."""
    wrapped: Flags
    """[fascicle] whether its path may wrap around a surface: its line of action is then OpenSim's."""
    vertebral_axis: Floats
    """[7, 3] direction of the axes of S1, L5..L1, T12 at rest, in the frames of pelvis, L5..L1, thorax."""
    vertebral_length_m: Floats
    """[5] distance between the joints below and above L5..L1."""
    height_m: float
    """Stature: from landmark `sole` to landmark `vertex`."""

    @property
    def muscle(self) -> tuple[str | None, ...]:
        """[fascicle] muscle of `cohort.terms`, None for muscles that are not measured (abdominal wall)."""
        return tuple(MUSCLE_OF_GROUP[group] for group in self.group)

    @property
    def geometry(self) -> Geometry:
        """Where lines of action come from."""
        return "opensim" if self.wrapped.any() else "polygon"

    @property
    def first_point(self) -> Integers:
        """[fascicle] index of its first path point."""
        return np.searchsorted(self.point_fascicle, np.arange(len(self.fascicles)))

    @property
    def total_mass_kg(self) -> float:
        return float(self.mass_kg.sum())

    def body(self, name: str) -> int:
        """Index of a body."""
        return self.bodies.index(name)

    @property
    def arm_bodies(self) -> Integers:
        """[2] indices of the bodies that hang from the shoulders."""
        return np.array([self.body(name) for name in ARMS])

    @property
    def hand_bodies(self) -> Integers:
        """[2] indices of the bodies whose centres carry the hand loads."""
        return np.array([self.body(name) for name in HANDS])


def read_base_model(osim_path: Path) -> BaseModel:
    """Read a model file once; it must have the joints, coordinates, arms and landmarks that this room works with.

    Raises ConfigurationError where the file cannot be opened, lacks a joint, body or landmark by name, or has fascicles
    with moving or conditional points, or numbers that no fascicle, body or place has.
    """
    opensim.Logger.setLevelString("Off")
    try:
        model = opensim.Model(str(osim_path))
        state = model.initSystem()
    except RuntimeError as error:
        raise ConfigurationError("the base model is not a readable OpenSim model") from error
    coordinates = model.getCoordinateSet()
    for index in range(coordinates.getSize()):
        coordinates.get(index).setValue(state, 0.0, False)
    model.realizePosition(state)
    base = _Reader(model, state).read(osim_path)
    _require_possible_numbers(base)
    return base


def _require_possible_numbers(base: BaseModel) -> None:
    """Raise ConfigurationError for what OpenSim lets pass and no engine can use; comparisons with NaN are false."""
    possible = {
        "strength": (base.strength_n > 0.0) & np.isfinite(base.strength_n),
        "optimal fibre length": (base.optimal_fibre_m > 0.0) & np.isfinite(base.optimal_fibre_m),
        "tendon slack length": (base.tendon_slack_m >= 0.0) & np.isfinite(base.tendon_slack_m),
        "pennation": (base.pennation_rad >= 0.0) & (base.pennation_rad < np.pi / 2.0),
    }
    for number, of_fascicle in possible.items():
        wrong = [name for name, sound in zip(base.fascicles, of_fascicle, strict=True) if not sound]
        if wrong:
            raise ConfigurationError(f"the base model has an impossible {number} in {', '.join(wrong)}")
    places = (base.mass_kg, base.com_m, base.rest_rotation, base.rest_offset_m, base.point_m, base.vertebral_axis)
    if not (all(np.isfinite(numbers).all() for numbers in places) and (base.mass_kg >= 0.0).all()):
        raise ConfigurationError("the base model has masses or places that are no possible numbers")


def vector(value: Any) -> Floats:
    """Turn an opensim.Vec3 into an array [3]."""
    return np.array([value.get(axis) for axis in range(3)])


def rotation(frame: Any, state: Any) -> Floats:
    """Axes of an OpenSim frame in ground, [3, 3], columns."""
    matrix = frame.getTransformInGround(state).R()
    return np.array([[matrix.get(row, column) for column in range(3)] for row in range(3)])


class _Reader:
    """Walks over one opened model; exists only while `read_base_model` runs."""

    def __init__(self, model: Any, state: Any) -> None:
        self.model = model
        self.state = state
        self.joints = self._joints_by_child()
        self.bodies = self._ordered_bodies()
        self.index = {name: number for number, name in enumerate(self.bodies)}
        self.parent = np.array([self.index.get(self._parent_name(name), -1) for name in self.bodies])
        self.rotation = np.array([rotation(self._body(name), state) for name in self.bodies])
        self.origin = np.array([vector(self._body(name).getPositionInGround(state)) for name in self.bodies])

    def read(self, osim_path: Path) -> BaseModel:
        joint_body = np.array([self._child_of(name) for name in SPINAL_JOINTS])
        for name in (*ARMS, *HANDS):
            if name not in self.index:
                raise ConfigurationError(f"the base model has no body {name!r}")
        distal = self._distal(joint_body)
        rest_rotation, rest_offset = self._rest()
        axis, length = self._vertebral_axes(joint_body)
        paths = self._paths(distal)
        muscles = [self.model.getMuscles().get(name) for name in paths]
        return BaseModel(
            name=self.model.getName(),
            osim_path=osim_path,
            bodies=tuple(self.bodies),
            parent=self.parent,
            mass_kg=np.array([self._body(name).getMass() for name in self.bodies]),
            com_m=np.array([vector(self._body(name).getMassCenter()) for name in self.bodies]),
            rest_rotation=rest_rotation,
            rest_offset_m=rest_offset,
            joint_body=joint_body,
            distal=distal,
            fascicles=tuple(paths),
            group=self._groups(list(paths)),
            side=tuple(_side_of(name) for name in paths),
            strength_n=np.array([muscle.getMaxIsometricForce() for muscle in muscles]),
            optimal_fibre_m=np.array([muscle.getOptimalFiberLength() for muscle in muscles]),
            tendon_slack_m=np.array([muscle.getTendonSlackLength() for muscle in muscles]),
            pennation_rad=np.array([muscle.getPennationAngleAtOptimalFiberLength() for muscle in muscles]),
            **_polygons(list(paths.values()), distal),
            wrapped=np.array([_path(muscle).getWrapSet().getSize() > 0 for muscle in muscles]),
            vertebral_axis=axis,
            vertebral_length_m=length,
            height_m=float(self._landmark("vertex")[1] - self._landmark("sole")[1]),
        )

    def _body(self, name: str) -> Any:
        return self.model.getBodySet().get(name)

    def _joints_by_child(self) -> dict[str, Any]:
        joints = self.model.getJointSet()
        found = [joints.get(index) for index in range(joints.getSize())]
        return {joint.getChildFrame().findBaseFrame().getName(): joint for joint in found}

    def _parent_name(self, body: str) -> str:
        return str(self.joints[body].getParentFrame().findBaseFrame().getName())

    def _ordered_bodies(self) -> list[str]:
        depth = {"ground": 0}
        names = [self.model.getBodySet().get(index).getName() for index in range(self.model.getBodySet().getSize())]
        while len(depth) <= len(names):
            known = len(depth)
            depth |= {n: depth[self._parent_name(n)] + 1 for n in names if self._parent_name(n) in depth}
            if len(depth) == known:
                raise ConfigurationError("the base model's joints do not form one tree")
        return sorted(names, key=lambda name: depth[name])

    def _child_of(self, joint_name: str) -> int:
        for body, joint in self.joints.items():
            if joint.getName() == joint_name:
                return self.index[body]
        raise ConfigurationError(f"the base model has no joint {joint_name!r}")

    def _distal(self, joint_body: Integers) -> Flags:
        distal = np.zeros((len(joint_body), len(self.bodies)), dtype=bool)
        for joint, child in enumerate(joint_body):
            distal[joint, child] = True
            for body in range(len(self.bodies)):
                if self.parent[body] >= 0 and distal[joint, self.parent[body]]:
                    distal[joint, body] = True
        return distal

    def _rest(self) -> tuple[Floats, Floats]:
        turn, offset = self.rotation.copy(), self.origin.copy()
        for body, parent in enumerate(self.parent):
            self._require_joint_at_origin(body)
            if parent >= 0:
                turn[body] = self.rotation[parent].T @ self.rotation[body]
                offset[body] = self.rotation[parent].T @ (self.origin[body] - self.origin[parent])
        return turn, offset

    def _require_joint_at_origin(self, body: int) -> None:
        frame = self.joints[self.bodies[body]].getChildFrame()
        shift = vector(frame.getPositionInGround(self.state)) - self.origin[body]
        turn = rotation(frame, self.state) - self.rotation[body]
        if np.abs(shift).max() > 1e-9 or np.abs(turn).max() > 1e-9:
            raise ConfigurationError(f"the joint of body {self.bodies[body]!r} is not at the body's origin and axes")

    def _landmark(self, name: str) -> Floats:
        markers = self.model.getMarkerSet()
        if not markers.contains(name):
            raise ConfigurationError(f"the base model has no marker {name!r}")
        return vector(markers.get(name).getLocationInGround(self.state))

    def _vertebral_axes(self, joint_body: Integers) -> tuple[Floats, Floats]:
        centres = self.origin[joint_body]
        along = np.diff(
            np.vstack([self._landmark("S1_centroid"), centres, self._landmark("T12_centroid")]),
            axis=0,
        )
        length = np.linalg.norm(along, axis=1)
        carriers = [self.parent[joint_body[0]], *joint_body]
        axis = np.array([self.rotation[body].T @ step for body, step in zip(carriers, along, strict=True)])
        return axis / length[:, None], length[1:-1]

    def _groups(self, fascicles: Sequence[str]) -> tuple[str, ...]:
        forces = self.model.getForceSet()
        groups = [forces.getGroup(index) for index in range(forces.getNumGroups())]
        known = [group for group in groups if group.getName() in MUSCLE_OF_GROUP]
        found = {name: [group.getName() for group in known if group.contains(name)] for name in fascicles}
        for name, names in found.items():
            if len(names) != 1:
                raise ConfigurationError(
                    f"fascicle {name!r} of the base model is in {len(names)} of the known groups of its force set, "
                    f"not in one; known: {', '.join(MUSCLE_OF_GROUP)}"
                )
        return tuple(names[0] for names in found.values())

    def _paths(self, distal: Flags) -> dict[str, list[tuple[int, Floats]]]:
        paths: dict[str, list[tuple[int, Floats]]] = {}
        muscles = self.model.getMuscles()
        for number in range(muscles.getSize()):
            muscle = muscles.get(number)
            points = self._points(muscle)
            carried = distal[:, [body for body, _ in points]]
            if (carried != carried[:, :1]).any():
                paths[muscle.getName()] = points
        if not paths:
            raise ConfigurationError("no fascicle of the base model crosses a spinal joint")
        return paths

    def _points(self, muscle: Any) -> list[tuple[int, Floats]]:
        path = _path(muscle)
        points = []
        for index in range(path.getPathPointSet().getSize()):
            point = path.getPathPointSet().get(index)
            if point.getConcreteClassName() != "PathPoint":
                raise ConfigurationError(f"fascicle {muscle.getName()!r} has moving or conditional points")
            body = point.getParentFrame().findBaseFrame().getName()
            points.append((self.index[body], vector(point.getLocation(self.state))))
        return points


def _path(muscle: Any) -> Any:
    path = opensim.GeometryPath.safeDownCast(muscle.updPath())
    if path is None:
        raise ConfigurationError(f"fascicle {muscle.getName()!r} has no path of points")
    return path


def _side_of(fascicle: str) -> str:
    if fascicle.endswith("_r"):
        return "right"
    if fascicle.endswith("_l"):
        return "left"
    raise ConfigurationError(f"the name of fascicle {fascicle!r} does not end in _r or _l")


def _polygons(paths: Sequence[Sequence[tuple[int, Floats]]], distal: Flags) -> dict[str, Any]:
    """Flatten paths to points and to the segments between two bodies; only those can load a joint."""
    point_body = np.array([body for path in paths for body, _ in path])
    first = np.cumsum([0, *(len(path) for path in paths)])
    fascicle_of_point = np.repeat(np.arange(len(paths)), np.diff(first))
    start = np.arange(len(point_body) - 1)
    joined = (fascicle_of_point[1:] == fascicle_of_point[:-1]) & (point_body[1:] != point_body[:-1])
    start = start[joined]
    crosses = distal[:, point_body[start]] != distal[:, point_body[start + 1]]
    spans = np.zeros((len(paths), len(distal)), dtype=bool)
    np.logical_or.at(spans, fascicle_of_point[start], crosses.T)
    return {
        "spans": spans,
        "point_body": point_body,
        "point_m": np.array([point for path in paths for _, point in path]),
        "point_fascicle": fascicle_of_point,
        "segment_start": start,
        "segment_fascicle": fascicle_of_point[start],
    }
