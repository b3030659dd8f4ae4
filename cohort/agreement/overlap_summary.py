"""From overlaps to their means: by kind, level, muscle and side, and along the way through the stack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Final

import numpy as np

from cohort.agreement.bland_altman import mean_absolute_error
from cohort.agreement.by_person import FEWEST_PERSONS, mean_by_person
from cohort.agreement.overlaps import ALL
from cohort.agreement.rows import SLICE_BINS, OverlapRow, OverlapSummaryRow
from cohort.agreement.statistics import grouped, interval_columns, person_of

_READERS: Final = ("kind", "first_reader", "second_reader")
_DICE_COLUMNS: Final = {"dice": "mean"} | {
    f"dice_{end}{by}": f"{end}{by}" for end in ("low", "high") for by in ("", "_clustered")
}
_MOST: Final = {"dice": 1.0}
"""Column -> largest value there is."""
_MISSED, _EXTRA = "structure_missed", "structure_extra"


def overlap_summary_rows(overlaps: Sequence[OverlapRow]) -> list[OverlapSummaryRow]:
    """Mean overlap in every group: whole structures, then tenths of the way through the stack.

    Whole structures: everything of a kind as one mask; the mean over bodies, discs, or muscles of a side; each level;
    each muscle with both sides as one mask; each muscle and side. Slices: everything of a kind as one mask, and each
    muscle with both sides as one mask.
    """
    whole = [row for row in overlaps if row.slice_position is None]
    slices = [row for row in overlaps if row.slice_position is not None]
    return [*_of_structures(whole), *_of_slices(slices)]


def _of_structures(rows: Sequence[OverlapRow]) -> Iterator[OverlapSummaryRow]:
    as_one = [row for row in rows if row.structure == ALL]
    muscles = [row for row in rows if row.structure == row.muscle]
    single = [row for row in rows if row.structure not in (ALL, row.muscle)]
    groups = chain(
        grouped(as_one, (*_READERS, "structure")).items(),
        grouped(single, _READERS).items(),
        grouped([row for row in single if row.level], (*_READERS, "level")).items(),
        grouped(muscles, (*_READERS, "muscle")).items(),
        grouped([row for row in single if row.side], (*_READERS, "muscle", "side")).items(),
    )
    for key, group in groups:
        yield _summary(group, **dict(key))


def _of_slices(rows: Sequence[OverlapRow]) -> Iterator[OverlapSummaryRow]:
    for columns, chosen in (
        ((*_READERS, "structure"), [row for row in rows if row.structure == ALL]),
        ((*_READERS, "muscle"), [row for row in rows if row.structure == row.muscle]),
    ):
        for key, group in grouped(chosen, columns).items():
            for number in range(SLICE_BINS):
                here = [row for row in group if _bin(row) == number]
                if here:
                    yield _summary(here, slice_bin=number, **dict(key))


def _bin(row: OverlapRow) -> int:
    return min(int((row.slice_position or 0.0) * SLICE_BINS), SLICE_BINS - 1)


def _summary(rows: Sequence[OverlapRow], **key: Any) -> OverlapSummaryRow:
    used = [row for row in rows if row.dice is not None]
    persons = {person_of(row) for row in used}
    reasons = {
        "no_pairs": not used,
        "too_few_pairs": len(used) == 1,
        "too_few_persons": bool(used) and len(persons) < FEWEST_PERSONS,
    }
    return OverlapSummaryRow(
        **key,
        **{_DICE_COLUMNS[name]: value for name, value in _mean(used, "dice").items()},
        **_mean(used, "hausdorff95_mm"),
        **_mean(used, "surface_mm"),
        n=len(used),
        n_persons=len(persons),
        n_missed=sum(row.reason == _MISSED for row in rows),
        n_extra=sum(row.reason == _EXTRA for row in rows),
        n_misnamed=sum(None not in (row.level, row.second_level) and row.level != row.second_level for row in used),
        reason="+".join(code for code, holds in reasons.items() if holds) or None,
    )


def _mean(rows: Sequence[OverlapRow], column: str) -> dict[str, Any]:
    """Mean of a column with its intervals; nothing where no row has a value."""
    having = [row for row in rows if getattr(row, column) is not None]
    if not having:
        return {}
    values = np.array([getattr(row, column) for row in having])
    # none is negative: their mean is that of their absolute differences from zero
    mean = mean_absolute_error(np.zeros(len(values)), values).within(0.0, _MOST.get(column, np.inf))
    persons = [person_of(row) for row in having]
    by_person = mean_by_person(values, persons) if len(set(persons)) >= FEWEST_PERSONS else None
    return interval_columns(column, mean, by_person)
