"""SQL over the current tables: an in-memory DuckDB with one view per table and no access to any file.

DuckDB reads through Arrow datasets that are opened here; its own file access, extensions and configuration are locked,
so a query can neither write into the store nor read anything outside of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa

from cohort.errors import ConfigurationError
from cohort.rows import TABLES
from cohort.tables.buckets import table_dataset

_LOCKS: Final = (
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET python_enable_replacements = false",  # or a query could read variables of the calling Python code
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)


def connect(store: Path) -> duckdb.DuckDBPyConnection:
    """Open a connection with one view per table as it is now; `StoreError` when the store has no tables."""
    connection = duckdb.connect(":memory:")
    for table in TABLES:
        connection.register(table, table_dataset(store, table))
    for lock in _LOCKS:
        connection.execute(lock)
    return connection


def query(store: Path, sql: str) -> pa.Table:
    """Answer one SELECT over the current tables.

    Raises `ConfigurationError` for anything that is not one query, and for SQL that DuckDB refuses; an unknown table is
    answered with the names of those that exist.
    """
    with connect(store) as connection:
        try:
            statements = connection.extract_statements(sql)
            if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
                raise ConfigurationError("one SELECT (or WITH ... SELECT, DESCRIBE, SUMMARIZE) is expected")
            return connection.sql(sql).to_arrow_table()
        except duckdb.CatalogException as error:
            first_line = str(error).splitlines()[0]
            raise ConfigurationError(f"{first_line} Tables: {', '.join(TABLES)}") from error
        except duckdb.Error as error:
            raise ConfigurationError(str(error)) from error
