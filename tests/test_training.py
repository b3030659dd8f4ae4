"""Pools, contracts and hashes, inference on the native grid."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from network_contracts import SMALL_CONTRACT

from cohort.errors import ConfigurationError
from cohort.geometry import StackGeometry
from cohort.stacks import ImageStack
from models.inference import segment_stack
from models.preprocessing import normalise
from models.registry import load_network, read_contract, save_network, shipped_networks
from models.training.config import TrainingConfig, read_config
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


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    make_pool(folder, PoolPlan("sagittal", 3), processes=1, report=lambda _: None)
    return folder


def test_a_pool_is_made_once(pool: Path) -> None:
    slices = read_pool(pool)
    assert slices.tissue.shape == (8, 4, 256, 256)
    assert slices.masks.shape == (8, 3, 256, 32)
    assert slices.subjects.tolist() == [2000, 2000, 10_000, 10_000, 10_001, 10_001, 10_002, 10_002]
    assert slices.held_back.tolist() == [True] * 2 + [False] * 6
    before = [path.stat().st_mtime_ns for path in pool.glob("*.npz")]
    make_pool(pool, PoolPlan("sagittal", 3), processes=1, report=lambda _: None)
    assert before == [path.stat().st_mtime_ns for path in pool.glob("*.npz")]


def test_what_a_killed_drawing_left_is_removed_and_the_rest_is_said_with_the_time_left(tmp_path: Path) -> None:
    (tmp_path / ".tmp-0.npz").write_bytes(b"half")
    lines: list[str] = []
    make_pool(tmp_path, PoolPlan("sagittal", 1), processes=1, report=lines.append)
    assert {path.name for path in tmp_path.iterdir()} == {"shard-held-back-0000.npz", "shard-learned-0000.npz"}
    assert [line.split(", about")[0] for line in lines[1:]] == ["pool: shard 1/2", "pool: shard 2/2"]
    assert lines[-1].endswith("about 0:00:00 left")


def test_no_pool_learns_from_what_another_is_judged_by() -> None:
    plans = [PoolPlan("sagittal", n, seed=seed) for n in (1, 7, 640, 960, 100_000) for seed in (0, 1)]
    for plan in plans:
        assert len(plan.learned) == plan.n_subjects
        assert 1 <= len(plan.held_back) <= 80
        assert not any(set(plan.learned) & set(other.held_back) for other in plans)
        seeds = [seed for _, seeds in plan.shards() for seed in seeds]
        assert seeds == [*plan.held_back, *plan.learned]
    assert not set(PoolPlan("sagittal", 100_000).learned) & set(PoolPlan("sagittal", 960, seed=1).learned)
    assert len({plan.name for plan in plans}) == len(plans)


def test_the_vertebral_network_goes_on_with_new_subjects() -> None:
    first, again = (
        PoolPlan(config.plane, config.pool_subjects, config.size_px, config.seed)
        for config in map(read_config, ("vertebral_body", "vertebral_body_again"))
    )
    assert not set(first.learned) & set(again.learned)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    contract = dataclasses.replace(SMALL_CONTRACT, classes=("vertebral_body", "sacral_body"))
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
    assert as_acquired.winner.shape == (3, 50, 61)
    assert np.array_equal(rotated.winner.transpose(0, 2, 1)[:, ::-1], as_acquired.winner)


def test_normalisation_ignores_scale_and_air() -> None:
    image = np.zeros((40, 40))
    image[10:30, 10:30] = np.linspace(100, 200, 400).reshape(20, 20)
    assert np.allclose(normalise(image), normalise(image * 7))
    assert normalise(image)[10:30, 10:30].max() == pytest.approx(200 / 195, rel=0.01)
    assert not normalise(np.zeros((4, 4))).any()
