"""Resources that tasks ask for and workers offer, and the device the networks run on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from distributed import Client

from cohort.errors import ConfigurationError

Resource = Literal["CPU", "GPU"]
"""Every task names one. GPU stands for the worker that runs the networks, also where that worker computes on a CPU."""

Device = Literal["cpu", "cuda"]


def resolve_device(requested: str) -> Device:
    """Turn `auto`, `cpu` or `cuda` into the device that is used.

    `auto` takes a GPU where torch sees one. A requested GPU that is absent is a `ConfigurationError`, never a silent
    fall-back to the CPU.
    """
    if requested not in ("auto", "cpu", "cuda"):
        raise ConfigurationError(f"device is auto, cpu or cuda, not {requested!r}")
    if requested == "cpu":
        return "cpu"
    import torch  # slow to import, and not needed for a run on the CPU

    if torch.cuda.is_available():
        return "cuda"
    if requested == "cuda":
        raise ConfigurationError("device = cuda was requested, but torch sees no GPU here; use device = cpu or auto")
    return "cpu"


def device_of_workers(client: Client) -> Device:
    """Device that the network workers of a cluster have: cuda where torch sees a GPU on all of them.

    Raises
    ------
    ConfigurationError
        if only some of them have one: masks would depend on who made them; or if they have not this package's code
    """
    workers = [address for address, worker in workers_of(client).items() if worker["resources"].get("GPU")]
    found = set(client.run(sees_gpu, workers=workers, on_error="return").values())
    if not found <= {True, False}:
        raise ConfigurationError("network workers cannot import this package or torch: install the same versions there")
    if len(found) > 1:
        raise ConfigurationError(
            "some network workers see a GPU and some do not; say cluster.device or mend the others"
        )
    return "cuda" if found == {True} else "cpu"


def sees_gpu() -> bool:
    """Say if torch sees a GPU in this process."""
    import torch

    return bool(torch.cuda.is_available())


def workers_of(client: Client) -> dict[str, Any]:
    """Address -> what the scheduler knows of each worker."""
    return dict(client.scheduler_info(n_workers=-1)["workers"])


def available_cores() -> int:
    """Cores this process may use (its affinity where the system knows one)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def offered(client: Client) -> dict[str, int]:
    """Sum of each resource over all workers: how many tasks of a lane run at once."""
    total: dict[str, int] = {}
    for worker in workers_of(client).values():
        for resource, amount in worker["resources"].items():
            total[resource] = total.get(resource, 0) + int(amount)
    return dict(sorted(total.items()))


def preflight(there: Mapping[str, int], needed: Iterable[str]) -> None:
    """Raise `ConfigurationError` when a needed resource is not among those that workers offer (`offered(client)`).

    Without this check such a task would wait for ever: Dask keeps tasks of unknown resources pending.
    """
    missing = sorted({resource for resource in needed if not there.get(resource)})
    if missing:
        raise ConfigurationError(f"no worker offers {', '.join(missing)}; workers offer {dict(there) or 'nothing'}")
