"""Bring stacks into one standing order without resampling, and back.

Sagittal: slices from the patient's right to left, rows from head to feet, columns from front to back. Axial: slices
from feet to head, rows from front to back, columns from the patient's right to left (right of the patient on the
left of the image, the radiological convention). Only axes are swapped and reversed, so every voxel keeps its value
and its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cohort.geometry import Floats, StackGeometry
from cohort.stacks import Plane

STANDING_AXES: dict[Plane, Floats] = {
    "sagittal": np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]),
    "axial": np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]),
}
"""[slice, row, column][LPS] wanted direction of each increasing index."""


@dataclass(frozen=True)
class Orientation:
    """Swap of rows and columns, then reversals, that bring a stack into standing order."""

    swap: bool
    """Rows and columns change places (first)."""
    flip: tuple[bool, bool, bool]
    """Reverse slices, rows, columns (after the swap)."""

    def apply(self, volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """View of a native volume [slice, row, column] in standing order."""
        turned = volume.transpose(0, 2, 1) if self.swap else volume
        return turned[tuple(slice(None, None, -1 if flip else 1) for flip in self.flip)]

    def restore(self, volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Inverse of `apply`, as a contiguous array."""
        turned = volume[tuple(slice(None, None, -1 if flip else 1) for flip in self.flip)]
        return np.ascontiguousarray(turned.transpose(0, 2, 1) if self.swap else turned)

    def native_slice(self, index: int, *, n_slices: int) -> int:
        """Slice index of the stored stack for a slice index in standing order."""
        return n_slices - 1 - index if self.flip[0] else index

    def geometry(self, native: StackGeometry) -> StackGeometry:
        """Geometry of the stack in standing order."""
        row_dir, col_dir = native.row_dir, native.col_dir
        spacing, shape = native.spacing_mm, native.shape
        if self.swap:
            row_dir, col_dir = col_dir, row_dir
            spacing, shape = (spacing[1], spacing[0]), (shape[1], shape[0])
        position = native.position_mm[::-1] if self.flip[0] else native.position_mm
        if self.flip[1]:
            position = position + (shape[0] - 1) * spacing[0] * col_dir
            col_dir = -col_dir
        if self.flip[2]:
            position = position + (shape[1] - 1) * spacing[1] * row_dir
            row_dir = -row_dir
        return StackGeometry(np.array(position), row_dir, col_dir, spacing, shape, native.thickness_mm)


def standing_order(geometry: StackGeometry, plane: Plane) -> Orientation:
    """Find the swap and reversals that bring a stack of this plane into standing order."""
    slice_axis, row_axis, column_axis = STANDING_AXES[plane]
    kept = abs(geometry.col_dir @ row_axis) + abs(geometry.row_dir @ column_axis)
    swapped = abs(geometry.row_dir @ row_axis) + abs(geometry.col_dir @ column_axis)
    swap = bool(swapped > kept)
    along_rows, along_columns = (geometry.row_dir, geometry.col_dir) if swap else (geometry.col_dir, geometry.row_dir)
    across = geometry.position_mm[-1] - geometry.position_mm[0]
    flip = (bool(across @ slice_axis < 0), bool(along_rows @ row_axis < 0), bool(along_columns @ column_axis < 0))
    return Orientation(swap, flip)


def crop_box(
    mask: npt.NDArray[np.bool_], *, margin: int, within: tuple[slice, slice] | None = None
) -> tuple[slice, slice]:
    """Rows and columns that hold every true voxel of [slice, row, column], widened by `margin` pixels but not beyond
    `within`, the whole array if None; empty if there are none there."""
    bounds = within or (slice(0, mask.shape[1]), slice(0, mask.shape[2]))
    flat: npt.NDArray[np.bool_] = np.any(mask, axis=0)[bounds]
    rows, columns = (np.flatnonzero(flat.any(axis=axis)) for axis in (1, 0))
    return _widened(rows, bounds[0], margin), _widened(columns, bounds[1], margin)


def _widened(found: npt.NDArray[np.intp], bound: slice, margin: int) -> slice:
    """From the first to the last of `found` (counted from the start of `bound`), widened within it."""
    if not len(found):
        return slice(0, 0)
    first, last = int(found[0]) + bound.start, int(found[-1]) + bound.start
    return slice(max(first - margin, bound.start), min(last + 1 + margin, bound.stop))


def shown_box(image: npt.NDArray[Any], mask: npt.NDArray[np.bool_] | None = None) -> tuple[slice, slice]:
    """Rows and columns of [slice, row, column] that are not zero throughout the stack, or hold a voxel of `mask`:
    scanners pad rectangular fields of view. The whole of a picture without any signal."""
    shown = image.max(axis=0) > 0
    if not shown.any():
        return slice(0, shown.shape[0]), slice(0, shown.shape[1])
    return crop_box((shown if mask is None else shown | mask.any(axis=0))[None], margin=0)


def cropped(geometry: StackGeometry, box: tuple[slice, slice]) -> StackGeometry:
    """Geometry of the rows and columns `box` of a stack."""
    rows, columns = box
    shift = rows.start * geometry.spacing_mm[0] * geometry.col_dir
    shift = shift + columns.start * geometry.spacing_mm[1] * geometry.row_dir
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    return StackGeometry(
        geometry.position_mm + shift,
        geometry.row_dir,
        geometry.col_dir,
        geometry.spacing_mm,
        shape,
        geometry.thickness_mm,
    )
