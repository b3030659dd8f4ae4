"""Bland-Altman agreement of two measurements of the same things, with intervals, and several things of one person.

Sources: Bland & Altman, Lancet 1986;1:307; Stat Methods Med Res 1999;8:135 (limits of agreement, intervals of them);
J Biopharm Stat 2007;17:571 (several pairs of one person); Zou, Stat Methods Med Res 2013;22:630 (intervals of limits
with several pairs of one person). The papers' own figures are in the tests as far as they could be checked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import stats

Values = npt.NDArray[np.float64]

LEVEL: Final = 0.95
"""Of all intervals, and the share of differences that the limits of agreement are to hold."""
_Z: Final = float(stats.norm.ppf((1 + LEVEL) / 2))


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % confidence interval."""

    value: float
    low: float | None
    """None with fewer than two persons: nothing then says how sure the value is."""
    high: float | None


@dataclass(frozen=True)
class BlandAltman:
    """Differences second - first, in the unit of the values."""

    n: int
    """Pairs."""
    n_persons: int
    bias: Interval
    """Mean difference."""
    sd: float | None
    """Of the differences, those between and within persons together; None with fewer than two persons."""
    lower: Interval | None
    """Limit of agreement: bias - 1.96 SD; None as `sd`."""
    upper: Interval | None
    """bias + 1.96 SD."""

    @property
    def width(self) -> float | None:
        """Distance of the two limits of agreement."""
        return None if self.lower is None or self.upper is None else self.upper.value - self.lower.value


def bland_altman(first: npt.ArrayLike, second: npt.ArrayLike, persons: npt.ArrayLike | None = None) -> BlandAltman:
    """Bias and limits of agreement of pairs of values.

    Parameters
    ----------
    first, second : [pair], finite, one unit
    persons : [pair], who each pair belongs to (any values that can be sorted); None: each pair is a person of its own.
        Pairs of one person, as several levels are, tell less than as many persons do: the variance is then the sum of
        that between and that within persons (2007, the true value varying), and the intervals count persons

    Raises
    ------
    ValueError
        without pairs, for arrays of several lengths and for values that are not finite
    """
    a, b = paired(first, second)
    spread = _Spread.of(b - a, persons)
    bias = spread.interval()
    if spread.n_persons < 2:
        return BlandAltman(len(a), spread.n_persons, bias, None, None, None)
    below, above = spread.errors_of_limit()
    reach = _Z * spread.sd
    lower = Interval(bias.value - reach, bias.value - reach - above, bias.value - reach + below)
    upper = Interval(bias.value + reach, bias.value + reach - below, bias.value + reach + above)
    return BlandAltman(len(a), spread.n_persons, bias, spread.sd, lower, upper)


def mean_absolute_error(first: npt.ArrayLike, second: npt.ArrayLike, persons: npt.ArrayLike | None = None) -> Interval:
    """Mean of |second - first| with its interval (Student's t over persons); parameters and errors: `bland_altman`."""
    a, b = paired(first, second)
    return _Spread.of(np.abs(b - a), persons).interval()


def paired(first: npt.ArrayLike, second: npt.ArrayLike) -> tuple[Values, Values]:
    """Two arrays of equal length, neither empty, all finite; `ValueError` otherwise."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise ValueError(f"pairs of values are two arrays of one length, at least 1; not {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("a value of a pair is NaN or infinite")
    return a, b


@dataclass(frozen=True)
class _Spread:
    """Mean and variance of values of which some may belong to one person: one-way analysis of variance."""

    mean: float
    n: int
    n_persons: int
    sum_of_squared_counts: float
    ms_between: float
    """Mean square between persons; with one value each, the variance."""
    ms_within: float
    """Mean square within persons; 0 with one value each."""

    @classmethod
    def of(cls, values: Values, persons: npt.ArrayLike | None) -> _Spread:
        """`ValueError` when persons are not as many as values."""
        codes = np.arange(len(values)) if persons is None else _codes(persons, len(values))
        counts = np.bincount(codes).astype(np.float64)
        mean = float(values.mean())
        centred = values - mean  # squares of small differences of large values would lose their digits
        sums = np.bincount(codes, weights=centred)
        between = float((sums**2 / counts).sum())
        within = float(((centred - (sums / counts)[codes]) ** 2).sum())
        n, k = len(values), len(counts)
        return cls(
            mean=mean,
            n=n,
            n_persons=k,
            sum_of_squared_counts=float((counts**2).sum()),
            ms_between=between / (k - 1) if k > 1 else 0.0,
            ms_within=within / (n - k) if n > k else 0.0,
        )

    @property
    def divisor(self) -> float:
        """Number of values of one person, in the mean that analysis of variance asks for."""
        return (self.n**2 - self.sum_of_squared_counts) / ((self.n_persons - 1) * self.n)

    @property
    def sd(self) -> float:
        """Square root of the variance between persons plus that within."""
        share = 1 / self.divisor
        return float(np.sqrt(share * self.ms_between + (1 - share) * self.ms_within))

    @property
    def standard_error(self) -> float:
        """Of the mean of all values."""
        between = max(0.0, (self.ms_between - self.ms_within) / self.divisor)
        return float(np.sqrt(between * self.sum_of_squared_counts + self.ms_within * self.n) / self.n)

    def interval(self) -> Interval:
        """The mean with its interval."""
        if self.n_persons < 2:
            return Interval(self.mean, None, None)
        reach = _student(self.n_persons - 1) * self.standard_error
        return Interval(self.mean, self.mean - reach, self.mean + reach)

    def errors_of_limit(self) -> tuple[float, float]:
        """How far a limit of agreement may be too far out, and too far in.

        One value a person: Bland & Altman 1999, the same both ways. Several: Zou 2013, the method of variance estimates
        recovery, with the mean number of values that `divisor` is where he has the harmonic mean; the two are equal
        where all persons have equally many.
        """
        if self.n == self.n_persons:
            n = self.n
            reach = _student(n - 1) * self.sd * float(np.sqrt(1 / n + _Z**2 / (2 * (n - 1))))
            return reach, reach
        of_mean = _student(self.n_persons - 1) * self.standard_error
        low, high = self._variance_interval()
        inward, outward = _Z * (self.sd - math.sqrt(low)), _Z * (math.sqrt(high) - self.sd)
        return math.hypot(of_mean, inward), math.hypot(of_mean, outward)

    def _variance_interval(self) -> tuple[float, float]:
        share = 1 / self.divisor
        terms = ((share * self.ms_between, self.n_persons - 1), ((1 - share) * self.ms_within, self.n - self.n_persons))
        tail = (1 - LEVEL) / 2
        below = [value * (1 - df / _chi2(1 - tail, df)) for value, df in terms]
        above = [value * (df / _chi2(tail, df) - 1) for value, df in terms]
        return max(0.0, self.sd**2 - math.hypot(*below)), self.sd**2 + math.hypot(*above)


def _codes(persons: npt.ArrayLike, n: int) -> npt.NDArray[Any]:
    found = np.asarray(persons)
    if found.shape != (n,):
        raise ValueError(f"one person is named for each pair: {n}, not {found.shape}")
    return np.asarray(np.unique(found, return_inverse=True)[1])


@cache
def _student(df: int) -> float:
    return float(stats.t.ppf((1 + LEVEL) / 2, df))


@cache
def _chi2(probability: float, df: int) -> float:
    return float(stats.chi2.ppf(probability, df))
