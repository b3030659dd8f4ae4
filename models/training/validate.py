"""Dice of a network's weights on batches of known masks."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from models.losses import dice_of, overlap_and_size
from models.training.config import TrainingConfig, network_config
from models.training.data import Batch
from models.vnet import VNet


@torch.no_grad()
def validate(
    config: TrainingConfig, weights: dict[str, Tensor], batches: Iterable[Batch], device: str
) -> dict[str, float]:
    """Dice per class over all batches together, in single precision; classes that no slice has are left out."""
    network = VNet(network_config(config)).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.load_state_dict(weights)
    network.eval()
    counts = torch.zeros(2, len(config.classes), dtype=torch.float64, device=device)
    there = torch.zeros(len(config.classes), dtype=torch.bool, device=device)
    for batch in batches:
        images, masks, known = batch
        counts += overlap_and_size(network(images.contiguous(memory_format=torch.channels_last)), masks, known=known)
        there |= (masks * known).flatten(2).any(dim=2).any(dim=0)
    dice = zip(config.classes, dice_of(counts).tolist(), there.tolist(), strict=True)
    return {name: round(value, 4) for name, value, is_there in dice if is_there}
