"""The statistics of the study made here against their known truth.

The truth of a statistic is what its textbook formula gives for the true values of the very pairs that were measured
(`true_pairs.csv`, `true_overlaps.csv`): it knows no pixels, no measuring code and no chance of which persons came.
Where the readers' difference has a distribution that is given, as that of disc heights has, what the statistic is in
endlessly many exams stands beside it. The formulas are written out here: nothing of `cohort.agreement` is used.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from scipy import stats

from cohort.errors import ConfigurationError
from models.phantom.dicom import study_uid
from models.phantom.readers import Reader
from pipelines.study.example import READERS

if TYPE_CHECKING:
    from rich.table import Table

Values = npt.NDArray[np.float64]
Row = Mapping[str, Any]
Key = tuple[str, ...]

STATISTICS: Final = ("mae", "bias", "lower_limit", "upper_limit", "r", "icc")
WITHOUT_TRUTH: Final = "no known truth: it follows from the outlines only by way of what is tested"
"""Loads, curvature, distances of centroids."""
ORDER: Final = ("disc_height_mm", "csa_cm2", "dice")
"""Quantities whose truth is known."""
_Z: Final = float(stats.norm.ppf(0.975))
HEADER: Final = ("quantity", "group", "statistic", "n", "truth", "found", "95 % by persons", "holds", "naive 95 %",
                 "holds", "endless study", "holds")  # fmt: skip
"""Of tables for people."""
TABLE_WIDTH: Final = 175


@dataclass(frozen=True)
class TruthRow:
    """One statistic of one group of pairs, or the mean overlap of one group of structures."""

    quantity: str
    """disc_height_mm, csa_cm2, dice, or another one without a known truth."""
    group: str
    """Level, muscle, or kind of structures."""
    statistic: str
    """One of `STATISTICS`, mean (of Dice), or all."""
    n: int
    n_persons: int
    truth: float | None
    """Of the true values of the same pairs."""
    population: float | None
    """Of endlessly many exams, where that is known."""
    found: float | None
    low: float | None
    """95 % interval by persons; None with too few of them."""
    high: float | None
    naive_low: float | None
    """95 % interval, pairs independent."""
    naive_high: float | None
    reason: str | None = None
    """Why there is no truth, or nothing to hold against it."""

    @property
    def holds(self) -> bool | None:
        """Whether the truth is within the interval by persons; None where there is no truth or no such interval."""
        return _within(self.truth, self.low, self.high)

    @property
    def holds_naive(self) -> bool | None:
        """Whether the truth is within the other interval."""
        return _within(self.truth, self.naive_low, self.naive_high)

    @property
    def holds_population(self) -> bool | None:
        """Whether what is true of endlessly many exams is within the interval by persons, as 19 of 20 times."""
        return _within(self.population, self.low, self.high)


def _within(value: float | None, low: float | None, high: float | None) -> bool | None:
    return None if value is None or low is None or high is None else low <= value <= high


def compare_with_truth(
    example: Path, agreement: Path, exam_id: Callable[[str], str], *, readers: tuple[Reader, Reader] = READERS
) -> list[TruthRow]:
    """Compare what `cohort agreement STORE --first A --second B` found on a study made here with the known truth.

    Parameters
    ----------
    example : folder of `cohort study example`, with `true_pairs.csv` and `true_overlaps.csv`
    agreement : folder with `pairs`, `overlaps`, `agreement` and `overlap_summary` as Parquet files
    exam_id : pseudonym of a StudyInstanceUID under the key of the store (`Pseudonyms.exam_id`)

    Returns
    -------
    Disc heights of all levels together and of each; areas by muscle; Dice by kind, level and muscle; one row without a
    truth for each other quantity

    Raises
    ------
    ConfigurationError
        if a pair or overlap that was found has no truth: example and tables are of two studies
    """
    codes = (readers[0].code, readers[1].code)
    tables = {
        name: [row for row in _table(agreement, name) if (row["first_reader"], row["second_reader"]) == codes]
        for name in ("pairs", "overlaps", "agreement", "overlap_summary")
    }
    if not tables["pairs"]:
        raise ConfigurationError(f"the tables of agreement do not compare {codes[0]} with {codes[1]}")
    pairs = _true(example / "true_pairs.csv", ("quantity", "level", "muscle", "side"), exam_id)
    overlaps = _true(example / "true_overlaps.csv", ("kind", "structure"), exam_id)
    rows = [*_of_pairs(tables, pairs, readers), *_of_overlaps(tables, overlaps), *_without_truth(tables)]
    return sorted(rows, key=lambda row: ORDER.index(row.quantity) if row.quantity in ORDER else len(ORDER))


def _table(folder: Path, name: str) -> list[dict[str, Any]]:
    return pq.read_table(folder / f"{name}.parquet").to_pylist()


def _true(path: Path, columns: Sequence[str], exam_id: Callable[[str], str]) -> dict[Key, Row]:
    """(exam, columns) -> line of a file with the truth."""
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    names = {exam: exam_id(study_uid(int(exam))) for exam in {line["exam"] for line in lines}}
    return {(names[line["exam"]], *(line[name] for name in columns)): line for line in lines}


def _looked_up(known: Mapping[Key, Row], exam: str, *place: str | None) -> Row:
    key = (exam, *(name or "" for name in place))
    try:
        return known[key]
    except KeyError:
        raise ConfigurationError(
            f"{' '.join(key[1:])} of an exam was compared, but the study has no truth of it"
        ) from None


def _of_pairs(
    tables: Mapping[str, Sequence[Row]], known: Mapping[Key, Row], readers: tuple[Reader, Reader]
) -> Iterator[TruthRow]:
    for row in tables["agreement"]:
        quantity, level, muscle = row["quantity"], row["level"], row["muscle"]
        if quantity == "disc_height_mm":
            population = _population_of_heights(*readers)
        elif quantity == "csa_cm2" and muscle and not level and not row["side"]:
            population = {}
        else:
            continue
        pairs = [
            _looked_up(known, pair["exam_id"], *(pair[name] for name in ("quantity", "level", "muscle", "side")))
            for pair in tables["pairs"]
            if pair["quantity"] == quantity and pair["reason"] is None
            and level in (None, pair["level"]) and muscle in (None, pair["muscle"])
        ]  # fmt: skip
        first, second = (np.array([float(pair[name]) for pair in pairs]) for name in ("first", "second"))
        truth = true_statistics(first, second) if len(pairs) > 1 else {}
        for name in STATISTICS:
            yield _row(row, quantity, level or muscle or "all levels", name, truth.get(name), population.get(name))


def _of_overlaps(tables: Mapping[str, Sequence[Row]], known: Mapping[Key, Row]) -> Iterator[TruthRow]:
    for row in tables["overlap_summary"]:
        if row["slice_bin"] is not None or row["side"]:
            continue
        dice = [
            float(_looked_up(known, one["exam_id"], one["kind"], one["structure"])["dice"])
            for one in tables["overlaps"]
            if one["dice"] is not None and one["slice_position"] is None and _is_of(row, one)
        ]
        what = row["muscle"] or row["level"] or ("as one mask" if row["structure"] else "each")
        if row["n"]:
            yield _row(row, "dice", f"{row['kind']}, {what}", "mean", float(np.mean(dice)), None)


def _is_of(summary: Row, overlap: Row) -> bool:
    """Whether an overlap is one of those of a row of the summary."""
    if summary["kind"] != overlap["kind"]:
        return False
    if summary["structure"]:
        return bool(overlap["structure"] == summary["structure"])
    if summary["muscle"]:
        return bool(overlap["structure"] == summary["muscle"])
    single = overlap["structure"] not in ("all", overlap["muscle"])
    return single and summary["level"] in (None, overlap["level"])


def _row(
    row: Row, quantity: str, group: str, statistic: str, truth: float | None, population: float | None
) -> TruthRow:
    """A statistic that was found, or the codes that say why it was not."""
    column = "" if statistic == "mean" else f"{statistic}_"
    found = row[statistic]
    if found is None:
        return TruthRow(quantity, group, statistic, row["n"], row["n_persons"], *(None,) * 7, reason=row["reason"])
    ends = [row[f"{column}{end}{by}"] for by in ("_clustered", "") for end in ("low", "high")]
    return TruthRow(quantity, group, statistic, row["n"], row["n_persons"], truth, population, found, *ends)


def _without_truth(tables: Mapping[str, Sequence[Row]]) -> Iterator[TruthRow]:
    """One row for each other quantity."""
    for quantity in dict.fromkeys(row["quantity"] for row in tables["pairs"] if row["quantity"] not in ORDER):
        pairs = [row for row in tables["pairs"] if row["quantity"] == quantity and row["reason"] is None]
        persons = {row["subject_id"] for row in pairs}
        yield TruthRow(quantity, "all", "all", len(pairs), len(persons), *(None,) * 7, reason=WITHOUT_TRUTH)


def true_statistics(first: Values, second: Values) -> dict[str, float]:
    """`STATISTICS` of pairs [pair] of true values: mean absolute difference, mean difference, that -+ 1.96 standard
    deviations (Bland & Altman 1986), Pearson's r, and ICC(2,1) from the mean squares of a two-way analysis of variance
    (Shrout & Fleiss 1979)."""
    difference = second - first
    bias, sd = float(difference.mean()), float(difference.std(ddof=1))
    values = np.stack([first, second], axis=1)
    n, k = values.shape
    of_things = k * float(np.var(values.mean(axis=1), ddof=1))
    of_readers = n * float(np.var(values.mean(axis=0), ddof=1))
    rest = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    of_rest = float((rest**2).sum()) / ((n - 1) * (k - 1))
    return {
        "mae": float(np.abs(difference).mean()),
        "bias": bias,
        "lower_limit": bias - _Z * sd,
        "upper_limit": bias + _Z * sd,
        "r": float(np.corrcoef(first, second)[0, 1]),
        "icc": (of_things - of_rest) / (of_things + (k - 1) * of_rest + k * (of_readers - of_rest) / n),
    }


def _population_of_heights(first: Reader, second: Reader) -> dict[str, float]:
    """Of disc heights: both borders move by the shift, so the difference is twice that of the readers' shifts, which
    are normal."""
    bias, sd = 2 * (second.bias_mm - first.bias_mm), 2 * float(np.hypot(first.sd_mm, second.sd_mm))
    return {
        "mae": float(stats.foldnorm.mean(abs(bias) / sd, scale=sd)),
        "bias": bias,
        "lower_limit": bias - _Z * sd,
        "upper_limit": bias + _Z * sd,
    }


def truth_table(rows: Sequence[TruthRow]) -> Table:
    """The rows that have a truth, for people; `-` is what cannot be had. It is `TABLE_WIDTH` wide."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in HEADER[:3]:
        table.add_column(name, no_wrap=True)
    for name in HEADER[3:]:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        if row.truth is not None:
            table.add_row(*cells(row))
    return table


def summary(rows: Sequence[TruthRow]) -> str:
    """How many statistics have their truth within their intervals, and which quantities have no truth."""
    counts = []
    for text, name in (("by persons", "holds"), ("naive", "holds_naive"), ("by persons, of an endless study",
                                                                           "holds_population")):  # fmt: skip
        answers = [getattr(row, name) for row in rows]
        counts.append(f"{text}: {answers.count(True)} of {answers.count(True) + answers.count(False)}")
    without = ", ".join(dict.fromkeys(row.quantity for row in rows if row.reason == WITHOUT_TRUTH))
    return f"Truth within the 95 % interval {'; '.join(counts)}\nWithout a known truth: {without or 'nothing'}"


def cells(row: TruthRow) -> tuple[str, ...]:
    """Of a row, by the columns of `HEADER`."""
    return (
        row.quantity,
        row.group,
        row.statistic,
        str(row.n),
        _number(row.truth),
        _number(row.found),
        _interval(row.low, row.high),
        _answer(row.holds),
        _interval(row.naive_low, row.naive_high),
        _answer(row.holds_naive),
        _number(row.population),
        _answer(row.holds_population),
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _answer(holds: bool | None) -> str:
    return {True: "yes", False: "no", None: "-"}[holds]
