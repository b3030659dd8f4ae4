"""Bland-Altman plots of a change, readable in print and in grey: levels differ in their markers."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any, Final

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipelines.change import Agreement, ChangeReport, Feature

DPI: Final = 100
COLUMNS: Final = 3
PANEL_IN: Final = (3.9, 2.9)
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")


def change_figures(report: ChangeReport) -> Iterator[tuple[Feature, bytes]]:
    """One PNG for each feature with a changed number, a panel for each muscle, or task and convention."""
    overall = [one for one in report.overall if one.limits and one.largest_change]
    for feature in dict.fromkeys(one.feature for one in overall):
        yield feature, _png(_figure(report, [one for one in overall if one.feature == feature]))


def _figure(report: ChangeReport, parts: Sequence[Agreement]) -> Figure:
    n_columns = min(COLUMNS, len(parts))
    n_rows = -(-len(parts) // n_columns)
    size = (max(1.5, n_columns) * PANEL_IN[0], n_rows * PANEL_IN[1] + 0.5)
    figure = Figure(figsize=size, layout="constrained", dpi=DPI)
    panels = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    levels = sorted({str(level) for one in parts for level in _points(report, one)["level"]})
    markers = {level: MARKERS[k % len(MARKERS)] for k, level in enumerate(levels)}
    for panel, one in zip(panels, parts, strict=False):
        _panel(panel, one, _points(report, one), markers)
    for panel in panels[len(parts) :]:
        panel.set_axis_off()
    handles = {handle.get_label(): handle for panel in panels for handle in panel.get_legend_handles_labels()[0]}
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=4 * n_columns, fontsize=7, frameon=False
    )
    return figure


def _points(report: ChangeReport, one: Agreement) -> pd.DataFrame:
    return report.points[one.feature.column, one.of]


def _panel(panel: Any, one: Agreement, points: pd.DataFrame, markers: dict[str, str]) -> None:
    """Mean of old and new on x, new minus old on y; bias and limits of agreement as lines, their intervals as bands."""
    for level, marker in markers.items():
        of_level = points[points["level"] == level]
        panel.plot(of_level["mean"], of_level["difference"], marker, markersize=3.5, markeredgewidth=0.6,
                   markerfacecolor="none", color="0.35", linestyle="none",
                   label="all" if level == "all" else level)  # fmt: skip
    limits = one.limits
    assert limits is not None  # only features with compared numbers are drawn
    panel.axhline(0.0, color="0.6", linewidth=0.8, linestyle=":")
    panel.axhline(limits.bias.value, color="k", linewidth=1.4, label="bias")
    for limit in (limits.lower, limits.upper):
        if limit:
            panel.axhline(limit.value, color="k", linewidth=1.2, linestyle="--", label="limits of agreement")
            panel.axhspan(limit.low, limit.high, color="0.85", zorder=0, label="95 % interval")
    shown = "" if len(points) == limits.n else f", {len(points)} shown"
    ends = " to ".join(f"{limit.value:.2f}" for limit in (limits.lower, limits.upper) if limit)
    lines = f"bias {limits.bias.value:.2f}, limits {ends} {one.feature.unit}" if ends else "one person: no limits"
    counts = f"n = {limits.n} of {limits.n_persons} persons{shown}"
    panel.set_title(f"{one.of or one.title}\n{counts}\n{lines}", fontsize=8)
    panel.set_xlabel(f"mean of old and new, {one.feature.unit}", fontsize=8)
    panel.set_ylabel(f"new - old, {one.feature.unit}", fontsize=8)
    panel.tick_params(labelsize=7)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
