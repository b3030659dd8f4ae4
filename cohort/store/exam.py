"""The exam store: images of the chosen series with their geometry.

/                    attributes of the exam
/sagittal/<k>        attributes of stack k: row_dir, col_dir, spacing_mm, thickness_mm, slice_gap_mm, affine, ...
/sagittal/<k>/image        uint16 [slice, row, column]
/sagittal/<k>/position_mm  float64 [slice, 3], centre of the first voxel of each slice, LPS
/axial/<k>/...       likewise
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
import zarr

from cohort.errors import StoreError
from cohort.geometry import StackGeometry
from cohort.stacks import ImageStack, Plane
from cohort.store.arrays import (
    IMAGE_CODEC,
    MASK_CODEC,
    POSITION_AXES,
    VOXEL_AXES,
    multiscales,
    open_store,
    read_array,
    root_attributes,
    write_array,
    write_group,
    write_root,
)
from cohort.store.publish import publishing

PLANES: Final[tuple[Plane, ...]] = get_args(Plane)


@dataclass(frozen=True, eq=False)
class StoredExam:
    """What an exam store holds."""

    attributes: Mapping[str, Any]
    stacks: list[ImageStack]
    """Sagittal stacks first, each plane in the order of its index."""


def write_exam(target: Path, stacks: Sequence[ImageStack], attributes: Mapping[str, Any]) -> None:
    """Publish an exam store; one that exists at `target` is kept.

    Parameters
    ----------
    target : path from `layout.exam_store_path`
    stacks : of both planes; their (plane, index) must be unique
    attributes : JSON values without NaN; pseudonyms only, no text of the files
    """
    with publishing(target) as building:
        write_root(building, "exam", attributes)
        for plane in {stack.plane for stack in stacks}:
            write_group(building / plane, {})
        for stack in stacks:
            _write_stack(building / stack.plane / str(stack.index), stack)


def _write_stack(group: Path, stack: ImageStack) -> None:
    write_group(group, _stack_attributes(stack))
    write_array(group / "image", stack.image, VOXEL_AXES, IMAGE_CODEC)
    write_array(group / "position_mm", stack.geometry.position_mm, POSITION_AXES, MASK_CODEC)


def _stack_attributes(stack: ImageStack) -> dict[str, Any]:
    geometry = stack.geometry
    return {
        "frame_of_reference_id": stack.frame_of_reference_id,
        "row_dir": geometry.row_dir.tolist(),
        "col_dir": geometry.col_dir.tolist(),
        "spacing_mm": [float(spacing) for spacing in geometry.spacing_mm],
        "thickness_mm": float(geometry.thickness_mm),
        "slice_gap_mm": geometry.slice_gap_mm,
        "affine": geometry.affine.tolist(),
        "affine_error_mm": geometry.affine_error_mm,
        "coordinates": "DICOM LPS, mm; affine maps (slice, row, column) indices within affine_error_mm",
        "ome": multiscales("image", geometry),
    }


def read_exam(path: Path) -> StoredExam:
    """Read an exam store; raises StoreError if it is missing, incomplete or of another schema version."""
    root = open_store(path, "exam")
    stacks = [
        _read_stack(group, plane, index)
        for plane in PLANES
        for index, group in sorted((int(name), group) for name, group in _groups(root, plane))
    ]
    return StoredExam(attributes=root_attributes(root), stacks=stacks)


def _groups(root: zarr.Group, plane: Plane) -> list[tuple[str, zarr.Group]]:
    return list(root[plane].groups()) if plane in root else []


def _read_stack(group: zarr.Group, plane: Plane, index: int) -> ImageStack:
    attributes = dict(group.attrs)
    try:
        image = np.asarray(group["image"][...])
        n_slices, rows, columns = image.shape
        geometry = StackGeometry(
            position_mm=read_array(group, "position_mm", np.float64, (n_slices, 3)),
            row_dir=np.array(attributes["row_dir"], dtype=np.float64),
            col_dir=np.array(attributes["col_dir"], dtype=np.float64),
            spacing_mm=(float(attributes["spacing_mm"][0]), float(attributes["spacing_mm"][1])),
            shape=(rows, columns),
            thickness_mm=float(attributes["thickness_mm"]),
        )
    except (KeyError, FileNotFoundError, ValueError) as error:
        raise StoreError(f"{plane} stack {index} is incomplete") from error
    if image.dtype != np.uint16:
        raise StoreError(f"{plane} stack {index}: image of {image.dtype} instead of uint16")
    return ImageStack(plane, index, image, geometry, attributes.get("frame_of_reference_id"))
