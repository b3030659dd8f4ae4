"""`cohort migrate`: rewrite the tables and history of an older store in today's schema.

Every Parquet file says in its own metadata of which schema version it is, so the work can be cut off anywhere and be
done again: files of today's version are left alone. The marker, tables/_store.json, is written last; until then every
reader and every run refuses the store. A new version needs one more function in `STEPS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from cohort.errors import StoreError
from cohort.rows import TABLES
from cohort.store.layout import candidate_path
from cohort.tables.buckets import bucket_file, has_tables, read_marker, staging, write_marker
from cohort.tables.schema import SCHEMA_VERSION, arrow_schema

Step = Callable[[str, pa.Table], pa.Table]
"""Turns the rows of a table (its name is given) from one schema version into the next."""


@dataclass(frozen=True)
class Migrated:
    """What a migration did."""

    from_version: int
    to_version: int
    files: int
    """Rewritten by this call; 0 where nothing was to be done."""


def _from_4(table: str, rows: pa.Table) -> pa.Table:
    """Version 5 knows what fingerprints are made of, when and with how much memory a stage ended, and how a run did.

    What was not recorded stays null. Every run of version 4 was `cohort run`, and had a row only when it was complete.
    """
    if table == "runs":
        return _with(rows, {"command": "run", "n_pending": 0, "ended": "complete"})
    return rows


STEPS: Final[Mapping[int, Step]] = {4: _from_4}
"""Schema version -> step to the next one. Columns that are new and may be null need no step."""


def _with(rows: pa.Table, values: Mapping[str, str | int]) -> pa.Table:
    for name, value in values.items():
        rows = rows.append_column(name, pa.array([value] * rows.num_rows))
    return rows


def migrate(store: Path) -> Migrated:
    """Bring tables and history of STORE (and of STORE/candidate, if it is there) to this software's schema version.

    Each file is replaced in one step; the caller holds the store's lock.

    Raises
    ------
    StoreError
        where the store has no tables, is of a newer version, or of one that is too old to be migrated
    """
    n_buckets, version = read_marker(store)
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"tables of schema version {version}, newer than this software, which knows {SCHEMA_VERSION}: "
            "install the version that wrote them, or a later one"
        )
    candidate = candidate_path(store)
    inner = migrate(candidate).files if has_tables(candidate) else 0
    files = sum(_migrate_table(store, table) for table in TABLES) if version < SCHEMA_VERSION else 0
    if version < SCHEMA_VERSION:
        write_marker(store, n_buckets)
    return Migrated(version, SCHEMA_VERSION, inner + files)


def _migrate_table(store: Path, table: str) -> int:
    """Rewrite the files of one table; a table that an older version did not have gets its first, empty file."""
    current = sorted((store / "tables" / table).glob("bucket-*/part-0.parquet"))
    old = [path for path in (*current, *_history(store, table)) if _version(path) < SCHEMA_VERSION]
    with staging(store) as area:
        if not current:
            area.add(bucket_file(store, table, 0), arrow_schema(table).empty_table())
        area.add_each(old, lambda path: _migrated(path, table))
        area.publish()
    return len(old)


def _history(store: Path, table: str) -> list[Path]:
    return sorted((store / "history" / table).glob("run=*/part-*.parquet"))


def _version(path: Path) -> int:
    try:
        return int(pq.read_schema(path).metadata[b"schema_version"])
    except (pa.ArrowException, KeyError, TypeError) as error:
        raise StoreError(f"{path.parent.parent.name}, {path.parent.name}: a file is damaged or not ours") from error


def _migrated(path: Path, table: str) -> pa.Table:
    rows = pq.ParquetFile(path, page_checksum_verification=True).read(use_threads=False)
    for version in range(_version(path), SCHEMA_VERSION):
        if version not in STEPS:
            raise StoreError(f"tables of schema version {version} are too old to be migrated: run into a new store")
        rows = STEPS[version](table, rows)
    return _in_schema(table, rows)


def _in_schema(table: str, rows: pa.Table) -> pa.Table:
    """The columns of today's schema, in its order; one that is missing is null where it may be."""
    schema = arrow_schema(table)
    if unknown := set(rows.column_names) - set(schema.names):
        raise StoreError(f"table {table}: no step says what becomes of column {min(unknown)}")
    columns = [_column(rows, column, table) for column in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _column(rows: pa.Table, column: pa.Field, table: str) -> pa.ChunkedArray | pa.Array:
    if column.name in rows.column_names:
        return rows[column.name].cast(column.type)
    if not column.nullable:
        raise StoreError(f"table {table}: no step fills column {column.name}")
    return pa.nulls(rows.num_rows, column.type)
