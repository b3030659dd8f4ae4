"""Augmentation of a batch on its device: geometry, intensity, resolution, noise, contrast inversion.

A number for the batch or for a slice of it is drawn on the CPU, so that nothing waits for the device; fields of noise
are drawn there.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, interpolate

from models.training.annotated import BODY, CANAL, DISC, UNSURE, VERTEBRA

T1_LEVELS = {BODY: (0.45, 0.95), VERTEBRA: (0.45, 0.95), UNSURE: (0.45, 0.95), DISC: (0.2, 0.55), CANAL: (0.08, 0.35)}
"""Region -> range of its mean on T1 images whose fat is 1: marrow bright, disc at 0.4-0.8 of marrow (196 SPIDER T1
series have a ratio of 0.55 +- 0.11), cerebrospinal fluid dark."""


def augment(
    images: Tensor, masks: Tensor, crop_px: int, rng: np.random.Generator, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Augment a batch.

    Parameters
    ----------
    images : [batch, 1, row, column] normalised; masks : [batch, class, row, column] 0 or 1
    crop_px : side of the window that is kept, the same for the whole batch
    rng, generator : of numbers, and, on the batch's device, of noise; the only sources of randomness, so that a
        resumed training sees the same batches
    """
    images, masks = _window(*_affine(images, masks, rng), crop_px, rng)
    images = _gamma(images, rng)
    if rng.random() < 0.25:
        images = _coarser(images, rng)
    strength = _by_slice(rng.uniform(0, 0.05, len(images)), images)
    images = images + torch.randn(images.shape, generator=generator, device=images.device) * strength
    if rng.random() < 0.08:
        top = images.max() * 0.6
        images = top - images.minimum(top)
    return images, masks


def recolour(images: Tensor, regions: Tensor, rng: np.random.Generator) -> Tensor:
    """Give labelled regions of real slices the intensity of another contrast: two in three as on T1, some at random.

    A region keeps its texture, at a random strength; its mean is moved to where the drawn contrast has it.

    Parameters
    ----------
    images : [batch, 1, row, column] normalised; regions : as the images, values of `models.training.annotated`
    """
    kind, wanted = rng.random(len(images)), images
    changed = _by_slice(kind <= 0.8, images)
    for value, (low, high) in T1_LEVELS.items():
        inside = regions == value
        lows, highs = np.where(kind < 0.65, low, 0.05), np.where(kind < 0.65, high, 1.2)
        level = _by_slice(rng.uniform(lows, highs), images)
        texture = _by_slice(rng.uniform(0.2, 1.0, len(images)), images)
        mean = (images * inside).sum((1, 2, 3), keepdim=True) / inside.sum((1, 2, 3), keepdim=True).clamp(min=1)
        new = level * (images / mean.clamp(min=0.02)).clamp(0.05, 4.0).pow(texture)
        wanted = torch.where(inside & (changed > 0), new, wanted)
    soft = avg_pool2d((regions > 0).to(images.dtype), 3, stride=1, padding=1)
    return images + soft * (wanted - images)


def _by_slice(values: npt.NDArray[np.float64] | npt.NDArray[np.bool_], like: Tensor) -> Tensor:
    """[batch, 1, 1, 1] on the device."""
    return torch.from_numpy(values.astype(np.float32)).to(like.device, non_blocking=True)[:, None, None, None]


def _affine(images: Tensor, masks: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Rotation +-8 degrees, scale +-20 %, anisotropy +-7 %, shift +-6 % of the field of view."""
    n = len(images)
    angle, log_scale, stretch = (rng.uniform(-limit, limit, n) for limit in (0.14, 0.20, 0.07))
    shift = rng.uniform(-0.12, 0.12, (2, n))
    sy, sx = np.exp(log_scale), np.exp(log_scale + stretch)
    rows = [
        [sx * np.cos(angle), -sy * np.sin(angle), shift[0]],
        [sx * np.sin(angle), sy * np.cos(angle), shift[1]],
    ]
    matrix = torch.from_numpy(np.array(rows, np.float32).transpose(2, 0, 1)).to(images.device)  # [batch, 2, 3]
    grid = affine_grid(matrix, list(images.shape), align_corners=False)
    warped = grid_sample(images, grid, align_corners=False)
    return warped, (grid_sample(masks, grid, align_corners=False) > 0.5).to(masks.dtype)


def _window(images: Tensor, masks: Tensor, size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    top, left = (int(rng.integers(n - size + 1)) for n in images.shape[-2:])
    part = (..., slice(top, top + size), slice(left, left + size))
    return images[part], masks[part]


def _gamma(images: Tensor, rng: np.random.Generator) -> Tensor:
    gamma, gain = (_by_slice(np.exp(rng.normal(0, sd, len(images))), images) for sd in (0.25, 0.2))
    return images.clamp(min=0).pow(gamma) * gain


def _coarser(images: Tensor, rng: np.random.Generator) -> Tensor:
    small = interpolate(images, scale_factor=rng.uniform(0.4, 0.9), mode="area")
    return interpolate(small, size=images.shape[-2:], mode="bilinear", align_corners=False)
