"""The data dictionary, in Markdown: every table and view, every column, its type, and what it means."""

from __future__ import annotations

from functools import cache
from typing import Final

import duckdb
import pyarrow as pa

from cohort.errors import ConfigurationError
from cohort.loading.tasks import DEFAULT_TASKS
from cohort.rows import TABLES
from cohort.tables.schema import SCHEMA_VERSION, arrow_schema, row_class
from cohort.tables.view import DISCS, VERTEBRAE, Column, View, level_name
from cohort.tables.views import create_views, views
from cohort.terms import LUMBAR_VERTEBRAE, MUSCLES, SIDES

_TYPES: Final = {"VARCHAR": "string", "BIGINT": "int64", "DOUBLE": "double", "BOOLEAN": "bool"}


def data_dictionary() -> str:
    """One section per table and view; columns of the wide views that differ by level or task alone share a line."""
    sections = [f"# Tables (schema version {SCHEMA_VERSION})", *(table_section(table) for table in TABLES)]
    sections += ["# Views\n\n" + _about_views(), *(_view_section(view, together=True) for view in views().values())]
    return "\n\n".join(sections) + "\n"


def dictionary_of(name: str) -> str:
    """Section of one table or view, with every column; `ConfigurationError` names those that exist."""
    if name in TABLES:
        return table_section(name)
    if name in views():
        return _view_section(views()[name], together=False)
    raise ConfigurationError(f"no table or view {name!r}; there are {', '.join((*TABLES, *views()))}")


def table_section(table: str) -> str:
    """Heading, summary and columns of one table."""
    summary = (row_class(table).__doc__ or "").strip().splitlines()[0]
    lines = [f"## `{table}`", "", summary, "", "| column | type | null | meaning |", "|---|---|---|---|"]
    return "\n".join([*lines, *(_table_line(column) for column in arrow_schema(table))])


def _table_line(column: pa.Field) -> str:
    meaning = column.metadata[b"description"].decode().replace("|", "\\|")
    kind = "list of double" if pa.types.is_list(column.type) else str(column.type)
    return f"| `{column.name}` | {kind} | {'yes' if column.nullable else 'no'} | {meaning} |"


def _about_views() -> str:
    return "\n".join(
        (
            "In `cohort sql` and in the file of `cohort export duckdb`; `cohort schema VIEW` lists all columns.",
            "No view holds a refused number, a structure without a name, or an exam that left the archive. In names of",
            "columns",
            "",
            f"- `<vertebra>` is {', '.join(VERTEBRAE)}; `<lumbar>` {', '.join(reversed(LUMBAR_VERTEBRAE))}",
            f"- `<disc>` is {', '.join(map(level_name, DISCS))} (of muscles not the last)",
            f"- `<muscle>` is {', '.join(MUSCLES)}; `<side>` {', '.join(SIDES)}",
            f"- `<task>` is {', '.join(DEFAULT_TASKS)}; other tasks are in `features`",
            "- `<status>` is ok, flagged, refused",
        )
    )


def _view_section(view: View, *, together: bool) -> str:
    if together and view.name == "exams_wide_ok":
        return f"## `{view.name}`\n\n{view.summary}"
    lines = [f"## `{view.name}`", "", view.summary, "", "| column | type | meaning |", "|---|---|---|"]
    shown: dict[str, str] = {}
    for column in view.columns:
        name = column.pattern if together and column.pattern else column.name
        shown.setdefault(name, _view_line(name, column, view_types()[view.name][column.name]))
    return "\n".join([*lines, *shown.values()])


def _view_line(name: str, column: Column, kind: str) -> str:
    meaning = column.text.replace("|", "\\|")
    return f"| `{name}` | {_TYPES[kind]} | {meaning} |"


@cache
def view_types() -> dict[str, dict[str, str]]:
    """View -> column -> DuckDB's type, found by creating the views over empty tables."""
    with duckdb.connect(":memory:") as connection:
        for table in TABLES:
            connection.register(table, arrow_schema(table).empty_table())
        create_views(connection, temporary=True)
        return {
            name: {column: kind for column, kind, *_ in connection.execute(f"DESCRIBE {name}").fetchall()}
            for name in views()
        }
