"""What Hess et al. (Pain Med 2023;24(S1):S139) report, as far as it could be had, for the column beside one's own.

`paper_figures.csv` says of every figure whether it was read in the paper or only quoted elsewhere. Only the abstract
could be read when the file was made: the division into tables 3 to 8 is ours (three networks, three comparisons of what
is measured); which of two quoted Dice coefficients belongs to which split, and which area to which muscle, follows the
order in which they were quoted. Figures that are missing are left out, never guessed; who has the paper at hand adds a
line.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

ALL: Final = "all"
"""Row of a table for all levels or muscles together."""
READ: Final = "read"
SECOND_HAND: Final = "quoted elsewhere"


@dataclass(frozen=True)
class PaperFigure:
    """One figure of the paper."""

    table: str
    """3 to 8, or `abstract`."""
    row: str
    """Level, muscle or `all`."""
    column: str
    """What it is: `mae`, `r`, `dice of the standard split`, ..."""
    value: str
    """As printed: one number, or a range in words."""
    unit: str
    source: str
    status: str
    """`read` or `quoted elsewhere`."""


@cache
def paper_figures() -> tuple[PaperFigure, ...]:
    """Every figure of the paper that the package knows."""
    text = resources.files("pipelines.study").joinpath("paper_figures.csv").read_text(encoding="utf-8")
    return tuple(PaperFigure(**line) for line in csv.DictReader(text.splitlines()))


def published(table: int, row: str) -> str | None:
    """The paper's figures of one row of a table in words, second-hand ones marked; None where none is known."""
    found = [one for one in paper_figures() if (one.table, one.row) == (str(table), row)]
    return "; ".join(_in_words(one) for one in found) or None


def _in_words(one: PaperFigure) -> str:
    name = {"mae": "MAE", "r": "R"}.get(one.column, one.column.removeprefix("dice of the "))
    unit = f" {one.unit.replace('cm2', 'cm²')}" if one.unit else ""
    return f"{name} {one.value}{unit}{'*' if one.status == SECOND_HAND else ''}"
