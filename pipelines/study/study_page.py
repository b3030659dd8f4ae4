"""The report of a study as one HTML page: no script, nothing loaded from elsewhere, readable on paper and in grey."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

import pandas as pd

from cohort.agreement.rows import SLICE_BINS
from cohort.reasons import REASONS
from cohort.terms import MUSCLES
from pipelines.report_page import STYLE, Cell, Html, table
from pipelines.study.agreement_figures import DIGITS, LABELS
from pipelines.study.overlap_figures import KINDS
from pipelines.study.paper import paper_figures
from pipelines.study.plot_style import DPI, in_words
from pipelines.study.split import PARTS
from pipelines.study.study_cells import (
    MISSING,
    OVERLAP_HEAD,
    PAPER,
    WHY,
    agreement_cells,
    agreement_head,
    interval,
    number,
    overlap_cells,
    unit_text,
    why,
)
from pipelines.study.study_data import Comparison, Row, StudyData, persons
from pipelines.study.study_tables import NAMES, StudyTable

_EXTRA_STYLE: Final = """
body { max-width: 1180px; }
td { font-variant-numeric: tabular-nums; } .e { white-space: nowrap; }
.e small { color: #444; font-size: 85%; display: block; }
h3 { break-after: avoid; } table { font-size: 13px; }
img { max-width: 100%; height: auto; } figcaption { font-size: 13px; margin-top: 4px; }
@media print {
  @page { size: A4 landscape; margin: 10mm; }
  @page upright { size: A4 portrait; }
  table { font-size: 9px; line-height: 1.12; break-inside: avoid; }
  th, td { padding: 1px 7px 1px 0; } h3 { margin: 8px 0 2px; } p.note, figcaption { font-size: 10px; }
  h2 { margin-top: 16px; } h2.part { break-before: page; margin-top: 0; }
  figure { break-inside: avoid; margin: 0; } img { max-height: 165mm; width: auto; }
  figure.upright { page: upright; } figure.upright img { max-height: 245mm; }
}
"""


@dataclass(frozen=True)
class Picture:
    """A figure of the report."""

    number: str
    what: str
    paths: tuple[Path, ...]
    """SVG, PDF and PNG."""


@dataclass(frozen=True, eq=False)
class Report:
    """All that the page shows."""

    data: StudyData
    tables: Mapping[str, StudyTable]
    pictures: Mapping[Comparison, Sequence[Picture]]


def render(report: Report) -> str:
    """The whole page."""
    body = "\n".join(_parts(report))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Study report</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}{_EXTRA_STYLE}</style></head>\n<body>\n'
        f'{body}\n<p class="note">Exams are named by their pseudonyms. Research software, not for clinical use.</p>\n'
        "</body></html>\n"
    )


def _parts(report: Report) -> Iterator[str]:
    data = report.data
    yield "<h1>Study report</h1>"
    yield '<p class="run">Tables 3 to 8 and figures 3 to 6 in the manner of Hess et al., Pain Medicine 2023</p>'
    yield _compared(data)
    yield _HOW_TO_READ
    yield _paper_note(data)
    yield from _splits(data)
    yield from _overview(report)
    for comparison in data.comparisons:
        yield f'<h2 class="part">{escape(comparison.title)}</h2>'
        yield from _comparison(report, comparison)
    yield from _not_compared(report)
    yield _beside(report)


def _compared(data: StudyData) -> str:
    rows = [(one.second, one.first, data.n_exams(one), data.n_persons(one), _kind_of(one)) for one in data.comparisons]
    return "<h2>What was compared</h2>" + table(("reader", "against", "#exams", "#persons", ""), rows)


def _kind_of(comparison: Comparison) -> str:
    if comparison.is_automatic:
        return "networks and a person, as in the paper"
    return "two readings by persons, or by two versions of the networks"


_HOW_TO_READ: Final = (
    '<p class="note">Differences are reader minus the one it is compared with. Below each figure are two 95 % '
    "intervals: the upper one takes every value as independent, as papers mostly do; the lower one, in parentheses, is "
    "from a bootstrap of persons and is the one to believe where a person has several levels, sides or exams. "
    "<b>n</b> counts values, <b>persons</b> whom they come from, <b>without</b> what could not be compared, "
    "<b>flagged</b> values in doubt, which count all the same. R: Pearson's correlation. ICC: ICC(2,1), absolute "
    "agreement of single readings. Limits of agreement hold 95 % of the differences (Bland and Altman 1999). Figures "
    f"that cannot be had are {MISSING}, and the last column says why.</p>"
)


def _paper_note(data: StudyData) -> str:
    if not any(one.is_automatic for one in data.comparisons):
        return ""
    read = [one for one in paper_figures() if one.table == "abstract"]
    abstract = "; ".join(f"{one.row}: {_STATISTICS[one.column]} {one.value}" for one in read).replace(">=", "≥")
    return (
        '<p class="note"><b>The column of Hess 2023</b> holds figures of that paper: of other patients, scanners and '
        "readers, so they say what is usual, not what was to be reached. An asterisk marks figures that are "
        "only known as quoted elsewhere and were not checked in the paper; an empty cell means that no figure is known "
        "here. The numbers of the tables follow the paper's, their division is our own; its "
        "figures of loads stand beside the posture that it computes, 60° flexion with 5 kg in each hand. Its abstract "
        f"says: {escape(abstract)}.</p>"
    )


_STATISTICS: Final = {"dice": "Dice", "r": "R", "mae": "mean absolute error", "icc": "ICC(2,1)", "Dice": "Dice"}


def _splits(data: StudyData) -> Iterator[str]:
    """Exams and persons of each part of each network's split, in the order in which the parts are used."""
    if data.splits is None:
        return
    divided = data.splits.dropna(subset=["part"])
    divided = divided.assign(person=persons(divided), place=divided["part"].map(PARTS.index))
    counts = divided.groupby(["split", "network", "place", "part"])[["exam_id", "person"]].nunique()
    rows = [
        (str(split), KINDS.get(str(network), str(network)), str(part), int(one["exam_id"]), int(one["person"]))
        for (split, network, _, part), one in counts.iterrows()
    ]
    yield "<h2>Splits</h2>" + table(("split", "network", "part", "#exams", "#persons"), rows)
    yield from _not_trained(data.splits)


def _not_trained(splits: pd.DataFrame) -> Iterator[str]:
    """A sentence for each network of each split that cannot have learned from these exams."""
    for (split, network), of in splits.groupby(["split", "network"]):
        if not {"training", "validation"} <= set(of["part"]):
            yield (
                f'<p class="note"><b>{escape(KINDS.get(str(network), str(network)))}, {escape(str(split))} split: '
                "nothing was trained</b>, since there is no exam for training or for validation. Automatic masks of "
                "these structures are those of a network that has not learned from this split.</p>"
            )


def _overview(report: Report) -> Iterator[str]:
    """A line for each figure, a column for each comparison: readers among themselves beside networks."""
    found: dict[tuple[str, str], dict[Comparison, Row]] = {}
    for row in report.tables["overview"].rows:
        statistic = _STATISTICS[row["statistic"]] + (f", {unit_text(row['unit'])}" if row["unit"] else "")
        here = found.setdefault((_what(row["what"]), statistic), {})
        here[Comparison(row["first_reader"], row["second_reader"])] = row
    compared = report.data.comparisons
    lines, before = [], ""
    for (what, statistic), of in found.items():
        lines.append(("" if what == before else what, statistic, *(_overview_cell(of.get(one)) for one in compared)))
        before = what
    yield "<h2>Overview</h2>" + table(("", "", *(f"#{one.title}" for one in compared)), lines)
    yield '<p class="note">In parentheses: 95 % intervals by persons; after them values / persons.</p>'


def _overview_cell(row: Row | None) -> Html:
    """On one line: with the interval that is to be believed."""
    if row is None:
        return Html(MISSING)
    if row["value"] is None:
        return Html(f"{MISSING} <small>{escape(why(row))}</small>")
    digits = DIGITS.get(row["unit"], 3)
    between = interval(row, "", "_clustered", digits)
    counts = f"<small>{row['n']} / {row['n_persons']}</small>"
    return Html(f"<b>{number(row['value'], digits)}</b> {between or '(no interval)'} {counts}")


def _what(what: str) -> str:
    """Names as people write them; those of tasks as in tables and configuration."""
    known = {**LABELS, **KINDS, **{muscle: in_words(muscle) for muscle in MUSCLES}}
    return ", ".join(known.get(part, part) for part in what.split(", "))


def _comparison(report: Report, comparison: Comparison) -> Iterator[str]:
    """Figure 3, tables 3 to 5, figure 4, then tables 6 to 8, each with its figures."""
    drawn = report.pictures[comparison]
    pictures = {digit: [one for one in drawn if one.number.startswith(digit)] for digit in "3456"}
    yield from map(_figure, pictures["3"])
    for k in (3, 4, 5):
        yield _overlap_table(report.tables[NAMES[k]], comparison, k)
    yield from map(_figure, pictures["4"])
    heights = [one for one in pictures["5"] if one.number == "5a"]
    areas = [one for one in pictures["5"] if one.number == "5b"]
    for k, figures in ((6, heights), (7, areas), (8, pictures["6"])):
        yield _agreement_table(report.tables[NAMES[k]], comparison, f"Table {k}")
        yield from map(_figure, figures)
    others = report.tables["table-s1-other-measures"]
    if others.of(comparison):
        yield _agreement_table(others, comparison, "Table S1")


_CSS_DPI: Final = 112
"""Pixels of the page to an inch of a figure: a little more than on paper."""


def _figure(picture: Picture) -> str:
    png = next(path for path in picture.paths if path.suffix == ".png")
    content = png.read_bytes()
    data = base64.b64encode(content).decode("ascii")
    across, down = (int.from_bytes(content[at : at + 4]) for at in (16, 20))  # of the PNG header
    kind = ' class="upright"' if down > across else ""  # on a page of its own, or it would print too small to read
    width = round(across / DPI * _CSS_DPI)
    what = escape(f"{picture.what[0].upper()}{picture.what[1:]}")
    return (
        f'<figure{kind}><img alt="{what}" width="{width}" src="data:image/png;base64,{data}">'
        f"<figcaption><b>Figure {picture.number}.</b> {what}. {_CAPTIONS[picture.number[0]]}</figcaption></figure>"
    )


_AGREEMENT_CAPTION: Final = (
    "Upper plots: values of both, dashed x = y. Lower plots: difference against mean (Bland-Altman); solid bias, "
    "dashed limits of agreement, grey bands their 95 % intervals with pairs taken as independent (that of the bias has "
    "dash-dotted edges), brackets at the right edge those by persons. Markers tell levels apart."
)
_CAPTIONS: Final = {
    "3": "Exams by the mean Dice of everything of a kind as one mask. The slice is that on which both drew most; "
    "its own Dice counts whatever is drawn on it, the sacrum below S1 too, which that of the exam leaves out. "
    "Outlines: solid and dashed, as the legend says; exams by the first letters of their pseudonyms.",
    "4": "Above: each circle is a structure of an exam; diamonds are means with 95 % intervals, thick grey with "
    "structures taken as independent, thin black by persons. Below: means over slices in "
    f"{SLICE_BINS} parts of equal length of the stack, with intervals by persons.",
    "5": _AGREEMENT_CAPTION,
    "6": _AGREEMENT_CAPTION,
}


def _overlap_table(shown: StudyTable, comparison: Comparison, number: int) -> str:
    rows = [overlap_cells(row) for row in shown.of(comparison)]
    return _titled(f"Table {number}. {shown.title}", OVERLAP_HEAD, rows)


def _agreement_table(shown: StudyTable, comparison: Comparison, label: str) -> str:
    found = shown.of(comparison)
    rows = [agreement_cells(row, before) for row, before in zip(found, [None, *found], strict=False)]
    return _titled(f"{label}. {shown.title}", agreement_head(found), rows)


def _titled(title: str, head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """With its heading; columns in which no row says anything are left out."""
    heading = f"<h3>{escape(title)}</h3>"
    if not rows:
        return f"{heading}<p>Nothing of this was measured by both readers.</p>"
    kept = [k for k, name in enumerate(head) if not (name in (*_OPTIONAL, "") and not any(row[k] for row in rows))]
    return heading + table([head[k] for k in kept], [[row[k] for k in kept] for row in rows])


_OPTIONAL: Final = (PAPER, WHY, "#missed", "#extra", "#misnamed", "#without", "#flagged")


def _not_compared(report: Report) -> Iterator[str]:
    """Counts of reasons, and what all codes on the page mean."""
    shown = report.tables["table-s2-not-compared"]
    yield f'<h2 class="part">Table S2. {escape(shown.title)}</h2>'
    rows = [
        (row["second_reader"], row["first_reader"], _what(row["what"]), row["n"], why(row), row["meaning"])
        for row in shown.rows
    ]
    yield table(("reader", "against", "of", "#n", "reason", "meaning"), rows) if rows else "<p>Nothing.</p>"
    found = (*report.data.agreement, *report.data.overlap_summary)
    codes = sorted({code for row in found if row["reason"] for code in row["reason"].split("+")})
    if codes:
        yield "<h3>Why a figure is missing</h3>"
        yield table(("reason", "meaning"), [(in_words(code), REASONS.get(code, "")) for code in codes])


def _beside(report: Report) -> str:
    """What is in the folder with the page."""
    tables = [_link(f"tables/{name}.csv", one.title) for name, one in report.tables.items()]
    pictures = [
        _link(f"figures/{picture.paths[1].name}", f"Figure {picture.number}, {comparison.title}")
        for comparison, drawn in report.pictures.items()
        for picture in drawn
    ]
    return (
        "<h2>Beside this page</h2>"
        "<p>Every table as CSV, and as Parquet with a description of each column:</p>"
        f"<ul>{_items(tables)}</ul><p>Every figure as PDF, SVG and PNG:</p><ul>{_items(pictures)}</ul>"
    )


def _items(lines: Sequence[str]) -> str:
    return "".join(f"<li>{line}</li>" for line in lines)


def _link(address: str, text: str) -> str:
    return f'<a href="{escape(address)}">{escape(text)}</a>'
