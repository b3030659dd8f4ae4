"""Pieces of the spine: voxels with their place along its curve, and what is known of each piece.

Works on a sagittal stack in standing order (`cohort.anatomy.orientation`). Lengths along the spine are arc lengths
of the fitted curve (`cohort.anatomy.spine_curve`); the extent of a piece is sqrt(12) times the standard deviation of
its voxels' places, which is exact for a block and needs no sorting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse

from cohort.anatomy.postprocess import Mask, pieces
from cohort.anatomy.spine_curve import SpineCurve, fit_spine_curve
from cohort.geometry import Floats, StackGeometry
from cohort.stacks import Labels

Ids = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int32]
Element = npt.NDArray[np.uint8]

QUANTITIES = 11


@dataclass(frozen=True, eq=False)
class Voxels:
    """Voxels of a mask as lists, on their grid."""

    at: Ids
    """[n] flat index into the volume."""
    slice_index: Ids
    """[n]"""
    lps_mm: Floats
    """[n, 3]"""
    arc_mm: Floats
    """[n] position along the spine, cranial positive."""
    offset_mm: Floats
    """[n, 3] from the spine curve."""
    ap_mm: Floats
    """[n] offset across the curve in the sagittal plane, posterior positive."""
    sacral: Mask
    """[n] the network called it sacral."""
    geometry: StackGeometry

    @cached_property
    def quantities(self) -> Floats:
        """[n, `QUANTITIES`] summed over pieces: 1, place (3), offset (2), arc and ap and their squares, sacral."""
        arc, ap = self.arc_mm, self.ap_mm
        columns = [np.ones(len(arc)), *self.lps_mm.T, *self.offset_mm.T[:2], arc, arc**2, ap, ap**2, self.sacral]
        return np.stack(columns, axis=1)

    def joined(self, other: Voxels) -> Voxels:
        """The voxels of both, on one grid."""
        both = {
            one.name: np.concatenate([getattr(self, one.name), getattr(other, one.name)])
            for one in fields(self)
            if one.name != "geometry"
        }
        return Voxels(**both, geometry=self.geometry)

    @property
    def pixel_mm2(self) -> float:
        return self.geometry.spacing_mm[0] * self.geometry.spacing_mm[1]


@dataclass(frozen=True)
class Piece:
    """One vertebral body or disc, or a part of one."""

    label: int
    """Value in the instance array."""
    centroid_mm: tuple[float, float, float]
    """LPS."""
    volume_cm3: float
    """Every section counts for half the way to the next section of the piece on either side (`section_width_mm`)."""
    arc_mm: float
    extent_mm: float
    """Along the spine."""
    lateral_mm: float
    sagittal_mm: float
    """Offset of the centroid from the spine curve, across and in the sagittal plane."""
    sacral_share: float = 0.0
    """Share of voxels that the network called sacral."""
    area_cm2: float = 0.0
    """Largest section, on one sagittal slice: it does not depend on how many slices there are."""
    depth_mm: float = 0.0
    """Extent from front to back."""
    ap_mm: float = 0.0
    """Offset of the centroid across the curve, posterior positive."""

    @property
    def low_mm(self) -> float:
        return self.arc_mm - self.extent_mm / 2

    @property
    def high_mm(self) -> float:
        return self.arc_mm + self.extent_mm / 2


@dataclass(frozen=True)
class Changes:
    """What separation changed in a mask: numbers of pieces or voxels."""

    pieces_removed: int = 0
    """Pieces that are not spine."""
    removed_voxels: int = 0
    pieces_joined: int = 0
    """Parts joined to another part of their vertebra or disc."""
    pieces_separated: int = 0
    """Parts that touching vertebrae or discs were divided into, less one for each piece divided."""
    bridge_voxels: int = 0
    """Voxels of strips between neighbours, dropped."""
    crack_voxels: int = 0
    """Voxels of the gaps inside broken vertebrae, filled."""


@dataclass(frozen=True, eq=False)
class Instances:
    """Separated structures of one class, from caudal to cranial."""

    labels: Labels
    """[slice, row, column]; value v is `pieces[v - 1]`."""
    pieces: tuple[Piece, ...]
    boxes: tuple[tuple[slice, slice, slice], ...]
    """Bounding box of each piece."""
    changes: Changes = field(default_factory=Changes)

    def mask(self, label: int) -> Mask:
        """Mask of one piece within its box."""
        return np.asarray(self.labels[self.boxes[label - 1]] == label)

    def points_mm(self, label: int, geometry: StackGeometry) -> Floats:
        """[n, 3] LPS of the voxels of one piece; `geometry` is that of `labels`."""
        corner = np.array([edge.start for edge in self.boxes[label - 1]])
        return geometry.to_lps(np.argwhere(self.mask(label)) + corner)


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


def list_voxels(mask: Mask, geometry: StackGeometry, curve: SpineCurve, *, sacral: Mask | None = None) -> Voxels:
    """List the voxels of a mask [slice, row, column] with their place relative to the spine.

    Parameters
    ----------
    sacral : [slice, row, column] voxels that the network called sacral; None for none
    """
    at = np.flatnonzero(mask)
    lps = _lps(at, mask.shape, geometry)
    # The curve is smooth on the scale of centimetres: a grid of 1 mm of heights, interpolated, costs less than a
    # polynomial for each of 200,000 voxels.
    foot = curve.foot_z_mm(lps)
    grid = np.arange(foot.min() - 1, foot.max() + 2, 1.0) if len(foot) else np.zeros(2)
    on_curve, up = curve.point(grid), curve.tangent(grid)
    arc = np.interp(foot, grid, curve.arc_mm(on_curve)) if len(foot) else foot
    offset = np.stack([lps[:, axis] - np.interp(foot, grid, on_curve[:, axis]) for axis in range(3)], axis=-1)
    back = np.interp(foot, grid, up[:, 2]) * offset[:, 1] - np.interp(foot, grid, up[:, 1]) * offset[:, 2]
    called = np.zeros(len(at), dtype=bool) if sacral is None else sacral.ravel()[at]
    return Voxels(at, at // (mask.shape[1] * mask.shape[2]), lps, arc, offset, back, called, geometry)


def _lps(at: Ids, shape: tuple[int, ...], geometry: StackGeometry) -> Floats:
    k, row, column = np.unravel_index(at, shape)
    down, across = geometry.spacing_mm[0] * geometry.col_dir, geometry.spacing_mm[1] * geometry.row_dir
    return np.asarray(geometry.position_mm[k] + row[:, None] * down + column[:, None] * across)


def section_width_mm(seen: Mask, geometry: StackGeometry) -> Floats:
    """[piece, slice] width that each section of a piece stands for, mm; 0 where the piece is not seen.

    Half the way to the neighbouring sections of the same piece, whether a slice between was never stored or lost its
    mask; half the way to the next slice, or half the usual distance, beyond the outermost sections.

    Parameters
    ----------
    seen : [piece, slice] the piece has voxels there
    """
    at = np.abs(geometry.slice_distance_mm)
    usual = abs(geometry.slice_gap_mm)
    edge = np.concatenate([[at[0] - usual], at, [at[-1] + usual]])
    number = np.arange(len(at))
    before = np.maximum.accumulate(np.where(seen, number, -1), axis=1)
    after = np.minimum.accumulate(np.where(seen, number, len(at))[:, ::-1], axis=1)[:, ::-1]
    previous = np.pad(before, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
    following = np.pad(after, ((0, 0), (0, 1)), constant_values=len(at))[:, 1:]
    # Beyond an outermost section the next slice shows no more of the piece, wherever it lies: at most the usual gap.
    low = np.where(previous < 0, np.maximum(edge[number], at - usual), at[np.maximum(previous, 0)])
    high = np.where(
        following >= len(at), np.minimum(edge[number + 2], at + usual), at[np.minimum(following, len(at) - 1)]
    )
    return np.where(seen, (high - low) / 2, 0.0)


@dataclass(frozen=True, eq=False)
class Sections:
    """Sums over the voxels of every piece on every slice: what pieces are made of, and are joined by adding."""

    numbers: Ids
    """[piece]"""
    sums: Floats
    """[piece, slice, quantity] number of voxels, then `Voxels.quantities`."""
    geometry: StackGeometry

    def joined(self, keep: int, gone: int) -> Sections:
        """With the piece of number `gone` added to that of number `keep`."""
        at, other = np.searchsorted(self.numbers, [keep, gone])
        sums = self.sums.copy()
        sums[at] += sums[other]
        return replace(self, numbers=np.delete(self.numbers, other), sums=np.delete(sums, other, axis=0))

    def pieces(self) -> list[Piece]:
        """From caudal to cranial; number 0 is what was dropped."""
        count = self.sums[..., 0]
        width = section_width_mm(count > 0, self.geometry)
        weight = (count * width).sum(axis=1)
        mean = np.einsum("psq,ps->pq", self.sums, width) / weight[:, None]
        unit = self.geometry.spacing_mm[0] * self.geometry.spacing_mm[1]
        area = count.max(axis=1, initial=0) * unit / 100
        found = [
            _piece(int(number), mean[i].tolist(), float(weight[i] * unit / 1000), float(area[i]))
            for i, number in enumerate(self.numbers)
            if number > 0
        ]
        return sorted(found, key=lambda piece: piece.arc_mm)


def _piece(number: int, mean: list[float], volume_cm3: float, area_cm2: float) -> Piece:
    """A piece from the means of `Voxels.quantities`."""
    _, x, y, z, lateral, sagittal, arc, arc2, ap, ap2, share = mean
    return Piece(
        label=number,
        centroid_mm=(x, y, z),
        volume_cm3=volume_cm3,
        arc_mm=arc,
        extent_mm=max(12 * (arc2 - arc**2), 0.0) ** 0.5,
        lateral_mm=lateral,
        sagittal_mm=sagittal,
        sacral_share=share,
        area_cm2=area_cm2,
        depth_mm=max(12 * (ap2 - ap**2), 0.0) ** 0.5,
        ap_mm=ap,
    )


def sections(ids: Ids, listed: Voxels) -> Sections:
    """Sums by piece and slice for the numbering `ids` [n]."""
    numbers = np.flatnonzero(np.bincount(ids))
    n_slices = listed.geometry.n_slices
    row = np.searchsorted(numbers, np.arange(int(ids.max(initial=0)) + 1))[ids]
    # one voxel to a column: the product adds every voxel's quantities to its piece and slice, in one pass
    place = sparse.csc_array(
        (np.ones(len(ids)), row * n_slices + listed.slice_index, np.arange(len(ids) + 1)),
        shape=(len(numbers) * n_slices, len(ids)),
    )
    return Sections(numbers, (place @ listed.quantities).reshape(len(numbers), n_slices, QUANTITIES), listed.geometry)


def table(ids: Ids, listed: Voxels) -> list[Piece]:
    """Pieces of the numbering `ids` [n], from caudal to cranial; number 0 is what was dropped."""
    return sections(ids, listed).pieces()


def dropped(ids: Ids, gone: Sequence[Piece]) -> Ids:
    """`ids` [n] with the numbers of some pieces set to 0."""
    return renumbered(ids, {piece.label: 0 for piece in gone})


def changes(components: Ids, ids: Ids, *, pieces_removed: int, strips: int) -> Changes:
    """Compare the connected components of a mask with what became of them.

    Parameters
    ----------
    components, ids : [n] number of each voxel before and after; `ids` 0 is what was dropped
    strips : voxels among the dropped that were strips between neighbours
    """
    pairs = shared(components, ids)
    n_components, n_ids = (len(np.unique(pairs[:, column])) for column in (0, 1))
    return Changes(
        pieces_removed=pieces_removed,
        removed_voxels=int(np.count_nonzero(ids == 0)) - strips,
        pieces_joined=len(pairs) - n_ids,
        pieces_separated=len(pairs) - n_components,
        bridge_voxels=strips,
    )


def shared(components: Ids, ids: Ids) -> Ids:
    """[pair, (component, number)] connected components and the numbers above 0 that their voxels have."""
    width = int(ids.max(initial=0)) + 1
    keys = np.flatnonzero(np.bincount(components * width + ids))
    pairs = np.stack([keys // width, keys % width], axis=1)
    return np.asarray(pairs[pairs[:, 1] > 0])


def renumbered(ids: Ids, new: Mapping[int, int]) -> Ids:
    """`ids` [n] with some numbers replaced."""
    place = np.arange(int(ids.max(initial=0)) + 1)
    for old, number in new.items():
        place[old] = number
    return np.asarray(place[ids], dtype=np.int64)


def ordered(ids: Ids, listed: Voxels, shape: tuple[int, ...], changes: Changes) -> Instances:
    """Instances of the numbering `ids` [n], numbered from caudal to cranial."""
    found = table(ids, listed)
    labels = np.zeros(shape, dtype=np.uint8)
    place = {piece.label: number for number, piece in enumerate(found, start=1)}
    labels.ravel()[listed.at] = renumbered(ids, place)
    return Instances(
        labels,
        tuple(replace(piece, label=place[piece.label]) for piece in found),
        tuple(ndimage.find_objects(labels)),
        changes,
    )


def across_spine(curve: SpineCurve, piece: Piece, geometry: StackGeometry, length_mm: float) -> Element:
    """Line [row, column] of ones from front to back at a piece: the element that opens strips away."""
    up = curve.tangent(curve.foot_z_mm(np.array(piece.centroid_mm)))
    return _line(np.array([up[1], up[2]]), geometry, length_mm)


def along_spine(curve: SpineCurve, piece: Piece, geometry: StackGeometry, length_mm: float) -> Element:
    """Line [row, column] of ones up the spine at a piece: the element that closes cracks."""
    up = curve.tangent(curve.foot_z_mm(np.array(piece.centroid_mm)))
    return _line(np.array([-up[2], up[1]]), geometry, length_mm)


def _line(direction: Floats, geometry: StackGeometry, length_mm: float) -> Element:
    reach = direction * length_mm / 2 / np.array(geometry.spacing_mm)
    half = np.ceil(np.abs(reach)).astype(int)
    kernel = np.zeros(2 * half + 1, dtype=np.uint8)
    ends = [(round(half[1] + sign * reach[1]), round(half[0] + sign * reach[0])) for sign in (-1, 1)]
    return np.asarray(cv2.line(kernel, ends[0], ends[1], 1), dtype=np.uint8)
