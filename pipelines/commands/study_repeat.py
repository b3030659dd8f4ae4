"""`cohort study repeat`: a whole study on one's own annotated exams, from one configuration."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.commands.steps import list_places, type_and_run

if TYPE_CHECKING:
    from pipelines.study.repeat import Study, StudyFolder, StudySection
    from pipelines.study.split import Kind

Words = tuple[str, ...]
"""After `cohort`."""


@click.command()
@click.argument("study_file", metavar="STUDY.toml", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False),
              help="Folder of stores, networks and reports; made if it is not there.")  # fmt: skip
@click.pass_context
def repeat(context: click.Context, study_file: Path, output: Path) -> None:
    """Train on your annotated exams, and compare networks with people on the test part: the study of Hess et al.

    Each step is a command that is shown and then run: run, annotations import, study split; then for each split study
    train, run with the trained networks, annotations import, agreement. The same command goes on after a stop.

    \b
    STUDY.toml has the sections of cohort.toml, and one more; paths are relative to the file:
      [study]
      archive = "dicom"                # DICOM of the study's exams, and no others
      annotations = "annotations.json"
      format = "mdai"                  # or dicom-seg, nifti, mha, png; also table, classes, readers
      subjects = "subjects.csv"        # heights and weights, where headers have none
      holdout = 20                     # patients of the shared split; without it the standard split alone
      seed = 7
      start = "default"                # or scratch
      licence = "General Hospital, not public"
      device = "cuda"                  # of training; also configs, splits

    \b
    Example:
      cohort study repeat study.toml -o study
    """
    from pipelines.study.repeat import StudyFolder, read_study_file

    started = time.monotonic()
    study, folder = read_study_file(study_file), StudyFolder(output)
    for words in _prepare(study, folder):
        type_and_run(context, words)
    for kind in study.section.kinds:
        for words in _split_steps(study, folder, kind):
            type_and_run(context, words)
    click.echo(f"\nDone in {time.monotonic() - started:.0f} s. Where everything lies:")
    list_places(("splits", folder.splits), ("annotations", folder.annotated / "annotations"))
    for kind in study.section.kinds:
        _show_split(study, folder, kind)


def _prepare(study: Study, folder: StudyFolder) -> Iterator[Words]:
    """Exams and annotations into a store, with the shipped networks, and who is in which part."""
    yield from _filled(study.section, folder.annotated, folder.write_config("shipped", study.run))
    section = study.section
    yield ("study", "split", str(folder.annotated), "-o", str(folder.path), "--seed", str(section.seed),
           *_option("--holdout", section.holdout))  # fmt: skip


def _split_steps(study: Study, folder: StudyFolder, kind: Kind) -> Iterator[Words]:
    """Networks of a split, their masks in a store of its own, and the report of its test part."""
    from pipelines.study.repeat import require_networks_compared, trained_config, untrained

    section, of_kind = study.section, ("--split", str(folder.splits), "--kind", kind)
    yield ("study", "train", str(folder.annotated), *of_kind, "-o", str(folder.networks(kind)),
           "--start", section.start, *_option("--licence", section.licence), *_option("--configs", section.configs),
           "--seed", str(section.seed), "--device", section.device)  # fmt: skip
    config = folder.write_config(kind, trained_config(study, folder, kind, untrained(study, folder, kind)))
    yield from _filled(section, folder.store(kind), config)
    yield ("agreement", str(folder.store(kind)), "-o", str(folder.report(kind)), *of_kind, "--config", str(config))
    require_networks_compared(folder.report(kind))


def _filled(section: StudySection, store: Path, config: Path) -> Iterator[Words]:
    """The archive and what people drew into a store.

    With --accept: where networks were trained anew since an earlier run, their masks are the ones to be compared.
    """
    from pipelines.study.repeat import require_complete

    configured = ("--config", str(config))
    subjects = _option("--subjects", section.subjects)
    yield ("run", str(section.archive), "--store", str(store), *configured, *subjects, "--accept")
    require_complete(store)
    readers = (word for reader in section.readers for word in ("--reader", reader))
    tables = (*_option("--table", section.table), *_option("--classes", section.classes))
    yield ("annotations", "import", str(section.annotations), str(store), "--format", section.format,
           *tables, *readers, *configured)  # fmt: skip


def _option(name: str, value: Path | str | int | None) -> Words:
    return () if value in (None, "") else (name, str(value))


def _show_split(study: Study, folder: StudyFolder, kind: Kind) -> None:
    """What lies where of a split, and which networks are not its own."""
    from pipelines.study.repeat import untrained

    click.echo(f"{kind} split:")
    list_places(
        ("report", folder.report(kind) / "report.html"),
        ("weights and model cards", folder.networks(kind)),
        ("masks, numbers and loads", folder.store(kind)),
    )
    for network, why in untrained(study, folder, kind).items():
        click.echo(f"  NOT TRAINED: {network}, {why}. Its masks and what rests on them are the shipped network's.")
