"""Stacks with random masks on grids of any orientation, for tests of DICOM SEG."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations, product
from typing import Any

import numpy as np
import numpy.typing as npt

from cohort.annotations.store import Annotation
from cohort.geometry import StackGeometry
from cohort.stacks import ImageStack, LabelledStack, Plane

EXAM, SUBJECT = "examoftests2345", "subjectoftests2345"
VALUES = {"vertebral_body": 3, "disc": 2, "muscle": 9}
"""Label array -> values and background."""
ARRAYS: dict[Plane, tuple[str, ...]] = {"sagittal": ("vertebral_body", "disc"), "axial": ("muscle",)}
AXIS_ORDERS = [
    np.eye(3)[list(order)] * np.array(signs)[:, None]
    for order in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]
"""The 48 ways in which slices, rows and columns can run along x, y and z: [axis of the array, LPS]."""


def turn(degrees: float, axis: int) -> npt.NDArray[np.float64]:
    """Rotation about an axis of LPS."""
    a, b = [k for k in range(3) if k != axis]
    matrix = np.eye(3)
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    matrix[[a, b, a, b], [a, b, b, a]] = cosine, cosine, -sine, sine
    return matrix


def make_stack(
    plane: Plane,
    index: int = 0,
    *,
    axes: npt.NDArray[np.float64],
    gaps: Sequence[float] = (4.0, 4.0, 4.0),
    shape: tuple[int, int] = (7, 9),
    origin: Sequence[float] = (10.0, -20.0, 30.0),
    frame: str | None = "frameofreference",
) -> ImageStack:
    """A stack whose slices, columns' direction and rows' direction run along the rows of `axes`.

    Parameters
    ----------
    axes : [3, LPS] unit vectors of increasing slice, row and column
    """
    along = np.concatenate([[0.0], np.cumsum(gaps)])
    geometry = StackGeometry(
        position_mm=np.asarray(origin) + along[:, None] * axes[0],
        row_dir=axes[2],
        col_dir=axes[1],
        spacing_mm=(0.7, 1 / 3),
        shape=shape,
        thickness_mm=3.6,
    )
    return ImageStack(plane, index, np.zeros((len(along), *shape), np.uint16), geometry, frame)


def random_masks(stack: ImageStack, seed: int = 0) -> LabelledStack:
    """Every value on every slice, without any symmetry."""
    random = np.random.default_rng(seed)
    labels = {name: random.integers(0, VALUES[name], stack.image.shape, dtype=np.uint8) for name in ARRAYS[stack.plane]}
    if "disc" in labels:
        labels["disc"][labels["vertebral_body"] > 0] = 0
    return LabelledStack(stack, labels, {})


def annotation_of(labelled: Sequence[LabelledStack], **values: Any) -> Annotation:
    """Masks of which every slice was looked at."""
    slices = {
        (one.stack.plane, one.stack.index, name): tuple(range(one.stack.geometry.n_slices))
        for one in labelled
        for name in one.labels
    }
    given = {"exam_id": EXAM, "reader": "r1", "drawn_at": None, "tool": "test", "slices": slices, "levels": {}}
    return Annotation(labelled=list(labelled), **{**given, **values})
