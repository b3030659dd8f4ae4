"""Clean network masks: fill holes, smooth edges without moving them, label pieces in thick slices.

In-plane pixels are 0.4-1 mm and slices 3-5 mm apart, so edges are treated slice by slice and only connectivity is 3D.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cohort.stacks import Labels

EDGE_SMOOTHING_MM = 0.6
"""Gaussian of a mask's indicator, cut at one half again: a straight edge stays, specks and pits of a pixel go. About
one pixel, so that a disc of 2 mm keeps its height."""

Mask = npt.NDArray[np.bool_]

IN_PLANE_AND_ACROSS = np.array([[[0, 0, 0], [0, 1, 0], [0, 0, 0]], np.ones((3, 3)), [[0, 0, 0], [0, 1, 0], [0, 0, 0]]])
"""Connectivity: eight neighbours in the slice, only the same pixel in the next slice, which is 5-10 pixels away."""


def fill_holes(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Fill every hole of a binary mask [row, column] of 0 and 1."""
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(mask.copy(), contours, -1, 1, cv2.FILLED), dtype=np.uint8)


def smooth_edges(mask: npt.NDArray[np.uint8], spacing_mm: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """Smooth the edge of a binary mask [row, column]; straight edges do not move, the image border is continued."""
    sigma_rows, sigma_columns = (EDGE_SMOOTHING_MM / spacing for spacing in spacing_mm)
    blurred = cv2.GaussianBlur(
        mask * np.uint8(200), (0, 0), sigmaX=sigma_columns, sigmaY=sigma_rows, borderType=cv2.BORDER_REPLICATE
    )
    return np.asarray(blurred > 100, dtype=np.uint8)


def clean_labels(labels: Labels, values: tuple[int, ...], *, spacing_mm: tuple[float, float]) -> Labels:
    """Fill holes and smooth edges of each label value, slice by slice.

    Parameters
    ----------
    labels : [slice, row, column] label array; values other than `values` are dropped
    spacing_mm : (between rows, between columns)

    Returns
    -------
    [slice, row, column] uint8; where two labels claim a voxel, the one that had it keeps it
    """
    return cleaned(labels, values, spacing_mm=spacing_mm)[0]


def cleaned(labels: Labels, values: tuple[int, ...], *, spacing_mm: tuple[float, float]) -> tuple[Labels, int]:
    """`clean_labels`, and the number of voxels in the holes that were filled."""
    clean = np.zeros_like(labels)
    holes = 0
    for k, plane in enumerate(labels):
        present = np.bincount(plane.ravel(), minlength=256)
        for value in values:
            if present[value]:
                holes += _clean_plane(plane, value, spacing_mm, out=clean[k])
    return clean, holes


def _clean_plane(plane: Labels, value: int, spacing_mm: tuple[float, float], *, out: Labels) -> int:
    """Write the clean section of one value; pixels of its holes."""
    mask = (plane == value).astype(np.uint8)
    left, top, width, height = cv2.boundingRect(mask)
    margin = 4
    rows = slice(max(top - margin, 0), top + height + margin)
    columns = slice(max(left - margin, 0), left + width + margin)
    inside = np.ascontiguousarray(mask[rows, columns])
    filled = fill_holes(inside)
    clean = smooth_edges(filled, spacing_mm)
    target, before = out[rows, columns], plane[rows, columns]
    target[(clean > 0) & ((target == 0) | (before == value)) & ((before == 0) | (before == value))] = value
    return int(np.count_nonzero(filled)) - int(np.count_nonzero(inside))


def pieces(mask: Mask) -> tuple[npt.NDArray[np.int32], int]:
    """Label the connected pieces of [slice, row, column] from 1; see `IN_PLANE_AND_ACROSS`."""
    labelled = np.zeros(mask.shape, dtype=np.int32)
    n = ndimage.label(mask, structure=IN_PLANE_AND_ACROSS, output=labelled)
    return labelled, int(n)


def disk(radius_mm: float, spacing_mm: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """Element [row, column] of ones within an ellipse of `radius_mm`, at least one pixel."""
    size = tuple(2 * max(round(radius_mm / spacing), 1) + 1 for spacing in (spacing_mm[1], spacing_mm[0]))
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, size), dtype=np.uint8)


def eroded(mask: Mask, radius_mm: float, spacing_mm: tuple[float, float]) -> Mask:
    """Erode [slice, row, column] in the slice plane by an ellipse of `radius_mm`; outside the array is background."""
    kernel = disk(radius_mm, spacing_mm)
    planes = [
        cv2.erode(plane, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0) for plane in mask.astype(np.uint8)
    ]
    return np.stack(planes).astype(bool)
