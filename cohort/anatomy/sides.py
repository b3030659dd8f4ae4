"""Left and right of the patient for axial muscle masks, from geometry and from the symmetry of the muscles themselves.

The image says where left is (LPS x grows to the patient's left); the muscles say where the middle is. The middle is the
line about which the muscles mirror each other, found over all slices at once so that a cropped side, an off-centre or a
rotated patient does not move it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from cohort.geometry import Floats, StackGeometry
from cohort.stacks import Labels
from cohort.terms import MUSCLE_LABELS, MUSCLES, SIDES

TURNS_DEG = np.arange(-30.0, 30.1, 5.0)
"""Rotations of the patient about the long axis that are tried."""
BIN_MM = 2.0
NEAR_MIDLINE_MM = 8.0
"""Erector spinae, psoas and quadratus lumborum lie 20 mm or more from the midline at every lumbar level; the multifidi
almost touch there (centroids +-39-48 mm and +-8-23 mm, MyoSegmenTUM)."""
MIDLINE_MUSCLE = "multifidus"
WHOLE_PIECE = 0.85
"""A connected piece with this share on one side lies on that side as a whole."""
MAX_SAMPLES = 20000
REFINEMENTS = 3


@dataclass(frozen=True)
class Midline:
    """Plane between the patient's sides: lateral = offset + drift * height, in the turned frame of the stack."""

    turn_deg: float
    """Rotation of the patient about the normal of the slices; positive turns the left side backward."""
    offset_mm: float
    drift: float
    """Change of the lateral offset per mm along the normal (scoliosis, oblique patient)."""
    score: float
    """Symmetry about it, 0 (none) to 1 (every muscle mirrored)."""


def split_sides(muscle_classes: Labels, geometry: StackGeometry) -> Labels:
    """Divide muscle classes into the patient's left and right.

    Parameters
    ----------
    muscle_classes : [slice, row, column] of an axial stack in any axis order; 0 background, 1..4 in the order of
        `terms.MUSCLES`
    geometry : of that stack; decides where left is

    Returns
    -------
    [slice, row, column] uint8 with the values of `terms.MUSCLE_LABELS`
    """
    result = np.zeros(muscle_classes.shape, dtype=np.uint8)
    if not muscle_classes.any():
        return result
    line = find_midline(muscle_classes, geometry)
    for k in range(len(muscle_classes)):
        plane = muscle_classes[k]
        left = _left_of(line, geometry, k, plane.shape)
        for value, muscle in enumerate(MUSCLES, start=1):
            mask = plane == value
            if mask.any():
                on_left = _by_piece(mask, left)
                result[k][mask & on_left] = MUSCLE_LABELS[muscle, SIDES[0]]
                result[k][mask & ~on_left] = MUSCLE_LABELS[muscle, SIDES[1]]
    return result


def find_midline(muscle_classes: Labels, geometry: StackGeometry) -> Midline:
    """Find the plane of symmetry of the muscles [slice, row, column] (classes as in `split_sides`).

    For each rotation the lateral positions of each muscle make a histogram h; its autoconvolution (h * h)(2 t) is large
    where h mirrors itself about t (Sun, Pattern Recognition Letters 1995, on symmetry by convolution). Muscles that
    never lie on the midline vote against a t inside them, so a lone muscle does not become its own middle. Where
    nothing is symmetric the middle of the image is used, with score 0.
    """
    at = np.argwhere(muscle_classes)
    at = at[:: max(len(at) // MAX_SAMPLES, 1)]
    classes = muscle_classes[tuple(at.T)]
    lateral, depth, height = _patient_axes(geometry.to_lps(at), geometry)
    best = Midline(0.0, _image_middle_mm(geometry), 0.0, 0.0)
    for turn in TURNS_DEG:
        turned = _turned(lateral, depth, float(turn))
        offset, score = _symmetry(turned, classes)
        if score > best.score + 1e-9:
            best = Midline(float(turn), offset, 0.0, score)
    if best.score < 0.1:
        return best
    for _ in range(REFINEMENTS):
        best = _refined(best, lateral, depth, height, classes, at[:, 0])
    return best


def lateral_distance_mm(line: Midline, points_mm: Floats, geometry: StackGeometry) -> Floats:
    """[...] signed distance of LPS points [..., 3] from the midline plane, the patient's left positive."""
    lateral, depth, height = _patient_axes(points_mm, geometry)
    return _turned(lateral, depth, line.turn_deg) - line.offset_mm - line.drift * height


def _patient_axes(points_mm: Floats, geometry: StackGeometry) -> tuple[Floats, Floats, Floats]:
    """Coordinates of points along the slice plane's own left, its own back, and its normal (cranial)."""
    normal = geometry.normal if geometry.normal[2] >= 0 else -geometry.normal
    left = np.array([1.0, 0.0, 0.0]) - normal[0] * normal
    left /= np.linalg.norm(left)
    back = np.cross(normal, left)
    centred = points_mm - geometry.position_mm.mean(axis=0)
    return centred @ left, centred @ back, centred @ normal


def _image_middle_mm(geometry: StackGeometry) -> float:
    middle = [(geometry.n_slices - 1) / 2, (geometry.shape[0] - 1) / 2, (geometry.shape[1] - 1) / 2]
    return float(_patient_axes(geometry.to_lps(middle), geometry)[0])


def _turned(lateral: Floats, depth: Floats, turn_deg: float) -> Floats:
    turn = np.radians(turn_deg)
    return np.asarray(np.cos(turn) * lateral + np.sin(turn) * depth)


def _symmetry(lateral: Floats, classes: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """Best mirror position and its score for lateral positions [n] of muscles."""
    low = np.floor(lateral.min() / BIN_MM) * BIN_MM
    n = int((lateral.max() - low) / BIN_MM) + 1
    bins = ((lateral - low) / BIN_MM).astype(int)
    total, voters = np.zeros(2 * n - 1), 0
    for value, muscle in enumerate(MUSCLES, start=1):
        histogram = np.bincount(bins[classes == value], minlength=n).astype(np.float64)
        if not histogram.any():
            continue
        voters += 1
        # 1 where every voxel has its mirror voxel (Cauchy-Schwarz).
        mirrored = np.convolve(histogram, histogram) / (histogram @ histogram)
        total += mirrored if muscle == MIDLINE_MUSCLE else mirrored * _empty_middle(histogram)
    best = int(np.argmax(total))
    # Sums of bin indices peak at twice the position; bin centres lie half a bin further.
    return float(low + (best / 2 + 0.5) * BIN_MM), float(total[best] / voters)


def _empty_middle(histogram: Floats) -> Floats:
    """[2 n - 1] weight of each mirror position: 1 with nothing near it, 0 with a tenth of the muscle or more."""
    reach = int(NEAR_MIDLINE_MM / BIN_MM)
    near = np.convolve(histogram, np.ones(2 * reach + 1), mode="same") / histogram.sum()
    positions = np.arange(2 * len(histogram) - 1) / 2
    return np.asarray(np.clip(1 - np.interp(positions, np.arange(len(histogram)), near) / 0.1, 0, 1))


def _refined(
    line: Midline,
    lateral: Floats,
    depth: Floats,
    height: Floats,
    classes: npt.NDArray[np.uint8],
    slices: npt.NDArray[np.intp],
) -> Midline:
    """Fit the line anew to the midpoints between left and right centroids of each muscle on each slice."""
    side = _turned(lateral, depth, line.turn_deg) - line.offset_mm - line.drift * height > 0
    n_slices = int(slices.max()) + 1
    key = (classes.astype(np.int64) * n_slices + slices) * 2 + side
    size = (len(MUSCLES) + 1) * n_slices * 2
    count = np.bincount(key, minlength=size).reshape(-1, 2)
    sums = [np.bincount(key, weights=w, minlength=size).reshape(-1, 2) for w in (lateral, depth, height)]
    smaller, larger = count.min(axis=1), count.max(axis=1)
    paired = (smaller >= 3) & (smaller > 0.4 * larger)
    if not paired.any():
        return line
    x, y, z = (total[paired] / count[paired] for total in sums)
    across = np.stack([x[:, 1] - x[:, 0], y[:, 1] - y[:, 0]])
    wide = np.hypot(*across) > 15
    turn = float(np.degrees(np.median(np.arctan2(across[1], across[0])[wide]))) if wide.any() else line.turn_deg
    middle = _turned(x.mean(axis=1), y.mean(axis=1), turn)
    drift, offset = _robust_line(z.mean(axis=1), middle)
    return Midline(turn, offset, drift, line.score)


def _robust_line(height: Floats, middle: Floats) -> tuple[float, float]:
    """Slope and intercept by least squares with Cauchy weights; a flat line where the slices are few or close."""
    if np.ptp(height) < 30:
        return 0.0, float(np.median(middle))
    weights = np.ones(len(middle))
    slope, intercept = 0.0, float(np.median(middle))
    for _ in range(5):
        slope, intercept = (float(v) for v in np.polyfit(height, middle, 1, w=np.sqrt(weights)))
        weights = 1 / (1 + ((middle - slope * height - intercept) / 3.0) ** 2)
    return slope, intercept


def _left_of(line: Midline, geometry: StackGeometry, k: int, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """[row, column] True left of the midline on slice k; the distance is linear in row and column."""
    corners = geometry.to_lps([[k, 0, 0], [k, 1, 0], [k, 0, 1]])
    origin, next_row, next_column = lateral_distance_mm(line, corners, geometry)
    rows = np.arange(shape[0])[:, None] * (next_row - origin)
    columns = np.arange(shape[1])[None, :] * (next_column - origin)
    return np.asarray(origin + rows + columns > 0)


def _by_piece(mask: npt.NDArray[np.bool_], left: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Left side of a muscle [row, column], with pieces that lie almost wholly on one side kept whole."""
    n, labelled = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    count = np.bincount(labelled.ravel(), minlength=n)
    share = np.bincount(labelled.ravel(), weights=left.ravel(), minlength=n) / np.maximum(count, 1)
    decided = np.where(share >= WHOLE_PIECE, 1, np.where(share <= 1 - WHOLE_PIECE, 0, 2))[labelled]
    return np.where(decided == 2, left, decided == 1)
