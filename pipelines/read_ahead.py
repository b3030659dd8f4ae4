"""Run iterators in threads, ahead of who consumes them, but only so far."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class _Abandoned(Exception):  # noqa: N818
    """Ends a reading thread whose consumer has stopped."""


class _Buffer(Generic[T]):
    """What has been read and not yet taken: at most `capacity` in sum, or one larger item alone."""

    def __init__(self, capacity: int, n_sources: int) -> None:
        self._capacity = capacity
        self._n_sources = n_sources
        self._items: deque[tuple[T, int]] = deque()
        self._held = 0
        self._error: BaseException | None = None
        self._abandoned = False
        self._changed = threading.Condition()

    def put(self, item: T, size: int) -> None:
        """Wait for room."""
        with self._changed:
            self._changed.wait_for(lambda: self._abandoned or not self._held or self._held + size <= self._capacity)
            if self._abandoned:
                raise _Abandoned
            self._items.append((item, size))
            self._held += size
            self._changed.notify_all()

    def source_ended(self, error: BaseException | None) -> None:
        with self._changed:
            self._n_sources -= 1
            self._error = self._error or error
            self._changed.notify_all()

    def abandon(self) -> None:
        with self._changed:
            self._abandoned = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._items or self._error) or not self._n_sources)
                if self._error is not None:
                    raise self._error
                if not self._items:
                    return
                item, size = self._items.popleft()
                self._held -= size
                self._changed.notify_all()
            yield item


def _fill(source: Iterable[T], buffer: _Buffer[T], size: Callable[[T], int]) -> None:
    error: BaseException | None = None
    try:
        for item in source:
            buffer.put(item, size(item))
    except _Abandoned:
        pass
    except BaseException as raised:  # the consumer raises it
        error = raised
    buffer.source_ended(error)


@contextmanager
def read_ahead(sources: Sequence[Iterable[T]], *, capacity: int, size: Callable[[T], int]) -> Iterator[Iterator[T]]:
    """Give an iterator over the items of all sources, each of which runs in a thread of its own.

    Items of one source come in their order; sources mix. What a source raises is raised by the iterator. At the end of
    the block, however it ends, the threads are waited for.

    Parameters
    ----------
    capacity : sum of the sizes of items that wait to be taken; a larger item waits alone
    """
    buffer: _Buffer[T] = _Buffer(capacity, len(sources))
    threads = [threading.Thread(target=_fill, args=(source, buffer, size), daemon=True) for source in sources]
    for thread in threads:
        thread.start()
    try:
        yield iter(buffer)
    finally:
        buffer.abandon()
        for thread in threads:
            thread.join()
