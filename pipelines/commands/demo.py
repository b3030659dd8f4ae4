"""`cohort demo`: the whole chain on a synthetic archive."""

from __future__ import annotations

import time
from pathlib import Path

import click

from pipelines.commands.archive import print_summary
from pipelines.commands.steps import show_places


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), default=Path("demo"), show_default=True)
def demo(folder: Path) -> None:
    """Write a synthetic archive of eight exams, run the whole chain on it, and query the result."""
    from pipelines.config import RunConfig
    from pipelines.demo import PLANS, answers, draw_pictures, write_demo_archive
    from pipelines.progress import Progress
    from pipelines.run import run

    started = time.monotonic()
    with Progress() as progress:
        write_demo_archive(folder / "archive", processes=2, report=progress.note)
        progress.note(f"{len(PLANS)} exams in {folder / 'archive'}")
        summary = run(folder / "archive", folder / "store", config=RunConfig.demo(folder), progress=progress)
    print_summary(summary)
    for title, statement, answer in answers(folder / "store"):
        click.echo(f'\n{title}\n$ cohort sql "{statement}" --store {folder / "store"}\n{answer}')
    pictures = draw_pictures(folder / "store", folder)
    show_places(
        started,
        ("overlay of one exam", pictures.overlay),
        ("plot over all exams", pictures.plot),
        ("overlays of every exam", folder / "store" / "review"),
        ("Parquet tables", folder / "store" / "tables"),
        ("run report", folder / "store" / "runs" / summary.run.run_id),
        ("DICOM archive", folder / "archive"),
    )
