"""Fingerprints: a result is redone when, and only when, something it depends on has changed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Final

from cohort.tables.stages import STAGES

STAGE_VERSIONS: Final[dict[str, int]] = {"convert": 2, "segment": 2, "measure": 2, "load": 2}
"""Stages in the order of the chain, with versions raised by hand whenever the code of a stage changes its results."""

DIGEST_CHARACTERS: Final = 32
"""128 bits: two of a billion digests are equal with a probability of 1e-21."""


def digest(value: Any) -> str:
    """Hexadecimal SHA-256, shortened, over the canonical JSON of a value.

    Values are str, int, float, bool, None, dataclasses, mappings with text keys and sequences of those; sequences count
    in their order: sort what has none. Raises `TypeError` for other types (their text may differ between runs) and
    `ValueError` for NaN and infinity.
    """
    return _hashed(canonical_json(value))


def digest_of_plain(value: Any) -> str:
    """`digest` of a value that consists of None, text, whole numbers, lists and dictionaries with text keys alone, five
    times as fast because nobody looks whether it does."""
    return _hashed(_json(value))


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:DIGEST_CHARACTERS]


NOTHING: Final = hashlib.sha256(b"null").hexdigest()[:DIGEST_CHARACTERS]
"""Digest of None."""


@dataclass(frozen=True)
class Parts:
    """What a fingerprint is made of, so that a plan can say why something is to be done again."""

    version: int
    """Of the stage's code."""
    inputs: str = NOTHING
    """Digest of what the stage is given of this exam."""
    parameters: str = NOTHING
    """Digest of the configuration that it depends on."""
    artefacts: str = NOTHING
    """Digest of weights or base model."""


def fingerprint(stage: str, parts: Parts, upstream: str = "") -> str:
    """SHA-256, hexadecimal, over everything the result of a stage depends on; `upstream` is that of the stage before.

    Digests, not values, go in: fingerprints of a million exams are made in seconds from what the store keeps of them.
    """
    content = f"{stage}\n{parts.version}\n{parts.inputs}\n{parts.parameters}\n{parts.artefacts}\n{upstream}"
    return hashlib.sha256(content.encode("ascii")).hexdigest()


def chained(parts: Mapping[str, Parts]) -> dict[str, str]:
    """Stage -> fingerprint in the order of the chain; each stage's is the next one's upstream."""
    found: dict[str, str] = {}
    upstream = ""
    for stage in STAGES:
        upstream = found[stage] = fingerprint(stage, parts[stage], upstream)
    return found


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces and ASCII only: equal for equal values on every machine."""
    return _json(_plain(value))


def _json(plain: Any) -> str:
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)


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
