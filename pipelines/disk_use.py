"""Room that a store takes on its disk, counted for a moment only: a store of many exams has millions of files."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

FOLDER_S: Final = 0.25
"""Time for each folder of a store (own choice): what a person waits for."""


@dataclass(frozen=True)
class DiskUse:
    """Room that a folder takes."""

    bytes: int
    """Of blocks on the disk."""
    exact: bool
    """False where time was over: an estimate for `exams`, at least so much for other folders."""


def disk_use(store: Path, n_exams: int) -> dict[str, DiskUse]:
    """Room that each folder of a store takes; each is counted for at most `FOLDER_S`.

    Parameters
    ----------
    n_exams : exams that have a store; those that were looked at stand for all where there are too many
    """
    return {
        name: _exams_use(store / name, n_exams) if name == "exams" else _use(store / name)
        for name in sorted(_names(store))
        if not name.startswith(".") and (store / name).is_dir()
    }


def free_bytes(store: Path) -> int:
    """Room left on the store's disk."""
    return shutil.disk_usage(store).free


def _names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def _use(folder: Path) -> DiskUse:
    until = time.monotonic() + FOLDER_S
    total = 0
    for size in _sizes(folder):
        total += size
        if time.monotonic() > until:
            return DiskUse(total, exact=False)
    return DiskUse(total, exact=True)


def _exams_use(folder: Path, n_exams: int) -> DiskUse:
    until = time.monotonic() + FOLDER_S
    prefixes = sorted(_names(folder))
    Random(len(prefixes)).shuffle(prefixes)  # names are pseudonyms, so any are as good as others; the same each time
    total = n_seen = 0
    for prefix in prefixes:
        for exam in _names(folder / prefix):
            total += sum(_sizes(folder / prefix / exam))
            n_seen += 1
            if time.monotonic() > until:
                return DiskUse(round(total / n_seen * max(n_exams, n_seen)), exact=False)
    return DiskUse(total, exact=True)


def _sizes(folder: Path) -> Iterator[int]:
    """Bytes on the disk of every file below a folder; what vanishes meanwhile counts nothing."""
    waiting = [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        yield entry.stat(follow_symlinks=False).st_blocks * 512  # unit of st_blocks on every system
        except (FileNotFoundError, NotADirectoryError):
            continue
