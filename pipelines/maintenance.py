"""Keeping a store in order: garbage collection, compaction, migration and checks, each under the lock of a run."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq

from cohort.store.garbage import Garbage, Grace, find_garbage, remove_garbage
from cohort.tables.buckets import read_rows
from cohort.tables.compact import Compacted, compact_history
from cohort.tables.fsck import Finding, fsck
from cohort.tables.ledger import ledger_folders
from cohort.tables.migrate import Migrated, migrate
from cohort.tables.repair import repair
from pipelines.candidate import finish_promotion
from pipelines.lock import only_run

_RUN_TIME: Final = re.compile(r"\d{8}T\d{6}")


def collect_garbage(store: Path, *, grace: Grace, dry_run: bool) -> list[Garbage]:
    """Remove what nothing points to and has had its grace; say what it was, or would be.

    Raises
    ------
    ConfigurationError
        while a run works in the store
    StoreError
        where there are no tables: without a ledger, everything would look like garbage
    """
    with only_run(store, "gc"):
        status = dict(
            zip(*(read_rows(store, "exams")[name].to_pylist() for name in ("exam_id", "status")), strict=True)
        )
        garbage = find_garbage(
            store,
            referenced=_referenced(store),
            exams={exam_id for exam_id, one in status.items() if one != "gone"},
            gone_since=_gone_since(store, {exam_id for exam_id, one in status.items() if one == "gone"}),
            grace=grace,
        )
        if not dry_run:
            remove_garbage(garbage)
        return garbage


def compact(store: Path) -> Compacted:
    """Join the history's part files; errors as of `compact_history` and `only_run`.

    An acceptance that was interrupted is finished first: it knows the part files that it wrote by their names.
    """
    with only_run(store, "compact"):
        read_rows(store, "runs")  # no store, or of another version: refused before anything is touched
        finish_promotion(store)
        return compact_history(store)


def migrate_store(store: Path) -> Migrated:
    """Bring a store to today's schema; errors as of `migrate` and `only_run`."""
    with only_run(store, "migrate"):
        return migrate(store)


def check(store: Path, *, deep: bool, mend: bool) -> list[Finding]:
    """What `fsck` finds; with `mend`, what it still finds after the repair."""
    with only_run(store, "fsck"):
        found = fsck(store, deep=deep)
        if not mend:
            return found
        repair(store, found)
        return fsck(store, deep=deep)


def _referenced(store: Path) -> set[str]:
    """Paths that the ledger points to, or that of a change which waits to be accepted."""
    paths = (path for place in ledger_folders(store) for path in read_rows(place, "ledger")["path"].to_pylist())
    return {path for path in paths if path}


def _gone_since(store: Path, gone: set[str]) -> dict[str, float]:
    """Exam -> time of the run that found it gone for the last time; now, where the history does not tell."""
    found = dict.fromkeys(gone, datetime.now(UTC).timestamp())
    if not gone:
        return found
    for folder in sorted((store / "history" / "exams").glob("run=*")):
        for path in folder.glob("part-*.parquet"):
            rows = pq.ParquetFile(path).read(["exam_id", "status"]).to_pylist()
            at = _time_of(folder.name.removeprefix("run="), path)
            found |= {row["exam_id"]: at for row in rows if row["status"] == "gone" and row["exam_id"] in gone}
    return found


def _time_of(run_id: str, path: Path) -> float:
    """Runs are named by their start, UTC."""
    named = _RUN_TIME.match(run_id)
    if named is None:
        return path.stat().st_mtime
    return datetime.strptime(named[0], "%Y%m%dT%H%M%S").replace(tzinfo=UTC).timestamp()
