"""`cohort study example`: exams made here, with two readers whose difference is known."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--exams", type=click.IntRange(min=1), default=60, show_default=True)
@click.option("--processes", type=click.IntRange(min=1), default=2, show_default=True)
def example(folder: Path, exams: int, processes: int) -> None:
    """Write synthetic exams to FOLDER, and what two readers drew on them as an export of MD.ai.

    Reader A draws the truth, reader B a little too far out: truth.csv says by how much.

    \b
    Examples:
      cohort study example study
      cohort run study/archive --store study/store
      cohort annotations import study/annotations.json study/store --format mdai
      cohort agreement study/store --first A --second B -o study/agreement
      cohort study report study/agreement -o study/report --store study/store
    """
    from pipelines.study.example import write_study_example

    folder.mkdir(parents=True, exist_ok=True)
    made = write_study_example(
        folder, n_exams=exams, processes=processes, report=lambda line: click.echo(line, err=True)
    )
    click.echo(f"{made.archive}\n{made.export}\n{made.truth}")
