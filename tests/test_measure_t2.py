"""Muscles measured on T2 images are never plain numbers."""

from __future__ import annotations

import dataclasses

from cohort.anatomy.measure import Measurements
from cohort.rows import MuscleRow
from pipelines.measure import _with_doubtful_muscles


def _row(status: str, reasons: str | None) -> MuscleRow:
    required = {one.name: 0 for one in dataclasses.fields(MuscleRow) if one.default is dataclasses.MISSING}
    return MuscleRow(**required | {"status": status, "reasons": reasons})


def test_muscles_of_t2_images_are_flagged_and_keep_their_other_reasons() -> None:
    rows = (_row("ok", None), _row("flagged", "touches_border"), _row("refused", "implausible_csa"))
    found = _with_doubtful_muscles(Measurements("e", (), (), rows, (), None, (), "ok", None, None, ()))
    assert [(row.status, row.reasons) for row in found.muscles] == [
        ("flagged", "t2_axial"),
        ("flagged", "touches_border+t2_axial"),
        ("refused", "implausible_csa+t2_axial"),
    ]
