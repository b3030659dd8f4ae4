"""`cohort fsck`: prove that store, ledger and tables agree.

A finding is `wrong` when nothing that this software does leaves it behind, and `unfinished` when a run that was cut off
does and the next run mends it by itself: rows that the ledger does not vouch for yet, an exam whose status waits for
the end of the run, a file that a compaction hid.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cohort.errors import StoreError
from cohort.rows import TABLES
from cohort.store.exam import read_exam
from cohort.store.labels import read_labels
from cohort.store.layout import candidate_path
from cohort.tables.buckets import bucket_count, bucket_files, bucket_of, has_tables, key_columns, read_bucket
from cohort.tables.compact import interrupted
from cohort.tables.schema import arrow_schema
from cohort.tables.sql import in_memory, register_tables
from cohort.tables.stages import STAGE_TABLES, STAGES, stage_of

NATURAL_KEYS: Final[dict[str, tuple[str, ...]]] = {
    "files": ("file_id",),
    "series": ("exam_id", "series_id", "part"),
    "exams": ("exam_id",),
    "vertebrae": ("exam_id", "ordinal"),
    "discs": ("exam_id", "ordinal"),
    "muscles": ("exam_id", "stack", "slice", "muscle", "side"),
    "muscle_levels": ("exam_id", "level", "muscle", "side"),
    "curvature": ("exam_id",),
    "loads": ("exam_id", "task", "level", "engine", "convention"),
    "wanted": ("exam_id",),
    "ledger": ("exam_id", "stage"),
    "runs": ("run_id",),
}
"""Columns whose values no two rows of a table share. `quality` has none: one reason can be raised twice."""

_NAMED: Final = ("vertebrae", "discs")
"""Tables in which a level, where it has a name, has it once."""

Severity = Literal["wrong", "unfinished"]


@dataclass(frozen=True)
class Finding:
    """Something that should not be as it is."""

    check: str
    severity: Severity
    text: str
    table: str | None = None
    bucket: int | None = None
    stage: str | None = None
    """Stage from which the exams have to be done again, where that mends it."""
    exam_ids: tuple[str, ...] = field(default=(), repr=False)
    """Exams that it concerns, all of them."""

    def __str__(self) -> str:
        where = ", ".join(
            part for part in (self.table, None if self.bucket is None else f"bucket-{self.bucket:02d}") if part
        )
        some = f" ({len(self.exam_ids)} exams, first {self.exam_ids[0]})" if self.exam_ids else ""
        return f"{self.severity}: {self.check}{f' in {where}' if where else ''}: {self.text}{some}"


def fsck(store: Path, *, deep: bool = False) -> list[Finding]:
    """Check a store; an empty list is the proof that it agrees with itself.

    Reads every table once. Where a bucket is damaged the checks that join tables wait until it has been repaired.

    Parameters
    ----------
    deep : also open every array and every measured row that the ledger points to

    Raises
    ------
    StoreError
        where there are no tables, or of another schema version
    """
    found = [*_bucket_findings(store), *_history_findings(store)]
    candidate = candidate_path(store)
    if has_tables(candidate):
        text = "the change that waits to be accepted: remove the folder candidate and run again"
        found += [replace(one, check=f"candidate_{one.check}", text=text) for one in _bucket_findings(candidate)]
    if any(one.check in ("damaged", "candidate_damaged") for one in found):
        return found
    with in_memory() as connection:
        register_tables(connection, store)
        _register_attempts(connection, candidate)
        found += [
            *_duplicates(connection),
            *_unvouched(connection),
            *_lost(connection, store),
            *_orphans(connection),
            *_statuses(connection),
            *_paths(connection, store, deep=deep),
        ]
    return found


def wrong(findings: Iterable[Finding]) -> list[Finding]:
    """Those that the next run does not mend by itself."""
    return [one for one in findings if one.severity == "wrong"]


def _bucket_findings(store: Path) -> Iterator[Finding]:
    n_buckets = bucket_count(store)
    for table in TABLES:
        for path in bucket_files(store, table):
            bucket = int(path.parent.name.rpartition("-")[2])
            try:
                rows = read_bucket(path, table)
            except StoreError as error:
                yield Finding("damaged", "wrong", str(error), table, bucket)
                continue
            if strays := stray_keys(rows, table, bucket, n_buckets):
                yield Finding("misplaced", "wrong", f"{len(strays)} keys belong to another bucket", table, bucket)
            if columns := [name for name in rows.column_names if _has_nan(rows[name])]:
                yield Finding("not_a_number", "wrong", f"NaN or infinity in {', '.join(columns)}", table, bucket)


def stray_keys(rows: pa.Table, table: str, bucket: int, n_buckets: int) -> list[str]:
    """Values of the first key column that do not hash to this bucket."""
    keys = pc.unique(rows[key_columns(table)[0]]).to_pylist()
    return [key for key in keys if bucket_of(key, n_buckets) != bucket]


def _has_nan(column: pa.ChunkedArray) -> bool:
    numbers = pc.list_flatten(column) if pa.types.is_list(column.type) else column
    return pa.types.is_floating(numbers.type) and bool(pc.any(pc.invert(pc.is_finite(numbers))).as_py())


def _history_findings(store: Path) -> Iterator[Finding]:
    for table in TABLES:
        for path in sorted((store / "history" / table).glob("run=*/part-*.parquet")):
            try:
                schema = pq.read_schema(path)
            except (pa.ArrowException, OSError):
                yield Finding("damaged_history", "wrong", f"{path.parent.name}, {path.name} cannot be read", table)
                continue
            if not schema.equals(arrow_schema(table)):
                yield Finding("old_history", "wrong", f"{path.parent.name}, {path.name} has another schema", table)
    for path in interrupted(store):
        yield Finding("compaction", "unfinished", "was cut off; cohort compact finishes it", path.parent.name)


def _register_attempts(connection: duckdb.DuckDBPyConnection, candidate: Path) -> None:
    """Views `attempts` (ledger and the candidate's), and `cut_off` (exams of runs that did not come to their end)."""
    files = bucket_files(candidate, "ledger") if has_tables(candidate) else []
    held = pa.concat_tables([read_bucket(path, "ledger") for path in files] or [arrow_schema("ledger").empty_table()])
    connection.register("candidate_ledger", held)
    connection.execute("CREATE TEMP VIEW attempts AS SELECT * FROM ledger UNION ALL SELECT * FROM candidate_ledger")
    ended = "SELECT run_id FROM runs"
    cut_off = f"SELECT DISTINCT exam_id FROM attempts WHERE run_id NOT IN ({ended})"
    connection.execute(f"CREATE TEMP VIEW cut_off AS {cut_off}")


def _exams(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[str, ...]:
    return tuple(row[0] for row in connection.execute(f"SELECT DISTINCT exam_id FROM ({sql}) ORDER BY 1").fetchall())


def _split(
    connection: duckdb.DuckDBPyConnection, sql: str, check: str, text: str, *, table: str, mended: str = "SELECT NULL"
) -> Iterator[Finding]:
    """Findings on the exams that a query names: unfinished where their run was cut off, wrong otherwise.

    `mended`: query of further exams that the next run mends by itself.
    """
    waits = f"(exam_id IN (SELECT exam_id FROM cut_off) OR coalesce(exam_id IN ({mended}), false))"
    kinds: tuple[tuple[Severity, str], ...] = (("wrong", f"NOT {waits}"), ("unfinished", waits))
    for severity, condition in kinds:
        if exams := _exams(connection, f"SELECT exam_id FROM ({sql}) WHERE {condition}"):
            yield Finding(check, severity, text, table, exam_ids=exams)


def _duplicates(connection: duckdb.DuckDBPyConnection) -> Iterator[Finding]:
    keys = [(table, columns, "true") for table, columns in NATURAL_KEYS.items()]
    keys += [(table, ("exam_id", "level"), "level IS NOT NULL") for table in _NAMED]
    for table, columns, where in keys:
        names = ", ".join(columns)
        twice = f"SELECT {names} FROM {table} WHERE {where} GROUP BY ALL HAVING count(*) > 1"
        (n,) = connection.execute(f"SELECT count(*) FROM ({twice})").fetchone() or (0,)
        if n:
            exams = _exams(connection, twice) if "exam_id" in columns else ()
            text = f"{n} times two rows of the same {names}"
            stage = STAGES[0] if table == "ledger" else stage_of(table)
            yield Finding("duplicate", "wrong", text, table, stage=stage, exam_ids=exams)


def _unvouched(connection: duckdb.DuckDBPyConnection) -> Iterator[Finding]:
    """Rows of features of exams whose stage is not ok or flagged by the ledger."""
    for stage, tables in STAGE_TABLES.items():
        for table in tables:
            attempts = f"SELECT * FROM ledger WHERE stage = '{stage}'"
            joined = f"SELECT exam_id FROM {table} ANTI JOIN ({attempts}) USING (exam_id)"
            if exams := _exams(connection, joined):
                text = f"rows without an attempt at {stage} in the ledger; the next run replaces them"
                yield Finding("unvouched", "unfinished", text, table, exam_ids=exams)
            refused = f"{attempts} AND status NOT IN ('ok', 'flagged')"
            joined = f"SELECT exam_id FROM {table} SEMI JOIN ({refused}) USING (exam_id)"
            if exams := _exams(connection, joined):
                text = f"rows although {stage} was refused or failed"
                yield Finding("unvouched", "wrong", text, table, stage=stage, exam_ids=exams)


def _lost(connection: duckdb.DuckDBPyConnection, store: Path) -> Iterator[Finding]:
    """Exams that the ledger vouches for, with rows in the history of that very run, and none in the table."""
    runs = [run for (run,) in connection.execute("SELECT DISTINCT run_id FROM ledger ORDER BY 1").fetchall()]
    for stage, tables in STAGE_TABLES.items():
        for table in tables:
            connection.register("written", _written(store / "history" / table, runs))
            lost = (
                f"SELECT exam_id FROM ledger SEMI JOIN written USING (exam_id, run_id) "
                f"ANTI JOIN {table} USING (exam_id) "
                f"WHERE stage = '{stage}' AND status IN ('ok', 'flagged')"
            )
            if exams := _exams(connection, lost):
                text = f"no rows, although {stage} wrote some and the ledger vouches for them"
                yield Finding("lost", "wrong", text, table, stage=stage, exam_ids=exams)


def _written(history: Path, runs: Iterable[str]) -> pa.Table:
    """Exam and run of all rows that these runs wrote into a table's history."""
    parts = [pa.table({"exam_id": pa.array([], pa.string()), "run_id": pa.array([], pa.string())})]
    for run_id in runs:
        for path in (history / f"run={run_id}").glob("part-*.parquet"):
            exams = pc.unique(pq.ParquetFile(path).read(["exam_id"])["exam_id"])
            parts.append(pa.table({"exam_id": exams, "run_id": pa.array([run_id] * len(exams), pa.string())}))
    return pa.concat_tables(parts)


def _orphans(connection: duckdb.DuckDBPyConnection) -> Iterator[Finding]:
    """Exams that only other tables know. Those without a row in `wanted` are selected again by the next run."""
    mended = "SELECT exam_id FROM attempts ANTI JOIN wanted USING (exam_id)"
    for table in ("series", "wanted", "ledger"):
        orphans = f"SELECT exam_id FROM {table} ANTI JOIN exams USING (exam_id)"
        text = "exams without a row in exams"
        yield from _split(connection, orphans, "orphan", text, table=table, mended=mended)


def _statuses(connection: duckdb.DuckDBPyConnection) -> Iterator[Finding]:
    """How `exams` says an exam stands, against the latest attempts at what is wanted of it now."""
    wanted = " ".join(f"WHEN '{stage}' THEN w.{stage}" for stage in STAGES)
    now = (
        "SELECT a.exam_id, a.status FROM attempts a LEFT JOIN wanted w USING (exam_id) "
        f"WHERE coalesce(CASE a.stage {wanted} END, a.fingerprint) = a.fingerprint"
    )
    done = "SELECT exam_id FROM ledger WHERE status IN ('ok', 'flagged') GROUP BY ALL HAVING count(DISTINCT stage) = 4"
    rules = (
        ("status IN ('ok', 'flagged') "
         f"AND exam_id IN (SELECT exam_id FROM ({now}) WHERE status IN ('refused', 'failed'))",
         "ok or flagged although a stage was refused or failed"),
        (f"status = 'ok' AND exam_id IN (SELECT exam_id FROM ({now}) WHERE status = 'flagged')",
         "ok although a stage is flagged"),
        ("status = 'failed' AND exam_id NOT IN (SELECT exam_id FROM attempts WHERE status = 'failed')",
         "failed although no stage did"),
        ("status = 'refused' AND sagittal_reason IS NULL "
         "AND exam_id NOT IN (SELECT exam_id FROM attempts WHERE status = 'refused')",
         "refused although neither selection nor a stage did"),
        ("status = 'gone' AND exam_id IN (SELECT exam_id FROM ledger)", "gone although the ledger still has results"),
    )  # fmt: skip
    for condition, text in rules:
        yield from _split(connection, f"SELECT exam_id FROM exams WHERE {condition}", "status", text, table="exams")
    waiting = f"SELECT exam_id FROM exams WHERE status IN ('ok', 'flagged') AND exam_id NOT IN ({done})"
    if exams := _exams(connection, waiting):
        text = "ok or flagged, but the ledger has not all stages; the next run does them"
        yield Finding("status", "unfinished", text, "exams", exam_ids=exams)


def _paths(connection: duckdb.DuckDBPyConnection, store: Path, *, deep: bool) -> Iterator[Finding]:
    """Results that the ledger vouches for are there, and can be opened."""
    rows = connection.execute(
        "SELECT stage, exam_id, path FROM attempts WHERE status IN ('ok', 'flagged') AND path IS NOT NULL ORDER BY 2, 1"
    ).fetchall()
    images = {exam_id: path for stage, exam_id, path in rows if stage == "convert"}
    bad: dict[str, list[str]] = {stage: [] for stage in STAGES}
    for stage, exam_id, path in rows:
        if not _is_there(store / path) or (deep and not _opens(store, stage, path, images.get(exam_id))):
            bad[stage].append(exam_id)
    for stage, exams in bad.items():
        if exams:
            text = f"results of {stage} are missing or cannot be opened"
            yield Finding("result", "wrong", text, "ledger", stage=stage, exam_ids=tuple(sorted(set(exams))))


def _is_there(path: Path) -> bool:
    return (path / "zarr.json").is_file() if path.suffix == ".zarr" else path.is_file()


def _opens(store: Path, stage: str, path: str, images: str | None) -> bool:
    """Read all that a stage has written."""
    try:
        if stage == "convert":
            read_exam(store / path)
        elif stage == "segment":
            read_labels(store / path, read_exam(store / (images or "")))
        else:
            json.loads((store / path).read_text())
    except Exception:  # whatever a decoder raises on damaged bytes, the result is not usable
        return False
    return True
