"""`cohort export`: write parts of a store for other programs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cohort.store.layout import store_path

if TYPE_CHECKING:
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
