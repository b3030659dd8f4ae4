"""`cohort study report`: the tables and figures of a study of automatic against manual masks."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pipelines.commands.options import JSON, StoreFolder


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path, file_okay=False),
              help="Folder of the report; made if it is not there.")  # fmt: skip
@click.option("--store", type=StoreFolder(made=False),
              help="Folder (or file:// URL) of stores and tables: figure 3 is drawn from its images.")  # fmt: skip
@click.option("--split", "split_file", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="splits.csv of `cohort study split`: its exams and persons are counted on the page.")  # fmt: skip
@JSON
def report(folder: Path, output: Path, store: Path | None, split_file: Path | None, as_json: bool) -> None:
    """Write tables 3 to 8 and figures 3 to 6 from what `cohort agreement` wrote into FOLDER.

    The page needs no network and prints in grey. Every table lies beside it as CSV and Parquet, every figure as SVG,
    PDF and PNG.

    \b
    Examples:
      cohort study report agreement -o report
      cohort study report agreement -o report --store /data/store --split study/splits.csv
      cohort study report agreement -o report --json
    """
    from pipelines.study.examples import store_masks
    from pipelines.study.report import write_study_report

    written = write_study_report(folder, output, masks=store_masks(store) if store else None, split=split_file)
    if as_json:
        found = {
            "page": str(written.page),
            "tables": [str(path) for path in written.tables],
            "figures": [str(path) for path in written.figures],
            "comparisons": [{"first": one.first, "second": one.second} for one in written.comparisons],
        }
        click.echo(json.dumps(found, indent=1))
    else:
        click.echo(f"{written.page}: {len(written.tables)} files of tables, {len(written.figures)} of figures")
