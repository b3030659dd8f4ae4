"""Overlap of two readers' masks of one exam: rows for each structure, and for each slice of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cohort.agreement.common_slices import CommonStack
from cohort.agreement.rows import OverlapRow, Readers
from cohort.agreement.structures import Match, Structures
from cohort.agreement.surface import Mask, SurfaceDistance, outline, outline_distance
from cohort.geometry import Floats, StackGeometry
from cohort.stacks import Labels
from cohort.terms import MUSCLE_LABELS, MUSCLES, SACRAL_BODY

ALL: Final = "all"
"""Structure of the rows of a whole label array."""
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Part:
    """One structure on one stack."""

    voxels: Counts
    """[slice, (first, second, both)]"""
    outlines: tuple[tuple[Counts, Floats], tuple[Counts, Floats]]
    """Of each reader: [n] slice and [n, 3] place in LPS mm of the points."""
    position: tuple[float, ...]


def _part(first: Mask, second: Mask, geometry: StackGeometry, position: tuple[float, ...]) -> _Part:
    masks = (first, second, first & second)
    return _Part(
        voxels=np.stack([np.count_nonzero(mask, axis=(1, 2)) for mask in masks], axis=1),
        outlines=(_points(first, geometry), _points(second, geometry)),
        position=position,
    )


def _points(mask: Mask, geometry: StackGeometry) -> tuple[Counts, Floats]:
    if not mask.any():
        return np.zeros(0, np.int64), np.zeros((0, 3))
    low = [int(np.flatnonzero(mask.any(axis=axes))[0]) for axes in ((1, 2), (0, 2), (0, 1))]
    high = [int(np.flatnonzero(mask.any(axis=axes))[-1]) + 1 for axes in ((1, 2), (0, 2), (0, 1))]
    at = outline(mask[tuple(slice(*ends) for ends in zip(low, high, strict=True))]) + low
    return at[:, 0], geometry.to_lps(at)


def spine_overlaps(
    stack: CommonStack, array: str, first: Structures, second: Structures, match: Match, who: Readers
) -> Iterator[OverlapRow]:
    """Rows of a sagittal label array: all of it but the sacrum below S1 and what one reader alone has at the border of
    the image, and every body or disc.

    Parameters
    ----------
    array : vertebral_body or disc
    """
    geometry = stack.first.stack.geometry
    masks = (
        _drawn(stack.first.labels[array], first, match.cut_off[0]),
        _drawn(stack.second.labels[array], second, match.cut_off[1]),
    )
    yield from _rows([_part(*masks, geometry, stack.position)], kind=array, structure=ALL, **who)
    places = [*match.both, *((i, None) for i in match.missed), *((None, j) for j in match.extra)]
    for i, j in places:
        level, other = (None if k is None else one.names[k] for one, k in ((first, i), (second, j)))
        named = {"structure": level or other or _unnamed(array, first, i, second, j), "level": level or other}
        masks = (_one(first, i), _one(second, j))
        part = _part(*masks, geometry, stack.position)
        yield from _rows([part], kind=array, second_level=other, **named, **who)
    yield from _cut_off(array, first, second, match, who)


def _cut_off(array: str, first: Structures, second: Structures, match: Match, who: Readers) -> Iterator[OverlapRow]:
    """A row for each structure that one reader alone has at the border of the image."""
    for found, numbers in zip((first, second), match.cut_off, strict=True):
        for k in numbers:
            n = int(np.count_nonzero(_one(found, k)))
            level = found.names[k]
            yield OverlapRow(
                kind=array,
                structure=level or f"{array} {found.rows[k].ordinal}",
                level=level,
                second_level=level if found is second else None,
                n_first=n if found is first else 0,
                n_second=n if found is second else 0,
                reason="structure_cut_off",
                **who,
            )


def _drawn(mask: Labels, found: Structures, cut_off: Sequence[int]) -> Mask:
    """A whole label array without the sacrum below S1, and without some structures: some readers draw these, others do
    not."""
    left_out = np.isin(found.instances, [k + 1 for k in cut_off])
    return np.asarray((mask > 0) & ~((mask == SACRAL_BODY) & (found.instances == 0)) & ~left_out)


def _unnamed(array: str, first: Structures, i: int | None, second: Structures, j: int | None) -> str:
    ordinal = first.rows[i].ordinal if i is not None else second.rows[j or 0].ordinal
    return f"{array} {ordinal}"


def _one(found: Structures, number: int | None) -> Mask:
    return np.zeros(found.instances.shape, bool) if number is None else found.instances == number + 1


def muscle_overlaps(stacks: Sequence[CommonStack], who: Readers) -> Iterator[OverlapRow]:
    """Rows of the muscles of all axial stacks together: all, each muscle, and each muscle of each side."""
    every = tuple(MUSCLE_LABELS.values())
    groups: list[tuple[tuple[int, ...], dict[str, str]]] = [(every, {"structure": ALL})]
    for muscle in MUSCLES:
        sides = {side: value for (name, side), value in MUSCLE_LABELS.items() if name == muscle}
        groups.append((tuple(sides.values()), {"structure": muscle, "muscle": muscle}))
        groups += [
            ((value,), {"structure": f"{muscle} {side}", "muscle": muscle, "side": side})
            for side, value in sides.items()
        ]
    for values, named in groups:
        parts = [_muscle_part(stack, values) for stack in stacks]
        yield from _rows(parts, kind="muscle", **named, **who)


def _muscle_part(stack: CommonStack, values: tuple[int, ...]) -> _Part:
    first, second = (np.isin(one.labels["muscle"], values) for one in (stack.first, stack.second))
    return _part(first, second, stack.first.stack.geometry, stack.position)


def _rows(parts: Sequence[_Part], **named: Any) -> Iterator[OverlapRow]:
    """The structure as a whole, then its slices; nothing where neither reader has it."""
    total = sum(part.voxels.sum(axis=0) for part in parts)
    if not np.any(total):
        return
    n_first, n_second, _ = (int(n) for n in total)
    if not (n_first and n_second):
        reason = "structure_missed" if n_first else "structure_extra"
        yield OverlapRow(**named, n_first=n_first, n_second=n_second, reason=reason)
        return
    whole = outline_distance(*([part.outlines[side][1] for part in parts] for side in (0, 1)))
    yield _row(total, whole, None, named)
    for part in parts:
        for k in np.flatnonzero(part.voxels.any(axis=1)):
            points = [[at_mm[slices == k]] for slices, at_mm in part.outlines]
            yield _row(part.voxels[k], outline_distance(*points), part.position[k], named)


def _row(
    voxels: Counts, distance: SurfaceDistance | None, position: float | None, named: Mapping[str, Any]
) -> OverlapRow:
    n_first, n_second, both = (int(n) for n in voxels)
    return OverlapRow(
        **named,
        slice_position=position,
        dice=2 * both / (n_first + n_second),
        hausdorff95_mm=distance.p95_mm if distance else None,
        surface_mm=distance.mean_mm if distance else None,
        n_first=n_first,
        n_second=n_second,
    )
