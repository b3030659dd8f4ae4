"""`cohort train`: make the phantom pool if it is not there, train one network, write weights, contract and card."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch

from models.card import write_card
from models.registry import NORMALISATION, NetworkContract, load_network, read_contract, save_network
from models.training.config import TrainingConfig, read_config
from models.training.loop import Trained, train
from models.training.pool import PoolPlan, make_pool

MAX_SIDE_PX: Final = {"sagittal": 384, "axial": 256}
"""Axial slices of the whole trunk are only seen coarsely in training (256 px of up to 1.7 mm), so they are given that
way. On sagittal slices what matters is local, and a larger field of view keeps the training spacing."""


def train_network(
    name_or_path: str, *, folder: Path, output: Path, device: str, processes: int, report: Callable[[str], None]
) -> NetworkContract:
    """Train a network from a configuration.

    Parameters
    ----------
    folder : pool, checkpoints and curves; a second call continues where the first was stopped
    output : folder for weights, contract and card
    device : cpu or cuda
    processes : for making the pool
    """
    config = read_config(name_or_path)
    plan = PoolPlan(config.plane, config.pool_subjects)
    pool = folder / f"pool-{plan.plane}-{plan.n_subjects}"
    make_pool(pool, plan, processes=processes, report=report)
    start = _start_weights(config, output)
    trained = train(config, pool, folder / config.name, device=device, report=report, start_weights=start)
    contract = save_network(output, _contract(config, trained), trained.weights)
    write_card(output, contract)
    report(f"{config.name}: written to {output.name}/{config.name}.safetensors")
    return contract


def _start_weights(config: TrainingConfig, output: Path) -> dict[str, torch.Tensor] | None:
    """Weights of the network that this one starts from: the one just trained, else the shipped one."""
    if not config.start_from:
        return None
    own = output / f"{config.start_from}.json"
    name = str(own) if own.exists() else config.start_from
    return dict(load_network(name, read_contract(name).weights_sha256, "cpu").state_dict())


def _contract(config: TrainingConfig, trained: Trained) -> NetworkContract:
    return NetworkContract(
        name=config.name,
        plane=config.plane,
        classes=config.classes,
        spacing_mm=config.spacing_mm,
        max_side_px=MAX_SIDE_PX[config.plane],
        levels=config.levels,
        base_channels=config.base_channels,
        activation=config.activation,
        normalisation=NORMALISATION,
        weights_sha256="",
        training_data=f"phantom version {trained.phantom_version}, {config.pool_subjects} subjects; no patient data",
        trained_on=_trained_on(trained),
        iterations=config.iterations,
        phantom_dice=trained.validation_dice,
    )


def _trained_on(trained: Trained) -> str:
    minutes = trained.seconds / 60
    return f"{trained.device} ({platform.machine()}), torch {torch.__version__}, {minutes:.0f} minutes"
