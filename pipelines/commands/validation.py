"""`cohort validate`: measure the parts of the chain against something better than themselves."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pipelines.commands.options import JSON


@click.group()
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


@validate.command()
@click.option("--personalisations", type=click.IntRange(min=0), default=20, show_default=True,
              help="Random people for each model and task that OpenSim solves, too; about 3 s each.")  # fmt: skip
@click.option("--task", "tasks", multiple=True, help="Shipped task that OpenSim solves, too; default: all.")
@click.option("--public-models", type=click.Path(path_type=Path, exists=True, file_okay=False),
              help="Folder of public models to compare with.")  # fmt: skip
@click.option("--pictures", type=click.Path(path_type=Path, file_okay=False), help="Draw plots in a folder.")
@JSON
def loads(
    personalisations: int, tasks: tuple[str, ...], public_models: Path | None, pictures: Path | None, as_json: bool
) -> None:
    """Compare our loads with OpenSim, with measurements in people and with public models; prints Markdown tables.

    \b
    Examples:
      cohort validate loads --public-models osim --pictures docs/validation > docs/validation/loads-table.md
      cohort validate loads --personalisations 1 --task standing --json
    """
    from cohort.loading.tasks import TASKS
    from pipelines.validation.loads import loads_results, loads_tables
    from pipelines.validation.loads_pages import write_pictures

    if unknown := set(tasks) - set(TASKS):
        raise click.BadParameter(f"no task {', '.join(sorted(unknown))}; tasks: {', '.join(TASKS)}")

    def report(line: str) -> None:
        click.echo(line, err=True)

    results = loads_results(personalisations, report, public=public_models, tasks=tasks or tuple(TASKS))
    if pictures:
        write_pictures(pictures, results)
    click.echo(json.dumps(results, indent=1, allow_nan=False) if as_json else loads_tables(results))
