"""Name vertebrae and discs from the sacrum upward, or say that it cannot be decided.

The only landmark is the sacrum: the uppermost piece that the network called sacral is S1, the next is L5, and so on by
counting. Six bodies above S1 are therefore L5 to T12, never L6: a sixth lumbar vertebra, a thirteenth rib or a
sacralised L5 cannot be told from a sagittal count alone, and a name that is wrong by one is worse than none.
Conflicting evidence gives no names at all (`levels_undecided`), and a missing body ends the names there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from cohort.anatomy.instances import Piece
from cohort.anatomy.quality import Flag, check
from cohort.terms import disc_name

COUNTED = ("S1", "L5", "L4", "L3", "L2", "L1", "T12", "T11", "T10", "T9", "T8")
"""Names from caudal to cranial without variants."""

BASE_CONFIDENCE = 0.95
"""Never certain: lumbosacral transitional vertebrae, which counting may misname, are seen in 4-30 % of people,
depending on their definition (Konin & Walz, AJNR 2010). The number itself is an own choice."""
STEP_CONFIDENCE = 0.99
"""Each body counted may be two or none: neighbouring vertebrae are mixed in 1-2 % of cases (TotalSegmentator issue
291)."""
SACRAL_TILT_DEG = (12.0, 72.0)
"""Supine lumbosacral angle 44.5 +- 9.9 degrees, range 18-71 (n = 274), widened by the reading error."""
LOW_CONFIDENCE = 0.7
UNDECIDED_CONFIDENCE = 0.4
MISSING_BODY_SPACING = 1.5
"""A distance of this many median distances hides a body: neighbours differ by at most 1.3 (T11-T12 31 mm, L4-L5 40
mm)."""
VARIANT_DISC_SHARE = 0.6
"""A disc below S1 of this share of the median lumbar disc volume is no rudiment (S1-S2 rudiments: 2-5 mm high)."""
MIN_S1_SHARE = 0.25
"""A sacral piece smaller than this share of the body above it is a corner of the field of view or a misclassified
rim."""


@dataclass(frozen=True)
class Named:
    """One body or disc with its place in the count."""

    index: int
    """Into the pieces it was named from."""
    ordinal: int
    level: str | None
    confidence: float


@dataclass(frozen=True)
class Levels:
    """Bodies and discs that get rows, from caudal to cranial, and the doubts about their names."""

    bodies: tuple[Named, ...]
    discs: tuple[Named, ...]
    flags: tuple[Flag, ...]


def name_levels(bodies: Sequence[Piece], discs: Sequence[Piece], tilts_deg: Sequence[float | None]) -> Levels:
    """Name bodies and discs.

    Parameters
    ----------
    bodies, discs : pieces from caudal to cranial
    tilts_deg : tilt of the superior endplate of each body, anterior lower positive; None where not measured
    """
    s1 = _uppermost_sacral(bodies)
    conflict = s1 is None or _conflict(bodies, s1)
    first = 0 if s1 is None else _lowest_kept(bodies, s1)
    kept = list(range(first, len(bodies)))
    confidence = 0.0 if conflict or s1 is None else _sacral_confidence(bodies, discs, tilts_deg, s1)
    flags = _spacing_flags([bodies[i] for i in kept])
    if confidence < UNDECIDED_CONFIDENCE:
        flags.append(Flag("levels_undecided", None, confidence, UNDECIDED_CONFIDENCE))
        start = 0 if s1 is not None and first == s1 else 1
        named = [Named(index, start + i, None, 0.0) for i, index in enumerate(kept)]
    else:
        if confidence < LOW_CONFIDENCE:
            flags.append(Flag("levels_low_confidence", None, confidence, LOW_CONFIDENCE))
        named = _count_up(bodies, kept, confidence)
    named_discs, disc_flags = _name_discs(bodies, discs, named)
    return Levels(tuple(named), tuple(named_discs), (*flags, *disc_flags))


def _uppermost_sacral(bodies: Sequence[Piece]) -> int | None:
    sacral = [i for i, body in enumerate(bodies) if body.sacral_share > 0.5]
    return sacral[-1] if sacral else None


def _conflict(bodies: Sequence[Piece], s1: int) -> bool:
    """Lumbar pieces below S1, a rim instead of S1, or a body missing right above it."""
    if any(body.sacral_share <= 0.5 for body in bodies[:s1]):
        return True
    above = bodies[s1 + 1 :]
    if above and bodies[s1].volume_cm3 < MIN_S1_SHARE * above[0].volume_cm3:
        return True
    return bool(above) and _spacings(bodies[s1:])[0] > MISSING_BODY_SPACING * _usual_spacing(bodies[s1:])


def _lowest_kept(bodies: Sequence[Piece], s1: int) -> int:
    """S1, or the lowest lumbar piece where one lies below it."""
    lumbar = [i for i, body in enumerate(bodies[:s1]) if body.sacral_share <= 0.5]
    return lumbar[0] if lumbar else s1


def _spacings(bodies: Sequence[Piece]) -> list[float]:
    return [
        float(np.linalg.norm(np.subtract(upper.centroid_mm, lower.centroid_mm))) for lower, upper in pairwise(bodies)
    ]


def _usual_spacing(bodies: Sequence[Piece]) -> float:
    spacings = _spacings(bodies)
    return float(np.median(spacings)) if len(spacings) > 2 else 33.0


def _sacral_confidence(
    bodies: Sequence[Piece], discs: Sequence[Piece], tilts_deg: Sequence[float | None], s1: int
) -> float:
    """Product of the evidence that the piece is S1; factors are own choices, not fitted to data."""
    confidence = BASE_CONFIDENCE * min(bodies[s1].sacral_share / 0.9, 1.0)
    tilt = tilts_deg[s1]
    if tilt is None or not SACRAL_TILT_DEG[0] <= tilt <= SACRAL_TILT_DEG[1]:
        confidence *= 0.7
    if len(bodies) < s1 + 3:
        confidence *= 0.8
    if s1 + 1 < len(bodies):
        above = bodies[s1 + 1]
        confidence *= min((1 - above.sacral_share) / 0.9, 1.0)
        tilt_above = tilts_deg[s1 + 1]
        if tilt is not None and tilt_above is not None and tilt < tilt_above - 5:
            confidence *= 0.7
        if not any(bodies[s1].arc_mm < disc.arc_mm < above.arc_mm for disc in discs):
            confidence *= 0.9
    return confidence


def _count_up(bodies: Sequence[Piece], kept: Sequence[int], confidence: float) -> list[Named]:
    spacings = [0.0, *_spacings([bodies[i] for i in kept])]
    usual = _usual_spacing([bodies[i] for i in kept])
    named: list[Named] = []
    known = True
    for ordinal, (index, spacing) in enumerate(zip(kept, spacings, strict=True)):
        known = known and spacing <= MISSING_BODY_SPACING * usual and ordinal < len(COUNTED)
        level = COUNTED[ordinal] if known else None
        named.append(Named(index, ordinal, level, confidence * STEP_CONFIDENCE**ordinal if known else 0.0))
    return named


def _spacing_flags(bodies: Sequence[Piece]) -> list[Flag]:
    flags = [flag for spacing in _spacings(bodies) for flag in check("body_spacing_mm", spacing, None)]
    usual = _usual_spacing(bodies) if len(bodies) > 1 else 0.0
    missing = sum(spacing > MISSING_BODY_SPACING * usual for spacing in _spacings(bodies))
    return [*flags, Flag("count_mismatch", "vertebral_body", float(missing), 0.0)] if missing else flags


def _name_discs(
    bodies: Sequence[Piece], discs: Sequence[Piece], named: Sequence[Named]
) -> tuple[list[Named], list[Flag]]:
    arcs = [bodies[one.index].arc_mm for one in named]
    has_s1 = bool(named) and named[0].ordinal == 0
    gap_of = [int(np.searchsorted(arcs, disc.arc_mm)) for disc in discs]  # bodies below the disc
    result: list[Named] = []
    for index, gap in enumerate(gap_of):
        if has_s1 and gap == 0:
            continue  # inside the sacrum
        ordinal = max(gap if has_s1 else 1, result[-1].ordinal + 1 if result else 1)
        largest = max((i for i, other in enumerate(gap_of) if other == gap), key=lambda i: discs[i].volume_cm3)
        level, confidence = _disc_level(named, gap) if index == largest else (None, 0.0)
        result.append(Named(index, ordinal, level, confidence))
    return result, [*_disc_count_flags(named, gap_of), *_variant_flags(discs, gap_of, has_s1=has_s1)]


def _disc_level(named: Sequence[Named], gap: int) -> tuple[str | None, float]:
    """Name of the disc above the `gap` lowest bodies; above the highest body by counting on."""
    if gap == 0:
        return None, 0.0
    below = named[gap - 1]
    if below.level is None:
        return None, 0.0
    if gap < len(named):
        above = named[gap].level
        confidence = min(below.confidence, named[gap].confidence)
    else:
        place = COUNTED.index(below.level) + 1
        above = COUNTED[place] if place < len(COUNTED) else None
        confidence = below.confidence * STEP_CONFIDENCE
    return (disc_name(above, below.level), confidence) if above else (None, 0.0)


def _disc_count_flags(named: Sequence[Named], gap_of: Sequence[int]) -> list[Flag]:
    """Between two neighbouring bodies lies exactly one disc."""
    if not gap_of:
        return []
    wrong = sum(gap_of.count(gap) != 1 for gap in range(1, len(named)))
    return [Flag("count_mismatch", "disc", float(wrong), 0.0)] if wrong else []


def _variant_flags(discs: Sequence[Piece], gap_of: Sequence[int], *, has_s1: bool) -> list[Flag]:
    usual = [disc.volume_cm3 for disc, gap in zip(discs, gap_of, strict=True) if gap > 0]
    below = [disc.volume_cm3 for disc, gap in zip(discs, gap_of, strict=True) if gap == 0]
    if not has_s1 or not usual or not below:
        return []
    share = max(below) / float(np.median(usual))
    return [Flag("lumbar_variant", "S1-S2", share, VARIANT_DISC_SHARE)] if share > VARIANT_DISC_SHARE else []
