"""Figure 3: worst, median and best exam of a comparison, outlines of both readers on the image, with Dice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cohort.agreement.overlap import dice
from cohort.annotations.store import AUTOMATIC, CANDIDATE, read_annotation
from cohort.errors import CohortError
from cohort.review.overlay import View, contour
from cohort.stacks import LabelledStack, Plane
from cohort.store.exam import read_exam
from cohort.store.labels import read_labels
from cohort.store.layout import candidate_path
from cohort.tables.buckets import read_objects
from cohort.tables.ledger import read_ledger
from pipelines.candidate import has_candidate
from pipelines.study.plot_style import in_words
from pipelines.study.study_data import Comparison, StudyData, of_comparison
from pipelines.study.study_tables import ALL

Masks = Callable[[str, str], Sequence[LabelledStack]]
"""(exam_id, reader) -> the reader's masks of an exam, on its stacks; raises `CohortError` where there are none."""

SHOWN: Final[dict[Plane, tuple[str, ...]]] = {"sagittal": ("vertebral_body", "disc"), "axial": ("muscle",)}
"""Plane -> label arrays."""
RANKS: Final = ("worst", "median", "best")
FIRST: Final = ("#ffe14d", "solid", 1.3)
SECOND: Final = ("#00e5ff", "dashed", 1.3)
"""Colour, line and width of a reader's outlines; light, for dark images, and differing in dashes for print in grey."""
OF: Final[dict[Plane, str]] = {"sagittal": "Dice of bodies and discs", "axial": "Dice of muscles"}
TILE_IN: Final = {"sagittal": (2.9, 4.0), "axial": (2.9, 2.6)}


@dataclass(frozen=True)
class Example:
    """An exam to show."""

    rank: str
    exam_id: str
    dice: float
    """Mean over the label arrays of its plane."""
    n: int
    """Exams that it was chosen among."""


def examples(data: StudyData, comparison: Comparison, plane: Plane) -> list[Example]:
    """Worst, median and best exam by the mean Dice of everything of a kind as one mask; fewer with one or two exams."""
    found = of_comparison(data.overlaps, comparison)
    whole = found[found["slice_position"].isna() & found["kind"].isin(SHOWN[plane])].dropna(subset=["dice"])
    as_one = whole[whole["structure"] == ALL]
    means = (whole if as_one.empty else as_one).groupby("exam_id")["dice"].mean()  # sorted by exam
    means = means.sort_values(kind="stable")
    n = len(means)
    places = {0: RANKS} if n == 1 else {0: RANKS[:1], n // 2: RANKS[1:2], n - 1: RANKS[2:]}
    if not n:
        return []
    return [Example(", ".join(ranks), str(means.index[k]), float(means.iloc[k]), n) for k, ranks in places.items()]


def example_figure(data: StudyData, comparison: Comparison, masks: Masks) -> Figure | None:
    """A row of sagittal and a row of axial slices; None where no exam has masks of both readers."""
    rows = {plane: examples(data, comparison, plane) for plane in SHOWN}
    rows = {plane: found for plane, found in rows.items() if found}
    if not rows:
        return None
    heights = [TILE_IN[plane][1] for plane in rows]
    columns = max(map(len, rows.values()))
    figure = Figure(figsize=(columns * 2.9, sum(heights) + 0.7), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    for axis in axes.flat:
        axis.set_axis_off()
    for line, (plane, found) in zip(axes, rows.items(), strict=True):
        for axis, example in zip(line, found, strict=False):
            _tile(axis, plane, example, comparison, masks)
    readers = ((comparison.first, FIRST), (comparison.second, SECOND))
    handles = [Line2D([], [], color=colour, linestyle=dashes, label=reader) for reader, (colour, dashes, _) in readers]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, facecolor="0.25", labelcolor="white")
    return figure


def _tile(axis: Any, plane: Plane, example: Example, comparison: Comparison, masks: Masks) -> None:
    """The slice on which most of a structure is drawn, with the outlines of both."""
    axis.set_title(f"{example.rank} of {example.n}: exam {example.exam_id[:8]}\n{OF[plane]} {example.dice:.3f}")
    try:
        views = [_views(masks(example.exam_id, reader), plane) for reader in (comparison.first, comparison.second)]
        index, k = _fullest(views, plane)
    except CohortError as error:
        axis.text(0.5, 0.5, f"not shown:\n{error}", transform=axis.transAxes, ha="center", va="center", wrap=True)
        return
    first, second = (view[index] for view in views)
    names = [name for name in SHOWN[plane] if name in first.names and name in second.names]
    both = np.any([(view.labels(name) > 0) for view in (first.view, second.view) for name in names], axis=0)
    window = first.view.window(both)
    first.view.show(axis, k, window)
    for name in names:
        for one, (colour, dashes, width) in ((first, FIRST), (second, SECOND)):
            mask = one.view.labels(name)[k]
            for value in np.unique(mask[mask > 0]):
                contour(axis, mask == value, colour, window, style=dashes, width=width)
    here = [f"{in_words(name)} {_score(first, second, name, k)}" for name in names]
    axis.text(0.5, -0.02, f"slice {first.view.native(k)}: {', '.join(here)}", transform=axis.transAxes, ha="center",
              va="top", fontsize=7)  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Shown:
    """A reader's stack in standing order."""

    view: View
    names: tuple[str, ...]


def _views(labelled: Sequence[LabelledStack], plane: Plane) -> dict[int, _Shown]:
    """Number of a stack -> how it is shown."""
    return {
        one.stack.index: _Shown(View(one, plane), tuple(one.labels)) for one in labelled if one.stack.plane == plane
    }


def _fullest(views: Sequence[dict[int, _Shown]], plane: Plane) -> tuple[int, int]:
    """Stack and slice, in standing order, with the largest area that both readers drew somewhere."""
    areas = {
        (index, k): area
        for index in views[0].keys() & views[1].keys()
        for k, area in enumerate(_area(views[0][index], views[1][index], plane))
    }
    if not any(areas.values()):
        raise NothingToShowError("the two readers have masks on no slice in common")
    return max(areas, key=lambda place: (areas[place], -place[0], -place[1]))


class NothingToShowError(CohortError):
    """An exam of the tables whose masks do not meet."""


def _area(first: _Shown, second: _Shown, plane: Plane) -> Any:
    """[slice] of the smaller of the two readers' areas, pixels."""
    names = [name for name in SHOWN[plane] if name in first.names and name in second.names]
    if not names:
        return []
    return sum(np.minimum(*((one.view.labels(name) > 0).sum(axis=(1, 2)) for one in (first, second))) for name in names)


def _score(first: _Shown, second: _Shown, name: str, k: int) -> str:
    masks = [one.view.labels(name)[k] > 0 for one in (first, second)]
    return f"{dice(*masks):.3f}" if any(mask.any() for mask in masks) else "on other slices"


def store_masks(store: Path) -> Masks:
    """Masks of a store: the networks' and those of a changed model by their ledgers, a reader's by the annotations."""
    images = {row.exam_id: row.store_path for row in read_objects(store, "exams")}
    ledgers = {code: read_ledger(folder) for code, folder in _networks(store).items()}

    def masks(exam_id: str, reader: str) -> Sequence[LabelledStack]:
        if not images.get(exam_id):
            raise NothingToShowError("the store has no images of this exam")
        exam = read_exam(store / str(images[exam_id]))
        if reader not in ledgers:
            return read_annotation(store, exam, exam_id, reader).labelled
        segmented = ledgers[reader].get((exam_id, "segment"))
        if segmented is None or segmented.path is None:
            raise NothingToShowError("the networks have not segmented this exam")
        return read_labels(store / segmented.path, exam)

    return masks


def _networks(store: Path) -> dict[str, Path]:
    """Code of networks among readers -> folder with their tables."""
    waiting = {CANDIDATE: candidate_path(store)} if has_candidate(store) else {}
    return {AUTOMATIC: store, **waiting}
