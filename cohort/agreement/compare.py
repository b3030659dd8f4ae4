"""Two readings of one exam, compared: overlap of the masks, and what is measured on them.

A reading is an `Annotation`: what a person drew, or what networks drew (`common_slices.automatic_reading`), of one
version or of two. So the same function compares persons, networks with persons, and two versions of the networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cohort.agreement.common_slices import CommonStack, common_stacks
from cohort.agreement.overlaps import ALL, muscle_overlaps, spine_overlaps
from cohort.agreement.pairs import Matched, muscle_pairs, spine_pairs
from cohort.agreement.rows import OverlapRow, PairRow, Readers
from cohort.agreement.structures import matched, structures
from cohort.anatomy.measure import Measurements
from cohort.annotations.store import Annotation
from cohort.stacks import LabelledStack

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
    misnamed: bool
    """Whether the two name a vertebra differently."""


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
    sagittal = max(
        (one for one in stacks if one.first.stack.plane == "sagittal"),
        key=lambda one: one.first.stack.geometry.n_slices,
        default=None,
    )
    axial = [one for one in stacks if one.first.stack.plane == "axial"]
    used = [*([sagittal] if sagittal else []), *axial]
    ours, theirs = measure([one.first for one in used]), measure([one.second for one in used])
    overlaps = [*_without_slices(first, second, used, who), *muscle_overlaps(axial, who)]
    if sagittal is None:
        return Comparison([], overlaps, ours, theirs, misnamed=False)
    bodies, discs = (_matched(sagittal, array, ours, theirs) for array in ("vertebral_body", "disc"))
    for array, one in (("vertebral_body", bodies), ("disc", discs)):
        overlaps += spine_overlaps(sagittal, array, one.first, one.second, one.match, who)
    pairs = spine_pairs(ours, theirs, bodies, discs, who) + muscle_pairs(ours, theirs, discs, who)
    return Comparison(pairs, overlaps, ours, theirs, misnamed=bodies.misnamed)


def _matched(stack: CommonStack, array: str, first: Measurements, second: Measurements) -> Matched:
    ours = structures(first, array, stack.first.labels[array], stack.first_levels.get(array))
    theirs = structures(second, array, stack.second.labels[array], stack.second_levels.get(array))
    return Matched(ours, theirs, matched(ours, theirs))


def _without_slices(
    first: Annotation, second: Annotation, used: Sequence[CommonStack], who: Readers
) -> Iterator[OverlapRow]:
    """A row for each label array that either reader has, but on no slice that both looked at."""
    common = {key for key in first.slices if set(first.slices[key]) & set(second.slices.get(key, ()))}
    arrays = {name for one in (first, second) for _, _, name in one.slices}
    planes = {one.first.stack.plane for one in used}
    for array in ARRAYS:
        shared = any(name == array and plane in planes for plane, _, name in common)
        if array in arrays and not shared:
            yield OverlapRow(kind=array, structure=ALL, n_first=0, n_second=0, reason="no_common_slices", **who)
