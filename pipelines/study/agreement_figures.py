"""Figures 5 and 6: values of two readers against each other with x = y, and their Bland-Altman plots, by level.

Bias, limits of agreement and all intervals are those of the tables: nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipelines.study.plot_style import BAND, MANY_POINTS, in_words, looks, say_why, say_why_briefly
from pipelines.study.study_data import Comparison, Row, StudyData, of_comparison, rows_of
from pipelines.study.study_tables import AREA, COMPRESSION, DISC_HEIGHT, LOAD_UNIT, agreement_place

WIDTH_IN: Final = 2.55
HEIGHT_IN: Final = 2.25
CROWDED: Final = 150
"""Points of a panel from which on they are drawn smaller."""
DIGITS: Final = {"mm": 2, "deg": 1, "cm2": 3, "N": 0}
"""Unit -> decimals."""
LABELS: Final = {
    DISC_HEIGHT: "disc height",
    AREA: "cross-sectional area",
    COMPRESSION: "compression",
    "lordosis_l1_s1_deg": "lordosis L1-S1",
    "lordosis_l1_l5_deg": "lordosis L1-L5",
    "lordosis_centroid_deg": "lordosis of centroids",
    "sacral_slope_deg": "sacral slope",
    "coronal_deviation_mm": "coronal deviation",
    "vertebra_centroid_distance_mm": "distance of vertebral centroids",
    "disc_centroid_distance_mm": "distance of disc centroids",
    "muscle_centroid_distance_mm": "distance of muscle centroids",
}
UNITS: Final = {"cm2": "cm²", "deg": "°"}

Looks = Mapping[str, tuple[str, str]]


@dataclass(frozen=True, eq=False)
class Panel:
    """One group of pairs: a scatter plot and, below it, its Bland-Altman plot."""

    title: str
    row: Row
    """Of the table of agreement."""
    points: pd.DataFrame
    """Columns first, second, level."""


@dataclass(frozen=True, eq=False)
class AgreementPlot:
    """One figure of one quantity."""

    number: str
    """5a, 5b, 6a, ..."""
    name: str
    """Of its files."""
    title: str
    what: str
    """Quantity as the axes name it."""
    unit: str
    panels: Sequence[Panel]


def agreement_plots(data: StudyData, comparison: Comparison) -> Iterator[AgreementPlot]:
    """Figure 5 (disc heights, areas by muscle) and figure 6 (each load in each task), as far as there are any."""
    rows = sorted(rows_of(data.agreement, comparison, side=None), key=agreement_place)
    pairs = of_comparison(data.pairs, comparison).dropna(subset=["first", "second"])
    heights = [row for row in rows if row["quantity"] == DISC_HEIGHT]
    areas = [row for row in rows if row["quantity"] == AREA and row["muscle"] and not row["level"]]
    if heights:
        yield _plot("5a", "disc-heights", heights, _levels(heights, pairs))
    if areas:
        yield _plot("5b", "muscle-areas", areas, [_panel(row, pairs) for row in areas])
    loads = [row for row in rows if row["unit"] == LOAD_UNIT]
    for k, (quantity, task) in enumerate(dict.fromkeys((row["quantity"], row["task"]) for row in loads)):
        of_task = [row for row in loads if (row["quantity"], row["task"]) == (quantity, task)]
        name = "-".join(part for part in ("loads", quantity, task) if part)
        yield _plot(f"6{chr(ord('a') + k)}", name, of_task, _levels(of_task, pairs))


def _plot(number: str, name: str, rows: Sequence[Row], panels: Sequence[Panel]) -> AgreementPlot:
    quantity, task, unit = rows[0]["quantity"], rows[0]["task"], rows[0]["unit"]
    what = LABELS.get(quantity, in_words(quantity))
    title = f"{what}, {task}" if task else what
    return AgreementPlot(number, f"figure-{number}-{name}", title, what, UNITS.get(unit, unit), panels)


def _levels(rows: Sequence[Row], pairs: pd.DataFrame) -> list[Panel]:
    """All levels first, then each, cranial to caudal."""
    ordered = sorted(rows, key=lambda row: (row["level"] is not None, agreement_place(row)))
    return [_panel(row, pairs) for row in ordered]


def _panel(row: Row, pairs: pd.DataFrame) -> Panel:
    """With the pairs of the row's group."""
    wanted = pairs["quantity"] == row["quantity"]
    for column in ("level", "muscle", "task"):
        if row[column] is not None:
            wanted &= pairs[column] == row[column]
    title = in_words(row["muscle"]) if row["muscle"] else row["level"] or "all levels"
    return Panel(title, row, pairs[wanted])


def agreement_figure(plot: AgreementPlot, comparison: Comparison) -> Figure:
    """Blocks of a row of scatter plots above a row of Bland-Altman plots."""
    n = len(plot.panels)
    columns = n if n < 4 else 4 if n in (4, 7, 8) else 3
    blocks = -(-n // columns)
    size = (max(columns, 2) * WIDTH_IN, 2 * blocks * HEIGHT_IN + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(2 * blocks, columns, squeeze=False)
    styles = looks(str(level) for panel in plot.panels for level in panel.points["level"].dropna())
    for k, panel in enumerate(plot.panels):
        block, column = divmod(k, columns)
        _scatter(axes[2 * block, column], panel, plot, comparison, styles)
        _bland_altman(axes[2 * block + 1, column], panel, plot, comparison, styles)
    if len({panel.row["muscle"] for panel in plot.panels}) == 1:
        _same_scale(list(axes[1::2].flat))
    for k in range(n, blocks * columns):
        for row in (-2, -1):
            axes[row, k % columns].set_axis_off()
    handles = {line.get_label(): line for axis in axes.flat for line in axis.get_legend_handles_labels()[0]}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2 * columns, frameon=False)
    return figure


def _same_scale(axes: Sequence[Any]) -> None:
    """Differences of all levels on one scale, so that levels can be compared by eye."""
    drawn = [axis.get_ylim() for axis in axes if axis.get_yticks().size]
    for axis in axes:
        if axis.get_yticks().size and drawn:
            axis.set_ylim(min(low for low, _ in drawn), max(high for _, high in drawn))


def _scatter(axis: Any, panel: Panel, plot: AgreementPlot, comparison: Comparison, styles: Looks) -> None:
    row, points = panel.row, panel.points
    axis.set_title(f"{panel.title}\n{_counts(row)}\n{_correlation(row)}")
    axis.set(xlabel=f"{comparison.first}, {plot.unit}", ylabel=f"{comparison.second}, {plot.unit}")
    if points.empty:
        _nothing(axis, row)
        return
    _draw(axis, points, points["first"], points["second"], styles)
    low, high = (float(f(f(points["first"]), f(points["second"]))) for f in (min, max))
    margin = max(0.06 * (high - low), 0.02 * abs(high)) or 1.0
    ends = (low - margin, high + margin)
    axis.plot(ends, ends, color="0.3", linewidth=0.9, linestyle="--", label="x = y", zorder=1)
    axis.set(xlim=ends, ylim=ends)
    for one in (axis.xaxis, axis.yaxis):
        one.set_major_locator(MaxNLocator(5))  # the same ticks on both
    axis.set_aspect("equal", adjustable="box")


def _bland_altman(axis: Any, panel: Panel, plot: AgreementPlot, comparison: Comparison, styles: Looks) -> None:
    """Bias and limits of agreement as lines, their naive intervals as bands, those by persons as brackets."""
    row, points = panel.row, panel.points
    axis.set(xlabel=f"mean of both, {plot.unit}", ylabel=f"{comparison.second} - {comparison.first}, {plot.unit}")
    if points.empty:
        _nothing(axis, row)
        return
    differences = points["second"] - points["first"]
    _draw(axis, points, (points["first"] + points["second"]) / 2, differences, styles)
    axis.axhline(0.0, color="0.6", linewidth=0.8, linestyle=":")
    for name, (label, dashes) in _LINES.items():
        _line(axis, row, name, label, dashes)
    axis.set_title(_limits(row))
    axis.margins(x=0.08)
    axis.set_ylim(_room([*differences, *(row[name] for name in _LINES if row[name] is not None)]))
    if row["lower_limit"] is None:
        say_why_briefly(axis, "no limits", row["reason"])


_LINES: Final = {
    "bias": ("bias", "-"),
    "lower_limit": ("limits of agreement", "--"),
    "upper_limit": ("limits of agreement", "--"),
}
"""Statistic -> its name in the legend, and its line."""


def _room(values: Sequence[float]) -> tuple[float, float]:
    """A scale for values and lines; the intervals of very few pairs may be far wider, and are cut off."""
    low, high = min(values), max(values)
    margin = 0.25 * (high - low) or abs(high) or 1.0
    return low - margin, high + margin


def _draw(axis: Any, points: pd.DataFrame, x: Any, y: Any, styles: Looks) -> None:
    size = 3.2 if len(points) <= CROWDED else 2.2
    for level, (marker, colour) in styles.items():
        here = (points["level"] == level).to_numpy()
        if here.any():
            axis.plot(x[here], y[here], marker=marker, color=colour, linestyle="none", markersize=size,
                      markeredgewidth=0.7, markerfacecolor="none", label=level,
                      rasterized=len(points) > MANY_POINTS)  # fmt: skip
    rest = points["level"].isna().to_numpy()
    if rest.any():
        axis.plot(x[rest], y[rest], marker="o", color="0.35", linestyle="none", markersize=size, markerfacecolor="none")


_EDGES: Final = {"bias": "-.", "lower_limit": "-", "upper_limit": "-"}
"""Lines at the ends of bands."""
_BRACKETS: Final = {"lower_limit": 0.935, "bias": 0.96, "upper_limit": 0.985}
"""Where brackets stand, of the width of a panel: side by side, as they overlap where persons are few."""


def _line(axis: Any, row: Row, name: str, label: str, dashes: str) -> None:
    if row[name] is None:
        return
    axis.axhline(row[name], color="k", linewidth=1.1, linestyle=dashes, label=label)
    if row[f"{name}_low"] is not None:
        ends = (row[f"{name}_low"], row[f"{name}_high"])
        axis.axhspan(*ends, color=BAND, zorder=0, linewidth=0, label="95 % interval, pairs")
        for end in ends:  # bands of few pairs overlap
            axis.axhline(end, color="0.55", linewidth=0.6, linestyle=_EDGES[name], zorder=0.5)
    if row[f"{name}_low_clustered"] is not None:
        ends = [row[f"{name}_low_clustered"], row[f"{name}_high_clustered"]]
        axis.plot([_BRACKETS[name]] * 2, ends, color="k", linewidth=1.6, marker="_", markersize=5,
                  transform=axis.get_yaxis_transform(), label="95 % interval, persons")  # fmt: skip


def _nothing(axis: Any, row: Row) -> None:
    axis.set(xticks=[], yticks=[])
    say_why(axis, row["reason"])


def _counts(row: Row) -> str:
    left_out = f", {row['n_without']} without" if row["n_without"] else ""
    return f"n = {row['n']} of {row['n_persons']} person{'' if row['n_persons'] == 1 else 's'}{left_out}"


def _correlation(row: Row) -> str:
    if row["r"] is None:
        return "R not defined" if row["n"] else "no pair"
    interval = "" if row["r_low"] is None else f" ({row['r_low']:.2f} to {row['r_high']:.2f})"
    return f"R {row['r']:.3f}{interval}"


def _limits(row: Row) -> str:
    digits = DIGITS.get(row["unit"], 2)
    if row["bias"] is None:
        return "no bias"
    bias = f"bias {row['bias']:+.{digits}f}"
    if row["lower_limit"] is None:
        return f"{bias}, no limits"
    return f"{bias}, limits {row['lower_limit']:.{digits}f} to {row['upper_limit']:.{digits}f}"
