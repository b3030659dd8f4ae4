"""Copies of tables and views for other programs: CSV, Parquet, or one DuckDB file; all of one moment of the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from cohort.errors import ConfigurationError
from cohort.rows import TABLES
from cohort.store.publish import publishing
from cohort.tables.schema import SCHEMA_VERSION, arrow_schema, description, row_class
from cohort.tables.snapshot import snapshot
from cohort.tables.sql import in_memory, register_tables
from cohort.tables.views import create_views, views

_ROWS_AT_A_TIME: Final = 100_000


@dataclass(frozen=True)
class ExportedTable:
    """One table or view that was written."""

    name: str
    rows: int


def export_files(store: Path, output: Path, form: str, names: Sequence[str] = ()) -> list[ExportedTable]:
    """Write a new folder with one file per table and view, `discs.csv` or `discs.parquet`.

    Parameters
    ----------
    form : csv or parquet. In CSV a missing value is empty, and coordinates are lists in JSON's form.
    names : tables and views; all where none is named

    Raises
    ------
    ConfigurationError
        for a name that does not exist, or an output that does
    """
    _require_new(output)
    unknown = [name for name in names if name not in TABLES and name not in views()]
    if unknown:
        raise ConfigurationError(f"no table or view {unknown[0]!r}; there are {', '.join((*TABLES, *views()))}")
    with _reading(store) as connection, publishing(output) as building:
        building.mkdir()
        return [
            ExportedTable(name, _write(connection, name, building / f"{name}.{form}"))
            for name in (names or (*TABLES, *views()))
        ]


def export_duckdb(store: Path, output: Path) -> list[ExportedTable]:
    """Write a new DuckDB file with all tables and views, each column with its description as a comment.

    Raises ConfigurationError for an output that exists.
    """
    _require_new(output)
    with snapshot(store) as moment, publishing(output) as building:
        with duckdb.connect(str(building)) as connection:
            connection.begin()  # five hundred comments, each synced on its own, would take seconds
            register_tables(connection, moment)
            for table in TABLES:
                # a registered object hides the table of its name, so the copy gets it after the object has gone
                connection.execute(f"CREATE TABLE copied_{table} AS SELECT * FROM {table}")
                connection.unregister(table)
                connection.execute(f"ALTER TABLE copied_{table} RENAME TO {table}")
            create_views(connection, temporary=False)
            for statement in _comments():
                connection.execute(statement)
            connection.commit()
            return [ExportedTable(name, _count(connection, name)) for name in TABLES]


def _require_new(output: Path) -> None:
    if output.exists():
        raise ConfigurationError(f"{output.name} exists already; name another output or remove it")


@contextmanager
def _reading(store: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with snapshot(store) as moment, in_memory() as connection:
        register_tables(connection, moment)
        create_views(connection, temporary=True)
        yield connection


def _write(connection: duckdb.DuckDBPyConnection, name: str, path: Path) -> int:
    """Stream one table or view into a file; returns its rows."""
    reader = connection.sql(f"SELECT * FROM {name}").to_arrow_reader(_ROWS_AT_A_TIME)
    schema = arrow_schema(name) if name in TABLES else _described(name, reader.schema)
    rows = 0
    with _csv(path, schema) if path.suffix == ".csv" else pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in reader:
            table = pa.Table.from_batches([batch]).cast(schema)
            writer.write_table(_as_text(table) if path.suffix == ".csv" else table)
            rows += batch.num_rows
    return rows


def _described(view: str, schema: pa.Schema) -> pa.Schema:
    texts = {column.name: column.text for column in views()[view].columns}
    columns = [column.with_metadata({"description": texts[column.name]}) for column in schema]
    return pa.schema(columns, metadata={"view": view, "schema_version": str(SCHEMA_VERSION)})


def _csv(path: Path, schema: pa.Schema) -> pc.CSVWriter:
    return pc.CSVWriter(path, _as_text(schema.empty_table()).schema)


def _as_text(table: pa.Table) -> pa.Table:
    """CSV has no lists: they become JSON."""
    for k, column in enumerate(table.schema):
        if pa.types.is_list(column.type):
            values = [None if value is None else str(value) for value in table[column.name].to_pylist()]
            table = table.set_column(k, pa.field(column.name, pa.string()), pa.array(values, pa.string()))
    return table


def _comments() -> Iterator[str]:
    for table in TABLES:
        yield f"COMMENT ON TABLE {table} IS {_quoted((row_class(table).__doc__ or '').strip().splitlines()[0])}"
        for column in arrow_schema(table).names:
            yield f'COMMENT ON COLUMN {table}."{column}" IS {_quoted(description(table, column))}'
    for view in views().values():
        yield f"COMMENT ON VIEW {view.name} IS {_quoted(view.summary)}"
        for one in view.columns:
            yield f'COMMENT ON COLUMN {view.name}."{one.name}" IS {_quoted(one.text)}'


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _count(connection: duckdb.DuckDBPyConnection, name: str) -> int:
    found = connection.execute(f"SELECT count(*) FROM {name}").fetchone()
    return int(found[0]) if found else 0
