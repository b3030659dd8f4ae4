"""The training loop: deterministic batches, checkpoints that resume to the same result, averaged weights."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cohort.errors import ConfigurationError
from models.training.annotated import Annotated, RealSlices
from models.training.checkpoint import resume, write_checkpoint
from models.training.config import TrainingConfig
from models.training.curve import Curve, Row
from models.training.data import (
    AnnotatedData,
    Batch,
    PhantomData,
    annotated_batches,
    draw_batch,
    load_phantom,
    phantom_batches,
)
from models.training.learner import Learner, learning_rate, new_learner, step
from models.training.mixing import Mixed, mix_with_start
from models.training.validate import validate
from models.vnet import n_parameters

Report = Callable[[str], None]

ROW_EVERY: Final = 25
"""Iterations between two rows of the curve, whose loss is the mean since the row before."""
LINE_EVERY_S: Final = 15.0
SLICES_VALIDATED: Final = 64
"""Slices in a Dice of the curve: the first of the phantom's, of the real ones evenly among those there are. The Dice at
the end is of all."""


@dataclass(frozen=True, eq=False)
class Trained:
    """The result of a training."""

    config: TrainingConfig
    weights: dict[str, Tensor]
    """Averaged weights of the last iteration, not of the one with the best validation."""
    validation_dice: dict[str, float]
    """Class -> Dice on phantom slices of subjects that were not trained on: a phantom figure."""
    annotated_dice: dict[str, float]
    """Class -> Dice on real slices of the validation patients; empty without such slices."""
    seconds: float
    device: str
    phantom_version: int | None
    """None where no phantom was learned from."""
    mixed: Mixed | None = None
    """How the weights were mixed with those of the start, where the configuration wants it."""


@dataclass(frozen=True, eq=False)
class _Training:
    """One training while it runs."""

    config: TrainingConfig
    phantom: PhantomData | None
    real: AnnotatedData | None
    validation: dict[str, list[Batch]]
    """phantom and real, where there are such slices -> batches for the curve."""
    learner: Learner
    device: str

    def learn(self, first: int) -> Iterator[tuple[Row, bool]]:
        """Run the iterations from `first`; rows of the curve, and whether to write a checkpoint after each."""
        config, losses = self.config, list[Tensor]()
        for iteration in range(first, config.iterations):
            batch = draw_batch(iteration, config, self.phantom, self.real, self.device)
            losses.append(step(config, batch, iteration, self.learner, self.device))
            done = iteration + 1
            stop = done % config.validate_every == 0 or done == config.iterations
            if stop or done % ROW_EVERY == 0:
                row = {
                    "iteration": done,
                    "loss": _mean(losses, done),
                    "learning_rate": learning_rate(iteration, config),
                }
                _check_finite(self.learner.average, done)
                losses.clear()
                yield {**row, **(self.scores() if stop else {})}, stop

    def scores(self) -> dict[str, float]:
        """Columns of the curve -> Dice of the averaged weights."""
        return {
            f"{of}_dice_{name}": value
            for of, batches in self.validation.items()
            for name, value in validate(self.config, self.learner.average, batches, self.device).items()
        }


def train(
    config: TrainingConfig,
    pool: Path | None,
    folder: Path,
    *,
    device: str,
    report: Report,
    annotated: Annotated | None = None,
    start_weights: dict[str, Tensor] | None = None,
    start_sha256: str = "",
    tensorboard: bool = False,
) -> Trained:
    """Train one network, resuming from the checkpoint in `folder` if there is one.

    `annotated` slices are mixed in by the configuration's share; without a `pool` they are all there is. Dice on
    validation slices is measured before the first iteration, every `validate_every` and at the end. Batches depend on
    the seed and the iteration alone, so a killed training ends with the weights it would have had. `start_sha256` tells
    the start weights apart: with a checkpoint they are not needed any more, but its training must have started from
    them. A configuration that mixes the result with them needs them always.

    Raises
    ------
    ConfigurationError
        if the checkpoint is damaged or of another training, if no start weight fits, or if loss or weights are not
        finite
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    phantom = load_phantom(config, pool) if pool else None
    real = AnnotatedData.of(annotated.training, config.classes, device) if annotated else None
    learner = new_learner(config, device, start_weights, report)
    training = _Training(config, phantom, real, _validation(config, phantom, annotated, device), learner, device)
    data = _data(phantom, annotated, start_sha256)
    _announce(training, data, report)
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=True):
        seconds = _run(training, folder, data, report, tensorboard)
    weights, mixed = learner.average, None
    if config.mix_with_start and annotated and real and start_weights:
        chosen_by = list(annotated_batches(config, annotated.validation, device))
        mixed = mix_with_start(config, start_weights, weights, real.images, chosen_by, device, report)
        weights = mixed.weights
    return Trained(
        config,
        weights,
        _final_dice(config, weights, phantom, device, report),
        _final_real_dice(config, weights, annotated, device, report),
        seconds,
        device,
        phantom.slices.phantom_version if phantom else None,
        mixed,
    )


def _final_dice(
    config: TrainingConfig, weights: dict[str, Tensor], phantom: PhantomData | None, device: str, report: Report
) -> dict[str, float]:
    if phantom is None:
        return {}
    dice = validate(config, weights, phantom_batches(config, phantom, device), device)
    report(f"{config.name}: Dice on phantom slices held back {dice}")
    return dice


def _final_real_dice(
    config: TrainingConfig, weights: dict[str, Tensor], annotated: Annotated | None, device: str, report: Report
) -> dict[str, float]:
    if annotated is None:
        return {}
    dice = validate(config, weights, annotated_batches(config, annotated.validation, device), device)
    report(f"{config.name}: Dice on all real slices of the validation patients {dice}")
    return dice


def _run(training: _Training, folder: Path, data: Mapping[str, str], report: Report, tensorboard: bool) -> float:
    """Train to the end, with curve and checkpoints; seconds it took, those before a kill included."""
    config, learner = training.config, training.learner
    first, spent = resume(folder, learner, config=config, data=data)
    where = f"goes on after iteration {first}" if first else "starts"
    report(f"{config.name}: {where}, ends at {config.iterations}; curves and checkpoint in {folder.name}")
    before = training.scores()
    clock = _Clock(config, first, spent, report)
    with Curve(folder, list(before), iteration=first, tensorboard=tensorboard) as curve:
        if first == 0:
            curve.add({"iteration": 0, "seconds": 0.0, **before})
        for row, stop in training.learn(first):
            curve.add({**row, "seconds": clock.seconds()})
            clock.tell(row, always=stop)
            if stop:
                curve.draw(config.name)
                done = int(row["iteration"])
                write_checkpoint(folder, learner, config=config, data=data, iteration=done, seconds=clock.seconds())
    return clock.seconds()


class _Clock:
    """Says how far a training is and when it will end, from its speed since it was started or resumed."""

    def __init__(self, config: TrainingConfig, first: int, spent: float, report: Report) -> None:
        self._config, self._first, self._spent, self._report = config, first, spent, report
        self._started = self._last_line = time.monotonic()

    def seconds(self) -> float:
        """Time of training, that before a kill included."""
        return self._spent + time.monotonic() - self._started

    def tell(self, row: Row, *, always: bool) -> None:
        """Report a row of the curve, unless there was a line a moment ago."""
        now, done, n = time.monotonic(), int(row["iteration"]), self._config.iterations
        if not always and now - self._last_line < LINE_EVERY_S:
            return
        self._last_line = now
        speed = (done - self._first) / max(now - self._started, 1e-3)
        left = timedelta(seconds=round((n - done) / speed))
        end = f", {left} left, ends {datetime.now() + left:%a %H:%M}" if done < n else ""
        scores = "".join(f", {name} {value:.3f}" for name, value in row.items() if "_dice_" in name)
        self._report(f"{self._config.name}: {done}/{n}, loss {row['loss']:.4f}, {speed:.2f} iterations/s{end}{scores}")


def _validation(
    config: TrainingConfig, phantom: PhantomData | None, annotated: Annotated | None, device: str
) -> dict[str, list[Batch]]:
    batches = {}
    if phantom:
        batches["phantom"] = list(phantom_batches(config, phantom, device, most=SLICES_VALIDATED))
    if annotated:
        batches["real"] = list(annotated_batches(config, _evenly(annotated.validation), device))
    return batches


def _evenly(slices: RealSlices) -> RealSlices:
    n = len(slices.patients)
    return slices.take(np.linspace(0, n - 1, min(n, SLICES_VALIDATED)).round().astype(int))


def _data(phantom: PhantomData | None, annotated: Annotated | None, start_sha256: str) -> dict[str, str]:
    """Kind -> what is learned from, in words and with a hash; a checkpoint of other data is not continued."""
    found = {}
    if phantom:
        found["phantom"] = _phantom_data(phantom)
    if annotated:
        found["real slices"] = _real_data(annotated)
    if start_sha256:
        found["start weights"] = f"start weights {start_sha256[:12]}"
    return found


def _phantom_data(phantom: PhantomData) -> str:
    slices = phantom.slices
    drawn = _hash(slices.subjects, slices.held_back, np.array([slices.phantom_version, *slices.tissue.shape]))
    return f"{len(phantom.training)} slices of phantom version {slices.phantom_version} ({drawn})"


def _real_data(annotated: Annotated) -> str:
    parts = (annotated.training, annotated.validation)
    (n, of), (n_others, of_others) = ((len(one.patients), len(set(one.patients))) for one in parts)
    text = f"{n} slices of {of} real patients, validated on {n_others} slices of {of_others} others"
    return f"{text} ({_hash(*(array for one in parts for array in one.content))})"


def _hash(*arrays: npt.NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:12]


def _announce(training: _Training, data: Mapping[str, str], report: Report) -> None:
    config = training.config
    size = f"{n_parameters(training.learner.network) / 1e6:.2f} million parameters"
    threads = f"{torch.get_num_threads()} CPU threads"
    report(f"{config.name}: {size}, {config.loss}, bf16 mixed precision on {training.device}, {threads}")
    report(f"{config.name}: learns from {'; '.join(data.values())}")
    report(f"{config.name}: {config.annotated_per_batch} of {config.batch} in a batch are real")


def _mean(losses: list[Tensor], done: int) -> float:
    values = torch.stack(losses).cpu()
    if not bool(values.isfinite().all()):
        iteration = done - len(values) + int((~values.isfinite()).nonzero()[0]) + 1
        raise ConfigurationError(
            f"the loss of iteration {iteration} is {float(values[~values.isfinite()][0])}: the checkpoint before it is "
            "kept; try a lower learning_rate, and look for images with broken values"
        )
    return float(values.double().mean())


def _check_finite(average: Mapping[str, Tensor], done: int) -> None:
    if broken := [name for name, value in average.items() if not bool(value.isfinite().all())]:
        raise ConfigurationError(
            f"the average of the weights is not finite at iteration {done} ({broken[0]}): the checkpoint before it is "
            "kept; try a lower learning_rate, or another start_from"
        )
