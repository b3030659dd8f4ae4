"""Training samples: one random slice of one random subject, as tissue. Training draws contrast and scanner anew."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cohort.terms import MUSCLE_LABELS, MUSCLES, SIDES
from models.phantom.acquisition import depth_plane
from models.phantom.anatomy import Anatomy, draw_anatomy
from models.phantom.fields import Array
from models.phantom.sampling import Subject, TissueSlice, cut, draw_subject, plane
from models.phantom.tissues import Bytes

SIZE = 256

SAGITTAL_CLASSES = ("vertebral_body", "sacral_body", "disc")
AXIAL_CLASSES = MUSCLES

SLIVER_SHARE = 0.15
"""Bodies that show less of their mid-sagittal area in a slice stay without a label (working value)."""


_AXIAL_VIEWS = ((160.0, 220.0, 0.0), (220.0, 330.0, 12.0), (340.0, 430.0, 22.0))
"""Fields of view, mm: smallest, largest, and how far their middle lies further forward."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One training slice."""

    tissue: Bytes
    """[sub-sample, row, column] values of `Tissue`."""
    depth_plane: tuple[float, float, float]
    """As of `models.phantom.acquisition.depth_plane`."""
    view: tuple[int, int, int, int]
    """First and end row, first and end column of the field of view; black beyond."""
    masks: Bytes
    """[class, row, column] 0 or 1, classes as in SAGITTAL_CLASSES or AXIAL_CLASSES."""


def draw_sagittal(subject: Subject, rng: np.random.Generator, *, size: int = SIZE) -> Sample:
    """A sagittal slice: near the midline in one of two, else up to 32 mm lateral; field of view 230-360 mm,
    rotated and off-centre, `size` pixels square."""
    anatomy = subject.anatomy
    spacing = float(rng.uniform(0.9, 1.4)) * SIZE / size
    centre = _lumbar_centre(anatomy) + np.array([_lateral_offset(rng), rng.normal(5, 22), rng.normal(12, 26)])
    row_dir, col_dir = _turned((0, 1, 0), (0, 0, -1), np.deg2rad(rng.normal(0, 4.5)))
    row_dir, col_dir = _tilted(row_dir, col_dir, np.deg2rad(rng.normal(0, 3.0)))
    geometry = plane(centre, row_dir, col_dir, size=size, spacing_mm=spacing, thickness_mm=float(rng.uniform(3, 5)))
    slice_ = cut(subject, geometry, 0)
    masks = sagittal_masks(anatomy, slice_)
    return _sample(subject, slice_, masks, _rectangular_view(masks, rng))


def draw_axial(subject: Subject, rng: np.random.Generator, *, size: int = SIZE) -> Sample:
    """An axial or oblique slice between L1 and S1: half show the whole trunk (field of view 340-430 mm), the others the
    back alone (160-330 mm); the tilts follow the discs."""
    anatomy = subject.anatomy
    first = anatomy.first_mobile
    body = anatomy.bodies[int(rng.integers(first - 1, first + 5))]
    low, high, in_front = _AXIAL_VIEWS[int(rng.choice(3, p=[0.25, 0.3, 0.45]))]
    spacing = float(rng.uniform(low, high)) / size
    drop = rng.uniform(-18, 18) if not body.sacral else rng.uniform(-4, 18)
    centre = body.centre + np.array([rng.normal(0, 10), 25 - in_front + rng.normal(0, 12), drop])
    tilt = body.tilt_rad * rng.uniform(0, 1) if rng.random() < 0.6 else np.deg2rad(rng.normal(0, 5))
    turn = np.deg2rad(rng.normal(0, 4.5))
    row_dir, col_dir = _turned((1.0, 0.0, 0.0), (0.0, np.cos(tilt), np.sin(tilt)), turn)
    geometry = plane(centre, row_dir, col_dir, size=size, spacing_mm=spacing, thickness_mm=float(rng.uniform(3, 5)))
    slice_ = cut(subject, geometry, 0)
    masks = np.stack([np.isin(slice_.muscle, [MUSCLE_LABELS[m, s] for s in SIDES]) for m in MUSCLES]).astype(np.uint8)
    return _sample(subject, slice_, masks, (0, size, 0, size))


def draw_samples(seed: int, plane: str, n: int, *, size: int = SIZE) -> list[Sample]:
    """`n` sagittal or axial slices of one subject; the same seed gives the same slices."""
    subject = draw_subject(draw_anatomy(seed))
    rng = np.random.default_rng([seed, 9])
    draw = draw_sagittal if plane == "sagittal" else draw_axial
    return [draw(subject, rng, size=size) for _ in range(n)]


def _lumbar_centre(anatomy: Anatomy) -> npt.NDArray[np.float64]:
    return np.asarray(next(body.centre for body in anatomy.bodies if body.name == "L3"))


def _lateral_offset(rng: np.random.Generator) -> float:
    """Half of the slices lie within about a centimetre of the midline, half evenly out to 32 mm."""
    if rng.random() < 0.5:
        return float(rng.normal(0, 5))
    return float(rng.choice([-1, 1]) * rng.uniform(6, 32))


def _turned(row_dir: npt.ArrayLike, col_dir: npt.ArrayLike, angle: float) -> tuple[Array, Array]:
    """Rotate the field of view within its plane."""
    r, c = np.asarray(row_dir, float), np.asarray(col_dir, float)
    return np.cos(angle) * r + np.sin(angle) * c, np.cos(angle) * c - np.sin(angle) * r


def _tilted(row_dir: npt.ArrayLike, col_dir: npt.ArrayLike, angle: float) -> tuple[Array, Array]:
    """Turn the plane about its vertical, as when the patient lies askew."""
    r, c = np.asarray(row_dir, float), np.asarray(col_dir, float)
    normal = np.cross(r, c)
    return np.cos(angle) * r + np.sin(angle) * normal, c


def sagittal_masks(anatomy: Anatomy, slice_: TissueSlice) -> Bytes:
    """Bodies, sacral segments and discs, without slivers: nobody outlines what shows as a smear of partial volume.

    A disc goes with the two bodies beside it.
    """
    spacing = np.linalg.norm(slice_.points_mm[0, 1] - slice_.points_mm[0, 0])
    whole = np.array([np.inf, *(body.height_mm * body.depth_mm for body in anatomy.bodies)])
    seen = np.bincount(slice_.body.ravel(), minlength=len(whole)) * spacing**2 > SLIVER_SHARE * whole
    sacral = np.array([False, *(body.sacral for body in anatomy.bodies)])
    bodies = np.array([seen & ~sacral, seen & sacral])
    discs = np.array([False, *(seen[disc.lower + 1] or seen[disc.upper + 1] for disc in anatomy.discs)])
    return np.stack([*bodies[:, slice_.body], discs[slice_.disc]]).astype(np.uint8)


def _rectangular_view(masks: Bytes, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Rectangular fields of view are padded with zeros in front, behind, above or below."""
    rows, columns = masks.shape[1:]
    top, bottom, front, back = 0, rows, 0, columns
    spine = np.nonzero(masks.any(axis=(0, 1)))[0]
    if rng.random() < 0.45 and len(spine):
        if rng.random() < 0.8:
            front = int(rng.uniform(0, max(spine[0] - 8, 1)))
        if rng.random() < 0.4:
            back = int(rng.uniform(min(spine[-1] + 25, columns - 1), columns))
    if rng.random() < 0.12:
        cut_off = int(rng.uniform(0.02, 0.12) * rows)
        top, bottom = (cut_off, rows) if rng.random() < 0.5 else (0, rows - cut_off)
    return top, bottom, front, back


def _sample(subject: Subject, slice_: TissueSlice, masks: Bytes, view: tuple[int, int, int, int]) -> Sample:
    seen = np.zeros_like(masks)
    part = (slice(None), slice(view[0], view[1]), slice(view[2], view[3]))
    seen[part] = masks[part]
    return Sample(slice_.tissue, depth_plane(slice_, subject.back_y_mm), view, seen)
