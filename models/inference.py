"""Run a network over a stack: standing order, training spacing, batches, probabilities back on the native grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from cohort.anatomy.orientation import standing_order
from cohort.errors import RefusedError
from cohort.stacks import ImageStack
from models.preprocessing import normalise
from models.registry import NetworkContract
from models.vnet import VNet

MAX_SIDE = 1024
"""Longest side in network pixels: 1 m at 1 mm, more is not a lumbar scan."""


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Masks of one stack in its native order."""

    masks: npt.NDArray[np.bool_]
    """[class, slice, row, column] probability above one half."""
    winner: npt.NDArray[np.uint8]
    """[slice, row, column] 1 + the class of highest probability where any is above one half, else 0."""
    entropy: dict[str, float]
    """Class -> mean binary entropy (bit) inside its mask; 1 where the mask is empty."""


def segment_stack(
    network: VNet, contract: NetworkContract, stack: ImageStack, *, batch_slices: int, device: str
) -> Segmentation:
    """Segment all slices of a stack.

    Slices are turned into standing order (head up, anterior left; or anterior up, patient's right on the left),
    normalised one by one, resampled to the contract's spacing and padded to whole down-samplings. Probabilities, not
    masks, are resampled back.

    Raises
    ------
    RefusedError
        `inconsistent_series` if the field of view is absurdly large
    """
    orientation = standing_order(stack.geometry, stack.plane)
    image = orientation.apply(stack.image)
    geometry = orientation.geometry(stack.geometry)
    native = (image.shape[1], image.shape[2])
    size = _network_size(native, geometry.spacing_mm, contract.spacing_mm)
    parts = []
    for batch in _batches(image, batch_slices):
        parts.append(_probabilities(network, batch, size, native, 2**contract.levels, device))
    probability = torch.cat(parts)  # [slice, class, row, column]
    masks = (probability > 0.5).numpy().transpose(1, 0, 2, 3)
    best = probability.max(dim=1)
    winner = torch.where(best.values > 0.5, best.indices + 1, 0).numpy().astype(np.uint8)
    return Segmentation(
        masks=np.stack([orientation.restore(mask) for mask in masks]),
        winner=orientation.restore(winner),
        entropy={name: _entropy(probability[:, k], masks[k]) for k, name in enumerate(contract.classes)},
    )


def _network_size(native: tuple[int, int], spacing: tuple[float, float], wanted: float) -> tuple[int, int]:
    size = (max(round(native[0] * spacing[0] / wanted), 16), max(round(native[1] * spacing[1] / wanted), 16))
    if max(size) > MAX_SIDE:
        raise RefusedError("inconsistent_series", f"field of view of {size[0]} x {size[1]} network pixels")
    return size


def _batches(image: npt.NDArray[np.uint16], n: int) -> Iterator[Tensor]:
    for start in range(0, len(image), n):
        slices = np.stack([normalise(slice_) for slice_ in image[start : start + n]])
        yield torch.from_numpy(slices)[:, None]


@torch.inference_mode()
def _probabilities(
    network: VNet, batch: Tensor, size: tuple[int, int], native: tuple[int, int], multiple: int, device: str
) -> Tensor:
    """[slice, class, row, column] float32 on the native grid."""
    batch = batch.to(device)
    small = interpolate(batch, size=size, mode="bilinear", antialias=True, align_corners=False)
    padded = pad(small, (0, -size[1] % multiple, 0, -size[0] % multiple))
    logits = network(padded.contiguous(memory_format=torch.channels_last))[..., : size[0], : size[1]]
    return interpolate(logits.float().sigmoid(), size=native, mode="bilinear", align_corners=False).cpu()


def _entropy(probability: Tensor, mask: npt.NDArray[np.bool_]) -> float:
    inside = probability[torch.from_numpy(mask)].clamp(1e-6, 1 - 1e-6).double()
    if not len(inside):
        return 1.0
    return float(-(inside * inside.log2() + (1 - inside) * (1 - inside).log2()).mean())
