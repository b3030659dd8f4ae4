"""History: STORE/history/<table>/run=<run_id>/part-N.parquet, every row ever written, append-only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cohort.tables.buckets import Staging
from cohort.tables.schema import rows_to_table


def stage_history(store: Path, table: str, run_id: str, rows: Sequence[Any], *, area: Staging) -> None:
    """Add to `area` the next part of this run: part-0, part-1, ... one per commit; nothing without rows."""
    if not rows:
        return
    folder = store / "history" / table / f"run={run_id}"
    parts = len(list(folder.glob("part-*.parquet")))
    area.add(folder / f"part-{parts}.parquet", rows_to_table(table, rows))
