"""Progress on a terminal and in a log."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from pipelines.outcome import Outcome, Status
from pipelines.progress import RECENT_S, Progress, StageProgress


def outcome(stage: str, status: Status = "ok") -> Outcome:
    return Outcome("e1", stage, "f", status, 0.1)


def shown(*, terminal: bool) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=120, color_system=None)
    with Progress(console=console) as progress:
        progress.note("device cpu [not markup]")
        progress.plan({"convert": 2, "load": 2})
        progress.outcome(outcome("convert"))
        progress.outcome(outcome("convert", "refused"))
        progress.outcome(outcome("load"))
    return stream.getvalue()


def test_plain_lines_without_a_terminal() -> None:
    lines = shown(terminal=False).splitlines()
    assert lines[0] == "device cpu [not markup]"
    assert lines[1].startswith("convert 2/2 (1 ok, 1 refused); load 1/1 (1 ok); ")
    assert lines[1].endswith("exams/min")
    assert lines[2].startswith("took 0:00:0")
    assert lines[2].endswith("; mean time of an exam: convert 0.1 s, load 0.1 s")
    assert len(lines) == 3


def test_bars_on_a_terminal() -> None:
    text = shown(terminal=True)
    assert "2/2" in text
    assert "1 refused" in text


def test_a_narrow_terminal_keeps_its_columns() -> None:
    stream = io.StringIO()
    with Progress(console=Console(file=stream, force_terminal=True, width=80, color_system=None)) as progress:
        progress.plan({"convert": 100_000, "load": 100_000})
        for status in ("ok", "flagged", "refused", "failed"):
            progress.outcome(outcome("convert", status))
    assert "4/100000" in stream.getvalue()
    assert "0/99998" in stream.getvalue()  # two exams never come to the loads
    assert "…" not in stream.getvalue()


def test_time_to_go_waits_for_a_few_outcomes_of_every_stage_with_work_left() -> None:
    with Progress(quiet=True) as progress:
        progress.plan({"convert": 40, "load": 40})
        for _ in range(10):
            progress.outcome(outcome("convert"))
        assert progress.seconds_to_go() is None
        assert "to go" not in progress.line()
        for _ in range(10):
            progress.outcome(outcome("load"))
        assert progress.seconds_to_go() == pytest.approx(3 * _since(progress, 10), rel=0.5)


def _since(progress: Progress, n_ended: int) -> float:
    """Seconds since the plan, from the speed that the progress says itself."""
    return 60.0 * n_ended / progress.exams_per_minute()


def test_speed_is_that_of_recent_minutes_and_time_to_go_counts_what_is_left() -> None:
    stage = StageProgress()
    stage.planned, stage.spared = 100, 5
    for second in range(20):
        stage.add(outcome("convert"), float(second))
    assert stage.per_second(20.0, started=0.0) == pytest.approx(1.0)
    assert stage.seconds_to_go(20.0, started=0.0) == pytest.approx(75.0)
    for second in range(10):
        stage.add(outcome("convert"), 1000.0 + second)
    assert stage.per_second(1010.0, started=0.0) == pytest.approx(10 / RECENT_S)
    assert stage.seconds_to_go(5000.0, started=0.0) is None  # nothing came lately: nobody knows


def test_a_plan_may_grow() -> None:
    with Progress(quiet=True) as progress:
        progress.plan({"convert": 2})
        progress.outcome(outcome("convert"))
        progress.plan({"convert": 10, "load": 10})
        assert progress.line().startswith("convert 1/10 (1 ok); load 0/10; ")


def test_notes_and_lines_are_kept_until_the_end() -> None:
    kept: list[str] = []
    with Progress(quiet=True) as progress:
        progress.note("before")
        progress.keep_notes(kept.append)
        progress.plan({"load": 1})
        progress.note("device cpu")
        progress.outcome(outcome("load"))
    progress.note("after")
    assert kept[0] == "device cpu"
    assert kept[1].startswith("took ")
    assert len(kept) == 2


def test_speed_counts_exams_that_came_to_their_end() -> None:
    with Progress(quiet=True) as progress:
        progress.plan({"convert": 3})
        assert progress.exams_per_minute() == 0.0
        progress.outcome(outcome("convert"))
        assert progress.exams_per_minute() == 0.0
        progress.outcome(outcome("convert", "failed"))
        assert progress.exams_per_minute() > 0.0
