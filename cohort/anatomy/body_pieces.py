"""One piece per vertebra: touching bodies separated, broken ones joined, what does not continue the spine dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from scipy import ndimage

from cohort.anatomy.instances import (
    Ids,
    Instances,
    Numbers,
    Piece,
    Voxels,
    across_spine,
    along_spine,
    changes,
    dropped,
    list_voxels,
    ordered,
    renumbered,
    sections,
    shared,
    table,
)
from cohort.anatomy.postprocess import Mask, disk, eroded, pieces
from cohort.anatomy.spine_chain import spine_chain
from cohort.anatomy.spine_curve import SpineCurve
from cohort.geometry import Floats, StackGeometry
from cohort.stacks import Labels
from cohort.terms import SACRAL_BODY, VERTEBRAL_BODY

SEED_EROSION_MM = 3.0
"""Bridges between neighbouring bodies narrower than twice this are cut; the thinnest disc gaps are bridged at a rim."""
MIN_SEED_CM2 = 0.3
BODY_HEIGHT_MM = (18.0, 42.0)
"""Heights of whole bodies T11-L5: 23-31 mm, SD 2 (Chu et al. 2015, n = 17; MyoSegmenTUM, n = 53); widened downward by
2.5 SD, upward to less than two low bodies with the disc between them."""
DEFAULT_BODY_HEIGHT_MM = 27.0
TWO_BODIES = 1.35
"""Height over depth of the lowest two bodies joined without a disc that shows: 2 x 23 mm and a disc over 34 mm (Chu et
al. 2015) are 1.5, one body 0.8. Asked only where most pieces have no height of a body: the size of the pixels may be
wrong."""
DISC_ROOM_MM = 7.0
"""Between two bodies (6-10 mm, Chu et al. 2015), some of which a bridge fills."""
JOINED_HEIGHT_MM = 36.0
JOINED_GAP_MM = 3.0
"""Two pieces are one broken body if together no taller than the tallest bodies and closer than the thinnest disc."""
JOINED_DEPTH_MM = 48.0
"""From front to back bodies have 31-35 +- 3.5 mm (Chu et al. 2015), in men to 42."""
MIN_BODY_CM2 = 0.6
"""Mid-sagittal sections have 7.6-9.4 cm2 (Chu et al. 2015); less than this in view is not measured."""
DUST_CM2 = 0.05
"""Crumbs of a few pixels, which join nothing."""
MIN_CUT_CM2 = 0.15
"""The same for a body cut by the border of the picture: a strip of half a centimetre at least."""
MIN_DISC_CM2 = 0.4
"""Of disc between two pieces: they are two bodies."""
MAX_LATERAL_MM = 28.0
MAX_SAGITTAL_MM = 30.0
"""Half a body is 27 mm wide and 17 mm deep, and the curve may err by half of that; a spinous process lies 45 mm behind
the centre."""
EVIDENT_DISC_CM2 = 0.1
"""Disc enough to say that the bodies above and below it are neighbours."""
DISC_DEPTH_MM = 14.0
DISC_HEIGHT_MM = 22.0
"""A piece of disc must be as deep, and no taller, to cut a body."""
FACE_SHARE = 0.55
"""A section at a disc with less than this share of the mean section of the piece is a bridge past the disc."""
CUT_HEIGHT_MM = 6.0
"""A cut leaves at least this much on either side."""
CRACK_MM = 5.0
"""Length of the element that closes cracks along the spine: gaps to `JOINED_GAP_MM`, and the smoothing of edges."""
BULGE_MM = 2.5
"""A section may go this far beyond the outline of those further inside: oblique slices, rims and wavy edges."""
STRIP_MM = 6.0
"""What is narrower than this from front to back and hangs on a divided piece is the rest of a bridge."""


def separate_bodies(labels: Labels, discs: Mask, geometry: StackGeometry, curve: SpineCurve) -> Instances:
    """Split the label array of bodies (1) and sacral bodies (2) into one piece per vertebra.

    Parameters
    ----------
    labels : [slice, row, column] of a sagittal stack in standing order, cleaned
    discs : [slice, row, column] mask of the discs: bodies with a disc between them are neighbours, never one body
    """
    mask = labels > 0
    listed = list_voxels(mask, geometry, curve, sacral=labels == SACRAL_BODY)
    found, n = pieces(mask)
    components = found[mask].astype(np.int64)
    seeded = _grown_seeds(labels, found, n, geometry)[mask].astype(np.int64)
    far = [piece for piece in table(seeded, listed) if piece.area_cm2 < DUST_CM2 or not _near_spine(piece)]
    between = _listed_discs(discs, geometry, curve)
    ids = _divided_and_joined(dropped(seeded, far), listed, between)
    whole, ids = ids, _without_strips(ids, components, listed, mask.shape, curve)
    strips = int(np.count_nonzero(whole != ids))
    ids = _without_bulges(ids, listed, mask.shape)
    off = _off_chain(ids, listed, mask.shape, between)
    told = changes(
        components,
        dropped(ids, off),
        pieces_removed=len(far) + len(off),
        strips=strips,
    )
    found_bodies = ordered(dropped(ids, off), listed, mask.shape, told)
    return _mended(found_bodies, discs, listed, curve) if told.pieces_joined else found_bodies


def _mended(bodies: Instances, discs: Mask, listed: Voxels, curve: SpineCurve) -> Instances:
    """Fill the cracks of joined bodies: background with the same body above and below it."""
    labels, geometry = bodies.labels.copy(), listed.geometry
    for piece, box in zip(bodies.pieces, bodies.boxes, strict=True):
        kernel = along_spine(curve, piece, geometry, CRACK_MM)
        for plane, disc in zip(labels[box], discs[box], strict=True):
            section = np.pad((plane == piece.label).astype(np.uint8), max(kernel.shape))
            if cv2.connectedComponents(section)[0] <= 2:  # background and the whole section
                continue
            closed = cv2.morphologyEx(section, cv2.MORPH_CLOSE, kernel)
            inner = tuple(slice(max(kernel.shape), -max(kernel.shape)) for _ in range(2))
            plane[(closed[inner] > 0) & (plane == 0) & ~disc] = piece.label
    added = (labels > 0) & (bodies.labels == 0)
    if not added.any():
        return bodies
    share = np.array([0.0, *(piece.sacral_share for piece in bodies.pieces)])
    both = listed.joined(list_voxels(added, geometry, curve, sacral=share[labels] > 0.5))
    told = replace(bodies.changes, crack_voxels=int(np.count_nonzero(added)))
    return ordered(labels.ravel()[both.at].astype(np.int64), both, labels.shape, told)


@dataclass(frozen=True, eq=False)
class _Discs:
    """The disc mask as evidence, before it is separated."""

    listed: Voxels
    ids: Ids
    pieces: Sequence[Piece]


def _listed_discs(discs: Mask, geometry: StackGeometry, curve: SpineCurve) -> _Discs:
    listed = list_voxels(discs, geometry, curve)
    ids = pieces(discs)[0][discs].astype(np.int64)
    return _Discs(listed, ids, [piece for piece in table(ids, listed) if piece.area_cm2 >= EVIDENT_DISC_CM2])


def _divided_and_joined(ids: Ids, listed: Voxels, discs: _Discs) -> Ids:
    joined = _joined(_cut_at_discs(ids, listed, discs), listed, discs.listed)
    cut = _cut_tall(joined, listed)
    # what was cut once too often is joined again
    return _joined(cut, listed, discs.listed) if (cut != joined).any() else joined


def _off_chain(ids: Ids, listed: Voxels, shape: tuple[int, ...], discs: _Discs) -> list[Piece]:
    """Pieces that are too small or do not continue the spine."""
    candidates = table(ids, listed)
    cut_off = _at_border(ids, listed, shape)
    large = [
        piece for piece in candidates if piece.area_cm2 >= (MIN_CUT_CM2 if piece.label in cut_off else MIN_BODY_CM2)
    ]
    kept = {piece.label for piece in spine_chain(large, discs.pieces)}
    return [piece for piece in candidates if piece.label not in kept]


def _near_spine(piece: Piece) -> bool:
    return abs(piece.lateral_mm) <= MAX_LATERAL_MM and abs(piece.sagittal_mm) <= MAX_SAGITTAL_MM


def _grown_seeds(labels: Labels, found: Numbers, n: int, geometry: StackGeometry) -> Numbers:
    """Pieces of a mask, those with several cores divided among them by distance.

    The classes have cores of their own, so that a false body is parted from the sacrum it touches; parts of one bone
    are joined again by their shape.
    """
    seeds = np.zeros_like(found)
    for value, box in zip((VERTEBRAL_BODY, SACRAL_BODY), ndimage.find_objects(labels, max_label=2), strict=True):
        if box is not None:
            cores = _cores(labels[box] == value, geometry)
            seeds[box] = np.where(cores > 0, cores + seeds.max(), seeds[box])
    sampling = (abs(geometry.slice_gap_mm), *geometry.spacing_mm)
    grown = found.copy()
    next_label = n + 1
    for label, box in enumerate(ndimage.find_objects(found), start=1):
        inside = found[box] == label
        here = np.where(inside, seeds[box], 0)
        if np.count_nonzero(np.bincount(here.ravel())) <= 2:
            continue
        nearest = ndimage.distance_transform_edt(
            here == 0, sampling=sampling, return_distances=False, return_indices=True
        )
        grown[box][inside] = here[tuple(nearest)][inside] + next_label
        next_label += int(here.max()) + 1
    return grown


def _cores(mask: Mask, geometry: StackGeometry) -> Numbers:
    """Pieces of the eroded mask [slice, row, column] that have a section of at least `MIN_SEED_CM2`."""
    cores, n = pieces(eroded(mask, SEED_EROSION_MM, geometry.spacing_mm))
    sections = np.array([np.bincount(plane.ravel(), minlength=n + 1) for plane in cores])
    area = sections.max(axis=0) * geometry.spacing_mm[0] * geometry.spacing_mm[1] / 100
    number = np.where(area >= MIN_SEED_CM2, np.arange(n + 1), 0)
    number[0] = 0
    return np.asarray(number[cores], dtype=np.int32)


def _cut_at_discs(ids: Ids, listed: Voxels, discs: _Discs) -> Ids:
    """Cut pieces that pass a disc, along the disc's own plane."""
    ids = ids.copy()
    bodies = table(ids, listed)
    height = _usual_height_mm(bodies)
    for disc in discs.pieces:
        if disc.area_cm2 < MIN_DISC_CM2 or disc.depth_mm < DISC_DEPTH_MM or disc.extent_mm > DISC_HEIGHT_MM:
            continue
        plane = _plane(discs.listed, discs.ids == disc.label, disc)
        for body in bodies:
            if body.low_mm < disc.arc_mm < body.high_mm:
                members = np.flatnonzero(ids == body.label)
                above = listed.arc_mm[members] - plane[0] - plane[1] * (listed.ap_mm[members] - disc.ap_mm)
                if _is_face(above, tall=_bodies_in(body.extent_mm, height) > 1):
                    ids[members[above < 0]] = ids.max() + 1
                    bodies = table(ids, listed)
                    break
    return ids


def _plane(listed: Voxels, members: Mask, disc: Piece) -> tuple[float, float]:
    """Place along the spine of a disc's middle, and its slope from front to back."""
    ap, arc = listed.ap_mm[members] - disc.ap_mm, listed.arc_mm[members]
    return disc.arc_mm, float(np.clip((ap * (arc - disc.arc_mm)).sum() / max((ap**2).sum(), 1.0), -0.4, 0.4))


def _is_face(above_mm: Floats, *, tall: bool) -> bool:
    """A piece with voxels at these heights above a disc's plane is two bodies: it is narrow there, or too tall."""
    span = float(np.ptp(above_mm)) if len(above_mm) else 0.0
    if not above_mm.size or min(above_mm.max(), -above_mm.min()) < CUT_HEIGHT_MM:
        return False
    at_plane = np.count_nonzero(np.abs(above_mm) < 1.5) / 3.0
    return bool(tall or at_plane < FACE_SHARE * len(above_mm) / span)


def _joined(ids: Ids, listed: Voxels, discs: Voxels) -> Ids:
    """Join parts of one body until no pair belongs together."""
    sums = sections(ids, listed)
    into: dict[int, int] = {}
    while pair := _pair(sums.pieces(), discs):
        keep, gone = pair
        sums = sums.joined(keep, gone)
        into = {number: keep if at == gone else at for number, at in into.items()} | {gone: keep}
    return renumbered(ids, into)


def _pair(parts: Sequence[Piece], discs: Voxels) -> tuple[int, int] | None:
    """Two parts of one body, from caudal to cranial."""
    for i, a in enumerate(parts):
        for b in parts[i + 1 :]:
            if b.arc_mm - a.arc_mm > JOINED_HEIGHT_MM:
                break
            if _one_body(a, b, discs):
                return a.label, b.label
    return None


def _one_body(a: Piece, b: Piece, discs: Voxels) -> bool:
    """Two parts lie side by side in neighbouring slices, or are the upper and the lower part of a broken body."""
    overlap = min(a.high_mm, b.high_mm) - max(a.low_mm, b.low_mm)
    height = max(a.high_mm, b.high_mm) - min(a.low_mm, b.low_mm)
    front, back = (min(p.ap_mm - p.depth_mm / 2 for p in (a, b)), max(p.ap_mm + p.depth_mm / 2 for p in (a, b)))
    if back - front > JOINED_DEPTH_MM or abs(a.ap_mm - b.ap_mm) > max(a.depth_mm, b.depth_mm) / 2:
        return False
    if height > JOINED_HEIGHT_MM and min(a.area_cm2, b.area_cm2) >= MIN_BODY_CM2:
        return False
    if overlap > 0.5 * min(a.extent_mm, b.extent_mm):
        return True
    return bool(
        overlap > -JOINED_GAP_MM and height <= JOINED_HEIGHT_MM and _disc_between_cm2(a, b, discs) < MIN_DISC_CM2
    )


def _disc_between_cm2(a: Piece, b: Piece, discs: Voxels) -> float:
    """Largest section of disc between the centres of two pieces."""
    low, high = sorted((a.arc_mm, b.arc_mm))
    inside = (discs.arc_mm > low) & (discs.arc_mm < high)
    return float(np.bincount(discs.slice_index[inside], minlength=1).max() * discs.pixel_mm2 / 100)


def _usual_height_mm(bodies: Sequence[Piece]) -> float:
    whole = _whole(bodies)
    return float(np.median([piece.extent_mm for piece in whole])) if whole else DEFAULT_BODY_HEIGHT_MM


def _whole(bodies: Sequence[Piece]) -> list[Piece]:
    return [piece for piece in bodies if BODY_HEIGHT_MM[0] <= piece.extent_mm <= BODY_HEIGHT_MM[1]]


def _cut_tall(ids: Ids, listed: Voxels) -> Ids:
    """Cut pieces of several bodies at the waists of their section along the spine, from the top down."""
    parts = table(ids, listed)
    height, odd_scale = _usual_height_mm(parts), 2 * len(_whole(parts)) < len(parts)
    ids = ids.copy()
    for part in parts:
        if _bodies_in(part.extent_mm, height) < 2 or (odd_scale and part.extent_mm < TWO_BODIES * part.depth_mm):
            continue
        members = np.flatnonzero(ids == part.label)
        while (n := _bodies_in(_extent_mm(listed.arc_mm[members]), height)) > 1:
            members = members[listed.arc_mm[members] < _waist(listed.arc_mm[members], n)]
            ids[members] = ids.max() + 1
    return ids


def _bodies_in(extent_mm: float, height_mm: float) -> int:
    """How many bodies of a height, with discs between them, make this extent."""
    return round((extent_mm + DISC_ROOM_MM) / (height_mm + DISC_ROOM_MM))


def _extent_mm(arc_mm: Floats) -> float:
    return float(np.sqrt(12) * arc_mm.std()) if len(arc_mm) else 0.0


def _waist(arc_mm: Floats, n: int) -> float:
    """Where a piece of `n` bodies is narrow, near where the highest would end if all were equal."""
    low, high = np.quantile(arc_mm, [0.01, 0.99])
    bins = np.arange(np.floor(low), np.ceil(high) + 1, 1.0)
    area = ndimage.gaussian_filter1d(np.histogram(arc_mm, bins)[0].astype(np.float64), 1.5)
    middle = (bins[:-1] + bins[1:]) / 2
    # A slight preference for the expected place decides where bodies are joined over their whole face.
    off = (high - middle) / (high - low) * n - 1
    at = int(np.argmin(area / area.max() + 2.0 * off**2))
    return float(middle[at])


def _without_strips(ids: Ids, components: Ids, listed: Voxels, shape: tuple[int, ...], curve: SpineCurve) -> Ids:
    """Drop what is left of bridges on pieces that were divided: voxels in runs from front to back below `STRIP_MM`."""
    volume = np.zeros(shape, dtype=np.int32)
    volume.ravel()[listed.at] = ids
    boxes = ndimage.find_objects(volume)
    for piece in _divided(ids, components, table(ids, listed)):
        box = boxes[piece.label - 1]
        kernel = across_spine(curve, piece, listed.geometry, STRIP_MM)
        for plane in volume[box]:
            section = (plane == piece.label).astype(np.uint8)
            opened = cv2.morphologyEx(section, cv2.MORPH_OPEN, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
            if opened.any():
                plane[(section > 0) & (opened == 0)] = 0
    return np.asarray(volume.ravel()[listed.at], dtype=np.int64)


def _at_border(ids: Ids, listed: Voxels, shape: tuple[int, ...]) -> set[int]:
    """Numbers of pieces that touch the first or last row or column: those of the picture, as the stack is cropped with
    a margin."""
    _, row, column = np.unravel_index(listed.at, shape)
    edge = (row == 0) | (row == shape[1] - 1) | (column == 0) | (column == shape[2] - 1)
    return set(np.unique(ids[edge]).tolist())


def _without_bulges(ids: Ids, listed: Voxels, shape: tuple[int, ...]) -> Ids:
    """Drop what sticks out of a body to the side: a section lies within those between it and the middle one.

    A false body beside the spine that touches a true one goes beyond its outline; the body itself becomes smaller
    towards its sides.
    """
    volume = np.zeros(shape, dtype=np.int32)
    volume.ravel()[listed.at] = ids
    kernel = disk(BULGE_MM, listed.geometry.spacing_mm)
    margin = max(kernel.shape) // 2
    for label, box in enumerate(ndimage.find_objects(volume), start=1):
        if box is None:
            continue
        part = np.pad((volume[box] == label).astype(np.uint8), ((0, 0), (margin, margin), (margin, margin)))
        middle = int(np.searchsorted(np.cumsum(part.sum(axis=(1, 2))), part.sum() / 2))
        inside = part.copy()
        for outward in (range(middle + 1, len(part)), range(middle - 1, -1, -1)):
            seen = part[middle]
            for k in outward:
                inside[k] = part[k] & cv2.dilate(seen, kernel)
                seen = seen | inside[k]
        gone = (part > 0) & (inside == 0)
        volume[box][gone[:, margin:-margin, margin:-margin]] = 0
    return np.asarray(volume.ravel()[listed.at], dtype=np.int64)


def _divided(ids: Ids, components: Ids, parts: Sequence[Piece]) -> list[Piece]:
    """Pieces that share a connected component with another."""
    pairs = shared(components, ids)
    several = np.bincount(pairs[:, 0])[pairs[:, 0]] > 1
    labels = set(pairs[several, 1].tolist())
    return [part for part in parts if part.label in labels]
