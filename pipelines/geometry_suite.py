"""`cohort phantom-dicom`: write the geometry suite, or check what a converter made of it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from cohort.errors import ConfigurationError


@click.command(name="phantom-dicom")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--cases", default="", help="Write only these cases: names with commas between them.")
@click.option("--seed", default=0, show_default=True, help="Another seed draws other markers.")
@click.option("--check", "output", metavar="OUTPUT", type=click.Path(path_type=Path, exists=True, file_okay=False),
              help="Compare NIfTI images with the truth in DIR; those of a case lie in OUTPUT/<case>/.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="With --check: print one JSON object.")
def phantom_dicom(folder: Path, cases: str, seed: int, output: Path | None, as_json: bool) -> None:
    """Write DICOM files of exactly known geometry to DIR/dicom, and the truth to DIR/truth.json.

    With --check, exits with 1 if any case is not exact.

    \b
    Examples:
      cohort phantom-dicom suite
      cohort phantom-dicom suite --check converted
    """
    if output is None:
        _write(folder, [name.strip() for name in cases.split(",") if name.strip()], seed)
        return
    if cases:
        raise ConfigurationError("--cases chooses what is written, not what is checked")
    _check(folder, output, as_json)


def _write(folder: Path, cases: list[str], seed: int) -> None:
    from models.geometry_suite.suite import write_suite  # gdcm takes its time: not for --help

    truth = write_suite(folder, cases=cases, seed=seed)
    n_files = sum(len(case.files) for case in truth.cases)
    n_markers = sum(len(case.markers) for case in truth.cases)
    click.echo(f"{len(truth.cases)} cases, {n_files} files, {n_markers} markers in {folder / 'dicom'}")


def _check(folder: Path, output: Path, as_json: bool) -> None:
    from models.geometry_suite.check import as_table, check_nifti
    from models.geometry_suite.truth import read_truth

    results = check_nifti(read_truth(folder), output)
    click.echo(json.dumps([asdict(one) for one in results], indent=1) if as_json else as_table(results))
    if not all(one.is_exact for one in results):
        sys.exit(1)
