"""When a run should stop: at a time of the day, or when somebody asks it to."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from types import FrameType

from cohort.errors import ConfigurationError


def seconds_until(clock: str, now: datetime) -> float:
    """Seconds from `now`, a local time with its zone, to the next time that clocks show HH:MM.

    Raises ConfigurationError for other texts.
    """
    try:
        wanted = datetime.strptime(clock, "%H:%M").time()
    except ValueError as error:
        raise ConfigurationError(f"a time of the day is HH:MM, for example 06:00, not {clock!r}") from error
    local = now.replace(tzinfo=None)
    end = datetime.combine(local.date(), wanted)
    if end <= local:
        end += timedelta(days=1)
    return end.astimezone(None).timestamp() - now.timestamp()  # the night that clocks are changed has 23 or 25 hours


@contextmanager
def stopping(after_s: float | None, note: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether to stop: after some seconds, or since a SIGTERM.

    A second SIGTERM ends the process as usual. The seconds are counted by a clock that cannot be set.
    """
    end = None if after_s is None else time.monotonic() + after_s
    asked = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        asked.set()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    told = False

    def stop() -> bool:
        nonlocal told
        over = end is not None and time.monotonic() >= end
        if (over or asked.is_set()) and not told:
            told = True
            note(f"{'the time is over' if over else 'asked to stop'}: finishing what has begun, starting nothing more")
        return over or asked.is_set()

    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, on_signal) if in_main else None
    try:
        yield stop
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)
