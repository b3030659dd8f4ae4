"""Distance between the surfaces of two masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_erosion, distance_transform_edt, generate_binary_structure

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SurfaceDistance:
    """How far two outlines are from each other."""

    mean_mm: float
    """Mean over both surfaces of the distance to the other."""
    p95_mm: float
    """95th percentile Hausdorff distance: the larger of the 95th percentiles of the two directions."""


def surface_distance(found: Mask, truth: Mask, spacing_mm: Sequence[float]) -> SurfaceDistance | None:
    """Distances between the boundary voxels of two masks of one shape; None if either is empty.

    Parameters
    ----------
    found, truth : [row, column] or [slice, row, column]
    spacing_mm : distance of neighbouring voxels along each axis; a voxel at the edge of the array is boundary
    """
    if not found.any() or not truth.any():
        return None
    box = _box(found | truth)
    a, b = _surface(found[box]), _surface(truth[box])
    there, back = (distance_transform_edt(~other, sampling=spacing_mm)[one] for one, other in ((a, b), (b, a)))
    p95 = max(float(np.percentile(distances, 95)) for distances in (there, back))
    return SurfaceDistance(float(np.concatenate([there, back]).mean()), p95)


def _box(mask: Mask) -> tuple[slice, ...]:
    corners = np.argwhere(mask)
    return tuple(slice(low, high + 1) for low, high in zip(corners.min(axis=0), corners.max(axis=0), strict=True))


def _surface(mask: Mask) -> Mask:
    """True voxels with a face towards what is not true."""
    return np.asarray(mask & ~binary_erosion(mask, generate_binary_structure(mask.ndim, 1)), dtype=bool)
