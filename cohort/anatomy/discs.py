"""Height, width, wedge and mid-plane of an intervertebral disc."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cohort.anatomy.instances import Piece
from cohort.anatomy.levels import Named
from cohort.anatomy.outline import SMOOTH_MM, area_mm2, chord, minimum_rectangle, outline
from cohort.anatomy.postprocess import Mask
from cohort.anatomy.quality import Flag, check, row_status
from cohort.geometry import Floats, StackGeometry
from cohort.rows import DiscRow

EDGE_SHARE = 0.15
"""Anterior and posterior heights are taken at this share of the depth: manual masks are read at 10-20 % in the
literature, because the extreme ends are rounded."""
BORDER_SHARES = np.linspace(EDGE_SHARE, 1 - EDGE_SHARE, 15)
"""Places where the upper and lower border are sampled for the wedge angle."""


@dataclass(frozen=True, eq=False)
class DiscShape:
    """A disc on its central slice."""

    height_mm: float
    """Shortest side of the minimum-area rectangle of the outline (Hess et al. 2023)."""
    width_mm: float
    area_mm2: float
    anterior_height_mm: float
    middle_height_mm: float
    posterior_height_mm: float
    wedge_deg: float
    rectangle_mm: Floats
    """[4, 3] LPS corners of that rectangle, for drawing."""


def disc_shape(mask: Mask, geometry: StackGeometry, *, index: int) -> DiscShape | None:
    """Measure a disc on one slice; None where its outline is too small to carry a shape.

    Height: outline of the mask in mm -> rectangle of least area -> shorter side. Other heights are lengths of the
    outline across the long side. Width and area come from a less smoothed outline, whose ends are not rounded.

    Parameters
    ----------
    mask : [row, column] of slice `index` of a sagittal stack in standing order
    """
    smooth = outline(mask, geometry.spacing_mm, low_pass_mm=SMOOTH_MM)
    light = outline(mask, geometry.spacing_mm)
    if smooth is None or light is None or len(smooth) < 24:
        return None
    rectangle = minimum_rectangle(smooth)
    back = rectangle.long_dir
    up = np.array([-back[1], back[0]])
    local = (light - rectangle.centre_mm) @ np.stack([back, up], axis=-1)
    low, high = float(local[:, 0].min()), float(local[:, 0].max())
    at = low + BORDER_SHARES * (high - low)
    chords = [chord(local, position) for position in at]
    middle = chord(local, (low + high) / 2)
    if middle is None or any(one is None for one in chords):
        return None
    borders = np.array([one for one in chords if one is not None])
    lower, upper = (np.polyfit(at, borders[:, side], 1)[0] for side in (0, 1))
    half_long, half_short = rectangle.long_mm / 2 * back, rectangle.short_mm / 2 * up
    corners = rectangle.centre_mm + np.array(
        [-half_long + half_short, half_long + half_short, half_long - half_short, -half_long - half_short]
    )
    return DiscShape(
        height_mm=rectangle.short_mm,
        width_mm=high - low,
        area_mm2=area_mm2(light),
        anterior_height_mm=float(borders[0, 1] - borders[0, 0]),
        middle_height_mm=middle[1] - middle[0],
        posterior_height_mm=float(borders[-1, 1] - borders[-1, 0]),
        wedge_deg=float(np.degrees(np.arctan(lower) - np.arctan(upper))),
        rectangle_mm=geometry.position_mm[index] + corners @ np.stack([geometry.col_dir, geometry.row_dir]),
    )


def mid_plane_normal(points_mm: Floats) -> Floats:
    """[3] normal of the mid-plane of a disc given by its voxels [n, 3], LPS mm, cranial.

    The direction of least spread (principal axes): a disc is 6-10 mm high, 30-35 mm deep and 40-50 mm wide.
    """
    centred = points_mm - points_mm.mean(axis=0)
    normal = np.linalg.eigh(centred.T @ centred)[1][:, 0]
    return np.asarray(normal if normal[2] >= 0 else -normal)


def disc_row(
    exam_id: str,
    named: Named,
    piece: Piece,
    shape: DiscShape | None,
    *,
    central_slice: int,
    slices_seen: int,
    touches_border: bool,
    outermost_slice: bool,
) -> tuple[DiscRow, list[Flag]]:
    """Row of one disc and its flags; a disc cut by the image border keeps only centroid and volume."""
    structure = named.level or f"disc-{named.ordinal}"
    flags: list[Flag] = []
    if touches_border:
        flags.append(Flag("touches_border", structure))
        shape = None
    if outermost_slice:
        flags.append(Flag("outermost_slice", structure))
    if shape is not None:
        flags += check("disc_height_mm", shape.height_mm, structure)
        flags += check("disc_width_mm", shape.width_mm, structure)
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
        touches_border=touches_border,
        status=status,
        reasons=reasons,
    )
    return (row if shape is None else _with_shape(row, shape)), flags


def _with_shape(row: DiscRow, shape: DiscShape) -> DiscRow:
    return replace(
        row,
        height_mm=shape.height_mm,
        width_mm=shape.width_mm,
        area_mm2=shape.area_mm2,
        mean_height_mm=shape.area_mm2 / shape.width_mm,
        anterior_height_mm=shape.anterior_height_mm,
        middle_height_mm=shape.middle_height_mm,
        posterior_height_mm=shape.posterior_height_mm,
        wedge_deg=shape.wedge_deg,
    )
