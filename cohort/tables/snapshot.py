"""A store's tables as they were at one moment, while a run goes on committing.

Every commit moves its files while it holds STORE/tables/.publishing; a snapshot holds it, too, while it links every
bucket file into a folder of its own. A commit that is waiting waits for milliseconds; a process that dies lets go.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cohort.rows import TABLES
from cohort.tables.buckets import PUBLISHING, STAGING_PREFIX, bucket_files


@contextmanager
def snapshot(store: Path) -> Iterator[Path]:
    """Give a folder that is laid out like STORE and holds its current tables as of now; gone afterwards.

    Bucket files are linked, not copied, unless the store is read-only or its file system has no links. Raises
    `StoreError` when the store has no tables, or other ones than this software's.
    """
    folder = _folder_beside(store) or Path(tempfile.mkdtemp(prefix="cohort-snapshot-"))
    try:
        with _no_commit(store):
            for table in TABLES:
                for path in bucket_files(store, table):
                    _link(path, folder / path.relative_to(store))
            shutil.copy(store / "tables" / "_store.json", folder / "tables" / "_store.json")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _folder_beside(store: Path) -> Path | None:
    """On the store's own file system, where links are possible; None where nothing can be written."""
    with suppress(OSError):
        return Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=store / "tables"))
    return None


@contextmanager
def _no_commit(store: Path) -> Iterator[None]:
    try:
        handle = os.open(store / "tables" / PUBLISHING, os.O_RDONLY)
    except FileNotFoundError:  # nothing has been committed yet, or not by this version
        yield
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def _link(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, target)
    except OSError:
        shutil.copy(path, target)
