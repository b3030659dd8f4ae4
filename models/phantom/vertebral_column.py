"""Which tissue of the vertebral column is at a point: bodies, discs, canal, posterior elements, sacrum.

Painting functions take a `Cloud` of points and paint into `tissue` [n]; bodies and discs also return their labels.
Labels follow the way in which people outline: inside the dark cortical line, discs short of the endplate.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.phantom.anatomy import Anatomy, Blob, Body, Disc
from models.phantom.fields import Array, Cloud, capsule, smooth_minimum
from models.phantom.tissues import Tissue

Bytes = npt.NDArray[np.uint8]

BODY_INSET_MM = 1.0
DISC_INSET_MM = 0.9
"""How far a human outline lies inside the outer contour of a body, or of the gap between bodies: about a millimetre, a
working value (docs/phantom.md)."""

_CORTEX_MM = 0.8


def body_depth(body: Body, local: Array) -> Array:
    """[n] approximate distance inside a body's outer contour, mm; negative outside.

    Parameters
    ----------
    local : [n, 3] coordinates along the body's own left, posterior and cranial axes, mm
    """
    u, v, w = local.T
    radial = _wall_depth(body, u, v, w)
    lower, upper = endplates(body, u, v)
    return smooth_minimum(smooth_minimum(w - lower, upper - w, 2.5), radial, 2.5)


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
    return np.asarray(np.where(rho > 0.05, (1 / np.maximum(rho, 0.05) - 1) * radius, b), dtype=np.float32)


def to_local(body: Body, points: Array) -> Array:
    """[n, 3] coordinates of LPS points in the body's frame, mm."""
    return (points - body.centre.astype(np.float32)) @ body.axes.T.astype(np.float32)


def paint_column(anatomy: Anatomy, cloud: Cloud, tissue: Bytes) -> tuple[Bytes, Bytes]:
    """Paint the column over soft tissue.

    Returns
    -------
    body, disc : [n] uint8, 1 + index into `anatomy.bodies` / `anatomy.discs` inside the outline a person would draw,
    else 0
    """
    body_label = np.zeros(len(cloud.points), np.uint8)
    disc_label = np.zeros(len(cloud.points), np.uint8)
    _paint_canal(anatomy, cloud, tissue)
    for body in anatomy.bodies:
        if body.sacral:
            _paint_ala(body, cloud, tissue)
        else:
            _paint_posterior_elements(anatomy, body, cloud, tissue)
    for k, disc in enumerate(anatomy.discs):
        _paint_disc(anatomy, disc, cloud, tissue, disc_label, k + 1)
    _paint_sacral_gaps(anatomy, cloud, tissue)
    for k, body in enumerate(anatomy.bodies):
        _paint_body(body, cloud, tissue, body_label, k + 1)
    for blob in anatomy.marrow_blobs:
        paint_blob(blob, cloud, tissue, only=(Tissue.MARROW, Tissue.CORTEX))
    return body_label, disc_label


def _paint_body(body: Body, cloud: Cloud, tissue: Bytes, label: Bytes, value: int) -> None:
    index = cloud.near(body.centre, 0.75 * max(body.width_mm, body.depth_mm))
    if not len(index):
        return
    depth = body_depth(body, to_local(body, cloud.points[index]))
    marrow = Tissue.SACRAL_MARROW if body.sacral else Tissue.MARROW
    tissue[index[depth > 0]] = Tissue.CORTEX
    tissue[index[depth > _CORTEX_MM]] = marrow
    label[index[depth > BODY_INSET_MM]] = value


def disc_depth(anatomy: Anatomy, disc: Disc, points: Array) -> tuple[Array, Array]:
    """[n] distance inside the disc's outer contour (mm, negative outside), and [n, 3] coordinates in the disc's
    frame."""
    lower, upper = anatomy.bodies[disc.lower], anatomy.bodies[disc.upper]
    ul, vl, wl = to_local(lower, points).T
    uu, vu, wu = to_local(upper, points).T
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
    label[index[depth > DISC_INSET_MM]] = value


def _paint_sacral_gaps(anatomy: Anatomy, cloud: Cloud, tissue: Bytes) -> None:
    """Rudimentary discs between sacral segments: never labelled as discs."""
    for k in range(anatomy.first_mobile - 1):
        gap = Disc("sacral", lower=k, upper=k + 1, bulge_mm=(-0.5, -0.5), nucleus=0.0, cleft=False)
        index = cloud.near(disc_centre(anatomy, gap), 30.0)
        if len(index):
            depth, _ = disc_depth(anatomy, gap, cloud.points[index])
            tissue[index[depth > 0]] = Tissue.ANNULUS if k == anatomy.first_mobile - 2 else Tissue.CORTEX


def paint_blob(blob: Blob, cloud: Cloud, tissue: Bytes, *, only: tuple[Tissue, ...]) -> None:
    """Paint an ellipsoid where the tissue underneath is one of `only`."""
    index = cloud.near(blob.centre, float(blob.radii_mm.max()))
    if not len(index):
        return
    local = (cloud.points[index] - blob.centre.astype(np.float32)) @ blob.axes.T.astype(np.float32)
    inside = ((local / blob.radii_mm.astype(np.float32)) ** 2).sum(axis=1) < 1
    inside &= np.isin(tissue[index], only)
    tissue[index[inside]] = blob.tissue


def posterior_wall(anatomy: Anatomy) -> npt.NDArray[np.float64]:
    """[m, 3] points down the midline of the bodies' posterior walls, cranial first, LPS mm."""
    wall = []
    for body in anatomy.bodies:
        for side in (-1, 1):
            reach = body.depth_mm / 2 * (body.taper if side < 0 else 1.0)
            wall.append(body.endplate_centre(side) + reach * body.axes[1])
    return np.array(wall[::-1])


def _paint_canal(anatomy: Anatomy, cloud: Cloud, tissue: Bytes) -> None:
    """Epidural fat, thecal sac, cord above the conus and roots below it, in horizontal cross-sections."""
    points = cloud.points
    wall = posterior_wall(anatomy)
    wall = wall[np.argsort(wall[:, 2])]
    x0, y0 = (np.interp(points[:, 2], wall[:, 2], wall[:, k]) for k in (0, 1))
    scale = anatomy.scale
    x, y = points[:, 0] - x0, points[:, 1] - y0
    index = np.nonzero((np.abs(x) < 15 * scale) & (y > -3) & (y < 26 * scale))[0]
    if not len(index):
        return
    x, y, z = x[index], y[index], points[index, 2]
    depth = np.interp(z, [-90, -45, 0, 200], [3, 9, 16.5, 16.5]) * scale
    half = np.interp(z, [-90, 0, 200], [5, 13, 11.5]) * scale
    canal = (np.abs(x) / half) ** 2.2 + (np.abs(y - depth / 2) / (depth / 2 + 2.5)) ** 2.2 < 1
    tissue[index[canal]] = Tissue.EPIDURAL_FAT
    gap = np.interp(z, [-60, 0, 60], [4.0, 2.0, 0.6]) * scale
    sac_depth = np.maximum(depth - gap, 1.0)
    sac = (x / (half * 0.88)) ** 2 + ((y - gap - sac_depth / 2) / (sac_depth / 2)) ** 2 < 1
    sac &= z > anatomy.sac_end_z_mm
    tissue[index[sac]] = Tissue.CSF
    rng = np.random.default_rng([anatomy.seed, 3])
    cord_y = gap + sac_depth * rng.uniform(0.4, 0.55)
    cord = (x / (4.8 * scale)) ** 2 + ((y - cord_y) / (4.2 * scale)) ** 2 < 1
    cord &= z > anatomy.conus_z_mm
    tissue[index[cord]] = Tissue.CORD
    for _ in range(int(rng.integers(6, 16))):  # cauda equina: strands in the posterior half of the sac
        sx, sy, radius = rng.normal(0, 0.35), rng.uniform(0.35, 0.9), rng.uniform(0.6, 1.3)
        strand = (x - sx * half * 0.8) ** 2 + (y - gap - sy * sac_depth) ** 2 < radius**2
        tissue[index[strand & sac & (z <= anatomy.conus_z_mm + 15)]] = Tissue.ROOTS
    ligament = (np.abs(y - 0.2) < rng.uniform(0.3, 0.8)) & (np.abs(x) < 6)
    tissue[index[ligament]] = Tissue.LIGAMENT


def _paint_bone(
    index: npt.NDArray[np.intp], local: Array, shape: tuple[npt.ArrayLike, npt.ArrayLike], tissue: Bytes
) -> None:
    ends, radii = shape
    distance = capsule(local, ends, radii)
    tissue[index[distance < 1]] = Tissue.CORTEX
    tissue[index[distance < 1 - 0.9 / float(np.asarray(radii).mean())]] = Tissue.POSTERIOR_MARROW


def _paint_posterior_elements(anatomy: Anatomy, body: Body, cloud: Cloud, tissue: Bytes) -> None:
    """Pedicles, articular and transverse processes, laminae, spinous process, and what lies between the spines.

    Sizes after the lumbar morphometry summarised in docs/phantom.md (spinous process 28 x 18 to 24 x 14 mm, lamina 6-8
    mm thick, pedicle 7.5-16 mm wide and 13-15.5 mm high).
    """
    b, h = body.depth_mm / 2, body.height_mm
    index = cloud.near(body.centre + np.array([0, 38.0, -8]), 62.0)
    if not len(index):
        return
    rng = np.random.default_rng([anatomy.seed, 4, abs(round(float(body.centre[2])))])
    local = to_local(body, cloud.points[index])
    inner = np.abs(local[:, 0]) < 45
    index, local = index[inner], local[inner]
    s = anatomy.scale
    low = 1.25 if body.name in ("L5", "L6") else 1.0
    spine = (rng.normal(30, 3) / low**1.5) * s
    droop = rng.normal(0.22, 0.1)
    start = np.array([0, b + 20 * s, -0.25 * h])
    tip = start + spine * np.array([rng.normal(0, 0.05), np.cos(droop), -np.sin(droop)])
    between = np.array([[0, b + 22 * s, 0.45 * h], [0, b + 40 * s, 0.35 * h]])
    filler = int(rng.choice([Tissue.INTERSPINOUS, Tissue.EPIDURAL_FAT, Tissue.MUSCLE], p=[0.6, 0.25, 0.15]))
    tissue[index[capsule(local, between, (3.5, 8, 9)) < 1]] = filler
    fat_pad = np.array([[0, b + 17 * s, 0.35 * h], [0, b + 19 * s, 0.15 * h]])
    tissue[index[capsule(local, fat_pad, (6, rng.uniform(2.5, 5), 7)) < 1]] = Tissue.EPIDURAL_FAT
    for side in (-1, 1):
        x_pedicle = side * body.width_mm * 0.31 * low
        foramen = np.array([[x_pedicle, b + 5, -0.5 * h], [x_pedicle, b + 7, -0.6 * h]])
        tissue[index[capsule(local, foramen, (7, 5, 8)) < 1]] = Tissue.EPIDURAL_FAT
        tissue[index[capsule(local, foramen, (3, 2.5, 2.5)) < 1]] = Tissue.ROOTS
        for shape in _arch(b, h, x_pedicle, side, low, s):
            _paint_bone(index, local, shape, tissue)
    if rng.random() < 0.9:
        _paint_bone(index, local, (np.array([start, tip]), (3.2 * s, 7 * s, 8.5 * s / low)), tissue)


def _arch(b: float, h: float, x: float, side: int, low: float, s: float) -> list[tuple[npt.ArrayLike, npt.ArrayLike]]:
    """Capsules (ends, radii) of one side of the neural arch in the body's frame, mm."""
    return [
        ([[x * 0.95, b - 3, 0.22 * h], [x, b + 9, 0.2 * h]], (4.2 * low * s, 5, 7.2 * s)),  # pedicle
        ([[x * 1.05, b + 15, 0.6 * h], [x * 1.0, b + 15, -0.1 * h]], (5.5 * s, 5.5 * s, 7 * s)),  # superior articular
        ([[x * 0.85, b + 17, -0.2 * h], [x * 0.85, b + 20, -0.75 * h]], (5.5 * s, 5 * s, 7 * s)),  # inferior articular
        ([[x * 0.8, b + 15, -0.05 * h], [side * 2.0, b + 22, -0.3 * h]], (4.0, 3.6 * s, 8.5 * s)),  # lamina
        ([[x * 1.1, b + 9, 0.2 * h], [side * (abs(x) + 24 * s), b + 15, 0.25 * h]], (4, 3.6, 4.8)),  # transverse
    ]


def _paint_ala(body: Body, cloud: Cloud, tissue: Bytes) -> None:
    """Sacral ala and posterior sacral wall beside a segment."""
    if body.name not in ("S1", "S2", "S3"):
        return
    index = cloud.near(body.centre, 62.0)
    if not len(index):
        return
    local = to_local(body, cloud.points[index])
    b, h = body.depth_mm / 2, body.height_mm
    reach = {"S1": 50.0, "S2": 44.0, "S3": 32.0}[body.name]
    for side in (-1, 1):
        wing = ([[side * 14, 2, 0.05 * h], [side * (reach - 12), b * 0.7, -0.1 * h]], (12, b * 0.75, h * 0.55))
        _paint_bone(index, local, wing, tissue)
        crest = ([[side * 14, b + 12, 0.2 * h], [side * 3, b + 19, -0.2 * h]], (5, 4, h * 0.5))
        _paint_bone(index, local, crest, tissue)
