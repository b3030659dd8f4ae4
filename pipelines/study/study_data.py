"""What a study report is made from: the tables of `cohort agreement`, and the splits where they are there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cohort.agreement.rows import AGREEMENT_TABLES
from cohort.annotations.store import NETWORK_CODES
from cohort.errors import ConfigurationError
from cohort.tables.schema import schema_of
from pipelines.study.split import PARTS

Row = dict[str, Any]
"""One row of a table; None where there is no value."""


@dataclass(frozen=True, order=True)
class Comparison:
    """Two readers whose masks were compared; differences are second - first."""

    first: str
    second: str

    @property
    def is_automatic(self) -> bool:
        """Whether networks are compared with a person, as in the paper; two models are not."""
        return (self.first in NETWORK_CODES) != (self.second in NETWORK_CODES)

    @property
    def title(self) -> str:
        """In words, as headings have it."""
        return f"{self.second} against {self.first}"

    @property
    def slug(self) -> str:
        """As part of names of files: codes of readers are letters, digits, - and _."""
        return f"{self.first}-{self.second}"


@dataclass(frozen=True, eq=False)
class StudyData:
    """Tables of `cohort.agreement.rows`; missing values are None in rows, missing in frames."""

    pairs: pd.DataFrame
    overlaps: pd.DataFrame
    agreement: tuple[Row, ...]
    overlap_summary: tuple[Row, ...]
    splits: pd.DataFrame | None
    """splits.csv of `cohort study split`, or one of its splits; None where no file is named."""

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Pairs of readers, networks against persons first."""
        rows = (*self.agreement, *self.overlap_summary)
        found = {Comparison(row["first_reader"], row["second_reader"]) for row in rows}
        return tuple(sorted(found, key=lambda one: (not one.is_automatic, one)))

    def n_persons(self, comparison: Comparison) -> int:
        """Persons of whom both readers have something."""
        return int(persons(self._of(comparison)).nunique())

    def n_exams(self, comparison: Comparison) -> int:
        """Exams of which both readers have something."""
        return int(self._of(comparison)["exam_id"].nunique())

    def _of(self, comparison: Comparison) -> pd.DataFrame:
        columns = ["exam_id", "subject_id", "first_reader", "second_reader"]
        both = pd.concat([self.pairs[columns], self.overlaps[columns]], ignore_index=True)
        return of_comparison(both, comparison)


def persons(frame: pd.DataFrame) -> pd.Series:
    """Who a row belongs to; an exam of nobody known is a person of its own."""
    return frame["subject_id"].fillna(frame["exam_id"])


def of_comparison(frame: pd.DataFrame, comparison: Comparison) -> pd.DataFrame:
    """Rows of two readers."""
    return frame[(frame["first_reader"] == comparison.first) & (frame["second_reader"] == comparison.second)]


def rows_of(rows: Iterable[Row], comparison: Comparison, **wanted: Any) -> list[Row]:
    """Rows of two readers with the wanted values, for example `level=None`."""
    wanted = {"first_reader": comparison.first, "second_reader": comparison.second, **wanted}
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def read_study(folder: Path, split: Path | None = None, kind: str | None = None) -> StudyData:
    """Read the tables that `cohort agreement` wrote into a folder, and the splits.csv of `cohort study split`: all of
    it, or the split that the tables are of.

    Raises
    ------
    ConfigurationError
        if a table is missing, is no Parquet file or lacks a column
    """
    tables = {name: _read(folder, name) for name in AGREEMENT_TABLES}
    if not tables["agreement"].num_rows and not tables["overlap_summary"].num_rows:
        raise ConfigurationError("agreement.parquet and overlap_summary.parquet have no rows: no two readers to report")
    return StudyData(
        pairs=tables["pairs"].to_pandas(),
        overlaps=tables["overlaps"].to_pandas(),
        agreement=tuple(tables["agreement"].to_pylist()),
        overlap_summary=tuple(tables["overlap_summary"].to_pylist()),
        splits=_read_splits(split, kind) if split else None,
    )


def _read(folder: Path, name: str) -> pa.Table:
    path = folder / f"{name}.parquet"
    try:
        found = pq.read_table(path)
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path.name} is not in the folder: cohort agreement writes it") from error
    except pa.ArrowInvalid as error:
        raise ConfigurationError(f"{path.name} is no Parquet file") from error
    missing = [column for column in schema_of(name, AGREEMENT_TABLES[name]).names if column not in found.column_names]
    if missing:
        raise ConfigurationError(f"{path.name} has no column {', '.join(missing)}: made by another version?")
    return found


_SPLIT_COLUMNS: Final = ("split", "network", "part", "exam_id", "subject_id")


def _read_splits(path: Path, kind: str | None) -> pd.DataFrame:
    """Which exam is in which part of which split."""
    found = pd.read_csv(path, dtype=str)
    missing = [column for column in _SPLIT_COLUMNS if column not in found.columns]
    if missing:
        raise ConfigurationError(f"{path.name} has no column {', '.join(missing)}")
    unknown = sorted(set(found["part"].dropna()) - set(PARTS))
    if unknown:
        raise ConfigurationError(f"{path.name} has a part {unknown[0]!r}; parts are {', '.join(PARTS)}")
    return found if kind is None else found[found["split"] == kind]
