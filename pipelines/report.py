"""The report of a run: gathered from what it left in the store alone, so that it can be made again for an old run."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import duckdb

from cohort.errors import ConfigurationError
from cohort.rows import RunRow
from cohort.store.publish import replacing
from cohort.tables.sql import connect, in_memory
from cohort.tables.stages import STAGES
from pipelines.report_page import render
from pipelines.run_facts import CLUSTER, SOFTWARE, read_facts
from pipelines.run_log import OUTCOMES, run_folder
from pipelines.status import ExamCount, exam_counts, folder_names

REPORT: Final = "report.html"
SLOWEST: Final = 10
"""Exams that are named for each stage."""
EXAMPLES: Final = 3
"""Exams that are named for each kind of failure."""
_MOST_STEPS: Final = 60
_STEPS_S: Final = (10, 30, 60, 300, 900, 3600, 14400, 86400)
"""Lengths of a step of the plot over time."""


@dataclass(frozen=True)
class StageWork:
    """What a run did in one stage. Times are wall seconds of an exam on its worker."""

    stage: str
    exams: int
    ok: int
    flagged: int
    refused: int
    failed: int
    total_s: float
    median_s: float
    p95_s: float
    quantiles_s: list[float]
    """At 0, 5, 25, 50, 75, 95 and 100 %."""
    slowest: list[tuple[str, float]]
    """Exam and seconds."""


@dataclass(frozen=True)
class WorkerLoad:
    """What one worker process did."""

    worker: str
    tasks: int
    """Stages of exams."""
    busy_s: float
    busy_share: float
    """Of the time from the start of the run's first result to its last."""
    peak_mib: float | None


@dataclass(frozen=True)
class Stopped:
    """Exams of one stage that ended there for the same reason."""

    stage: str
    status: str
    reason: str | None
    error_type: str | None
    exams: int
    examples: list[str]


@dataclass(frozen=True)
class Throughput:
    """Exams that each stage ended in equal steps of time."""

    begun_at: str
    """UTC, ISO 8601; of the first step."""
    step_s: int
    counts: Mapping[str, tuple[int, ...]]
    """Stage -> exams in each step."""


@dataclass(frozen=True)
class RunReport:
    """All that the page tells."""

    run_id: str
    run: RunRow | None
    """None for a run that left no record: killed, failed as a whole, or still working."""
    stages: tuple[StageWork, ...]
    workers: tuple[WorkerLoad, ...]
    stopped: tuple[Stopped, ...]
    throughput: Throughput | None
    exams: tuple[ExamCount, ...]
    """As the store stands when the page is made."""
    files: Mapping[str, int]
    """Reason code -> unusable files, when the run ended."""
    software: Mapping[str, Any]
    cluster: Mapping[str, Any]
    config: Mapping[str, Any]
    """Paths shortened to their last part."""
    links: Mapping[str, str] = field(default_factory=dict)
    """What -> file of the run's folder, relative to it."""


_LINKS: Final = {
    "model change report": "change/change.html",
    "Dask's performance report": "performance.html",
    "summary": "summary.json",
    "configuration": "config.toml",
    "one line for each exam and stage": OUTCOMES,
    "log": "run.log",
}


def latest_run(store: Path) -> str:
    """The newest run that left a folder; `ConfigurationError` when none did."""
    runs = folder_names(store / "runs")
    if not runs:
        raise ConfigurationError(f"no run has worked in folder {store.name}")
    return max(runs)


def write_report(store: Path, run_id: str) -> Path:
    """Write STORE/runs/<run_id>/report.html and return its path.

    Raises
    ------
    ConfigurationError
        when there is no such run
    StoreError
        when the store has no tables
    """
    if run_id not in folder_names(store / "runs"):
        raise ConfigurationError(f"no run {run_id!r} in folder {store.name}; the latest is {latest_run(store)}")
    path = run_folder(store, run_id) / REPORT
    page = render(gather(store, run_id))
    with replacing(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return path


def gather(store: Path, run_id: str) -> RunReport:
    """Collect what a run left in the store; errors as in `connect`."""
    folder = run_folder(store, run_id)
    with connect(store) as tables:
        run = _run_row(tables, run_id)
        exams = tuple(exam_counts(tables))
    with _outcomes(folder) as outcomes:
        return RunReport(
            run_id=run_id,
            run=run,
            stages=_stages(outcomes),
            workers=_workers(outcomes),
            stopped=_stopped(outcomes),
            throughput=_throughput(outcomes),
            exams=exams,
            files=read_facts(store, run_id, "summary.json").get("unusable_files", {}),
            software=read_facts(store, run_id, SOFTWARE),
            cluster=read_facts(store, run_id, CLUSTER),
            config=_config(folder),
            links={what: name for what, name in _LINKS.items() if (folder / name).exists()},
        )


def _run_row(tables: duckdb.DuckDBPyConnection, run_id: str) -> RunRow | None:
    names = [column.name for column in fields(RunRow)]
    found = tables.execute(f"select {', '.join(names)} from runs where run_id = ?", [run_id]).fetchall()
    return RunRow(**dict(zip(names, found[0], strict=True))) if found else None


_COLUMNS: Final = {
    "exam_id": "varchar",
    "stage": "varchar",
    "status": "varchar",
    "reason": "varchar",
    "error_type": "varchar",
    "seconds": "double",
    "rss_mib": "double",
    "worker": "varchar",
    "finished_at": "timestamptz",
}
"""Of outcomes.jsonl, as DuckDB's types."""


def _outcomes(folder: Path) -> duckdb.DuckDBPyConnection:
    """View `outcomes` of a run; a line that a kill or a full disk cut off is left out.

    Each query reads the file again, so that memory does not grow with the run.
    """
    connection = in_memory()
    if (folder / OUTCOMES).exists():
        lines = connection.read_json(
            str(folder / OUTCOMES), columns=_COLUMNS, format="newline_delimited", ignore_errors=True
        )
        lines.create_view("lines")
    else:
        connection.execute(f"create table lines ({', '.join(f'{name} {kind}' for name, kind in _COLUMNS.items())})")
    connection.execute(
        "create view outcomes as select *, epoch(finished_at) as ended_s from lines where finished_at is not null"
    )
    return connection


def _stages(outcomes: duckdb.DuckDBPyConnection) -> tuple[StageWork, ...]:
    found = outcomes.execute(
        "select stage, count(*), count_if(status = 'ok'), count_if(status = 'flagged'), count_if(status = 'refused'), "
        "count_if(status = 'failed'), sum(seconds), quantile_cont(seconds, 0.5), quantile_cont(seconds, 0.95), "
        "quantile_cont(seconds, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1]), "
        "max_by((exam_id, seconds), seconds, ?) from outcomes group by stage",
        [SLOWEST],
    ).fetchall()
    return tuple(sorted((StageWork(*row) for row in found), key=lambda work: STAGES.index(work.stage)))


def _workers(outcomes: duckdb.DuckDBPyConnection) -> tuple[WorkerLoad, ...]:
    found = outcomes.sql(
        "with span as (select greatest(max(ended_s) - min(ended_s - seconds), 1) as s from outcomes) "
        "select worker, count(*), sum(seconds) as busy, busy / any_value(span.s), max(rss_mib) "
        "from outcomes, span group by worker order by worker"
    ).fetchall()
    return tuple(WorkerLoad(*row) for row in found)


def _stopped(outcomes: duckdb.DuckDBPyConnection) -> tuple[Stopped, ...]:
    found = outcomes.execute(
        "select stage, status, reason, error_type, count(*) as n, min(exam_id, ?) from outcomes "
        "where status in ('refused', 'failed') group by stage, status, reason, error_type "
        "order by status, n desc, stage, reason, error_type",
        [EXAMPLES],
    ).fetchall()
    return tuple(Stopped(*row) for row in found)


def _throughput(outcomes: duckdb.DuckDBPyConnection) -> Throughput | None:
    first, last = outcomes.sql("select min(ended_s - seconds), max(ended_s) from outcomes").fetchall()[0]
    if first is None:
        return None
    step_s = next((step for step in _STEPS_S if (last - first) / step <= _MOST_STEPS), _STEPS_S[-1])
    n_steps = int((last - first) // step_s) + 1
    counts = {stage: [0] * n_steps for stage in STAGES}
    for stage, step, n in outcomes.execute(
        "select stage, ((ended_s - ?) // ?)::int, count(*) from outcomes group by all", [first, step_s]
    ).fetchall():
        counts[stage][min(step, n_steps - 1)] += n
    begun_at = datetime.fromtimestamp(first, UTC).isoformat(timespec="seconds")
    return Throughput(begun_at, step_s, {stage: tuple(one) for stage, one in counts.items() if any(one)})


def _config(folder: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # never written, or cut off by a full disk
        return {}
    return {name: _without_paths(value) for name, value in found.items()}


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_paths(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_without_paths(one) for one in value]
    return Path(value).name if isinstance(value, str) and "/" in value else value
