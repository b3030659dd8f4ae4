"""Processes beside a process that has threads already."""

from __future__ import annotations

import torch

from cohort.processes import process_pool

N = 4_000_000


def doubled(n: int) -> float:
    """A loop that torch shares among its threads."""
    torch.set_num_threads(2)
    return float((torch.ones(n) * 2).sum())


def test_processes_work_though_this_one_has_run_parallel_loops() -> None:
    assert doubled(N) == 2 * N
    with process_pool(1) as pool:
        assert pool.submit(doubled, N).result(timeout=300) == 2 * N
