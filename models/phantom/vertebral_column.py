"""Which tissue of the vertebral column is at a point: bodies, discs and what is inside them.

Painting functions take a `Cloud` of points and paint into `tissue` [n]; bodies and discs also return their labels.
Labels follow the way in which people outline: inside the dark cortical line, discs short of the endplate.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from models.phantom.anatomy import Anatomy
from models.phantom.bodies import Blob, Body, Disc
from models.phantom.fields import Array, Cloud, at_points, smooth_minimum
from models.phantom.posterior import paint_posterior
from models.phantom.tissues import Bytes, Tissue

BODY_INSET_MM = 1.0
DISC_INSET_MM = 0.9
"""How far a human outline lies inside the outer contour of a body, or of the gap between bodies: about a millimetre, a
working value (docs/phantom.md)."""

_CORTEX_MM = 0.8

_MOTTLED = (Tissue.MARROW, Tissue.SACRAL_MARROW)
MARROWS = (
    *_MOTTLED,
    Tissue.RED_MARROW,
    Tissue.YELLOW_MARROW,
    Tissue.FATTY_MARROW,
    Tissue.REPLACED_MARROW,
)
"""Tissues that fill a body."""


def body_depth(body: Body, local: Array) -> Array:
    """[n] approximate distance inside a body's outer contour, mm; negative outside.

    Parameters
    ----------
    local : [n, 3] coordinates along the body's own left, posterior and cranial axes, mm
    """
    u, v, w = local.T
    radial = _wall_depth(body, u, v, w)
    lower, upper = endplates(body, u, v)
    # a fused half is outlined up to the common plane, where no cortex is
    below, above = (BODY_INSET_MM * fused for fused in body.fused)
    return smooth_minimum(smooth_minimum(w - lower + below, upper + above - w, 2.5), radial, 2.5)


def endplates(body: Body, u: Array, v: Array) -> tuple[Array, Array]:
    """Heights w of the inferior and superior endplate above (u, v), mm."""
    a, b = body.width_mm / 2, body.depth_mm / 2
    slope = np.tan(body.half_wedge_rad)
    r2 = np.clip((u / a) ** 2 + ((v - 0.1 * b) / b) ** 2, 0, 1)
    h = body.height_mm / 2
    lower = -h + slope * v + body.concavity_mm[0] * (1 - r2)
    upper = h - slope * v - body.concavity_mm[1] * (1 - r2)
    return lower, upper


def _wall_depth(body: Body, u: Array, v: Array, w: Array) -> Array:
    a, b = body.width_mm / 2, body.depth_mm / 2
    t = np.clip(w / body.height_mm, -0.6, 0.6)  # -0.5 inferior, +0.5 superior
    size = (1 - body.waist * (1 - 4 * t * t)) * (1 + (body.taper - 1) * (0.5 - t))
    hollow = np.where(v > 0, 1.8 * np.clip(1 - (u / (0.5 * a)) ** 2, 0, 1), 0)  # the posterior wall is concave
    m = body.squareness
    rho = (np.abs(u / a) ** m + np.abs((v + hollow) / b) ** m) ** (1 / m) / size
    radius = np.sqrt(u * u + v * v) + 1e-3
    depth = np.where(rho > 0.05, (1 / np.maximum(rho, 0.05) - 1) * radius, b)
    return np.asarray(depth + _overhang(body, u, v, w), dtype=np.float32)


def _overhang(body: Body, u: Array, v: Array, w: Array) -> Array:
    """How far osteophytes carry the wall outwards near each rim, mm; they fade over 2.5 mm and to the sides."""
    total = np.zeros_like(w)
    for mm, front, top in zip(body.osteophyte_mm, (-1, -1, 1, 1), (-1, 1, -1, 1), strict=True):
        if mm > 0:
            facing = np.clip(front * v / (body.depth_mm / 2), 0, 1) ** 2
            total += mm * facing * np.exp(-(((w - top * body.wall_height_mm(front) / 2) / 2.5) ** 2))
    return total


def paint_column(anatomy: Anatomy, cloud: Cloud, tissue: Bytes) -> tuple[Bytes, Bytes]:
    """Paint the column over soft tissue.

    Returns
    -------
    body, disc : [n] uint8, 1 + index into `anatomy.bodies` / `anatomy.discs` inside the outline a person would draw,
    else 0
    """
    paint_posterior(anatomy, cloud, tissue)
    return _paint_bodies_and_discs(anatomy, cloud, tissue)


def column_labels(anatomy: Anatomy, points: Array) -> tuple[Bytes, Bytes]:
    """Body and disc labels [n] at points [n, 3] (LPS mm), as `paint_column` gives them: without the soft tissue and
    the arches, which do not change them, at a fraction of the time."""
    return _paint_bodies_and_discs(anatomy, Cloud(points), np.zeros(len(points), np.uint8))


def _paint_bodies_and_discs(anatomy: Anatomy, cloud: Cloud, tissue: Bytes) -> tuple[Bytes, Bytes]:
    body_label = np.zeros(len(cloud.points), np.uint8)
    disc_label = np.zeros(len(cloud.points), np.uint8)
    for k, disc in enumerate(anatomy.discs):
        _paint_disc(anatomy, disc, cloud, tissue, disc_label, k + 1)
    _paint_sacral_gaps(anatomy, cloud, tissue)
    _paint_bodies(anatomy, cloud, tissue, body_label)
    inside = (*MARROWS, Tissue.CORTEX, Tissue.OEDEMA, Tissue.SCLEROSIS)
    for blob in anatomy.marrow_blobs:
        painted = paint_blob(blob, cloud, tissue, only=inside)
        if blob.unlabelled:
            body_label[painted] = 0
    for blob in anatomy.implants:
        painted = paint_blob(blob, cloud, tissue, only=tuple(Tissue))
        if blob.unlabelled:
            body_label[painted], disc_label[painted] = 0, 0
    return body_label, disc_label


def _paint_bodies(anatomy: Anatomy, cloud: Cloud, tissue: Bytes, label: Bytes) -> None:
    """Cortex of all bodies first, so that none lies between the halves of a block vertebra."""
    near = []
    for k, body in enumerate(anatomy.bodies):
        index = cloud.near(body.centre, 0.75 * max(body.width_mm, body.depth_mm))
        if len(index):
            depth = body_depth(body, body.to_local(cloud.points[index]))
            tissue[index[depth > 0]] = Tissue.CORTEX
            near.append((k, body, index, depth))
    for k, body, index, depth in near:
        marrow = index[depth > _CORTEX_MM]
        tissue[marrow] = body.marrow
        if body.marrow in _MOTTLED:
            _mottle(anatomy, cloud, tissue, marrow)
        inside = index[depth > BODY_INSET_MM]
        label[inside[label[inside] == 0]] = k + 1


def _mottle(anatomy: Anatomy, cloud: Cloud, tissue: Bytes, marrow: npt.NDArray[np.intp]) -> None:
    """Patches of redder and yellower marrow."""
    red, yellow = anatomy.mottle
    if red + yellow == 0:
        return
    noise = at_points(anatomy.marrow_noise, cloud.points[marrow], (1.6, 1.6, 1.6))
    tissue[marrow[noise < ndtri(red)]] = Tissue.RED_MARROW
    tissue[marrow[noise > ndtri(1 - yellow)]] = Tissue.YELLOW_MARROW


def disc_depth(anatomy: Anatomy, disc: Disc, points: Array) -> tuple[Array, Array]:
    """[n] distance inside the disc's outer contour (mm, negative outside), and [n, 3] coordinates in the disc's
    frame."""
    lower, upper = anatomy.bodies[disc.lower], anatomy.bodies[disc.upper]
    ul, vl, wl = lower.to_local(points).T
    uu, vu, wu = upper.to_local(points).T
    above_lower = wl - endplates(lower, ul, vl)[1]
    below_upper = endplates(upper, uu, vu)[0] - wu
    u, v = (ul + uu) / 2, (vl + vu) / 2
    taper = 0.5 * (lower.depth_mm + upper.depth_mm * upper.taper)
    b = taper / 2 + np.where(v > 0, disc.bulge_mm[1], disc.bulge_mm[0])
    a = (lower.width_mm + upper.width_mm) / 4 + 0.5
    rho = ((np.abs(u / a)) ** 2.4 + np.abs(v / b) ** 2.4) ** (1 / 2.4)
    radius = np.sqrt(u * u + v * v) + 1e-3
    radial = np.where(rho > 0.05, (1 / np.maximum(rho, 0.05) - 1) * radius, taper / 2)
    depth = smooth_minimum(np.minimum(above_lower, below_upper), radial.astype(np.float32), 2.0)
    gap = above_lower + below_upper
    height = np.where(gap > 0.1, (above_lower - below_upper) / np.maximum(gap, 0.1), 0)
    return depth, np.stack([u / a, v / b, height], axis=1).astype(np.float32)


def disc_centre(anatomy: Anatomy, disc: Disc) -> npt.NDArray[np.float64]:
    """[3] middle between the two endplate centres, LPS mm."""
    lower, upper = anatomy.bodies[disc.lower], anatomy.bodies[disc.upper]
    return np.asarray((lower.endplate_centre(+1) + upper.endplate_centre(-1)) / 2)


def _paint_disc(anatomy: Anatomy, disc: Disc, cloud: Cloud, tissue: Bytes, label: Bytes, value: int) -> None:
    index = cloud.near(disc_centre(anatomy, disc), 0.7 * anatomy.bodies[disc.lower].width_mm)
    if not len(index):
        return
    depth, frame = disc_depth(anatomy, disc, cloud.points[index])
    tissue[index[depth > 0]] = Tissue.ANNULUS
    if disc.nucleus > 0:
        core = (frame[:, 0] ** 2 + (frame[:, 1] - 0.08) ** 2) / disc.nucleus**2 + (frame[:, 2] / 0.9) ** 2 < 1
        tissue[index[core & (depth > 0.5)]] = Tissue.NUCLEUS
        if disc.cleft:
            tissue[index[core & (np.abs(frame[:, 2]) < 0.12) & (depth > 0.5)]] = Tissue.CLEFT
    if disc.vacuum:
        gas = (frame[:, 0] / 0.7) ** 2 + (frame[:, 1] / 0.6) ** 2 < 1
        tissue[index[gas & (np.abs(frame[:, 2]) < 0.35) & (depth > 0.3)]] = Tissue.GAS
    label[index[depth > DISC_INSET_MM]] = value


def _paint_sacral_gaps(anatomy: Anatomy, cloud: Cloud, tissue: Bytes) -> None:
    """Rudimentary discs between sacral segments: never labelled as discs."""
    for k in range(anatomy.first_mobile - 1):
        gap = Disc("sacral", lower=k, upper=k + 1, bulge_mm=(-0.5, -0.5), nucleus=0.0, cleft=False)
        index = cloud.near(disc_centre(anatomy, gap), 30.0)
        if len(index):
            depth, _ = disc_depth(anatomy, gap, cloud.points[index])
            tissue[index[depth > 0]] = Tissue.ANNULUS if k == anatomy.first_mobile - 2 else Tissue.CORTEX


def paint_blob(blob: Blob, cloud: Cloud, tissue: Bytes, *, only: tuple[Tissue, ...]) -> npt.NDArray[np.intp]:
    """Paint an ellipsoid where the tissue underneath is one of `only`; returns the indices of the painted points."""
    index = cloud.near(blob.centre, float(blob.radii_mm.max()) * (1.0 if blob.power == 2 else 1.4))
    if not len(index):
        return index
    local = (cloud.points[index] - blob.centre.astype(np.float32)) @ blob.axes.T.astype(np.float32)
    inside = (np.abs(local / blob.radii_mm.astype(np.float32)) ** blob.power).sum(axis=1) < 1
    inside &= np.isin(tissue[index], only)
    tissue[index[inside]] = blob.tissue
    return np.asarray(index[inside])
