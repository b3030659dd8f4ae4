"""What the pictures themselves say about a measurement: too little contrast, and ghosts of a moving body.

Constant pictures say nothing: every function here gives None or no flags for them.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage
from skimage.measure import block_reduce

from cohort.anatomy.quality import Flag, check
from cohort.geometry import Floats, StackGeometry
from cohort.stacks import ImageStack, LabelledStack

BESIDE_DISC_MM = 12.0
"""Marrow is looked for within this of a disc, where the coil is as sensitive as in the disc."""
MIN_PIXELS = 20
ROBUST_SD = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""

SLICES = 2
"""In which ghosts are looked for; more add time and little else."""
GHOST_PIXEL_MM = 2.0
"""Pictures are averaged to pixels of about this: less noise, and less time."""
BODY_SHARE = 0.15
"""Of the 95th percentile: what is brighter is body. Ghosts are a few percent, muscle in T1 pictures 30-50 %."""
HALO_MM = 6.0
"""Around the body, where resolution and ringing spill its signal, and inside the edges of the picture, where what lies
beyond the opposite edge folds in."""
MIN_SHIFT = 0.04
"""Of the field of view: nearer copies cannot be told from that halo."""
MIN_AIR = 0.02
"""Of the picture: with less air there is nowhere to look."""
MIN_PEAK = 7.0
"""Over the spread of all shifts, for a copy to count."""

MIN_OVERLAP = 0.1
"""Of the largest overlap of air and shifted body, for a shift to be judged."""

Mask = npt.NDArray[np.bool_]
Floats32 = npt.NDArray[np.float32]


def picture_flags(sagittal: LabelledStack | None, axial: Sequence[LabelledStack]) -> list[Flag]:
    """Flags of the pictures of an exam.

    Parameters
    ----------
    sagittal : with cleaned labels `vertebral_body` and `disc_instances`
    axial : ghosts are looked for in the fullest stack, since all belong to one acquisition
    """
    contrast = contrast_flags(sagittal) if sagittal is not None else []
    fullest = max(axial, key=lambda one: one.stack.geometry.n_slices, default=None)
    looked_at = [one.stack for one in (sagittal, fullest) if one is not None]
    return [*contrast, *(flag for stack in looked_at for flag in ghost_flags(stack))]


def contrast_flags(spine: LabelledStack) -> list[Flag]:
    """`low_contrast` of a sagittal stack with cleaned labels and instances.

    The value is the median over discs of |median disc - median marrow beside it| / robust standard deviation inside
    the two, on the slice that shows most of the disc. The spread holds noise and texture alike."""
    found = []
    discs, bodies = spine.labels["disc_instances"], spine.labels["vertebral_body"]
    for label, box in enumerate(ndimage.find_objects(discs), start=1):
        if box is None:
            continue
        k = box[0].start + int(np.argmax(np.count_nonzero(discs[box] == label, axis=(1, 2))))
        value = _contrast(spine.stack.image[k], discs[k] == label, bodies[k] > 0, spine.stack.geometry)
        found += [] if value is None else [value]
    return check("body_disc_contrast", float(np.median(found)), "sagittal stack") if found else []


def _contrast(image: npt.NDArray[np.uint16], disc: Mask, bodies: Mask, geometry: StackGeometry) -> float | None:
    left, top, width, height = cv2.boundingRect(disc.astype(np.uint8))
    down, across = (int(np.ceil(BESIDE_DISC_MM / spacing)) for spacing in geometry.spacing_mm)
    box = slice(max(top - down, 0), top + height + down), slice(max(left - across, 0), left + width + across)
    # without their edges, which show both
    inside = [image[box][cv2.erode(mask[box].astype(np.uint8), np.ones((3, 3))) > 0] for mask in (disc, bodies)]
    if min(len(values) for values in inside) < MIN_PIXELS:
        return None
    middle = [float(np.median(values)) for values in inside]
    variance = [(ROBUST_SD * np.median(np.abs(values - at))) ** 2 for values, at in zip(inside, middle, strict=True)]
    return float(abs(middle[0] - middle[1]) / np.sqrt(np.mean(variance))) if max(variance) > 0 else None


def ghost_flags(stack: ImageStack) -> list[Flag]:
    """`ghosting` where air holds a copy of the body, shifted along rows or columns.

    Sees nothing where there is no air, or where scanner software has blackened it; copies that fall on the body itself
    stay unseen."""
    share = ghost_share(stack)
    return check("ghost_share", share, f"{stack.plane} stack {stack.index}")


def ghost_share(stack: ImageStack) -> float | None:
    """Signal of the strongest copy over that of the body; 0 if none stands out, None without air.

    In air the mean of the squared magnitude is that of the ghost plus a constant from the noise (Rician second moment),
    so changes of the squared picture along an axis are compared with the same changes of the body, for all shifts at
    once: the regression slope at the best shift is the squared share of the ghost. A shift counts if its slope stands
    out from those of all shifts; smooth shading has none that does.
    """
    chosen = np.unique(np.linspace(0, len(stack.image) - 1, SLICES + 2).round().astype(int)[1:-1])
    step = [max(int(GHOST_PIXEL_MM / spacing), 1) for spacing in stack.geometry.spacing_mm]
    spacing_mm = stack.geometry.spacing_mm[0] * step[0], stack.geometry.spacing_mm[1] * step[1]
    powers = [block_reduce(stack.image[k].astype(np.float32) ** 2, tuple(step), np.mean) for k in chosen]
    seen = [(power, air) for power in powers if (air := _air(power, spacing_mm)).mean() >= MIN_AIR and power[air].any()]
    if not seen:
        return None
    return max(_along(seen), _along([(power.T, air.T) for power, air in seen]))


def _air(power: Floats32, spacing_mm: tuple[float, float]) -> Mask:
    """[row, column] outside the convex hull of the body and its halo, away from the edges of the picture."""
    body = (power > BODY_SHARE**2 * np.quantile(power, 0.95)).astype(np.uint8)
    points = cv2.findNonZero(cv2.morphologyEx(body, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)))
    if points is None:
        return np.zeros(power.shape, dtype=bool)
    hull = cv2.fillConvexPoly(np.zeros(power.shape, np.uint8), cv2.convexHull(points), 1)
    halo = [int(np.ceil(HALO_MM / spacing)) for spacing in spacing_mm]
    hull = cv2.dilate(hull, np.ones([2 * reach + 1 for reach in halo], np.uint8))
    inner = np.zeros(power.shape, dtype=bool)
    inner[halo[0] : -halo[0], halo[1] : -halo[1]] = True
    return np.asarray((hull == 0) & inner)


def _along(seen: list[tuple[Floats32, Mask]]) -> float:
    """Share of the strongest copy shifted along axis 0 of squared pictures."""
    n = len(seen[0][0])
    product, norm = np.zeros(n), np.zeros(n)
    for power, air in seen:
        change = np.diff(power / power.max(), axis=0, append=0)
        change[-1] = 0
        body = np.where(air, 0, change)
        product += _correlation(np.where(air, change, 0), body)
        norm += _correlation(air.astype(np.float32), body**2)
    near = int(np.ceil(MIN_SHIFT * n))
    product, norm = product[near : n - near], np.maximum(norm[near : n - near], 0.0)
    usable = norm > MIN_OVERLAP * norm.max(initial=0.0)
    if not usable.any():
        return 0.0
    product, norm = product[usable], norm[usable]
    evidence = product / np.sqrt(norm)
    spread = ROBUST_SD * float(np.median(np.abs(evidence - np.median(evidence))))
    best = int(np.argmax(evidence))
    return float(np.sqrt(product[best] / norm[best])) if evidence[best] > MIN_PEAK * spread else 0.0


def _correlation(one: Floats32, other: Floats32) -> Floats:
    """[shift] sum over all pixels of one(x) other(x - shift) along axis 0, around the edge."""
    product = (fft.rfft(one, axis=0) * fft.rfft(other, axis=0).conj()).sum(axis=1)
    return np.asarray(fft.irfft(product, len(one)), dtype=np.float64)
