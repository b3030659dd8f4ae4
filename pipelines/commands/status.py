"""`cohort status` and `cohort report`: how a store stands, and what a run did."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console, JustifyMethod
from rich.table import Table

from pipelines.commands.options import JSON, STORE

if TYPE_CHECKING:
    from pipelines.status import LastRun, StoreStatus, Working


@click.command()
@STORE
@JSON
def status(store: Path, as_json: bool) -> None:
    """Say how a store stands: last runs, whether one works now, exams, work left, flags, room on the disk.

    Only reads, in a second or two however large the store is; safe while a run works.

    \b
    Examples:
      cohort status --store /data/store
      cohort status --store /data/store --json | jq .pending
    """
    from pipelines.status import store_status

    found = store_status(store)
    click.echo(found.to_json()) if as_json else print_status(found)


@click.command()
@click.argument("run_id", required=False)
@STORE
def report(run_id: str | None, store: Path) -> None:
    """Write the report of a run as an HTML page, and print where it is; RUN_ID is the latest run by default.

    Every run writes its own at its end. This makes it again, or for a run that was killed.

    \b
    Examples:
      cohort report --store /data/store
      cohort report 20260301T220004-1f3a9c --store /data/store
    """
    from pipelines.report import latest_run, write_report

    click.echo(write_report(store, run_id or latest_run(store)))


def print_status(found: StoreStatus) -> None:
    """Print the status as tables for people."""
    console = Console(highlight=False)
    console.print(_working(found.working))
    for title, table in (
        ("Last runs", _runs(found.runs)),
        (f"Exams: {found.n_exams:,}", _exams(found)),
        ("Work left, as the last scan saw the archive", _pending(found)),
        ("Quality flags", _flags(found)),
        ("Exams by the month of their latest loads", _months(found)),
        (f"Disk: {_size(found.free_bytes)} free", _disk(found)),
    ):
        if table.row_count:
            console.print(f"\n[bold]{title}[/bold]")
            console.print(table)
    click.echo("\nReason codes are explained by: cohort schema --reasons")


def _working(working: Working) -> str:
    if working.state == "none":
        return "No run works in this store now."
    who = f"{working.command or 'a run'} on {working.host or '?'} (process {working.pid or '?'})"
    since = f", since {working.started_at}" if working.started_at else ""
    return {
        "working": f"Working now: {who}{since}; last sign of life {working.heartbeat_age_s} s ago.",
        "silent": f"Perhaps hanging: {who}{since}; no sign of life for {working.heartbeat_age_s} s.",
        "dead": f"No run works now. The last one died: {who}{since}. What it committed is kept; the next run goes on.",
        "unknown": "The lock does not say whether a run works in this store.",
    }[working.state]


def _table(*columns: str) -> Table:
    """A table; a column whose name begins with # holds numbers, aligned to the right."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        justify: JustifyMethod = "right" if column.startswith("#") else "left"
        table.add_column(column.removeprefix("#"), justify=justify, no_wrap=column != "status")
    return table


def _runs(runs: list[LastRun]) -> Table:
    from pipelines.progress import duration

    table = _table("run", "command", "#took", "ended", "status", "#done", "#left")
    for run in runs:
        took = duration(run.seconds) if run.seconds is not None else ""
        standing = " ".join(word for word in (run.status, run.reason, run.change and f"change {run.change}") if word)
        numbers = (_number(run.stages_run), _number(run.n_pending))
        table.add_row(run.run_id, run.command or "", took, run.ended, standing, *numbers)
    return table


def _exams(found: StoreStatus) -> Table:
    table = _table("status", "reason", "#exams")
    for one in found.exams:
        table.add_row(one.status, one.reason or "", f"{one.exams:,}")
    return table


def _pending(found: StoreStatus) -> Table:
    table = _table("stage", "#exams")
    for stage, n in found.pending.items():
        table.add_row(stage, f"{n:,}")
    if found.held_exams:
        table.add_row("waiting for: cohort changes", f"{found.held_exams:,}")
    return table


def _flags(found: StoreStatus) -> Table:
    table = _table("reason", "#exams", "#share")
    for flag in found.flags:
        table.add_row(flag.reason, f"{flag.exams:,}", f"{flag.share:.1%}")
    return table


def _months(found: StoreStatus) -> Table:
    table = _table("month", "#exams")
    for month, n in list(found.by_month.items())[-12:]:
        table.add_row(month, f"{n:,}")
    return table


def _disk(found: StoreStatus) -> Table:
    table = _table("folder", "#size", "")
    for name, use in found.disk.items():
        doubt = "" if use.exact else "estimated" if name == "exams" else "at least"
        table.add_row(name, _size(use.bytes), doubt)
    return table


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _size(n_bytes: float) -> str:
    """Binary units, three digits."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:,.3g} TiB"
