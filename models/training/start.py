"""What a training starts from, remembered beside its checkpoint: its result may replace the very files it read."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from cohort.errors import ConfigurationError
from cohort.store.publish import replacing
from models.registry import NetworkContract

NAME: Final = "start.json"
WEIGHTS_NAME: Final = "start.safetensors"


@dataclass(frozen=True)
class Start:
    """The network that a training starts from; empty for random weights."""

    name: str = ""
    weights_sha256: str = ""
    training_data: str = ""
    credit: str = ""
    annotated_patients: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, contract: NetworkContract) -> Start:
        """What a contract says of it."""
        return cls(**{one.name: getattr(contract, one.name) for one in dataclasses.fields(cls)})


def write_start(folder: Path, start: Start, weights: dict[str, Tensor] | None = None) -> None:
    """Write it as a whole, before the first checkpoint; with the weights where a training needs them at its end."""
    if weights is not None:
        with replacing(folder / WEIGHTS_NAME) as temporary:
            temporary.write_bytes(save({name: value.contiguous() for name, value in weights.items()}))
    with replacing(folder / NAME) as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(start), indent=1) + "\n", encoding="utf-8")


def read_start(folder: Path) -> Start:
    """What the training with a checkpoint in this folder started from.

    Raises
    ------
    ConfigurationError
        if the file is missing or damaged
    """
    try:
        return Start(**json.loads((folder / NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(
            f"{NAME} beside the checkpoint cannot be read ({type(error).__name__}): delete the checkpoint to start "
            "this training from its beginning"
        ) from error


def read_start_weights(folder: Path) -> dict[str, Tensor]:
    """Weights that the training with a checkpoint in this folder started from; raises as `read_start` does."""
    try:
        return load_file(folder / WEIGHTS_NAME)
    except (OSError, SafetensorError) as error:
        raise ConfigurationError(
            f"{WEIGHTS_NAME} beside the checkpoint cannot be read ({type(error).__name__}): delete the checkpoint to "
            "start this training from its beginning"
        ) from error
