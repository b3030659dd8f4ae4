"""A scheduler and workers that somebody else started with Dask's commands: joining them, and what is found wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner

from cluster.checks import require
from cluster.config import ClusterConfig
from cluster.facts import scheduler_settings, worker_settings
from cluster.preflight import Needs, inspect
from cluster.profiles import device_of, open_cluster
from cluster.remote import closed_at_last
from cluster.resources import offered
from cluster.settings import ALLOWED_FAILURES
from cohort.errors import ConfigurationError
from pipelines.cli import main

ROOT = Path(__file__).parents[1]
WORKER = ("distributed.cli.dask_worker", "--nthreads", "1", "--no-dashboard", "--memory-limit", "2GiB")


@dataclass
class Processes:
    """Dask processes of one cluster, which end with it."""

    folder: Path
    env: dict[str, str]
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def scheduler_file(self) -> Path:
        return self.folder / "scheduler.json"

    def start(self, *words: str, folder: Path = ROOT) -> None:
        """Run a module of Dask in a folder, in which Python looks first for packages."""
        words = (sys.executable, "-m", *words, "--scheduler-file", str(self.scheduler_file))
        with (self.folder / f"{len(self.running)}.log").open("wb") as log:
            self.running.append(subprocess.Popen(words, cwd=folder, env=self.env, stdout=log, stderr=log))

    def config(self, timeout_s: float = 60.0) -> ClusterConfig:
        return ClusterConfig("scheduler", scheduler_file=self.scheduler_file, start_timeout_s=timeout_s)


@contextmanager
def processes(folder: Path, env: dict[str, str]) -> Iterator[Processes]:
    """A scheduler; workers are added by the test."""
    cluster = Processes(folder, env)
    try:
        cluster.start("distributed.cli.dask_scheduler", "--port", "0", "--dashboard-address", "127.0.0.1:0")
        deadline = time.monotonic() + 30
        while not cluster.scheduler_file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        yield cluster
    finally:
        for process in reversed(cluster.running):
            process.terminate()
        for process in cluster.running:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """A nanny whose worker is just starting does not listen to a polite request."""
    try:
        process.wait(3)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Of a shell on this machine, without what the test session set for Dask."""
    return {name: value for name, value in os.environ.items() if not name.startswith("DASK")}


def test_the_recipe_of_the_documentation_gives_a_sound_cluster(tmp_path: Path, environment: dict[str, str]) -> None:
    told = CliRunner().invoke(main, ["cluster", "write", "scheduler", "--output", str(tmp_path)])
    assert told.output == f"export DASK_CONFIG={tmp_path / 'config'}\n"
    env = {**environment, "DASK_CONFIG": str(tmp_path / "config")}
    with processes(tmp_path, env) as cluster:
        cluster.start(*WORKER, "--nworkers", "2", "--resources", "CPU=1", "--name", "cpu")
        cluster.start(*WORKER, "--resources", "GPU=1", "--name", "gpu")
        assert device_of(cluster.config()) == "cpu"
        with open_cluster(cluster.config(), note=print) as client:
            client.wait_for_workers(3, timeout=30)
            assert offered(client) == {"CPU": 2, "GPU": 1}
            checks = inspect(client, Needs("cpu", {}, tmp_path, tmp_path))
            assert client.run_on_scheduler(scheduler_settings)[ALLOWED_FAILURES] == 1
            # other than the local profile's, these workers were not told anything by us
            assert {found["distributed.worker.daemon"] for found in client.run(worker_settings).values()} == {False}
            blind = inspect(client, Needs("cuda", {"gone": tmp_path / "gone"}, tmp_path, tmp_path / "gone"))
    assert [one for one in checks if one.state != "ok"] == []
    missing = {one.what: one.detail for one in blind if one.state == "missing"}
    assert missing == {
        "device of the networks": "1 of 1 network workers see no GPU",
        "archive on workers": "not there, or another one, on 1 of 1 hosts",
        "gone on workers": "not there, or another one, on 1 of 1 hosts",
    }
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".tmp-")]
    with pytest.raises(
        ConfigurationError, match=r"(?s)cannot do this run.*archive on workers: .*same path on every host"
    ):
        require(blind)


def test_workers_that_were_started_carelessly_are_refused(tmp_path: Path, environment: dict[str, str]) -> None:
    with processes(tmp_path, environment) as cluster:
        cluster.start(*WORKER[:1], "--nthreads", "4", "--resources", "CPU=4 GPU=1", "--memory-limit", "500MiB")
        with open_cluster(cluster.config(), note=print) as client:
            found = {one.what: one for one in inspect(client, Needs("cpu", {}, tmp_path))}
            with pytest.raises(
                ConfigurationError, match="resource TPU: 0 workers; start workers with --resources TPU=1"
            ):
                require(inspect(client, Needs("cpu", {}, tmp_path, resources=("CPU", "TPU"))))
    assert found["worker processes"].state == "missing"
    assert found["worker processes"].detail == "1 offer more than one, 1 have several threads"
    assert found["memory per worker"].state == "missing"


def test_a_missing_lane_settings_that_took_no_effect_and_other_code_are_found(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with processes(tmp_path, environment) as cluster, ExitStack() as stack:
        cluster.start(*WORKER, "--resources", "CPU=1")
        with pytest.raises(ConfigurationError, match=r"no worker offers (CPU or )?GPU after 1 s"):
            stack.enter_context(open_cluster(cluster.config(timeout_s=1), note=print))
        cluster.start(*WORKER, "--resources", "GPU=1")
        with open_cluster(cluster.config(), note=print) as client:
            found = {one.what: one for one in inspect(client, Needs("cpu", {}, tmp_path))}
            monkeypatch.setattr("cluster.facts.code_sha256", lambda: "0" * 64)  # as if the client had another checkout
            (other,) = [one for one in inspect(client, Needs("cpu", {}, tmp_path)) if one.state == "missing"]
    assert found["settings of Dask"].state == "missing"
    assert "worker.daemon" in found["settings of Dask"].detail
    assert other.what == "versions on workers"
    assert "lumbar-cohort" in other.detail
    assert "(3 processes)" in other.detail


def test_workers_without_this_package_are_found(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "__init__.py").write_text(
        "raise ImportError"
    )  # in the place of ours, which may be installed
    with processes(tmp_path, environment) as cluster:
        cluster.start(*WORKER, "--resources", "CPU=1 GPU=1", folder=tmp_path)
        with open_cluster(cluster.config(), note=print) as client:
            (missing,) = [one for one in inspect(client, Needs("cpu", {}, tmp_path)) if one.state == "missing"]
        with pytest.raises(ConfigurationError, match="network workers cannot import this package"):
            device_of(cluster.config())
    assert missing.detail == "1 processes cannot import this package"


def test_no_scheduler_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigurationError, match=r"no scheduler file scheduler\.json yet"),
        open_cluster(ClusterConfig("scheduler", scheduler_file=tmp_path / "scheduler.json"), note=print),
    ):
        pass


class Gone:
    """A client whose scheduler is gone, as Dask's own behaves now and then where connections are TLS."""

    def close(self) -> None:
        raise ValueError("IOStream is not idle; cannot convert to SSL")


def test_what_ended_a_run_is_told_even_if_the_connection_cannot_be_closed() -> None:
    with pytest.raises(ConfigurationError, match="the scheduler is gone"), closed_at_last(Gone()):  # type: ignore[arg-type]
        raise ConfigurationError("the scheduler is gone")
