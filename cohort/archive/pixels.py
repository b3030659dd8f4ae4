"""Decode the pixels of one file, and bring those of one series to one scale of unsigned 16-bit values."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import gdcm
import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmread
from pydicom.pixels import pixel_array
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from cohort.archive.header import number, positive, quiet_pydicom
from cohort.errors import RefusedError

# gdcm writes what it finds odd in a code stream to standard error, once per file; failures reach us as exceptions.
gdcm.Trace.WarningOff()
gdcm.Trace.ErrorOff()

LARGEST: Final = 65535
_UNCOMPRESSED: Final = {
    (True, True): ImplicitVRLittleEndian,
    (False, True): ExplicitVRLittleEndian,
    (False, False): ExplicitVRBigEndian,
}
"""(implicit value representation, little endian) -> transfer syntax."""


@dataclass(frozen=True, eq=False)
class DecodedPixels:
    """Pixels of one file before they are brought to the scale of their series."""

    stored: npt.NDArray[np.int32]
    """[row, column] stored values, inverted for MONOCHROME1 so that more signal is always the larger value."""
    slope: float
    """RescaleSlope (PS3.3 C.11.1), 1 if missing."""
    intercept: float
    """RescaleIntercept, 0 if missing; for MONOCHROME1 that of the inverted values."""


def content_sha256(path: Path) -> str:
    """Hash of the whole file, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_pixels(path: Path) -> npt.NDArray[np.uint16]:
    """Decode one file alone to [row, column]; raises RefusedError `damaged_pixels` if that fails."""
    with quiet_pydicom():
        try:
            data_set = dcmread(path, force=True)
        except Exception as error:  # see decode_pixels
            raise RefusedError("damaged_pixels", type(error).__name__) from error
        return to_common_scale([decode_pixels(data_set)])[0]


def decode_pixels(data_set: Dataset) -> DecodedPixels:
    """Decode the pixels of a grey single-frame image, compressed ones with gdcm. Call it within `quiet_pydicom`.

    Raises
    ------
    RefusedError
        `damaged_pixels` if pixels are missing, too short, of several samples, or of a code stream that the decoder
        rejects
    """
    try:
        if "TransferSyntaxUID" not in data_set.file_meta:  # a file without meta information cannot be compressed
            data_set.file_meta.TransferSyntaxUID = _UNCOMPRESSED[data_set.original_encoding]
        syntax = data_set.file_meta.TransferSyntaxUID
        by_gdcm = syntax.is_encapsulated and syntax != RLELossless
        stored = pixel_array(data_set, raw=True, decoding_plugin="gdcm" if by_gdcm else "")
    except Exception as error:
        # The decoders raise a dozen kinds of exception on damaged code streams; all mean the same to the series.
        raise RefusedError("damaged_pixels", type(error).__name__) from error
    if stored.ndim != 2 or stored.dtype.kind not in "iu" or stored.dtype.itemsize > 2:
        raise RefusedError("damaged_pixels", f"{stored.ndim} axes of {stored.dtype}")
    slope, intercept = positive(data_set, "RescaleSlope") or 1.0, number(data_set, "RescaleIntercept") or 0.0
    values = stored.astype(np.int32)
    if data_set.get("PhotometricInterpretation") == "MONOCHROME1":
        white = 2 ** int(data_set.get("BitsStored") or 16) - 1 if stored.dtype.kind == "u" else -1
        values, intercept = white - values, -(white * slope + intercept)
    return DecodedPixels(stored=values, slope=slope, intercept=intercept)


def to_common_scale(series: Sequence[DecodedPixels]) -> list[npt.NDArray[np.uint16]]:
    """Bring the slices of one series to one scale of uint16.

    MR intensities have no unit, so a rescale that is the same for all slices changes nothing that counts, and stored
    values pass. Where it differs from slice to slice it is applied, at the finest slope of the series. Negative
    values are made positive by one offset for the whole series.
    """
    scales = {(one.slope, one.intercept) for one in series}
    if len(scales) == 1:
        lowest = min(0, *(int(one.stored.min()) for one in series))
        highest = max(int(one.stored.max()) for one in series) - lowest
        if highest <= LARGEST:
            return [(one.stored - lowest).astype(np.uint16) for one in series]
    rescaled = [one.stored * one.slope + one.intercept for one in series]
    low = min(0.0, *(float(one.min()) for one in rescaled))
    span = max(float(one.max()) for one in rescaled) - low
    step = max(min(one.slope for one in series), span / LARGEST)
    return [np.round((one - low) / step).astype(np.uint16) for one in rescaled]
