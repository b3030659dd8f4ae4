"""`cohort agreement` on a store with exams that two persons and the networks have read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from reader_studies import EXAMS, annotated_store, stacks

from cohort.agreement.rows import AGREEMENT_TABLES
from cohort.reasons import REASONS
from cohort.rows import LedgerRow
from cohort.store.labels import write_labels
from cohort.store.layout import candidate_path, label_store_path
from cohort.tables.buckets import read_objects
from cohort.tables.commit import commit
from pipelines.agreement import Agreement, agree, read_test_part, write_agreement
from pipelines.cli import main
from pipelines.commands.agreement import _number

LOADS = ("standing", "flexion60_5kg")
CONFIG = '[load]\ntasks = ["standing", "flexion60_5kg"]\n'


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return annotated_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "cohort.toml"
    path.write_text(CONFIG)
    return path


def run(store: Path, output: Path, *options: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["agreement", str(store), "-o", str(output), "--processes", "1", *options])
    assert result.exit_code == code, result.output
    return result.output if code else result.stdout


def compared(
    store: Path,
    output: Path,
    config: Path,
    *,
    first: str | None = None,
    second: str | None = None,
    test_part: Mapping[str, frozenset[str]] | None = None,
) -> Agreement:
    """As the command, without its report, which takes longer than all the rest."""
    found = agree(store, first=first, second=second, config=config, test_part=test_part, processes=1, report=print)
    write_agreement(output, found.rows)
    return found


@pytest.fixture(scope="module")
def against_networks(store: Path, config: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder and JSON of anna against the networks, two exams at a time."""
    folder = tmp_path_factory.mktemp("output") / "agreement"
    options = ("--first", "anna", "--second", "automatic", "--config", str(config), "--processes", "2", "--json")
    return folder, run(store, folder, *options)


def rows_of(folder: Path, table: str) -> list[dict[str, Any]]:
    return pq.read_table(folder / f"{table}.parquet").to_pylist()


def test_every_table_is_written_twice_with_its_columns(against_networks: tuple[Path, str]) -> None:
    folder, printed = against_networks
    found = json.loads(printed)
    assert found["exams"] == len(EXAMS)
    for name in AGREEMENT_TABLES:
        table = pq.read_table(folder / f"{name}.parquet")
        assert table.num_rows == found["rows"][name] > 0
        assert pa_csv.read_csv(folder / f"{name}.csv").column_names == table.column_names
        assert all(field.metadata[b"description"] for field in table.schema)
    assert found["agreement"][0]["first_reader"] == "anna"
    assert "NaN" not in printed


def test_the_report_lies_beside_the_tables(against_networks: tuple[Path, str]) -> None:
    folder, printed = against_networks
    page = Path(json.loads(printed)["page"])
    assert page == folder / "report.html"
    assert "automatic against anna" in page.read_text()
    assert f"exam {EXAMS[0]}" in (folder / "figures" / "figure-3-examples-anna-automatic.svg").read_text()
    assert {path.suffix for path in (folder / "tables").iterdir()} == {".csv", ".parquet"}


def test_every_quantity_is_paired_and_every_gap_has_a_reason(against_networks: tuple[Path, str]) -> None:
    pairs = rows_of(against_networks[0], "pairs")
    assert {"disc_height_mm", "csa_cm2", "lordosis_l1_s1_deg", "compression_n"} <= {row["quantity"] for row in pairs}
    for row in pairs:
        assert (row["reason"] is None) <= (None not in (row["first"], row["second"]))
        assert all(code in REASONS for code in (row["reason"] or "not_measured").split("+"))
    loads = [row for row in pairs if row["quantity"] == "compression_n"]
    known = [row for row in loads if row["exam_id"] == EXAMS[0]]
    assert {row["task"] for row in known} == set(LOADS)
    assert all(100 < row["first"] < 5000 for row in known)
    unknown = [row for row in loads if row["exam_id"] == EXAMS[1]]
    assert [(row["task"], row["reason"]) for row in unknown] == [(task, "no_demographics") for task in LOADS]


def test_statistics_that_two_exams_cannot_give_are_missing_for_a_reason(against_networks: tuple[Path, str]) -> None:
    rows = rows_of(against_networks[0], "agreement")
    lordosis = next(row for row in rows if row["quantity"] == "lordosis_l1_s1_deg")
    assert (lordosis["n"], lordosis["r"], lordosis["icc"]) == (2, None, None)
    assert lordosis["reason"] == "too_few_pairs+too_few_persons"
    heights = next(row for row in rows if row["quantity"] == "disc_height_mm" and row["level"] is None)
    assert heights["n"] > 10
    assert heights["n_persons"] == 2
    assert heights["mae_low"] < heights["mae"] < heights["mae_high"]
    assert heights["mae_low_clustered"] is None


def test_readers_pair_with_each_other_and_people_come_before_networks(
    store: Path, config: Path, tmp_path: Path
) -> None:
    compared(store, tmp_path, config)
    pairs = {(row["first_reader"], row["second_reader"]) for row in rows_of(tmp_path, "overlaps")}
    assert pairs == {("anna", "ben"), ("anna", "automatic"), ("ben", "automatic")}
    equal = [row for row in rows_of(tmp_path, "overlap_summary") if row["second_reader"] == "ben"]
    assert {row["mean"] for row in equal} == {1.0}  # both drew the true masks


def test_named_readers_are_compared_in_their_order_and_printed(store: Path, tmp_path: Path) -> None:
    config = tmp_path / "cohort.toml"
    config.write_text('[load]\ntasks = ["standing"]\n')
    printed = run(store, tmp_path, "--config", str(config), "--first", "automatic", "--second", "ben")
    assert {(row["first_reader"], row["second_reader"]) for row in rows_of(tmp_path, "pairs")} == {("automatic", "ben")}
    assert "automatic - ben" in printed
    assert "nan" not in printed.lower()
    assert f"Report: {tmp_path / 'report.html'}" in printed


def with_candidate(store: Path, copy: Path) -> Path:
    """A copy of the store whose candidate has the true masks of the first exam."""
    shutil.copytree(store, copy)
    fingerprint = "1" * 64
    path = label_store_path(copy, EXAMS[0], fingerprint)
    write_labels(path, stacks(0), {})
    old: LedgerRow = next(row for row in read_objects(copy, "ledger") if row.exam_id == EXAMS[0])
    new = replace(old, fingerprint=fingerprint, path=str(path.relative_to(copy)))
    commit(candidate_path(copy), "20260202T000000-agree1", {"ledger": [new]}, touched={})
    return copy


def test_two_versions_of_networks_are_compared_without_any_annotation(
    store: Path, config: Path, tmp_path: Path
) -> None:
    changed = with_candidate(store, tmp_path / "changed")
    shutil.rmtree(changed / "annotations")
    output = tmp_path / "versions"
    compared(changed, output, config, first="automatic", second="candidate")
    whole = [row for row in rows_of(output, "overlaps") if row["slice_position"] is None and row["structure"] == "all"]
    assert {row["kind"] for row in whole} == {"vertebral_body", "disc", "muscle"}
    assert all(0.6 < row["dice"] < 1.0 for row in whole)


SPLITS = "split,seed,network,part,exam_id,subject_id\n" + "".join(
    f"standard,0,{network},{part},{exam},person of {exam}\n"
    for network, exam, part in (
        ("disc", EXAMS[0], "test"), ("disc", EXAMS[1], "training"), ("muscle", EXAMS[1], "test"),
        ("vertebral_body", EXAMS[0], "validation"),
    )
)  # fmt: skip


def test_a_network_is_judged_on_exams_of_its_test_part_alone(store: Path, config: Path, tmp_path: Path) -> None:
    splits = tmp_path / "splits.csv"
    splits.write_text(SPLITS)
    part = read_test_part(splits, "standard")
    compared(store, tmp_path / "out", config, first="anna", second="automatic", test_part=part)
    found = {(row["kind"], row["exam_id"]) for row in rows_of(tmp_path / "out", "overlaps")}
    assert found == {("disc", EXAMS[0]), ("muscle", EXAMS[1])}
    quantities = {(row["quantity"], row["exam_id"]) for row in rows_of(tmp_path / "out", "pairs")}
    assert quantities == {
        ("disc_height_mm", EXAMS[0]), ("disc_centroid_distance_mm", EXAMS[0]), ("csa_cm2", EXAMS[1]),
        ("muscle_centroid_distance_mm", EXAMS[1]),
    }  # fmt: skip
    options = ("--second", "automatic", "--split", str(splits), "--kind", "shared")
    assert "no test part" in run(store, tmp_path / "none", *options, code=2)


def test_a_table_without_the_columns_of_splits_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "splits.csv"
    path.write_text("exam,part\na,test\n")
    with pytest.raises(ValueError, match="no column 'split'"):
        read_test_part(path, "standard")


def test_an_exam_that_cannot_be_read_is_named_and_the_others_are_compared(
    store: Path, config: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(store, damaged)
    shutil.rmtree(next((damaged / "exams").glob(f"*/{EXAMS[1]}/labels-*.zarr")))
    found = compared(damaged, tmp_path / "out", config, second="automatic")
    assert (found.n_exams, found.problems) == (1, {EXAMS[1]: "no labels store here"})


def test_where_no_exam_can_be_read_there_is_no_report_and_none_stays(store: Path, config: Path, tmp_path: Path) -> None:
    damaged, output = tmp_path / "damaged", tmp_path / "out"
    shutil.copytree(store, damaged)
    for path in (damaged / "exams").glob("*/*/labels-*.zarr"):
        shutil.rmtree(path)
    output.mkdir()
    (output / "report.html").write_text("of an earlier comparison")
    printed = json.loads(run(damaged, output, "--config", str(config), "--second", "automatic", "--json"))
    assert (printed["page"], printed["exams"], len(printed["not_compared"])) == (None, 0, 2)
    assert not (output / "report.html").exists()


def test_an_unexpected_error_is_that_of_one_exam(store: Path, config: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(store, broken)
    next((broken / "annotations").glob(f"*/{EXAMS[1]}/anna.zarr/sagittal/0/disc/c*")).write_bytes(b"no Blosc frame")
    found = compared(broken, tmp_path / "out", config, first="anna", second="automatic")
    assert found.n_exams == 1
    assert found.problems[EXAMS[1]].startswith("internal_error")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--first", "anna", "--second", "anna"), "anna-2"),
        (("--first", "carl",), "no exam has been read by carl"),
        (("--first", "anna", "--second", "candidate"), "no tables"),
    ],
)  # fmt: skip
def test_readers_that_there_are_not_are_an_error(
    store: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    assert message in run(store, tmp_path, *options, code=2)


def test_numbers_are_printed_with_the_digits_that_they_have() -> None:
    assert [_number(value) for value in (None, 0.98765, 512.345)] == ["-", "0.988", "512.3"]
