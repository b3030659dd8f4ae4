"""`cohort study example`: a whole study on exams made here, with two readers whose difference is known."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.commands.steps import show_places, type_and_run

if TYPE_CHECKING:
    from pipelines.study.example import StudyExample


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--exams", type=click.IntRange(min=1), default=60, show_default=True)
@click.option("--processes", type=click.IntRange(min=1), default=2, show_default=True,
              help="Exams at a time, where they are made and where they are compared.")  # fmt: skip
@click.pass_context
def example(context: click.Context, folder: Path, exams: int, processes: int) -> None:
    """Make a study in FOLDER and go through it: from synthetic exams and two readers' annotations to the report.

    Reader A draws the truth, reader B a little too far out: truth.csv says by how much, true_pairs.csv and
    true_overlaps.csv what follows from it, and at the end every statistic of A and B stands beside its known truth.
    Each step is a command that is shown and then run; FOLDER/cohort.toml configures it, and is kept where it is there
    already. The same command again makes no data again and goes on with what is missing.

    \b
    Examples:
      cohort study example study
      cohort study example study --exams 6
    """
    from pipelines.study.example import write_study_example

    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    made = write_study_example(
        folder, n_exams=exams, processes=processes, report=lambda line: click.echo(line, err=True)
    )
    for words in _steps(folder, made, processes):
        type_and_run(context, words)
    _show_truth(folder, made)
    show_places(
        started,
        ("report", folder / "report" / "report.html"),
        ("its tables", folder / "report" / "tables"),
        ("its figures", folder / "report" / "figures"),
        ("what B was off by", made.truth),
        ("true pairs and overlaps", folder),
        ("annotations", made.export),
        ("DICOM archive", made.archive),
    )


def _steps(folder: Path, made: StudyExample, processes: int) -> tuple[tuple[str, ...], ...]:
    """Words after `cohort`: what a user types who has an archive and an export of annotations."""
    archive, export, store, config = (str(path) for path in (made.archive, made.export, folder / "store", made.config))
    return (
        ("run", archive, "--store", store, "--config", config),
        ("annotations", "import", export, store, "--format", "mdai", "--config", config),
        ("agreement", store, "-o", str(folder / "report"), "--processes", str(processes)),
    )


def _show_truth(folder: Path, made: StudyExample) -> None:
    """Print what was found of A and B beside what is true."""
    from rich.console import Console

    from pipelines.annotate import store_pseudonyms
    from pipelines.config import read_config
    from pipelines.study.example_truth import TABLE_WIDTH, compare_with_truth, summary, truth_table

    exam_id = store_pseudonyms(read_config(made.config), folder / "store").exam_id
    rows = compare_with_truth(folder, folder / "report", exam_id)
    click.echo("\nB against A beside the known truth:")
    Console(width=TABLE_WIDTH, highlight=False).print(truth_table(rows))
    click.echo(summary(rows))
