"""Section [cluster] and the sites' YAML files: what they may say, and what their errors say."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from cluster.config import ClusterConfig
from cluster.folder import ClusterFolder
from cluster.profiles import device_of
from cluster.site import CpuJobs, GpuJobs, SlurmSite, SshHost, SshSite, read_site
from cluster.slurm import write_scripts
from cohort.errors import ConfigurationError
from pipelines.cli import main
from pipelines.config import read_config, resolved_toml
from pipelines.doctor import for_profile

ROOT = Path(__file__).parents[1]
SLURM = "folder: shared\ncpu: {partition: cpu}\ngpu: {partition: gpu}\n"
SSH = "folder: shared\nhosts: [{host: a, cpu: 2}, {host: b, gpu: 1}]\n"
KUBERNETES = "image: i\nvolumes: [{claim: a, path: /a}]\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "site.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_site_has_sensible_defaults(tmp_path: Path) -> None:
    site = read_site("slurm", written(tmp_path, SLURM))
    assert isinstance(site, SlurmSite)
    assert (site.folder, site.cpu, site.gpu, site.device) == (
        tmp_path / "shared",
        CpuJobs("cpu"),
        GpuJobs("gpu"),
        "cuda",
    )
    hosts = read_site("ssh", written(tmp_path, SSH))
    assert isinstance(hosts, SshSite)
    assert hosts.hosts == (SshHost("a", cpu=2), SshHost("b", gpu=1))


@pytest.mark.parametrize(
    ("profile", "text", "message"),
    [
        ("slurm", SLURM + "cpus: 3\n", "unknown key 'cpus'; valid keys: folder, cpu, gpu, device"),
        ("slurm", "folder: x\ncpu: {partition: cpu}\n", "site.yaml: gpu must be given"),
        ("slurm", SLURM.replace("cpu}", "cpu, worker: 2}"), "site.yaml: cpu: unknown key 'worker'"),
        ("slurm", SLURM.replace("cpu}", "cpu, workers: two}"), "cpu: workers must be a whole number, not 'two'"),
        ("slurm", SLURM.replace("cpu}", "cpu, workers: true}"), "cpu: workers must be a whole number, not True"),
        ("slurm", SLURM.replace("cpu}", "cpu, jobs: 0}"), "cpu.jobs is at least 1, not 0"),
        ("slurm", SLURM.replace("cpu}", "cpu, memory: lots}"), "cpu.memory is a size"),
        ("slurm", SLURM.replace("cpu}", "cpu, time: 12:00:00}"), "cpu: time must be text, not 43200"),
        ("slurm", SLURM.replace("cpu}", 'cpu, options: ["--a\\nrm"]}'), "is not one line of text"),
        ("slurm", SLURM.replace("cpu}", "cpu, options: --x}"), "cpu: options must be a list"),
        ("slurm", SLURM + "device: tpu\n", "device is one of cpu, cuda, not 'tpu'"),
        ("slurm", SLURM.replace("gpu}", "gpu, workers: 2}") + "device: cpu\n", "with device: cpu, gpu.workers is 1"),
        ("slurm", "- a", "site.yaml must be a table of keys"),
        ("slurm", "a: [", "site.yaml is not YAML"),
        ("ssh", "folder: x\nhosts: []\n", "no host has a cpu worker"),
        ("ssh", "folder: x\nhosts: [{host: a, cpu: 2}]\n", "no host has a gpu worker"),
        ("ssh", "folder: x\nhosts: [{host: a}]\n", "host a has no worker"),
        ("ssh", "folder: x\nhosts: [{host: -oProxyCommand=x, cpu: 1}]\n", "is no host"),
        ("kubernetes", "image: i\nvolumes: []\n", "workers see neither the archive nor the store"),
        ("kubernetes", KUBERNETES + "gpu: {replicas: 0}\n", "gpu.replicas is at least 1, not 0"),
    ],
)
def test_errors_of_a_site_say_what_and_where(tmp_path: Path, profile: str, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_site(profile, written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("profile = 'slurmm'", "cluster.profile is one of local, cuda, scheduler, slurm, ssh, kubernetes"),
        ("profile = 'slurm'", "profile slurm needs it"),
        ("site = 'site.yaml'", "profile local has none"),
        ("profile = 'scheduler'", "needs one of cluster.scheduler .* and cluster.scheduler_file"),
        ("profile = 'scheduler'\nscheduler = 'tcp://a:1'\nscheduler_file = 'f'", "needs one of"),
        ("scheduler = 'tcp://a:1'", "belong to profile scheduler, not to local"),
        ("profile = 'ssh'\nsite = 's.yaml'\nworkers = 3", "belong to profiles local and cuda, not to ssh"),
        ("profile = 'cuda'\ndevice = 'cpu'", "profile cuda needs a GPU"),
        ("start_timeout_s = 0", "cluster.start_timeout_s is positive"),
    ],
)
def test_errors_of_the_section_say_what_belongs_where(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "cohort.toml"
    path.write_text(f"[cluster]\n{text}\n")
    with pytest.raises(ConfigurationError, match=message):
        read_config(path)


def test_paths_of_a_profile_are_relative_to_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "cohort.toml"
    path.write_text('[cluster]\nprofile = "slurm"\nsite = "site.yaml"\n')
    config = read_config(path)
    assert config.cluster.site == tmp_path / "site.yaml"
    path.write_text(resolved_toml(config))
    assert read_config(path) == config


def test_another_profile_keeps_what_it_can_use(tmp_path: Path) -> None:
    slurm = ClusterConfig("slurm", site=tmp_path / "site.yaml", device="cuda")
    assert for_profile(slurm, None) == slurm
    assert for_profile(slurm, "local") == ClusterConfig(device="cuda")
    assert for_profile(ClusterConfig(workers=3, device="cpu"), "cuda") == ClusterConfig("cuda", workers=3)
    with pytest.raises(ConfigurationError, match="profile scheduler needs one of"):
        for_profile(ClusterConfig(), "scheduler")


def test_the_device_of_a_site_is_what_its_file_says(tmp_path: Path) -> None:
    site = written(tmp_path, SLURM + "device: cpu\n")
    assert device_of(ClusterConfig("slurm", site=site)) == "cpu"
    with pytest.raises(ConfigurationError, match=r"cluster\.device is cuda, but the site's file says device: cpu"):
        device_of(ClusterConfig("slurm", site=site, device="cuda"))


def test_job_scripts_ask_for_what_the_site_says(tmp_path: Path) -> None:
    text = (
        "folder: shared\npython: /opt/my env/bin/python\ninterface: ib0\nsetup: module load cuda\n"
        'cpu: {partition: normal, jobs: 3, workers: 8, memory: 2GiB, time: "04:00:00", options: ["--account=spine"]}\n'
        'gpu: {partition: a100, workers: 2, cores: 4, memory: 8GiB, gres: "gpu:a100"}\n'
    )
    site = read_site("slurm", written(tmp_path, text))
    assert isinstance(site, SlurmSite)
    _, cpu, gpu = (path.read_text() for path in write_scripts(site, ClusterFolder(tmp_path / "a folder")))
    for line in ("--partition=normal", "--array=1-3", "--cpus-per-task=8", "--mem=16896M", "--time=04:00:00"):
        assert f"#SBATCH {line}\n" in cpu
    assert "#SBATCH --account=spine\n" in cpu
    assert "--gres" not in cpu
    assert "'/opt/my env/bin/python' -m distributed.cli.dask_worker" in cpu
    assert "--resources CPU=1" in cpu
    assert "--nworkers 8" in cpu
    for line in ("--partition=a100", "--cpus-per-task=8", "--mem=16896M", "--gres=gpu:a100:2"):
        assert f"#SBATCH {line}\n" in gpu
    assert "module load cuda\nexec env" in gpu
    assert "-m dask cuda worker" in gpu
    assert "--interface ib0" in gpu
    assert f"DASK_CONFIG='{tmp_path / 'a folder' / 'config'}'" in gpu


DOCS = Path(__file__).parents[1] / "docs" / "cluster"


@pytest.mark.parametrize("page", ["slurm", "ssh", "kubernetes"])
def test_the_site_of_each_recipe_can_be_read(tmp_path: Path, page: str) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", (DOCS / f"{page}.md").read_text(), flags=re.DOTALL)
    assert read_site(page, written(tmp_path, example)).device == "cuda"


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_configurations_commands_and_files_of_each_recipe_exist(tmp_path: Path, page: str) -> None:
    text = (DOCS / page).read_text()
    for example in re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL):
        (tmp_path / "cohort.toml").write_text(example)
        read_config(tmp_path / "cohort.toml")
    for path in re.findall(r"`((?:cluster|tests|benchmarks)/[\w./-]+\.(?:py|yaml))`", text):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"\]\(([\w./-]+\.md)\)", text):
        assert (DOCS / path).exists(), path
    for command in re.findall(r"^cohort (.*?)(?:  #.*)?$", text, flags=re.MULTILINE):
        words = itertools.takewhile(lambda word: re.fullmatch("[a-z]+", word), command.split())
        told = CliRunner().invoke(main, [*words, "--help"])
        assert told.exit_code == 0, command
        for option in re.findall(r"--[a-z-]+", command):
            assert option in told.output, command
