"""A site's YAML file: what a queueing system, some hosts or Kubernetes should give a run. Unknown keys are errors."""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from cluster.config import check, is_size
from cluster.resources import Device

SUPERVISION_MIB: Final = 512
"""Memory that a job asks for beside its workers' own: their supervising processes (working value)."""


@dataclass(frozen=True)
class CpuJobs:
    """Jobs of the CPU partition."""

    partition: str
    jobs: int = 1
    workers: int = 1
    """Worker processes of each job, one core each."""
    memory: str = "4GiB"
    """Of each worker."""
    time: str = "12:00:00"
    """Longest time of a job, in the notation of `sbatch --time`."""
    options: tuple[str, ...] = ()
    """Further options of sbatch, for example "--account=spine"."""


@dataclass(frozen=True)
class GpuJobs:
    """Jobs of the GPU partition; with device = cpu the networks run on CPU cores of these jobs."""

    partition: str
    jobs: int = 1
    workers: int = 1
    """GPUs of each job, one worker process each; 1 on a CPU."""
    cores: int = 4
    """Of each worker."""
    memory: str = "16GiB"
    """Of each worker."""
    time: str = "12:00:00"
    gres: str = "gpu"
    """Name (and type) in `sbatch --gres`, for example "gpu:a100"."""
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class SlurmSite:
    """File of profile slurm."""

    folder: Path
    """On a file system that all nodes see: scheduler file, key, logs."""
    cpu: CpuJobs
    gpu: GpuJobs
    device: Device = "cuda"
    python: str = sys.executable
    """Interpreter with this package, at the same path on every node."""
    interface: str | None = None
    """Network interface of scheduler and workers, for example "ib0"; the host's own address when not given."""
    setup: str = ""
    """Lines of shell before a worker starts, for example "module load cuda"."""

    def __post_init__(self) -> None:
        _check_device(self.device, self.gpu.workers)
        for name, jobs in (("cpu", self.cpu), ("gpu", self.gpu)):
            _check_counts(name, jobs=jobs.jobs, workers=jobs.workers)
            _check_memory(name, jobs.memory)
            _check_words(name, jobs.partition, jobs.time, *jobs.options)
        _check_counts("gpu", cores=self.gpu.cores)


@dataclass(frozen=True)
class SshHost:
    """One host."""

    host: str
    """As `ssh` is told it: a name, an address, user@name, or a name of ~/.ssh/config."""
    cpu: int = 0
    """CPU workers."""
    gpu: int = 0
    """Network workers: the host's GPUs, all of which are used; with device = cpu, processes that run the networks."""


@dataclass(frozen=True)
class SshSite:
    """File of profile ssh."""

    folder: Path
    """On a file system that all hosts see: key and settings of the cluster, logs."""
    hosts: tuple[SshHost, ...]
    device: Device = "cuda"
    python: str = sys.executable
    interface: str | None = None
    """Network interface of the scheduler, which runs where the run was started."""
    cpu_memory: str = "4GiB"
    """Of each CPU worker."""
    gpu_memory: str = "16GiB"
    """Of each network worker."""
    gpu_cores: int = 4
    """Cores of each network worker on a CPU."""
    options: tuple[str, ...] = ()
    """Of `ssh`, for example ["-p", "2222"]."""

    def __post_init__(self) -> None:
        _check_device(self.device, 1)
        for host in self.hosts:
            check(not host.host.startswith("-"), f"hosts: {host.host!r} is no host")
            check(min(host.cpu, host.gpu) >= 0 < host.cpu + host.gpu, f"host {host.host} has no worker")
        for lane in ("cpu", "gpu"):
            check(any(getattr(host, lane) for host in self.hosts), f"no host has a {lane} worker")
        _check_memory("cpu", self.cpu_memory)
        _check_memory("gpu", self.gpu_memory)
        _check_counts("gpu", cores=self.gpu_cores)


@dataclass(frozen=True)
class Claim:
    """A persistent volume claim and where it appears."""

    claim: str
    path: str


@dataclass(frozen=True)
class CpuPods:
    """Worker group of CPU workers, one process and one core each."""

    replicas: int = 4
    memory: str = "4GiB"


@dataclass(frozen=True)
class GpuPods:
    """Worker group of network workers, one process each."""

    replicas: int = 1
    cores: int = 4
    memory: str = "16GiB"
    gpu_resource: str = "nvidia.com/gpu"
    """What the device plugin calls a GPU; asked for with device = cuda."""


@dataclass(frozen=True)
class KubernetesSite:
    """File of profile kubernetes."""

    image: str
    """Container image with this package; the same one for client, scheduler and workers."""
    volumes: tuple[Claim, ...]
    """Archive, store and the user's own networks, at the same paths as in the client's pod."""
    name: str = "cohort"
    namespace: str = "default"
    device: Device = "cuda"
    cpu: CpuPods = CpuPods()
    gpu: GpuPods = GpuPods()

    def __post_init__(self) -> None:
        _check_device(self.device, 1)
        _check_counts("cpu", replicas=self.cpu.replicas)
        _check_counts("gpu", replicas=self.gpu.replicas, cores=self.gpu.cores)
        _check_memory("cpu", self.cpu.memory)
        _check_memory("gpu", self.gpu.memory)
        check(bool(self.volumes), "volumes: without one, workers see neither the archive nor the store")

    @property
    def scheduler_address(self) -> str:
        """Service that the operator makes for the scheduler of a DaskCluster."""
        return f"tcp://{self.name}-scheduler.{self.namespace}:8786"


Site = SlurmSite | SshSite | KubernetesSite
_KINDS: Final[Mapping[str, type]] = {"slurm": SlurmSite, "ssh": SshSite, "kubernetes": KubernetesSite}


def read_site(profile: str, path: Path) -> Site:
    """Read the YAML file of profile slurm, ssh or kubernetes.

    Relative paths in it are relative to the file. Raises `ConfigurationError` for a file that cannot be read, unknown
    and missing keys, and values of another type or out of range.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        check(False, f"the site's file {path.name} cannot be read: {error.strerror}")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        check(False, f"the site's file {path.name} is not YAML: {type(error).__name__}")
    return typing.cast(Site, _build(_KINDS[profile], content, where=path.name, folder=path.parent.absolute()))


def _build(kind: type, content: Any, *, where: str, folder: Path) -> Any:
    check(isinstance(content, dict), f"{where} must be a table of keys")
    known = {one.name: one for one in fields(kind)}
    for key in content:
        check(key in known, f"{where}: unknown key {key!r}; valid keys: {', '.join(known)}")
    lacking = [
        name
        for name, one in known.items()
        if one.default is MISSING and one.default_factory is MISSING and name not in content
    ]
    check(not lacking, f"{where}: {', '.join(lacking)} must be given")
    kinds = typing.get_type_hints(kind)
    return kind(
        **{key: _value(kinds[key], value, where=f"{where}: {key}", folder=folder) for key, value in content.items()}
    )


def _value(kind: Any, value: Any, *, where: str, folder: Path) -> Any:
    if isinstance(kind, types.UnionType):
        kind = next(one for one in typing.get_args(kind) if one is not types.NoneType)
    if is_dataclass(kind):
        return _build(typing.cast(type, kind), value, where=where, folder=folder)
    if typing.get_origin(kind) is tuple:
        check(isinstance(value, list), f"{where} must be a list")
        return tuple(_value(typing.get_args(kind)[0], one, where=where, folder=folder) for one in value)
    if typing.get_origin(kind) is typing.Literal:
        check(value in typing.get_args(kind), f"{where} is one of {', '.join(typing.get_args(kind))}, not {value!r}")
        return value
    wanted = str if kind is Path else kind
    check(type(value) is wanted, f"{where} must be {'a whole number' if wanted is int else 'text'}, not {value!r}")
    return folder / Path(value).expanduser() if kind is Path else value


def _check_device(device: str, gpu_workers: int) -> None:
    check(device == "cuda" or gpu_workers == 1, "with device: cpu, gpu.workers is 1; ask for more jobs instead")


def _check_counts(group: str, **counts: int) -> None:
    for name, n in counts.items():
        check(n >= 1, f"{group}.{name} is at least 1, not {n}")


def _check_memory(group: str, memory: str) -> None:
    check(is_size(memory), f'{group}.memory is a size such as "4GiB", not {memory!r}')


def _check_words(group: str, *words: str) -> None:
    """Each becomes part of a line of a job script."""
    for word in words:
        check(bool(word.strip()) and "\n" not in word, f"{group}: {word!r} is not one line of text")
