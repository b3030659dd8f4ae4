"""Organs of the abdomen: kidneys, colon, bowel, vessels, and what fills the cavity between them; none is labelled."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from models.phantom.anatomy import Anatomy
from models.phantom.bodies import Blob
from models.phantom.fields import Array, between_points
from models.phantom.pelvis import draw_pelvis
from models.phantom.tissues import Bytes, Tissue

Spine = Callable[[float], tuple[float, float, float]]
"""Height z -> x, y and body width W there, mm."""

_Add = Callable[[Tissue, npt.ArrayLike, npt.ArrayLike], None]


def draw_organs(anatomy: Anatomy, spine: Spine) -> tuple[Blob, ...]:
    """Clutter of the abdomen and pelvis: ellipsoids in the order in which they are painted.

    Parameters
    ----------
    spine : height z, mm -> x and y of the spine and the body width W
    """
    rng = np.random.default_rng([anatomy.seed, 6])
    habitus = anatomy.habitus
    top = max(body.centre[2] for body in anatomy.bodies)
    blobs: list[Blob] = []

    def add(tissue: Tissue, centre: npt.ArrayLike, radii: npt.ArrayLike) -> None:
        turn = np.linalg.qr(np.eye(3) + rng.normal(0, 0.25, (3, 3)))[0]
        blobs.append(Blob(int(tissue), np.asarray(centre, float), np.asarray(radii, float), turn))

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
    _add_kidneys(rng, add, spine, top)
    kinds = [Tissue.BOWEL, Tissue.SOLID_ORGAN, Tissue.GAS, Tissue.FLUID, Tissue.MUSCLE, Tissue.VESSEL]
    for _ in range(int(rng.integers(150, 600))):  # bowel loops, mesentery, nodes
        z = rng.uniform(-130, top + 40)
        x, y, width = spine(z)
        away = rng.uniform(0.6 * width, 2 * habitus.half_depth_mm * 0.9)
        centre = np.array([x + rng.normal(0, 60), y - away, z])
        radii = rng.lognormal(np.log(11), 0.5, 3)
        kind = Tissue(int(rng.choice([int(k) for k in kinds], p=[0.44, 0.22, 0.12, 0.06, 0.1, 0.06])))
        add(kind, centre, radii)
        if rng.random() < 0.4:
            add(Tissue(int(rng.choice([Tissue.GAS, Tissue.BOWEL, Tissue.VISCERAL_FAT]))), centre, radii * 0.65)
    _add_colon(rng, add, spine, top, habitus.half_width_mm)
    return (*blobs, *draw_pelvis(anatomy))


def _add_kidneys(rng: np.random.Generator, add: _Add, spine: Spine, top: float) -> None:
    """Kidneys T12-L3, 10-12 x 5-6 cm, beside psoas and before quadratus, in a bed of fat, with a fatty sinus."""
    for side in (-1, 1):
        z = top - rng.uniform(105, 165)
        x, y, _ = spine(z)
        centre = np.array([x + side * rng.uniform(54, 74), y + rng.uniform(-10, 16), z])
        if rng.random() < 0.92:
            radii = np.array([rng.uniform(20, 28), rng.uniform(20, 29), rng.uniform(50, 62)])
            add(Tissue.VISCERAL_FAT, centre, radii + rng.uniform(2, 14))
            add(Tissue.KIDNEY, centre, radii)
            if rng.random() < 0.7:
                add(Tissue.VISCERAL_FAT, centre - np.array([side * 14, 6, 0]), (rng.uniform(5, 11), 7, 20))


def _add_colon(rng: np.random.Generator, add: _Add, spine: Spine, top: float, half_width: float) -> None:
    """Ascending and descending colon along the flanks: wall, stool, pockets of gas."""
    for side in (-1, 1):
        x_out, y_off = half_width - rng.uniform(38, 62), rng.uniform(-38, 6)
        caliber = rng.uniform(10, 26)
        for z in np.arange(-10.0, top - 50.0, 30.0) + rng.uniform(-12, 12):
            x, y, _ = spine(z)
            centre = np.array([x + side * x_out, y + y_off, z]) + rng.normal(0, 4, 3)
            radii = caliber * rng.uniform(0.75, 1.25, 3) + np.array([0, 0, 12])
            add(Tissue.BOWEL, centre, radii)
            for _ in range(int(rng.integers(0, 7))):
                kind = rng.choice([Tissue.GAS, Tissue.VISCERAL_FAT, Tissue.SOLID_ORGAN], p=[0.5, 0.2, 0.3])
                spot = centre + rng.uniform(-0.65, 0.65, 3) * radii
                add(Tissue(int(kind)), spot, rng.uniform(0.12, 0.45, 3) * caliber + 1)


def paint_viscera(anatomy: Anatomy, noise: tuple[Array, Array, Array], points: Array, tissue: Bytes) -> None:
    """Fill the cavity with bowel, organs and gas up to the subject's share of fat, in folds of one to four centimetres.

    Without it every large dark area of a slice is a muscle, and networks learn just that.
    """
    index = np.nonzero(tissue == Tissue.VISCERAL_FAT)[0]
    if not len(index):
        return
    coarse = between_points(noise[0], points[index], (7.0, 7.0, 9.0))
    fine = between_points(noise[1], points[index], (3.5, 3.5, 4.5))
    filled = coarse + 0.35 * fine > 1.06 * ndtri(anatomy.habitus.visceral_fat)
    kind = np.full(len(index), int(Tissue.BOWEL), np.uint8)
    kind[fine > 1.3] = Tissue.GAS
    kind[(fine < -0.9) & (coarse < 1.2)] = Tissue.VISCERAL_FAT
    kind[coarse > 1.2] = Tissue.SOLID_ORGAN
    tissue[index[filled]] = kind[filled]


def paint_vessels(anatomy: Anatomy, dx: Array, dy: Array, width: Array, level: Array, tissue: Bytes) -> None:
    """Aorta left and cava right of the midline to L4, then common iliac vessels that diverge.

    Bifurcation at L4 (67 % of 441), cava 16 x 26 mm at renal level, aorta 17-19 mm near its end (see docs/phantom.md).
    """
    rng = np.random.default_rng([anatomy.seed, 7])
    split = rng.normal(3.1, 0.35)
    spread = np.maximum(level - split, 0) * 22.0
    for side, radii in ((1, (9.5, 9.5)), (-1, (11.5, 8.5))):
        x0 = side * (rng.uniform(6, 13) + spread)
        y0 = -0.40 * width - radii[1] - rng.uniform(0, 5) + 0.25 * spread
        size = np.where(level > split, 0.65, 1.0)
        inside = ((dx - x0) / (radii[0] * size)) ** 2 + ((dy - y0) / (radii[1] * size)) ** 2 < 1
        tissue[inside & (tissue > Tissue.SKIN)] = Tissue.VESSEL
