"""Structures that are larger or smaller than their neighbours by more than anatomy allows.

People differ in size, but neighbours in one person are alike: a mask that has swallowed or lost half a structure is
seen against them even where its size would be normal in somebody else. Every comparison is with the geometric mean of
the neighbours, so that twice and half count alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from cohort.anatomy.quality import Flag, check, marked
from cohort.geometry import StackGeometry
from cohort.rows import DiscRow, MuscleRow, VertebraRow

MIN_CSA_CM2 = 1.0
"""Smaller areas are where a muscle begins or ends, and change quickly."""
MAX_GAP_MM = 10.0
"""Slices farther apart are no neighbours."""

Row = TypeVar("Row", VertebraRow, DiscRow)


def marked_vertebrae(rows: Sequence[VertebraRow]) -> tuple[list[VertebraRow], list[Flag]]:
    """Vertebrae with `size_jump` where their volume does not fit, and the flags.

    S1 is no box and cut bodies are not whole: they are neither judged nor compared with. Where a body reaches the first
    or last slice, volume per slice is compared instead."""
    found = {}
    for group in _groups([row for row in rows if row.level != "S1"]):
        sizes = [row.volume_cm3 if _complete(group) else row.volume_cm3 / row.slices_seen for row in group]
        found[group[0].ordinal] = check("body_size_ratio", _ratio(sizes), _name("body", group[0]))
    return _marked(rows, found)


def marked_discs(rows: Sequence[DiscRow]) -> tuple[list[DiscRow], list[Flag]]:
    """Discs with `size_jump` where footprint or height does not fit, and the flags.

    A narrow disc is common and keeps its footprint, so only a disc much higher than both neighbours is flagged."""
    found = {}
    for group in _groups([row for row in rows if row.height_mm and row.mean_height_mm]):
        heights = [row.height_mm or 0.0 for row in group]
        prints = [row.volume_cm3 / (row.mean_height_mm or 1.0) for row in group] if _complete(group) else []
        higher = heights[0] / max(heights[1:]) if len(group) == 3 else None
        name = _name("disc", group[0])
        found[group[0].ordinal] = [
            *check("disc_size_ratio", _ratio(prints), name),
            *check("disc_height_ratio", higher, name),
        ]
    return _marked(rows, found)


def muscle_jumps(rows: Sequence[MuscleRow], geometry: StackGeometry) -> dict[int, Flag]:
    """Index of a row -> `size_jump` where its area does not fit the slices before and behind.

    Parameters
    ----------
    rows : of one stack
    """
    place = {(row.muscle, row.side, row.slice): i for i, row in enumerate(rows)}
    found = {}
    for i, row in enumerate(rows):
        beside = [place.get((row.muscle, row.side, row.slice + step)) for step in (-1, 1)]
        areas = [row.csa_cm2, *(rows[k].csa_cm2 for k in beside if k is not None)]
        sizes = [area for area in areas if area]
        if len(sizes) < 3 or _span_mm(geometry, row.slice) > 2 * MAX_GAP_MM:
            continue
        if np.sqrt(sizes[1] * sizes[2]) >= MIN_CSA_CM2:
            for flag in check("muscle_slice_ratio", _ratio(sizes), slice_name(row)):
                found[i] = flag
    return found


def muscle_gaps(rows: Sequence[MuscleRow], geometry: StackGeometry) -> list[Flag]:
    """`muscle_gap` for each muscle and side that slices before and behind show and a slice between them does not, and
    one for the slices between others that show no muscle at all.

    The value is the number of slices. Slices are neighbours within `MAX_GAP_MM`.

    Parameters
    ----------
    rows : of one stack
    """
    shown: dict[str, set[int]] = {}
    for row in rows:
        shown.setdefault(f"{row.muscle} {row.side} stack {row.stack}", set()).add(row.slice)
    whole = set().union(*shown.values())
    empty = _between(whole, geometry)
    missing = {name: _between(slices, geometry) - empty for name, slices in shown.items()}
    if rows:
        missing = {f"axial stack {rows[0].stack}": empty, **missing}
    return [Flag("muscle_gap", name, float(len(slices)), 0.0) for name, slices in missing.items() if slices]


def _between(slices: set[int], geometry: StackGeometry) -> set[int]:
    """Slices that are not among `slices` but lie between them."""
    inner = set(range(min(slices), max(slices))) - slices if slices else set()
    return {k for k in inner if _span_mm(geometry, k) <= 2 * MAX_GAP_MM}


def slice_name(row: MuscleRow) -> str:
    """How flags call a muscle on one slice."""
    return f"{row.muscle} {row.side} stack {row.stack} slice {row.slice}"


def _span_mm(geometry: StackGeometry, k: int) -> float:
    """From the slice before `k` to the slice behind it."""
    at = geometry.slice_distance_mm
    return float(abs(at[min(k + 1, len(at) - 1)] - at[max(k - 1, 0)]))


def _groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Each whole structure, followed by those of its two neighbours that are whole."""
    whole: dict[int, Row] = {row.ordinal: row for row in rows if not row.touches_border}
    groups: list[list[Row]] = []
    for row in whole.values():
        groups.append([row])
        groups[-1] += [whole[k] for k in (row.ordinal - 1, row.ordinal + 1) if k in whole]
    return groups


def _complete(group: Sequence[Row]) -> bool:
    return not any("outermost_slice" in (row.reasons or "") for row in group)


def _name(kind: str, row: Row) -> str:
    return row.level or f"{kind}-{row.ordinal}"


def _ratio(sizes: Sequence[float]) -> float | None:
    """Of the first size to the geometric mean of the others; None where there are none."""
    if len(sizes) < 2 or min(sizes) <= 0:
        return None
    return float(sizes[0] / np.exp(np.mean(np.log(sizes[1:]))))


def _marked(rows: Sequence[Row], found: Mapping[int, Sequence[Flag]]) -> tuple[list[Row], list[Flag]]:
    flags = [flag for row in rows for flag in found.get(row.ordinal, ())]
    return [marked(row, found.get(row.ordinal, ())) for row in rows], flags
