"""`cohort doctor`: what it says of this machine and of workers, and its exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from models.registry import WEIGHTS
from pipelines.cli import main
from pipelines.lock import only_run


def examine(*options: str | Path, code: int) -> dict[str, dict[str, Any]]:
    """Rows by what they are about."""
    told = CliRunner().invoke(main, ["doctor", "--json", *map(str, options)])
    assert told.exit_code == code, told.output
    return {one["what"]: one for one in json.loads(told.stdout)}


def config(folder: Path, text: str = "") -> Path:
    path = folder / "cohort.toml"
    path.write_text(f'[privacy]\nkey_file = "key"\n{text}')
    return path


def test_a_machine_that_can_run_is_complete_and_nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    path = config(tmp_path)
    rows = examine("--config", path, "--store", tmp_path / "store", "--archive", tmp_path / "archive", code=0)
    assert rows["python"]["detail"] == sys.version.split()[0]
    assert {"torch", "zarr", "opensim", "cores", "memory", "GPU", "weights of disc"} <= set(rows)
    assert rows["store"]["detail"] == "not there yet: the first run makes it"
    assert rows["key of the pseudonyms"]["detail"] == "none yet: the first run makes one"
    assert (rows["archive"]["state"], rows["archive"]["remedy"]) == ("warning", "is it mounted?")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["archive", "cohort.toml"]


def test_what_is_wrong_is_said_with_what_to_do(tmp_path: Path) -> None:
    for file in WEIGHTS.glob("disc.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "disc.safetensors").write_bytes(b"damaged")
    (tmp_path / "key").write_bytes(b"k" * 32)
    (tmp_path / "key").chmod(0o644)
    path = config(tmp_path, '[segment.networks]\ndisc = "disc.json"\n')
    with only_run(tmp_path):
        rows = examine("--config", path, "--store", tmp_path, "--archive", tmp_path / "none", code=1)
    assert rows["weights of disc"]["state"] == "missing"
    assert rows["weights of disc"]["detail"] == "disc.safetensors has another sha256"
    assert rows["key of the pseudonyms"]["remedy"] == "chmod 600 key"
    assert rows["archive"]["state"] == "missing"
    assert rows["lock"]["detail"].startswith("another run: run on ")
    assert examine("--config", config(tmp_path), "--store", tmp_path, code=0)["lock"]["detail"] == "no other run"


def test_profile_cuda_is_incomplete_without_a_gpu(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    rows = examine("--cluster", "cuda", "--config", config(tmp_path), code=1)
    assert rows["GPU"]["state"] == "missing"
    assert "resource GPU" not in rows  # nothing was started


def test_programs_and_the_site_of_a_profile_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site.yaml").write_text("folder: shared\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    rows = examine("--config", config(tmp_path, '[cluster]\nprofile = "slurm"\nsite = "site.yaml"\n'), code=1)
    assert rows["sbatch"] == {
        "what": "sbatch",
        "state": "missing",
        "detail": "not on the path",
        "remedy": "run where sbatch is installed",
    }
    assert rows["site's file"]["detail"] == "site.yaml: cpu, gpu must be given"


def test_a_scheduler_that_is_not_there_is_a_row(tmp_path: Path) -> None:
    text = '[cluster]\nprofile = "scheduler"\nscheduler_file = "scheduler.json"\n'
    rows = examine("--cluster", "scheduler", "--config", config(tmp_path, text), code=1)
    assert "no scheduler file scheduler.json" in rows["profile scheduler"]["detail"]


def test_workers_are_started_and_looked_at(tmp_path: Path) -> None:
    """In a process of its own: the table is for people, and workers of a test need a main module."""
    path = config(tmp_path, '[cluster]\nworkers = 1\ndevice = "cpu"\nmemory_limit = "3GiB"\n')
    code = "from pipelines.cli import main\nif __name__ == '__main__': main()"
    words = ["doctor", "--cluster", "local", "--config", str(path), "--store", str(tmp_path / "store")]
    told = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=Path(__file__).parents[1], capture_output=True, text=True
    )
    assert told.returncode == 0, told.stdout + told.stderr
    for row in ("resource CPU", "resource GPU", "memory per worker", "versions on workers", "store on workers"):
        assert row in told.stdout
    assert "missing" not in told.stdout
    assert not (tmp_path / "store").exists()
