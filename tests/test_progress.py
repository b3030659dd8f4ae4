"""Progress on a terminal and in a log."""

from __future__ import annotations

import io

from rich.console import Console

from pipelines.outcome import Outcome, Status
from pipelines.progress import Progress


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
    assert lines[1].startswith("convert 2/2 (1 ok, 1 refused); load 1/2 (1 ok); ")
    assert lines[1].endswith("exams/min")
    assert len(lines) == 2


def test_bars_on_a_terminal() -> None:
    text = shown(terminal=True)
    assert "2/2" in text
    assert "1 refused" in text


def test_speed_counts_exams_that_came_to_their_end() -> None:
    with Progress(quiet=True) as progress:
        progress.plan({"convert": 3})
        assert progress.exams_per_minute() == 0.0
        progress.outcome(outcome("convert"))
        assert progress.exams_per_minute() == 0.0
        progress.outcome(outcome("convert", "failed"))
        assert progress.exams_per_minute() > 0.0
