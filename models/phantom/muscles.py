"""The four paraspinal muscles of each side as star-shaped cross-sections that change smoothly from level to level.

Coordinates: X = (x - x of the spine) / W, lateral positive on the side in question, and Y = (y - y of the spine) / W,
with W the body width at that level. Erector spinae is a control polygon, the other three are ellipses with an irregular
rim; sizes and places in `tables`. Outlines of erector spinae run on beneath multifidus, which is painted over it: so
the two touch, and the fat between them is a matter of `soft_tissue`.
"""

from __future__ import annotations

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
_POINTS_PER_EDGE = 12
"""Into which the edges of outlines are divided before they are resampled."""


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
        border=float(np.exp(rng.normal(0, 0.13))),
        lean=float(rng.normal(0, 0.10)),
        cover=float(rng.normal(0, 0.05)),
        triangle=float(rng.uniform(-0.05, 0.25)),
        tent=habitus.tent,
        erector_jitter=rng.normal(0, 0.02, (12, 2)),
    )
    sections = {}
    for s, side in enumerate(SIDES):
        for m, muscle in enumerate(MUSCLES):
            scale = habitus.muscle * habitus.side_scale[m, s]
            sections[muscle, side] = _star(_OUTLINES[muscle](shared, scale, rng))
    return sections


@dataclass(frozen=True)
class _Shared:
    """What both sides of a subject have in common, in W and rad."""

    psoas_y: float
    quadratus_xy: npt.NDArray[np.float64]
    border: float
    """Factor on the lateral reach of multifidus: where it meets erector spinae."""
    lean: float
    cover: float
    """How far erector spinae covers multifidus from behind at L1-L3."""
    triangle: float
    """Multifidus broader in front (its base on the lamina) than behind."""
    tent: float
    """Fat between fascia and muscle at S1."""
    erector_jitter: npt.NDArray[np.float64]


def _by_level(table: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Interpolate a table of L1..S1 to the level nodes (constant beyond)."""
    return np.interp(LEVEL_NODES, np.arange(len(table)), table)


def _fade(above: float, below: float) -> npt.NDArray[np.float64]:
    """Size factor that shrinks a muscle to nothing beyond its extent."""
    return np.clip(np.minimum((LEVEL_NODES - above) / 0.8, (below - LEVEL_NODES) / 0.8), 0.0, 1.0)


def fascia_depth(anatomy: Anatomy, X: Array, level: Array) -> Array:
    """[n] Y of the thoracolumbar fascia at |X|: level over the muscles' bellies, then bent forward, below L4 sooner."""
    narrow = 1 + 0.2 * np.clip(level - 3, 0, 2)
    bend = np.maximum(np.abs(X) * narrow / anatomy.habitus.muscle - 0.6, 0.0)
    return np.asarray(tables.SPINOUS_TIP - 0.47 * bend * bend, dtype=np.float32)


def _tented(polygon: npt.NDArray[np.float64], tent: float) -> npt.NDArray[np.float64]:
    """Draw the dorsal half of outlines away from the fascia, from L4 down."""
    caudal = np.clip((LEVEL_NODES - 2.5) / 2.5, 0, 1)[:, None]
    dorsal = np.clip((polygon[..., 1] - 0.95) / 0.5, 0, 1)
    return polygon - np.stack([0 * dorsal, tent * caudal * dorsal], axis=2)


def _multifidus(shared: _Shared, scale: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    width, height, x, y, lean = (_by_level(tables.MULTIFIDUS[:, k]) for k in range(5))
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    rim = (np.abs(np.cos(t)) ** 2.4 + np.abs(np.sin(t)) ** 2.4) ** (-1 / 2.4)
    wobble = _wobble(rng)
    rim = rim * (1 + sum(0.5 * w / (k + 2) * np.cos((k + 2) * t + phase) for k, (w, phase) in enumerate(wobble)))
    wide, fade = shared.border * scale, _fade(-3.5, 6.6)
    a = (width * wide * fade)[:, None] / 2 * rim * np.cos(t) * (1 - shared.triangle * np.sin(t))
    b = (height * scale**0.7 * fade)[:, None] / 2 * rim * np.sin(t)
    turn = (lean + shared.lean)[:, None]
    upper = np.clip((3.0 - LEVEL_NODES) / 2, 0, 1)
    centre_x, centre_y = x * wide, y + shared.cover * upper
    polygon = np.stack(
        [centre_x[:, None] + a * np.cos(turn) - b * np.sin(turn), centre_y[:, None] + a * np.sin(turn) + b], axis=2
    )
    return _tented(polygon, shared.tent)


def _erector(shared: _Shared, scale: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    rows = tables.ERECTOR
    polygon = np.stack([_by_level(rows[:, v, k]) for v in range(rows.shape[1]) for k in (0, 1)], axis=1)
    polygon = polygon.reshape(len(LEVEL_NODES), -1, 2) + shared.erector_jitter + rng.normal(0, 0.01, (12, 2))
    back = tables.SPINOUS_TIP
    polygon = np.stack([polygon[..., 0] * scale, back - (back - polygon[..., 1]) * scale**0.6], axis=2)
    return _tented(polygon * _shrink(polygon, _fade(-4.0, 6.2)), shared.tent)


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
    turn = np.full_like(x, rng.normal(0.12, 0.15))
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
    edge = (np.roll(offset, -1, axis=1) - offset) / _POINTS_PER_EDGE
    fine = (np.arange(_POINTS_PER_EDGE)[:, None] * edge[:, :, None] + offset[:, :, None]).reshape(len(offset), -1, 2)
    target = np.arange(_N_ANGLES) * 2 * np.pi / _N_ANGLES
    radius = np.empty((len(polygons), _N_ANGLES), np.float32)
    for node, (x, y) in enumerate(np.moveaxis(fine, 2, 1)):
        angle = np.arctan2(y, x) % (2 * np.pi)
        order = np.argsort(angle)
        radius[node] = np.interp(target, angle[order], np.hypot(x, y)[order], period=2 * np.pi)
    kernel = np.array([1, 2, 3, 2, 1], np.float32) / 9
    padded = np.concatenate([radius[:, -2:], radius, radius[:, :2]], axis=1)
    smooth = sum(kernel[k] * padded[:, k : k + _N_ANGLES] for k in range(5))
    return CrossSections(centre=centre.astype(np.float32), radius=np.asarray(smooth, np.float32))
