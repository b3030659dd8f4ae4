"""How closely two measurements of the same things go together: Pearson's r and the intraclass correlation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cohort.agreement.bland_altman import paired


def pearson(first: npt.ArrayLike, second: npt.ArrayLike) -> float | None:
    """Pearson's correlation of [pair] values; None for fewer than three pairs or where one side is constant.

    Raises `ValueError` as `cohort.agreement.bland_altman.paired` does.
    """
    a, b = paired(first, second)
    if len(a) < 3 or _constant(a) or _constant(b):
        return None
    return float(np.clip(np.corrcoef(a, b)[0, 1], -1.0, 1.0))


def icc_2_1(ratings: npt.ArrayLike) -> float | None:
    """Intraclass correlation ICC(2,1): absolute agreement of single ratings, both things and raters random.

    Shrout & Fleiss, Psychol Bull 1979;86:420, case 2: (BMS - EMS) / (BMS + (k - 1) EMS + k (JMS - EMS) / n).

    Parameters
    ----------
    ratings : [thing, rater], finite, every thing rated by each of at least two raters

    Returns
    -------
    None for fewer than three things, and where all ratings are one value: it then says nothing

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
    x = x - x.mean()
    things, raters = x.mean(axis=1), x.mean(axis=0)
    between = k * float((things**2).sum()) / (n - 1)
    judges = n * float((raters**2).sum()) / (k - 1)
    error = float(((x - things[:, None] - raters) ** 2).sum()) / ((n - 1) * (k - 1))
    total = between + (k - 1) * error + k * (judges - error) / n
    return (between - error) / total if total > 0 else None


def _constant(values: npt.NDArray[np.float64]) -> bool:
    """All one value, up to what rounding makes of it."""
    return bool(np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())))
