"""Views, the data dictionary of one of them, and exports: what a statistician opens."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from cohort.errors import ConfigurationError
from cohort.rows import TABLES
from cohort.tables.buckets import read_objects, read_rows
from cohort.tables.commit import commit
from cohort.tables.dictionary import dictionary_of, view_types
from cohort.tables.export import export_duckdb, export_files
from cohort.tables.snapshot import snapshot
from cohort.tables.sql import in_memory, query
from cohort.tables.view import MIN_SUBJECTS
from cohort.tables.views import views
from pipelines.cli import main
from tests.synthetic_tables import pseudonym, synthetic_rows, write_synthetic_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("views") / "store"
    write_synthetic_store(folder)
    return folder


def frame(store: Path, sql: str) -> pd.DataFrame:
    return query(store, sql).to_pandas()


def exam(number: int) -> str:
    return pseudonym(f"exam {number}")


def test_the_wide_view_has_one_row_per_exam_and_the_numbers_of_the_tables(store: Path) -> None:
    wide = frame(store, "select * from exams_wide").set_index("exam_id")
    assert sorted(wide.index) == sorted(row.exam_id for row in read_objects(store, "exams"))
    discs = {row.level: row for row in read_objects(store, "discs") if row.exam_id == exam(0)}
    muscles = {
        (row.level, row.muscle, row.side): row for row in read_objects(store, "muscle_levels") if row.exam_id == exam(0)
    }
    loads = [row for row in read_objects(store, "loads") if row.exam_id == exam(0)]
    (load,) = [
        row.axial_n
        for row in loads
        if (row.task, row.level, row.engine, row.convention) == ("flexion60_5kg", "L5", "batch", "vertebra_mean")
    ]
    first = wide.loc[exam(0)]
    assert first["disc_height_mm_L4_L5"] == discs["L4-L5"].height_mm
    assert first["csa_cm2_multifidus_left_L4_L5"] == muscles["L4-L5", "multifidus", "left"].csa_cm2
    assert first["side_difference_psoas_L3_L4"] == muscles["L3-L4", "psoas", "left"].side_difference
    assert first["load_axial_n_L5_flexion60_5kg"] == load


def test_refused_numbers_are_null_and_flagged_ones_stand_beside_their_count(store: Path) -> None:
    columns = "disc_height_mm_L3_L4, n_discs_refused, n_discs_flagged, load_axial_n_L1_flexion60_5kg"
    wide = frame(store, f"select exam_id, {columns} from exams_wide").set_index("exam_id")
    sure = frame(store, "select exam_id, disc_height_mm_L3_L4 from exams_wide_ok").set_index("exam_id")
    assert pd.isna(wide.loc[exam(4), "disc_height_mm_L3_L4"])
    assert wide.loc[exam(4), "n_discs_refused"] == 1
    assert wide.loc[exam(5), "disc_height_mm_L3_L4"] == 3.0
    assert wide.loc[exam(5), "n_discs_flagged"] == 1
    assert pd.isna(sure.loc[exam(5), "disc_height_mm_L3_L4"])
    assert pd.isna(wide.loc[exam(6), "load_axial_n_L1_flexion60_5kg"])  # its solver did not converge


def test_structures_without_a_name_have_no_level_in_any_view(store: Path) -> None:
    of_exam = f"from {{}} where exam_id = '{exam(7)}'"
    assert not frame(store, "select * " + of_exam.format("levels"))["disc_height_mm"].notna().any()
    sources = frame(store, "select distinct source " + of_exam.format("features"))["source"]
    assert set(sources) <= {"loads", "curvature"}
    assert frame(store, "select level_confidence " + of_exam.format("exams_wide")).isna().all(axis=None)


def test_no_view_holds_a_number_of_a_refused_row(tmp_path: Path) -> None:
    """All rows refused, with their numbers left in: nothing may be left of them."""
    rows = synthetic_rows(6)
    for table in ("vertebrae", "discs", "muscle_levels", "curvature", "loads"):
        rows[table] = [replace(row, status="refused") for row in rows[table]]
    commit(tmp_path, "r1", rows, touched={})
    prefixes = ("vertebra_", "disc_", "csa_", "lean_", "side_", "load_axial", "load_shear", "lordosis", "sacral")
    words = ("status", "reasons")
    for view in ("exams_wide", "exams_wide_ok", "levels"):
        found = frame(tmp_path, f"select * from {view}")
        numbers = [name for name in found if name.startswith(prefixes) and not name.endswith(words)]
        assert len(numbers) > 50
        assert not found[numbers].notna().any(axis=None), view
    assert not frame(tmp_path, "select value from features").notna().any(axis=None)
    assert len(frame(tmp_path, "select * from pairs")) == 0
    assert len(frame(tmp_path, "select * from percentiles")) == 0


def test_a_level_has_its_vertebra_disc_muscles_and_loads_in_one_row(store: Path) -> None:
    rows = frame(store, f"select * from levels where exam_id = '{exam(0)}'").set_index("level")
    assert sorted(rows.index) == ["L1", "L2", "L3", "L4", "L5", "T12"]
    assert list(rows.loc[["L4", "L5"], "disc"]) == ["L4-L5", "L5-S1"]
    assert (
        rows.loc["L4"][["vertebra_status", "disc_status", "muscle_status", "load_status_standing"]].tolist()
        == ["ok"] * 4
    )
    assert (
        rows.loc["L4", ["vertebra_depth_mm", "disc_height_mm", "csa_cm2_psoas_right", "load_axial_n_standing"]]
        .notna()
        .all()
    )
    status = frame(
        store, f"select disc_status, disc_height_mm from levels where exam_id = '{exam(4)}' and level = 'L3'"
    )
    assert status["disc_status"].tolist() == ["refused"]
    assert status["disc_height_mm"].isna().all()


def test_pairs_are_ordered_by_age_and_differ_as_their_exams_do(store: Path) -> None:
    pairs = frame(store, "select * from exam_pairs")
    assert pairs["order_known"].all()
    assert (pairs["later_age_years"] - pairs["earlier_age_years"]).equals(pairs["years_between"])
    assert (pairs["years_between"] > 0).all()
    changes = frame(store, "select * from pairs where feature = 'disc_height_mm' and level = 'L4-L5'")
    heights = {row.exam_id: row.height_mm for row in read_objects(store, "discs") if row.level == "L4-L5"}
    for change in changes.itertuples():
        assert change.difference == heights[change.later_exam_id] - heights[change.earlier_exam_id]


def test_exams_of_equal_age_make_one_pair_without_a_direction(tmp_path: Path) -> None:
    rows = synthetic_rows(2)
    subject = rows["exams"][0].subject_id
    rows["exams"] = [replace(row, subject_id=subject, age_years=61.0) for row in rows["exams"]]
    commit(tmp_path, "r1", rows, touched={})
    (pair,) = query(tmp_path, "select * from exam_pairs").to_pylist()
    assert not pair["order_known"]
    changes = frame(tmp_path, "select * from pairs")
    assert changes["difference"].isna().all()
    assert (changes["absolute_difference"] > 0).any()


def test_percentiles_need_enough_subjects_and_are_those_of_the_ok_rows(tmp_path: Path) -> None:
    rows = synthetic_rows(MIN_SUBJECTS + 15)
    rows["exams"] = [replace(row, sex="F", age_years=45.0) for row in rows["exams"]]
    commit(tmp_path, "r1", rows, touched={})
    where = "where feature = 'disc_height_mm' and level = 'L3-L4'"
    (found,) = query(tmp_path, f"select * from percentiles {where}").to_pylist()
    heights = [row.height_mm for row in rows["discs"] if row.level == "L3-L4" and row.status == "ok"]
    assert (found["n"], found["age_band"], found["sex"]) == (len(heights), "40-49", "F")
    assert found["p50"] == pytest.approx(pd.Series(heights).quantile(0.5))
    assert found["p95"] == pytest.approx(pd.Series(heights).quantile(0.95))
    rows["exams"] = [replace(row, subject_id=rows["exams"][0].subject_id) for row in rows["exams"]]
    commit(tmp_path, "r2", {"exams": rows["exams"]}, touched={})
    (found,) = query(tmp_path, f"select * from percentiles {where}").to_pylist()
    assert (found["n"], found["n_subjects"], found["p50"]) == (len(heights), 1, None)


@pytest.mark.parametrize(
    ("age", "band"), [(8.0, "00-09"), (50.0, "50-59"), (55.0, "50-59"), (59.9, "50-59"), (90.0, "90+"), (None, None)]
)
def test_age_bands_are_decades(age: float | None, band: str | None) -> None:
    sql = f"select {views()['exams_wide'].columns[11].sql} from (select ?::double as age_years)"
    assert views()["exams_wide"].columns[11].name == "age_band"
    assert duckdb.execute(sql, [age]).fetchall() == [(band,)]


def test_exams_that_left_the_archive_are_in_no_wide_view(tmp_path: Path) -> None:
    rows = synthetic_rows(2)
    rows["exams"][0] = replace(rows["exams"][0], status="gone", reason="gone")
    commit(tmp_path, "r1", rows, touched={})
    for view in ("exams_wide", "levels"):
        assert set(frame(tmp_path, f"select exam_id from {view}")["exam_id"]) == {exam(1)}


def test_every_column_of_every_view_is_typed_and_explained() -> None:
    for name, view in views().items():
        assert list(view_types()[name]) == [column.name for column in view.columns]
        text = dictionary_of(name)
        assert all(f"| `{column.name}` |" in text and column.text for column in view.columns)
    with pytest.raises(ConfigurationError, match="no table or view 'disks'; there are files, series"):
        dictionary_of("disks")


def test_schema_prints_one_table_or_view() -> None:
    result = CliRunner().invoke(main, ["schema", "exam_pairs"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("## `exam_pairs`")
    assert "order_known" in result.output
    assert CliRunner().invoke(main, ["schema", "disks"]).exit_code == 2


def test_sql_answers_from_views_and_names_them_in_errors(store: Path) -> None:
    result = CliRunner().invoke(main, ["sql", "select count(*) as n from LEVELS", "--store", str(store)])
    assert result.exit_code == 0, result.output
    with pytest.raises(ConfigurationError, match="Views: features, exams_wide"):
        query(store, "select * from feature")


@pytest.fixture(scope="module")
def exported(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    export_files(store, folder / "csv", "csv", ("discs", "files", "exams_wide"))
    export_files(store, folder / "parquet", "parquet")
    export_duckdb(store, folder / "cohort.duckdb")
    return folder


def test_csv_holds_the_same_rows(store: Path, exported: Path) -> None:
    assert sorted(path.name for path in (exported / "csv").iterdir()) == ["discs.csv", "exams_wide.csv", "files.csv"]
    discs = pd.read_csv(exported / "csv" / "discs.csv")
    here = read_rows(store, "discs").to_pandas()
    keys = ["exam_id", "ordinal"]
    pd.testing.assert_frame_equal(
        discs.sort_values(keys, ignore_index=True), here.sort_values(keys, ignore_index=True), check_dtype=False
    )
    files = pd.read_csv(exported / "csv" / "files.csv")
    assert json.loads(files["position_mm"][0])[:2] == [0.0, 1.0]


def test_parquet_is_one_file_each_with_units_and_descriptions(store: Path, exported: Path) -> None:
    assert {path.stem for path in (exported / "parquet").iterdir()} == {*TABLES, *views()}
    schema = pq.read_schema(exported / "parquet" / "levels.parquet")
    assert b"minimum-area rectangle" in schema.field("disc_height_mm").metadata[b"description"]
    for table in TABLES:
        assert pq.read_table(exported / "parquet" / f"{table}.parquet").num_rows == read_rows(store, table).num_rows


def test_the_duckdb_file_opens_elsewhere_with_tables_views_and_comments(store: Path, exported: Path) -> None:
    code = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=True)\n"
        "print(c.sql('select count(*) from pairs').fetchall()[0][0])\n"
        "where = \"where table_name = 'levels' and column_name = 'disc'\"\n"
        "print(c.sql(f'select comment from duckdb_columns() {where}').fetchall()[0][0])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(exported / "cohort.duckdb")], capture_output=True, text=True, check=True
    )
    n_pairs, comment = out.stdout.splitlines()
    assert int(n_pairs) == len(frame(store, "select * from pairs"))
    assert comment.startswith("disc below it")
    with duckdb.connect(str(exported / "cohort.duckdb"), read_only=True) as connection:
        for name in (*TABLES, *views()):
            ((n,),) = connection.sql(f"select count(*) from {name}").fetchall()
            assert n == frame(store, f"select count(*) as n from {name}")["n"][0]


def test_an_export_never_writes_over_anything(store: Path, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="csv exists already"):
        export_files(store, exported / "csv", "csv")
    with pytest.raises(ConfigurationError, match="no table or view 'disks'"):
        export_files(store, tmp_path / "new", "csv", ("disks",))
    assert not (tmp_path / "new").exists()
    options = ["--store", str(store), "--output", str(tmp_path / "out"), "--table", "runs", "--json"]
    result = CliRunner().invoke(main, ["export", "parquet", *options])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["rows"] == {"runs": 1}


def test_a_snapshot_keeps_the_moment_while_the_store_goes_on(tmp_path: Path) -> None:
    rows = write_synthetic_store(tmp_path, 3)
    with snapshot(tmp_path) as moment:
        keys = [(row.exam_id,) for row in rows["exams"]]
        commit(tmp_path, "r2", {}, touched={"discs": keys, "exams": keys})
        assert read_rows(moment, "discs").num_rows == len(rows["discs"])
        assert read_rows(tmp_path, "discs").num_rows == 0
        assert len(pd.read_parquet(tmp_path / "tables" / "discs")) == 0
    assert not list((tmp_path / "tables").glob(".tmp-*"))


def test_what_does_not_fit_into_memory_goes_to_the_temporary_folder_and_leaves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, spilled = tmp_path / "here", tmp_path / "temporary"
    here.mkdir()
    spilled.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(tempfile, "tempdir", str(spilled))
    with in_memory() as connection:
        connection.execute("SET memory_limit = '60MB'")
        connection.execute("SET threads = 1")
        connection.execute("CREATE TABLE many AS SELECT md5(range::VARCHAR) AS text FROM range(2_000_000)")
        assert list(spilled.iterdir()) != []
        assert connection.sql("SELECT count(*) FROM many").fetchall() == [(2_000_000,)]
    assert [*here.iterdir(), *spilled.iterdir()] == []
