"""What every exam should have: series are chosen again only for exams whose files, rules or subject lines changed.

Table `wanted` remembers, for each exam, digests of what its choice rested on and the fingerprints that followed. A
nightly run over an unchanged archive compares digests in DuckDB and chooses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from cohort.archive.demographics import SubjectTable
from cohort.rows import ExamRow, FileRow, WantedRow
from cohort.tables.buckets import read_objects, table_dataset
from cohort.tables.commit import commit
from cohort.tables.ledger import read_ledger
from cohort.tables.sql import in_memory
from cohort.tables.stages import STAGES
from pipelines.commit_pace import CommitPace
from pipelines.exams import (
    NO_PART_OF_AN_EXAM,
    WITH_INPUTS,
    Artefacts,
    Exam,
    ExamPlan,
    make_exam,
    plan_exam,
    plan_wanted,
)
from pipelines.fingerprint import digest
from pipelines.index import FileIndex, hash_item, rehashed
from pipelines.job import Job, Workers
from pipelines.outcome import Outcome, WorkItem
from pipelines.read_exams import read_exam_rows, read_planned
from pipelines.scan import SCAN_STAGES
from pipelines.summary import exam_row, selected_row, selection_flags
from pipelines.window import NEVER, run_window

SELECTION_VERSION: Final = 1
"""Raised by hand when the code that chooses series may choose otherwise: every exam is then chosen again."""
COMMIT_EVERY_S: Final = 30.0
"""A killed run loses at most the choices of this time, or longer where commits are slow (`pipelines.commit_pace`)."""


@dataclass(frozen=True, eq=False)
class Here:
    """Exams in the archive."""

    exam_ids: Collection[str]
    unchosen: Collection[str]
    """Those of them without usable sagittal images."""
    n_left: int = 0
    """Exams whose series the end of the run's time left unchosen, or chosen as they were."""


def refresh_wanted(job: Job, workers: Workers, index: FileIndex, *, stop: Callable[[], bool] = NEVER) -> Here:
    """Choose series of new and changed exams, hash what they chose, and bring `wanted` and the tables of exams up to
    date. What left the archive is not touched (`pipelines.survey.withdraw` does that).

    Parameters
    ----------
    index : complete: of an exam whose files are not all in it, other series would be chosen
    stop : asked before each exam; once true the rest is left for the next run
    """
    with in_memory() as connection:
        states = archive_states(job, connection)
        changed = _changed(job, connection, states)
    n_left = changed.num_rows
    if changed.num_rows:
        job.progress.note(f"choosing series of {changed.num_rows} new or changed exams")
        n_left -= _choose(job, workers, index, changed, stop)
    _renew_fingerprints(job)
    unchosen = table_dataset(job.store, "wanted").to_table(columns=["exam_id"], filter=ds.field("convert").is_null())
    return Here(frozenset(states["exam_id"].to_pylist()), unchosen["exam_id"].to_pylist(), n_left)


def archive_states(job: Job, connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """exam_id, index_digest, selection_digest, newest_ns of every exam in the file index."""
    unusable = ", ".join(f"'{reason}'" for reason in sorted(NO_PART_OF_AN_EXAM))
    connection.register("all_files", table_dataset(job.store, "files"))
    connection.execute(
        "CREATE VIEW files AS SELECT * FROM all_files "
        f"WHERE exam_id IS NOT NULL AND coalesce(reason, '') NOT IN ({unusable})"
    )
    rules = digest([SELECTION_VERSION, job.config.select])
    told = _told(connection, job.subjects) if job.subjects else "SELECT NULL AS exam_id, NULL AS told"
    return connection.sql(
        f"""
        SELECT exam_id, index_digest, concat_ws('-', '{rules}', md5(told)) AS selection_digest, newest_ns
        FROM (SELECT exam_id, max(mtime_ns) AS newest_ns, format('{{:x}}-{{}}',
                     bit_xor(hash(file_id, frame, size_bytes, mtime_ns)), count(*)) AS index_digest
              FROM files GROUP BY exam_id)
        LEFT JOIN ({told}) USING (exam_id)
        """
    ).to_arrow_table()


def _told(connection: duckdb.DuckDBPyConnection, subjects: SubjectTable) -> str:
    """Query of all that the subject table says of an exam, by any of its keys, as one text."""
    connection.register("lines", _subject_lines(subjects))
    return """
        SELECT exam_id, string_agg(lines.digest, '' ORDER BY keys.key) AS told
        FROM (SELECT DISTINCT exam_id, unnest([exam_id, accession_id, subject_id]) AS key FROM files) AS keys
        JOIN lines USING (key) GROUP BY exam_id"""


def _subject_lines(subjects: SubjectTable) -> pa.Table:
    """key, digest of what the subject table says of it."""
    values = subjects.values.items()
    lines = {key: digest({name: sorted(found) for name, found in line.items()}) for key, line in values}
    return pa.table({"key": pa.array(lines.keys(), pa.string()), "digest": pa.array(lines.values(), pa.string())})


def _changed(job: Job, connection: duckdb.DuckDBPyConnection, states: pa.Table) -> pa.Table:
    connection.register("states", states)
    connection.register("wanted", table_dataset(job.store, "wanted"))
    return connection.sql(
        """
        SELECT states.* FROM states LEFT JOIN wanted USING (exam_id)
        WHERE states.index_digest IS DISTINCT FROM wanted.index_digest
           OR states.selection_digest IS DISTINCT FROM wanted.selection_digest
        ORDER BY states.newest_ns DESC, exam_id
        """
    ).to_arrow_table()


def _choose(job: Job, workers: Workers, index: FileIndex, changed: pa.Table, stop: Callable[[], bool]) -> int:
    """Choose the series of some exams; files of a chosen series that were never hashed are read by the workers.

    Returns the number of exams that are done.
    """
    states = {row["exam_id"]: row for row in changed.to_pylist()}
    chosen = Chosen(job, states)
    waiting: dict[str, list[FileRow]] = {}

    def items() -> Iterator[WorkItem]:
        for rows in read_exam_rows(job, list(states)):
            if stop():
                return
            exam = make_exam(rows, job.subjects, job.config.select)
            if exam.is_hashed:
                chosen.add(exam)
            else:
                waiting[exam.exam_id] = rows
                yield hash_item(job, index, exam, rows)

    def on_outcome(outcome: Outcome) -> tuple[WorkItem, ...]:
        rows, hashed = rehashed(waiting.pop(outcome.exam_id), outcome)
        chosen.add(make_exam(rows, job.subjects, job.config.select), hashed)
        return ()

    source = items()
    first = next(source, None)
    if first is not None:  # else no worker is needed
        run_window(chain([first], source), SCAN_STAGES, executor=workers.executor(), on_outcome=on_outcome, stop=stop)
    chosen.commit()
    return chosen.n_taken


def settle_statuses(job: Job, todo: Collection[str]) -> None:
    """Say in the table `exams` what a plan knows of exams whose series were not chosen anew.

    Those that it works on are `pending` where they were sound: their numbers rest on other parameters than those that
    are wanted now. Those that are `pending` although nothing is left to do get their status back: the weights or
    parameters that were wanted when their series were chosen have been taken back.

    Parameters
    ----------
    todo : exams that the plan works on
    """
    exams = table_dataset(job.store, "exams")
    sound = exams.to_table(filter=ds.field("status").isin(["ok", "flagged"]))
    sound = sound.filter(pc.is_in(sound["exam_id"], value_set=pa.array(list(todo), pa.string())))
    rows = [ExamRow(**values | {"status": "pending", "reason": None}) for values in sound.to_pylist()]
    pending = exams.to_table(columns=["exam_id"], filter=ds.field("status") == "pending")["exam_id"].to_pylist()
    if settled := sorted(set(pending).difference(todo)):
        ledger = read_ledger(job.store, settled)
        rows += [exam_row(exam.selected, exam.plan, ledger) for exam in read_planned(job, settled)]
    if rows:
        commit(job.store, job.run_id, {"exams": rows}, touched={})


class Chosen:
    """Commits exams as their series are chosen."""

    def __init__(self, job: Job, states: dict[str, dict[str, Any]]) -> None:
        self._job, self._states = job, states
        self._exams: list[Exam] = []
        self._hashed: list[FileRow] = []
        self._pace = CommitPace(COMMIT_EVERY_S)
        self.n_taken = 0

    def add(self, exam: Exam, hashed: Sequence[FileRow] = ()) -> None:
        """Take an exam, and rows of its files that have just got their hash."""
        self.n_taken += 1
        self._exams.append(exam)
        self._hashed += hashed
        if self._pace.is_due:
            self.commit()

    def commit(self) -> None:
        """Write what was taken since the last time."""
        if not self._exams:
            return
        with self._pace.commit():
            self._commit()
        self._exams, self._hashed = [], []

    def _commit(self) -> None:
        job, ids = self._job, [exam.exam_id for exam in self._exams]
        plans = {exam.exam_id: plan_exam(exam, job.artefacts) for exam in self._exams if exam.sagittal}
        ledger = read_ledger(job.store, ids)
        selected = [selected_row(exam) for exam in self._exams]
        new = {
            "wanted": [
                self._wanted(exam, row, plans.get(row.exam_id)) for exam, row in zip(self._exams, selected, strict=True)
            ],
            "exams": [exam_row(row, plans.get(row.exam_id), ledger) for row in selected],
            "series": [row for exam in self._exams for row in exam.selection.series],
            "quality": [flag for exam in self._exams for flag in selection_flags(exam)],
            "files": self._hashed,
        }
        flags_of = {(exam_id, stage) for exam_id in ids for stage in ("scan", "select")}
        commit(job.store, job.run_id, new, touched={"series": {(one,) for one in ids}, "quality": flags_of})

    def _wanted(self, exam: Exam, selected: ExamRow, plan: ExamPlan | None) -> WantedRow:
        state = self._states[exam.exam_id]
        return WantedRow(
            exam_id=exam.exam_id,
            index_digest=state["index_digest"] if exam.is_hashed else "",  # looked at again: a file could not be read
            selection_digest=state["selection_digest"],
            newest_ns=state["newest_ns"],
            recipe=self._job.artefacts.recipe,
            sex=exam.demographics.sex,
            selected_status=selected.status,
            selected_reason=selected.reason,
            **({stage: plan.fingerprints[stage] for stage in STAGES} if plan else {}),
            **({f"{stage}_inputs": plan.parts[stage].inputs for stage in WITH_INPUTS} if plan else {}),
        )


def _renew_fingerprints(job: Job) -> None:
    """Make fingerprints again that rest on other code, weights, base models or parameters than today's."""
    recipe = job.artefacts.recipe
    columns = table_dataset(job.store, "wanted").to_table(columns=["recipe"])["recipe"]
    if pc.all(pc.equal(columns, recipe)).as_py() in (True, None):
        return
    rows: list[WantedRow] = [row for row in read_objects(job.store, "wanted") if row.recipe != recipe]
    commit(job.store, job.run_id, {"wanted": [_renewed(row, job.artefacts) for row in rows]}, touched={})


def _renewed(row: WantedRow, artefacts: Artefacts) -> WantedRow:
    plan = plan_wanted(row, artefacts)
    return replace(row, recipe=artefacts.recipe, **(plan.fingerprints if plan else {}))
