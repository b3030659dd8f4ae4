"""Fingerprints: stable everywhere, changed by everything a result depends on and by nothing else."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.tables.stages import later_stages
from pipelines.fingerprint import (
    STAGE_VERSIONS,
    STAGES,
    Parts,
    canonical_json,
    chained,
    digest,
    digest_of_plain,
    fingerprint,
)

GOLDEN = {
    "convert": "1ef5efb94ce95f958055d0f315df8eec8ccfd8358204973e8864df8a75fc5949",
    "segment": "c198e7e23ba35d3c53fb2928b620dd62a54364ab579fdc644f849a4b052a3aaf",
    "measure": "ac5193c56a7dcaceb1343d1053347f4ede4e843213a9dc5bb8105be42447002e",
    "load": "170901db8731dce9e536a86250b110fd4b2b1a38b9cfb6efc547fdb6f5ca964c",
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


PARTS = Parts(0, digest([["1.2.3", "ab"]]), digest(Parameters()), digest({"disc": "cd"}))


@pytest.mark.parametrize("stage", STAGES)
def test_golden(stage: str) -> None:
    assert fingerprint(stage, replace(PARTS, version=STAGE_VERSIONS[stage]), "u") == GOLDEN[stage]


@given(PLAIN)
@settings(max_examples=50)
def test_canonical_text_is_ascii_and_loses_nothing(value: object) -> None:
    text = canonical_json(value)
    assert text.isascii()
    assert json.loads(text) == value


@given(st.dictionaries(st.text(), st.integers()))
def test_order_of_keys_does_not_matter(mapping: dict[str, int]) -> None:
    assert digest(mapping) == digest(dict(reversed(mapping.items())))


def test_equal_in_another_process() -> None:
    code = "from pipelines.fingerprint import digest; print(digest({'b': 1.5, 'a': 'ä'}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert found == digest({"a": "ä", "b": 1.5})


def test_everything_counts() -> None:
    digests = [digest(value) for value in (None, 1, 1.0, True, "1", [0.1], [math.nextafter(0.1, 1)], [1, 2], [2, 1])]
    assert len(set(digests)) == len(digests)
    changes = ({"version": 9}, {"inputs": digest(1)}, {"parameters": digest(1)}, {"artefacts": digest(1)})
    variants = [fingerprint("load", replace(PARTS, **change), "u") for change in changes]
    variants += [fingerprint("load", PARTS, "u"), fingerprint("measure", PARTS, "u"), fingerprint("load", PARTS, "v")]
    assert len(set(variants)) == len(variants)


def test_a_stage_rests_on_all_stages_before_it() -> None:
    parts = dict.fromkeys(STAGES, PARTS)
    before = chained(parts)
    for k, stage in enumerate(STAGES):
        after = chained(parts | {stage: replace(PARTS, version=7)})
        assert [name for name in STAGES if after[name] != before[name]] == list(STAGES[k:])


def test_numpy_floats_and_tuples_are_what_they_stand_for() -> None:
    assert digest([np.float64(0.1)]) == digest((0.1,))


@pytest.mark.parametrize("value", [{1, 2}, object(), b"x", np.zeros(2), np.float32(1), Parameters])
def test_types_without_one_text_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match="cannot be part of a fingerprint"):
        digest(value)


def test_keys_that_json_would_merge_are_refused() -> None:
    with pytest.raises(TypeError, match="text keys"):
        digest({1: "a", "1": "b"})


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_nan_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        digest({"x": value})


def test_the_digest_of_plain_values_is_the_same_without_looking_at_them() -> None:
    value = {"sagittal": [["1.2.3", -1, "ab"], ["ä", 2, ""]], "axial": [], "axial_weighting": None}
    assert digest_of_plain(value) == digest(value)
