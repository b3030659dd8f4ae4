"""Name vertebrae and discs from the sacrum upward, or say that it cannot be decided.

Three questions, each with its own probability: which piece is S1 (`sacrum`), how many lumbar vertebrae there are
(`vertebral_count`), and whether bodies were lost on the way up. Their product is the confidence of a name. A name that
is wrong by one is worse than none: below `UNDECIDED` nothing is named (`levels_undecided`), and a missing body ends the
names there. Only names of at least `CONFIDENT` should be used without a look at the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np

from cohort.anatomy.instances import Piece
from cohort.anatomy.quality import Flag, check
from cohort.anatomy.sacrum import Sacrum
from cohort.anatomy.spine_chain import spacings_mm, usual_spacing_mm
from cohort.anatomy.vertebral_count import Count
from cohort.terms import disc_name

CONFIDENT: Final = 0.95
"""Names from here on may be used without a look. More than the share of people with five lumbar vertebrae (0.924), so
that a count from the sacrum alone never reaches it."""
LOW_CONFIDENCE: Final = 0.8
UNDECIDED: Final = 0.6
"""A name must be clearly more probable than all others together. Own choice."""
STEP_CONFIDENCE: Final = 0.997
"""Each body counted may be two or none. TotalSegmentator mixes neighbours in 1-2 % of its cases (its issue 291), over
five to ten vertebrae each."""
CONFLICT_FACTOR: Final = 0.7
"""Confidence left where the axial slices contradict the discs; own choice, so that no name stays `CONFIDENT`."""
USUAL_STEP: Final = (0.6, 1.5)
"""Distances of this many median distances neither hide a body nor lie between the parts of one: neighbours differ by at
most 1.3 (T11-T12 31 mm, L4-L5 40 mm), and a body crushed to half its height takes 0.7."""
MIN_NAMED: Final = 3
"""S1 and bodies above it that a count needs. One or two pieces lack what tells S1 from any other body (the tilt, depths
and discs of its neighbours): a lone lumbar body with nothing below it would pass for S1. Own choice."""
RIVAL_SHARE: Final = 0.5
"""Of two discs between the same bodies the larger one is named if the other has less of its volume: a fragment. Else
nobody knows which is the disc. Own choice."""
VARIANT_DISC_SHARE: Final = 0.6
"""A disc below S1 of this share of the median lumbar disc volume is no rudiment (S1-S2 rudiments: 2-5 mm high); in
lumbarisation all patients have a well-formed S1-S2 disc (Tokgoz et al. 2014)."""
VARIANT_PROBABILITY: Final = 0.2
"""Probability of another number than five from which the exam is flagged, and of another piece as S1. Own choice."""


@dataclass(frozen=True)
class Named:
    """One body or disc with its place in the count."""

    index: int
    """Into the pieces it was named from."""
    ordinal: int
    level: str | None
    confidence: float

    def called(self, kind: str) -> str:
        """What flags call it: its name, or `kind` (body or disc) and its place."""
        return self.level or f"{kind}-{self.ordinal}"


@dataclass(frozen=True)
class Levels:
    """Bodies and discs that get rows, from caudal to cranial, and the doubts about their names."""

    bodies: tuple[Named, ...]
    discs: tuple[Named, ...]
    flags: tuple[Flag, ...]
    evidence: str
    """Words of a closed vocabulary, each with + (supports the names) or - (speaks against them)."""


def name_levels(
    bodies: Sequence[Piece], discs: Sequence[Piece], sacrum: Sacrum, count: Count, conflicts: Sequence[Flag] = ()
) -> Levels:
    """Name bodies and discs.

    Parameters
    ----------
    bodies, discs : pieces from caudal to cranial
    sacrum : which of `bodies` is S1
    count : how many vertebrae there are
    conflicts : what the axial slices have against it
    """
    s1 = sacrum.s1
    first = _lowest_kept(bodies, sacrum)
    kept = list(range(first, len(bodies)))
    confidence = 0.0
    if s1 is not None and len(bodies) - s1 >= MIN_NAMED and _regular(bodies[s1:])[0]:
        confidence = sacrum.probability[s1] * count.confidence * CONFLICT_FACTOR ** len(conflicts)
    flags = [*conflicts]
    if s1 is None or confidence < UNDECIDED:
        flags.append(Flag("levels_undecided", None, confidence, UNDECIDED))
        start = 0 if s1 is not None and first == s1 else 1
        named = [Named(index, start + i, None, 0.0) for i, index in enumerate(kept)]
    else:
        if confidence < LOW_CONFIDENCE:
            flags.append(Flag("levels_low_confidence", None, confidence, LOW_CONFIDENCE))
        kept = kept[s1 - first :]
        named = _count_up(bodies, kept, confidence, count)
    flags += _spacing_flags(bodies, named)
    named_discs, disc_flags = _name_discs(bodies, discs, named, count)
    variant = _variant_flags(sacrum, count)
    return Levels(
        tuple(named), tuple(named_discs), (*flags, *variant, *disc_flags), _evidence(sacrum, count, conflicts)
    )


def disc_doubts(levels: Levels, disc_flags: Sequence[Flag]) -> dict[str, list[Flag]]:
    """Name of a disc -> doubts about what is read there: about the name, and the plane of a disc that is refused."""
    of_names = [flag for flag in levels.flags if flag.structure is None]
    of_discs = [replace(flag, refused=False) for flag in disc_flags if flag.refused]
    return {
        (name := disc.called("disc")): [
            *(of_names if disc.level else []),
            *(flag for flag in of_discs if flag.structure == name),
        ]
        for disc in levels.discs
    }


def _lowest_kept(bodies: Sequence[Piece], sacrum: Sacrum) -> int:
    """Index of the lowest piece that may be S1 or a body above it."""
    if sacrum.s1 is None:
        mobile = [i for i, body in enumerate(bodies) if body.sacral_share <= 0.5]
        return mobile[0] if mobile else 0
    possible = [i for i, probability in enumerate(sacrum.probability) if probability >= VARIANT_PROBABILITY]
    return min([*possible, sacrum.s1])


def _regular(bodies: Sequence[Piece]) -> list[bool]:
    """Of each step between neighbours: is it of a length that hides no body and divides none?

    The highest piece is often cut by the border, and its centre lower than the body's: it may be as near as it likes.
    """
    usual = usual_spacing_mm(bodies, least=3)
    low, high = (share * usual for share in USUAL_STEP)
    spacings = spacings_mm(bodies)
    return [low <= one <= high for one in spacings[:-1]] + [one <= high for one in spacings[-1:]]


def _count_up(bodies: Sequence[Piece], kept: Sequence[int], confidence: float, count: Count) -> list[Named]:
    regular = [True, *_regular([bodies[i] for i in kept])]
    named: list[Named] = []
    for ordinal, index in enumerate(kept):
        level = count.name(ordinal) if all(regular[: ordinal + 1]) else None
        named.append(Named(index, ordinal, level, confidence * STEP_CONFIDENCE**ordinal if level else 0.0))
    return named


def _spacing_flags(bodies: Sequence[Piece], named: Sequence[Named]) -> list[Flag]:
    pieces = [bodies[one.index] for one in named]
    steps = [
        disc_name(above.level, below.level) if above.level and below.level else f"disc-{below.ordinal + 1}"
        for below, above in pairwise(named)
    ]
    flags = [
        flag for step, mm in zip(steps, spacings_mm(pieces), strict=True) for flag in check("body_spacing_mm", mm, step)
    ]
    wrong = _regular(pieces).count(False)
    return [*flags, Flag("count_mismatch", "vertebral_body", float(wrong), 0.0)] if wrong else flags


def _name_discs(
    bodies: Sequence[Piece], discs: Sequence[Piece], named: Sequence[Named], count: Count
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
        rivals = [discs[i].volume_cm3 for i, other in enumerate(gap_of) if other == gap and i != largest]
        only = index == largest and max(rivals, default=0.0) < RIVAL_SHARE * discs[index].volume_cm3
        level, confidence = _disc_level(named, gap, count) if only else (None, 0.0)
        result.append(Named(index, ordinal, level, confidence))
    return result, [*_disc_count_flags(named, gap_of), *_sacral_disc_flags(discs, gap_of, has_s1=has_s1)]


def _disc_level(named: Sequence[Named], gap: int, count: Count) -> tuple[str | None, float]:
    """Name of the disc above the `gap` lowest bodies; above the highest body by counting on."""
    if gap == 0 or named[gap - 1].level is None:
        return None, 0.0
    below = named[gap - 1]
    if gap == len(named):
        return count.disc(below.ordinal), below.confidence * STEP_CONFIDENCE
    above = named[gap]
    return (count.disc(below.ordinal), above.confidence) if above.level else (None, 0.0)


def _disc_count_flags(named: Sequence[Named], gap_of: Sequence[int]) -> list[Flag]:
    """Between two neighbouring bodies lies exactly one disc."""
    if not gap_of:
        return []
    wrong = sum(gap_of.count(gap) != 1 for gap in range(1, len(named)))
    return [Flag("count_mismatch", "disc", float(wrong), 0.0)] if wrong else []


def _sacral_disc_flags(discs: Sequence[Piece], gap_of: Sequence[int], *, has_s1: bool) -> list[Flag]:
    usual = [disc.volume_cm3 for disc, gap in zip(discs, gap_of, strict=True) if gap > 0]
    below = [disc.volume_cm3 for disc, gap in zip(discs, gap_of, strict=True) if gap == 0]
    if not has_s1 or not usual or not below:
        return []
    share = max(below) / float(np.median(usual))
    return [Flag("lumbar_variant", "S1-S2", share, VARIANT_DISC_SHARE)] if share > VARIANT_DISC_SHARE else []


def _variant_flags(sacrum: Sacrum, count: Count) -> list[Flag]:
    """Another number than five, likely or known, or a body that may as well belong to the sacrum."""
    other = 1 - count.confidence if count.n_lumbar == 5 else count.confidence
    flags = [Flag("lumbar_variant", None, other, VARIANT_PROBABILITY)] if other > VARIANT_PROBABILITY else []
    if sacrum.s1 is None:
        return flags
    second = max((p for i, p in enumerate(sacrum.probability) if i != sacrum.s1), default=0.0)
    return (
        [*flags, Flag("lumbar_variant", "S1", second, VARIANT_PROBABILITY)] if second > VARIANT_PROBABILITY else flags
    )


def _evidence(sacrum: Sacrum, count: Count, conflicts: Sequence[Flag]) -> str:
    words = [f"+{word}" for word in sacrum.supporting] + [f"-{word}" for word in sacrum.contradicting]
    return " ".join([*words, f"+count_{count.source}", *("-axial" for _ in conflicts[:1])])
