"""A Dask cluster on this machine: one process per CPU lane and one per GPU, on the loopback interface only."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import dask
from dask.utils import parse_bytes
from distributed import Client, Nanny, Scheduler, SpecCluster
from distributed.system import MEMORY_LIMIT

from cluster.links import LOOPBACK, require_bokeh
from cluster.resources import Device, available_cores
from cluster.settings import ONE_THREAD, local_settings, network_threads
from cohort.errors import ConfigurationError

logger = logging.getLogger(__name__)

_SCHEDULER_OPTIONS: Final[dict[str, Any]] = {
    "host": LOOPBACK,
    "port": 0,
    "dashboard_address": f"{LOOPBACK}:0",  # the metrics page; by default it insists on port 8787 and warns if taken
}


END_S: Final = 60.0
"""After which a cluster that does not close is left (working value): Dask itself would wait without end."""


@contextmanager
def local_cluster(
    n_cpu_workers: int,
    *,
    device: Device,
    memory_limit: str = "auto",
    scratch_dir: Path | None = None,
    torch_threads: int | None = None,
    dashboard: bool = False,
) -> Iterator[Client]:
    """Start workers and yield a client; close both, and every process, at the end.

    Workers are called cpu-0, cpu-1, ... (resource CPU=1) and gpu-0, ... (resource GPU=1; one per visible GPU, or one
    that computes on the CPU). All have one Dask thread.

    Parameters
    ----------
    device : as resolved by `cluster.resources.resolve_device`
    memory_limit : of each worker, for example "4GiB"; "auto" shares the machine's memory equally
    scratch_dir : folder for the workers' own files; Dask's default when None
    torch_threads : threads of the network on the CPU; the cores that `n_cpu_workers` leave over when None
    dashboard : Dask's, on a free port (`cluster.links`)
    """
    if dashboard:
        require_bokeh()
    if n_cpu_workers < 1:
        raise ConfigurationError(f"at least one CPU worker is needed, not {n_cpu_workers}")
    # for the whole life: the parent reads `daemon` again when it restarts a worker
    with dask.config.set(local_settings()):
        workers: dict[str, Any] = {
            f"cpu-{i}": {"cls": Nanny, "options": {"resources": {"CPU": 1}, "env": ONE_THREAD}}
            for i in range(n_cpu_workers)
        }
        workers |= _network_workers(device, torch_threads or max(1, available_cores() - n_cpu_workers))
        common = _common_options(memory_limit, len(workers), scratch_dir)
        for spec in workers.values():
            spec["options"].update(common)
            spec["options"]["preload"] = [*spec["options"].get("preload", ()), "cluster.interrupts"]
        scheduler = {"cls": Scheduler, "options": {**_SCHEDULER_OPTIONS, "dashboard": dashboard}}
        with _closed_late(SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.ERROR)) as cluster:
            with Client(cluster) as client:
                client.wait_for_workers(len(workers))
                yield client


@contextmanager
def _closed_late(cluster: SpecCluster) -> Iterator[SpecCluster]:
    """Close a cluster at the end; on a busy machine a nanny may not see its worker end in the time that Dask gives it.

    The work is done by then, and workers end with this process: that must not fail the run.
    """
    try:
        yield cluster
    finally:
        try:
            cluster.close(timeout=END_S)
        except TimeoutError:
            logger.warning("workers did not end in time; they end with this process")


def _common_options(memory_limit: str, n_workers: int, scratch_dir: Path | None) -> dict[str, Any]:
    limit = MEMORY_LIMIT // n_workers if memory_limit == "auto" else parse_bytes(memory_limit)
    options: dict[str, Any] = {
        "host": LOOPBACK,
        "nthreads": 1,
        "memory_limit": limit,
        "dashboard": False,
        "dashboard_address": None,
        "silence_logs": logging.ERROR,
    }
    if scratch_dir is not None:
        options["local_directory"] = str(scratch_dir)
    return options


def _network_workers(device: Device, torch_threads: int) -> dict[str, dict[str, Any]]:
    """Workers of the GPU lane: dask-cuda's own recipe for each visible GPU, or one plain process on the CPU."""
    if device == "cpu":
        options = {"resources": {"GPU": 1}, "env": network_threads(torch_threads)}
        return {"gpu-0": {"cls": Nanny, "options": options}}
    try:
        from dask_cuda.worker_spec import worker_spec  # needs the NVIDIA driver
    except ImportError as error:
        raise ConfigurationError(
            "a GPU needs dask-cuda: pip install 'lumbar-cohort[gpu-cu13]' or [gpu-cu12]"
        ) from error
    recipes = worker_spec(threads_per_worker=1).values()
    workers = {f"gpu-{i}": recipe for i, recipe in enumerate(recipes)}
    for recipe in workers.values():
        recipe["options"]["resources"] = {"GPU": 1}
    return workers
