"""How a split came out, in numbers for people."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final

from pipelines.study.split import KINDS, NETWORKS, PARTS, Kind, Network, SplitRow

ALL: Final = "all"
HEADER: Final = ("split", "network", "stratum", *PARTS, "none")


Name = tuple[Kind, Network, str]
"""Split, network, stratum."""


def split_table(rows: Sequence[SplitRow]) -> list[tuple[str, ...]]:
    """Header, then patients by part for each network of each split: all of them, and stratum by stratum; `none` counts
    the exams in no part."""
    groups: dict[Name, list[SplitRow]] = defaultdict(list)
    for row in rows:
        groups[row.split, row.network, ALL].append(row)
        if row.stratum:
            groups[row.split, row.network, row.stratum].append(row)
    return [HEADER, *(_line(name, groups[name]) for name in sorted(groups, key=_order))]


def _order(name: Name) -> tuple[int, int, bool, str]:
    split, network, stratum = name
    return KINDS.index(split), NETWORKS.index(network), stratum != ALL, stratum


def _line(name: Name, rows: Sequence[SplitRow]) -> tuple[str, ...]:
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
