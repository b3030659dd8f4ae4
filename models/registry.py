"""Networks by name: weights, their hash, and the contract that says what they were trained to see.

A network is two files: `NAME.safetensors` (half precision) and `NAME.json` (the contract). The shipped ones lie in
`models/weights/`; users name the path of their own JSON file instead of a name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from cohort.errors import ConfigurationError
from models.vnet import VNet, VNetConfig

WEIGHTS = Path(__file__).parent / "weights"
NORMALISATION = "p95"
"""`models.preprocessing.normalise`: the 95th percentile of what is not air becomes 1."""


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
    """Source and licence of the real slices that it learned from; empty if there were none."""

    @property
    def config(self) -> VNetConfig:
        """Shape of the network; dropout is off in inference."""
        return VNetConfig(len(self.classes), self.levels, self.base_channels, activation=self.activation)


def shipped_networks() -> list[str]:
    """Names of the networks in the package."""
    return sorted(path.stem for path in WEIGHTS.glob("*.json"))


def find_contract(name_or_path: str) -> Path:
    """Path of a network's JSON file.

    Raises
    ------
    ConfigurationError
        if neither a shipped network nor a file has this name
    """
    path = WEIGHTS / f"{name_or_path}.json" if name_or_path in shipped_networks() else Path(name_or_path)
    if path.suffix != ".json" or not path.is_file():
        raise ConfigurationError(
            f"no network {name_or_path!r}: shipped ones are {shipped_networks()}; your own is named by its .json file"
        )
    return path


def read_contract(name_or_path: str) -> NetworkContract:
    """Read a contract.

    Raises
    ------
    ConfigurationError
        if the file is missing, has unknown or missing keys, or another normalisation than this software's
    """
    path = find_contract(name_or_path)
    values = json.loads(path.read_text())
    known = {f.name for f in dataclasses.fields(NetworkContract)}
    if unknown := sorted(set(values) - known):
        raise ConfigurationError(f"{path.name}: unknown keys {unknown}; known are {sorted(known)}")
    try:
        contract = NetworkContract(**{**values, "classes": tuple(values.get("classes", ()))})
    except TypeError as error:
        raise ConfigurationError(f"{path.name}: {error}") from error
    if contract.normalisation != NORMALISATION:
        raise ConfigurationError(
            f"{path.name}: normalisation {contract.normalisation!r}, this version has {NORMALISATION!r}"
        )
    return contract


@lru_cache(maxsize=8)
def load_network(name_or_path: str, weights_sha256: str, device: str) -> VNet:
    """Load a network once per process, ready for inference.

    Raises
    ------
    ConfigurationError
        if the weights file is missing or its sha256 is not the wanted one
    """
    path = find_contract(name_or_path).with_suffix(".safetensors")
    if not path.is_file():
        raise ConfigurationError(f"weights {path.name} are missing beside their contract")
    found = file_sha256(path)
    if found != weights_sha256:
        raise ConfigurationError(f"weights {path.name} have sha256 {found[:12]}..., wanted {weights_sha256[:12]}...")
    network = VNet(read_contract(name_or_path).config)
    network.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload,no-any-return]


def save_network(folder: Path, contract: NetworkContract, weights: dict[str, torch.Tensor]) -> NetworkContract:
    """Write weights in half precision with their contract; returns the contract with the hash filled in."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{contract.name}.safetensors"
    half = {k: v.half().contiguous() if v.dtype.is_floating_point else v.contiguous() for k, v in weights.items()}
    save_file(half, path)
    contract = dataclasses.replace(contract, weights_sha256=file_sha256(path))
    (folder / f"{contract.name}.json").write_text(json.dumps(dataclasses.asdict(contract), indent=1) + "\n")
    return contract


def file_sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
