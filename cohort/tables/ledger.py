"""The ledger: the latest attempt at each (exam_id, stage), which is all that planning needs to know."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from cohort.rows import LedgerRow
from cohort.store.layout import candidate_path
from cohort.tables.buckets import has_tables, read_objects

Ledger = dict[tuple[str, str], LedgerRow]
"""(exam_id, stage) -> the latest attempt."""


def ledger_folders(store: Path) -> list[Path]:
    """Folders of tables with attempts, the last of which counts: the store, and what waits in STORE/candidate."""
    candidate = candidate_path(store)
    return [store, candidate] if has_tables(candidate) else [store]


def read_ledger(store: Path, exam_ids: Collection[str] | None = None) -> Ledger:
    """Read the latest attempt of every exam and stage; `StoreError` when the store has no tables.

    Parameters
    ----------
    exam_ids : only of these exams, which is much faster for a few of many
    """
    rows: list[LedgerRow] = read_objects(store, "ledger", exam_ids)
    return {(row.exam_id, row.stage): row for row in rows}
