"""Muscles at the mid-planes of the discs: which slice, how far, how oblique, and the area corrected for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cohort.anatomy.quality import Flag, area_flags, check, marked
from cohort.geometry import Floats, StackGeometry
from cohort.rows import MuscleLevelRow, MuscleRow
from cohort.terms import MUSCLES

BEYOND_GAP_MM = 5.0
"""The nearest slice may lie one slice distance and this away from the disc's centroid: half a disc's height."""
EXPECTED_MUSCLES: dict[str, frozenset[str]] = {
    "L1-L2": frozenset({"multifidus", "erector_spinae"}),
    "L2-L3": frozenset(MUSCLES),
    "L3-L4": frozenset(MUSCLES),
    "L4-L5": frozenset({"multifidus", "erector_spinae", "psoas"}),
    "L5-S1": frozenset({"multifidus"}),
}
"""Muscles that are there in everybody: psoas begins at L1-L2, quadratus lumborum ends at the iliac crest (L4), erector
spinae thins to its aponeurosis at L5-S1. Elsewhere they may be absent, small and unequal."""


@dataclass(frozen=True, eq=False)
class DiscPlane:
    """Mid-plane of a disc."""

    level: str
    """Disc name, or `disc-<ordinal>` when undecided."""
    centroid_mm: Floats
    """[3] LPS."""
    normal: Floats
    """[3] unit vector."""


@dataclass(frozen=True)
class NearestSlice:
    """Axial slice chosen for a disc."""

    stack: int
    """Index of the stack in the exam store."""
    slice: int
    distance_mm: float
    angle_deg: float
    gap_mm: float


def nearest_slice(disc: DiscPlane, stacks: Sequence[tuple[int, StackGeometry]]) -> NearestSlice | None:
    """Slice nearest to the disc's centroid; None where no slice image covers it.

    Where several stacks pass within half a slice distance of the centroid (one oblique stack per disc beside a
    contiguous one), the least oblique one is taken.

    Parameters
    ----------
    stacks : (index in the exam store, geometry) of axial stacks in the disc's frame of reference
    """
    candidates = [found for index, geometry in stacks if (found := _nearest_in_stack(disc, index, geometry))]
    if not candidates:
        return None
    through = [one for one in candidates if one.distance_mm <= one.gap_mm / 2 + 0.01]
    if through:
        return min(through, key=lambda one: one.angle_deg)
    return min(candidates, key=lambda one: one.distance_mm)


def _nearest_in_stack(disc: DiscPlane, index: int, geometry: StackGeometry) -> NearestSlice | None:
    distance = np.abs((disc.centroid_mm - geometry.position_mm) @ geometry.normal)
    k = int(np.argmin(distance))
    foot = disc.centroid_mm - geometry.position_mm[k]
    row, column = foot @ geometry.col_dir / geometry.spacing_mm[0], foot @ geometry.row_dir / geometry.spacing_mm[1]
    if not (0 <= row < geometry.shape[0] and 0 <= column < geometry.shape[1]):
        return None
    cosine = min(abs(float(disc.normal @ geometry.normal)), 1.0)
    angle = float(np.degrees(np.arccos(cosine)))
    return NearestSlice(index, k, float(distance[k]), angle, abs(geometry.slice_gap_mm))


def muscle_level_rows(
    exam_id: str,
    discs: Sequence[DiscPlane],
    stacks: Sequence[tuple[int, StackGeometry]],
    muscles: Sequence[MuscleRow],
    doubts: Mapping[str, Sequence[Flag]],
) -> tuple[list[MuscleLevelRow], list[Flag]]:
    """Rows of every disc that has an axial slice, and flags.

    A row has the status and reasons of the muscle on its slice.

    Parameters
    ----------
    stacks : axial stacks in the discs' frame of reference
    muscles : judged rows of those stacks
    doubts : level -> flags of the disc and of its name that its rows inherit (and that are not returned)
    """
    rows: list[MuscleLevelRow] = []
    flags: list[Flag] = []
    for disc in discs:
        chosen = nearest_slice(disc, stacks)
        limit = 0.0 if chosen is None else chosen.gap_mm + BEYOND_GAP_MM
        if chosen is None or chosen.distance_mm > limit:
            distance = None if chosen is None else chosen.distance_mm
            flags.append(Flag("no_slice_at_level", disc.level, distance, limit if chosen else None))
            continue
        here = [row for row in muscles if (row.stack, row.slice) == (chosen.stack, chosen.slice)]
        level_rows, level_flags = _rows_at(exam_id, disc.level, chosen, here, doubts.get(disc.level, ()))
        rows += level_rows
        flags += level_flags
    return rows, flags


def _rows_at(
    exam_id: str, level: str, chosen: NearestSlice, here: Sequence[MuscleRow], doubts: Sequence[Flag]
) -> tuple[list[MuscleLevelRow], list[Flag]]:
    oblique = check("slice_angle_deg", chosen.angle_deg, level)
    expected = EXPECTED_MUSCLES.get(level, frozenset())
    asymmetry = {muscle: _asymmetry(level, muscle, here) if muscle in expected else [] for muscle in MUSCLES}
    flags = [*oblique, *(flag for found in asymmetry.values() for flag in found), *_missing(level, here)]
    rows = []
    for muscle in here:
        structure = f"{muscle.muscle} {muscle.side} {level}"
        corrected = (muscle.csa_cm2 or 0.0) * float(np.cos(np.radians(chosen.angle_deg)))
        own = area_flags(muscle.muscle, corrected, structure, small=muscle.muscle in expected)
        if muscle.touches_border:
            own.append(Flag("touches_border", structure))
        flags += own
        row = _row(exam_id, level, chosen, muscle, corrected)
        row = replace(row, side_difference=_side_difference(muscle.muscle, here))
        rows.append(marked(row, [*doubts, *oblique, *asymmetry[muscle.muscle], *own]))
    return rows, flags


def _row(exam_id: str, level: str, chosen: NearestSlice, muscle: MuscleRow, corrected_cm2: float) -> MuscleLevelRow:
    return MuscleLevelRow(
        exam_id=exam_id,
        level=level,
        muscle=muscle.muscle,
        side=muscle.side,
        stack=chosen.stack,
        slice=chosen.slice,
        distance_mm=chosen.distance_mm,
        angle_deg=chosen.angle_deg,
        csa_cm2=muscle.csa_cm2,
        csa_corrected_cm2=corrected_cm2,
        lean_fraction=muscle.lean_fraction,
        x_mm=muscle.x_mm,
        y_mm=muscle.y_mm,
        z_mm=muscle.z_mm,
        status=muscle.status,
        reasons=muscle.reasons,
    )


def _side_difference(muscle: str, here: Sequence[MuscleRow]) -> float | None:
    """(left - right) / mean of the areas of one muscle on one slice; None without two whole sides that may be used."""
    whole = [row for row in here if row.muscle == muscle and row.status != "refused" and not row.touches_border]
    area = {row.side: row.csa_cm2 for row in whole}
    left, right = area.get("left"), area.get("right")
    return None if left is None or right is None else 2 * (left - right) / (left + right)


def _asymmetry(level: str, muscle: str, here: Sequence[MuscleRow]) -> list[Flag]:
    difference = _side_difference(muscle, here)
    return check("side_asymmetry", None if difference is None else abs(difference), f"{muscle} {level}")


def _missing(level: str, here: Sequence[MuscleRow]) -> list[Flag]:
    present = {(row.muscle, row.side) for row in here}
    return [
        Flag("muscle_missing", f"{muscle} {side} {level}")
        for muscle in MUSCLES
        for side in ("left", "right")
        if muscle in EXPECTED_MUSCLES.get(level, frozenset()) and (muscle, side) not in present
    ]
