"""Builds the default spine model, male or female, from the tables of this folder with the OpenSim API.

The tables give every published number in the frames it was published in: those of Christophy et al. 2012, which are
all parallel to the pelvis in upright posture (x forward, y up, z to the right, metres). The builder turns the frame
of each lumbar vertebra so that its y axis runs from the centre of rotation below to the one above: along the
vertebra's own axis, with its origin at the centre below. Only right-sided fascicles, arms and hands are in the
tables; the left is mirrored.

Nothing here is random or dated: the same tables give the same bytes with the same version of OpenSim.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import opensim

Sex = Literal["male", "female"]
Floats = npt.NDArray[np.float64]

TABLES: Final = ("bodies", "fascicles", "frames", "joints", "landmarks", "path_points", "sexes")
SPECIFIC_TENSION_N_PER_CM2: Final = 100.0
"""Bruno et al. 2015 and the models after it use 100 N/cm2; published values span 46 to 100."""
RADIUS_OF_GYRATION_M: Final = 0.1
"""Placeholder inertia: the model is solved at rest, where inertia has no effect."""
ROTATIONS: Final = (("FE", 2), ("LB", 0), ("AR", 1))
"""Coordinates of a spinal joint in order: flexion-extension about z (extension positive), lateral bending about x (to
the right positive), axial rotation about y (to the left positive)."""

FOLDER: Final = Path(__file__).parent
Row = dict[str, str]


def base_model_sha256(sex: Sex) -> str:
    """Fingerprint of all that the built model depends on, but for the version of OpenSim: tables, this builder, sex."""
    digest = hashlib.sha256(sex.encode())
    for path in [*(FOLDER / f"{table}.csv" for table in TABLES), Path(__file__)]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def build_base_model(sex: Sex, path: Path) -> Path:
    """Write the default model of one sex to `path` (an .osim file) and return the path.

    Raises ValueError if `sex` is not in sexes.csv or the tables contradict each other.
    """
    opensim.Logger.setLevelString("Off")
    layout = _layout(sex)
    model = opensim.Model()
    model.setName(f"lumbar_cohort_{sex}")
    model.set_credits("Lumbar Cohort; every number with its source in models/musculoskeletal/*.csv")
    bodies = _add_bodies(model, layout)
    _add_joints(model, layout, bodies)
    _add_fascicles(model, layout, bodies)
    _add_landmarks(model, layout, bodies)
    model.finalizeConnections()
    if not model.printToXML(str(path)):
        raise OSError("OpenSim could not write the model file")
    return path


@dataclass(frozen=True, eq=False)
class _Layout:
    """The tables of one sex, with all body frames laid out in upright posture (pelvis frame, metres, male size)."""

    sex: Sex
    mass_kg: float
    length_scale: float
    strength_scale: float
    published_origin: Mapping[str, Floats]
    """Published frame -> [3] origin."""
    body_of: Mapping[str, str]
    """Published frame -> body that carries it."""
    origin: Mapping[str, Floats]
    """Body -> [3] origin."""
    axes: Mapping[str, Floats]
    """Body -> [3, 3] columns are the body's axes."""
    joints: tuple[Row, ...]

    def in_body(self, frame: str, point: Floats) -> tuple[str, Floats]:
        """Express a point [3] of a published frame in the frame of its body, scaled to this sex."""
        body = self.body_of[frame]
        return body, self.to_body(body, self.published_origin[frame] + point)

    def to_body(self, body: str, upright: Floats) -> Floats:
        """Express a point [3] of the upright posture in a body's frame, scaled to this sex."""
        return np.asarray(self.axes[body].T @ (upright - self.origin[body]) * self.length_scale, dtype=np.float64)


def _read(table: str) -> list[Row]:
    with (FOLDER / f"{table}.csv").open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def _xyz(row: Row, prefix: str = "") -> Floats:
    return np.array([float(row[f"{prefix}{axis}_m"]) for axis in "xyz"])


def _layout(sex: Sex) -> _Layout:
    sexes = {row["sex"]: row for row in _read("sexes")}
    if sex not in sexes:
        raise ValueError(f"no base model for sex {sex!r}; known: {sorted(sexes)}")
    frames = {row["frame"]: row for row in _read("frames")}
    joints = tuple(_read("joints"))
    axes, origin = _body_frames(frames, joints)
    return _Layout(
        sex=sex,
        mass_kg=float(sexes[sex]["mass_kg"]),
        length_scale=float(sexes[sex]["length_scale"]),
        strength_scale=float(sexes[sex]["strength_scale"]),
        published_origin={name: _xyz(row) for name, row in frames.items()},
        body_of={name: row["body"] for name, row in frames.items()},
        origin=origin,
        axes=axes,
        joints=joints,
    )


def _body_frames(frames: Mapping[str, Row], joints: tuple[Row, ...]) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Axes and origins of all bodies: origins at the joint that carries the body, lumbar y axes from joint to joint."""
    axes = {row["body"]: np.eye(3) for row in frames.values()}
    origin = {row["child"]: _xyz(row) for row in joints}
    spine = [row for row in joints if row["kind"] == "spine"]
    for below, above in pairwise(spine):
        if below["child"] != above["parent"]:
            raise ValueError(f"joints.csv: {above['joint']} does not follow {below['joint']}")
        y = _xyz(above) - _xyz(below)
        y /= np.linalg.norm(y)
        z = np.array([0.0, 0.0, 1.0])
        axes[below["child"]] = np.column_stack([np.cross(y, z), y, z])
    return axes, origin


def _sides(name: str) -> tuple[tuple[str, float], ...]:
    """Names and signs of z of a part of the tables: arms and hands are there once and come twice."""
    return ((f"{name}_r", 1.0), (f"{name}_l", -1.0)) if name in ("arm", "hand") else ((name, 1.0),)


def _vec3(values: Floats) -> Any:
    return opensim.Vec3(*(float(value) for value in values))


def _mirrored(point: Floats, sign: float) -> Floats:
    return np.asarray(point * np.array([1.0, 1.0, sign]), dtype=np.float64)


def _add_bodies(model: Any, layout: _Layout) -> dict[str, Any]:
    rows = _read("bodies")
    fraction = {row["body"]: row[f"mass_fraction_{layout.sex}"] for row in rows}
    above = sum(float(value) * len(_sides(body)) for body, value in fraction.items() if value != "rest")
    bodies: dict[str, Any] = {}
    for row in rows:
        share = 1.0 - above if fraction[row["body"]] == "rest" else float(fraction[row["body"]])
        mass = share * layout.mass_kg
        _, centre = layout.in_body(row["body"], _xyz(row, "com_"))
        for name, sign in _sides(row["body"]):
            moment = mass * RADIUS_OF_GYRATION_M**2
            body = opensim.Body(name, mass, _vec3(_mirrored(centre, sign)), opensim.Inertia(moment, moment, moment))
            model.addBody(body)
            bodies[name] = body
    return bodies


def _add_joints(model: Any, layout: _Layout, bodies: Mapping[str, Any]) -> None:
    for row in layout.joints:
        for child, sign in _sides(row["child"]):
            side = child.removeprefix(row["child"])
            parent = row["parent"] + (side if row["parent"] == "arm" else "")
            if row["parent"] == "ground":
                frame, offset, turn = model.getGround(), np.zeros(3), np.eye(3)
            else:
                frame = bodies[parent]
                offset = _mirrored(layout.to_body(row["parent"], _xyz(row)), sign)
                turn = layout.axes[row["parent"]].T @ layout.axes[row["child"]]
            model.addJoint(_joint(row["kind"], row["joint"] + side, frame, offset, turn, bodies[child]))


def _joint(kind: str, name: str, parent: Any, offset: Floats, turn: Floats, child: Any) -> Any:
    """Joint with its centre at `offset` [3] of the parent, child frame at the child's origin, rest rotation `turn`."""
    place = (parent, _vec3(offset), opensim.Vec3(0, 0, float(np.arctan2(turn[1, 0], turn[0, 0]))))
    here = (child, opensim.Vec3(0), opensim.Vec3(0))
    if kind == "weld":
        return opensim.WeldJoint(name, *place, *here)
    if kind == "tilt":
        joint = opensim.PinJoint(name, *place, *here)
        joint.updCoordinate().setName(f"{name}_tilt")
    else:
        joint = opensim.CustomJoint(name, *place, *here, _three_rotations(name))
    for index in range(joint.numCoordinates()):
        coordinate = joint.upd_coordinates(index)
        coordinate.setRangeMin(-np.pi)
        coordinate.setRangeMax(np.pi)
    return joint


def _three_rotations(joint: str) -> Any:
    transform = opensim.SpatialTransform()
    for index, (suffix, axis) in enumerate(ROTATIONS):
        rotation = transform.updTransformAxis(index)
        rotation.setCoordinateNames(opensim.ArrayStr(f"{joint}_{suffix}", 1))
        rotation.setAxis(_vec3(np.eye(3)[axis]))
        rotation.set_function(opensim.LinearFunction(1.0, 0.0))
    for index in range(3):
        translation = transform.updTransformAxis(3 + index)
        translation.setAxis(_vec3(np.eye(3)[index]))
        translation.set_function(opensim.Constant(0.0))
    return transform


def _add_fascicles(model: Any, layout: _Layout, bodies: Mapping[str, Any]) -> None:
    points: dict[str, list[tuple[str, Floats]]] = {}
    groups: dict[str, list[str]] = {}
    for row in _read("path_points"):
        points.setdefault(row["fascicle"], []).append(layout.in_body(row["body"], _xyz(row)))
    for row in _read("fascicles"):
        for side, sign in (("r", 1.0), ("l", -1.0)):
            muscle = _muscle(f"{row['fascicle']}_{side}", row, layout)
            for index, (body, point) in enumerate(points[row["fascicle"]]):
                muscle.addNewPathPoint(f"p{index}", bodies[body], _vec3(_mirrored(point, sign)))
            model.addForce(muscle)
            groups.setdefault(row["group"], []).append(muscle.getName())
    for group, members in groups.items():
        model.updForceSet().addGroup(group)
        for member in members:
            model.updForceSet().addObjectToGroup(group, member)


def _muscle(name: str, row: Row, layout: _Layout) -> Any:
    return opensim.Thelen2003Muscle(
        name,
        float(row["pcsa_cm2"]) * SPECIFIC_TENSION_N_PER_CM2 * layout.strength_scale,
        float(row["optimal_fibre_length_m"]) * layout.length_scale,
        float(row["tendon_slack_length_m"]) * layout.length_scale,
        float(np.radians(float(row["pennation_deg"]))),
    )


def _add_landmarks(model: Any, layout: _Layout, bodies: Mapping[str, Any]) -> None:
    for row in _read("landmarks"):
        body = row["frame_body"]
        model.addMarker(opensim.Marker(row["landmark"], bodies[body], _vec3(layout.to_body(body, _xyz(row)))))
