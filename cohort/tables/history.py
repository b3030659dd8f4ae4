"""History: STORE/history/<table>/run=<run_id>/part-N.parquet, every row ever written, append-only."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from cohort.tables.buckets import Staging


def stage_history(store: Path, table: str, run_id: str, rows: pa.Table, *, area: Staging) -> None:
    """Add to `area` the next part of this run: part-0, part-1, ... one per commit; nothing without rows."""
    if rows.num_rows == 0:
        return
    folder = store / "history" / table / f"run={run_id}"
    parts = len(list(folder.glob("part-*.parquet")))
    area.add(folder / f"part-{parts}.parquet", rows)
