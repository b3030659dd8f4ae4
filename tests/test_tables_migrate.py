"""Stores of an older schema version: refused with what to do, and rewritten by `cohort migrate`, cut off anywhere."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from cohort.errors import StoreError
from cohort.tables import buckets
from cohort.tables.buckets import read_objects, read_rows
from cohort.tables.commit import commit
from cohort.tables.compact import compact_history
from cohort.tables.fsck import fsck
from cohort.tables.migrate import STEPS, migrate
from cohort.tables.schema import SCHEMA_VERSION, arrow_schema
from pipelines.cli import main
from tests.synthetic_tables import Rows, synthetic_rows, write_synthetic_store

NEW_IN_5 = {
    "ledger": ("finished_at", "rss_mib", "stage_version", "inputs", "parameters", "artefacts"),
    "runs": ("command", "n_pending", "ended", "change"),
}
"""Columns that version 4 did not have; nor had it the table `wanted`."""


def as_version_4(store: Path) -> None:
    """Turn a store of today into what version 4 would have written."""
    for area in ("tables", "history"):
        shutil.rmtree(store / area / "wanted")
        for path in (store / area).rglob("*.parquet"):
            rows = pq.ParquetFile(path).read()
            table = rows.schema.metadata[b"table"].decode()
            old = rows.drop_columns(list(NEW_IN_5.get(table, ())))
            pq.write_table(old.replace_schema_metadata({"table": table, "schema_version": "4"}), path)
    (store / "tables" / "_store.json").write_text(json.dumps({"buckets": 64, "schema_version": 4}))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rows]:
    store = tmp_path_factory.mktemp("migrate") / "store"
    rows = write_synthetic_store(store, 6)
    as_version_4(store)
    return store, rows


@pytest.fixture
def old(made: tuple[Path, Rows], tmp_path: Path) -> Path:
    return shutil.copytree(made[0], tmp_path / "store")


def test_an_old_store_is_refused_and_the_command_is_named(old: Path) -> None:
    with pytest.raises(StoreError, match=r"schema version 4, this software writes \d+: cohort migrate"):
        read_rows(old, "discs")
    result = CliRunner().invoke(main, ["sql", "select 1", "--store", str(old)])
    assert result.exit_code == 2
    assert "cohort migrate" in result.output


def test_every_row_of_tables_and_history_comes_through(old: Path, made: tuple[Path, Rows]) -> None:
    result = CliRunner().invoke(main, ["migrate", "--store", str(old), "--json"])
    assert result.exit_code == 0, result.output
    done = json.loads(result.output)
    assert (done["from_version"], done["to_version"]) == (4, SCHEMA_VERSION)
    rows = made[1]
    for table in ("discs", "loads", "files", "exams", "quality"):
        assert sorted(read_objects(old, table), key=repr) == sorted(rows[table], key=repr)
    (run,) = read_objects(old, "runs")
    assert (run.command, run.ended, run.n_pending, run.change) == ("run", "complete", 0, None)
    assert {row.finished_at for row in read_objects(old, "ledger")} == {None}
    assert read_rows(old, "wanted").num_rows == 0
    history = pd.read_parquet(old / "history" / "ledger")
    assert len(history) == len(rows["ledger"])
    assert "rss_mib" in history
    assert fsck(old) == []
    again = CliRunner().invoke(main, ["migrate", "--store", str(old)])
    assert "nothing to do" in again.output


class Crash(BaseException):
    """Stands for the death of the process between two moves."""


@pytest.mark.parametrize("moves", [0, 1, 10, 40, 80])
def test_a_migration_that_was_cut_off_is_finished_by_the_next(
    old: Path, made: tuple[Path, Rows], monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    real, left = os.replace, [moves]

    def move(source: Path, target: Path) -> None:
        if not left[0]:
            raise Crash
        left[0] -= 1
        real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(buckets.os, "replace", move)
        with pytest.raises(Crash):
            migrate(old)
    with pytest.raises(StoreError, match="cohort migrate"):  # the marker comes last
        read_rows(old, "discs")
    assert len(pd.read_parquet(old / "tables" / "discs")) == len(made[1]["discs"])
    migrate(old)
    assert sorted(read_objects(old, "loads"), key=repr) == sorted(made[1]["loads"], key=repr)
    assert fsck(old) == []


def test_a_candidate_beside_the_tables_is_migrated_too(old: Path) -> None:
    shutil.copytree(old / "tables", old / "candidate" / "tables")
    migrate(old)
    assert read_rows(old / "candidate", "discs").num_rows == read_rows(old, "discs").num_rows


def test_newer_and_far_older_stores_are_left_alone(old: Path) -> None:
    marker = old / "tables" / "_store.json"
    marker.write_text(json.dumps({"buckets": 64, "schema_version": SCHEMA_VERSION + 1}))
    for act in (migrate, lambda store: read_rows(store, "discs")):
        with pytest.raises(StoreError, match=r"newer than this software.*install the version"):
            act(old)
    for path in (old / "tables").rglob("*.parquet"):
        rows = pq.ParquetFile(path).read()
        table = rows.schema.metadata[b"table"]
        pq.write_table(rows.replace_schema_metadata({"table": table, "schema_version": "1"}), path)
    marker.write_text(json.dumps({"buckets": 64, "schema_version": 1}))
    with pytest.raises(StoreError, match="too old"):
        migrate(old)


def test_there_is_a_step_for_every_version_since_the_first_that_can_be_migrated() -> None:
    assert sorted(STEPS) == list(range(min(STEPS), SCHEMA_VERSION))


def history_rows(store: Path) -> dict[str, list[str]]:
    return {
        folder.name: sorted(
            repr((path.parent.name, row))
            for path in folder.rglob("part-*.parquet")
            for row in pq.ParquetFile(path).read().to_pylist()
        )
        for folder in (store / "history").iterdir()
    }


@pytest.fixture
def parted(tmp_path: Path) -> Path:
    """A run of four commits, and another one."""
    for _ in range(4):
        write_synthetic_rows(tmp_path, "r1")
    write_synthetic_rows(tmp_path, "r2")
    return tmp_path


def write_synthetic_rows(store: Path, run_id: str) -> None:
    rows = synthetic_rows(2, run_id=run_id)
    commit(store, run_id, {table: rows[table] for table in ("discs", "curvature", "ledger")}, touched={})


def test_compaction_leaves_one_file_for_each_table_and_run_and_every_row(parted: Path) -> None:
    before = history_rows(parted)
    result = CliRunner().invoke(main, ["compact", "--store", str(parted), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["files_before"] == 12
    assert history_rows(parted) == before
    assert [len(list(folder.iterdir())) for folder in (parted / "history").glob("*/run=*")] == [1] * 6
    write_synthetic_rows(parted, "r1")
    assert sorted(path.name for path in (parted / "history" / "discs" / "run=r1").iterdir()) == [
        "part-0.parquet",
        "part-1.parquet",
    ]


@pytest.mark.parametrize("renames", range(4))
def test_a_compaction_that_was_cut_off_loses_and_doubles_nothing(
    parted: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    before, real, left = history_rows(parted), os.rename, [renames]

    def rename(source: Path, target: Path) -> None:
        if not left[0]:
            raise Crash
        left[0] -= 1
        real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr("cohort.tables.compact.os.rename", rename)
        with pytest.raises(Crash):
            compact_history(parted)
    assert any(one.check == "compaction" and one.severity == "unfinished" for one in fsck(parted))
    compact_history(parted)
    assert history_rows(parted) == before
    assert not [one for one in fsck(parted) if one.check == "compaction"]


def test_a_damaged_part_stops_the_compaction_of_its_run(parted: Path) -> None:
    path = parted / "history" / "discs" / "run=r1" / "part-2.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StoreError, match=r"history of table discs: part-2.parquet of a run is damaged"):
        compact_history(parted)
    assert len(list(path.parent.iterdir())) == 4


def test_schema_of_a_migrated_table_is_todays(old: Path) -> None:
    migrate(old)
    for path in (old / "tables").rglob("*.parquet"):
        schema = pq.read_schema(path)
        table = schema.metadata[b"table"].decode()
        assert schema.equals(arrow_schema(table), check_metadata=True)
