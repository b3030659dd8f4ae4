"""Clusters whose workers run elsewhere: a scheduler in this process, or one that is there already."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import dask
from distributed import Client, Scheduler, SpecCluster

from cluster.folder import ClusterFolder
from cluster.links import LOOPBACK, require_bokeh
from cluster.resources import offered
from cluster.settings import settings
from cohort.errors import ConfigurationError

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S: Final = 30.0
_POLL_S: Final = 0.25

Note = Callable[[str], None]
"""Shows one line of text to the user."""


@contextmanager
def own_scheduler(folder: ClusterFolder, *, interface: str | None, dashboard: bool) -> Iterator[Client]:
    """A scheduler in this process that lets in who has the folder's key, and a client of it.

    When the scheduler ends, also by a kill, its workers see the connection break and end themselves.
    """
    if dashboard:
        require_bokeh()
    options: dict[str, Any] = {
        "port": 0,
        "dashboard": dashboard,
        "dashboard_address": f"{LOOPBACK}:0",  # its pages ask nobody for a key
        "scheduler_file": str(folder.scheduler_file),
        "security": folder.security(),
        "protocol": "tls://",
    }
    if interface:
        options["interface"] = interface
    with (
        dask.config.set(settings()),
        SpecCluster(
            scheduler={"cls": Scheduler, "options": options},
            security=folder.security(),
            silence_logs=logging.ERROR,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def existing_scheduler(where: str | Path, *, timeout_s: float = CONNECT_TIMEOUT_S) -> Iterator[Client]:
    """A client of a scheduler that somebody started, by its address or its scheduler file.

    Where `cluster.pem` lies beside the scheduler file it is shown to the scheduler; else Dask's own settings apply.

    Raises
    ------
    ConfigurationError
        if nothing answers there
    """
    told: dict[str, Any] = {"address": where}
    if isinstance(where, Path):
        if not where.exists():
            raise ConfigurationError(f"there is no scheduler file {where.name} yet: start `dask scheduler` first")
        told = {"scheduler_file": str(where), "security": ClusterFolder(where.parent).security()}
    try:
        client = Client(**told, timeout=timeout_s, set_as_default=False)
    except (OSError, ValueError, RuntimeError) as error:
        name = where.name if isinstance(where, Path) else where
        raise ConfigurationError(
            f"no scheduler answers at {name} ({type(error).__name__}); is it running, and has it the same key?"
        ) from error
    with closed_at_last(client):
        yield client


@contextmanager
def closed_at_last(client: Client) -> Iterator[Client]:
    """Close a client at the end, whatever has become of its scheduler.

    Where that is gone Dask's own attempts to reconnect may make `close` raise (a TLS connection that breaks in its
    handshake: ValueError of tornado). There is nothing to close then, and what ended the run must be told instead.
    """
    try:
        yield client
    finally:
        try:
            client.close()
        except Exception as error:
            logger.warning("the connection to the scheduler was not closed in order: %s", type(error).__name__)


def wait_for_lanes(
    client: Client, expected: Mapping[str, int], *, timeout_s: float, note: Note, alive: Callable[[], bool]
) -> None:
    """Wait until workers offer what is expected, or begin with fewer after the time limit.

    Parameters
    ----------
    expected : resource -> number of workers
    alive : says if more workers may still come (jobs are queued or running, processes have not ended)

    Raises
    ------
    ConfigurationError
        if a resource is not offered at all when the time is over or no more workers can come
    """
    deadline = time.monotonic() + timeout_s
    while not _all_there(there := offered(client), expected):
        if time.monotonic() > deadline or not alive():
            there = offered(client)
            break
        time.sleep(_POLL_S)
    lacking = [name for name in expected if not there.get(name)]
    if lacking:
        raise ConfigurationError(
            f"no worker offers {' or '.join(lacking)} after {timeout_s:.0f} s (cluster.start_timeout_s) or at the end "
            "of their jobs; their logs say why"
        )
    if not _all_there(there, expected):
        note(f"beginning with fewer workers than asked for: {_text(there)} of {_text(expected)}")


def _all_there(there: Mapping[str, int], expected: Mapping[str, int]) -> bool:
    return all(there.get(name, 0) >= n for name, n in expected.items())


def _text(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {name}" for name, n in sorted(counts.items()))
