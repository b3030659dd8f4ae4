"""How a split came out, in numbers for people."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from pipelines.study.split import PARTS, SplitRow

HEADER = ("split", "network", "stratum", *PARTS, "none")


def split_table(rows: Sequence[SplitRow]) -> list[tuple[str, ...]]:
    """Header, then patients by part for each network of each split: all of them, and stratum by stratum; `none` counts
    the exams in no part."""
    groups: dict[tuple[str, str, str], list[SplitRow]] = defaultdict(list)
    for row in rows:
        groups[row.split, row.network, "all"].append(row)
        if row.stratum:
            groups[row.split, row.network, row.stratum].append(row)
    return [HEADER, *(_line(name, group) for name, group in groups.items())]


def _line(name: tuple[str, str, str], rows: Sequence[SplitRow]) -> tuple[str, ...]:
    patients = (len({row.subject_id for row in rows if row.part == part}) for part in PARTS)
    return (*name, *map(str, patients), str(sum(row.part is None for row in rows)))


def split_reasons(rows: Sequence[SplitRow]) -> list[str]:
    """A line for each network of each split that has reasons or remarks: code and number of exams."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if row.reason:
            counts[f"{row.split} {row.network}"].update(row.reason.split("+"))
    told = {name: ", ".join(f"{code} {n}" for code, n in sorted(found.items())) for name, found in counts.items()}
    return [f"{name}: {text}" for name, text in told.items()]
