"""Strength of fascicles at the length that their fibres have in a posture.

A muscle of Thelen 2003 (J Biomech Eng 125:70) at rest, as OpenSim computes it with an inextensible tendon: the fibres
keep their thickness (optimal length times sine of the pennation at optimal length), the tendon its slack length, and
the active force is a Gaussian of the fibres' normalised length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from cohort.loading.base_model import BaseModel, Flags, Floats
from cohort.loading.personalise import PersonalModels

GAUSSIAN_WIDTH: Final = 0.45
"""Shape factor of the active force-length curve: Thelen 2003, table 1."""
LEAST_STRENGTH: Final = 0.01
"""Share of its strength that every fascicle keeps (own choice), so that nobody divides by a strength of zero."""
ACTIVE_RANGE: Final = (0.5, 1.5)
"""Normalised lengths of fibres that can be active (working value, about the range of sarcomeres in Gordon, Huxley &
Julian 1966, J Physiol 184:170, from memory). Outside, a fascicle's lengths do not fit the posture."""


@dataclass(frozen=True, eq=False)
class Fibres:
    """Fascicles of posed models."""

    strength: Floats
    """[subject, fascicle] force along the tendon at full activation over strength at optimal length, in (0, 1]."""
    out_of_range: Flags
    """[subject, fascicle] whether the fibres are outside `ACTIVE_RANGE`."""


def stretch_fibres(base: BaseModel, models: PersonalModels, length_m: Floats) -> Fibres:
    """Fibres of fascicles whose whole length, tendon included, is `length_m` [subject, fascicle]."""
    along = length_m - models.tendon_slack_m
    thickness = models.optimal_fibre_m * np.sin(base.pennation_rad)
    fibre = np.hypot(along, thickness)
    normalised = fibre / models.optimal_fibre_m
    active = np.exp(-((normalised - 1.0) ** 2) / GAUSSIAN_WIDTH)
    pulling = active * np.maximum(along, 0.0) / fibre
    low, high = ACTIVE_RANGE
    return Fibres(
        strength=np.maximum(pulling, LEAST_STRENGTH),
        out_of_range=(along <= 0.0) | (normalised < low) | (normalised > high),
    )
