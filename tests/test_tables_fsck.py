"""`cohort fsck`: a sound store passes, every disagreement is found by name, and a repair leaves work, not lies."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from cohort.errors import StoreError
from cohort.rows import TABLES
from cohort.tables import fsck as module
from cohort.tables.buckets import bucket_file, bucket_files, bucket_of, read_objects, read_rows
from cohort.tables.commit import commit
from cohort.tables.fsck import NATURAL_KEYS, Finding, fsck, wrong
from cohort.tables.ledger import read_ledger
from cohort.tables.repair import repair
from cohort.tables.schema import arrow_schema
from pipelines import fingerprint, outcome
from pipelines.cli import main
from tests.synthetic_tables import pseudonym, synthetic_rows, write_synthetic_store

EXAM = pseudonym("exam 0")
"""One that is ok in everything."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fsck") / "store"
    write_synthetic_store(folder, 10)
    return folder


@pytest.fixture
def store(sound: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(sound, tmp_path / "store")


def change(store: Path, table: str, exam_id: str, **values: object) -> None:
    """Write other values into the rows of an exam, as no run would."""
    path = bucket_file(store, table, bucket_of(exam_id, 64))
    rows = [{**row, **values} if row["exam_id"] == exam_id else row for row in pq.ParquetFile(path).read().to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, schema=arrow_schema(table)), path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def checks(findings: list[Finding]) -> set[tuple[str, str, str | None]]:
    return {(one.check, one.severity, one.table) for one in findings}


def test_a_sound_store_has_no_finding(sound: Path) -> None:
    assert fsck(sound) == []
    result = CliRunner().invoke(main, ["fsck", "--store", str(sound)])
    assert (result.exit_code, result.output) == (0, "store, ledger and tables agree\n")


def test_every_table_has_its_natural_key_and_every_stage_its_tables() -> None:
    assert {*NATURAL_KEYS, "quality"} == set(TABLES)
    assert all(set(columns) <= set(arrow_schema(table).names) for table, columns in NATURAL_KEYS.items())
    assert module.STAGES == fingerprint.STAGES
    assert {stage: tables for stage, tables in outcome.STAGE_TABLES.items() if tables} == module.STAGE_TABLES


@pytest.mark.parametrize("table", ["discs", "quality", "ledger", "exams", "files", "runs"])
def test_a_damaged_bucket_is_named_and_repaired(store: Path, table: str) -> None:
    path = max(bucket_files(store, table), key=lambda path: path.stat().st_size)
    bucket = int(path.parent.name[-2:])
    ledger, runs = read_ledger(store), read_objects(store, "runs")
    cut(path)
    with pytest.raises(StoreError, match=f"table {table}, {path.parent.name} is damaged"):
        read_rows(store, table)
    found = fsck(store)
    assert [(one.check, one.table, one.bucket) for one in found] == [("damaged", table, bucket)]
    assert str(store) not in str(found[0])
    repair(store, found)
    assert wrong(fsck(store)) == []
    assert len(pd.read_parquet(store / "tables" / table)) == read_rows(store, table).num_rows
    again = {"discs": ("measure", "load"), "quality": module.STAGES, "ledger": module.STAGES}.get(table, ())
    left = {key for key in ledger if bucket_of(key[0], 64) != bucket or key[1] not in again}
    assert set(read_ledger(store)) == left
    if table == "runs":
        assert read_objects(store, "runs") == runs
    if table in ("exams", "quality"):  # so that the selection is done again
        assert all(bucket_of(row.exam_id, 64) != bucket for row in read_objects(store, "wanted"))


def test_a_changed_byte_in_the_middle_of_a_page_is_no_other_number(store: Path) -> None:
    path = max(bucket_files(store, "discs"), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    at = content.index(b"\x28\xb5\x2f\xfd", 200) + 30  # within a Zstandard frame
    content[at] ^= 0xFF
    path.write_bytes(content)
    assert [one.check for one in fsck(store)] == ["damaged"]


def test_exams_of_a_repaired_bucket_are_redone_and_all_others_stay(store: Path) -> None:
    before = read_rows(store, "discs").to_pandas()
    path = bucket_file(store, "discs", bucket_of(EXAM, 64))
    cut(path)
    repair(store, fsck(store))
    after = read_rows(store, "discs").to_pandas()
    assert set(before["exam_id"]) - set(after["exam_id"]) == {
        exam for exam in before["exam_id"] if bucket_of(exam, 64) == bucket_of(EXAM, 64)
    }
    assert (EXAM, "measure") not in read_ledger(store)
    assert (EXAM, "segment") in read_ledger(store)
    assert EXAM not in set(read_rows(store, "loads")["exam_id"].to_pylist())  # nothing stands that nothing vouches for
    unfinished = fsck(store)
    assert checks(unfinished) == {("status", "unfinished", "exams")}
    rows = {
        table: [row for row in group if getattr(row, "exam_id", None) == EXAM]
        for table, group in synthetic_rows(10).items()
    }
    commit(store, "r2", {table: group for table, group in rows.items() if group}, touched={})
    assert EXAM not in {exam for one in fsck(store) for exam in one.exam_ids}


def test_rows_lost_from_a_table_are_found_in_the_history_and_done_again(store: Path) -> None:
    bucket_file(store, "loads", bucket_of(EXAM, 64)).unlink()
    found = fsck(store)
    assert checks(found) == {("lost", "wrong", "loads")}
    assert EXAM in found[0].exam_ids
    repair(store, found)
    assert (EXAM, "load") not in read_ledger(store)
    assert (EXAM, "measure") in read_ledger(store)
    assert wrong(fsck(store)) == []


def test_two_rows_of_one_structure_are_found(store: Path) -> None:
    path = bucket_file(store, "discs", bucket_of(EXAM, 64))
    rows = pq.ParquetFile(path).read()
    pq.write_table(pa.concat_tables([rows, rows.slice(0, 1)]), path)
    assert ("duplicate", "wrong", "discs") in checks(fsck(store))
    change(store, "vertebrae", EXAM, level="L1")
    found = [one for one in fsck(store) if one.table == "vertebrae"]
    assert [one.text for one in found] == ["1 times two rows of the same exam_id, level"]
    repair(store, fsck(store))
    assert wrong(fsck(store)) == []


def test_rows_in_another_bucket_and_nan_are_found(store: Path) -> None:
    path = bucket_file(store, "curvature", bucket_of(EXAM, 64))
    other = bucket_file(store, "curvature", (bucket_of(EXAM, 64) + 1) % 64)
    other.parent.mkdir(exist_ok=True)
    shutil.move(path, other)
    change(store, "loads", EXAM, axial_n=float("nan"))
    assert {("misplaced", "wrong", "curvature"), ("not_a_number", "wrong", "loads")} <= checks(fsck(store))
    repair(store, fsck(store))
    assert wrong(fsck(store)) == []


def test_rows_that_the_ledger_does_not_vouch_for_are_found(store: Path) -> None:
    change(store, "ledger", EXAM, status="refused", path=None)
    found = checks(fsck(store))
    assert {("unvouched", "wrong", "discs"), ("unvouched", "wrong", "loads"), ("status", "wrong", "exams")} <= found
    repair(store, fsck(store))
    assert EXAM not in set(read_rows(store, "discs")["exam_id"].to_pylist())


def test_a_crash_between_two_moves_is_unfinished_and_not_wrong(store: Path) -> None:
    ledger = [row for row in read_objects(store, "ledger") if row.exam_id == EXAM]
    commit(store, "r2", {}, touched={"ledger": [(EXAM, row.stage) for row in ledger]})
    found = fsck(store)
    assert found
    assert wrong(found) == []
    result = CliRunner().invoke(main, ["fsck", "--store", str(store)])
    assert result.exit_code == 0
    assert "0 wrong" in result.output


def test_a_run_that_was_killed_before_its_end_is_unfinished_and_not_wrong(store: Path) -> None:
    new = pseudonym("exam that came last")
    row = replace(read_ledger(store)[EXAM, "convert"], exam_id=new, run_id="killed", path=None)
    commit(store, "killed", {"ledger": [row]}, touched={})
    assert checks(fsck(store)) == {("orphan", "unfinished", "ledger")}
    wanted = replace(read_objects(store, "wanted")[0], exam_id=new)
    ended = replace(row, run_id=read_objects(store, "runs")[0].run_id)
    commit(store, "killed", {"ledger": [ended], "wanted": [wanted]}, touched={})
    assert checks(fsck(store)) == {("orphan", "wrong", "ledger"), ("orphan", "wrong", "wanted")}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"status": "failed"}, "failed although no stage did"),
        ({"status": "refused"}, "refused although neither selection nor a stage did"),
        ({"status": "gone"}, "gone although the ledger still has results"),
    ],
)
def test_a_status_that_the_ledger_does_not_know_is_found(store: Path, values: dict[str, str], text: str) -> None:
    change(store, "exams", EXAM, **values)
    (found,) = fsck(store)
    assert (found.text, found.exam_ids, found.severity) == (text, (EXAM,), "wrong")
    repair(store, [found])
    assert EXAM not in {row.exam_id for row in read_objects(store, "wanted")}
    assert wrong(fsck(store)) == []


def test_results_that_are_gone_are_found_and_redone_from_their_stage(store: Path) -> None:
    segment = read_ledger(store)[EXAM, "segment"]
    shutil.rmtree(store / str(segment.path))
    (found,) = fsck(store)
    assert (found.check, found.stage, found.exam_ids) == ("result", "segment", (EXAM,))
    repair(store, [found])
    assert {stage for exam, stage in read_ledger(store) if exam == EXAM} == {"convert"}
    assert wrong(fsck(store)) == []


def test_deep_opens_what_the_ledger_points_to(sound: Path) -> None:
    """The synthetic store has roots without arrays: nothing that could be read as an exam."""
    found = fsck(sound, deep=True)
    assert {(one.check, one.stage) for one in found} == {("result", "convert"), ("result", "segment")}


def test_a_damaged_candidate_is_named_and_the_tables_stay(store: Path) -> None:
    shutil.copytree(store / "tables", store / "candidate" / "tables")
    assert fsck(store) == []
    before = read_rows(store, "discs")
    cut(bucket_file(store / "candidate", "discs", bucket_of(EXAM, 64)))
    found = fsck(store)
    assert checks(found) == {("candidate_damaged", "wrong", "discs")}
    repair(store, found)
    assert read_rows(store, "discs").equals(before)


def test_damaged_history_is_named(store: Path) -> None:
    cut(next((store / "history" / "series").rglob("*.parquet")))
    assert checks(fsck(store)) == {("damaged_history", "wrong", "series")}


def test_the_command_says_what_is_wrong_and_exits_with_1(store: Path) -> None:
    path = bucket_file(store, "loads", bucket_of(EXAM, 64))
    cut(path)
    result = CliRunner().invoke(main, ["fsck", "--store", str(store), "--json"])
    assert result.exit_code == 1
    (finding,) = json.loads(result.output)["findings"]
    assert (finding["table"], finding["bucket"]) == ("loads", bucket_of(EXAM, 64))
    assert CliRunner().invoke(main, ["fsck", "--store", str(store), "--repair"]).exit_code == 0
