"""Augmentation of a batch on its device: geometry, intensity, resolution, noise, contrast inversion."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, interpolate

from models.training.annotated import BODY, CANAL, DISC, VERTEBRA

T1_LEVELS = {BODY: (0.45, 0.95), VERTEBRA: (0.45, 0.95), DISC: (0.2, 0.55), CANAL: (0.08, 0.35)}
"""Region -> range of its mean on T1 images whose fat is 1: marrow bright, disc at 0.4-0.8 of marrow (196 SPIDER T1
series have a ratio of 0.55 +- 0.11), cerebrospinal fluid dark."""


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


def recolour(images: Tensor, regions: Tensor, generator: torch.Generator) -> Tensor:
    """Give labelled regions of real slices the intensity of another contrast: two in three as on T1, some at random.

    A region keeps its texture, at a random strength; its mean is moved to where the drawn contrast has it.

    Parameters
    ----------
    images : [batch, 1, row, column] normalised; regions : as the images, values of `models.training.annotated`
    """
    parts = [_recoloured(images[k : k + 1], regions[k : k + 1], generator) for k in range(len(images))]
    return torch.cat(parts)


def _recoloured(image: Tensor, region: Tensor, generator: torch.Generator) -> Tensor:
    kind = float(torch.rand(1, generator=generator))
    if kind > 0.8:
        return image
    wanted = image.clone()
    for value, (low, high) in T1_LEVELS.items():
        inside = region == value
        if not inside.any():
            continue
        low, high = (low, high) if kind < 0.65 else (0.05, 1.2)
        level = float(torch.rand(1, generator=generator)) * (high - low) + low
        texture = float(torch.rand(1, generator=generator)) * 0.8 + 0.2
        part = image[inside]
        wanted[inside] = level * (part / part.mean().clamp(min=0.02)).clamp(0.05, 4.0).pow(texture)
    soft = avg_pool2d((region > 0).to(image.dtype), 3, stride=1, padding=1)
    return image + soft * (wanted - image)


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
