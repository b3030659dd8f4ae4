"""Human masks: every body is found, structures are counted, and numbers outside the anatomy are flagged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cohort.anatomy.measure import Measurements, measure_exam
from pipelines.validation.human_masks import (
    Spider,
    bodies_found,
    flagged_rows,
    measure_spider,
    number_table,
    real_exam_bodies,
    real_exam_muscles,
    spider_names,
    unflagged,
)


@pytest.fixture(scope="module")
def spider(real_data: Path) -> Spider:
    return measure_spider(real_data / "spider_t2space")


@pytest.fixture(scope="module")
def muscles(real_data: Path) -> Measurements:
    return measure_exam("study", None, [real_exam_muscles(real_data / "real_exam")])


def test_every_human_drawn_body_of_the_real_exam_is_a_row(real_data: Path) -> None:
    stack, human = real_exam_bodies(real_data / "real_exam")
    found = measure_exam("study", stack, [])
    assert bodies_found(found, human) == 9
    assert bodies_found(found, np.roll(human, 30, axis=1)) == 0
    assert unflagged(found) == []


def test_bodies_and_discs_of_each_patient_are_counted_once(spider: Spider) -> None:
    patients = [one.picture.split("_")[0] for one in spider.counts]
    assert len(patients) == len(set(patients)) == 30
    # of the ninth vertebra of two patients the masks hold nothing but a broken line around it
    differing = {
        one.picture.split("_")[0]: (one.vertebrae, one.discs, *one.listed) for one in spider.counts if not one.match
    }
    assert differing == {"241": (8, 9, 9, 9), "65": (8, 9, 9, 9)}


def test_without_a_labelled_sacrum_no_vertebra_is_called_s1_with_confidence(spider: Spider) -> None:
    names = spider_names(spider.measured)
    assert names["spider_lowest_called_s1_confident"] == 0
    assert names["spider_lowest_unnamed"] + names["spider_lowest_called_s1"] <= len(spider.measured)


def test_the_picture_with_most_of_the_canal_is_the_mid_sagittal_one(spider: Spider) -> None:
    # the spine of this patient bends to the side: in the middle picture two bodies are seen as slivers
    assert "50_t2_SPACE_slice79" in {one.picture for one in spider.counts}


def test_numbers_outside_the_anatomy_are_flagged(spider: Spider, muscles: Measurements) -> None:
    measured = [*spider.measured, muscles]
    assert [unflagged(one) for one in measured] == [[]] * 31
    outside = {name: row["outside"] for name, row in number_table(measured).items()}
    assert outside["disc height_mm"] > 0
    assert outside["multifidus csa_cm2"] == 0
    assert 0 < flagged_rows(measured)["implausible_disc_height"]["discs"] < 0.1


def test_a_number_outside_that_no_reason_names_is_found(spider: Spider, muscles: Measurements) -> None:
    found = spider.measured[0]
    thin = replace(found.discs[0], height_mm=1.0, reasons="outermost_slice")
    assert unflagged(replace(found, discs=(thin,))) == ["height_mm"]
    assert unflagged(replace(found, discs=(replace(thin, reasons="implausible_disc_height"),))) == []
    huge = replace(muscles.muscles[0], csa_cm2=90.0)
    assert unflagged(replace(muscles, muscles=(huge,))) == ["csa_cm2"]
