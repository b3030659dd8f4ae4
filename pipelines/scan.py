"""Stages scan and hash: the archive's files -> rows of the file index, opening only what is new or has changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Final

from cohort.archive.listing import FoundFile
from cohort.archive.pseudonym import Pseudonyms, load_or_create_key
from cohort.archive.scan import read_file_rows
from cohort.archive.source import FileSource, open_source
from cohort.errors import RefusedError
from cohort.rows import FileRow
from cohort.tables.buckets import objects_of
from pipelines.outcome import Outcome, Result, WorkItem, each
from pipelines.window import Stage

FILES_PER_TASK: Final = 400
"""Headers of one task; at some 2,000 headers a second a task stays below a second on a warm disk."""
BYTES_PER_TASK: Final = 2**28
"""Size of the files of one task, because a .zip is read whole. A larger file is a task of its own."""
TIME_LIMIT_S: Final = 300.0
"""For a task of these sizes, or for one of its files when they are read one by one to find the one that hangs."""
LARGE_FILE_TIME_LIMIT_S: Final = 3600.0
"""For a file above BYTES_PER_TASK, and for hashing all files of an exam."""

SCAN_FINGERPRINT = ""
"""Scanning is decided by size and modification time, not by a fingerprint."""


@dataclass(frozen=True)
class ScanTask:
    """Files to read headers of."""

    archive: Path
    key_file: Path
    files: tuple[FoundFile, ...]


@dataclass(frozen=True)
class HashTask:
    """Files to read whole."""

    archive: Path
    files: tuple[tuple[FileSource, tuple[FileRow, ...]], ...]
    """Each with all its rows: those of a multi-frame file are replaced together."""


def scan_items(archive: Path, key_file: Path, files: Iterable[FoundFile]) -> list[WorkItem]:
    """Work items of some hundred files each, and one for each large file."""
    return [
        WorkItem(f"files-{k}", _stage_of(group), SCAN_FINGERPRINT, ScanTask(archive, key_file, group))
        for k, group in enumerate(_groups(files))
    ]


def _groups(files: Iterable[FoundFile]) -> Iterator[tuple[FoundFile, ...]]:
    group: list[FoundFile] = []
    n_bytes = 0
    for file in files:
        if group and (len(group) == FILES_PER_TASK or n_bytes + file[1] > BYTES_PER_TASK):
            yield tuple(group)
            group, n_bytes = [], 0
        group.append(file)
        n_bytes += file[1]
    if group:
        yield tuple(group)


def _stage_of(files: Sequence[FoundFile]) -> str:
    return "scan" if sum(size for _, size, _ in files) <= BYTES_PER_TASK else "scan_large"


def one_by_one(item: WorkItem) -> list[WorkItem]:
    """Split a failed item into its files, so that one file that kills its reader costs no other file."""
    task: ScanTask = item.task
    return [
        WorkItem(f"{item.exam_id}-{k}", item.stage, SCAN_FINGERPRINT, replace(task, files=(file,)))
        for k, file in enumerate(task.files)
    ]


def unread_row(item: WorkItem, outcome: Outcome, pseudonyms: Pseudonyms) -> FileRow:
    """Row of a file that ended the process that read it, or that could not be read in time."""
    ((relative, size_bytes, mtime_ns),) = item.task.files
    return FileRow(
        file_id=pseudonyms.file_id(relative),
        size_bytes=size_bytes,
        mtime_ns=mtime_ns,
        reason="timed_out" if outcome.reason == "timed_out" else "unreadable",
    )


@lru_cache(maxsize=1)
def _pseudonyms(key_file: Path) -> Pseudonyms:
    return Pseudonyms(load_or_create_key(key_file))


def scan(item: WorkItem) -> Result:
    """Read the headers of one group of files."""
    task: ScanTask = item.task
    pseudonyms = _pseudonyms(task.key_file)
    rows = [row for file in task.files for row in read_file_rows(task.archive, *file, pseudonyms)]
    return Result(rows={"files": rows})


def hash_files(item: WorkItem) -> Result:
    """Add the sha256 of the content to the rows of one exam's chosen files; what cannot be read keeps none."""
    task: HashTask = item.task
    hashed = [(_sha256(task.archive, source), rows) for source, rows in task.files]
    return Result(rows={"files": [replace(row, content_sha256=sha256) for sha256, rows in hashed for row in rows]})


def _sha256(archive: Path, source: FileSource) -> str | None:
    """Hash of the uncompressed bytes, so that compressing a file anew changes nothing."""
    try:
        with open_source(archive, source) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, RefusedError):
        return None


SCAN_STAGES: Final = (
    Stage("scan", "CPU", partial(each, scan), time_limit_s=TIME_LIMIT_S),
    Stage("scan_large", "CPU", partial(each, scan), time_limit_s=LARGE_FILE_TIME_LIMIT_S),
    Stage("hash", "CPU", partial(each, hash_files), batch_size=4, time_limit_s=LARGE_FILE_TIME_LIMIT_S),
)


def file_rows(outcome: Outcome) -> list[FileRow]:
    """Rows of a finished scan or hash."""
    return objects_of("files", outcome.rows["files"]) if "files" in outcome.rows else []
