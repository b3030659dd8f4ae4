"""Training samples: one random slice of one random subject, normalised as the networks see it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cohort.terms import MUSCLE_LABELS, MUSCLES, SIDES
from models.phantom.anatomy import Anatomy, draw_anatomy
from models.phantom.fields import Array
from models.phantom.mri import Weighting, acquire, draw_contrast, draw_scanner
from models.phantom.sampling import Subject, TissueSlice, cut, draw_subject, plane
from models.phantom.vertebral_column import Bytes
from models.preprocessing import normalise

SIZE = 256

SAGITTAL_CLASSES = ("vertebral_body", "sacral_body", "disc")
AXIAL_CLASSES = MUSCLES


@dataclass(frozen=True, eq=False)
class Sample:
    """One training slice."""

    image: npt.NDArray[np.float16]
    """[row, column] normalised intensity."""
    masks: Bytes
    """[class, row, column] 0 or 1, classes as in SAGITTAL_CLASSES or AXIAL_CLASSES."""


def draw_sagittal(subject: Subject, rng: np.random.Generator) -> Sample:
    """A sagittal slice: mid-line in three of five, else up to 40 mm lateral; 0.9-1.4 mm pixels, rotated and
    off-centre."""
    anatomy = subject.anatomy
    spacing = float(rng.uniform(0.9, 1.4))
    centre = _lumbar_centre(anatomy) + np.array([_lateral_offset(rng), rng.normal(5, 22), rng.normal(12, 26)])
    row_dir, col_dir = _turned((0, 1, 0), (0, 0, -1), np.deg2rad(rng.normal(0, 4.5)))
    row_dir, col_dir = _tilted(row_dir, col_dir, np.deg2rad(rng.normal(0, 3.0)))
    geometry = plane(centre, row_dir, col_dir, size=SIZE, spacing_mm=spacing, thickness_mm=float(rng.uniform(3, 5)))
    slice_ = cut(subject, geometry, 0)
    image, masks = _image(subject, slice_, rng), _sagittal_masks(anatomy, slice_)
    return _finish(*_black_bars(image, masks, rng), rng)


def draw_axial(subject: Subject, rng: np.random.Generator) -> Sample:
    """An axial or oblique slice between T12 and S1, 0.6-1.5 mm pixels; thighs of the tilts follow the discs."""
    anatomy = subject.anatomy
    bodies = [body for body in anatomy.bodies if not body.sacral][:6]
    body = bodies[int(rng.integers(0, len(bodies)))]
    spacing = float(
        rng.choice([rng.uniform(0.65, 0.9), rng.uniform(0.9, 1.2), rng.uniform(1.2, 1.7)], p=[0.25, 0.4, 0.35])
    )
    anterior = 0.0 if spacing < 0.9 else -15.0
    centre = body.centre + np.array([rng.normal(0, 10), 25 + anterior + rng.normal(0, 12), rng.uniform(-18, 18)])
    tilt = body.tilt_rad * rng.uniform(0, 1) if rng.random() < 0.6 else np.deg2rad(rng.normal(0, 5))
    turn = np.deg2rad(rng.normal(0, 4.5))
    row_dir, col_dir = _turned((1.0, 0.0, 0.0), (0.0, np.cos(tilt), np.sin(tilt)), turn)
    geometry = plane(centre, row_dir, col_dir, size=SIZE, spacing_mm=spacing, thickness_mm=float(rng.uniform(3, 5)))
    slice_ = cut(subject, geometry, 0)
    masks = np.stack([np.isin(slice_.muscle, [MUSCLE_LABELS[m, s] for s in SIDES]) for m in MUSCLES]).astype(np.uint8)
    return _finish(_image(subject, slice_, rng), masks, rng)


def draw_samples(seed: int, plane: str, n: int) -> list[Sample]:
    """`n` sagittal or axial slices of one subject; the same seed gives the same slices."""
    subject = draw_subject(draw_anatomy(seed))
    rng = np.random.default_rng([seed, 9])
    draw = draw_sagittal if plane == "sagittal" else draw_axial
    return [draw(subject, rng) for _ in range(n)]


def _lumbar_centre(anatomy: Anatomy) -> npt.NDArray[np.float64]:
    return np.asarray(next(body.centre for body in anatomy.bodies if body.name == "L3"))


def _lateral_offset(rng: np.random.Generator) -> float:
    share = rng.random()
    if share < 0.6:
        return float(rng.normal(0, 6))
    side = rng.choice([-1, 1])
    return float(side * (rng.uniform(8, 24) if share < 0.9 else rng.uniform(24, 40)))


def _turned(row_dir: npt.ArrayLike, col_dir: npt.ArrayLike, angle: float) -> tuple[Array, Array]:
    """Rotate the field of view within its plane."""
    r, c = np.asarray(row_dir, float), np.asarray(col_dir, float)
    return np.cos(angle) * r + np.sin(angle) * c, np.cos(angle) * c - np.sin(angle) * r


def _tilted(row_dir: npt.ArrayLike, col_dir: npt.ArrayLike, angle: float) -> tuple[Array, Array]:
    """Turn the plane about its vertical, as when the patient lies askew."""
    r, c = np.asarray(row_dir, float), np.asarray(col_dir, float)
    normal = np.cross(r, c)
    return np.cos(angle) * r + np.sin(angle) * normal, c


def _image(subject: Subject, slice_: TissueSlice, rng: np.random.Generator) -> Array:
    weighting: Weighting = "t1" if (u := rng.random()) < 0.62 else "t2" if u < 0.8 else "random"
    skin = float(subject.soft.track[:, 4].mean()) + subject.anatomy.habitus.subcutaneous_mm
    return acquire(slice_, draw_contrast(rng, weighting), draw_scanner(rng), rng, back_y_mm=skin)


def _sagittal_masks(anatomy: Anatomy, slice_: TissueSlice) -> Bytes:
    sacral = np.array([False, *(body.sacral for body in anatomy.bodies)])[slice_.body]
    return np.stack([(slice_.body > 0) & ~sacral, sacral, slice_.disc > 0]).astype(np.uint8)


def _black_bars(image: Array, masks: Bytes, rng: np.random.Generator) -> tuple[Array, Bytes]:
    """Rectangular fields of view are padded with zeros in front, behind, above or below."""
    image, masks = image.copy(), masks.copy()
    columns = np.nonzero(masks.any(axis=(0, 1)))[0]
    if rng.random() < 0.45 and len(columns):
        front = int(rng.uniform(0, max(columns[0] - 8, 1)))
        back = int(rng.uniform(min(columns[-1] + 25, SIZE - 1), SIZE))
        for part in ([slice(0, front)] if rng.random() < 0.8 else []) + (
            [slice(back, None)] if rng.random() < 0.4 else []
        ):
            image[:, part], masks[:, :, part] = 0, 0
    if rng.random() < 0.12:
        rows = int(rng.uniform(0.02, 0.12) * SIZE)
        part = slice(0, rows) if rng.random() < 0.5 else slice(SIZE - rows, None)
        image[part], masks[:, part] = 0, 0
    return image, masks


def _finish(image: Array, masks: Bytes, rng: np.random.Generator) -> Sample:
    if rng.random() < 0.3:
        image, masks = image[:, ::-1], masks[:, :, ::-1]
    return Sample(normalise(image).astype(np.float16), np.ascontiguousarray(masks))
