"""The benchmark of the stage segment, run small: both ways give the same labels, and its figures belong together."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest


def test_both_ways_give_the_same_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).parents[1] / "benchmarks"
    monkeypatch.syspath_prepend(folder)  # it imports its neighbour
    spec = importlib.util.spec_from_file_location("segment_benchmark", folder / "segment.py")
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, benchmark)
    spec.loader.exec_module(benchmark)
    monkeypatch.setattr(benchmark, "SLICES", {"sagittal": (2, 256), "axial": (2, 256)})
    found = benchmark.measure("cpu", 1, quick=True)
    assert found["least_dice"] == 1.0
    assert found["ratio"] == pytest.approx(found["exams_per_min"]["batched"] / found["exams_per_min"]["one_by_one"])
    assert found["peak_mib_after_exams"]["1"] <= found["peak_mib_after_exams"]["2"]
    assert found["gpu"] is None
