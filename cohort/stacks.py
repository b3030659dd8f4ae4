"""A stack of slices with its pixels, and the same with label arrays: what passes between store, networks and
anatomy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from cohort.geometry import StackGeometry

Plane = Literal["sagittal", "axial"]
Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class ImageStack:
    """Parallel slices of one chosen series."""

    plane: Plane
    index: int
    """Number of the stack within its plane; a series of one oblique stack per disc has several."""
    image: npt.NDArray[np.uint16]
    """[slice, row, column] stored values."""
    geometry: StackGeometry
    frame_of_reference_id: str | None
    """Pseudonym of FrameOfReferenceUID: only stacks that share it may be combined in space."""


@dataclass(frozen=True, eq=False)
class LabelledStack:
    """A stack with its masks."""

    stack: ImageStack
    labels: Mapping[str, Labels]
    """Name -> [slice, row, column]: `vertebral_body` and `disc` on sagittal, `muscle` on axial stacks
    (values in `cohort.terms`)."""
    uncertainty: Mapping[str, float]
    """Name of a structure class -> mean binary entropy of the network inside its mask, 0 (sure) to 1 bit."""
