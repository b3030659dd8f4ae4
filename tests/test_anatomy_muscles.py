"""A muscle area that cannot be is flagged or refused on its own slice, also where no disc is near."""

from __future__ import annotations

from dataclasses import replace

from cohort.anatomy.muscles import area_flags, judged
from cohort.anatomy.quality import withheld
from cohort.rows import MuscleRow

ROW = MuscleRow(
    exam_id="exam",
    stack=0,
    slice=22,
    muscle="erector_spinae",
    side="left",
    csa_cm2=20.0,
    lean_fraction=0.9,
    row_px=1.0,
    column_px=2.0,
    x_mm=40.0,
    y_mm=0.0,
    z_mm=0.0,
    touches_border=False,
    status="ok",
)


def test_a_plausible_area_stands() -> None:
    assert withheld(judged(ROW)) == ROW


def test_a_large_area_is_flagged_and_a_huge_one_is_withheld() -> None:
    large, huge = (withheld(judged(replace(ROW, csa_cm2=area))) for area in (47.2, 80.0))
    assert (large.status, large.csa_cm2, large.reasons) == ("flagged", 47.2, "implausible_csa")
    assert (huge.status, huge.csa_cm2) == ("refused", None)
    (flag,) = area_flags(replace(ROW, csa_cm2=80.0))
    assert (flag.value, flag.structure) == (80.0, "erector_spinae left stack 0 slice 22")


def test_where_a_muscle_begins_it_may_be_small() -> None:
    assert judged(replace(ROW, csa_cm2=0.3)).status == "ok"
