"""`cohort validate anatomy`: rows find their structure by place, names are judged, and the tables say so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.phantom.study import study_plan
from models.phantom.study_masks import DrawnExam, draw_exam
from pipelines.validation.anatomy import anatomy_results, anatomy_tables
from pipelines.validation.anatomy_risk import risk_coverage_figure
from pipelines.validation.anatomy_score import CONFIDENT, ScoredExam, ScoredStructure, _owners, score_drawn

KEYS = (
    "disc_height_mae_mm",
    "csa_error_pct",
    "centroid_mae_mm",
    "lordosis_mae_deg",
    "levels_right",
    "levels_wrong_confident",
)


@pytest.fixture(scope="module")
def drawn() -> list[DrawnExam]:
    """A complete typical exam with axial slices, and one without a sacrum."""
    return [draw_exam(exam) for exam in study_plan(3)[1:]]


@pytest.fixture(scope="module")
def scores(drawn: list[DrawnExam]) -> list[tuple[ScoredExam, ScoredExam]]:
    return [score_drawn(one) for one in drawn]


def structure(answer: str | None, confidence: float, *, found: bool = True) -> ScoredStructure:
    return ScoredStructure("vertebra", "L4", "L4", 1.0, found=found, answer=answer, confidence=confidence)


def test_names_are_right_refused_wrong_or_missed() -> None:
    assert structure("L4", 0.9).outcome == "right"
    assert structure(None, 0.0).outcome == "refused"
    assert structure("L3", 0.5).outcome == "wrong"
    assert structure(None, 0.0, found=False).outcome == "missed"
    assert structure("L3", CONFIDENT).wrong_confident
    assert not structure("L3", CONFIDENT - 0.01).wrong_confident


def test_a_row_belongs_to_the_structure_that_holds_most_of_it() -> None:
    places = np.zeros((1, 4, 12), np.uint8)
    places[0, :, :4], places[0, :, 8:] = 7, 9
    rows = np.zeros_like(places)
    rows[0, :, :5], rows[0, :, 5:6], rows[0, 0, 8:], rows[0, 1:, 8:] = 1, 2, 3, 4
    assert _owners(rows, places, 4) == {7: 0, 9: 3}


def test_true_masks_give_true_numbers(scores: list[tuple[ScoredExam, ScoredExam]]) -> None:
    typical = scores[0][0]
    assert typical.complete
    assert typical.all_right
    assert typical.extra == 0
    assert typical.dice == {"vertebral_body": 1.0, "disc": 1.0, "muscle": 1.0}
    assert max(one.centroid_error_mm or 0.0 for one in typical.structures) < 1.0
    discs, bodies = ([one for one in typical.structures if one.kind == kind] for kind in ("disc", "vertebra"))
    assert max(abs(one.errors.get("height_mm", 0.0)) for one in discs) < 1.0
    assert max(abs(one.errors.get("middle_height_mm", 0.0)) for one in (*discs, *bodies)) < 2.0
    assert max(abs(one.errors.get("volume_cm3", 0.0)) for one in (*discs, *bodies)) < 15
    assert set(typical.curvature_errors) == {"lordosis_l1_s1_deg", "lordosis_centroid_deg", "sacral_slope_deg"}
    assert typical.areas
    assert typical.sides[0] > 0
    assert typical.sides[1] == 0
    assert all(level.right_slice for level in typical.levels)
    assert max(abs(level.angle_error_deg) for level in typical.levels) < 5


def test_without_a_sacrum_names_are_refused(scores: list[tuple[ScoredExam, ScoredExam]]) -> None:
    cut_off = scores[1][0]
    assert not cut_off.complete
    assert {one.outcome for one in cut_off.named} == {"refused"}


def test_results_have_the_figures_and_become_tables(scores: list[tuple[ScoredExam, ScoredExam]]) -> None:
    wrong = replace(scores[0][1], structures=(structure("L3", CONFIDENT),))
    results = json.loads(json.dumps(anatomy_results([*scores, (scores[0][0], wrong)], {}), allow_nan=False))
    assert all(key in results and f"degraded_{key}" in results for key in KEYS)
    assert results["levels_wrong_confident"] == 0
    assert results["degraded_levels_wrong_confident"] >= 1
    assert results["spider_counts_match"] is None
    assert results["measure_s_per_exam"] > 0
    assert results["conditions"]["true"]["complete field of view"]["exams"] == 2
    tables = anatomy_tables(results)
    assert "| typical |" in tables
    assert "| no sacrum |" in tables


def test_muscles_on_the_wrong_side_are_told_from_right_ones(
    drawn: list[DrawnExam], scores: list[tuple[ScoredExam, ScoredExam]]
) -> None:
    true = drawn[0].true_masks
    mirrored = tuple(np.where(one > 0, one + np.where(one % 2, 1, -1), 0).astype(np.uint8) for one in true.muscles)
    swapped = replace(drawn[0], true_masks=replace(true, muscles=mirrored))
    right, wrong = scores[0][0].sides
    assert score_drawn(swapped)[0].sides == (wrong, right)


def test_the_figure_of_risk_is_a_picture(scores: list[tuple[ScoredExam, ScoredExam]], tmp_path: Path) -> None:
    risk_coverage_figure(anatomy_results(scores, {}), tmp_path / "risk.png")
    picture = cv2.imread(str(tmp_path / "risk.png"))
    assert picture.shape[1] > picture.shape[0] > 200
    assert picture.std() > 10
