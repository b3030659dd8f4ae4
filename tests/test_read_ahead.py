"""Reading ahead in threads: everything arrives, no further than allowed, and threads end with their consumer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from pipelines.read_ahead import read_ahead


def test_every_item_arrives_in_the_order_of_its_source() -> None:
    sources = [[(k, i) for i in range(50)] for k in range(3)]
    with read_ahead(sources, capacity=4, size=lambda _: 1) as items:
        found = list(items)
    assert [[one for one in found if one[0] == k] for k in range(3)] == sources


def test_no_more_waits_than_fits() -> None:
    made: list[int] = []
    three_made = threading.Event()

    def source() -> Iterator[int]:
        for size in (3, 3, 3, 9, 1):
            made.append(size)
            if len(made) == 3:
                three_made.set()
            yield size

    with read_ahead([source()], capacity=6, size=int) as items:
        assert three_made.wait(60)
        time.sleep(0.1)  # for a thread that does not stop here
        assert made == [3, 3, 3]  # two wait, the third is in the thread's hands
        assert list(items) == [3, 3, 3, 9, 1]  # the one that is larger than all room waits alone


def test_what_a_source_raises_reaches_the_consumer() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), read_ahead([source()], capacity=9, size=int) as items:
        list(items)


def test_threads_end_with_their_consumer() -> None:
    before = threading.active_count()
    with read_ahead([iter(range(100)), iter(range(100))], capacity=2, size=lambda _: 1) as items:
        next(items)
        assert threading.active_count() > before
    assert threading.active_count() == before
