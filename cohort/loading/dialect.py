"""Writes model files in the one form that this room reads: see `cohort.loading.base_model`.

Default models and those adopted from elsewhere are both written here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import opensim

from cohort.loading.base_model import ARMS, HANDS, PELVIS_TILT, SPINAL_JOINTS, Floats, vector
from cohort.loading.model_names import SPINE

ROTATIONS: Final = (("FE", 2), ("LB", 0), ("AR", 1))
"""Coordinates of a joint of three rotations in order: about z, x and y."""
JOINT_OF: Final = dict(zip(SPINE, SPINAL_JOINTS, strict=True)) | {arm: f"shoulder_{arm[-1]}" for arm in ARMS}
"""Body -> its joint of three rotations."""
WELD_OF: Final = {hand: f"wrist_{hand[-1]}" for hand in HANDS} | {"abdomen": "abdomen", "head": "neck"}
"""Body -> its joint without any."""

LENGTHS_OF_SURFACE: Final = {
    "WrapCylinder": ("radius", "length"),
    "WrapEllipsoid": (),
    "WrapSphere": ("radius",),
    "WrapTorus": ("inner_radius", "outer_radius"),
}


@dataclass(frozen=True, eq=False)
class Wrap:
    """A surface that a fascicle may wrap around."""

    surface: Any
    """opensim.WrapObject with size and quadrant."""
    name: str
    body: str
    centre_m: Floats
    """[3] in the body's frame."""
    axes: Floats
    """[3, 3] columns are the surface's axes in the body's frame."""
    method: str
    between: tuple[int, int]
    """First and last point of the piece that may wrap, from 1; -1 is open."""


@dataclass(frozen=True, eq=False)
class Fascicle:
    """A muscle fascicle as the file has it."""

    name: str
    """Ends in _r or _l."""
    group: str
    strength_n: float
    optimal_fibre_m: float
    tendon_slack_m: float
    pennation_rad: float
    points: tuple[tuple[str, Floats], ...]
    """Body and place [3] in its frame."""
    wraps: tuple[Wrap, ...] = ()


FORCE_LENGTH: Final = {
    "KshapeActive": 0.45,
    "KshapePassive": 5.0,
    "FmaxMuscleStrain": 0.6,
    "FmaxTendonStrain": 0.04,
    "maximum_pennation_angle": float(np.arccos(0.1)),
}
"""OpenSim's own defaults (Thelen 2003), written out: a reader takes what a file leaves open from the last model that
was read in its process."""


class DialectWriter:
    """Builds an opensim.Model part by part: bodies, joints, fascicles, markers."""

    def __init__(self, name: str) -> None:
        self.model = opensim.Model()
        self.model.setName(name)
        self._bodies: dict[str, Any] = {}
        self._groups: set[str] = set()

    def add_body(self, name: str, mass_kg: float, centre_m: Floats, inertia: Floats) -> None:
        """Add a body with its inertia [3, 3] (kg m2) about the centre of mass [3], in the body's frame."""
        self._bodies[name] = opensim.Body(name, mass_kg, vec3(centre_m), opensim_inertia(inertia))
        self.model.addBody(self._bodies[name])

    def draw(self, body: str, place_m: Floats, shape: Any, opacity: float) -> None:
        """Attach a shape (opensim.Geometry) to look at, at `place_m` [3] of a body."""
        carrier = self._bodies[body]
        frame = opensim.PhysicalOffsetFrame(f"{body}_shape", carrier, opensim.Transform(vec3(place_m)))
        shape.setOpacity(opacity)
        frame.attachGeometry(shape)
        carrier.addComponent(frame)

    def add_joint(self, child: str, parent: str | None, offset_m: Floats, turn_rad: Floats) -> None:
        """Add the joint of a body at `offset_m` [3] of its parent (None is ground), at rest turned against it by
        body-fixed angles [3] about x, y and z."""
        frame = self._bodies[parent] if parent else self.model.getGround()
        place = (frame, vec3(offset_m), vec3(turn_rad))
        here = (self._bodies[child], opensim.Vec3(0), opensim.Vec3(0))
        if parent is None:
            joint = opensim.PinJoint(child, *place, *here)
            joint.updCoordinate().setName(PELVIS_TILT)
        elif child in WELD_OF:
            joint = opensim.WeldJoint(WELD_OF[child], *place, *here)
        else:
            joint = opensim.CustomJoint(JOINT_OF[child], *place, *here, _three_rotations(JOINT_OF[child]))
        for index in range(joint.numCoordinates()):
            joint.upd_coordinates(index).setRangeMin(-np.pi)
            joint.upd_coordinates(index).setRangeMax(np.pi)
        self.model.addJoint(joint)

    def add_fascicle(self, fascicle: Fascicle) -> None:
        """Add a muscle with its wraps, and its name to its group."""
        muscle = opensim.Thelen2003Muscle(
            fascicle.name,
            fascicle.strength_n,
            fascicle.optimal_fibre_m,
            fascicle.tendon_slack_m,
            fascicle.pennation_rad,
        )
        for name, value in FORCE_LENGTH.items():
            getattr(muscle, f"set_{name}")(value)
        for index, (body, point) in enumerate(fascicle.points):
            muscle.addNewPathPoint(f"p{index}", self._bodies[body], vec3(point))
        self.model.addForce(muscle)
        path = opensim.GeometryPath.safeDownCast(muscle.updPath())
        for index, wrap in enumerate(fascicle.wraps):
            path.addPathWrap(self._surface(wrap))
            around = path.updWrapSet().get(index)
            around.set_method(wrap.method)
            for end in range(2):
                around.set_range(end, wrap.between[end])
        self._add_to_group(fascicle)

    def add_marker(self, name: str, body: str, place_m: Floats) -> None:
        """Add a marker at `place_m` [3] of a body."""
        self.model.addMarker(opensim.Marker(name, self._bodies[body], vec3(place_m)))

    def write(self, path: Path) -> Path:
        """Write the file and return its path."""
        self.model.finalizeConnections()
        if not self.model.printToXML(str(path)):
            raise OSError("OpenSim could not write the model file")
        return path

    def _surface(self, wrap: Wrap) -> Any:
        """The surface on its body, added when the first fascicle needs it."""
        surfaces = self._bodies[wrap.body].getWrapObjectSet()
        if not surfaces.contains(wrap.name):
            surface = wrap.surface.clone()
            surface.setName(wrap.name)
            surface.set_translation(vec3(wrap.centre_m))
            surface.set_xyz_body_rotation(vec3(body_fixed_xyz(wrap.axes)))
            self._bodies[wrap.body].addWrapObject(surface)
        return surfaces.get(wrap.name)

    def _add_to_group(self, fascicle: Fascicle) -> None:
        forces = self.model.updForceSet()
        if fascicle.group not in self._groups:
            forces.addGroup(fascicle.group)
            self._groups.add(fascicle.group)
        forces.addObjectToGroup(fascicle.group, fascicle.name)


def scale_wrap_surface(surface: Any, generic: Any, scale: Floats) -> None:
    """Give a wrap surface (opensim.WrapObject) place and size of `generic` times the scale [3] of its body.

    A surface does not lie along the body's axes; its size goes by the scale along x.
    """
    surface.set_translation(vec3(vector(generic.get_translation()) * scale))
    kind = getattr(opensim, generic.getConcreteClassName())
    new, old, size = kind.safeDownCast(surface), kind.safeDownCast(generic), float(scale[0])
    for name in LENGTHS_OF_SURFACE[kind.__name__]:
        getattr(new, f"set_{name}")(getattr(old, f"get_{name}")() * size)
    if kind is opensim.WrapEllipsoid:
        new.set_dimensions(vec3(vector(old.get_dimensions()) * size))


def inertia_tensor(body: Any) -> Floats:
    """Inertia [3, 3] (kg m2) of an opensim.Body about its centre of mass, along its axes."""
    xx, yy, zz = vector(body.getInertia().getMoments())
    xy, xz, yz = vector(body.getInertia().getProducts())
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def opensim_inertia(tensor: Floats) -> Any:
    """Turn an inertia [3, 3] into an opensim.Inertia."""
    moments = (*np.diag(tensor), tensor[0, 1], tensor[0, 2], tensor[1, 2])
    return opensim.Inertia(*(float(moment) for moment in moments))


def body_fixed_xyz(R: Floats) -> Floats:
    """Angles [3] of R = Rx Ry Rz [3, 3], OpenSim's convention for the orientation of frames and wrap surfaces."""
    about_y = np.arcsin(np.clip(R[0, 2], -1.0, 1.0))
    return np.array([np.arctan2(-R[1, 2], R[2, 2]), about_y, np.arctan2(-R[0, 1], R[0, 0])])


def _three_rotations(joint: str) -> Any:
    transform = opensim.SpatialTransform()
    for index, (suffix, axis) in enumerate(ROTATIONS):
        turn = transform.updTransformAxis(index)
        turn.setCoordinateNames(opensim.ArrayStr(f"{joint}_{suffix}", 1))
        turn.setAxis(vec3(np.eye(3)[axis]))
        turn.set_function(opensim.LinearFunction(1.0, 0.0))
    for index in range(3):
        shift = transform.updTransformAxis(3 + index)
        shift.setAxis(vec3(np.eye(3)[index]))
        shift.set_function(opensim.Constant(0.0))
    return transform


def vec3(values: Floats) -> Any:
    """Turn an array [3] into an opensim.Vec3."""
    return opensim.Vec3(*(float(value) for value in values))
