"""Which soft tissue is at a point: skin, fat, body wall, cavity with organs and vessels, muscles, pelvis.

Soft tissue is described in horizontal cross-sections along a track through the vertebral bodies: at height z the spine
is at (x, y) with body width W, and the level coordinate runs from 0 at L1's centre to 5 at S1's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d
from scipy.special import ndtri

from cohort.terms import MUSCLE_LABELS
from models.phantom import tables
from models.phantom.anatomy import Anatomy, Blob
from models.phantom.fields import Array, Cloud, at_points, between_points, periodic_noise
from models.phantom.muscles import LEVEL_NODES, CrossSections, draw_muscles
from models.phantom.tissues import Tissue
from models.phantom.vertebral_column import Bytes, paint_blob

_Z_MM = np.linspace(-200.0, 320.0, 521)

_CAVITY = (Tissue.VISCERAL_FAT, Tissue.BOWEL, Tissue.SOLID_ORGAN, Tissue.KIDNEY, Tissue.GAS, Tissue.FLUID)


@dataclass(frozen=True)
class SoftTissue:
    """Lookup tables of one subject's soft tissue, made once and evaluated at any number of points."""

    anatomy: Anatomy
    track: npt.NDArray[np.float64]
    """[z, 5] along `_Z_MM`: x and y of the spine, body width W, level coordinate, y of the back's fascia."""
    muscles: dict[tuple[str, str], CrossSections]
    organs: tuple[Blob, ...]

    @cached_property
    def noise(self) -> tuple[Array, Array, Array]:
        """Periodic fields: two for bending shapes, one for the pattern of intramuscular fat."""
        seed = self.anatomy.seed
        return (
            periodic_noise(seed, 0, sigma=2.5),
            periodic_noise(seed, 1, sigma=2.5),
            periodic_noise(seed, 2, sigma=0.9),
        )

    @cached_property
    def _organ_boxes(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        centres = np.array([blob.centre for blob in self.organs]).reshape(-1, 3)
        return centres, np.array([blob.radii_mm.max() for blob in self.organs])[:, None]

    def organs_near(self, points: Array) -> npt.NDArray[np.intp]:
        """Indices of organs whose box meets the box around the points."""
        centres, reach = self._organ_boxes
        touched = (centres + reach > points.min(axis=0)) & (centres - reach < points.max(axis=0))
        return np.nonzero(touched.all(axis=1))[0]


def draw_soft_tissue(anatomy: Anatomy) -> SoftTissue:
    """Prepare the lookup tables of a subject."""
    track = _track(anatomy)
    return SoftTissue(anatomy, track, draw_muscles(anatomy), _organs(anatomy, track))


def _track(anatomy: Anatomy) -> npt.NDArray[np.float64]:
    bodies = [body for body in anatomy.bodies if not body.sacral or body.name in ("S1", "S2")]
    z = np.array([body.centre[2] for body in bodies])
    first = next(k for k, body in enumerate(bodies) if body.name == "S1")
    # in variants the lowest lumbar body stays at level 4, whatever its name
    level = np.array([5.0 + first - k for k in range(len(bodies))])
    width = [body.width_mm for body in bodies]
    columns = [np.interp(_Z_MM, z, [body.centre[k] for body in bodies]) for k in (0, 1)]
    columns += [np.interp(_Z_MM, z, width), np.interp(_Z_MM, z, level)]
    below = _Z_MM < z[0]
    columns[3] = np.where(below, level[0] + (z[0] - _Z_MM) / 30.0, columns[3])
    above = _Z_MM > z[-1]
    columns[3] = np.where(above, level[-1] - (_Z_MM - z[-1]) / 30.0, columns[3])
    smooth = [gaussian_filter1d(column, 8.0, mode="nearest") for column in columns]
    back = gaussian_filter1d(columns[1] + tables.SPINOUS_TIP * 1.03 * columns[2], 25.0, mode="nearest")
    return np.stack([*smooth, back], axis=1)


def _organs(anatomy: Anatomy, track: npt.NDArray[np.float64]) -> tuple[Blob, ...]:
    """Clutter of the abdomen and pelvis: ellipsoids in the order in which they are painted."""
    rng = np.random.default_rng([anatomy.seed, 6])
    habitus = anatomy.habitus
    top = max(body.centre[2] for body in anatomy.bodies)
    blobs: list[Blob] = []

    def add(tissue: Tissue, centre: npt.ArrayLike, radii: npt.ArrayLike) -> None:
        turn = np.linalg.qr(np.eye(3) + rng.normal(0, 0.25, (3, 3)))[0]
        blobs.append(Blob(int(tissue), np.asarray(centre, float), np.asarray(radii, float), turn))

    def spine(z: float) -> npt.NDArray[np.float64]:
        return np.array([np.interp(z, _Z_MM, track[:, k]) for k in range(5)])

    if rng.random() < 0.8:  # liver on the right, spleen or stomach on the left
        add(
            Tissue.SOLID_ORGAN,
            (-rng.uniform(60, 110), -rng.uniform(20, 70), top - rng.uniform(-10, 40)),
            rng.uniform(45, 80, 3),
        )
        add(
            Tissue.SOLID_ORGAN,
            (rng.uniform(70, 120), -rng.uniform(0, 60), top - rng.uniform(-10, 40)),
            rng.uniform(30, 55, 3),
        )
    for side in (-1, 1):  # kidneys T12-L3, 10-12 x 5-6 cm, with a fatty sinus
        z = top - rng.uniform(85, 125)
        x, y = spine(z)[:2]
        centre = np.array([x + side * rng.uniform(58, 78), y + rng.uniform(-20, 22), z])
        if rng.random() < 0.9:
            add(Tissue.KIDNEY, centre, (rng.uniform(22, 30), rng.uniform(20, 28), rng.uniform(48, 60)))
            add(Tissue.VISCERAL_FAT, centre - np.array([side * 12, 4, 0]), (10, 9, 22))
    kinds = [Tissue.BOWEL, Tissue.SOLID_ORGAN, Tissue.GAS, Tissue.FLUID, Tissue.MUSCLE, Tissue.VESSEL]
    for _ in range(int(rng.integers(150, 600))):  # bowel loops, mesentery, nodes
        z = rng.uniform(-130, top + 40)
        x, y, width = spine(z)[:3]
        away = rng.uniform(0.6 * width, 2 * habitus.half_depth_mm * 0.9)
        centre = np.array([x + rng.normal(0, 60), y - away, z])
        radii = rng.lognormal(np.log(11), 0.5, 3)
        kind = Tissue(int(rng.choice([int(k) for k in kinds], p=[0.44, 0.22, 0.12, 0.06, 0.1, 0.06])))
        add(kind, centre, radii)
        if rng.random() < 0.4:
            add(Tissue(int(rng.choice([Tissue.GAS, Tissue.BOWEL, Tissue.VISCERAL_FAT]))), centre, radii * 0.65)
    if rng.random() < 0.8:  # bladder, uterus or prostate, rectum
        add(Tissue.FLUID, (rng.normal(0, 8), -rng.uniform(45, 85), -rng.uniform(70, 120)), rng.uniform(18, 40, 3))
        add(Tissue.MUSCLE, (rng.normal(0, 8), -rng.uniform(15, 45), -rng.uniform(50, 100)), rng.uniform(14, 30, 3))
        add(Tissue.BOWEL, (rng.normal(0, 10), rng.uniform(-10, 12), -rng.uniform(55, 110)), (15, 13, 40))
    return tuple(blobs)


def paint_soft_tissue(soft: SoftTissue, cloud: Cloud) -> tuple[Bytes, Bytes]:
    """Tissue and muscle labels at a cloud of points.

    Returns
    -------
    tissue : [n] uint8 values of `Tissue`
    muscle : [n] uint8 values of `cohort.terms.MUSCLE_LABELS`, 0 elsewhere
    """
    points = cloud.points
    bent = _bend(soft, points)
    x, y, width, level, back = (np.interp(points[:, 2], _Z_MM, soft.track[:, k]).astype(np.float32) for k in range(5))
    dx, dy = bent[:, 0] - x, bent[:, 1] - y
    tissue = _paint_trunk(soft, dx, bent[:, 1] - back, dy / width, level)
    _paint_viscera(soft, points, tissue)
    _paint_septa(soft, points, tissue)
    bent_cloud = Cloud(bent)
    for k in soft.organs_near(bent):
        paint_blob(soft.organs[k], bent_cloud, tissue, only=_CAVITY)
    _paint_vessels(soft, dx, dy, width, level, tissue)
    _paint_pelvis(soft, dx, dy, width, level, tissue)
    return tissue, _paint_muscles(soft, points, dx / width, dy / width, level, tissue)


def _bend(soft: SoftTissue, points: Array) -> Array:
    """Shift points by a smooth field of about 2 mm, so that no soft tissue has a geometric outline."""
    cell = (11.0, 11.0, 22.0)
    bent = points.copy()
    bent[:, 0] += 1.3 * at_points(soft.noise[0], points, cell)
    bent[:, 1] += 1.3 * at_points(soft.noise[1], points, cell)
    return bent


def _paint_trunk(soft: SoftTissue, dx: Array, behind: Array, Y: Array, level: Array) -> Bytes:
    """Nested outlines: skin, subcutaneous fat, wall muscle, cavity. `behind` is y against the back's fascia."""
    habitus = soft.anatomy.habitus
    fat = habitus.subcutaneous_mm * np.interp(level, [-3, 0, 3, 5, 7], [0.6, 0.7, 0.95, 1.4, 1.6]).astype(np.float32)
    half_width, half_depth = habitus.half_width_mm, habitus.half_depth_mm
    furrow = 6.0 * np.exp(-((dx / 28) ** 2))
    y = behind + half_depth + np.where(behind > -60, furrow, 0)

    def outline(margin: Array | float, depth: Array | float) -> npt.NDArray[np.bool_]:
        a, b = half_width + margin, half_depth + depth
        return np.asarray(np.abs(dx / a) ** 2.6 + np.abs(y / b) ** 2.6 < 1)

    tissue = np.zeros(len(dx), np.uint8)
    tissue[outline(0.8 * fat + 2, fat + 2)] = Tissue.SKIN
    tissue[outline(0.8 * fat, fat)] = Tissue.SUBCUTANEOUS_FAT
    tissue[outline(0.0, 0.0)] = Tissue.MUSCLE
    cavity = outline(-habitus.wall_mm, -habitus.wall_mm)
    front = 0.62 + 0.05 * np.cos(dx / 30) > Y
    tissue[cavity & front] = Tissue.VISCERAL_FAT
    # behind the transverse processes only the four muscles and a thin dorsal sheet are muscle, the rest is fat
    tissue[outline(-habitus.dorsal_sheet_mm, -habitus.dorsal_sheet_mm) & ~front] = Tissue.MUSCLE_FAT
    return tissue


def _paint_viscera(soft: SoftTissue, points: Array, tissue: Bytes) -> None:
    """Fill the cavity with bowel, organs and gas up to the subject's share of fat, in folds of one to four centimetres.

    Without it every large dark area of a slice is a muscle, and networks learn just that.
    """
    index = np.nonzero(tissue == Tissue.VISCERAL_FAT)[0]
    if not len(index):
        return
    coarse = between_points(soft.noise[0], points[index], (7.0, 7.0, 9.0))
    fine = between_points(soft.noise[1], points[index], (3.5, 3.5, 4.5))
    filled = coarse + 0.35 * fine > 1.06 * ndtri(soft.anatomy.habitus.visceral_fat)
    kind = np.full(len(index), int(Tissue.BOWEL), np.uint8)
    kind[fine > 1.3] = Tissue.GAS
    kind[(fine < -0.9) & (coarse < 1.2)] = Tissue.VISCERAL_FAT
    kind[coarse > 1.2] = Tissue.SOLID_ORGAN
    tissue[index[filled]] = kind[filled]


def _paint_septa(soft: SoftTissue, points: Array, tissue: Bytes) -> None:
    thin = np.abs(at_points(soft.noise[1], points, (7.0, 2.5, 7.0))) < 0.02
    tissue[thin & (tissue == Tissue.SUBCUTANEOUS_FAT)] = Tissue.SEPTUM


def _paint_vessels(soft: SoftTissue, dx: Array, dy: Array, width: Array, level: Array, tissue: Bytes) -> None:
    """Aorta left and cava right of the midline to L4, then common iliac vessels that diverge.

    Bifurcation at L4 (67 % of 441), cava 16 x 26 mm at renal level, aorta 17-19 mm near its end (see docs/phantom.md).
    """
    rng = np.random.default_rng([soft.anatomy.seed, 7])
    split = rng.normal(3.1, 0.35)
    spread = np.maximum(level - split, 0) * 22.0
    for side, radii in ((1, (9.5, 9.5)), (-1, (11.5, 8.5))):
        x0 = side * (rng.uniform(6, 13) + spread)
        y0 = -0.40 * width - radii[1] - rng.uniform(0, 5) + 0.25 * spread
        size = np.where(level > split, 0.65, 1.0)
        inside = ((dx - x0) / (radii[0] * size)) ** 2 + ((dy - y0) / (radii[1] * size)) ** 2 < 1
        tissue[inside & (tissue > Tissue.SKIN)] = Tissue.VESSEL


def _paint_pelvis(soft: SoftTissue, dx: Array, dy: Array, width: Array, level: Array, tissue: Bytes) -> None:
    """Iliac wings from L4 down, with gluteal and iliacus muscle beside them."""
    rng = np.random.default_rng([soft.anatomy.seed, 8])
    low = np.nonzero((level > 3.3) & (np.abs(dx) > 0.5 * width) & (tissue > Tissue.SKIN))[0]
    if not len(low):
        return
    h = np.clip((level[low] - 3.3) / 1.7, 0, 1.3)
    x, y = np.abs(dx[low]) / width[low], dy[low] / width[low]
    crest = rng.normal(0, 0.05)
    centre_x = 1.75 - 0.5 * h + 0.45 * (0.4 - y)  # runs from lateral-anterior to medial-posterior
    thickness = (0.06 + 0.07 * h) * np.interp(y, [-0.3, 0.3, 0.9, 1.2], [0.5, 1.0, 1.5, 0.6])
    reach = (y > -0.15 - 0.5 * h + crest) & (y < 0.45 + 0.65 * h + crest)
    distance = np.abs(x - centre_x)
    flesh = reach & (distance < 0.42)
    tissue[low[flesh]] = Tissue.MUSCLE
    tissue[low[reach & (distance < thickness + 0.025)]] = Tissue.CORTEX
    tissue[low[reach & (distance < thickness)]] = Tissue.POSTERIOR_MARROW


def _paint_muscles(soft: SoftTissue, points: Array, X: Array, Y: Array, level: Array, tissue: Bytes) -> Bytes:
    """Psoas, quadratus, erector spinae, multifidus with the fat around and inside them."""
    label = np.zeros(len(X), np.uint8)
    region = np.nonzero((np.abs(X) < 2.3) & (Y > -0.9) & (Y < 2.0) & (tissue > Tissue.SKIN))[0]
    if not len(region):
        return label
    step = LEVEL_NODES[1] - LEVEL_NODES[0]
    node = np.clip(np.rint((level[region] - LEVEL_NODES[0]) / step), 0, len(LEVEL_NODES) - 1).astype(np.intp)
    streaks = at_points(soft.noise[2], points[region], (1.5, 1.5, 6.0))
    infiltration = {"multifidus": soft.anatomy.habitus.fat_infiltration[0]}
    infiltration["erector_spinae"] = soft.anatomy.habitus.fat_infiltration[1]
    for muscle in ("psoas", "quadratus_lumborum", "erector_spinae", "multifidus"):
        for side, sign in (("left", 1.0), ("right", -1.0)):
            half = np.nonzero(sign * X[region] > -0.05)[0]
            index, nodes = region[half], node[half]
            depth = soft.muscles[muscle, side].depth(nodes, sign * X[index], Y[index])
            inside = depth > 0
            sheath = index[(depth > -soft.anatomy.habitus.sheath) & ~inside]
            tissue[sheath], label[sheath] = Tissue.MUSCLE_FAT, 0
            tissue[index[inside]] = Tissue.MUSCLE
            label[index[inside]] = MUSCLE_LABELS[muscle, side]
            share = infiltration.get(muscle, 0.02)
            caudal = np.clip(0.6 + 0.15 * level[index], 0.4, 1.6)
            threshold = -ndtri(np.clip(share * caudal, 0.002, 0.7))
            tissue[index[inside & (streaks[half] > threshold)]] = Tissue.MUSCLE_FAT
    return label
