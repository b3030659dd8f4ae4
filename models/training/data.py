"""Batches of one network: phantom slices and real annotated slices, drawn from the seed and the iteration alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.phantom.acquisition import acquire, tissue_batch
from models.phantom.mri import draw_contrast, draw_scanner, draw_weighting
from models.preprocessing import normalise_batch
from models.training.annotated import RealSlices
from models.training.augment import augment, recolour
from models.training.config import PLANE_CLASSES, TrainingConfig
from models.training.pool import Slices, read_pool

Batch = tuple[Tensor, Tensor, Tensor]
"""Images [n, 1, row, column], masks and known pixels [n, class, row, column]."""


@dataclass(frozen=True, eq=False)
class PhantomData:
    """Phantom slices of one plane, split by subject, with the channels of one network."""

    slices: Slices
    channels: tuple[int, ...]
    training: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]

    def batch(
        self, index: npt.NDArray[np.int64], rng: np.random.Generator, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Normalised images [n, 1, row, column] in new contrasts, and masks [n, class, row, column], float32.

        `rng` draws contrasts and scanners; `generator`, on the device where the batch shall be, their fields and noise.
        """
        device = generator.device
        tissue = tissue_batch(
            torch.from_numpy(self.slices.tissue[index]).to(device),
            torch.from_numpy(self.slices.depth_planes[index]).to(device),
        )
        contrasts = [draw_contrast(rng, draw_weighting(rng)) for _ in index]
        images = acquire(tissue, contrasts, [draw_scanner(rng) for _ in index], generator)
        images = normalise_batch(images * _in_view(self.slices.views[index], images))[:, None]
        masks = np.unpackbits(self.slices.masks[index][:, list(self.channels)], axis=-1)
        return images, torch.from_numpy(masks).to(device).float()


def _in_view(views: npt.NDArray[np.int16], like: Tensor) -> Tensor:
    """[n, row, column] 1 inside the field of view."""
    first_row, end_row, first_column, end_column = torch.from_numpy(views).to(like.device)[:, :, None].unbind(dim=1)
    row, column = (torch.arange(size, device=like.device) for size in like.shape[1:])
    rows, columns = (row >= first_row) & (row < end_row), (column >= first_column) & (column < end_column)
    return (rows[:, :, None] & columns[:, None, :]).to(like.dtype)


@dataclass(frozen=True, eq=False)
class AnnotatedData:
    """Real slices with the channels of one network."""

    images: Tensor
    """[n, 1, row, column]."""
    regions: Tensor | None
    """[n, 1, row, column]; None where slices keep their contrast."""
    masks: Tensor
    """[n, class, row, column]."""
    known: Tensor
    """[n, class, row, column] 1 where the mask is known."""

    @classmethod
    def of(cls, slices: RealSlices, classes: tuple[str, ...], device: str) -> AnnotatedData:
        """Prepare slices for the classes of one network."""
        arrays = (slices.images.astype(np.float32)[:, None], *slices.targets(classes))
        images, masks, known = (torch.from_numpy(array).to(device) for array in arrays)
        regions = None if slices.regions is None else torch.from_numpy(slices.regions[:, None]).to(device)
        return cls(images, regions, masks, known)

    def batch(self, chosen: Tensor, rng: np.random.Generator) -> Batch:
        """Slices by number, in new contrasts where they have regions."""
        images = self.images[chosen]
        if self.regions is not None:
            images = recolour(images, self.regions[chosen], rng)
        return images, self.masks[chosen].float(), self.known[chosen].float()


def load_phantom(config: TrainingConfig, pool: Path) -> PhantomData:
    """Read the pool, which marks the subjects that it holds back."""
    slices, known = read_pool(pool), PLANE_CLASSES[config.plane]
    return PhantomData(
        slices=slices,
        channels=tuple(known.index(name) for name in config.classes),
        training=np.nonzero(~slices.held_back)[0],
        validation=np.nonzero(slices.held_back)[0],
    )


def draw_batch(
    iteration: int, config: TrainingConfig, phantom: PhantomData | None, real: AnnotatedData | None, device: str
) -> Batch:
    """The batch of an iteration: epochs are permutations, all else comes from generators seeded by it."""
    rng = np.random.default_rng([config.seed, iteration, 1])
    generator = torch.Generator(device).manual_seed(config.seed * 1_000_003 + iteration)
    n_real = config.annotated_per_batch if real else 0
    n_drawn = config.batch - n_real
    parts: list[Batch] = []
    if phantom is not None and n_drawn:
        images, masks = phantom.batch(_of_epoch(iteration, config.seed, phantom.training, n_drawn), rng, generator)
        parts.append((images, masks, torch.ones_like(masks)))
    if real and n_real:
        parts.append(real.batch(torch.from_numpy(rng.integers(len(real.images), size=n_real)).to(device), rng))
    images, masks, known = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    both = torch.cat([masks, known], dim=1)
    if config.plane == "axial":  # left is like right, and the network does not tell sides apart
        mirrored = torch.from_numpy(rng.random(config.batch) < 0.5).to(device)[:, None, None, None]
        images, both = (torch.where(mirrored, part.flip(-1), part) for part in (images, both))
    images, both = augment(images, both, config.crop_px, rng, generator)
    masks, known = both.chunk(2, dim=1)
    known[:n_drawn] = 1.0  # beyond the edge of a phantom slice there is known to be nothing
    return images, masks, known


def _of_epoch(iteration: int, seed: int, indices: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.int64]:
    """`n` of the slices; where there are fewer, some come more than once."""
    per_epoch = max(len(indices) // max(n, 1), 1)
    epoch, position = divmod(iteration, per_epoch)
    order = np.random.default_rng([seed, epoch]).permutation(indices)
    order = np.resize(order, max(n, len(order)))
    return order[position * n : (position + 1) * n]


def phantom_batches(
    config: TrainingConfig, phantom: PhantomData, device: str, *, most: int | None = None
) -> Iterator[Batch]:
    """The phantom's validation slices, or the first `most`, in order, always in the same contrasts."""
    index = phantom.validation[:most]
    for start in range(0, len(index), config.batch):
        rng, generator = np.random.default_rng([start, 2]), torch.Generator(device).manual_seed(start)
        images, masks = phantom.batch(index[start : start + config.batch], rng, generator)
        yield images, masks, torch.ones_like(masks)


def annotated_batches(config: TrainingConfig, slices: RealSlices, device: str) -> Iterator[Batch]:
    """Real slices, in order."""
    real = AnnotatedData.of(slices, config.classes, device)
    for start in range(0, len(real.images), config.batch):
        part = slice(start, start + config.batch)
        yield real.images[part], real.masks[part].float(), real.known[part].float()
