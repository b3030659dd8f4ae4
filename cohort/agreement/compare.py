"""Two readings of one exam, compared: overlap of the masks, and what is measured on them.

A reading is an `Annotation`: what a person drew, or what networks drew (`common_slices.automatic_reading`), of one
version or of two. So the same function compares persons, networks with persons, and two versions of the networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from cohort.agreement.common_slices import NAMES, CommonStack, common_stacks
from cohort.agreement.overlaps import ALL, muscle_overlaps, spine_overlaps
from cohort.agreement.pairs import Matched, muscle_pairs, spine_pairs
from cohort.agreement.rows import OverlapRow, PairRow, Readers
from cohort.agreement.structures import matched, structures
from cohort.anatomy.measure import Measurements
from cohort.annotations.store import Annotation
from cohort.stacks import LabelledStack, Labels

ARRAYS: Final = ("vertebral_body", "disc", "muscle")
"""Label arrays, and kinds of the rows of overlaps."""

Measure = Callable[[Sequence[LabelledStack]], Measurements]
"""Measures the masks of one reader, as stage measure does."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two readings of one exam on the slices that both looked at."""

    pairs: list[PairRow]
    """Without loads: those ask for a person's height and mass."""
    overlaps: list[OverlapRow]
    first: Measurements
    second: Measurements
    no_loads: str | None
    """Why loads of the two are not to be compared: they would be those of two vertebrae (`levels_differ`), or rest on
    masks of one of the readers alone, or of none (`no_common_slices`)."""


def compare(first: Annotation, second: Annotation, measure: Measure, *, subject_id: str | None = None) -> Comparison:
    """Compare two readings of one exam; empty masks and readers without a slice in common give rows with a reason.

    Parameters
    ----------
    first, second : of one exam, on the same stacks
    measure : measures masks of the slices that both looked at; called once for each reading
    subject_id : whose exam it is
    """
    if first.exam_id != second.exam_id:
        raise ValueError("two readings of two exams are not compared")
    who = Readers(exam_id=first.exam_id, subject_id=subject_id, first_reader=first.reader, second_reader=second.reader)
    stacks = common_stacks(first, second)
    sagittal = _fullest([one.first for one in stacks])
    axial = [one for one in stacks if one.first.stack.plane == "axial"]
    overlaps = [*muscle_overlaps(axial, who), *(_nothing_common(array, who) for array in _unseen(first, second))]
    if sagittal is None:
        return _on_one_spine(first, second, axial, overlaps, measure, who)
    spine = next(one for one in stacks if one.first is sagittal)
    ours, theirs = (measure([getattr(one, side) for one in (spine, *axial)]) for side in ("first", "second"))
    bodies, discs = (_matched(spine, array, ours, theirs) for array in ("vertebral_body", "disc"))
    for array, one in (("vertebral_body", bodies), ("disc", discs)):
        overlaps += spine_overlaps(spine, array, one.first, one.second, one.match, who)
    pairs = spine_pairs(ours, theirs, bodies, discs, who) + muscle_pairs(ours, theirs, discs, who)
    no_loads = "no_common_slices" if _unseen(first, second) else "levels_differ" if bodies.misnamed else None
    return Comparison(pairs, overlaps, ours, theirs, no_loads)


def _on_one_spine(
    first: Annotation,
    second: Annotation,
    axial: Sequence[CommonStack],
    overlaps: list[OverlapRow],
    measure: Measure,
    who: Readers,
) -> Comparison:
    """Compare muscles alone, where no sagittal slice was looked at by both: at the discs of one reader (the first if
    there are some), which stand for those of both."""
    spine = _fullest(_with_discs(first)) or _fullest(_with_discs(second))
    borrowed = [replace(spine, labels=_both_arrays(spine))] if spine else []
    ours, theirs = (measure([*borrowed, *(getattr(one, side) for one in axial)]) for side in ("first", "second"))
    pairs = []
    if borrowed:
        discs = structures(ours, "disc", borrowed[0].labels["disc"], None)
        pairs = muscle_pairs(ours, theirs, Matched(discs, discs, matched(discs, discs)), who)
    return Comparison(pairs, overlaps, ours, theirs, "no_common_slices")


def _fullest(labelled: Sequence[LabelledStack]) -> LabelledStack | None:
    """The sagittal stack with most slices, as it is measured."""
    sagittal = [one for one in labelled if one.stack.plane == "sagittal"]
    return max(sagittal, key=lambda one: one.stack.geometry.n_slices, default=None)


def _with_discs(reading: Annotation) -> list[LabelledStack]:
    return [one for one in reading.labelled if "disc" in one.labels and one.labels["disc"].any()]


def _both_arrays(one: LabelledStack) -> dict[str, Labels]:
    empty = np.zeros(one.stack.image.shape, np.uint8)
    return {name: one.labels.get(name, empty) for name in NAMES["sagittal"]}


def _matched(stack: CommonStack, array: str, first: Measurements, second: Measurements) -> Matched:
    ours = structures(first, array, stack.first.labels[array], stack.first_levels.get(array))
    theirs = structures(second, array, stack.second.labels[array], stack.second_levels.get(array))
    return Matched(ours, theirs, matched(ours, theirs))


def _unseen(first: Annotation, second: Annotation) -> list[str]:
    """Label arrays that either reader has, but on no slice that both looked at."""
    either = {name for one in (first, second) for (_, _, name), slices in one.slices.items() if slices}
    common = {key for key in first.slices if set(first.slices[key]) & set(second.slices.get(key, ()))}
    return [array for array in ARRAYS if array in either - {name for _, _, name in common}]


def _nothing_common(array: str, who: Readers) -> OverlapRow:
    return OverlapRow(kind=array, structure=ALL, n_first=0, n_second=0, reason="no_common_slices", **who)
