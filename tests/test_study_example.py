"""A study made here: exams and two readers with a known difference, by the commands that the help names."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from pipelines.cli import main

CONFIG = """
[privacy]
key_file = "{key}"
[cluster]
workers = 1
device = "cpu"
[load]
tasks = ["standing"]
opensim_timeout_s = 0.01
[review]
overlays = false
"""


def cohort(*words: object) -> str:
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.slow
def test_from_annotated_exams_to_the_report_by_the_commands_of_the_help(tmp_path: Path) -> None:
    folder, store, config = tmp_path / "study", tmp_path / "study" / "store", tmp_path / "cohort.toml"
    config.write_text(CONFIG.format(key=tmp_path / "key"))
    cohort("study", "example", folder, "--exams", 1, "--processes", 1)
    cohort("run", folder / "archive", "--store", store, "--config", config)
    cohort("annotations", "import", folder / "annotations.json", store, "--format", "mdai", "--config", config)
    cohort("agreement", store, "--first", "A", "--second", "B", "-o", folder / "agreement", "--processes", 1)
    cohort("study", "report", folder / "agreement", "-o", folder / "report", "--store", store)
    page = (folder / "report" / "report.html").read_text()
    assert "NaN" not in re.sub(r"base64,[^\"]+", "", page)
    assert str(tmp_path) not in page
    overlaps = pq.read_table(folder / "agreement" / "overlaps.parquet").to_pylist()
    whole = [row for row in overlaps if row["slice_position"] is None and row["kind"] == "vertebral_body"]
    assert {row["level"] for row in whole} >= {"L1", "L2", "L3", "L4", "L5"}
    assert all(row["dice"] is None or 0.85 < row["dice"] <= 1 for row in whole)
    with (folder / "truth.csv").open() as file:
        shifts = [float(row["shift_mm"]) for row in csv.DictReader(file) if row["reader"] == "B"]
    assert -1.5 < min(shifts) < max(shifts) < 2.5
