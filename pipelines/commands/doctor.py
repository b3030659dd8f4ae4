"""`cohort doctor` and `cohort cluster write`: look at a cluster before a run, and write what starts one."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from cluster.config import PROFILES
from pipelines.commands.options import CONFIG, JSON, StoreFolder

if TYPE_CHECKING:
    from cluster.checks import Check

_STYLES = {"ok": "green", "warning": "yellow", "missing": "red"}


@click.command()
@click.option("--cluster", "profile", type=click.Choice(PROFILES), help="Start or join this profile and look at it.")
@CONFIG
@click.option("--store", type=StoreFolder(made=True), help="Folder that a run would write to.")
@click.option("--archive", type=click.Path(path_type=Path), help="Folder that a run would read.")
@JSON
def doctor(
    profile: str | None, config_path: Path | None, store: Path | None, archive: Path | None, as_json: bool
) -> None:
    """Say what is there and what is missing before a run; exit with 1 when something is missing.

    Without --cluster only this machine is looked at, and nothing is started.

    \b
    Examples:
      cohort doctor
      cohort doctor --config cohort.toml --store /data/store --archive /data/archive
      cohort doctor --cluster slurm --config cohort.toml --store /shared/store --archive /shared/archive
    """
    from pipelines import doctor as examination  # torch takes a second to import: not for --help
    from pipelines.config import read_config

    config = read_config(config_path)
    config = replace(config, cluster=examination.for_profile(config.cluster, profile))
    checks = examination.examine_machine(config, store=store, archive=archive)
    if profile is not None and examination.is_complete(checks):
        checks += examination.examine_cluster(
            config, store=store, archive=archive, note=lambda text: click.echo(text, err=True)
        )
    click.echo(json.dumps([asdict(one) for one in checks], indent=2)) if as_json else _print(checks)
    if not examination.is_complete(checks):
        sys.exit(1)


def _print(checks: Sequence[Check]) -> None:
    table = Table()
    for column in ("what", "", "found", "what to do"):
        table.add_column(column, overflow="fold")
    for one in checks:
        table.add_row(one.what, f"[{_STYLES[one.state]}]{one.state}[/]", one.detail, one.remedy)
    Console().print(table)


@click.group()
def cluster() -> None:
    """Write the files that start a cluster, for you to read and submit (docs/cluster/)."""


_OUTPUT = click.option(
    "--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder to write to."
)
_SITE = click.argument("site", type=click.Path(path_type=Path, exists=True, dir_okay=False))


@cluster.group()
def write() -> None:
    """Write job scripts, manifests, or settings and key."""


@write.command()
@_OUTPUT
def scheduler(output: Path) -> None:
    """Settings and key of a cluster whose scheduler and workers you start yourself.

    OUTPUT must be on a file system that all machines see.

    \b
    Example:
      cohort cluster write scheduler --output /shared/cluster
    """
    from cluster.folder import ClusterFolder

    folder = ClusterFolder(output)
    folder.prepare()
    click.echo(f"export DASK_CONFIG={folder.config}")


@write.command()
@_SITE
@_OUTPUT
def slurm(site: Path, output: Path) -> None:
    """Job scripts of a scheduler, the CPU partition and the GPU partition.

    SITE is the YAML file of docs/cluster/slurm.md; OUTPUT must be on a file system that all nodes see.

    \b
    Example:
      cohort cluster write slurm site.yaml --output /shared/cluster
    """
    from cluster.folder import ClusterFolder
    from cluster.site import SlurmSite, read_site
    from cluster.slurm import write_scripts

    described = read_site("slurm", site)
    assert isinstance(described, SlurmSite)
    for path in write_scripts(described, ClusterFolder(output)):
        click.echo(f"sbatch {path}")


@write.command()
@_SITE
@_OUTPUT
def kubernetes(site: Path, output: Path) -> None:
    """Manifests for the Dask operator, with a group of CPU workers and a group of network workers.

    SITE is the YAML file of docs/cluster/kubernetes.md.

    \b
    Example:
      cohort cluster write kubernetes site.yaml --output manifests
    """
    from cluster.kubernetes import write_manifests
    from cluster.site import KubernetesSite, read_site

    described = read_site("kubernetes", site)
    assert isinstance(described, KubernetesSite)
    for path in write_manifests(described, output):
        click.echo(f"kubectl apply -f {path}")
