"""Pages of real slices with what the networks found and what humans drew, small enough for the documentation.

Solid, dashed and dotted lines tell structures apart in grey print as well. The pictures are reduced overlays of
published scans; each page names their source and licence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cohort.agreement.overlap import dice
from cohort.review.overlay import BODY_COLOURS, DISC_COLOUR, MARGIN_MM, MUSCLE_COLOURS
from pipelines.validation.real_scans import SMALLEST_MM2, RealScans, SegmentedSlice, pieces

MAX_BYTES: Final = 300_000
DPI: Final = 100
CAPTION_INCHES: Final = 0.5
SPIDER: Final = "Images: SPIDER, van der Graaf et al. 2024, CC BY 4.0; reduced, outlines added."
ZUKIC: Final = "Images: Zukic et al. 2014 (SpineSource, Apache-2.0); reduced, outlines added."
BURIAN: Final = "Images: MyoSegmenTUM, Burian et al. 2019 (LPM_Segmentator, Apache-2.0); reduced, outlines added."


@dataclass(frozen=True)
class Line:
    """How an outline is drawn."""

    colour: str
    style: str
    width: float


BODY, SACRUM, DISC = "vertebral_body", "sacral_body", "disc"
FOUND: Final[Mapping[str, Line]] = {
    BODY: Line(BODY_COLOURS[0], "solid", 1.4),
    SACRUM: Line(BODY_COLOURS[2], "dotted", 1.6),
    DISC: Line(DISC_COLOUR, "dashed", 1.3),
    "multifidus": Line(MUSCLE_COLOURS["multifidus"], "solid", 1.4),
    "erector_spinae": Line(MUSCLE_COLOURS["erector_spinae"], "dashed", 1.4),
    "psoas": Line(MUSCLE_COLOURS["psoas"], "dotted", 1.4),
    "quadratus_lumborum": Line(MUSCLE_COLOURS["quadratus_lumborum"], "dashdot", 1.2),
}
HUMAN: Final = Line("#ffe14d", "solid", 0.6)
"""Thin, over the network's thicker lines."""


@dataclass(frozen=True)
class Page:
    """Tiles on a page."""

    title: str
    tiles: Sequence[tuple[str, SegmentedSlice]]
    """Captions and slices, row by row."""
    columns: int
    tile_inches: tuple[float, float]
    """(width, height) without the caption."""
    credit: str


def write_pages(folder: Path, scans: RealScans) -> None:
    """Draw every page as JPEG of at most 300 kB; a page without tiles is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in _pages(scans).items():
        path = folder / name
        if page.tiles:
            path.write_bytes(jpeg(_draw(page)))
        else:
            path.unlink(missing_ok=True)


def _pages(scans: RealScans) -> dict[str, Page]:
    by_error = sorted(scans.t1, key=lambda one: -_count_error(one))
    good, bad = ([one for one in by_error if bool(_count_error(one)) == wrong] for wrong in (False, True))
    tall, wide = (2.1, 3.3), (3.1, 2.1)
    n_bad = f"{min(len(bad), 12)} of {len(bad)}"
    return {
        "real-exam-sagittal.jpg": Page("T1 exam, every slice", _scored(scans.sagittal), 5, (2.3, 3.2), ZUKIC),
        "real-exam-axial.jpg": Page("Axial exam, slices at even steps", _scored(_evenly(scans.axial)), 4, wide, BURIAN),
        "spider-best-worst.jpg": Page(
            "T2 SPACE: best (above) and worst slice of each test patient",
            _best_and_worst(scans.spider),
            6,
            tall,
            SPIDER,
        ),
        "t1-counts-good.jpg": Page(
            f"T1 slices with the right numbers: {min(len(good), 12)} of {len(good)}",
            _counted(_evenly(good)),
            6,
            tall,
            SPIDER,
        ),
        "t1-counts-bad.jpg": Page(
            f"T1 slices with wrong numbers, the worst first: {n_bad}", _counted(bad[:12]), 6, tall, SPIDER
        ),
    }


def _evenly(slices: Sequence[SegmentedSlice], n: int = 12) -> list[SegmentedSlice]:
    return [slices[int(k)] for k in np.unique(np.linspace(0, len(slices) - 1, n).round())] if slices else []


def _count_error(one: SegmentedSlice) -> int:
    return sum(abs(count.error) for count in one.counts.values())


def _scores(one: SegmentedSlice) -> dict[str, float]:
    """Structure -> Dice, where a human drew it."""
    return {key.split("/")[1]: dice(pair.scored, pair.human) for key, pair in one.compared.items() if pair.human.any()}


def _scored(slices: Sequence[SegmentedSlice]) -> list[tuple[str, SegmentedSlice]]:
    return [(_caption(one), one) for one in slices]


def _caption(one: SegmentedSlice) -> str:
    name = f"slice {one.name}" if one.name.isdigit() else one.name.replace("_t2_SPACE_slice", ", slice ")
    return "\n".join([name, *(f"{what.replace('_', ' ')} {value:.2f}" for what, value in _scores(one).items())])


def _counted(slices: Sequence[SegmentedSlice]) -> list[tuple[str, SegmentedSlice]]:
    return [
        ("\n".join([one.name, *(f"{what} {n.found}, listed {n.listed}" for what, n in one.counts.items())]), one)
        for one in slices
    ]


def _best_and_worst(slices: Sequence[SegmentedSlice]) -> list[tuple[str, SegmentedSlice]]:
    """The best slices of all patients, then their worst in the same order."""
    by_patient: dict[str, list[SegmentedSlice]] = {}
    for one in slices:
        by_patient.setdefault(one.name.split("_")[0], []).append(one)
    ordered = [sorted(own, key=lambda one: float(np.mean(list(_scores(one).values())))) for own in by_patient.values()]
    return _scored([own[-1] for own in ordered] + [own[0] for own in ordered])


def _draw(page: Page) -> Figure:
    rows = -(-len(page.tiles) // page.columns)
    width, height = page.tile_inches
    size = (page.columns * width, rows * (height + CAPTION_INCHES) + 0.9)
    figure = Figure(figsize=size, dpi=DPI, facecolor="black", layout="constrained")
    panels = figure.subplots(rows, page.columns, squeeze=False).ravel()
    drawn: dict[str, Line] = {}
    for panel in panels:
        panel.set_axis_off()
    for panel, (caption, one) in zip(panels, page.tiles, strict=False):
        drawn |= _draw_slice(panel, one, width / height)
        panel.set_title(caption, color="white", fontsize=8, pad=2)
    figure.suptitle(f"{page.title}\n{page.credit}", color="white", fontsize=9)
    _legend(figure, drawn)
    return figure


def _draw_slice(panel: Any, one: SegmentedSlice, width_to_height: float) -> dict[str, Line]:
    """Show the part of the slice around all outlines; returns the lines used."""
    found = {key.split("/")[1]: pair.found for key, pair in one.compared.items()} | dict(one.alone)
    humans = [pair.human for pair in one.compared.values()]
    window = _window(np.any([*found.values(), *humans], axis=0), one.spacing_mm, width_to_height)
    part = one.image[window]
    low, high = np.quantile(part, [0.01, 0.99])
    aspect = one.spacing_mm[0] / one.spacing_mm[1]
    panel.imshow(part, cmap="gray", vmin=low, vmax=max(high, low + 1), aspect=aspect)
    for name, mask in found.items():
        _outline(panel, mask[window], FOUND[name])
    for human in humans:
        _outline(panel, human[window], HUMAN)
    _number_pieces(panel, one, window)
    return {name: FOUND[name] for name in found} | ({"human": HUMAN} if humans else {})


def _window(
    mask: npt.NDArray[np.bool_], spacing_mm: tuple[float, float], width_to_height: float
) -> tuple[slice, slice]:
    """Rows and columns around what is marked, widened to fill the tile as far as the image goes."""
    if not mask.any():
        return slice(0, mask.shape[0]), slice(0, mask.shape[1])
    marked = np.argwhere(mask) * spacing_mm
    low, high = marked.min(axis=0) - MARGIN_MM, marked.max(axis=0) + MARGIN_MM
    size = high - low
    wanted = np.maximum(size, (size[1] / width_to_height, size[0] * width_to_height))
    middle = (low + high) / 2
    rows, columns = (_part(middle[i], wanted[i], spacing_mm[i], mask.shape[i]) for i in (0, 1))
    return rows, columns


def _part(middle_mm: float, size_mm: float, spacing_mm: float, n: int) -> slice:
    """`size_mm` around `middle_mm` in pixels, moved and cut to lie within `n` of them."""
    size = min(round(size_mm / spacing_mm), n)
    start = min(max(round(middle_mm / spacing_mm - size / 2), 0), n - size)
    return slice(start, start + size)


def _outline(panel: Any, mask: npt.NDArray[np.bool_], line: Line) -> None:
    if mask.any():
        panel.contour(
            mask.astype(float), levels=[0.5], colors=[line.colour], linestyles=line.style, linewidths=line.width
        )


def _number_pieces(panel: Any, one: SegmentedSlice, window: tuple[slice, slice]) -> None:
    """Write the number of each counted piece into it."""
    corner = (window[0].start, window[1].start)
    for what, name in (("vertebrae", BODY), ("discs", DISC)):
        if what in one.counts:
            line = FOUND[name]
            for k, (row, column) in enumerate(pieces(one.alone[name], one.spacing_mm, SMALLEST_MM2[what]), start=1):
                at = (column - corner[1], row - corner[0])
                panel.text(*at, str(k), color=line.colour, fontsize=7, weight="bold", ha="center", va="center")


def _legend(figure: Figure, drawn: Mapping[str, Line]) -> None:
    handles = [
        Line2D([], [], color=line.colour, linestyle=line.style, linewidth=line.width, label=_label(name))
        for name, line in drawn.items()
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=5, facecolor="black", labelcolor="white", fontsize=8,
        handlelength=4,
    )  # fmt: skip


def _label(name: str) -> str:
    return "human outline (thin)" if name == "human" else f"network: {name.replace('_', ' ')}"


def jpeg(figure: Figure, *, max_bytes: int = MAX_BYTES) -> bytes:
    """Encode with the best of a few qualities that keeps the page small."""
    data = b""
    for quality in (85, 75, 65, 50, 35):
        stream = BytesIO()
        FigureCanvasAgg(figure).print_jpg(stream, pil_kwargs={"quality": quality})
        data = stream.getvalue()
        if len(data) <= max_bytes:
            break
    return data
