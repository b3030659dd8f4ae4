"""Panels of measured exams for the documentation: outlines, names with their confidence, endplates, disc rectangles,
muscles.

Solid, dashed and dotted lines tell structures apart in grey print as well.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.patheffects import withStroke

from cohort.anatomy.measure import Measurements
from cohort.anatomy.orientation import cropped
from cohort.review.overlay import (
    BODY_COLOURS,
    DISC_COLOUR,
    FLAGGED_COLOUR,
    MUSCLE_COLOURS,
    View,
    Window,
    contour,
    inside,
)
from cohort.rows import DiscRow, VertebraRow
from cohort.stacks import LabelledStack
from cohort.terms import MUSCLE_LABELS
from models.phantom.acquisition import acquire_slices
from models.phantom.mri import DEMO_SCANNER, draw_contrast
from models.phantom.sampling import Subject, TissueSlice, cut
from models.phantom.truth import TrueStructure

Picture = npt.NDArray[Any]
"""[row, column]."""

MUSCLE_STYLES: Final = {"multifidus": "solid", "erector_spinae": "dashed", "psoas": "dotted",
                        "quadratus_lumborum": "dashdot"}  # fmt: skip
WRONG_COLOUR: Final = "#ff5a4f"
STROKE: Final = (withStroke(linewidth=1.8, foreground="black"),)
LETTERS_MM: Final = 28.0
"""Room for a height behind a disc."""
STRAIGHT_SLICES: Final = 1.5
CONTRAST_SEED: Final = 3
"""Of a plain T1 contrast: fat twice as bright as muscle, marrow in between."""
SAME_PLACE_MM: Final = 15.0
"""A row belongs to the true structure whose centroid is nearest, and nearer than half a vertebra with its disc."""


@dataclass(frozen=True, eq=False)
class Sheet:
    """What a sagittal stack shows of the spine: its middle slice, or where the spine leaves that, a sheet which follows
    it, every row from the slice nearest to the spine there.

    Rectangles and endplates are those of each structure's own central slice, which such a sheet shows.
    """

    view: View
    slices: npt.NDArray[np.intp]
    """[row] slice, both in standing order."""

    def plane(self, volume: npt.NDArray[Any]) -> Picture:
        """[row, column] of a volume in standing order."""
        return np.asarray(volume[self.slices, np.arange(len(self.slices))])

    def labels(self, name: str) -> Picture:
        return self.plane(self.view.labels(name))

    def window(self) -> Window:
        """Around everything that was segmented, before and after the cleaning."""
        return self.view.window(np.any([self.view.labels(name) > 0 for name in ("vertebral_body", "disc")], axis=0))


def spine_sheet(sagittal: LabelledStack, measured: Measurements) -> Sheet:
    """The sheet through vertebrae and discs; one slice where they lie within a slice of it, or none were found."""
    view = View(sagittal, "sagittal")
    rows = np.arange(view.geometry.shape[0])
    found: list[VertebraRow | DiscRow] = [*measured.vertebrae, *measured.discs]
    if not found:
        return Sheet(view, np.full(len(rows), view.geometry.n_slices // 2))
    index = view.geometry.to_index(np.array([[one.x_mm, one.y_mm, one.z_mm] for one in found]))
    index = index[np.argsort(index[:, 1])]
    middle = np.median(index[:, 0]).round()
    bent = bool(np.abs(index[:, 0] - middle).max() > STRAIGHT_SLICES)
    slices = (np.interp(rows, index[:, 1], index[:, 0]).round() if bent else np.full(len(rows), middle)).astype(np.intp)
    return Sheet(view, np.clip(slices, 0, view.geometry.n_slices - 1))


def draw_spine(
    panel: Any,
    sheet: Sheet,
    picture: Picture,
    measured: Measurements,
    *,
    true: Sequence[TrueStructure] = (),
    marked: Collection[str] = (),
    size: float = 7.5,
) -> None:
    """Draw outlines, names, endplates and disc rectangles on a picture of the sheet.

    Parameters
    ----------
    picture : [row, column] in standing order
    true : vertebrae and discs; adds the error of each height, and says which names are wrong
    marked : names of structures that get a thick outline
    size : of letters, points
    """
    window = sheet.window()
    sheet.view.show_plane(panel, picture, window)
    _outline(panel, sheet, measured, window, marked)
    for i, ends in measured.endplates_mm.items():
        line = sheet.view.geometry.to_index(ends)
        read = measured.vertebrae[i].level in ("L1", "S1")
        panel.plot(line[:, 2], line[:, 1], color="white", linewidth=2.2 if read else 0.8)
    for i, row in enumerate(measured.discs):
        _disc(panel, sheet, row, measured.disc_rectangles_mm.get(i), _at(row, true), window, size)
    for body in measured.vertebrae:
        _name(panel, sheet, body, _is(body, true) if true else None, window, size)
    _keep(panel, window)


def _outline(panel: Any, sheet: Sheet, measured: Measurements, window: Window, marked: Collection[str]) -> None:
    if measured.sagittal is None:
        return
    own = replace(sheet, view=View(measured.sagittal, "sagittal"))
    bodies, discs = own.labels("body_instances"), own.labels("disc_instances")
    for value, body in enumerate(measured.vertebrae, start=1):
        style = "dotted" if body.level == "S1" else "solid"
        if structure_name(body) in marked:
            contour(panel, bodies == value, FLAGGED_COLOUR, window, width=3.0)
        contour(panel, bodies == value, BODY_COLOURS[value % len(BODY_COLOURS)], window, style=style)
    for value, disc in enumerate(measured.discs, start=1):
        if structure_name(disc) in marked:
            contour(panel, discs == value, FLAGGED_COLOUR, window, width=3.0)
        contour(panel, discs == value, DISC_COLOUR, window, style="dashed")


def structure_name(row: VertebraRow | DiscRow) -> str:
    """As in the flags of a row."""
    return row.level or f"{'disc' if isinstance(row, DiscRow) else 'body'}-{row.ordinal}"


def _at(row: VertebraRow | DiscRow, true: Sequence[TrueStructure]) -> TrueStructure | None:
    """The true structure of the same kind in the same place."""
    distance = {
        float(np.linalg.norm(one.centroid_mm - [row.x_mm, row.y_mm, row.z_mm])): one
        for one in true
        if ("-" in one.name) == isinstance(row, DiscRow)
    }
    nearest = min(distance, default=np.inf)
    return distance[nearest] if nearest < SAME_PLACE_MM else None


def _is(row: VertebraRow, true: Sequence[TrueStructure]) -> str:
    """True name of what a row was measured on."""
    found = _at(row, true)
    return found.name if found else "nothing"


def _name(panel: Any, sheet: Sheet, row: VertebraRow, true: str | None, window: Window, size: float) -> None:
    _, down, across = sheet.view.geometry.to_index([row.x_mm, row.y_mm, row.z_mm])
    if not inside(down, across, window):
        return
    wrong = row.level is not None and true is not None and row.level != true
    text = f"{row.level} {row.level_confidence:.2f}" if row.level else f"({row.ordinal})"
    colour = WRONG_COLOUR if wrong else "white" if row.status == "ok" else FLAGGED_COLOUR
    text = f"{text}\nis {true}" if wrong else text
    _text(panel, across, down, text, size, color=colour, ha="center", va="center", weight="bold")


def _disc(
    panel: Any,
    sheet: Sheet,
    row: DiscRow,
    corners: npt.NDArray[np.float64] | None,
    true: TrueStructure | None,
    window: Window,
    size: float,
) -> None:
    if corners is None:
        return
    closed = sheet.view.geometry.to_index(np.vstack([corners, corners[:1]]))
    panel.plot(closed[:, 2], closed[:, 1], color="white", linewidth=0.7)
    if row.height_mm is None:
        return
    error = "" if true is None else f" ({row.height_mm - true.numbers['height_mm']:+.1f})"
    behind = closed[np.argmax(closed[:, 2])]
    millimetre = 1 / sheet.view.geometry.spacing_mm[1]
    at, side = behind[2] + 3 * millimetre, "left"
    if at + LETTERS_MM * millimetre > window[3]:
        at, side = window[3] - millimetre, "right"
    colour = "white" if row.status == "ok" else FLAGGED_COLOUR
    _text(panel, at, behind[1], f"{row.height_mm:.1f}{error}", size - 0.5, color=colour, va="center", ha=side)


def draw_muscles(
    panel: Any,
    axial: LabelledStack,
    k: int,
    measured: Measurements,
    *,
    picture: Picture | None = None,
    marked: Collection[str] = (),
    sides: bool = False,
) -> None:
    """Draw outlines and areas of the muscles of one axial slice.

    Parameters
    ----------
    axial : measured stack
    k : stored slice
    picture : [row, column] of the slice in standing order; without it, that of the stack
    marked : as "psoas left"
    sides : write the side that the masks claim before the area, too
    """
    view = View(axial, "axial")
    at = view.native(k)  # reversing the order is its own inverse
    labels = view.labels("muscle")
    window = view.window(labels > 0)
    view.show_plane(panel, view.image[at] if picture is None else picture, window)
    for (name, side), value in MUSCLE_LABELS.items():
        if f"{name} {side}" in marked:
            contour(panel, labels[at] == value, FLAGGED_COLOUR, window, width=3.0)
        contour(panel, labels[at] == value, MUSCLE_COLOURS[name], window, style=MUSCLE_STYLES[name])
    for row in measured.muscles:
        if (row.stack, row.slice) == (axial.stack.index, k) and (sides or row.csa_cm2 is not None):
            _, down, across = view.geometry.to_index([row.x_mm, row.y_mm, row.z_mm])
            colour = "white" if row.status == "ok" else FLAGGED_COLOUR
            area = "refused" if row.csa_cm2 is None else f"{row.csa_cm2:.1f}"
            text = f"{row.side[0].upper()} {area}" if sides else area
            _text(panel, across, down, text, 7, color=colour, ha="center", va="center")
    for place, letter in ((0.03, "R"), (0.97, "L")):
        panel.text(place, 0.5, letter, transform=panel.transAxes, color="white", ha="center", path_effects=STROKE)
    _keep(panel, window)


def _text(panel: Any, across: float, down: float, text: str, size: float, **looks: Any) -> None:
    panel.text(across, down, text, fontsize=size, path_effects=STROKE, clip_on=True, **looks)


def _keep(panel: Any, window: Window) -> None:
    """Lines that leave the window do not widen it."""
    top, bottom, left, right = window
    panel.set_xlim(left - 0.5, right + 0.5)
    panel.set_ylim(bottom + 0.5, top - 0.5)


# -- pictures of phantoms ----------------------------------------------------------------------------------------------


def phantom_sheet(subject: Subject, sheet: Sheet, seed: int) -> Picture:
    """T1 picture of a subject on a sheet, acquired as one slice."""
    rows = np.arange(len(sheet.slices))
    bands = np.split(rows, np.flatnonzero(np.diff(sheet.slices)) + 1)
    columns = slice(0, sheet.view.geometry.shape[1])
    parts = [
        cut(
            subject, cropped(sheet.view.geometry, (slice(int(band[0]), int(band[-1]) + 1), columns)),
            int(sheet.slices[band[0]]),
        )
        for band in bands
    ]  # fmt: skip
    joined = TissueSlice(
        tissue=np.concatenate([one.tissue for one in parts], axis=1),
        points_mm=np.concatenate([one.points_mm for one in parts]),
        body=np.concatenate([one.body for one in parts]),
        disc=np.concatenate([one.disc for one in parts]),
        muscle=np.concatenate([one.muscle for one in parts]),
    )
    return np.asarray(t1_pictures(subject, [joined], seed)[0])


def t1_pictures(subject: Subject, slices: Sequence[TissueSlice], seed: int) -> npt.NDArray[np.uint16]:
    """[slice, row, column] stored values, about 12 bit."""
    contrast = draw_contrast(np.random.default_rng(CONTRAST_SEED), "t1", jitter=0.03)
    volume = acquire_slices(slices, contrast, DEMO_SCANNER, seed=[seed, 13], back_y_mm=subject.back_y_mm)
    return np.asarray(np.clip(volume / np.percentile(volume, 99.5) * 2400, 0, 4095), dtype=np.uint16)
