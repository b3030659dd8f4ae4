"""Sex, age, height and weight of an exam: from its files, and from a table of subjects that overrides them. And the
number of a person's vertebrae, which only that table can know.

Values outside human range are dropped and reported, never repaired: 175 might be centimetres, or a typing error. A 0
is what scanners write for a height or weight that nobody entered: it is reported too, unless another file knows better.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cohort.archive.describe import OLDEST_PLAUSIBLE_AGE_YEARS, coarse_age_years
from cohort.archive.pseudonym import Pseudonyms
from cohort.errors import ConfigurationError
from cohort.rows import FileRow, QualityRow

PLAUSIBLE: Final[dict[str, tuple[float, float]]] = {
    "age_years": (0.0, float(OLDEST_PLAUSIBLE_AGE_YEARS)),
    "height_m": (1.20, 2.30),
    "weight_kg": (30.0, 250.0),
    "lumbar_vertebrae": (4.0, 6.0),
    "thoracic_vertebrae": (11.0, 13.0),
}
"""Range of each value that is believed."""
SAME_VALUE: Final[dict[str, float]] = {
    "age_years": 1.0,
    "height_m": 0.01,
    "weight_kg": 1.0,
    "lumbar_vertebrae": 0.0,
    "thoracic_vertebrae": 0.0,
}
"""Values of one exam that differ by no more are roundings of one another."""
CONTRADICTION: Final[dict[str, float]] = {"age_years": 2.0, "height_m": 0.10, "weight_kg": 20.0}
"""A table that differs from the files by more than rounding, shoes and some months explain: perhaps another person."""
KEY_COLUMNS: Final = ("patient_id", "accession_number", "study_instance_uid")
ISSUER_COLUMN: Final = "issuer_of_patient_id"
VALUE_COLUMNS: Final = ("sex", "age_years", "height_m", "weight_kg")
COUNT_COLUMNS: Final = ("lumbar_vertebrae", "thoracic_vertebrae")
"""Of the table alone: no attribute of DICOM holds them."""
_MISSING: Final = frozenset(("", "na", "n/a", "nan", "none", "null", "-", "unknown"))
_SEX_WORDS: Final[dict[str, str | None]] = {"f": "F", "female": "F", "m": "M", "male": "M", "o": None, "other": None}


@dataclass(frozen=True)
class Demographics:
    """What the spine model needs to know of a person; None where unknown, each value with its source."""

    sex: str | None = None
    """F or M."""
    sex_source: str | None = None
    """dicom or subjects."""
    age_years: float | None = None
    """At the exam; over 89 is 90."""
    age_source: str | None = None
    height_m: float | None = None
    height_source: str | None = None
    weight_kg: float | None = None
    weight_source: str | None = None


@dataclass(frozen=True)
class VertebraCount:
    """How many vertebrae somebody counted on images of the whole spine; None where nobody did."""

    lumbar: int | None = None
    thoracic: int | None = None


@dataclass(frozen=True)
class SubjectTable:
    """Sex, age, height, weight and vertebrae by pseudonym, as the user's table gives them."""

    values: Mapping[str, Mapping[str, frozenset[Any]]] = field(default_factory=dict)
    """Pseudonym of the exam, accession number or patient -> column -> all values of its lines."""

    def known(self, rows: Sequence[FileRow], column: str) -> frozenset[Any]:
        """Values of a column for an exam: of its own lines, else of its accession number's, else of its patient's."""
        for keys in self._keys_of(rows):
            found = [self.values.get(key, {}).get(column, frozenset()) for key in keys]
            if any(found):
                return frozenset[Any]().union(*found)
        return frozenset()

    def n_unmatched(self, keys: Collection[str]) -> int:
        """Keys of the table that are not among those of the archive: not there, or written otherwise."""
        return len(self.values.keys() - set(keys))

    @staticmethod
    def _keys_of(rows: Iterable[FileRow]) -> list[set[str]]:
        """Pseudonyms of exams, of accession numbers and of patients: the finest first."""
        keys = [(row.exam_id, row.accession_id, row.subject_id) for row in rows]
        return [{key for key in kind if key} for kind in zip(*keys, strict=True)]


def exam_demographics(
    rows: Sequence[FileRow], subjects: SubjectTable | None = None
) -> tuple[Demographics, list[QualityRow]]:
    """Demographics of one exam, and flags for values that were dropped or contradict each other.

    Parameters
    ----------
    rows : file rows of one exam
    subjects : the user's table; its plausible values override those of the files

    Returns
    -------
    demographics, and quality rows `implausible_demographics` (with value and limit) and `conflicting_demographics`
    """
    flags: list[QualityRow] = []
    exam_id = next((row.exam_id for row in rows if row.exam_id), "")
    found: dict[str, Any] = {}
    for column in VALUE_COLUMNS:
        in_table = subjects.known(rows, column) if subjects else frozenset()
        in_files = _in_files(rows, column)
        for source, values in (("subjects", in_table), ("dicom", in_files)):
            value = _agreed(exam_id, column, values, flags)
            if value is not None:
                found |= {column: value, f"{column.split('_')[0]}_source": source}
                if source == "subjects" and _contradicts(column, value, in_files):
                    flags.append(_flag(exam_id, "conflicting_demographics", column))
                break
    return Demographics(**found), _without_repetition(flags)


def exam_vertebrae(
    rows: Sequence[FileRow], subjects: SubjectTable | None = None
) -> tuple[VertebraCount, list[QualityRow]]:
    """Numbers of vertebrae of one exam from the table of subjects, and flags of contradictory or impossible ones."""
    if subjects is None:
        return VertebraCount(), []
    flags: list[QualityRow] = []
    exam_id = next((row.exam_id for row in rows if row.exam_id), "")
    lumbar, thoracic = (_agreed(exam_id, column, subjects.known(rows, column), flags) for column in COUNT_COLUMNS)
    return VertebraCount(lumbar, thoracic), _without_repetition(flags)


def _in_files(rows: Sequence[FileRow], column: str) -> frozenset[Any]:
    """Values in the files. `O` is no sex that a spine model has; 0 counts only where no file has another value."""
    values = frozenset(value for row in rows if (value := getattr(row, column)) is not None)
    if column == "sex":
        return values - {"O"}
    return values - {0} or values


def _contradicts(column: str, value: Any, in_files: frozenset[Any]) -> bool:
    """Say if believable values of the files cannot be of the person that the table speaks of."""
    if column == "sex":
        return bool(in_files) and in_files != {value}
    low, high = PLAUSIBLE[column]
    return any(low <= other <= high and abs(other - value) > CONTRADICTION[column] for other in in_files)


def _agreed(exam_id: str, column: str, values: frozenset[Any], flags: list[QualityRow]) -> Any:
    """The one plausible value, or None with a flag for each reason."""
    if column == "sex":
        plausible = sorted(values)
    else:
        low, high = PLAUSIBLE[column]
        plausible = sorted(value for value in values if low <= value <= high)
        for value in sorted(values.difference(plausible)):
            limit = low if value < low else high
            flags.append(_flag(exam_id, "implausible_demographics", column, float(value), limit))
    if not plausible:
        return None
    if column == "sex":
        agree = len(plausible) == 1
    else:
        agree = plausible[-1] - plausible[0] <= SAME_VALUE[column]
    if not agree:
        flags.append(_flag(exam_id, "conflicting_demographics", column))
        return None
    middle = plausible[(len(plausible) - 1) // 2]
    return coarse_age_years(middle) if column == "age_years" else middle


def _flag(exam_id: str, reason: str, column: str, value: float | None = None, limit: float | None = None) -> QualityRow:
    return QualityRow(exam_id=exam_id, stage="scan", reason=reason, structure=column, value=value, limit=limit)


def _without_repetition(flags: Iterable[QualityRow]) -> list[QualityRow]:
    return list(dict.fromkeys(flags))


def read_subjects(path: Path, pseudonyms: Pseudonyms) -> SubjectTable:
    """Read a CSV or Parquet table of subjects.

    One line per patient, accession number or study: at least one of the columns `patient_id` (with
    `issuer_of_patient_id` where the files name an issuer), `accession_number` or `study_instance_uid`, and any of
    `sex` (F or M), `age_years`, `height_m`, `weight_kg`, `lumbar_vertebrae` and `thoracic_vertebrae`. The finest
    identifier of a line is its key. Identifiers are hashed at once and not kept.

    Raises
    ------
    ConfigurationError
        for a file that cannot be read, unknown or missing columns, lines without identifier, and cells that are neither
        empty nor a value
    """
    try:
        lines = list(_parquet_lines(path) if path.suffix.lower() in (".parquet", ".pq") else _csv_lines(path))
    except OSError as error:
        raise ConfigurationError(f"subject table: cannot be read: {error.strerror or 'damaged'}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError("subject table: not CSV in UTF-8") from error
    table: dict[str, dict[str, set[Any]]] = {}
    for number, line in enumerate(lines, start=1):
        columns = table.setdefault(_key(line, number, pseudonyms), {})
        for column in (*VALUE_COLUMNS, *COUNT_COLUMNS):
            value = _value(column, line.get(column, ""), number)
            if value is not None:
                columns.setdefault(column, set()).add(value)
    return SubjectTable(
        {key: {name: frozenset(found) for name, found in columns.items()} for key, columns in table.items()}
    )


def _csv_lines(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        _require_columns(reader.fieldnames or ())
        for line in reader:
            yield {name: _text(cell) for name, cell in line.items() if isinstance(name, str)}


def _parquet_lines(path: Path) -> Iterator[dict[str, str]]:
    import pyarrow as pa  # only users of Parquet tables pay for it, not each scanning worker
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise ConfigurationError("subject table: not Parquet") from error
    _require_columns(table.column_names)
    for line in table.to_pylist():
        yield {name: _text(cell) for name, cell in line.items()}


def _text(cell: object) -> str:
    """Text of a cell, '' if it holds no value. Identifiers read as numbers lose the decimals that pandas gave them."""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    text = "" if cell is None else str(cell).strip()
    return "" if text.lower() in _MISSING else text


def _require_columns(names: Iterable[str]) -> None:
    given = set(names)
    values = (*VALUE_COLUMNS, *COUNT_COLUMNS)
    unknown = sorted(given.difference(KEY_COLUMNS, values, {ISSUER_COLUMN}))
    if unknown or not given.intersection(KEY_COLUMNS) or not given.intersection(values):
        raise ConfigurationError(
            f"subject table: unknown columns {unknown}; wanted one of {list(KEY_COLUMNS)} and any of {list(values)}"
        )


def _key(line: Mapping[str, str], number: int, pseudonyms: Pseudonyms) -> str:
    if line.get("study_instance_uid"):
        return pseudonyms.exam_id(line["study_instance_uid"])
    if line.get("accession_number"):
        return pseudonyms.accession_id(line["accession_number"])
    if line.get("patient_id"):
        return pseudonyms.subject_id(line["patient_id"], line.get(ISSUER_COLUMN, ""))
    raise ConfigurationError(f"subject table: row {number} has no identifier")


def _value(column: str, cell: str, number: int) -> Any:
    """Value of a cell; None if it is empty. Cells are not quoted in errors: they may hold anything."""
    if not cell:
        return None
    if column == "sex":
        if cell.lower() not in _SEX_WORDS:
            raise ConfigurationError(f"subject table: row {number}, column sex: not F or M")
        return _SEX_WORDS[cell.lower()]
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigurationError(f"subject table: row {number}, column {column}: not a number")
    if column in COUNT_COLUMNS:
        if not value.is_integer():
            raise ConfigurationError(f"subject table: row {number}, column {column}: not a whole number")
        return int(value)
    return value
