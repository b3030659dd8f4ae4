"""Real worker processes: what they offer, what happens when one dies or hangs, and what is left after closing."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest
from distributed import get_worker

from cluster.facts import scheduler_settings
from cluster.links import links
from cluster.local import local_cluster
from cluster.resources import available_cores, offered, preflight, resolve_device
from cluster.settings import ALLOWED_FAILURES
from cohort.errors import ConfigurationError
from pipelines.outcome import Outcome, Result, WorkItem, each
from pipelines.window import DaskExecutor, Stage, run_window

POISON = "e5"
ENDLESS = "e3"


def gpu_is_here() -> bool:
    import torch  # workers import this module too, and need no torch to die

    return torch.cuda.is_available()


def describe_worker() -> tuple[str, int, bool]:
    import torch

    return str(get_worker().name), torch.get_num_threads(), multiprocessing.current_process().daemon


def die_of_poison(item: WorkItem) -> Result:
    if item.exam_id == POISON:
        os.kill(os.getpid(), signal.SIGKILL)
    return Result()


def hang(item: WorkItem) -> Result:
    if item.exam_id == ENDLESS:
        threading.Event().wait()
    return Result()


def run_all(executor: DaskExecutor, stage: Stage, n: int) -> dict[str, Outcome]:
    outcomes: list[Outcome] = []

    def collect(outcome: Outcome) -> list[WorkItem]:
        outcomes.append(outcome)
        return []

    items = [WorkItem(f"e{i}", stage.name, "f") for i in range(n)]
    run_window(items, [stage], executor=executor, on_outcome=collect)
    assert len(outcomes) == n
    return {outcome.exam_id: outcome for outcome in outcomes}


def own_processes() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "resource_tracker" not in " ".join(child.cmdline())]


def listening_addresses() -> set[str]:
    sockets = [s for process in [psutil.Process(), *own_processes()] for s in process.net_connections("tcp")]
    return {s.laddr.ip for s in sockets if s.status == psutil.CONN_LISTEN}


def test_dead_and_hanging_workers_cost_exactly_the_guilty_exams(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = len(own_processes())
    with local_cluster(2, device="cpu", memory_limit="2GiB", scratch_dir=tmp_path, torch_threads=2) as client:
        assert offered(client) == {"CPU": 2, "GPU": 1}
        preflight(offered(client), ["CPU", "GPU"])
        with pytest.raises(ConfigurationError, match=r"no worker offers TPU; workers offer \{'CPU': 2, 'GPU': 1\}"):
            preflight(offered(client), ["CPU", "TPU"])
        name, threads, daemon = client.submit(describe_worker, resources={"GPU": 1}).result()
        assert (name, threads, daemon) == ("gpu-0", 2, False)
        assert client.run_on_scheduler(scheduler_settings)[ALLOWED_FAILURES] == 0
        assert listening_addresses() == {"127.0.0.1"}
        assert any(tmp_path.rglob("worker-*"))

        executor = DaskExecutor(client)
        killed = run_all(executor, Stage("convert", "CPU", partial(each, die_of_poison), batch_size=2), 8)
        assert {exam for exam, outcome in killed.items() if outcome.status != "ok"} == {POISON}
        assert (killed[POISON].reason, killed[POISON].error_type) == ("worker_killed", "KilledWorker")
        assert killed[POISON].worker.startswith("cpu-")

        limited = Stage("load", "CPU", partial(each, hang), batch_size=2, time_limit_s=0.5)
        hung = run_all(executor, limited, 4)
        assert {exam for exam, outcome in hung.items() if outcome.status != "ok"} == {ENDLESS}
        assert hung[ENDLESS].reason == "timed_out"
    capfd.readouterr()  # the watchdog wrote where the code hung
    deadline = time.monotonic() + 5
    while len(own_processes()) > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(own_processes()) == before


def test_closing_is_quiet(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with local_cluster(1, device="cpu", memory_limit="2GiB") as client:
        (page,) = links(client).items()
        assert page[0] == "metrics"
        with urlopen(page[1]) as metrics:
            assert b"dask_scheduler_workers" in metrics.read()
        run_all(DaskExecutor(client), Stage("convert", "CPU", partial(each, hang)), 2)
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


CLOSED_TOO_LATE = """
from cluster import local
local.END_S = 0.0
if __name__ == "__main__":
    with local.local_cluster(1, device="cpu") as client:
        print(client.submit(__import__("os").getpid).result())
    print("the run goes on")
"""


@pytest.mark.slow
def test_a_cluster_that_does_not_close_in_time_fails_nothing_and_ends_with_the_process(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(CLOSED_TOO_LATE)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    worker, said = done.stdout.splitlines()
    assert said == "the run goes on"
    assert "workers did not end in time" in done.stderr
    assert not psutil.pid_exists(int(worker))


def test_the_dashboard_is_served_on_loopback_when_it_is_asked_for() -> None:
    pytest.importorskip("bokeh", reason="not installed: bokeh")
    with local_cluster(1, device="cpu", memory_limit="2GiB", dashboard=True) as client:
        pages = links(client)
        assert pages["dashboard"].startswith("http://127.0.0.1:")
        with urlopen(pages["dashboard"]) as page:
            assert b"Dask" in page.read()


def test_cluster_without_cpu_workers_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="at least one CPU worker"), local_cluster(0, device="cpu"):
        pass


def test_devices() -> None:
    assert resolve_device("cpu") == "cpu"
    assert available_cores() >= 1
    with pytest.raises(ConfigurationError, match="auto, cpu or cuda, not 'tpu'"):
        resolve_device("tpu")
    assert resolve_device("auto") == ("cuda" if gpu_is_here() else "cpu")


def test_requested_gpu_that_is_absent_is_an_error() -> None:
    if gpu_is_here():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigurationError, match="torch sees no GPU"):
        resolve_device("cuda")


@pytest.mark.gpu
def test_gpu_worker_sees_its_gpu() -> None:
    if not gpu_is_here():
        pytest.skip("needs an NVIDIA GPU")
    with local_cluster(1, device="cuda") as client:
        assert client.submit(gpu_is_here, resources={"GPU": 1}).result()
