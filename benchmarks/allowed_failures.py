"""What `allowed-failures` of Dask's scheduler costs: one hanging item, and three of four workers lost at once.

Run: python benchmarks/allowed_failures.py
"""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial
from typing import Final

from cluster.local import local_cluster
from cluster.resources import workers_of
from pipelines.outcome import Outcome, Result, WorkItem, each
from pipelines.window import DaskExecutor, Stage, run_window

N_ITEMS: Final = 40
TIME_LIMIT_S: Final = 4.0
LOST_AFTER_S: Final = 1.2


def hang_on_one(item: WorkItem) -> Result:
    """0.2 s of sleep; item 3 never ends."""
    if item.exam_id == "3":
        threading.Event().wait()
    time.sleep(0.2)
    return Result()


def work(item: WorkItem) -> Result:
    """0.5 s of sleep."""
    time.sleep(0.5)
    return Result()


STAGES: Final = {
    "one hangs": Stage("load", "CPU", partial(each, hang_on_one), time_limit_s=TIME_LIMIT_S),
    "three of four workers lost": Stage("load", "CPU", partial(each, work)),
}


def measure(what: str, allowed_failures: int) -> None:
    """Print how long the items took and which of them failed."""
    outcomes: list[Outcome] = []

    def collect(outcome: Outcome) -> list[WorkItem]:
        outcomes.append(outcome)
        return []

    with local_cluster(4, device="cpu", memory_limit="1GiB", torch_threads=1) as client:
        client.run_on_scheduler(_allow, allowed_failures)
        victims = [address for address, one in workers_of(client).items() if one["name"] in ("cpu-1", "cpu-2", "cpu-3")]
        pids = list(client.run(os.getpid, workers=victims).values())
        executor = DaskExecutor(client)
        if what != "one hangs":
            threading.Timer(LOST_AFTER_S, lambda: [os.kill(pid, signal.SIGKILL) for pid in pids]).start()
        started = time.perf_counter()
        items = [WorkItem(str(k), "load", "f") for k in range(N_ITEMS)]
        run_window(items, [STAGES[what]], executor=executor, on_outcome=collect)
        seconds = time.perf_counter() - started
    failed = [(outcome.exam_id, outcome.reason) for outcome in outcomes if outcome.status != "ok"]
    print(f"{what}, allowed-failures {allowed_failures}: {seconds:.1f} s; failed: {failed}", flush=True)


def _allow(n: int, dask_scheduler: object) -> None:
    dask_scheduler.allowed_failures = n  # type: ignore[attr-defined]


if __name__ == "__main__":
    for what in STAGES:
        for allowed_failures in (0, 1):
            measure(what, allowed_failures)
