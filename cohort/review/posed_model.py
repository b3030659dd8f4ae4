"""A page for a biomechanist's eye: one person's model in one task, its muscles by activation, and its loads.

Bodies are schematic: the model knows joints, centres of mass and muscle paths, no surfaces. Fascicles are drawn
straight from point to point, also those that a base model bends around surfaces.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Polygon
from matplotlib.patheffects import withStroke

from cohort.loading.base_model import ARMS, HANDS, Floats
from cohort.loading.equilibrium import GRAVITY_M_PER_S2
from cohort.loading.osim_folder import posture_in_words
from cohort.loading.posed_subject import PosedSubject
from cohort.terms import LUMBAR_VERTEBRAE

ACTIVATION: Final = LinearSegmentedColormap.from_list("activation", ["#cfd6dd", "#f4a63a", "#c2261d", "#5b0a1e"])
"""From light to dark, so that it can be read in grey, too."""
SHADE: Final = PowerNorm(0.5, 0.0, 1.0)
"""Square root: most fascicles are hardly active in standing."""
BONE: Final = "#33414e"
BONE_FACE: Final = "#f3ead7"
HAND_LOAD: Final = "#1f5fbf"
WEIGHT: Final = "#1a7f4b"
BODY_DEPTH: Final = 0.020
BODY_WIDTH: Final = 0.026
BODY_HEIGHT: Final = 0.75
"""Vertebral bodies as drawn: depth and width as parts of stature, height as part of the distance of the joints (own
choice; they are no measurement)."""
HEAD: Final = 0.06
"""Radius of the circle for the head as a part of stature (own choice)."""
ARROW_MM: Final = 150.0
"""Of all forces; their sizes are written beside them."""
SAME_PLACE_MM: Final = 10.0
"""Hands that cover each other on a panel share an arrow."""
MARGIN_MM: Final = 20.0
HALO: Final = (withStroke(linewidth=2.5, foreground="white"),)
"""Behind letters that fall on lines."""
SIDE: Final = 0
FRONT: Final = 2
"""Axis of ground that runs to the right on a panel: x; z, mirrored, because the person faces the reader."""


def draw_posture(posed: PosedSubject, path_png: Path) -> None:
    """Write the page: whole model and trunk from the right and from the front (mm), compression of L1 to L5 (N)."""
    figure = Figure(figsize=(11.7, 7.6), layout="constrained", facecolor="white", dpi=150)
    views = {"the right": _View(posed, SIDE), "the front": _View(posed, FRONT)}
    width = np.array([view.trunk_width_mm for view in views.values()])
    grid = figure.add_gridspec(2, 4, width_ratios=(0.9, *(2.5 * width / width.sum()), 1.0))
    for row, (name, view) in enumerate(views.items()):
        view.draw_whole(figure.add_subplot(grid[row, 0], title=f"from {name}"))
        view.draw_trunk(figure.add_subplot(grid[:, row + 1], title=f"trunk from {name}"))
    _draw_loads(figure.add_subplot(grid[:, 3]), posed)
    bar = figure.colorbar(
        ScalarMappable(norm=SHADE, cmap=ACTIVATION), ax=figure.axes, location="bottom", aspect=70, fraction=0.03,
        pad=0.02, ticks=(0.0, 0.02, 0.1, 0.25, 0.5, 0.75, 1.0),
    )  # fmt: skip
    bar.ax.set_xticklabels(["0", "0.02", "0.1", "0.25", "0.5", "0.75", "1"])
    bar.set_label("activation of a fascicle (1 = full strength)")
    figure.legend(handles=_legend(posed), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.suptitle(_title(posed), fontsize=11)
    FigureCanvasAgg(figure).print_png(str(path_png))


class _View:
    """The model seen along one axis of ground."""

    def __init__(self, posed: PosedSubject, axis: int) -> None:
        self.posed, self.axis = posed, axis
        base, models, pose = posed.base, posed.models, posed.found.pose
        self.origin = pose.origin_m[0]
        self.centre = self.origin + np.matmul(pose.rotation[0], models.com_m[0][:, :, None])[..., 0]
        turned = np.matmul(pose.rotation[0][base.point_body], models.point_m[0][:, :, None])[..., 0]
        self.points = self.origin[base.point_body] + turned
        self.start = np.flatnonzero(base.point_fascicle[1:] == base.point_fascicle[:-1])

    def draw_whole(self, panel: Any) -> None:
        """Draw limbs and forces around the trunk."""
        self._prepare(panel)
        self._limbs(panel)
        self._head(panel)
        self._fascicles(panel, width=0.5)
        self._forces(panel)
        panel.margins(x=0.25, y=0.12)

    def draw_trunk(self, panel: Any) -> None:
        """Draw vertebrae and fascicles, no more than these fill."""
        self._prepare(panel)
        self._limbs(panel, hidden=(*ARMS, *HANDS))
        self._fascicles(panel, width=1.0)
        self._vertebrae(panel)
        low, high = self._trunk_limits()
        panel.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))

    @property
    def trunk_width_mm(self) -> float:
        """Of what `draw_trunk` shows."""
        low, high = self._trunk_limits()
        return float(high[0] - low[0])

    def _trunk_limits(self) -> tuple[Floats, Floats]:
        drawn = self._flat(self._pieces()).reshape(-1, 2)
        return drawn.min(axis=0) - MARGIN_MM, drawn.max(axis=0) + MARGIN_MM

    def _pieces(self) -> Floats:
        """Ends [piece, 2, 3] of the straight pieces of all fascicles."""
        return np.stack([self.points[self.start], self.points[self.start + 1]], axis=1)

    def _flat(self, points_m: Floats) -> Floats:
        """Points [.., 3] of ground on the panel, [.., 2] in mm from the pelvis' origin."""
        shifted = (points_m - self.origin[0]) * 1000.0
        sideways = shifted[..., 0] if self.axis == SIDE else -shifted[..., 2]
        return np.stack([sideways, shifted[..., 1]], axis=-1)

    def _prepare(self, panel: Any) -> None:
        panel.set_aspect("equal")
        panel.grid(color="#e6e9ec", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_xlabel("forward, mm" if self.axis == SIDE else "to the person's left, mm")
        panel.set_ylabel("up, mm")
        panel.tick_params(labelsize=8)

    def _limbs(self, panel: Any, *, hidden: Sequence[str] = ()) -> None:
        """Lines from joint to joint and to the centres of the outermost bodies."""
        base = self.posed.base
        for body, parent in enumerate(base.parent):
            outermost = body not in base.parent and base.bodies[body] != "abdomen"
            corners = [*self.origin[[parent, body]], *([self.centre[body]] if outermost else [])]
            if parent >= 0 and base.bodies[body] not in hidden:
                panel.plot(*self._flat(np.array(corners)).T, color=BONE, linewidth=1.2, alpha=0.5)

    def _head(self, panel: Any) -> None:
        """In base models of users the head is part of the thorax, and nothing tells its place."""
        if "head" in self.posed.base.bodies:
            x, y = self._flat(self.centre[self.posed.base.body("head")])
            panel.add_patch(Circle((x, y), HEAD * 1000.0 * self.posed.subject.height_m, fill=False, edgecolor=BONE))

    def _vertebrae(self, panel: Any) -> None:
        base = self.posed.base
        spine = base.joint_body
        half = self.posed.subject.height_m * (BODY_DEPTH if self.axis == SIDE else BODY_WIDTH) / 2.0
        for below, above in pairwise(spine):
            ends = self.origin[[below, above]]
            across = self.posed.found.pose.rotation[0, below][:, self.axis] * half
            low, high = (ends.mean(axis=0) + sign * BODY_HEIGHT / 2.0 * (ends[1] - ends[0]) for sign in (-1, 1))
            corners = self._flat(np.array([low - across, low + across, high + across, high - across]))
            face = Polygon(corners, facecolor=BONE_FACE, edgecolor=BONE, linewidth=0.9, alpha=0.8, zorder=5)
            panel.add_patch(face)
            panel.text(*corners.mean(axis=0), base.bodies[below], ha="center", va="center", fontsize=9, zorder=7)
        panel.plot(*self._flat(self.origin[spine]).T, "o", color=BONE, markersize=3.5, zorder=6)

    def _fascicles(self, panel: Any, *, width: float) -> None:
        """The most active are drawn last and thickest."""
        activation = self.posed.found.activation[0, self.posed.base.point_fascicle[self.start]]
        order = np.argsort(activation, kind="stable")
        pieces, level = self._flat(self._pieces())[order], activation[order]
        lines = LineCollection(list(pieces), cmap=ACTIVATION, norm=SHADE, linewidths=width * (0.6 + level), zorder=4)
        lines.set_array(level)
        panel.add_collection(lines)

    def _forces(self, panel: Any) -> None:
        """Weight of all that L5/S1 carries, at its centre, and the hand loads."""
        base, task = self.posed.base, self.posed.task
        mass = self.posed.models.mass_kg[0] * base.distal[0]
        centre = (self.centre * mass[:, None]).sum(axis=0) / mass.sum()
        self._arrow(panel, centre, GRAVITY_M_PER_S2 * float(mass.sum()), WEIGHT)
        loads = zip(HANDS, task.hand_kg, strict=True)
        carried = [(self.centre[base.body(hand)], load) for hand, load in loads if load]
        if len(carried) == 2 and np.linalg.norm(np.diff([self._flat(at) for at, _ in carried], axis=0)) < SAME_PLACE_MM:
            carried = [(carried[0][0], carried[0][1] + carried[1][1])]
        for at, load_kg in carried:
            self._arrow(panel, at, GRAVITY_M_PER_S2 * load_kg, HAND_LOAD)

    def _arrow(self, panel: Any, at_m: Floats, force_n: float, colour: str) -> None:
        x, y = self._flat(at_m)
        arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
        panel.annotate("", xy=(x, y - ARROW_MM), xytext=(x, y), arrowprops=arrow, zorder=8)
        panel.plot([x], [y], "o", color=colour, markersize=4, zorder=8)
        panel.plot([x], [y - ARROW_MM], alpha=0.0)
        place = {"va": "top", "ha": "center", "fontsize": 8, "zorder": 9, "path_effects": HALO}
        panel.text(x, y - ARROW_MM - 10.0, f"{force_n:.0f} N", color=colour, **place)


def _draw_loads(panel: Any, posed: PosedSubject) -> None:
    """Compression of each vertebra in both conventions, L1 on top as in the body."""
    place = np.arange(len(LUMBAR_VERTEBRAE))
    for convention, shift, colour in (("joint_below", -0.2, "#5d6b78"), ("vertebra_mean", 0.2, "#b9c3cc")):
        values = [posed.load(level, convention).axial_n for level in LUMBAR_VERTEBRAE]
        bars = panel.barh(place + shift, values, height=0.36, color=colour, label=convention)
        panel.bar_label(bars, labels=[f"{value:.0f}" for value in values], padding=3, fontsize=9)
    panel.set_yticks(place, LUMBAR_VERTEBRAE)
    panel.invert_yaxis()
    panel.margins(x=0.18)
    panel.spines[["top", "right"]].set_visible(False)
    panel.set(title="compression, N")
    panel.legend(loc="upper center", bbox_to_anchor=(0.45, -0.05), ncols=2, frameon=False, fontsize=9)


def _legend(posed: PosedSubject) -> list[Any]:
    def dot(colour: str, label: str, size: float = 5.0) -> Line2D:
        return Line2D([], [], color=colour, marker="o", markersize=size, linestyle="", label=label)

    handles = [
        dot(BONE, "centre of a joint", 3.0),
        Line2D([], [], color=BONE, alpha=0.5, label="bodies, schematic"),
        dot(WEIGHT, "weight above L5/S1 at its centre, without hand loads"),
    ]
    carries = posed.task.right_hand_kg or posed.task.left_hand_kg
    return [*handles, dot(HAND_LOAD, "hand loads")] if carries else handles


def _title(posed: PosedSubject) -> str:
    row = posed.rows[0]
    status = row.status + (f" ({row.reasons.replace('_', ' ').replace('+', ', ')})" if row.reasons else "")
    return (
        f"exam {posed.subject.exam_id[:8]}, task {posed.task.name}: {posture_in_words(posed)}\n"
        f"{row.base_model}, engine batch; {status}"
    )
