"""Cross-sectional area, centroid and lean fraction of each muscle and side on each axial slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from cohort.anatomy.lean import lean_rule
from cohort.anatomy.postprocess import clean_labels
from cohort.anatomy.quality import LIMITS, Flag, check, row_status
from cohort.anatomy.sides import Midline, find_midline, lateral_distance_mm
from cohort.geometry import Floats, StackGeometry
from cohort.rows import MuscleRow
from cohort.stacks import ImageStack, Labels
from cohort.terms import MUSCLE_LABELS

MIN_PIECE_CM2 = 0.25
MIN_PIECE_SHARE = 0.15
"""Pieces smaller than either (the latter of the muscle's largest piece on the slice) are specks; psoas at L1-L2, the
smallest muscle, has 1.9 cm2 in young women."""
MAX_WRONG_SIDE = 0.2
"""Share of muscle area on the wrong side of the midline that makes the sides untrustworthy."""
MIN_SYMMETRY = 0.3
"""Below this score of `sides.find_midline` there is no midline to check against."""


def clean_muscles(labels: Labels, geometry: StackGeometry) -> Labels:
    """Fill holes, smooth edges and drop specks of every muscle label [slice, row, column]."""
    cleaned = clean_labels(labels, tuple(MUSCLE_LABELS.values()), spacing_mm=geometry.spacing_mm)
    pixel_cm2 = _pixel_cm2(geometry)
    for plane in cleaned:
        for value in np.flatnonzero(np.bincount(plane.ravel(), minlength=9)[1:]) + 1:
            _drop_specks(plane, int(value), pixel_cm2)
    return cleaned


def _drop_specks(plane: Labels, value: int, pixel_cm2: float) -> None:
    left, top, width, height = cv2.boundingRect((plane == value).astype(np.uint8))
    window = plane[top : top + height, left : left + width]
    n, pieces, stats, _ = cv2.connectedComponentsWithStats((window == value).astype(np.uint8))
    area = stats[1:, cv2.CC_STAT_AREA] * pixel_cm2
    gone = np.flatnonzero((area < MIN_PIECE_CM2) | (area < MIN_PIECE_SHARE * area.max())) + 1
    if n > 1 and len(gone):
        window[np.isin(pieces, gone)] = 0


def muscle_rows(exam_id: str, stack: ImageStack, labels: Labels) -> list[MuscleRow]:
    """One row for each muscle and side on each slice where it is present.

    Parameters
    ----------
    labels : [slice, row, column] cleaned, values of `terms.MUSCLE_LABELS`
    """
    k, row, column = np.nonzero(labels)
    if not len(k):
        return []
    rule, _ = lean_rule(stack, labels)
    key = k * 9 + labels[k, row, column]
    count = np.bincount(key)
    found = np.flatnonzero(count)
    n = count[found]
    mean_row, mean_column = (np.bincount(key, weights=at)[found] / n for at in (row, column))
    lean = rule.lean(stack.image, labels)[k, row, column] if rule else None
    share = None if lean is None else np.bincount(key, weights=lean)[found] / n
    border = (row == 0) | (column == 0) | (row == labels.shape[1] - 1) | (column == labels.shape[2] - 1)
    cut = np.bincount(key, weights=border)[found] > 0
    centre = stack.geometry.to_lps(np.stack([found // 9, mean_row, mean_column], axis=-1))
    area = n * _pixel_cm2(stack.geometry)
    names = {value: name for name, value in MUSCLE_LABELS.items()}
    return [
        MuscleRow(
            exam_id=exam_id,
            stack=stack.index,
            slice=int(one // 9),
            muscle=names[int(one % 9)][0],
            side=names[int(one % 9)][1],
            csa_cm2=float(area[i]),
            lean_fraction=None if share is None else float(share[i]),
            row_px=float(mean_row[i]),
            column_px=float(mean_column[i]),
            x_mm=float(centre[i, 0]),
            y_mm=float(centre[i, 1]),
            z_mm=float(centre[i, 2]),
            touches_border=bool(cut[i]),
            status="ok",
        )
        for i, one in enumerate(found)
    ]


def area_flags(row: MuscleRow) -> list[Flag]:
    """Flags of a muscle that is too large on one slice; small ones are where a muscle begins or ends."""
    structure = f"{row.muscle} {row.side} stack {row.stack} slice {row.slice}"
    largest = LIMITS[f"{row.muscle}_cm2"].expected[1]
    return [flag for flag in check(f"{row.muscle}_cm2", row.csa_cm2, structure) if (flag.value or 0.0) > largest]


def judged(row: MuscleRow) -> MuscleRow:
    """The row with its status and reasons."""
    status, reasons = row_status(area_flags(row))
    return replace(row, status=status, reasons=reasons)


def side_flags(
    rows: Sequence[MuscleRow], labels: Labels, geometry: StackGeometry, *, spine_mm: Floats | None
) -> list[Flag]:
    """Compare the sides that labels claim with the side of the midline on which the muscles lie.

    Parameters
    ----------
    rows : of one stack
    spine_mm : [n, 3] centroids of vertebral bodies in the same frame of reference, from caudal to cranial; None
    makes the symmetry of the muscles the midline
    """
    if not rows:
        return []
    points = np.array([[row.x_mm, row.y_mm, row.z_mm] for row in rows])
    if spine_mm is not None:
        order = np.argsort(spine_mm[:, 2])
        distance = points[:, 0] - np.interp(points[:, 2], spine_mm[order, 2], spine_mm[order, 0])
    else:
        line = _own_midline(labels, geometry)
        if line is None:
            return []
        distance = lateral_distance_mm(line, points, geometry)
    area = np.array([row.csa_cm2 or 0.0 for row in rows])
    claimed = np.array([1.0 if row.side == "left" else -1.0 for row in rows])
    wrong = float(area[distance * claimed < 0].sum() / area.sum())
    return [Flag("sides_conflict", None, wrong, MAX_WRONG_SIDE, refused=True)] if wrong > MAX_WRONG_SIDE else []


def _own_midline(labels: Labels, geometry: StackGeometry) -> Midline | None:
    line = find_midline(np.asarray((labels + 1) // 2, dtype=np.uint8), geometry)
    return line if line.score >= MIN_SYMMETRY else None


def _pixel_cm2(geometry: StackGeometry) -> float:
    return geometry.spacing_mm[0] * geometry.spacing_mm[1] / 100
