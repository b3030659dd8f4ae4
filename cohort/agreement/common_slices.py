"""The masks of two readers on the slices that both looked at.

A slice that a reader did not look at is unknown, not empty. So sagittal stacks are cut down to the slices that both
looked at, and axial ones to every run of neighbouring ones: a run is a stack of its own, because the nearest slice to a
disc may be no farther away than in a whole stack. Both readers' masks lie on the same slices, whatever is then done
with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cohort.annotations.store import Annotation, Masked
from cohort.geometry import Floats
from cohort.stacks import ImageStack, LabelledStack, Labels

NAMES: Mapping[str, tuple[str, ...]] = {"sagittal": ("vertebral_body", "disc"), "axial": ("muscle",)}
"""Plane -> label arrays of its stacks."""


@dataclass(frozen=True, eq=False)
class CommonStack:
    """Slices of one stack with the masks of two readers."""

    first: LabelledStack
    second: LabelledStack
    first_levels: Mapping[str, Labels]
    """Label array -> [slice, row, column] names that the reader gave, values as `Annotation.levels`; may be empty."""
    second_levels: Mapping[str, Labels]
    position: tuple[float, ...]
    """Of each slice, 0 to 1: `OverlapRow.slice_position`."""


def automatic_reading(exam_id: str, reader: str, labelled: Sequence[LabelledStack]) -> Annotation:
    """Masks of the networks as those of a reader who looked at every slice and named no levels."""
    slices: dict[Masked, tuple[int, ...]] = {
        (one.stack.plane, one.stack.index, name): tuple(range(one.stack.geometry.n_slices))
        for one in labelled
        for name in one.labels
    }
    return Annotation(exam_id, reader, None, "networks", list(labelled), slices, {})


def common_stacks(first: Annotation, second: Annotation) -> list[CommonStack]:
    """Stacks, or runs of slices of them, that both readers looked at; sagittal ones have both arrays of their plane.

    An array that both did not look at on a slice that is there for another array's sake is empty on both sides. Axial
    runs are numbered through, so that (plane, index) is unique.
    """
    others = {(one.stack.plane, one.stack.index): one for one in second.labelled}
    pairs = [(one, others[key]) for one in first.labelled if (key := (one.stack.plane, one.stack.index)) in others]
    heights = _heights_mm([one.stack for one, _ in pairs])
    found: list[CommonStack] = []
    for one, other in pairs:
        stack = one.stack
        seen = {name: _seen_by_both(first, second, stack, name) for name in NAMES[stack.plane]}
        place = _across(stack) if stack.plane == "sagittal" else heights[stack.index]
        for run in _runs(stack, sorted(set().union(*seen.values()))):
            index = stack.index if stack.plane == "sagittal" else len(found)
            a, b = (_cut(reading, run, seen, index) for reading in (one, other))
            names, other_names = (_levels(reading, stack, run) for reading in (first, second))
            found.append(CommonStack(a, b, names, other_names, tuple(float(place[k]) for k in run)))
    return found


def _seen_by_both(first: Annotation, second: Annotation, stack: ImageStack, name: str) -> set[int]:
    key: Masked = (stack.plane, stack.index, name)
    return set(first.slices.get(key, ())) & set(second.slices.get(key, ()))


def _runs(stack: ImageStack, slices: Sequence[int]) -> list[list[int]]:
    """All slices of a sagittal stack; of an axial one, neighbours together."""
    if not slices:
        return []
    if stack.plane == "sagittal":
        return [list(slices)]
    breaks = np.flatnonzero(np.diff(slices) > 1) + 1
    return [part.tolist() for part in np.split(np.asarray(slices), breaks)]


def _cut(one: LabelledStack, run: Sequence[int], seen: Mapping[str, set[int]], index: int) -> LabelledStack:
    stack, at = one.stack, list(run)
    geometry = replace(stack.geometry, position_mm=stack.geometry.position_mm[at])
    labels = {}
    for name, slices in seen.items():
        mask = one.labels[name][at] if name in one.labels else np.zeros(stack.image[at].shape, np.uint8)
        mask = np.where(np.isin(at, sorted(slices))[:, None, None], mask, 0).astype(np.uint8)
        labels[name] = mask
    return LabelledStack(replace(stack, index=index, image=stack.image[at], geometry=geometry), labels, {})


def _levels(reading: Annotation, stack: ImageStack, run: Sequence[int]) -> dict[str, Labels]:
    keys: dict[str, Masked] = {name: (stack.plane, stack.index, name) for name in NAMES[stack.plane]}
    return {name: reading.levels[key][list(run)] for name, key in keys.items() if key in reading.levels}


def _across(stack: ImageStack) -> Floats:
    """[slice] 0 to 1 from the patient's left to the right end of a sagittal stack."""
    return _share(-stack.geometry.slice_distance_mm * np.sign(stack.geometry.normal[0]))


def _heights_mm(stacks: Sequence[ImageStack]) -> dict[int, Floats]:
    """Index of an axial stack -> [slice] 0 to 1 from the lowest to the highest slice of all, by their middle."""
    axial = [stack for stack in stacks if stack.plane == "axial"]
    middle = {
        stack.index: np.array([stack.geometry.to_lps([k, *((n - 1) / 2 for n in stack.geometry.shape)])[2]
                               for k in range(stack.geometry.n_slices)])
        for stack in axial
    }  # fmt: skip
    if not middle:
        return {}
    share = _share(np.concatenate(list(middle.values())))
    ends = np.cumsum([len(part) for part in middle.values()])[:-1]
    return dict(zip(middle, np.split(share, ends), strict=True))


def _share(values: Floats) -> Floats:
    """0 to 1 from the least to the largest value; one half where there is but one."""
    spread = np.ptp(values)
    return (values - values.min()) / spread if spread > 0 else np.full(len(values), 0.5)
