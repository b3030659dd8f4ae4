"""History: STORE/history/<table>/run=<run_id>/part-N.parquet, every row ever written, append-only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from cohort.tables.buckets import Staging


def stage_history(store: Path, run_id: str, rows: Mapping[str, pa.Table], *, area: Staging) -> None:
    """Add to `area` the next part of this run for each table: part-0, part-1, ... one per commit; none without rows."""
    parts = {_next_part(store, table, run_id): new for table, new in rows.items() if new.num_rows}
    area.add_each(list(parts), parts.__getitem__)


def _next_part(store: Path, table: str, run_id: str) -> Path:
    folder = store / "history" / table / f"run={run_id}"
    return folder / f"part-{len(list(folder.glob('part-*.parquet')))}.parquet"
