"""What a hostile archive and a full disk do to a scan and a run: rows and clear errors, nothing half done."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from dicom_exams import AXIAL, write_block

from cohort.archive.pseudonym import Pseudonyms
from cohort.reasons import FILE_REASONS
from cohort.tables.buckets import read_objects
from models.phantom.dicom import ROOT, write_exam
from models.phantom.exam import ExamPlan, make_exam
from pipelines.cli import main
from pipelines.exams import group_exams

SECRET = "Geheimrat"
SMALL_DISK = "disk"
"""Folder that a small file system is mounted on; key and configuration lie beside it."""
PLAN = ExamPlan(701, "M", 58, 1.79, 84.0, "none", 6)


def _config(folder: Path) -> Path:
    path = folder / "cohort.toml"
    path.write_text('[privacy]\nkey_file = "key"\n[cluster]\nworkers = 1\n[load]\ntasks = ["standing"]\n')
    return path


def _cohort(command: str, archive: Path, store: Path, *options: str) -> Result:
    folder = store.parent.parent if store.parent.name == SMALL_DISK else store.parent
    arguments = [command, str(archive), "--store", str(store), "--config", str(_config(folder)), "--json", *options]
    return CliRunner().invoke(main, arguments)


def _files(store: Path) -> pd.DataFrame:
    return pd.read_parquet(store / "tables" / "files")


def test_every_file_of_the_corpus_is_used_or_has_a_reason(real_data: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = _cohort("scan", real_data / "dicom_corpus", tmp_path / "store")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    n_on_disk = sum(path.is_file() for path in (real_data / "dicom_corpus").rglob("*"))
    files = _files(tmp_path / "store")
    assert found["n_files"] == n_on_disk == files.file_id.nunique()
    assert set(files.reason.dropna()) <= set(FILE_REASONS)
    assert found["unusable_files"] == files.drop_duplicates("file_id").reason.value_counts().to_dict()
    again = json.loads(_cohort("scan", real_data / "dicom_corpus", tmp_path / "store").stdout)
    assert again["n_files_read"] == 0
    assert {name: again[name] for name in ("sagittal", "axial", "not_chosen", "unusable_files")} == {
        name: found[name] for name in ("sagittal", "axial", "not_chosen", "unusable_files")
    }


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A sound exam in three wrappings among things that must not stop a scan, all named after a patient."""
    archive = tmp_path / "archive"
    loose = write_block(archive / SECRET, series="1.2.4", n=6, PatientName=SECRET)
    for path in loose[:2]:
        path.with_suffix(".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    axial = write_block(tmp_path / "zipped", series="1.2.5", n=6, orientation=AXIAL, PatientName=SECRET)
    with zipfile.ZipFile(archive / f"{SECRET}.zip", "w", zipfile.ZIP_DEFLATED) as bundle:
        for path in axial:
            bundle.write(path, f"{SECRET}/{path.name}")
        bundle.writestr(f"{SECRET}.txt", SECRET)
    with zipfile.ZipFile(archive / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("bomb", bytes(200_000_000))
    (archive / "bomb.gz").write_bytes(gzip.compress(bytes(200_000_000)))
    (archive / "cut.zip").write_bytes((archive / f"{SECRET}.zip").read_bytes()[:500])
    (archive / "loop").symlink_to(archive)
    (archive / "nowhere").symlink_to(archive / "missing")
    os.mkfifo(archive / "pipe")
    return archive


def test_a_hostile_archive_ends_as_rows(hostile: Path) -> None:
    store = hostile.parent / "store"
    result = _cohort("scan", hostile, store)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["sagittal"], found["axial"]) == ({"t1": 1}, {"t1": 1})
    assert {"not_dicom", "unreadable", "damaged_container"} <= set(found["unusable_files"])
    (exam,) = read_objects(store, "exams")
    assert (exam.status, exam.n_sagittal_slices, exam.n_axial_slices) == ("pending", 6, 6)
    written = [path for path in store.rglob("*") if path.is_file()]
    for content in [result.output.encode(), _files(store).to_csv().encode(), *(path.read_bytes() for path in written)]:
        assert SECRET.encode() not in content


def test_a_damaged_member_of_a_chosen_series_is_missed_by_name(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    paths = write_block(archive, series="1.2.4", n=7)
    packed = bytearray(gzip.compress(paths[0].read_bytes()))
    packed[-6] ^= 0xFF  # the check sum
    paths[0].with_suffix(".gz").write_bytes(packed)
    paths[0].unlink()
    _cohort("scan", archive, tmp_path / "store")
    (row,) = [row for row in read_objects(tmp_path / "store", "files") if row.reason]
    assert row.reason == "damaged_container"
    (exam,) = group_exams(read_objects(tmp_path / "store", "files"), None)
    assert row in exam.sagittal


def test_rows_of_a_zip_follow_it(hostile: Path) -> None:
    store, bundle = hostile.parent / "store", hostile / f"{SECRET}.zip"
    _cohort("scan", hostile, store)
    before = _files(store)
    assert json.loads(_cohort("scan", hostile, store).stdout)["n_files_read"] == 0
    bundle.unlink()
    found = json.loads(_cohort("scan", hostile, store).stdout)
    assert found["axial"] == {"no_t1_axial": 1}
    assert len(_files(store)) == len(before) - 8  # the .zip, six slices, one text


def test_an_exam_in_a_zip_is_measured(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    paths = write_exam(tmp_path / "loose", make_exam(PLAN), patient_name=SECRET, patient_id="1")
    archive.mkdir()
    with zipfile.ZipFile(archive / "exam.zip", "w", zipfile.ZIP_DEFLATED) as bundle:
        for k, path in enumerate(paths):
            bundle.write(path, f"{SECRET}/{k}")
    result = _cohort("run", archive, tmp_path / "store")
    assert result.exit_code == 0, result.output
    assert len(pd.read_parquet(tmp_path / "store" / "tables" / "discs")) > 3
    (exam,) = read_objects(tmp_path / "store", "exams")
    assert (exam.status, exam.n_sagittal_slices) == ("flagged", PLAN.n_sagittal)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    disk = tmp_path / SMALL_DISK
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here (needs root)")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="tmpfs")
def test_a_full_disk_fails_the_exam_and_the_next_run_does_it(small_disk: Path, tmp_path: Path) -> None:
    archive, store = tmp_path / "archive", small_disk / "store"
    write_exam(archive, make_exam(PLAN), patient_name=SECRET, patient_id="1")
    assert _cohort("scan", archive, store).exit_code == 0
    left = os.statvfs(small_disk)
    (small_disk / "ballast").write_bytes(bytes(left.f_bavail * left.f_bsize - 400_000))
    result = _cohort("run", archive, store)
    assert "Traceback" not in result.output
    assert json.loads(result.stdout)["reasons"] == {"disk_full": 1}
    (exam,) = read_objects(store, "exams")
    assert (exam.status, exam.reason) == ("failed", "disk_full")
    exam_id = Pseudonyms((tmp_path / "key").read_bytes()).exam_id(f"{ROOT}.701")
    assert list((store / "exams" / exam_id[:2] / exam_id).iterdir()) == []
    (small_disk / "ballast").unlink()
    assert json.loads(_cohort("run", archive, store).stdout)["n_failed"] == 0


def test_a_disk_that_is_full_for_the_tables_is_an_error_in_words(small_disk: Path, tmp_path: Path) -> None:
    archive, store = tmp_path / "archive", small_disk / "store"
    write_block(archive, series="1.2.4", n=6)
    assert _cohort("scan", archive, store).exit_code == 0
    write_block(archive, series="1.2.6", n=6)
    left = os.statvfs(small_disk)
    (small_disk / "ballast").write_bytes(bytes(left.f_bavail * left.f_bsize))
    result = _cohort("scan", archive, store)
    assert result.exit_code == 2
    assert "disk is full" in result.output
    (small_disk / "ballast").unlink()
    assert json.loads(_cohort("scan", archive, store).stdout)["n_files_read"] > 0
