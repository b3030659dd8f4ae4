"""Workers on a host that a real sshd on loopback lets us into."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.config import ClusterConfig
from cluster.preflight import Needs, inspect
from cluster.profiles import device_of, open_cluster
from cluster.resources import offered
from cohort.errors import ConfigurationError

ROOT = Path(__file__).parents[1]
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
pytestmark = pytest.mark.skipif(
    not (SSHD and shutil.which("ssh") and shutil.which("ssh-keygen")), reason="not installed: openssh-server"
)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    """A running sshd with keys of its own; a folder for the site's files and the options that `ssh` needs to get in."""
    folder = tmp_path_factory.mktemp("ssh")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized_keys")
    port = free_port()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    settings = {
        "ListenAddress": f"127.0.0.1:{port}",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "authorized_keys",
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
    }
    (folder / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd insists on it when it is started by root
    with (folder / "sshd.log").open("wb") as log:
        daemon = subprocess.Popen([str(SSHD), "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    try:
        wait_for_port(port, daemon, folder / "sshd.log")
        told = ["-F", "none", "-p", str(port), "-i", str(folder / "user")]
        yield folder, [*told, "-o", f"UserKnownHostsFile={folder / 'known_hosts'}", "-o", "IdentitiesOnly=yes"]
    finally:
        daemon.terminate()
        daemon.wait()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for_port(port: int, daemon: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if daemon.poll() is not None:
            pytest.skip(f"sshd does not start here: {log.read_text().strip()}")
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.skip("sshd does not listen")


def write_site(folder: Path, options: list[str], *, cpu: int = 2) -> Path:
    """Workers run this checkout, whatever is installed: their python is a script that says where it is."""
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    path = folder / "site.yaml"
    path.write_text(
        f"folder: shared\ndevice: cpu\npython: {python}\ncpu_memory: 1GiB\ngpu_memory: 2GiB\ngpu_cores: 2\n"
        f"options: {options}\nhosts: [{{host: 127.0.0.1, cpu: {cpu}, gpu: 1}}]\n"
    )
    return path


def test_workers_of_both_lanes_start_on_a_host_and_end_with_the_run(
    sshd: tuple[Path, list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    folder, options = sshd
    config = ClusterConfig("ssh", site=write_site(folder, options), start_timeout_s=60)
    notes: list[str] = []
    assert device_of(config) == "cpu"
    with open_cluster(config, note=notes.append) as client:
        assert offered(client) == {"CPU": 2, "GPU": 1}
        pids = list(client.run(os.getpid).values())
        checks = inspect(client, Needs("cpu", {"this file": Path(__file__)}, folder, folder))
        (logs,) = (folder / "shared").iterdir()
        assert sorted(path.name for path in logs.glob("*.log")) == ["127.0.0.1-cpu.log", "127.0.0.1-gpu.log"]
    assert {one.what: one.state for one in checks if one.state != "ok"} == {"memory per worker": "warning"}
    assert notes == [f"workers are starting on 1 hosts; logs in {logs.name} of cluster.site's folder"]
    assert not logs.exists()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert capfd.readouterr().err == ""


def test_a_host_that_does_not_let_us_in_is_said_soon(sshd: tuple[Path, list[str]]) -> None:
    folder, options = sshd
    without_key = [option for option in options if option not in ("-i", str(folder / "user"))]
    config = ClusterConfig("ssh", site=write_site(folder, without_key), start_timeout_s=60)
    with pytest.raises(ConfigurationError, match="no worker offers CPU or GPU"), open_cluster(config, note=print):
        pass
    (left,) = (folder / "shared").iterdir()
    assert "Permission denied" in (left / "127.0.0.1-cpu.log").read_text()
    assert not (left / "cluster.pem").exists()
