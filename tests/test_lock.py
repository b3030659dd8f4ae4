"""The lock of a store: one run at a time, on one machine and between machines, and what a dead run leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from cohort.errors import ConfigurationError
from pipelines import lock
from pipelines.lock import Holder, lock_holder, only_run

ELSEWHERE = Holder("nightly", "node-17.example", 4711, "2026-03-01T22:00:00+00:00", "2026-03-01T22:10:00+00:00", 7)
HOLD = """
import sys, time
from pathlib import Path
from pipelines.lock import only_run
with only_run(Path(sys.argv[1]), "nightly"):
    print("held", flush=True)
    time.sleep(600)
"""


def _leave(folder: Path, holder: Holder) -> None:
    (folder / ".lock.json").write_text(json.dumps(asdict(holder)))


@pytest.fixture
def notes() -> list[str]:
    return []


def test_the_holder_can_be_read_while_it_works_and_is_gone_afterwards(tmp_path: Path) -> None:
    with only_run(tmp_path, "nightly"):
        holder = lock_holder(tmp_path)
        assert holder is not None
        assert (holder.command, holder.pid, holder.beats) == ("nightly", os.getpid(), 0)
    assert lock_holder(tmp_path) is None


def test_the_heart_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_EVERY_S", 0.01)
    with only_run(tmp_path):
        deadline = time.monotonic() + 60
        while (holder := lock_holder(tmp_path)) is None or holder.beats < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_two_runs_at_once_are_one_too_many_and_a_dead_one_is_taken_over(tmp_path: Path, notes: list[str]) -> None:
    root = Path(__file__).parents[1]
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], cwd=root, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    with (
        pytest.raises(ConfigurationError, match=rf"nightly on .* \(process {child.pid}, .* is working"),
        only_run(tmp_path),
    ):
        pass
    child.send_signal(signal.SIGKILL)
    child.communicate()
    with only_run(tmp_path, note=notes.append):
        pass
    (note,) = notes
    assert str(child.pid) in note
    assert "takes over" in note


def test_a_beating_heart_on_another_machine_counts_whatever_the_clocks_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notes: list[str]
) -> None:
    monkeypatch.setattr(lock, "WATCH_S", 2.0)
    alive = threading.Event()

    def beat() -> None:
        beats = 0
        while not alive.wait(0.05):
            beats += 1
            _leave(tmp_path, replace(ELSEWHERE, heartbeat_at="1970-01-01T00:00:00+00:00", beats=beats))

    _leave(tmp_path, ELSEWHERE)
    heart = threading.Thread(target=beat)
    heart.start()
    try:
        with pytest.raises(ConfigurationError, match=r"node-17\.example"), only_run(tmp_path, note=notes.append):
            pass
    finally:
        alive.set()
        heart.join()


def test_a_heart_on_another_machine_that_does_not_beat_is_dead_though_its_clock_is_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notes: list[str]
) -> None:
    monkeypatch.setattr(lock, "WATCH_S", 0.2)
    _leave(tmp_path, replace(ELSEWHERE, heartbeat_at="2999-01-01T00:00:00+00:00"))
    with only_run(tmp_path, note=notes.append):
        pass
    assert "watching" in notes[0]
    assert "takes over" in notes[1]


@pytest.mark.parametrize("left", ["", "{", "[]", '{"host": 1}'])
def test_a_damaged_lock_file_stops_nobody(tmp_path: Path, left: str) -> None:
    (tmp_path / ".lock.json").write_text(left)
    with only_run(tmp_path):
        pass
