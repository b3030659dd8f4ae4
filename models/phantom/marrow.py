"""What lies inside vertebral bodies: veins, islands, endplate change, Schmorl nodes, tumour, and metal in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.phantom.bodies import Blob, Body, Disc
from models.phantom.pathology import FRACTURES, Finding
from models.phantom.tissues import Tissue

_MODIC = {1: Tissue.OEDEMA, 2: Tissue.FATTY_MARROW, 3: Tissue.SCLEROSIS}


def draw_marrow(
    rng: np.random.Generator, bodies: tuple[Body, ...], discs: tuple[Disc, ...], findings: Sequence[Finding]
) -> tuple[Blob, ...]:
    """Ellipsoids inside bodies, in the order in which they are painted."""
    blobs: list[Blob] = []
    for body in bodies:
        blobs += _vein(rng, body) + _islands(rng, body)
    by_name = {body.name: body for body in bodies}
    for finding in findings:
        if finding.kind == "modic_change":
            disc = next((disc for disc in discs if disc.name == finding.level), None)
            if disc is not None:
                blobs += _modic(rng, bodies[disc.lower], bodies[disc.upper], int(finding.size))
        elif finding.kind == "block_vertebra" and finding.size < 0.5:
            blobs.append(_remnant(by_name[finding.level.split("-")[0]]))
        elif finding.kind in ("haemangioma", "replaced_body", "schmorl_node", *FRACTURES):
            blobs += _focus(rng, by_name[finding.level], finding)
    return tuple(blobs)


def _vein(rng: np.random.Generator, body: Body) -> list[Blob]:
    """Basivertebral vein."""
    if body.sacral or rng.random() > 0.75:
        return []
    tissue = int(rng.choice([Tissue.EPIDURAL_FAT, Tissue.VEIN, Tissue.VESSEL]))
    radii = np.array([4.0, rng.uniform(3, 7), rng.uniform(0.8, 1.6)])
    return [Blob(tissue, body.at(0, body.depth_mm * 0.42, rng.normal(0, 1)), radii, body.axes)]


def _islands(rng: np.random.Generator, body: Body) -> list[Blob]:
    """Small islands of fat, red marrow or dense bone; the sacrum is often partly fatty."""
    kinds = [Tissue.FATTY_MARROW, Tissue.YELLOW_MARROW, Tissue.RED_MARROW, Tissue.SCLEROSIS]
    many = rng.poisson(0.8 if body.sacral else 0.35)
    size = np.array([body.width_mm / 3, body.depth_mm / 2, body.height_mm / 2])
    return [
        Blob(
            int(rng.choice(kinds, p=[0.35, 0.3, 0.25, 0.1])),
            body.at(*(size * rng.uniform(-0.8, 0.8, 3))),
            rng.uniform(1.5, 9.0 if body.sacral else 5.0, 3),
            body.axes,
        )
        for _ in range(many)
    ]


def _modic(rng: np.random.Generator, lower: Body, upper: Body, kind: int) -> list[Blob]:
    """Bands of type 1 (oedema), 2 (fat) or 3 (sclerosis) along both endplates of a degenerated disc."""
    shift, reach = rng.normal(0, 0.2), rng.uniform(0.35, 0.75)
    blobs = []
    for body, side in ((lower, 1), (upper, -1)):
        radii = np.array([body.width_mm * 0.42, body.depth_mm * reach, rng.uniform(4, 10)])
        where = body.at(rng.normal(0, 4), shift * body.depth_mm, side * body.height_mm * 0.5)
        blobs.append(Blob(int(_MODIC[kind]), where, radii, body.axes))
    return blobs


def _remnant(body: Body) -> Blob:
    """The dark line that is left of the disc below the upper half of a block vertebra."""
    radii = np.array([body.width_mm * 0.35, body.depth_mm * 0.35, 0.8])
    return Blob(int(Tissue.CORTEX), body.endplate_centre(-1), radii, body.axes)


def _focus(rng: np.random.Generator, body: Body, finding: Finding) -> list[Blob]:
    w, d, h = body.width_mm, body.depth_mm, body.height_mm
    side = int(rng.choice([-1, 1]))
    if finding.kind == "haemangioma":
        radii = np.minimum(finding.size * rng.uniform(0.7, 1.2, 3), [w / 2, d / 2, h / 2])
        where = body.at(rng.normal(0, w / 8), rng.normal(0, d / 8), rng.normal(0, h / 8))
        tissue = rng.choice([Tissue.FATTY_MARROW, Tissue.OEDEMA], p=[0.8, 0.2])
        return [Blob(int(tissue), where, radii, body.axes)]
    if finding.kind == "schmorl_node":
        where = body.at(rng.normal(0, 5), rng.normal(0, d / 8), side * (h * 0.5 - body.concavity_mm[(side + 1) // 2]))
        radii = np.array([rng.uniform(3, 6), rng.uniform(3, 6), finding.size])
        node = Blob(int(Tissue.ANNULUS), where, radii, body.axes, unlabelled=True)
        return [Blob(int(Tissue.SCLEROSIS), where, radii + 1.2, body.axes), node]
    if finding.kind == "replaced_body":
        where = body.at(rng.normal(0, 3), rng.normal(0, d / 10), rng.normal(0, h / 10))
        return [Blob(int(Tissue.REPLACED_MARROW), where, np.array([w, d, h]) * 0.55 * finding.size, body.axes, 3.0)]
    if rng.random() < 0.5:  # an old fracture
        return []
    where = body.at(0, -0.1 * d, 0.4 * side * h)
    return [Blob(int(Tissue.OEDEMA), where, np.array([w, d, h]) * rng.uniform(0.3, 0.6, 3), body.axes)]


def draw_implants(rng: np.random.Generator, bodies: tuple[Body, ...], findings: Sequence[Finding]) -> tuple[Blob, ...]:
    """Voids around pedicle screws and rods, each with a bright rim on the side to which signal is displaced."""
    blobs: list[Blob] = []
    for finding in (finding for finding in findings if finding.kind == "metal"):
        upper = next(k for k, body in enumerate(bodies) if body.name == finding.level.split("-")[0])
        for body in bodies[upper - 1 : upper + 1]:
            b, x = body.depth_mm / 2, 0.31 * body.width_mm
            shift = np.array([0.0, rng.normal(0, 2.5), rng.choice([-3.5, 3.5])])
            for side in (-1, 1):
                screw, rod = body.at(side * x, b, 0.15 * body.height_mm), body.at(side * x, b + 22, 0.0)
                for where, radii in (
                    (screw, np.array([finding.size, 24.0, finding.size])),
                    (rod, np.array([finding.size * 1.3, finding.size * 1.3, 24.0])),
                ):
                    blobs.append(Blob(int(Tissue.FATTY_MARROW), where + shift, radii * 0.98, body.axes))
                    blobs.append(Blob(int(Tissue.GAS), where, radii, body.axes, unlabelled=True))
    return tuple(blobs)
