"""Slurm: job scripts for the CPU and the GPU partition, written for the user to submit, or submitted by us.

Not dask-jobqueue: one of its clusters has one type of job (dask/dask-jobqueue#378), and its scripts live for a moment
only. Here the scripts that a user reads are those that run.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dask.utils import parse_bytes
from distributed import Client

from cluster.command import Command, scheduler_command, worker_command
from cluster.folder import ClusterFolder
from cluster.remote import Note, own_scheduler, wait_for_lanes
from cluster.site import SUPERVISION_MIB, CpuJobs, GpuJobs, SlurmSite
from cohort.errors import ConfigurationError

_CALL_TIMEOUT_S: Final = 60.0
_NAME: Final = "$(hostname -s)-$SLURM_JOB_ID"
_SCHEDULER_MEMORY_MIB: Final = 2048
"""Working value: the window holds few tasks, so the scheduler stays small."""


def write_scripts(site: SlurmSite, folder: ClusterFolder) -> list[Path]:
    """Write settings, key and three job scripts into a folder that all nodes see; the scripts' paths."""
    folder.prepare()
    (folder.path / "logs").mkdir(exist_ok=True)
    return [
        _write(folder, "scheduler", _scheduler_script(site, folder)),
        _write(folder, "cpu", _cpu_script(site, folder)),
        _write(folder, "gpu", _gpu_script(site, folder)),
    ]


def _write(folder: ClusterFolder, name: str, text: str) -> Path:
    path = folder.path / f"{name}.sbatch"
    path.write_text(text, encoding="utf-8")
    return path


def _scheduler_script(site: SlurmSite, folder: ClusterFolder) -> str:
    options = [f"--partition={site.cpu.partition}", "--ntasks=1", "--cpus-per-task=1", f"--time={site.cpu.time}"]
    options += [f"--mem={_SCHEDULER_MEMORY_MIB}M", *site.cpu.options]
    command = scheduler_command(
        site.python, config=folder.config, scheduler_file=folder.scheduler_file, interface=site.interface
    )
    return _script("scheduler", options, command, site, folder)


def _cpu_script(site: SlurmSite, folder: ClusterFolder) -> str:
    jobs = site.cpu
    command = worker_command(
        site.python,
        "CPU",
        n_workers=jobs.workers,
        memory=jobs.memory,
        name=f"cpu-{_NAME}",
        config=folder.config,
        scheduler=folder.scheduler_file,
        device=site.device,
        interface=site.interface,
    )
    return _script("cpu", _directives(jobs, cores=jobs.workers), command, site, folder)


def _gpu_script(site: SlurmSite, folder: ClusterFolder) -> str:
    jobs = site.gpu
    command = worker_command(
        site.python,
        "GPU",
        n_workers=jobs.workers,
        memory=jobs.memory,
        name=f"gpu-{_NAME}",
        config=folder.config,
        scheduler=folder.scheduler_file,
        device=site.device,
        cores=jobs.cores,
        interface=site.interface,
    )
    gres = [f"--gres={jobs.gres}:{jobs.workers}"] if site.device == "cuda" else []
    return _script("gpu", [*_directives(jobs, cores=jobs.workers * jobs.cores), *gres], command, site, folder)


def _directives(jobs: CpuJobs | GpuJobs, *, cores: int) -> list[str]:
    memory_mib = jobs.workers * parse_bytes(jobs.memory) // 2**20 + SUPERVISION_MIB
    sizes = ["--nodes=1", "--ntasks=1", f"--cpus-per-task={cores}", f"--mem={memory_mib}M", f"--time={jobs.time}"]
    array = [f"--array=1-{jobs.jobs}"] if jobs.jobs > 1 else []
    return [f"--partition={jobs.partition}", *sizes, *array, *jobs.options]


def _script(name: str, options: list[str], command: Command, site: SlurmSite, folder: ClusterFolder) -> str:
    log = folder.path / "logs" / f"{name}-%j.log"
    directives = [f"--job-name=cohort-{name}", f'--output="{log}"', *options]
    lines = ["#!/bin/bash", *(f"#SBATCH {one}" for one in directives), "set -euo pipefail", "umask 077"]
    return "\n".join([*lines, *site.setup.strip().splitlines(), f"exec {command.shell}"]) + "\n"


@contextmanager
def slurm_cluster(site: SlurmSite, *, start_timeout_s: float, dashboard: bool, note: Note) -> Iterator[Client]:
    """Submit the CPU and the GPU jobs, yield a client when workers are there, and cancel the jobs at the end.

    The scheduler runs in this process, in a folder of its own inside the site's, which is removed at the end unless
    something went wrong: then it stays for its logs, without its key.

    Raises
    ------
    ConfigurationError
        if sbatch refuses a job, or no worker comes
    """
    require_program("sbatch")
    site.folder.mkdir(parents=True, exist_ok=True)
    folder = ClusterFolder(Path(tempfile.mkdtemp(prefix="cluster-", dir=site.folder)))
    try:
        _, cpu, gpu = write_scripts(site, folder)
        with (
            own_scheduler(folder, interface=site.interface, dashboard=dashboard) as client,
            _submitted([gpu, cpu]) as jobs,
        ):
            note(f"Slurm jobs {', '.join(jobs)} submitted; logs in {folder.path.name}/logs of cluster.site's folder")
            expected = {"CPU": site.cpu.jobs * site.cpu.workers, "GPU": site.gpu.jobs * site.gpu.workers}
            wait_for_lanes(
                client, expected, timeout_s=start_timeout_s, note=note, alive=lambda: len(queued(jobs)) == len(jobs)
            )
            yield client
    except BaseException:
        folder.key.unlink(missing_ok=True)
        raise
    shutil.rmtree(folder.path, ignore_errors=True)  # a job that is being cancelled may still write its log


@contextmanager
def _submitted(scripts: list[Path]) -> Iterator[list[str]]:
    jobs: list[str] = []
    try:
        for script in scripts:
            jobs.append(_submit(script))
        yield jobs
    finally:
        if jobs:
            _call(["scancel", *jobs])


def _submit(script: Path) -> str:
    answer = _call(["sbatch", "--parsable", str(script)])
    if answer.returncode:
        raise ConfigurationError(f"sbatch refuses {script.name}: {answer.stderr.strip()}")
    return re.split(r"[;\s]", answer.stdout.strip())[0]


def queued(jobs: list[str]) -> set[str]:
    """Those of the jobs that wait or run; all of them where Slurm does not answer just now."""
    answer = _call(["squeue", "--noheader", "--format=%A %F %T", "--jobs", ",".join(jobs)])
    if answer.returncode:  # an unknown job is an error when it is the only one
        return set() if "Invalid job id" in answer.stderr else set(jobs)
    return {job for line in answer.stdout.splitlines() for job in line.split()[:2] if job in jobs}


def _call(words: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=_CALL_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise ConfigurationError(f"Slurm does not answer: {words[0]} took {_CALL_TIMEOUT_S:.0f} s") from error


def require_program(name: str) -> None:
    """Raise `ConfigurationError` where a program is not on the path."""
    if shutil.which(name) is None:
        raise ConfigurationError(f"{name} is not on the path of this machine")
