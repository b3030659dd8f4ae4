"""How closely two measurements of the same things go together: Pearson's r and the intraclass correlation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from cohort.agreement.bland_altman import LEVEL, Interval, paired


def pearson(first: npt.ArrayLike, second: npt.ArrayLike) -> float | None:
    """Pearson's correlation of [pair] values; None for fewer than three pairs or where one side is constant.

    Raises `ValueError` as `cohort.agreement.bland_altman.paired` does.
    """
    a, b = paired(first, second)
    if len(a) < 3 or _constant(a) or _constant(b):
        return None
    return float(np.clip(np.corrcoef(a, b)[0, 1], -1.0, 1.0))


@dataclass(frozen=True)
class Correlation:
    """Pearson's r of independent pairs."""

    r: Interval
    """With the interval by Fisher's z; -1 to 1 for three pairs, which say nothing about r."""
    p: float
    """Two-sided, of r = 0, by Student's t."""


def correlation(first: npt.ArrayLike, second: npt.ArrayLike) -> Correlation | None:
    """Pearson's r with its p and 95 % interval (scipy's); None and `ValueError` as of `pearson`."""
    r = pearson(first, second)
    if r is None:
        return None
    found = stats.pearsonr(*paired(first, second))
    low, high = found.confidence_interval(LEVEL)
    return Correlation(Interval(r, float(low), float(high)), float(found.pvalue))


def icc_2_1(ratings: npt.ArrayLike) -> float | None:
    """The value of `intraclass` alone."""
    found = intraclass(ratings)
    return None if found is None else found.value


def intraclass(ratings: npt.ArrayLike) -> Interval | None:
    """Intraclass correlation ICC(2,1): absolute agreement of single ratings, both things and raters random.

    Shrout & Fleiss, Psychol Bull 1979;86:420, case 2: (BMS - EMS) / (BMS + (k - 1) EMS + k (JMS - EMS) / n). The
    interval is theirs too, with Satterthwaite's degrees of freedom; McGraw & Wong, Psychol Methods 1996;1:30 call the
    same ICC(A,1) and give it in their table 7 (cited from memory; the tests compare with pingouin's).

    Parameters
    ----------
    ratings : [thing, rater], finite, every thing rated by each of at least two raters

    Returns
    -------
    None for fewer than three things, and where all ratings are one value: it then says nothing. Without an interval
    where raters differ by a constant or not at all.

    Raises
    ------
    ValueError
        for an array of another shape and for values that are not finite
    """
    x = np.asarray(ratings, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] < 2 or not np.isfinite(x).all():
        raise ValueError(f"ratings are finite, [thing, rater] with two raters or more; not {x.shape}")
    n, k = x.shape
    if n < 3 or _constant(x):
        return None
    size = float(np.abs(x).max())
    x = x - x.mean()
    things, raters = x.mean(axis=1), x.mean(axis=0)
    residual = x - things[:, None] - raters
    between = k * float((things**2).sum()) / (n - 1)
    judges = n * float((raters**2).sum()) / (k - 1)
    error = float((residual**2).sum()) / ((n - 1) * (k - 1))
    total = between + (k - 1) * error + k * (judges - error) / n
    if total <= 0:
        return None
    icc = (between - error) / total
    if np.abs(residual).max() <= 1e-12 * max(1.0, size):
        return Interval(icc, None, None)
    return Interval(icc, *_intraclass_ends(icc, between, judges, error, n, k))


def _intraclass_ends(icc: float, between: float, judges: float, error: float, n: int, k: int) -> tuple[float, float]:
    """95 % interval of ICC(2,1) from the mean squares of `n` things and `k` raters."""
    f, rest = judges / error, n * (1 + (k - 1) * icc) - k * icc
    df = (k - 1) * (n - 1) * (k * icc * f + rest) ** 2 / ((n - 1) * (k * icc * f) ** 2 + rest**2)
    tail = (1 - LEVEL) / 2
    upper, lower = stats.f.isf(tail, n - 1, df), stats.f.isf(tail, df, n - 1)
    spread = k * judges + (k * n - k - n) * error
    low = n * (between - upper * error) / (upper * spread + n * between)
    high = n * (lower * between - error) / (spread + n * lower * between)
    return float(low), float(high)


def _constant(values: npt.NDArray[np.float64]) -> bool:
    """All one value, up to what rounding makes of it."""
    return bool(np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())))
