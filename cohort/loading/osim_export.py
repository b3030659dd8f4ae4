"""A subject's personalised model as an OpenSim model, for OpenSim's own tools and for looking at it."""

from __future__ import annotations

from typing import Any

import numpy as np
import opensim

from cohort.errors import ConfigurationError
from cohort.loading.base_model import PELVIS_TILT, BaseModel, Floats
from cohort.loading.dialect import body_fixed_xyz, inertia_tensor, opensim_inertia, scale_wrap_surface, vec3
from cohort.loading.personalise import PersonalModels


def personal_opensim_model(base: BaseModel, models: PersonalModels) -> Any:
    """Open the base model in OpenSim and put the numbers of the one subject in `models` into it (opensim.Model).

    Everything that the batch engine personalises is in it: masses and their centres, joint places and rest rotations,
    path points, strengths, fibre and tendon lengths, and the pelvis tilt of standing as default value.
    """
    opensim.Logger.setLevelString("Off")
    model = opensim.Model(str(base.osim_path))
    _set_bodies(model, base, models)
    _set_wrap_surfaces(model, base, models)
    _set_joints(model, base, models)
    _set_fascicles(model, base, models)
    model.getCoordinateSet().get(PELVIS_TILT).setDefaultValue(float(models.rest_tilt_rad[0]))
    model.finalizeConnections()
    return model


def _set_bodies(model: Any, base: BaseModel, models: PersonalModels) -> None:
    for number, name in enumerate(base.bodies):
        body = model.getBodySet().get(name)
        mass = float(models.mass_kg[0, number])
        if mass > 0.0:
            inertia = _scaled(inertia_tensor(body), mass / body.getMass(), models.body_scale[0, number])
            body.setInertia(opensim_inertia(inertia))
        body.setMass(mass)
        body.setMassCenter(vec3(models.com_m[0, number]))


def _scaled(inertia: Floats, mass: float, scale: Floats) -> Floats:
    """Inertia [3, 3] of a body of `mass` times the mass, stretched by `scale` [3] along its axes."""
    spread = mass * (np.trace(inertia) / 2.0 * np.eye(3) - inertia) * np.outer(scale, scale)
    return np.asarray(np.trace(spread) * np.eye(3) - spread)


def _set_wrap_surfaces(model: Any, base: BaseModel, models: PersonalModels) -> None:
    for number, name in enumerate(base.bodies):
        surfaces = model.getBodySet().get(name).getWrapObjectSet()
        for index in range(surfaces.getSize()):
            surface = surfaces.get(index)
            scale_wrap_surface(surface, surface.clone(), models.body_scale[0, number])


def _set_joints(model: Any, base: BaseModel, models: PersonalModels) -> None:
    joints = model.getJointSet()
    for index in range(joints.getSize()):
        joint = joints.get(index)
        number = base.body(joint.getChildFrame().findBaseFrame().getName())
        if base.parent[number] < 0:
            continue
        frame = opensim.PhysicalOffsetFrame.safeDownCast(joint.getParentFrame())
        if frame is None:
            raise ConfigurationError(f"joint {joint.getName()!r} of the base model has no offset frame in its parent")
        frame.set_translation(vec3(models.rest_offset_m[0, number]))
        frame.set_orientation(vec3(body_fixed_xyz(models.rest_rotation[0, number])))


def _set_fascicles(model: Any, base: BaseModel, models: PersonalModels) -> None:
    number = 0
    for fascicle, name in enumerate(base.fascicles):
        muscle = model.getMuscles().get(name)
        muscle.setMaxIsometricForce(float(models.strength_n[0, fascicle]))
        muscle.setOptimalFiberLength(float(models.optimal_fibre_m[0, fascicle]))
        muscle.setTendonSlackLength(float(models.tendon_slack_m[0, fascicle]))
        points = opensim.GeometryPath.safeDownCast(muscle.updPath()).updPathPointSet()
        for index in range(points.getSize()):
            opensim.PathPoint.safeDownCast(points.get(index)).setLocation(vec3(models.point_m[0, number]))
            number += 1
