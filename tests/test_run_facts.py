"""What a run says about its software and its workers."""

from __future__ import annotations

from pathlib import Path

from cluster.local import local_cluster
from pipelines.run_facts import read_facts, record_cluster, record_software


def test_workers_are_counted_and_links_kept(tmp_path: Path) -> None:
    with local_cluster(1, device="cpu", memory_limit="2GiB", scratch_dir=tmp_path / "scratch") as client:
        metrics = client.dashboard_link.replace("/status", "/metrics")
        record_cluster(tmp_path, "r1", client, {"metrics": metrics})
    facts = read_facts(tmp_path, "r1", "cluster.json")
    assert (facts["workers"], facts["hosts"], facts["memory_gib"]) == (2, 1, 4.0)
    assert facts["resources"] == {"CPU": 1, "GPU": 1}
    assert facts["links"] == {"metrics": metrics}


def test_networks_are_named_without_their_folders(tmp_path: Path) -> None:
    record_software(
        tmp_path,
        "r1",
        command="run",
        device="cpu",
        networks={"disc": ("/data/Geheimrat/own.json", "ab"), "muscle": ("https://x.org/a/muscle.json", "cd")},
        base_models={"M": "ef"},
    )
    facts = read_facts(tmp_path, "r1", "software.json")
    assert {label: one["name"] for label, one in facts["networks"].items()} == {
        "disc": "own.json",
        "muscle": "muscle.json",
    }
    assert facts["packages"]["opensim"]


def test_facts_that_a_run_did_not_write_whole_are_none(tmp_path: Path) -> None:
    assert read_facts(tmp_path, "r1", "software.json") == {}
    (tmp_path / "runs" / "r1").mkdir(parents=True)
    (tmp_path / "runs" / "r1" / "software.json").write_text('{"version": ')
    assert read_facts(tmp_path, "r1", "software.json") == {}
