"""Draw one subject: the chain of vertebral bodies, discs and sacral segments, and everything else that has a number.

Frame: LPS, mm, origin at the centre of the superior endplate of S1; x to the patient's left, y posterior, z cranial.
Sagittal angles are tilts of an endplate: positive where its anterior edge is lower (as at S1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from models.phantom import tables
from models.phantom.tissues import Tissue

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Body:
    """One vertebral body (or sacral segment): two endplates and the walls between them."""

    name: str
    sacral: bool
    centre: Floats
    """[3] LPS mm."""
    tilt_rad: float
    """Mean tilt of its endplates."""
    roll_rad: float
    """Coronal tilt (scoliosis), left side higher positive."""
    height_mm: float
    depth_mm: float
    width_mm: float
    half_wedge_rad: float
    """Half the angle between its endplates, anterior taller positive."""
    taper: float
    """Inferior over superior depth."""
    concavity_mm: tuple[float, float]
    """Depth of the inferior and superior endplate."""
    waist: float
    """Share by which walls retreat at mid-height."""
    squareness: float
    """Exponent of the superellipse of its cross-section."""

    @property
    def axes(self) -> Floats:
        """[3, 3] rows: local left, posterior and cranial unit vectors in LPS."""
        lateral = np.array([np.cos(self.roll_rad), 0.0, np.sin(self.roll_rad)])
        posterior = np.array([0.0, np.cos(self.tilt_rad), np.sin(self.tilt_rad)])
        posterior -= lateral * (posterior @ lateral)
        posterior /= np.linalg.norm(posterior)
        return np.stack([lateral, posterior, np.cross(lateral, posterior)])

    def at(self, left: float, posterior: float, cranial: float) -> Floats:
        """[3] LPS mm of a point given along the body's own axes from its centre."""
        return np.asarray(self.centre + np.array([left, posterior, cranial]) @ self.axes)

    def endplate_centre(self, side: int) -> Floats:
        """[3] centre of the superior (`side` = +1) or inferior (-1) endplate, LPS mm."""
        return np.asarray(self.centre + side * 0.5 * self.height_mm * self.axes[2])

    def endplate_tilt_rad(self, side: int) -> float:
        """Tilt of the superior (+1) or inferior (-1) endplate."""
        return self.tilt_rad - side * self.half_wedge_rad


@dataclass(frozen=True)
class Disc:
    """The disc between two bodies given by their index in `Anatomy.bodies`."""

    name: str
    lower: int
    upper: int
    bulge_mm: tuple[float, float]
    """Anterior and posterior bulge beyond the bodies' rims."""
    nucleus: float
    """Size of the nucleus as a share of the disc; 0 where degenerated."""
    cleft: bool


@dataclass(frozen=True)
class Blob:
    """An ellipsoid of one tissue."""

    tissue: int
    centre: Floats
    radii_mm: Floats
    axes: Floats
    """[3, 3] rows: its axes in LPS."""


@dataclass(frozen=True)
class Habitus:
    """Soft-tissue proportions of a subject."""

    muscle: float
    """Linear scale of all muscles."""
    fat_infiltration: tuple[float, float]
    """Share of fat in multifidus and erector spinae."""
    subcutaneous_mm: float
    half_width_mm: float
    half_depth_mm: float
    wall_mm: float
    visceral_fat: float
    """Share of the abdominal cavity that is fat; the rest is bowel and organs."""
    dorsal_sheet_mm: float
    """Thickness of latissimus and serratus over the back."""
    sheath: float
    """Fat around each muscle, in body widths."""
    side_scale: Floats
    """[muscle, side] linear scale: multifidus, erector spinae, psoas, quadratus lumborum x left, right."""


@dataclass(frozen=True)
class Anatomy:
    """Everything that `sampling` needs to know what is where."""

    seed: int
    sex: str
    scale: float
    bodies: tuple[Body, ...]
    """From the lowest sacral segment up."""
    discs: tuple[Disc, ...]
    marrow_blobs: tuple[Blob, ...]
    """Focal changes inside bodies (haemangioma, Modic-like change, Schmorl node, vein)."""
    habitus: Habitus
    conus_z_mm: float
    sac_end_z_mm: float

    @property
    def first_mobile(self) -> int:
        """Index of the lowest body above the sacrum."""
        return next(i for i, body in enumerate(self.bodies) if not body.sacral)


def draw_anatomy(
    seed: int, *, sex: str | None = None, scale: float | None = None, healthy: bool = False, n_lumbar: int | None = None
) -> Anatomy:
    """Draw a subject.

    Parameters
    ----------
    seed : the same seed gives the same subject
    sex : "M" or "F"; drawn if not given
    scale : linear size relative to the mean of that sex; drawn (sd 0.05) if not given
    healthy : no fractures, slips or focal marrow change; moderate degeneration (for demos and truth tests)
    n_lumbar : 4, 5 or 6 lumbar vertebrae; drawn (2 % each for 4 and 6) if not given
    """
    rng = np.random.default_rng([seed, 1])
    sex = sex or str(rng.choice(["M", "F"]))
    scale = scale if scale is not None else float(np.clip(rng.normal(1.0, 0.05), 0.85, 1.15))
    n_lumbar = n_lumbar or int(rng.choice([4, 5, 6], p=[0.02, 0.96, 0.02]))
    bodies, collapsed = _column(rng, sex=sex, scale=scale, healthy=healthy, n_lumbar=n_lumbar)
    bodies = _upright(_bend_sideways(bodies, rng, healthy=healthy), rng)
    discs = _discs(bodies, collapsed, rng)
    blobs = () if healthy else _marrow_blobs(bodies, rng)
    top = {body.name: body for body in bodies}
    # conus tip: lower third of L1 on average, mid-T12 to upper L3 (n = 504); a level is 36 mm
    conus = top["L1"].centre[2] - rng.normal(0.3, 0.5) * 36.0 * scale
    return Anatomy(
        seed=seed,
        sex=sex,
        scale=scale,
        bodies=bodies,
        discs=discs,
        marrow_blobs=blobs,
        habitus=_habitus(rng, sex, healthy=healthy),
        conus_z_mm=float(conus),
        sac_end_z_mm=float(rng.uniform(-60, -35)),
    )


def _level_names(n_lumbar: int) -> list[str]:
    lumbar = [f"L{k}" for k in range(n_lumbar, 0, -1)]
    return [*lumbar, "T12", "T11", "T10", "T9"]


def _table_index(position: int, n_lumbar: int) -> int:
    """Row of the tables for the `position`-th body above S1: variants repeat or skip a middle lumbar level."""
    if n_lumbar == 6 and position >= 2:
        return position - 1
    if n_lumbar == 4 and position >= 2:
        return position + 1
    return position


def _column(
    rng: np.random.Generator, *, sex: str, scale: float, healthy: bool, n_lumbar: int
) -> tuple[tuple[Body, ...], tuple[bool, ...]]:
    """Stack sacrum and mobile bodies; second result: per mobile body, is the disc below it degenerated."""
    depth = tables.SEX_DEPTH_FACTOR[sex] * scale * rng.normal(1, 0.04)
    height = tables.SEX_HEIGHT_FACTOR[sex] * scale * rng.normal(1, 0.04)
    slope = np.deg2rad(np.clip(rng.normal(*tables.SACRAL_SLOPE_DEG), 15, 66))
    lordosis = float(np.clip(rng.normal(1, 0.25), 0.3, 1.8) * (0.35 + 0.65 * np.rad2deg(slope) / 38))
    sacrum = _sacrum(rng, depth=depth, height=height, slope=slope)
    mobile, degenerated = [], []
    top, tilt = np.zeros(2), slope
    degeneration = rng.uniform(0, 0.4) if healthy else rng.random()
    disc_scale = np.clip(rng.normal(1, 0.12), 0.65, 1.4)
    for position, name in enumerate(_level_names(n_lumbar)):
        row = _table_index(position, n_lumbar)
        lumbar = position < n_lumbar
        gap = tables.DISC_GAP_MM[row] * height * disc_scale * np.clip(rng.normal(1, 0.12), 0.5, 1.5)
        wedge = np.deg2rad(tables.DISC_WEDGE_DEG[row] * lordosis + rng.normal(0, 2.0))
        worn = bool(rng.random() < (0.5 if lumbar else 0.2) * degeneration)
        if worn:
            gap *= rng.uniform(0.35 if not healthy else 0.6, 0.8)
            wedge *= rng.uniform(0.2, 1)
        slip = rng.normal(0, 0.4)
        if not healthy and position < 2 and rng.random() < 0.06:
            slip += rng.choice([-1, 1], p=[0.8, 0.2]) * rng.uniform(2, 9)
        fractured = not healthy and rng.random() < 0.06
        body_height = tables.BODY_HEIGHT_MM[row] * height * rng.normal(1, 0.03)
        body_wedge = np.deg2rad(tables.BODY_WEDGE_DEG[row] * (0.5 + 0.5 * lordosis) + rng.normal(0, 2.0))
        if fractured:
            body_height *= rng.uniform(0.55, 0.95)
            body_wedge -= np.deg2rad(rng.uniform(0, 16))
        bottom, tilt = _step(top, tilt, max(gap, 2.5), wedge, slip)
        centre, centre_tilt = _step(bottom, tilt, body_height / 2, body_wedge / 2, 0.0)
        top, tilt = _step(bottom, tilt, body_height, body_wedge, 0.0)
        concave = rng.gamma(4, 0.24) * (rng.uniform(1, 3.5) if fractured else 1)
        mobile.append(
            Body(
                name=name,
                sacral=False,
                centre=np.array([0.0, *centre]),
                tilt_rad=float(centre_tilt),
                roll_rad=0.0,
                height_mm=float(body_height),
                depth_mm=float(tables.BODY_DEPTH_MM[row] * depth * rng.normal(1, 0.025)),
                width_mm=float(tables.BODY_WIDTH_MM[row] * depth * rng.normal(1, 0.03)),
                half_wedge_rad=float(body_wedge / 2),
                taper=float(rng.normal(1.0, 0.02)),
                concavity_mm=(float(concave * rng.uniform(0.7, 1.3)), float(concave * rng.uniform(0.4, 0.9))),
                waist=float(rng.uniform(0.03, 0.10)),
                squareness=float(rng.uniform(2.2, 3.0)),
            )
        )
        degenerated.append(worn)
    return (*reversed(sacrum), *mobile), tuple(degenerated)


def _step(point: Floats, tilt: float, length: float, wedge: float, slip: float) -> tuple[Floats, float]:
    """Move up along the mean normal of a wedge; returns the new (y, z) point and tilt."""
    middle = tilt - wedge / 2
    normal, along = np.array([-np.sin(middle), np.cos(middle)]), np.array([np.cos(middle), np.sin(middle)])
    return point + length * normal + slip * along, tilt - wedge


def _sacrum(rng: np.random.Generator, *, depth: float, height: float, slope: float) -> list[Body]:
    """Segments S1 to S5 downwards from the origin. In 8 % the first gap is a well-formed disc (transitional)."""
    segments = []
    point, tilt = np.zeros(2), slope
    d = tables.SACRAL_DEPTH_MM * depth
    transitional = rng.random() < 0.08
    for k in range(5):
        kyphosis = np.deg2rad(rng.normal(tables.SACRAL_KYPHOSIS_DEG[k], 4.0)) * (0.4 if transitional and k == 0 else 1)
        h = tables.SACRAL_HEIGHT_MM[k] * height
        taper = 0.9 if transitional and k == 0 else tables.SACRAL_TAPER[k]
        below = tilt + kyphosis
        middle = (tilt + below) / 2
        normal = np.array([-np.sin(middle), np.cos(middle)])
        segments.append(
            Body(
                name=f"S{k + 1}",
                sacral=True,
                centre=np.array([0.0, *(point - normal * h / 2)]),
                tilt_rad=float(middle),
                roll_rad=0.0,
                height_mm=float(h),
                depth_mm=float(d),
                width_mm=float(tables.SACRAL_WIDTH_MM * depth * (1 - 0.1 * k)),
                half_wedge_rad=float(kyphosis / 2),
                taper=float(taper),
                concavity_mm=(float(rng.uniform(0, 0.8)), float(rng.uniform(0, 1.2))),
                waist=float(rng.uniform(0.0, 0.05)),
                squareness=float(rng.uniform(2.2, 3.0)),
            )
        )
        gap = tables.SACRAL_GAP_MM[k] * height * (rng.uniform(1.3, 2.0) if transitional and k == 0 else 1)
        point = point - normal * h - np.array([-np.sin(below), np.cos(below)]) * gap
        tilt = below + np.deg2rad(3)
        d *= taper * 0.97
    return segments


def _bend_sideways(bodies: tuple[Body, ...], rng: np.random.Generator, *, healthy: bool) -> tuple[Body, ...]:
    """Scoliosis and oblique lie: move bodies along x and roll them to follow."""
    amplitude = abs(rng.normal(0, 1.0)) if healthy or rng.random() > 0.3 else abs(rng.normal(0, 6.0))
    phase, lean = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.02)
    z = np.array([body.centre[2] for body in bodies])
    x = amplitude * (np.sin(z / 55 + phase) - np.sin(phase)) + lean * z
    slope = amplitude / 55 * np.cos(z / 55 + phase) + lean
    return tuple(
        replace(body, centre=body.centre + np.array([dx, 0, 0]), roll_rad=float(-np.arctan(s)))
        for body, dx, s in zip(bodies, x, slope, strict=True)
    )


def _upright(bodies: tuple[Body, ...], rng: np.random.Generator) -> tuple[Body, ...]:
    """Turn the column about x so that the chord from S1 to L1 lies near the table's axis, as in a supine patient."""
    top = next(body for body in bodies if body.name == "L1").centre
    angle = np.arctan2(-top[1], top[2]) * 0.85 + np.deg2rad(rng.normal(0, 3.5))
    c, s = np.cos(angle), np.sin(angle)
    # a chord that leans anterior (y < 0) turns back by the positive angle, which lowers every tilt by it
    turn = np.array([[1, 0, 0], [0, c, s], [0, -s, c]])
    return tuple(replace(body, centre=turn @ body.centre, tilt_rad=body.tilt_rad - float(angle)) for body in bodies)


def _discs(bodies: tuple[Body, ...], worn: tuple[bool, ...], rng: np.random.Generator) -> tuple[Disc, ...]:
    first = next(i for i, body in enumerate(bodies) if not body.sacral)
    discs = []
    for k, upper in enumerate(range(first, len(bodies))):
        protrusion = rng.uniform(2, 5) if worn[k] and rng.random() < 0.3 else 0.0
        discs.append(
            Disc(
                name=f"{bodies[upper].name}-{bodies[upper - 1].name}",
                lower=upper - 1,
                upper=upper,
                bulge_mm=(
                    float(rng.normal(0.6, 0.7) + (rng.exponential(1.0) if worn[k] else 0)),
                    float(rng.normal(0.4, 0.6) + (rng.exponential(1.0) if worn[k] else 0) + protrusion),
                ),
                nucleus=0.0 if worn[k] and rng.random() < 0.6 else float(rng.uniform(0.55, 0.8)),
                cleft=bool(rng.random() < 0.3),
            )
        )
    return tuple(discs)


def _marrow_blobs(bodies: tuple[Body, ...], rng: np.random.Generator) -> tuple[Blob, ...]:
    blobs = []
    for body in bodies:
        if body.sacral:
            continue
        h, d, w = body.height_mm, body.depth_mm, body.width_mm
        if rng.random() < 0.75:  # basivertebral vein
            vein = int(rng.choice([Tissue.EPIDURAL_FAT, Tissue.VEIN, Tissue.VESSEL]))
            radii = np.array([4.0, rng.uniform(3, 7), rng.uniform(0.8, 1.6)])
            blobs.append(Blob(vein, body.at(0, d * 0.42, rng.normal(0, 1)), radii, body.axes))
        if rng.random() < 0.10:  # haemangioma or focal fat
            focal = int(rng.choice([Tissue.FATTY_MARROW, Tissue.OEDEMA, Tissue.SCLEROSIS]))
            where = body.at(rng.normal(0, w / 6), rng.normal(0, d / 6), rng.normal(0, h / 6))
            blobs.append(Blob(focal, where, rng.uniform(2.5, 6, 3), body.axes))
        if rng.random() < 0.18:  # Modic-like change along an endplate
            side, change = rng.choice([-1, 1]), int(rng.choice([Tissue.FATTY_MARROW, Tissue.OEDEMA, Tissue.SCLEROSIS]))
            radii = np.array([w * 0.35, d * rng.uniform(0.15, 0.5), rng.uniform(3, 8)])
            blobs.append(Blob(change, body.at(0, rng.normal(0, d / 5), side * h * 0.5), radii, body.axes))
        if rng.random() < 0.07:  # Schmorl node
            side = rng.choice([-1, 1])
            where = body.at(rng.normal(0, 6), rng.normal(0, d / 6), side * h * 0.5)
            blobs.append(Blob(int(Tissue.ANNULUS), where, np.array([4, 4, rng.uniform(2.5, 5)]), body.axes))
    return tuple(blobs)


def _habitus(rng: np.random.Generator, sex: str, *, healthy: bool) -> Habitus:
    male = sex == "M"
    fat = np.clip(rng.beta(1.6, 6.0, 2) * (0.5 if healthy else 1.0), 0.01, 0.6)
    return Habitus(
        muscle=float(np.exp(rng.normal(0, 0.09)) * (1.04 if male else 0.95)),
        fat_infiltration=(float(max(fat)), float(min(fat))),
        subcutaneous_mm=float(np.clip(rng.lognormal(np.log(18), 0.55), 4, 75)),
        half_width_mm=float(rng.normal(172 if male else 165, 15)),
        half_depth_mm=float(rng.normal(108, 13)),
        wall_mm=float(rng.uniform(8, 28)),
        visceral_fat=float(rng.uniform(0.15, 0.95)),
        dorsal_sheet_mm=float(rng.choice([0.5, rng.uniform(2, 8), 80.0], p=[0.4, 0.45, 0.15])),
        sheath=float(rng.choice([rng.uniform(0.0, 0.02), rng.uniform(0.02, 0.07)])),
        side_scale=np.exp(rng.normal(0, 0.05 if healthy else 0.08, (4, 2))),
    )
