"""Do outlines follow the picture? A mask on the right grid may still hold a mirrored or shifted drawing.

Outlines of bodies, discs and muscles lie on edges of the picture. The mean gradient under the outlines, as they are, is
compared with that under the same outlines mirrored about the middle of the picture or moved by up to `REACH_MM`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.ndimage import gaussian_gradient_magnitude

from cohort.geometry import Floats
from cohort.stacks import ImageStack, Labels

REACH_MM: Final = 12.0
"""Shifts that are tried: less than half the distance of two discs, which look alike."""
TOLERATED_MM: Final = 2.5
"""Shifts up to this are no doubt: outlines of people lie inside or outside an edge by a pixel or two."""
LEAST_PIXELS: Final = 2000
"""Of outlines in a stack; fewer say nothing. Own choice: the bodies of two slices have about 3000."""


@dataclass(frozen=True)
class Following:
    """Where outlines would follow the picture best if they were mirrored or shifted."""

    gain: float
    """Mean gradient there over the best within `TOLERATED_MM` of where they are."""
    mirrored: tuple[str, ...]
    """Axes to be reversed: rows, columns."""
    shift_mm: tuple[float, float]
    """Along rows and columns, after mirroring."""
    n_pixels: int
    """Of outlines."""


def best_elsewhere(stack: ImageStack, mask: Labels, slices: Sequence[int]) -> Following | None:
    """Find where else the outlines of a mask [slice, row, column] on some slices follow the picture best.

    Returns
    -------
    None where there are too few outlines, or the picture is flat
    """
    edges = [_edges(mask[k]) for k in slices]
    n_pixels = sum(int(edge.sum()) for edge in edges)
    gradients = [_gradient(stack.image[k]) for k in slices]
    spacing = stack.geometry.spacing_mm
    if n_pixels < LEAST_PIXELS or not any(gradient.any() for gradient in gradients):
        return None
    here = 0.0
    elsewhere: tuple[float, tuple[str, ...], tuple[float, float]] = (0.0, (), (0.0, 0.0))
    for down, across in product((False, True), repeat=2):
        turned = [edge[:: -1 if down else 1, :: -1 if across else 1] for edge in edges]
        score = _scores(turned, gradients, spacing)
        away = _shifts_mm(score.shape, spacing)
        near = np.linalg.norm(away, axis=-1) <= TOLERATED_MM
        axes = tuple(axis for axis, flipped in (("rows", down), ("columns", across)) if flipped)
        if not axes:
            here = float(score[near].max())
            score = np.where(near, 0.0, score)
        top = np.unravel_index(int(score.argmax()), score.shape)
        elsewhere = max(elsewhere, (float(score[top]), axes, (float(away[top][0]), float(away[top][1]))))
    return Following(round(elsewhere[0] / here, 3), elsewhere[1], elsewhere[2], n_pixels) if here > 0 else None


def _shifts_mm(shape: Sequence[int], spacing: Sequence[float]) -> Floats:
    """[row shift, column shift, 2] mm of the entries of `_scores`."""
    axes = [(np.arange(size) - size // 2) * mm for size, mm in zip(shape, spacing, strict=True)]
    return np.asarray(np.round(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1), 2), dtype=np.float64)


def _edges(mask: Labels) -> npt.NDArray[np.bool_]:
    """Pixels on both sides of where the label changes, so that a mirror image has the mirrored outlines."""
    edge = np.zeros(mask.shape, bool)
    down, across = mask[:-1] != mask[1:], mask[:, :-1] != mask[:, 1:]
    edge[:-1] |= down
    edge[1:] |= down
    edge[:, :-1] |= across
    edge[:, 1:] |= across
    return edge


def _gradient(image: npt.NDArray[np.uint16]) -> Floats:
    """Gradient of the picture, at most three times its median where there is any: bright skin must not decide."""
    steep = np.asarray(gaussian_gradient_magnitude(image.astype(np.float64), 1.0))
    usual = float(np.median(steep[steep > 0])) if np.any(steep > 0) else 0.0
    return np.asarray(np.minimum(steep, 3 * usual), dtype=np.float64)


def _scores(edges: Sequence[npt.NDArray[np.bool_]], gradients: Sequence[Floats], spacing: Sequence[float]) -> Floats:
    """[row shift, column shift] mean gradient under the outlines, the middle being no shift."""
    reach = [max(1, int(REACH_MM / mm)) for mm in spacing]
    shape = [next_fast_len(size + 2 * r) for size, r in zip(edges[0].shape, reach, strict=True)]
    total = np.zeros([2 * r + 1 for r in reach])
    rows, columns = (np.arange(-r, r + 1) % size for r, size in zip(reach, shape, strict=True))
    for edge, gradient in zip(edges, gradients, strict=True):
        product_ = rfft2(gradient, shape) * np.conj(rfft2(edge.astype(np.float64), shape))
        total += irfft2(product_, shape)[np.ix_(rows, columns)]
    return np.asarray(total / sum(int(edge.sum()) for edge in edges), dtype=np.float64)
