"""Manifests for the Dask operator of Kubernetes: a scheduler and two groups of workers, written for the user to apply.

Nothing is started from here: who may create pods, and which volumes and nodes there are, is the site's business.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml
from dask.utils import parse_bytes

from cluster.command import worker_command
from cluster.resources import Resource
from cluster.settings import SETTINGS_FILE
from cluster.site import SUPERVISION_MIB, KubernetesSite

_PYTHON: Final = "python"
"""The image's own."""
_CONFIG: Final = Path("/etc/dask")
_SCHEDULER_MEMORY_MIB: Final = 2048
_PORTS: Final = {"tcp-comm": 8786, "http-dashboard": 8787}
API_VERSION: Final = "kubernetes.dask.org/v1"


def write_manifests(site: KubernetesSite, folder: Path) -> list[Path]:
    """Write `cluster.yaml`: settings (ConfigMap), DaskCluster with the CPU workers, DaskWorkerGroup of the networks."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump_all(manifests(site), sort_keys=False), encoding="utf-8")
    return [path]


def manifests(site: KubernetesSite) -> list[dict[str, Any]]:
    """The objects, in the order in which they should be created."""
    return [_settings(site), _cluster(site), _gpu_group(site)]


def _settings(site: KubernetesSite) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{site.name}-dask", "namespace": site.namespace},
        "data": {"dask.yaml": SETTINGS_FILE.read_text(encoding="utf-8")},
    }


def _cluster(site: KubernetesSite) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": "DaskCluster",
        "metadata": {"name": site.name, "namespace": site.namespace},
        "spec": {
            "scheduler": {"spec": _pod(site, _scheduler(site)), "service": _service(site)},
            "worker": {"replicas": site.cpu.replicas, "spec": _pod(site, _worker(site, "CPU"))},
        },
    }


def _gpu_group(site: KubernetesSite) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": "DaskWorkerGroup",
        "metadata": {"name": f"{site.name}-gpu", "namespace": site.namespace},
        "spec": {
            "cluster": site.name,
            "worker": {"replicas": site.gpu.replicas, "spec": _pod(site, _worker(site, "GPU"))},
        },
    }


def _service(site: KubernetesSite) -> dict[str, Any]:
    return {
        "type": "ClusterIP",
        "selector": {"dask.org/cluster-name": site.name, "dask.org/component": "scheduler"},
        "ports": [{"name": name, "protocol": "TCP", "port": port, "targetPort": name} for name, port in _PORTS.items()],
    }


def _pod(site: KubernetesSite, container: dict[str, Any]) -> dict[str, Any]:
    claims = [
        {"name": f"data-{i}", "persistentVolumeClaim": {"claimName": one.claim}} for i, one in enumerate(site.volumes)
    ]
    settings = {"name": "dask", "configMap": {"name": f"{site.name}-dask"}}
    return {"containers": [container], "volumes": [settings, *claims]}


def _container(site: KubernetesSite, name: str, words: tuple[str, ...], env: dict[str, str]) -> dict[str, Any]:
    mounts = [{"name": f"data-{i}", "mountPath": one.path} for i, one in enumerate(site.volumes)]
    return {
        "name": name,
        "image": site.image,
        "command": [words[0]],
        "args": list(words[1:]),
        "env": [{"name": key, "value": value} for key, value in env.items()],
        "volumeMounts": [{"name": "dask", "mountPath": str(_CONFIG)}, *mounts],
    }


def _scheduler(site: KubernetesSite) -> dict[str, Any]:
    words = (_PYTHON, "-m", "distributed.cli.dask_scheduler", "--port", "8786", "--dashboard-address", ":8787")
    container = _container(site, "scheduler", words, {"DASK_CONFIG": str(_CONFIG)})
    container["ports"] = [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in _PORTS.items()]
    memory = {"memory": f"{_SCHEDULER_MEMORY_MIB}Mi"}
    container["resources"] = {"requests": {"cpu": "1", **memory}, "limits": memory}
    return container


def _worker(site: KubernetesSite, lane: Resource) -> dict[str, Any]:
    """One process a pod. The operator gives the scheduler's address and the pod's name in the environment."""
    group = site.cpu if lane == "CPU" else site.gpu
    cores = 1 if lane == "CPU" else site.gpu.cores
    command = worker_command(
        _PYTHON,
        lane,
        n_workers=1,
        memory=group.memory,
        name="$(DASK_WORKER_NAME)",
        config=_CONFIG,
        scheduler="$(DASK_SCHEDULER_ADDRESS)",
        device=site.device,
        cores=cores,
    )
    container = _container(site, "worker", command.words, dict(command.env))
    memory = {"memory": f"{parse_bytes(group.memory) // 2**20 + SUPERVISION_MIB}Mi"}
    gpu = {site.gpu.gpu_resource: "1"} if lane == "GPU" and site.device == "cuda" else {}
    container["resources"] = {"requests": {"cpu": str(cores), **memory, **gpu}, "limits": {**memory, **gpu}}
    return container
