"""The report of a run, made from what the run left in the store."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner

from cohort.rows import ExamRow, RunRow
from cohort.tables.commit import commit
from pipelines.cli import main
from pipelines.commands.archive import print_summary
from pipelines.outcome import Outcome
from pipelines.report import gather, write_report
from pipelines.run_facts import record_software
from pipelines.run_log import RunLog, run_folder
from pipelines.summary import Summary

NAME = "Geheimrat"
STOPPED, IDLE, KILLED = "20260101T220000-aaaaaa", "20260102T220000-bbbbbb", "20260103T220000-cccccc"


def run_row(run_id: str, **changes: object) -> RunRow:
    values: dict[str, object] = {
        "run_id": run_id,
        "command": "nightly",
        "started_at": "2026-01-01T22:00:00+00:00",
        "seconds": 3725.0,
        "version": "0.1.0",
        "device": "cpu",
        "n_files": 1200,
        "n_files_read": 1200,
        "n_exams": 12,
        "n_ok": 8,
        "n_flagged": 1,
        "n_refused": 1,
        "n_failed": 1,
        "n_gone": 0,
        "n_pending": 1,
        "stages_run": 43,
        "ended": "stopped",
        "change": "held",
        "status": "ok",
        "opensim_checked": 2,
        "opensim_max_difference": 0.00042,
    }
    return RunRow(**{**values, **changes})  # type: ignore[arg-type]


def outcomes() -> list[Outcome]:
    """Ten exams in two stages on two workers; one fails, one is refused."""
    found = []
    for k in range(10):
        at = f"2026-01-01T22:{k:02d}:30+00:00"
        common = {"exam_id": f"exam{'abcdefghij'[k]}", "fingerprint": 16 * "0123", "finished_at": at}
        found.append(
            Outcome(stage="convert", status="ok", seconds=1.0 + k, worker="cpu-0", rss_mib=300.0 + k, **common)
        )
        ends = {8: ("refused", "truncated", None), 9: ("failed", "internal_error", "ValueError")}
        status, reason, error = ends.get(k, ("ok", None, None))
        found.append(Outcome(stage="load", status=status, reason=reason, error_type=error, seconds=0.5, worker="cpu-1",
                             path=f"exams/{NAME}", **common))  # fmt: skip
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs: one stopped by its time, one with nothing to do, one that was killed while it wrote a line."""
    store = tmp_path_factory.mktemp("report") / "store"
    exams = [
        ExamRow(exam_id=f"exam{k}", subject_id="s", status="refused" if k == "b" else "ok", reason=None) for k in "abc"
    ]
    idle = run_row(IDLE, ended="complete", stages_run=0, n_pending=0, change=None, opensim_max_difference=None)
    commit(store, STOPPED, {"exams": exams, "runs": [run_row(STOPPED), idle]}, touched={})
    for run_id in (STOPPED, IDLE, KILLED):
        leave_files(store, run_id)
    with (run_folder(store, KILLED) / "outcomes.jsonl").open("a") as file:
        file.write('{"exam_id": "cut", "stage": "lo')
    return store


def leave_files(store: Path, run_id: str) -> None:
    networks = {"disc": (f"/home/{NAME}/disc.json", 64 * "a"), "muscle": ("muscle", 64 * "b")}
    record_software(store, run_id, command="nightly", device="cpu", networks=networks, base_models={"F": 64 * "c"})
    folder = run_folder(store, run_id)
    links = {"metrics": "http://127.0.0.1:8787/metrics"}
    cluster = {"workers": 2, "hosts": 1, "resources": {"CPU": 1, "GPU": 1}, "memory_gib": 4.0, "links": links}
    (folder / "cluster.json").write_text(json.dumps(cluster))
    (folder / "config.toml").write_text(f'[privacy]\nkey_file = "/data/{NAME}/pseudonym.key"\n[cluster]\nworkers = 2\n')
    (folder / "summary.json").write_text(json.dumps({"unusable_files": {"not_dicom": 17}}))
    with RunLog(store, run_id) as log:
        for outcome in outcomes() if run_id != IDLE else []:
            log.outcome(outcome)


def page_of(store: Path, run_id: str) -> str:
    return write_report(store, run_id).read_text()


def test_the_page_tells_what_ran_how_it_ended_and_what_failed(store: Path) -> None:
    page = page_of(store, STOPPED)
    for text in (
        "Stopped before its end",
        "Left for the next run: 1 exam",
        "held back",
        "2 exams solved again",
        "0.04%",
        "disc.json, sha256 aaaaaaaaaaaa",
        "muscle, sha256 bbbbbbbbbbbb",
        "base model: F",
        f"python {platform.python_version()}",
        f"dask {version('dask')}",
        "ValueError",
        "internal_error",
        "not_dicom",
        "took 1:02:05",
        "cpu-0",
        "309",
        "outcomes.jsonl",
        "2 on 1 host(s): 1 CPU, 1 GPU; 4.0 GiB",
        '<a href="http://127.0.0.1:8787/metrics">',
    ):
        assert text in page, text


def test_numbers_of_stages_and_workers_are_those_of_the_lines(store: Path) -> None:
    found = gather(store, STOPPED)
    convert, load = found.stages
    assert (convert.stage, convert.exams, convert.ok, convert.median_s) == ("convert", 10, 10, 5.5)
    assert convert.p95_s == pytest.approx(9.55)
    assert convert.slowest[0] == ("examj", 10.0)
    assert (load.exams, load.ok, load.refused, load.failed) == (10, 8, 1, 1)
    first, second = found.workers
    span_s = 9 * 60 + 1.0  # from the start of the first exam, which took a second, to the end of the last
    assert (first.worker, first.tasks, first.busy_s, first.peak_mib) == ("cpu-0", 10, 55.0, 309.0)
    assert first.busy_share == pytest.approx(55.0 / span_s)
    assert (second.peak_mib, second.busy_s) == (None, 5.0)
    assert [(one.reason, one.error_type, one.examples) for one in found.stopped] == [
        ("internal_error", "ValueError", ["examj"]),
        ("truncated", None, ["exami"]),
    ]
    assert found.throughput is not None
    assert sum(found.throughput.counts["convert"]) == 10


def test_a_run_with_nothing_to_do_has_a_short_page(store: Path) -> None:
    page = page_of(store, IDLE)
    assert "Nothing to do" in page
    assert "Throughput" not in page
    assert len(page) < 10_000


def test_a_killed_run_has_a_page_without_its_last_half_line(store: Path) -> None:
    found = gather(store, KILLED)
    assert found.run is None
    assert sum(work.exams for work in found.stages) == 20
    assert "left no record of its end" in page_of(store, KILLED)


def test_the_page_holds_no_name_and_loads_nothing(store: Path) -> None:
    for run_id in (STOPPED, IDLE, KILLED):
        page = page_of(store, run_id)
        assert NAME not in page
        assert "pseudonym.key" in page
        for loading in ("<script", "<link", "src=", "@import", "url("):
            assert loading not in page.replace("url(#", ""), loading  # clip paths of the plots point into the page


def test_the_change_report_is_linked_where_there_is_one(store: Path) -> None:
    change = run_folder(store, IDLE) / "change"
    assert "change/change.html" not in page_of(store, IDLE)
    change.mkdir()
    (change / "change.html").write_text("")
    assert '<a href="change/change.html">' in page_of(store, IDLE)


def test_the_command_takes_the_latest_run_and_names_it_for_a_wrong_one(store: Path) -> None:
    result = CliRunner().invoke(main, ["report", "--store", str(store)])
    assert result.exit_code == 0, result.output
    assert Path(result.output.strip()) == run_folder(store, KILLED) / "report.html"
    result = CliRunner().invoke(main, ["report", "../runs", "--store", str(store)])
    assert result.exit_code == 2
    assert KILLED in result.output


def test_a_run_that_was_stopped_while_it_read_files_does_not_say_that_all_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = run_row(STOPPED, n_files_read=0, stages_run=0, n_pending=0, change=None)
    commit(tmp_path, STOPPED, {"runs": [row]}, touched={})
    leave_files(tmp_path, STOPPED)
    assert "Left for the next run: files that were not read" in page_of(tmp_path, STOPPED)
    print_summary(Summary(row, {}, {}, tmp_path))
    said = capsys.readouterr().out
    assert "Stopped before its end" in said
    assert "Nothing to do" not in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_pending": 3, "ended": "stopped"}, ("3 planned exams are left for the next run", "wait beside the tables")),
        ({"change": "held", "reason": "change_held"}, ("The run is flagged", "change.html", "cohort changes accept")),
        ({"change": "accepted"}, ("The new numbers are current now", "change.html")),
    ],
)
def test_a_run_says_at_its_end_what_became_of_new_numbers(
    changes: dict[str, object], said: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = run_row(STOPPED, **{"n_pending": 0, **changes})
    summary = Summary(run, {}, {}, tmp_path)
    print_summary(summary)
    printed = capsys.readouterr().out
    for text in (*said, str(tmp_path / "runs" / STOPPED / "report.html")):
        assert text in printed, text
    assert len(summary.to_json().splitlines()) == 1
