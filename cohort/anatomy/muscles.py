"""Cross-sectional area, centroid and lean fraction of each muscle and side on each axial slice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import cv2
import numpy as np
from scipy import ndimage

from cohort.anatomy.lean import LeanRule
from cohort.anatomy.orientation import shown_box
from cohort.anatomy.postprocess import clean_labels
from cohort.anatomy.quality import Flag, area_flags, check, marked
from cohort.anatomy.sides import Midline, find_midline, lateral_distance_mm
from cohort.anatomy.size_jumps import muscle_gaps, muscle_jumps, slice_name
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
MIN_PAIRS = 3
"""Pairs of left and right sections that make a middle of the muscles."""
LIKE_SIDES = 0.5
"""Smaller over larger area of such a pair."""


def clean_muscles(labels: Labels, geometry: StackGeometry) -> Labels:
    """Fill holes, smooth edges and drop specks of every muscle label [slice, row, column]."""
    cleaned = clean_labels(labels, tuple(MUSCLE_LABELS.values()), spacing_mm=geometry.spacing_mm)
    pixel_cm2 = _pixel_cm2(geometry)
    for plane in cleaned:
        for value, box in enumerate(ndimage.find_objects(plane), start=1):
            if box is not None:
                _drop_specks(plane[box], value, pixel_cm2)
    return cleaned


def _drop_specks(window: Labels, value: int, pixel_cm2: float) -> None:
    n, pieces, stats, _ = cv2.connectedComponentsWithStats((window == value).astype(np.uint8))
    area = stats[1:, cv2.CC_STAT_AREA] * pixel_cm2
    gone = np.flatnonzero((area < MIN_PIECE_CM2) | (area < MIN_PIECE_SHARE * area.max())) + 1
    if n > 1 and len(gone):
        window[np.isin(pieces, gone)] = 0


def muscle_rows(exam_id: str, stack: ImageStack, labels: Labels, rule: LeanRule | None) -> list[MuscleRow]:
    """One row for each muscle and side on each slice where it is present.

    Parameters
    ----------
    labels : [slice, row, column] cleaned, values of `terms.MUSCLE_LABELS`
    rule : of `lean.lean_rule`; without it there is no lean fraction
    """
    k, row, column = np.nonzero(labels)
    if not len(k):
        return []
    key = k * 9 + labels[k, row, column]
    count = np.bincount(key)
    found = np.flatnonzero(count)
    n = count[found]
    mean_row, mean_column = (np.bincount(key, weights=at)[found] / n for at in (row, column))
    lean = rule.lean(stack.image, labels)[k, row, column] if rule else None
    share = None if lean is None else np.bincount(key, weights=lean)[found] / n
    rows, columns = shown_box(stack.image)
    border = (row <= rows.start) | (row >= rows.stop - 1) | (column <= columns.start) | (column >= columns.stop - 1)
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


def judged_rows(
    rows: Sequence[MuscleRow], geometry: StackGeometry, doubts: Sequence[Flag]
) -> tuple[list[MuscleRow], list[Flag]]:
    """The rows of one stack with status and reasons, and the flags.

    Cut muscles make one flag for each muscle and side, whose value is the number of slices.

    Parameters
    ----------
    doubts : flags of the stack that every row inherits (and that are not returned)
    """
    jumps = muscle_jumps(rows, geometry)
    flags = muscle_gaps(rows, geometry)
    cut: Counter[str] = Counter()
    judged = []
    for i, row in enumerate(rows):
        own = area_flags(row.muscle, row.csa_cm2, slice_name(row), small=False)
        own += [jumps[i]] if i in jumps else []
        structure = f"{row.muscle} {row.side} stack {row.stack}"
        cut[structure] += row.touches_border
        border = [Flag("touches_border", structure)] if row.touches_border else []
        judged.append(marked(row, [*doubts, *own, *border]))
        flags += own
    flags += [Flag("touches_border", structure, float(n), 0.0) for structure, n in cut.items() if n]
    return judged, flags


def midline_flags(rows: Sequence[MuscleRow], geometry: StackGeometry, spine_mm: Floats) -> list[Flag]:
    """Compare the middle between left and right muscles with the vertebral bodies, in one frame of reference.

    A patient who moved between the two series is seen where they moved sideways; along the spine nothing here tells.

    Parameters
    ----------
    rows : of one stack
    spine_mm : [n, 3] centroids of vertebral bodies
    """
    left, right, slices = _pairs(rows)
    if len(slices) < MIN_PAIRS:
        return []
    spine = np.array([_crossing(spine_mm, geometry, k) for k in slices])
    across, middle = left - right, (left + right) / 2 - spine
    turn = np.median(np.arctan2(across[:, 1], across[:, 0]))  # of the patient about their long axis
    beside = middle[:, 0] * np.cos(turn) + middle[:, 1] * np.sin(turn)
    inside = np.isfinite(beside)
    if inside.sum() < MIN_PAIRS:
        return []
    return check("midline_mm", float(abs(np.median(beside[inside]))), f"axial stack {rows[0].stack}")


def _pairs(rows: Sequence[MuscleRow]) -> tuple[Floats, Floats, list[int]]:
    """[n, 3] centroids of left and of right sections of like area of one muscle on one slice, and the slices."""
    sections = {(row.slice, row.muscle, row.side): row for row in rows if row.csa_cm2}
    pairs = [
        (one, other)
        for (k, muscle, side), one in sections.items()
        if side == "left" and (other := sections.get((k, muscle, "right"))) is not None
    ]
    alike = [(a, b) for a, b in pairs if LIKE_SIDES <= (a.csa_cm2 or 0.0) / (b.csa_cm2 or 1.0) <= 1 / LIKE_SIDES]
    left, right = (np.array([[p[i].x_mm, p[i].y_mm, p[i].z_mm] for p in alike]).reshape(-1, 3) for i in (0, 1))
    return left, right, [one.slice for one, _ in alike]


def _crossing(spine_mm: Floats, geometry: StackGeometry, k: int) -> Floats:
    """[3] where the line through the bodies crosses slice k; NaN where it does not."""
    height = (spine_mm - geometry.position_mm[k]) @ geometry.normal
    order = np.argsort(height)
    return np.array([np.interp(0.0, height[order], spine_mm[order, i], np.nan, np.nan) for i in range(3)])


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
