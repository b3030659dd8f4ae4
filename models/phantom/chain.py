"""Build the chain of sacral segments, vertebral bodies and discs of a subject from tables and findings.

The column is stacked in the sagittal plane from the sacrum up, bent in the coronal plane, then laid on the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from models.phantom import tables
from models.phantom.bodies import Body, Disc, Floats
from models.phantom.pathology import Finding, disc_names
from models.phantom.tissues import Tissue

_Found = dict[tuple[str, str], float]
"""(kind, level) -> size."""


@dataclass(frozen=True)
class _Build:
    """What holds for the whole column of one subject."""

    depth: float
    height: float
    slope: float
    lordosis: float
    disc_scale: float
    healthy: bool
    found: _Found


def level_names(n_lumbar: int) -> list[str]:
    """Mobile bodies from the sacrum up to T9."""
    return [*(f"L{k}" for k in range(n_lumbar, 0, -1)), "T12", "T11", "T10", "T9"]


def draw_chain(
    rng: np.random.Generator, findings: Sequence[Finding], *, sex: str, scale: float, healthy: bool, n_lumbar: int
) -> tuple[tuple[Body, ...], tuple[Disc, ...]]:
    """Bodies from S5 up to T9 and the discs between the mobile ones (none within a block vertebra)."""
    found = {(finding.kind, finding.level): finding.size for finding in findings}
    build = _proportions(rng, found, sex=sex, scale=scale, healthy=healthy)
    names = level_names(n_lumbar)
    gaps = disc_names(names)
    worn = [
        ("narrow_disc", gap) in found or ("collapsed_disc", gap) in found or (healthy and rng.random() < 0.1)
        for gap in gaps
    ]
    mobile: list[Body] = []
    top, tilt = np.zeros(2), build.slope
    for position, name in enumerate(names):
        row = min(_table_row(position, n_lumbar), len(tables.BODY_HEIGHT_MM) - 1)
        body = _shape(rng, build, name, row)
        gap, wedge, slip = _gap(rng, build, gaps[position], row, worn=worn[position])
        bottom, tilt = _step(top, tilt, gap, wedge, slip)
        centre, centre_tilt = _step(bottom, tilt, body.height_mm / 2, body.half_wedge_rad, 0.0)
        top, tilt = _step(bottom, tilt, body.height_mm, 2 * body.half_wedge_rad, 0.0)
        mobile.append(replace(body, centre=np.array([0.0, *centre]), tilt_rad=float(centre_tilt)))
    bodies = (*reversed(_sacrum(rng, build)), *mobile)
    bodies = tuple(_changed(rng, build, bodies))
    bodies = _upright(_bend_sideways(bodies, rng, build), rng)
    return bodies, _discs(rng, build, bodies, worn)


def _proportions(rng: np.random.Generator, found: _Found, *, sex: str, scale: float, healthy: bool) -> _Build:
    slope = float(np.clip(rng.normal(*tables.SACRAL_SLOPE_DEG), *tables.SACRAL_SLOPE_RANGE_DEG))
    if not healthy and rng.random() < 0.3:  # steep and horizontal sacra are where networks fail
        slope = float(rng.uniform(*tables.SACRAL_SLOPE_RANGE_DEG))
    return _Build(
        depth=float(tables.SEX_DEPTH_FACTOR[sex] * scale * rng.normal(1, 0.04)),
        height=float(tables.SEX_HEIGHT_FACTOR[sex] * scale * rng.normal(1, 0.04)),
        slope=float(np.deg2rad(slope)),
        lordosis=float(np.clip(rng.normal(1, 0.25), 0.3, 1.8) * (0.35 + 0.65 * slope / 38)),
        disc_scale=float(np.clip(rng.normal(1, 0.12), 0.65, 1.4)),
        healthy=healthy,
        found=found,
    )


def _table_row(position: int, n_lumbar: int) -> int:
    """Row of the tables for the `position`-th body above S1: variants repeat or skip a middle lumbar level."""
    if n_lumbar == 6 and position >= 2:
        return position - 1
    if n_lumbar == 4 and position >= 2:
        return position + 1
    return position


def _gap(rng: np.random.Generator, build: _Build, level: str, row: int, *, worn: bool) -> tuple[float, float, float]:
    """Height (mm), wedge (rad) and posterior shift (mm) of the body above against the body below a disc."""
    gap = tables.DISC_GAP_MM[row] * build.height * build.disc_scale * float(np.clip(rng.normal(1, 0.12), 0.5, 1.5))
    wedge = np.deg2rad(tables.DISC_WEDGE_DEG[row] * build.lordosis + rng.normal(0, 2.0))
    depth, slip = tables.BODY_DEPTH_MM[row] * build.depth, float(rng.normal(0, 0.4))
    if worn:
        gap *= build.found.get(("narrow_disc", level), 0.85)
        wedge *= rng.uniform(0.2, 1)
    gap = max(gap, 2.5)
    gap = build.found.get(("collapsed_disc", level), build.found.get(("sacralised_l5", level), gap))
    slip -= build.found.get(("spondylolisthesis", level), 0.0) * depth
    if ("block_vertebra", level) in build.found:
        return 0.0, 0.0, 0.0
    # the rims of the two bodies may not cross
    steepest = 2 * max(gap - 0.8, 0.3) / depth
    return float(gap), float(np.clip(wedge, -steepest, steepest)), slip


def _shape(rng: np.random.Generator, build: _Build, name: str, row: int) -> Body:
    """A mobile body, fractured or not, still without a place."""
    height = tables.BODY_HEIGHT_MM[row] * build.height * rng.normal(1, 0.03)
    depth = tables.BODY_DEPTH_MM[row] * build.depth * rng.normal(1, 0.025)
    wedge = np.deg2rad(tables.BODY_WEDGE_DEG[row] * (0.5 + 0.5 * build.lordosis) + rng.normal(0, 2.0))
    dent = rng.gamma(4, 0.24)
    concavity = (float(dent * rng.uniform(0.7, 1.3)), float(dent * rng.uniform(0.4, 0.9)))
    square = rng.uniform(2.2, 3.0)
    body = Body(
        name=name,
        sacral=False,
        centre=np.zeros(3),
        tilt_rad=0.0,
        height_mm=float(height),
        depth_mm=float(depth),
        width_mm=float(tables.BODY_WIDTH_MM[row] * build.depth * rng.normal(1, 0.03)),
        half_wedge_rad=float(wedge / 2),
        taper=float(rng.normal(1.0, 0.02)),
        concavity_mm=concavity,
        waist=float(rng.uniform(0.03, 0.10)),
        squareness=float(square),
        osteophyte_mm=(0.0,) * 4 if build.healthy else tuple(np.clip(rng.normal(0.2, 0.6, 4), 0, 1.5).tolist()),
    )
    return _fractured(rng, build.found, body)


def _fractured(rng: np.random.Generator, found: _Found, body: Body) -> Body:
    """Lose height at the front (wedge), in the middle (biconcave) or everywhere (crush)."""
    if (ratio := found.get(("wedge_fracture", body.name))) is not None:
        back = body.height_mm * rng.uniform(0.9, 1.0)
        half = np.arctan((ratio - 1) * back / (2 * body.depth_mm))
        return replace(body, height_mm=float(back * (1 + ratio) / 2), half_wedge_rad=float(half))
    if (ratio := found.get(("biconcave_fracture", body.name))) is not None:
        back = body.height_mm * rng.uniform(0.9, 1.0)
        share = rng.uniform(0.3, 0.6)
        dents = (1 - ratio) * back * np.array([share, 1 - share])
        return replace(body, height_mm=float(back), half_wedge_rad=0.0, concavity_mm=(float(dents[0]), float(dents[1])))
    if (ratio := found.get(("crush_fracture", body.name))) is not None:
        wide = rng.uniform(1.0, 1.08)
        return replace(body, height_mm=body.height_mm * ratio, depth_mm=float(body.depth_mm * wide))
    return body


def _step(point: Floats, tilt: float, length: float, wedge: float, slip: float) -> tuple[Floats, float]:
    """Move up along the mean normal of a wedge; returns the new (y, z) point and tilt."""
    middle = tilt - wedge / 2
    along = np.array([np.cos(middle), np.sin(middle)])
    return point + length * _endplate_normal(middle) + slip * along, tilt - wedge


def _sacrum(rng: np.random.Generator, build: _Build) -> list[Body]:
    """Segments S1 to S5 downwards from the origin; a lumbarised S1 is square and has a real gap below."""
    marrow = Tissue.YELLOW_MARROW if not build.healthy and rng.random() < 0.25 else Tissue.SACRAL_MARROW
    bend = 1.0 if build.healthy else rng.uniform(0.5, 1.5)
    segments: list[Body] = []
    top, tilt = np.zeros(2), build.slope
    depth = float(tables.SACRAL_DEPTH_MM * build.depth)
    for k in range(5):
        segment = _sacral_segment(rng, build, k, bend=bend, depth=depth, marrow=marrow)
        below = tilt + 2 * segment.half_wedge_rad
        middle = (tilt + below) / 2
        normal = _endplate_normal(middle)
        centre = np.array([0.0, *(top - normal * segment.height_mm / 2)])
        segments.append(replace(segment, centre=centre, tilt_rad=middle))
        top = top - normal * segment.height_mm - _endplate_normal(below) * _sacral_gap(rng, build, k)
        tilt = below + float(np.deg2rad(3))
        depth *= segment.taper * 0.97
    return segments


def _sacral_segment(
    rng: np.random.Generator, build: _Build, k: int, *, bend: float, depth: float, marrow: Tissue
) -> Body:
    """Segment S(k + 1), still without a place."""
    square = k == 0 and ("lumbarised_s1", "") in build.found
    kyphosis = np.deg2rad(rng.normal(tables.SACRAL_KYPHOSIS_DEG[k] * bend, 4.0)) * (0.3 if square else 1)
    height = tables.SACRAL_HEIGHT_MM[k] * build.height * (1 if build.healthy else rng.normal(1, 0.06))
    taper = 0.93 if square else tables.SACRAL_TAPER[k] + (0 if build.healthy else rng.normal(0, 0.06))
    return Body(
        name=f"S{k + 1}",
        sacral=True,
        centre=np.zeros(3),
        tilt_rad=0.0,
        height_mm=float(height),
        depth_mm=depth,
        width_mm=float(tables.SACRAL_WIDTH_MM * build.depth * (1 - 0.1 * k)),
        half_wedge_rad=float(kyphosis / 2),
        taper=float(taper),
        concavity_mm=(float(rng.uniform(0, 0.8)), float(rng.uniform(0, 1.2))),
        waist=float(rng.uniform(0.0, 0.05)),
        squareness=float(rng.uniform(2.2, 3.0)),
        marrow=int(marrow),
    )


def _sacral_gap(rng: np.random.Generator, build: _Build, k: int) -> float:
    """Height of the remnant disc below S(k + 1), mm."""
    gap = tables.SACRAL_GAP_MM[k] * build.height * (1 if build.healthy else rng.uniform(0.5, 1.25))
    return float(build.found.get(("lumbarised_s1", ""), gap) if k == 0 else gap)


def _endplate_normal(tilt: float) -> Floats:
    """Cranial unit normal (y, z) of an endplate of this tilt."""
    return np.array([-np.sin(tilt), np.cos(tilt)])


def _changed(rng: np.random.Generator, build: _Build, bodies: tuple[Body, ...]) -> list[Body]:
    """Rims, fusions and marrow of whole bodies."""
    first = next(k for k, body in enumerate(bodies) if not body.sacral)
    changed = list(bodies)
    irradiated = int(build.found.get(("irradiated_marrow", ""), -1.0))
    for k in range(first + max(irradiated, 0) if irradiated >= 0 else 0):
        changed[k] = replace(changed[k], marrow=int(Tissue.FATTY_MARROW))
    for (kind, level), size in build.found.items():
        if kind == "replaced_body" and size > 0.8:
            k = next(k for k, body in enumerate(bodies) if body.name == level)
            changed[k] = replace(changed[k], marrow=int(Tissue.REPLACED_MARROW))
        if kind not in ("osteophytes", "block_vertebra"):
            continue
        upper = next(k for k, body in enumerate(bodies) if body.name == level.split("-")[0])
        for k, side in ((upper - 1, 1), (upper, 0)):
            if kind == "block_vertebra":
                changed[k] = _fuse(changed[k], side)
            else:
                rims = list(changed[k].osteophyte_mm)
                rims[side], rims[2 + side] = size * rng.uniform(0.6, 1), rng.uniform(0, 0.5) * size
                changed[k] = replace(changed[k], osteophyte_mm=(rims[0], rims[1], rims[2], rims[3]))
    return changed


def _fuse(body: Body, side: int) -> Body:
    """Make the inferior (0) or superior (1) endplate a plane that is no border."""
    concavity, fused = list(body.concavity_mm), list(body.fused)
    concavity[side], fused[side] = 0.0, True
    return replace(body, concavity_mm=(concavity[0], concavity[1]), fused=(fused[0], fused[1]))


def _bend_sideways(bodies: tuple[Body, ...], rng: np.random.Generator, build: _Build) -> tuple[Body, ...]:
    """Scoliosis and oblique lie: move bodies along x, roll them to follow, turn them towards the convex side.

    The roll runs as a sine from end vertebra to end vertebra, so the largest and smallest differ by the Cobb angle.
    """
    cobb = np.deg2rad(build.found.get(("scoliosis", ""), abs(rng.normal(0, 2.0))))
    z = np.array([body.centre[2] for body in bodies])
    half_wave, apex = rng.uniform(95, 140), rng.uniform(75, 130)
    side, lean = rng.choice([-1, 1]), rng.normal(0, 0.02)
    grid = np.arange(-200.0, 400.0)
    phase = np.clip((grid - apex) * np.pi / half_wave, -1.3 * np.pi, 1.3 * np.pi)
    roll = side * cobb / 2 * np.sin(phase) * np.clip((grid + 10) / 30, 0, 1)
    x = np.cumsum(np.tan(roll)) + lean * grid
    x -= np.interp(0.0, grid, x)
    turn = -side * 0.5 * cobb * np.cos(phase / 1.3) * np.clip((grid + 10) / 30, 0, 1)
    return tuple(
        replace(
            body,
            centre=body.centre + np.array([np.interp(h, grid, x), 0, 0]),
            roll_rad=float(-np.interp(h, grid, roll) - lean),
            turn_rad=float(np.interp(h, grid, turn)),
        )
        for body, h in zip(bodies, z, strict=True)
    )


def _upright(bodies: tuple[Body, ...], rng: np.random.Generator) -> tuple[Body, ...]:
    """Turn the column about x so that the chord from S1 to L1 lies near the table's axis, as in a supine patient."""
    top = next(body for body in bodies if body.name == "L1").centre
    angle = np.arctan2(-top[1], top[2]) * 0.85 + np.deg2rad(rng.normal(0, 3.5))
    c, s = np.cos(angle), np.sin(angle)
    # a chord that leans anterior (y < 0) turns back by the positive angle, which lowers every tilt by it
    turn = np.array([[1, 0, 0], [0, c, s], [0, -s, c]])
    return tuple(replace(body, centre=turn @ body.centre, tilt_rad=body.tilt_rad - float(angle)) for body in bodies)


def _discs(rng: np.random.Generator, build: _Build, bodies: tuple[Body, ...], worn: list[bool]) -> tuple[Disc, ...]:
    """The discs from L5/S1 up; within a block vertebra there is none."""
    first = next(i for i, body in enumerate(bodies) if not body.sacral)
    discs = [
        _disc(rng, build, f"{bodies[upper].name}-{bodies[upper - 1].name}", upper, worn=worn[upper - first])
        for upper in range(first, len(bodies))
    ]
    return tuple(disc for disc in discs if ("block_vertebra", disc.name) not in build.found)


def _disc(rng: np.random.Generator, build: _Build, name: str, upper: int, *, worn: bool) -> Disc:
    bulge_mm = _bulge_mm(rng, worn=worn)
    collapsed = ("collapsed_disc", name) in build.found
    nucleus = 0.0 if collapsed or (worn and rng.random() < 0.6) else rng.uniform(0.55, 0.8)
    return Disc(
        name=name,
        lower=upper - 1,
        upper=upper,
        bulge_mm=bulge_mm,
        nucleus=float(nucleus),
        cleft=bool(rng.random() < 0.3),
        vacuum=bool(nucleus == 0.0 and not build.healthy and rng.random() < 0.35),
    )


def _bulge_mm(rng: np.random.Generator, *, worn: bool) -> tuple[float, float]:
    """How far a disc stands out beyond the rims, (front, back); worn ones further, some with a protrusion."""
    protrusion = rng.uniform(2, 5) if worn and rng.random() < 0.3 else 0.0
    front, back = rng.normal(0.6, 0.7), rng.normal(0.4, 0.6)
    swelling = rng.exponential(1.0, 2) if worn else (0.0, 0.0)
    return float(front + swelling[0]), float(back + swelling[1] + protrusion)
