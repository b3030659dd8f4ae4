"""Where the voxels of a mask lie in a stack: exact grids only, with axes in any order and any direction.

Masks are never resampled. Where a mask does not fit, the refusal says by how much and along which axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cohort.errors import RefusedError
from cohort.geometry import Floats, StackGeometry

TOLERANCE: Final = 0.25
"""Largest distance of a voxel's centre from that of the stack's voxel, in voxels along each axis. Own choice: the
nearest voxel is beyond doubt, and a shift by half a pixel, as between corners and centres, is found."""
AXES: Final = ("slice", "row", "column")
RAS_TO_LPS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])
"""NIfTI's x runs to the patient's right and y to the front, DICOM's to the left and to the back."""

Orders = tuple[int, int, int]
Flips = tuple[bool, bool, bool]


class MisplacedError(RefusedError):
    """A mask that does not lie on the grid of a stack.

    Parameters
    ----------
    reason : mask_grid_differs, mask_shifted or mask_mirrored
    detail : what was seen, with numbers and axes
    offset_mm : largest distance between a voxel of the mask and the stack's voxel, along the worst axis
    limit_mm : what is tolerated along that axis
    """

    def __init__(self, reason: str, detail: str, *, offset_mm: float | None, limit_mm: float | None) -> None:
        super().__init__(reason, detail)
        self.offset_mm = offset_mm
        self.limit_mm = limit_mm


@dataclass(frozen=True)
class Placement:
    """How a volume becomes an array [slice, row, column] of a stack: order of the axes, then reversals."""

    order: Orders
    """Axis of the volume that runs along the stack's slices, rows and columns."""
    flip: Flips
    """Reverse slices, rows, columns (after the ordering)."""
    offset_mm: float
    """Largest distance of a voxel's centre from that of the stack's voxel along one axis."""

    def apply(self, volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The volume as [slice, row, column] of the stack; every voxel keeps its value."""
        reversal = tuple(slice(None, None, -1 if flip else 1) for flip in self.flip)
        return np.ascontiguousarray(volume.transpose(self.order)[reversal])


@dataclass(frozen=True)
class FramePlacement:
    """How a picture becomes one slice of a stack."""

    slice: int
    swap: bool
    """Rows and columns change places (first)."""
    flip: tuple[bool, bool]
    """Reverse rows, columns (after the swap)."""
    offset_mm: float
    """Largest distance of a pixel's centre from that of the stack's voxel along one axis."""

    def apply(self, frame: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The picture as [row, column] of the stack; every pixel keeps its value."""
        turned = frame.T if self.swap else frame
        return np.ascontiguousarray(turned[:: -1 if self.flip[0] else 1, :: -1 if self.flip[1] else 1])


def place_volume(geometry: StackGeometry, affine: npt.ArrayLike, shape: Sequence[int]) -> Placement:
    """Find the order and directions of axes in which a volume is the grid of a stack.

    Parameters
    ----------
    geometry : grid of the stack
    affine : [4, 4] maps voxel indices of the volume to LPS mm (for NIfTI: `RAS_TO_LPS @ image.affine`)
    shape : of the volume, three axes

    Raises
    ------
    MisplacedError
        `mask_grid_differs`, `mask_shifted` or `mask_mirrored`: some voxel is further than `TOLERANCE` from its place
    """
    given = np.asarray(affine, dtype=np.float64)
    found = _nearest(geometry, given, tuple(shape))
    if found.fits:
        return found.placement
    raise _diagnosed(geometry, given, tuple(shape), found)


def place_frame(
    geometry: StackGeometry,
    position_mm: npt.ArrayLike,
    row_dir: npt.ArrayLike,
    col_dir: npt.ArrayLike,
    spacing_mm: tuple[float, float],
    shape: tuple[int, int],
) -> FramePlacement:
    """Find the slice of a stack that a picture with a place of its own lies on, and how its axes run.

    Parameters
    ----------
    geometry : grid of the stack
    position_mm, row_dir, col_dir, spacing_mm, shape : of the picture, as in `StackGeometry` (DICOM)

    Raises
    ------
    MisplacedError
        as `place_volume`; a picture between two slices is `mask_shifted`
    """
    across = np.asarray(row_dir, dtype=np.float64) * spacing_mm[1]
    down = np.asarray(col_dir, dtype=np.float64) * spacing_mm[0]
    origin = np.asarray(position_mm, dtype=np.float64)
    rows, columns = shape
    centre = origin + down * (rows - 1) / 2 + across * (columns - 1) / 2
    nearest = int(np.clip(np.rint(geometry.to_index(centre)[0]), 0, geometry.n_slices - 1))
    affine = np.eye(4)
    affine[:3] = np.stack([geometry.normal * geometry.thickness_mm, down, across, origin], axis=1)
    single = StackGeometry(
        geometry.position_mm[nearest : nearest + 1],
        geometry.row_dir,
        geometry.col_dir,
        geometry.spacing_mm,
        geometry.shape,
        # The limit along the normal is a part of the gap, also where slices overlap or lie apart.
        abs(geometry.slice_gap_mm),
    )
    try:
        whole = place_volume(single, affine, (1, rows, columns))
    except MisplacedError as error:
        detail = f"{error.detail}; slice {nearest}"
        raise MisplacedError(error.reason, detail, offset_mm=error.offset_mm, limit_mm=error.limit_mm) from error
    return FramePlacement(nearest, whole.order[1] == 2, (whole.flip[1], whole.flip[2]), whole.offset_mm)


@dataclass(frozen=True)
class _Fit:
    """The most likely placement, and how far it is off."""

    placement: Placement
    same_shape: bool
    off_mm: tuple[float, float, float]
    """Largest distance along slices, rows and columns."""
    shift_mm: tuple[float, float, float]
    """Mean signed distance along slices, rows and columns."""
    limit_mm: tuple[float, float, float]

    @property
    def fits(self) -> bool:
        return self.same_shape and all(off <= limit for off, limit in zip(self.off_mm, self.limit_mm, strict=True))

    @property
    def worst(self) -> int:
        """Axis with the largest distance, by its limit."""
        return int(np.argmax(np.array(self.off_mm) / np.array(self.limit_mm)))


def _nearest(geometry: StackGeometry, affine: Floats, shape: tuple[int, ...]) -> _Fit:
    """The order and directions that come nearest to the directions of the stack's axes, and what is left then."""
    steps = _unit(affine[:3, :3]).T @ _stack_axes(geometry)  # [axis of the volume, axis of the stack]
    a, b, c = max(permutations(range(3)), key=lambda axes: sum(abs(steps[axis, k]) for k, axis in enumerate(axes)))
    order = (a, b, c)
    flip = (bool(steps[a, 0] < 0), bool(steps[b, 1] < 0), bool(steps[c, 2] < 0))
    wanted = (geometry.n_slices, *geometry.shape)
    same_shape = tuple(shape[axis] for axis in order) == wanted
    off, shift = _distances(geometry, affine, shape, order, flip)
    limits = tuple(TOLERANCE * size for size in (abs(geometry.slice_gap_mm), *geometry.spacing_mm))
    placement = Placement(order, flip, float(off.max()))
    return _Fit(placement, same_shape, _triple(off), _triple(shift), (limits[0], limits[1], limits[2]))


def _distances(
    geometry: StackGeometry, affine: Floats, shape: tuple[int, ...], order: Orders, flip: Flips
) -> tuple[Floats, Floats]:
    """[axis] largest and mean signed distance between voxels of the volume and of the stack, along the stack's axes.

    Compared are the corners of every slice. The stack is taken as it lies or as its affine has it, whichever is nearer:
    a format with one affine cannot tell slices that lie unevenly.
    """
    sizes = [shape[axis] for axis in order]
    corners = [range(sizes[0]), (0, sizes[1] - 1), (0, sizes[2] - 1)]
    index = np.array(list(product(*corners)), dtype=np.float64)
    native = np.empty_like(index)
    for k, axis in enumerate(order):
        native[:, axis] = sizes[k] - 1 - index[:, k] if flip[k] else index[:, k]
    there = native @ affine[:3, :3].T + affine[:3, 3]
    mean_grid = index @ geometry.affine[:3, :3].T + geometry.affine[:3, 3]
    candidates = [(there - here) @ _stack_axes(geometry) for here in (geometry.to_lps(index), mean_grid)]
    best = min(candidates, key=lambda off: float(np.abs(off).max()))
    return np.abs(best).max(axis=0), best.mean(axis=0)


def _stack_axes(geometry: StackGeometry) -> Floats:
    """[LPS, axis] unit vectors of increasing slice, row and column."""
    along = geometry.normal * np.sign(geometry.slice_gap_mm)
    return np.stack([along, geometry.col_dir, geometry.row_dir], axis=1)


def _unit(columns: Floats) -> Floats:
    return np.asarray(columns / np.maximum(np.linalg.norm(columns, axis=0), 1e-12), dtype=np.float64)


def _triple(values: Floats) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])


def _diagnosed(geometry: StackGeometry, affine: Floats, shape: tuple[int, ...], found: _Fit) -> MisplacedError:
    """Say what is wrong: another grid, a mirror image, or a shift."""
    wanted = (geometry.n_slices, *geometry.shape)
    if sorted(shape) != sorted(wanted):
        return _refusal("mask_grid_differs", f"mask of {_by(shape)} voxels, stack of {_by(wanted)}", found)
    for signs in product((1, -1), repeat=3):
        mirrored = np.diag([*signs, 1.0]) @ affine
        if min(signs) < 0 and _nearest(geometry, mirrored, shape).fits:
            axes = " and ".join(axis for axis, sign in zip("xyz", signs, strict=True) if sign < 0)
            return _refusal(
                "mask_mirrored", f"fits once {axes} of LPS are reversed; {_shift(found)} off as it is", found
            )
    turn = _turn_deg(geometry, affine, found.placement)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)[list(found.placement.order)]
    own = (abs(geometry.slice_gap_mm), *geometry.spacing_mm)
    spread = np.abs(np.array(found.off_mm) - np.abs(found.shift_mm))
    if not found.same_shape or np.any(spread > found.limit_mm):
        voxels = f"voxels of {_by(np.round(sizes, 3))} mm, stack of {_by(np.round(own, 3))} mm"
        return _refusal("mask_grid_differs", f"turned by {turn:.1f} degrees, {voxels}", found)
    return _refusal("mask_shifted", f"{_shift(found)} off", found)


def _refusal(reason: str, detail: str, found: _Fit) -> MisplacedError:
    worst = found.worst
    limit = found.limit_mm[worst]
    detail = f"{detail}; tolerated: {limit:.2f} mm along {AXES[worst]}s"
    return MisplacedError(reason, detail, offset_mm=round(found.off_mm[worst], 3), limit_mm=round(limit, 3))


def _shift(found: _Fit) -> str:
    return ", ".join(
        f"{shift:+.2f} mm along {axis}s" for shift, axis in zip(found.shift_mm, AXES, strict=True) if abs(shift) > 0.005
    )


def _turn_deg(geometry: StackGeometry, affine: Floats, placement: Placement) -> float:
    """Largest angle between an axis of the volume and the axis of the stack it runs along."""
    axes = _unit(affine[:3, :3])[:, list(placement.order)]
    cosines = np.abs(np.sum(axes * _stack_axes(geometry), axis=0))
    return float(np.rad2deg(np.arccos(np.clip(cosines.min(), -1, 1))))


def _by(sizes: Sequence[Any] | npt.NDArray[Any]) -> str:
    return " x ".join(str(size) for size in sizes)
