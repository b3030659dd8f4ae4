"""Scoring of networks: overlap, and what of a human mask is scored."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cohort.agreement.overlap import dice, spread
from pipelines.cli import main
from pipelines.validate import _count, as_table

MASKS = arrays(bool, (6, 7))


@given(MASKS, MASKS)
def test_dice_is_symmetric_and_between_zero_and_one(a: np.ndarray, b: np.ndarray) -> None:
    assert dice(a, b) == dice(b, a)
    assert 0 <= dice(a, b) <= 1
    assert dice(a, a) == 1


def test_dice_of_half_an_overlap() -> None:
    a, b = np.zeros((2, 4), bool), np.zeros((2, 4), bool)
    a[:, :2], b[:, 1:3] = True, True
    assert dice(a, b) == pytest.approx(0.5)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_spread_counts_and_averages(scores: list[float]) -> None:
    found = spread(scores)
    assert found.n == len(scores)
    assert found.dice == pytest.approx(np.mean(scores), abs=1e-4)
    assert spread([]).dice is None


def test_small_pieces_are_not_counted() -> None:
    mask = np.zeros((40, 40), bool)
    mask[2:14, 2:16] = mask[20:22, 20:22] = True
    assert _count(mask, (1.0, 1.0), 100.0) == 1


def test_the_table_has_a_line_for_each_set() -> None:
    results = {
        "a/disc": {"n": 2, "dice": 0.9, "sd": 0.01},
        "t1_counts/discs": {"n": 3, "exact": 0.5, "within_one": 1.0},
    }
    lines = as_table(results).splitlines()
    assert len(lines) == 4
    assert "0.900 ± 0.010" in lines[2]
    assert "100.0%" in lines[3]


def test_a_folder_without_scans_is_named_in_the_error(tmp_path) -> None:
    result = CliRunner().invoke(main, ["validate", "weights", "--data", str(tmp_path)])
    assert result.exit_code == 2
    assert "real_exam" in result.output
