"""Keep the file index up to date: read the headers of new files, hash the files of chosen series."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from cohort.rows import FileRow
from cohort.tables.buckets import read_objects
from cohort.tables.commit import commit
from pipelines.exams import Exam
from pipelines.job import Job, Workers
from pipelines.outcome import Outcome, WorkItem
from pipelines.scan import (
    SCAN_STAGES,
    HashTask,
    Listing,
    file_rows,
    list_archive,
    one_by_one,
    scan_items,
    unreadable_row,
)
from pipelines.window import run_window


@dataclass(frozen=True)
class FileIndex:
    """All files of the archive today."""

    rows: list[FileRow]
    relative: dict[str, str]
    """file_id -> path below the archive; in memory alone."""
    n_read: int
    """Headers read in this run."""


def update_index(job: Job, workers: Workers) -> FileIndex:
    """Walk the archive, read what is new or changed, forget what is gone, and commit the difference."""
    known: list[FileRow] = read_objects(job.store, "files")
    listing = list_archive(job.archive, job.pseudonyms, known)
    job.progress.note(f"{len(listing.relative)} files in the archive, {len(listing.to_read)} new or changed")
    new = _read_headers(job, workers, listing) if listing.to_read else []
    vanished = {(row.file_id,) for row in known if row.file_id not in listing.relative}
    if new or vanished:
        commit(job.store, job.run_id, {"files": new}, touched={"files": vanished})
    return FileIndex([*listing.unchanged, *new], listing.relative, len(listing.to_read))


def _read_headers(job: Job, workers: Workers, listing: Listing) -> list[FileRow]:
    """Rows of the files to read. A group whose reader died is read again file by file, to blame the right one."""
    items = {item.exam_id: item for item in scan_items(job.archive, job.key_file, listing.to_read)}
    rows: list[FileRow] = []

    def on_outcome(outcome: Outcome) -> Iterator[WorkItem]:
        item = items[outcome.exam_id]
        if outcome.status == "ok":
            rows.extend(file_rows(outcome))
        elif len(item.task.files) == 1:
            rows.append(unreadable_row(item, job.pseudonyms))
        else:
            singles = one_by_one(item)
            items.update({single.exam_id: single for single in singles})
            yield from singles

    run_window(list(items.values()), SCAN_STAGES, executor=workers.executor(), on_outcome=on_outcome)
    return rows


def with_hashes(job: Job, workers: Workers, index: FileIndex, exams: Sequence[Exam]) -> list[Exam]:
    """Exams whose chosen files all have their sha256; new hashes are committed to the index."""
    missing = {exam.exam_id: [row for row in exam.chosen if row.content_sha256 is None] for exam in exams}
    items = [
        WorkItem(exam_id, "hash", "", HashTask(job.archive, tuple((index.relative[row.file_id], row) for row in rows)))
        for exam_id, rows in missing.items()
        if rows
    ]
    if not items:
        return list(exams)
    hashed: dict[str, FileRow] = {}

    def on_outcome(outcome: Outcome) -> tuple[WorkItem, ...]:
        hashed.update({row.file_id: row for row in file_rows(outcome)})
        return ()

    run_window(items, SCAN_STAGES, executor=workers.executor(), on_outcome=on_outcome)
    commit(job.store, job.run_id, {"files": list(hashed.values())}, touched={})

    def updated(rows: Sequence[FileRow]) -> tuple[FileRow, ...]:
        return tuple(hashed.get(row.file_id, row) for row in rows)

    return [replace(exam, sagittal=updated(exam.sagittal), axial=updated(exam.axial)) for exam in exams]
