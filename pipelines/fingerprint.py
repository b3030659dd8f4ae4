"""Fingerprints: a result is redone when, and only when, something it depends on has changed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Final

STAGE_VERSIONS: Final[dict[str, int]] = {"convert": 2, "segment": 2, "measure": 2, "load": 2}
"""Stages in the order of the chain, with versions raised by hand whenever the code of a stage changes its results."""

STAGES: Final = tuple(STAGE_VERSIONS)


def later_stages(stage: str) -> tuple[str, ...]:
    """Stages that rest on the results of `stage`."""
    return STAGES[STAGES.index(stage) + 1 :]


def fingerprint(
    stage: str,
    *,
    inputs: Any = None,
    parameters: Any = None,
    upstream: Sequence[str] = (),
    artefacts: Mapping[str, str] | None = None,
) -> str:
    """SHA-256, hexadecimal, over the canonical JSON of everything the result of a stage depends on.

    Parameters
    ----------
    inputs, parameters : str, int, float, bool, None, dataclasses, mappings with text keys and sequences of those.
        Sequences count in their order: sort what has none.
    upstream : fingerprints of the stages whose results are read
    artefacts : name -> SHA-256 of weights and base models

    Raises `TypeError` for other types (their text may differ between runs) and `ValueError` for NaN and infinity.
    """
    content = {
        "stage": stage,
        "version": STAGE_VERSIONS[stage],
        "inputs": inputs,
        "parameters": parameters,
        "upstream": upstream,
        "artefacts": artefacts or {},
    }
    return hashlib.sha256(canonical_json(content).encode("ascii")).hexdigest()


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces and ASCII only: equal for equal values on every machine."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("NaN or infinity cannot be part of a fingerprint")
        return float(value)  # numpy's float64 is a float, but prints as itself
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("mappings in a fingerprint have text keys; JSON would merge 1 and '1'")
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} cannot be part of a fingerprint")
