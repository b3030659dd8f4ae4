"""Progress of a run on stderr: bars on a terminal, one plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from pipelines.fingerprint import STAGES
from pipelines.outcome import Outcome

LINE_EVERY_S: Final = 15.0
"""Plain lines are for logs: a night's run writes a few thousand of them at most."""


class Progress:
    """Counts outcomes per stage and shows them, with the exams that came to their end per minute.

    Use it as a context manager. An exam has come to its end when its last stage is done, or when it was refused or
    failed.
    """

    def __init__(self, *, console: Console | None = None, quiet: bool = False) -> None:
        self._console = console or Console(stderr=True, quiet=quiet, highlight=False)
        columns = (TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        bars = Bars(*columns, TextColumn("{task.fields[note]}"), console=self._console)
        self._bars = bars if self._console.is_terminal else None
        self._tasks: dict[str, TaskID] = {}
        self._planned: Counter[str] = Counter()
        self._done: dict[str, Counter[str]] = {}
        self._n_ended = 0
        self._started = self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bars:
            self._bars.stop()
        elif self._done:
            self._line()

    def note(self, text: str) -> None:
        """Show one line of text."""
        self._console.print(text, markup=False, soft_wrap=True)

    def plan(self, counts: Mapping[str, int]) -> None:
        """Say how many exams each stage will work on; begins the measurement of speed."""
        self._planned = Counter(counts)
        self._started = self._last_line = time.monotonic()
        if self._bars:
            for stage in STAGES:
                if counts.get(stage):
                    self._tasks[stage] = self._bars.add_task(stage, total=counts[stage], note="")

    def outcome(self, outcome: Outcome) -> None:
        """Count one outcome."""
        done = self._done.setdefault(outcome.stage, Counter())
        done[outcome.status] += 1
        self._n_ended += outcome.stage == STAGES[-1] or outcome.status in ("refused", "failed")
        if self._bars:
            if outcome.stage in self._tasks:
                self._bars.update(self._tasks[outcome.stage], advance=1, note=self._note(outcome.stage))
        elif time.monotonic() - self._last_line > LINE_EVERY_S:
            self._line()

    def exams_per_minute(self) -> float:
        """Exams that came to their end, per minute since the plan."""
        return 60.0 * self._n_ended / max(time.monotonic() - self._started, 1e-3)

    def _note(self, stage: str) -> str:
        counts = [f"{n} {status}" for status, n in sorted(self._done[stage].items()) if status != "ok"]
        speed = [f"{self.exams_per_minute():.1f} exams/min"] if stage == STAGES[-1] else []
        return ", ".join(counts + speed)

    def _line(self) -> None:
        parts = []
        for stage in self._done:
            n = self._done[stage].total()
            counts = ", ".join(f"{k} {status}" for status, k in sorted(self._done[stage].items()))
            parts.append(f"{stage} {n}/{max(self._planned[stage], n)} ({counts})")
        self.note(f"{'; '.join(parts)}; {self.exams_per_minute():.1f} exams/min")
        self._last_line = time.monotonic()
