"""Masks as volumes: NIfTI by nibabel, and MetaImage (.mha, .mhd).

MetaImage has a text header of a dozen lines and raw or zlib-compressed voxels; a reader of its own (below) spares
SimpleITK, which nothing else here would use. The format is that of docs.itk.org/en/latest/learn/metaio.html, whose
orientation matrix gives the direction of one axis of the image after the other. That coordinates are LPS, as ITK has
them, is remembered, not read.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from cohort.annotations.placement import RAS_TO_LPS, TOLERANCE, MisplacedError
from cohort.errors import RefusedError
from cohort.geometry import Floats

NIFTI_SUFFIXES: Final = (".nii", ".nii.gz")
MHA_SUFFIXES: Final = (".mha", ".mhd")
SHEARED: Final = 1e-3
"""Cosine between two axes from which a grid is sheared rather than rounded (own choice)."""
_HEADER_BYTES: Final = 65_536
_META_TYPES: Final = {
    "MET_UCHAR": "u1",
    "MET_CHAR": "i1",
    "MET_USHORT": "u2",
    "MET_SHORT": "i2",
    "MET_UINT": "u4",
    "MET_INT": "i4",
    "MET_ULONG_LONG": "u8",
    "MET_LONG_LONG": "i8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}


@dataclass(frozen=True, eq=False)
class MaskVolume:
    """A mask as its file has it."""

    values: npt.NDArray[np.int64]
    """Labels of voxels, axes as in the file."""
    affine: Floats
    """[4, 4] maps voxel indices to LPS mm."""


def read_volume(path: Path) -> MaskVolume:
    """Read a mask from NIfTI or MetaImage, by the name of the file.

    Raises
    ------
    RefusedError
        `mask_unreadable`, `mask_not_whole_numbers` where a value is none, or `mask_grid_differs` for a NIfTI with two
        places that contradict each other
    """
    name = path.name.lower()
    if name.endswith(MHA_SUFFIXES):
        values, affine = _read_meta(path)
    elif name.endswith(NIFTI_SUFFIXES):
        values, affine = _read_nifti(path)
    else:
        raise RefusedError("mask_unreadable", "neither NIfTI nor MetaImage by its name")
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3 or not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-9:
        raise RefusedError("mask_unreadable", f"a mask has three axes and a place; this has {values.ndim} axes")
    return MaskVolume(_whole_numbers(values), affine)


def _whole_numbers(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    if values.dtype.kind not in "biuf":
        raise RefusedError(
            "mask_not_whole_numbers", f"voxels of kind {values.dtype.kind!r}: colours or complex numbers"
        )
    if not np.isfinite(values).all():
        raise RefusedError("mask_not_whole_numbers", "NaN or infinity")
    whole = np.rint(values)
    if (n := int(np.count_nonzero(whole != values))) or whole.min(initial=0) < 0:
        raise RefusedError("mask_not_whole_numbers", f"{n} voxels are not whole, the least value is {values.min():g}")
    return np.asarray(whole, dtype=np.int64)


def _read_nifti(path: Path) -> tuple[npt.NDArray[Any], Floats]:
    try:
        image: Any = nibabel.load(path)
        values = np.asanyarray(image.dataobj)
    except (OSError, EOFError, ValueError, OverflowError, zlib.error, ImageFileError, HeaderDataError) as error:
        raise RefusedError("mask_unreadable", f"no NIfTI that can be read: {type(error).__name__}") from error
    if not (image.header["qform_code"] or image.header["sform_code"]):
        raise RefusedError("mask_unreadable", "the NIfTI has no place: neither qform nor sform")
    _require_one_place(image)
    return values, RAS_TO_LPS @ np.asarray(image.affine, dtype=np.float64)


def _require_one_place(image: Any) -> None:
    """Refuse a NIfTI whose two places contradict each other: programs differ in which of them they believe.

    A sheared grid, of slices that are not stacked along their normal, has no qform: its sform alone counts.
    """
    sform, own = image.header.get_sform(coded=True), image.header.get_qform(coded=True)
    if not (sform[1] and own[1]) or image.ndim < 3:
        return
    axes = sform[0][:3, :3] / np.maximum(np.linalg.norm(sform[0][:3, :3], axis=0), 1e-12)
    if np.abs(axes.T @ axes - np.eye(3)).max() > SHEARED:
        return
    corners = np.array(list(product(*((0, size - 1) for size in image.shape[:3]))), dtype=np.float64)
    apart = corners @ (sform[0] - own[0])[:3, :3].T + (sform[0] - own[0])[:3, 3]
    off_mm, limit_mm = float(np.linalg.norm(apart, axis=1).max()), TOLERANCE * float(min(image.header.get_zooms()[:3]))
    if not off_mm <= limit_mm:
        detail = f"sform and qform of the NIfTI differ by {off_mm:.2f} mm; tolerated: {limit_mm:.2f} mm"
        raise MisplacedError("mask_grid_differs", detail, offset_mm=round(off_mm, 3), limit_mm=round(limit_mm, 3))


def _read_meta(path: Path) -> tuple[npt.NDArray[Any], Floats]:
    try:
        header, rest = _meta_header(path)
        return _meta_values(path, header, rest), _meta_affine(header)
    except (OSError, KeyError, ValueError, zlib.error) as error:
        raise RefusedError("mask_unreadable", f"no MetaImage that can be read: {type(error).__name__}") from error


def _meta_header(path: Path) -> tuple[dict[str, str], int]:
    """Keys of the header, and where it ends: `ElementDataFile` is its last line."""
    with path.open("rb") as stream:
        text = stream.read(_HEADER_BYTES)
    header: dict[str, str] = {}
    end = 0
    while "ElementDataFile" not in header:
        stop = text.index(b"\n", end)
        key, _, value = text[end:stop].decode("ascii").partition("=")
        header[key.strip()] = value.strip()
        end = stop + 1
    return header, end


def _meta_values(path: Path, header: dict[str, str], end: int) -> npt.NDArray[Any]:
    """Voxels with x first, as in NIfTI; the file has x fastest."""
    if header["ElementDataFile"] == "LOCAL":
        raw = path.read_bytes()[end:]
    else:
        beside = Path(header["ElementDataFile"])
        if beside.name != header["ElementDataFile"]:
            raise ValueError("voxels outside the folder of the header")
        raw = (path.parent / beside).read_bytes()
    if _is_true(header.get("CompressedData", "False")):
        raw = zlib.decompress(raw)
    plain = header.get("ElementNumberOfChannels", "1") == "1" and header.get("HeaderSize", "0") == "0"
    if not (plain and _is_true(header.get("BinaryData", "True"))):
        raise ValueError("several channels, a second header, or voxels as text")
    swapped = header.get("BinaryDataByteOrderMSB", header.get("ElementByteOrderMSB", "False"))
    kind = np.dtype((">" if _is_true(swapped) else "<") + _META_TYPES[header["ElementType"]])
    shape = [int(size) for size in header["DimSize"].split()]
    if len(raw) != int(np.prod(shape)) * kind.itemsize:
        raise ValueError("not as many bytes as the header has voxels")
    return np.frombuffer(raw, kind).reshape(shape[::-1]).transpose()


def _meta_affine(header: dict[str, str]) -> Floats:
    axes = _numbers(header, ("TransformMatrix", "Rotation", "Orientation")).reshape(3, 3)
    affine = np.eye(4)
    affine[:3, :3] = axes.T * _numbers(header, ("ElementSpacing",))
    affine[:3, 3] = _numbers(header, ("Offset", "Origin", "Position"))
    return affine


def _numbers(header: dict[str, str], names: Sequence[str]) -> Floats:
    """Of the first name that is there; KeyError without any: a mask without a place is none."""
    text = header[next((name for name in names if name in header), names[0])]
    return np.array([float(number) for number in text.split()])


def _is_true(text: str) -> bool:
    return text.lower() == "true"
