"""Plots of a run report, as SVG within the page; lines and fillings differ in grey, too."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from cohort.tables.stages import STAGES

if TYPE_CHECKING:
    from pipelines.report import StageWork, Throughput

_LINES: Final = dict(
    zip(STAGES, (("#000000", "-"), ("#0072b2", "--"), ("#d55e00", "-."), ("#009e73", ":")), strict=True)
)
"""Colours of Okabe and Ito, which differ for most kinds of colour blindness."""


def throughput_plot(throughput: Throughput) -> str:
    """Exams per minute over time, one line a stage."""
    figure = Figure(figsize=(10.2, 2.9), layout="constrained")
    axes = figure.subplots()
    begun = datetime.fromisoformat(throughput.begun_at)
    for stage, counts in throughput.counts.items():
        edges = date2num([begun + timedelta(seconds=k * throughput.step_s) for k in range(len(counts) + 1)])
        speeds = [n * 60.0 / throughput.step_s for n in counts]
        colour, dashes = _LINES[stage]
        axes.stairs(speeds, edges, label=stage, color=colour, linestyle=dashes, linewidth=1.6, baseline=None)
    axes.xaxis_date("UTC")
    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.set_ylim(bottom=0)
    step = f"{throughput.step_s} s" if throughput.step_s < 60 else f"{throughput.step_s / 60:g} min"
    axes.set_xlabel(f"UTC; steps of {step}, the last one cut short by the end")
    axes.set_ylabel("exams per minute")
    axes.legend(ncols=len(throughput.counts), frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
    return _svg(figure, axes)


def times_plot(stages: Sequence[StageWork]) -> str:
    """Seconds of an exam in each stage: least, 5, 25, 50, 75 and 95 %, most."""
    figure = Figure(figsize=(10.2, 0.9 + 0.38 * len(stages)), layout="constrained")
    axes = figure.subplots()
    boxes = []
    for work in stages:
        least, low, first, median, third, high, most = (max(one, 1e-3) for one in work.quantiles_s)
        boxes.append({"label": work.stage, "whislo": low, "q1": first, "med": median, "q3": third, "whishi": high,
                      "fliers": [least, most]})  # fmt: skip
    axes.bxp(boxes, orientation="horizontal", widths=0.55, patch_artist=True,
             boxprops={"facecolor": "#d9d9d9"}, medianprops={"color": "black", "linewidth": 2})  # fmt: skip
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if axes.get_xlim()[1] < 10 * axes.get_xlim()[0]:
        axes.set_xscale("linear")  # less than a decade would have one label
    axes.set_xlabel("seconds; box: middle half, whiskers: 5 to 95 %, circles: least and most")
    return _svg(figure, axes)


def _svg(figure: Figure, axes: Axes) -> str:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    stream = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": "report"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]
