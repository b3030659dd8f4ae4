"""Dask's settings that every profile needs (`cluster/dask.yaml`, the one place where they are said)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import yaml

SETTINGS_FILE: Final = Path(__file__).parent / "dask.yaml"
"""Scheduler and workers that are started elsewhere read it through the environment variable DASK_CONFIG."""

ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}
"""Environment of a CPU worker, which uses one core; OpenCV does not listen to OpenMP's variable."""


def network_threads(n: int) -> dict[str, str]:
    """Environment of a worker that runs the networks on `n` cores of a CPU.

    A Nanny gives its worker one OpenMP thread unless it is told otherwise; torch reads this when it is imported.
    """
    return {"OMP_NUM_THREADS": str(n), "MKL_NUM_THREADS": str(n)}


ALLOWED_FAILURES: Final = "distributed.scheduler.allowed-failures"


def local_settings() -> dict[str, Any]:
    """Settings where nobody takes workers away: a death is the doing of the exams on it.

    Exams of a dead worker are run again alone anyway (`pipelines.window`), so a second try in company would only cost a
    hanging exam its time limit two times more.
    """
    return {**settings(), ALLOWED_FAILURES: 0}


@lru_cache(maxsize=1)
def settings() -> dict[str, Any]:
    """Dotted name -> value, as `dask.config.set` takes them without losing the neighbours of a name."""
    return dict(_flat(yaml.safe_load(SETTINGS_FILE.read_text(encoding="utf-8")), ""))


def _flat(section: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
