"""Stages that results of an exam pass through, and the feature tables that each of them writes."""

from __future__ import annotations

from typing import Final

STAGES: Final = ("convert", "segment", "measure", "load")
"""In the order of the chain."""

STAGE_TABLES: Final[dict[str, tuple[str, ...]]] = {
    "measure": ("vertebrae", "discs", "muscles", "muscle_levels", "curvature"),
    "load": ("loads",),
}
"""Feature tables whose rows belong to one stage; `quality` and `ledger` belong to each."""


def stage_of(table: str) -> str | None:
    """Stage that writes a feature table; None for other tables."""
    return next((stage for stage, tables in STAGE_TABLES.items() if table in tables), None)


def later_stages(stage: str) -> tuple[str, ...]:
    """Stages that rest on the results of `stage`."""
    return STAGES[STAGES.index(stage) + 1 :]
