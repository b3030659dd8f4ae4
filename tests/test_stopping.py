"""When a run stops: at a time of the day, and at SIGTERM."""

from __future__ import annotations

import os
import signal
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.errors import ConfigurationError
from pipelines.stopping import seconds_until, stopping

NOW = datetime(2026, 3, 3, 22, 30).astimezone()


@pytest.mark.parametrize(("clock", "hours"), [("23:00", 0.5), ("06:00", 7.5), ("22:30", 24.0), ("22:29", 24 - 1 / 60)])
def test_the_next_time_that_clocks_show(clock: str, hours: float) -> None:
    assert seconds_until(clock, NOW) == pytest.approx(3600 * hours)


@given(st.times(), st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1)))
def test_it_is_always_within_a_day_and_an_hour(clock: object, now: datetime) -> None:
    assert 0 < seconds_until(f"{clock:%H:%M}", now.astimezone()) <= 25 * 3600


@pytest.mark.parametrize("clock", ["6", "25:00", "6 am", "", "06:00:00"])
def test_other_texts_are_refused(clock: str) -> None:
    with pytest.raises(ConfigurationError, match="HH:MM"):
        seconds_until(clock, NOW)


def test_the_time_is_over_and_said_once() -> None:
    notes: list[str] = []
    with stopping(0.0, notes.append) as stop:
        assert stop()
        assert stop()
    assert len(notes) == 1
    with stopping(3600.0, notes.append) as stop:
        assert not stop()
    with stopping(None, notes.append) as stop:
        assert not stop()


def test_sigterm_asks_once_and_ends_the_second_time() -> None:
    before = signal.getsignal(signal.SIGTERM)
    notes: list[str] = []
    with stopping(None, notes.append) as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is before
    assert "asked to stop" in notes[0]
