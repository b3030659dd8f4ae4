"""The training loop: deterministic batches, checkpoints that resume to the same result, averaged weights."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.losses import dice_and_cross_entropy, dice_coefficient
from models.phantom.slices import AXIAL_CLASSES, SAGITTAL_CLASSES
from models.training.annotated import Annotated, AnnotatedSlices
from models.training.augment import augment, recolour
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
class AnnotatedData:
    """Real slices with the channels of one network."""

    images: Tensor
    """[n, 1, row, column]."""
    regions: Tensor
    """[n, 1, row, column]."""
    masks: Tensor
    """[n, class, row, column]."""
    known: Tensor
    """[n, class, row, column] 1 where the mask is known."""

    @classmethod
    def of(cls, slices: AnnotatedSlices, classes: tuple[str, ...]) -> AnnotatedData:
        """Prepare slices for the classes of one network."""
        masks, known = slices.targets(classes)
        images = torch.from_numpy(slices.images.astype(np.float32))[:, None]
        return cls(images, torch.from_numpy(slices.regions)[:, None], torch.from_numpy(masks), torch.from_numpy(known))


@dataclass(frozen=True, eq=False)
class Trained:
    """The result of a training."""

    config: TrainingConfig
    weights: dict[str, Tensor]
    """Averaged weights."""
    validation_dice: dict[str, float]
    """Class -> Dice on phantom slices of subjects that were not trained on: a phantom figure."""
    annotated_dice: dict[str, float]
    """Class -> Dice on real slices of the validation patients; empty without such slices."""
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
    annotated: Annotated | None = None,
    start_weights: dict[str, Tensor] | None = None,
) -> Trained:
    """Train one network, resuming from the last checkpoint in `folder` if it belongs to this configuration.

    `annotated` slices are mixed in by the configuration's share; the validation part is scored at the end.

    Batches depend on the seed and the iteration alone, so a killed training ends with the weights it would have had.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    data = load_data(config, pool)
    real = AnnotatedData.of(annotated.training, config.classes) if annotated else None
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
        loss = _step(config, _batch(iteration, config, data, real), iteration, network, optimiser, device)
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
    seconds = time.monotonic() - started
    dice = validate(config, average, _phantom_batches(config, data), device)
    report(f"{config.name}: phantom validation Dice {dice}")
    real_dice = {}
    if annotated:
        real_dice = validate(config, average, _annotated_batches(config, annotated.validation), device)
        report(f"{config.name}: Dice on annotated slices of the validation patients {real_dice}")
    return Trained(config, average, dice, real_dice, seconds, device, data.slices.phantom_version)


Batch = tuple[Tensor, Tensor, Tensor]
"""Images [n, 1, row, column], masks and known pixels [n, class, row, column]."""


def _step(
    config: TrainingConfig,
    batch: Batch,
    iteration: int,
    network: VNet,
    optimiser: torch.optim.Optimizer,
    device: str,
) -> float:
    images, masks, known = (part.to(device, memory_format=torch.channels_last) for part in batch)
    for group in optimiser.param_groups:
        group["lr"] = _learning_rate(iteration, config)
    network.train()
    torch.manual_seed(config.seed * 1_000_003 + iteration)  # dropout
    with torch.autocast(device.split(":")[0], dtype=torch.bfloat16):
        logits = network(images)
    weights = torch.tensor(config.class_weights, device=device) if config.class_weights else None
    loss = dice_and_cross_entropy(logits.float(), masks, class_weights=weights, known=known)
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    optimiser.step()
    return float(loss.detach())


def _batch(iteration: int, config: TrainingConfig, data: TrainingData, real: AnnotatedData | None) -> Batch:
    """The batch of an iteration: epochs are permutations, all else comes from a generator seeded by it."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + iteration)
    n_real = round(config.annotated_share * config.batch) if real else 0
    n_drawn = config.batch - n_real
    per_epoch = max(len(data.training) // max(n_drawn, 1), 1)
    epoch, position = divmod(iteration, per_epoch)
    order = np.random.default_rng([config.seed, epoch]).permutation(data.training)
    images, masks = data.batch(order[position * n_drawn : (position + 1) * n_drawn])
    known = torch.ones_like(masks)
    if real and n_real:
        chosen = torch.randint(len(real.images), (n_real,), generator=generator)
        images = torch.cat([images, recolour(real.images[chosen], real.regions[chosen], generator)])
        masks = torch.cat([masks, real.masks[chosen].float()])
        known = torch.cat([known, real.known[chosen].float()])
    images, both = augment(images, torch.cat([masks, known], dim=1), config.crop_px, generator)
    masks, known = both.chunk(2, dim=1)
    known[:n_drawn] = 1.0  # beyond the edge of a phantom slice there is known to be nothing
    return images, masks, known


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


def _phantom_batches(config: TrainingConfig, data: TrainingData) -> Iterator[Batch]:
    for start in range(0, len(data.validation), config.batch):
        images, masks = data.batch(data.validation[start : start + config.batch])
        yield images, masks, torch.ones_like(masks)


def _annotated_batches(config: TrainingConfig, slices: AnnotatedSlices) -> Iterator[Batch]:
    real = AnnotatedData.of(slices, config.classes)
    for start in range(0, len(real.images), config.batch):
        part = slice(start, start + config.batch)
        yield real.images[part], real.masks[part].float(), real.known[part].float()


@torch.no_grad()
def validate(
    config: TrainingConfig, weights: dict[str, Tensor], batches: Iterable[Batch], device: str
) -> dict[str, float]:
    """Dice per class over all batches together."""
    network = VNet(network_config(config)).to(device)
    network.load_state_dict(weights)
    network.eval()
    outputs = [(network(images.to(device)).cpu(), masks, known) for images, masks, known in batches]
    logits, target, known = (torch.cat(parts) for parts in zip(*outputs, strict=True))
    dice = dice_coefficient(logits, target, known=known)
    return {name: round(float(value), 4) for name, value in zip(config.classes, dice, strict=True)}


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
