"""The report of a change, on disk and at the command line."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from changed_stores import AFTER, BEFORE, EXAMS, NEW, NEWCOMER, changed_store, renamed, subject, want, write
from click.testing import CliRunner

from cohort.tables.buckets import create_tables, read_objects
from pipelines.candidate import has_candidate, open_candidate
from pipelines.change import ChangeReport, compare_change
from pipelines.change_plots import change_figures
from pipelines.change_report import change_table, verdict_text, write_change_report
from pipelines.cli import main
from pipelines.config import GateConfig
from pipelines.lock import only_run

GATE = GateConfig(least_persons=5)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A change with an exam lost, one renamed, one new, and noise on disc heights."""
    after = replace(renamed(AFTER, EXAMS[3]), noise_mm=1.5, refused=(EXAMS[5],))
    return changed_store(tmp_path_factory.mktemp("store"), after, new=[NEWCOMER])


@pytest.fixture(scope="module")
def report(store: Path) -> ChangeReport:
    return compare_change(store)


@pytest.fixture(scope="module")
def folder(report: ChangeReport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    assert write_change_report(report, GATE, folder) == folder / "change.html"
    return folder


def test_the_page_begins_with_the_verdict_and_the_limits_that_are_exceeded(folder: Path) -> None:
    text = re.sub(r"<[^>]+>", " ", (folder / "change.html").read_text().split("</style>")[1])
    assert re.search(r"^\s*Old against new numbers\s+Held: \d+ limits are exceeded\.\s+limit that is exceeded", text)
    for part in ("disc height: width of the limits of agreement", "no_vertebrae", "L1-L2 T12-L1", "+1.5 %"):
        assert part in re.sub(r"\s+", " ", text)


def test_the_page_is_whole_and_needs_nothing_else(folder: Path) -> None:
    page = (folder / "change.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert page.count("<table>") == page.count("</table>")
    assert page.count("data:image/png;base64,iVBOR") == 2  # heights of discs and axial loads; nothing else changed


def test_nobody_is_named_but_by_pseudonym_and_no_path_is_told(folder: Path, store: Path) -> None:
    for path in folder.iterdir():
        content = path.read_bytes()
        assert str(store).encode() not in content
        assert subject(EXAMS[0]).encode() not in content


def test_every_number_is_in_the_table_and_in_json(folder: Path, report: ChangeReport) -> None:
    frame = pd.read_parquet(folder / "change.parquet")
    assert len(frame) == len(report.agreements)
    heights = frame[(frame.feature == "height_mm") & (frame.level == "all") & (frame.vendor == "all")].iloc[0]
    limits = next(one.limits for one in report.overall if one.feature.column == "height_mm")
    assert limits is not None
    assert limits.lower is not None
    assert (heights.bias, heights.lower_limit_low, heights.n) == (limits.bias.value, limits.lower.low, limits.n)
    content = json.loads((folder / "change.json").read_text())
    assert content["accepted"] is False
    assert content["exams"]["n_new"] == 1
    assert len(content["agreements"]) == len(frame)
    assert content["gate"]["length_bias_mm"] == 0.5


def test_a_report_of_nothing_has_the_same_columns(report: ChangeReport) -> None:
    empty = change_table(replace(report, agreements=()))
    assert empty.num_rows == 0
    assert empty.schema == change_table(report).schema


def test_figures_are_of_what_changed(report: ChangeReport) -> None:
    assert [feature.column for feature, _ in change_figures(report)] == ["height_mm", "axial_n"]


def test_verdicts_in_words(report: ChangeReport) -> None:
    generous = replace(
        GATE, length_bias_mm=9.0, length_width_mm=99.0, lost_exams=1.0, renamed_exams=1.0, lost_numbers=1.0
    )
    assert verdict_text(report, generous) == "Accepted: no limit is exceeded."
    assert verdict_text(report, replace(generous, lost_exams=0.0)) == "Held: 1 limit is exceeded."
    assert verdict_text(report, replace(generous, accept="never")).startswith("Held until somebody accepts it")
    waiting = replace(report, exams=replace(report.exams, n_waiting=7))
    assert verdict_text(waiting, generous).startswith("Not complete, exams still to be redone: 7; ")


def test_a_held_change_is_shown_and_accepted_at_the_command_line(tmp_path: Path) -> None:
    store = changed_store(tmp_path / "store")
    config = tmp_path / "cohort.toml"
    config.write_text("[gate]\nload_bias_percent = 1\n")
    shown = CliRunner().invoke(main, ["changes", "show", "--store", str(store), "--config", str(config)])
    assert shown.exit_code == 0
    assert "Held: 2 limits are exceeded." in shown.output
    assert (store / "candidate" / "report" / "change.html").exists()
    as_json = CliRunner().invoke(main, ["changes", "show", "--store", str(store), "--json"])
    assert json.loads(as_json.output)["accepted"] is True
    accepted = CliRunner().invoke(main, ["changes", "accept", "--store", str(store)])
    assert accepted.output == "Accepted: numbers of 12 exams are current.\n"
    assert pd.read_parquet(store / "tables" / "discs")["height_mm"].min() == pytest.approx(8.3)
    assert [row.change for row in read_objects(store, "runs") if row.run_id == NEW] == ["accepted"]
    again = CliRunner().invoke(main, ["changes", "accept", "--store", str(store)])
    assert again.exit_code == 2
    assert "no numbers wait" in again.output


def test_a_held_change_is_dropped_at_the_command_line(tmp_path: Path) -> None:
    store = changed_store(tmp_path)
    dropped = CliRunner().invoke(main, ["changes", "discard", "--store", str(store)])
    assert dropped.exit_code == 0
    assert not has_candidate(store)
    assert [row.change for row in read_objects(store, "runs") if row.run_id == NEW] == ["discarded"]


def test_a_change_that_is_not_complete_cannot_be_accepted_by_hand(tmp_path: Path) -> None:
    write(tmp_path, EXAMS, BEFORE)
    want(tmp_path, EXAMS, AFTER)
    write(open_candidate(tmp_path, "change", note=str), EXAMS[:11], AFTER)
    refused = CliRunner().invoke(main, ["changes", "accept", "--store", str(tmp_path)])
    assert refused.exit_code == 2
    assert "still to be redone: 1" in refused.output
    assert has_candidate(tmp_path)


def test_commands_wait_for_no_run_that_is_going_on(tmp_path: Path) -> None:
    create_tables(tmp_path)
    with only_run(tmp_path):
        for command in ("show", "accept", "discard"):
            found = CliRunner().invoke(main, ["changes", command, "--store", str(tmp_path)])
            assert found.exit_code == 2
            assert "is working in folder" in found.output
