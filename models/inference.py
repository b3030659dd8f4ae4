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
from cohort.errors import ConfigurationError, RefusedError
from cohort.stacks import ImageStack
from models.forward import Arithmetic, logits, usable_arithmetic
from models.preprocessing import normalise
from models.registry import NetworkContract
from models.vnet import VNet

MAX_EXTENT_MM = 800.0
"""A larger field of view is not a lumbar scan, or its pixel spacing is wrong."""
MAX_COARSENING = 2.0
"""Pixels, acquired or given to the network, may be so many times those it has learned from (working value)."""


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
    network: VNet,
    contract: NetworkContract,
    stack: ImageStack,
    *,
    batch_slices: int,
    device: str,
    arithmetic: Arithmetic | None = None,
) -> Segmentation:
    """Segment all slices of a stack.

    Slices are turned into standing order (head up, anterior left; or anterior up, patient's right on the left),
    normalised one by one, resampled to the contract's spacing and padded to whole down-samplings. Probabilities, not
    masks, are resampled back. Slices know nothing of each other, and `batch_slices` does not change the result.

    Parameters
    ----------
    device : where the network is: cpu, cuda, ...
    arithmetic : None for the fastest that the device has (`models.forward.usable_arithmetic`)

    Raises
    ------
    ConfigurationError
        if the network is for another plane
    RefusedError
        `inconsistent_series` if the field of view is absurdly large; `network_misfit` if its pixels, or those that a
        field of view of its size would leave, are too coarse for the network
    """
    if contract.plane != stack.plane:
        raise ConfigurationError(
            f"network {contract.name!r} is for {contract.plane} slices, not {stack.plane} ones; choose another network"
        )
    orientation = standing_order(stack.geometry, stack.plane)
    image = orientation.apply(stack.image)
    geometry = orientation.geometry(stack.geometry)
    native = (image.shape[1], image.shape[2])
    size = _network_size(native, geometry.spacing_mm, contract)
    chosen = arithmetic or usable_arithmetic(device)[0]
    probability = torch.cat(  # [slice, class, row, column]
        [
            _probabilities(network, batch.to(device), size, 2**contract.levels, chosen)
            for batch in _batches(image, batch_slices)
        ]
    )
    masks = (probability > 0.5).numpy().transpose(1, 0, 2, 3)
    best = probability.max(dim=1)
    winner = torch.where(best.values > 0.5, best.indices + 1, 0).numpy().astype(np.uint8)
    return Segmentation(
        masks=np.stack([orientation.restore(mask) for mask in masks]),
        winner=orientation.restore(winner),
        entropy={name: _entropy(probability[:, k], masks[k]) for k, name in enumerate(contract.classes)},
    )


def _network_size(
    native: tuple[int, int], spacing_mm: tuple[float, float], contract: NetworkContract
) -> tuple[int, int]:
    """Rows and columns at the contract's spacing, or coarser where the longer side would exceed the contract's."""
    extent_mm = (native[0] * spacing_mm[0], native[1] * spacing_mm[1])
    if max(extent_mm) > MAX_EXTENT_MM:
        raise RefusedError("inconsistent_series", f"field of view of {max(extent_mm):.0f} mm")
    pixel_mm = max(contract.spacing_mm, max(extent_mm) / contract.max_side_px)
    coarsest_mm = max(pixel_mm, *spacing_mm)
    if coarsest_mm > MAX_COARSENING * contract.spacing_mm:
        raise RefusedError(
            "network_misfit",
            f"pixels of {max(spacing_mm):.2f} mm on a field of view of {max(extent_mm):.0f} mm leave the network "
            f"{contract.name} {coarsest_mm:.2f} mm a pixel; it has learned from {contract.spacing_mm:.2f} mm",
        )
    return max(round(extent_mm[0] / pixel_mm), 16), max(round(extent_mm[1] / pixel_mm), 16)


def _batches(image: npt.NDArray[np.uint16], n: int) -> Iterator[Tensor]:
    for start in range(0, len(image), n):
        slices = np.stack([normalise(slice_) for slice_ in image[start : start + n]])
        yield torch.from_numpy(slices)[:, None]


def _probabilities(
    network: VNet, batch: Tensor, size: tuple[int, int], multiple: int, arithmetic: Arithmetic
) -> Tensor:
    """[slice, 1, row, column] -> [slice, class, row, column] float32 on the same native grid, in main memory."""
    small = interpolate(batch, size=size, mode="bilinear", antialias=True, align_corners=False)
    padded = pad(small, (0, -size[1] % multiple, 0, -size[0] % multiple))
    found = logits(network, padded, arithmetic)[..., : size[0], : size[1]].sigmoid()
    return interpolate(found, size=batch.shape[-2:], mode="bilinear", align_corners=False).cpu()


def _entropy(probability: Tensor, mask: npt.NDArray[np.bool_]) -> float:
    inside = probability[torch.from_numpy(mask)].clamp(1e-6, 1 - 1e-6).double()
    if not len(inside):
        return 1.0
    return float(-(inside * inside.log2() + (1 - inside) * (1 - inside).log2()).mean())
