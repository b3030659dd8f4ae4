"""Pools of phantom anatomy, made ahead of training because drawing it is slower than learning from it.

A pool holds maps of tissue, not images: contrast, coil and noise are drawn anew whenever a slice is used
(`models.training.data`). It is a folder of shards; a shard holds the slices of some subjects, all of them to learn from
or all held back. The same seed gives the same pool.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from cohort.errors import ConfigurationError
from cohort.processes import process_pool
from cohort.store.publish import replacing, sweep_temporary
from models.phantom import PHANTOM_VERSION
from models.phantom.slices import draw_samples

SUBJECTS_PER_SHARD: Final = 40
SLICES_PER_SUBJECT: Final = 2
HELD_BACK_FIRST: Final = 2000
"""Seed of the first subject that every pool holds back: no pool learns from what another is judged by."""
MOST_HELD_BACK: Final = 80
LEARNED_FIRST: Final = 10_000
"""Seed of the first subject to learn from, under seed 0 of a configuration; those of other seeds lie beyond."""
MOST_SUBJECTS: Final = 100_000


@dataclass(frozen=True)
class PoolPlan:
    """What a pool contains."""

    plane: str
    """sagittal or axial."""
    n_subjects: int
    """To learn from, at most MOST_SUBJECTS; a quarter as many, at least one and at most 80, are held back beside
    them."""
    size_px: int = 256
    """Rows and columns of a slice."""
    seed: int = 0
    """Of the configuration: another one has other subjects to learn from, and the same ones held back."""

    @property
    def name(self) -> str:
        """Name of its folder: pools of different phantoms, sizes or seeds never mix."""
        return f"pool-{self.plane}-{self.size_px}-{self.n_subjects}-seed{self.seed}-v{PHANTOM_VERSION}"

    @property
    def learned(self) -> range:
        """Seeds of the subjects to learn from."""
        first = LEARNED_FIRST + MOST_SUBJECTS * self.seed
        return range(first, first + self.n_subjects)

    @property
    def held_back(self) -> range:
        """Seeds of the subjects for validation."""
        n = min(MOST_HELD_BACK, max(self.n_subjects // 4, 1))
        return range(HELD_BACK_FIRST, HELD_BACK_FIRST + n)

    def shards(self) -> Iterator[tuple[str, Sequence[int]]]:
        """Name of each shard and the seeds of its subjects."""
        for kind, seeds in (("held-back", self.held_back), ("learned", self.learned)):
            for start in range(0, len(seeds), SUBJECTS_PER_SHARD):
                number = start // SUBJECTS_PER_SHARD
                yield f"shard-{kind}-{number:04d}.npz", seeds[start : start + SUBJECTS_PER_SHARD]


@dataclass(frozen=True, eq=False)
class Slices:
    """Tissue and masks of one plane."""

    tissue: npt.NDArray[np.uint8]
    """[n, sub-sample, row, column] values of `models.phantom.tissues.Tissue`."""
    depth_planes: npt.NDArray[np.float32]
    """[n, 3] as of `models.phantom.acquisition.depth_plane`."""
    views: npt.NDArray[np.int16]
    """[n, 4] first and end row, first and end column of the field of view; black beyond."""
    masks: npt.NDArray[np.uint8]
    """[n, class, row, column / 8] bit-packed along columns."""
    subjects: npt.NDArray[np.int64]
    """[n] seed of the subject."""
    held_back: npt.NDArray[np.bool_]
    """[n] whether the subject is for validation alone."""
    phantom_version: int
    """Version of the phantom that drew them."""


def make_pool(folder: Path, plan: PoolPlan, *, processes: int, report: Callable[[str], None]) -> None:
    """Write the shards of a pool that are not there yet; an interrupted call continues where it stopped.

    One call at a time in a folder: what an interrupted one has left half written is removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sweep_temporary(folder, older_than_s=0.0)
    shards = list(plan.shards())
    missing = [(folder / name, seeds) for name, seeds in shards if not (folder / name).exists()]
    report(f"pool: {len(missing)} of {len(shards)} shards to make, {processes} processes")
    started, n_drawn, n = time.monotonic(), 0, sum(len(seeds) for _, seeds in missing)
    with process_pool(processes) as executor:
        jobs = {executor.submit(_make_shard, path, seeds, plan): len(seeds) for path, seeds in missing}
        for done, job in enumerate(as_completed(jobs), start=1):
            job.result()
            n_drawn += jobs[job]
            left_s = (time.monotonic() - started) / n_drawn * (n - n_drawn)
            report(f"pool: shard {done}/{len(missing)}, about {timedelta(seconds=round(left_s))} left")


def _make_shard(path: Path, seeds: Sequence[int], plan: PoolPlan) -> None:
    drawn = (draw_samples(seed, plan.plane, SLICES_PER_SUBJECT, size=plan.size_px) for seed in seeds)
    samples = [sample for of_subject in drawn for sample in of_subject]
    with replacing(path) as temporary:
        np.savez_compressed(
            temporary,
            tissue=np.stack([sample.tissue for sample in samples]),
            depth_planes=np.array([sample.depth_plane for sample in samples], np.float32),
            views=np.array([sample.view for sample in samples], np.int16),
            masks=np.packbits(np.stack([sample.masks for sample in samples]), axis=-1),
            subjects=np.repeat(np.array(seeds, np.int64), SLICES_PER_SUBJECT),
            held_back=np.full(len(samples), seeds[0] in plan.held_back),
            phantom_version=PHANTOM_VERSION,
        )


def read_pool(folder: Path) -> Slices:
    """All slices of a pool.

    Raises
    ------
    FileNotFoundError
        if the folder holds no shard
    ConfigurationError
        if a shard cannot be read, or its shards were drawn by different versions of the phantom
    """
    paths = sorted(folder.glob("shard-*.npz"))
    if not paths:
        raise FileNotFoundError(
            f"no shard-*.npz in pool folder {folder.name}: make the pool first (cohort train does it)"
        )
    shards = [_read_shard(path) for path in paths]
    versions = {int(shard["phantom_version"]) for shard in shards}
    if len(versions) > 1:
        raise ConfigurationError(
            f"pool {folder.name} mixes phantom versions {sorted(versions)}: delete it and start again"
        )
    joined = {name: np.concatenate([shard[name] for shard in shards]) for name in _ARRAYS}
    return Slices(**joined, phantom_version=versions.pop())


_ARRAYS = ("tissue", "depth_planes", "views", "masks", "subjects", "held_back")


def _read_shard(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with np.load(path) as arrays:
            return {name: arrays[name] for name in (*_ARRAYS, "phantom_version")}
    except (KeyError, ValueError, OSError, BadZipFile) as error:
        reason = f"cannot be read ({type(error).__name__})"
        raise ConfigurationError(
            f"{path.name} of pool {path.parent.name} {reason}: delete it and start again"
        ) from error
