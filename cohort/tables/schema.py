"""Arrow schemas and the data dictionary, both derived from the row classes in `cohort.rows`."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from dataclasses import Field, fields
from functools import cache
from numbers import Integral
from operator import attrgetter
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cohort.rows import TABLES

SCHEMA_VERSION: Final = 5
"""Raised by hand with every change of a row class; stores of another version are refused, never guessed at."""

_ARROW_TYPES: Final[dict[object, pa.DataType]] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    list[float]: pa.list_(pa.field("element", pa.float64(), nullable=False)),
}


def row_class(table: str) -> type:
    """Row dataclass of a table; `ValueError` names the tables there are."""
    if table not in TABLES:
        raise ValueError(f"no table {table!r}; tables: {', '.join(TABLES)}")
    return TABLES[table]


def _value_type(annotation: object) -> tuple[object, bool]:
    """Split `X | None` into X and whether it may be missing."""
    if not isinstance(annotation, types.UnionType):
        return annotation, False
    kinds = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
    if len(kinds) != 1:
        raise TypeError(f"a column has one type, or that type and None; not {annotation}")
    return kinds[0], True


def _arrow_field(declared: Field[Any], annotation: object) -> pa.Field:
    kind, nullable = _value_type(annotation)
    description = {"description": declared.metadata["description"]}
    return pa.field(declared.name, _ARROW_TYPES[kind], nullable=nullable, metadata=description)


@cache
def arrow_schema(table: str) -> pa.Schema:
    """Arrow schema of a table of a store, as `schema_of` derives it."""
    return schema_of(table, row_class(table))


@cache
def schema_of(table: str, row: type) -> pa.Schema:
    """Arrow schema of a row class: one field per column with its description, and the schema version as metadata."""
    annotations = typing.get_type_hints(row)
    columns = [_arrow_field(declared, annotations[declared.name]) for declared in fields(row)]
    return pa.schema(columns, metadata={"table": table, "schema_version": str(SCHEMA_VERSION)})


def description(table: str, column: str) -> str:
    """What a column of a table means; `KeyError` where there is no such column."""
    text: bytes = arrow_schema(table).field(column).metadata[b"description"]
    return text.decode()


def _arrow_column(table: str, declared: pa.Field, values: list[Any]) -> pa.Array:
    """One column, checked: what is wrong is named by table and column, the value itself is never repeated."""
    where = f"table {table}, column {declared.name}"
    if pa.types.is_integer(declared.type) and not all(
        issubclass(kind, Integral | types.NoneType) for kind in set(map(type, values))
    ):
        raise ValueError(f"{where}: a value is not a whole number")  # Arrow would cut 1.5 to 1 in silence
    try:
        column = pa.array(values, type=declared.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"{where}: a value is not of type {declared.type}") from error
    if not declared.nullable and column.null_count:
        raise ValueError(f"{where}: a value is missing but the column requires one")
    numbers = column.flatten() if pa.types.is_list(column.type) else column
    if pa.types.is_floating(numbers.type) and pc.is_finite(numbers).false_count:
        raise ValueError(f"{where}: NaN or infinity (a value not measured is None)")
    return column


def rows_to_table(table: str, rows: Sequence[Any]) -> pa.Table:
    """Convert rows to an Arrow table with exactly the schema of `arrow_schema(table)`; `ValueError` as `as_table`."""
    return as_table(table, row_class(table), rows)


def as_table(table: str, row: type, rows: Sequence[Any]) -> pa.Table:
    """Convert rows of one class to an Arrow table with exactly the schema of `schema_of(table, row)`.

    Raises `ValueError` naming table and column when a row is of another class, or a value is NaN, infinite, missing
    where it is required, or of another type.
    """
    schema = schema_of(table, row)
    for found in {type(one) for one in rows} - {row}:
        raise ValueError(f"table {table} holds {row.__name__}, not {found.__name__}")
    columns = [_arrow_column(table, column, list(map(attrgetter(column.name), rows))) for column in schema]
    return pa.Table.from_arrays(columns, schema=schema)
