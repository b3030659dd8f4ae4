"""One line of a check-up: what was looked at, how it is, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from dask.utils import format_bytes

from cohort.errors import ConfigurationError

State = Literal["ok", "warning", "missing"]

LEAST_DISK: Final = 1 << 30
LITTLE_DISK: Final = 20 << 30
"""Bytes; own choice: an exam store and its labels take about 10 MB."""
LEAST_MEMORY: Final = 1 << 30
LITTLE_MEMORY: Final = 2 << 30
"""Bytes of a worker; working values: torch and OpenSim alone take some 400 MB of a process."""


@dataclass(frozen=True)
class Check:
    """A row of `cohort doctor`."""

    what: str
    state: State
    detail: str
    remedy: str = ""
    """What to do; empty when all is well."""


def room(what: str, free: int, *, least: int, little: int, remedy: str) -> Check:
    """Bytes that are there against the fewest that a run can work with and those that are few."""
    state: State = "missing" if free < least else "warning" if free < little else "ok"
    return Check(what, state, format_bytes(free), "" if state == "ok" else remedy)


def require(checks: Iterable[Check]) -> None:
    """Raise `ConfigurationError` that lists all that is missing, with what to do."""
    missing = [one for one in checks if one.state == "missing"]
    if missing:
        lines = [f"{one.what}: {one.detail}; {one.remedy}" for one in missing]
        raise ConfigurationError("the workers cannot do this run:\n  " + "\n  ".join(lines))
