"""The command line: `cohort demo | scan | run | sql | export | schema | train | validate | phantom-dicom`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from cohort import __version__
from cohort.errors import CohortError, is_disk_full
from cohort.reasons import REASONS
from cohort.store.layout import store_path
from pipelines.config import RunConfig, read_config
from pipelines.export import export
from pipelines.geometry_suite import phantom_dicom
from pipelines.progress import Progress
from pipelines.summary import Summary

if TYPE_CHECKING:
    from pipelines.survey import Survey


class StoreFolder(click.ParamType):
    """A folder that may not exist yet, as a path or as a file:// URL."""

    name = "folder"

    def convert(self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Check that results can be published there; `ConfigurationError` otherwise."""
        folder = store_path(str(value))
        if folder.exists() and not folder.is_dir():
            self.fail("is a file, not a folder", param, ctx)
        return folder


STORE = click.option("--store", required=True, type=StoreFolder(), help="Folder (or file:// URL) of stores and tables.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")


class Commands(click.Group):
    """Turns errors raised on purpose, and a full disk, into one line and exit code 2."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except CohortError as error:
            raise _refusal(str(error)) from error
        except OSError as error:
            if not is_disk_full(error):
                raise
            raise _refusal("the disk is full; free some space and run again: what was committed is kept") from error


def _refusal(message: str) -> click.ClickException:
    refusal = click.ClickException(message)
    refusal.exit_code = 2
    return refusal


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="lumbar-cohort")
def main() -> None:
    """Turn an archive of lumbar-spine MRI into tables of anatomy and spinal loads."""


@main.command(name="run")
@click.argument("archive", type=click.Path(path_type=Path, exists=True, file_okay=False))
@STORE
@click.option("--config", "config_path", type=click.Path(path_type=Path, exists=True), help="cohort.toml.")
@click.option(
    "--subjects", type=click.Path(path_type=Path, exists=True), help="CSV or Parquet with height, weight, ..."
)
@click.option("--retry-failed", is_flag=True, help="Try failed stages and unreadable files again.")
@click.option("--strict", is_flag=True, help="Exit with 1 if any exam failed or the run is flagged.")
@JSON
def run_command(
    archive: Path,
    store: Path,
    config_path: Path | None,
    subjects: Path | None,
    retry_failed: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Process ARCHIVE into a store; a second run redoes only what changed.

    \b
    Examples:
      cohort run /data/archive --store /data/store
      cohort run /data/archive --store /data/store --subjects subjects.csv --config cohort.toml
      cohort run /data/archive --store /data/store --json --strict > summary.json
    """
    from pipelines.run import run  # torch and opensim take a second to import: not for --help

    config = read_config(config_path) if config_path else RunConfig()
    with Progress() as progress:
        summary = run(archive, store, config=config, progress=progress, subjects=subjects, retry_failed=retry_failed)
    click.echo(summary.to_json()) if as_json else print_summary(summary)
    if strict and (summary.run.n_failed or summary.run.status != "ok"):
        sys.exit(1)


@main.command()
@click.argument("archive", type=click.Path(path_type=Path, exists=True, file_okay=False))
@STORE
@click.option("--config", "config_path", type=click.Path(path_type=Path, exists=True), help="cohort.toml.")
@click.option(
    "--subjects", type=click.Path(path_type=Path, exists=True), help="CSV or Parquet with height, weight, ..."
)
@JSON
def scan(archive: Path, store: Path, config_path: Path | None, subjects: Path | None, as_json: bool) -> None:
    """Read the headers of ARCHIVE and say what it holds: usable files, chosen series, and why not the others.

    Nothing is converted. Unchanged files are not opened again, now or by a later `cohort run`.

    \b
    Examples:
      cohort scan /data/archive --store /data/store
      cohort sql "select reason, count(*) from files group by reason" --store /data/store
      cohort sql "select axial_reason, count(*) from exams group by 1" --store /data/store
    """
    from pipelines.survey import survey

    with Progress() as progress:
        found = survey(archive, store, config=read_config(config_path), progress=progress, subjects=subjects)
    click.echo(found.to_json()) if as_json else print_survey(found)


@main.command()
@click.argument("statement")
@STORE
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
def sql(statement: str, store: Path, as_csv: bool) -> None:
    """Answer one SELECT over the current tables.

    \b
    Examples:
      cohort sql "select level, avg(height_mm) from discs group by level" --store /data/store
      cohort sql "describe loads" --store /data/store
    """
    from cohort.tables.sql import query

    frame = query(store, statement).to_pandas()
    click.echo(frame.to_csv(index=False) if as_csv else frame.to_string(index=False))


@main.command()
@click.option("--reasons", is_flag=True, help="List the reason codes instead.")
def schema(reasons: bool) -> None:
    """Print the data dictionary of all tables (Markdown)."""
    if reasons:
        click.echo("\n".join(f"{code}: {text}" for code, text in REASONS.items()))
        return
    from cohort.tables.schema import data_dictionary

    click.echo(data_dictionary())


def print_training_configs(ctx: click.Context, param: click.Parameter, asked: bool) -> None:
    """Print one line for each shipped training configuration, and end."""
    if not asked:
        return
    from models.training.config import described_configs

    for name, text in described_configs().items():
        click.echo(f"{name:22}{text}")
    ctx.exit()


def make_training_example(ctx: click.Context, param: click.Parameter, folder: Path | None) -> None:
    """Write an example of annotated slices, and end."""
    if folder is None:
        return
    from models.training.example import write_example

    write_example(folder, lambda line: click.echo(line, err=True))
    ctx.exit()


@main.command()
@click.argument("config")
@click.option("--list", is_flag=True, is_eager=True, expose_value=False, callback=print_training_configs,
              help="List the shipped configurations.")  # fmt: skip
@click.option("--make-example", metavar="DIR", type=click.Path(path_type=Path), is_eager=True, expose_value=False,
              callback=make_training_example, help="Write a small folder of annotated phantom slices.")  # fmt: skip
@click.option("--folder", type=click.Path(path_type=Path), default=Path("runs/train"), show_default=True,
              help="Pool, checkpoints and curves.")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), default=Path("runs/weights"), show_default=True,
              help="Weights, contract and card.")  # fmt: skip
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--processes", type=click.IntRange(min=1), default=2, show_default=True,
              help="For making the phantom pool.")  # fmt: skip
@click.option("--slices", type=click.Path(path_type=Path, exists=True, file_okay=False),
              help="Annotated slices, where CONFIG learns from some.")  # fmt: skip
@click.option("--tensorboard", is_flag=True, help="Write curves as TensorBoard events, too.")
def train(
    config: str, folder: Path, output: Path, device: str, processes: int, slices: Path | None, tensorboard: bool
) -> None:
    """Train a network; CONFIG is a shipped configuration (--list) or a TOML file.

    Shows how far it is and when it will end. The same command goes on from the last checkpoint after a stop or a kill.

    \b
    Examples:
      cohort train vertebral_body && cohort train disc && cohort train muscle
      cohort train paper_muscle --device cuda --processes 16
      cohort train --make-example example
      cohort train own.toml --slices example
    """
    from cluster.resources import resolve_device
    from pipelines.train import train_network

    train_network(
        config,
        folder=folder,
        output=output,
        device=resolve_device(device),
        processes=processes,
        slices=slices,
        report=lambda line: click.echo(line, err=True),
        tensorboard=tensorboard,
    )


@main.group()
def validate() -> None:
    """Measure the parts of the chain against something better than themselves."""


@validate.command()
@click.option("--data", type=click.Path(path_type=Path), envvar="COHORT_TEST_DATA", show_envvar=True,
              help="Folder of real scans with human masks; without it the stored results are shown.")  # fmt: skip
@click.option("--vertebral-body", default="vertebral_body", show_default=True, help="Network, by name or .json file.")
@click.option("--disc", default="disc", show_default=True)
@click.option("--muscle", default="muscle", show_default=True)
@click.option("--slices", is_flag=True, help="Show the Dice of every slice, too.")
@click.option(
    "--pictures", type=click.Path(path_type=Path, file_okay=False), help="Draw pages of overlays in a folder."
)
@click.option("--cards", is_flag=True, help="Store the results and write the model cards beside the weights.")
@JSON
def weights(
    data: Path | None,
    vertebral_body: str,
    disc: str,
    muscle: str,
    slices: bool,
    pictures: Path | None,
    cards: bool,
    as_json: bool,
) -> None:
    """Score the networks on real scans with human masks; prints Markdown tables.

    \b
    Examples:
      cohort validate weights --data scans --slices --cards --pictures docs/validation \\
        > docs/validation/segmentation-table.md
      cohort validate weights --json
    """
    from pipelines.validation.real_scans import Networks
    from pipelines.validation.weights import as_table, measured_weights, slices_table

    networks = Networks(vertebral_body, disc, muscle)
    measured = measured_weights(
        data, networks, pictures=pictures, cards=cards, report=lambda line: click.echo(line, err=True)
    )
    if as_json:
        by_slice = {"slices": measured.slices} if slices else {}
        click.echo(json.dumps({**measured.results, **by_slice}, indent=1, allow_nan=False))
    else:
        click.echo(as_table(measured.results) + (f"\n\n{slices_table(measured.slices)}" if slices else ""))


@validate.command()
@click.option("--exams", type=click.IntRange(min=1), default=240, show_default=True, help="Phantom exams to measure.")
@click.option("--data", type=click.Path(path_type=Path, exists=True, file_okay=False), envvar="COHORT_TEST_DATA",
              show_envvar=True, help="Folder of real scans with human masks; without it only phantoms.")  # fmt: skip
@click.option("--pictures", type=click.Path(path_type=Path, file_okay=False),
              help="Draw pages in FOLDER/validation and FOLDER/quality as well.")  # fmt: skip
@JSON
def anatomy(exams: int, data: Path | None, pictures: Path | None, as_json: bool) -> None:
    """Measure phantom exams of exactly known anatomy, from true and from degraded masks; prints Markdown tables.

    With --pictures it also draws risk against coverage of level names, chosen phantom exams beside their truth, one
    exam for every flag and, with --data, the real exam.

    \b
    Examples:
      cohort validate anatomy --data scans --pictures docs > docs/validation/anatomy-table.md
      cohort validate anatomy --exams 40 --json
    """
    from pipelines.validation.anatomy import anatomy_results, anatomy_tables, score_study
    from pipelines.validation.anatomy_pages import write_pictures
    from pipelines.validation.human_masks import human_results
    from pipelines.validation.t1_names import t1_results

    def report(line: str) -> None:
        click.echo(line, err=True)

    real = human_results(data) | t1_results(data, report) if data else {}
    results = anatomy_results(score_study(exams, report), real)
    if pictures:
        write_pictures(pictures, data, results, report=report)
    click.echo(json.dumps(results, indent=1) if as_json else anatomy_tables(results))


@main.command()
@click.option("--folder", type=click.Path(path_type=Path), default=Path("demo"), show_default=True)
def demo(folder: Path) -> None:
    """Write a synthetic archive of eight exams, run the whole chain on it, and query the result."""
    from pipelines.demo import PLANS, answers, draw_pictures, write_demo_archive
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
    click.echo(f"\nDone in {time.monotonic() - started:.0f} s. These are phantom figures. Where everything lies:")
    for what, where in (
        ("overlay of one exam", pictures.overlay),
        ("plot over all exams", pictures.plot),
        ("overlays of every exam", folder / "store" / "review"),
        ("Parquet tables", folder / "store" / "tables"),
        ("run report", folder / "store" / "runs" / summary.run.run_id),
        ("DICOM archive", folder / "archive"),
    ):
        click.echo(f"  {what:24} {where}")


main.add_command(phantom_dicom)
main.add_command(export)


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
    if run.reason:
        click.echo(f"The run is flagged: {REASONS[run.reason]}")
    click.echo(f'Tables in {summary.store / "tables"}; ask them with: cohort sql "select ..." --store {summary.store}')
