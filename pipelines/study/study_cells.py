"""Rows of a study's tables as cells of the page: an estimate, its two intervals, and why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from pipelines.report_page import Cell, Html
from pipelines.study.agreement_figures import DIGITS, LABELS
from pipelines.study.plot_style import in_words
from pipelines.study.study_data import Row
from pipelines.study.study_tables import ALL, AREA, DISC_HEIGHT, LOAD_UNIT

MISSING: Final = "-"
PAPER: Final = "Hess 2023, other patients"
WHY: Final = "why not"
_OF_ONE: Final = 3
"""Decimals of what lies between -1 and 1."""

OVERLAP_HEAD: Final = (
    *("", "#n", "#persons", "#Dice, mean", "#Hausdorff 95 %, mm", "#surface distance, mm"),
    *("#missed", "#extra", "#misnamed", PAPER, WHY),
)


def overlap_cells(row: Row) -> list[Cell]:
    """In the order of `OVERLAP_HEAD`."""
    counts = (row["n_missed"], row["n_extra"], row["n_misnamed"])
    return [
        _structure(row),
        row["n"],
        row["n_persons"],
        estimate(row, "mean", _OF_ONE, ends=""),
        *(estimate(row, name, DIGITS["mm"]) for name in ("hausdorff95_mm", "surface_mm")),
        *counts,
        row["paper"],
        why(row),
    ]


def _structure(row: Row) -> Cell:
    if row["structure"] == ALL:
        return Html("<b>all as one mask</b>")
    if not row["level"] and not row["muscle"]:
        return Html("<b>mean of all</b>")
    side = f", {row['side']}" if row["side"] else ""
    return in_words(row["level"] or row["muscle"]) + side


def agreement_head(rows: Sequence[Row]) -> tuple[str, ...]:
    """Of tables 6 to 8: units differ between tables, never within one."""
    units = {row["unit"] for row in rows}
    unit = f", {unit_text(units.pop())}" if len(units) == 1 else ""
    statistics = (f"#MAE{unit}", f"#bias{unit}", f"#lower limit{unit}", f"#upper limit{unit}")
    return ("", "", "#n", "#persons", "#without", "#flagged", "#R", *statistics, "#ICC", PAPER, WHY)


def agreement_cells(row: Row, before: Row | None) -> list[Cell]:
    """In the order of `agreement_head`; what is the same as in the row before is not said again."""
    digits = DIGITS.get(row["unit"], 2)
    group = _group(row)
    return [
        "" if before and _group(before) == group else group,
        _level(row),
        row["n"],
        row["n_persons"],
        row["n_without"],
        row["n_flagged"],
        _correlation(row),
        *(estimate(row, name, digits, sign=name == "bias") for name in ("mae", "bias", "lower_limit", "upper_limit")),
        estimate(row, "icc", _OF_ONE),
        row["paper"],
        why(row),
    ]


def _group(row: Row) -> str:
    """What a table has several of: muscles and sides, loads and tasks, other quantities with their units."""
    name = LABELS.get(row["quantity"], in_words(row["quantity"]))
    if row["quantity"] not in (DISC_HEIGHT, AREA) and row["unit"] != LOAD_UNIT:  # whose tables have one unit
        name = f"{name}, {unit_text(row['unit'])}"
    if row["muscle"]:
        muscle = in_words(row["muscle"]) + (f", {row['side']}" if row["side"] else "")
        return muscle if row["quantity"] == AREA else f"{name}, {muscle}"
    return f"{name}, {row['task']}" if row["task"] else name


def _level(row: Row) -> Cell:
    return Html(f'<span class="e">{escape(row["level"])}</span>' if row["level"] else "<b>all</b>")


def unit_text(unit: str) -> str:
    """As people write it."""
    return {"cm2": "cm²", "deg": "degrees"}.get(unit, unit)


def _correlation(row: Row) -> Html:
    """With the p of no correlation."""
    if row["r"] is None:
        return estimate(row, "r", _OF_ONE)
    p = "" if row["r_p"] is None else ", p < 0.001" if row["r_p"] < 0.001 else f", p = {row['r_p']:.3f}"
    return estimate(row, "r", _OF_ONE, beside=p)


def estimate(
    row: Row, name: str, digits: int, *, ends: str | None = None, sign: bool = False, beside: str = ""
) -> Html:
    """A figure, below it its interval and in parentheses that by persons; `ends` is the intervals' prefix."""
    value = row[name]
    prefix = f"{name}_" if ends is None else ends
    lines = [interval(row, prefix, suffix, digits) for suffix in ("", "_clustered") if value is not None]
    small = "".join(f"<small>{escape(line)}</small>" for line in lines if line)
    shown = MISSING if value is None else number(value, digits, sign=sign) + escape(beside)
    return Html(f'<span class="e">{shown}{small}</span>')


def interval(row: Row, prefix: str, suffix: str, digits: int) -> str:
    """Lower to upper end; that by persons in parentheses; nothing where there is none."""
    low, high = row[f"{prefix}low{suffix}"], row[f"{prefix}high{suffix}"]
    if low is None or high is None:
        return ""
    text = f"{number(low, digits)} to {number(high, digits)}"
    return f"({text})" if suffix else text


def number(value: float, digits: int, *, sign: bool = False) -> str:
    """Rounded, without -0.00."""
    rounded = round(value, digits) + 0.0
    return f"{rounded:+,.{digits}f}" if sign and rounded else f"{rounded:,.{digits}f}"


def why(row: Row) -> str:
    """Reason codes of a row in words; their meaning is said below the tables."""
    return ", ".join(in_words(code) for code in row["reason"].split("+")) if row["reason"] else ""
