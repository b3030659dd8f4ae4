"""Bodies and discs in the masks of two readers: which is which, by overlap and never by name."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from cohort.anatomy.measure import Measurements
from cohort.annotations.store import LEVEL_NAMES
from cohort.rows import DiscRow, VertebraRow
from cohort.stacks import Labels

LEAST_DICE: Final = 0.1
"""Two structures that overlap less are two: neighbours are a whole disc or body apart and do not overlap (own
choice)."""
_REACH_PX: Final = 2
"""What smoothing takes off an edge is a pixel wide."""

Rows = Sequence[VertebraRow | DiscRow]


@dataclass(frozen=True, eq=False)
class Structures:
    """Bodies or discs in the masks of one reader on one stack."""

    instances: Labels
    """[slice, row, column] voxels of the reader's mask: value v is structure v - 1."""
    names: tuple[str | None, ...]
    """Of each structure: as the reader named it, else as its place above the sacrum has it; None where undecided."""
    rows: Rows
    """What was measured of each structure; their `level` is the name that its place above the sacrum gives."""


@dataclass(frozen=True)
class Match:
    """Structures of two readers."""

    both: tuple[tuple[int, int], ...]
    """(of the first, of the second reader)"""
    missed: tuple[int, ...]
    """Of the first reader alone."""
    extra: tuple[int, ...]
    """Of the second reader alone."""
    cut_off: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    """Of the first and of the second reader alone, at the border of the image: people leave out what is not wholly in
    view, and imports do it for them (`cohort.annotations.rules`), so these are neither missed nor extra."""


def structures(found: Measurements, array: str, mask: Labels, levels: Labels | None) -> Structures:
    """Structures of one label array: the instances that were measured, in the voxels of the reader's own mask.

    Parameters
    ----------
    found : what `measure_exam` made of the reader's masks; structure k is its `vertebrae[k]` or `discs[k]`
    array : vertebral_body or disc
    mask : [slice, row, column] as the reader drew it, before holes were filled and edges smoothed
    levels : [slice, row, column] names by the reader, 1 + index into `LEVEL_NAMES`; None where none were given
    """
    rows: Rows = found.vertebrae if array == "vertebral_body" else found.discs
    name = "body_instances" if array == "vertebral_body" else "disc_instances"
    if found.sagittal is None or name not in found.sagittal.labels:
        return Structures(np.zeros_like(mask), (), [])
    instances = _drawn(found.sagittal.labels[name], mask)
    names = tuple(
        (None if levels is None else _given(levels[instances == k])) or row.level for k, row in enumerate(rows, start=1)
    )
    return Structures(instances, names, rows)


def _drawn(instances: Labels, mask: Labels) -> Labels:
    """Measured instances in the voxels of the mask as it was drawn; pieces that are no instance are 0."""
    size = 2 * _REACH_PX + 1
    grown = np.stack([cv2.dilate(plane, np.ones((size, size), np.uint8)) for plane in instances])
    return np.asarray(np.where(mask > 0, np.where(instances > 0, instances, grown), 0), dtype=np.uint8)


def _given(levels: Labels) -> str | None:
    """The name that most voxels of a structure carry; None where none does."""
    counts = np.bincount(levels, minlength=1)[1:]
    return LEVEL_NAMES[int(counts.argmax())] if counts.any() else None


def matched(first: Structures, second: Structures) -> Match:
    """Pair the structures so that their Dice coefficients have the largest sum; pairs below `LEAST_DICE` are none."""
    n, m = len(first.names), len(second.names)
    joint = first.instances.astype(np.int64) * (m + 1) + second.instances
    common = np.bincount(joint.ravel(), minlength=(n + 1) * (m + 1)).reshape(n + 1, m + 1)
    size = common.sum(axis=1)[1:, None] + common.sum(axis=0)[None, 1:]
    dice = 2 * common[1:, 1:] / np.maximum(size, 1)
    both = [(int(i), int(j)) for i, j in zip(*linear_sum_assignment(-dice), strict=True) if dice[i, j] >= LEAST_DICE]
    missed, first_cut = _alone(first, {i for i, _ in both})
    extra, second_cut = _alone(second, {j for _, j in both})
    return Match(tuple(both), missed, extra, (first_cut, second_cut))


def _alone(found: Structures, shared: Set[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Structures without a counterpart: those wholly in view, and those at the border of the image."""
    at_border = set(np.unique(found.instances[:, _border(found.instances.shape[1:])]).tolist())
    alone = [k for k in range(len(found.names)) if k not in shared]
    return tuple(k for k in alone if k + 1 not in at_border), tuple(k for k in alone if k + 1 in at_border)


def _border(shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """[row, column] outermost pixels of a slice."""
    border = np.ones(shape, bool)
    border[1:-1, 1:-1] = False
    return border
