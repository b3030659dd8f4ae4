"""Distance between the surfaces of two masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_erosion, distance_transform_edt, generate_binary_structure
from scipy.spatial import KDTree

from cohort.geometry import Floats

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
    return _summed_up(there, back)


def outline_distance(first_mm: Sequence[Floats], second_mm: Sequence[Floats]) -> SurfaceDistance | None:
    """Distances between the outlines that two readers drew of one structure; None where either has none.

    An outline is drawn on slices, so its points are those of the edges in the planes of the slices (`outline`): the
    ends of a structure, where whole sections would be surface, and slices that nobody looked at, are none.

    Parameters
    ----------
    first_mm, second_mm : for each stack [n, 3] points, LPS mm. Points look for the nearest one in their own stack, in
        another one only where theirs has none: stacks may lie across each other
    """
    everything = [np.concatenate(points) if points else np.zeros((0, 3)) for points in (first_mm, second_mm)]
    if not all(len(points) for points in everything):
        return None
    return _summed_up(_nearest_mm(first_mm, second_mm, everything[1]), _nearest_mm(second_mm, first_mm, everything[0]))


def outline(mask: Mask) -> npt.NDArray[np.int64]:
    """[n, 3] indices of the voxels of a mask [slice, row, column] with a side in the slice's plane towards what is not
    in it; the edge of the array is such a side."""
    cross = generate_binary_structure(3, 1)
    cross[[0, 2]] = False
    return np.argwhere(mask & ~binary_erosion(mask, cross))


def _nearest_mm(points: Sequence[Floats], others: Sequence[Floats], everything: Floats) -> Floats:
    """[n] distance of each point to the nearest of the other outline."""
    return np.concatenate([
        KDTree(other if len(other) else everything).query(one)[0]
        for one, other in zip(points, others, strict=True)
        if len(one)
    ])  # fmt: skip


def _summed_up(there: Floats, back: Floats) -> SurfaceDistance:
    p95 = max(float(np.percentile(distances, 95)) for distances in (there, back))
    return SurfaceDistance(float(np.concatenate([there, back]).mean()), p95)


def _box(mask: Mask) -> tuple[slice, ...]:
    corners = np.argwhere(mask)
    return tuple(slice(low, high + 1) for low, high in zip(corners.min(axis=0), corners.max(axis=0), strict=True))


def _surface(mask: Mask) -> Mask:
    """True voxels with a face towards what is not true."""
    return np.asarray(mask & ~binary_erosion(mask, generate_binary_structure(mask.ndim, 1)), dtype=bool)
