"""What a load computation takes for granted, and which measurements it uses."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Personalisation:
    """Which measurements of a person change the base model; stature and mass always do."""

    curvature: bool = True
    """Angles between neighbouring vertebrae and distances of their joints."""
    strength: bool = True
    """Strength of fascicles from cross-sectional areas."""
    position: bool = True
    """Places of fascicles from the centroids of muscles."""


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """Physics that is a matter of choice; numbers under different choices must not be compared."""

    min_activation: float = 0.0
    """Least activation of every fascicle."""
    force_length: bool = False
    """Whether strength depends on the fascicle's length in the posture."""
    passive_stiffness: bool = False
    """Whether discs and ligaments resist bending."""
