"""SQL over the current tables and the views on them: an in-memory DuckDB without access to any file.

DuckDB reads through Arrow datasets that are opened here; its own file access, extensions and configuration are locked,
so a query can neither write into the store nor read anything outside of it.
"""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa

from cohort.errors import ConfigurationError
from cohort.rows import TABLES
from cohort.tables.buckets import table_dataset
from cohort.tables.views import create_views, views

_LOCKS: Final = (
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET python_enable_replacements = false",  # or a query could read variables of the calling Python code
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)


def in_memory() -> duckdb.DuckDBPyConnection:
    """Open an empty database in memory.

    What does not fit goes to the system's folder for temporary files and leaves it with the connection. DuckDB's own
    choice is the current folder, which may be anybody's, and which a locked connection must not touch.
    """
    spill = Path(tempfile.gettempdir()).resolve() / f"cohort-sql-{uuid.uuid4().hex}"
    return duckdb.connect(":memory:", config={"temp_directory": str(spill)})


def connect(store: Path, *, with_views: bool = False) -> duckdb.DuckDBPyConnection:
    """Open a connection with every table as it is now; `StoreError` when the store has no tables.

    Parameters
    ----------
    with_views : create the views of `cohort.tables.views`, too, which takes a quarter of a second
    """
    connection = in_memory()
    register_tables(connection, store)
    if with_views:
        create_views(connection, temporary=True)
    for lock in _LOCKS:
        connection.execute(lock)
    return connection


def register_tables(connection: duckdb.DuckDBPyConnection, store: Path) -> None:
    """Make every table known to a connection; nothing is read yet."""
    for table in TABLES:
        connection.register(table, table_dataset(store, table))


def query(store: Path, sql: str) -> pa.Table:
    """Answer one SELECT over the current tables and views.

    Raises `ConfigurationError` for anything that is not one query, and for SQL that DuckDB refuses; an unknown table is
    answered with the names of those that exist.
    """
    with connect(store, with_views=any(view in sql.lower() for view in views())) as connection:
        try:
            statements = connection.extract_statements(sql)
            if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
                raise ConfigurationError("one SELECT (or WITH ... SELECT, DESCRIBE, SUMMARIZE) is expected")
            return connection.sql(sql).to_arrow_table()
        except duckdb.CatalogException as error:
            first_line = str(error).splitlines()[0]
            raise ConfigurationError(
                f"{first_line} Tables: {', '.join(TABLES)}. Views: {', '.join(views())}"
            ) from error
        except duckdb.Error as error:
            raise ConfigurationError(str(error)) from error
