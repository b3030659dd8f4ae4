"""Rows of another folder of tables become current: all files written first, then moved in an order that a crash
survives.

The order is that of `cohort.tables.commit`: the ledger forgets the attempts that are replaced, then the rows of all
other tables and the history, then the ledger learns the new attempts. Doing it again from the start, after a crash at
any point or after the end, gives the same tables.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from cohort.errors import StoreError
from cohort.tables.buckets import (
    Key,
    Staging,
    bucket_count,
    bucket_file,
    by_bucket,
    has_key,
    key_columns,
    read_bucket,
    staging,
)
from cohort.tables.schema import arrow_schema

FIRST_PART: Final = 1_000_000
"""Of the history of a promotion; no run commits as often as this."""


def promote_rows(source: Path, store: Path, run_id: str, touched: Mapping[str, Collection[Key]]) -> None:
    """Replace the current rows of all touched keys by those that `source` has of them, and write these to the history.

    Parameters
    ----------
    source : folder of tables with the same number of buckets, which stays as it is
    run_id : run whose history gets the rows
    touched : table -> keys whose old rows leave the table even where `source` has none

    Raises
    ------
    StoreError
        when the two folders divide their rows in different ways
    """
    if bucket_count(source) != bucket_count(store):
        raise StoreError("the two folders of tables have different numbers of buckets")
    ledger = {"ledger": touched.get("ledger", ())}
    others = {table: touched[table] for table in sorted(touched.keys() - {"ledger"})}
    with staging(store) as area:
        _stage(store, store, ledger, area, forget=True)
        _stage(source, store, others, area)
        _stage_history(source, store, run_id, touched, area)
        _stage(source, store, ledger, area)
        area.publish()


def _stage(
    source: Path, store: Path, touched: Mapping[str, Collection[Key]], area: Staging, *, forget: bool = False
) -> None:
    """Add the new content of every touched bucket, without new rows where the old ones are only forgotten."""
    for table, keys in touched.items():
        for bucket, members in by_bucket(keys, bucket_count(store)).items():
            path = bucket_file(store, table, bucket)
            old = _rows(path, table)
            kept = old.filter(pc.invert(has_key(old, key_columns(table), members)))
            new = _of_keys(source, table, bucket, members) if not forget else kept.slice(0, 0)
            if new.num_rows or kept.num_rows < old.num_rows:
                order = [(column, "ascending") for column in key_columns(table)]
                area.add(path, pa.concat_tables([kept, new]).sort_by(order))


def _stage_history(
    source: Path, store: Path, run_id: str, touched: Mapping[str, Collection[Key]], area: Staging
) -> None:
    """One part per bucket with a number of its own, so that a second attempt replaces what the first one wrote."""
    for table, keys in touched.items():
        for bucket, members in by_bucket(keys, bucket_count(store)).items():
            new = _of_keys(source, table, bucket, members)
            if new.num_rows:
                folder = store / "history" / table / f"run={run_id}"
                area.add(folder / f"part-{FIRST_PART + bucket}.parquet", new)


def _of_keys(source: Path, table: str, bucket: int, keys: list[Key]) -> pa.Table:
    found = _rows(bucket_file(source, table, bucket), table)
    return found.filter(has_key(found, key_columns(table), keys))


def _rows(path: Path, table: str) -> pa.Table:
    return read_bucket(path, table) if path.exists() else arrow_schema(table).empty_table()
