"""Readers who draw on phantom exams with an error that is known: every outline a little too far out or in.

A reader's shift is a bias that all structures share, and a part of each structure's own. Masks of two readers then
differ by a known distance, so what agreement statistics say of them has a known truth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cohort.stacks import Plane
from cohort.terms import MUSCLE_LABELS
from models.phantom.exam import PhantomExam

Mask = npt.NDArray[np.bool_]

REACH_MM = 5.0
"""No outline is shifted outward by more."""


@dataclass(frozen=True)
class Reader:
    """Who draws, and how far from the truth."""

    code: str
    bias_mm: float = 0.0
    """Mean distance of outlines from the true ones, outward positive."""
    sd_mm: float = 0.0
    """Of the distance between structures."""


@dataclass(frozen=True, eq=False)
class DrawnStructure:
    """What a reader drew of one structure on one stack."""

    plane: Plane
    stack: int
    label: str
    """As people write it: L4, L4-L5, psoas left."""
    shift_mm: float
    """Of its outlines, outward positive."""
    mask: Mask
    """[slice, row, column] on the stack's grid."""


def draw(exam: PhantomExam, reader: Reader) -> list[DrawnStructure]:
    """All vertebral bodies down to S1, discs and muscles of an exam as a reader draws them.

    Structures of one array do not overlap: a pixel that two shifted outlines enclose belongs to the one that it lies
    deeper in. Who has no error draws the truth; others round corners a little. Equal readers draw an exam equally.
    """
    rng = np.random.default_rng([exam.plan.seed, *reader.code.encode()])
    spacing = exam.sagittal.spacing_mm
    drawn = [_shifted(reader, rng, "sagittal", 0, masks, spacing) for masks in _sagittal(exam)]
    for k, (grid, slices) in enumerate(zip(exam.axial, exam.axial_slices, strict=True)):
        muscle = np.stack([slice_.muscle for slice_ in slices])
        masks = {f"{name.replace('_', ' ')} {side}": muscle == value for (name, side), value in MUSCLE_LABELS.items()}
        drawn.append(_shifted(reader, rng, "axial", k, masks, grid.spacing_mm))
    return [one for group in drawn for one in group]


def _sagittal(exam: PhantomExam) -> Iterator[dict[str, Mask]]:
    body = np.stack([slice_.body for slice_ in exam.sagittal_slices])
    first_sacral = exam.anatomy.first_mobile - 1
    yield {one.name: body == k + 1 for k, one in enumerate(exam.anatomy.bodies) if k >= first_sacral}
    disc = np.stack([slice_.disc for slice_ in exam.sagittal_slices])
    yield {one.name: disc == k + 1 for k, one in enumerate(exam.anatomy.discs)}


def _shifted(
    reader: Reader,
    rng: np.random.Generator,
    plane: Plane,
    stack: int,
    masks: Mapping[str, Mask],
    spacing_mm: tuple[float, float],
) -> list[DrawnStructure]:
    names = [name for name, mask in masks.items() if mask.any()]
    shifts = np.minimum(reader.bias_mm + reader.sd_mm * rng.standard_normal(len(names)), REACH_MM - max(spacing_mm))
    depth = np.stack([_depth_mm(masks[name], spacing_mm) + shift for name, shift in zip(names, shifts, strict=True)])
    deepest = np.argmax(depth, axis=0)
    drawn = [(depth[k] > 0) & (deepest == k) for k in range(len(names))]
    if not shifts.any():
        drawn = [masks[name] for name in names]
    return [
        DrawnStructure(plane, stack, name, float(shift), mask)
        for name, shift, mask in zip(names, shifts, drawn, strict=True)
    ]


def _depth_mm(mask: Mask, spacing_mm: tuple[float, float]) -> npt.NDArray[np.float32]:
    """[slice, row, column] distance from the outline in the slice's plane, inside positive; far outside where the
    structure is not on the slice, or further than `REACH_MM` away. The outline runs half a pixel from the pixels'
    centres."""
    found = np.full(mask.shape, -np.inf, np.float32)
    half = np.mean(spacing_mm) / 2
    for k in np.flatnonzero(mask.any(axis=(1, 2))):
        near = _near(mask[k], spacing_mm)
        inside, outside = (ndimage.distance_transform_edt(one[near], spacing_mm) for one in (mask[k], ~mask[k]))
        depth = np.where(mask[k][near], inside - half, half - outside)
        found[k][near] = ndimage.gaussian_filter(depth, 1.0)  # else outlines would move by whole pixels alone
    return found


def _near(mask: Mask, spacing_mm: tuple[float, float]) -> tuple[slice, ...]:
    """The mask's box and `REACH_MM` around it."""
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    reach = [int(np.ceil(REACH_MM / spacing)) for spacing in spacing_mm]
    return tuple(slice(max(0, one.start - more), one.stop + more) for one, more in zip(box, reach, strict=True))
