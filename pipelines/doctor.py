"""`cohort doctor`: what is there and what is missing before a run, on this machine and on a cluster."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from dask.utils import format_bytes
from distributed.system import MEMORY_LIMIT

from cluster.checks import LITTLE_MEMORY, Check
from cluster.config import WITH_SITE, ClusterConfig
from cluster.facts import versions
from cluster.preflight import Needs, disk, inspect
from cluster.profiles import device_of, open_cluster
from cluster.remote import Note
from cluster.resources import available_cores
from cluster.site import read_site
from cohort.errors import CohortError
from models.registry import file_sha256, find_contract, read_contract, weights_path
from pipelines.config import RunConfig
from pipelines.segment import check_networks
from pipelines.status import who_works

PROGRAMS: Final = {"slurm": ("sbatch", "squeue", "scancel"), "ssh": ("ssh",), "kubernetes": ("kubectl",)}
"""Profile -> programs that it calls, or that its recipe needs."""
_LEAST_PYTHON: Final = (3, 11)


def for_profile(config: ClusterConfig, profile: str | None) -> ClusterConfig:
    """The section [cluster] with another profile: what belongs to the old one only is dropped."""
    if profile is None or profile == config.profile:
        return config
    if profile in ("local", "cuda"):
        device = config.device if profile == "local" else "auto"
        return ClusterConfig(profile, workers=config.workers, memory_limit=config.memory_limit, device=device)
    return replace(config, profile=profile, workers=None, memory_limit="auto")


def examine_machine(config: RunConfig, *, store: Path | None, archive: Path | None) -> list[Check]:
    """Everything that can be said without starting a worker."""
    return [
        *_software(),
        *_machine(config.cluster),
        *_profile(config.cluster),
        *_networks(config),
        _key(config.privacy.key_file),
        *(_store(store) if store else ()),
        *([_archive(archive)] if archive else ()),
    ]


def examine_cluster(config: RunConfig, *, store: Path | None, archive: Path | None, note: Note) -> list[Check]:
    """Start or join the workers of the profile and look at them; with a store and an archive, at what they see."""
    try:
        device = device_of(config.cluster)
        with open_cluster(config.cluster, note=note) as client:
            return inspect(client, Needs(device, _weights(config), store=_there(store), archive=archive))
    except CohortError as error:
        return [Check(f"profile {config.cluster.profile}", "missing", str(error), "see docs/cluster/")]


def _there(store: Path | None) -> Path | None:
    """The store, or where it will be made."""
    if store is None:
        return None
    return next(folder for folder in (store.absolute(), *store.absolute().parents) if folder.is_dir())


def _software() -> Iterator[Check]:
    right = sys.version_info >= _LEAST_PYTHON
    for name, version in versions().items():
        if name == "python" and not right:
            yield Check(name, "missing", version, "Python 3.11 or newer")
        elif version == "none":
            yield Check(name, "missing", "not installed", "pip install lumbar-cohort")
        else:
            yield Check(name, "ok", version)


def _machine(cluster: ClusterConfig) -> Iterator[Check]:
    n_workers = (cluster.workers or max(1, available_cores() - 1)) + 1
    yield Check("cores", "ok", str(available_cores()))
    share = MEMORY_LIMIT // n_workers
    few = cluster.profile in ("local", "cuda") and share < LITTLE_MEMORY
    detail = f"{format_bytes(MEMORY_LIMIT)}, {format_bytes(share)} for each of {n_workers} workers"
    yield Check("memory", "warning" if few else "ok", detail, "fewer workers: cluster.workers" if few else "")
    yield _gpu(needed=cluster.profile == "cuda" or cluster.device == "cuda")
    yield _dask_cuda(needed=cluster.profile == "cuda")


def _gpu(*, needed: bool) -> Check:
    import torch

    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())}
        return Check(
            "GPU", "ok", f"{torch.cuda.device_count()} x {', '.join(sorted(names))}, CUDA {torch.version.cuda}"
        )
    driver = "with a driver (nvidia-smi)" if shutil.which("nvidia-smi") else "and no driver"
    built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
    detail = f"none; {built}, {driver}"
    return (
        Check("GPU", "missing", detail, "profile local runs the networks on the CPU")
        if needed
        else Check("GPU", "ok", detail)
    )


def _dask_cuda(*, needed: bool) -> Check:
    if find_spec("dask_cuda") is None:
        remedy = "pip install 'lumbar-cohort[gpu-cu13]' or [gpu-cu12]" if needed else ""
        return Check("dask-cuda", "missing" if needed else "ok", "not installed", remedy)
    try:
        import dask_cuda
    except ImportError as error:  # it needs the CUDA bindings
        remedy = "pip install 'lumbar-cohort[gpu-cu13]' or [gpu-cu12]" if needed else ""
        return Check("dask-cuda", "missing" if needed else "ok", f"cannot be imported: {error}", remedy)
    return Check("dask-cuda", "ok", str(dask_cuda.__version__))


def _profile(cluster: ClusterConfig) -> Iterator[Check]:
    """The site's file and the programs that a profile needs."""
    for program in PROGRAMS.get(cluster.profile, ()):
        found = shutil.which(program) is not None
        remedy = "" if found else f"run where {program} is installed"
        yield Check(program, "ok" if found else "missing", "on the path" if found else "not on the path", remedy)
    if cluster.profile in WITH_SITE and cluster.site:
        try:
            site = read_site(cluster.profile, cluster.site)
            yield Check("site's file", "ok", f"{cluster.site.name}, device {site.device}")
        except CohortError as error:
            yield Check("site's file", "missing", str(error), "see docs/cluster/")
    if cluster.profile in ("slurm", "ssh"):
        found = find_spec("cryptography") is not None
        remedy = "" if found else "pip install 'lumbar-cohort[cluster]'"
        yield Check("cryptography", "ok" if found else "missing", "installed" if found else "not installed", remedy)


def _networks(config: RunConfig) -> Iterator[Check]:
    try:
        check_networks(config.segment.networks)
    except CohortError as error:
        yield Check("networks", "missing", str(error), "see [segment.networks] in docs/configuration.md")
        return
    for label, name in config.segment.networks.items():
        path, wanted = weights_path(name), read_contract(name).weights_sha256
        if not path.is_file():
            yield Check(f"weights of {label}", "missing", f"{path.name} is not there", "put it beside its contract")
        elif file_sha256(path) != wanted:
            yield Check(f"weights of {label}", "missing", f"{path.name} has another sha256", "install it again")
        else:
            yield Check(f"weights of {label}", "ok", f"{path.name}, sha256 {wanted[:12]}")


def _weights(config: RunConfig) -> dict[str, Path]:
    found = {label: find_contract(name) for label, name in config.segment.networks.items()}
    return {f"weights of {label}": path.with_suffix(".safetensors") for label, path in found.items()}


def _key(path: Path) -> Check:
    """The key of the pseudonyms decides every exam's name: it should exist once, and nobody else should read it."""
    if not path.exists():
        return Check("key of the pseudonyms", "ok", "none yet: the first run makes one")
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return Check("key of the pseudonyms", "warning", "others may read it", f"chmod 600 {path.name}")
    return Check("key of the pseudonyms", "ok", "there, for its owner only")


def _store(store: Path) -> Iterator[Check]:
    folder = _there(store)
    assert folder is not None
    made = store.is_dir()
    if not os.access(folder, os.W_OK):
        yield Check("store", "missing", "not writable", "another folder, or permission to write")
        return
    yield Check("store", "ok", "there, writable" if made else "not there yet: the first run makes it")
    yield disk("disk of the store", shutil.disk_usage(folder).free)
    if made:
        yield _lock(store)


def _lock(store: Path) -> Check:
    by = who_works(store)
    if by.state in ("none", "dead"):
        return Check("lock", "ok", "no other run")
    return Check("lock", "warning", f"another run: {by.command} on {by.host}, {by.state}", "wait for it to end")


def _archive(archive: Path) -> Check:
    try:
        n = sum(1 for _ in archive.iterdir())
    except OSError as error:
        return Check("archive", "missing", f"cannot be listed: {error.strerror}", "check the path and its permissions")
    return Check("archive", "ok" if n else "warning", f"{n} entries at its top", "" if n else "is it mounted?")


def is_complete(checks: Iterable[Check]) -> bool:
    """Say if nothing is missing."""
    return all(one.state != "missing" for one in checks)
