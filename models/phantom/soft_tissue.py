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
from models.phantom.abdomen import draw_organs, paint_vessels, paint_viscera
from models.phantom.anatomy import Anatomy
from models.phantom.bodies import Blob
from models.phantom.fields import Array, Cloud, at_points, between_points, periodic_noise
from models.phantom.muscles import LEVEL_NODES, CrossSections, draw_muscles, fascia_depth
from models.phantom.pelvis import paint_iliac_wings, paint_presacral_space
from models.phantom.tissues import Bytes, Tissue
from models.phantom.vertebral_column import paint_blob

_Z_MM = np.linspace(-200.0, 320.0, 521)

_CAVITY = (
    Tissue.VISCERAL_FAT,
    Tissue.BOWEL,
    Tissue.SOLID_ORGAN,
    Tissue.KIDNEY,
    Tissue.GAS,
    Tissue.FLUID,
    Tissue.STOOL,
    Tissue.MYOMETRIUM,
)


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

    def spine(z: float) -> tuple[float, float, float]:
        x, y, width = (float(np.interp(z, _Z_MM, track[:, k])) for k in range(3))
        return x, y, width

    return SoftTissue(anatomy, track, draw_muscles(anatomy), draw_organs(anatomy, spine))


def _track(anatomy: Anatomy) -> npt.NDArray[np.float64]:
    bodies = [body for body in anatomy.bodies if not body.sacral or body.name in ("S1", "S2")]
    z = np.array([body.centre[2] for body in bodies])
    first = next(k for k, body in enumerate(bodies) if body.name == "S1")
    n_lumbar = sum(body.name.startswith("L") for body in bodies)
    level = np.array([_level(k - first, n_lumbar) for k in range(len(bodies))])
    width = [body.width_mm for body in bodies]
    columns = [np.interp(_Z_MM, z, [body.centre[k] for body in bodies]) for k in (0, 1)]
    columns += [np.interp(_Z_MM, z, width), np.interp(_Z_MM, z, level)]
    below = _Z_MM < z[0]
    columns[3] = np.where(below, level[0] + (z[0] - _Z_MM) / 30.0, columns[3])
    above = _Z_MM > z[-1]
    columns[3] = np.where(above, level[-1] - (_Z_MM - z[-1]) / 30.0, columns[3])
    smooth = [gaussian_filter1d(column, 8.0, mode="nearest") for column in columns]
    back = gaussian_filter1d(columns[1] + tables.SPINOUS_TIP * columns[2], 25.0, mode="nearest")
    return np.stack([*smooth, back], axis=1)


def _level(place: int, n_lumbar: int) -> float:
    """Level coordinate of the body `place` steps above S1.

    Muscles reach from the last rib to the pelvis in people with four or six lumbar vertebrae, too: their five lumbar
    levels are spread over as many bodies as there are.
    """
    if place <= 0:
        return 5.0 - place
    return 4.0 * (n_lumbar - place) / (n_lumbar - 1) if place <= n_lumbar else float(n_lumbar - place)


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
    tissue = _paint_trunk(soft, dx, bent[:, 1], (y, width, level, back))
    paint_presacral_space(soft.anatomy, points, tissue)
    paint_viscera(soft.anatomy, soft.noise, points, tissue)
    _paint_septa(soft, points, tissue)
    bent_cloud = Cloud(bent)
    for k in soft.organs_near(bent):
        paint_blob(soft.organs[k], bent_cloud, tissue, only=_CAVITY)
    paint_vessels(soft.anatomy, dx, dy, width, level, tissue)
    paint_iliac_wings(soft.anatomy, dx, dy, width, level, tissue)
    beside = np.minimum(np.abs(points[:, 0] - x), np.abs(dx)) > soft.anatomy.habitus.midline_mm
    return tissue, _paint_muscles(soft, points, dx / width, dy / width, level, tissue, beside)


def _bend(soft: SoftTissue, points: Array) -> Array:
    """Shift points by a smooth field of about 2 mm, so that no soft tissue has a geometric outline."""
    cell = (11.0, 11.0, 22.0)
    bent = points.copy()
    bent[:, 0] += 1.3 * at_points(soft.noise[0], points, cell)
    bent[:, 1] += 1.3 * at_points(soft.noise[1], points, cell)
    return bent


def _paint_trunk(soft: SoftTissue, dx: Array, y: Array, track: tuple[Array, Array, Array, Array]) -> Bytes:
    """Skin, subcutaneous fat, the muscular wall from flank to flank round the front, and the cavity inside it.

    `track` is y of the spine, W, level and y of the back's fascia at each point. The wall ends behind at the lateral
    edge of quadratus lumborum; behind it lie fat and the back muscles. A supine back is pressed flat.
    """
    spine_y, width, level, back = track
    habitus = soft.anatomy.habitus
    lower = np.interp(level, [-3, 0, 3, 5, 7], [1.0, 0.97, 0.96, 1.08, 1.15]).astype(np.float32)
    half_width, front = habitus.half_width_mm * lower, back - 2 * habitus.half_depth_mm
    tissue = _paint_skin(soft, dx, y, (half_width, front, back, level))
    rng = np.random.default_rng([soft.anatomy.seed, 15])
    rear = spine_y + rng.normal(0.68, 0.04) * width
    middle = front + rng.uniform(0.5, 0.62) * (rear - front)
    behind = y > middle
    reach = np.where(behind, rear - middle, middle - front)
    power = rng.uniform(2.2, 2.7)
    rho = (np.abs(dx / half_width) ** power + np.abs((y - middle) / reach) ** power) ** (1 / power)
    rho = np.maximum(rho, 0.05).astype(np.float32)
    depth = (1 / rho - 1) * np.sqrt(dx * dx + (y - middle) ** 2)
    lateral = np.minimum(np.abs(dx) / half_width / rho, 1) ** 2
    wall = habitus.wall_mm * (0.5 + 0.5 * lateral)
    inside = (depth > 0) & (tissue > Tissue.SKIN)
    ends = behind & (np.abs(dx) < rng.uniform(1.45, 1.75) * width)
    muscle = inside & (depth < wall) & ~ends
    tissue[inside] = Tissue.VISCERAL_FAT
    tissue[muscle] = Tissue.MUSCLE
    share = depth[muscle] / wall[muscle]
    thin = rng.uniform(0.0, 0.7) if rng.random() < 0.7 else 0.0  # fat between the three layers, half its width in mm
    split = np.minimum(np.abs(share - rng.uniform(0.3, 0.4)), np.abs(share - rng.uniform(0.62, 0.75)))
    layered = (split * wall[muscle] < thin) & (lateral[muscle] > 0.3)
    tissue[np.nonzero(muscle)[0][layered]] = Tissue.MUSCLE_FAT
    linea = np.abs(dx) < 4 + 4 * rng.random()
    tissue[muscle & linea & ~behind] = Tissue.SEPTUM
    _paint_latissimus(soft, dx / width, (y - back) / width, depth, level, tissue)
    return tissue


def _paint_skin(soft: SoftTissue, dx: Array, y: Array, frame: tuple[Array, Array, Array, Array]) -> Bytes:
    """Outer contour. `frame` is the muscular half-width, y of the front, y of the back's fascia, and level."""
    half_width, front, back, level = frame
    habitus = soft.anatomy.habitus
    rng = np.random.default_rng([soft.anatomy.seed, 16])
    fat = habitus.subcutaneous_mm * np.interp(level, [-3, 0, 3, 5, 7], [0.6, 0.7, 0.95, 1.4, 1.6]).astype(np.float32)
    upper = np.clip(1 - (level - 3.5) / 1.5, 0, 1)
    furrow = habitus.furrow_mm * upper * np.exp(-((dx / rng.uniform(9, 26)) ** 2))
    pressed = rng.uniform(0.05, 0.45) * fat
    middle = (front + back) / 2 + rng.uniform(-5, 12)
    behind = y > middle
    power = np.where(behind, rng.uniform(2.3, 3.2), rng.uniform(2.0, 2.6)).astype(np.float32)
    sides = rng.uniform(0.7, 1.2)

    def outline(skin: float) -> npt.NDArray[np.bool_]:
        rear = back + fat + skin - middle
        reach = np.where(behind, rear, middle - front + 0.8 * fat + skin)
        flat = y < back + np.maximum(fat - pressed, 3) + skin - np.minimum(furrow, 0.8 * fat)
        return np.asarray(
            (np.abs(dx / (half_width + sides * fat + skin)) ** power + np.abs((y - middle) / reach) ** power < 1) & flat
        )

    tissue = np.zeros(len(dx), np.uint8)
    tissue[outline(2.0)] = Tissue.SKIN
    tissue[outline(0.0)] = Tissue.SUBCUTANEOUS_FAT
    return tissue


def _paint_latissimus(soft: SoftTissue, X: Array, behind: Array, depth: Array, level: Array, tissue: Bytes) -> None:
    """A thin sheet behind the flank's wall, lateral of erector spinae, down to about L3. `behind` is Y - Y of the
    fascia, `depth` mm inside the wall's outline."""
    thickness = soft.anatomy.habitus.dorsal_sheet_mm * np.clip((2.6 - level) / 1.5, 0, 1)
    sheet = (depth < -1.0) & (depth > -1.0 - thickness) & (np.abs(X) > 1.35) & (behind > -1.4) & (behind < -0.1)
    tissue[sheet & (tissue > Tissue.SKIN)] = Tissue.MUSCLE


def _paint_septa(soft: SoftTissue, points: Array, tissue: Bytes) -> None:
    index = np.nonzero(tissue == Tissue.SUBCUTANEOUS_FAT)[0]
    if len(index):
        thin = np.abs(between_points(soft.noise[1], points[index], (7.0, 2.5, 9.0))) < 0.035
        patchy = at_points(soft.noise[0], points[index], (6.0, 6.0, 9.0)) > 0.4
        tissue[index[thin & patchy]] = Tissue.SEPTUM


def _paint_muscles(
    soft: SoftTissue, points: Array, X: Array, Y: Array, level: Array, tissue: Bytes, beside: npt.NDArray[np.bool_]
) -> Bytes:
    """Psoas, quadratus, erector spinae, multifidus with the fat around and inside them.

    Labels lie `LABEL_INSET` inside the muscles' outer contour and only where `beside` says that a point is clear of
    the midline.
    """
    label = np.zeros(len(X), np.uint8)
    region = np.nonzero((np.abs(X) < 2.3) & (Y > -0.9) & (Y < 2.0) & (tissue > Tissue.SKIN))[0]
    if not len(region):
        return label
    _paint_compartment(soft, X[region], Y[region], level[region], region, tissue)
    step = LEVEL_NODES[1] - LEVEL_NODES[0]
    node = np.clip(np.rint((level[region] - LEVEL_NODES[0]) / step), 0, len(LEVEL_NODES) - 1).astype(np.intp)
    fat = _fat_level(soft, points[region], X[region], Y[region])
    under_fascia = fascia_depth(soft.anatomy, X[region], level[region]) - Y[region] - 0.012
    for muscle in ("psoas", "quadratus_lumborum", "erector_spinae", "multifidus"):
        for side, sign in (("left", 1.0), ("right", -1.0)):
            half = np.nonzero(sign * X[region] > -0.05)[0]
            index = region[half]
            depth = soft.muscles[muscle, side].depth(node[half], sign * X[index], Y[index])
            _paint_sheath(soft, muscle, depth, index, level[index], tissue, label)
            depth = np.minimum(depth, under_fascia[half])
            inside = (depth > 0) & (beside[index] | (muscle != "multifidus"))
            tissue[index[inside]] = Tissue.MUSCLE
            streak = inside & (fat[half] > _fat_threshold(soft, muscle, level[index]))
            tissue[index[streak]] = Tissue.MUSCLE_FAT
            # fat at the rim is not muscle to people, fat inside it is; the border of the two back muscles is shared
            inset = 0.0 if muscle == "multifidus" else LABEL_INSET
            kept = (depth > inset) & beside[index] & ~(streak & (depth < 0.05))
            label[index[kept]] = MUSCLE_LABELS[muscle, side]
    return label


LABEL_INSET = 0.015
"""How far labels lie inside a muscle's outer contour, in W: about 0.7 mm, a working value (docs/phantom.md)."""


def _paint_compartment(
    soft: SoftTissue, X: Array, Y: Array, level: Array, region: npt.NDArray[np.intp], tissue: Bytes
) -> None:
    """What the back muscles do not fill: fat under a thin dark fascia, muscle-like tissue or fat at the midline."""
    rng = np.random.default_rng([soft.anatomy.seed, 17])
    fascia = fascia_depth(soft.anatomy, X, level) - Y
    under = (Y > 0.7) & (fascia > 0) & (np.abs(X) < 1.3)
    tissue[region[under]] = Tissue.MUSCLE_FAT
    line = (Y > 1.1) & (np.abs(fascia - 0.005) < rng.uniform(0.006, 0.02)) & (level < 6) & (np.abs(X) < 1.35)
    tissue[region[line]] = Tissue.SEPTUM if rng.random() < 0.5 else Tissue.LIGAMENT
    kinds = [Tissue.MUSCLE, Tissue.INTERSPINOUS, Tissue.LIGAMENT, Tissue.MUSCLE_FAT]
    middle = under & (np.abs(X) < rng.uniform(0.03, 0.08))
    tissue[region[middle]] = int(rng.choice(kinds, p=[0.4, 0.25, 0.15, 0.2]))


def _paint_sheath(
    soft: SoftTissue,
    muscle: str,
    depth: Array,
    index: npt.NDArray[np.intp],
    level: Array,
    tissue: Bytes,
    label: Bytes,
) -> None:
    """Fat around psoas and quadratus; around multifidus the cleft, wider from level to level, often none."""
    habitus = soft.anatomy.habitus
    if muscle == "erector_spinae":
        return
    wide = habitus.cleft * np.clip(0.4 + 0.2 * level, 0.3, 1.6) if muscle == "multifidus" else habitus.sheath
    sheath = index[(depth > -wide) & (depth <= 0)]
    tissue[sheath], label[sheath] = Tissue.MUSCLE_FAT, 0


def _fat_level(soft: SoftTissue, points: Array, X: Array, Y: Array) -> Array:
    """[n] field whose high values are fat: fine streaks that fan out from the lamina, and the deep medial corner."""
    side = np.sign(X)
    fan = np.stack([0.5 * points[:, 0] * side + 0.85 * points[:, 1], 0.85 * points[:, 0] - 0.5 * points[:, 1] * side])
    streaks = at_points(soft.noise[2], np.stack([fan[0], fan[1], points[:, 2]], axis=1), (2.2, 0.6, 9.0))
    fine = at_points(soft.noise[2], points, (0.45, 0.45, 2.0))  # frays the streaks
    coarse = at_points(soft.noise[1], points, (4.0, 4.0, 9.0))
    deep = np.exp(-(((np.abs(X) - 0.15) / 0.25) ** 2) - ((Y - 0.8) / 0.25) ** 2)
    return np.asarray(0.7 * streaks + 0.5 * coarse + 0.5 * fine + 0.7 * deep, dtype=np.float32)


def _fat_threshold(soft: SoftTissue, muscle: str, level: Array) -> Array:
    """[n] level of that field above which a muscle is fat; lower caudally."""
    multifidus, erector = soft.anatomy.habitus.fat_infiltration
    share = {"multifidus": multifidus, "erector_spinae": erector}.get(muscle, 0.002)
    caudal = np.clip(0.6 + 0.15 * level, 0.4, 1.6)
    return np.asarray(-ndtri(np.clip(share * caudal, 5e-4, 0.7)), dtype=np.float32)
