"""Keep the file index up to date: read the headers of new files, hash the files of chosen series.

An archive of a million unchanged files is listed and compared in columns of numbers and pseudonyms; objects are made
only of what is read or asked for.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cohort.archive.listing import FoundFile, list_files
from cohort.archive.pseudonym import Pseudonyms
from cohort.archive.source import FileSource
from cohort.errors import ConfigurationError
from cohort.rows import FileRow
from cohort.tables.buckets import bucket_files, read_objects
from cohort.tables.commit import commit
from pipelines.commit_pace import CommitPace
from pipelines.exams import Exam
from pipelines.job import Job, Workers
from pipelines.outcome import Outcome, WorkItem
from pipelines.scan import SCAN_STAGES, HashTask, file_rows, one_by_one, scan_items, unread_row
from pipelines.window import NEVER, Executor, run_window

COMMIT_EVERY_S: Final = 60.0
"""A killed scan loses at most the work of this time, or longer where commits are slow (`pipelines.commit_pace`): where
the index has millions of rows, rewriting it takes seconds."""

Integers = npt.NDArray[np.int64]
COMPARED: Final = ("file_id", "container_id", "size_bytes", "mtime_ns", "reason")
"""Columns that tell what must be read."""
FAILED_READING: Final = ("unreadable", "timed_out")
"""Reasons that another day may mend without changing the file: permissions, a disk, a busy machine."""


@dataclass(frozen=True, eq=False)
class Listing:
    """Files of the archive as its directories show them."""

    relative: list[str]
    """Paths below the archive root; in memory alone."""
    file_ids: npt.NDArray[np.bytes_]
    size_bytes: Integers
    mtime_ns: Integers

    def files(self, positions: Integers) -> Iterator[FoundFile]:
        """Some of the files."""
        for k in positions:
            yield self.relative[k], int(self.size_bytes[k]), int(self.mtime_ns[k])


@dataclass(frozen=True, eq=False)
class Changes:
    """What distinguishes a listing from the file index."""

    to_read: Integers
    """Positions in the listing of new and changed files."""
    outdated: set[str]
    """file_id of what leaves the index: files that are gone, and members of a .zip that is gone or has changed."""


@dataclass(frozen=True, eq=False)
class FileIndex:
    """All files of the archive today."""

    store: Path
    listing: Listing
    n_read: int
    """Files on disk whose headers were read in this run."""
    n_unread: int = 0
    """New and changed files that the end of its time left for the next run."""

    @cached_property
    def rows(self) -> list[FileRow]:
        """Rows of all files, members and frames, as they were when this was first asked for."""
        return read_objects(self.store, "files")

    @cached_property
    def n_files(self) -> int:
        """Files on disk, and members of compressed archives; frames do not count."""
        return int(pc.count_distinct(index_columns(self.store, "file_id")["file_id"]).as_py())

    def unusable_files(self) -> dict[str, int]:
        """Reason code -> files, most frequent first; a .zip is none of them, its members may be."""
        table = index_columns(self.store, "file_id", "reason")
        table = table.filter(pc.and_(pc.is_valid(table["reason"]), pc.not_equal(table["reason"], "container")))
        counts = table.group_by("reason").aggregate([("file_id", "count_distinct")])
        counts = counts.sort_by([("file_id_count_distinct", "descending"), ("reason", "ascending")])
        return dict(zip(counts["reason"].to_pylist(), counts["file_id_count_distinct"].to_pylist(), strict=True))

    def source_of(self, row: FileRow) -> FileSource:
        """Where the bytes of a row's file are."""
        on_disk = row.container_id or row.file_id
        return FileSource(self._relative[on_disk.encode()], row.member)

    @cached_property
    def _relative(self) -> dict[bytes, str]:
        """file_id -> path below the archive root; in memory alone."""
        return dict(zip(self.listing.file_ids.tolist(), self.listing.relative, strict=True))


def index_columns(store: Path, *names: str) -> pa.Table:
    """Some columns of the file index."""
    return pa.concat_tables([pq.ParquetFile(path).read(list(names)) for path in bucket_files(store, "files")])


def update_index(
    job: Job,
    workers: Workers,
    *,
    retry_failed: bool = False,
    allow_gone: bool = False,
    stop: Callable[[], bool] = NEVER,
) -> FileIndex:
    """List the archive, read what is new or changed, forget what is gone, and commit the difference.

    Parameters
    ----------
    retry_failed : read unchanged files again that could not be read
    allow_gone : believe it when more than half of the files are gone
    stop : asked before each batch of files; once true the rest is left for the next run

    Raises
    ------
    ConfigurationError
        when they are, and nobody said so: before anything is forgotten
    """
    listing = list_archive(job.archive, job.pseudonyms)
    known = index_columns(job.store, *COMPARED)
    n_known = int(pc.count_distinct(known.filter(pc.is_null(known["container_id"]))["file_id"]).as_py())
    if not allow_gone:
        refuse_many_gone(n_known - len(listing.relative), n_known, "files")
    changes = compare(listing, known, retry=FAILED_READING if retry_failed else ())
    n_new = len(changes.to_read)
    job.progress.note(f"{len(listing.relative)} files in the archive, {n_new} new or changed")
    if changes.outdated:
        commit(job.store, job.run_id, {"files": []}, touched={"files": {(one,) for one in changes.outdated}})
    new = NewRows(job, n_new)
    if n_new and not stop():
        items = scan_items(job.archive, job.key_file, listing.files(changes.to_read))
        read_headers(items, workers.executor(), job.pseudonyms, new.add, stop)
        new.commit()
    return FileIndex(job.store, listing, new.n_read, n_new - new.n_read)


class NewRows:
    """Commits rows of files as they come, and says how far it is: a scan that is killed goes on where it stopped."""

    def __init__(self, job: Job, n_files: int) -> None:
        self._job, self._n_files = job, n_files
        self._rows: list[FileRow] = []
        self._seen: set[str] = set()
        self._pace = CommitPace(COMMIT_EVERY_S)

    @property
    def n_read(self) -> int:
        """Files taken until now."""
        return len(self._seen)

    def add(self, rows: Sequence[FileRow]) -> None:
        """Take the rows of some files, all rows of each."""
        self._rows += rows
        self._seen.update(row.container_id or row.file_id for row in rows)
        if self._pace.is_due:
            self.commit()
            self._job.progress.note(f"{self.n_read} of {self._n_files} files read")

    def commit(self) -> None:
        """Write what was taken since the last time."""
        if self._rows:
            with self._pace.commit():
                commit(self._job.store, self._job.run_id, {"files": self._rows}, touched={})
        self._rows = []


def refuse_many_gone(n_gone: int, n_known: int, what: str) -> None:
    """Raise `ConfigurationError` where more than half (own choice) are gone at once: an archive that is not mounted, or
    another one, must not empty the tables."""
    if 2 * n_gone > n_known:
        raise ConfigurationError(
            f"{n_gone} of {n_known} {what} are not in the archive any more; is it mounted, and is it the right folder? "
            "Nothing was taken out of the tables. If they are gone indeed, run again with --allow-gone"
        )


def list_archive(archive: Path, pseudonyms: Pseudonyms) -> Listing:
    """List all files of the archive.

    Raises
    ------
    ConfigurationError
        if the archive is not a directory
    """
    if not archive.is_dir():
        raise ConfigurationError("the archive is not a directory that can be read")
    found = list(list_files(archive))
    relative = [path for path, _, _ in found]
    return Listing(
        relative=relative,
        file_ids=pseudonyms.file_ids(relative),
        size_bytes=np.fromiter((size for _, size, _ in found), np.int64, len(found)),
        mtime_ns=np.fromiter((_within_int64(mtime) for _, _, mtime in found), np.int64, len(found)),
    )


def _within_int64(mtime_ns: int) -> int:
    """File systems also hold times before 1677 and after 2262, most of them by mistake."""
    return max(-sys.maxsize, min(mtime_ns, sys.maxsize))


def compare(listing: Listing, known: pa.Table, *, retry: Collection[str] = ()) -> Changes:
    """Compare size and modification time of the files on disk with the file index.

    Parameters
    ----------
    known : columns `COMPARED` of the index
    retry : reasons of files that are read again although they have not changed
    """
    listed = pa.array(listing.file_ids).cast(pa.string())
    on_disk = known.filter(pc.is_null(known["container_id"])).combine_chunks()
    before = pc.fill_null(pc.index_in(listed, value_set=on_disk["file_id"]), -1).to_numpy()
    unchanged = before >= 0
    for now, column in ((listing.size_bytes, "size_bytes"), (listing.mtime_ns, "mtime_ns")):
        then = on_disk[column].to_numpy()
        unchanged[unchanged] = then[before[unchanged]] == now[unchanged]
    failed = pc.is_in(on_disk["reason"], value_set=pa.array(retry, pa.string())).to_numpy()
    unchanged[unchanged] = ~failed[before[unchanged]]
    to_read = np.flatnonzero(~unchanged)
    gone = on_disk["file_id"].filter(pc.invert(pc.is_in(on_disk["file_id"], value_set=listed))).to_pylist()
    opened = pa.array([*gone, *listed.take(pa.array(to_read)).to_pylist()], pa.string())
    members = known["file_id"].filter(pc.is_in(known["container_id"], value_set=opened))
    return Changes(to_read, {*gone, *members.to_pylist()})


def read_headers(
    items: Sequence[WorkItem],
    executor: Executor,
    pseudonyms: Pseudonyms,
    keep: Callable[[Sequence[FileRow]], None],
    stop: Callable[[], bool] = NEVER,
) -> None:
    """Read files and hand their rows to `keep`, group by group.

    A group whose reader died or hung is read again file by file, to blame the right one.
    """
    by_id = {item.exam_id: item for item in items}

    def on_outcome(outcome: Outcome) -> Iterator[WorkItem]:
        item = by_id[outcome.exam_id]
        if outcome.status == "ok":
            keep(file_rows(outcome))
        elif len(item.task.files) == 1:
            keep([unread_row(item, outcome, pseudonyms)])
        else:
            singles = one_by_one(item)
            by_id.update({single.exam_id: single for single in singles})
            yield from singles

    run_window(items, SCAN_STAGES, executor=executor, on_outcome=on_outcome, stop=stop)


def hash_item(job: Job, index: FileIndex, exam: Exam, rows: Sequence[FileRow]) -> WorkItem:
    """Work item that reads the chosen files of an exam that were never hashed; each file once, however many of its
    frames were chosen.

    Parameters
    ----------
    rows : all rows of the exam
    """
    missing = {row.file_id for row in exam.chosen if row.content_sha256 is None}
    rows_of: defaultdict[str, list[FileRow]] = defaultdict(list)
    for row in rows:
        if row.file_id in missing:
            rows_of[row.file_id].append(row)
    return WorkItem(exam.exam_id, "hash", "", HashTask(job.archive, tuple(_source_and_rows(index, rows_of, missing))))


def rehashed(rows: Sequence[FileRow], outcome: Outcome) -> tuple[list[FileRow], list[FileRow]]:
    """All rows of an exam with the new hashes, and the rows that changed."""
    hashed = file_rows(outcome)
    known = {(row.file_id, row.frame): row for row in hashed}
    return [known.get((row.file_id, row.frame), row) for row in rows], hashed


def _source_and_rows(
    index: FileIndex, rows_of: dict[str, list[FileRow]], file_ids: Iterable[str]
) -> Iterator[tuple[FileSource, tuple[FileRow, ...]]]:
    for file_id in sorted(file_ids):
        rows = tuple(rows_of[file_id])
        yield index.source_of(rows[0]), rows
