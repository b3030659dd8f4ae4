"""One small picture for every flag of the measurements: a phantom exam with a fault made on purpose that raises it.

The cases are those of `spine_cases` and `axial_cases`; `docs/quality.md` shows and explains them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage

from cohort.anatomy.measure import Measurements
from cohort.review.overlay import BODY_COLOURS, DISC_COLOUR, FLAGGED_COLOUR, MUSCLE_COLOURS, View, contour, folded
from cohort.rows import QualityRow
from cohort.stacks import LabelledStack
from cohort.terms import MUSCLE_LABELS
from pipelines.validation.anatomy_panels import Sheet, draw_muscles, draw_spine, spine_sheet
from pipelines.validation.axial_cases import AXIAL_CASES
from pipelines.validation.flag_exam import FRAME, LEVELS, Case, Exam, Spoilt, sound_exam
from pipelines.validation.real_scans import Report
from pipelines.validation.spine_cases import SPINE_CASES

INCHES: Final = {"sagittal": (3.3, 5.2), "planes": (3.3, 5.2), "axial": (4.2, 3.9)}
CAPTION_INCHES: Final = 0.95
GREYS: Final = 96
SHADES: Final = (1.0, 0.75, 0.5, 0.3)
"""Of each line's colour, for its soft edges."""
LINES: Final = (*BODY_COLOURS, DISC_COLOUR, FLAGGED_COLOUR, *MUSCLE_COLOURS.values())


CASES: Final[Mapping[str, Case]] = {**SPINE_CASES, **AXIAL_CASES}


def spoilt(code: str) -> Spoilt:
    """Make the fault of a code and measure the exam."""
    made = CASES[code].spoil(sound_exam())
    return Spoilt(made, made.measured()) if isinstance(made, Exam) else made


def write_gallery(folder: Path, report: Report) -> None:
    """Draw `<code>.png` for every code of `CASES`."""
    folder.mkdir(parents=True, exist_ok=True)
    for code in CASES:
        (folder / f"{code}.png").write_bytes(_png(draw_case(code, spoilt(code))))
    report(f"{len(CASES)} flags drawn")


def draw_case(code: str, made: Spoilt) -> Figure:
    """The picture of one flag: code, what was done, and the structures that raised it with value and limit.

    Raises
    ------
    ValueError
        if the case does not raise its flag
    """
    raised = [row for row in made.found.quality if row.reason == code]
    if not raised:
        raise ValueError(f"the case of {code} raises {sorted({row.reason for row in made.found.quality})}")
    case = CASES[code]
    width, height = INCHES[case.view]
    figure = Figure(figsize=(width, height), dpi=100, facecolor="black")
    letters = int(width * 14)
    caption = "\n".join([folded(f"made on purpose: {case.fault}", width=letters), _values(raised)])
    figure.text(0.02, 1 - 0.06 / height, code, color="white", fontsize=10, weight="bold", va="top")
    figure.text(0.02, 1 - 0.27 / height, caption, color="white", fontsize=7.5, va="top", linespacing=1.2)
    panel = figure.add_axes((0.01, 0.01, 0.98, 0.98 - CAPTION_INCHES / height))
    _draw(panel, case, made, raised)
    return figure


def _values(raised: Sequence[QualityRow], n: int = 2) -> str:
    lines = []
    for row in raised[:n]:
        value = "" if row.value is None else f" {row.value:.3g}"
        limit = "" if row.limit is None else f", limit {row.limit:.3g}"
        lines.append(f"raised by {row.structure or 'the exam'}:{value}{limit}".rstrip(":"))
    more = f" (and {len(raised) - n} more)" if len(raised) > n else ""
    return "\n".join(lines) + more


def _draw(panel: Any, case: Case, made: Spoilt, raised: Sequence[QualityRow]) -> None:
    marked = [row.structure for row in raised if row.structure]
    if case.view == "axial":
        stack, k = _axial_slice(made.found, marked)
        sides = {f"{muscle} {side}" for muscle, side in MUSCLE_LABELS}
        # "psoas left L3-L4" is one side of a muscle, "psoas L3-L4" both
        names = {one for one in sides for flag in marked if flag.startswith((one, one.split()[0] + " L"))}
        draw_muscles(panel, stack, k, made.found, marked=names, sides=True)
        _spine_place(panel, stack, k, made.found)
        return
    sheet = spine_sheet(made.exam.sagittal, made.found)
    draw_spine(panel, sheet, sheet.plane(sheet.view.image), made.found, marked=marked)
    if made.found.sagittal is not None:
        _changed(panel, sheet, replace(sheet, view=View(made.found.sagittal, "sagittal")))
    if case.view == "planes":
        _planes(panel, sheet.view, made)


def _changed(panel: Any, given: Sheet, kept: Sheet) -> None:
    """Where the masks that were measured differ from those that were given, by more than their smoothed edges."""
    for name, instances in (("vertebral_body", "body_instances"), ("disc", "disc_instances")):
        differ = (given.labels(name) > 0) != (kept.labels(instances) > 0)
        contour(
            panel, ndimage.binary_opening(differ, np.ones((2, 2))), "white", given.window(), style="dotted", width=1.6
        )


def _axial_slice(found: Measurements, marked: Sequence[str]) -> tuple[LabelledStack, int]:
    """The slice at the level of the flag, or the middle one of the third stack."""
    levels = {row.level: (row.stack, row.slice) for row in found.muscle_levels}
    named = [levels[word] for one in marked for word in one.split() if word in levels]
    index, k = named[0] if named else (LEVELS.index("L3-L4"), 1)
    return next(one for one in found.axial if one.stack.index == index), k


def _spine_place(panel: Any, axial: LabelledStack, k: int, found: Measurements) -> None:
    """A cross where the line through the vertebral bodies meets the slice."""
    grid, view = axial.stack.geometry, View(axial, "axial").geometry
    spine = np.array([[one.x_mm, one.y_mm, one.z_mm] for one in found.vertebrae])
    height = (spine - grid.position_mm[k]) @ grid.normal
    order = np.argsort(height)
    place = view.to_index([np.interp(0.0, height[order], column) for column in spine[order].T])
    panel.plot(place[2], place[1], "+", color="white", markersize=14, markeredgewidth=1.5)


def _planes(panel: Any, view: View, made: Spoilt) -> None:
    """Where the axial slices cut the picture; those of another frame dotted."""
    for one in made.exam.axial:
        grid = one.stack.geometry
        ends = np.array([[k, row, (grid.shape[1] - 1) / 2] for k in range(grid.n_slices) for row in (20, 110)])
        index = view.geometry.to_index(grid.to_lps(ends)).reshape(-1, 2, 3)
        style = "solid" if one.stack.frame_of_reference_id == FRAME else "dotted"
        for line in index:
            panel.plot(line[:, 2], line[:, 1], color="#ffffff", linewidth=1.2, linestyle=style)


def _png(figure: Figure) -> bytes:
    """Encode with a palette of greys and of the lines' colours."""
    stream = BytesIO()
    FigureCanvasAgg(figure).print_png(stream)
    small = BytesIO()
    image = Image.open(stream).convert("RGB").quantize(palette=_palette(), dither=Image.Dither.NONE)
    image.save(small, "PNG", optimize=True)
    return small.getvalue()


def _palette() -> Image.Image:
    greys = np.repeat(np.linspace(0, 255, GREYS)[:, None], 3, axis=1)
    lines = np.array([np.array(to_rgb(colour)) * shade * 255 for colour in dict.fromkeys(LINES) for shade in SHADES])
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate([greys, lines]).round().astype(np.uint8).ravel().tolist())
    return palette
