"""`cohort train` as users run it: killed and resumed, and the steps of docs/training.md as they are written there."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from importlib.util import find_spec
from pathlib import Path

import cv2
import pytest
import torch
from click.testing import CliRunner
from network_contracts import SMALL_CONTRACT

from cohort.errors import ConfigurationError
from models.registry import NetworkContract, save_network
from models.training.annotated import read_annotated
from models.training.curve import read_curve
from models.training.example import write_example
from models.vnet import VNet
from pipelines.cli import main
from pipelines.lock import only_run
from pipelines.train import train_network

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "training.md").read_text()

CONFIG = """
name = "own"
plane = "sagittal"
classes = ["disc"]
spacing_mm = 1.0
pool_subjects = 2
levels = 2
base_channels = 2
batch = 2
crop_px = 64
iterations = 100
validate_every = 10
"""


def _command(config: Path, folder: Path) -> subprocess.Popen[str]:
    """`cohort train` in its own process, on one thread: with another number of threads sums differ in the last bit."""
    code = "from pipelines.cli import main; main()"
    arguments = ["train", str(config), "--folder", str(folder), "--output", str(folder / "weights"), "--device", "cpu"]
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
    )


def _finish(config: Path, folder: Path) -> str:
    process = _command(config, folder)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def _checkpoint(folder: Path) -> Path | None:
    return next(folder.glob("own-*/checkpoint.pt"), None)


@pytest.mark.slow
def test_a_training_killed_after_a_checkpoint_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    config = tmp_path / "own.toml"
    config.write_text(CONFIG)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = _command(config, killed)
    deadline = time.monotonic() + 300
    while _checkpoint(killed) is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    path = _checkpoint(killed)
    assert path is not None
    stopped_at = torch.load(path, weights_only=True)["iteration"]
    assert 10 <= stopped_at < 100
    assert not list((killed / "weights").glob("own.*"))
    for pool in killed.glob("pool-*"):
        shutil.copytree(pool, whole / pool.name)
    assert f"goes on after iteration {stopped_at}" in _finish(config, killed)
    another = whole / "own-00000000" / "checkpoint.pt"
    another.parent.mkdir()
    another.touch()
    assert "checkpoints of other configurations are not continued: own-00000000" in _finish(config, whole)
    weights = [folder / "weights" / "own.safetensors" for folder in (killed, whole)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    curves = [read_curve(folder / path.parent.name) for folder in (killed, whole)]
    for row in (*curves[0], *curves[1]):
        row.pop("seconds")
    assert curves[0] == curves[1]
    assert [row["iteration"] for row in curves[0]][-1] == 100


def _block(kind: str) -> list[str]:
    """Code blocks of the section on one's own data."""
    section = PAGE.split("## On your own data")[1].split("\n## ")[0]
    return [textwrap.dedent(found) for found in re.findall(rf"^ *```{kind}\n(.*?)^ *```", section, re.M | re.S)]


@pytest.mark.slow
def test_the_steps_of_the_page_run_as_written_and_the_network_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own, cohort = _block("toml")
    Path("own.toml").write_text(own)
    for line in "".join(_block("sh")).splitlines():
        program, *arguments = shlex.split(line)
        assert program == "cohort"
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
    rows = read_curve(next(Path("runs/train").glob("own-*")))
    assert [row["iteration"] for row in rows] == list(range(0, 201, 25))
    for name in ("phantom_dice_disc", "real_dice_disc"):
        assert rows[-1][name] > 0.3 > 0.1 > rows[0][name]
    contract = json.loads(Path(re.findall(r'"(runs/.*?\.json)"', cohort)[0]).read_text())
    assert contract["annotated_dice"]["disc"] == pytest.approx(rows[-1]["real_dice_disc"])
    assert contract["credit"]
    shown = CliRunner().invoke(main, ["train", "own.toml"])
    assert shown.exit_code == 2
    assert "--slices" in shown.output
    again = CliRunner().invoke(main, ["train", "--make-example", "example"])
    assert again.exit_code == 2
    assert "not empty" in again.output


def test_an_example_has_the_documented_layout(tmp_path: Path) -> None:
    folder = tmp_path / "example"
    write_example(folder, lambda _: None, patients=(101, 108, 111))
    names = sorted(path.name for path in (folder / "images").iterdir())
    assert names == sorted(path.name for path in (folder / "labels").iterdir())
    with (folder / "series.csv").open() as file:
        assert {row["new_file_name"] for row in csv.DictReader(file)} == {name.rsplit("_slice")[0] for name in names}
    for name in names:
        labels = cv2.imread(str(folder / "labels" / name), cv2.IMREAD_UNCHANGED)
        assert set(labels.ravel().tolist()) == {0, 1, 2, 3}
    for part, patient in (("training", "101"), ("validation", "108"), ("test", "111")):
        assert read_annotated(folder, part, size=256, spacing_mm=1.0).patients == (patient, patient)


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ("", ["--slices", "."], "annotated_share"),
        pytest.param(
            "",
            ["--tensorboard"],
            "pip install 'lumbar-cohort[tensorboard]'",
            marks=pytest.mark.skipif(find_spec("tensorboard") is not None, reason="tensorboard is installed"),
        ),
        ("", ["--processes", "0"], "--processes"),
        ('start_from = "liver"', [], "liver"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_made(
    change: str, options: list[str], words: str, tmp_path: Path
) -> None:
    config, folder = tmp_path / "own.toml", tmp_path / "runs"
    config.write_text(f"{CONFIG}\n{change}\n")
    places = ["--folder", str(folder), "--output", str(tmp_path / "weights")]
    result = CliRunner().invoke(main, ["train", str(config), *places, *options])
    assert result.exit_code == 2
    assert words in result.output
    assert not folder.exists()


def test_start_weights_that_do_not_fit_are_refused_before_a_pool_is_made(tmp_path: Path) -> None:
    config, folder = tmp_path / "own.toml", tmp_path / "runs"
    config.write_text(CONFIG.replace("base_channels = 2", "base_channels = 3") + 'start_from = "muscle"\n')
    places = ["--folder", str(folder), "--output", str(tmp_path / "weights")]
    result = CliRunner().invoke(main, ["train", str(config), *places])
    assert result.exit_code == 2
    assert "no weight of start_from = 'muscle' has the shape" in result.output
    assert not folder.exists()


def test_real_slices_alone_teach_a_network(tmp_path: Path) -> None:
    write_example(tmp_path / "example", lambda _: None, patients=(101, 108))
    config = tmp_path / "own.toml"
    small = CONFIG.replace("iterations = 100", "iterations = 2").replace("pool_subjects = 2", "pool_subjects = 1")
    config.write_text(f'{small}annotated_share = 1.0\nannotated_credit = "a test"\n')
    places = ["--folder", str(tmp_path / "runs"), "--output", str(tmp_path / "weights"), "--device", "cpu"]
    result = CliRunner().invoke(main, ["train", str(config), "--slices", str(tmp_path / "example"), *places])
    assert result.exit_code == 0, result.output
    assert "2 of 2 in a batch are real" in result.output
    assert json.loads((tmp_path / "weights" / "own.json").read_text())["annotated_dice"].keys() == {"disc"}


BASE = dataclasses.replace(
    SMALL_CONTRACT,
    spacing_mm=1.0,
    max_side_px=384,
    activation="relu",
    training_data="10 earlier iterations",
    credit="the first source, CC BY 4.0",
    annotated_patients={"training": ["9", "P7"]},
)


def _short(folder: Path, **changes: str) -> Path:
    """A configuration of two iterations on one subject."""
    path = folder / "own.toml"
    small = CONFIG.replace("iterations = 100", "iterations = 2").replace("pool_subjects = 2", "pool_subjects = 1")
    path.write_text(small + "".join(f"{key} = {value}\n" for key, value in changes.items()))
    return path


def _run(config: Path, **options: Path) -> NetworkContract:
    folder, output = config.parent / "runs", config.parent / "weights"
    return train_network(
        str(config), folder=folder, output=output, device="cpu", processes=1, report=lambda _: None, **options
    )


def _save_start(folder: Path, name: str, seed: int = 0) -> None:
    torch.manual_seed(seed)
    save_network(folder / "weights", dataclasses.replace(BASE, name=name), VNet(BASE.config).state_dict())


def test_a_network_that_starts_from_one_of_its_name_says_the_same_of_its_data_however_often_it_is_trained(
    tmp_path: Path,
) -> None:
    write_example(tmp_path / "example", lambda _: None, patients=(101, 108))
    _save_start(tmp_path, "own")
    config = _short(
        tmp_path, start_from='"own"', annotated_share="0.5", annotated_credit='"the second source, Apache-2.0"'
    )
    first, *others = (_run(config, slices=tmp_path / "example") for _ in range(3))
    assert first.training_data.startswith("10 earlier iterations; then phantom version")
    assert first.training_data.count("; then ") == 1
    assert first.credit == "the first source, CC BY 4.0; the second source, Apache-2.0"
    assert first.annotated_patients == {"training": ["9", "P7", "101"], "validation": ["108"]}
    for again in others:
        assert dataclasses.replace(again, trained_on=first.trained_on) == first
    next((tmp_path / "runs").glob("own-*/start.json")).write_text("[]")
    with pytest.raises(ConfigurationError, match=r"start\.json beside the checkpoint cannot be read"):
        _run(config, slices=tmp_path / "example")


def test_a_training_does_not_go_on_from_another_start_and_phantom_alone_keeps_the_credit(tmp_path: Path) -> None:
    _save_start(tmp_path, "base")
    config = _short(tmp_path, start_from='"base"')
    found = _run(config)
    assert found.credit == BASE.credit
    assert found.annotated_patients == BASE.annotated_patients
    _save_start(tmp_path, "base", seed=1)
    with pytest.raises(ConfigurationError, match=r"other data \(start weights .*, now start weights"):
        _run(config)


@pytest.mark.parametrize("place", ["weights/.training-own", "runs/pool"])
def test_two_trainings_do_not_work_in_one_place(place: str, tmp_path: Path) -> None:
    config = _short(tmp_path)
    if place == "runs/pool":
        _run(config)
        place = f"runs/{next((tmp_path / 'runs').glob('pool-*')).name}"
    with (
        only_run(tmp_path / place),
        pytest.raises(ConfigurationError, match=r"is working in folder \.?(training|pool)-"),
    ):
        _run(config)
