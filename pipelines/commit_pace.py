"""When to commit: often enough to lose little, seldom enough to cost little, however large the store is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

COMMIT_SHARE: Final = 0.05
"""Of the time. A commit rewrites all buckets that it touches: in a large store it takes long, so it is done less
often."""


class CommitPace:
    """Says when the next commit is due.

    Parameters
    ----------
    every_s : a killed process loses at most the results of this time, or longer where commits are slow
    """

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._next = time.monotonic() + every_s

    @property
    def is_due(self) -> bool:
        """Whether to commit now."""
        return time.monotonic() > self._next

    @contextmanager
    def commit(self) -> Iterator[None]:
        """Enclose a commit: how long it takes says when the next one is due."""
        begun = time.monotonic()
        yield
        ended = time.monotonic()
        self._next = ended + max(self._every_s, (ended - begun) / COMMIT_SHARE)
