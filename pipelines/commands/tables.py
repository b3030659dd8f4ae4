"""`cohort sql` and `cohort schema`: ask the tables, and what their columns mean."""

from __future__ import annotations

from pathlib import Path

import click

from cohort.reasons import REASONS
from pipelines.commands.options import STORE


@click.command()
@click.argument("statement")
@STORE
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
def sql(statement: str, store: Path, as_csv: bool) -> None:
    """Answer one SELECT over the current tables and views.

    \b
    Examples:
      cohort sql "select level, avg(height_mm) from discs group by level" --store /data/store
      cohort sql "describe loads" --store /data/store
      cohort sql "select * from percentiles where feature = 'disc_height_mm'" --store /data/store
    """
    from cohort.tables.sql import query

    frame = query(store, statement).to_pandas()
    click.echo(frame.to_csv(index=False) if as_csv else frame.to_string(index=False))


@click.command()
@click.argument("name", required=False)
@click.option("--reasons", is_flag=True, help="List the reason codes instead.")
def schema(name: str | None, reasons: bool) -> None:
    """Print the data dictionary (Markdown) of one table or view, or of all.

    \b
    Examples:
      cohort schema discs
      cohort schema exams_wide
      cohort schema --reasons
    """
    if reasons:
        click.echo("\n".join(f"{code}: {text}" for code, text in REASONS.items()))
        return
    from cohort.tables.dictionary import data_dictionary, dictionary_of

    click.echo(dictionary_of(name) if name else data_dictionary())
