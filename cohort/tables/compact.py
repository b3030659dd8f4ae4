"""Compaction of the history: many part files of one run become one, and not a row changes.

A run that commits every few seconds leaves thousands of small files. Each folder history/<table>/run=<run_id> is
written anew beside itself, checked, and exchanged by two renames. Cut off between them, the run's rows lie in a hidden
folder, which the next compaction puts back first.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from cohort.errors import StoreError
from cohort.rows import TABLES
from cohort.tables.buckets import write_parquet
from cohort.tables.schema import arrow_schema

_NEW: Final = ".new-"
_OLD: Final = ".old-"
"""Prefixes of folders that readers of the history do not see."""


@dataclass(frozen=True)
class Compacted:
    """What a compaction did."""

    files_before: int
    files_after: int
    """Of the folders that had more than one file."""
    bytes_freed: int


def compact_history(store: Path) -> Compacted:
    """Join the part files of every table and run; the caller holds the store's lock.

    Raises `StoreError` when a part is damaged: that run's folder stays as it is.
    """
    finish_interrupted(store)
    folders = [folder for folder in _run_folders(store) if len(_parts(folder)) > 1]
    before = sum(len(_parts(folder)) for folder in folders)
    freed = sum(_compact(folder) for folder in folders)
    return Compacted(before, len(folders), freed)


def interrupted(store: Path) -> list[Path]:
    """Hidden folders that a compaction left when it was cut off."""
    return sorted(path for prefix in (_NEW, _OLD) for path in (store / "history").glob(f"*/{prefix}run=*"))


def finish_interrupted(store: Path) -> None:
    """Put back or remove what an interrupted compaction left."""
    for path in interrupted(store):
        place = path.with_name(path.name[len(_OLD) :])
        if path.name.startswith(_OLD) and not place.exists():
            os.rename(path, place)
        else:
            shutil.rmtree(path)


def _run_folders(store: Path) -> Iterator[Path]:
    for table in TABLES:
        yield from sorted((store / "history" / table).glob("run=*"))


def _parts(folder: Path) -> list[Path]:
    """In the order they were written."""
    return sorted(folder.glob("part-*.parquet"), key=lambda path: int(path.stem.partition("-")[2]))


def _compact(folder: Path) -> int:
    """Exchange the folder for one with a single file; returns the bytes freed."""
    parts, table = _parts(folder), folder.parent.name
    new, old = folder.with_name(_NEW + folder.name), folder.with_name(_OLD + folder.name)
    before = sum(path.stat().st_size for path in parts)
    new.mkdir()
    rows = pa.concat_tables([_read_part(path, table) for path in parts])
    write_parquet(new / "part-0.parquet", rows)
    if not _read_part(new / "part-0.parquet", table).equals(rows):
        raise StoreError(f"history of table {table}: what was written is not what was read; is the disk sound?")
    os.rename(folder, old)
    os.rename(new, folder)
    shutil.rmtree(old)
    return before - (folder / "part-0.parquet").stat().st_size


def _read_part(path: Path, table: str) -> pa.Table:
    try:
        rows = pq.ParquetFile(path, page_checksum_verification=True).read()
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"history of table {table}: {path.name} of a run is damaged") from error
    if not rows.schema.equals(arrow_schema(table)):
        raise StoreError(f"history of table {table}: a part has other columns than today's schema: cohort migrate")
    return rows
