"""What a run works with, beside its results: software.json from its start, cluster.json from when workers are there.

A report that is made again years later tells of the software of that day, not of its own.
"""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from distributed import Client

from cohort import __version__
from pipelines.run_log import run_folder

SOFTWARE: Final = "software.json"
CLUSTER: Final = "cluster.json"

_PACKAGES: Final = (
    "dask", "distributed", "torch", "openvino", "zarr", "opensim", "numpy", "scipy", "pyarrow", "duckdb", "pydicom",
)  # fmt: skip


def record_software(
    store: Path,
    run_id: str,
    *,
    command: str,
    device: str,
    networks: Mapping[str, tuple[str, str]],
    base_models: Mapping[str, str],
) -> None:
    """Write what decides the results of a run, as soon as it is known.

    Parameters
    ----------
    command : as in table `runs`
    networks : label array -> name, or path or URL of a file, and sha256 of the weights
    base_models : sex -> sha256
    """
    facts = {
        "command": command,
        "version": __version__,
        "device": device,
        "networks": {
            label: {"name": Path(name).name, "sha256": sha256} for label, (name, sha256) in sorted(networks.items())
        },
        "base_models": dict(sorted(base_models.items())),
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _version_of(name))},
        "system": f"{platform.system()} {platform.release()}",
    }
    _write(store, run_id, SOFTWARE, facts)


def record_cluster(store: Path, run_id: str, client: Client, links: Mapping[str, str]) -> None:
    """Write who works and where it can be watched; call it when the workers are there.

    Parameters
    ----------
    links : `metrics`, and `dashboard` where it is on -> address
    """
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    facts = {
        "workers": len(workers),
        "hosts": len({worker["host"] for worker in workers}),
        "resources": dict(sum((Counter(worker["resources"]) for worker in workers), Counter[str]())),
        "memory_gib": round(sum(worker["memory_limit"] or 0 for worker in workers) / 2**30, 1),  # None: no limit
        "links": dict(links),
    }
    _write(store, run_id, CLUSTER, facts)


def read_facts(store: Path, run_id: str, name: str) -> dict[str, Any]:
    """Content of software.json, cluster.json or summary.json; empty where the run wrote none."""
    try:
        found: dict[str, Any] = json.loads((run_folder(store, run_id) / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # never written, or cut off by a full disk
        return {}
    return found


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _write(store: Path, run_id: str, name: str, facts: Mapping[str, Any]) -> None:
    folder = run_folder(store, run_id)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
