"""Outlines of a phantom exam finer than its pixels, and what they enclose when they are moved outward or inward.

Labels are sampled three times for each side of a pixel, one sample at its centre. The outline of a structure is the
level line of its slightly blurred samples, on a lattice three times finer still; there a distance decides what a moved
outline encloses. So an outline moves by a fraction of a pixel as well as by a whole one, whatever way it runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.measure import find_contours

from cohort.geometry import StackGeometry
from cohort.stacks import Labels, Plane
from cohort.terms import MUSCLE_LABELS
from models.phantom.exam import PhantomExam
from models.phantom.fields import Array
from models.phantom.sampling import tissue_at, voxel_centres
from models.phantom.vertebral_column import column_labels

REACH_MM: Final = 3.0
"""No outline is moved by more."""
SAMPLES: Final = 3
"""Along each side of a pixel."""
PARTS: Final = 3
"""Along each side of a sample; odd, so that one lies at its centre."""
_BLUR: Final = 1.0
"""Standard deviation, in samples, of the Gaussian that turns the samples' steps into a level line: it takes 0.01 mm off
an outline of 5 mm radius, where samples are 0.3 mm apart."""

Box = tuple[slice, slice]


@dataclass(frozen=True, eq=False)
class Section:
    """Structures of one label array on one slice."""

    plane: Plane
    stack: int
    slice: int
    array: str
    """vertebral_body, disc or muscle."""
    names: tuple[str, ...]
    """Value v is `names[v - 1]`, as people write it: L4, L4-L5, psoas left; the same on all slices of an exam."""
    pixels: Labels
    """[row, column] of the stack's grid, values at the pixels' centres: the phantom's mask."""
    samples: Labels
    """[row, column] of `SAMPLES` x `SAMPLES` for each pixel of `box`, the first of them at its centre."""
    box: Box
    """Of pixels, `REACH_MM` and more around all structures."""
    pixel_mm: float
    """Of a square pixel's side."""

    @property
    def lattice_mm(self) -> float:
        """Between points of the lattice."""
        return self.pixel_mm / (SAMPLES * PARTS)

    def moved(self, shift_mm: Sequence[float]) -> Labels:
        """[row, column] of the lattice: what outlines enclose that lie so far outside the true ones, each its own.

        Structures do not overlap: what two outlines enclose belongs to the one that it lies deeper in.

        Parameters
        ----------
        shift_mm : of each of `names`, outward positive, at most `REACH_MM`
        """
        size = tuple(PARTS * n for n in self.samples.shape)
        deepest, owner = np.zeros(size, np.float32), np.zeros(size, np.uint8)
        for value, around in enumerate(ndimage.find_objects(self.samples), start=1):
            if around is None:
                continue
            box = self._around(around)
            place = (slice(PARTS * box[0].start, PARTS * box[0].stop), slice(PARTS * box[1].start, PARTS * box[1].stop))
            shift = shift_mm[value - 1] / self.lattice_mm
            depth = _depth(self.samples[box] == value, shift) + shift
            deeper = depth > deepest[place]
            deepest[place][deeper], owner[place][deeper] = depth[deeper], value
        return owner

    def at_pixels(self, lattice: Labels) -> Labels:
        """[row, column] of the stack's grid: values of the lattice at the pixels' centres."""
        found = np.zeros_like(self.pixels)
        found[self.box] = lattice[PARTS // 2 :: SAMPLES * PARTS, PARTS // 2 :: SAMPLES * PARTS]
        return found

    def _around(self, box: Box) -> Box:
        more = int(np.ceil(SAMPLES * REACH_MM / self.pixel_mm)) + 2
        rows, columns = (
            slice(max(0, one.start - more), min(one.stop + more, n))
            for one, n in zip(box, self.samples.shape, strict=True)
        )
        return rows, columns


def _depth(mask: npt.NDArray[np.bool_], shift: float) -> Array:
    """[row, column] of the lattice: distance from the outline of samples, in its steps, inside positive.

    Exact within a step of the outline moved by `shift` steps. Elsewhere it is the distance to the nearest point on the
    other side, and wrong by half a step at most.
    """
    blurred = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), _BLUR)
    inside = cv2.resize(blurred, None, fx=PARTS, fy=PARTS, interpolation=cv2.INTER_LINEAR) > 0.5
    if not inside.any():  # narrower than the blur
        return np.full(inside.shape, -np.inf, np.float32)
    within, beyond = (
        cv2.distanceTransform(one.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for one in (inside, ~inside)
    )
    depth = np.where(inside, within - 0.5, 0.5 - beyond)
    near = np.abs(depth + shift) < 1.0
    exact = cKDTree(_level_line(blurred)).query(np.argwhere(near))[0]
    depth[near] = np.where(inside[near], exact, -exact)
    return np.asarray(depth, dtype=np.float32)


def _level_line(blurred: Array) -> npt.NDArray[np.float64]:
    """[point, (row, column)] of the lattice, a quarter of a step apart or less, where a blurred mask of samples is one
    half."""
    share = np.arange(0, 1, 0.25 / PARTS)[:, None, None]
    lines = [line[:-1] + share * np.diff(line, axis=0) for line in find_contours(blurred, 0.5)]
    return np.concatenate([line.reshape(-1, 2) for line in lines]) * PARTS + PARTS // 2


def sections(exam: PhantomExam, plane: Plane, stack: int, k: int) -> list[Section]:
    """Sections of slice k of a stack: bodies down to S1 and discs of a sagittal one, muscles of an axial one.

    Raises
    ------
    ValueError
        if pixels are not square
    """
    grid = exam.sagittal if plane == "sagittal" else exam.axial[stack]
    if grid.spacing_mm[0] != grid.spacing_mm[1]:
        raise ValueError("outlines are moved on grids with square pixels")
    centres = voxel_centres(grid, k)
    pixels = _labels(exam, plane, centres)
    box = _box(np.any([mask > 0 for mask in pixels.values()], axis=0), grid)
    samples = _sampled(exam, plane, centres[box], grid)
    return [
        Section(plane, stack, k, array, names(exam, array), mask, samples[array], box, grid.spacing_mm[0])
        for array, mask in pixels.items()
    ]


def names(exam: PhantomExam, array: str) -> tuple[str, ...]:
    """What the values of a label array of `sections` are called, 1 first."""
    if array == "vertebral_body":
        return tuple(body.name for body in exam.anatomy.bodies)
    if array == "disc":
        return tuple(disc.name for disc in exam.anatomy.discs)
    return tuple(f"{muscle.replace('_', ' ')} {side}" for muscle, side in MUSCLE_LABELS)


def _labels(exam: PhantomExam, plane: Plane, points: Array) -> dict[str, Labels]:
    """Label array -> [row, column] values at points [row, column, 3], LPS mm."""
    shape, flat = points.shape[:2], np.ascontiguousarray(points.reshape(-1, 3))
    if plane == "axial":
        return {"muscle": tissue_at(exam.subject, flat)[3].reshape(shape)}
    body, disc = column_labels(exam.anatomy, flat)
    body[body < exam.anatomy.first_mobile] = 0  # bodies below S1: people do not draw them
    return {"vertebral_body": body.reshape(shape), "disc": disc.reshape(shape)}


def _sampled(exam: PhantomExam, plane: Plane, centres: Array, grid: StackGeometry) -> Mapping[str, Labels]:
    """Label array -> [row, column] of samples of the pixels with these centres [row, column, 3]."""
    rows, columns = centres.shape[:2]
    found: dict[str, Labels] = {}
    for down, across in product(range(SAMPLES), repeat=2):
        step = (down * grid.spacing_mm[0] * grid.col_dir + across * grid.spacing_mm[1] * grid.row_dir) / SAMPLES
        for array, values in _labels(exam, plane, centres + step.astype(np.float32)).items():
            of_array = found.setdefault(array, np.zeros((SAMPLES * rows, SAMPLES * columns), np.uint8))
            of_array[down::SAMPLES, across::SAMPLES] = values
    return found


def _box(mask: npt.NDArray[np.bool_], grid: StackGeometry) -> Box:
    """Pixels of all structures and `REACH_MM` around them; the first pixel where there are none."""
    if not mask.any():
        return slice(0, 1), slice(0, 1)
    more = int(np.ceil(REACH_MM / grid.spacing_mm[0])) + 2
    ends = [np.flatnonzero(mask.any(axis=axis))[[0, -1]] for axis in (1, 0)]
    rows, columns = (
        slice(max(0, int(low) - more), min(int(high) + more + 1, n))
        for (low, high), n in zip(ends, mask.shape, strict=True)
    )
    return rows, columns
