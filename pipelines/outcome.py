"""What goes into a stage and what comes out: work items, results, and one outcome per exam and attempt."""

from __future__ import annotations

import logging
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from cohort.errors import RefusedError, is_disk_full
from cohort.reasons import REASONS
from cohort.rows import ExamRow, LedgerRow
from cohort.tables.buckets import Key
from cohort.tables.commit import commit
from cohort.tables.schema import arrow_schema, rows_to_table
from cohort.tables.stages import STAGE_TABLES, later_stages
from pipelines.fingerprint import Parts

logger = logging.getLogger(__name__)

Status = Literal["ok", "flagged", "refused", "failed"]


@dataclass(frozen=True)
class WorkItem:
    """One exam in front of one stage."""

    exam_id: str
    stage: str
    fingerprint: str
    task: Any = None
    """The stage's own small, frozen dataclass (paths and parameters, never arrays)."""
    parts: Parts | None = None
    """What the fingerprint is made of; None for work without one (scan, hash)."""
    queue: str | None = None
    """Name of the window's `Stage` that runs it, where that is not the stage's own."""


@dataclass(frozen=True)
class Result:
    """What a stage hands back for an exam that it finished."""

    rows: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Table name -> row dataclasses of `cohort.rows`."""
    path: str | None = None
    """What was written, relative to STORE."""
    status: Literal["ok", "flagged"] = "ok"
    reason: str | None = None
    """Reason code of a flag."""


@dataclass(frozen=True)
class Outcome:
    """How one attempt at one stage of one exam ended."""

    exam_id: str
    stage: str
    fingerprint: str
    status: Status
    seconds: float
    reason: str | None = None
    error_type: str | None = None
    """Class name of an unexpected exception; its text may hold identifiers and is never kept."""
    path: str | None = None
    worker: str = ""
    rows: Mapping[str, pa.Table] = field(default_factory=dict)
    """Table name -> rows in the table's schema: they travel, and are committed, without becoming objects."""
    parts: Parts | None = None
    """Of the work item."""
    rss_mib: float | None = None
    """Most memory that the worker process has held until then."""
    finished_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    """UTC, ISO 8601."""

    def __post_init__(self) -> None:
        if self.reason is not None and self.reason not in REASONS:
            raise KeyError(f"reason code {self.reason!r} is not declared in cohort/reasons.py")

    def __getstate__(self) -> dict[str, Any]:
        """Rows without their schema, which both ends know: with it they cost milliseconds to send."""
        batches = {
            table: [one.serialize().to_pybytes() for one in rows.to_batches()] for table, rows in self.rows.items()
        }
        return {**self.__dict__, "rows": batches}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        rows = {table: _table_of(table, batches) for table, batches in state["rows"].items()}
        self.__dict__.update(state, rows=rows)


def _table_of(table: str, batches: Iterable[bytes]) -> pa.Table:
    schema = arrow_schema(table)
    return pa.Table.from_batches([pa.ipc.read_record_batch(one, schema) for one in batches], schema)


def success(item: WorkItem, result: Result, *, seconds: float) -> Outcome:
    """Outcome of a finished exam; `ValueError` when its rows do not fit their tables (NaN, missing, wrong class)."""
    return Outcome(
        exam_id=item.exam_id,
        stage=item.stage,
        fingerprint=item.fingerprint,
        status=result.status,
        seconds=round(seconds, 3),
        reason=result.reason,
        path=result.path,
        rows={table: rows_to_table(table, rows) for table, rows in result.rows.items()},
        parts=item.parts,
    )


def failure(item: WorkItem, error: BaseException, *, seconds: float) -> Outcome:
    """Outcome of an exam whose stage raised: refused with its reason, or failed with the name of the exception."""
    if isinstance(error, RefusedError):
        return Outcome(
            exam_id=item.exam_id,
            stage=item.stage,
            fingerprint=item.fingerprint,
            status="refused",
            seconds=round(seconds, 3),
            reason=error.reason,
            parts=item.parts,
        )
    reason = "disk_full" if is_disk_full(error) else "internal_error"
    return failed(item, type(error).__name__, seconds=seconds, reason=reason)


def failed(item: WorkItem, error_type: str, *, seconds: float, reason: str = "internal_error") -> Outcome:
    """Outcome of an exam that ended with an error known by its class name only."""
    return Outcome(
        exam_id=item.exam_id,
        stage=item.stage,
        fingerprint=item.fingerprint,
        status="failed",
        seconds=round(seconds, 3),
        reason=reason,
        error_type=error_type,
        parts=item.parts,
    )


def guarded(function: Callable[[WorkItem], Result], item: WorkItem) -> Outcome:
    """Run a stage on one exam and catch what it raises, once, into the exam's own outcome.

    Of an unexpected exception only the class and the place in the code are logged: its text may hold identifiers.
    """
    started = time.perf_counter()
    try:
        return success(item, function(item), seconds=time.perf_counter() - started)
    except RefusedError as error:
        return failure(item, error, seconds=time.perf_counter() - started)
    except Exception as error:  # one exam must not end the run
        log_failure(f"{item.stage} of {item.exam_id}", error)
        return failure(item, error, seconds=time.perf_counter() - started)


def log_failure(what: str, error: BaseException) -> None:
    """Log the class of an exception and the place in the code where it arose, never its text."""
    logger.error("%s failed: %s at %s", what, type(error).__name__, place_of(error))


def place_of(error: BaseException) -> str:
    """Module and line of the code where an exception arose; `?` where it was never raised."""
    raised = list(traceback.walk_tb(error.__traceback__))
    if not raised:
        return "?"
    frame, line = raised[-1]
    return f"{frame.f_globals.get('__name__', '?')}:{line}"


def each(function: Callable[[WorkItem], Result], items: Sequence[WorkItem]) -> Iterator[Outcome]:
    """Run a stage on one exam after another; `functools.partial(each, function)` is the `run` of a `Stage`."""
    return (guarded(function, item) for item in items)


def ledger_row(outcome: Outcome, *, run_id: str) -> LedgerRow:
    """The ledger's record of an outcome."""
    parts = outcome.parts
    return LedgerRow(
        exam_id=outcome.exam_id,
        stage=outcome.stage,
        fingerprint=outcome.fingerprint,
        status=outcome.status,
        reason=outcome.reason,
        error_type=outcome.error_type,
        path=outcome.path,
        seconds=outcome.seconds,
        worker=outcome.worker,
        run_id=run_id,
        finished_at=outcome.finished_at,
        rss_mib=outcome.rss_mib,
        stage_version=parts.version if parts else None,
        inputs=parts.inputs if parts else None,
        parameters=parts.parameters if parts else None,
        artefacts=parts.artefacts if parts else None,
    )


def commit_outcomes(store: Path, run_id: str, outcomes: Iterable[Outcome], exams: Sequence[ExamRow] = ()) -> None:
    """Write outcomes, and how their exams stand now, into tables, history and ledger.

    An outcome replaces what its stage wrote for the exam before, and takes away what later stages wrote: rows that
    rest on results which are no longer there, or no longer sound, must not stand in the tables as if they did.
    """
    rows: defaultdict[str, list[pa.Table]] = defaultdict(list)
    ledger: list[LedgerRow] = []
    touched: defaultdict[str, set[Key]] = defaultdict(set)
    for outcome in outcomes:
        ledger.append(ledger_row(outcome, run_id=run_id))
        for table, new in outcome.rows.items():
            rows[table].append(new)
        for stage in (outcome.stage, *later_stages(outcome.stage)):
            for table in STAGE_TABLES.get(stage, ()):
                touched[table].add((outcome.exam_id,))
            for table in ("quality", "ledger"):
                touched[table].add((outcome.exam_id, stage))
    content: dict[str, Any] = {table: pa.concat_tables(parts) for table, parts in rows.items()}
    commit(store, run_id, content | {"ledger": ledger, "exams": exams}, touched=touched)
