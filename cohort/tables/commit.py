"""Commit of one group of results: current tables, history and ledger, in an order that survives a crash.

1. The ledger forgets the attempts that are about to be replaced.
2. Rows of all other tables, and the history.
3. The ledger learns the new attempts.

Every file is written and synced before the first is moved, and each move is atomic. A crash at any point leaves
readable tables in which the ledger never vouches for rows that are not there, so the next run only redoes work.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from cohort.tables.buckets import Key, as_table, create_tables, keys_of, stage_replacement, staging
from cohort.tables.history import stage_history
from cohort.tables.schema import arrow_schema


def commit(
    store: Path,
    run_id: str,
    rows: Mapping[str, Sequence[Any] | pa.Table],
    *,
    touched: Mapping[str, Collection[Key]],
) -> None:
    """Replace the current rows of all touched keys and append the rows to the history of this run.

    Parameters
    ----------
    rows : table name -> row dataclasses of `cohort.rows`, or an Arrow table in the table's schema
    touched : table name -> keys (`cohort.tables.buckets.key_columns`) whose old rows leave the table even where no new
        row replaces them. The keys of `rows` are always touched.

    Raises `ValueError` before anything is written when a row does not fit its table (NaN, missing, wrong class).
    """
    create_tables(store)
    content = {table: as_table(table, new) for table, new in rows.items()}
    keys = {table: set(touched.get(table, ())) for table in {"ledger", *touched, *rows}}
    for table, new in content.items():
        keys[table] |= keys_of(table, new)
    empty = {table: arrow_schema(table).empty_table() for table in keys}
    with staging(store) as area:
        stage_replacement(store, "ledger", keys["ledger"], empty["ledger"], area=area)
        for table in sorted(keys.keys() - {"ledger"}):
            stage_replacement(store, table, keys[table], content.get(table, empty[table]), area=area)
        stage_history(store, run_id, content, area=area)
        # the same ledger buckets a second time: read from disk with the old attempts, written without them
        stage_replacement(store, "ledger", keys["ledger"], content.get("ledger", empty["ledger"]), area=area)
        area.publish()
