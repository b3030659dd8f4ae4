"""`cohort run`, `cohort nightly` and `cohort scan`: bring a store up to date with an archive."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from cohort.reasons import REASONS
from pipelines.commands.options import ARCHIVE, CONFIG, JSON, NEW_STORE, SUBJECTS

if TYPE_CHECKING:
    from pipelines.run import Preview
    from pipelines.summary import Summary
    from pipelines.survey import Survey


RETRY = click.option("--retry-failed", is_flag=True, help="Try failed stages and unreadable files again.")
GONE = click.option("--allow-gone", is_flag=True, help="Believe it when more than half of the files or exams are gone.")
STRICT = click.option("--strict", is_flag=True, help="Exit with 1 if any exam failed or the run is flagged.")
ACCEPT = click.option(
    "--accept",
    is_flag=True,
    help="Let numbers that new weights or code changed become current, beyond the limits, too.",
)


@click.command(name="run")
@ARCHIVE
@NEW_STORE
@CONFIG
@SUBJECTS
@RETRY
@GONE
@ACCEPT
@STRICT
@JSON
def run_command(
    archive: Path,
    store: Path,
    config_path: Path | None,
    subjects: Path | None,
    retry_failed: bool,
    allow_gone: bool,
    accept: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Process ARCHIVE into a store; a second run redoes only what changed.

    Newest exams first. Ctrl-C ends it at once, SIGTERM after what has begun; what was committed is kept.

    \b
    Examples:
      cohort run /data/archive --store /data/store
      cohort run /data/archive --store /data/store --subjects subjects.csv --config cohort.toml
      cohort run /data/archive --store /data/store --json --strict > summary.json
    """
    options = RunOptions(archive, store, config_path, subjects, retry_failed, allow_gone, accept)
    _process(options, command="run", until=None, strict=strict, as_json=as_json)


@click.command()
@ARCHIVE
@NEW_STORE
@CONFIG
@SUBJECTS
@click.option("--until", metavar="HH:MM", help="Start no more work after this time; the next night goes on.")
@click.option("--dry-run", is_flag=True, help="Say what would be done and why; nothing is processed.")
@RETRY
@GONE
@ACCEPT
@STRICT
@JSON
def nightly(
    archive: Path,
    store: Path,
    config_path: Path | None,
    subjects: Path | None,
    until: str | None,
    dry_run: bool,
    retry_failed: bool,
    allow_gone: bool,
    accept: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Bring a store up to date with ARCHIVE in the time that a night has; made for cron and systemd.

    The newest exams come first. At the end of the time what has begun is finished and committed, and the next night
    goes on with the rest. --dry-run reads new headers, so that it knows, and converts nothing.

    \b
    Examples:
      cohort nightly /data/archive --store /data/store --until 06:00
      cohort nightly /data/archive --store /data/store --dry-run
      cohort nightly /data/archive --store /data/store --until 06:00 --strict --json >> nights.jsonl
    """
    options = RunOptions(archive, store, config_path, subjects, retry_failed, allow_gone, accept)
    if dry_run:
        _preview(options, as_json=as_json)
    else:
        _process(options, command="nightly", until=until, strict=strict, as_json=as_json)


@dataclass(frozen=True)
class RunOptions:
    """What `run` and `nightly` are both given."""

    archive: Path
    store: Path
    config_path: Path | None
    subjects: Path | None
    retry_failed: bool
    allow_gone: bool
    accept: bool


def _process(options: RunOptions, *, command: str, until: str | None, strict: bool, as_json: bool) -> None:
    from pipelines.config import read_config  # torch and opensim take a second to import: not for --help
    from pipelines.progress import Progress
    from pipelines.run import run
    from pipelines.stopping import seconds_until, stopping

    config = read_config(options.config_path)
    after_s = None if until is None else seconds_until(until, datetime.now().astimezone())
    with Progress() as progress, stopping(after_s, progress.note) as stop:
        summary = run(
            options.archive,
            options.store,
            config=config,
            progress=progress,
            subjects=options.subjects,
            retry_failed=options.retry_failed,
            allow_gone=options.allow_gone,
            command=command,
            stop=stop,
            accept=options.accept,
        )
    click.echo(summary.to_json()) if as_json else print_summary(summary)
    if strict and (summary.run.n_failed or summary.run.status != "ok"):
        sys.exit(1)


def _preview(options: RunOptions, *, as_json: bool) -> None:
    from pipelines.config import read_config
    from pipelines.progress import Progress
    from pipelines.run import preview

    with Progress() as progress:
        found = preview(
            options.archive,
            options.store,
            config=read_config(options.config_path),
            progress=progress,
            subjects=options.subjects,
            retry_failed=options.retry_failed,
            allow_gone=options.allow_gone,
        )
    click.echo(found.to_json()) if as_json else print_preview(found)


@click.command()
@ARCHIVE
@NEW_STORE
@CONFIG
@SUBJECTS
@GONE
@JSON
def scan(
    archive: Path, store: Path, config_path: Path | None, subjects: Path | None, allow_gone: bool, as_json: bool
) -> None:
    """Read the headers of ARCHIVE and say what it holds: usable files, chosen series, and why not the others.

    Nothing is converted. Unchanged files are not opened again, now or by a later `cohort run`.

    \b
    Examples:
      cohort scan /data/archive --store /data/store
      cohort sql "select reason, count(*) from files group by reason" --store /data/store
      cohort sql "select axial_reason, count(*) from exams group by 1" --store /data/store
    """
    from pipelines.config import read_config
    from pipelines.progress import Progress
    from pipelines.survey import survey

    with Progress() as progress:
        config = read_config(config_path)
        found = survey(archive, store, config=config, progress=progress, subjects=subjects, allow_gone=allow_gone)
    click.echo(found.to_json()) if as_json else print_survey(found)


def print_preview(found: Preview) -> None:
    """Print what a run would do, and why."""
    todo = ", ".join(f"{stage} {n}" for stage, n in found.stages.items())
    click.echo(f"{found.n_todo} of {found.n_exams} exams would be worked on ({todo or 'nothing'})")
    table = Table()
    for name in ("stage", "why", "replaces results"):
        table.add_column(name)
    table.add_column("exams", justify="right")
    for one in found.reasons:
        table.add_row(one.stage, one.why, "yes" if one.replaces else "no", str(one.n))
    if found.reasons:
        Console().print(table)
    for exam_id, texts in list(found.exams.items())[:SHOWN_EXAMS]:
        click.echo(f"  {exam_id}  {'; '.join(texts)}")
    if len(found.exams) > SHOWN_EXAMS:
        click.echo(f"  and {len(found.exams) - SHOWN_EXAMS} more: --json names them all")


SHOWN_EXAMS = 20


def print_survey(found: Survey) -> None:
    """Print what an archive holds as a table."""
    click.echo(
        f"{found.n_files} files, {found.n_files_read} of them new or changed; {found.n_exams} exams; {found.seconds} s"
    )
    table = Table()
    table.add_column("what")
    table.add_column("outcome")
    table.add_column("n", justify="right")
    for what, counts in (
        ("exams by sagittal images", found.sagittal),
        ("exams by axial images", found.axial),
        ("series not chosen", found.not_chosen),
        ("unusable files", found.unusable_files),
    ):
        for k, (outcome, n) in enumerate(counts.items()):
            table.add_row(what if k == 0 else "", outcome, str(n))
    Console().print(table)
    click.echo("Reason codes are explained by: cohort schema --reasons")


def print_summary(summary: Summary) -> None:
    """Print how the archive stands as a table."""
    from pipelines.report import REPORT
    from pipelines.run_log import run_folder

    run = summary.run
    if summary.did_nothing:
        click.echo(
            f"Nothing to do: {run.n_exams} exams are up to date ({run.n_files} files unchanged, {run.seconds} s)."
        )
    title = f"Run {run.run_id}: {run.n_exams} exams, {run.stages_run} stages run in {run.seconds:.0f} s on {run.device}"
    click.echo(title)
    table = Table()
    table.add_column("exams")
    table.add_column("n", justify="right")
    for name in ("ok", "flagged", "refused", "failed", "gone"):
        table.add_row(name, str(getattr(run, f"n_{name}")))
    for reason, n in summary.reasons.items():
        table.add_row(f"  {reason}", str(n))
    for reason, n in summary.unusable_files.items():
        table.add_row(f"  files: {reason}", str(n))
    if run.opensim_max_difference is not None:
        table.add_row(
            f"re-solved with OpenSim (largest difference {run.opensim_max_difference:.2%})", str(run.opensim_checked)
        )
    Console().print(table)
    if run.ended == "stopped":
        click.echo(f"Stopped before its end: {run.n_pending} planned exams are left for the next run.")
    if run.reason:
        click.echo(f"The run is flagged: {REASONS[run.reason]}")
    if run.change:
        click.echo(change_text(summary))
    if not summary.did_nothing:
        click.echo(f"Report: {run_folder(summary.store, run.run_id) / REPORT}")
    click.echo(f'Tables in {summary.store / "tables"}; ask them with: cohort sql "select ..." --store {summary.store}')


def change_text(summary: Summary) -> str:
    """What became of the numbers of a gated run, and what to do next."""
    run, store = summary.run, summary.store
    if run.n_pending:
        return "Its new numbers wait beside the tables until the change has been through all exams."
    page = f"old against new: {store / 'runs' / run.run_id / 'change' / 'change.html'}"
    if run.change == "accepted":
        return f"The new numbers are current now; {page}"
    return f"Tables are as before the change; {page}; then: cohort changes accept (or discard) --store {store}"
