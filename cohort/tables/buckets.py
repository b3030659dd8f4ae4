"""Current tables: STORE/tables/<table>/bucket-NN/part-0.parquet, each file rewritten whole and moved in place.

A bucket holds all rows of the keys that hash to it, so plain `pandas.read_parquet("STORE/tables/discs")` is the current
table and nothing else. The folders are called `bucket-07`, not `bucket=07`: with the hive form every reader would add a
`bucket` column, which pandas then takes for a join key. A reader that runs beside a commit may see some buckets before
and some after it, but never a broken file and never half the rows of one key.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from cohort.errors import StoreError
from cohort.rows import TABLES
from cohort.store.publish import replacing
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

STAGING_PREFIX: Final = ".tmp-"
PUBLISHING: Final = ".publishing"
"""File in STORE/tables that a commit locks while it moves its files, so that a snapshot is of no half commit."""
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
    if not has_tables(store):
        root.mkdir(parents=True, exist_ok=True)
        with staging(store) as area:
            for table in TABLES:
                area.add(bucket_file(store, table, 0), arrow_schema(table).empty_table())
            area.publish()
        write_marker(store, N_BUCKETS)
    _sweep(root)


def has_tables(folder: Path) -> bool:
    """Whether a folder, which may be absent, holds tables of any schema version."""
    return (folder / "tables" / "_store.json").exists()


def write_marker(store: Path, n_buckets: int) -> None:
    """Say in the store how many buckets its tables have and of which schema version they are, in one step."""
    with replacing(store / "tables" / "_store.json") as marker:
        marker.write_text(json.dumps({"buckets": n_buckets, "schema_version": SCHEMA_VERSION}) + "\n")


def read_marker(store: Path) -> tuple[int, int]:
    """Number of buckets and schema version of a store; `StoreError` when it has no tables."""
    try:
        marker = json.loads((store / "tables" / "_store.json").read_text())
    except FileNotFoundError:
        raise StoreError("the store has no tables yet (tables/_store.json is missing)") from None
    return int(marker["buckets"]), int(marker["schema_version"])


def _sweep(root: Path) -> None:
    for left in root.glob(f"{STAGING_PREFIX}*"):
        with suppress(FileNotFoundError):  # another process may sweep at the same time, or a snapshot end
            if time.time() - left.lstat().st_mtime > _STAGING_MAX_AGE_S:
                shutil.rmtree(left, ignore_errors=True)


def bucket_count(store: Path) -> int:
    """Number of buckets of this store; `StoreError` when there are no tables or they have another schema version."""
    n_buckets, version = read_marker(store)
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"tables of schema version {version}, newer than this software, which knows {SCHEMA_VERSION}: "
            "install the version that wrote them, or a later one"
        )
    if version < SCHEMA_VERSION:
        raise StoreError(
            f"tables of schema version {version}, this software writes {SCHEMA_VERSION}: cohort migrate rewrites them"
        )
    return n_buckets


def bucket_of(key: str, n_buckets: int) -> int:
    """Bucket of a key: the first 8 bytes of its SHA-256 modulo the number of buckets; equal on every machine."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % n_buckets


def bucket_file(store: Path, table: str, bucket: int) -> Path:
    """Place of a bucket of a table; there is no file before the bucket's first row."""
    return store / "tables" / table / f"bucket-{bucket:02d}" / "part-0.parquet"


def bucket_files(store: Path, table: str) -> list[Path]:
    """Current files of a table, in the order of the buckets; at least one."""
    bucket_count(store)
    return sorted((store / "tables" / table).glob("bucket-*/part-0.parquet"))


def read_bucket(path: Path, table: str) -> pa.Table:
    """Rows of one bucket file; `StoreError` names table and bucket where it is damaged or of another schema.

    Pages carry checksums, so that a changed byte of the values is an error and not another number. A changed byte in
    the file's description of itself may go unseen where it changes none.
    """
    try:
        found = pq.ParquetFile(path, page_checksum_verification=True).read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # no such file, no permission, ...: nothing is wrong with the bytes
        raise StoreError(f"table {table}, {path.parent.name} is damaged: see cohort fsck --repair") from error
    if not found.schema.equals(arrow_schema(table)):
        raise StoreError(f"a bucket of table {table} has other columns than schema version {SCHEMA_VERSION}")
    return found


def read_rows(store: Path, table: str) -> pa.Table:
    """Current rows of a table, in the schema of `arrow_schema(table)`; `StoreError` when the store has no tables."""
    return pa.concat_tables(_in_threads(partial(read_bucket, table=table), bucket_files(store, table)))


def table_dataset(store: Path, table: str) -> ds.Dataset:
    """Current files of a table as an Arrow dataset, to read some columns or rows of it; errors as in `read_rows`."""
    files = [str(path) for path in bucket_files(store, table)]
    return ds.dataset(files, schema=arrow_schema(table), partitioning=None)


def read_objects(store: Path, table: str, exam_ids: Collection[str] | None = None) -> list[Any]:
    """Current rows of a table as the row dataclasses of `cohort.rows`; errors as in `read_rows`.

    Parameters
    ----------
    exam_ids : only rows of these exams, which is much faster for a few of many
    """
    if exam_ids is None:
        return objects_of(table, read_rows(store, table))
    return objects_of(table, table_dataset(store, table).to_table(filter=ds.field("exam_id").isin(list(exam_ids))))


def objects_of(table: str, content: pa.Table) -> list[Any]:
    """Rows of an Arrow table, in the schema of `arrow_schema(table)`, as the row dataclasses of `cohort.rows`."""
    return [_object(row_class(table), values) for values in content.to_pylist()]


def _object(row: type, values: dict[str, Any]) -> Any:
    """A frozen dataclass from all its values at once: `__init__` would set them one by one, ten times slower."""
    made: Any = object.__new__(row)
    made.__dict__.update(values)
    return made


def _in_threads(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Results in the order of the items.

    Arrow releases the interpreter while it reads, sorts, compresses and writes; its own count of cores is used.
    """
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(pa.cpu_count(), len(items))) as pool:
        return list(pool.map(function, items))


def write_parquet(path: Path, content: pa.Table) -> None:
    """Write and sync one file, with checksums on its pages.

    Dictionaries and statistics are of text alone: on measured numbers dictionaries take twice the time and more room,
    and least and greatest numbers of a bucket, which is a sample of all exams, let no reader skip anything.
    """
    text = [column.name for column in content.schema if pa.types.is_string(column.type)]
    options = {"use_dictionary": text, "write_statistics": text, "write_page_checksum": True}
    with path.open("wb") as handle:
        pq.write_table(content, handle, compression="zstd", **options)
        handle.flush()
        os.fsync(handle.fileno())  # a rename must never outlive the bytes it points to


class Staging:
    """New files of one commit: written and synced here first, then moved in place one by one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: list[tuple[Path, Path]] = []

    def add(self, target: Path, content: pa.Table) -> None:
        """Write `content` beside the tables; nothing is visible until `publish`."""
        self._waiting.append((self._write(content), target))

    def add_each(self, targets: Sequence[Path], contents: Callable[[Path], pa.Table | None]) -> None:
        """Make and write the content of many files in threads; None leaves a file as it is."""

        def made(target: Path) -> Path | None:
            content = contents(target)
            return None if content is None else self._write(content)

        parts = zip(_in_threads(made, targets), targets, strict=True)
        self._waiting += [(part, target) for part, target in parts if part]

    def _write(self, content: pa.Table) -> Path:
        part = self.path / f"{uuid.uuid4().hex}.parquet"
        write_parquet(part, content)
        return part

    def publish(self) -> None:
        """Move every file in place, in the order they were added; each move is atomic."""
        handle = os.open(self.path.parent / PUBLISHING, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            for part, target in self._waiting:
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(part, target)
            self._waiting.clear()
        finally:
            os.close(handle)


@contextmanager
def staging(store: Path) -> Iterator[Staging]:
    """Open a staging folder on the store's own file system, hidden from every reader; removed at the end."""
    path = store / "tables" / f"{STAGING_PREFIX}{uuid.uuid4().hex}"
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


def as_table(table: str, rows: Sequence[Any] | pa.Table) -> pa.Table:
    """Rows in the schema of `arrow_schema(table)`; `ValueError` where they do not fit it."""
    if not isinstance(rows, pa.Table):
        return rows_to_table(table, rows)
    if not rows.schema.equals(arrow_schema(table)):
        raise ValueError(f"rows have other columns than table {table}")
    return rows


def keys_of(table: str, content: pa.Table) -> set[Key]:
    """Keys that occur in rows of a table."""
    names = list(key_columns(table))
    unique = content.select(names).group_by(names).aggregate([])
    return set(zip(*(unique[name].to_pylist() for name in names), strict=True))


def stage_replacement(store: Path, table: str, keys: Collection[Key], content: pa.Table, *, area: Staging) -> None:
    """Add to `area` the new content of every bucket that `keys` touch: without the old rows of `keys`, with `content`.

    Raises `ValueError` when a row's key is not among `keys` (it would stand beside the row it should replace).
    """
    n_buckets = bucket_count(store)
    wanted = set(keys)
    if strays := keys_of(table, content) - wanted:
        raise ValueError(f"table {table}: rows of {len(strays)} keys that are not being replaced")
    new = _in_buckets(content, key_columns(table)[0], n_buckets)
    touched = by_bucket(wanted, n_buckets)
    buckets = {bucket_file(store, table, bucket): bucket for bucket in touched}
    area.add_each(
        list(buckets), lambda path: _replaced(path, table, touched[buckets[path]], new.get(buckets[path], content[:0]))
    )


def _in_buckets(content: pa.Table, column: str, n_buckets: int) -> dict[int, pa.Table]:
    """Bucket -> its rows."""
    content = content.combine_chunks()
    encoded = pc.dictionary_encode(content[column].combine_chunks())
    of_key = np.array([bucket_of(key, n_buckets) for key in encoded.dictionary.to_pylist()], np.int64)
    of_row = of_key[encoded.indices.to_numpy()] if len(of_key) else of_key
    order = np.argsort(of_row, kind="stable")
    ordered, of_row = content.take(order), of_row[order]
    buckets = np.unique(of_row)
    begin, end = (np.searchsorted(of_row, buckets, side) for side in ("left", "right"))
    return {int(bucket): ordered.slice(a, b - a) for bucket, a, b in zip(buckets, begin, end, strict=True)}


def by_bucket(keys: Iterable[Key], n_buckets: int) -> dict[int, list[Key]]:
    groups: defaultdict[int, list[Key]] = defaultdict(list)
    for key in keys:
        groups[bucket_of(key[0], n_buckets)].append(key)
    return groups


def _replaced(path: Path, table: str, keys: list[Key], new: pa.Table) -> pa.Table | None:
    """New content of a bucket; None where there is nothing to take away and nothing to add."""
    old = read_bucket(path, table) if path.exists() else arrow_schema(table).empty_table()
    kept = old.filter(pc.invert(has_key(old, key_columns(table), keys)))
    if new.num_rows == 0 and kept.num_rows == old.num_rows:
        return None
    order = [(column, "ascending") for column in key_columns(table)]
    return pa.concat_tables([kept, new]).sort_by(order)


def has_key(table: pa.Table, columns: tuple[str, ...], keys: list[Key]) -> pa.Array:
    joined = pc.binary_join_element_wise(*(table[column] for column in columns), _JOIN)
    return pc.is_in(joined, value_set=pa.array([_JOIN.join(key) for key in keys], pa.string()))


def replace_rows(store: Path, table: str, keys: Collection[Key], rows: Sequence[Any]) -> None:
    """Replace all current rows of `keys` by `rows`; only the touched buckets are rewritten, each atomically.

    Keys are tuples of `key_columns(table)`: `(exam_id,)` for most tables. A key without rows is thereby removed.
    """
    create_tables(store)
    with staging(store) as area:
        stage_replacement(store, table, keys, rows_to_table(table, rows), area=area)
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
            area.add_each(bucket_files(store, table), partial(_without, table=table, exam_ids=exam_ids))
        area.publish()


def _without(path: Path, table: str, exam_ids: Collection[str]) -> pa.Table | None:
    old = read_bucket(path, table)
    kept = old.filter(pc.invert(pc.is_in(old["exam_id"], value_set=pa.array(list(exam_ids), pa.string()))))
    return kept if kept.num_rows < old.num_rows else None
