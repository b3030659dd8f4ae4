"""Postures and hand loads for which loads are computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

LUMBAR_RHYTHM: Final = (0.14, 0.26, 0.23, 0.16, 0.13, 0.08)
"""Share of lumbar flexion in L5/S1, L4/L5, L3/L4, L2/L3, L1/L2, T12/L1: Beaucage-Gauvreau et al. 2019 (Comput Methods
Biomech Biomed Eng 22:451), who give 1 : 1.857 : 1.643 : 1.143 : 0.929 : 0.571."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A posture with a load in each hand; angles are changes from upright standing.

    Example
    -------
    >>> Task(name="bowing", trunk_flexion_deg=30.0).pelvis_tilt_rad
    -0.1308996938995747
    """

    name: str
    trunk_flexion_deg: float = 0.0
    """Forward inclination of the thorax from upright."""
    lumbar_share: float = 0.75
    """Part of the inclination that comes from the lumbar spine (T12-S1); the pelvis turns by the rest at the hips."""
    pelvic_retroversion_deg: float = 0.0
    """Backward tilt of the pelvis that lumbar flexion makes up for, as in sitting: the thorax stays where it is."""
    lateral_bend_deg: float = 0.0
    """Of the thorax against the pelvis, to the right positive."""
    axial_turn_deg: float = 0.0
    """Of the thorax against the pelvis, to the left positive."""
    arm_elevation_deg: float = 0.0
    """Of both straight arms, forward from hanging vertically."""
    right_hand_kg: float = 0.0
    left_hand_kg: float = 0.0

    @property
    def joint_extension_rad(self) -> npt.NDArray[np.float64]:
        """[6] change of angle of L5/S1 .. T12/L1 about z, extension positive."""
        lumbar = -np.radians(self.trunk_flexion_deg * self.lumbar_share + self.pelvic_retroversion_deg)
        return np.asarray(lumbar * np.array(LUMBAR_RHYTHM) / sum(LUMBAR_RHYTHM), dtype=np.float64)

    @property
    def pelvis_tilt_rad(self) -> float:
        """Turn of the pelvis about z, backward positive."""
        return float(np.radians(self.pelvic_retroversion_deg - self.trunk_flexion_deg * (1.0 - self.lumbar_share)))


STANDING: Final = Task(name="standing")
STANDING_5KG: Final = Task(name="standing_5kg", right_hand_kg=5.0, left_hand_kg=5.0)
FLEXION60_5KG: Final = Task(name="flexion60_5kg", trunk_flexion_deg=60.0, right_hand_kg=5.0, left_hand_kg=5.0)
"""Flexion of 60 degrees with 5 kg in each hand, as Hess et al. compute it. Their split between lumbar spine and hips is
not printed; three quarters lumbar is this project's choice, between full lumbar flexion (about 50 degrees) and the
two thirds of quiet bending."""

TASKS: Final = {task.name: task for task in (STANDING, STANDING_5KG, FLEXION60_5KG)}
