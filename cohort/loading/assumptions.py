"""What a load computation takes for granted, and which measurements it uses."""

from __future__ import annotations

from dataclasses import dataclass

from cohort.errors import ConfigurationError


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
    """Physics that is a matter of choice; numbers under different choices must not be compared.

    Raises ConfigurationError for a least activation that is not from 0 to below 1.
    """

    min_activation: float = 0.0
    """Least activation of every fascicle."""
    force_length: bool = False
    """Whether strength depends on the fascicle's length in the posture."""
    passive_stiffness: bool = False
    """Whether discs and ligaments resist bending."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.min_activation < 1.0:
            raise ConfigurationError(f"min_activation is from 0 to below 1, not {self.min_activation}")
