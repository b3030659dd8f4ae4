"""Shape of a vertebral body on its central sagittal slices: endplates, walls, corners, heights, wedge and tilt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cohort.anatomy.instances import Piece
from cohort.anatomy.levels import Named
from cohort.anatomy.outline import MIN_POINTS, chords
from cohort.anatomy.quality import Flag, check, missing_slices, row_status
from cohort.geometry import Floats, StackGeometry
from cohort.rows import VertebraRow

RIM = (0.35, 0.8)
"""Share of the half-depth where an endplate line is fitted: the rims, without the concavity (1-2.5 mm deep in the
middle) and without the rounded corners and osteophytes."""
WALL = 0.6
"""Share of the half-height where a wall line is fitted."""
FACING_DEG = 35.0
"""Half of the right angle between endplate and wall, less the waviness of an outline."""
MIN_ENDPLATE_MM = 12.0
"""Superior endplate of S1: 32 +- 3 mm; less than a third of it carries no direction."""
ROUNDS = 6
"""The frame turns with the endplates until it stands still, at most so often: enough from 35 degrees off, three rounds
left 5 degrees of 30. With twice as many it wanders on wavy masks."""
STILL = 1e-4
"""Sine of a turn that is none."""
HEIGHT_SLICES = 3
"""The central slice and its neighbours: endplates are hollow, so that a body is higher to the sides."""


@dataclass(frozen=True, eq=False)
class BodyShape:
    """Lines of a vertebral body, fitted over its central slices."""

    corners_mm: Floats
    """[4, 3] LPS: superior anterior, superior posterior, inferior posterior, inferior anterior."""
    anterior_height_mm: float
    posterior_height_mm: float
    middle_height_mm: float
    depth_mm: float
    wedge_deg: float
    inferior_tilt_deg: float
    """Endplate against the axial plane in the sagittal plane, anterior lower positive."""


@dataclass(frozen=True, eq=False)
class Endplate:
    """Superior endplate of a vertebral body, fitted over its central slices."""

    ends_mm: Floats
    """[2, 3] LPS: anterior, posterior."""
    tilt_deg: float
    """Against the axial plane in the sagittal plane, anterior lower positive."""

    @property
    def depth_mm(self) -> float:
        """From its anterior to its posterior end."""
        return float(np.linalg.norm(self.ends_mm[1] - self.ends_mm[0]))


def body_shape(outlines: Sequence[Floats], geometry: StackGeometry, *, index: int, cranial: Floats) -> BodyShape | None:
    """Fit endplates and walls to the outlines of a body; None where they cannot be told apart.

    Endplate lines follow the rims of the endplates, as in a Cobb measurement; corners are where endplate and wall lines
    meet; anterior and posterior height are the distances between corners. A quadrilateral is reproduced exactly. The
    lines go through the points of all outlines: waves in the edge of a mask differ from slice to slice, the direction
    of an endplate does not. Middle height and depth are medians over the `HEIGHT_SLICES` nearest slices.

    Parameters
    ----------
    outlines : of `central_outlines`, slice `index` of a sagittal stack in standing order first
    cranial : [3] direction of the spine at this body, LPS
    """
    if not outlines or len(outlines[0]) < MIN_POINTS:
        return None
    up = np.array([cranial @ geometry.col_dir, cranial @ geometry.row_dir])
    corners = _corners(np.concatenate(outlines), up / np.linalg.norm(up))
    if corners is None:
        return None
    superior, inferior = corners[1] - corners[0], corners[2] - corners[3]
    back = superior / np.linalg.norm(superior) + inferior / np.linalg.norm(inferior)
    back /= np.linalg.norm(back)
    up = np.array([-back[1], back[0]])
    frame = np.stack([back, up], axis=-1)
    local = [(one - corners.mean(axis=0)) @ frame for one in outlines[:HEIGHT_SLICES]]
    levels = np.linspace(-0.4, 0.4, 9) * float(np.ptp(corners @ up)) / 2
    middle = np.median([np.ptp(chords(one, 0.0)) for one in local])
    depth = np.median([np.diff(chords(one[:, ::-1], levels)).mean() for one in local])
    if not np.isfinite(middle) or not np.isfinite(depth):
        return None
    in_plane = np.stack([geometry.col_dir, geometry.row_dir])
    return BodyShape(
        corners_mm=geometry.position_mm[index] + corners @ in_plane,
        anterior_height_mm=float(np.linalg.norm(corners[0] - corners[3])),
        posterior_height_mm=float(np.linalg.norm(corners[1] - corners[2])),
        middle_height_mm=float(middle),
        depth_mm=float(depth),
        wedge_deg=_angle_deg(superior, inferior),
        inferior_tilt_deg=sagittal_tilt_deg(inferior @ in_plane),
    )


def superior_endplate(shape: BodyShape) -> Endplate:
    """Superior endplate of a body whose four sides were found."""
    ends = shape.corners_mm[:2]
    return Endplate(ends, sagittal_tilt_deg(ends[1] - ends[0]))


def facing_endplate(
    outlines: Sequence[Floats], geometry: StackGeometry, *, index: int, cranial: Floats
) -> Endplate | None:
    """Superior endplate alone, for S1, whose other sides are not those of a box; None where nothing faces `cranial`.

    A line through the part of the outlines whose outward normal points within `FACING_DEG` of the direction to the
    vertebra above; that direction is then replaced by the line's own normal, until it stands still.

    Parameters
    ----------
    outlines : of `central_outlines`, slice `index` of a sagittal stack in standing order first
    cranial : [3] direction to the vertebra above, LPS
    """
    if not outlines or len(outlines[0]) < MIN_POINTS:
        return None
    points, normal = np.concatenate(outlines), np.concatenate([_outward(one) for one in outlines])
    up = np.array([cranial @ geometry.col_dir, cranial @ geometry.row_dir])
    up /= np.linalg.norm(up)
    ends = np.zeros((2, 2))
    for _ in range(ROUNDS):
        back = np.array([up[1], -up[0]])
        back = back if back[1] > 0 else -back
        facing = points[normal @ up > np.cos(np.radians(FACING_DEG))]
        if len(facing) < 8:
            return None
        along, height = facing @ back, facing @ up
        slope, level = np.polyfit(along, height, 1)
        near = np.abs(height - slope * along - level) < 2.0
        if np.count_nonzero(near) < 8 or np.ptp(along[near]) < MIN_ENDPLATE_MM:
            return None
        slope, level = np.polyfit(along[near], height[near], 1)
        reach = np.quantile(along[near], [0.01, 0.99])
        ends = reach[:, None] * back + (slope * reach + level)[:, None] * up
        up = (up - slope * back) / np.hypot(1, slope)
        if abs(slope) < STILL:
            break
    in_plane = np.stack([geometry.col_dir, geometry.row_dir])
    return Endplate(geometry.position_mm[index] + ends @ in_plane, sagittal_tilt_deg((ends[1] - ends[0]) @ in_plane))


def _outward(points: Floats) -> Floats:
    """[point, 2] unit normals of a closed outline."""
    step = np.roll(points, -1, axis=0) - np.roll(points, 1, axis=0)
    normal = np.stack([step[:, 1], -step[:, 0]], axis=-1) / np.hypot(step[:, 0], step[:, 1])[:, None]
    return np.asarray(normal if np.sum(normal * (points - points.mean(axis=0))) > 0 else -normal)


def sagittal_tilt_deg(backward: Floats) -> float:
    """Angle of a line [3] LPS that points backward against the axial plane, in the patient's sagittal plane.

    Anterior lower is positive, as on S1.
    """
    return float(np.degrees(np.arctan2(backward[2], backward[1])))


def _angle_deg(superior: Floats, inferior: Floats) -> float:
    """Angle between endplates that point backward in (down, across), anterior taller positive."""
    falls = [np.arctan2(line[0], line[1]) for line in (superior, inferior)]
    return float(np.degrees(falls[0] - falls[1]))


def _corners(points: Floats, up: Floats) -> Floats | None:
    """[4, 2] corners in (down, across), in the order of `BodyShape.corners_mm`."""
    centre = points.mean(axis=0)
    half: Floats | None = None
    corners: Floats | None = None
    for _ in range(ROUNDS):
        back = np.array([up[1], -up[0]])
        back = back if back[1] > 0 else -back
        local = (points - centre) @ np.stack([back, up], axis=-1)
        if half is None:
            low, high = np.quantile(local, [0.02, 0.98], axis=0)
            centre = centre + (low + high)[0] / 2 * back + (low + high)[1] / 2 * up
            local, half = local - (low + high) / 2, (high - low) / 2
        found = _quadrilateral(local, half)
        if found is None:
            return None
        corners = centre + found @ np.stack([back, up])
        line = (corners[1] - corners[0]) / np.linalg.norm(corners[1] - corners[0])
        line = line + (corners[2] - corners[3]) / np.linalg.norm(corners[2] - corners[3])
        before, up = up, np.array([-line[1], line[0]]) / np.linalg.norm(line)
        if abs(before[0] * up[1] - before[1] * up[0]) < STILL:
            break
        centre = corners.mean(axis=0)
        half = np.array(
            [
                np.linalg.norm(corners[1] + corners[2] - corners[0] - corners[3]) / 4,
                np.linalg.norm(corners[0] + corners[1] - corners[2] - corners[3]) / 4,
            ]
        )
    return corners


def _quadrilateral(local: Floats, half: Floats) -> Floats | None:
    """[4, 2] corners in the local frame (back, up) from four fitted lines."""
    u, v = (local / half).T
    flat = (np.abs(v) > np.abs(u)) & (np.abs(u) > RIM[0]) & (np.abs(u) < RIM[1])
    steep = (np.abs(u) > np.abs(v)) & (np.abs(v) < WALL)
    sides = [flat & (v > 0), flat & (v < 0), steep & (u < 0), steep & (u > 0)]
    # A line needs points at both ends of the endplate, else it is a guess.
    for side in sides[:2]:
        if np.count_nonzero(side & (u < 0)) < 4 or np.count_nonzero(side & (u > 0)) < 4:
            return None
    if min(np.count_nonzero(side) for side in sides[2:]) < 8:
        return None
    superior, inferior = (np.polyfit(local[side, 0], local[side, 1], 1) for side in sides[:2])
    anterior, posterior = (np.polyfit(local[side, 1], local[side, 0], 1) for side in sides[2:])
    pairs = [(superior, anterior), (superior, posterior), (inferior, posterior), (inferior, anterior)]
    return np.array([_crossing(endplate, wall) for endplate, wall in pairs])


def _crossing(endplate: Floats, wall: Floats) -> tuple[float, float]:
    """Meeting point of v = a u + b and u = c v + d."""
    (a, b), (c, d) = endplate, wall
    u = (c * b + d) / (1 - a * c)
    return float(u), float(a * u + b)


def compression_ratios(shapes: Sequence[BodyShape | None]) -> list[float | None]:
    """Height that is left of each body, from caudal to cranial: the least of three ratios, 1 is normal.

    Anterior to posterior height (wedge), middle height to the mean of both (biconcave), and mean height to that of the
    neighbours (crush): the three deformities of Genant et al. 1993 (J Bone Miner Res 8:1137), each against a reference
    within the same spine. Posterior less than anterior height is the normal shape of L4 and L5 and does not count.
    """
    means = [None if one is None else _mean_height_mm(one) for one in shapes]
    ratios: list[float | None] = []
    for i, shape in enumerate(shapes):
        if shape is None:
            ratios.append(None)
            continue
        walls = (shape.anterior_height_mm, shape.posterior_height_mm)
        found = [walls[0] / walls[1], 2 * shape.middle_height_mm / sum(walls)]
        beside = [mean for mean in (*means[max(i - 1, 0) : i], *means[i + 1 : i + 2]) if mean is not None]
        found += [_mean_height_mm(shape) / (sum(beside) / len(beside))] if beside else []
        ratios.append(min(found))
    return ratios


def _mean_height_mm(shape: BodyShape) -> float:
    return (shape.anterior_height_mm + shape.middle_height_mm + shape.posterior_height_mm) / 3


def vertebra_row(
    exam_id: str,
    named: Named,
    piece: Piece,
    shape: BodyShape | None,
    endplate: Endplate | None,
    *,
    compression: float | None,
    slices_seen: int,
    slices_expected: int,
    touches_border: bool,
    outermost_slice: bool,
    evidence: str,
) -> tuple[VertebraRow, list[Flag]]:
    """Row of one vertebral body and its flags; a body cut by the image border keeps only centroid and volume."""
    structure = named.called("body")
    flags: list[Flag] = []
    if touches_border:
        flags.append(Flag("touches_border", structure))
        shape, endplate, compression = None, None, None
    elif endplate is None or (shape is None and named.level != "S1"):
        flags.append(Flag("no_shape", structure))
    if outermost_slice:
        flags.append(Flag("outermost_slice", structure))
    flags += missing_slices(slices_seen, slices_expected, structure)
    if shape is not None:
        for height in (shape.anterior_height_mm, shape.middle_height_mm, shape.posterior_height_mm):
            flags += check("body_height_mm", height, structure)
        if named.level != "S1":  # it tapers, and has no inferior endplate
            flags += check("body_depth_mm", shape.depth_mm, structure)
            flags += check("body_wedge_deg", shape.wedge_deg, structure)
        flags += check("compression_ratio", compression, structure)
    status, reasons = row_status(flags)
    x, y, z = piece.centroid_mm
    row = VertebraRow(
        exam_id=exam_id,
        ordinal=named.ordinal,
        level=named.level,
        level_confidence=named.confidence,
        level_evidence=evidence,
        x_mm=x,
        y_mm=y,
        z_mm=z,
        volume_cm3=piece.volume_cm3,
        slices_seen=slices_seen,
        slices_expected=slices_expected,
        touches_border=touches_border,
        tilt_deg=None if endplate is None else endplate.tilt_deg,
        compression_ratio=compression,
        status=status,
        reasons=reasons,
    )
    return (row if shape is None else _with_shape(row, shape)), flags


def _with_shape(row: VertebraRow, shape: BodyShape) -> VertebraRow:
    return replace(
        row,
        anterior_height_mm=shape.anterior_height_mm,
        posterior_height_mm=shape.posterior_height_mm,
        middle_height_mm=shape.middle_height_mm,
        depth_mm=shape.depth_mm,
        wedge_deg=shape.wedge_deg,
        inferior_tilt_deg=shape.inferior_tilt_deg,
    )
