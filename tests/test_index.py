"""The file index over several runs: what is opened again, what leaves, and where the bytes of each row are."""

from __future__ import annotations

import gzip
import hashlib
import os
import zipfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from dicom_enhanced import frame_group, write_enhanced
from dicom_exams import write_block, write_slice

from cluster.local import local_cluster
from cohort.archive.pseudonym import Pseudonyms, load_or_create_key
from cohort.archive.source import FileSource, open_source
from cohort.errors import ConfigurationError
from cohort.loading.assumptions import Assumptions
from cohort.rows import FileRow
from cohort.tables.buckets import create_tables, read_objects
from pipelines.config import RunConfig
from pipelines.exams import Artefacts, group_exams
from pipelines.index import FileIndex, list_archive, read_headers, update_index
from pipelines.job import Job
from pipelines.progress import Progress
from pipelines.scan import BYTES_PER_TASK, FILES_PER_TASK, SCAN_STAGES, scan_items
from pipelines.wanted import refresh_wanted
from pipelines.window import DaskExecutor, Finished, SerialExecutor

PIXELS = np.arange(120, dtype=np.uint16).reshape(12, 10)


class InThisProcess:
    """Workers of a run, without a cluster."""

    def executor(self) -> SerialExecutor:
        return SerialExecutor()


@dataclass(frozen=True)
class Place:
    """An archive, a store and a key."""

    folder: Path

    @property
    def archive(self) -> Path:
        return self.folder / "archive"

    @property
    def key_file(self) -> Path:
        return self.folder / "key"

    def job(self) -> Job:
        store = self.folder / "store"
        create_tables(store)
        return Job(
            archive=self.archive,
            store=store,
            config=RunConfig(),
            subjects=None,
            key_file=self.key_file,
            pseudonyms=Pseudonyms(load_or_create_key(self.key_file)),
            device="cpu",
            networks={},
            base_models={},
            artefacts=Artefacts({}, {}, (), Assumptions()),
            progress=Progress(quiet=True),
        )

    def update(self, *, allow_gone: bool = False) -> FileIndex:
        return update_index(self.job(), InThisProcess(), allow_gone=allow_gone)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "archive").mkdir()
    return Place(tmp_path)


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def slice_bytes(folder: Path, name: str, **attributes: object) -> bytes:
    return write_slice(folder / name, PIXELS, series="1.2", **attributes).read_bytes()


def reasons(rows: list[FileRow]) -> Counter[str | None]:
    return Counter(row.reason for row in rows)


class Interrupted(SerialExecutor):
    """Is stopped by Ctrl-C after two batches."""

    n_batches = 0

    def wait(self) -> Finished:
        self.n_batches += 1
        if self.n_batches > 2:
            raise KeyboardInterrupt
        return super().wait()


def test_an_interrupted_scan_goes_on_where_it_stopped(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    write_block(place.archive, series="1.2", n=5)
    monkeypatch.setattr("pipelines.scan.FILES_PER_TASK", 1)
    monkeypatch.setattr("pipelines.index.COMMIT_EVERY_S", 0.0)
    monkeypatch.setattr("pipelines.commit_pace.COMMIT_SHARE", float("inf"))  # however long a commit takes
    workers = InThisProcess()
    monkeypatch.setattr(workers, "executor", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        update_index(place.job(), workers)
    found = place.update()
    assert (found.n_files, found.n_read) == (5, 3)


def test_a_scan_whose_time_is_over_keeps_what_it_has_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    write_block(place.archive, series="1.2", n=5)
    monkeypatch.setattr("pipelines.scan.FILES_PER_TASK", 1)
    monkeypatch.setattr("pipelines.index.COMMIT_EVERY_S", 0.0)
    monkeypatch.setattr("pipelines.commit_pace.COMMIT_SHARE", float("inf"))  # however long a commit takes
    job = place.job()
    first = update_index(job, InThisProcess(), stop=lambda: bool(read_objects(job.store, "files")))
    assert first.n_files == first.n_read == 5 - first.n_unread
    assert 0 < first.n_read < 5
    second = place.update()
    assert (second.n_files, second.n_read, second.n_unread) == (5, first.n_unread, 0)


def test_unchanged_files_are_not_opened_again(place: Place) -> None:
    paths = write_block(place.archive, series="1.2", n=3)
    (place.archive / "letter.txt").write_text("text")
    first = place.update()
    assert (first.n_files, first.n_read) == (4, 4)
    for path in paths:  # what is opened again without need would be seen to have changed
        status = path.stat()
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = place.update()
    assert (second.n_files, second.n_read) == (4, 0)
    assert sorted(second.rows, key=lambda row: row.file_id) == sorted(first.rows, key=lambda row: row.file_id)
    assert second.unusable_files() == {"not_dicom": 1}


def test_only_what_changed_is_read_and_what_is_gone_leaves(place: Place) -> None:
    paths = write_block(place.archive, series="1.2", n=4)
    before = {row.file_id: row for row in place.update().rows}
    paths[0].unlink()
    paths[1].write_bytes(b"no longer DICOM")
    write_slice(place.archive / "new.dcm", PIXELS, series="1.2")
    index = place.update()
    assert (index.n_files, index.n_read) == (4, 2)
    assert reasons(index.rows) == {None: 3, "not_dicom": 1}
    assert sum(before.get(row.file_id) == row for row in index.rows) == 2


def test_an_archive_that_is_not_mounted_empties_nothing(place: Place, tmp_path: Path) -> None:
    write_block(place.archive, series="1.2", n=4)
    before = place.update().rows
    place.archive.rename(tmp_path / "elsewhere")
    place.archive.mkdir()
    with pytest.raises(ConfigurationError, match=r"4 of 4 files .* --allow-gone"):
        place.update()
    assert read_objects(place.folder / "store", "files") == before
    assert place.update(allow_gone=True).n_files == 0
    assert place.update().n_files == 0


def test_members_of_an_unchanged_zip_keep_their_rows_and_those_that_left_it_leave(place: Place, tmp_path: Path) -> None:
    one, two = slice_bytes(tmp_path, "one"), slice_bytes(tmp_path, "two")
    path = zipped(place.archive / "exam.zip", {"a/1": one, "a/2": two, "a/note.txt": b"text"})
    first = place.update()
    assert reasons(first.rows) == {"container": 1, None: 2, "not_dicom": 1}
    assert (first.n_files, first.unusable_files()) == (4, {"not_dicom": 1})
    assert place.update().n_read == 0
    zipped(path, {"a/2": two, "a/3": one})
    os.utime(path, ns=(1, 1))
    second = place.update()
    assert reasons(second.rows) == {"container": 1, None: 2}
    path.unlink()
    assert place.update(allow_gone=True).rows == []


def test_source_of_a_row_gives_its_bytes(place: Place, tmp_path: Path) -> None:
    plain = slice_bytes(place.archive, "plain.dcm")
    inner, packed = slice_bytes(tmp_path, "inner"), slice_bytes(tmp_path, "packed")
    (place.archive / "packed.gz").write_bytes(gzip.compress(packed))
    zipped(place.archive / "exam.zip", {"note.txt": b"text", "inner": inner})
    index = place.update()
    found = {}
    for row in index.rows:
        if row.reason is None:
            with open_source(place.archive, index.source_of(row)) as stream:
                found[row.instance_id] = stream.read()
    assert sorted(found.values()) == sorted([plain, inner, packed])
    (member,) = [row for row in index.rows if row.member == 1]
    assert index.source_of(member) == FileSource("exam.zip", 1)


def test_hashes_are_of_the_uncompressed_bytes_and_kept(place: Place, tmp_path: Path) -> None:
    paths = write_block(tmp_path / "outside", series="1.2", n=9)
    plain, packed, members = paths[:3], paths[3:6], {path.name: path.read_bytes() for path in paths[6:]}
    for path in plain:
        (place.archive / path.name).write_bytes(path.read_bytes())
    for path in packed:
        (place.archive / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    zipped(place.archive / "rest.zip", members)
    job, workers = place.job(), InThisProcess()
    index = update_index(job, workers)
    refresh_wanted(job, workers, index)
    (exam,) = group_exams(FileIndex(job.store, index.listing, 0).rows, None)
    wanted = {hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    assert {row.content_sha256 for row in exam.sagittal} == wanted
    (again,) = group_exams(place.update().rows, None)
    assert {row.content_sha256 for row in again.sagittal} == wanted


def test_hashing_some_frames_of_a_file_keeps_the_rows_of_the_others(place: Place) -> None:
    frames = [frame_group((4.0 * k, 0, 0), echo_ms=echo) for echo in (11.0, 90.0) for k in range(6)]
    pixels = np.arange(12 * 120, dtype=np.uint16).reshape(12, 12, 10)
    path = write_enhanced(place.archive / "enhanced.dcm", pixels, frames, series="1.2")
    job, workers = place.job(), InThisProcess()
    index = update_index(job, workers)
    refresh_wanted(job, workers, index)
    (exam,) = group_exams(FileIndex(job.store, index.listing, 0).rows, None)
    assert {row.echo_time_ms for row in exam.sagittal} == {11.0}
    stored = read_objects(job.store, "files")
    assert sorted(row.frame for row in stored) == list(range(12))
    assert {row.content_sha256 for row in stored} == {hashlib.sha256(path.read_bytes()).hexdigest()}


def test_a_file_that_vanishes_before_it_is_read_is_a_row_that_the_next_run_forgets(place: Place) -> None:
    paths = write_block(place.archive, series="1.2", n=2)
    job = place.job()
    listing = list_archive(place.archive, job.pseudonyms)
    items = scan_items(place.archive, place.key_file, listing.files(np.arange(2)))
    paths[0].unlink()
    rows: list[FileRow] = []
    read_headers(items, SerialExecutor(), job.pseudonyms, rows.extend)
    assert reasons(rows) == {None: 1, "vanished": 1}


def test_what_could_not_be_read_is_tried_again_only_when_asked(place: Place) -> None:
    target = write_slice(place.folder / "elsewhere", PIXELS, series="1.2")
    os.mkfifo(place.archive / "file")
    os.utime(place.archive / "file", ns=(5, 5))
    assert reasons(place.update().rows) == {"unreadable": 1}
    (place.archive / "file").unlink()
    target.rename(place.archive / "file")
    os.truncate(place.archive / "file", 0)
    os.utime(place.archive / "file", ns=(5, 5))
    assert place.update().n_read == 0
    again = update_index(place.job(), InThisProcess(), retry_failed=True)
    assert (again.n_read, reasons(again.rows)) == (1, {"not_dicom": 1})


def test_times_beyond_64_bits_are_kept_within(place: Place) -> None:
    (place.archive / "old").touch()
    os.utime(place.archive / "old", ns=(0, 2**63 + 10**9))
    if (place.archive / "old").stat().st_mtime_ns < 2**63:
        pytest.skip("the file system holds no such time")
    assert place.update().n_read == 1
    assert place.update().n_read == 0


def test_tasks_hold_some_hundred_files_and_large_files_alone(place: Place) -> None:
    files = [(str(k), 1000, 0) for k in range(FILES_PER_TASK + 1)]
    files += [("large", BYTES_PER_TASK + 1, 0), ("small", 1, 0)]
    items = scan_items(place.archive, place.key_file, files)
    assert [len(item.task.files) for item in items] == [FILES_PER_TASK, 1, 1, 1]
    assert [item.stage for item in items] == ["scan", "scan", "scan_large", "scan"]


def test_an_archive_that_is_not_a_directory_is_a_configuration_error(place: Place) -> None:
    with pytest.raises(ConfigurationError):
        list_archive(place.folder / "nowhere", Pseudonyms(bytes(32)))


@pytest.mark.slow
def test_a_file_that_takes_too_long_is_blamed_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Members by the ten thousand cannot be read in the time given; the other files of the task must not suffer."""
    write_block(place.archive, series="1.2", n=2)
    zipped(place.archive / "slow.zip", {str(k): b"x" for k in range(90_000)})
    stages = [replace(stage, time_limit_s=1.0) for stage in SCAN_STAGES]
    monkeypatch.setattr("pipelines.index.SCAN_STAGES", stages)
    job = place.job()
    listing = list_archive(place.archive, job.pseudonyms)
    items = scan_items(place.archive, place.key_file, listing.files(np.arange(3)))
    with local_cluster(1, device="cpu") as client:
        rows: list[FileRow] = []
        read_headers(items, DaskExecutor(client), job.pseudonyms, rows.extend)
    assert reasons(rows) == {None: 2, "timed_out": 1}
    capfd.readouterr()  # the watchdog wrote where the code hung
