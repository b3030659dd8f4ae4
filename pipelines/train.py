"""`cohort train`: make the phantom pool if it is not there, train one network, write weights, contract and card."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch

from cohort.errors import ConfigurationError
from models.card import write_card
from models.phantom.slices import SIZE
from models.registry import NORMALISATION, NetworkContract, load_network, read_contract, save_network
from models.training.annotated import Annotated, read_annotated
from models.training.config import TrainingConfig, read_config
from models.training.loop import Trained, train
from models.training.pool import PoolPlan, make_pool

MAX_SIDE_PX: Final = {"sagittal": 384, "axial": 256}
"""Axial slices of the whole trunk are only seen coarsely in training (256 px of up to 1.7 mm), so they are given that
way. On sagittal slices what matters is local, and a larger field of view keeps the training spacing."""


def train_network(
    name_or_path: str,
    *,
    folder: Path,
    output: Path,
    device: str,
    processes: int,
    report: Callable[[str], None],
    slices: Path | None = None,
) -> NetworkContract:
    """Train a network from a configuration.

    Parameters
    ----------
    folder : pool, checkpoints (a folder per configuration) and curves; a second call continues where the first
        was stopped
    output : folder for weights, contract and card
    device : cpu or cuda
    processes : for making the pool
    slices : folder of annotated slices (`models.training.annotated`), if the configuration wants a share of them

    Raises
    ------
    ConfigurationError
        if the configuration cannot be read, or wants annotated slices that are not there
    """
    config = read_config(name_or_path)
    if config.annotated_share and slices is None:
        raise ConfigurationError(f"{config.name} learns from annotated slices: name their folder with --slices")
    annotated = _annotated(config, slices) if slices and config.annotated_share else None
    plan = PoolPlan(config.plane, config.pool_subjects)
    pool = folder / f"pool-{plan.plane}-{plan.n_subjects}"
    make_pool(pool, plan, processes=processes, report=report)
    start = _start(config, output)
    weights = dict(load_network(start, read_contract(start).weights_sha256, "cpu").state_dict()) if start else None
    checkpoints = folder / f"{config.name}-{config.sha256[:8]}"
    trained = train(config, pool, checkpoints, device=device, report=report, annotated=annotated, start_weights=weights)
    before = f"{read_contract(start).training_data}; then " if start else ""
    contract = save_network(output, _contract(config, trained, before), trained.weights)
    write_card(output, contract)
    report(f"{config.name}: written to {output.name}/{config.name}.safetensors")
    return contract


def _annotated(config: TrainingConfig, folder: Path) -> Annotated:
    grid = {"size": SIZE, "spacing_mm": config.spacing_mm}
    return Annotated(read_annotated(folder, "training", **grid), read_annotated(folder, "validation", **grid))


def _start(config: TrainingConfig, output: Path) -> str:
    """Name or path of the network that this one starts from: one trained before, else the shipped one; "" if none."""
    own = output / f"{config.start_from}.json"
    return str(own) if config.start_from and own.exists() else config.start_from


def _contract(config: TrainingConfig, trained: Trained, before: str) -> NetworkContract:
    learned = (
        f"phantom version {trained.phantom_version}, {config.pool_subjects} subjects, {config.iterations} iterations"
    )
    if config.annotated_share:
        learned += f", {config.annotated_share:.0%} of each batch real slices of {config.annotated_credit}"
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
        training_data=before + learned,
        trained_on=_trained_on(trained),
        phantom_dice=trained.validation_dice,
        annotated_dice=trained.annotated_dice,
        credit=config.annotated_credit if config.annotated_share else "",
    )


def _trained_on(trained: Trained) -> str:
    minutes = trained.seconds / 60
    return f"{trained.device} ({platform.machine()}), torch {torch.__version__}, {minutes:.0f} minutes"
