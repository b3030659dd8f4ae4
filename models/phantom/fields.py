"""Small numerical pieces of the phantom: smooth random fields, ellipsoids and capsules at arbitrary points."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, map_coordinates

Array = npt.NDArray[np.float32]

_SIZE = 48


_CHUNK = 32


@dataclass(frozen=True, eq=False)
class Cloud:
    """Points in space that answer quickly which of them lie near a centre."""

    points: Array
    """[n, 3] LPS mm; neighbours in the list should be neighbours in space."""

    @cached_property
    def _bounds(self) -> tuple[Array, Array]:
        padding = -len(self.points) % _CHUNK
        chunks = np.concatenate([self.points, np.repeat(self.points[-1:], padding, axis=0)]).reshape(-1, _CHUNK, 3)
        # contiguous [3, chunk]: each axis is compared on its own, most chunks fall at the first
        return np.ascontiguousarray(chunks.min(axis=1).T), np.ascontiguousarray(chunks.max(axis=1).T)

    @cached_property
    def _box(self) -> tuple[Array, Array]:
        low, high = self._bounds
        return low.min(axis=1), high.max(axis=1)

    def near(self, centre: npt.ArrayLike, radius: float) -> npt.NDArray[np.intp]:
        """Indices of points within a cube of half-width `radius` around `centre`."""
        middle = np.asarray(centre, dtype=np.float32)
        start, stop = middle - radius, middle + radius
        if (self._box[0] >= stop).any() or (self._box[1] <= start).any():
            return np.zeros(0, np.intp)
        chunks = np.arange(len(self._bounds[0][0]))
        for low, high, a, b in zip(*self._bounds, start, stop, strict=True):
            chunks = chunks[(low[chunks] < b) & (high[chunks] > a)]
        index = (chunks[:, None] * _CHUNK + np.arange(_CHUNK)).ravel()
        index = index[index < len(self.points)]
        for axis in range(3):
            index = index[np.abs(self.points[index, axis] - middle[axis]) < radius]
        return np.asarray(index)


def periodic_noise(seed: int, stream: int, *, sigma: float = 1.5) -> Array:
    """[48, 48, 48] smooth periodic field of mean 0 and standard deviation 1; `sigma` in cells."""
    rng = np.random.default_rng([seed, 2, stream])
    field = gaussian_filter(rng.standard_normal((_SIZE, _SIZE, _SIZE), dtype=np.float32), sigma, mode="wrap")
    return np.asarray((field - field.mean()) / field.std(), dtype=np.float32)


def at_points(field: Array, points: Array, cell_mm: tuple[float, float, float]) -> Array:
    """Look up a periodic field at points [n, 3] (nearest cell); `cell_mm` is the size of a cell along x, y, z."""
    index = np.floor(points / np.asarray(cell_mm, dtype=np.float32)).astype(np.int32) % _SIZE
    return field[index[:, 0], index[:, 1], index[:, 2]]


def between_points(field: Array, points: Array, cell_mm: tuple[float, float, float]) -> Array:
    """Like `at_points`, interpolated linearly: for outlines that would otherwise show the cells."""
    index = (points / np.asarray(cell_mm, dtype=np.float32)).T
    return np.asarray(map_coordinates(field, index, order=1, mode="grid-wrap"), dtype=np.float32)


def smooth_line(rng: np.random.Generator, n: int, knots: int, amplitude: float) -> Array:
    """[n] smooth random curve through `knots` normal values."""
    values = rng.normal(0, amplitude, knots)
    return np.interp(np.linspace(0, knots - 1, n), np.arange(knots), values).astype(np.float32)


def capsule(points: Array, ends: npt.ArrayLike, radii: npt.ArrayLike) -> Array:
    """[n] normalised distance of points [n, 3] to the segment `ends` [2, 3] with radii [3]: below 1 inside, inf far
    away."""
    segment, reach = np.asarray(ends, dtype=np.float32), np.asarray(radii, dtype=np.float32)
    low, high = segment.min(axis=0) - reach, segment.max(axis=0) + reach
    distance = np.full(len(points), np.inf, np.float32)
    index = np.nonzero((points[:, 0] > low[0]) & (points[:, 0] < high[0]))[0]
    for axis in (1, 2):
        along = points[index, axis]
        index = index[(along > low[axis]) & (along < high[axis])]
    if not len(index):
        return distance
    start, stop = segment / reach
    q = points[index] / reach - start
    axis = stop - start
    length = float(axis @ axis)
    if length > 0:
        q -= np.clip(q @ axis / length, 0, 1)[:, None] * axis
    distance[index] = np.sqrt(np.einsum("ij,ij->i", q, q))
    return distance


def smooth_minimum(a: Array, b: Array, radius: float) -> Array:
    """Minimum of two distances whose edge is rounded by about `radius`."""
    h = np.maximum(radius - np.abs(a - b), 0) / radius
    return np.asarray(np.minimum(a, b) - 0.25 * radius * h * h, dtype=np.float32)
