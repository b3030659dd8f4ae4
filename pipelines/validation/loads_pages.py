"""Pictures of the validation of loads; readable in grey: things differ in marker, line or hatching, too."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import Any, Final

import matplotlib.pyplot as plt
import numpy as np

from cohort.loading.base_model import SPINAL_JOINTS
from cohort.terms import LUMBAR_VERTEBRAE
from pipelines.validation.loads_in_vivo import CHOICES, TOLERANCE
from pipelines.validation.loads_models import Table
from pipelines.validation.loads_public import PLACE

DPI: Final = 130
STYLES: Final = (("o", "-"), ("s", "--"), ("^", "-."), ("D", ":"), ("v", "--"), ("P", "-"), ("X", ":"), ("*", "-."))
COLOURS: Final = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F7F7F")
"""Okabe & Ito's colours, told apart with any colour vision."""
OURS: Final = "ours"


def write_pictures(folder: Path, results: dict[str, Any]) -> None:
    """Draw all plots as PNG files `loads-*.png` in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "loads-levels": levels_figure(results["public"]),
        "loads-in-vivo": in_vivo_figure(results["in_vivo"], results["flexion_trend"]),
        "loads-sensitivity": tornado_figure(results["sensitivity"]),
        "loads-inputs": inputs_figure(results["inputs"]),
        "loads-moment-arms": moment_arms_figure(results["moment_arms"]),
    }
    if results["scatter"]:
        figures["loads-agreement"] = agreement_figure(results["scatter"], results["personalisations"])
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=DPI)
        plt.close(figure)


def levels_figure(table: Table) -> Any:
    """Axial load by level: one panel for each task, convention and least activation, one line for each model."""
    rows = [row for row in table if row["model"] != PLACE]
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    kinds = sorted({(row["convention"], row["least activation"]) for row in rows})
    names = list(dict.fromkeys(row["model"] for row in rows))
    figure, axes = plt.subplots(
        len(tasks), len(kinds), figsize=(14, 8.2), layout="constrained", sharey="row", squeeze=False
    )
    for task, line in zip(tasks, axes, strict=True):
        for (convention, least), axis in zip(kinds, line, strict=True):
            for row in rows:
                if (row["task"], row["convention"], row["least activation"]) == (task, convention, least):
                    _level_line(axis, row, names.index(row["model"]))
            axis.set_title(f"{task}\n{convention}, least activation {least:g}", fontsize=10)
            axis.grid(axis="y", alpha=0.4)
        line[0].set_ylabel("axial load, N")
        line[0].margins(y=0.1)
        line[0].set_ylim(bottom=0.0)
    handles = {line.get_label(): line for axis in axes.flat for line in axis.get_lines()}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", fontsize=8, ncols=2)
    return figure


def _level_line(axis: Any, row: dict[str, Any], number: int) -> None:
    marker, line = STYLES[number % len(STYLES)]
    ours = row["model"].startswith(OURS)
    axis.plot(
        LUMBAR_VERTEBRAE,
        [row[level] for level in LUMBAR_VERTEBRAE],
        marker=marker,
        linestyle=line,
        color=COLOURS[number % len(COLOURS)],
        linewidth=2.4 if ours else 1.2,
        markerfacecolor="white" if "not_in_equilibrium" in row["state"] else None,
        label=row["model"],
    )


def in_vivo_figure(table: Table, trend: Table) -> Any:
    """Ranges of measured loads with our bars; below them the ratio to upright by trunk inclination."""
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(10, 9), layout="constrained", height_ratios=(max(3, len(table)), 4)
    )
    places = np.arange(len(table))[::-1]
    low, high = (np.array([row[f"{end} N"] for row in table], dtype=float) for end in ("low", "high"))
    wide, wider = low * (1 - TOLERANCE), high * (1 + TOLERANCE)
    top.barh(places, wider - wide, left=wide, height=0.8, color="0.9", edgecolor="0.6", linestyle="--",
             label=f"measured, widened by {100 * TOLERANCE:.0f} %")  # fmt: skip
    top.barh(places, np.maximum(high - low, 8.0), left=low, height=0.8, color="0.6", label="measured")
    for number, name in enumerate(CHOICES):
        top.plot([row[f"{name}, N"] for row in table], places + 0.22 * (1 - number), "oDv"[number],
                 color=COLOURS[number], markersize=6, linestyle="none", label=name)  # fmt: skip
    top.set_yticks(places, [f"{row['measured']}\n{row['source']}" for row in table], fontsize=8)
    top.set_xlim(left=0.0)
    top.set_xlabel("compression of L4/L5, N (man of 1.74 m, 70 kg)")
    top.grid(axis="x", alpha=0.4)
    top.legend(fontsize=8, loc="lower right")
    angle = [row["trunk inclination, degrees"] for row in trend]
    bottom.plot(angle, [row["ours over upright"] for row in trend], "o-", color="k", label="ours, L1")
    seen = [row for row in trend if row["implant over upright"] is not None]
    bottom.plot([row["trunk inclination, degrees"] for row in seen], [row["implant over upright"] for row in seen],
                "s--", color="#0072B2", markersize=8,
                label="vertebral implants, 5 people (Dreischarf 2015)")  # fmt: skip
    bottom.margins(y=0.1)
    bottom.set_ylim(bottom=0.0)
    bottom.set(xlabel="trunk inclination, degrees", ylabel="load over upright")
    bottom.grid(alpha=0.4)
    bottom.legend(fontsize=8, loc="lower right")
    return figure


def agreement_figure(points: Table, n: int) -> Any:
    """Our loads over OpenSim's with the line of equality, and the difference over OpenSim's load."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5.2), layout="constrained")
    largest = 0.0
    for number, model in enumerate(dict.fromkeys(row["model"] for row in points)):
        ours, theirs = (
            np.array([row[key] for row in points if row["model"] == model]).ravel() for key in ("batch_n", "opensim_n")
        )
        style = {"marker": STYLES[number][0], "color": COLOURS[number], "linestyle": "none", "markersize": 4}
        left.plot(theirs, ours, markerfacecolor="none", label=model, **style)
        right.plot(theirs, 100.0 * (ours - theirs) / theirs, markerfacecolor="none", label=model, **style)
        largest = max(largest, float(theirs.max()))
    left.plot([0, largest], [0, largest], color="0.4", linewidth=1, label="equal")
    left.set(xlabel="OpenSim, N", ylabel="ours, N", title=f"axial load, {n} people per model and task, 5 levels")
    right.axhline(0.0, color="0.4", linewidth=1)
    right.set(xlabel="OpenSim, N", ylabel="ours minus OpenSim, % of OpenSim's", title="difference")
    for axis in (left, right):
        axis.grid(alpha=0.4)
    left.legend(fontsize=8)
    return figure


def tornado_figure(table: Table, level: str = "L4") -> Any:
    """Change of the load L4/L5 by every variation, largest first, one panel for each task."""
    tasks = list(dict.fromkeys(row["task"] for row in table))
    figure, axes = plt.subplots(1, len(tasks), figsize=(12, 6), layout="constrained", squeeze=False)
    for axis, task in zip(axes.flat, tasks, strict=True):
        shipped, *rows = [row for row in table if row["task"] == task]
        rows = sorted(rows, key=lambda row: abs(row[f"{level} %"]))
        values = [row[f"{level} %"] for row in rows]
        bars = axis.barh([row["variation"] for row in rows], values, color="0.65", edgecolor="k")
        for bar, row in zip(bars, rows, strict=True):
            bar.set_hatch("////" if "not_in_equilibrium" in row["state"] else "")
        axis.bar_label(bars, [f"{value:+.1f}" for value in values], fontsize=8, padding=3)
        axis.axvline(0.0, color="k", linewidth=1)
        axis.margins(x=0.18)
        axis.set(title=f"{task}: {shipped[level]} N as shipped", xlabel="change of the load L4/L5, %")
        axis.tick_params(axis="y", labelsize=8)
    figure.supxlabel("man of 1.75 m, 75 kg; hatched: muscles cannot hold the posture", fontsize=9)
    return figure


def inputs_figure(table: Table) -> Any:
    """Mean error of loads by error of what is measured, one bar for each level."""
    tasks = list(dict.fromkeys(row["task"] for row in table))
    figure, axes = plt.subplots(len(tasks), 1, figsize=(10, 7), layout="constrained", squeeze=False)
    width = 0.8 / len(LUMBAR_VERTEBRAE)
    for axis, task in zip(axes.flat, tasks, strict=True):
        rows = [row for row in table if row["task"] == task]
        for number, level in enumerate(LUMBAR_VERTEBRAE):
            places = np.arange(len(rows)) + (number - 2) * width
            grey = str(0.15 + 0.18 * number)
            axis.bar(places, [row[f"{level} %"] for row in rows], width, color=grey, edgecolor="k", label=level)
        names = [f"{fill(row['error of'], 15)}\nn = {row['n']}" for row in rows]
        axis.set_xticks(np.arange(len(rows)), names, fontsize=8)
        axis.set(title=task, ylabel="mean error of the load, %")
        axis.grid(axis="y", alpha=0.4)
    axes.flat[0].legend(fontsize=8, ncols=5)
    return figure


def moment_arms_figure(table: Table) -> Any:
    """Moment arms in extension by joint, one panel for each group, one line for each model."""
    rows = [row for row in table if row["plane"] == "extension"]
    groups = list(dict.fromkeys(row["group"] for row in rows))
    models = list(dict.fromkeys(row["model"] for row in rows))
    figure, axes = plt.subplots(-(-len(groups) // 3), 3, figsize=(11, 2.7 * -(-len(groups) // 3)),
                                layout="constrained", sharex=True, squeeze=False)  # fmt: skip
    for axis, group in zip(axes.flat, groups, strict=False):
        for row in (row for row in rows if row["group"] == group):
            number = models.index(row["model"])
            marker, line = STYLES[number]
            values = [np.nan if row[joint] is None else row[joint] for joint in SPINAL_JOINTS]
            axis.plot([joint.replace("_", "/") for joint in SPINAL_JOINTS], values, marker=marker, linestyle=line,
                      color=COLOURS[number], markerfacecolor="none", label=row["model"])  # fmt: skip
        axis.axhline(0.0, color="0.5", linewidth=0.8)
        axis.set_title(group.replace("_", " "), fontsize=10)
        axis.grid(axis="y", alpha=0.4)
        axis.tick_params(axis="x", labelsize=8, labelbottom=True)
    for axis in list(axes.flat)[len(groups) :]:
        axis.set_visible(False)
    figure.supylabel("moment arm, mm (extension positive), standing")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", fontsize=8, ncols=2)
    return figure
