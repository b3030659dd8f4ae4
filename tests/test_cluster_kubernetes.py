"""Manifests against the schemas of the operator, which dask-kubernetes ships; there is no Kubernetes to apply them."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from cluster.kubernetes import manifests
from cluster.settings import SETTINGS_FILE
from cluster.site import KubernetesSite, read_site
from pipelines.cli import main

pytest.importorskip("dask_kubernetes", reason="not installed: dask-kubernetes", exc_type=ImportError)

SITE = """
image: registry.example.org/lumbar-cohort:1
name: spine
namespace: research
volumes:
  - {claim: archive, path: /archive}
  - {claim: store, path: /store}
cpu: {replicas: 8, memory: 4GiB}
gpu: {replicas: 2, cores: 4, memory: 16GiB}
"""
CRDS = files("dask_kubernetes") / "operator" / "deployment" / "helm" / "dask-kubernetes-operator" / "crds"


def faults(value: Any, schema: dict[str, Any], where: str) -> list[str]:
    """What an API server would refuse or silently drop: types, required keys, choices and unknown keys."""
    if schema.get("x-kubernetes-int-or-string"):
        return [] if isinstance(value, int | str) else [f"{where}: neither a number nor text"]
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "number": (int, float)}
    kind = schema.get("type")
    if kind and not isinstance(value, kinds[kind]):
        return [f"{where}: not {kind}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{where}: not one of {schema['enum']}"]
    if isinstance(value, list):
        return [one for k, item in enumerate(value) for one in faults(item, schema.get("items", {}), f"{where}[{k}]")]
    return _faults_of_object(value, schema, where) if isinstance(value, dict) else []


def _faults_of_object(value: dict[str, Any], schema: dict[str, Any], where: str) -> list[str]:
    known, free = schema.get("properties", {}), schema.get("additionalProperties")
    found = [f"{where}: lacks {name}" for name in schema.get("required", ()) if name not in value]
    for name, item in value.items():
        if name in known:
            found += faults(item, known[name], f"{where}.{name}")
        elif isinstance(free, dict):
            found += faults(item, free, f"{where}.{name}")
        elif not schema.get("x-kubernetes-preserve-unknown-fields") and free is not True and known:
            found.append(f"{where}: unknown key {name}")
    return found


def schema_of(kind: str) -> dict[str, Any]:
    definition = yaml.safe_load((CRDS / f"{kind.lower()}.yaml").read_text())
    (version,) = [one for one in definition["spec"]["versions"] if one["served"]]
    schema = dict(version["schema"]["openAPIV3Schema"])
    meta = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
    return {**schema, "properties": {**schema["properties"], **meta}}


@pytest.fixture
def objects(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """What the command writes, by kind."""
    (tmp_path / "site.yaml").write_text(SITE)
    told = CliRunner().invoke(
        main, ["cluster", "write", "kubernetes", str(tmp_path / "site.yaml"), "--output", str(tmp_path)]
    )
    assert told.output == f"kubectl apply -f {tmp_path / 'cluster.yaml'}\n"
    return {one["kind"]: one for one in yaml.safe_load_all((tmp_path / "cluster.yaml").read_text())}


def test_manifests_fit_the_schemas_of_the_operator(objects: dict[str, dict[str, Any]]) -> None:
    assert list(objects) == ["ConfigMap", "DaskCluster", "DaskWorkerGroup"]
    for kind in ("DaskCluster", "DaskWorkerGroup"):
        assert faults(objects[kind], schema_of(kind), kind) == []


def test_the_validation_finds_what_is_wrong(objects: dict[str, dict[str, Any]]) -> None:
    cluster, schema = objects["DaskCluster"], schema_of("DaskCluster")
    container = cluster["spec"]["worker"]["spec"]["containers"][0]
    container["imagePullPolice"] = container.pop("image")
    cluster["spec"]["worker"]["replicas"] = "8"
    del cluster["spec"]["scheduler"]["service"]
    assert sorted(faults(cluster, schema, "")) == [
        ".spec.scheduler: lacks service",
        ".spec.worker.replicas: not integer",
        ".spec.worker.spec.containers[0]: unknown key imagePullPolice",
    ]


def test_two_groups_offer_the_two_resources(objects: dict[str, dict[str, Any]]) -> None:
    cpu = objects["DaskCluster"]["spec"]["worker"]
    gpu = objects["DaskWorkerGroup"]["spec"]["worker"]
    assert (cpu["replicas"], gpu["replicas"]) == (8, 2)
    (cpu_worker,), (gpu_worker,) = cpu["spec"]["containers"], gpu["spec"]["containers"]
    assert cpu_worker["args"][cpu_worker["args"].index("--resources") + 1] == "CPU=1"
    assert gpu_worker["args"][:4] == ["-m", "dask", "cuda", "worker"]
    assert gpu_worker["args"][gpu_worker["args"].index("--resources") + 1] == "GPU=1"
    assert gpu_worker["resources"]["limits"] == {"memory": "16896Mi", "nvidia.com/gpu": "1"}
    assert "nvidia.com/gpu" not in cpu_worker["resources"]["limits"]
    for container in (cpu_worker, gpu_worker):
        assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/etc/dask", "/archive", "/store"]
        assert {"name": "DASK_CONFIG", "value": "/etc/dask"} in container["env"]
    assert objects["ConfigMap"]["data"]["dask.yaml"] == SETTINGS_FILE.read_text()
    assert objects["DaskWorkerGroup"]["spec"]["cluster"] == objects["DaskCluster"]["metadata"]["name"] == "spine"


def test_without_a_gpu_no_gpu_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text(SITE + "device: cpu\n")
    site = read_site("kubernetes", tmp_path / "site.yaml")
    assert isinstance(site, KubernetesSite)
    assert site.scheduler_address == "tcp://spine-scheduler.research:8786"
    (worker,) = manifests(site)[2]["spec"]["worker"]["spec"]["containers"]
    assert "nvidia.com/gpu" not in worker["resources"]["limits"]
    assert {"name": "OMP_NUM_THREADS", "value": "4"} in worker["env"]
