"""Checkpoints: everything a training needs to go on as if it had never been stopped."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from cohort.errors import ConfigurationError
from cohort.store.publish import replacing
from models.training.config import TrainingConfig
from models.training.learner import Learner

NAME: Final = "checkpoint.pt"

_UNREADABLE: Final = (
    pickle.UnpicklingError, RuntimeError, EOFError, AssertionError, AttributeError, LookupError, TypeError, ValueError,
)  # fmt: skip
"""What torch.load raises for files that are cut short or hold something else."""


def write_checkpoint(
    folder: Path, learner: Learner, *, config: TrainingConfig, data: Mapping[str, str], iteration: int, seconds: float
) -> None:
    """Replace the checkpoint of a folder; a kill at any moment leaves the old one or the new one, whole.

    Parameters
    ----------
    data : kind -> what is learned from, with a hash of it
    iteration, seconds : done so far
    """
    state = {
        "config": json.dumps(dataclasses.asdict(config)),
        "data": dict(data),
        "iteration": iteration,
        "seconds": seconds,
        "network": learner.network.state_dict(),
        "average": learner.average,
        "optimiser": learner.optimiser.state_dict(),
    }
    with replacing(folder / NAME) as temporary, temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


def resume(folder: Path, learner: Learner, *, config: TrainingConfig, data: Mapping[str, str]) -> tuple[int, float]:
    """Bring a learner to where the checkpoint of a folder was: iterations and seconds done, zeros if there is none.

    Raises
    ------
    ConfigurationError
        if the checkpoint is damaged, or belongs to another configuration or other data
    """
    state = _read(folder)
    if state is None:
        return 0, 0.0
    _reject_another(state, config, data)
    try:
        learner.network.load_state_dict(state["network"])
        for name, value in learner.average.items():
            value.copy_(state["average"][name])
        learner.optimiser.load_state_dict(state["optimiser"])
        return int(state["iteration"]), float(state["seconds"])
    except _UNREADABLE as error:
        raise _damaged(error) from error


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        with (folder / NAME).open("rb") as file:
            found: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except _UNREADABLE as error:
        raise _damaged(error) from error
    if not isinstance(found, dict) or not isinstance(found.get("data"), dict) or "config" not in found:
        raise _damaged("it is not of this version")
    return found


def _damaged(why: object) -> ConfigurationError:
    first = str(why).strip().split("\n")[0]
    return ConfigurationError(f"{NAME} cannot be read ({first}): delete it to start this training from its beginning")


def _reject_another(state: dict[str, Any], config: TrainingConfig, data: Mapping[str, str]) -> None:
    was, is_now = json.loads(state["config"]), json.loads(json.dumps(dataclasses.asdict(config)))
    if changed := sorted(key for key in was.keys() | is_now.keys() if was.get(key) != is_now.get(key)):
        raise ConfigurationError(
            f"{NAME} belongs to another configuration ({', '.join(changed)} differ): use another folder, or delete it"
        )
    had = state["data"]
    if changed := sorted(kind for kind in had.keys() | data.keys() if had.get(kind) != data.get(kind)):
        told = "; ".join(f"{had.get(kind, f'no {kind}')}, now {data.get(kind, f'no {kind}')}" for kind in changed)
        raise ConfigurationError(f"{NAME} belongs to other data ({told}): bring the data back, or delete it")
