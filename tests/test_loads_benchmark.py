"""The benchmark of the load engines, run small: its JSON is complete, and the three ways agree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_benchmark_prints_one_json_object_with_agreeing_engines() -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "loads.py"
    command = [sys.executable, str(script), "--sizes", "1", "3", "--opensim", "2", "--stage-sizes", "1", "4", "--json"]
    here = {**os.environ, "PYTHONPATH": str(script.parents[1])}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, env=here, check=True)
    found = json.loads(ran.stdout)
    assert found["max_relative_difference"] < 1e-3
    assert found["max_relative_difference_opensim_geometry"] < 1e-6
    assert found["ratio"] == pytest.approx(found["opensim_s_per_subject_task"] / found["batch_s_per_subject_task"])
    assert [row["subjects"] for row in found["scaling"]] == [1, 3]
    assert found["stage_ratio"] == pytest.approx(found["stage_alone_s_per_exam"] / found["stage_s_per_exam"])
    assert [row["exams"] for row in found["stage_scaling"]] == [1, 4]
