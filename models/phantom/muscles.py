"""The four paraspinal muscles of each side as star-shaped cross-sections that change smoothly from level to level.

Coordinates: X = (x - x of the spine) / W, lateral positive on the side in question, and Y = (y - y of the spine) / W,
with W the body width at that level. Outlines for multifidus and erector spinae are control polygons drawn after the
normalised table of 168 axial slices (docs/phantom.md); psoas and quadratus lumborum are ellipses.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cohort.terms import MUSCLES, SIDES
from models.phantom import tables
from models.phantom.anatomy import Anatomy
from models.phantom.fields import Array, smooth_line

LEVEL_NODES = np.linspace(-3.0, 7.0, 81)
"""Level coordinate of the tables: 0 at L1's centre, 1 at L2's, ..., 5 at S1's."""

_N_ANGLES = 128


@dataclass(frozen=True)
class CrossSections:
    """Star-shaped outlines of one muscle of one side at every level node."""

    centre: Array
    """[node, 2] X, Y."""
    radius: Array
    """[node, angle] distance of the outline from the centre, in W."""

    def depth(self, node: npt.NDArray[np.intp], X: Array, Y: Array) -> Array:
        """[n] distance inside the outline along the ray from its centre, in W; negative outside."""
        dx, dy = X - self.centre[node, 0], Y - self.centre[node, 1]
        angle = np.arctan2(dy, dx) * (_N_ANGLES / (2 * np.pi))
        k = np.floor(angle).astype(np.intp)
        f = (angle - k).astype(np.float32)
        outline = self.radius[node, k % _N_ANGLES] * (1 - f) + self.radius[node, (k + 1) % _N_ANGLES] * f
        return np.asarray(outline - np.sqrt(dx * dx + dy * dy), dtype=np.float32)


def draw_muscles(anatomy: Anatomy) -> dict[tuple[str, str], CrossSections]:
    """Cross-sections of every (muscle, side) of a subject."""
    rng = np.random.default_rng([anatomy.seed, 5])
    habitus = anatomy.habitus
    shared = _Shared(
        psoas_y=float(rng.normal(0, 0.05)),
        quadratus_xy=rng.normal(0, 0.05, 2),
        tip=tables.SPINOUS_TIP * float(rng.normal(1, 0.04)),
        multifidus_jitter=rng.normal(0, 0.025, (8, 2)),
        erector_jitter=rng.normal(0, 0.025, (10, 2)),
        cleft=float(rng.uniform(0, 0.05)),
    )
    sections = {}
    for s, side in enumerate(SIDES):
        for m, muscle in enumerate(MUSCLES):
            scale = habitus.muscle * habitus.side_scale[m, s]
            outlines = _OUTLINES[muscle](shared, scale, rng)
            sections[muscle, side] = _star(outlines)
    return sections


@dataclass(frozen=True)
class _Shared:
    psoas_y: float
    quadratus_xy: npt.NDArray[np.float64]
    tip: float
    multifidus_jitter: npt.NDArray[np.float64]
    erector_jitter: npt.NDArray[np.float64]
    cleft: float


def _by_level(table: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Interpolate a table of L1..S1 to the level nodes (constant beyond)."""
    return np.interp(LEVEL_NODES, np.arange(len(table)), table)


def _fade(above: float, below: float) -> npt.NDArray[np.float64]:
    """Size factor that shrinks a muscle to nothing beyond its extent."""
    return np.clip(np.minimum((LEVEL_NODES - above) / 0.8, (below - LEVEL_NODES) / 0.8), 0.0, 1.0)


def _multifidus(shared: _Shared, scale: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    size = _by_level(tables.MULTIFIDUS_SIZE) * scale * np.interp(LEVEL_NODES, [-3, 0], [0.75, 1.0])
    reach, tip = 0.57 * size, np.full_like(size, shared.tip)
    one = np.ones_like(size)
    x = [0.06 * one, 0.07 * one, 0.22 * size, 0.85 * reach, reach, 0.98 * reach, 0.8 * reach, 0.45 * reach]
    y = [0.80 * one, 0.93 * tip, tip, 0.985 * tip, 1.18 * one, 0.92 * one, 0.70 * one, 0.66 * one]
    polygon = np.stack([np.stack(x, 1), np.stack(y, 1)], axis=2) + shared.multifidus_jitter
    return polygon * _shrink(polygon, _fade(-3.5, 6.6))


def _erector(shared: _Shared, scale: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    mf, es = _by_level(tables.MULTIFIDUS_SIZE) * scale, _by_level(tables.ERECTOR_SIZE) * scale
    level = np.clip(LEVEL_NODES / 5, 0, 1)
    inner, outer, tip, one = 0.57 * mf, 0.55 * mf + 0.85 * es, np.full_like(mf, shared.tip), np.ones_like(mf)
    gap = shared.cleft * (1 + level)
    x = [0.98 * inner + gap, 1.02 * inner + gap, 0.98 * inner + gap, 0.80 * inner + gap, (inner + outer) / 2]
    x += [0.9 * outer, outer, 0.97 * outer, 0.8 * outer, (inner + outer) / 2]
    y = [0.72 * one, 1.0 * one, 1.25 * one, tip, tip * (1.02 - 0.06 * level)]
    y += [1.30 - 0.12 * level, 1.02 * one, 0.74 * one, 0.56 * one, 0.54 * one]
    polygon = np.stack([np.stack(x, 1), np.stack(y, 1)], axis=2) + shared.erector_jitter
    return polygon * _shrink(polygon, _fade(-4.0, 6.2))


def _shrink(polygon: npt.NDArray[np.float64], factor: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Factor array that scales polygons about their mean without moving it."""
    centre = polygon.mean(axis=1, keepdims=True)
    scaled = centre + (polygon - centre) * np.maximum(factor, 1e-3)[:, None, None]
    return np.asarray(scaled / np.where(np.abs(polygon) < 1e-9, 1e-9, polygon))


def _ellipse(
    width: npt.NDArray[np.float64],
    height: npt.NDArray[np.float64],
    centre: npt.NDArray[np.float64],
    turn: npt.NDArray[np.float64],
    wobble: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """[node, 40, 2] ellipses with a smooth irregular rim."""
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    rim = 1 + sum(wobble[k, 0] / (k + 2) * np.cos((k + 2) * t + wobble[k, 1]) for k in range(len(wobble)))
    a, b = width[:, None] / 2 * rim * np.cos(t), height[:, None] / 2 * rim * np.sin(t)
    c, s = np.cos(turn)[:, None], np.sin(turn)[:, None]
    return np.stack([centre[:, :1] + a * c - b * s, centre[:, 1:] + a * s + b * c], axis=2)


def _wobble(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    return np.stack([rng.normal(0, 0.12, 4), rng.uniform(0, 2 * np.pi, 4)], axis=1)


def _psoas(shared: _Shared, scale: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    width, height, x, y = (_by_level(tables.PSOAS[:, k]) for k in range(4))
    fade = _fade(-1.6, 9.0) * scale
    offset = smooth_line(rng, len(x), 5, 0.025)
    centre = np.stack([x + (scale - 1) * width / 2 + offset, y + shared.psoas_y + 0 * x], axis=1)
    turn = np.full_like(x, rng.normal(0.12, 0.15))
    return _ellipse(width * fade, height * fade**0.6, centre, turn, _wobble(rng))


def _quadratus(shared: _Shared, scale: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    length, thickness, x, y = (_by_level(tables.QUADRATUS[:, k]) for k in range(4))
    fade = _fade(-1.8, 4.3) * scale
    offset = smooth_line(rng, len(x), 5, 0.03)
    centre = np.stack([x + shared.quadratus_xy[0] + offset, y + shared.quadratus_xy[1]], axis=1)
    turn = np.full_like(x, -rng.normal(0.35, 0.2))
    return _ellipse(length * fade**0.5, thickness * fade, centre, turn, _wobble(rng))


_OUTLINES = {
    "multifidus": _multifidus,
    "erector_spinae": _erector,
    "psoas": _psoas,
    "quadratus_lumborum": _quadratus,
}


def _star(polygons: npt.NDArray[np.float64]) -> CrossSections:
    """Resample polygons [node, vertex, 2] as radius over angle about their centroid, corners slightly rounded."""
    centre = polygons.mean(axis=1)
    offset = polygons - centre[:, None]
    target = np.arange(_N_ANGLES) * 2 * np.pi / _N_ANGLES
    radius = np.empty((len(polygons), _N_ANGLES), np.float32)
    for node, corners in enumerate(offset):
        closed = np.vstack([corners, corners[:1]])
        fine = np.concatenate([np.linspace(p, q, 12, endpoint=False) for p, q in itertools.pairwise(closed)])
        angle, reach = np.arctan2(fine[:, 1], fine[:, 0]) % (2 * np.pi), np.hypot(fine[:, 0], fine[:, 1])
        order = np.argsort(angle)
        radius[node] = np.interp(target, angle[order], reach[order], period=2 * np.pi)
    kernel = np.array([1, 2, 3, 2, 1], np.float32) / 9
    padded = np.concatenate([radius[:, -2:], radius, radius[:, :2]], axis=1)
    smooth = sum(kernel[k] * padded[:, k : k + _N_ANGLES] for k in range(5))
    return CrossSections(centre=centre.astype(np.float32), radius=np.asarray(smooth, np.float32))
