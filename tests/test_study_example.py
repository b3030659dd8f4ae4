"""A study made here: exams and two readers with a known difference, by the commands that the help names."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from models.phantom.exam import ExamPlan, make_exam
from models.phantom.readers import Reader, draw
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


def test_a_reader_without_error_draws_the_truth_and_others_are_off_by_their_shift() -> None:
    exam = make_exam(ExamPlan(8100, "F", 40, 1.65, 70.0, "none", 3))
    body = np.stack([slice_.body for slice_ in exam.sagittal_slices])
    true, wide = draw(exam, Reader("A")), draw(exam, Reader("B", bias_mm=2.0))
    names = {one.name: k + 1 for k, one in enumerate(exam.anatomy.bodies)}
    assert "S1" in {one.label for one in true}
    assert "S2" not in {one.label for one in true}
    for one, other in zip(true, wide, strict=True):
        assert one.label == other.label
        assert (one.shift_mm, other.shift_mm) == (0.0, 2.0)
        if one.label in names:
            assert np.array_equal(one.mask, body == names[one.label])
    grown = [other.mask.sum() / one.mask.sum() for one, other in zip(true, wide, strict=True) if one.label == "L3"]
    assert 1.1 < grown[0] < 1.5  # 2 mm around 35 x 27 mm, less where a disc's neighbour begins
    for group in ("L4 L3 L2", "L4-L5 L3-L4"):
        masks = [one.mask for one in wide if one.label in group.split()]
        assert np.max(np.sum(masks, axis=0)) == 1


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
