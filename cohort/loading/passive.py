"""Resistance of motion segments (disc, ligaments, facets) to bending away from a person's standing posture.

A motion segment pushes back in proportion to the angle of each of its coordinates. This leaves out that real ones are
soft at first and stiffen, that they stiffen under compression, that their moments in different directions are
coupled, and that taller people's are stiffer; and the standing posture is taken as free of such moments. The forces
of ligaments across the joint are left out, too: only moments act, so that compression can only fall.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from cohort.loading.base_model import Floats
from cohort.loading.tasks import Task

FLEXION_NM_PER_DEG: Final = 1.8
EXTENSION_NM_PER_DEG: Final = 2.6
BENDING_NM_PER_DEG: Final = 2.3
TURNING_NM_PER_DEG: Final = 8.4
"""Stiffness of lumbar motion segments of cadavers: Schmidt et al. 1998 (Spine 23:2167), as quoted by others; the paper
itself was not at hand. T12/L1 is taken to be as stiff."""


def stiffness_nm_per_rad(task: Task) -> Floats:
    """Stiffness [6, 3] of each joint about z, x and y on the side to which the task turns it."""
    angle = task.joint_angles_rad
    per_deg = np.empty_like(angle)
    per_deg[:, 0] = np.where(angle[:, 0] < 0.0, FLEXION_NM_PER_DEG, EXTENSION_NM_PER_DEG)
    per_deg[:, 1:] = BENDING_NM_PER_DEG, TURNING_NM_PER_DEG
    return np.degrees(per_deg)


def passive_moments(task: Task) -> Floats:
    """Moments [6, 3] on the upper body along the coordinates about z, x and y; extension positive in flexion, N m."""
    return -stiffness_nm_per_rad(task) * task.joint_angles_rad
