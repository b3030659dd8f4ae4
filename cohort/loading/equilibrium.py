"""Posed spine models at rest, many subjects at once: lines of action, gravity, balance of moments, joint reactions.

Frames: ground is x forward, y up, z to the right, metres, newtons. A wrench at a joint is the force and the moment
about the joint's centre that act on all that the joint carries (the bodies distal to it), [.., 6] = (force, moment).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from cohort.loading.assumptions import Assumptions
from cohort.loading.base_model import BaseModel, Flags, Floats
from cohort.loading.dual_newton import solve_equilibria
from cohort.loading.opensim_geometry import wrapped_wrenches
from cohort.loading.personalise import PersonalModels
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
    """[subject, joint, 3] moments that the fascicles lack, on the upper body, in its frame."""
    converged: Flags
    """[subject]"""
    reaction_n: Floats
    """[subject, joint, 3] force of the lower on the upper body of each joint, ground frame."""


def balance(base: BaseModel, models: PersonalModels, task: Task, assumptions: Assumptions) -> Balance:
    """Pose all models and solve static optimisation at the three axes of each of the six joints.

    Every level is balanced by itself: couplings of lumbar angles shape the posture only. The lower bound of
    activation is 0 (OpenSim's hidden default of 0.01 adds more than half to the load in standing).
    """
    pose = pose_models(base, models, task)
    pull = fascicle_wrenches(base, models, pose)
    load = gravity_wrenches(base, models, pose, hand_kg=(task.right_hand_kg, task.left_hand_kg))
    axes = pose.rotation[:, base.joint_body]
    n, joints, _, fascicles = pull.shape
    arms = np.matmul(axes.transpose(0, 1, 3, 2), pull[:, :, 3:]).reshape(n, joints * 3, fascicles)
    need = -np.matmul(axes.transpose(0, 1, 3, 2), load[:, :, 3:, None]).reshape(n, joints * 3)
    found = solve_equilibria(arms * models.strength_n[:, None, :], need)
    force = found.activation * models.strength_n
    muscle = np.matmul(pull[:, :, :3], force[:, None, :, None])[..., 0]
    return Balance(
        pose=pose,
        activation=found.activation,
        reserve_nm=found.reserve.reshape(n, joints, 3),
        converged=found.converged,
        reaction_n=-(load[:, :, :3] + muscle),
    )


def pose_models(base: BaseModel, models: PersonalModels, task: Task) -> Pose:
    """Forward kinematics: pelvis tilt, lumbar rhythm, arms hanging vertically (upright axes in ground)."""
    rotation = np.empty_like(models.rest_rotation)
    origin = np.empty_like(models.rest_offset_m)
    tilt = models.rest_tilt_rad + task.pelvis_tilt_rad
    bend = {int(body): angle for body, angle in zip(base.joint_body, task.joint_extension_rad, strict=True)}
    for body, parent in enumerate(base.parent):
        rest, offset = models.rest_rotation[:, body], models.rest_offset_m[:, body]
        if parent < 0:
            rotation[:, body], origin[:, body] = np.matmul(rest, about_z(tilt)), offset
            continue
        rotation[:, body] = np.matmul(rotation[:, parent], rest)
        if body in bend:
            rotation[:, body] = np.matmul(rotation[:, body], about_z(np.array(bend[body])))
        if body in base.arm_bodies:
            rotation[:, body] = np.eye(3)
        origin[:, body] = origin[:, parent] + np.matmul(rotation[:, parent], offset[:, :, None])[:, :, 0]
    return Pose(rotation=rotation, origin_m=origin)


def about_z(angle_rad: Floats) -> Floats:
    """Rotations [..., 3, 3] about z by angles [...]."""
    c, s, zero, one = np.cos(angle_rad), np.sin(angle_rad), np.zeros_like(angle_rad), np.ones_like(angle_rad)
    return np.stack([c, -s, zero, s, c, zero, zero, zero, one], axis=-1).reshape(*np.shape(angle_rad), 3, 3)


def fascicle_wrenches(base: BaseModel, models: PersonalModels, pose: Pose) -> Floats:
    """Wrench [subject, joint, 6, fascicle] of each fascicle at unit tension.

    A straight piece pulls its two ends towards each other; it loads the joints that lie between the two bodies. The
    moment arms are thus exact for paths of straight pieces; OpenSim gives those of fascicles around surfaces.
    """
    turned = np.matmul(pose.rotation[:, base.point_body], models.point_m[:, :, :, None])[..., 0]
    points = pose.origin_m[:, base.point_body] + turned
    start = points[:, base.segment_start]
    pull = points[:, base.segment_start + 1] - start
    pull /= np.linalg.norm(pull, axis=2, keepdims=True)
    moment = np.cross(start, pull)
    first = np.searchsorted(base.segment_fascicle, np.arange(len(base.fascicles)))
    carried = base.distal[:, base.point_body].astype(np.float64)
    sign = carried[:, base.segment_start] - carried[:, base.segment_start + 1]
    wrench = np.empty((len(points), len(base.distal), 6, len(base.fascicles)))
    for joint, body in enumerate(base.joint_body):
        acting = sign[joint][None, :, None]
        about_joint = moment - np.cross(pose.origin_m[:, body][:, None], pull)
        wrench[:, joint, :3] = np.add.reduceat(pull * acting, first, axis=1).transpose(0, 2, 1)
        wrench[:, joint, 3:] = np.add.reduceat(about_joint * acting, first, axis=1).transpose(0, 2, 1)
    if base.wrapped.any():
        wrench[..., base.wrapped] = wrapped_wrenches(base, models, pose)
    return wrench


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
