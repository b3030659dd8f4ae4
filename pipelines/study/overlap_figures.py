"""Figure 4: Dice coefficients by level and muscle, and along the stack, with intervals.

Means and intervals are those of the table of summaries; points are those of the table of overlaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cohort.agreement.rows import SLICE_BINS
from cohort.terms import MUSCLES
from pipelines.study.plot_style import BAND, MANY_POINTS, MUSCLE_LINES, in_words, say_why
from pipelines.study.study_data import Comparison, Row, StudyData, of_comparison, rows_of
from pipelines.study.study_tables import ALL, level_place

KINDS: Final = {"vertebral_body": "vertebral bodies", "disc": "discs", "muscle": "muscles"}
"""Kind of structure -> title."""
ALONG: Final = {
    "vertebral_body": "sagittal stack, patient's left (0) to right (1)",
    "disc": "sagittal stack, patient's left (0) to right (1)",
    "muscle": "axial stack, caudal (0) to cranial (1)",
}
_SHORT: Final = {
    "multifidus": "multifidus\n",
    "erector_spinae": "erector\nspinae",
    "psoas": "psoas\n",
    "quadratus_lumborum": "quadratus\nlumborum",
}
_JITTER: Final = 0.22
"""Half the width over which the points of one group are spread."""
_GOLDEN: Final = 0.618034
"""Multiples of it, modulo 1, spread evenly without chance."""


def overlap_figure(data: StudyData, comparison: Comparison) -> Figure:
    """Above: by level or muscle, every exam a point. Below: by slice position, means over tenths of the stack."""
    figure = Figure(figsize=(10.2, 6.2), layout="constrained")
    axes = figure.subplots(2, len(KINDS), squeeze=False, width_ratios=(9, 8, 6))
    summary = rows_of(data.overlap_summary, comparison)
    overlaps = of_comparison(data.overlaps, comparison).dropna(subset=["dice"])
    for column, (kind, title) in enumerate(KINDS.items()):
        of_kind = [row for row in summary if row["kind"] == kind]
        _by_group(axes[0, column], [row for row in of_kind if row["slice_bin"] is None], overlaps, title)
        _along(axes[1, column], [row for row in of_kind if row["slice_bin"] is not None], kind, title)
    for row in axes:
        row[0].set_ylabel("Dice coefficient")
        _same_scale(row)
    handles = {line.get_label(): line for axis in axes.flat for line in axis.get_legend_handles_labels()[0]}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def _same_scale(axes: Sequence[Any]) -> None:
    """One Dice scale for a row of panels, wide enough for all of them."""
    lowest = [low for axis in axes if axis.lines for low in [min(line.get_ydata().min() for line in axis.lines)]]
    for axis in axes:
        if axis.lines:
            axis.set_ylim(max(0.0, min(lowest) - 0.03), 1.01)
            axis.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
            axis.yaxis.set_major_formatter("{x:.2f}")


def groups_of(rows: Sequence[Row]) -> list[Row]:
    """Rows of single levels or muscles (both sides), then of everything as one mask."""
    single = [row for row in rows if (row["level"] or row["muscle"]) and not row["side"]]
    single.sort(key=lambda row: (MUSCLES.index(row["muscle"]) if row["muscle"] else -1, level_place(row["level"])))
    return [*single, *(row for row in rows if row["structure"] == ALL)]


def _by_group(axis: Any, rows: Sequence[Row], overlaps: pd.DataFrame, title: str) -> None:
    groups = groups_of(rows)
    axis.set_title(f"{title}, whole structures")
    if not groups:
        axis.set(xticks=[], yticks=[])
        say_why(axis, None)
        return
    whole = overlaps[overlaps["slice_position"].isna()]
    for place, row in enumerate(groups):
        _points(axis, place, _dice_of(whole, row))
        _mean(axis, place, row)
    labels = [f"{_label(row)}\n{row['n']}/{row['n_persons']}" for row in groups]
    axis.set_xticks(range(len(groups)), labels)
    axis.tick_params(axis="x", labelsize=6.5)
    axis.set_xlim(-0.6, len(groups) - 0.4)
    axis.set_xlabel("structures / persons below each name")
    axis.grid(axis="y", color="0.9", linewidth=0.6)
    axis.set_axisbelow(True)


def _label(row: Row) -> str:
    if row["structure"] == ALL:
        return "all as\none"
    if row["muscle"]:
        return _SHORT[row["muscle"]]
    return "\n".join((row["level"] + "-").split("-")[:2])


def _dice_of(whole: pd.DataFrame, row: Row) -> Any:
    wanted = whole["kind"] == row["kind"]
    if row["structure"] == ALL:
        wanted &= whole["structure"] == ALL
    elif row["muscle"]:
        wanted &= (whole["muscle"] == row["muscle"]) & whole["side"].isna()
    else:
        wanted &= whole["level"] == row["level"]
    return whole.loc[wanted, "dice"].to_numpy()


def _points(axis: Any, place: int, dice: Any) -> None:
    if not len(dice):
        return  # a line without points would have no scale
    spread = (np.arange(len(dice)) * _GOLDEN % 1.0 - 0.5) * 2 * _JITTER
    axis.plot(place + spread, dice, marker="o", linestyle="none", color="0.55", markersize=2.2, markeredgewidth=0.5,
              markerfacecolor="none", label="one exam", rasterized=len(dice) > MANY_POINTS)  # fmt: skip


def _mean(axis: Any, place: int, row: Row) -> None:
    if row["mean"] is None:
        axis.text(place, 0.5, "-", ha="center", va="center", transform=axis.get_xaxis_transform())
        return
    for low, high, width, cap, label in (
        ("low", "high", 3.2, 0.0, "95 % interval, structures"),
        ("low_clustered", "high_clustered", 1.0, 4.0, "95 % interval, persons"),
    ):
        if row[low] is not None:
            ends = [[row["mean"] - row[low]], [row[high] - row["mean"]]]
            axis.errorbar([place + 0.36], [row["mean"]], yerr=ends, fmt="none", ecolor="0.55" if cap == 0 else "k",
                          elinewidth=width, capsize=cap / 2, label=label, zorder=3)  # fmt: skip
    axis.plot([place + 0.36], [row["mean"]], marker="D", color="k", markersize=3.6, linestyle="none", label="mean",
              zorder=4)  # fmt: skip


def _along(axis: Any, rows: Sequence[Row], kind: str, title: str) -> None:
    """Mean Dice of slices by their position; one line for each muscle, one for all levels of bodies or discs."""
    axis.set(title=f"{title}, slice by slice", xlabel=ALONG[kind], xlim=(0, 1))
    lines = {name: line for name in _names(kind) if (line := _bins(rows, name))}
    if not lines:
        axis.set(xticks=[], yticks=[])
        say_why(axis, "no_pairs")
        return
    for k, (name, line) in enumerate(lines.items()):
        _draw_line(axis, name, line, shift=0.012 * (k - (len(lines) - 1) / 2))
    counts = [row["n"] for line in lines.values() for row in line]
    several = f"{min(counts)} to {max(counts)}" if min(counts) != max(counts) else f"{counts[0]}"
    axis.set_title(f"{title}, slice by slice\nn = {several} slices a point")
    axis.grid(axis="y", color="0.9", linewidth=0.6)


def _names(kind: str) -> tuple[str | None, ...]:
    return MUSCLES if kind == "muscle" else (None,)


def _bins(rows: Sequence[Row], muscle: str | None) -> list[Row]:
    """Rows of one line; all levels and both sides together."""
    found = [row for row in rows if row["muscle"] == muscle and not row["level"] and not row["side"]]
    for structure in (ALL, None):  # everything as one mask, as the paper's Dice of a slice, where it is there
        line = [row for row in found if row["structure"] == structure and row["mean"] is not None]
        if line:
            return sorted(line, key=lambda row: row["slice_bin"])
    return []


def _draw_line(axis: Any, muscle: str | None, line: Sequence[Row], *, shift: float) -> None:
    places = np.array([(row["slice_bin"] + 0.5) / SLICE_BINS for row in line]) + shift
    means = np.array([row["mean"] for row in line])
    marker, dashes = MUSCLE_LINES[muscle] if muscle else ("D", "-")
    name = in_words(muscle) if muscle else "mean"
    sure = [row["low_clustered"] is not None for row in line]
    low = np.array([row["low_clustered"] if row["low_clustered"] is not None else row["mean"] for row in line])
    high = np.array([row["high_clustered"] if row["high_clustered"] is not None else row["mean"] for row in line])
    if not muscle and any(sure):
        axis.fill_between(places, low, high, color=BAND, linewidth=0, zorder=0)
    if any(sure):
        axis.errorbar(places, means, yerr=[means - low, high - means], fmt="none", ecolor="k", elinewidth=0.8,
                      capsize=1.6, label="95 % interval, persons", zorder=2)  # fmt: skip
    axis.plot(places, means, marker=marker, linestyle=dashes, color="k", markersize=3.6, linewidth=1.1, label=name,
              markerfacecolor="white" if muscle else "k", markeredgewidth=0.8)  # fmt: skip
