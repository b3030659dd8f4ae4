"""Networks by name: weights, their hash, and the contract that says what they were trained to see.

A network is two files: `NAME.safetensors` (half precision) and `NAME.json` (the contract). The shipped ones lie in
`models/weights/`; users name the path or the URL (`models.fetch`) of their own JSON file instead of a name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from cohort.errors import ConfigurationError
from cohort.stacks import Plane
from cohort.store.publish import replacing
from models.fetch import fetch_network
from models.vnet import VNet, VNetConfig, tensor_shapes

WEIGHTS = Path(__file__).parent / "weights"
NORMALISATION = "p95"
"""`models.preprocessing.normalise`: the 95th percentile of what is not air becomes 1."""
PLANES: Final[tuple[str, ...]] = get_args(Plane)


@dataclass(frozen=True)
class NetworkContract:
    """What a network accepts and gives, and what it was trained on."""

    name: str
    plane: str
    """sagittal or axial."""
    classes: tuple[str, ...]
    """One sigmoid channel each."""
    spacing_mm: float
    """In-plane spacing that slices are resampled to."""
    max_side_px: int
    """Longest side given to the network; larger fields of view are resampled more coarsely to fit it."""
    levels: int
    base_channels: int
    activation: str
    normalisation: str
    weights_sha256: str
    training_data: str
    trained_on: str
    """Device and software of the (last) training."""
    phantom_dice: dict[str, float] = field(default_factory=dict)
    """Dice on held-back phantom subjects. A phantom figure: it says nothing about patients."""
    annotated_dice: dict[str, float] = field(default_factory=dict)
    """Dice on real slices of the validation patients; networks may have been chosen by it."""
    credit: str = ""
    """Source and licence of the real slices that it and the networks it started from learned from; empty if there were
    none."""
    annotated_patients: dict[str, list[str]] = field(default_factory=dict)
    """training and validation -> numbers of the patients of those slices."""
    study: dict[str, str] = field(default_factory=dict)
    """Of a network trained on annotated exams: what -> in words, as the card says it (split, seed, counts, ...)."""

    @property
    def config(self) -> VNetConfig:
        """Shape of the network; dropout is off in inference."""
        return VNetConfig(len(self.classes), self.levels, self.base_channels, activation=self.activation)

    @property
    def sha256(self) -> str:
        """Hash of everything here that masks depend on: what the network is and how slices are given to it."""
        told = {name: getattr(self, name) for name in _CHANGES_MASKS}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


_CHANGES_MASKS: Final = (
    *("classes", "spacing_mm", "max_side_px", "levels", "base_channels", "activation", "normalisation"),
    "weights_sha256",
)


def shipped_networks() -> list[str]:
    """Names of the networks in the package."""
    return sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))


def find_contract(name: str) -> Path:
    """Path of a network's JSON file: of a shipped name, a file, or a URL, which is downloaded once.

    Raises
    ------
    ConfigurationError
        if no shipped network and no file has this name, or a URL cannot be fetched
    """
    if "://" in name:
        return fetch_network(name)
    path = WEIGHTS / f"{name}.json" if name in shipped_networks() else Path(name)
    if path.suffix != ".json" or not path.is_file():
        raise ConfigurationError(
            f"no network {path.name!r}: shipped ones are {', '.join(shipped_networks())}; "
            "your own is named by the path or URL of its .json file"
        )
    return path


def weights_path(name: str) -> Path:
    """Path that a network's weights have beside its contract, whether they are there or not."""
    return find_contract(name).with_suffix(".safetensors")


def read_contract(name: str) -> NetworkContract:
    """Read the contract of a shipped name, a path or a URL.

    Raises
    ------
    ConfigurationError
        if the file is missing or no contract, has unknown, missing or impossible values, or wants another
        normalisation than this software's
    """
    path = find_contract(name)
    values = _json_object(path)
    known = {f.name for f in dataclasses.fields(NetworkContract)}
    if unknown := sorted(set(values) - known):
        raise ConfigurationError(f"{path.name}: unknown keys {unknown}; known are {sorted(known)}")
    if not isinstance(values.get("classes"), list):
        raise ConfigurationError(f"{path.name}: classes is a list of names")
    try:
        contract = NetworkContract(**{**values, "classes": tuple(values["classes"])})
        faults = list(_faults(contract))
    except (TypeError, ConfigurationError) as error:
        raise ConfigurationError(f"{path.name}: {error}") from error
    if faults:
        raise ConfigurationError(f"{path.name}: {'; '.join(faults)}")
    return contract


def _json_object(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path.name} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path.name} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path.name} is not a contract: one JSON object is expected")
    return values


def _faults(contract: NetworkContract) -> Iterator[str]:
    """What no network can be, in words; ConfigurationError for an impossible shape."""
    if contract.plane not in PLANES:
        yield f"plane {contract.plane!r}, this version knows {' and '.join(PLANES)}"
    if len(set(contract.classes)) < len(contract.classes):
        yield f"classes {list(contract.classes)}, each can be there once"
    if contract.normalisation != NORMALISATION:
        yield f"normalisation {contract.normalisation!r}, this version has {NORMALISATION!r}"
    if not isinstance(contract.spacing_mm, int | float) or not 0.1 <= contract.spacing_mm <= 10:
        yield f"spacing_mm {contract.spacing_mm!r}, pixels of 0.1 to 10 mm are expected"
    smallest = 2**contract.config.levels
    if type(contract.max_side_px) is not int or contract.max_side_px < smallest:
        yield f"max_side_px {contract.max_side_px!r}, at least {smallest} are needed at {contract.levels} levels"
    if not _is_facts(contract.study):
        yield "study is text by what it is of"
    if not _is_patients(contract.annotated_patients):
        yield "annotated_patients are lists of patient numbers in quotes, by part"
    if not isinstance(contract.weights_sha256, str) or not re.fullmatch("[0-9a-f]{64}", contract.weights_sha256):
        yield "weights_sha256 is 64 lower-case hexadecimal digits (sha256sum NAME.safetensors)"


def _is_facts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _is_patients(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(part, list) and all(isinstance(number, str) for number in part) for part in value.values()
    )


@lru_cache(maxsize=8)
def load_network(name: str, weights_sha256: str, device: str) -> VNet:
    """Load a network once per process, ready for inference.

    Raises
    ------
    ConfigurationError
        if the weights file is missing, its sha256 is not the wanted one, or it is not that of the contract's network
    """
    path = weights_path(name)
    if not path.is_file():
        raise ConfigurationError(f"weights {path.name} are missing beside their contract")
    found = file_sha256(path)
    if found != weights_sha256:
        raise ConfigurationError(
            f"weights {path.name} have sha256 {found[:12]}..., wanted {weights_sha256[:12]}...: the file is another "
            "one or damaged; put the right one beside its contract (or delete its folder in the cache) and run again"
        )
    contract = read_contract(name)
    weights = _read_weights(path, contract)
    network = VNet(contract.config)
    network.load_state_dict(weights)
    return network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload,no-any-return]


def _read_weights(path: Path, contract: NetworkContract) -> dict[str, torch.Tensor]:
    """Single-precision weights of exactly the names and shapes of the contract's network, all finite."""
    try:
        stored = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ConfigurationError(f"{path.name} cannot be read as safetensors; save it again") from error
    wanted = tensor_shapes(contract.config)
    found = {name: tuple(value.shape) for name, value in stored.items()}
    if wrong := sorted(name for name in wanted | found if wanted.get(name) != found.get(name)):
        raise ConfigurationError(
            f"{path.name} is not the network of its contract ({len(contract.classes)} classes, {contract.levels} "
            f"levels, {contract.base_channels} base channels, {contract.activation}): {len(wrong)} tensors differ, "
            f"the first is {wrong[0]}, {found.get(wrong[0], 'missing')} instead of {wanted.get(wrong[0], 'none')}"
        )
    weights = {name: value.float() for name, value in stored.items()}
    if broken := [name for name, value in weights.items() if not math.isfinite(float(value.sum()))]:
        raise ConfigurationError(f"{path.name} holds numbers that are not finite ({broken[0]}); train it again")
    return weights


def save_network(folder: Path, contract: NetworkContract, weights: dict[str, torch.Tensor]) -> NetworkContract:
    """Write weights in half precision, then their contract; returns the contract with the hash filled in.

    Each file is replaced as a whole: a kill between the two leaves new weights beside an old contract, whose hash
    refuses them.

    Raises
    ------
    ConfigurationError
        if a weight is not finite in half precision; nothing is written
    """
    folder.mkdir(parents=True, exist_ok=True)
    half = {k: v.half().contiguous() if v.dtype.is_floating_point else v.contiguous() for k, v in weights.items()}
    if broken := [name for name, value in half.items() if not bool(value.isfinite().all())]:
        raise ConfigurationError(
            f"{contract.name} is not saved: {broken[0]} is not finite in half precision; try a lower learning_rate"
        )
    path = folder / f"{contract.name}.safetensors"
    with replacing(path) as temporary:
        temporary.write_bytes(save(half))  # save_file would hide it from the group
    contract = dataclasses.replace(contract, weights_sha256=file_sha256(path))
    with replacing(folder / f"{contract.name}.json") as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(contract), indent=1) + "\n", encoding="utf-8")
    return contract


def file_sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
