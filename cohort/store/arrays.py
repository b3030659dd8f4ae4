"""Groups and arrays of the stores: Zarr v3, one chunk per array, readable by xarray and by OME-Zarr viewers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BloscCodec

from cohort.errors import StoreError
from cohort.geometry import StackGeometry

SCHEMA_VERSION: Final = 1
VOXEL_AXES: Final = ("slice", "row", "column")
POSITION_AXES: Final = ("slice", "lps")


def create_store(path: Path, kind: str, attributes: Mapping[str, Any]) -> zarr.Group:
    """Create a Zarr v3 store whose root carries `attributes`, its kind and the schema version.

    Raises
    ------
    ValueError
        if an attribute is NaN or cannot be written as JSON
    """
    json.dumps(dict(attributes), allow_nan=False)
    return zarr.create_group(
        path, zarr_format=3, attributes={**attributes, "kind": kind, "schema_version": SCHEMA_VERSION}
    )


def open_store(path: Path, kind: str) -> zarr.Group:
    """Open a store for reading.

    Raises
    ------
    StoreError
        if there is none, or one of another kind or schema version
    """
    try:
        root = zarr.open_group(path, mode="r", zarr_format=3, use_consolidated=False)
    except (FileNotFoundError, ValueError) as error:
        raise StoreError(f"no {kind} store here") from error
    found = (root.attrs.get("kind"), root.attrs.get("schema_version"))
    if found != (kind, SCHEMA_VERSION):
        raise StoreError(f"wanted {kind} store of schema version {SCHEMA_VERSION}, found {found[0]} of {found[1]}")
    return root


def root_attributes(root: zarr.Group) -> dict[str, Any]:
    """Attributes given to `create_store`."""
    return {name: value for name, value in root.attrs.items() if name not in ("kind", "schema_version")}


def write_array(group: zarr.Group, name: str, values: npt.NDArray[Any], axes: tuple[str, ...]) -> None:
    """Write one array as one chunk, Blosc zstd 3 with bit shuffle."""
    array = group.create_array(
        name,
        shape=values.shape,
        chunks=values.shape,
        dtype=values.dtype,
        compressors=BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"),
        dimension_names=axes,
    )
    array[...] = values


def read_array(group: zarr.Group, name: str, dtype: type, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Read one array; raises StoreError if it is missing or of another type or shape."""
    try:
        values = np.asarray(group[name][...])
    except (KeyError, FileNotFoundError) as error:
        raise StoreError(f"array {name} is missing") from error
    if values.dtype != np.dtype(dtype) or values.shape != shape:
        raise StoreError(f"array {name}: wanted {np.dtype(dtype)} {shape}, found {values.dtype} {values.shape}")
    return values


def multiscales(name: str, geometry: StackGeometry) -> dict[str, Any]:
    """OME-Zarr 0.5 metadata of an image array, so that viewers show it in proportion.

    OME-Zarr has no direction cosines: scale is all they get. `affine` beside it is the true position in LPS.
    """
    gap = abs(geometry.slice_gap_mm)
    scale = [gap, float(geometry.spacing_mm[0]), float(geometry.spacing_mm[1])]
    dataset = {"path": name, "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    axes = [{"name": axis, "type": "space", "unit": "millimeter"} for axis in VOXEL_AXES]
    return {"version": "0.5", "multiscales": [{"name": name, "axes": axes, "datasets": [dataset]}]}
