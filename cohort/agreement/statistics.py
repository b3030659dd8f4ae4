"""From pairs to the rows of agreement: every statistic of every group, or the reason why there is none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

import numpy as np

from cohort.agreement.bland_altman import Interval, Values, bland_altman, mean_absolute_error
from cohort.agreement.by_person import FEWEST_PERSONS, Ends, intervals_by_person
from cohort.agreement.correlation import Correlation, correlation, intraclass
from cohort.agreement.rows import AgreementRow, OverlapRow, PairRow

Row = TypeVar("Row", PairRow, OverlapRow)

GROUPS: Final[tuple[tuple[str, ...], ...]] = ((), ("level",), ("muscle",), ("muscle", "side"), ("muscle", "level"))
"""Columns of `pairs` that are kept apart in a group; what is not named is taken together."""
_ALWAYS: Final = ("quantity", "unit", "task", "first_reader", "second_reader")


def agreement_rows(pairs: Sequence[PairRow]) -> list[AgreementRow]:
    """Agreement in every group of `GROUPS` that the pairs have, in the order of their first pair.

    Pairs that carry a reason are counted and not used. A group whose rows all lack a level or muscle is given once.
    """
    return [
        _agreement_row(dict(key), group)
        for columns in GROUPS
        for key, group in grouped(pairs, (*_ALWAYS, *columns)).items()
        if all(value is not None for name, value in key if name in columns)
    ]


def _agreement_row(key: Mapping[str, Any], group: Sequence[PairRow]) -> AgreementRow:
    used = [pair for pair in group if pair.reason is None]
    first, second = (np.array([getattr(pair, name) for pair in used], dtype=np.float64) for name in ("first", "second"))
    persons = [person_of(pair) for pair in used]
    return AgreementRow(
        **key,
        **statistics(first, second, persons),
        n=len(used),
        n_flagged=sum(pair.flags is not None for pair in used),
        n_without=len(group) - len(used),
        n_persons=len(set(persons)),
    )


def grouped(rows: Sequence[Row], columns: Sequence[str]) -> dict[tuple[tuple[str, Any], ...], list[Row]]:
    """Rows by their values of some columns, as ((column, value), ...); groups in the order of their first row."""
    groups: defaultdict[tuple[tuple[str, Any], ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple((name, getattr(row, name)) for name in columns)].append(row)
    return groups


def person_of(row: PairRow | OverlapRow) -> str:
    """Whose a row is: the person's pseudonym, or the exam's where the person is not known."""
    return row.subject_id or f"exam {row.exam_id}"


def statistics(
    first: Values, second: Values, persons: Sequence[str], *, fewest_persons: int = FEWEST_PERSONS
) -> dict[str, Any]:
    """All statistics of pairs [pair] by the columns of `AgreementRow`, and `reason`; those that are not defined are
    left out.

    Intervals by person are those of the bootstrap; of the limits of agreement, of which it has too narrow ones where
    persons are few, those of Bland & Altman for several pairs of one person. With fewer than `fewest_persons` there are
    none.
    """
    if not len(first):
        return {"reason": "no_pairs"}
    limits, straight = bland_altman(first, second), correlation(first, second)
    icc = intraclass(np.column_stack([first, second])) if straight else None  # of distances the first is always 0
    by_person: dict[str, Ends | None] = {}
    enough = len(set(persons)) >= fewest_persons
    if enough:
        by_person |= intervals_by_person(first, second, persons)
        clustered = bland_altman(first, second, persons)
        by_person |= {"lower_limit": _ends(clustered.lower), "upper_limit": _ends(clustered.upper)}
    intervals = {
        "mae": mean_absolute_error(first, second),
        "bias": limits.bias,
        "lower_limit": limits.lower,
        "upper_limit": limits.upper,
        "r": straight.r if straight else None,
        "icc": icc,
    }
    found: dict[str, Any] = {"r_p": straight.p if straight else None}
    for name, interval in intervals.items():
        if interval is not None:
            found |= interval_columns(name, interval, by_person.get(name))
    return {**found, "reason": "+".join(_reasons(first, straight, icc, enough=enough)) or None}


def interval_columns(name: str, interval: Interval, by_person: Ends | None) -> dict[str, float | None]:
    """Columns of an estimate with its interval and the one by persons."""
    low, high = by_person or (None, None)
    return {
        name: interval.value,
        f"{name}_low": interval.low,
        f"{name}_high": interval.high,
        f"{name}_low_clustered": low,
        f"{name}_high_clustered": high,
    }


def _ends(interval: Interval | None) -> Ends | None:
    if interval is None or interval.low is None or interval.high is None:
        return None
    return interval.low, interval.high


def _reasons(first: Values, straight: Correlation | None, icc: Interval | None, *, enough: bool) -> list[str]:
    """Codes of what is missing among the statistics of pairs."""
    missing = {
        "too_few_pairs": len(first) < 3,
        "constant_values": len(first) >= 3 and straight is None,
        "constant_differences": icc is not None and icc.low is None,
        "too_few_persons": not enough,
    }
    return [code for code, holds in missing.items() if holds]
