"""`cohort gc`: what nothing points to goes after its grace, everything else stays."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from cohort.errors import ConfigurationError, StoreError
from cohort.store.garbage import Garbage, Grace
from cohort.store.layout import exam_directory, review_directory
from cohort.tables.buckets import read_objects, remove_exams
from cohort.tables.commit import commit
from cohort.tables.fsck import fsck
from pipelines.cli import main
from pipelines.lock import only_run
from pipelines.maintenance import collect_garbage
from tests.synthetic_tables import pseudonym, write_synthetic_store

EXAM = pseudonym("exam 0")
DAY_S = 86_400.0


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("garbage") / "store"
    write_synthetic_store(store, 3)
    age(store / "exams", days=400)
    return store


@pytest.fixture
def store(sound: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sound, tmp_path / "store")


def age(path: Path, *, days: float) -> None:
    """Make a file, or all below a folder, older."""
    at = time.time() - days * DAY_S
    for one in [path, *path.rglob("*")]:
        os.utime(one, (at, at))


def collect(store: Path, **options: object) -> list[Garbage]:
    return collect_garbage(store, grace=Grace(), dry_run=bool(options.get("dry_run")))


def files(store: Path) -> set[Path]:
    return {path for path in store.rglob("*") if path.is_file() and path.name not in (".lock", ".publishing")}


def test_a_store_without_garbage_stays_as_it_is(store: Path) -> None:
    before = files(store)
    assert collect(store) == []
    assert files(store) == before


def test_results_of_older_fingerprints_go_after_a_day_and_the_current_ones_stay(store: Path) -> None:
    folder = exam_directory(store, EXAM)
    old, fresh = folder / "labels-0123456789ab.zarr", folder / "measure-0123456789ab.json"
    old.mkdir()
    (old / "zarr.json").write_text("{}")
    fresh.write_text("{}")
    age(old, days=2)
    assert [one.path for one in collect(store, dry_run=True)] == [old]
    assert old.exists()
    (found,) = collect(store)
    assert (found.kind, found.size_bytes) == ("result", 2)
    assert not old.exists()
    assert fresh.exists()
    assert fsck(store) == []


def test_what_a_change_that_waits_points_to_stays(store: Path) -> None:
    held = exam_directory(store, EXAM) / "labels-0123456789ab.zarr"
    held.mkdir()
    age(held, days=2)
    row = next(row for row in read_objects(store, "ledger") if (row.exam_id, row.stage) == (EXAM, "segment"))
    commit(store / "candidate", "r2", {"ledger": [replace(row, path=str(held.relative_to(store)))]}, touched={})
    assert collect(store) == []


def test_files_that_are_not_ours_stay(store: Path) -> None:
    note = exam_directory(store, EXAM) / "notes.txt"
    note.write_text("ours")
    age(note, days=400)
    assert collect(store) == []


@pytest.mark.parametrize(("days", "goes"), [(29, False), (31, True)])
def test_exams_that_left_the_archive_keep_their_results_for_thirty_days(store: Path, days: int, goes: bool) -> None:
    pictures = review_directory(store, EXAM)
    pictures.mkdir(parents=True)
    (pictures / "sagittal.png").write_bytes(b"1")
    run_id = f"{datetime.now(UTC) - timedelta(days=days):%Y%m%dT%H%M%S}-abc123"
    gone = replace(
        next(row for row in read_objects(store, "exams") if row.exam_id == EXAM), status="gone", reason="gone"
    )
    remove_exams(store, [EXAM])
    commit(store, run_id, {"exams": [gone]}, touched={})
    kinds = {one.kind for one in collect(store)}
    assert kinds == ({"gone exam", "picture"} if goes else set())
    assert exam_directory(store, EXAM).exists() != goes
    assert pictures.exists() != goes


def test_leftovers_of_killed_processes_and_old_base_models_go(store: Path) -> None:
    left = [
        exam_directory(store, EXAM) / ".tmp-0123",
        store / "tables" / ".tmp-4567",
        store / "models" / "male-000000000000.osim",
        store / "models" / "partial-female-000000000000.osim",
    ]
    kept = [store / "models" / "male-111111111111.osim", store / "models" / "female-222222222222.osim"]
    for path in (*left, *kept):
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    for path in left:
        age(path, days=40)
    age(kept[1], days=300)  # the newest of its sex, however old
    assert {one.path for one in collect(store)} == set(left)
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in kept)


def test_nothing_is_collected_while_a_run_works_or_without_tables(store: Path, tmp_path: Path) -> None:
    with only_run(store), pytest.raises(ConfigurationError):
        collect(store)
    with pytest.raises(StoreError, match="no tables"):
        collect(tmp_path / "empty")


def test_the_command_says_what_it_freed(store: Path) -> None:
    old = exam_directory(store, EXAM) / "measure-0123456789ab.json"
    old.write_text("x" * 1000)
    age(old, days=2)
    result = CliRunner().invoke(main, ["gc", "--store", str(store), "--dry-run", "--json"])
    assert json.loads(result.output) == {"dry_run": True, "bytes": 1000, "kinds": {"result": {"n": 1, "bytes": 1000}}}
    result = CliRunner().invoke(main, ["gc", "--store", str(store)])
    assert result.output.splitlines() == ["result: 1, 0.0 MB", "0.0 MB were freed"]
    assert CliRunner().invoke(main, ["gc", "--store", str(store)]).output == "0.0 MB were freed\n"
