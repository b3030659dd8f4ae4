"""Stages scan and hash: the archive's files -> rows of the file index, opening only what is new or has changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

from cohort.archive.pixels import content_sha256
from cohort.archive.pseudonym import Pseudonyms, load_or_create_key
from cohort.archive.scan import list_files, read_file_row
from cohort.errors import ConfigurationError
from cohort.rows import FileRow
from pipelines.outcome import Outcome, Result, WorkItem, each
from pipelines.window import Stage

FILES_PER_TASK = 400
"""Headers of one task; at some 1,000 headers a second a task stays below a second on a warm disk."""


@dataclass(frozen=True)
class FoundFile:
    """A file as the directory shows it."""

    relative: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class Listing:
    """All files of the archive: what is known already, and what must be opened."""

    relative: dict[str, str]
    """file_id -> path below the archive; kept in memory alone."""
    unchanged: list[FileRow]
    to_read: list[FoundFile]


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
    files: tuple[tuple[str, FileRow], ...]
    """Path below the archive, and its row."""


SCAN_FINGERPRINT = ""
"""Scanning is decided by size and modification time, not by a fingerprint."""


def list_archive(archive: Path, pseudonyms: Pseudonyms, known: Iterable[FileRow]) -> Listing:
    """Walk the archive and compare size and modification time with the file index.

    Raises
    ------
    ConfigurationError
        if the archive is not a directory
    """
    if not archive.is_dir():
        raise ConfigurationError("the archive is not a directory that can be read")
    index = {row.file_id: row for row in known}
    listing = Listing({}, [], [])
    for relative, size, mtime in list_files(archive):
        file_id = pseudonyms.file_id(relative)
        listing.relative[file_id] = relative
        row = index.get(file_id)
        if row is not None and (row.size_bytes, row.mtime_ns) == (size, mtime):
            listing.unchanged.append(row)
        else:
            listing.to_read.append(FoundFile(relative, size, mtime))
    return listing


def scan_items(archive: Path, key_file: Path, files: Sequence[FoundFile]) -> list[WorkItem]:
    """Work items of some hundred files each."""
    batches = [tuple(files[k : k + FILES_PER_TASK]) for k in range(0, len(files), FILES_PER_TASK)]
    return [
        WorkItem(f"files-{k}", "scan", SCAN_FINGERPRINT, ScanTask(archive, key_file, batch))
        for k, batch in enumerate(batches)
    ]


def one_by_one(item: WorkItem) -> list[WorkItem]:
    """Split a failed item into its files, so that one file that kills its reader costs no other file."""
    task: ScanTask = item.task
    return [
        WorkItem(f"{item.exam_id}-{k}", "scan", SCAN_FINGERPRINT, replace(task, files=(file,)))
        for k, file in enumerate(task.files)
    ]


def unreadable_row(item: WorkItem, pseudonyms: Pseudonyms) -> FileRow:
    """Row of a file that ended the process that read it."""
    (file,) = item.task.files
    return FileRow(
        file_id=pseudonyms.file_id(file.relative),
        size_bytes=file.size_bytes,
        mtime_ns=file.mtime_ns,
        reason="unreadable",
    )


@lru_cache(maxsize=1)
def _pseudonyms(key_file: Path) -> Pseudonyms:
    return Pseudonyms(load_or_create_key(key_file))


def scan(item: WorkItem) -> Result:
    """Read the headers of one group of files."""
    task: ScanTask = item.task
    pseudonyms = _pseudonyms(task.key_file)
    rows = [
        read_file_row(task.archive, file.relative, file.size_bytes, file.mtime_ns, pseudonyms) for file in task.files
    ]
    return Result(rows={"files": rows})


def hash_files(item: WorkItem) -> Result:
    """Add the sha256 of the content to the rows of one exam's chosen files; a vanished file keeps none."""
    task: HashTask = item.task
    rows = [replace(row, content_sha256=_sha256(task.archive / relative)) for relative, row in task.files]
    return Result(rows={"files": rows})


def _sha256(path: Path) -> str | None:
    try:
        return content_sha256(path)
    except OSError:
        return None


SCAN_STAGES = (
    Stage("scan", "CPU", partial(each, scan)),
    Stage("hash", "CPU", partial(each, hash_files), batch_size=4),
)


def file_rows(outcome: Outcome) -> list[FileRow]:
    """Rows of a finished scan or hash."""
    return list(outcome.rows.get("files", ()))
