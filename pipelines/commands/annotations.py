"""`cohort annotations`: masks that people drew, into a store."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from pipelines.commands.console import wide_console
from pipelines.commands.options import CONFIG, JSON, StoreFolder

if TYPE_CHECKING:
    from pipelines.annotate import Imported

STORE_ARGUMENT = click.argument("store", type=StoreFolder(made=False))
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group()
def annotations() -> None:
    """Bring masks that people drew into a store, for training and for comparison with the networks' masks."""


@annotations.command(name="import")
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@STORE_ARGUMENT
@click.option("--format", "format_", required=True, type=click.Choice(["mdai", "dicom-seg", "nifti", "mha", "png"]))
@click.option("--table", type=_FILE, help="CSV: file, exam, reader and more for each mask file; dicom-seg needs none.")
@click.option("--classes", type=_FILE, help="CSV or TOML: what the labels mean; usual names need none.")
@click.option("--reader", "readers", multiple=True, metavar="[ID=]CODE",
              help="Code of the reader; with ID=, of one user of MD.ai. Can be given again.")  # fmt: skip
@CONFIG
@JSON
def import_command(
    source: Path,
    store: Path,
    format_: str,
    table: Path | None,
    classes: Path | None,
    readers: tuple[str, ...],
    config_path: Path | None,
    as_json: bool,
) -> None:
    """Import the annotations in SOURCE, a file or a folder, for exams of STORE.

    Exams and slices are found by their UIDs through the store's pseudonym key, and masks must lie on the exam's grid
    exactly. What is doubtful or refused becomes a row with a reason and a page with pictures. A reader's former
    annotation of an exam is replaced; the same import again changes nothing.

    \b
    Examples:
      cohort annotations import project.json /data/store --format mdai
      cohort annotations import project.json /data/store --format mdai --reader U_k3x9=A --reader U_p0q1=B
      cohort annotations import segmentations /data/store --format dicom-seg --reader A
      cohort annotations import masks /data/store --format nifti --table masks.csv --reader A
      cohort annotations import slices /data/store --format png --table slices.csv --classes classes.toml
    """
    from cohort.annotations.classes import read_classes
    from pipelines.annotate import ImportRequest, import_annotations, parse_readers
    from pipelines.config import read_config

    request = ImportRequest(source, store, format_, table, read_classes(classes), parse_readers(readers))
    done = import_annotations(request, read_config(config_path), lambda line: click.echo(line, err=True))
    click.echo(done.to_json()) if as_json else print_imported(done, store)


@annotations.command(name="list")
@STORE_ARGUMENT
@JSON
def list_command(store: Path, as_json: bool) -> None:
    """List the annotations of STORE: exam, reader, tool, annotated slices, doubts.

    \b
    Example:
      cohort annotations list /data/store
    """
    from pipelines.annotate import list_annotations

    found = list_annotations(store)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(one) for one in found], indent=1))
        return
    table = Table()
    for name in ("exam", "reader", "tool", "drawn at", "annotated slices"):
        table.add_column(name, no_wrap=True)
    for name in ("flagged", "refused"):
        table.add_column(name, justify="right")
    for one in found:
        slices = ", ".join(f"{name} {n}" for name, n in sorted(one.slices.items()))
        table.add_row(
            one.exam_id, one.reader, one.tool, one.drawn_at or "", slices, str(one.n_flagged), str(one.n_refused)
        )
    wide_console().print(table) if found else click.echo("No annotations yet.")


def print_imported(done: Imported, store: Path) -> None:
    """Print what became of an import."""
    click.echo(
        f"{done.n_annotations} annotations, {done.n_written} of them new or changed; of {done.n_empty} nothing was left"
    )
    if done.rows:
        table = Table()
        for name in ("status", "reason"):
            table.add_column(name)
        table.add_column("n", justify="right")
        for one in done.counts():
            table.add_row(*(str(value) for value in one.values()))
        Console().print(table)
        print_advice(done)
        click.echo(f"Rows: {store / 'annotations' / 'annotation_rows.parquet'}; reasons: cohort schema --reasons")
    for picture in done.pictures[:SHOWN_PICTURES]:
        click.echo(f"Look at {store / picture}")
    if len(done.pictures) > SHOWN_PICTURES:
        click.echo(f"and {len(done.pictures) - SHOWN_PICTURES} more pages: --json names them all")


def print_advice(done: Imported) -> None:
    """Say what to do about the two refusals that nearly always are mistakes of the command, not of a reader."""
    refused = [row for row in done.rows if row.status == "refused"]
    labels = sorted({one for row in refused if row.reason == "label_unknown" and (one := _label_of(row.detail))})
    if labels:
        more = f" and {len(labels) - SHOWN_LABELS} more" if len(labels) > SHOWN_LABELS else ""
        click.echo(f"Unknown labels: {', '.join(labels[:SHOWN_LABELS])}{more}; say what they mean with --classes")
    if not done.n_annotations and any(row.reason == "study_unknown" for row in refused):
        click.echo("No exam was found: is it the key that the store was made with ([privacy] key_file of --config)?")


def _label_of(detail: str | None) -> str | None:
    """The label that a row of an unknown one quotes."""
    return detail.split(" of label ", 1)[1] if detail and " of label " in detail else None


SHOWN_PICTURES = 5
SHOWN_LABELS = 12
