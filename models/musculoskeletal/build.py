"""Builds the default spine model, male or female, from the tables of this folder with the OpenSim API.

Nothing here is random or dated: the same tables give the same bytes with the same version of OpenSim.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import opensim

from models.musculoskeletal.tables import (
    LUMBAR,
    SPECIFIC_TENSION_N_PER_CM2,
    Floats,
    Layout,
    Row,
    Sex,
    Traits,
    base_model_sha256,
    lay_out,
    of_sex,
    pcsa_ratio,
    read,
    rest_deg,
    sides,
    xyz,
)

__all__ = ["Sex", "base_model_sha256", "build_base_model", "build_laid_out"]

Paths = dict[str, list[tuple[str, Floats]]]
"""Fascicle -> body and place [3] of each point of its path."""
ROTATIONS: Final = (("FE", 2), ("LB", 0), ("AR", 1))
"""Coordinates of a spinal joint in order: flexion-extension about z (extension positive), lateral bending about x (to
the right positive), axial rotation about y (to the left positive)."""
VERTEBRA_RADIUS_M: Final = 0.02
"""Of the cylinders drawn for vertebrae; drawing only."""
OPACITY: Final = 0.3
"""Of the ellipsoids drawn for the other bodies."""


def build_base_model(sex: Sex, path: Path, specific_tension_n_per_cm2: float = SPECIFIC_TENSION_N_PER_CM2) -> Path:
    """Write the default model of one sex to `path` (an .osim file) and return the path.

    Raises ValueError if `sex` is not in sexes.csv, the specific tension is not positive, or the tables contradict each
    other.
    """
    if not specific_tension_n_per_cm2 > 0:
        raise ValueError(f"the specific tension must be positive, not {specific_tension_n_per_cm2} N/cm2")
    layout = lay_out(Traits.of(sex))
    return build_laid_out(layout, path, f"lumbar_cohort_{sex}", specific_tension_n_per_cm2)


def build_laid_out(
    layout: Layout, path: Path, name: str, specific_tension_n_per_cm2: float = SPECIFIC_TENSION_N_PER_CM2
) -> Path:
    """Write the model of any layout; `build_base_model` is this for one sex."""
    opensim.Logger.setLevelString("Off")
    model = opensim.Model()
    model.setName(name)
    model.set_credits("Lumbar Cohort; every number with its source in models/musculoskeletal/*.csv")
    bodies = _add_bodies(model, layout)
    _add_joints(model, layout, bodies)
    _add_fascicles(model, layout, bodies, specific_tension_n_per_cm2)
    _add_landmarks(model, layout, bodies)
    model.finalizeConnections()
    if not model.printToXML(str(path)):
        raise OSError("OpenSim could not write the model file")
    return path


def _vec3(values: Floats) -> Any:
    return opensim.Vec3(*(float(value) for value in values))


def _mirrored(point: Floats, sign: float) -> Floats:
    return np.asarray(point * np.array([1.0, 1.0, sign]), dtype=np.float64)


def _add_bodies(model: Any, layout: Layout) -> dict[str, Any]:
    """Bodies with mass, centre and moments of inertia about it; the listed shares are divided by their sum, which is
    0.9999 in de Leva's table of women."""
    rows = of_sex(layout.traits.mass, "bodies")
    share = {row["body"]: float(row["mass_fraction"]) for row in rows}
    total = sum(value * len(sides(body)) for body, value in share.items())
    mass = float(of_sex(layout.traits.mass)[0]["mass_kg"])
    bodies: dict[str, Any] = {}
    for row in rows:
        _, centre = layout.in_body(row["body"], xyz(row, "com_"))
        gyration = xyz(row, "gyration_") * layout.scale(row["body"])
        own = share[row["body"]] / total * mass
        for name, sign in sides(row["body"]):
            body = opensim.Body(name, own, _vec3(_mirrored(centre, sign)), opensim.Inertia(_vec3(own * gyration**2)))
            _draw(body, row["body"], gyration, layout)
            model.addBody(body)
            bodies[name] = body
    return bodies


def _draw(body: Any, kind: str, gyration: Floats, layout: Layout) -> None:
    """Something to look at: vertebrae as cylinders from joint to joint, other parts above the pelvis as ellipsoids of
    their mass's inertia. No mesh files."""
    if kind in LUMBAR:
        above = next(row for row in layout.joints if row["parent"] == kind and row["kind"] == "spine")
        half = layout.joint_place(above) / 2.0
        _attach(body, half, opensim.Cylinder(VERTEBRA_RADIUS_M, float(half[1])), 1.0)
    elif kind not in ("pelvis", "abdomen"):
        semi_axes = np.sqrt(np.maximum(2.5 * ((gyration**2).sum() - 2.0 * gyration**2), 0.0))
        centre = body.getMassCenter()
        _attach(body, np.array([centre.get(i) for i in range(3)]), opensim.Ellipsoid(*map(float, semi_axes)), OPACITY)


def _attach(body: Any, place: Floats, shape: Any, opacity: float) -> None:
    frame = opensim.PhysicalOffsetFrame(f"{body.getName()}_shape", body, opensim.Transform(_vec3(place)))
    shape.setOpacity(opacity)
    frame.attachGeometry(shape)
    body.addComponent(frame)


def _add_joints(model: Any, layout: Layout, bodies: Mapping[str, Any]) -> None:
    for row in layout.joints:
        for child, sign in sides(row["child"]):
            side = child.removeprefix(row["child"])
            parent = row["parent"] + (side if row["parent"] == "arm" else "")
            if row["parent"] == "ground":
                frame, offset = model.getGround(), np.zeros(3)
            else:
                frame, offset = bodies[parent], _mirrored(layout.joint_place(row), sign)
            rest = float(np.radians(rest_deg(row, layout.traits.lordosis)))
            model.addJoint(_joint(row["kind"], row["joint"] + side, frame, offset, rest, bodies[child]))


def _joint(kind: str, name: str, parent: Any, offset: Floats, rest_z_rad: float, child: Any) -> Any:
    """Joint with its centre at `offset` [3] of the parent, child frame at the child's origin, rest angle about z."""
    place = (parent, _vec3(offset), opensim.Vec3(0, 0, rest_z_rad))
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


def _add_fascicles(model: Any, layout: Layout, bodies: Mapping[str, Any], tension_n_per_cm2: float) -> None:
    paths = _paths(layout)
    male = lay_out(Traits.of("male"))
    length, male_length = _path_lengths(layout, paths), _path_lengths(male, _paths(male))
    groups: dict[str, list[str]] = {}
    for row in read("fascicles"):
        stretch = length[row["fascicle"]] / male_length[row["fascicle"]]
        for side in row["sides"].split():
            sign = 1.0 if side == "right" else -1.0
            muscle = _muscle(f"{row['fascicle']}_{side[0]}", row, layout, stretch, tension_n_per_cm2)
            for index, (body, point) in enumerate(paths[row["fascicle"]]):
                muscle.addNewPathPoint(f"p{index}", bodies[body], _vec3(_mirrored(point, sign)))
            model.addForce(muscle)
            groups.setdefault(row["group"], []).append(muscle.getName())
    for group, members in groups.items():
        model.updForceSet().addGroup(group)
        for member in members:
            model.updForceSet().addObjectToGroup(group, member)


def _paths(layout: Layout) -> Paths:
    paths: Paths = {}
    for row in read("path_points"):
        paths.setdefault(row["fascicle"], []).append(layout.in_body(row["body"], xyz(row)))
    return paths


def _path_lengths(layout: Layout, paths: Paths) -> dict[str, float]:
    """Length of each fascicle's path in the model's upright posture."""
    origin = {body: layout.body_origin(body) for body in layout.origin}
    lengths = {}
    for fascicle, path in paths.items():
        places = [origin[body] + layout.posture[body] @ place for body, place in path]
        lengths[fascicle] = float(np.linalg.norm(np.diff(places, axis=0), axis=1).sum())
    return lengths


def _muscle(name: str, row: Row, layout: Layout, stretch: float, tension_n_per_cm2: float) -> Any:
    """A fascicle whose fibres and tendon keep their shares of the path."""
    return opensim.Thelen2003Muscle(
        name,
        float(row["pcsa_cm2"]) * tension_n_per_cm2 * pcsa_ratio(layout.traits, row["group"]),
        float(row["optimal_fibre_length_m"]) * stretch,
        float(row["tendon_slack_length_m"]) * stretch,
        float(np.radians(float(row["pennation_deg"]))),
    )


def _add_landmarks(model: Any, layout: Layout, bodies: Mapping[str, Any]) -> None:
    for row in read("landmarks"):
        body = row["frame_body"]
        own = (row["landmark"], "depth") in layout.ratios
        place = layout.to_body(body, xyz(row), row["landmark"] if own else body)
        model.addMarker(opensim.Marker(row["landmark"], bodies[body], _vec3(place)))
