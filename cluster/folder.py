"""The folder that client, scheduler and workers of one cluster share: settings, key, scheduler file, logs.

A Dask scheduler runs whatever it is sent. On a network that others use it must not listen to everybody, so such a
cluster has a key: one PEM file with a private key and a self-signed certificate, readable by its owner only, which all
parts of the cluster show each other (TLS with mutual authentication).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import yaml
from distributed import Security

from cluster.settings import SETTINGS_FILE
from cohort.errors import ConfigurationError


class ClusterFolder:
    """Paths inside the folder."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.scheduler_file = self.path / "scheduler.json"
        self.key = self.path / "cluster.pem"
        self.config = self.path / "config"
        """Value of DASK_CONFIG for scheduler and workers; Dask reads all YAML files in it."""

    def prepare(self) -> None:
        """Write settings and a new key; what is there is kept, so that running workers stay in the cluster.

        Raises
        ------
        ConfigurationError
            if the package `cryptography` is missing
        """
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.config.mkdir(exist_ok=True)
        shutil.copyfile(SETTINGS_FILE, self.config / "dask.yaml")
        (self.config / "tls.yaml").write_text(yaml.safe_dump(_tls_settings(self.key)), encoding="utf-8")
        if not self.key.exists():
            _write_key(self.key)

    def security(self) -> Security | None:
        """What a client shows the scheduler; None where the folder has no key."""
        if not self.key.exists():
            return None
        key = str(self.key)
        return Security(
            require_encryption=True,
            tls_ca_file=key,
            tls_client_cert=key,
            tls_scheduler_cert=key,
            tls_worker_cert=key,
        )


def _tls_settings(key: Path) -> dict[str, object]:
    roles = {role: {"cert": str(key)} for role in ("scheduler", "worker", "client")}
    tls = {"ca-file": str(key), **roles}
    return {"distributed": {"comm": {"require-encryption": True, "default-scheme": "tls", "tls": tls}}}


def _write_key(path: Path) -> None:
    try:
        made = Security.temporary()
    except ImportError as error:
        raise ConfigurationError(
            "workers on other machines need the package cryptography: pip install 'lumbar-cohort[cluster]'"
        ) from error
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(made.tls_scheduler_key + made.tls_scheduler_cert)
