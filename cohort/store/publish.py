"""Build beside the target, then rename once: a result is there as a whole or not at all."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

TEMPORARY_PREFIX: Final = ".tmp-"
FORMER_PREFIX: Final = ".former-"
"""Of a folder's name while another takes its place."""
STALE_AFTER_S: Final = 86_400.0
"""No stage of one exam takes a day."""


@contextmanager
def publishing(target: Path) -> Iterator[Path]:
    """Give a temporary sibling of `target` to build in, and rename it to `target` when the block ends without error.

    The block creates a directory or a file at the path it is given. A target that exists already has the same
    fingerprint, so the same content: it is kept and the new one dropped. After an error, a full disk among them,
    nothing is left; after a kill only the `.tmp-*` sibling, which `sweep_temporary` removes.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    building = target.with_name(f"{TEMPORARY_PREFIX}{uuid4().hex}")
    try:
        yield building
        _rename(building, target)
    except BaseException:
        with suppress(OSError):  # what went wrong first counts; what cannot be removed now is swept later
            discard(building)
        raise
    discard(building)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary sibling to write a file to, which takes the place of `path` when the block ends without error.

    Readers see the old file or the new one, whole. After an error nothing is left; after a kill only a `.tmp-*` file.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{uuid4().hex}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Give a temporary sibling to build a folder in, which takes the place of `target` when the block ends.

    A folder cannot be renamed over a full one. So the one that is there steps aside under another name, by which
    `current` finds it until the new one has its place: at any time, and after a kill at any time, one of the two is
    found as a whole. One writer at a time.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    building, former = target.with_name(f"{TEMPORARY_PREFIX}{uuid4().hex}"), _former(target)
    try:
        yield building
        if target.exists():
            discard(former)  # a killed replacement left it: what is at `target` took its place
            os.rename(target, former)
        os.rename(building, target)
    finally:
        discard(building)
    discard(former)


def current(target: Path) -> Path:
    """Where a folder is that `replacing_folder` writes: at `target`, or aside while or since it was to be replaced."""
    former = _former(target)
    return former if former.exists() and not target.exists() else target


def withdraw(target: Path) -> bool:
    """Remove a folder that `replacing_folder` wrote, as a whole or not at all; False where there is none."""
    found = current(target)
    if not found.exists():
        return False
    gone = target.with_name(f"{TEMPORARY_PREFIX}{uuid4().hex}")
    if found == target:
        discard(_former(target))  # first, or it would come back
    os.rename(found, gone)
    discard(gone)
    return True


def _former(target: Path) -> Path:
    return target.with_name(f"{FORMER_PREFIX}{target.name}")


def _rename(building: Path, target: Path) -> None:
    if target.exists():
        return
    try:
        os.rename(building, target)
    except OSError:
        # Another worker published the same fingerprint in between: a directory cannot be renamed over a full one.
        if not target.exists():
            raise


def discard(path: Path) -> None:
    """Remove a folder or a file, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sweep_temporary(store: Path, *, older_than_s: float = STALE_AFTER_S) -> int:
    """Remove what killed workers left below `store`; returns how many `.tmp-*` entries were removed.

    Nothing is looked for inside Zarr stores: a million of them have too many files for the start of every run. What
    vanishes meanwhile, as a reader's snapshot does, is nobody's fault.
    """
    now, n_removed = time.time(), 0
    for path in _temporary(store):
        with suppress(FileNotFoundError):
            if now - path.lstat().st_mtime >= older_than_s:
                discard(path)
                n_removed += 1
    return n_removed


def _temporary(store: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(store):
        yield from (Path(folder, name) for name in (*folders, *files) if name.startswith(TEMPORARY_PREFIX))
        folders[:] = [name for name in folders if not name.startswith(TEMPORARY_PREFIX) and not name.endswith(".zarr")]
