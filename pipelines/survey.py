"""`cohort scan`: which files are usable and which series would be chosen, without converting anything."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds

from cohort.rows import ExamRow
from cohort.store.publish import sweep_temporary
from cohort.tables.buckets import remove_exams, table_dataset
from cohort.tables.ledger import Ledger, read_ledger
from pipelines.config import RunConfig
from pipelines.exams import Exam, group_exams, plan_exam
from pipelines.index import index_columns, refuse_many_gone, update_index
from pipelines.job import Job, Workers, prepare
from pipelines.lock import only_run
from pipelines.progress import Progress
from pipelines.summary import exam_row, selected_row, update_exam_tables


@dataclass(frozen=True)
class Survey:
    """What an archive holds."""

    n_files: int
    n_files_read: int
    """New or changed since the last scan."""
    n_exams: int
    unusable_files: dict[str, int]
    """Reason code -> files."""
    sagittal: dict[str, int]
    """What was chosen (t1), or the reason code why nothing was -> exams."""
    axial: dict[str, int]
    """What was chosen (t1, t2), or the reason code why nothing was -> exams."""
    not_chosen: dict[str, int]
    """Reason code -> parts of series."""
    seconds: float

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps(asdict(self), indent=1)


def survey(
    archive: Path,
    store: Path,
    *,
    config: RunConfig,
    progress: Progress,
    subjects: Path | None = None,
    allow_gone: bool = False,
) -> Survey:
    """Bring the tables `files`, `series` and `exams` of a store up to date with an archive; nothing is converted.

    Exams that no run has processed as they are now get the status `pending`.

    Parameters
    ----------
    allow_gone : believe it when more than half of the files or exams are gone

    Raises
    ------
    ConfigurationError
        for what would make the whole scan fail: archive, subject table, another run in progress
    """
    started = time.monotonic()
    with only_run(store, "scan", progress.note), ExitStack() as resources:
        sweep_temporary(store)
        job = prepare(archive.resolve(), store.resolve(), config, subjects, progress)
        index = update_index(job, Workers(job, resources), allow_gone=allow_gone)
        note_unmatched_subjects(job)
        exams = group_exams(index.rows, job.subjects, config.select)
        ledger = read_ledger(store)
        rows = _exam_rows(job, exams, ledger)
        unchosen = [exam.exam_id for exam in exams if not exam.sagittal]
        gone = withdraw(store, {exam.exam_id for exam in exams}, unchosen, allow_gone=allow_gone)
        update_exam_tables(store, job.run_id, exams, rows, gone)
    return Survey(
        n_files=index.n_files,
        n_files_read=index.n_read,
        n_exams=len(exams),
        unusable_files=index.unusable_files(),
        sagittal=_counted("t1" if exam.selection.sagittal else exam.selection.sagittal_reason for exam in exams),
        axial=_counted(exam.axial_weighting or exam.selection.axial_reason for exam in exams),
        not_chosen=_counted(part.reason for exam in exams for part in exam.selection.series if not part.role),
        seconds=round(time.monotonic() - started, 2),
    )


def note_unmatched_subjects(job: Job) -> None:
    """Say how many lines of the subject table belong to no file of the archive."""
    if job.subjects is None:
        return
    keys = index_columns(job.store, "exam_id", "accession_id", "subject_id")
    n_unmatched = job.subjects.n_unmatched({key for kind in keys.columns for key in kind.unique().to_pylist()})
    if n_unmatched:
        job.progress.note(
            f"{n_unmatched} keys of the subject table match no file: patients who are not in the archive, "
            "or identifiers written otherwise (issuer, leading zeros)"
        )


def withdraw(store: Path, here: Collection[str], unchosen: Collection[str], *, allow_gone: bool = False) -> list[str]:
    """Take the results of exams out of the tables that left the archive, or of which nothing is chosen any more.

    Parameters
    ----------
    here : exams in the archive
    unchosen : those of them without usable sagittal images
    allow_gone : believe it when more than half of the exams with results are gone

    Returns
    -------
    the exams that left the archive and are not yet marked as gone, sorted

    Raises
    ------
    ConfigurationError
        when more than half are gone, and nobody said so
    """
    processed = set(column(store, "ledger", "exam_id"))
    exams = table_dataset(store, "exams").to_table(columns=["exam_id"], filter=ds.field("status") != "gone")
    if not allow_gone:
        refuse_many_gone(len(processed.difference(here)), len(processed), "exams with results")
    gone = processed.union(exams["exam_id"].to_pylist()).difference(here)
    if gone:
        remove_exams(store, sorted(gone))
    if leaving := processed.intersection(unchosen):
        remove_exams(store, sorted(leaving), keep=("wanted",))
    return sorted(gone)


def column(store: Path, table: str, name: str) -> list[Any]:
    """Values of one column of a current table."""
    return list(table_dataset(store, table).to_table(columns=[name])[name].to_pylist())


def _exam_rows(job: Job, exams: Iterable[Exam], ledger: Ledger) -> list[ExamRow]:
    """How the exams stand; one whose chosen files have not been hashed yet has no plan."""
    return [
        exam_row(
            selected_row(exam),
            plan_exam(exam, job.artefacts) if exam.is_hashed else None,
            ledger,
        )
        for exam in exams
    ]


def _counted(reasons: Iterable[str | None]) -> dict[str, int]:
    return dict(Counter(reason for reason in reasons if reason).most_common())
