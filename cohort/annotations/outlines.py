"""Outlines drawn in pixels to masks.

Convention: the centre of the pixel in row r and column c is at (x, y) = (c, r), as DICOM counts pixels of an image; the
first pixel reaches from -0.5 to 0.5. A pixel belongs to an outline if its centre is inside or on it, so the outline of
a mask through its outermost pixel centres (what MD.ai keeps of a mask, and OpenCV finds) gives the mask back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from skimage.measure import grid_points_in_poly

from cohort.errors import RefusedError
from cohort.geometry import Floats

AMBIGUOUS: Final = 0.05
"""Part of the area that may depend on how a crossing outline is read (own choice): a loop where a line drawn by hand
closes is smaller, a figure of eight is not."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Doubt:
    """Something about a shape that its row tells although it is used."""

    reason: str
    value: float
    limit: float


def fill(
    foreground: Sequence[Floats], background: Sequence[Floats], shape: tuple[int, int]
) -> tuple[Mask, list[Doubt]]:
    """Mask of what is inside outlines and not inside the outlines of holes.

    Parameters
    ----------
    foreground, background : outlines [vertex, (x, y)] in pixels, open or closed; of holes the inside alone is taken
        away, their line belongs to the foreground. An island in a hole is one more foreground.
    shape : (rows, columns)

    Returns
    -------
    [row, column], and doubts about the shape: `polygon_crosses_itself`, `annotation_outside`

    Raises
    ------
    RefusedError
        `annotation_malformed` for coordinates that are none, `annotation_outside` for those farther away than the image
        is large, `polygon_crosses_itself` where the area is ambiguous,
        `annotation_empty` where no pixel's centre is inside
    """
    depth = np.zeros(shape, np.int16)
    doubts: list[Doubt] = []
    for outlines, sign in ((foreground, 1), (background, -1)):
        for outline in outlines:
            points = _checked(outline)
            beyond = _beyond(points, shape)
            if beyond > max(shape):
                raise RefusedError("annotation_outside", f"{beyond:.0f} pixels beyond the image")
            doubts += _crossing(points)
            box, inside = _inside(points, shape, edge=sign > 0)
            depth[box] += sign * inside.astype(np.int16)
            doubts += [Doubt("annotation_outside", round(beyond, 2), 0.5)] if beyond > 0.5 else []
    mask = depth > 0
    if not mask.any():
        raise RefusedError("annotation_empty", "no pixel's centre is inside the outline")
    return mask, doubts


def area(outline: Floats) -> float:
    """Signed area inside an outline [vertex, (x, y)], pixels (the surveyor's formula)."""
    x, y = np.asarray(outline, dtype=np.float64).T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def crosses_itself(outline: Floats) -> bool:
    """Whether two sides of a closed outline [vertex, (x, y)] cross in their inside; touching is no crossing."""
    ends = np.roll(outline, -1, axis=0)
    with_each = _side(outline[:, None], ends[:, None], outline[None]) * _side(
        outline[:, None], ends[:, None], ends[None]
    )
    return bool(np.any((with_each < 0) & (with_each.T < 0)))


def _side(a: Floats, b: Floats, point: Floats) -> Floats:
    """Sign of the side of the line from a to b on which a point lies."""
    ab, ap = b - a, point - a
    return np.sign(ab[..., 0] * ap[..., 1] - ab[..., 1] * ap[..., 0])


def _checked(outline: Floats) -> Floats:
    points = np.asarray(outline, dtype=np.float64)
    if points.ndim != 2 or points.shape[1:] != (2,) or not np.isfinite(points).all():
        raise RefusedError("annotation_malformed", "an outline is a list of (x, y)")
    moved = np.any(points != np.roll(points, 1, axis=0), axis=1)
    return points[moved] if moved.any() else points[:1]


def _crossing(points: Floats) -> list[Doubt]:
    """The part of the area that is ambiguous: what winding counts twice or against itself."""
    if len(points) < 4 or not crosses_itself(points):
        return []
    low = np.floor(points.min(axis=0))
    span = np.ceil(points.max(axis=0)) - low
    fine = max(1.0, 64.0 / max(float(span.max()), 1.0))
    raster = grid_points_in_poly(tuple((span[::-1] * fine).astype(int) + 1), ((points - low) * fine)[:, ::-1])
    parity = float(np.count_nonzero(raster)) / fine**2
    part = abs(parity - abs(area(points))) / max(parity, 1e-9)
    if part > AMBIGUOUS:
        raise RefusedError("polygon_crosses_itself", f"{part:.0%} of its area is ambiguous; tolerated: {AMBIGUOUS:.0%}")
    return [Doubt("polygon_crosses_itself", round(part, 3), AMBIGUOUS)]


def _inside(points: Floats, shape: tuple[int, int], *, edge: bool) -> tuple[tuple[slice, slice], Mask]:
    """Pixels with their centre inside, and on the line where `edge`; only the part around the outline is looked at."""
    low = np.clip(np.floor(points.min(axis=0)), 0, np.array(shape[::-1])).astype(int)
    high = np.clip(np.ceil(points.max(axis=0)) + 1, low, np.array(shape[::-1])).astype(int)
    box = slice(low[1], high[1]), slice(low[0], high[0])
    size = (int(high[1] - low[1]), int(high[0] - low[0]))
    if 0 in size:
        return box, np.zeros(size, bool)
    kinds = grid_points_in_poly(size, (points - low)[:, ::-1], binarize=False)  # 1 inside, 2 vertex, 3 edge
    return box, np.asarray(kinds > 0 if edge else kinds == 1)


def _beyond(points: Floats, shape: tuple[int, int]) -> float:
    """How far outside the image's outermost pixel centres an outline goes, pixels."""
    last = np.array([shape[1] - 1, shape[0] - 1])
    return float(max(-points.min(), (points - last).max(), 0.0))
