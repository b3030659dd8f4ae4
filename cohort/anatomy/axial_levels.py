"""What the axial slices say about the levels: where the psoas begins, and whether discs and muscles fit each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from cohort.anatomy.muscle_levels import BEYOND_GAP_MM, DiscPlane, NearestSlice, nearest_slice
from cohort.anatomy.quality import Flag
from cohort.geometry import Floats, StackGeometry
from cohort.rows import MuscleRow

MAX_ANGLE_DEG: Final = 40.0
"""A slice steeper than this against the disc's mid-plane stretches a muscle by a third: its area tells no level."""
DISC_STACK_SLICES: Final = (3, 9)
"""Slices of a stack that is laid along one disc (three to five is usual), in exams of several such stacks."""
ON_DISC_MM: Final = 8.0
"""The middle slice of such a stack lies this near to a disc's centre: half a disc and half a slice."""
MAX_OFF_DISC: Final = 0.5
"""Share of such stacks that may lie on no disc: one beside a disc that was not found is no contradiction."""
MAX_UPPER_SHARE: Final = {"psoas": 0.9, "multifidus": 1.2}
"""Area at the upper discs over the largest at the lower ones: both muscles grow downward, psoas from 0.24 at L1-L2,
multifidus from 0.35 at L2-L3 (medscimonit 951651, n = 30; MyoSegmenTUM, n = 2). Own choice, far beyond both."""
UPPER_PLACE: Final = {"psoas": 4, "multifidus": 3}
LOWER_PLACES: Final = {"psoas": (1, 2), "multifidus": (0, 1)}


@dataclass(frozen=True)
class AxialEvidence:
    """Areas by place of the disc (0 is the lumbosacral one), and contradictions."""

    psoas_cm2: Mapping[int, float] = field(default_factory=dict)
    conflicts: tuple[Flag, ...] = ()


def axial_evidence(
    discs: Mapping[int, DiscPlane], stacks: Sequence[tuple[int, StackGeometry]], muscles: Sequence[MuscleRow]
) -> AxialEvidence:
    """Compare the discs with the axial slices that share their frame of reference.

    Parameters
    ----------
    discs : place above S1 -> mid-plane
    stacks : (index in the exam store, geometry) of axial stacks
    muscles : rows of those stacks
    """
    if not discs or not stacks:
        return AxialEvidence()
    chosen = {place: _usable(disc, stacks) for place, disc in discs.items()}
    areas = {name: _areas(chosen, muscles, name) for name in MAX_UPPER_SHARE}
    conflicts = [*_growth(areas), *_off_disc(list(discs.values()), stacks)]
    return AxialEvidence(areas["psoas"], tuple(conflicts))


def _usable(disc: DiscPlane, stacks: Sequence[tuple[int, StackGeometry]]) -> NearestSlice | None:
    found = nearest_slice(disc, stacks)
    if found is None or found.angle_deg > MAX_ANGLE_DEG or found.distance_mm > found.gap_mm / 2 + BEYOND_GAP_MM:
        return None
    return found


def _areas(chosen: Mapping[int, NearestSlice | None], muscles: Sequence[MuscleRow], name: str) -> dict[int, float]:
    """Place -> mean of the sides, corrected for obliquity; 0 where the slice shows other muscles only."""
    areas = {}
    for place, at in chosen.items():
        here = [row for row in muscles if at and (row.stack, row.slice) == (at.stack, at.slice)]
        own = [row for row in here if row.muscle == name]
        if at and here and not any(row.touches_border for row in own):
            cosine = float(np.cos(np.radians(at.angle_deg)))
            areas[place] = cosine * sum(row.csa_cm2 or 0.0 for row in own) / max(len(own), 1)
    return areas


def _growth(areas: Mapping[str, Mapping[int, float]]) -> list[Flag]:
    flags = []
    for name, limit in MAX_UPPER_SHARE.items():
        upper = [area for place, area in areas[name].items() if place >= UPPER_PLACE[name]]
        lower = [area for place, area in areas[name].items() if place in LOWER_PLACES[name] and area > 0]
        if upper and lower and float(np.mean(upper)) > limit * max(lower):
            flags.append(Flag("axial_conflict", name, float(np.mean(upper)) / max(lower), limit))
    return flags


def _off_disc(discs: Sequence[DiscPlane], stacks: Sequence[tuple[int, StackGeometry]]) -> list[Flag]:
    low, high = DISC_STACK_SLICES
    laid = [geometry for _, geometry in stacks if low <= geometry.n_slices <= high]
    if len(laid) < 2:
        return []
    centres = np.array([disc.centroid_mm for disc in discs])
    share = float(np.mean([_distance_mm(geometry, centres) > ON_DISC_MM for geometry in laid]))
    return [Flag("axial_conflict", "disc stacks", share, MAX_OFF_DISC)] if share > MAX_OFF_DISC else []


def _distance_mm(geometry: StackGeometry, centres_mm: Floats) -> float:
    """Of the middle slice from the nearest disc centre."""
    middle = geometry.position_mm[geometry.n_slices // 2]
    return float(np.abs((centres_mm - middle) @ geometry.normal).min())
