"""Limits and flags."""

from __future__ import annotations

import pytest

from cohort.anatomy.quality import LIMITS, Flag, check, exam_status, quality_rows, row_status
from cohort.reasons import REASONS


def test_every_limit_has_a_reason_a_source_and_a_wider_possible_range() -> None:
    for limit in LIMITS.values():
        assert limit.reason in REASONS
        assert limit.source
        assert limit.possible[0] <= limit.expected[0] < limit.expected[1] <= limit.possible[1]


def test_flags_carry_value_and_the_limit_passed() -> None:
    assert check("disc_height_mm", 9.0, "L4-L5") == []
    assert check("disc_height_mm", None, "L4-L5") == []
    assert check("disc_height_mm", 19.0, "L4-L5") == [Flag("implausible_disc_height", "L4-L5", 19.0, 17.0)]
    assert check("disc_height_mm", 0.5, "L4-L5") == [Flag("implausible_disc_height", "L4-L5", 0.5, 0.8, refused=True)]


def test_row_status() -> None:
    assert row_status([]) == ("ok", None)
    assert row_status([Flag("outermost_slice")]) == ("ok", "outermost_slice")
    assert row_status([Flag("outermost_slice"), Flag("touches_border")]) == (
        "flagged",
        "outermost_slice+touches_border",
    )
    assert row_status([Flag("implausible_csa", refused=True)]) == ("refused", "implausible_csa")


def test_exam_status_looks_at_the_lumbar_spine_and_the_exam() -> None:
    assert exam_status([Flag("implausible_body_size", "T11"), Flag("outermost_slice", "L1")]) == ("ok", None)
    assert exam_status([Flag("implausible_disc_height", "T11-T12")]) == ("ok", None)
    assert exam_status([Flag("implausible_disc_height", "T12-L1"), Flag("no_discs")]) == ("flagged", "no_discs")


def test_undeclared_reasons_cannot_be_raised() -> None:
    with pytest.raises(KeyError):
        Flag("looks_odd")


def test_each_flag_is_one_row() -> None:
    rows = quality_rows("exam", [Flag("no_discs"), Flag("no_discs"), Flag("touches_border", "L1")])
    assert [(row.stage, row.reason, row.structure) for row in rows] == [
        ("measure", "no_discs", None),
        ("measure", "touches_border", "L1"),
    ]
