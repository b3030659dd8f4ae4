"""Pools of phantom slices, made ahead of training because drawing anatomy is slower than learning from it.

A pool is a folder of shards; a shard holds the slices of some subjects, and subjects of different shards never mix, so
that a split by shard is a split by subject. The same seeds give the same pool.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cohort.errors import ConfigurationError
from models.phantom import PHANTOM_VERSION
from models.phantom.slices import draw_samples

SUBJECTS_PER_SHARD = 40


@dataclass(frozen=True)
class PoolPlan:
    """What a pool contains."""

    plane: str
    """sagittal or axial."""
    n_subjects: int
    slices_per_subject: int = 2
    first_seed: int = 10_000

    def shards(self) -> Iterator[tuple[int, list[int]]]:
        """Shard number and the seeds of its subjects."""
        seeds = list(range(self.first_seed, self.first_seed + self.n_subjects))
        for start in range(0, self.n_subjects, SUBJECTS_PER_SHARD):
            yield start // SUBJECTS_PER_SHARD, seeds[start : start + SUBJECTS_PER_SHARD]


@dataclass(frozen=True, eq=False)
class Slices:
    """Slices and masks of one plane."""

    images: npt.NDArray[np.float16]
    """[n, row, column] normalised."""
    masks: npt.NDArray[np.uint8]
    """[n, class, row, column / 8] bit-packed along columns."""
    phantom_version: int
    """Version of the phantom that drew them."""


def make_pool(folder: Path, plan: PoolPlan, *, processes: int, report: Callable[[str], None]) -> None:
    """Write the shards of a pool that are not there yet; an interrupted call continues where it stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [(k, seeds) for k, seeds in plan.shards() if not _shard(folder, k).exists()]
    report(f"pool: {len(missing)} of {len(list(plan.shards()))} shards to make, {processes} processes")
    with ProcessPoolExecutor(processes) as executor:
        jobs = [executor.submit(_make_shard, folder, k, seeds, plan) for k, seeds in missing]
        for done, job in enumerate(as_completed(jobs), start=1):
            job.result()
            report(f"pool: shard {done}/{len(missing)}")


def _shard(folder: Path, k: int) -> Path:
    return folder / f"shard-{k:04d}.npz"


def _make_shard(folder: Path, k: int, seeds: list[int], plan: PoolPlan) -> None:
    samples = [sample for seed in seeds for sample in draw_samples(seed, plan.plane, plan.slices_per_subject)]
    images = np.stack([sample.image for sample in samples])
    masks = np.packbits(np.stack([sample.masks for sample in samples]), axis=-1)
    temporary = folder / f".tmp-{uuid.uuid4().hex}.npz"
    np.savez_compressed(temporary, images=images, masks=masks, phantom_version=PHANTOM_VERSION)
    os.replace(temporary, _shard(folder, k))


def read_pool(folder: Path) -> tuple[Slices, npt.NDArray[np.int64]]:
    """All slices of a pool, and the shard of each.

    Raises
    ------
    FileNotFoundError
        if the folder holds no shard
    ConfigurationError
        if its shards were drawn by different versions of the phantom
    """
    paths = sorted(folder.glob("shard-*.npz"))
    if not paths:
        raise FileNotFoundError(
            f"no shard-*.npz in pool folder {folder.name}: make the pool first (cohort train does it)"
        )
    images, masks, shard, versions = [], [], [], set()
    for path in paths:
        with np.load(path) as arrays:
            images.append(arrays["images"])
            masks.append(arrays["masks"])
            versions.add(int(arrays["phantom_version"]))
        shard.append(np.full(len(images[-1]), int(path.stem.split("-")[1])))
    if len(versions) > 1:
        raise ConfigurationError(
            f"pool {folder.name} mixes phantom versions {sorted(versions)}: delete it and start again"
        )
    return Slices(np.concatenate(images), np.concatenate(masks), versions.pop()), np.concatenate(shard)
