"""What is known about one person: the input of a load computation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from cohort.errors import RefusedError

HEIGHT_LIMITS_M: Final = (1.20, 2.30)
MASS_LIMITS_KG: Final = (25.0, 300.0)
"""Outside these limits an adult's height or mass is a typing error or another unit (project's choice)."""

Point = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class LoadingSubject:
    """One exam's measurements that personalise the spine model.

    Raises RefusedError (`implausible_demographics`) for height or mass outside human range or not finite.
    """

    exam_id: str
    sex: Literal["M", "F"]
    height_m: float
    mass_kg: float
    vertebra_centroids_mm: Mapping[str, Point] = field(default_factory=dict)
    """Level (T12, L1..L5, S1; L6 and T13 where they exist) -> centroid of the vertebral body, LPS mm; only levels with
    certain names."""
    disc_centroids_mm: Mapping[str, Point] = field(default_factory=dict)
    """Disc (T12-L1 .. L5-S1) -> centroid, LPS mm."""
    csa_cm2: Mapping[tuple[str, str, str], float] = field(default_factory=dict)
    """(muscle, side, disc) of `cohort.terms` -> cross-sectional area at the disc's mid-plane, cm2."""

    def __post_init__(self) -> None:
        for name, value, (low, high) in (
            ("height_m", self.height_m, HEIGHT_LIMITS_M),
            ("mass_kg", self.mass_kg, MASS_LIMITS_KG),
        ):
            if not (math.isfinite(value) and low <= value <= high):
                raise RefusedError("implausible_demographics", f"{name} is not within {low} to {high}")
        if self.sex not in ("M", "F"):
            raise RefusedError("no_demographics", "sex is neither M nor F")
