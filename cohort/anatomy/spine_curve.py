"""A smooth curve through the vertebral bodies and discs: order, distance along the spine, distance from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cohort.geometry import Floats

DEGREE = 3
"""A cubic y(z) follows a lumbar lordosis with the thoracolumbar turn and the sacral kyphosis; x(z) takes a
scoliosis."""
OUTLIER_MM = 12.0
"""Scale of the Cauchy weights: half the depth of a body is 15-17 mm (mid-sagittal depth 31-34 mm, Chu et al. 2015)."""
SCALES_MM = (60.0, 40.0, 25.0, 18.0, OUTLIER_MM, OUTLIER_MM, OUTLIER_MM)
"""From nearly plain least squares to the final scale, so that a false structure far away does not trap the fit."""
STEP_MM = 1.0


@dataclass(frozen=True, eq=False)
class SpineCurve:
    """Curve (x(z), y(z), z) in LPS mm, polynomials in the scaled height (z - z_middle) / z_half."""

    x_of_z: Floats
    y_of_z: Floats
    z_middle: float
    z_half: float

    def point(self, z_mm: Floats) -> Floats:
        """[..., 3] point of the curve at heights `z_mm`."""
        t = self._scaled(z_mm)
        return np.stack([np.polyval(self.x_of_z, t), np.polyval(self.y_of_z, t), np.asarray(z_mm)], axis=-1)

    def tangent(self, z_mm: Floats) -> Floats:
        """[..., 3] unit tangent, cranial."""
        raw = self._derivative(np.asarray(z_mm, dtype=np.float64))
        return np.asarray(raw / np.linalg.norm(raw, axis=-1, keepdims=True))

    def foot_z_mm(self, points_mm: Floats) -> Floats:
        """[...] height of the foot of the perpendicular from points [..., 3] onto the curve (two Newton-like steps)."""
        z = np.clip(points_mm[..., 2], self.z_middle - 1.2 * self.z_half, self.z_middle + 1.2 * self.z_half)
        for _ in range(2):
            slope = self._derivative(z)
            z = z + ((points_mm - self.point(z)) * slope).sum(axis=-1) / (slope**2).sum(axis=-1)
        return np.asarray(z)

    def arc_mm(self, points_mm: Floats) -> Floats:
        """[...] distance along the curve of points [..., 3], cranial positive, zero at the curve's middle."""
        low, high = self.z_middle - 1.6 * self.z_half, self.z_middle + 1.6 * self.z_half
        z = np.arange(low, high + STEP_MM, STEP_MM)
        speed = np.linalg.norm(self._derivative(z), axis=-1)
        arc = np.concatenate([[0.0], np.cumsum((speed[1:] + speed[:-1]) / 2 * STEP_MM)])
        arc -= np.interp(self.z_middle, z, arc)
        return np.asarray(np.interp(self.foot_z_mm(points_mm), z, arc))

    def offset_mm(self, points_mm: Floats) -> Floats:
        """[..., 3] vector from the curve to points [..., 3]."""
        return points_mm - self.point(self.foot_z_mm(points_mm))

    def _scaled(self, z_mm: Floats) -> Floats:
        # Beyond the data a cubic runs away: it is continued as if the last height were repeated a little.
        return np.clip((np.asarray(z_mm) - self.z_middle) / self.z_half, -1.25, 1.25)

    def _derivative(self, z_mm: Floats) -> Floats:
        t = self._scaled(z_mm)
        dx = np.polyval(np.polyder(self.x_of_z), t) / self.z_half
        dy = np.polyval(np.polyder(self.y_of_z), t) / self.z_half
        return np.stack([dx, dy, np.ones_like(t)], axis=-1)


def fit_spine_curve(points_mm: Floats, *, weights: Floats) -> SpineCurve:
    """Fit the curve to points [n, 3] LPS mm with weights [n].

    Reweighted least squares with Cauchy weights (Holland & Welsch 1977) of falling scale.
    """
    z = points_mm[:, 2]
    middle, half = (z.max() + z.min()) / 2, max((z.max() - z.min()) / 2, 1.0)
    t = (z - middle) / half
    # A short piece of spine has no shape to fit: one body gives a vertical line, two or three a straight one.
    used = min(DEGREE, int(half // 30), len(points_mm) - 1)
    trust = np.ones(len(points_mm))
    for scale in SCALES_MM:
        root = np.sqrt(weights * trust)
        x_of_z = np.polyfit(t, points_mm[:, 0], min(used, 2), w=root)
        y_of_z = np.polyfit(t, points_mm[:, 1], used, w=root)
        off = np.hypot(points_mm[:, 0] - np.polyval(x_of_z, t), points_mm[:, 1] - np.polyval(y_of_z, t))
        trust = 1 / (1 + (off / scale) ** 2)
    return SpineCurve(x_of_z, y_of_z, float(middle), float(half))
