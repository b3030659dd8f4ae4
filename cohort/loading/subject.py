"""What is known about one person: the input of a load computation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from cohort.errors import RefusedError

HEIGHT_LIMITS_M: Final = (1.20, 2.30)
MASS_LIMITS_KG: Final = (30.0, 250.0)
"""Outside these limits, themselves included in the range, an adult's height or mass is a typing error or another unit
(own choice, the same as of the archive's demographics)."""
USUAL_HEIGHT_M: Final = (1.40, 2.10)
USUAL_MASS_INDEX: Final = (15.0, 50.0)
"""kg/m2. People outside these limits exist, but a base model scaled to them is extrapolated (own choice)."""
LARGEST_NUMBER: Final = 10_000.0
"""No centroid lies 10 m from the scanner's centre, and no muscle has a section of 1 m2."""

Point = tuple[float, float, float]
Source = Literal["measured", "default", "imputed"]


@dataclass(frozen=True, kw_only=True)
class LoadingSubject:
    """One exam's measurements that personalise the spine model.

    Raises RefusedError: `implausible_demographics` for height or mass outside human range or not finite,
    `no_demographics` for another sex than M and F, `implausible_geometry` for a centroid or an area that is not finite
    or beyond `LARGEST_NUMBER`; the detail names the field.
    """

    exam_id: str
    sex: Literal["M", "F"]
    height_m: float
    mass_kg: float
    height_source: Source = "measured"
    """measured, or imputed where a typical height stands in."""
    mass_source: Source = "measured"
    vertebra_centroids_mm: Mapping[str, Point] = field(default_factory=dict)
    """Level (T12, L1..L5, S1; L6 and T13 where they exist) -> centroid of the vertebral body, LPS mm; only levels with
    certain names."""
    disc_centroids_mm: Mapping[str, Point] = field(default_factory=dict)
    """Disc (T12-L1 .. L5-S1) -> centroid, LPS mm."""
    csa_cm2: Mapping[tuple[str, str, str], float] = field(default_factory=dict)
    """(muscle, side, disc) of `cohort.terms` -> cross-sectional area at the disc's mid-plane, cm2."""
    muscle_centroids_mm: Mapping[tuple[str, str, str], Point] = field(default_factory=dict)
    """(muscle, side, disc) -> centroid of that cross-section, LPS mm, in the frame of the vertebrae and discs."""

    def __post_init__(self) -> None:
        for name, value, (low, high) in (
            ("height_m", self.height_m, HEIGHT_LIMITS_M),
            ("mass_kg", self.mass_kg, MASS_LIMITS_KG),
        ):
            if not (math.isfinite(value) and low <= value <= high):
                raise RefusedError("implausible_demographics", f"{name} is not within {low} to {high}")
        if self.sex not in ("M", "F"):
            raise RefusedError("no_demographics", "sex is neither M nor F")
        for name in ("vertebra_centroids_mm", "disc_centroids_mm", "csa_cm2", "muscle_centroids_mm"):
            for key, values in getattr(self, name).items():
                if not all(abs(number) <= LARGEST_NUMBER for number in _numbers(values)):
                    where = key if isinstance(key, str) else " ".join(key)
                    raise RefusedError("implausible_geometry", f"{name} of {where} is not a finite, possible number")

    @property
    def is_extreme(self) -> bool:
        """Whether height or body mass index is so unusual that scaling a base model to it is extrapolation."""
        index = self.mass_kg / self.height_m**2
        usual_height = USUAL_HEIGHT_M[0] <= self.height_m <= USUAL_HEIGHT_M[1]
        return not (usual_height and USUAL_MASS_INDEX[0] <= index <= USUAL_MASS_INDEX[1])


def _numbers(values: Any) -> Iterator[float]:
    yield from values if isinstance(values, Iterable) else (values,)
