"""Posed spine models at rest, many subjects at once: lines of action, gravity, balance of moments, joint reactions.

Frames: ground is x forward, y up, z to the right, metres, newtons. A wrench at a joint is the force and the moment
about the joint's centre that act on all that the joint carries (the bodies distal to it), [.., 6] = (force, moment).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from cohort.loading.assumptions import Assumptions
from cohort.loading.base_model import BaseModel, Flags, Floats, Integers
from cohort.loading.dual_newton import solve_equilibria
from cohort.loading.force_length import stretch_fibres
from cohort.loading.opensim_geometry import wrapped_lengths, wrapped_wrenches
from cohort.loading.passive import passive_moments
from cohort.loading.personalise import PersonalModels
from cohort.loading.rest_posture import path_lengths, place_points
from cohort.loading.tasks import Task

GRAVITY_M_PER_S2: Final = 9.80665
"""Standard gravity, as in OpenSim's default."""


@dataclass(frozen=True, eq=False)
class Pose:
    """Where the bodies of posed models are."""

    rotation: Floats
    """[subject, body, 3, 3] axes in ground."""
    origin_m: Floats
    """[subject, body, 3] in ground; for the child of a joint this is the joint's centre."""


@dataclass(frozen=True, eq=False)
class Balance:
    """Muscle activations and joint reactions of posed models."""

    pose: Pose
    activation: Floats
    """[subject, fascicle]"""
    reserve_nm: Floats
    """[subject, joint, 3] moments that the fascicles lack, on the upper body about the axes of the joint's coordinates
    LB, AR and FE (near its x, y and z)."""
    converged: Flags
    """[subject]"""
    reaction_n: Floats
    """[subject, joint, 3] force of the lower on the upper body of each joint, ground frame."""
    fibres_out_of_range: Integers
    """[subject] fascicles whose fibres are too short or too long to be active; 0 without the force-length relation."""


def balance(base: BaseModel, models: PersonalModels, task: Task, assumptions: Assumptions) -> Balance:
    """Pose all models and solve static optimisation at the three axes of each of the six joints.

    Every level is balanced by itself: couplings of lumbar angles shape the posture only. The least activation is 0
    unless `assumptions` says otherwise (OpenSim's hidden default of 0.01 adds more than half to the load in standing).
    """
    pose = pose_models(base, models, task)
    return balance_pulls(base, models, task, assumptions, pose, fascicle_wrenches(base, models, pose))


def balance_pulls(
    base: BaseModel, models: PersonalModels, task: Task, assumptions: Assumptions, pose: Pose, pull: Floats
) -> Balance:
    """As `balance`, for models posed already and wrenches of fascicles at unit tension, `pull` [subject, joint, 6,
    fascicle], wherever they come from."""
    load = gravity_wrenches(base, models, pose, hand_kg=task.hand_kg)
    strength, misfits = _strength(base, models, pose, assumptions)
    axes = np.matmul(coordinate_axes(task), pose.rotation[:, base.joint_body].transpose(0, 1, 3, 2))
    n, joints, _, fascicles = pull.shape
    arms = np.matmul(axes, pull[:, :, 3:]).reshape(n, joints * 3, fascicles)
    need = -np.matmul(axes, load[:, :, 3:, None])[..., 0]
    if assumptions.passive_stiffness:
        need -= passive_moments(task)[:, [1, 2, 0]]
    found = solve_equilibria(arms * strength[:, None, :], need.reshape(n, -1), low=assumptions.min_activation)
    muscle = np.matmul(pull[:, :, :3], (found.activation * strength)[:, None, :, None])[..., 0]
    return Balance(
        pose=pose,
        activation=found.activation,
        reserve_nm=found.reserve.reshape(n, joints, 3),
        converged=found.converged,
        reaction_n=-(load[:, :, :3] + muscle),
        fibres_out_of_range=misfits,
    )


def _strength(base: BaseModel, models: PersonalModels, pose: Pose, assumptions: Assumptions) -> tuple[Floats, Integers]:
    """Strength [subject, fascicle] in the posture, and how many fascicles' lengths do not fit it [subject]."""
    if not assumptions.force_length:
        return models.strength_n, np.zeros(len(models.strength_n), dtype=np.int64)
    fibres = stretch_fibres(base, models, fascicle_lengths(base, models, pose))
    return models.strength_n * fibres.strength, fibres.out_of_range.sum(axis=1)


def pose_models(base: BaseModel, models: PersonalModels, task: Task) -> Pose:
    """Forward kinematics: pelvis tilt, angles of the spinal joints, arms hanging or raised."""
    rotation = np.empty_like(models.rest_rotation)
    origin = np.empty_like(models.rest_offset_m)
    root = about_z(models.rest_tilt_rad + task.pelvis_tilt_rad)
    turn = dict(zip(base.joint_body.tolist(), _turns(task.joint_angles_rad), strict=True))
    for body, parent in enumerate(base.parent):
        rest, offset = models.rest_rotation[:, body], models.rest_offset_m[:, body]
        if parent < 0:
            rotation[:, body], origin[:, body] = np.matmul(rest, root), offset
            continue
        if body in base.arm_bodies:
            rotation[:, body] = arm_axes(rotation[:, base.joint_body[-1]], task.arm_elevation_rad)
        else:
            rotation[:, body] = np.matmul(np.matmul(rotation[:, parent], rest), turn.get(body, np.eye(3)))
        origin[:, body] = origin[:, parent] + np.matmul(rotation[:, parent], offset[:, :, None])[:, :, 0]
    return Pose(rotation=rotation, origin_m=origin)


def about_z(angle_rad: Floats) -> Floats:
    """Rotations [..., 3, 3] about z by angles [...]."""
    return _about(2, np.asarray(angle_rad))


def _about(axis: int, angle_rad: Floats) -> Floats:
    """Rotations [..., 3, 3] about a main axis by angles [...]."""
    turn = np.zeros((*angle_rad.shape, 3, 3))
    one, two = (axis + 1) % 3, (axis + 2) % 3
    turn[..., axis, axis] = 1.0
    turn[..., one, one] = turn[..., two, two] = np.cos(angle_rad)
    turn[..., two, one] = np.sin(angle_rad)
    turn[..., one, two] = -turn[..., two, one]
    return turn


def _turns(angles_rad: Floats) -> Floats:
    """Rotations [..., 3, 3] by body-fixed angles [..., 3] about z, x and y, in this order."""
    about_x, about_y = _about(0, angles_rad[..., 1]), _about(1, angles_rad[..., 2])
    return np.asarray(np.matmul(np.matmul(about_z(angles_rad[..., 0]), about_x), about_y))


def coordinate_axes(task: Task) -> Floats:
    """Axes [joint, 3, 3] of the coordinates LB, AR and FE of each joint, rows, in the frame of the upper body.

    The axis of AR is the body's y; those of LB and FE were its x before it turned, and z before it bent, too. For
    postures in the sagittal plane they are x, y and z.
    """
    angles = task.joint_angles_rad
    unturn = _about(1, -angles[:, 2])
    unbend = np.matmul(unturn, _about(0, -angles[:, 1]))
    return np.stack([unturn[:, :, 0], np.broadcast_to(np.eye(3)[1], (len(angles), 3)), unbend[:, :, 2]], axis=1)


def arm_axes(thorax: Floats, elevation_rad: float) -> Floats:
    """Axes [..., 3, 3] of arms that hang vertically, raised forward in the vertical plane that the thorax faces.

    That plane is upright and at a right angle to the horizontal part of the thorax's z axis (to the right).
    """
    right = thorax[..., :, 2] * np.array([1.0, 0.0, 1.0])
    right /= np.linalg.norm(right, axis=-1, keepdims=True)
    up = np.broadcast_to(np.array([0.0, 1.0, 0.0]), right.shape)
    hanging = np.stack([np.cross(up, right), up, right], axis=-1)
    return np.asarray(np.matmul(hanging, about_z(np.array(elevation_rad))))


def fascicle_lengths(base: BaseModel, models: PersonalModels, pose: Pose) -> Floats:
    """Lengths [subject, fascicle] of whole fascicles, tendon included: sums of their straight pieces.

    Fascicles around surfaces have OpenSim's lengths.
    """
    lengths = path_lengths(base, place_points(base, pose.rotation, pose.origin_m, models.point_m))
    if base.wrapped.any():
        lengths[:, base.wrapped] = wrapped_lengths(base, models, pose)
    return lengths


def fascicle_wrenches(base: BaseModel, models: PersonalModels, pose: Pose) -> Floats:
    """Wrench [subject, joint, 6, fascicle] of each fascicle at unit tension.

    A straight piece pulls its two ends towards each other; it loads the joints that lie between the two bodies. The
    moment arms are thus exact for paths of straight pieces; OpenSim gives those of fascicles around surfaces.
    """
    points = place_points(base, pose.rotation, pose.origin_m, models.point_m).transpose(2, 0, 1)
    start = points[:, :, base.segment_start]
    pull = points[:, :, base.segment_start + 1] - start
    pull /= np.sqrt((pull**2).sum(axis=0))
    moment = _cross(start, pull)
    carried = base.distal[:, base.point_body].astype(np.float64)
    sign = carried[:, base.segment_start] - carried[:, base.segment_start + 1]
    wrench = np.zeros((points.shape[1], len(base.distal), 6, len(base.fascicles)))
    for joint, body in enumerate(base.joint_body):
        across = np.flatnonzero(sign[joint])
        fascicle, first = np.unique(base.segment_fascicle[across], return_index=True)
        force = pull[:, :, across] * sign[joint, across]
        centre = pose.origin_m[:, body].T[:, :, None]
        about_joint = moment[:, :, across] * sign[joint, across] - _cross(centre, force)
        acting = np.concatenate([force, about_joint])
        wrench[:, joint, :, fascicle] = np.add.reduceat(acting, first, axis=2).transpose(2, 1, 0)
    if base.wrapped.any():
        wrench[..., base.wrapped] = wrapped_wrenches(base, models, pose)
    return wrench


def _cross(a: Floats, b: Floats) -> Floats:
    """Cross product along the first axis; several times as fast as NumPy's along the last."""
    return np.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def gravity_wrenches(base: BaseModel, models: PersonalModels, pose: Pose, *, hand_kg: tuple[float, float]) -> Floats:
    """Wrench [subject, joint, 6] of body weight and of loads in right and left hand (at its centre of mass)."""
    centre = pose.origin_m + np.matmul(pose.rotation, models.com_m[..., None])[..., 0]
    mass = models.mass_kg.copy()
    mass[:, base.hand_bodies] += np.array(hand_kg)
    weight = np.zeros_like(centre)
    weight[:, :, 1] = -GRAVITY_M_PER_S2 * mass
    carried = base.distal.astype(np.float64)
    force = np.matmul(carried, weight)
    moment = np.matmul(carried, np.cross(centre, weight))
    return np.concatenate([force, moment - np.cross(pose.origin_m[:, base.joint_body], force)], axis=2)
