"""Slurm, the real one: job scripts, submitted jobs, and a whole run on its two partitions."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from slurm_site import running_slurm, why_not

from cluster.config import ClusterConfig
from cluster.facts import scheduler_settings, worker_settings
from cluster.preflight import Needs, inspect
from cluster.profiles import device_of, open_cluster
from cluster.remote import existing_scheduler
from cluster.resources import offered
from cluster.settings import settings
from cohort.errors import ConfigurationError
from models.phantom.dicom import write_exam
from models.phantom.exam import ExamPlan, make_exam
from pipelines.cli import main
from pipelines.config import LoadConfig, PrivacyConfig, RunConfig
from pipelines.progress import Progress
from pipelines.run import run

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A running Slurm; a folder for the site's files."""
    folder = tmp_path_factory.mktemp("slurm")
    with running_slurm(folder / "daemons") as conf, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(conf))
        patch.setenv("PYTHONPATH", str(ROOT))  # workers run this checkout
        yield folder


def write_site(folder: Path, cpu: str = "partition: cpu, workers: 2, memory: 1GiB") -> Path:
    path = folder / "site.yaml"
    path.write_text(
        f"folder: shared\ndevice: cpu\ncpu: {{{cpu}}}\ngpu: {{partition: gpu, cores: 2, memory: 2GiB}}\n",
        encoding="utf-8",
    )
    return path


def config(site: Path, timeout_s: float = 60.0) -> ClusterConfig:
    return ClusterConfig(profile="slurm", site=site, start_timeout_s=timeout_s)


def jobs() -> list[str]:
    """States of all jobs that Slurm still knows as waiting or running."""
    return subprocess.run(["squeue", "-h", "-o", "%j %T"], capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )


def wait_for_file(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.1)


def wait_for_no_jobs() -> None:
    deadline = time.monotonic() + 30
    while any(jobs()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(jobs())


def test_two_job_types_join_one_scheduler_and_end_with_it(slurm: Path, capfd: pytest.CaptureFixture[str]) -> None:
    notes: list[str] = []
    with open_cluster(config(write_site(slurm)), note=notes.append) as client:
        assert offered(client) == {"CPU": 2, "GPU": 1}
        assert sorted(line.split()[0] for line in jobs() if line) == ["cohort-cpu", "cohort-gpu"]
        assert client.scheduler.address.startswith("tls://")
        (folder,) = (slurm / "shared").iterdir()
        assert (folder / "cluster.pem").stat().st_mode & 0o777 == 0o600
        without_key = client.scheduler.address.replace("tls://", "tcp://")
        with (
            pytest.raises(ConfigurationError, match="no scheduler answers"),
            existing_scheduler(without_key, timeout_s=1),
        ):
            pass
        checks = {one.what: one for one in inspect(client, Needs("cpu", {}, slurm, slurm))}
    assert {one.state for one in checks.values() if one.what != "memory per worker"} == {"ok"}
    assert checks["memory per worker"].state == "warning"
    assert checks["settings of Dask"].detail == "as this version wants them"
    assert notes == [f"Slurm jobs 1, 2 submitted; logs in {folder.name}/logs of cluster.site's folder"]
    assert not folder.exists()
    wait_for_no_jobs()
    assert capfd.readouterr().err == ""


def test_workers_end_when_their_run_is_killed(slurm: Path) -> None:
    site = write_site(slurm)
    code = (
        "import time; from pathlib import Path\n"
        "from cluster.config import ClusterConfig; from cluster.profiles import open_cluster\n"
        "if __name__ == '__main__':\n"
        f"    with open_cluster(ClusterConfig('slurm', site=Path({str(site)!r})), note=print):\n"
        "        print('ready', flush=True); time.sleep(600)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert any(line == "ready\n" for line in child.stdout)
    child.kill()
    child.wait()
    child.stdout.close()
    wait_for_no_jobs()


def test_a_partition_that_does_not_exist_is_said_at_once(slurm: Path) -> None:
    site = write_site(slurm, cpu="partition: nowhere")
    with (
        pytest.raises(ConfigurationError, match=r"sbatch refuses cpu\.sbatch.*partition"),
        open_cluster(config(site), note=print),
    ):
        pass
    wait_for_no_jobs()


def test_jobs_that_end_before_a_worker_came_are_not_waited_for(slurm: Path) -> None:
    site = write_site(slurm)
    site.write_text(site.read_text() + "setup: exit 3\n")
    notes: list[str] = []
    expected = "no worker offers CPU or GPU"
    with pytest.raises(ConfigurationError, match=expected), open_cluster(config(site), note=notes.append):
        pass
    (name,) = re.findall(r"logs in (cluster-\w+)/logs", " ".join(notes))
    failed = slurm / "shared" / name
    assert not (failed / "cluster.pem").exists()
    wait_for_no_jobs()


def test_written_scripts_start_a_cluster_that_a_run_joins(slurm: Path) -> None:
    site, output = write_site(slurm), slurm / "written"
    told = CliRunner().invoke(main, ["cluster", "write", "slurm", str(site), "--output", str(output)])
    assert told.exit_code == 0, told.output
    commands = told.stdout.splitlines()
    assert [Path(command).name for command in commands] == ["scheduler.sbatch", "cpu.sbatch", "gpu.sbatch"]
    try:
        for command in commands:
            subprocess.run(command.split(), check=True, stdout=subprocess.PIPE)
        joined = ClusterConfig("scheduler", scheduler_file=output / "scheduler.json", start_timeout_s=60)
        wait_for_file(output / "scheduler.json")
        assert device_of(joined) == "cpu"
        with open_cluster(joined, note=print) as client:
            assert offered(client)["CPU"] >= 1
            assert not client.run_on_scheduler(scheduler_settings)["distributed.scheduler.work-stealing"]
            for found in client.run(worker_settings).values():
                assert found == {name: settings()[name] for name in found}
    finally:
        subprocess.run(["scancel", "--user", "root"], check=True)
    wait_for_no_jobs()


@pytest.mark.slow
def test_a_run_on_both_partitions(slurm: Path, tmp_path: Path) -> None:
    for seed in (611, 612):
        exam = make_exam(ExamPlan(seed, "F", 44, 1.64, 61.0, "none", 6))
        write_exam(tmp_path / "archive" / str(seed), exam, patient_name="X^Y", patient_id=f"P{seed}")
    own = RunConfig(
        cluster=config(write_site(slurm)),
        load=LoadConfig(tasks=("standing",)),
        privacy=PrivacyConfig(key_file=tmp_path / "key"),
    )
    with Progress() as progress:
        summary = run(tmp_path / "archive", tmp_path / "store", config=own, progress=progress)
    assert (summary.run.n_exams, summary.run.n_failed, summary.run.device) == (2, 0, "cpu")
    ledger = pd.read_parquet(tmp_path / "store" / "tables" / "ledger")
    lanes = {(row.stage, row.worker.split("-")[0]) for row in ledger.itertuples()}
    assert lanes == {("convert", "cpu"), ("segment", "gpu"), ("measure", "cpu"), ("load", "cpu")}
    assert len(pd.read_parquet(tmp_path / "store" / "tables" / "loads").exam_id.unique()) == 2
    wait_for_no_jobs()
