"""Workers on hosts that `ssh` reaches, joined to a scheduler in this process.

The OpenSSH client is used, not asyncssh or dask's SSHCluster: the user's ~/.ssh/config, agent and jump hosts count, a
host can have CPU and GPU workers at once, and what workers print goes to a file (SSHCluster stops reading it, which
stops a worker that prints much).
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from distributed import Client

from cluster.command import worker_command
from cluster.folder import ClusterFolder
from cluster.remote import Note, own_scheduler, wait_for_lanes
from cluster.resources import Resource
from cluster.site import SshHost, SshSite
from cluster.slurm import require_program

_OPTIONS: Final = ("-T", "-o", "BatchMode=yes", "-o", "ServerAliveInterval=30", "-o", "ConnectTimeout=30")
"""No terminal, no questions (a host key that is not known is an error), and a dead line is noticed."""
_END_TIMEOUT_S: Final = 20.0


@contextmanager
def ssh_cluster(site: SshSite, *, start_timeout_s: float, dashboard: bool, note: Note) -> Iterator[Client]:
    """Start workers on all hosts and yield a client; they end when the scheduler, which is in this process, ends.

    Raises
    ------
    ConfigurationError
        if no worker of a lane comes
    """
    require_program("ssh")
    site.folder.mkdir(parents=True, exist_ok=True)
    folder = ClusterFolder(Path(tempfile.mkdtemp(prefix="cluster-", dir=site.folder)))
    try:
        folder.prepare()
        with ExitStack() as at_end:
            processes: list[subprocess.Popen[bytes]] = []
            at_end.callback(_wait_for_end, processes)  # after the scheduler's end, which ends the workers
            client = at_end.enter_context(own_scheduler(folder, interface=site.interface, dashboard=dashboard))
            processes += [_start(site, host, lane, folder) for host in site.hosts for lane in _lanes(host)]
            note(
                f"workers are starting on {len(site.hosts)} hosts; logs in {folder.path.name} of cluster.site's folder"
            )
            wait_for_lanes(
                client,
                _expected(site),
                timeout_s=start_timeout_s,
                note=note,
                alive=lambda: all(process.poll() is None for process in processes),
            )
            yield client
    except BaseException:
        folder.key.unlink(missing_ok=True)
        raise
    shutil.rmtree(folder.path, ignore_errors=True)


def _lanes(host: SshHost) -> list[Resource]:
    counts: dict[Resource, int] = {"CPU": host.cpu, "GPU": host.gpu}
    return [lane for lane, n in counts.items() if n]


def _expected(site: SshSite) -> dict[str, int]:
    return {"CPU": sum(host.cpu for host in site.hosts), "GPU": sum(host.gpu for host in site.hosts)}


def _start(site: SshSite, host: SshHost, lane: Resource, folder: ClusterFolder) -> subprocess.Popen[bytes]:
    command = worker_command(
        site.python,
        lane,
        n_workers=host.cpu if lane == "CPU" else host.gpu,
        memory=site.cpu_memory if lane == "CPU" else site.gpu_memory,
        name=f"{lane.lower()}-$(hostname -s)",
        config=folder.config,
        scheduler=folder.scheduler_file,
        device=site.device,
        cores=site.gpu_cores,
    )
    log = folder.path / f"{host.host.rpartition('@')[2]}-{lane.lower()}.log"
    with log.open("wb") as out:
        return subprocess.Popen(
            ["ssh", *_OPTIONS, *site.options, host.host, f"exec {command.shell}"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )


def _wait_for_end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        try:
            process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.terminate()  # the line; the worker at its other end finds no scheduler and ends itself
            process.wait()
