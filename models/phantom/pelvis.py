"""What lies in front of and beside the sacrum: fat, rectum, uterus, bladder, crossing vessels, iliac wings.

None of it is labelled. Much of it has the size and the signal of a vertebral body or the shape of a disc on purpose:
networks that have not seen such clutter outline bodies and discs in the pelvis. All sizes are working values.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.phantom.anatomy import Anatomy
from models.phantom.bodies import Blob, Body, Floats
from models.phantom.fields import Array
from models.phantom.tissues import Bytes, Tissue

_BODY_LIKE = (
    Tissue.STOOL,
    Tissue.MYOMETRIUM,
    Tissue.SOLID_ORGAN,
    Tissue.MUSCLE,
    Tissue.YELLOW_MARROW,
    Tissue.MARROW,
)
_DISC_LIKE = (Tissue.VESSEL, Tissue.MUSCLE, Tissue.BOWEL, Tissue.ANNULUS, Tissue.GAS)


def draw_pelvis(anatomy: Anatomy) -> tuple[Blob, ...]:
    """Organs of the pelvis in the order in which they are painted."""
    rng = np.random.default_rng([anatomy.seed, 12])
    segments = anatomy.bodies[: anatomy.first_mobile][::-1]
    blobs = [_fat_pad(rng, segment) for segment in segments]
    blobs += _bladder_and_genitals(rng, segments, anatomy.sex)
    blobs += _loops(rng, segments)
    if rng.random() < 0.6:
        blobs += _stack(rng, segments)
    if rng.random() < 0.85:
        blobs += _rectum(rng, segments)
    blobs += _flat_shapes(rng, segments)
    return (*blobs, *_crossing_vessels(rng, anatomy))


def paint_presacral_space(anatomy: Anatomy, points: Array, tissue: Bytes) -> None:
    """Carry the cavity back to the anterior surface of the sacrum, in place of muscle and fat."""
    segments = anatomy.bodies[: anatomy.first_mobile]
    surface = np.array([segment.at(0, -segment.depth_mm / 2, 0) for segment in segments])
    surface = surface[np.argsort(surface[:, 2])]
    space = (points[:, 2] < surface[-1, 2]) & (np.abs(points[:, 0]) < 55) & (tissue != Tissue.VISCERAL_FAT)
    index = np.nonzero(space & np.isin(tissue, (Tissue.MUSCLE, Tissue.MUSCLE_FAT)))[0]
    wall = np.interp(points[index, 2], surface[:, 2], surface[:, 1])
    depth = wall - points[index, 1]
    tissue[index[(depth > 0) & (depth < 80)]] = Tissue.VISCERAL_FAT


def _fat_pad(rng: np.random.Generator, segment: Body) -> Blob:
    where = segment.at(0, -segment.depth_mm / 2 - 4, 0)
    radii = np.array([40.0, rng.uniform(6, 16), segment.height_mm * 0.75])
    return Blob(int(Tissue.VISCERAL_FAT), where, radii, segment.axes)


def _before(rng: np.random.Generator, segments: tuple[Body, ...], low: float, high: float) -> Floats:
    """A point `low` to `high` mm in front of a random segment, near the midline."""
    segment = segments[int(rng.integers(0, len(segments)))]
    forward = segment.depth_mm / 2 + rng.uniform(low, high)
    return segment.at(rng.normal(0, 14), -forward, rng.uniform(-0.7, 0.7) * segment.height_mm)


def _turned(rng: np.random.Generator) -> Floats:
    return np.asarray(np.linalg.qr(np.eye(3) + rng.normal(0, 0.4, (3, 3)))[0])


def _filled(
    rng: np.random.Generator, where: Floats, radii: npt.ArrayLike, axes: Floats, fill: Tissue, power: float = 2.0
) -> list[Blob]:
    """A hollow organ: a dark wall of 1-3 mm around its contents."""
    size = np.asarray(radii, dtype=float)
    wall = Blob(int(Tissue.BOWEL), where, size, axes, power)
    return [wall, Blob(int(fill), where, np.maximum(size - rng.uniform(1, 3), 1.0), axes, power)]


def _bladder_and_genitals(rng: np.random.Generator, segments: tuple[Body, ...], sex: str) -> list[Blob]:
    blobs = []
    middle = segments[2].centre
    if rng.random() < 0.8:
        where = middle + np.array([rng.normal(0, 6), -rng.uniform(70, 110), -rng.uniform(15, 55)])
        blobs += _filled(rng, where, rng.uniform(16, 40, 3), np.eye(3), Tissue.FLUID)
    where = middle + np.array([rng.normal(0, 8), -rng.uniform(30, 65), -rng.uniform(-5, 45)])
    if sex == "F" and rng.random() < 0.8:
        axes, radii = _turned(rng), np.array([rng.uniform(18, 30), rng.uniform(14, 24), rng.uniform(22, 40)])
        blobs += [Blob(int(Tissue.MYOMETRIUM), where, radii, axes)]
        blobs += [Blob(int(Tissue.FLUID), where, radii * [0.6, 0.12, 0.6], axes)]
    elif sex == "M" and rng.random() < 0.6:
        blobs.append(Blob(int(Tissue.MUSCLE), where - np.array([0, 10, 40]), rng.uniform(14, 24, 3), np.eye(3)))
    return blobs


def _loops(rng: np.random.Generator, segments: tuple[Body, ...]) -> list[Blob]:
    """Bowel loops that reach down to the sacrum."""
    blobs = []
    fills = [Tissue.BOWEL, Tissue.GAS, Tissue.FLUID, Tissue.STOOL, Tissue.VISCERAL_FAT]
    for _ in range(int(rng.integers(3, 30))):
        radii = rng.lognormal(np.log(10), 0.4) * rng.uniform(0.7, 1.3, 3)
        fill = Tissue(int(rng.choice(fills, p=[0.35, 0.15, 0.1, 0.25, 0.15])))
        blobs += _filled(rng, _before(rng, segments, 14, 80), radii, _turned(rng), fill)
    return blobs


def _rectum(rng: np.random.Generator, segments: tuple[Body, ...]) -> list[Blob]:
    """Rectum and sigmoid along the hollow of the sacrum, filled in part."""
    blobs, lowest = [], segments[-1]
    fill = Tissue(int(rng.choice([Tissue.STOOL, Tissue.GAS, Tissue.BOWEL], p=[0.5, 0.25, 0.25])))
    gap, x = rng.uniform(6, 22), rng.normal(0, 7)
    places = [segment.at(x, -segment.depth_mm / 2 - gap, 0) for segment in segments[2:]]
    places += [lowest.at(x, -gap, -rng.uniform(12, 25)), lowest.at(x, -gap - 10, -rng.uniform(30, 45))]
    for where in places:
        radii = rng.uniform(7, 17) * np.array([1.1, 0.9, 1.25])
        contents = fill if rng.random() < 0.8 else Tissue.BOWEL
        blobs += _filled(rng, where + rng.normal(0, 3, 3), radii, lowest.axes, contents)
    return blobs


def _stack(rng: np.random.Generator, segments: tuple[Body, ...]) -> list[Blob]:
    """Two to five blocks as large as vertebral bodies with dark gaps, as haustra or fibroids may look."""
    blobs, where = [], _before(rng, segments, 22, 60)
    angle = rng.uniform(0, 2 * np.pi)
    fill = Tissue(int(rng.choice([int(kind) for kind in _BODY_LIKE])))
    gap = Tissue(int(rng.choice([int(kind) for kind in _DISC_LIKE])))
    for _ in range(int(rng.integers(2, 6))):
        c, s = np.cos(angle), np.sin(angle)
        axes = np.array([[1.0, 0, 0], [0, c, s], [0, -s, c]])
        height, depth = rng.uniform(8, 14), rng.uniform(9, 17)
        radii = np.array([rng.uniform(12, 24), depth, height])
        blobs += _filled(rng, where, radii, axes, fill, rng.uniform(2.0, 4.0))
        between = where - axes[2] * (height + 2.0)
        blobs.append(Blob(int(gap), between, np.array([14.0, depth * 0.9, rng.uniform(1.5, 4)]), axes))
        where = where - axes[2] * (2 * height + rng.uniform(2, 6))
        angle += rng.normal(0, 0.3)
    return blobs


def _flat_shapes(rng: np.random.Generator, segments: tuple[Body, ...]) -> list[Blob]:
    """Dark ellipses the size of a disc."""
    return [
        Blob(
            int(rng.choice([int(kind) for kind in _DISC_LIKE])),
            _before(rng, segments, 8, 70),
            np.array([rng.uniform(8, 20), rng.uniform(7, 17), rng.uniform(2, 6)]),
            _turned(rng),
        )
        for _ in range(int(rng.integers(0, 9)))
    ]


def _crossing_vessels(rng: np.random.Generator, anatomy: Anatomy) -> list[Blob]:
    """Left common iliac vein and iliac arteries obliquely in front of the lowest lumbar body and S1."""
    lowest, blobs = anatomy.bodies[anatomy.first_mobile], []
    for side, radius in ((1, rng.uniform(5, 9)), (1, rng.uniform(4, 6)), (-1, rng.uniform(4, 6))):
        drop = rng.uniform(0.6, 1.6)
        along = np.array([side, 0.25, -drop]) / np.linalg.norm([side, 0.25, -drop])
        axes = np.linalg.qr(np.stack([along, [0, 1, 0], [0, 0, 1]]).T)[0].T
        front = -lowest.depth_mm / 2 - radius - rng.uniform(1, 9)
        where = lowest.at(side * rng.uniform(4, 26), front, -rng.uniform(0, 1.1) * lowest.height_mm)
        blobs.append(Blob(int(Tissue.VESSEL), where, np.array([32.0, radius, radius]), axes))
    return blobs


def paint_iliac_wings(anatomy: Anatomy, dx: Array, dy: Array, width: Array, level: Array, tissue: Bytes) -> None:
    """Iliac wings from L4 down, with gluteal and iliacus muscle beside them."""
    rng = np.random.default_rng([anatomy.seed, 8])
    low = np.nonzero((level > 3.3) & (np.abs(dx) > 0.5 * width) & (tissue > Tissue.SKIN))[0]
    if not len(low):
        return
    h = np.clip((level[low] - 3.3) / 1.7, 0, 1.3)
    x, y = np.abs(dx[low]) / width[low], dy[low] / width[low]
    crest = rng.normal(0, 0.05)
    first, last = -0.15 - 0.5 * h + crest, 0.45 + 0.65 * h + crest
    t = (y - (first + last) / 2) / ((last - first) / 2)  # -1 at its anterior, +1 at its posterior end
    bow = rng.uniform(0.05, 0.2)
    centre_x = 1.75 - 0.5 * h + 0.45 * (0.4 - y) + bow * (t * t - 0.5)  # from lateral-anterior to medial-posterior
    thickness = (0.06 + 0.07 * h) * np.interp(y, [-0.3, 0.3, 0.9, 1.2], [0.5, 1.0, 1.5, 0.6])
    distance = np.abs(x - centre_x)
    flesh = distance < rng.uniform(0.3, 0.55) * np.sqrt(np.clip(1 - (t / 1.3) ** 2, 0, None))
    tissue[low[flesh]] = Tissue.MUSCLE
    thinning = np.sqrt(np.clip(1 - t * t, 0, None))
    tissue[low[distance < (thickness + 0.025) * thinning]] = Tissue.CORTEX
    tissue[low[distance < thickness * thinning]] = Tissue.POSTERIOR_MARROW
