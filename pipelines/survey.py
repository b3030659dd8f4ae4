"""`cohort scan`: which files are usable and which series would be chosen, without converting anything."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from cohort.rows import ExamRow
from cohort.store.publish import sweep_temporary
from cohort.tables.buckets import read_objects, remove_exams
from cohort.tables.ledger import Ledger, read_ledger
from pipelines.config import RunConfig
from pipelines.exams import Exam, group_exams, plan_exam
from pipelines.index import FileIndex, update_index
from pipelines.job import Job, Workers, prepare
from pipelines.lock import only_run
from pipelines.progress import Progress
from pipelines.summary import exam_row, update_exam_tables


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
    archive: Path, store: Path, *, config: RunConfig, progress: Progress, subjects: Path | None = None
) -> Survey:
    """Bring the tables `files`, `series` and `exams` of a store up to date with an archive; nothing is converted.

    Exams that no run has processed as they are now get the status `pending`.

    Raises
    ------
    ConfigurationError
        for what would make the whole scan fail: archive, subject table, another run in progress
    """
    started = time.monotonic()
    with only_run(store), ExitStack() as resources:
        sweep_temporary(store)
        job = prepare(archive.resolve(), store.resolve(), config, subjects, progress)
        index = update_index(job, Workers(job, resources))
        exams = archive_exams(job, index)
        ledger = read_ledger(store)
        rows = _exam_rows(job, exams, ledger)
        gone = withdraw(store, exams, ledger)
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


def archive_exams(job: Job, index: FileIndex) -> list[Exam]:
    """Exams of the archive; says how many lines of the subject table belong to none of them."""
    n_unmatched = job.subjects.n_unmatched(index.rows) if job.subjects else 0
    if n_unmatched:
        job.progress.note(
            f"{n_unmatched} keys of the subject table match no file: patients who are not in the archive, "
            "or identifiers written otherwise (issuer, leading zeros)"
        )
    return group_exams(index.rows, job.subjects, job.config.select)


def withdraw(store: Path, exams: Sequence[Exam], ledger: Ledger) -> list[str]:
    """Take the results of exams out of the tables that left the archive, or of which nothing is chosen any more.

    Returns
    -------
    the exams that left the archive and are not yet marked as gone, sorted
    """
    processed = {exam_id for exam_id, _ in ledger}
    known = processed | {row.exam_id for row in read_objects(store, "exams") if row.status != "gone"}
    gone = known - {exam.exam_id for exam in exams}
    leaving = gone | (processed - {exam.exam_id for exam in exams if exam.sagittal})
    if leaving:
        remove_exams(store, sorted(leaving))
    return sorted(gone)


def _exam_rows(job: Job, exams: Iterable[Exam], ledger: Ledger) -> list[ExamRow]:
    """How the exams stand; one whose chosen files have not been hashed yet has no plan."""
    return [
        exam_row(
            exam,
            plan_exam(exam, job.artefacts) if all(row.content_sha256 for row in exam.chosen) else None,
            ledger,
        )
        for exam in exams
    ]


def _counted(reasons: Iterable[str | None]) -> dict[str, int]:
    return dict(Counter(reason for reason in reasons if reason).most_common())
