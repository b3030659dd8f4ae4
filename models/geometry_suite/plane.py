"""Image planes: where the header of one slice says that its voxels are.

This is written from the standard alone and shares no code with the library that it tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom.valuerep import format_number_as_ds

Vector = tuple[float, ...]

AXES: Final[dict[str, Vector]] = {
    "L": (1.0, 0.0, 0.0),
    "P": (0.0, 1.0, 0.0),
    "H": (0.0, 0.0, 1.0),
    "R": (-1.0, 0.0, 0.0),
    "A": (0.0, -1.0, 0.0),
    "F": (0.0, 0.0, -1.0),
}
"""Letters of PatientOrientation (PS3.3 C.7.6.1.1.1) as directions in the patient, LPS."""
SHAPE: Final = (32, 24)
"""Rows and columns of most images: small, and never square, so that swapped axes show."""
SPACING_MM: Final = (1.25, 1.25)
GAP_MM: Final = 4.4
THICKNESS_MM: Final = 4.0


def as_written(values: Iterable[float]) -> Vector:
    """Round numbers to what a Decimal String of 16 characters holds (PS3.5 6.2): the header is the truth."""
    return tuple(float(format_number_as_ds(float(value))) + 0.0 for value in values)


@dataclass(frozen=True)
class ImagePlane:
    """Image Plane module of one slice (PS3.3 C.7.6.2), LPS mm, rounded as written."""

    position_mm: Vector
    """[3] ImagePositionPatient: centre of the first voxel."""
    row_cosine: Vector
    """[3] direction of increasing column index: the first three values of ImageOrientationPatient."""
    column_cosine: Vector
    """[3] direction of increasing row index."""
    spacing_mm: tuple[float, float] = SPACING_MM
    """PixelSpacing: (between rows, between columns)."""
    shape: tuple[int, int] = SHAPE
    """(Rows, Columns)."""

    @property
    def normal(self) -> npt.NDArray[np.float64]:
        """[3] row_cosine x column_cosine."""
        return np.cross(self.row_cosine, self.column_cosine)

    def lps_mm(self, row: int, column: int) -> Vector:
        """Centre of a voxel, LPS mm: equation C.7.6.2.1-1 of PS3.3 C.7.6.2.1.1."""
        between_rows, between_columns = self.spacing_mm
        parts = zip(self.row_cosine, self.column_cosine, self.position_mm, strict=True)
        return tuple(x * between_columns * column + y * between_rows * row + s for x, y, s in parts)


@dataclass(frozen=True)
class Orientation:
    """Directions of rows and columns, as written."""

    row_cosine: Vector
    column_cosine: Vector

    def turned(self, x_deg: float = 0.0, y_deg: float = 0.0, z_deg: float = 0.0) -> Orientation:
        """Turn about the patient's axes, x first."""
        a, b, c = np.deg2rad([x_deg, y_deg, z_deg])
        about_x = [[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]
        about_y = [[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]
        about_z = [[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]]
        turn = np.array(about_z) @ np.array(about_y) @ np.array(about_x)
        return Orientation(as_written(turn @ self.row_cosine), as_written(turn @ self.column_cosine))

    def rounded(self, digits: int) -> Orientation:
        """Cosines with few digits, as some exports write them."""
        return Orientation(
            tuple(round(value, digits) for value in self.row_cosine),
            tuple(round(value, digits) for value in self.column_cosine),
        )


def along(letters: str) -> Orientation:
    """Orientation from two letters of PatientOrientation: where rows run, where columns run."""
    return Orientation(AXES[letters[0]], AXES[letters[1]])


SAGITTAL: Final = along("PF").turned(2.0, -1.5, 3.0)
"""A sagittal plane as patients lie: turned by a few degrees."""
AXIAL: Final = along("LP").turned(-4.0, 1.0, 2.0)
CORONAL: Final = along("LF").turned(3.0, 2.0, -1.0)


def stack(
    orientation: Orientation,
    *,
    n: int = 7,
    gap_mm: float = GAP_MM,
    centre_mm: Vector = (0.0, 0.0, 0.0),
    spacing_mm: tuple[float, float] = SPACING_MM,
    shape: tuple[int, int] = SHAPE,
    shear_mm: tuple[float, float] = (0.0, 0.0),
) -> list[ImagePlane]:
    """Evenly spaced parallel planes around a centre, along +normal.

    Parameters
    ----------
    shear_mm : shift from slice to slice along rows and along columns, for stacks whose positions leave the normal
    """
    steps = (np.arange(n) - (n - 1) / 2) * gap_mm
    return stack_at(orientation, steps, centre_mm=centre_mm, spacing_mm=spacing_mm, shape=shape, shear_mm=shear_mm)


def stack_at(
    orientation: Orientation,
    distances_mm: npt.ArrayLike,
    *,
    centre_mm: Vector = (0.0, 0.0, 0.0),
    spacing_mm: tuple[float, float] = SPACING_MM,
    shape: tuple[int, int] = SHAPE,
    shear_mm: tuple[float, float] = (0.0, 0.0),
) -> list[ImagePlane]:
    """Parallel planes at given distances along the normal from a centre."""
    row, column = np.array(orientation.row_cosine), np.array(orientation.column_cosine)
    corner = (
        np.array(centre_mm) - row * spacing_mm[1] * (shape[1] - 1) / 2 - column * spacing_mm[0] * (shape[0] - 1) / 2
    )
    normal = np.cross(row, column)
    planes = []
    for k, distance in enumerate(np.asarray(distances_mm, dtype=float)):
        position = corner + distance * normal + k * (shear_mm[0] * row + shear_mm[1] * column)
        planes.append(
            ImagePlane(as_written(position), orientation.row_cosine, orientation.column_cosine, spacing_mm, shape)
        )
    return planes


def reversed_order(planes: Sequence[ImagePlane]) -> list[ImagePlane]:
    """Planes against their normal."""
    return list(planes)[::-1]
