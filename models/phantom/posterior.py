"""Which tissue is behind and beside the bodies: canal, neural arches, ribs, sacral canal, wall and wings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.phantom.anatomy import Anatomy
from models.phantom.bodies import Body
from models.phantom.fields import Array, Cloud, capsule
from models.phantom.tissues import Bytes, Tissue

_Capsule = tuple[npt.ArrayLike, tuple[float, float, float]]
"""Ends [2, 3] and radii [3], mm, in a body's frame."""

_Part = tuple[npt.NDArray[np.intp], Array, float]
"""Points, their normalised distance from a capsule's axis, and the capsule's mean radius in mm."""


def paint_posterior(anatomy: Anatomy, cloud: Cloud, tissue: Bytes) -> None:
    """Paint everything of the column but bodies and discs over soft tissue."""
    _paint_canal(anatomy, cloud, tissue)
    for body in anatomy.bodies[anatomy.first_mobile :]:
        _paint_posterior_elements(anatomy, body, cloud, tissue)
    sacrum = anatomy.bodies[: anatomy.first_mobile]
    _paint_bone([part for body in sacrum for part in _sacral_arch(anatomy, body, cloud)], tissue)
    for body in sacrum[1:]:
        _paint_sacral_foramina(anatomy, body, cloud, tissue)
    for body, below in zip(sacrum[1:], sacrum, strict=False):
        _paint_sacral_canal(anatomy, body, below, cloud, tissue)


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
    s1 = anatomy.bodies[anatomy.first_mobile - 1]
    lowest = s1.at(0, s1.depth_mm / 2, s1.height_mm / 2)[2] - 6.0  # below, the sacral canal follows the segments
    wall = wall[np.argsort(wall[:, 2])]
    x0, y0 = (np.interp(points[:, 2], wall[:, 2], wall[:, k]) for k in (0, 1))
    scale = anatomy.scale
    x, y = points[:, 0] - x0, points[:, 1] - y0
    index = np.nonzero((np.abs(x) < 15 * scale) & (y > -3) & (y < 26 * scale) & (points[:, 2] > lowest))[0]
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


def _parts(index: npt.NDArray[np.intp], local: Array, shapes: Sequence[_Capsule]) -> list[_Part]:
    return [(index, capsule(local, ends, radii), float(np.mean(radii))) for ends, radii in shapes]


def _paint_bone(parts: Sequence[_Part], tissue: Bytes) -> None:
    """One bone made of capsules: cortex of all of them first, so that none lies where they join."""
    for index, distance, _ in parts:
        tissue[index[distance < 1]] = Tissue.CORTEX
    for index, distance, radius in parts:
        tissue[index[distance < 1 - 0.9 / radius]] = Tissue.POSTERIOR_MARROW


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
    local = body.to_local(cloud.points[index])
    inner = np.abs(local[:, 0]) < 55
    index, local = index[inner], local[inner]
    s = anatomy.scale
    operated = any(f.kind == "metal" and body.name in f.level.split("-") for f in anatomy.findings)
    sacralised = any(f.kind == "sacralised_l5" for f in anatomy.findings)
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
        bone = [*_arch(b, h, x_pedicle, side, low, s), *_rib(body, side)]
        if low > 1 and sacralised:
            bone.append(([[side * 16, b * 0.3, 0], [side * 44, b * 0.8, -0.45 * h]], (9, 11, 9)))
        _paint_bone(_parts(index, local, bone), tissue)
        joint = ([[x_pedicle * 1.0, b + 13.5, -0.45 * h], [x_pedicle * 0.95, b + 20, -0.62 * h]], (4, 1.0, 6))
        tissue[index[capsule(local, *joint) < 1]] = Tissue.CORTEX
    if rng.random() < 0.93 and not operated:
        neck, tall = start + 0.45 * (tip - start), rng.uniform(6.5, 9.5) * s / low
        root: _Capsule = (np.stack([start, tip]), (3.0 * s, 6 * s, 0.8 * tall))
        end: _Capsule = (np.stack([neck, tip]), (3.8 * s, rng.uniform(4, 8) * s, tall))
        _paint_bone(_parts(index, local, [root, end]), tissue)


def _arch(b: float, h: float, x: float, side: int, low: float, s: float) -> list[_Capsule]:
    """Capsules (ends, radii) of one side of the neural arch in the body's frame, mm."""
    return [
        ([[x * 0.95, b - 3, 0.22 * h], [x, b + 9, 0.2 * h]], (4.2 * low * s, 5, 7.2 * s)),  # pedicle
        ([[x * 1.05, b + 15, 0.6 * h], [x * 1.0, b + 15, -0.1 * h]], (5.5 * s, 5.5 * s, 7 * s)),  # superior articular
        ([[x * 0.85, b + 17, -0.2 * h], [x * 0.85, b + 20, -0.75 * h]], (5.5 * s, 5 * s, 7 * s)),  # inferior articular
        ([[x * 0.8, b + 15, -0.05 * h], [side * 2.0, b + 22, -0.3 * h]], (4.0, 3.6 * s, 8.5 * s)),  # lamina
        ([[x * 1.1, b + 9, 0.2 * h], [side * (abs(x) + 24 * s), b + 15, 0.25 * h]], (4, 3.6, 4.8)),  # transverse
    ]


def _rib(body: Body, side: int) -> list[_Capsule]:
    """Head and neck of the rib at the upper posterior corner of a thoracic body, then its shaft outwards and down."""
    if not body.name.startswith("T"):
        return []
    x, b, h = side * body.width_mm / 2, body.depth_mm / 2, body.height_mm
    neck = [x + side * 24, b + 14, 0.2 * h]
    return [
        ([[x * 0.98, b - 5, 0.38 * h], neck], (4.5, 4.0, 5.5)),
        ([neck, [x + side * 34, b + 12, -0.3 * h]], (3.5, 4.0, 6.5)),
    ]


_SACRAL_REACH_MM = {"S1": 50.0, "S2": 44.0, "S3": 32.0, "S4": 24.0, "S5": 16.0}
_SACRAL_CANAL_MM = {"S1": (14.0, 15.0), "S2": (11.0, 12.0), "S3": (8.0, 8.5), "S4": (6.0, 6.0), "S5": (4.0, 3.0)}
"""Half width and depth of the canal behind each segment; working values."""


def _sacral_arch(anatomy: Anatomy, body: Body, cloud: Cloud) -> list[_Part]:
    """Wings, posterior wall and median crest of a segment; those of all segments are one bone."""
    index = cloud.near(body.centre, 62.0)
    if not len(index):
        return []
    rng = np.random.default_rng([anatomy.seed, 14, int(body.name[1])])
    b, h, reach = body.depth_mm / 2, body.height_mm, _SACRAL_REACH_MM[body.name] * anatomy.scale
    half, depth = (mm * anatomy.scale for mm in _SACRAL_CANAL_MM[body.name])
    wall = float(b + depth + rng.uniform(1.0, 2.5))
    shapes: list[_Capsule] = []
    for side in (-1, 1):
        side_wall: _Capsule = ([[side * half * 1.1, b + 0.4 * depth, 0], [side * half * 1.1, wall, 0]], (6, 4, h * 0.6))
        ends = np.array([[14 * side, 1, 0], [side * max(reach - 12, 15), b * 0.8, -0.15 * h]])
        wing: _Capsule = (ends, (12, b * 0.85, h * 0.68))
        shapes += [wing, side_wall]
    if rng.random() < (0.85 if body.name == "S1" else 0.95):
        shapes.append(([[-half, wall, 0], [half, wall, 0]], (3, rng.uniform(2.2, 3.5), h * rng.uniform(0.45, 0.7))))
        tip = wall + rng.uniform(2, 7)
        shapes.append(([[0, wall, 0], [0, tip, -0.2 * h]], (2.5, 3.0, h * rng.uniform(0.25, 0.45))))
    return _parts(index, body.to_local(cloud.points[index]), shapes)


def _paint_sacral_foramina(anatomy: Anatomy, body: Body, cloud: Cloud, tissue: Bytes) -> None:
    """A pair of foramina with root and fat below a segment."""
    index = cloud.near(body.centre, 40.0)
    if not len(index):
        return
    rng = np.random.default_rng([anatomy.seed, 16, int(body.name[1])])
    local, b, h = body.to_local(cloud.points[index]), body.depth_mm / 2, body.height_mm
    depth = _SACRAL_CANAL_MM[body.name][1] * anatomy.scale
    for side in (-1, 1):
        x, width = side * (0.3 * body.width_mm + 3), rng.uniform(3, 5.5) * anatomy.scale
        foramen = [[x, -b, -0.55 * h], [x * 0.9, b + 0.4 * depth, -0.5 * h]]
        tissue[index[capsule(local, foramen, (width, 3, 0.8 * width)) < 1]] = Tissue.EPIDURAL_FAT
        tissue[index[capsule(local, foramen, (0.5 * width, 2, 0.45 * width)) < 1]] = Tissue.ROOTS


def _paint_sacral_canal(anatomy: Anatomy, body: Body, below: Body, cloud: Cloud, tissue: Bytes) -> None:
    """Fat, and sac with roots down to its end, from the upper edge of a segment to the middle of the next."""
    index = cloud.near(body.centre, 62.0)
    if not len(index):
        return
    rng = np.random.default_rng([anatomy.seed, 15, int(body.name[1])])
    local = body.to_local(cloud.points[index])
    half, depth = (mm * anatomy.scale for mm in _SACRAL_CANAL_MM[body.name])
    b, h = body.depth_mm / 2, body.height_mm
    target = below.at(0, below.depth_mm / 2 + _SACRAL_CANAL_MM[below.name][1] * anatomy.scale / 2, 0)
    start, end = np.array([0, b + depth / 2, 0.5 * h]), body.to_local(target[None].astype(np.float32))[0]
    canal, radii = np.stack([start, end]), np.array([half, depth / 2 + 0.5, 3.0])
    tissue[index[capsule(local, canal, radii) < 1]] = Tissue.EPIDURAL_FAT
    within = cloud.points[index, 2] > anatomy.sac_end_z_mm
    sac = (capsule(local, canal, radii * [0.75, rng.uniform(0.5, 0.75), 1.0]) < 1) & within
    tissue[index[sac]] = Tissue.CSF
    for _ in range(3):
        shift = np.array([half * rng.uniform(-0.5, 0.5), rng.uniform(-0.2, 0.4) * depth, 0])
        tissue[index[(capsule(local, canal + shift, (1.0, 0.9, 1.0)) < 1) & sac]] = Tissue.ROOTS
