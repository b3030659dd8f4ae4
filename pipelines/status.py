"""How a store stands: its runs, its exams, what is left to do, and what it takes on the disk. Reads only."""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from cohort.tables.buckets import read_rows
from cohort.tables.ledger import ledger_folders
from cohort.tables.schema import arrow_schema
from cohort.tables.sql import connect
from pipelines.disk_use import DiskUse, disk_use, free_bytes
from pipelines.plan import make_plan

SILENT_AFTER_S: Final = 120.0
"""A run whose lock has had no sign of life for so long is not called working (own choice: many heartbeats)."""
LAST_RUNS: Final = 8
MOST_FLAGS: Final = 15


@dataclass(frozen=True)
class Working:
    """Whether a run works in the store now, by what its lock says."""

    state: str
    """working; silent (no sign of life for long); dead (its process is gone); none; unknown (the lock tells nothing)"""
    run_id: str | None = None
    command: str | None = None
    host: str | None = None
    pid: int | None = None
    started_at: str | None = None
    heartbeat_age_s: float | None = None


@dataclass(frozen=True)
class ExamCount:
    """Exams of one status and reason."""

    status: str
    reason: str | None
    exams: int


@dataclass(frozen=True)
class LastRun:
    """One run, newest first."""

    run_id: str
    command: str | None = None
    started_at: str | None = None
    seconds: float | None = None
    ended: str = "no record"
    """complete or stopped; working; or "no record": it was killed, or failed as a whole"""
    status: str | None = None
    reason: str | None = None
    change: str | None = None
    stages_run: int | None = None
    n_pending: int | None = None


@dataclass(frozen=True)
class FlagShare:
    """How many exams carry a quality flag."""

    reason: str
    exams: int
    share: float
    """Of all exams of the archive."""


@dataclass(frozen=True)
class StoreStatus:
    """How a store stands."""

    working: Working
    runs: list[LastRun]
    exams: list[ExamCount]
    pending: dict[str, int]
    """Stage -> exams that the next run would work on, as the last scan saw the archive."""
    held_exams: int
    """Exams whose new numbers wait in STORE/candidate for somebody to accept them."""
    by_month: dict[str, int]
    """Month -> exams whose loads were last computed in it."""
    flags: list[FlagShare]
    disk: dict[str, DiskUse]
    free_bytes: int

    @property
    def n_exams(self) -> int:
        """Exams of the archive."""
        return sum(one.exams for one in self.exams if one.status != "gone")

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps({"n_exams": self.n_exams, **asdict(self)}, indent=1)


def store_status(store: Path) -> StoreStatus:
    """Look at a store, also while a run works in it; `StoreError` when it has no tables."""
    working = who_works(store)
    with connect(store) as tables:
        tables.register("held", _held_attempts(store))
        n_stores = _one(tables, "select count(*) from exams where store_path is not null")
        return StoreStatus(
            working=working,
            runs=_last_runs(store, tables, working),
            exams=exam_counts(tables),
            pending=dict(make_plan(ledger_folders(store), store).stages),
            held_exams=_one(tables, _HELD),
            by_month=dict(tables.sql(_BY_MONTH).fetchall()),
            flags=[FlagShare(*row) for row in tables.execute(_FLAGS, [MOST_FLAGS]).fetchall()],
            disk=disk_use(store, n_stores),
            free_bytes=free_bytes(store),
        )


def exam_counts(tables: duckdb.DuckDBPyConnection) -> list[ExamCount]:
    """Exams by status and reason, most frequent first."""
    statement = "select status, reason, count(*) as n from exams group by all order by n desc, status, reason"
    return [ExamCount(*row) for row in tables.sql(statement).fetchall()]


def _one(tables: duckdb.DuckDBPyConnection, statement: str) -> int:
    return int(tables.sql(statement).fetchall()[0][0])


_HELD: Final = """
    select count(distinct exam_id) from held where stage in ('measure', 'load') and status in ('ok', 'flagged')
"""

_BY_MONTH: Final = """
    select finished_at[:7] as month, count(*) from ledger
    where stage = 'load' and status in ('ok', 'flagged') and finished_at is not null
    group by month order by month
"""

_FLAGS: Final = """
    select reason, count(distinct exam_id) as n, n / (select count(*) from exams where status <> 'gone')
    from quality where exam_id in (select exam_id from exams where status <> 'gone')
    group by reason order by n desc, reason limit ?
"""


def _last_runs(store: Path, tables: duckdb.DuckDBPyConnection, working: Working) -> list[LastRun]:
    """The newest runs of the table, and those that left only a folder: run_id sorts by time."""
    columns = "run_id, command, started_at, seconds, ended, status, reason, change, stages_run, n_pending"
    statement = f"select {columns} from runs order by run_id desc limit ?"
    rows = [LastRun(*row) for row in tables.execute(statement, [LAST_RUNS]).fetchall()]
    known = {row.run_id for row in rows}
    newest = sorted(folder_names(store / "runs"), reverse=True)[:LAST_RUNS]
    others = [LastRun(name) for name in newest if name not in known]
    if others and working.state == "working":
        others[0] = replace(others[0], ended="working")
    return sorted([*rows, *others], key=lambda run: run.run_id, reverse=True)[:LAST_RUNS]


def folder_names(folder: Path) -> list[str]:
    """Names of the folders in a folder; none where there is no such folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if entry.is_dir()]


def _held_attempts(store: Path) -> pa.Table:
    """Ledger of what waits in STORE/candidate; empty where nothing does."""
    folders = ledger_folders(store)
    return read_rows(folders[1], "ledger") if len(folders) > 1 else arrow_schema("ledger").empty_table()


def who_works(store: Path) -> Working:
    """Read the lock of a store without touching it: to test the lock itself could turn away a run that just starts."""
    try:
        lock: dict[str, Any] = json.loads((store / ".lock.json").read_text(encoding="utf-8"))
        known = {name: lock.get(name) for name in ("run_id", "command", "host", "pid", "started_at")}
        age = _age_s(lock.get("heartbeat_at"))
    except FileNotFoundError:  # a run takes it away when it ends
        return Working("none")
    except (OSError, ValueError, AttributeError):  # half written, or of another software
        return Working("unknown")
    return Working(_state(known["host"], known["pid"], age), **known, heartbeat_age_s=age)


def _state(host: str | None, pid: int | None, age_s: float | None) -> str:
    if host == socket.gethostname() and pid is not None and not _is_alive(pid):
        return "dead"
    if age_s is None:
        return "unknown"
    return "working" if age_s < SILENT_AFTER_S else "silent"


def _age_s(heartbeat_at: Any) -> float | None:
    """Seconds since a time in ISO 8601 or in seconds since 1970; a clock that went back gives 0."""
    if heartbeat_at is None:
        return None
    at = heartbeat_at if isinstance(heartbeat_at, int | float) else datetime.fromisoformat(heartbeat_at).timestamp()
    return round(max(time.time() - at, 0.0), 1)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
