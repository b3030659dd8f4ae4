"""`cohort agreement`: how far readers, networks and versions of networks agree, as tables and as a report."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.commands.options import CONFIG, JSON, StoreFolder

if TYPE_CHECKING:
    from rich.table import Table

    from pipelines.agreement import Agreement
    from pipelines.study.report import WrittenReport

_READER = "Code of a reader, automatic (the networks) or candidate (a changed model's masks that wait)."


@click.command()
@click.argument("store", type=StoreFolder(made=False))
@click.option("--first", help=f"{_READER} Differences are second - first.")
@click.option("--second", help="The other reader; every pair of readers where neither is named.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False),
              help="Folder for tables and report; made if it is not there.")  # fmt: skip
@click.option("--split", "split_file", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="splits.csv of `cohort study split`: of each network only the exams of its test part.")  # fmt: skip
@click.option("--kind", type=click.Choice(["standard", "shared"]), default="standard", show_default=True,
              help="Split of that file.")  # fmt: skip
@CONFIG
@click.option("--processes", type=click.IntRange(min=1), default=2, show_default=True, help="Exams at a time.")
@JSON
def agreement(
    store: Path,
    first: str | None,
    second: str | None,
    output: Path,
    split_file: Path | None,
    kind: str,
    config_path: Path | None,
    processes: int,
    as_json: bool,
) -> None:
    """Compare the masks of readers, and what is measured on them, over all exams that two of them have read.

    Writes pairs, overlaps, agreement and overlap_summary as Parquet and as CSV, and from them report.html with tables
    and figures in the manner of Hess et al. 2023. Only slices that both readers looked at count. Loads are computed
    with --config, or as in the latest run.

    \b
    Examples:
      cohort agreement /data/store -o agreement
      cohort agreement /data/store --second automatic -o agreement
      cohort agreement /data/store --first anna --second anna-2 -o intra-reader
      cohort agreement /data/store --first automatic --second candidate -o versions
    """
    from pipelines.agreement import agree, read_test_part, write_agreement

    found = agree(
        store,
        first=first,
        second=second,
        config=config_path,
        test_part=read_test_part(split_file, kind) if split_file else None,
        processes=processes,
        report=lambda line: click.echo(line, err=True),
    )
    write_agreement(output, found.rows)
    report = _report(found, store, output, split_file, kind)
    for exam_id, problem in found.problems.items():
        click.echo(f"{exam_id} was not compared: {problem}", err=True)
    if as_json:
        click.echo(json.dumps(_as_object(found, output, report), indent=1, allow_nan=False))
    else:
        _print_tables(found)
        click.echo(f"Report: {report.page}" if report else "No report: nothing could be compared")


def _report(found: Agreement, store: Path, output: Path, split_file: Path | None, kind: str) -> WrittenReport | None:
    """The page, its tables and figures, beside the tables that were just written; None where these have no rows."""
    from pipelines.study.examples import store_masks
    from pipelines.study.report import PAGE, write_study_report

    if not (found.rows["agreement"] or found.rows["overlap_summary"]):
        (output / PAGE).unlink(missing_ok=True)  # of earlier tables, which are no longer there
        return None
    return write_study_report(output, output, masks=store_masks(store), split=split_file, kind=kind)


def _as_object(found: Agreement, output: Path, report: WrittenReport | None) -> dict[str, Any]:
    return {
        "output": str(output),
        "page": str(report.page) if report else None,
        "exams": found.n_exams,
        "not_compared": dict(found.problems),
        "rows": {name: len(rows) for name, rows in found.rows.items()},
        "agreement": [asdict(row) for row in _main_agreement(found)],
        "overlap_summary": [asdict(row) for row in _main_overlaps(found)],
    }


def _main_agreement(found: Agreement) -> list[Any]:
    """All levels and both sides together; each muscle by itself, because muscles differ in size."""
    rows = [row for row in found.rows["agreement"] if row.level is None and row.side is None]
    of_muscles = {row.quantity for row in rows if row.muscle is not None}
    return [row for row in rows if row.muscle is not None or row.quantity not in of_muscles]


def _main_overlaps(found: Agreement) -> list[Any]:
    whole = [row for row in found.rows["overlap_summary"] if row.slice_bin is None and row.side is None]
    return [row for row in whole if row.level is None and (row.structure or row.muscle or row.kind != "muscle")]


def _print_tables(found: Agreement) -> None:
    from pipelines.agreement import reasons
    from pipelines.commands.console import wide_console

    console = wide_console()
    console.print(_overlap_table(found))
    console.print()
    console.print(_agreement_table(found))
    without = reasons([*found.rows["pairs"], *found.rows["overlaps"]]).most_common()
    listed = ", ".join(f"{code} {n}" for code, n in without) or "nothing"
    click.echo(f"\n{found.n_exams} exams; rows without a pair: {listed}")
    click.echo("Intervals, levels and sides are in the tables; reason codes: cohort schema --reasons")


def _overlap_table(found: Agreement) -> Table:
    table = _table("structure", ("n", "persons", "Dice", "HD95 mm", "surface mm", "missed", "extra", "misnamed"))
    for row in _main_overlaps(found):
        what = f"{row.muscle or row.kind}, {'as one mask' if row.structure or row.muscle else 'each'}"
        means = (_number(row.mean), _number(row.hausdorff95_mm), _number(row.surface_mm))
        errors = (str(row.n_missed), str(row.n_extra), str(row.n_misnamed))
        table.add_row(_readers(row), what, str(row.n), str(row.n_persons), *means, *errors)
    return table


def _agreement_table(found: Agreement) -> Table:
    table = _table("quantity", ("n", "flagged", "persons", "bias", "limits", "MAE", "r", "ICC"))
    for row in _main_agreement(found):
        what = ", ".join(part for part in (row.quantity, row.muscle, row.task) if part)
        limits = "-" if row.lower_limit is None else f"{_number(row.lower_limit)} to {_number(row.upper_limit)}"
        figures = (_number(row.bias), limits, _number(row.mae), _number(row.r), _number(row.icc))
        table.add_row(_readers(row), what, str(row.n), str(row.n_flagged), str(row.n_persons), *figures)
    return table


def _readers(row: Any) -> str:
    return f"{row.first_reader} - {row.second_reader}"


def _table(what: str, numbers: tuple[str, ...]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("readers", what):
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _number(value: float | None) -> str:
    """Three digits behind the point, of hundreds and more one; - where there is none."""
    return "-" if value is None else f"{value:.1f}" if abs(value) >= 100 else f"{value:.3f}"
