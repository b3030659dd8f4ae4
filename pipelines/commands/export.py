"""`cohort export`: write parts of a store for other programs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cohort.store.layout import store_path
from pipelines.commands.options import CONFIG, JSON, STORE

if TYPE_CHECKING:
    from cohort.tables.export import ExportedTable
    from pipelines.export_osim import Exported


@click.group()
def export() -> None:
    """Write parts of a store for other programs."""


@export.command()
@click.argument("exam_id")
@click.option("--store", required=True, help="Folder (or file:// URL) of stores and tables.")
@click.option("--task", default="flexion60_5kg", show_default=True, help="Posture and hand loads, as in table loads.")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False),
              help="New folder; default osim-EXAM-TASK here.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def osim(exam_id: str, store: str, task: str, output: Path | None, as_json: bool) -> None:
    """Write an exam's personalised model, posture, hand loads and set-up files, ready to run in OpenSim.

    EXAM_ID is the pseudonym in the tables. The exam is solved again and compared with the table: what is written is
    the model behind those loads, or nothing. README.txt in the folder says how to run it and what OpenSim should show.

    \b
    Examples:
      cohort sql "select distinct exam_id, task from loads" --store /data/store
      cohort export osim wxm3kq... --store /data/store
      cohort export osim wxm3kq... --store /data/store --task standing --output standing
    """
    from pipelines.export_osim import export_osim  # opensim takes a second to import: not for --help

    done = export_osim(store_path(store), exam_id, task, output)
    click.echo(json.dumps(_as_object(done), indent=1) if as_json else _as_text(done))


@export.command()
@click.argument("exam_id")
@STORE
@click.option("--reader", default="automatic", show_default=True, help="Whose masks: a reader's code, or the networks.")
@click.option("--archive", type=click.Path(path_type=Path, exists=True, file_okay=False),
              help="Name the patient and the original images, found here; needs the key.")  # fmt: skip
@CONFIG
@click.option("--output", type=click.Path(path_type=Path, file_okay=False),
              help="New folder; default seg-EXAM-READER here.")  # fmt: skip
@JSON
def seg(
    exam_id: str,
    store: Path,
    reader: str,
    archive: Path | None,
    config_path: Path | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Write masks of an exam as DICOM Segmentation objects, one for each stack of slices.

    Without --archive they are de-identified: PatientID is the subject's pseudonym, and all UIDs follow from pseudonyms.
    With it they repeat patient and study of the original images and refer to them, so that a PACS and its viewers take
    them as results of that study; the key of the pseudonyms is [privacy] key_file of the configuration.

    \b
    Examples:
      cohort export seg wxm3kq... --store /data/store
      cohort export seg wxm3kq... --store /data/store --reader reader1 --output masks
      cohort export seg wxm3kq... --store /data/store --archive /data/archive --output for-pacs
    """
    from pipelines.config import read_config
    from pipelines.export_seg import Original, export_seg

    original = Original(archive, read_config(config_path).privacy.key_file) if archive else None
    done = export_seg(store, exam_id, reader, output, original)
    if as_json:
        about = {"exam_id": exam_id, "reader": reader, "folder": str(done.folder), "files": list(done.files)}
        click.echo(json.dumps({**about, "frames": done.n_frames, "identified": done.identified}, indent=1))
        return
    kind = "name the patient and the original images" if done.identified else "are de-identified"
    click.echo(f"{len(done.files)} objects with {done.n_frames} frames in {done.folder}; they {kind}")


OUTPUT = click.option("--output", required=True, type=click.Path(path_type=Path), help="New folder.")
NAMES = click.option("--table", "names", multiple=True, help="A table or view; can be given again. All if none is.")


@export.command()
@STORE
@OUTPUT
@NAMES
@JSON
def csv(store: Path, output: Path, names: tuple[str, ...], as_json: bool) -> None:
    """Write tables and views as CSV files, all of one moment even while a run is committing.

    \b
    Examples:
      cohort export csv --store /data/store --output csv
      cohort export csv --store /data/store --output wide --table exams_wide --table levels
    """
    from cohort.tables.export import export_files

    _print_exported(export_files(store, output, "csv", names), output, as_json)


@export.command()
@STORE
@OUTPUT
@NAMES
@JSON
def parquet(store: Path, output: Path, names: tuple[str, ...], as_json: bool) -> None:
    """Write tables and views as one plain Parquet file each, all of one moment even while a run is committing.

    \b
    Examples:
      cohort export parquet --store /data/store --output tables
      cohort export parquet --store /data/store --output features --table features
    """
    from cohort.tables.export import export_files

    _print_exported(export_files(store, output, "parquet", names), output, as_json)


@export.command(name="duckdb")
@STORE
@click.option("--output", required=True, type=click.Path(path_type=Path), help="New file.")
@JSON
def duckdb_file(store: Path, output: Path, as_json: bool) -> None:
    """Write one DuckDB file with all tables and views, explained by comments.

    \b
    Examples:
      cohort export duckdb --store /data/store --output cohort.duckdb
      duckdb cohort.duckdb "select * from percentiles where feature = 'disc_height_mm'"
    """
    from cohort.tables.export import export_duckdb

    _print_exported(export_duckdb(store, output), output, as_json)


def _print_exported(done: list[ExportedTable], output: Path, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"output": str(output), "rows": {one.name: one.rows for one in done}}, indent=1))
    else:
        click.echo(f"{output}: " + ", ".join(f"{one.name} {one.rows}" for one in done))


def _as_object(done: Exported) -> dict[str, object]:
    return {
        "exam_id": done.posed.subject.exam_id,
        "task": done.posed.task.name,
        "folder": str(done.folder),
        "files": sorted(path.name for path in done.folder.iterdir()),
        "max_relative_difference_to_table": done.max_difference,
        "loads": [dataclasses.asdict(row) for row in done.posed.rows],
    }


def _as_text(done: Exported) -> str:
    files = sorted(path.name for path in done.folder.iterdir())
    loads = ", ".join(f"{row.level} {row.axial_n:.0f}" for row in done.posed.rows if row.convention == "joint_below")
    return (
        f"{len(files)} files in {done.folder}; start with README.txt\n"
        f"compression, joint_below, N: {loads} (equal to the table within {done.max_difference:.1e})"
    )
