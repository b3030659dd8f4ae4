"""Tables 3 to 8 of Hess et al. (2023) with one's own figures, and what belongs beside them.

Tables 3 to 5 hold the overlap of bodies, discs and muscles, tables 6 to 8 the agreement of disc heights, of muscles'
areas and of loads; `pipelines.study.paper` says what is known of the paper's own layout. Rows are those of
`cohort.agreement.rows` in the order of a paper, with the paper's figures in a column of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from cohort.agreement.rows import AGREEMENT_TABLES
from cohort.loading.tasks import FLEXION60_5KG
from cohort.reasons import REASONS
from cohort.tables.schema import schema_of
from cohort.terms import MUSCLES, SIDES
from pipelines.study.paper import ALL, PaperFigure, paper_figures, published
from pipelines.study.study_data import Comparison, Row, StudyData, of_comparison, rows_of

DISC_HEIGHT: Final = "disc_height_mm"
AREA: Final = "csa_cm2"
COMPRESSION: Final = "compression_n"
LOAD_UNIT: Final = "N"

KINDS: Final = {3: "vertebral_body", 4: "disc", 5: "muscle"}
"""Number of a table -> kind of structure."""
TITLES: Final = {
    3: "Overlap of vertebral bodies",
    4: "Overlap of intervertebral discs",
    5: "Overlap of muscles",
    6: "Agreement of disc heights",
    7: "Agreement of muscle cross-sectional areas",
    8: "Agreement of spinal loads",
}
NAMES: Final = {
    3: "table-3-vertebral-bodies",
    4: "table-4-discs",
    5: "table-5-muscles",
    6: "table-6-disc-heights",
    7: "table-7-muscle-areas",
    8: "table-8-loads",
}
"""Number of a table -> name of its files."""
PAPER_FIELD: Final = pa.field(
    "paper",
    pa.string(),
    metadata={
        "description": "the same figure in Hess et al. 2023, of other patients on other scanners; *: quoted elsewhere, "
        "not checked in the paper"
    },
)

_VERTEBRAE: Final = (*(f"T{k}" for k in range(1, 14)), *(f"L{k}" for k in range(1, 7)), "S1", "S2")
"""Cranial to caudal, with those of people who have 13 thoracic or 6 lumbar vertebrae."""


@dataclass(frozen=True, eq=False)
class StudyTable:
    """A table of the report: plain values, to be written to files and onto the page."""

    name: str
    """Of its files, without suffix."""
    title: str
    rows: Sequence[Row]
    schema: pa.Schema

    def of(self, comparison: Comparison) -> list[Row]:
        """Rows of two readers."""
        return rows_of(self.rows, comparison)

    @property
    def arrow(self) -> pa.Table:
        """With descriptions of the columns."""
        return pa.Table.from_pylist(list(self.rows), schema=self.schema)


def level_place(level: str | None) -> tuple[int, str]:
    """To sort levels cranial to caudal; no level (all of them) and unknown names come last."""
    above = (level or "").split("-", maxsplit=1)[0]
    return (_VERTEBRAE.index(above) if above in _VERTEBRAE else len(_VERTEBRAE), level or "~")


def levels_in(rows: Iterable[Row]) -> list[str]:
    """Levels of rows, cranial to caudal."""
    return sorted({row["level"] for row in rows if row["level"]}, key=level_place)


def study_tables(data: StudyData) -> list[StudyTable]:
    """Tables 3 to 8, each with the rows of all comparisons."""
    return [*(_overlap_table(data, number) for number in KINDS), *(_agreement_table(data, n) for n in (6, 7, 8))]


def _overlap_table(data: StudyData, number: int) -> StudyTable:
    rows = [
        {**row, "paper": _paper(number, comparison, _overlap_key(row))}
        for comparison in data.comparisons
        for row in sorted(
            rows_of(data.overlap_summary, comparison, kind=KINDS[number], slice_bin=None), key=_overlap_place
        )
    ]
    return StudyTable(NAMES[number], TITLES[number], rows, _with_paper("overlap_summary"))


def _overlap_place(row: Row) -> tuple[Any, ...]:
    """Levels, then muscles and their sides, then the mean, then everything as one mask."""
    return (row["structure"] == ALL, *_place(row))


def _place(row: Row) -> tuple[Any, ...]:
    muscle = MUSCLES.index(row["muscle"]) if row["muscle"] in MUSCLES else len(MUSCLES)
    side = SIDES.index(row["side"]) if row["side"] in SIDES else -1
    return (muscle, row["side"] is not None, level_place(row["level"]), side)


def _overlap_key(row: Row) -> str | None:
    """Row of the paper's table: bodies and discs of a scan at once, muscles with both sides at once."""
    if row["side"] or row["level"]:
        return None
    return row["muscle"] or (ALL if row["structure"] == ALL else None)


def _agreement_table(data: StudyData, number: int) -> StudyTable:
    rows = [
        {**row, "paper": _paper(number, comparison, _agreement_key(row))}
        for comparison in data.comparisons
        for row in sorted(rows_of(data.agreement, comparison), key=agreement_place)
        if table_of(row) == number
    ]
    return StudyTable(NAMES[number], TITLES[number], rows, _with_paper("agreement"))


def table_of(row: Row) -> int | None:
    """Number of the table in which a quantity of `agreement` belongs; None for one that the paper has not.

    Areas of all muscles together are in none: their correlation would only say that muscles differ in size.
    """
    if row["unit"] == LOAD_UNIT:
        return 8
    return {DISC_HEIGHT: 6, AREA: 7 if row["muscle"] else 0}.get(row["quantity"])


def agreement_place(row: Row) -> tuple[Any, ...]:
    """To sort rows of `agreement`: compression before other loads, tasks by name, muscles, levels, all of them last."""
    return (row["quantity"] != COMPRESSION, row["quantity"], row["task"] or "", *_place(row))


def _agreement_key(row: Row) -> str | None:
    """Row of the paper's table; its loads are those of one task."""
    if row["level"] or row["side"]:
        return None
    if row["unit"] == LOAD_UNIT and (row["quantity"], row["task"]) != (COMPRESSION, FLEXION60_5KG.name):
        return None
    return row["muscle"] or (None if row["quantity"] == AREA else ALL)


def _paper(number: int, comparison: Comparison, key: str | None) -> str | None:
    """The paper compares networks with people: beside other comparisons its figures would say nothing."""
    return published(number, key) if key and comparison.is_automatic else None


def _with_paper(table: str) -> pa.Schema:
    return schema_of(table, AGREEMENT_TABLES[table]).append(PAPER_FIELD)


def other_measures(data: StudyData) -> StudyTable:
    """Quantities that the paper does not compare, in the layout of tables 6 to 8."""
    rows = [
        {**row, "paper": None}
        for comparison in data.comparisons
        for row in sorted(rows_of(data.agreement, comparison), key=agreement_place)
        if table_of(row) is None
    ]
    return StudyTable("table-s1-other-measures", "Agreement of other measures", rows, _with_paper("agreement"))


def not_compared(data: StudyData) -> StudyTable:
    """How many structures and values could not be compared, and why."""
    rows = [
        {**_readers(comparison), "what": what, "reason": reason, "n": n, "meaning": meanings(reason)}
        for comparison in data.comparisons
        for what, reason, n in _without(data, comparison)
    ]
    texts = ("first_reader", "second_reader", "what", "reason", "meaning")
    schema = pa.schema([(name, pa.int64() if name not in texts else pa.string()) for name in (*texts, "n")])
    return StudyTable("table-s2-not-compared", "What could not be compared, and why", rows, schema)


def _without(data: StudyData, comparison: Comparison) -> Iterator[tuple[str, str, int]]:
    whole = data.overlaps[data.overlaps["slice_position"].isna()]
    for frame, kind in ((whole, "kind"), (data.pairs, "quantity")):
        counts = of_comparison(frame, comparison).dropna(subset=["reason"]).groupby([kind, "reason"]).size()
        for (what, reason), n in counts.items():
            yield str(what), str(reason), int(n)


def _readers(comparison: Comparison) -> Row:
    return {"first_reader": comparison.first, "second_reader": comparison.second}


def meanings(reasons: str | None) -> str:
    """Codes joined by '+' as sentences."""
    return " ".join(REASONS.get(code, code) for code in reasons.split("+")) if reasons else ""


_FIGURES: Final = ("n", "n_persons", "value", "low", "high", "low_clustered", "high_clustered")
_OVERVIEW_TEXTS: Final = ("what", "statistic", "unit", "first_reader", "second_reader", "reason")


def overview(data: StudyData) -> StudyTable:
    """The main figures of every comparison: networks against readers, readers among themselves, model against model."""
    rows = [row for comparison in data.comparisons for row in _overview_of(data, comparison)]
    kinds = dict.fromkeys(("n", "n_persons"), pa.int64()) | dict.fromkeys(_OVERVIEW_TEXTS, pa.string())
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in (*_OVERVIEW_TEXTS, *_FIGURES)])
    return StudyTable("overview", "Overview of all comparisons", rows, schema)


def _overview_of(data: StudyData, comparison: Comparison) -> Iterator[Row]:
    summary = rows_of(data.overlap_summary, comparison, slice_bin=None, level=None, side=None)
    for row in sorted(summary, key=lambda row: (list(KINDS.values()).index(row["kind"]), *_overlap_place(row))):
        if row["muscle"] or row["structure"] == ALL:
            yield _overview_row(row, row["muscle"] or row["kind"], "Dice", "", "mean", ("low", "high"))
    for row in sorted(rows_of(data.agreement, comparison, level=None, side=None), key=_by_table):
        if table_of(row) and bool(row["muscle"]) == (row["quantity"] == AREA):
            what = ", ".join(part for part in (row["quantity"], row["muscle"], row["task"]) if part)
            for name, unit in (("mae", row["unit"]), ("r", ""), ("icc", "")):
                yield _overview_row(row, what, name, unit, name, (f"{name}_low", f"{name}_high"))


def _by_table(row: Row) -> tuple[Any, ...]:
    return (table_of(row) or 0, *agreement_place(row))


def _overview_row(row: Row, what: str, statistic: str, unit: str, name: str, ends: tuple[str, str]) -> Row:
    low, high = ends
    return {
        **{key: row[key] for key in ("first_reader", "second_reader", "n", "n_persons", "reason")},
        **{"what": what, "statistic": statistic, "unit": unit, "value": row[name]},
        **{"low": row[low], "high": row[high]},
        **{"low_clustered": row[f"{low}_clustered"], "high_clustered": row[f"{high}_clustered"]},
    }


def paper_table() -> StudyTable:
    """What is known of the paper's figures, with where each is from."""
    rows = [dataclasses.asdict(one) for one in paper_figures()]
    schema = pa.schema([(field.name, pa.string()) for field in dataclasses.fields(PaperFigure)])
    return StudyTable("paper-figures", "Figures of Hess et al. 2023 and where they are from", rows, schema)
