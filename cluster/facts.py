"""What one process says of itself, for comparison with others: on the client, the scheduler and the workers.

Nothing here imports torch or OpenSim: a CPU worker would carry them for its whole life.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import dask

from cluster.settings import ALLOWED_FAILURES
from cohort import __version__
from cohort.store.publish import TEMPORARY_PREFIX

PACKAGES: Final = ("dask", "distributed", "numpy", "opensim", "pydicom", "scipy", "torch", "zarr")
"""Those that results or the conversation between processes depend on."""
_ROOMS: Final = ("cohort", "models", "cluster", "pipelines")
SETTINGS_OF_WORKERS: Final = (
    "distributed.worker.daemon",
    "distributed.worker.memory.target",
    "distributed.worker.memory.spill",
    "distributed.worker.memory.terminate",
)


def versions() -> dict[str, str]:
    """Versions of Python, of the packages in `PACKAGES` and of this package, with a hash of its code."""
    found = {name: _version(name) for name in PACKAGES}
    own = f"{__version__} (code {code_sha256()[:12]})"
    return {"python": platform.python_version(), **found, "lumbar-cohort": own}


def _version(name: str) -> str:
    try:
        return version(name).partition("+")[0]  # 2.13.0+cpu and 2.13.0+cu130 are the same torch
    except PackageNotFoundError:
        return "none"


@lru_cache(maxsize=1)
def code_sha256() -> str:
    """Hash of all modules of this package: two checkouts can differ and have the same version."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(path for folder in _ROOMS for path in (root / folder).rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


@dataclass(frozen=True)
class Probe:
    """What a process is asked to look at. Paths are those that a run's tasks will name."""

    files: Sequence[Path] = ()
    """Weights and base models."""
    archive: Path | None = None


@dataclass(frozen=True)
class Facts:
    """What a worker found."""

    sha256: dict[str, str | None]
    """Path -> hash of the file; None where it cannot be read."""
    archive: str | None
    """Hash of the names at the top of the archive; None where they cannot be listed."""
    scratch_bytes: int
    """Free where the worker keeps its own files."""


def look(probe: Probe, dask_worker: Any = None) -> Facts:
    """Answer a probe; Dask hands in the worker."""
    scratch = dask_worker.local_directory if dask_worker is not None else "."
    return Facts(
        sha256={str(path): _sha256(path) for path in probe.files},
        archive=top_of(probe.archive) if probe.archive is not None else None,
        scratch_bytes=shutil.disk_usage(scratch).free,
    )


def new_token() -> str:
    """Name of a file that nobody else has; swept with other temporary files if it should stay."""
    return f"{TEMPORARY_PREFIX}probe-{uuid4().hex}"


def top_of(folder: Path) -> str | None:
    """Hash of the names in a folder, but for those that come and go; None where it cannot be listed."""
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith(TEMPORARY_PREFIX))
    except OSError:
        return None
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def answer_token(store: Path, token: str) -> str | None:
    """Name of a file that a worker writes beside the client's; None where it sees no such file or cannot write."""
    answer = new_token()
    try:
        (store / token).stat()
        (store / answer).touch(exist_ok=False)
    except OSError:
        return None
    return answer


def worker_settings() -> dict[str, Any]:
    """Settings that took effect in a worker process."""
    found = {name: dask.config.get(name, None) for name in SETTINGS_OF_WORKERS}
    return {**found, "distributed.worker.daemon": multiprocessing.current_process().daemon}


def scheduler_settings(dask_scheduler: Any) -> dict[str, Any]:
    """Settings that took effect in a scheduler."""
    extension = dask_scheduler.extensions.get("stealing")
    return {
        ALLOWED_FAILURES: dask_scheduler.allowed_failures,
        "distributed.scheduler.worker-ttl": dask_scheduler.worker_ttl,
        "distributed.scheduler.no-workers-timeout": dask_scheduler.no_workers_timeout,
        "distributed.scheduler.work-stealing": extension is not None,
    }
