"""The three networks of a study, each on its part of a split: table 2's settings, one after the other, resumable."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from cohort.errors import ConfigurationError
from cohort.store.publish import replacing
from models.card import write_card
from models.registry import NetworkContract, read_contract
from models.training.config import MAX_SIDE, TrainingConfig, read_config
from models.training.drawn import array_of
from pipelines.study.annotated_store import AnnotatedStore
from pipelines.study.split import NETWORKS, Kind, Network
from pipelines.train import train_network

Start = Literal["default", "scratch"]


@dataclass(frozen=True)
class StudySettings:
    """What the networks of a study are trained with."""

    start: Start = "default"
    """The shipped weights, whose shape the networks then have, or random ones in the paper's shape."""
    licence: str = ""
    """Source and licence of the annotated exams, for the model cards."""
    configs: Path | None = None
    """Folder of training configurations NETWORK.toml, taken as they are in the place of table 2's."""
    seed: int = 0
    """Of weights and batches, with table 2's settings."""


def study_config(network: Network, kind: Kind, settings: StudySettings) -> TrainingConfig:
    """Configuration of one network: the user's own, or that of table 2 of Hess et al. 2023.

    From the default weights, the network has their shape, pixels and windows, and table 2's loss, dropout, optimiser,
    batch and iterations; what is shipped is a mixture with the start (`models.training.mixing`).

    Raises
    ------
    ConfigurationError
        if the user's own file cannot be read, is of another network, or wants phantom slices alone; without a licence
        for table 2's settings
    """
    own = settings.configs / f"{network}.toml" if settings.configs else None
    if own is not None and own.is_file():
        return _own(own, network)
    if not settings.licence.strip():
        raise ConfigurationError(
            "--licence (licence in [study]): source and licence of the annotated exams, for the model cards"
        )
    shared = network == "muscle" and kind == "shared"
    table_2 = read_config("paper_muscle_shared" if shared else f"paper_{network}")
    alone = dataclasses.replace(  # as in the paper: no phantom
        table_2, pool_subjects=0, annotated_share=1.0, annotated_credit=settings.licence, seed=settings.seed
    )
    return alone if settings.start == "scratch" else _from_default(alone, network)


def _own(path: Path, network: Network) -> TrainingConfig:
    config = read_config(str(path))
    if config.name != network or array_of(config.classes) != network:
        raise ConfigurationError(f"{path.name} is of {config.name!r} with {list(config.classes)}, not of {network}")
    if not config.annotated_share:
        raise ConfigurationError(f"{path.name} learns from no annotated slices: set annotated_share")
    return config


def _from_default(config: TrainingConfig, network: Network) -> TrainingConfig:
    contract = read_contract(network)
    size = round(contract.max_side_px / MAX_SIDE[config.plane])
    return dataclasses.replace(
        config,
        start_from=network,
        mix_with_start=True,
        classes=contract.classes,
        levels=contract.levels,
        base_channels=contract.base_channels,
        activation=cast(Any, contract.activation),
        spacing_mm=contract.spacing_mm,
        size_px=size,
        crop_px=size,
    )


def train_study(
    annotated: AnnotatedStore,
    output: Path,
    settings: StudySettings,
    *,
    networks: Sequence[Network] = NETWORKS,
    device: str,
    processes: int,
    report: Callable[[str], None],
) -> list[NetworkContract]:
    """Train the networks of one split, one after the other; a second call goes on where the first was stopped.

    A network whose split has no training or no validation part is left out with a line of `report` that says why.

    Parameters
    ----------
    output : gets weights, contract, card and configuration of each network, and below `train` its checkpoints

    Raises
    ------
    ConfigurationError
        before anything is trained if no network can be, or one of its name in `output` is of another split or
        configuration, or of other annotations
    """
    plans = list(filter(None, (_plan(annotated, network, output, settings, report) for network in networks)))
    if not plans:
        raise ConfigurationError(f"no network of the {annotated.kind} split can be trained: the lines above say why")
    found = []
    for number, plan in enumerate(plans, start=1):
        where = f"study, {annotated.kind} split, network {number} of {len(plans)}: {plan.config.name}"
        if plan.trained is not None:
            report(f"{where} is trained already")
            write_card(output, plan.trained)  # a kill may have come between contract and card
            found.append(plan.trained)
            continue
        report(where)
        _write_config(output, plan.config)
        found.append(
            train_network(
                plan.config,
                folder=output / "train",
                output=output,
                device=device,
                processes=processes,
                annotations=annotated,
                report=report,
            )
        )
    return found


@dataclass(frozen=True)
class _Plan:
    """A network to be trained, or trained already."""

    config: TrainingConfig
    trained: NetworkContract | None


def _plan(
    annotated: AnnotatedStore, network: Network, output: Path, settings: StudySettings, report: Callable[[str], None]
) -> _Plan | None:
    config = study_config(network, annotated.kind, settings)
    divided = annotated.divided(config)
    if why := divided.cannot_train():
        report(f"study: {network} is left out, {why}")
        return None
    path = output / f"{config.name}.json"
    contract = read_contract(str(path)) if path.is_file() else None
    if contract is not None and not divided.is_of(contract.study, config):
        raise ConfigurationError(
            f"{path.name} in {output.name} is of another split or configuration, or of other annotations: name another "
            "output folder, or delete it"
        )
    return _Plan(config, contract)


def _write_config(output: Path, config: TrainingConfig) -> None:
    output.mkdir(parents=True, exist_ok=True)
    with replacing(output / f"{config.name}-training.json") as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(config), indent=1) + "\n", encoding="utf-8")
