"""Fingerprints: stable everywhere, changed by everything a result depends on and by nothing else."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.fingerprint import STAGE_VERSIONS, STAGES, canonical_json, fingerprint, later_stages

GOLDEN = {
    "convert": "f04d7c2e6ab75f3640c07e52ac018e2b18de2d8b7852450f33589f61c31d6e3c",
    "segment": "33331c9969848bc248f1c93616c3773704e066e397b89eb01c7c630447463d32",
    "measure": "8dd49448ab8f4e77e5d03502df3c1197dc4cbcdfce71c85da7928154682e5547",
    "load": "49c64ced7b1f1d01fa4bce2695fb7f9cc340ec0a2e348c37e52b4b97324cc0fa",
}
"""Change these together with STAGE_VERSIONS, and only then: every store redoes the stage."""

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@dataclass(frozen=True)
class Parameters:
    spacing_mm: float = 0.5
    names: tuple[str, ...] = ("a", "b")


def test_stages_are_in_the_order_of_the_chain() -> None:
    assert STAGES == ("convert", "segment", "measure", "load")
    assert later_stages("segment") == ("measure", "load")
    assert later_stages("load") == ()


@pytest.mark.parametrize("stage", STAGES)
def test_golden(stage: str) -> None:
    found = fingerprint(
        stage, inputs=[["1.2.3", "ab"]], parameters=Parameters(), upstream=["u"], artefacts={"disc": "cd"}
    )
    assert found == GOLDEN[stage]


@given(PLAIN)
@settings(max_examples=50)
def test_canonical_text_is_ascii_and_loses_nothing(value: object) -> None:
    text = canonical_json(value)
    assert text.isascii()
    assert json.loads(text) == value


@given(st.dictionaries(st.text(), st.integers()))
def test_order_of_keys_does_not_matter(mapping: dict[str, int]) -> None:
    turned = dict(reversed(mapping.items()))
    assert fingerprint("load", inputs=mapping) == fingerprint("load", inputs=turned)


def test_equal_in_another_process() -> None:
    code = "from pipelines.fingerprint import fingerprint; print(fingerprint('load', inputs={'b': 1.5, 'a': 'ä'}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert found == fingerprint("load", inputs={"a": "ä", "b": 1.5})


def test_everything_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    variants = [
        fingerprint("load"),
        fingerprint("measure"),
        fingerprint("load", inputs=1),
        fingerprint("load", inputs=1.0),
        fingerprint("load", inputs=True),
        fingerprint("load", parameters=1),
        fingerprint("load", upstream=["a", "b"]),
        fingerprint("load", upstream=["b", "a"]),
        fingerprint("load", artefacts={"a": "b"}),
        fingerprint("load", inputs=[0.1]),
        fingerprint("load", inputs=[math.nextafter(0.1, 1)]),
    ]
    monkeypatch.setitem(STAGE_VERSIONS, "load", STAGE_VERSIONS["load"] + 1)
    variants.append(fingerprint("load"))
    assert len(set(variants)) == len(variants)


def test_numpy_floats_and_tuples_are_what_they_stand_for() -> None:
    assert fingerprint("load", inputs=[np.float64(0.1)]) == fingerprint("load", inputs=(0.1,))


@pytest.mark.parametrize("value", [{1, 2}, object(), b"x", np.zeros(2), np.float32(1), Parameters])
def test_types_without_one_text_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match="cannot be part of a fingerprint"):
        fingerprint("load", inputs=value)


def test_keys_that_json_would_merge_are_refused() -> None:
    with pytest.raises(TypeError, match="text keys"):
        fingerprint("load", inputs={1: "a", "1": "b"})


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_nan_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        fingerprint("load", parameters={"x": value})
