"""The command lines of scheduler and workers, which are the same wherever they are started."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dask.utils import parse_bytes

from cluster.links import LOOPBACK
from cluster.resources import Device, Resource
from cluster.settings import ONE_THREAD, network_threads

DEATH_TIMEOUT_S = 300
"""A worker that finds no scheduler for this time ends itself (own choice)."""


@dataclass(frozen=True)
class Command:
    """A program with its environment."""

    words: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def shell(self) -> str:
        """One line for a shell. All words are quoted but --name, in which the shell puts its variables."""
        env = [f"{name}={shlex.quote(value)}" for name, value in self.env.items()]
        return " ".join(["env", *env, *(word if _is_name(word) else shlex.quote(word) for word in self.words)])


def _is_name(word: str) -> bool:
    return word.startswith("--name=")


def scheduler_command(python: str, *, config: Path, scheduler_file: Path, interface: str | None) -> Command:
    """A scheduler that writes where it listens into a file."""
    words = [python, "-m", "distributed.cli.dask_scheduler", "--scheduler-file", str(scheduler_file), "--port", "0"]
    words += ["--dashboard-address", f"{LOOPBACK}:0", *_interface(interface)]
    return Command(tuple(words), {"DASK_CONFIG": str(config)})


def worker_command(
    python: str,
    resource: Resource,
    *,
    n_workers: int,
    memory: str,
    name: str,
    config: Path,
    scheduler: str | Path,
    device: Device,
    cores: int = 1,
    interface: str | None = None,
) -> Command:
    """One process per CPU core or per GPU, each under a nanny that starts it again, or one for networks on a CPU.

    Parameters
    ----------
    n_workers : processes of the CPU group, or network workers on a CPU; dask-cuda starts one per GPU that it sees
    memory : limit of each process
    name : may hold shell variables; workers of one command are called NAME-0, NAME-1, ...
    scheduler : its address, or the path of its scheduler file
    device : where the networks of the GPU group run
    cores : threads of the networks on a CPU
    """
    on_gpu = resource == "GPU" and device == "cuda"
    words = [python, "-m", *(("dask", "cuda", "worker") if on_gpu else ("distributed.cli.dask_worker",))]
    words += ["--scheduler-file", str(scheduler)] if isinstance(scheduler, Path) else [scheduler]
    if not on_gpu:
        words += ["--nworkers", str(n_workers)]
    words += ["--nthreads", "1", "--memory-limit", str(parse_bytes(memory)), "--resources", f"{resource}=1"]
    words += [f"--name={name}", "--death-timeout", str(DEATH_TIMEOUT_S), "--no-dashboard", *_interface(interface)]
    threads = network_threads(cores) if resource == "GPU" and not on_gpu else ONE_THREAD if resource == "CPU" else {}
    return Command(tuple(words), {"DASK_CONFIG": str(config), **threads})


def _interface(interface: str | None) -> list[str]:
    return ["--interface", interface] if interface else []
