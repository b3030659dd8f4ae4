"""When commits are due, on a clock that is set by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pipelines.commit_pace import COMMIT_SHARE, CommitPace


class Clock:
    """Stands still until it is moved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("pipelines.commit_pace.time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def committed(pace: CommitPace, clock: Clock, seconds: float) -> None:
    with pace.commit():
        clock.now += seconds


def test_quick_commits_are_due_at_the_interval(clock: Clock) -> None:
    pace = CommitPace(15.0)
    assert not pace.is_due
    clock.now += 15.1
    assert pace.is_due
    committed(pace, clock, 0.1)
    assert not pace.is_due
    clock.now += 15.1
    assert pace.is_due


def test_slow_commits_take_no_more_than_their_share_of_the_time(clock: Clock) -> None:
    pace = CommitPace(15.0)
    committed(pace, clock, 30.0)
    clock.now += 0.99 * 30.0 / COMMIT_SHARE
    assert not pace.is_due
    clock.now += 0.02 * 30.0 / COMMIT_SHARE
    assert pace.is_due


def test_a_commit_that_failed_is_still_due(clock: Clock) -> None:
    pace = CommitPace(15.0)
    clock.now += 16.0
    with pytest.raises(OSError, match="full"), pace.commit():
        raise OSError("full")
    assert pace.is_due
