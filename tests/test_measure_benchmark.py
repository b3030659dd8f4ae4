"""The benchmark of measuring: its plain way is what it says, and its steps are functions that exist."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from cohort.geometry import StackGeometry


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "measure.py"
    spec = importlib.util.spec_from_file_location("measure_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_steps_are_functions_of_the_measurements(benchmark: ModuleType) -> None:
    named = [function.split(".py:") for functions in benchmark.STEPS.values() for function in functions]
    assert len(named) == len({tuple(one) for one in named})
    missing = [
        (module, name)
        for module, name in named
        if not hasattr(importlib.import_module(f"cohort.anatomy.{module}"), name)
    ]
    assert missing == []


def test_the_plain_way_measures_each_piece_on_the_slice_of_its_centroid(benchmark: ModuleType) -> None:
    mask = np.zeros((5, 60, 60), np.uint8)
    mask[1:4, 10:18, 10:45], mask[2:5, 40:46, 10:40], mask[0, 30, 30] = 1, 1, 1  # the last is a speck
    position = np.array([[4.0 * k, 0, 0] for k in range(5)])
    row_dir, col_dir = np.array([0, 1.0, 0]), np.array([0, 0, -1.0])
    geometry = StackGeometry(position, row_dir, col_dir, (1.0, 0.5), (60, 60), 4.0)
    upper, lower = benchmark.plain_discs(mask, geometry)
    # from pixel centre to pixel centre, as people write it: one pixel less than the mask is high
    assert (upper.height_mm, lower.height_mm) == pytest.approx((7.0, 5.0))
    assert upper.centroid_mm == pytest.approx([8.0, 13.5, -13.5])
    assert lower.centroid_mm == pytest.approx([12.0, 12.25, -42.5])
