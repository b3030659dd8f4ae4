"""Where the voxels of a stack lie: DICOM LPS, millimetres.

Index order is (slice, row, column) everywhere. DICOM calls the direction of increasing column index the *row* direction
(the first three values of ImageOrientationPatient, PS3.3 C.7.6.2.1.1); the names here follow DICOM.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class StackGeometry:
    """Grid of one stack: parallel slices of one in-plane grid, ordered along their normal."""

    position_mm: Floats
    """[slice, 3] centre of the first voxel of each slice (ImagePositionPatient), LPS mm."""
    row_dir: Floats
    """[3] unit vector of increasing column index."""
    col_dir: Floats
    """[3] unit vector of increasing row index."""
    spacing_mm: tuple[float, float]
    """(between rows, between columns), as DICOM PixelSpacing."""
    shape: tuple[int, int]
    """(rows, columns)."""
    thickness_mm: float
    """Nominal slice thickness."""

    @property
    def n_slices(self) -> int:
        return len(self.position_mm)

    @cached_property
    def normal(self) -> Floats:
        """[3] unit vector row_dir x col_dir."""
        return np.cross(self.row_dir, self.col_dir)

    @cached_property
    def slice_distance_mm(self) -> Floats:
        """[slice] signed distance of each slice from the first along the normal, mm."""
        return np.asarray((self.position_mm - self.position_mm[0]) @ self.normal, dtype=np.float64)

    @property
    def slice_gap_mm(self) -> float:
        """Median distance between neighbouring slice centres, signed along the normal; thickness if only one slice."""
        if self.n_slices < 2:
            return float(self.thickness_mm)
        return float(np.median(np.diff(self.slice_distance_mm)))

    @property
    def affine(self) -> Floats:
        """[4, 4] maps (slice, row, column, 1) to LPS mm within `affine_error_mm`: exact for evenly spaced slices.

        The slice column is the mean step from first to last position, so sheared stacks stay exact as well. Where a
        slice is missing or spacing is uneven only `to_lps` is right.
        """
        affine = np.eye(4)
        steps = max(self.n_slices - 1, 1)
        along = self.position_mm[-1] - self.position_mm[0] if self.n_slices > 1 else self.normal * self.thickness_mm
        affine[:3, 0] = along / steps
        affine[:3, 1] = self.col_dir * self.spacing_mm[0]
        affine[:3, 2] = self.row_dir * self.spacing_mm[1]
        affine[:3, 3] = self.position_mm[0]
        return affine

    @property
    def affine_error_mm(self) -> float:
        """Largest distance between where a slice lies and where `affine` puts it, mm, rounded to 1 um."""
        affine = self.affine
        by_affine = affine[:3, 3] + np.arange(self.n_slices)[:, None] * affine[:3, 0]
        return round(float(np.max(np.linalg.norm(by_affine - self.position_mm, axis=1))), 3)

    def to_lps(self, index: npt.ArrayLike) -> Floats:
        """Map (slice, row, column) indices [..., 3], fractional allowed, to LPS mm [..., 3].

        Slice positions are interpolated from `position_mm`, so uneven gaps are kept; before the first and behind the
        last slice they go on with the median gap.
        """
        at = np.asarray(index, dtype=np.float64)
        in_plane = at[..., 1:2] * self.spacing_mm[0] * self.col_dir + at[..., 2:3] * self.spacing_mm[1] * self.row_dir
        return np.asarray(self._slice_origin_mm(at[..., 0]) + in_plane, dtype=np.float64)

    def to_index(self, point_mm: npt.ArrayLike) -> Floats:
        """Map LPS points [..., 3] in mm to fractional (slice, row, column) [..., 3]; the inverse of `to_lps`."""
        points = np.asarray(point_mm, dtype=np.float64)
        distance = (points - self.position_mm[0]) @ self.normal
        k = self._slice_index(np.atleast_1d(distance)).reshape(distance.shape)
        offset = points - self._slice_origin_mm(k)
        row = offset @ self.col_dir / self.spacing_mm[0]
        column = offset @ self.row_dir / self.spacing_mm[1]
        return np.stack([k, row, column], axis=-1)

    def _slice_step_mm(self) -> Floats:
        """[3] step from slice to slice beyond the ends: the median gap along the line of the slice positions."""
        if self.n_slices < 2:
            return self.normal * self.slice_gap_mm
        along = self.position_mm[-1] - self.position_mm[0]
        return np.asarray(along * (self.slice_gap_mm / float(along @ self.normal)), dtype=np.float64)

    def _slice_origin_mm(self, k: Floats) -> Floats:
        """[..., 3] centre of the first voxel of the fractional slices `k` [...]."""
        slices = np.arange(self.n_slices)
        known = np.stack([np.interp(k, slices, self.position_mm[:, axis]) for axis in range(3)], axis=-1)
        beyond = k - np.clip(k, 0, self.n_slices - 1)
        return np.asarray(known + beyond[..., None] * self._slice_step_mm(), dtype=np.float64)

    def _slice_index(self, distance: Floats) -> Floats:
        known = self.slice_distance_mm
        gap = self.slice_gap_mm
        if self.n_slices == 1:
            return np.asarray(distance / gap, dtype=np.float64)
        order = np.sign(gap) or 1.0
        k = np.interp(distance * order, known * order, np.arange(self.n_slices))
        before = np.minimum((distance - known[0]) / gap, 0.0)
        behind = np.maximum((distance - known[-1]) / gap, 0.0)
        return np.asarray(k + before + behind, dtype=np.float64)
