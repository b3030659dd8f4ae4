"""Intervals of statistics of which several values come from one person: a bootstrap that draws persons.

All that is estimated here is a function of sums over pairs, and sums over persons are those of the persons added up. So
a resample is a vector of how often each person was drawn, and all of them together are one product of matrices.

Drawing whole persons with replacement: Davison & Hinkley, Bootstrap Methods and their Application, 1997, 3.8; Field &
Welsh, J R Stat Soc B 2007;69:369 (both cited from memory). Percentiles are expanded as in Hesterberg, Am Stat
2015;69:371 (read in the documentation of his R package `resample`), because plain ones are too narrow where persons are
few. How often the intervals hold the truth: docs/agreement.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import stats

from cohort.agreement.bland_altman import LEVEL, Values, paired, person_codes

RESAMPLES: Final = 4000
"""The share of them beyond an end of an interval is 2.5 +- 0.25 %."""
FEWEST_PERSONS: Final = 8
"""Of the tables; with fewer, intervals hold the truth less often than in nine of ten studies (docs/agreement.md)."""
_SEED: Final = 20230
_AT_ONCE: Final = 4_000_000
"""Draws in memory at a time."""
_MOST_UNDEFINED: Final = 0.05
"""Share of resamples in which a statistic may be undefined (nothing varies in them); with more it has no interval."""

STATISTICS: Final = ("mae", "bias", "r", "icc")

Ends = tuple[float, float]


def intervals_by_person(
    first: npt.ArrayLike, second: npt.ArrayLike, persons: npt.ArrayLike
) -> Mapping[str, Ends | None]:
    """95 % intervals of mae, bias, r and icc, by a bootstrap of persons.

    Parameters
    ----------
    first, second : [pair], finite, one unit
    persons : [pair], who each pair belongs to

    Returns
    -------
    Name -> (low, high); None with one person, and for a statistic that is undefined in more than 5 % of the resamples.
    The same numbers always give the same ends.

    Raises
    ------
    ValueError
        as `cohort.agreement.bland_altman.bland_altman`
    """
    a, b = paired(first, second)
    middle = (a.mean() + b.mean()) / 2  # squares of small differences of large values would lose their digits
    a, b, d = a - middle, b - middle, b - a
    terms = np.column_stack([np.ones(len(a)), a, b, a * a, b * b, a * b, d, d * d, np.abs(d)])
    codes = person_codes(persons, len(a))
    found = _resampled(terms, codes)
    if found is None:
        return dict.fromkeys(STATISTICS)
    return {name: _ends(values, int(codes.max()) + 1) for name, values in _statistics(found).items()}


def mean_by_person(values: npt.ArrayLike, persons: npt.ArrayLike) -> Ends | None:
    """95 % interval of the mean of [value], by a bootstrap of persons; None with one person."""
    x = np.asarray(values, dtype=np.float64)
    codes = person_codes(persons, len(x))
    found = _resampled(np.column_stack([np.ones(len(x)), x]), codes)
    return None if found is None else _ends(found[:, 1] / found[:, 0], int(codes.max()) + 1)


def _resampled(terms: Values, codes: npt.NDArray[np.int64]) -> Values | None:
    """[resample, term] sums over the persons drawn; `terms` [pair, term], `codes` [pair] persons from 0."""
    n = int(codes.max()) + 1
    if n < 2:
        return None
    sums = np.stack([np.bincount(codes, weights=column) for column in terms.T], axis=1)
    return np.concatenate([counts @ sums for counts in _draws(n)])


def _draws(n: int) -> Iterator[Values]:
    """[resample, person] how often each of `n` persons is drawn, some resamples at a time."""
    random = np.random.default_rng(_SEED)
    at_once = max(1, _AT_ONCE // n)
    for start in range(0, RESAMPLES, at_once):
        rows = min(at_once, RESAMPLES - start)
        drawn = random.integers(0, n, (rows, n)) + n * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def _statistics(sums: Values) -> dict[str, Values]:
    """Statistics of every resample from its sums of 1, a, b, a^2, b^2, ab, d, d^2, |d|; NaN where undefined."""
    n, a, b, aa, bb, ab, d, dd, absolute = sums.T
    with np.errstate(divide="ignore", invalid="ignore"):
        of_a, of_b, of_ab, of_d = aa - a * a / n, bb - b * b / n, ab - a * b / n, np.maximum(dd - d * d / n, 0.0)
        bias = d / n
        between, error = (of_a + of_b + 2 * of_ab) / (2 * (n - 1)), of_d / (2 * (n - 1))
        judges = n * bias**2 / 2
        return {
            "mae": absolute / n,
            "bias": bias,
            "r": np.clip(of_ab / np.sqrt(of_a * of_b), -1.0, 1.0),
            "icc": (between - error) / (between + error + 2 * (judges - error) / n),
        }


def _ends(values: Values, n_persons: int) -> Ends | None:
    defined = values[np.isfinite(values)]
    if len(defined) < (1 - _MOST_UNDEFINED) * len(values):
        return None
    reach = math.sqrt(n_persons / (n_persons - 1)) * stats.t.ppf((1 + LEVEL) / 2, n_persons - 1)
    tail = float(stats.norm.cdf(-reach))
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)
