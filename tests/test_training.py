"""Training: pools, resume after a kill to the same weights, contracts and hashes, inference on the native grid."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from cohort.errors import ConfigurationError
from cohort.geometry import StackGeometry
from cohort.stacks import ImageStack
from models.inference import segment_stack
from models.preprocessing import normalise
from models.registry import NetworkContract, load_network, read_contract, save_network, shipped_networks
from models.training.config import TrainingConfig, named_configs, read_config
from models.training.loop import Trained, train
from models.training.pool import PoolPlan, make_pool, read_pool
from models.vnet import VNet, VNetConfig

SMALL = TrainingConfig(
    name="test",
    plane="sagittal",
    classes=("vertebral_body", "disc"),
    spacing_mm=1.0,
    iterations=6,
    levels=2,
    base_channels=2,
    batch=2,
    crop_px=64,
)


LONG = dataclasses.replace(SMALL, iterations=500, crop_px=32)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    make_pool(folder, PoolPlan("sagittal", 3, first_seed=1), processes=1, report=lambda _: None)
    return folder


def _train(config: TrainingConfig, pool: Path, folder: Path) -> Trained:
    return train(config, pool, folder, device="cpu", report=lambda _: None)


def test_a_pool_is_made_once(pool: Path) -> None:
    slices, shard = read_pool(pool)
    assert slices.images.shape == (6, 256, 256)
    assert slices.masks.shape == (6, 3, 256, 32)
    assert set(shard) == {0}
    before = [path.stat().st_mtime_ns for path in pool.glob("*.npz")]
    make_pool(pool, PoolPlan("sagittal", 3, first_seed=1), processes=1, report=lambda _: None)
    assert before == [path.stat().st_mtime_ns for path in pool.glob("*.npz")]


def test_the_same_seed_gives_the_same_weights(pool: Path, tmp_path: Path) -> None:
    first, second = (_train(SMALL, pool, tmp_path / name) for name in ("a", "b"))
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)


def test_a_killed_training_resumes_to_the_same_weights(pool: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    code = (
        "from pathlib import Path; import tests.test_training as t, torch; torch.set_num_threads(1);"
        f"t._train(t.LONG, Path({str(pool)!r}), Path({str(folder)!r}))"
    )
    root = Path(__file__).parents[1]
    child = subprocess.Popen([sys.executable, "-c", code], cwd=root)
    deadline = time.monotonic() + 120
    while not (folder / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    stopped_at = torch.load(folder / "checkpoint.pt", weights_only=True)["iteration"]
    assert stopped_at == 250
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums of another number of threads differ in the last bit
    try:
        resumed = _train(LONG, pool, folder)
        whole = _train(LONG, pool, tmp_path / "whole")
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(resumed.weights[name], whole.weights[name]) for name in whole.weights)


def test_shipped_configurations_read_and_unknown_keys_are_refused(tmp_path: Path) -> None:
    assert named_configs() == ["disc", "muscle", "vertebral_body", "vertebral_body_again"]
    assert read_config("disc").start_from == "vertebral_body"
    path = tmp_path / "mine.toml"
    path.write_text('name = "x"\nepochs = 3\n')
    with pytest.raises(ConfigurationError, match="epochs"):
        read_config(str(path))
    with pytest.raises(ConfigurationError, match="no training configuration"):
        read_config("liver")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    contract = NetworkContract(
        name="own",
        plane="sagittal",
        classes=("vertebral_body", "sacral_body"),
        spacing_mm=1.5,
        max_side_px=256,
        levels=2,
        base_channels=2,
        activation="prelu",
        normalisation="p95",
        weights_sha256="",
        training_data="none",
        trained_on="nothing",
    )
    torch.manual_seed(0)
    save_network(tmp_path, contract, VNet(contract.config).state_dict())
    return tmp_path / "own.json"


def test_a_saved_network_loads_by_path_and_a_wrong_hash_is_refused(saved: Path) -> None:
    contract = read_contract(str(saved))
    network = load_network(str(saved), contract.weights_sha256, "cpu")
    assert isinstance(network, VNet)
    with pytest.raises(ConfigurationError, match="sha256"):
        load_network(str(saved), "0" * 64, "cpu")


def test_unknown_keys_in_a_contract_are_refused(saved: Path) -> None:
    content = json.loads(saved.read_text())
    saved.write_text(json.dumps({**content, "colour": "red"}))
    with pytest.raises(ConfigurationError, match="colour"):
        read_contract(str(saved))
    with pytest.raises(ConfigurationError, match="no network"):
        read_contract("liver")


@pytest.mark.parametrize("name", ["vertebral_body", "disc", "muscle"])
def test_shipped_weights_have_the_hash_of_their_contract(name: str) -> None:
    assert name in shipped_networks()
    load_network(name, read_contract(name).weights_sha256, "cpu")


def test_inference_gives_the_same_masks_in_every_axis_order(saved: Path) -> None:
    contract = read_contract(str(saved))
    torch.manual_seed(1)
    network = VNet(VNetConfig(2, levels=2, base_channels=2)).eval()
    rng = np.random.default_rng(0)
    image = rng.integers(0, 1000, (3, 50, 61)).astype(np.uint16)
    position = np.array([[4.0 * k, -30, 40] for k in range(3)])
    upright = StackGeometry(position, np.array([0, 1.0, 0]), np.array([0, 0, -1.0]), (1.5, 1.5), (50, 61), 4.0)
    corner = position + 49 * 1.5 * np.array([0, 0, -1.0])
    turned = StackGeometry(corner, np.array([0, 0, 1.0]), np.array([0, 1.0, 0]), (1.5, 1.5), (61, 50), 4.0)
    as_acquired = segment_stack(
        network, contract, ImageStack("sagittal", 0, image, upright, None), batch_slices=2, device="cpu"
    )
    flipped = np.ascontiguousarray(image[:, ::-1].transpose(0, 2, 1))
    rotated = segment_stack(
        network, contract, ImageStack("sagittal", 0, flipped, turned, None), batch_slices=3, device="cpu"
    )
    assert as_acquired.masks.shape == (2, 3, 50, 61)
    assert np.array_equal(rotated.winner.transpose(0, 2, 1)[:, ::-1], as_acquired.winner)


def test_normalisation_ignores_scale_and_air() -> None:
    image = np.zeros((40, 40))
    image[10:30, 10:30] = np.linspace(100, 200, 400).reshape(20, 20)
    assert np.allclose(normalise(image), normalise(image * 7))
    assert normalise(image)[10:30, 10:30].max() == pytest.approx(200 / 195, rel=0.01)
    assert not normalise(np.zeros((4, 4))).any()
