"""One piece per disc: touching discs separated by the body between them, fragments of one joined, the rest dropped."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
from scipy import ndimage

from cohort.anatomy.instances import (
    Element,
    Ids,
    Instances,
    Piece,
    Voxels,
    across_spine,
    changes,
    dropped,
    list_voxels,
    ordered,
    shared,
    table,
)
from cohort.anatomy.postprocess import Mask, pieces
from cohort.anatomy.spine_chain import DISC_OFF_MM, on_link, place_on, usual_spacing_mm
from cohort.anatomy.spine_curve import SpineCurve
from cohort.geometry import Floats, StackGeometry

MIN_DISC_CM2 = 0.3
"""Mid-sagittal sections have 2-3 cm2 (32-34 x 7-9 mm, Menezes-Reis et al. 2016); a narrow one keeps a third."""
MIN_COLLAPSED_CM2 = 0.1
MIN_DEPTH_MM = 10.0
"""What lies between two bodies and is as long as this from front to back is a disc, however thin."""
MAX_LATERAL_MM = 28.0
MAX_SAGITTAL_MM = 22.0
"""Half a body is 27 mm wide and 17 mm deep; used where no bodies say where discs are."""
SAME_DISC_MM = 12.0
"""Fragments of one disc lie at one height; neighbouring discs are at least 28 mm apart in adults."""
STRIP_MM = 6.0
"""What is narrower than this from front to back, on a piece that runs past a body, is a strip."""
CORE_SHARE = 0.2
"""Of a piece beside a body, levels of the spine with less than this share of its largest section are strip."""
END_SHARE = (0.3, 1.0)
"""Place of the disc above the highest body, or below the lowest, in steps from body to body."""


def separate_discs(mask: Mask, bodies: Instances, geometry: StackGeometry, curve: SpineCurve) -> Instances:
    """Split a disc mask [slice, row, column] of a sagittal stack in standing order into one piece per disc.

    Where there are bodies, a disc lies between two of them, or above the highest or below the lowest at the usual
    distance; all else (pelvic organs, ligaments) is dropped.
    """
    listed = list_voxels(mask, geometry, curve)
    found = pieces(mask)[0]
    components = found[mask].astype(np.int64)
    ids = _cut_at_bodies(components, listed, mask.shape, bodies.pieces, curve)
    strips = int(np.count_nonzero(ids == 0))
    before = table(ids, listed)
    ids = dropped(ids, [piece for piece in before if not _in_place(piece, bodies.pieces)])
    ids = _joined(ids, listed)
    ids = dropped(ids, [piece for piece in table(ids, listed) if not _large(piece, bodies.pieces)])
    removed = int(components.max(initial=0)) - len(np.unique(shared(components, ids)[:, 0]))
    return ordered(ids, listed, mask.shape, changes(components, ids, pieces_removed=removed, strips=strips))


def _cut_at_bodies(
    components: Ids, listed: Voxels, shape: tuple[int, ...], bodies: Sequence[Piece], curve: SpineCurve
) -> Ids:
    """Divide pieces that run past a body between the discs on both sides of it, without the strip that joined them."""
    if not bodies:
        return components
    ids = components.copy()
    gap_of = np.searchsorted([body.arc_mm for body in bodies], listed.arc_mm)
    for piece in table(components, listed):
        members = np.flatnonzero(components == piece.label)
        gaps = np.unique(gap_of[members])
        if len(gaps) == 1:
            continue
        ids[members] = 0
        thick = members[_opened(listed, members, shape, across_spine(curve, piece, listed.geometry, STRIP_MM))]
        for gap in gaps:
            here = thick[gap_of[thick] == gap]
            if len(here):
                ids[here[_core(listed.arc_mm[here])]] = ids.max() + 1
    return ids


def _opened(listed: Voxels, members: Ids, shape: tuple[int, ...], kernel: Element) -> Mask:
    """[member] lies in a run from front to back as long as the kernel."""
    at = np.stack(np.unravel_index(listed.at[members], shape), axis=1)
    low = at.min(axis=0)
    volume = np.zeros(at.max(axis=0) - low + 1, dtype=np.uint8)
    place = tuple((at - low).T)
    volume[place] = 1
    planes = [
        cv2.morphologyEx(plane, cv2.MORPH_OPEN, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        for plane in volume
    ]
    return np.asarray(np.stack(planes)[place] > 0)


def _core(arc_mm: Floats) -> Mask:
    bins = np.arange(np.floor(arc_mm.min()), np.ceil(arc_mm.max()) + 2, 1.0)
    area = np.histogram(arc_mm, bins)[0]
    thick, _ = ndimage.label(area >= CORE_SHARE * area.max())
    core = np.flatnonzero(thick == thick[np.argmax(area)])
    return np.asarray((arc_mm >= bins[core[0]]) & (arc_mm < bins[core[-1] + 1]))


def _in_place(disc: Piece, bodies: Sequence[Piece]) -> bool:
    if len(bodies) < 2:
        return abs(disc.lateral_mm) <= MAX_LATERAL_MM and abs(disc.sagittal_mm) <= MAX_SAGITTAL_MM
    if any(on_link(disc, lower, upper) for lower, upper in pairwise(bodies)):
        return True
    usual = usual_spacing_mm(bodies)
    return any(_beyond(disc, end, inner, usual) for end, inner in ((bodies[-1], bodies[-2]), (bodies[0], bodies[1])))


def _large(disc: Piece, bodies: Sequence[Piece]) -> bool:
    between = any(on_link(disc, lower, upper) for lower, upper in pairwise(bodies))
    return disc.area_cm2 >= (MIN_COLLAPSED_CM2 if between and disc.depth_mm >= MIN_DEPTH_MM else MIN_DISC_CM2)


def _beyond(disc: Piece, end: Piece, inner: Piece, usual_mm: float) -> bool:
    """The next disc behind the last body, seen from the one before it."""
    start = np.array(end.centroid_mm)[1:]
    along = start - np.array(inner.centroid_mm)[1:]
    share, off = place_on(start, along / np.linalg.norm(along) * usual_mm, np.array(disc.centroid_mm)[1:])
    return END_SHARE[0] < share < END_SHARE[1] and off < DISC_OFF_MM


def _joined(ids: Ids, listed: Voxels) -> Ids:
    """Join fragments at one height."""
    for lower, upper in pairwise(table(ids, listed)):
        if upper.arc_mm - lower.arc_mm < SAME_DISC_MM:
            ids = np.where(ids == lower.label, upper.label, ids)
    return ids
