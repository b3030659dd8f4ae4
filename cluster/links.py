"""Addresses of the pages that a scheduler serves: Prometheus metrics and, where it is on, Dask's dashboard."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Final
from urllib.parse import urlsplit

from distributed import Client

from cohort.errors import ConfigurationError

LOOPBACK: Final = "127.0.0.1"
"""Schedulers that a run starts serve their pages there only: they ask nobody for a key."""


def require_bokeh() -> None:
    """Raise `ConfigurationError` where the dashboard cannot be shown: Dask would leave it away without a word."""
    if find_spec("bokeh") is None:
        raise ConfigurationError("cluster.dashboard needs the package bokeh: pip install 'lumbar-cohort[cluster]'")


def links(client: Client) -> dict[str, str]:
    """`metrics`, and `dashboard` where it is on -> address.

    Metrics need the package prometheus_client on the scheduler, else their page says that it is missing.
    """
    address, port, dashboard = client.run_on_scheduler(_pages)
    everywhere = address in ("0.0.0.0", "::")
    host = urlsplit(client.scheduler_info()["address"]).hostname if everywhere else address
    base = f"http://{host}:{port}"
    return {"metrics": f"{base}/metrics", **({"dashboard": f"{base}/status"} if dashboard else {})}


def _pages(dask_scheduler: Any) -> tuple[str, int, bool]:
    """Where the pages are served, and whether the dashboard is among them."""
    server = dask_scheduler.http_server
    return server.address, server.port, bool(dask_scheduler.http_application.applications)
