"""Pages for a radiologist's eye: what was segmented, named and measured, drawn on the images.

Only the first eight characters of the exam's pseudonym appear; images are shown in standing order whatever the
acquisition order was (`cohort.anatomy.orientation`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from contourpy import contour_generator
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.path import Path as LinePath

from cohort.anatomy.measure import Measurements
from cohort.anatomy.orientation import Orientation, standing_order
from cohort.geometry import Floats, StackGeometry
from cohort.rows import DiscRow, MuscleRow, VertebraRow
from cohort.stacks import LabelledStack, Labels
from cohort.terms import MUSCLE_LABELS, MUSCLES

BODY_COLOURS = ("#4cc9f0", "#f8961e", "#90be6d")
"""Neighbouring vertebrae alternate, so that a merged pair or a broken body is seen at once."""
DISC_COLOUR = "#ff4d8d"
FLAGGED_COLOUR = "#ffd60a"
MUSCLE_COLOURS = {
    "multifidus": "#4cc9f0",
    "erector_spinae": "#f8961e",
    "psoas": "#90be6d",
    "quadratus_lumborum": "#ff4d8d",
}
BESIDE_MM = 14.0
"""Sagittal slices left and right of the spine's middle: inside the pedicles."""
MARGIN_MM = 25.0
SCALE_BAR_MM = 50.0
SHADE = {"facecolor": "black", "alpha": 0.5, "linewidth": 0}
"""Behind letters that may fall on bright skin."""
MAX_AXIAL = 6
LINE_ZORDER = 2
"""Of lines in matplotlib: above the picture, below letters."""
COMPRESSION = 2
"""Of PNG: the same pixels as with the usual 6 in half the time, and in files a seventh larger."""


def write_overlays(folder: Path, measured: Measurements) -> None:
    """Write `sagittal.png` and `axial.png` into `folder`, as far as the exam has such stacks."""
    folder.mkdir(parents=True, exist_ok=True)
    if measured.sagittal is not None:
        sagittal_overlay(measured, folder / "sagittal.png")
    if measured.axial:
        axial_overlay(measured, folder / "axial.png")


def sagittal_overlay(measured: Measurements, path_png: Path) -> None:
    """Write three sagittal slices (right of, through and left of the spine's middle) with names and disc heights.

    Raises
    ------
    ValueError
        if the exam has no sagittal stack
    """
    if measured.sagittal is None:
        raise ValueError("sagittal_overlay: the exam has no sagittal stack")
    view = View(measured.sagittal, "sagittal")
    bodies, discs = view.labels("body_instances"), view.labels("disc_instances")
    figure = Figure(figsize=(17, 10), facecolor="black", layout="constrained")
    panels = figure.subplots(1, 3)
    window = view.window((bodies > 0) | (discs > 0))
    for panel, (name, k) in zip(panels, _three_slices(measured, view).items(), strict=True):
        view.show(panel, k, window)
        _outline_instances(panel, bodies[k], discs[k], window)
        panel.set_title(f"{name}, slice {view.native(k)}", color="white", fontsize=11)
        _letters(panel, left="A", right="P")
    _name_bodies(panels[1], view, measured.vertebrae, window)
    _draw_endplates(panels[1], view, measured)
    _write_disc_heights(panels[1], view, measured, window)
    _scale_bar(panels[0], view.geometry, window)
    _title(figure, measured)
    _save(figure, path_png)


def axial_overlay(measured: Measurements, path_png: Path) -> None:
    """Write up to six axial slices, at the discs where they could be matched, with muscle outlines and areas.

    Raises
    ------
    ValueError
        if the exam has no axial stack
    """
    if not measured.axial:
        raise ValueError("axial_overlay: the exam has no axial stack")
    views = {stack.stack.index: View(stack, "axial") for stack in measured.axial}
    chosen = _axial_slices(measured)
    columns = min(max(len(chosen), 1), 3)
    rows = max((len(chosen) + 2) // 3, 1)
    figure = Figure(figsize=(17, 1.5 + 4.8 * rows), facecolor="black", layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels:
        panel.set_axis_off()
    for panel, (title, stack, native_slice) in zip(panels, chosen, strict=False):
        view = views[stack]
        window = view.window(view.labels("muscle") > 0)
        k = view.order.native_slice(native_slice, n_slices=view.geometry.n_slices)
        view.show(panel, k, window)
        muscle = view.labels("muscle")[k]
        for (name, _), value in MUSCLE_LABELS.items():
            contour(panel, muscle == value, MUSCLE_COLOURS[name], window)
        here = [row for row in measured.muscles if (row.stack, row.slice) == (stack, native_slice)]
        _write_areas(panel, view, here, window)
        panel.set_title(title, color="white", fontsize=11)
        _letters(panel, left="R", right="L")
        _scale_bar(panel, view.geometry, window)
    handles = [Line2D([], [], color=MUSCLE_COLOURS[name], label=name.replace("_", " ")) for name in MUSCLES]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, facecolor="black", labelcolor="white")
    _title(figure, measured)
    _save(figure, path_png)


Window = tuple[int, int, int, int]
"""First and last row, first and last column shown."""


class View:
    """A labelled stack in standing order: for this page and others that show measured exams."""

    def __init__(self, stack: LabelledStack, plane: Any) -> None:
        native = stack.stack.geometry
        self.order: Orientation = standing_order(native, plane)
        self.geometry: StackGeometry = self.order.geometry(native)
        self.image = self.order.apply(stack.stack.image)
        self._labels = stack.labels

    def labels(self, name: str) -> Labels:
        """[slice, row, column] in standing order."""
        return self.order.apply(self._labels[name])

    def native(self, k: int) -> int:
        """Stored slice of a slice in standing order."""
        return self.order.native_slice(k, n_slices=self.geometry.n_slices)

    def window(self, mask: npt.NDArray[np.bool_]) -> Window:
        """The part around a mask [slice, row, column], with a margin."""
        rows, columns = (np.flatnonzero(np.any(mask, axis=axes)) for axes in ((0, 2), (0, 1)))
        height, width = self.geometry.shape
        if not len(rows):
            return 0, height - 1, 0, width - 1
        down, across = (round(MARGIN_MM / spacing) for spacing in self.geometry.spacing_mm)
        return (
            max(int(rows[0]) - down, 0),
            min(int(rows[-1]) + down, height - 1),
            max(int(columns[0]) - across, 0),
            min(int(columns[-1]) + across, width - 1),
        )

    def show(self, panel: Any, k: int, window: Window) -> None:
        """Draw a slice."""
        self.show_plane(panel, self.image[k], window)

    def show_plane(self, panel: Any, plane: npt.NDArray[Any], window: Window) -> None:
        """Draw a picture [row, column] on the stack's rows and columns, pixels in their true proportions."""
        top, bottom, left, right = window
        part = plane[top : bottom + 1, left : right + 1]
        low, high = np.quantile(part, [0.01, 0.99])
        panel.imshow(
            part,
            cmap="gray",
            vmin=low,
            vmax=max(high, low + 1),
            aspect=self.geometry.spacing_mm[0] / self.geometry.spacing_mm[1],
            extent=(left - 0.5, right + 0.5, bottom + 0.5, top - 0.5),
        )
        panel.set_axis_off()
        panel.set(xticks=[], yticks=[])  # matplotlib lays out the ticks of an axis that is off, too


def _three_slices(measured: Measurements, view: View) -> dict[str, int]:
    """Slices beside and through the middle of the spine; standing order counts from the patient's right."""
    last = view.geometry.n_slices - 1
    middle = last / 2
    if measured.vertebrae:
        centres = np.array([[row.x_mm, row.y_mm, row.z_mm] for row in measured.vertebrae])
        middle = float(np.median(view.geometry.to_index(centres)[:, 0]))
    beside = BESIDE_MM / abs(view.geometry.slice_gap_mm)
    wanted = {"patient's right": middle - beside, "middle": middle, "patient's left": middle + beside}
    return {name: int(np.clip(round(k), 0, last)) for name, k in wanted.items()}


def _outline_instances(panel: Any, bodies: Labels, discs: Labels, window: Window) -> None:
    for label in np.unique(bodies[bodies > 0]):
        contour(panel, bodies == label, BODY_COLOURS[int(label) % len(BODY_COLOURS)], window)
    for label in np.unique(discs[discs > 0]):
        contour(panel, discs == label, DISC_COLOUR, window)


def contour(
    panel: Any,
    mask: npt.NDArray[np.bool_],
    colour: str,
    window: Window,
    *,
    style: str = "solid",
    width: float = 1.3,
) -> None:
    """Outline a mask [row, column] on a panel that shows `window`.

    What `panel.contour` draws, without its colour maps and norms: they take longer than the line.
    """
    top, bottom, left, right = window
    part = mask[top : bottom + 1, left : right + 1].astype(float)
    rows, columns = np.arange(top, bottom + 1), np.arange(left, right + 1)
    generator: Any = contour_generator(columns, rows, part, name="mpl2014", line_type="SeparateCode")
    pieces, codes = generator.lines(0.5)
    if pieces:
        outline = LinePath(np.concatenate(pieces), np.concatenate(codes))
        lines = PathCollection(
            [outline], facecolors="none", edgecolors=[colour], linewidths=width, linestyles=style, zorder=LINE_ZORDER
        )
        lines.set_transform(panel.transData)
        panel.add_collection(lines, autolim=False)


def _name_bodies(panel: Any, view: View, vertebrae: Sequence[VertebraRow], window: Window) -> None:
    for row in vertebrae:
        _, down, across = view.geometry.to_index([row.x_mm, row.y_mm, row.z_mm])
        name = row.level or f"({row.ordinal})"
        colour = "white" if row.status == "ok" else FLAGGED_COLOUR
        if inside(down, across, window):
            panel.text(across, down, name, color=colour, ha="center", va="center", fontsize=13, weight="bold")


def _draw_endplates(panel: Any, view: View, measured: Measurements) -> None:
    """Superior endplates, from which lordosis and sacral slope are read."""
    for ends in measured.endplates_mm.values():
        index = view.geometry.to_index(ends)
        panel.plot(index[:, 2], index[:, 1], color="white", linewidth=0.9)


def _write_disc_heights(panel: Any, view: View, measured: Measurements, window: Window) -> None:
    for i, row in enumerate(measured.discs):
        index = view.geometry.to_index([row.x_mm, row.y_mm, row.z_mm])
        corners = measured.disc_rectangles_mm.get(i)
        if corners is not None:
            closed: Floats = view.geometry.to_index(np.vstack([corners, corners[:1]]))
            panel.plot(closed[:, 2], closed[:, 1], color="white", linewidth=0.6, linestyle=":")
            index[2] = closed[:, 2].max()
        if inside(index[1], index[2], window):
            colour = "white" if row.status == "ok" else FLAGGED_COLOUR
            panel.text(index[2] + 3, index[1], _disc_text(row), color=colour, va="center", fontsize=9)


def _disc_text(row: DiscRow) -> str:
    name = row.level or f"disc {row.ordinal}"
    return f"{name}: {row.height_mm:.1f} mm" if row.height_mm is not None else f"{name}: not measured"


def _axial_slices(measured: Measurements) -> list[tuple[str, int, int]]:
    """(title, stack, native slice): at the discs, else evenly through the slices with muscles."""
    at_discs = {
        (row.stack, row.slice): f"{row.level}, slice {row.slice}, {row.distance_mm:.0f} mm off, {row.angle_deg:.0f}°"
        for row in measured.muscle_levels
    }
    if at_discs:
        return [(title, stack, k) for (stack, k), title in at_discs.items()][:MAX_AXIAL]
    seen = sorted({(row.stack, row.slice) for row in measured.muscles})
    picked = [seen[int(i)] for i in np.unique(np.linspace(0, len(seen) - 1, MAX_AXIAL).round())] if seen else []
    return [(f"stack {stack}, slice {k}, no disc matched", stack, k) for stack, k in picked]


def _write_areas(panel: Any, view: View, rows: Sequence[MuscleRow], window: Window) -> None:
    for row in rows:
        _, down, across = view.geometry.to_index([row.x_mm, row.y_mm, row.z_mm])
        lean = "" if row.lean_fraction is None else f"\n{100 * row.lean_fraction:.0f} % lean"
        if inside(down, across, window):
            area = "refused" if row.csa_cm2 is None else f"{row.csa_cm2:.1f} cm²{lean}"
            colour = "white" if row.status == "ok" else FLAGGED_COLOUR
            panel.text(across, down, area, color=colour, ha="center", va="center", fontsize=7)


def inside(down: float, across: float, window: Window) -> bool:
    """Does a point lie in what is shown."""
    return bool(window[0] <= down <= window[1] and window[2] <= across <= window[3])


def _letters(panel: Any, *, left: str, right: str) -> None:
    for at, letter in ((0.02, left), (0.98, right)):
        panel.text(at, 0.5, letter, transform=panel.transAxes, color="white", ha="center", fontsize=14, bbox=SHADE)


def _scale_bar(panel: Any, geometry: StackGeometry, window: Window) -> None:
    length = SCALE_BAR_MM / geometry.spacing_mm[1]
    row, column = window[1] - 4 / geometry.spacing_mm[0], window[2] + 6 / geometry.spacing_mm[1]
    panel.plot([column, column + length], [row, row], color="white", linewidth=3)
    panel.text(
        column + length / 2, row - 2, f"{SCALE_BAR_MM:.0f} mm", color="white", ha="center", va="bottom", fontsize=9
    )


def _title(figure: Figure, measured: Measurements) -> None:
    """Exam, status and what raised doubts, in words."""
    counts: dict[str, list[str]] = {}
    for row in measured.quality:
        counts.setdefault(row.reason.replace("_", " "), []).append(row.structure or "exam")
    doubts = "; ".join(f"{reason} ({', '.join(dict.fromkeys(where))})" for reason, where in counts.items())
    colour = "white" if measured.status == "ok" else FLAGGED_COLOUR
    figure.suptitle(
        f"exam {measured.exam_id[:8]}: {measured.status}\n{folded(doubts) or 'no flags'}", color=colour, fontsize=11
    )


def folded(text: str, *, width: int = 170, lines: int = 3) -> str:
    """Text broken at words; what does not fit ends in dots."""
    words, folded = text.split(" "), [""]
    for word in words:
        if len(folded[-1]) + len(word) > width:
            folded.append("")
        folded[-1] += (" " if folded[-1] else "") + word
    return "\n".join(folded[:lines]) + (" ..." if len(folded) > lines else "")


def _save(figure: Figure, path_png: Path) -> None:
    FigureCanvasAgg(figure).print_png(str(path_png), pil_kwargs={"compress_level": COMPRESSION})
