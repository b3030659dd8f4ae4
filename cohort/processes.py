"""Processes for work that needs no cluster: exams at a time on one machine."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context


def process_pool(n: int) -> ProcessPoolExecutor:
    """So many processes, each started anew.

    A fork of a process with threads (those of torch, OpenCV or BLAS) has their locks but not the threads: it may wait
    for ever in its first parallel loop, as phantoms made after an inference in the same process did.
    """
    return ProcessPoolExecutor(n, mp_context=get_context("spawn"))
