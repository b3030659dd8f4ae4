"""Overlap of two masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Spread:
    """Mean and spread of a score over slices."""

    n: int
    dice: float | None
    """Mean; None without slices."""
    sd: float | None
    median: float | None
    worst: float | None


def dice(found: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Dice coefficient 2|A and B| / (|A| + |B|) of two boolean arrays of one shape; 1 if both are empty (Dice 1945)."""
    a, b = np.asarray(found, dtype=bool), np.asarray(truth, dtype=bool)
    total = int(a.sum()) + int(b.sum())
    return 1.0 if total == 0 else 2 * int((a & b).sum()) / total


def spread(scores: Sequence[float]) -> Spread:
    """Number, mean, standard deviation (n - 1), median and least of scores, rounded to four digits."""
    if not scores:
        return Spread(0, None, None, None, None)
    sd = np.std(scores, ddof=1) if len(scores) > 1 else 0.0
    found = (np.mean(scores), sd, np.median(scores), np.min(scores))
    return Spread(len(scores), *(round(float(value), 4) for value in found))
