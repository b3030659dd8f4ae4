"""Training configurations: a TOML file, or one of the named ones beside this module."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import re
import tomllib
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from cohort.errors import ConfigurationError
from models.phantom.slices import AXIAL_CLASSES, SAGITTAL_CLASSES
from models.training.pool import MOST_SUBJECTS
from models.vnet import VNetConfig

_HERE = Path(__file__).parent

PLANE_CLASSES: Final = {"sagittal": SAGITTAL_CLASSES, "axial": AXIAL_CLASSES}
MAX_SIDE: Final = {"sagittal": 1.5, "axial": 1.0}
"""Longest side given to a network, in sides of the slices it has learned from. Axial slices of the whole trunk are only
seen coarsely in training (256 px of up to 1.7 mm), so they are given that way. On sagittal slices what matters is
local, and a larger field of view keeps the training spacing."""
MOST_CHANNELS: Final = 2048
"""At the bottom of the network; the paper's largest has 256 (working value)."""


@dataclass(frozen=True)
class TrainingConfig:
    """Everything a training depends on; the same configuration and seed give the same weights on CPU.

    Raises
    ------
    ConfigurationError
        if a value is impossible, alone or beside the others
    """

    name: str
    """Name of the network in the registry, and of its files."""
    plane: Literal["sagittal", "axial"]
    classes: tuple[str, ...]
    """Classes to learn, a subset of the plane's, in the order of the network's channels."""
    spacing_mm: float
    """In-plane spacing at which slices are given to the network."""
    iterations: int
    size_px: int = 256
    """Side of the square on which phantom slices are drawn and real ones are laid; a multiple of 8."""
    crop_px: int = 208
    """Side of the random window of a batch; a multiple of 2**levels. Smaller windows train faster and teach the network
    that structures may be cut."""
    levels: int = 4
    base_channels: int = 8
    dropout: float = 0.05
    activation: Literal["prelu", "relu"] = "relu"
    batch: int = 8
    loss: Literal["dice", "weighted_dice", "dice_and_cross_entropy"] = "dice_and_cross_entropy"
    class_weights: tuple[float, ...] = ()
    """One positive number a class, for the last two losses; empty for equal weights."""
    learning_rate: float = 1.5e-3
    """Of Adam."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """The learning rate throughout, or a warm-up of 100 iterations and half a cosine to zero."""
    averaging: float = 0.995
    """Decay of the exponential moving average of the weights, which is what is shipped."""
    validate_every: int = 250
    """Iterations between two validations; a checkpoint is written with each."""
    start_from: str = ""
    """Name of a network whose weights are the start, as far as their shapes agree; empty for random."""
    seed: int = 0
    """Of random weights, batches and the phantom subjects to learn from."""
    mix_with_start: bool = False
    """Ship the weights between those of the start and those learned that are best on the real validation slices
    (`models.training.mixing`); the start then has the shape of this network."""
    pool_subjects: int = 960
    """Phantom subjects to learn from, two slices each; others are held back (`models.training.pool`). 0 for no
    phantom at all, where every slice of a batch is real."""
    annotated_share: float = 0.0
    """Share of each batch that is real annotated slices; the rest is phantom."""
    annotated_credit: str = ""
    """Source and licence of those slices, for the model card."""

    def __post_init__(self) -> None:
        if problem := next(_problems(self), None):
            raise ConfigurationError(problem)

    @property
    def sha256(self) -> str:
        """Hash of the configuration."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def max_side_px(self) -> int:
        """Longest side that is given to the network; larger fields of view are resampled more coarsely to fit it."""
        return round(MAX_SIDE[self.plane] * self.size_px)

    @property
    def annotated_per_batch(self) -> int:
        """Real slices in each batch."""
        return round(self.annotated_share * self.batch)


def network_config(config: TrainingConfig) -> VNetConfig:
    """Shape of the network that a configuration trains; `ConfigurationError` where there can be none."""
    return VNetConfig(
        len(config.classes), config.levels, config.base_channels, dropout=config.dropout, activation=config.activation
    )


def _problems(config: TrainingConfig) -> Iterator[str]:
    """What is wrong: key, value, and what to write instead."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", config.name):
        yield f"name = {config.name!r} names files: letters, digits, _ and - only"
    yield from _number_problems(config)
    yield from _class_problems(config)
    yield from _size_problems(config)
    yield from _share_problems(config)


def _number_problems(config: TrainingConfig) -> Iterator[str]:
    for key in ("iterations", "size_px", "crop_px", "levels", "base_channels", "batch", "validate_every"):
        if getattr(config, key) < 1:
            yield f"{key} = {getattr(config, key)}: give at least 1"
    for key in ("spacing_mm", "learning_rate"):
        if not 0 < getattr(config, key) < math.inf:
            yield f"{key} = {getattr(config, key)}: give a positive number"
    for key in ("dropout", "averaging"):
        if not 0 <= getattr(config, key) < 1:
            yield f"{key} = {getattr(config, key)}: give a number from 0 to below 1"
    if not 0 <= config.pool_subjects <= MOST_SUBJECTS:
        known = f"pool_subjects = {config.pool_subjects}"
        yield f"{known}: give at least 1 and at most {MOST_SUBJECTS}, or 0 for no phantom"
    if config.seed < 0:
        yield f"seed = {config.seed}: give 0 or more"


def _class_problems(config: TrainingConfig) -> Iterator[str]:
    known = PLANE_CLASSES[config.plane]
    if not config.classes or len(set(config.classes)) < len(config.classes):
        yield f"classes = {list(config.classes)}: name each of one or more classes once"
    if strange := [name for name in config.classes if name not in known]:
        yield f"classes has {strange}, which {config.plane} slices do not have: choose among {list(known)}"
    weights, n = config.class_weights, len(config.classes)
    if weights and config.loss == "dice":
        yield 'class_weights beside loss = "dice": remove them, or write loss = "weighted_dice"'
    if not weights and config.loss == "weighted_dice":
        yield f'loss = "weighted_dice" without class_weights: give {n} numbers, one for each of {list(config.classes)}'
    if weights and len(weights) != n:
        yield f"class_weights has {len(weights)} numbers: give {n}, one for each of {list(config.classes)}"
    if not all(0 < weight < math.inf for weight in weights):
        yield f"class_weights = {list(weights)}: give positive numbers"


def _size_problems(config: TrainingConfig) -> Iterator[str]:
    network_config(config)
    if (channels := config.base_channels << config.levels) > MOST_CHANNELS:
        known = f"levels = {config.levels}, base_channels = {config.base_channels}"
        yield f"{known} are {channels} channels at the bottom of the network: give fewer, at most {MOST_CHANNELS}"
    multiple = 2**config.levels
    if config.crop_px % multiple:
        near = max(config.crop_px // multiple, 1) * multiple
        yield f"crop_px = {config.crop_px} is no multiple of {multiple} (2**levels): give {near} or {near + multiple}"
    if config.size_px % 8:
        yield f"size_px = {config.size_px} is no multiple of 8: give {config.size_px // 8 * 8 + 8}"
    if config.crop_px > config.size_px:
        yield f"crop_px = {config.crop_px} is more than size_px = {config.size_px}: give at most that"


def _share_problems(config: TrainingConfig) -> Iterator[str]:
    share = config.annotated_share
    if not 0 <= share <= 1:
        yield f"annotated_share = {share}: give a number from 0 to 1"
    if share > 0 and config.annotated_per_batch == 0:
        yield f"annotated_share = {share} of batch = {config.batch} is no slice: give at least {1 / config.batch:g}"
    if share > 0 and not config.annotated_credit.strip():
        yield "annotated_share without annotated_credit: write source and licence of the slices, for the model card"
    if config.pool_subjects == 0 and config.annotated_per_batch < config.batch:
        yield "pool_subjects = 0 without annotated_share = 1: what is not real in a batch is phantom"
    if config.mix_with_start and not (share > 0 and config.start_from):
        yield "mix_with_start needs start_from, and an annotated_share whose validation slices choose the mixture"


def named_configs() -> list[str]:
    """Names of the configurations shipped with the package."""
    return sorted(path.stem for path in _HERE.glob("*.toml"))


def described_configs() -> dict[str, str]:
    """Name of each shipped configuration -> what the first line of its file says."""
    texts = {name: (_HERE / f"{name}.toml").read_text(encoding="utf-8") for name in named_configs()}
    return {name: text.splitlines()[0].removeprefix("# ") for name, text in texts.items()}


def read_config(name_or_path: str) -> TrainingConfig:
    """Read a shipped configuration by name, or a file.

    Raises
    ------
    ConfigurationError
        if there is no such file, it is not TOML, or a key is unknown, missing, of the wrong type or impossible
    """
    path = _HERE / f"{name_or_path}.toml" if name_or_path in named_configs() else Path(name_or_path)
    if not path.is_file():
        shipped = ", ".join(named_configs())
        raise ConfigurationError(f"no training configuration or file {path.name!r}; shipped ones are {shipped}")
    try:
        return _config(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path.name} is not TOML: {error}") from error
    except ConfigurationError as error:
        raise ConfigurationError(f"{path.name}: {error}") from error


def _config(content: Mapping[str, Any]) -> TrainingConfig:
    kinds = typing.get_type_hints(TrainingConfig)
    for key in content:
        if key not in kinds:
            near = difflib.get_close_matches(key, kinds, n=1, cutoff=0.5)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise ConfigurationError(f"unknown key {key!r}{hint}; keys are {', '.join(kinds)}")
    fields = dataclasses.fields(TrainingConfig)
    if missing := [one.name for one in fields if one.default is dataclasses.MISSING and one.name not in content]:
        raise ConfigurationError(f"missing keys: add {', '.join(missing)}")
    return TrainingConfig(**{key: _typed(key, value, kinds[key]) for key, value in content.items()})


_KINDS: Final[Mapping[Any, tuple[str, Callable[[Any], bool]]]] = {
    str: ("text in quotes", lambda value: isinstance(value, str)),
    bool: ("true or false", lambda value: isinstance(value, bool)),
    int: ("a whole number", lambda value: type(value) is int),
    float: ("a number", lambda value: type(value) in (int, float)),
}


def _typed(key: str, value: Any, kind: Any) -> Any:
    """Check one value of the file against the type of its field, and convert it."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if value not in parts:
            raise ConfigurationError(f"{key} = {value!r}: give one of {', '.join(map(repr, parts))}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigurationError(f"{key} = {value!r}: give a list in square brackets")
        return tuple(_typed(key, item, parts[0]) for item in value)
    wanted, fits = _KINDS[kind]
    if not fits(value):
        raise ConfigurationError(f"{key} = {value!r}: give {wanted}")
    return kind(value)
