"""Lines of action and lengths of fascicles that wrap around surfaces: the slower route, through OpenSim.

OpenSim finds the path of one fascicle in one posture. It is given the bodies of the base model without their joints,
placed where the batch engine has posed them, and only the fascicles that wrap.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import opensim

from cohort.errors import ConfigurationError
from cohort.loading.base_model import BaseModel, Floats, Integers, vector
from cohort.loading.dialect import body_fixed_xyz, scale_wrap_surface
from cohort.loading.personalise import PersonalModels


class Posed(Protocol):
    """Where bodies are: `cohort.loading.equilibrium.Pose`."""

    @property
    def rotation(self) -> Floats:
        """[subject, body, 3, 3] axes in ground."""

    @property
    def origin_m(self) -> Floats:
        """[subject, body, 3] in ground."""


def wrapped_wrenches(base: BaseModel, models: PersonalModels, pose: Posed) -> Floats:
    """Wrench [subject, joint, 6, n_wrapped] at unit tension of the fascicles in `base.wrapped`, in their order.

    (Force, moment about the joint's centre) on all that the joint carries, ground frame, as in
    `cohort.loading.equilibrium`. Raises ConfigurationError where OpenSim cannot place the model.
    """
    paths = _paths_of(base)
    found = np.zeros((len(pose.origin_m), len(base.joint_body), int(base.wrapped.sum()), 6))
    for subject in range(len(found)):
        paths.place(base, models, pose, subject)
        touch = paths.contacts(base)
        turned = np.matmul(pose.rotation[subject, touch.body], touch.point_m[:, :, None])[:, :, 0]
        places = pose.origin_m[subject, touch.body] + turned
        wrench = np.concatenate([touch.pull, np.cross(places, touch.pull)], axis=1)
        for joint, body in enumerate(base.joint_body):
            carried = base.distal[joint, touch.body]
            np.add.at(found[subject, joint], touch.fascicle[carried], wrench[carried])
            found[subject, joint, :, 3:] -= np.cross(pose.origin_m[subject, body], found[subject, joint, :, :3])
    return found.transpose(0, 1, 3, 2)


def wrapped_lengths(base: BaseModel, models: PersonalModels, pose: Posed) -> Floats:
    """Length [subject, n_wrapped] in metres, from origin to insertion, of the fascicles in `base.wrapped`."""
    paths = _paths_of(base)
    found = np.empty((len(pose.origin_m), int(base.wrapped.sum())))
    for subject in range(len(found)):
        paths.place(base, models, pose, subject)
        found[subject] = [path.getLength(paths.state) for path in paths.paths]
    return found


@lru_cache(maxsize=2)
def _paths_of(base: BaseModel) -> _Paths:
    return _Paths(base)


@dataclass(frozen=True, eq=False)
class _Contacts:
    fascicle: Integers
    """[contact] among the wrapped ones."""
    body: Integers
    """[contact]"""
    point_m: Floats
    """[contact, 3] in the frame of the body."""
    pull: Floats
    """[contact, 3] force on the body at unit tension, ground frame."""


class _Paths:
    """The wrapped fascicles of one base model in OpenSim, on bodies that are free of each other."""

    def __init__(self, base: BaseModel) -> None:
        opensim.Logger.setLevelString("Off")
        self.generic = opensim.Model(str(base.osim_path))
        self.model = _free_bodies(base)
        self.state = self.model.initSystem()
        muscles = (self.model.getMuscles().get(name) for name in _wrapped_names(base))
        self.paths = [opensim.GeometryPath.safeDownCast(muscle.updPath()) for muscle in muscles]
        self.points = _points_of(base)
        with_points = {int(base.point_body[point]) for points in self.points for point in points}
        with_surfaces = {number for number in range(len(base.bodies)) if self._surfaces(base, number).getSize()}
        self.carriers = sorted(with_points | with_surfaces)

    def place(self, base: BaseModel, models: PersonalModels, pose: Posed, subject: int) -> None:
        """Take over path points, surfaces and places of bodies of one subject.

        Earlier paths are forgotten: OpenSim starts from the last path, and a result must not depend on who came before.
        """
        for path, points in zip(self.paths, self.points, strict=True):
            for index, point in enumerate(points):
                location = opensim.Vec3(*map(float, models.point_m[subject, point]))
                opensim.PathPoint.safeDownCast(path.updPathPointSet().get(index)).setLocation(location)
            for index in range(path.getWrapSet().getSize()):
                path.updWrapSet().get(index).resetPreviousWrap()
        for body in self.carriers:
            self._place_surfaces(base, body, models.body_scale[subject, body])
            joint = self.model.getJointSet().get(f"free_{base.bodies[body]}")
            place = (*body_fixed_xyz(pose.rotation[subject, body]), *pose.origin_m[subject, body])
            for index, value in enumerate(place):
                joint.get_coordinates(index).setValue(self.state, float(value), False)
        try:
            self.model.realizePosition(self.state)
        except RuntimeError as error:
            raise ConfigurationError("OpenSim cannot place the wrapped fascicles of the base model") from error

    def contacts(self, base: BaseModel) -> _Contacts:
        """Where the placed fascicles pull on bodies."""
        fascicle, body, point, pull = [], [], [], []
        for number, path in enumerate(self.paths):
            found = opensim.ArrayPointForceDirection()
            path.getPointForceDirections(self.state, found)
            for one in (found.get(index) for index in range(found.getSize())):
                fascicle.append(number)
                body.append(base.body(one.frame().findBaseFrame().getName()))
                point.append(vector(one.point()))
                pull.append(vector(one.direction()))
        return _Contacts(np.array(fascicle), np.array(body), np.array(point), np.array(pull))

    def _surfaces(self, base: BaseModel, body: int) -> Any:
        return self.model.getBodySet().get(base.bodies[body]).getWrapObjectSet()

    def _place_surfaces(self, base: BaseModel, body: int, scale: Floats) -> None:
        surfaces = self._surfaces(base, body)
        generic = self.generic.getBodySet().get(base.bodies[body]).getWrapObjectSet()
        for index in range(surfaces.getSize()):
            scale_wrap_surface(surfaces.get(index), generic.get(index), scale)
            surfaces.get(index).finalizeFromProperties()


def _wrapped_names(base: BaseModel) -> list[str]:
    return [name for name, wrapped in zip(base.fascicles, base.wrapped, strict=True) if wrapped]


def _points_of(base: BaseModel) -> list[Integers]:
    """Indices into the points of the model, one array for each wrapped fascicle."""
    return [np.flatnonzero(base.point_fascicle == fascicle) for fascicle in np.flatnonzero(base.wrapped)]


def _free_bodies(base: BaseModel) -> Any:
    """Bodies and wrapped fascicles of the file, each body on a joint of six freedoms, named `free_<body>`."""
    model = opensim.Model(str(base.osim_path))
    keep = set(_wrapped_names(base))
    forces = model.updForceSet()
    while forces.getNumGroups():
        forces.removeGroup(forces.getGroup(0).getName())
    for index in reversed(range(forces.getSize())):
        if forces.get(index).getName() not in keep:
            forces.remove(index)
    model.updJointSet().clearAndDestroy()
    for name in base.bodies:
        body = model.updBodySet().get(name)
        body.setMass(1.0)  # OpenSim wants one of every free body, and no path depends on it
        body.setInertia(opensim.Inertia(1.0, 1.0, 1.0))
        joint = opensim.FreeJoint(f"free_{name}", model.getGround(), body)
        for index in range(6):
            joint.upd_coordinates(index).setName(f"{name}_{index}")
            joint.upd_coordinates(index).set_clamped(False)
        model.addJoint(joint)
    model.finalizeConnections()
    return model
