"""The training loop: deterministic batches, checkpoints that resume to the same result, averaged weights."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.losses import dice_and_cross_entropy, dice_coefficient
from models.phantom.slices import AXIAL_CLASSES, SAGITTAL_CLASSES
from models.training.augment import augment
from models.training.config import TrainingConfig
from models.training.pool import Slices, read_pool
from models.vnet import VNet, VNetConfig

Report = Callable[[str], None]

CHECKPOINT_EVERY = 250
VALIDATION_SHARDS = 2


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Slices of one plane, split by subject, with the channels of one network."""

    slices: Slices
    channels: tuple[int, ...]
    training: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]

    def batch(self, index: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Images [n, 1, row, column] and masks [n, class, row, column], float32."""
        images = torch.from_numpy(self.slices.images[index].astype(np.float32))[:, None]
        packed = self.slices.masks[index][:, list(self.channels)]
        return images, torch.from_numpy(np.unpackbits(packed, axis=-1).astype(np.float32))


@dataclass(frozen=True, eq=False)
class Trained:
    """The result of a training."""

    config: TrainingConfig
    weights: dict[str, Tensor]
    """Averaged weights."""
    validation_dice: dict[str, float]
    """Class -> Dice on phantom slices of subjects that were not trained on: a phantom figure."""
    seconds: float
    device: str
    phantom_version: int


def network_config(config: TrainingConfig) -> VNetConfig:
    """Shape of the network that a configuration trains."""
    return VNetConfig(
        len(config.classes), config.levels, config.base_channels, dropout=config.dropout, activation=config.activation
    )


def load_data(config: TrainingConfig, pool: Path) -> TrainingData:
    """Read the pool; the last shards are for validation."""
    slices, shard = read_pool(pool)
    known = SAGITTAL_CLASSES if config.plane == "sagittal" else AXIAL_CLASSES
    held_back = shard > shard.max() - VALIDATION_SHARDS if shard.max() >= VALIDATION_SHARDS else shard == shard.max()
    return TrainingData(
        slices=slices,
        channels=tuple(known.index(name) for name in config.classes),
        training=np.nonzero(~held_back)[0] if (~held_back).any() else np.nonzero(held_back)[0],
        validation=np.nonzero(held_back)[0][:64],
    )


def train(
    config: TrainingConfig,
    pool: Path,
    folder: Path,
    *,
    device: str,
    report: Report,
    start_weights: dict[str, Tensor] | None = None,
) -> Trained:
    """Train one network, resuming from the last checkpoint in `folder` if it belongs to this configuration.

    Batches depend on the seed and the iteration alone, so a killed training ends with the weights it would have had.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    data = load_data(config, pool)
    network = VNet(network_config(config)).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if start_weights is not None:
        shapes = {name: value.shape for name, value in network.state_dict().items()}
        kept = {name: value for name, value in start_weights.items() if value.shape == shapes.get(name)}
        network.load_state_dict(kept, strict=False)
    average = {name: value.detach().clone() for name, value in network.state_dict().items()}
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    first, spent = _resume(folder, config, network, average, optimiser)
    report(f"{config.name}: {len(data.training)} slices, iterations {first}..{config.iterations} on {device}")
    started = time.monotonic() - spent
    for iteration in range(first, config.iterations):
        loss = _step(iteration, config, data, network, optimiser, device)
        _average(average, network, min(config.averaging, (1 + iteration) / (10 + iteration)))
        done = iteration + 1
        if done % 25 == 0:
            _log(folder, done, loss, time.monotonic() - started)
        if done % CHECKPOINT_EVERY == 0 or done == config.iterations:
            elapsed = time.monotonic() - started
            _checkpoint(folder, config, done, elapsed, network, average, optimiser)
            left = elapsed / done * (config.iterations - done)
            report(
                f"{config.name}: {done}/{config.iterations} loss {loss:.4f}, {elapsed:.0f} s, about {left:.0f} s left"
            )
    dice = validate(config, average, data, device)
    report(f"{config.name}: phantom validation Dice {dice}")
    seconds = time.monotonic() - started
    return Trained(config, average, dice, seconds, device, data.slices.phantom_version)


def _step(
    iteration: int,
    config: TrainingConfig,
    data: TrainingData,
    network: VNet,
    optimiser: torch.optim.Optimizer,
    device: str,
) -> float:
    images, masks = _batch(iteration, config, data)
    for group in optimiser.param_groups:
        group["lr"] = _learning_rate(iteration, config)
    network.train()
    torch.manual_seed(config.seed * 1_000_003 + iteration)  # dropout
    images = images.to(device, memory_format=torch.channels_last)
    with torch.autocast(device.split(":")[0], dtype=torch.bfloat16):
        logits = network(images)
    weights = torch.tensor(config.class_weights, device=device) if config.class_weights else None
    loss = dice_and_cross_entropy(logits.float(), masks.to(device), class_weights=weights)
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    optimiser.step()
    return float(loss.detach())


def _batch(iteration: int, config: TrainingConfig, data: TrainingData) -> tuple[Tensor, Tensor]:
    """The batch of an iteration: epochs are permutations, augmentation is seeded by the iteration."""
    per_epoch = max(len(data.training) // config.batch, 1)
    epoch, position = divmod(iteration, per_epoch)
    order = np.random.default_rng([config.seed, epoch]).permutation(data.training)
    images, masks = data.batch(order[position * config.batch : (position + 1) * config.batch])
    return augment(images, masks, config.crop_px, torch.Generator().manual_seed(config.seed * 1_000_003 + iteration))


def _learning_rate(iteration: int, config: TrainingConfig) -> float:
    """Linear warm-up over 100 iterations, then half a cosine to zero."""
    warm = min(1.0, (iteration + 1) / 100)
    return config.learning_rate * warm * (0.5 + 0.5 * float(np.cos(np.pi * iteration / config.iterations))) + 1e-6


@torch.no_grad()
def _average(average: dict[str, Tensor], network: VNet, decay: float) -> None:
    for name, value in network.state_dict().items():
        if value.dtype.is_floating_point:
            average[name].mul_(decay).add_(value, alpha=1 - decay)
        else:
            average[name].copy_(value)


@torch.no_grad()
def validate(config: TrainingConfig, weights: dict[str, Tensor], data: TrainingData, device: str) -> dict[str, float]:
    """Dice per class over the held-back slices."""
    network = VNet(network_config(config)).to(device)
    network.load_state_dict(weights)
    network.eval()
    outputs = []
    for start in range(0, len(data.validation), config.batch):
        images, masks = data.batch(data.validation[start : start + config.batch])
        outputs.append((network(images.to(device)).cpu(), masks))
    logits, target = (torch.cat(parts) for parts in zip(*outputs, strict=True))
    return {
        name: round(float(value), 4)
        for name, value in zip(config.classes, dice_coefficient(logits, target), strict=True)
    }


def _log(folder: Path, iteration: int, loss: float, seconds: float) -> None:
    path = folder / "curve.csv"
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["iteration", "loss", "seconds"])
        writer.writerow([iteration, f"{loss:.5f}", f"{seconds:.1f}"])


def _checkpoint(
    folder: Path,
    config: TrainingConfig,
    iteration: int,
    seconds: float,
    network: VNet,
    average: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
) -> None:
    temporary = folder / ".checkpoint.tmp"
    state = {
        "config": config.sha256,
        "iteration": iteration,
        "seconds": seconds,
        "network": network.state_dict(),
        "average": average,
        "optimiser": optimiser.state_dict(),
    }
    torch.save(state, temporary)
    os.replace(temporary, folder / "checkpoint.pt")


def _resume(
    folder: Path, config: TrainingConfig, network: VNet, average: dict[str, Tensor], optimiser: torch.optim.Optimizer
) -> tuple[int, float]:
    path = folder / "checkpoint.pt"
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, weights_only=True)
    if state["config"] != config.sha256:
        return 0, 0.0
    network.load_state_dict(state["network"])
    average.update(state["average"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["iteration"]), float(state["seconds"])
