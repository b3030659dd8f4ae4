"""A page for each doubtful annotation: what the reader drew, what was taken, and what the rows say about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cohort.annotations.rows import AnnotationRow
from cohort.annotations.store import Annotation
from cohort.review.overlay import (
    BODY_COLOURS,
    COMPRESSION,
    DISC_COLOUR,
    FLAGGED_COLOUR,
    MUSCLE_COLOURS,
    View,
    contour,
    folded,
)
from cohort.stacks import LabelledStack
from cohort.terms import MUSCLE_LABELS

MOST_SLICES: Final = 6

Shown = tuple[LabelledStack, int]
"""A stack as drawn, and a slice of it."""


def annotation_overlay(drawn: Annotation, taken: Annotation, rows: Sequence[AnnotationRow], path_png: Path) -> bool:
    """Write the slices that rows speak of: what was taken in colours, what was left out in yellow dashes.

    Parameters
    ----------
    drawn : everything that the reader drew
    taken : what is left of it after the checks
    rows : of this exam and reader

    Returns
    -------
    False where nothing was drawn, so that there is nothing to show
    """
    shown = _slices(drawn, rows)
    if not shown:
        return False
    kept = {(one.stack.plane, one.stack.index): one.labels for one in taken.labelled}
    columns = min(len(shown), 3)
    down = (len(shown) + 2) // 3
    figure = Figure(figsize=(17, 1.5 + 5.5 * down), facecolor="black", layout="constrained")
    panels = figure.subplots(down, columns, squeeze=False).ravel()
    for panel in panels:
        panel.set_axis_off()
    for panel, (one, k) in zip(panels, shown, strict=False):
        _panel(panel, one, k, kept.get((one.stack.plane, one.stack.index), {}))
        panel.set_title(_caption(one, k, rows), color="white", fontsize=10)
    handles = [Line2D([], [], color=FLAGGED_COLOUR, linestyle="dashed", label="drawn, left out")]
    figure.legend(handles=handles, loc="outside lower center", facecolor="black", labelcolor="white")
    figure.suptitle(_title(drawn, rows), color=FLAGGED_COLOUR, fontsize=11)
    path_png.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(str(path_png), pil_kwargs={"compress_level": COMPRESSION})
    return True


def _slices(drawn: Annotation, rows: Sequence[AnnotationRow]) -> list[Shown]:
    """Slices with most rows first; of stacks that no row names a slice of, the slice with most drawn on it."""
    counts = Counter((row.plane, row.stack, row.slice) for row in rows if row.slice is not None)
    shown: list[Shown] = []
    for one in drawn.labelled:
        named = [
            (n, k) for (plane, index, k), n in counts.items() if (plane, index) == (one.stack.plane, one.stack.index)
        ]
        best = [k for _, k in sorted(named, key=lambda pair: -pair[0]) if k is not None]
        area = np.sum([np.count_nonzero(mask, axis=(1, 2)) for mask in one.labels.values()], axis=0)
        shown += [(one, k) for k in (best or [int(np.argmax(area))])]
    return shown[:MOST_SLICES]


def _panel(panel: Any, one: LabelledStack, k: int, kept: Any) -> None:
    view = View(one, one.stack.plane)
    at = view.order.native_slice(k, n_slices=view.geometry.n_slices)
    masks = {name: view.labels(name)[at] for name in one.labels}
    window = view.window(np.any([view.labels(name) > 0 for name in one.labels], axis=0))
    view.show(panel, at, window)
    for name, mask in masks.items():
        left = view.order.apply(kept[name])[at] if name in kept else np.zeros_like(mask)
        for value in np.unique(mask[mask > 0]).tolist():
            contour(panel, left == value, _colour(name, value), window)
            contour(panel, (mask == value) & (left == 0), FLAGGED_COLOUR, window, style="dashed")


def _colour(name: str, value: int) -> str:
    if name == "muscle":
        return next((MUSCLE_COLOURS[muscle] for (muscle, _), one in MUSCLE_LABELS.items() if one == value), DISC_COLOUR)
    return DISC_COLOUR if name == "disc" else BODY_COLOURS[value % len(BODY_COLOURS)]


def _caption(one: LabelledStack, k: int, rows: Sequence[AnnotationRow]) -> str:
    here = (one.stack.plane, one.stack.index, k)
    reasons = Counter(row.reason for row in rows if (row.plane, row.stack, row.slice) == here)
    text = "; ".join(f"{reason.replace('_', ' ')} ({n})" for reason, n in reasons.most_common())
    return folded(f"{one.stack.plane} stack {one.stack.index}, slice {k}: {text or 'no row of its own'}", width=60)


def _title(drawn: Annotation, rows: Sequence[AnnotationRow]) -> str:
    reasons = Counter(f"{row.reason.replace('_', ' ')} ({row.status})" for row in rows)
    details = [row.detail for row in rows if row.detail and row.slice is None]
    text = "; ".join([*(f"{reason}: {n}" for reason, n in reasons.most_common()), *details])
    return f"exam {drawn.exam_id[:8]}, reader {drawn.reader}\n{folded(text)}"
