"""How figures of a study look: levels and muscles differ in marker and line, not in colour alone; files for print."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from textwrap import fill
from typing import Any, Final

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from cohort.reasons import REASONS
from cohort.terms import MUSCLES
from pipelines.change_plots import MARKERS
from pipelines.study.study_tables import level_place

DPI: Final = 200
"""Of PNG files: an A4 page of them prints sharply enough to read."""
MANY_POINTS: Final = 1500
"""More points than that are drawn as pixels in SVG and PDF files, which would otherwise grow without bound."""
BAND: Final = "0.87"
MUSCLE_LINES: Final = dict(zip(MUSCLES, (("o", "-"), ("s", "--"), ("^", "-."), ("D", ":")), strict=True))
"""Muscle -> marker and line."""
COLOURS: Final = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f")
"""Of Okabe and Ito, which differ for most kinds of colour blindness; never the only difference."""
_SETTINGS: Final = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "lumbar-cohort",
}
"""42: letters stay letters in a PDF; a fixed salt makes the same SVG of the same numbers."""
_WRITERS: Final[Mapping[str, Callable[[Figure, io.BytesIO], object]]] = {
    "svg": lambda figure, file: FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None}),
    "pdf": lambda figure, file: FigureCanvasPdf(figure).print_pdf(file, metadata={"CreationDate": None}),
    "png": lambda figure, file: FigureCanvasAgg(figure).print_png(file),
}
"""Without a date: the same figure is the same file."""
_WIDTH: Final = 30
"""Letters of a line of text within a panel."""


def style() -> Any:
    """Context in which all figures are drawn and saved."""
    return mpl.rc_context(_SETTINGS)


def looks(levels: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Level -> marker and colour, cranial to caudal."""
    ordered = sorted(set(levels), key=level_place)
    return {level: (MARKERS[k % len(MARKERS)], COLOURS[k % len(COLOURS)]) for k, level in enumerate(ordered)}


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as SVG, PDF and PNG.

    `Figure.savefig` would draw it once more before each of them, because it was laid out by an engine.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, not again for every format
    paths = []
    for kind, write in _WRITERS.items():
        figure.set_dpi(DPI)
        content = io.BytesIO()
        write(figure, content)
        paths.append(folder / f"{name}.{kind}")
        paths[-1].write_bytes(content.getvalue())
    return paths


def say_why(panel: Any, reason: str | None, *, at: tuple[float, float] = (0.5, 0.5)) -> None:
    """Write within a panel why there is nothing, or less than usual, to see."""
    codes = reason.split("+") if reason else ["no_pairs"]
    text = "\n".join(fill(REASONS.get(code, code), _WIDTH) for code in codes[:2])
    panel.text(*at, text, transform=panel.transAxes, ha="center", va="center", fontsize=7, style="italic",
               bbox={"facecolor": "white", "edgecolor": "0.6", "linewidth": 0.6, "pad": 3})  # fmt: skip


def say_why_briefly(panel: Any, what: str, reason: str | None) -> None:
    """Write at the top of a panel with points what it lacks, by the codes of the reason."""
    text = f"{what}: {', '.join(in_words(code) for code in reason.split('+'))}" if reason else what
    panel.text(0.5, 0.97, fill(text, _WIDTH), transform=panel.transAxes, ha="center", va="top", fontsize=7,
               style="italic", bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1})  # fmt: skip


def in_words(name: str) -> str:
    """`erector_spinae` as people write it."""
    return name.replace("_", " ")
