"""`cohort train`: teach a network."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.commands.options import StoreFolder


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


@click.command()
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
@click.option("--annotations", type=StoreFolder(made=False),
              help="Or a store with annotated exams, divided by --split.")  # fmt: skip
@click.option("--split", "split_file", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="splits.csv of `cohort study split`.")  # fmt: skip
@click.option("--kind", type=click.Choice(["standard", "shared"]), default="standard", show_default=True,
              help="Split of that file.")  # fmt: skip
@click.option("--tensorboard", is_flag=True, help="Write curves as TensorBoard events, too.")
def train(
    config: str,
    folder: Path,
    output: Path,
    device: str,
    processes: int,
    slices: Path | None,
    annotations: Path | None,
    split_file: Path | None,
    kind: str,
    tensorboard: bool,
) -> None:
    """Train a network; CONFIG is a shipped configuration (--list) or a TOML file.

    Shows how far it is and when it will end. The same command goes on from the last checkpoint after a stop or a kill.

    \b
    Examples:
      cohort train vertebral_body && cohort train disc && cohort train muscle
      cohort train paper_muscle --device cuda --processes 16
      cohort train --make-example example
      cohort train own.toml --slices example
      cohort train own.toml --annotations /data/store --split study/splits.csv
    """
    from typing import cast

    from cluster.resources import resolve_device
    from pipelines.study.annotated_store import AnnotatedStore
    from pipelines.study.split import Kind
    from pipelines.train import train_network

    if (annotations is None) != (split_file is None):
        raise click.UsageError("--annotations and --split: give both, or neither")
    divided = AnnotatedStore(annotations, split_file, cast(Kind, kind)) if annotations and split_file else None
    train_network(
        config,
        folder=folder,
        output=output,
        device=resolve_device(device),
        processes=processes,
        slices=slices,
        annotations=divided,
        report=lambda line: click.echo(line, err=True),
        tensorboard=tensorboard,
    )
