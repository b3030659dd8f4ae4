"""`cohort changes`: look at numbers that wait for acceptance, accept them or drop them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from rich.console import Console
from rich.table import Table

from pipelines.commands.options import CONFIG, JSON, STORE
from pipelines.lock import only_run

if TYPE_CHECKING:
    from pipelines.change import ChangeReport
    from pipelines.config import GateConfig


MAX_BREACHES: Final = 20


def note(line: str) -> None:
    """Say something about the work on stderr."""
    click.echo(line, err=True)


@click.group()
def changes() -> None:
    """Numbers that new weights, new code or new base models changed, and that wait for acceptance."""


@changes.command()
@STORE
@CONFIG
@JSON
def show(store: Path, config_path: Path | None, as_json: bool) -> None:
    """Compare waiting numbers with the current ones, judge them by [gate], and write the whole report.

    Where networks have changed the masks of up to 60 exams are compared, too, which takes minutes.

    \b
    Examples:
      cohort changes show --store /data/store --config cohort.toml
      cohort changes show --store /data/store --json
    """
    from cohort.store.layout import candidate_path
    from pipelines.change import compare_change
    from pipelines.change_masks import with_masks
    from pipelines.change_report import change_json, write_change_report
    from pipelines.config import read_config

    gate = read_config(config_path).gate
    with only_run(store, "changes show", note):
        folder = candidate_path(store) / "report"
        report = with_masks(compare_change(store), store, folder, config=config_path, note=note)
        page = write_change_report(report, gate, folder)
    if as_json:
        click.echo(json.dumps(change_json(report, gate), indent=1, allow_nan=False))
    else:
        print_change(report, gate)
        click.echo(f"The whole report: {page}")


@changes.command()
@STORE
def accept(store: Path) -> None:
    """Make waiting numbers current, whatever the limits say.

    \b
    Example:
      cohort changes accept --store /data/store
    """
    from pipelines.gate import accept_held

    with only_run(store, "changes accept", note):
        n_exams = accept_held(store)
    click.echo(
        f"Accepted: numbers of {n_exams} exams are current." if n_exams else "An interrupted acceptance is done."
    )


@changes.command()
@STORE
def discard(store: Path) -> None:
    """Drop waiting numbers; current tables stay as they are.

    The next run computes them again unless it gets the old weights, code or base models: see docs/model-changes.md.
    """
    from pipelines.gate import discard_held

    with only_run(store, "changes discard", note):
        discard_held(store)
    click.echo("Dropped. A run with the same weights, code and base models would compute these numbers again.")


def print_change(report: ChangeReport, gate: GateConfig) -> None:
    """Print the verdict, what is beyond a limit, and the comparison of all levels and vendors."""
    from pipelines.change_report import DIGITS, verdict_text
    from pipelines.gate import verdict

    breaches = verdict(report, gate)
    click.echo(verdict_text(report, gate))
    for breach in breaches[:MAX_BREACHES]:
        click.echo(f"  {breach}")
    if len(breaches) > MAX_BREACHES:
        click.echo(f"  and {len(breaches) - MAX_BREACHES} more")
    table = Table("feature, all levels and vendors")
    for name in ("n", "bias", "limits of agreement", "largest change"):
        table.add_column(name, justify="right")
    for one in report.overall:
        if one.limits:
            digits = DIGITS[one.feature.unit] + 1
            ends = [f"{limit.value:z.{digits}f}" for limit in (one.limits.lower, one.limits.upper) if limit]
            bias, largest = f"{one.limits.bias.value:z.{digits}f}", f"{one.largest_change:z.{digits}f}"
            table.add_row(f"{one.title}, {one.feature.unit}", str(one.limits.n), bias, " to ".join(ends), largest)
    Console().print(table)
