"""Lordosis from endplates and, independently, from centroids; sacral slope; coronal deviation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cohort.anatomy.quality import Flag, check, row_status
from cohort.anatomy.vertebrae import BodyShape, Endplate
from cohort.geometry import Floats
from cohort.rows import CurvatureRow
from cohort.terms import LUMBAR_VERTEBRAE

MIN_COUNTED = 3
"""Lumbar centroids needed between L1 and S1 for a coronal deviation."""


def curvature_row(
    exam_id: str,
    centroids_mm: Mapping[str, Floats],
    endplates: Mapping[str, Endplate],
    shapes: Mapping[str, BodyShape],
    doubts: list[Flag],
) -> tuple[CurvatureRow | None, list[Flag]]:
    """Curvature of the named vertebrae, None when no number can be given, and its own flags.

    Parameters
    ----------
    centroids_mm : level -> [3] LPS
    endplates, shapes : level -> superior endplate and shape, only of bodies whose shape may be used
    doubts : flags of the vertebrae that the numbers rest on
    """
    l1, s1, l5 = endplates.get("L1"), endplates.get("S1"), shapes.get("L5")
    numbers = {
        "lordosis_l1_s1_deg": s1.tilt_deg - l1.tilt_deg if s1 and l1 else None,
        "lordosis_l1_l5_deg": l5.inferior_tilt_deg - l1.tilt_deg if l5 and l1 else None,
        "lordosis_centroid_deg": _centroid_lordosis_deg(centroids_mm),
        "sacral_slope_deg": s1.tilt_deg if s1 else None,
        "coronal_deviation_mm": _coronal_deviation_mm(centroids_mm),
    }
    if all(number is None for number in numbers.values()):
        return None, []
    readings = numbers["lordosis_l1_s1_deg"], numbers["lordosis_centroid_deg"]
    own = check("lordosis_readings_deg", _less(*readings), None)
    own += check("lordosis_deg", numbers["lordosis_l1_s1_deg"], "L1-S1")
    own += check("sacral_slope_deg", numbers["sacral_slope_deg"], "S1")
    status, reasons = row_status([*doubts, *own])
    return CurvatureRow(exam_id=exam_id, status=status, reasons=reasons, **numbers), own


def _less(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def _lean_deg(upper: Floats, lower: Floats) -> float:
    """Angle of the line from the upper to the lower centroid against the vertical, in the sagittal plane.

    Positive where it runs backward, as from L5 to S1.
    """
    step = lower - upper
    return float(np.degrees(np.arctan2(step[1], -step[2])))


def _centroid_lordosis_deg(centroids_mm: Mapping[str, Floats]) -> float | None:
    """Angle between the centroid lines L1-L2 and L5-S1 (centroid method of Chen, Spine 1999, with S1 for the
    sacrum)."""
    if any(level not in centroids_mm for level in ("L1", "L2", "L5", "S1")):
        return None
    low = _lean_deg(centroids_mm["L5"], centroids_mm["S1"])
    return low - _lean_deg(centroids_mm["L1"], centroids_mm["L2"])


def _coronal_deviation_mm(centroids_mm: Mapping[str, Floats]) -> float | None:
    """Largest distance of a lumbar centroid from the chord L1-S1 in the patient's coronal plane."""
    between = [centroids_mm[level] for level in LUMBAR_VERTEBRAE if level in centroids_mm]
    if "L1" not in centroids_mm or "S1" not in centroids_mm or len(between) < MIN_COUNTED:
        return None
    start, chord = centroids_mm["L1"][[0, 2]], (centroids_mm["S1"] - centroids_mm["L1"])[[0, 2]]
    across = np.array([-chord[1], chord[0]]) / np.linalg.norm(chord)
    return float(max(abs((point[[0, 2]] - start) @ across) for point in between))
