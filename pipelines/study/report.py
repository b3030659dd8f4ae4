"""`cohort study report`: tables 3 to 8 and figures 3 to 6 of a study, as one page and as files for print."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq

from cohort.store.publish import replacing
from pipelines.study.agreement_figures import agreement_figure, agreement_plots
from pipelines.study.examples import Masks, example_figure
from pipelines.study.overlap_figures import overlap_figure
from pipelines.study.plot_style import save, style
from pipelines.study.study_data import Comparison, StudyData, read_study
from pipelines.study.study_page import Picture, Report, render
from pipelines.study.study_tables import StudyTable, not_compared, other_measures, overview, paper_table, study_tables

PAGE: Final = "report.html"
TABLES: Final = "tables"
FIGURES: Final = "figures"


@dataclass(frozen=True)
class WrittenReport:
    """Where a report is."""

    page: Path
    tables: tuple[Path, ...]
    """CSV and Parquet files, in the order of the paper."""
    figures: tuple[Path, ...]
    """SVG, PDF and PNG files."""
    comparisons: tuple[Comparison, ...]


def write_study_report(
    folder: Path, out: Path, *, masks: Masks | None = None, split: Path | None = None, kind: str | None = None
) -> WrittenReport:
    """Write report.html, the figures (SVG, PDF, PNG) and every table (CSV, Parquet) of a study.

    Parameters
    ----------
    folder : with pairs, overlaps, agreement and overlap_summary as Parquet files
    out : made where it is not there; an earlier report is replaced, its figures of other readers removed
    masks : where the outlines of figure 3 come from (`examples.store_masks`); None leaves the figure out
    split : splits.csv of `cohort study split`, whose exams and persons are counted on the page
    kind : the split of that file that the tables are of; None: both are counted

    Raises
    ------
    ConfigurationError
        as `read_study` does
    """
    data = read_study(folder, split, kind)
    made = (overview(data), *study_tables(data), other_measures(data), not_compared(data), paper_table())
    tables = {table.name: table for table in made}
    out.mkdir(parents=True, exist_ok=True)
    (out / FIGURES).mkdir(exist_ok=True)
    (out / TABLES).mkdir(exist_ok=True)
    with style():
        pictures = {one: tuple(_figures(data, one, masks, out / FIGURES)) for one in data.comparisons}
    paths = [path for table in tables.values() for path in _write_table(table, out / TABLES)]
    page = out / PAGE
    with replacing(page) as partial:
        partial.write_text(render(Report(data, tables, pictures)), encoding="utf-8")
    figures = tuple(path for of_one in pictures.values() for picture in of_one for path in picture.paths)
    for former in set((out / FIGURES).glob("figure-*")) - set(figures):
        former.unlink()
    return WrittenReport(page, tuple(paths), figures, data.comparisons)


def _figures(data: StudyData, comparison: Comparison, masks: Masks | None, folder: Path) -> Iterator[Picture]:
    """Figures 3 to 6 of two readers, written to files; each is closed before the next is drawn."""
    shown = example_figure(data, comparison, masks) if masks else None
    if shown is not None:
        paths = save(shown, folder, f"figure-3-examples-{comparison.slug}")
        yield Picture("3", "worst, median and best exam", tuple(paths))
    paths = save(overlap_figure(data, comparison), folder, f"figure-4-dice-{comparison.slug}")
    yield Picture("4", "Dice coefficient by level, by muscle and by slice position", tuple(paths))
    for plot in agreement_plots(data, comparison):
        paths = save(agreement_figure(plot, comparison), folder, f"{plot.name}-{comparison.slug}")
        yield Picture(plot.number, f"agreement of {plot.title}", tuple(paths))


def _write_table(table: StudyTable, folder: Path) -> list[Path]:
    as_csv, as_parquet = (folder / f"{table.name}.{kind}" for kind in ("csv", "parquet"))
    with as_csv.open("w", encoding="utf-8", newline="") as file:
        lines = csv.DictWriter(file, table.schema.names)
        lines.writeheader()
        lines.writerows(table.arrow.to_pylist())
    pq.write_table(table.arrow, as_parquet, compression="zstd")
    return [as_csv, as_parquet]
