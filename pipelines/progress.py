"""Progress of a run on stderr: bars on a terminal, one plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from datetime import timedelta
from threading import Lock
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from cohort.tables.stages import STAGES, later_stages
from pipelines.outcome import Outcome

LINE_EVERY_S: Final = 15.0
"""Plain lines are for logs: a night's run writes a few thousand of them at most."""
RECENT_S: Final = 300.0
"""Speed is that of the last minutes (own choice): long enough for a few batches of every stage, short enough to follow
a worker that died or a stage that has ended."""
LEAST_FOR_SPEED: Final = 5
"""Outcomes of a stage before its speed says anything (own choice)."""


class StageProgress:
    """Counts of one stage, and its speed in recent minutes. Times are those of `time.monotonic`, s."""

    def __init__(self) -> None:
        self.planned = 0
        """Exams of the whole run, as known now."""
        self.spared = 0
        """Of those, the ones that ended in an earlier stage and never come."""
        self.status: Counter[str] = Counter()
        self.worked_s = 0.0
        """Sum of what its exams took on their workers."""
        self._ended: deque[float] = deque()

    @property
    def n_done(self) -> int:
        """Outcomes so far."""
        return self.status.total()

    @property
    def total(self) -> int:
        """Exams that came or will come."""
        return max(self.planned - self.spared, self.n_done)

    def add(self, outcome: Outcome, now: float) -> None:
        """Count one outcome."""
        self.status[outcome.status] += 1
        self.worked_s += outcome.seconds
        self._ended.append(now)

    def per_second(self, now: float, started: float) -> float | None:
        """Exams per second in the last `RECENT_S`, or since the start; None after too few outcomes."""
        while self._ended and self._ended[0] < now - RECENT_S:
            self._ended.popleft()
        if self.n_done < LEAST_FOR_SPEED:
            return None
        return len(self._ended) / max(now - max(started, now - RECENT_S), 1e-3)

    def seconds_to_go(self, now: float, started: float) -> float | None:
        """Time for what is left at the speed of recent minutes; None where that is not known."""
        left = self.total - self.n_done
        if left == 0:
            return 0.0
        speed = self.per_second(now, started)
        return left / speed if speed else None


class Progress:
    """Counts outcomes per stage and shows them, with speed and time to go.

    Use it as a context manager. An exam has come to its end when its last stage is done, or when it was refused or
    failed.
    """

    def __init__(self, *, console: Console | None = None, quiet: bool = False) -> None:
        self._console = console or Console(stderr=True, quiet=quiet, highlight=False)
        self._stages: dict[str, StageProgress] = {}
        self._n_ended = 0
        self._begun = False
        self._keep: Callable[[str], None] | None = None
        self._lock = Lock()  # the bars are drawn by a thread of their own
        self._started = self._last_line = time.monotonic()
        live = Live(console=self._console, get_renderable=self._table, refresh_per_second=2)
        self._live = live if self._console.is_terminal else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._live and self._live.is_started:
            self._live.stop()
        if any(stage.n_done for stage in self._stages.values()):
            if not self._live:
                self._console.print(self.line(), markup=False, soft_wrap=True)
            self.note(self.durations())
        self._keep = None

    def note(self, text: str) -> None:
        """Show one line of text."""
        self._console.print(text, markup=False, soft_wrap=True)
        if self._keep:
            self._keep(text)

    def keep_notes(self, keep: Callable[[str], None] | None) -> None:
        """Hand every later note, and the line of counts, to a function too (`RunLog.note`); None ends that."""
        self._keep = keep

    def plan(self, counts: Mapping[str, int]) -> None:
        """Say how many exams each stage works on in the whole run, those that it has done already included.

        May be called again as more becomes known. The first call begins the measurement of speed.
        """
        with self._lock:
            for stage in STAGES:
                if counts.get(stage):
                    self._stages.setdefault(stage, StageProgress()).planned = counts[stage]
        if not self._begun:
            self._begun = True
            self._started = self._last_line = time.monotonic()
            if self._live:
                self._live.start()

    def outcome(self, outcome: Outcome) -> None:
        """Count one outcome."""
        stopped = outcome.status in ("refused", "failed")
        with self._lock:
            self._stages.setdefault(outcome.stage, StageProgress()).add(outcome, time.monotonic())
            if stopped and outcome.stage in STAGES:
                for stage in later_stages(outcome.stage):
                    self._stages.setdefault(stage, StageProgress()).spared += 1
            self._n_ended += stopped or outcome.stage == STAGES[-1]
        if time.monotonic() - self._last_line > LINE_EVERY_S:
            self._say_line()

    def exams_per_minute(self) -> float:
        """Exams that came to their end, per minute since the plan."""
        return 60.0 * self._n_ended / max(time.monotonic() - self._started, 1e-3)

    def seconds_to_go(self) -> float | None:
        """Time until the run is done, None as long as a stage with work left has no speed.

        Stages work at the same time, so it is the longest of their times: too long rather than too short, because a
        stage that ends leaves its workers to the others.
        """
        now = time.monotonic()
        times = [stage.seconds_to_go(now, self._started) for stage in self._stages.values()]
        known = [one for one in times if one is not None]
        return max(known, default=0.0) if len(known) == len(times) else None

    def line(self) -> str:
        """Counts of every stage, speed and time to go, in one line."""
        with self._lock:
            parts = [_counted(name, stage) for name, stage in self._in_order() if stage.total]
            to_go = self.seconds_to_go()
        end = [f"{duration(to_go)} to go"] if to_go else []
        return "; ".join([*parts, f"{self.exams_per_minute():.1f} exams/min", *end])

    def durations(self) -> str:
        """How long the run took, and what an exam took on its worker in each stage."""
        parts = [f"{name} {stage.worked_s / stage.n_done:.2g} s" for name, stage in self._in_order() if stage.n_done]
        return f"took {duration(time.monotonic() - self._started)}; mean time of an exam: {', '.join(parts)}"

    def _in_order(self) -> list[tuple[str, StageProgress]]:
        """Stages in the order of the chain; those of scan, which are none of the chain, first."""
        return sorted(self._stages.items(), key=lambda pair: STAGES.index(pair[0]) if pair[0] in STAGES else -1)

    def _say_line(self) -> None:
        self._last_line = time.monotonic()
        text = self.line()
        if not self._live:
            self._console.print(text, markup=False, soft_wrap=True)
        if self._keep:
            self._keep(text)

    def _table(self) -> Table:
        """Bars: one row a stage, and one for the run."""
        table = Table(box=None, pad_edge=False, header_style="dim")
        for title in ("stage", ""):
            table.add_column(title, no_wrap=True)
        for title in ("exams", "per min", "to go"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("not ok")
        with self._lock:
            now = time.monotonic()
            for name, stage in self._in_order():
                table.add_row(*_stage_row(name, stage, now, self._started))
            table.add_row(*self._run_row(now))
        return table

    def _run_row(self, now: float) -> tuple[str, ...]:
        to_go = self.seconds_to_go()
        speed = f"{self.exams_per_minute():.1f}" if self._n_ended >= LEAST_FOR_SPEED else ""
        elapsed = f"{duration(now - self._started)} so far"
        return ("run", elapsed, str(self._n_ended), speed, duration(to_go) if to_go else "", "")


def _counted(name: str, stage: StageProgress) -> str:
    counts = ", ".join(f"{n} {status}" for status, n in sorted(stage.status.items()))
    return f"{name} {stage.n_done}/{stage.total}" + (f" ({counts})" if counts else "")


def _stage_row(name: str, stage: StageProgress, now: float, started: float) -> tuple[str | ProgressBar, ...]:
    speed, to_go = stage.per_second(now, started), stage.seconds_to_go(now, started)
    bar = ProgressBar(total=max(stage.total, 1), completed=stage.n_done, width=24)
    counts = ", ".join(f"{n} {status}" for status, n in sorted(stage.status.items()) if status != "ok")
    return (
        name,
        bar,
        f"{stage.n_done}/{stage.total}",
        f"{60 * speed:.1f}" if speed else "",
        duration(to_go) if to_go else "",
        counts,
    )


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, `1:02:03`; days before them where there are any."""
    return str(timedelta(seconds=round(seconds)))
