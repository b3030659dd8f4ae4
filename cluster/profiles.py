"""Where a run's workers come from: one function for all profiles."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from distributed import Client

from cluster.config import WITH_SITE, ClusterConfig
from cluster.local import local_cluster
from cluster.remote import Note, existing_scheduler, wait_for_lanes
from cluster.resources import Device, available_cores, device_of_workers, resolve_device
from cluster.site import KubernetesSite, SlurmSite, SshSite, read_site
from cluster.slurm import slurm_cluster
from cluster.ssh import ssh_cluster
from cohort.errors import ConfigurationError

_ANY: Final = {"CPU": 1, "GPU": 1}
"""Workers of somebody else's cluster: how many there are is not ours to say."""


def device_of(config: ClusterConfig) -> Device:
    """Device that the networks will run on, known before any worker is started.

    Profile scheduler with device = auto asks the workers that are there; profile cuda and the sites say it themselves.

    Raises
    ------
    ConfigurationError
        for a GPU that was requested and is absent, and for a site that says something else than `cluster.device`
    """
    if config.profile == "local":
        return resolve_device(config.device)
    if config.profile == "cuda":
        return resolve_device("cuda")
    if config.profile in WITH_SITE:
        return _device_of_site(config)
    if config.device != "auto":
        return typing.cast(Device, config.device)
    with open_cluster(config, note=lambda _: None) as client:
        return device_of_workers(client)


def _device_of_site(config: ClusterConfig) -> Device:
    device = _site(config).device
    if config.device not in ("auto", device):
        raise ConfigurationError(f"cluster.device is {config.device}, but the site's file says device: {device}")
    return device


@contextmanager
def open_cluster(config: ClusterConfig, *, note: Note) -> Iterator[Client]:
    """Start or join the workers of a profile and yield a client of them; what was started is ended at the end.

    CPU workers offer the resource CPU=1 each, network workers GPU=1.

    Parameters
    ----------
    note : shows one line to the user (which jobs were submitted, how many workers came)

    Raises
    ------
    ConfigurationError
        if no worker of a resource comes, with what to do
    """
    if config.profile in ("local", "cuda"):
        n_cpu = config.workers or max(1, available_cores() - 1)
        note(f"starting {n_cpu} CPU workers and the network worker")
        with local_cluster(
            n_cpu, device=device_of(config), memory_limit=config.memory_limit, dashboard=config.dashboard
        ) as client:
            yield client
    elif config.profile == "scheduler":
        where = config.scheduler or config.scheduler_file
        assert where is not None  # ClusterConfig checks it
        with existing_scheduler(where) as client:
            _wait_for_any(client, config, note)
            yield client
    else:
        with _site_cluster(config, note) as client:
            yield client


@contextmanager
def _site_cluster(config: ClusterConfig, note: Note) -> Iterator[Client]:
    site = _site(config)
    told: dict[str, Any] = {"start_timeout_s": config.start_timeout_s, "dashboard": config.dashboard, "note": note}
    if isinstance(site, KubernetesSite):
        with existing_scheduler(site.scheduler_address) as client:
            _wait_for_any(client, config, note)
            yield client
    elif isinstance(site, SlurmSite):
        with slurm_cluster(site, **told) as client:
            yield client
    else:
        with ssh_cluster(site, **told) as client:
            yield client


def _site(config: ClusterConfig) -> SlurmSite | SshSite | KubernetesSite:
    assert config.site is not None  # ClusterConfig checks it
    return read_site(config.profile, config.site)


def _wait_for_any(client: Client, config: ClusterConfig, note: Note) -> None:
    wait_for_lanes(client, _ANY, timeout_s=config.start_timeout_s, note=note, alive=lambda: True)
