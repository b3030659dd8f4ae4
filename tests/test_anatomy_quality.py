"""Limits and flags."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cohort.anatomy.quality import LIMITS, Flag, check, exam_status, marked, quality_rows, row_status
from cohort.reasons import REASONS
from cohort.rows import VertebraRow


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


def test_further_flags_join_a_rows_own_and_never_make_it_better() -> None:
    row = VertebraRow(
        exam_id="exam", ordinal=3, level_confidence=0.9, level_evidence="", x_mm=0.0, y_mm=0.0, z_mm=0.0,
        volume_cm3=30.0, slices_seen=9, slices_expected=9, touches_border=False, status="ok", reasons="outermost_slice",
    )  # fmt: skip
    jump = Flag("size_jump", "L3", 2.0, 1.55)
    assert marked(row, []) == row
    flagged = marked(row, [jump, jump])
    assert (flagged.status, flagged.reasons) == ("flagged", "outermost_slice+size_jump")
    assert marked(flagged, [jump]) == flagged
    assert marked(replace(row, status="refused"), [jump]).status == "refused"


def test_gaps_and_unequal_sides_stay_with_their_rows_but_a_ghost_flags_the_exam() -> None:
    own = [Flag("muscle_gap", "psoas left stack 0", 1.0, 0.0), Flag("side_asymmetry", "psoas L3-L4", 0.7, 0.5)]
    assert exam_status(own) == ("ok", None)
    assert exam_status([*own, Flag("ghosting", "axial stack 0", 0.05, 0.025)]) == ("flagged", "ghosting")


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
