"""The parts of a column: vertebral bodies, discs and ellipsoids of one tissue.

Frame: LPS, mm, origin at the centre of the superior endplate of S1; x to the patient's left, y posterior, z cranial.
Sagittal angles are tilts of an endplate: positive where its anterior edge is lower (as at S1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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
    roll_rad: float = 0.0
    """Coronal tilt (scoliosis), left side higher positive."""
    turn_rad: float = 0.0
    """Rotation about its own cranial axis (scoliosis), left side backward positive."""
    osteophyte_mm: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """How far the rim overhangs: anterior inferior, anterior superior, posterior inferior, posterior superior."""
    fused: tuple[bool, bool] = (False, False)
    """Is it one bone with the body below, and with the body above."""
    marrow: int = int(Tissue.MARROW)

    @property
    def axes(self) -> Floats:
        """[3, 3] rows: local left, posterior and cranial unit vectors in LPS."""
        lateral = np.array([np.cos(self.roll_rad), 0.0, np.sin(self.roll_rad)])
        posterior = np.array([0.0, np.cos(self.tilt_rad), np.sin(self.tilt_rad)])
        posterior -= lateral * (posterior @ lateral)
        posterior /= np.linalg.norm(posterior)
        c, s = np.cos(self.turn_rad), np.sin(self.turn_rad)
        return np.stack([c * lateral + s * posterior, c * posterior - s * lateral, np.cross(lateral, posterior)])

    def at(self, left: float, posterior: float, cranial: float) -> Floats:
        """[3] LPS mm of a point given along the body's own axes from its centre."""
        return np.asarray(self.centre + np.array([left, posterior, cranial]) @ self.axes)

    def to_local(self, points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """[n, 3] coordinates along the body's own axes, mm, of LPS points [n, 3]."""
        return (points - self.centre.astype(np.float32)) @ self.axes.T.astype(np.float32)

    def endplate_centre(self, side: int) -> Floats:
        """[3] centre of the superior (`side` = +1) or inferior (-1) endplate, LPS mm."""
        return np.asarray(self.centre + side * 0.5 * self.height_mm * self.axes[2])

    def endplate_tilt_rad(self, side: int) -> float:
        """Tilt of the superior (+1) or inferior (-1) endplate."""
        return self.tilt_rad - side * self.half_wedge_rad

    def wall_height_mm(self, v: float) -> float:
        """Height at `v` half-depths behind the centre: -1 anterior wall, +1 posterior wall (concavity left out)."""
        return float(self.height_mm - np.tan(self.half_wedge_rad) * v * self.depth_mm)


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
    vacuum: bool = False
    """Gas in the middle of a degenerated disc."""


@dataclass(frozen=True)
class Blob:
    """An ellipsoid of one tissue."""

    tissue: int
    centre: Floats
    radii_mm: Floats
    axes: Floats
    """[3, 3] rows: its axes in LPS."""
    power: float = 2.0
    """Exponent: 2 an ellipsoid, more a rounded block."""
    unlabelled: bool = False
    """A person would leave it out of the body's outline."""
