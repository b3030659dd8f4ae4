"""Muscle strength from measured cross-sectional areas.

Strength is proportional to area (specific tension). A fascicle of a measured muscle gets the base model's strength
times the mean, over the levels that it spans, of the subject's area divided by the area of a typical person of that
sex, side by side. The typical person has the base model's strength: fascicles overlap lengthwise, so the sum of their
PCSA at a level is no anatomical area and cannot be compared with a mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from cohort.loading.base_model import BaseModel, Flags, Floats
from cohort.loading.curvature import DISCS
from cohort.loading.subject import LoadingSubject
from cohort.terms import MUSCLES, SIDES

WOMEN_OVER_MEN: Final[Mapping[str, float]] = {
    "multifidus": 0.726,
    "erector_spinae": 0.73,
    "psoas": 0.661,
    "quadratus_lumborum": 0.73,
}
"""Muscle areas of the generic woman (1.63 m) over those of the generic man (1.75 m), as in the shipped base models
(models/musculoskeletal/sex_ratios.csv, with the sources)."""

POOLED_AREA_CM2: Final[Mapping[str, tuple[float | None, ...]]] = {
    "multifidus": (9.8, 9.3, 6.7, 3.8, 2.8, None),
    "erector_spinae": (5.0, 12.0, 16.0, 19.0, 19.7, None),
    "psoas": (15.7, 17.6, 14.7, 10.1, 4.2, None),
    "quadratus_lumborum": (None, None, 6.8, 5.0, 3.4, None),
}
"""Area of one side at L5-S1, L4-L5, L3-L4, L2-L3, L1-L2, T12-L1 of adults without back pain, both sexes pooled.
Psoas, quadratus lumborum and the sum of erector spinae and multifidus at L1-L4: 30 controls, Med Sci Monit
951651, table 2; multifidus, and erector spinae at L4-S1: two subjects of the MyoSegmenTUM data (Burian et al. 2019).
Rough below L4."""

RATIO_LIMITS: Final = (0.3, 2.0)
"""Subject's over typical area; outside it the area is doubted, and the ratio is held at the limit and flagged."""


@dataclass(frozen=True, eq=False)
class Strength:
    """Strength of many subjects relative to the base model."""

    ratio: Floats
    """[subject, fascicle], 1 where nothing was measured."""
    measured: Flags
    """[subject] whether any muscle was measured."""
    incomplete: Flags
    """[subject] some muscle of some side was measured, another was not."""
    clipped: Flags
    """[subject] some ratio was held at a limit, or an area that is not positive was left out."""


def typical_area_cm2(sex: str) -> Floats:
    """Area [muscle, disc] of one side of a typical man (M) or woman (F), NaN where a muscle is not measured.

    The pooled table is split so that the mean of both sexes is the pooled value and their ratio is `WOMEN_OVER_MEN`.
    """
    women_over_men = np.array([[WOMEN_OVER_MEN[muscle]] for muscle in MUSCLES])
    men = 2.0 / (1.0 + women_over_men)
    pooled = np.array([POOLED_AREA_CM2[muscle] for muscle in MUSCLES], dtype=np.float64)
    return np.asarray(pooled * (men if sex == "M" else men * women_over_men))


def measure_strength(base: BaseModel, subjects: Sequence[LoadingSubject]) -> Strength:
    """Strength ratios of all fascicles; muscles that are not measured (abdominal wall) keep the base model's
    strength."""
    relative = np.array([_relative_area(subject) for subject in subjects])
    flat = relative.reshape(len(subjects), -1, len(DISCS))
    groups = np.array([_group(muscle, side) for muscle, side in zip(base.muscle, base.side, strict=True)])
    known = groups >= 0
    ratio = np.ones((len(subjects), len(base.fascicles)))
    spanned = np.where(base.spans[known][None], flat[:, groups[known]], np.nan)
    ratio[:, known] = _mean_or_one(spanned)
    limited = np.clip(ratio, *RATIO_LIMITS)
    seen = ~np.isnan(flat).all(axis=2)
    impossible = np.array([any(area <= 0.0 for area in subject.csa_cm2.values()) for subject in subjects], dtype=bool)
    return Strength(
        ratio=limited,
        measured=seen.any(axis=1),
        incomplete=seen.any(axis=1) & ~seen.all(axis=1),
        clipped=np.asarray((limited != ratio).any(axis=1) | impossible),
    )


def _relative_area(subject: LoadingSubject) -> Floats:
    """Subject's over typical area [muscle, side, disc], NaN where unknown; an area of 0 or less is no measurement."""
    typical = typical_area_cm2(subject.sex)
    area = np.array(
        [[[subject.csa_cm2.get((m, s, disc), np.nan) for disc in DISCS] for s in SIDES] for m in MUSCLES],
        dtype=np.float64,
    )
    return np.asarray(np.where(area > 0.0, area, np.nan) / typical[:, None, :])


def _group(muscle: str | None, side: str) -> int:
    return -1 if muscle is None else MUSCLES.index(muscle) * len(SIDES) + SIDES.index(side)


def _mean_or_one(values: Floats) -> Floats:
    """Mean over the last axis without NaN; 1 where all are NaN."""
    count = (~np.isnan(values)).sum(axis=-1)
    total = np.nansum(values, axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), 1.0)
