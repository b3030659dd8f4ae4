"""What happens in one run, as it happens: STORE/runs/<run_id>/outcomes.jsonl for programs and run.log for people.

The tables are committed now and then; these files are flushed line by line, so that they show how far a run is, and
what it had done when it was killed. Neither ever holds a path or the text of an exception, which may name a patient.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from numbers import Number
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, Self, TextIO

from cohort.store.layout import FINGERPRINT_CHARACTERS
from pipelines.outcome import Outcome, place_of

OUTCOMES: Final = "outcomes.jsonl"
LOG: Final = "run.log"

_OWN: Final = ("cohort", "models", "cluster", "pipelines")
"""Packages whose log records hold neither paths nor texts of exceptions."""
_ADDRESS: Final = re.compile(r"(tcp|tls|ucx|inproc)://[\w.:\[\]/-]+")
"""Of a Dask process."""
_PIECE: Final = 6
"""Shortest piece of a text that was put together from pieces and values: shorter ones say nothing."""


def run_folder(store: Path, run_id: str) -> Path:
    """STORE/runs/<run_id>: configuration, logs, summary and report of one run."""
    return store / "runs" / run_id


class RunLog:
    """Writes both files of one run; a context manager that also takes in the log records of this process.

    Records are those from WARNING upward of all libraries, `distributed` among them: where the scheduler or nannies
    live in this process, they tell which worker died and why.
    """

    def __init__(self, store: Path, run_id: str) -> None:
        self._run_id = run_id
        self._folder = run_folder(store, run_id)

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._outcomes = (self._folder / OUTCOMES).open("a", encoding="utf-8")
        self._records = _RecordFile((self._folder / LOG).open("a", encoding="utf-8"))
        self._loggers = _top_loggers()
        for logger in self._loggers:
            logger.addHandler(self._records)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for logger in self._loggers:
            logger.removeHandler(self._records)
        with suppress(OSError):  # a full disk has been raised already: every line is flushed when it is written
            if kind is not None:
                self.note(f"the run was ended by {kind.__name__}")
        for file in (self._records, self._outcomes):
            with suppress(OSError):
                file.close()

    def outcome(self, outcome: Outcome) -> None:
        """Append one outcome; one flushed line of JSON."""
        self._outcomes.write(json.dumps(outcome_line(outcome, run_id=self._run_id)) + "\n")
        self._outcomes.flush()

    def note(self, text: str) -> None:
        """Append one line of our own; the text holds no path."""
        self._records.line("INFO", text)


def outcome_line(outcome: Outcome, *, run_id: str) -> dict[str, Any]:
    """What outcomes.jsonl tells of one outcome."""
    return {
        "run_id": run_id,
        "exam_id": outcome.exam_id,
        "stage": outcome.stage,
        "status": outcome.status,
        "reason": outcome.reason,
        "error_type": outcome.error_type,
        "seconds": outcome.seconds,
        "rss_mib": outcome.rss_mib,
        "worker": outcome.worker,
        "finished_at": outcome.finished_at,
        "fingerprint": outcome.fingerprint[:FINGERPRINT_CHARACTERS],
    }


def _top_loggers() -> list[logging.Logger]:
    """The root, and the loggers that hand nothing on to it: Dask's."""
    named = [one for one in logging.Logger.manager.loggerDict.values() if isinstance(one, logging.Logger)]
    return [logging.getLogger(), *(logger for logger in named if not logger.propagate)]


class _RecordFile(logging.Handler):
    """Log records as lines. No `StreamHandler`: Dask silences those of its loggers while a local cluster starts."""

    def __init__(self, file: TextIO) -> None:
        super().__init__(logging.WARNING)
        self._file = file

    def line(self, level: str, text: str) -> None:
        """Append one line with the time (UTC)."""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.acquire()  # notes come from the client's thread, records from those of the cluster
        try:
            self._file.write(f"{at} {level:<7} {' '.join(text.split())}\n")
            self._file.flush()
        finally:
            self.release()

    def emit(self, record: logging.LogRecord) -> None:
        """Append a record, without anything that may hold a path or the text of an exception."""
        with suppress(OSError, ValueError):  # a full disk, a file that was closed: whoever logs must not fail for it
            self.line(record.levelname, f"{record.name}: {_said(record)}{_raised(record)}")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def _said(record: logging.LogRecord) -> str:
    """Text of a record. Of other people's code only what stands in the code itself, with numbers and addresses."""
    constants = _constants(record)
    with suppress(TypeError, ValueError, KeyError):  # arguments that do not fit the text, or do no longer
        if record.name.split(".")[0] in _OWN:
            return record.getMessage()
        if record.msg in constants:
            return str(record.msg) % _harmless(record.args) if record.args else str(record.msg)
    text = str(record.msg) if isinstance(record.msg, str) else ""
    pieces = sorted((one for one in constants if len(one) >= _PIECE and one in text), key=text.index)
    return " ... ".join(pieces) or f"see {record.module}.py, line {record.lineno}"


def _constants(record: logging.LogRecord) -> list[str]:
    """Texts in the code of the function that logs just now; none where it cannot be found."""
    frame: FrameType | None = sys._getframe()
    while frame and (frame.f_code.co_filename, frame.f_lineno) != (record.pathname, record.lineno):
        frame = frame.f_back
    return [one for one in frame.f_code.co_consts if isinstance(one, str)] if frame else []


def _harmless(args: Any) -> Any:
    if isinstance(args, Mapping):
        return {name: _number_or_address(one) for name, one in args.items()}
    return tuple(map(_number_or_address, args))


def _number_or_address(value: object) -> object:
    kept = isinstance(value, Number) or (isinstance(value, str) and _ADDRESS.fullmatch(value))
    return value if kept else "..."


def _raised(record: logging.LogRecord) -> str:
    """Class of the exception that a record carries, and the place in the code where it arose."""
    error = record.exc_info[1] if record.exc_info else None
    return f" ({type(error).__name__} at {place_of(error)})" if error else ""
