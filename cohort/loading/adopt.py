"""Base models from elsewhere, rebuilt in the form of model file that all of this room reads.

The file is opened in OpenSim at its default posture. Kept, at the places that they have there: centres of the six
spinal joints, masses, fascicles that cross them with strengths, fibre lengths and wrap surfaces. The pelvis with legs,
the thorax with ribs and head, and each arm become one rigid body; each level turns freely about three axes; couplers
are dropped, for they would balance a weighted sum of levels in place of each level.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import opensim

from cohort.errors import ConfigurationError, RefusedError
from cohort.loading.base_model import ARMS, HANDS, SPINAL_JOINTS, Floats, rotation, vector
from cohort.loading.curvature import frame_along
from cohort.loading.dialect import DialectWriter, Fascicle, Wrap, body_fixed_xyz, inertia_tensor
from cohort.loading.isolated import run_isolated
from cohort.loading.model_names import SPINE, ModelNames
from cohort.loading.subject import HEIGHT_LIMITS_M

S1_CENTROID_BELOW_M: Final = 0.022
T12_CENTROID_ABOVE_M: Final = 0.018
"""Of the joint L5/S1 along the normal of the endplate, and of T12/L1 along L1's axis, at a stature of 1.75 m: the
assumptions of the default model (models/musculoskeletal/landmarks.csv)."""
PUBLISHED_HEIGHT_M: Final = 1.75
MIN_MASS_KG: Final = 1e-3
"""A lighter body of the adopted model has no mass in the file: its loads would be wrong."""
MEDIAN_M: Final = 0.002
"""Nearer to the median plane the place of a muscle does not tell its side (own choice)."""
TIME_LIMIT_S: Final = 300.0
"""Far more than the largest public models take (own choice)."""
UPRIGHT_COSINE: Final = 0.8
"""Of the angle between the line L5/S1 to T12/L1 and the vertical (own choice): others do not stand."""


def adoption_sha256(osim_path: Path, names: ModelNames) -> str:
    """Fingerprint of all that the adopted model depends on, but for the version of OpenSim.

    Raises ConfigurationError where the file cannot be read.
    """
    digest = hashlib.sha256(json.dumps(asdict(names), sort_keys=True).encode())
    folder = Path(__file__).parent
    try:
        for path in (osim_path, folder / "adopt.py", folder / "dialect.py"):
            digest.update(b"\0" + path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"base model {osim_path.name!r} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def adopt_base_model(osim_path: Path, names: ModelNames, path: Path) -> Path:
    """Rebuild the model at `osim_path` in the form that `read_base_model` reads, write it to `path` and return that.

    A child process does it, for OpenSim keeps the default muscles of a file that it has read.

    Raises ConfigurationError where the file is no OpenSim model, lacks names (all that are missing are told), has
    fascicles over a spinal joint without a group or a side, does not stand upright, has bodies without mass or no
    person's stature, or where OpenSim hangs or crashes over it.
    """
    try:
        return run_isolated(_adopt, osim_path, names, path, timeout_s=TIME_LIMIT_S)
    except RefusedError as error:
        raise ConfigurationError(f"base model {osim_path.name!r}: {error.detail}") from error


def _adopt(osim_path: Path, names: ModelNames, path: Path) -> Path:
    source = _Source(osim_path.name, *_open(osim_path), names)
    source.require_names()
    source.require_upright()
    fascicles = source.fascicles()
    writer = DialectWriter(source.model.getName() or osim_path.stem)
    for body in source.frames:
        mass, centre, inertia = source.mass_properties(body)
        if mass < MIN_MASS_KG:
            raise ConfigurationError(f"base model {osim_path.name!r}: {body} would have a mass of {mass:.3g} kg")
        writer.add_body(body, mass, centre, inertia)
    for body, frame in source.frames.items():
        parent = PARENT[body]
        below = source.frames[parent] if parent else _Frame(np.zeros(3), np.eye(3))
        writer.add_joint(body, parent, below.inverse(frame.origin), body_fixed_xyz(below.axes.T @ frame.axes))
    for fascicle in fascicles:
        writer.add_fascicle(fascicle)
    for name, body, place in source.landmarks():
        writer.add_marker(name, body, source.frames[body].inverse(place))
    return writer.write(path)


PARENT: Final[Mapping[str, str | None]] = {
    "pelvis": None,
    **dict(zip(SPINE, ("pelvis", *SPINE), strict=False)),
    **dict.fromkeys(ARMS, "thorax"),
    **dict(zip(HANDS, ARMS, strict=True)),
}
"""Body of the adopted model -> the body that carries it; a parent comes before its children."""


@dataclass(frozen=True, eq=False)
class _Frame:
    origin: Floats
    """[3] in ground, metres."""
    axes: Floats
    """[3, 3] columns are the axes in ground."""

    def out(self, point: Floats) -> Floats:
        return np.asarray(self.origin + self.axes @ point)

    def inverse(self, point: Floats) -> Floats:
        return np.asarray(self.axes.T @ (point - self.origin))


def _open(osim_path: Path) -> tuple[Any, Any]:
    opensim.Logger.setLevelString("Off")
    try:
        model = opensim.Model(str(osim_path))
        state = model.initSystem()
        model.realizePosition(state)
    except RuntimeError as error:
        raise ConfigurationError(f"base model {osim_path.name!r} is not a readable OpenSim model") from error
    return model, state


class _Source:
    """The opened model of the user, in ground at its default posture, but with hanging arms."""

    def __init__(self, file: str, model: Any, state: Any, names: ModelNames) -> None:
        self.file, self.model, self.state, self.names = file, model, state, names
        bodies, joints = model.getBodySet(), model.getJointSet()
        self.bodies = {one.getName(): one for one in (bodies.get(i) for i in range(bodies.getSize()))}
        self.joints = {one.getName(): one for one in (joints.get(i) for i in range(joints.getSize()))}
        self.joint_of = {_base(joint.getChildFrame()): joint for joint in self.joints.values()}

    def require_names(self) -> None:
        """Raise ConfigurationError with every name that the file lacks."""
        wanted = (self.names.pelvis, *self.names.arms, *self.names.hands, *self.names.carried)
        lacking = [
            *(f"joint {name!r}{_nearest(name, self.joints)}" for name in self.names.joints if name not in self.joints),
            *(f"body {name!r}{_nearest(name, self.bodies)}" for name in wanted if name not in self.bodies),
        ]
        if self.names.height_m is None:
            markers = self.model.getMarkerSet()
            lacking += [f"marker {name!r} (or height_m)" for name in ("vertex", "sole") if not markers.contains(name)]
        self._refuse(lacking, "has no")

    def require_upright(self) -> None:
        """Raise ConfigurationError unless the spine is one chain, upright, and the right side is towards z."""
        for joint, below in zip(self.names.joints, ("pelvis", *SPINE), strict=False):
            found = self.carrier(_base(self.joints[joint].getParentFrame()))
            if found != below:
                raise ConfigurationError(f"base model {self.file!r}: joint {joint!r} is not on {below} but on {found}")
        up = self.centres[-1] - self.centres[0]
        pairs = ([self._place(name).origin[2] for name in pair] for pair in (self.names.arms, self.names.hands))
        swapped = any(right <= left for right, left in pairs)
        if up[1] < UPRIGHT_COSINE * np.linalg.norm(up) or swapped:
            raise ConfigurationError(
                f"base model {self.file!r} does not stand upright with y up and z to the right in its default posture"
            )

    def _refuse(self, wrong: Sequence[str], what: str) -> None:
        if wrong:
            raise ConfigurationError(f"base model {self.file!r} {what} {', '.join(wrong)}")

    @cached_property
    def _roots(self) -> dict[str, str]:
        upper = [_base(self.joints[name].getChildFrame()) for name in self.names.joints]
        return {
            **dict(zip(upper, SPINE, strict=True)),
            **dict(zip((*self.names.arms, *self.names.hands), (*ARMS, *HANDS), strict=True)),
            **self.names.carried,
        }

    def carrier(self, body: str) -> str:
        """Body of the adopted model that a body of the file becomes part of."""
        while body not in self._roots:
            if body == self.names.pelvis or body not in self.joint_of:
                return "pelvis"
            body = _base(self.joint_of[body].getParentFrame())
        return self._roots[body]

    @cached_property
    def centres(self) -> Floats:
        """Centres of the spinal joints in ground, [6, 3]."""
        found = []
        for joint, name in zip(SPINAL_JOINTS, self.names.joints, strict=True):
            if joint in self.names.centres_m:
                below = self._place(_base(self.joints[name].getParentFrame()))
                found.append(below.out(np.array(self.names.centres_m[joint])))
            else:
                found.append(vector(self.joints[name].getChildFrame().getPositionInGround(self.state)))
        return np.array(found)

    def _place(self, body: str) -> _Frame:
        """A body of the file in ground as the file has it."""
        frame = self.bodies[body] if body in self.bodies else self.model.getGround()
        return _Frame(vector(frame.getPositionInGround(self.state)), rotation(frame, self.state))

    @cached_property
    def _hanging(self) -> dict[str, _Frame]:
        """Adopted arm or hand -> the turn about the shoulder that brings the hand's centre under it."""
        turns = {}
        for arm, hand, target in zip(self.names.arms, self.names.hands, range(2), strict=True):
            shoulder = vector(self.joint_of[arm].getChildFrame().getPositionInGround(self.state))
            grip = self._place(hand).out(vector(self.bodies[hand].getMassCenter()))
            turn = _shortest_turn(grip - shoulder, np.array([0.0, -1.0, 0.0]))
            turns[ARMS[target]] = turns[HANDS[target]] = _Frame(shoulder - turn @ shoulder, turn)
        return turns

    def place(self, body: str) -> _Frame:
        """A body of the file in ground, with the arms hanging."""
        return self._moved(body, self.bodies[body] if body in self.bodies else self.model.getGround())

    def _moved(self, body: str, fixed: Any) -> _Frame:
        """An OpenSim frame that is fixed in a body, in ground, with the arms hanging."""
        here = _Frame(vector(fixed.getPositionInGround(self.state)), rotation(fixed, self.state))
        turn = self._hanging.get(self.carrier(body))
        return here if turn is None else _Frame(turn.out(here.origin), turn.axes @ here.axes)

    @cached_property
    def frames(self) -> dict[str, _Frame]:
        """Frames of the adopted bodies: origins at their joints, axes of ground, but L5..L1 along their own axes."""
        axes = frame_along(np.diff(self.centres, axis=0))
        found = {"pelvis": _Frame(self._place(self.names.pelvis).origin, np.eye(3))}
        found |= {body: _Frame(self.centres[i], axes[i]) for i, body in enumerate(SPINE[:-1])}
        found["thorax"] = _Frame(self.centres[-1], np.eye(3))
        for body, name in zip((*ARMS, *HANDS), (*self.names.arms, *self.names.hands), strict=True):
            joint = self.joint_of[name].getChildFrame()
            local = self._place(name).inverse(vector(joint.getPositionInGround(self.state)))
            found[body] = _Frame(self.place(name).out(local), np.eye(3))
        return found

    def mass_properties(self, adopted: str) -> tuple[float, Floats, Floats]:
        """Mass, centre [3] in the adopted body's frame, inertia [3, 3] about the centre along its axes."""
        parts = [(self.bodies[name], self.place(name)) for name in self.bodies if self.carrier(name) == adopted]
        mass = np.array([body.getMass() for body, _ in parts])
        centres = np.array([place.out(vector(body.getMassCenter())) for body, place in parts])
        if mass.sum() == 0.0:
            return 0.0, np.zeros(3), np.zeros((3, 3))
        centre = mass @ centres / mass.sum()
        total = np.zeros((3, 3))
        for one, (body, place), arm in zip(mass, parts, centres - centre, strict=True):
            own = place.axes @ inertia_tensor(body) @ place.axes.T
            total += own + one * (arm @ arm * np.eye(3) - np.outer(arm, arm))
        frame = self.frames[adopted]
        return float(mass.sum()), frame.inverse(centre), frame.axes.T @ total @ frame.axes

    def fascicles(self) -> list[Fascicle]:
        """Muscles that cross a spinal joint; raises ConfigurationError with all that have no group or side."""
        muscles = self.model.getMuscles()
        found = [muscles.get(index) for index in range(muscles.getSize())]
        paths = {muscle.getName(): self._points(muscle) for muscle in found if muscle.get_appliesForce()}
        crossing = [muscle for muscle in found if _crosses(paths.get(muscle.getName(), []))]
        self._refuse([] if crossing else ["a spinal joint"], "has no muscle that crosses")
        names = [muscle.getName() for muscle in crossing]
        without_group = [name for name in names if self.names.group_of(name) is None]
        without_side = [f"{name} (its side)" for name in names if self._side(name, paths[name]) is None]
        self._refuse([*without_group, *without_side], "has fascicles without a group, with several, or without a side:")
        made = [self._fascicle(muscle, paths[muscle.getName()]) for muscle in crossing]
        twice = [name for name, times in Counter(fascicle.name for fascicle in made).items() if times > 1]
        self._refuse(twice, "has two fascicles of the name")
        return made

    def _side(self, muscle: str, points: Sequence[tuple[str, Floats]]) -> str | None:
        """Side by name, else by place; None where the two contradict each other or neither tells."""
        z = float(np.mean([place[2] for _, place in points]) - self.frames["pelvis"].origin[2])
        by_place = None if abs(z) < MEDIAN_M else "_r" if z > 0.0 else "_l"
        by_name = self.names.side_of(muscle)
        if by_name is None:
            return by_place
        return by_name if by_place in (None, by_name) else None

    def _path(self, muscle: Any) -> Any:
        path = opensim.GeometryPath.safeDownCast(muscle.updPath())
        if path is None:
            raise ConfigurationError(f"base model {self.file!r}: muscle {muscle.getName()!r} has no path of points")
        return path

    def _points(self, muscle: Any) -> list[tuple[str, Floats]]:
        """Adopted body and place in ground of the points that are active in the default posture."""
        points = self._path(muscle).getPathPointSet()
        found = []
        for point in (points.get(index) for index in range(points.getSize())):
            if point.isActive(self.state):
                body = _base(point.getParentFrame())
                local = self._place(body).inverse(vector(point.getLocationInGround(self.state)))
                found.append((self.carrier(body), self.place(body).out(local)))
        return found

    def _fascicle(self, muscle: Any, points: Sequence[tuple[str, Floats]]) -> Fascicle:
        name, wraps = muscle.getName(), self._path(muscle).getWrapSet()
        return Fascicle(
            name=self.names.stem_of(name) + str(self._side(name, points)),
            group=str(self.names.group_of(name)),
            strength_n=muscle.getMaxIsometricForce(),
            optimal_fibre_m=muscle.getOptimalFiberLength(),
            tendon_slack_m=muscle.getTendonSlackLength(),
            pennation_rad=muscle.getPennationAngleAtOptimalFiberLength(),
            points=tuple((body, self.frames[body].inverse(place)) for body, place in points),
            wraps=tuple(self._wrap(muscle, wraps.get(index)) for index in range(wraps.getSize())),
        )

    def _wrap(self, muscle: Any, around: Any) -> Wrap:
        surface = around.getWrapObject()
        body = _base(surface.getFrame())
        local = opensim.Rotation()
        local.setRotationToBodyFixedXYZ(surface.get_xyz_body_rotation())
        turn = np.array([[local.get(row, column) for column in range(3)] for row in range(3)])
        carrying = self._moved(body, surface.getFrame())
        frame = self.frames[self.carrier(body)]
        return Wrap(
            surface=surface,
            name=f"{body}_{surface.getName()}",
            body=self.carrier(body),
            centre_m=frame.inverse(carrying.out(vector(surface.get_translation()))),
            axes=frame.axes.T @ carrying.axes @ turn,
            method=around.getMethodName(),
            between=self._active_range(muscle, around),
        )

    def _active_range(self, muscle: Any, around: Any) -> tuple[int, int]:
        """First and last point of the piece that may wrap, from 1, among the active points; -1 is open."""
        points = self._path(muscle).getPathPointSet()
        active = np.cumsum([points.get(index).isActive(self.state) for index in range(points.getSize())])
        first, last = (around.get_range(index) for index in range(2))
        return (-1 if first < 1 else int(active[first - 1]), -1 if last < 1 else int(active[last - 1]))

    def landmarks(self) -> Iterable[tuple[str, str, Floats]]:
        """Name, adopted body and place in ground of the markers that personalisation needs."""
        low = min(self._place(name).origin[1] for name in self.bodies)
        sole = np.array([self.frames["pelvis"].origin[0], low, 0.0])
        vertex = np.array([self.centres[-1][0], low, 0.0])
        if self.names.height_m is None:
            vertex, sole = (self._marker(name) for name in ("vertex", "sole"))
        else:
            vertex[1] += self.names.height_m
        height_m, (least, most) = vertex[1] - sole[1], HEIGHT_LIMITS_M
        if not least <= height_m <= most:
            self._refuse([f"{height_m:.3g} m, not between {least:g} and {most:g}"], "would have a stature of")
        size = height_m / PUBLISHED_HEIGHT_M
        slope = np.radians(self.names.sacral_slope_deg)
        yield "vertex", "thorax", vertex
        yield "sole", "pelvis", sole
        below = -S1_CENTROID_BELOW_M * size * np.array([np.sin(slope), np.cos(slope), 0.0])
        yield "S1_centroid", "pelvis", self.centres[0] + below
        above = T12_CENTROID_ABOVE_M * size * self.frames["L1"].axes[:, 1]
        yield "T12_centroid", "thorax", self.centres[-1] + above

    def _marker(self, name: str) -> Floats:
        return vector(self.model.getMarkerSet().get(name).getLocationInGround(self.state))


def _base(frame: Any) -> str:
    return str(frame.findBaseFrame().getName())


def _nearest(name: str, known: Iterable[str]) -> str:
    by_lower = {one.lower(): one for one in known}
    matches = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.5)
    return f" (there is {by_lower[matches[0]]!r})" if matches else ""


def _crosses(points: Sequence[tuple[str, Floats]]) -> bool:
    """Whether the points are not all on the same side of every spinal joint."""
    return len({body if body in ("pelvis", *SPINE) else "thorax" for body, _ in points}) > 1


def _shortest_turn(start: Floats, end: Floats) -> Floats:
    """Rotation [3, 3] of the direction `start` to the unit vector `end` about the axis normal to both (Rodrigues)."""
    start = start / np.linalg.norm(start)
    x, y, z = np.cross(start, end)
    skew = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    cosine = float(start @ end)
    if cosine < -1.0 + 1e-9:
        return np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]])
    return np.asarray(np.eye(3) + skew + skew @ skew / (1.0 + cosine))
