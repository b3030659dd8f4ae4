"""Augmentation of a batch on its device: geometry, intensity, resolution, noise, contrast inversion."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate


def augment(images: Tensor, masks: Tensor, crop_px: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Augment a batch.

    Parameters
    ----------
    images : [batch, 1, row, column] normalised; masks : [batch, class, row, column] 0 or 1
    crop_px : side of the window that is kept, the same for the whole batch
    generator : the only source of randomness, so that a resumed training sees the same batches
    """
    images, masks = _window(*_affine(images, masks, generator), crop_px, generator)
    images = _gamma(images, generator)
    if _chance(0.25, generator):
        images = _coarser(images, generator)
    noise = torch.randn(images.shape, generator=generator) * _uniform(images.shape[0], 0, 0.05, generator)
    images = images + noise
    if _chance(0.08, generator):
        top = images.max() * 0.6
        images = top - images.clamp(max=float(top))
    return images, masks


def _chance(p: float, generator: torch.Generator) -> bool:
    return bool(torch.rand(1, generator=generator) < p)


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(n, 1, 1, 1, generator=generator) * (high - low) + low


def _affine(images: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rotation +-8 degrees, scale +-20 %, anisotropy +-7 %, shift +-6 % of the field of view."""
    n = images.shape[0]
    angle, log_scale, stretch = (_uniform(n, -limit, limit, generator).flatten() for limit in (0.14, 0.20, 0.07))
    shift = torch.rand(n, 2, generator=generator) * 0.24 - 0.12
    sy, sx = log_scale.exp(), (log_scale + stretch).exp()
    matrix = torch.stack(
        [
            torch.stack([sx * angle.cos(), -sy * angle.sin(), shift[:, 0]], dim=1),
            torch.stack([sx * angle.sin(), sy * angle.cos(), shift[:, 1]], dim=1),
        ],
        dim=1,
    )  # [batch, 2, 3]
    grid = affine_grid(matrix, list(images.shape), align_corners=False)
    warped = grid_sample(images, grid, align_corners=False)
    return warped, (grid_sample(masks, grid, align_corners=False) > 0.5).to(masks.dtype)


def _window(images: Tensor, masks: Tensor, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    rows, columns = images.shape[-2] - size, images.shape[-1] - size
    top = int(torch.randint(rows + 1, (1,), generator=generator))
    left = int(torch.randint(columns + 1, (1,), generator=generator))
    part = (..., slice(top, top + size), slice(left, left + size))
    return images[part], masks[part]


def _gamma(images: Tensor, generator: torch.Generator) -> Tensor:
    n = images.shape[0]
    gamma = (torch.randn(n, 1, 1, 1, generator=generator) * 0.25).exp()
    gain = (torch.randn(n, 1, 1, 1, generator=generator) * 0.2).exp()
    return images.clamp(min=0).pow(gamma) * gain


def _coarser(images: Tensor, generator: torch.Generator) -> Tensor:
    factor = float(torch.rand(1, generator=generator) * 0.5 + 0.4)
    small = interpolate(images, scale_factor=factor, mode="area")
    return interpolate(small, size=images.shape[-2:], mode="bilinear", align_corners=False)
