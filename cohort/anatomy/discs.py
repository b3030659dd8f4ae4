"""Heights, width, wedge and mid-plane of an intervertebral disc."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cohort.anatomy.instances import Piece
from cohort.anatomy.levels import Named
from cohort.anatomy.outline import (
    MIN_POINTS,
    Rectangle,
    area_mm2,
    chords,
    minimum_rectangle,
    robust_polynomial,
)
from cohort.anatomy.quality import Flag, check, missing_slices, row_status
from cohort.anatomy.vertebrae import BodyShape, Endplate
from cohort.geometry import Floats, StackGeometry
from cohort.rows import DiscRow

BORDER_DEGREE = 4
"""Of the polynomial through each border. Parabolas (hollow endplates) follow exact and degraded masks of phantoms a
little better, but read 0.4 mm less than the outline on human masks of SPIDER; degree 4 reads 0.2 mm less."""
END_SHARE = 0.05
"""Of the depth at either end, where the borders turn into each other."""
SAMPLES = 25
"""Of each border on each slice: about one per pixel."""
EDGE_SHARE = 0.15
"""Anterior and posterior heights are taken at this share of the depth: manual masks are read at 10-20 % in the
literature, because the extreme ends are rounded."""

LATERAL_SD_MM = 6.0
"""Standard deviation of a disc's voxels from side to side: 11 where all of one 44 mm wide is seen. Least that keeps it
twice as wide as high, in which the direction of its plane is safe. Own choice."""


@dataclass(frozen=True, eq=False)
class DiscShape:
    """A disc on its central slices."""

    height_mm: float
    """Shortest side of the minimum-area rectangle (Hess et al. 2023) of the fitted borders."""
    outline_height_mm: float
    """The same of the outline of the central slice as it stands."""
    width_mm: float
    area_mm2: float
    """Both of the outline of the central slice."""
    anterior_height_mm: float
    middle_height_mm: float
    posterior_height_mm: float
    wedge_deg: float
    rectangle_mm: Floats
    """[4, 3] LPS corners of the rectangle of `height_mm`, for drawing."""


@dataclass(frozen=True, eq=False)
class MotionSegment:
    """The two vertebrae that a disc lies between, as far as their shapes may be used."""

    above: BodyShape | None = None
    above_endplate: Endplate | None = None
    below_endplate: Endplate | None = None

    @property
    def disc_wedge_deg(self) -> float | None:
        """Inferior endplate of the upper vertebra to superior endplate of the lower one, lordosis positive."""
        if self.above is None or self.below_endplate is None:
            return None
        return self.below_endplate.tilt_deg - self.above.inferior_tilt_deg

    @property
    def segmental_deg(self) -> float | None:
        """Superior endplate to superior endplate, lordosis positive: over L1-L2 to L5-S1 they add up to the lordosis
        L1-S1."""
        if self.above_endplate is None or self.below_endplate is None:
            return None
        return self.below_endplate.tilt_deg - self.above_endplate.tilt_deg


def disc_shape(outlines: Sequence[Floats], geometry: StackGeometry, *, index: int) -> DiscShape | None:
    """Measure a disc on its central slices; None where its outline is too small to carry a shape.

    A rectangle rests on the extreme points of one outline, so that every dent of a mask makes a disc higher: masks
    with wavy edges read 1 mm too much. So the upper and the lower border are first fitted over the central slices, by
    polynomials with robust weights; `height_mm` is the shorter side of the rectangle of least area around both. The
    outline's own rectangle, as published, is `outline_height_mm`: on exact masks the two agree.

    Parameters
    ----------
    outlines : of `central_outlines`, slice `index` of a sagittal stack in standing order first
    """
    if not outlines or len(outlines[0]) < MIN_POINTS:
        return None
    central = minimum_rectangle(outlines[0])
    frame = _frame(central)
    local = [(one - central.centre_mm) @ frame.T for one in outlines]
    half_mm = float(np.ptp(local[0][:, 0])) / 2
    middle_mm = float(local[0][:, 0].min()) + half_mm
    share, border = _borders(local)
    lower, upper = (robust_polynomial(share, side, BORDER_DEGREE) for side in border)
    at = np.linspace(share[0], -share[0], 2 * SAMPLES)
    curves = np.concatenate(
        [np.stack([middle_mm + half_mm * at, np.polyval(side, at)], axis=-1) for side in (lower, upper)]
    )
    rectangle = minimum_rectangle(central.centre_mm + curves @ frame)
    heights = np.polyval(upper - lower, [2 * EDGE_SHARE - 1, 0.0, 1 - 2 * EDGE_SHARE])
    slopes = [np.arctan(np.polyfit(half_mm * at, np.polyval(side, at), 1)[0]) for side in (lower, upper)]
    return DiscShape(
        height_mm=rectangle.short_mm,
        outline_height_mm=central.short_mm,
        width_mm=2 * half_mm,
        area_mm2=area_mm2(outlines[0]),
        anterior_height_mm=float(heights[0]),
        middle_height_mm=float(heights[1]),
        posterior_height_mm=float(heights[2]),
        wedge_deg=float(np.degrees(slopes[0] - slopes[1])),
        rectangle_mm=geometry.position_mm[index] + _corners(rectangle) @ np.stack([geometry.col_dir, geometry.row_dir]),
    )


def _frame(rectangle: Rectangle) -> Floats:
    """[2, 2] directions (down, across) of the long side, backward, and across it, upward."""
    back = rectangle.long_dir
    return np.array([back, [-back[1], back[0]]])


def _borders(local: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Places along the depth, from -1 in front to 1 behind, and [2, place] lower and upper border there, of outlines
    [point, 2] (back, up)."""
    share = np.linspace(2 * END_SHARE - 1, 1 - 2 * END_SHARE, SAMPLES)
    found = []
    for one in local:
        low, high = float(one[:, 0].min()), float(one[:, 0].max())
        found.append(chords(one, (low + high) / 2 + share * (high - low) / 2))
    return np.tile(share, len(local)), np.concatenate(found).T


def _corners(rectangle: Rectangle) -> Floats:
    """[4, 2] (down, across)."""
    sides = np.array([[rectangle.long_mm], [rectangle.short_mm]]) / 2 * _frame(rectangle)
    return np.asarray(rectangle.centre_mm + np.array([[-1, 1], [1, 1], [1, -1], [-1, -1]]) @ sides)


def mid_plane_normal(points_mm: Floats, lateral: Floats) -> Floats:
    """[3] normal of the mid-plane of a disc given by its voxels [n, 3], LPS mm, cranial.

    The direction of least spread (principal axes): a disc is 6-10 mm high, 30-35 mm deep and 40-50 mm wide. Where few
    slices show it, its width is made up to `LATERAL_SD_MM`, or the direction across the slices would be that of least
    spread.

    Parameters
    ----------
    lateral : [3] unit normal of the slices
    """
    centred = points_mm - points_mm.mean(axis=0)
    spread = centred.T @ centred / len(centred)
    unseen = max(LATERAL_SD_MM**2 - float(lateral @ spread @ lateral), 0.0)
    normal = np.linalg.eigh(spread + unseen * np.outer(lateral, lateral))[1][:, 0]
    return np.asarray(normal if normal[2] >= 0 else -normal)


def disc_row(
    exam_id: str,
    named: Named,
    piece: Piece,
    shape: DiscShape | None,
    segment: MotionSegment,
    *,
    central_slice: int,
    slices_seen: int,
    slices_expected: int,
    touches_border: bool,
    outermost_slice: bool,
) -> tuple[DiscRow, list[Flag]]:
    """Row of one disc and its flags; a disc cut by the image border keeps only centroid and volume."""
    structure = named.called("disc")
    flags: list[Flag] = []
    if touches_border:
        flags.append(Flag("touches_border", structure))
        shape = None
    elif shape is None:
        flags.append(Flag("no_shape", structure))
    if outermost_slice:
        flags.append(Flag("outermost_slice", structure))
    flags += missing_slices(slices_seen, slices_expected, structure)
    flags += check("segmental_deg", segment.segmental_deg, structure)
    if shape is not None:
        flags += check("disc_height_mm", shape.height_mm, structure)
        flags += check("disc_width_mm", shape.width_mm, structure)
        flags += check("disc_readings_mm", abs(shape.height_mm - shape.outline_height_mm), structure)
    status, reasons = row_status(flags)
    x, y, z = piece.centroid_mm
    row = DiscRow(
        exam_id=exam_id,
        ordinal=named.ordinal,
        level=named.level,
        level_confidence=named.confidence,
        x_mm=x,
        y_mm=y,
        z_mm=z,
        central_slice=central_slice,
        volume_cm3=piece.volume_cm3,
        slices_seen=slices_seen,
        slices_expected=slices_expected,
        endplate_wedge_deg=segment.disc_wedge_deg,
        segmental_deg=segment.segmental_deg,
        touches_border=touches_border,
        status=status,
        reasons=reasons,
    )
    return (row if shape is None else _with_shape(row, shape, segment.above)), flags


def _with_shape(row: DiscRow, shape: DiscShape, above: BodyShape | None) -> DiscRow:
    mean_mm = (shape.anterior_height_mm + shape.middle_height_mm + shape.posterior_height_mm) / 3
    return replace(
        row,
        height_mm=shape.height_mm,
        outline_height_mm=shape.outline_height_mm,
        width_mm=shape.width_mm,
        area_mm2=shape.area_mm2,
        mean_height_mm=shape.area_mm2 / shape.width_mm,
        anterior_height_mm=shape.anterior_height_mm,
        middle_height_mm=shape.middle_height_mm,
        posterior_height_mm=shape.posterior_height_mm,
        height_index=None if above is None else mean_mm / above.middle_height_mm,
        wedge_deg=shape.wedge_deg,
    )
