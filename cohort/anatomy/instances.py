"""Separate vertebral bodies and discs that touch, join broken ones, drop what is not spine, order along the spine.

Works on a sagittal stack in standing order (`cohort.anatomy.orientation`). Lengths along the spine are arc lengths
of the fitted curve (`cohort.anatomy.spine_curve`); the extent of a piece along it is sqrt(12) times the standard
deviation of its voxels' arc length, which is exact for a block and needs no sorting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cohort.anatomy.postprocess import Mask, eroded, pieces
from cohort.anatomy.spine_curve import SpineCurve, fit_spine_curve
from cohort.geometry import Floats, StackGeometry
from cohort.stacks import Labels
from cohort.terms import SACRAL_BODY, VERTEBRAL_BODY

Ids = npt.NDArray[np.int64]

SEED_EROSION_MM = 3.0
"""Bridges between neighbouring bodies narrower than twice this are cut; the thinnest disc gaps are bridged at a rim."""
MIN_SEED_CM3 = 0.3
BODY_HEIGHT_MM = (18.0, 34.0)
"""Heights of whole bodies T11-L5: 23-31 mm, SD 2 (Chu et al. 2015, n = 17; MyoSegmenTUM, n = 53), widened by 2.5 SD."""
DEFAULT_BODY_HEIGHT_MM = 27.0
TOO_TALL = 1.45
"""A piece taller than this share of its neighbours is two bodies: the next body with its disc makes it 2.2 times
taller."""
JOINED_HEIGHT_MM = 36.0
JOINED_GAP_MM = 3.0
"""Two pieces are one broken body if together no taller than the tallest bodies and closer than the thinnest disc."""
MIN_BODY_CM3 = 2.5
"""Bodies have 15-45 cm3 (MyoSegmenTUM L1-L5: 36-43 +- 8); less than this in view is not measured."""
MIN_DISC_CM3 = 0.4
"""Discs have 6.5-9.4 +- 2.3 cm3 (Menezes-Reis et al. 2016); a collapsed one keeps about a tenth."""
MAX_LATERAL_MM = 28.0
MAX_SAGITTAL_MM = 22.0
"""Half a body is 27 mm wide and 17 mm deep; a spinous process lies 45 mm behind the centre."""
SAME_DISC_MM = 10.0
"""Fragments of one disc lie at one height; neighbouring discs are at least 28 mm apart in adults."""
TOO_TALL_DISC_MM = 22.0
DISC_CORE_SHARE = 0.2
"""Of two discs joined by a strip, levels of the spine with less than this share of the disc's largest section are
strip."""


@dataclass(frozen=True, eq=False)
class Voxels:
    """Voxels of a mask as lists."""

    at: Ids
    """[n] flat index into the volume."""
    lps_mm: Floats
    """[n, 3]"""
    arc_mm: Floats
    """[n] position along the spine, cranial positive."""
    offset_mm: Floats
    """[n, 3] from the spine curve."""


@dataclass(frozen=True)
class Piece:
    """One vertebral body or disc, or a part of one."""

    label: int
    """Value in the instance array."""
    centroid_mm: tuple[float, float, float]
    """LPS."""
    volume_cm3: float
    arc_mm: float
    extent_mm: float
    """Along the spine."""
    lateral_mm: float
    sagittal_mm: float
    """Offset of the centroid from the spine curve, across and in the sagittal plane."""
    sacral_share: float = 0.0
    """Share of voxels that the network called sacral."""

    @property
    def low_mm(self) -> float:
        return self.arc_mm - self.extent_mm / 2

    @property
    def high_mm(self) -> float:
        return self.arc_mm + self.extent_mm / 2


@dataclass(frozen=True, eq=False)
class Instances:
    """Separated structures of one class, from caudal to cranial."""

    labels: Labels
    """[slice, row, column]; value v is `pieces[v - 1]`."""
    pieces: tuple[Piece, ...]
    boxes: tuple[tuple[slice, slice, slice], ...]
    """Bounding box of each piece."""

    def mask(self, label: int) -> Mask:
        """Mask of one piece within its box."""
        return np.asarray(self.labels[self.boxes[label - 1]] == label)


def spine_curve(bodies: Mask, discs: Mask, geometry: StackGeometry) -> SpineCurve | None:
    """Fit the spine's curve to the bodies, or to the discs where there are no bodies; None if there is neither."""
    mask = bodies if bodies.any() else discs
    at = np.flatnonzero(mask)
    if not len(at):
        return None
    at = at[:: max(len(at) // 3000, 1)]
    points = _lps(at, mask.shape, geometry)
    # A piece counts by its length along the body, not by its volume, so that a large false one does not bend the curve.
    _, piece = np.unique(pieces(mask)[0].ravel()[at], return_inverse=True)
    members = np.bincount(piece)
    height = [float(np.ptp(points[piece == one, 2])) for one in range(len(members))]
    return fit_spine_curve(points, weights=(np.array(height) / members)[piece] + 1e-6)


def voxels(mask: Mask, geometry: StackGeometry, curve: SpineCurve) -> Voxels:
    """List the voxels of a mask [slice, row, column] with their place relative to the spine."""
    at = np.flatnonzero(mask)
    lps = _lps(at, mask.shape, geometry)
    # The curve is smooth on the scale of centimetres: a grid of 1 mm of heights, interpolated, costs less than a
    # polynomial for each of 200,000 voxels.
    foot = curve.foot_z_mm(lps)
    grid = np.arange(foot.min() - 1, foot.max() + 2, 1.0) if len(foot) else np.zeros(2)
    on_curve = curve.point(grid)
    arc = np.interp(foot, grid, curve.arc_mm(on_curve)) if len(foot) else foot
    offset = np.stack([lps[:, axis] - np.interp(foot, grid, on_curve[:, axis]) for axis in range(3)], axis=-1)
    return Voxels(at, lps, arc, offset)


def separate_bodies(labels: Labels, discs: Mask, geometry: StackGeometry, curve: SpineCurve) -> Instances:
    """Split the label array of bodies (1) and sacral bodies (2) into one piece per vertebra.

    Parameters
    ----------
    labels : [slice, row, column] of a sagittal stack in standing order, cleaned
    discs : [slice, row, column] mask of the discs: bodies with a disc between them are never joined
    """
    mask = labels > 0
    listed = voxels(mask, geometry, curve)
    ids = _grown_seeds(labels, mask, geometry)[mask].astype(np.int64)
    sacral = labels[mask] == SACRAL_BODY
    disc_arc = voxels(discs, geometry, curve).arc_mm
    unit = voxel_cm3(geometry)
    ids = _drop(ids, _table(ids, listed, unit, sacral), keep=_near_spine)
    ids = _join(ids, listed, unit, sacral, disc_arc)
    ids = _cut_tall(ids, listed, unit, sacral)
    ids = _drop(ids, _table(ids, listed, unit, sacral), keep=_large_body)
    return _ordered(ids, listed, mask, unit, sacral)


def separate_discs(mask: Mask, bodies: Instances, geometry: StackGeometry, curve: SpineCurve) -> Instances:
    """Split a disc mask [slice, row, column] of a sagittal stack in standing order into one piece per disc."""
    listed = voxels(mask, geometry, curve)
    unit = voxel_cm3(geometry)
    none = np.zeros(len(listed.at), dtype=bool)
    ids = pieces(mask)[0][mask].astype(np.int64)
    ids = _drop(ids, _table(ids, listed, unit, none), keep=_near_spine)
    ids = _cut_joined_discs(ids, listed, unit, np.array([body.arc_mm for body in bodies.pieces]))
    table = _table(ids, listed, unit, none)
    for lower, upper in pairwise(table):
        if upper.arc_mm - lower.arc_mm < SAME_DISC_MM:
            ids[ids == lower.label] = upper.label
    ids = _drop(ids, _table(ids, listed, unit, none), keep=_large_disc)
    return _ordered(ids, listed, mask, unit, none)


def voxel_cm3(geometry: StackGeometry) -> float:
    """Volume that one voxel stands for: pixel area times the distance between slices."""
    return geometry.spacing_mm[0] * geometry.spacing_mm[1] * abs(geometry.slice_gap_mm) / 1000


def _lps(at: Ids, shape: tuple[int, ...], geometry: StackGeometry) -> Floats:
    k, row, column = np.unravel_index(at, shape)
    down, across = geometry.spacing_mm[0] * geometry.col_dir, geometry.spacing_mm[1] * geometry.row_dir
    return np.asarray(geometry.position_mm[k] + row[:, None] * down + column[:, None] * across)


def _near_spine(piece: Piece) -> bool:
    return abs(piece.lateral_mm) <= MAX_LATERAL_MM and abs(piece.sagittal_mm) <= MAX_SAGITTAL_MM


def _grown_seeds(labels: Labels, mask: Mask, geometry: StackGeometry) -> npt.NDArray[np.int32]:
    """Pieces of a mask, those with several cores divided among them by distance."""
    found, n = pieces(mask)
    seeds = np.zeros_like(found)
    for value, box in zip((VERTEBRAL_BODY, SACRAL_BODY), ndimage.find_objects(labels, max_label=2), strict=True):
        if box is None:
            continue
        cores, n_cores = pieces(eroded(labels[box] == value, SEED_EROSION_MM, geometry.spacing_mm))
        size = np.bincount(cores.ravel(), minlength=n_cores + 1) * voxel_cm3(geometry)
        renumbered = np.where(size >= MIN_SEED_CM3, np.arange(n_cores + 1) + seeds.max(), 0)
        renumbered[0] = 0
        seeds[box] = np.maximum(seeds[box], renumbered[cores].astype(np.int32))
    sampling = (abs(geometry.slice_gap_mm), *geometry.spacing_mm)
    next_label = n + 1
    for label, box in enumerate(ndimage.find_objects(found), start=1):
        inside = found[box] == label
        here = np.where(inside, seeds[box], 0)
        if np.count_nonzero(np.bincount(here.ravel())) <= 2:
            continue
        nearest = ndimage.distance_transform_edt(
            here == 0, sampling=sampling, return_distances=False, return_indices=True
        )
        found[box][inside] = here[tuple(nearest)][inside] + next_label
        next_label += int(here.max()) + 1
    return found


def _table(ids: Ids, listed: Voxels, unit_cm3: float, sacral: Mask) -> list[Piece]:
    """Pieces with their sums, from caudal to cranial; label 0 is what was dropped."""
    voxels_of = np.bincount(ids)
    count = np.maximum(voxels_of, 1)

    def mean(values: Floats) -> Floats:
        return np.asarray(np.bincount(ids, weights=values) / count)

    centroid = np.stack([mean(listed.lps_mm[:, axis]) for axis in range(3)], axis=-1)
    lateral, sagittal = mean(listed.offset_mm[:, 0]), mean(listed.offset_mm[:, 1])
    arc = mean(listed.arc_mm)
    spread = np.sqrt(np.maximum(mean(listed.arc_mm**2) - arc**2, 0))
    share = mean(sacral.astype(np.float64))
    table = [
        Piece(
            label=int(label),
            centroid_mm=(float(centroid[label, 0]), float(centroid[label, 1]), float(centroid[label, 2])),
            volume_cm3=float(count[label] * unit_cm3),
            arc_mm=float(arc[label]),
            extent_mm=float(np.sqrt(12) * spread[label]),
            lateral_mm=float(lateral[label]),
            sagittal_mm=float(sagittal[label]),
            sacral_share=float(share[label]),
        )
        for label in np.flatnonzero(voxels_of)
        if label > 0
    ]
    return sorted(table, key=lambda piece: piece.arc_mm)


def _drop(ids: Ids, table: list[Piece], *, keep: Callable[[Piece], bool]) -> Ids:
    gone = [piece.label for piece in table if not keep(piece)]
    return np.where(np.isin(ids, gone), 0, ids) if gone else ids


def _large_body(piece: Piece) -> bool:
    return piece.volume_cm3 >= MIN_BODY_CM3


def _large_disc(piece: Piece) -> bool:
    return piece.volume_cm3 >= MIN_DISC_CM3


def _join(ids: Ids, listed: Voxels, unit_cm3: float, sacral: Mask, disc_arc: Floats) -> Ids:
    """Join parts of one body until no pair belongs together."""
    while True:
        table = _table(ids, listed, unit_cm3, sacral)
        pair = next(
            ((a, b) for i, a in enumerate(table) for b in table[i + 1 :] if _one_body(a, b, disc_arc, unit_cm3)), None
        )
        if pair is None:
            return ids
        ids = np.where(ids == pair[1].label, pair[0].label, ids)


def _one_body(a: Piece, b: Piece, disc_arc: Floats, unit_cm3: float) -> bool:
    overlap = min(a.high_mm, b.high_mm) - max(a.low_mm, b.low_mm)
    together = max(a.high_mm, b.high_mm) - min(a.low_mm, b.low_mm)
    if together > JOINED_HEIGHT_MM and min(a.volume_cm3, b.volume_cm3) >= MIN_BODY_CM3:
        return False
    if overlap > 0.5 * min(a.extent_mm, b.extent_mm):
        return True
    between = np.count_nonzero((disc_arc > a.arc_mm) & (disc_arc < b.arc_mm)) * unit_cm3
    return bool(overlap > -JOINED_GAP_MM and together <= JOINED_HEIGHT_MM and between < MIN_DISC_CM3)


def _cut_tall(ids: Ids, listed: Voxels, unit_cm3: float, sacral: Mask) -> Ids:
    """Cut pieces of several bodies at the waists of their section area along the spine, from the top down."""
    table = _table(ids, listed, unit_cm3, sacral)
    whole = [p.extent_mm for p in table if BODY_HEIGHT_MM[0] <= p.extent_mm <= BODY_HEIGHT_MM[1]]
    height = float(np.median(whole)) if whole else DEFAULT_BODY_HEIGHT_MM
    ids = ids.copy()
    for piece in table:
        label = piece.label
        while True:
            members = np.flatnonzero(ids == label)
            arc = listed.arc_mm[members]
            if len(arc) == 0 or np.sqrt(12) * arc.std() <= TOO_TALL * height:
                break
            below = arc < _waist(arc, height)
            if below.all() or not below.any():
                break
            label = int(ids.max()) + 1
            ids[members[below]] = label
    return ids


def _waist(arc_mm: Floats, height_mm: float) -> float:
    """Position of the smallest section near one body height (and half a disc) below the upper end."""
    bins = np.arange(np.floor(arc_mm.min()), np.ceil(arc_mm.max()) + 1, 1.0)
    area = ndimage.gaussian_filter1d(np.histogram(arc_mm, bins)[0].astype(np.float64), 1.5)
    middle = (bins[:-1] + bins[1:]) / 2
    from_top = (np.quantile(arc_mm, 0.99) - middle) / height_mm
    allowed = (from_top > 0.6) & (from_top < 1.6)
    if not allowed.any():
        return float(middle[0])
    # A slight preference for the expected place decides where bodies are joined over their whole face.
    cost = area / max(area.max(), 1.0) + 0.5 * (from_top - 1.1) ** 2
    return float(middle[allowed][np.argmin(cost[allowed])])


def _cut_joined_discs(ids: Ids, listed: Voxels, unit_cm3: float, body_arc_mm: Floats) -> Ids:
    """Divide pieces that run past a body between the discs on both sides of it, without the strip that joined them."""
    if not len(body_arc_mm):
        return ids
    ids = ids.copy()
    gap_of = np.searchsorted(body_arc_mm, listed.arc_mm)
    for piece in _table(ids, listed, unit_cm3, np.zeros(len(ids), dtype=bool)):
        if piece.extent_mm <= TOO_TALL_DISC_MM:
            continue
        members = np.flatnonzero(ids == piece.label)
        ids[members] = 0
        for gap in np.unique(gap_of[members]):
            here = members[gap_of[members] == gap]
            ids[here[_core(listed.arc_mm[here])]] = ids.max() + 1
    return ids


def _core(arc_mm: Floats) -> Mask:
    bins = np.arange(np.floor(arc_mm.min()), np.ceil(arc_mm.max()) + 2, 1.0)
    area = np.histogram(arc_mm, bins)[0]
    thick, _ = ndimage.label(area >= DISC_CORE_SHARE * area.max())
    core = np.flatnonzero(thick == thick[np.argmax(area)])
    return np.asarray((arc_mm >= bins[core[0]]) & (arc_mm < bins[core[-1] + 1]))


def _ordered(ids: Ids, listed: Voxels, mask: Mask, unit_cm3: float, sacral: Mask) -> Instances:
    table = _table(ids, listed, unit_cm3, sacral)
    new = np.zeros(int(ids.max(initial=0)) + 1, dtype=np.uint8)
    for number, piece in enumerate(table, start=1):
        new[piece.label] = number
    labels = np.zeros(mask.shape, dtype=np.uint8)
    labels.ravel()[listed.at] = new[ids]
    ordered = tuple(replace(piece, label=number) for number, piece in enumerate(table, start=1))
    return Instances(labels, ordered, tuple(ndimage.find_objects(labels)))
