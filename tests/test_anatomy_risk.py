"""Risk against coverage: what is given, what of it is wrong, and how sure one can be of a zero."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.phantom.study import COUNT_KNOWN
from pipelines.validation.anatomy_risk import calibration_table, decidable, group_of, risk_table, upper_bound
from pipelines.validation.anatomy_score import ScoredExam, ScoredStructure


def structure(answer: str | None, confidence: float, *, found: bool = True) -> ScoredStructure:
    return ScoredStructure("vertebra", "L4", "L4", 1.0, found=found, answer=answer, confidence=confidence)


def exam(*structures: ScoredStructure, stratum: str = "typical", complete: bool = True) -> ScoredExam:
    return ScoredExam(0, (stratum,), complete, (), {}, structures, 0, {}, (), (), (0, 0), (), 0.2)


def test_none_wrong_of_many_is_not_no_risk() -> None:
    # 1 - 0.05 ** (1 / n), the "rule of three"
    assert upper_bound(0, 240) == pytest.approx(1 - 0.05 ** (1 / 240))
    assert upper_bound(0, 240) == pytest.approx(3 / 240, rel=0.01)
    assert upper_bound(5, 5) == 1
    assert upper_bound(0, 0) == 1


@given(n=st.integers(1, 300), share=st.floats(0, 1))
def test_the_bound_lies_above_the_share(n: int, share: float) -> None:
    wrong = int(share * n)
    assert wrong / n <= upper_bound(wrong, n) <= 1
    assert (upper_bound(wrong, n) == 1) == (wrong == n)


def test_names_count_from_their_confidence_up_and_exams_by_any_name() -> None:
    exams = [
        exam(structure("L4", 0.9), structure("L3", 0.6), structure(None, 0.0), structure(None, 0.0, found=False)),
        exam(structure("L4", 0.5)),
    ]
    table = risk_table(exams)["all exams"]
    everything, sure = table["0.00"], table["0.70"]
    assert (everything["names_coverage"], everything["names_wrong"]) == (0.75, 1)
    assert (everything["exams_coverage"], everything["exams_risk"]) == (1.0, 0.5)
    assert (sure["names_coverage"], sure["names_risk"], sure["exams_coverage"]) == (0.25, 0.0, 0.5)
    assert sure["exams_risk_at_most"] == pytest.approx(0.95)
    assert table["0.99"]["names_risk"] is None


def test_the_landmark_alone_covers_no_exam() -> None:
    s1 = ScoredStructure("vertebra", "S1", "S1", 1.0, found=True, answer="S1", confidence=0.95)
    table = risk_table([exam(s1, structure("L4", 0.6))])["all exams"]["0.90"]
    assert (table["names_coverage"], table["exams_coverage"]) == (0.0, 0.0)


def test_usual_anatomy_variants_and_partial_views_are_told_apart() -> None:
    known = replace(exam(), conditions=("4 lumbar", COUNT_KNOWN))
    exams = [exam(), exam(stratum="6 lumbar"), known, exam(stratum="no sacrum", complete=False)]
    assert [group_of(one) for one in exams] == [
        "complete, 5 lumbar, number not known",
        "complete, 4 or 6 lumbar, number not known",
        "complete, 4 or 6 lumbar, number known",
        "partial field of view",
    ]
    assert [decidable(one) for one in exams] == [True, False, True, False]
    assert set(risk_table(exams)) == {"all exams", *map(group_of, exams)}


def test_calibration_compares_confidence_with_the_share_that_is_right() -> None:
    names = [
        structure("L4", 0.96),
        structure("L4", 0.98),
        structure("L3", 1.0),
        structure("L3", 0.5),
        structure(None, 0),
    ]
    table = calibration_table([exam(*names)])
    assert table["0.95-1.00"] == {
        "names": 3,
        "mean_confidence": pytest.approx(0.98),
        "right": pytest.approx(2 / 3, abs=1e-4),
    }
    assert table["0.40-0.60"]["right"] == 0
    assert list(table) == ["0.40-0.60", "0.95-1.00"]
