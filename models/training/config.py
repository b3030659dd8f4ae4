"""Training configurations: a TOML file, or one of the named ones beside this module."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

from cohort.errors import ConfigurationError

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class TrainingConfig:
    """Everything a training depends on; the same configuration and seed give the same weights on CPU."""

    name: str
    """Name of the network in the registry."""
    plane: str
    """sagittal or axial."""
    classes: tuple[str, ...]
    """Classes to learn, a subset of the pool's, in the order of the network's channels."""
    spacing_mm: float
    """In-plane spacing at which slices are given to the network."""
    iterations: int
    levels: int = 4
    base_channels: int = 8
    dropout: float = 0.05
    activation: str = "relu"
    crop_px: int = 208
    """Side of the random window of a batch; a multiple of 2**levels. Smaller windows train faster and teach the network
    that structures may be cut."""
    batch: int = 8
    learning_rate: float = 1.5e-3
    class_weights: tuple[float, ...] = ()
    start_from: str = ""
    """Name of a network whose weights are the start, as far as their shapes agree; empty for random."""
    seed: int = 0
    pool_subjects: int = 960
    """Phantom subjects in the pool, two slices each."""
    annotated_share: float = 0.0
    """Share of each batch that is real annotated slices; the rest is phantom."""
    annotated_credit: str = ""
    """Source and licence of those slices, for the model card."""
    averaging: float = 0.995
    """Decay of the exponential moving average of the weights, which is what is shipped."""

    @property
    def sha256(self) -> str:
        """Hash of the configuration."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def named_configs() -> list[str]:
    """Names of the configurations shipped with the package."""
    return sorted(path.stem for path in _HERE.glob("*.toml"))


def read_config(name_or_path: str) -> TrainingConfig:
    """Read a shipped configuration by name, or a file.

    Raises
    ------
    ConfigurationError
        if there is no such file, or a key is unknown, missing or of the wrong type
    """
    path = _HERE / f"{name_or_path}.toml" if name_or_path in named_configs() else Path(name_or_path)
    if not path.is_file():
        raise ConfigurationError(f"no training configuration {name_or_path!r}: shipped ones are {named_configs()}")
    values = tomllib.loads(path.read_text())
    known = {field.name for field in dataclasses.fields(TrainingConfig)}
    if unknown := sorted(set(values) - known):
        raise ConfigurationError(f"unknown keys {unknown} in {path.name}; known are {sorted(known)}")
    for key in ("classes", "class_weights"):
        if key in values:
            values[key] = tuple(values[key])
    try:
        return TrainingConfig(**values)
    except TypeError as error:
        raise ConfigurationError(f"{path.name}: {error}") from error
