"""Bland-Altman agreement of two measurements of the same things, with intervals, and several things of one person.

Sources: Bland & Altman, Lancet 1986;1:307 and Stat Methods Med Res 1999;8:135 (limits of agreement, their intervals); J
Biopharm Stat 2007;17:571 (several pairs of one person). The figures of the papers' examples are in the tests. Intervals
of limits with several pairs of one person are by the formula of 1999 with effective degrees of freedom. Zou's (Stat
Methods Med Res 2013;22:630) have the same aim, but burst where hardly anybody has two values.
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

    def within(self, least: float, most: float) -> Interval:
        """Ends that no mean of such values can have are moved to the bound: the interval holds the truth as often."""
        if self.low is None or self.high is None:
            return self
        return Interval(self.value, max(self.low, least), min(self.high, most))


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
    reach, error = _Z * spread.sd, spread.error_of_limit()
    lower, upper = (Interval(limit, limit - error, limit + error) for limit in (bias.value - reach, bias.value + reach))
    return BlandAltman(len(a), spread.n_persons, bias, spread.sd, lower, upper)


def mean_absolute_error(first: npt.ArrayLike, second: npt.ArrayLike, persons: npt.ArrayLike | None = None) -> Interval:
    """Mean of |second - first| with its interval (Student's t over persons, none of it below 0).

    Parameters and errors as those of `bland_altman`.
    """
    a, b = paired(first, second)
    return _Spread.of(np.abs(b - a), persons).interval().within(0.0, np.inf)


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
        codes = np.arange(len(values)) if persons is None else person_codes(persons, len(values))
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

    def error_of_limit(self) -> float:
        """Half the confidence interval of a limit of agreement.

        Variance of the mean plus 1.96^2 times that of the standard deviation, s^2 / (2 df) (Bland & Altman 1999), with
        the degrees of freedom of a sum of mean squares (Satterthwaite, Biometrics Bull 1946;2:110): with one value a
        person these are n - 1, and the formula is that of 1999.
        """
        if self.sd == 0:
            return 0.0
        share = 1 / self.divisor
        terms = ((share * self.ms_between, self.n_persons - 1), ((1 - share) * self.ms_within, self.n - self.n_persons))
        of_sd = sum(term**2 / df for term, df in terms if df) / (2 * self.sd**2)
        return _student(self.n_persons - 1) * math.sqrt(self.standard_error**2 + _Z**2 * of_sd)


def person_codes(persons: npt.ArrayLike, n: int) -> npt.NDArray[Any]:
    """[pair] number of each pair's person, from 0; `ValueError` when persons are not as many as the `n` pairs."""
    found = np.asarray(persons)
    if found.shape != (n,):
        raise ValueError(f"one person is named for each pair: {n}, not {found.shape}")
    return np.asarray(np.unique(found, return_inverse=True)[1])


@cache
def _student(df: int) -> float:
    return float(stats.t.ppf((1 + LEVEL) / 2, df))
