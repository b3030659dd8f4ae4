"""Current tables: STORE/tables/<table>/bucket-NN/part-0.parquet, each file rewritten whole and moved in place.

A bucket holds all rows of the keys that hash to it, so plain `pandas.read_parquet("STORE/tables/discs")` is the current
table and nothing else. The folders are called `bucket-07`, not `bucket=07`: with the hive form every reader would add a
`bucket` column, which pandas then takes for a join key. A reader that runs beside a commit may see some buckets before
and some after it, but never a broken file and never half the rows of one key.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from cohort.errors import StoreError
from cohort.rows import TABLES
from cohort.tables.schema import SCHEMA_VERSION, arrow_schema, row_class, rows_to_table

N_BUCKETS: Final = 64
"""Of a new store; written into the store and never changed there."""

Key = tuple[str, ...]
"""Values of the key columns of a table, for example `(exam_id,)` or `(exam_id, stage)`."""

KEY_COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "files": ("file_id",),  # exam_id is null where a file is not usable
    "runs": ("run_id",),
    "quality": ("exam_id", "stage"),  # each stage replaces its own flags and leaves those of the others
    "ledger": ("exam_id", "stage"),
}
"""Rows are replaced by these columns, and bucketed by the first; all other tables by exam_id."""

_STAGING_PREFIX: Final = ".tmp-"
_STAGING_MAX_AGE_S: Final = 86_400.0
_JOIN: Final = "\x1f"  # unit separator: cannot occur in a pseudonym or a stage name


def key_columns(table: str) -> tuple[str, ...]:
    """Columns that say which rows a new row replaces."""
    return KEY_COLUMNS.get(table, ("exam_id",))


def create_tables(store: Path) -> None:
    """Make STORE/tables with one empty file per table, so that every table can be read from the start; idempotent.

    Also removes staging folders that a killed process left more than a day ago.
    """
    root = store / "tables"
    if not (root / "_store.json").exists():
        root.mkdir(parents=True, exist_ok=True)
        with staging(store) as area:
            for table in TABLES:
                area.add(_bucket_file(store, table, 0), arrow_schema(table).empty_table())
            area.publish()
            marker = area.path / "_store.json"
            marker.write_text(json.dumps({"buckets": N_BUCKETS, "schema_version": SCHEMA_VERSION}) + "\n")
            os.replace(marker, root / "_store.json")
    _sweep(root)


def _sweep(root: Path) -> None:
    for left in root.glob(f"{_STAGING_PREFIX}*"):
        if time.time() - left.stat().st_mtime > _STAGING_MAX_AGE_S:
            shutil.rmtree(left, ignore_errors=True)  # another process may sweep at the same time


def bucket_count(store: Path) -> int:
    """Number of buckets of this store; `StoreError` when there are no tables or they have another schema version."""
    try:
        marker = json.loads((store / "tables" / "_store.json").read_text())
    except FileNotFoundError:
        raise StoreError("the store has no tables yet (tables/_store.json is missing)") from None
    if marker["schema_version"] != SCHEMA_VERSION:
        raise StoreError(
            f"tables of schema version {marker['schema_version']}, this software writes {SCHEMA_VERSION}: "
            "run into a new store, old tables stay as they are"
        )
    return int(marker["buckets"])


def bucket_of(key: str, n_buckets: int) -> int:
    """Bucket of a key: the first 8 bytes of its SHA-256 modulo the number of buckets; equal on every machine."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % n_buckets


def _bucket_file(store: Path, table: str, bucket: int) -> Path:
    return store / "tables" / table / f"bucket-{bucket:02d}" / "part-0.parquet"


def bucket_files(store: Path, table: str) -> list[Path]:
    """Current files of a table, in the order of the buckets; at least one."""
    bucket_count(store)
    return sorted((store / "tables" / table).glob("bucket-*/part-0.parquet"))


def _read_file(path: Path, table: str) -> pa.Table:
    found = pq.ParquetFile(path).read()
    if not found.schema.equals(arrow_schema(table)):
        raise StoreError(f"a bucket of table {table} has other columns than schema version {SCHEMA_VERSION}")
    return found


def read_rows(store: Path, table: str) -> pa.Table:
    """Current rows of a table, in the schema of `arrow_schema(table)`; `StoreError` when the store has no tables."""
    return pa.concat_tables([_read_file(path, table) for path in bucket_files(store, table)])


def table_dataset(store: Path, table: str) -> ds.Dataset:
    """Current files of a table as an Arrow dataset, to read some columns or rows of it; errors as in `read_rows`."""
    files = [str(path) for path in bucket_files(store, table)]
    return ds.dataset(files, schema=arrow_schema(table), partitioning=None)


def read_objects(store: Path, table: str) -> list[Any]:
    """Current rows of a table as the row dataclasses of `cohort.rows`; errors as in `read_rows`."""
    found = read_rows(store, table)
    columns = [found[name].to_pylist() for name in found.column_names]
    row = row_class(table)
    return [row(**dict(zip(found.column_names, values, strict=True))) for values in zip(*columns, strict=True)]


class Staging:
    """New files of one commit: written and synced here first, then moved in place one by one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: list[tuple[Path, Path]] = []

    def add(self, target: Path, content: pa.Table) -> None:
        """Write `content` beside the tables; nothing is visible until `publish`."""
        part = self.path / f"{uuid.uuid4().hex}.parquet"
        with part.open("wb") as handle:
            pq.write_table(content, handle, compression="zstd", use_dictionary=True)
            handle.flush()
            os.fsync(handle.fileno())  # a rename must never outlive the bytes it points to
        self._waiting.append((part, target))

    def publish(self) -> None:
        """Move every file in place, in the order they were added; each move is atomic."""
        for part, target in self._waiting:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(part, target)
        self._waiting.clear()


@contextmanager
def staging(store: Path) -> Iterator[Staging]:
    """Open a staging folder on the store's own file system, hidden from every reader; removed at the end."""
    path = store / "tables" / f"{_STAGING_PREFIX}{uuid.uuid4().hex}"
    path.mkdir(parents=True)
    try:
        yield Staging(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def row_key(table: str, row: Any) -> Key:
    """Key of one row dataclass; `ValueError` when the row belongs to another table."""
    if not isinstance(row, row_class(table)):
        raise ValueError(f"table {table} holds {row_class(table).__name__}, not {type(row).__name__}")  # noqa: TRY004
    return tuple(getattr(row, column) for column in key_columns(table))


def stage_replacement(store: Path, table: str, keys: Collection[Key], rows: Sequence[Any], *, area: Staging) -> None:
    """Add to `area` the new content of every bucket that `keys` touch: without the old rows of `keys`, with `rows`.

    Raises `ValueError` when a row's key is not among `keys` (it would stand beside the row it should replace).
    """
    n_buckets = bucket_count(store)
    wanted = set(keys)
    if strays := {row_key(table, row) for row in rows} - wanted:
        raise ValueError(f"table {table}: rows of {len(strays)} keys that are not being replaced")
    new: defaultdict[int, list[Any]] = defaultdict(list)
    for row in rows:
        new[bucket_of(row_key(table, row)[0], n_buckets)].append(row)
    for bucket, touched in _by_bucket(wanted, n_buckets).items():
        _stage_bucket(_bucket_file(store, table, bucket), table, touched, new[bucket], area)


def _by_bucket(keys: Iterable[Key], n_buckets: int) -> dict[int, list[Key]]:
    groups: defaultdict[int, list[Key]] = defaultdict(list)
    for key in keys:
        groups[bucket_of(key[0], n_buckets)].append(key)
    return groups


def _stage_bucket(path: Path, table: str, keys: list[Key], rows: list[Any], area: Staging) -> None:
    old = _read_file(path, table) if path.exists() else arrow_schema(table).empty_table()
    kept = old.filter(pc.invert(_has_key(old, key_columns(table), keys)))
    if not rows and kept.num_rows == old.num_rows:
        return  # nothing to take away, nothing to add: leave the file as it is
    order = [(column, "ascending") for column in key_columns(table)]
    area.add(path, pa.concat_tables([kept, rows_to_table(table, rows)]).sort_by(order))


def _has_key(table: pa.Table, columns: tuple[str, ...], keys: list[Key]) -> pa.Array:
    joined = pc.binary_join_element_wise(*(table[column] for column in columns), _JOIN)
    return pc.is_in(joined, value_set=pa.array([_JOIN.join(key) for key in keys], pa.string()))


def replace_rows(store: Path, table: str, keys: Collection[Key], rows: Sequence[Any]) -> None:
    """Replace all current rows of `keys` by `rows`; only the touched buckets are rewritten, each atomically.

    Keys are tuples of `key_columns(table)`: `(exam_id,)` for most tables. A key without rows is thereby removed.
    """
    create_tables(store)
    with staging(store) as area:
        stage_replacement(store, table, keys, rows, area=area)
        area.publish()


def remove_exams(store: Path, exam_ids: Collection[str], *, keep: Collection[str] = ()) -> None:
    """Remove all results of the exams, the ledger first: if this is interrupted, an exam that returns is redone.

    The rows of `exams` stay, so that the caller can say why, those of `files`, which follow the archive, and those of
    the tables in `keep`.
    """
    kept = ("exams", "files", *keep)
    with_exams = [table for table in TABLES if table not in kept and "exam_id" in arrow_schema(table).names]
    with staging(store) as area:
        for table in sorted(with_exams, key=lambda name: name != "ledger"):
            for path in bucket_files(store, table):
                _stage_without(path, table, exam_ids, area)
        area.publish()


def _stage_without(path: Path, table: str, exam_ids: Collection[str], area: Staging) -> None:
    old = _read_file(path, table)
    leaving = pc.is_in(old["exam_id"], value_set=pa.array(list(exam_ids), pa.string()))
    kept = old.filter(pc.invert(leaving))
    if kept.num_rows < old.num_rows:
        area.add(path, kept)
