"""One run at a time in a store: a lock of the system, and a heartbeat that people and other machines can read.

The lock (flock) is freed by the kernel when its process ends, however it ends. Between machines that share a file
system it may not hold, so a beating heart of another machine counts as well: it is watched, not compared with a clock.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cohort.errors import ConfigurationError, is_disk_full

BEAT_EVERY_S: Final = 10.0
WATCH_S: Final = 3 * BEAT_EVERY_S
"""How long the heart of a run on another machine is watched before it is believed to be dead."""


@dataclass(frozen=True)
class Holder:
    """Who works in the store: the content of STORE/.lock.json."""

    command: str
    host: str
    pid: int
    started_at: str
    """UTC, ISO 8601."""
    heartbeat_at: str
    beats: int
    """Counts up while the run lives; clocks may jump."""

    def __str__(self) -> str:
        return f"{self.command} on {self.host} (process {self.pid}, since {self.started_at}, seen {self.heartbeat_at})"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def lock_holder(folder: Path) -> Holder | None:
    """Who holds, or last held without letting go, the lock of a store; None where nobody does."""
    try:
        return Holder(**json.loads((folder / ".lock.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


@contextmanager
def only_run(folder: Path, command: str = "run", note: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Hold the store's lock.

    Parameters
    ----------
    note : told of a run that died and left its lock, which is taken over

    Raises
    ------
    ConfigurationError
        if another run holds it, or the folder cannot be written
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        if is_disk_full(error):
            raise
        raise ConfigurationError(f"folder {folder.name} cannot be written: {error.strerror}") from error
    try:
        _take(handle, folder, note)
        now = _now()
        holder = Holder(command, socket.gethostname(), os.getpid(), now, now, beats=0)
        with _beating(folder, holder):
            yield
    finally:
        os.close(handle)


def _take(handle: int, folder: Path, note: Callable[[str], None]) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        by = lock_holder(folder) or "another run"
        raise ConfigurationError(f"{by} is working in folder {folder.name}; wait for it to end") from error
    left = lock_holder(folder)
    if left is None:
        return
    if left.host != socket.gethostname() and _is_beating(folder, left, note):
        raise ConfigurationError(f"{left} is working in folder {folder.name}; wait for it to end")
    note(f"a run ended without letting go of the store: {left}. Its committed work is kept; this run takes over")


def _is_beating(folder: Path, left: Holder, note: Callable[[str], None]) -> bool:
    """Watch the heart of a run on another machine; no clock is trusted, for theirs may differ from ours."""
    note(f"{left} may still be alive; watching its heartbeat for {WATCH_S:.0f} s")
    end = time.monotonic() + WATCH_S
    while time.monotonic() < end:
        time.sleep(min(1.0, WATCH_S / 10))
        now = lock_holder(folder)
        if now is None:
            return False
        if now.beats != left.beats or now.pid != left.pid:
            return True
    return False


@contextmanager
def _beating(folder: Path, holder: Holder) -> Iterator[None]:
    """Write the holder now and every few seconds until the end, then take it away."""
    ended = threading.Event()

    def beat() -> None:
        beats = 0
        while not ended.wait(BEAT_EVERY_S):
            beats += 1
            _write(folder, replace(holder, heartbeat_at=_now(), beats=beats))

    _write(folder, holder)
    heart = threading.Thread(target=beat, name="heartbeat", daemon=True)
    heart.start()
    try:
        yield
    finally:
        ended.set()
        heart.join()
        (folder / ".lock.json").unlink(missing_ok=True)


def _write(folder: Path, holder: Holder) -> None:
    """Replace the file whole; a full disk must not end the run for the sake of its heartbeat."""
    partial = folder / ".lock.json.partial"
    try:
        partial.write_text(json.dumps(asdict(holder)) + "\n")
        partial.replace(folder / ".lock.json")
    except OSError:
        return
