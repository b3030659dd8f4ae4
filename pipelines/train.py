"""`cohort train`: make the phantom pool if it is not there, train one network, write weights, contract and card."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch

from cohort.errors import ConfigurationError
from cohort.store.publish import sweep_temporary
from models.card import write_card
from models.registry import (
    NORMALISATION,
    NetworkContract,
    find_contract,
    load_network,
    read_contract,
    save_network,
)
from models.training.annotated import Annotated, AnnotatedSlices, Part, read_annotated
from models.training.checkpoint import NAME as CHECKPOINT
from models.training.config import TrainingConfig, read_config
from models.training.learner import fitting_weights
from models.training.loop import Trained, train
from models.training.mixing import require_same_shape
from models.training.pool import PoolPlan, make_pool
from models.training.start import Start, read_start, read_start_weights, write_start
from pipelines.lock import only_run
from pipelines.study.annotated_store import AnnotatedStore


def train_network(
    name_or_path: str | TrainingConfig,
    *,
    folder: Path,
    output: Path,
    device: str,
    processes: int,
    report: Callable[[str], None],
    slices: Path | None = None,
    annotations: AnnotatedStore | None = None,
    tensorboard: bool = False,
) -> NetworkContract:
    """Train a network from a configuration: of this name, in this file, or as it is.

    Parameters
    ----------
    folder : pool, checkpoints (a folder per configuration) and curves; a second call continues where the first
        was stopped
    output : folder for weights, contract and card
    device : cpu or cuda
    processes : for making the pool
    slices : folder of annotated slices (`models.training.annotated`), if the configuration wants a share of them
    annotations : or a store of annotated exams with its split; the exams of the test part are not read
    tensorboard : write curves as TensorBoard events too

    Raises
    ------
    ConfigurationError
        if the configuration cannot be read, or what it wants is not there; if a checkpoint cannot be continued, or the
        loss is not finite; if another training works in the same folder, or writes a network of this name to the same
        output
    """
    config = read_config(name_or_path) if isinstance(name_or_path, str) else name_or_path
    _check_possible(config, slices, annotations, tensorboard)
    checkpoints = folder / f"{config.name}-{config.sha256[:8]}"
    start, weights = _start(config, output, checkpoints)
    divided = annotations.divided(config) if annotations else None
    if divided:
        divided.require_unseen(start.annotated_patients)
    annotated = divided.read(config, report) if divided else _annotated(config, slices) if slices else None
    with only_run(output / f".training-{config.name}"), only_run(checkpoints):
        sweep_temporary(checkpoints, older_than_s=0.0)
        if weights is not None and not (checkpoints / CHECKPOINT).exists():
            write_start(checkpoints, start, weights if config.mix_with_start else None)
        _mention_others(checkpoints, report)
        trained = train(
            config,
            _pool(config, folder, processes, report) if config.pool_subjects else None,
            checkpoints,
            device=device,
            report=report,
            annotated=annotated,
            start_weights=weights,
            start_sha256=start.weights_sha256,
            tensorboard=tensorboard,
        )
        contract = _contract(config, trained, start, annotated)
        if divided and annotated:
            study = {**divided.facts(config, annotated), **_mixing_facts(trained)}
            contract = dataclasses.replace(contract, study=study)
        contract = save_network(output, contract, trained.weights)
        write_card(output, contract)
    report(f"{config.name}: written to {output.name}/{config.name}.safetensors")
    return contract


def _pool(config: TrainingConfig, folder: Path, processes: int, report: Callable[[str], None]) -> Path:
    """Folder of the phantom slices, which are made if they are not there."""
    plan = PoolPlan(config.plane, config.pool_subjects, config.size_px, config.seed)
    with only_run(folder / plan.name):
        make_pool(folder / plan.name, plan, processes=processes, report=report)
    return folder / plan.name


def _check_possible(
    config: TrainingConfig, slices: Path | None, annotations: AnnotatedStore | None, tensorboard: bool
) -> None:
    """Refuse what would fail after hours."""
    given = [name for name, value in (("--slices", slices), ("--annotations", annotations)) if value is not None]
    if len(given) > 1:
        raise ConfigurationError("--slices and --annotations: a training learns from one of them")
    if config.annotated_share and not given:
        raise ConfigurationError(
            f"{config.name} learns from annotated slices: name their folder with --slices, or the store with "
            "--annotations"
        )
    if given and not config.annotated_share:
        raise ConfigurationError(f"{given[0]} is of no use to {config.name}: set annotated_share in its configuration")
    if tensorboard and find_spec("tensorboard") is None:
        raise ConfigurationError("--tensorboard needs a package: pip install 'lumbar-cohort[tensorboard]'")


def _mention_others(checkpoints: Path, report: Callable[[str], None]) -> None:
    """Say that checkpoints of other configurations of this name are left alone."""
    if (checkpoints / CHECKPOINT).exists():
        return
    name = checkpoints.name.rpartition("-")[0]
    others = sorted(path.parent.name for path in checkpoints.parent.glob(f"{name}-????????/{CHECKPOINT}"))
    if others:
        report(f"{name}: checkpoints of other configurations are not continued: {', '.join(others)}")


def _annotated(config: TrainingConfig, folder: Path) -> Annotated:
    def read(part: Part) -> AnnotatedSlices:
        return read_annotated(folder, part, size=config.size_px, spacing_mm=config.spacing_mm, plane=config.plane)

    return Annotated(read("training"), read("validation"))


def _start(config: TrainingConfig, output: Path, checkpoints: Path) -> tuple[Start, dict[str, torch.Tensor] | None]:
    """What the training starts from: a network trained before, else the shipped one; and its weights, which a
    checkpoint has no need of unless they are mixed in at the end."""
    if not config.start_from:
        return Start(), None
    own, result = output / f"{config.start_from}.json", output / f"{config.name}.json"
    path = find_contract(str(own) if own.exists() else config.start_from)
    goes_on = (checkpoints / CHECKPOINT).exists()
    if goes_on and path.resolve() == result.resolve():  # this training may have replaced what it started from
        return read_start(checkpoints), read_start_weights(checkpoints) if config.mix_with_start else None
    contract = read_contract(str(path))
    if goes_on:
        return Start.of(contract), read_start_weights(checkpoints) if config.mix_with_start else None
    weights = dict(load_network(str(path), contract.weights_sha256, "cpu").state_dict())
    if config.mix_with_start:
        require_same_shape(config, weights)
    fitting_weights(config, weights)
    return Start.of(contract), weights


def _mixing_facts(trained: Trained) -> dict[str, str]:
    if trained.mixed is None:
        return {}
    mixed = trained.mixed
    dice = ", ".join(f"{share:g}: {value:.3f}" for share, value in mixed.dice.items())
    return {"weight averaging": f"share of the learned weights: mean Dice on the validation part, {dice}"}


def _contract(config: TrainingConfig, trained: Trained, start: Start, annotated: Annotated | None) -> NetworkContract:
    learned = f"{config.iterations} iterations"
    if trained.phantom_version is not None:
        learned = f"phantom version {trained.phantom_version}, {config.pool_subjects} subjects, {learned}"
    if config.annotated_share:
        learned += f", {config.annotated_share:.0%} of each batch real slices of {config.annotated_credit}"
    if trained.mixed:
        learned += f", of which {trained.mixed.share:.0%} are mixed with the weights before (WiSE-FT)"
    credits = [*start.credit.split("; "), config.annotated_credit if config.annotated_share else ""]
    return NetworkContract(
        name=config.name,
        plane=config.plane,
        classes=config.classes,
        spacing_mm=config.spacing_mm,
        max_side_px=config.max_side_px,
        levels=config.levels,
        base_channels=config.base_channels,
        activation=config.activation,
        normalisation=NORMALISATION,
        weights_sha256="",
        training_data="; then ".join([*([start.training_data] if start.name else []), learned]),
        trained_on=_trained_on(trained),
        phantom_dice=trained.validation_dice,
        annotated_dice=trained.annotated_dice,
        credit="; ".join(dict.fromkeys(credit for credit in credits if credit)),
        annotated_patients=_patients(start, annotated),
    )


def _patients(start: Start, annotated: Annotated | None) -> dict[str, list[str]]:
    """Patients of the real slices by part, those of the network it started from included; numbers in their order."""
    found = {part: set(numbers) for part, numbers in start.annotated_patients.items()}
    if annotated:
        for part, slices in (("training", annotated.training), ("validation", annotated.validation)):
            found[part] = found.get(part, set()) | set(slices.patients)
    return {part: sorted(numbers, key=lambda number: (len(number), number)) for part, numbers in found.items()}


def _trained_on(trained: Trained) -> str:
    minutes = trained.seconds / 60
    return f"{trained.device} ({platform.machine()}), torch {torch.__version__}, {minutes:.0f} minutes"
