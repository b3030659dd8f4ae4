"""Current buckets, history, ledger, commit and SQL on real Parquet files."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from cohort.errors import ConfigurationError, StoreError
from cohort.rows import TABLES, CurvatureRow, DiscRow, ExamRow, FileRow, LedgerRow, LoadRow, QualityRow
from cohort.tables import buckets, sql
from cohort.tables.buckets import (
    bucket_files,
    bucket_of,
    create_tables,
    read_objects,
    read_rows,
    remove_exams,
    replace_rows,
)
from cohort.tables.commit import commit
from cohort.tables.ledger import read_ledger

EXAMS = [f"exam{i:03d}" for i in range(200)]


def curvature(exam_id: str, *, slope_deg: float | None = None) -> CurvatureRow:
    return CurvatureRow(exam_id=exam_id, sacral_slope_deg=slope_deg, status="ok")


def ledger(exam_id: str, stage: str, fingerprint: str = "f1", status: str = "ok") -> LedgerRow:
    return LedgerRow(
        exam_id=exam_id,
        stage=stage,
        fingerprint=fingerprint,
        status=status,
        seconds=0.5,
        worker="cpu-0",
        run_id="r1",
    )


def disc(exam_id: str, ordinal: int) -> DiscRow:
    return DiscRow(
        exam_id=exam_id,
        ordinal=ordinal,
        level_confidence=0.5,
        x_mm=0.0,
        y_mm=0.0,
        z_mm=0.0,
        central_slice=5,
        volume_cm3=9.0,
        slices_seen=8,
        slices_expected=8,
        touches_border=False,
        status="ok",
    )


def keys(exam_ids: Sequence[str]) -> list[tuple[str, ...]]:
    return [(exam_id,) for exam_id in exam_ids]


def pandas_table(store: Path, table: str) -> pd.DataFrame:
    return pd.read_parquet(store / "tables" / table)


def test_empty_tables_can_be_read_by_pandas_and_sql(tmp_path: Path) -> None:
    create_tables(tmp_path)
    for table in TABLES:
        frame = pandas_table(tmp_path, table)
        assert len(frame) == 0
        assert list(frame.columns) == read_rows(tmp_path, table).column_names
    assert sql.query(tmp_path, "SELECT count(*) AS n FROM loads").to_pylist() == [{"n": 0}]


def test_pandas_sees_exactly_the_current_rows_after_each_replacement(tmp_path: Path) -> None:
    replace_rows(tmp_path, "discs", keys(EXAMS), [disc(e, k) for e in EXAMS for k in (1, 2, 3)])
    assert len(pandas_table(tmp_path, "discs")) == 600
    replace_rows(tmp_path, "discs", keys(EXAMS[:50]), [disc(e, 1) for e in EXAMS[:50]])
    frame = pandas_table(tmp_path, "discs")
    assert len(frame) == 500
    assert set(frame["exam_id"]) == set(EXAMS)
    assert "bucket" not in frame.columns
    assert frame["ordinal"].dtype == "int64"
    assert frame["level_confidence"].dtype == "float64"


def test_only_touched_buckets_are_rewritten(tmp_path: Path) -> None:
    replace_rows(tmp_path, "curvature", keys(EXAMS), [curvature(e) for e in EXAMS])
    before = {path: path.stat().st_ino for path in bucket_files(tmp_path, "curvature")}
    replace_rows(tmp_path, "curvature", keys(EXAMS[:1]), [curvature(EXAMS[0], slope_deg=40.0)])
    changed = [path for path, inode in before.items() if path.stat().st_ino != inode]
    assert [path.parent.name for path in changed] == [f"bucket-{bucket_of(EXAMS[0], 64):02d}"]


def test_replacing_without_rows_removes_and_repeating_changes_no_file(tmp_path: Path) -> None:
    replace_rows(tmp_path, "curvature", keys(EXAMS), [curvature(e) for e in EXAMS])
    replace_rows(tmp_path, "curvature", keys(EXAMS[:10]), [])
    inodes = [path.stat().st_ino for path in bucket_files(tmp_path, "curvature")]
    replace_rows(tmp_path, "curvature", keys(EXAMS[:10]), [])
    assert [path.stat().st_ino for path in bucket_files(tmp_path, "curvature")] == inodes
    assert sorted(pandas_table(tmp_path, "curvature")["exam_id"]) == EXAMS[10:]


def test_rows_come_back_as_the_dataclasses_they_were(tmp_path: Path) -> None:
    rows = [FileRow(file_id=f"f{i}", size_bytes=i, mtime_ns=2**62, position_mm=[0.1, 0.2, i]) for i in range(9)]
    replace_rows(tmp_path, "files", [(row.file_id,) for row in rows], rows)
    assert sorted(read_objects(tmp_path, "files"), key=lambda row: row.file_id) == rows


def test_order_of_arrival_does_not_change_the_table(tmp_path: Path) -> None:
    replace_rows(tmp_path / "a", "curvature", keys(EXAMS), [curvature(e) for e in EXAMS])
    for exam in reversed(EXAMS[:20]):
        replace_rows(tmp_path / "b", "curvature", keys([exam]), [curvature(exam)])
    replace_rows(tmp_path / "b", "curvature", keys(EXAMS[20:]), [curvature(e) for e in EXAMS[20:]])
    assert read_rows(tmp_path / "a", "curvature").equals(read_rows(tmp_path / "b", "curvature"))


def test_buckets_are_the_same_on_every_machine() -> None:
    assert [bucket_of(key, 64) for key in ("a", "exam000", "ABCDEF234567")] == [10, 53, 7]


def test_number_of_buckets_stays_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_rows(tmp_path, "curvature", keys(EXAMS), [curvature(e) for e in EXAMS])
    monkeypatch.setattr(buckets, "N_BUCKETS", 8)
    replace_rows(tmp_path, "curvature", keys(EXAMS), [curvature(e) for e in EXAMS])
    assert len(pandas_table(tmp_path, "curvature")) == len(EXAMS)


def test_row_outside_the_keys_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="table curvature: rows of 1 keys that are not being replaced"):
        replace_rows(tmp_path, "curvature", keys(["e1"]), [curvature("e2")])


def test_files_follow_the_archive_and_not_their_exam(tmp_path: Path) -> None:
    rows = [FileRow(file_id=f"f{i}", size_bytes=1, mtime_ns=1, reason="not_dicom") for i in range(100)]
    rows += [FileRow(file_id="g1", size_bytes=1, mtime_ns=1, exam_id="e1")]
    replace_rows(tmp_path, "files", [(row.file_id,) for row in rows], rows)
    replace_rows(tmp_path, "files", [("f7",)], [])
    assert len(pandas_table(tmp_path, "files")) == 100
    remove_exams(tmp_path, ["e1"])
    assert len(pandas_table(tmp_path, "files")) == 100


def test_removed_exams_leave_every_table_of_results(tmp_path: Path) -> None:
    exam = ExamRow(exam_id="e1", subject_id="s", status="ok")
    rows = {
        "exams": [exam, replace(exam, exam_id="e2")],
        "curvature": [curvature("e1"), curvature("e2")],
        "ledger": [ledger("e1", "measure"), ledger("e2", "measure")],
    }
    commit(tmp_path, "r1", rows, touched={})
    remove_exams(tmp_path, ["e1"])
    assert list(pandas_table(tmp_path, "curvature")["exam_id"]) == ["e2"]
    assert set(read_ledger(tmp_path)) == {("e2", "measure")}
    assert sorted(pandas_table(tmp_path, "exams")["exam_id"]) == ["e1", "e2"]


def test_flags_and_ledger_rows_of_other_stages_stay(tmp_path: Path) -> None:
    flags = [QualityRow(exam_id="e1", stage=stage, reason="low_contrast") for stage in ("measure", "load")]
    commit(tmp_path, "r1", {"quality": flags, "ledger": [ledger("e1", "measure"), ledger("e1", "load")]}, touched={})
    commit(tmp_path, "r2", {"ledger": [ledger("e1", "load", "f2")]}, touched={"quality": [("e1", "load")]})
    assert list(pandas_table(tmp_path, "quality")["stage"]) == ["measure"]
    assert {key: row.fingerprint for key, row in read_ledger(tmp_path).items()} == {
        ("e1", "measure"): "f1",
        ("e1", "load"): "f2",
    }


def test_history_keeps_every_row_in_parts(tmp_path: Path) -> None:
    for fingerprint in ("f1", "f2"):
        commit(tmp_path, "r1", {"ledger": [ledger("e1", "load", fingerprint)], "loads": []}, touched={})
    commit(tmp_path, "r2", {"ledger": [ledger("e1", "load", "f3")]}, touched={})
    folder = tmp_path / "history" / "ledger"
    assert sorted(p.name for p in (folder / "run=r1").iterdir()) == ["part-0.parquet", "part-1.parquet"]
    frame = pd.read_parquet(folder)
    assert sorted(frame["fingerprint"]) == ["f1", "f2", "f3"]
    assert not (tmp_path / "history" / "loads").exists()


def test_ledger_rows_come_back_as_written(tmp_path: Path) -> None:
    row = replace(ledger("e1", "load", status="failed"), reason="internal_error", error_type="KeyError")
    commit(tmp_path, "r1", {"ledger": [row]}, touched={})
    assert read_ledger(tmp_path) == {("e1", "load"): row}


class Crash(BaseException):
    """Stands for the death of the process between two moves."""


def crash_after(monkeypatch: pytest.MonkeyPatch, moves: int) -> None:
    real, left = os.replace, [moves]

    def move(source: Path, target: Path) -> None:
        if not left[0]:
            raise Crash
        left[0] -= 1
        real(source, target)

    monkeypatch.setattr(buckets.os, "replace", move)


def new_results(fingerprint: str, slope_deg: float) -> dict[str, list[object]]:
    return {
        "curvature": [curvature(e, slope_deg=slope_deg) for e in EXAMS[:4]],
        "ledger": [ledger(e, "measure", fingerprint) for e in EXAMS[:4]],
    }


@pytest.mark.parametrize("moves", range(18))
def test_crash_between_moves_leaves_readable_tables_and_only_redoes_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    commit(tmp_path, "r1", new_results("old", 10.0), touched={})
    with monkeypatch.context() as patched:
        crash_after(patched, moves)
        try:
            commit(tmp_path, "r2", new_results("new", 20.0), touched={})
        except Crash:
            assert moves < 14  # 4 ledger buckets, 4 of curvature, 2 of history, 4 ledger buckets
        else:
            assert moves >= 14
    slopes = pandas_table(tmp_path, "curvature").set_index("exam_id")["sacral_slope_deg"]
    assert sorted(slopes.index) == EXAMS[:4]
    vouched = {exam: row.fingerprint for (exam, _), row in read_ledger(tmp_path).items()}
    assert all(slopes[exam] == {"old": 10.0, "new": 20.0}[print_] for exam, print_ in vouched.items())
    assert not list((tmp_path / "tables").glob(".tmp-*"))
    commit(tmp_path, "r3", new_results("new", 20.0), touched={})
    assert set(pandas_table(tmp_path, "curvature")["sacral_slope_deg"]) == {20.0}
    assert len(read_ledger(tmp_path)) == 4


def test_nan_stops_a_commit_before_anything_is_written(tmp_path: Path) -> None:
    commit(tmp_path, "r1", new_results("old", 10.0), touched={})
    with pytest.raises(ValueError, match="table curvature, column sacral_slope_deg"):
        commit(tmp_path, "r2", new_results("new", float("nan")), touched={})
    assert {row.fingerprint for row in read_ledger(tmp_path).values()} == {"old"}
    assert not (tmp_path / "history" / "ledger" / "run=r2").exists()


def test_staging_left_by_a_killed_process_is_swept_after_a_day(tmp_path: Path) -> None:
    create_tables(tmp_path)
    old, fresh = tmp_path / "tables" / ".tmp-old", tmp_path / "tables" / ".tmp-fresh"
    for folder in (old, fresh):
        folder.mkdir()
    os.utime(old, (0, time.time() - 90_000))
    create_tables(tmp_path)
    assert not old.exists()
    assert fresh.exists()


def test_store_without_tables_and_other_versions_are_errors(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no tables yet"):
        read_rows(tmp_path, "discs")
    with pytest.raises(StoreError, match="no tables yet"):
        sql.query(tmp_path, "SELECT 1")
    create_tables(tmp_path)
    (tmp_path / "tables" / "_store.json").write_text('{"buckets": 64, "schema_version": 0}')
    with pytest.raises(StoreError, match="schema version 0"):
        read_rows(tmp_path, "discs")


def test_bucket_of_another_schema_is_an_error(tmp_path: Path) -> None:
    create_tables(tmp_path)
    path = bucket_files(tmp_path, "discs")[0]
    pq.write_table(pq.ParquetFile(path).read().drop_columns(["height_mm"]), path)
    with pytest.raises(StoreError, match="table discs has other columns"):
        read_rows(tmp_path, "discs")


def load(exam_id: str, axial_n: float) -> LoadRow:
    return LoadRow(
        exam_id=exam_id,
        task="standing",
        level="L4",
        engine="batch",
        convention="joint_below",
        axial_n=axial_n,
        shear_ap_n=10.0,
        shear_lateral_n=0.0,
        moment_flexion_nm=0.0,
        max_activation=0.2,
        reserve_max_nm=0.0,
        height_source="measured",
        mass_source="measured",
        position_source="default",
        base_model="lumbar_cohort_male",
        geometry="polygon",
        n_saturated=0,
        curvature_source="measured",
        strength_source="default",
        status="ok",
    )


def test_sql_joins_tables(tmp_path: Path) -> None:
    rows = {"discs": [disc(e, 1) for e in EXAMS], "loads": [load(e, 100.0 * i) for i, e in enumerate(EXAMS)]}
    commit(tmp_path, "r1", rows, touched={})
    found = sql.query(tmp_path, "SELECT max(axial_n) AS n FROM discs JOIN loads USING (exam_id) WHERE ordinal = 1")
    assert found.to_pylist() == [{"n": 19_900.0}]
    described = sql.query(tmp_path, "DESCRIBE discs").to_pandas()
    assert list(described["column_name"])[:2] == ["exam_id", "ordinal"]


def test_sql_errors_name_the_tables(tmp_path: Path) -> None:
    create_tables(tmp_path)
    with pytest.raises(ConfigurationError, match=r"disks does not exist!? Tables: files, series, exams"):
        sql.query(tmp_path, "SELECT * FROM disks")
    with pytest.raises(ConfigurationError, match="hight_mm"):
        sql.query(tmp_path, "SELECT hight_mm FROM discs")
    with pytest.raises(ConfigurationError, match="syntax error"):
        sql.query(tmp_path, "SELEKT 1")


@pytest.mark.parametrize("statement", ["DROP VIEW discs", "CREATE TABLE t AS SELECT 1", "SELECT 1; SELECT 2", ""])
def test_sql_is_one_query_and_nothing_else(tmp_path: Path, statement: str) -> None:
    create_tables(tmp_path)
    with pytest.raises(ConfigurationError, match="one SELECT"):
        sql.query(tmp_path, statement)


def test_sql_cannot_touch_files(tmp_path: Path) -> None:
    create_tables(tmp_path)
    outside = tmp_path / "outside.csv"
    outside.write_text("a\n1\n")
    with pytest.raises(ConfigurationError, match="file system operations are disabled"):
        sql.query(tmp_path, f"SELECT * FROM read_csv('{outside}')")
    with (
        sql.connect(tmp_path) as connection,
        pytest.raises(sql.duckdb.Error, match="file system operations are disabled"),
    ):
        connection.execute(f"COPY (SELECT 1) TO '{tmp_path / 'written.csv'}'")
    assert not (tmp_path / "written.csv").exists()


def test_sql_cannot_see_python_variables(tmp_path: Path) -> None:
    create_tables(tmp_path)
    secret = read_rows(tmp_path, "runs")
    assert secret.num_rows == 0
    with pytest.raises(ConfigurationError, match="secret does not exist"):
        sql.query(tmp_path, "SELECT * FROM secret")
