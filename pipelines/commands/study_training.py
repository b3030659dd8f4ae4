"""`cohort study split` and `cohort study train`: who is in which part, and the networks of a study."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from pipelines.commands.options import StoreFolder

_OUTPUT = click.option("-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False),
                       help="Folder to write to; made if it is not there.")  # fmt: skip
_STORE = click.argument("store", type=StoreFolder(made=False))
_SEED = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)


@click.command()
@_STORE
@_OUTPUT
@click.option("--holdout", type=click.IntRange(min=1), metavar="N",
              help="Make the shared split, too: N patients with all annotations to test every network.")  # fmt: skip
@_SEED
def split(store: Path, output: Path, holdout: int | None, seed: int) -> None:
    """Divide the annotated exams of STORE by patient into training, validation and test: OUTPUT/splits.csv.

    The standard split divides the patients of each network as 75 to 15 to 10. Patients of one sex and vendor are
    spread over the parts, and patients whose exams hold an equal image are kept together. The same seed gives the same
    split; a file that says otherwise is not replaced.

    \b
    Examples:
      cohort study split /data/store -o study
      cohort study split /data/store -o study --holdout 20 --seed 7
    """
    from pipelines.study.annotated_exams import study_exams
    from pipelines.study.split import require_kept, split_shared, split_standard, write_splits
    from pipelines.study.split_summary import split_reasons, split_table

    exams = study_exams(store, lambda line: click.echo(line, err=True))
    rows = split_standard(exams, seed)
    if holdout:
        rows += split_shared(exams, seed, holdout)
    require_kept(output / "splits.csv", rows)
    write_splits(output / "splits.csv", rows)
    header, *lines = split_table(rows)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for k, name in enumerate(header):
        table.add_column(name, justify="right" if k > 2 else "left", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    Console(highlight=False).print(table)
    click.echo("\nPatients by part; exams in none. " + "\n".join(["Exams by reason:", *split_reasons(rows)]))
    click.echo("\nReason codes are explained by: cohort schema --reasons")


@click.command()
@_STORE
@click.option("--split", "split_file", required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="splits.csv of `cohort study split`.")  # fmt: skip
@_OUTPUT
@click.option("--kind", type=click.Choice(["standard", "shared"]), default="standard", show_default=True,
              help="Split of that file.")  # fmt: skip
@click.option("--network", "networks", type=click.Choice(["vertebral_body", "disc", "muscle"]), multiple=True,
              help="This network alone; may be repeated.")  # fmt: skip
@click.option("--start", type=click.Choice(["default", "scratch"]), default="default", show_default=True,
              help="From the shipped weights, in their shape, or from random ones in the paper's.")  # fmt: skip
@click.option("--licence", default="", help="Source and licence of the annotated exams, for the model cards.")
@click.option("--configs", type=click.Path(path_type=Path, exists=True, file_okay=False),
              help="Folder of own training configurations NETWORK.toml, instead of table 2's.")  # fmt: skip
@_SEED
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--processes", type=click.IntRange(min=1), default=2, show_default=True,
              help="For making phantom slices, where own configurations want some.")  # fmt: skip
def train(
    store: Path,
    split_file: Path,
    output: Path,
    kind: str,
    networks: tuple[str, ...],
    start: str,
    licence: str,
    configs: Path | None,
    seed: int,
    device: str,
    processes: int,
) -> None:
    """Train the three networks on the annotated exams of STORE, with the settings of table 2 of Hess et al. 2023.

    The test part is not read. The same command goes on after a stop or a kill; a network that is trained is left alone.

    \b
    Examples:
      cohort study train /data/store --split study/splits.csv -o study/standard --licence "our hospital, not public"
      cohort study train /data/store --split study/splits.csv --kind shared -o study/shared --start scratch \\
        --licence "our hospital, not public" --device cuda
    """
    from typing import cast

    from cluster.resources import resolve_device
    from pipelines.study.annotated_store import AnnotatedStore
    from pipelines.study.split import NETWORKS, Kind, Network
    from pipelines.study.train import Start, StudySettings, train_study

    train_study(
        AnnotatedStore(store, split_file, cast(Kind, kind)),
        output,
        StudySettings(cast(Start, start), licence, configs, seed),
        networks=cast(tuple[Network, ...], networks) or NETWORKS,
        device=resolve_device(device),
        processes=processes,
        report=lambda line: click.echo(line, err=True),
    )
