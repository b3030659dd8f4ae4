"""What befell annotations on their way in: a row for each doubt and each refusal, kept beside the annotation stores."""

from __future__ import annotations

import typing
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from cohort.errors import StoreError
from cohort.reasons import REASONS
from cohort.rows import column, optional
from cohort.store.publish import replacing

Status = Literal["flagged", "refused"]


@dataclass(frozen=True, kw_only=True)
class AnnotationRow:
    """One doubt about what a reader drew, or why a part of it was not taken."""

    exam_id: str | None = optional("pseudonym of StudyInstanceUID; null where the source names no exam of the store")
    reader: str = column("code of the reader")
    source: str = column("sha256 of the file it came from, first 12 characters")
    plane: str | None = optional("sagittal or axial")
    stack: int | None = optional("stack of that plane")
    slice: int | None = optional("slice of the stack, from 0")
    array: str | None = optional("label array: vertebral_body, disc or muscle")
    label: str | None = optional("level or structure concerned; never the text of an unknown label")
    status: str = column("flagged: taken all the same; refused: left out")
    reason: str = column("reason code")
    value: float | None = optional("what was found, in the unit that detail names")
    limit: float | None = optional("what would have passed")
    detail: str | None = optional("what was seen, with numbers and axes")


FIELDS: Final = tuple(one.name for one in fields(AnnotationRow))
_ARROW: Final = {str: pa.string(), int: pa.int64(), float: pa.float64()}


def rows_path(store: Path) -> Path:
    """The one table of all annotation rows of a store."""
    return store / "annotations" / "annotation_rows.parquet"


def annotation_schema() -> pa.Schema:
    """Arrow schema of the table, with the description of each column."""
    kinds = typing.get_type_hints(AnnotationRow)
    columns = []
    for one in fields(AnnotationRow):
        options = typing.get_args(kinds[one.name])
        kind = options[0] if options else kinds[one.name]
        columns.append(pa.field(one.name, _ARROW[kind], nullable=bool(options), metadata=dict(one.metadata)))
    return pa.schema(columns)


def read_annotation_rows(store: Path) -> list[AnnotationRow]:
    """All rows; none where nothing was imported yet. `StoreError` where the table is damaged."""
    if not rows_path(store).exists():
        return []
    try:
        found = pq.ParquetFile(rows_path(store)).read()
    except (pa.ArrowException, OSError) as error:
        raise StoreError("the table of annotation rows is damaged; remove it and import again") from error
    return [AnnotationRow(**values) for values in found.to_pylist()]


def replace_annotation_rows(
    store: Path, rows: Sequence[AnnotationRow], *, drawn: Collection[tuple[str, str]], sources: Collection[str]
) -> bool:
    """Put the rows of an import in the place of those of the former one.

    Parameters
    ----------
    rows : of this import
    drawn : (exam, reader) that it imported: their former rows go
    sources : digests of the files that it read: former rows without an exam go with their file

    Returns
    -------
    False where all rows are there already: nothing is written then

    Raises
    ------
    KeyError
        for a reason that `cohort.reasons` does not declare
    """
    if undeclared := {row.reason for row in rows} - set(REASONS):
        raise KeyError(f"reason codes that are not declared in cohort/reasons.py: {sorted(undeclared)}")
    before = read_annotation_rows(store)
    kept = [row for row in before if (row.exam_id, row.reader) not in drawn and row.source not in sources]
    wanted = sorted({*kept, *rows}, key=_sort_key)
    if wanted == before:
        return False
    rows_path(store).parent.mkdir(parents=True, exist_ok=True)
    with replacing(rows_path(store)) as path:
        content = [asdict(row) for row in wanted]
        pq.write_table(pa.Table.from_pylist(content, annotation_schema()), path, compression="zstd")
    return True


def _sort_key(row: AnnotationRow) -> tuple[Any, ...]:
    return tuple((value is not None, value if value is not None else 0) for value in _values(row))


def _values(row: AnnotationRow) -> Iterable[Any]:
    return (getattr(row, name) for name in FIELDS)
