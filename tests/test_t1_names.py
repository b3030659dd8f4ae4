"""Names on real T1 pictures: the lowest row is S1 or unnamed, and the counts are the listed ones."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipelines.validation.t1_names import FOLDER, T1Picture, t1_figures, t1_results

NAMES = ("107_t1", "117_t1")


def test_the_lowest_row_of_real_t1_pictures_is_s1(real_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    (folder / "images").mkdir(parents=True)
    shutil.copy(real_data / FOLDER / "series.csv", folder)
    for name in NAMES:
        shutil.copy(real_data / FOLDER / "images" / f"{name}.png", folder / "images")
    told: list[str] = []
    found = t1_results(tmp_path, told.append)
    assert found["t1_pictures"] == len(NAMES)
    assert found["t1_lowest_named_s1"] == 1
    assert found["t1_refused"] == 0
    assert found["t1_vertebrae_match"] == 1
    assert found["t1_discs_within_one"] == 1
    assert told


def test_pictures_that_differ_from_the_list_are_told() -> None:
    right = T1Picture("right", "S1", 0.9, 7, 7, (7, 7))
    fused = T1Picture("fused", "S1", 0.9, 6, 7, (7, 7))
    refused = T1Picture("refused", None, 0.0, 7, 9, (7, 7))
    wrong = T1Picture("wrong", "L5", 0.7, 7, 7, (7, 7))
    found = t1_figures([right, fused, refused, wrong])
    assert (found["t1_lowest_named_s1"], found["t1_refused"], found["t1_lowest_named_otherwise"]) == (0.5, 0.25, 1)
    assert (found["t1_vertebrae_match"], found["t1_vertebrae_within_one"]) == (0.75, 1)
    assert (found["t1_discs_match"], found["t1_discs_within_one"]) == (0.75, 0.75)
    assert [one["picture"] for one in found["t1_differing"]] == ["fused", "refused", "wrong"]
