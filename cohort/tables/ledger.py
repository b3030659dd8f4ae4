"""The ledger: the latest attempt at each (exam_id, stage), which is all that planning needs to know."""

from __future__ import annotations

from pathlib import Path

from cohort.rows import LedgerRow
from cohort.tables.buckets import read_objects

Ledger = dict[tuple[str, str], LedgerRow]
"""(exam_id, stage) -> the latest attempt."""


def read_ledger(store: Path) -> Ledger:
    """Read the latest attempt of every exam and stage; `StoreError` when the store has no tables."""
    rows: list[LedgerRow] = read_objects(store, "ledger")
    return {(row.exam_id, row.stage): row for row in rows}
