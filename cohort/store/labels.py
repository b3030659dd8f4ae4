"""The label store: masks on the grid of the exam store's stacks.

/                              attributes: networks, fingerprint, ...
/sagittal/<k>/vertebral_body   uint8 [slice, row, column], values of `cohort.terms`
/sagittal/<k>/disc
/axial/<k>/muscle
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from cohort.errors import StoreError
from cohort.stacks import ImageStack, LabelledStack
from cohort.store.arrays import (
    MASK_CODEC,
    VOXEL_AXES,
    open_store,
    read_array,
    write_array,
    write_group,
    write_root,
)
from cohort.store.exam import StoredExam
from cohort.store.publish import publishing


def write_labels(target: Path, labelled: Sequence[LabelledStack], attributes: Mapping[str, Any]) -> None:
    """Publish a label store; one that exists at `target` is kept.

    Parameters
    ----------
    target : path from `layout.label_store_path`
    labelled : stacks with masks of the shape of their image
    attributes : JSON values without NaN

    Raises
    ------
    ValueError
        if a mask has another shape or type than uint8 on the grid of its image
    """
    with publishing(target) as building:
        write_root(building, "labels", attributes)
        for plane in {one.stack.plane for one in labelled}:
            write_group(building / plane, {})
        for one in labelled:
            _write_stack(building / one.stack.plane / str(one.stack.index), one)


def _write_stack(group: Path, labelled: LabelledStack) -> None:
    stack = labelled.stack
    attributes = {
        "uncertainty": {name: float(value) for name, value in labelled.uncertainty.items()},
        "affine": stack.geometry.affine.tolist(),
        "affine_error_mm": stack.geometry.affine_error_mm,
    }
    write_group(group, attributes)
    for name, mask in labelled.labels.items():
        if mask.shape != stack.image.shape or mask.dtype != np.uint8:
            raise ValueError(f"mask {name}: {mask.dtype} {mask.shape} on an image of {stack.image.shape}")
        write_array(group / name, mask, VOXEL_AXES, MASK_CODEC)


def read_labels(path: Path, exam: StoredExam) -> list[LabelledStack]:
    """Read the masks of an exam's stacks; stacks without masks are left out.

    Raises
    ------
    StoreError
        if the store is missing or of another schema version, or if it does not fit the exam
    """
    root = open_store(path, "labels")
    labelled = [
        _read_stack(root[f"{stack.plane}/{stack.index}"], stack)
        for stack in exam.stacks
        if f"{stack.plane}/{stack.index}" in root
    ]
    n_stored = sum(len(list(plane.groups())) for _, plane in root.groups())
    if n_stored != len(labelled):
        raise StoreError(f"labels of {n_stored} stacks, but the exam has {len(labelled)} of them")
    return labelled


def _read_stack(group: zarr.Group, stack: ImageStack) -> LabelledStack:
    names = sorted(group.array_keys())
    return LabelledStack(
        stack=stack,
        labels={name: read_array(group, name, np.uint8, stack.image.shape) for name in names},
        uncertainty={str(name): float(value) for name, value in dict(group.attrs).get("uncertainty", {}).items()},
    )
