"""`cohort fsck --repair`: take away what is wrong, so that the next run does it again.

Nothing is put together from the history: rows in the tables are those that a run wrote as a whole. The one exception is
`runs`, which no run writes again: its rows come back from the history, which holds every one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cohort.errors import StoreError
from cohort.tables.buckets import Key, bucket_count, bucket_file, bucket_of, read_bucket, staging
from cohort.tables.commit import commit
from cohort.tables.fsck import Finding, fsck, wrong
from cohort.tables.schema import arrow_schema
from cohort.tables.stages import STAGE_TABLES, STAGES, later_stages, stage_of

_OF_SELECTION = ("exams", "series", "wanted")
"""Tables that a run writes again for every exam that has no row in `wanted`."""
_OF_A_BUCKET = ("damaged", "misplaced", "not_a_number")
"""Checks whose findings name a bucket."""


def repair(store: Path, findings: Iterable[Finding]) -> None:
    """Mend what `fsck` found wrong; the caller holds the store's lock, and a run has to follow.

    Buckets first, because nothing can be joined before they can be read; then the exams that are still wrong.
    """
    buckets = {(one.table, one.bucket) for one in findings if one.check in _OF_A_BUCKET}
    for table, bucket in sorted(buckets, key=str):
        if table is not None and bucket is not None:
            _rebuild(store, table, bucket)
    for one in wrong(fsck(store)):
        if one.exam_ids:
            _forget(store, one.exam_ids, one.stage)


def _rebuild(store: Path, table: str, bucket: int) -> None:
    """Empty a bucket, and those of other tables that have to be written again with it (all share bucket numbers).

    The ledger comes first: cut off anywhere, it never vouches for rows that are not there.
    """
    if table == "runs":
        changed = [("runs", _runs_of_history(store, bucket))]
    elif table in ("files", *_OF_SELECTION):
        changed = [(name, arrow_schema(name).empty_table()) for name in dict.fromkeys(("wanted", table))]
    else:
        changed = _without_stages(store, table, bucket)
    with staging(store) as area:
        for name, rows in changed:
            area.add(bucket_file(store, name, bucket), rows)
        area.publish()


def _without_stages(store: Path, table: str, bucket: int) -> list[tuple[str, pa.Table]]:
    """New content of the tables that hold results of the stage that wrote `table`, and of later stages."""
    first = stage_of(table) or STAGES[0]
    again = (first, *later_stages(first))
    changed = [(name, _of_other_stages(store, name, bucket, again)) for name in ("ledger", "quality")]
    changed += [(name, arrow_schema(name).empty_table()) for stage in again for name in STAGE_TABLES.get(stage, ())]
    if table == "quality":  # flags of the selection are gone, too
        changed.append(("wanted", arrow_schema("wanted").empty_table()))
    return changed


def _of_other_stages(store: Path, table: str, bucket: int, stages: Sequence[str]) -> pa.Table:
    """Rows of other stages; none where the bucket itself is damaged, or not there."""
    try:
        rows = read_bucket(bucket_file(store, table, bucket), table)
    except (StoreError, FileNotFoundError):
        return arrow_schema(table).empty_table()
    return rows.filter(pc.invert(pc.is_in(rows["stage"], value_set=pa.array(stages, pa.string()))))


def _runs_of_history(store: Path, bucket: int) -> pa.Table:
    """The last row that each run of this bucket wrote."""
    n_buckets = bucket_count(store)
    found = [arrow_schema("runs").empty_table()]
    for folder in sorted((store / "history" / "runs").glob("run=*")):
        parts = sorted(folder.glob("part-*.parquet"), key=lambda path: int(path.stem.partition("-")[2]))
        if parts and bucket_of(folder.name.removeprefix("run="), n_buckets) == bucket:
            rows = pq.ParquetFile(parts[-1]).read()
            found.append(rows.slice(rows.num_rows - 1))
    return pa.concat_tables(found).sort_by("run_id")


def _forget(store: Path, exam_ids: Iterable[str], stage: str | None) -> None:
    """Remove what stages from `stage` on have written of the exams; without a stage, what selection has written."""
    touched: defaultdict[str, set[Key]] = defaultdict(set)
    for exam_id in exam_ids:
        if stage is None:
            for table in _OF_SELECTION:
                touched[table].add((exam_id,))
        else:
            for one in (stage, *later_stages(stage)):
                for table in STAGE_TABLES.get(one, ()):
                    touched[table].add((exam_id,))
                for table in ("ledger", "quality"):
                    touched[table].add((exam_id, one))
    commit(store, "repair", {}, touched=touched)
