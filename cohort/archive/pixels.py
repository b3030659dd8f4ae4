"""Decode the pixels of single files, and bring those of one series to one scale of unsigned 16-bit values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, Final

import gdcm
import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmread
from pydicom.pixels import pixel_array
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    RLELossless,
)

from cohort.archive.header import Elements, quiet_pydicom, text, unsigned_short
from cohort.archive.parse import DicomFile, native_pixels, open_dicom
from cohort.errors import RefusedError

# gdcm writes what it finds odd in a code stream to standard error, once per file; failures reach us as exceptions.
gdcm.Trace.WarningOff()
gdcm.Trace.ErrorOff()

LARGEST: Final = 65535
STORED_TYPES: Final = {(8, 0): "|u1", (8, 1): "|i1", (16, 0): "<u2", (16, 1): "<i2"}
"""(BitsAllocated, PixelRepresentation) -> type of stored values (PS3.5 8.1.1)."""
LOSSY_SYNTAXES: Final = (JPEGBaseline8Bit, JPEGExtended12Bit)
"""Transfer syntaxes that lose something whatever LossyImageCompression says; the others may be without loss."""
_UNCOMPRESSED: Final = {
    (True, True): ImplicitVRLittleEndian,
    (False, True): ExplicitVRLittleEndian,
    (False, False): ExplicitVRBigEndian,
}
"""(implicit value representation, little endian) -> transfer syntax."""

Pixels = npt.NDArray[Any]


@dataclass(frozen=True)
class Decoded:
    """What befell the frames of a file."""

    damaged: frozenset[int]
    """Numbers of those that cannot be decoded."""
    masked: frozenset[int]
    """Numbers of those in which bits were set that do not belong to a value."""


@dataclass(frozen=True)
class PixelFormat:
    """How the pixels of one file are stored."""

    transfer_syntax: str
    shape: tuple[int, int]
    """(rows, columns) of a frame."""
    stored: np.dtype[Any]
    """Type of stored values."""
    bits: int
    """Bits that belong to a value; those above them, if any, do not (PS3.5 8.1.1)."""
    white: int | None
    """What stored values of MONOCHROME1 are subtracted from, so that more signal is the larger value; else None."""
    native: tuple[int, int] | None
    """Offset of the first pixel in the uncompressed file, and length of all in bytes; None if a decoder is needed."""
    lossy: bool
    """Compressed with loss, now or in the past (PS3.3 C.7.6.1.1.5)."""

    @property
    def values(self) -> np.dtype[Any]:
        """Type that holds the decoded values: inverted ones may be negative."""
        return self.stored if self.white is None else np.dtype(np.int32)

    def upright(self, stored: Pixels) -> Pixels:
        """Stored values, inverted for MONOCHROME1."""
        return stored if self.white is None else self.white - stored.astype(np.int32)

    def scale(self, slope: float | None, intercept: float | None) -> tuple[float, float]:
        """(slope, intercept) of upright values from RescaleSlope and RescaleIntercept (PS3.3 C.11.1), 1 and 0 if
        missing."""
        slope, intercept = slope if slope and slope > 0 else 1.0, intercept or 0.0
        return (slope, intercept) if self.white is None else (slope, -(self.white * slope + intercept))


def pixel_format(file: DicomFile, header: Elements, *, n_frames: int) -> PixelFormat:
    """Describe the pixels of a file whose stream stands at an element before them, or at them.

    Raises
    ------
    RefusedError
        `damaged_pixels` if they are not of one grey sample of 8 or 16 bits
    """
    rows, columns = unsigned_short(header, "Rows"), unsigned_short(header, "Columns")
    signed = unsigned_short(header, "PixelRepresentation") or 0
    kind = STORED_TYPES.get((unsigned_short(header, "BitsAllocated") or 0, signed))
    photometric = text(header, "PhotometricInterpretation")
    grey = unsigned_short(header, "SamplesPerPixel") in (1, None) and photometric in ("MONOCHROME1", "MONOCHROME2", "")
    if not rows or not columns or kind is None or not grey:
        raise RefusedError("damaged_pixels", "not one grey sample of 8 or 16 bits")
    stored = np.dtype(kind)
    bits = _bits(header, stored)
    n_bytes = rows * columns * stored.itemsize * n_frames
    lossy = text(header, "LossyImageCompression") == "01" or file.transfer_syntax in LOSSY_SYNTAXES
    return PixelFormat(
        transfer_syntax=file.transfer_syntax,
        shape=(rows, columns),
        stored=stored,
        bits=bits,
        white=None if photometric != "MONOCHROME1" else -1 if signed else 2**bits - 1,
        native=native_pixels(file, n_bytes),
        lossy=lossy,
    )


def _bits(header: Elements, stored: np.dtype[Any]) -> int:
    """Bits up to HighBit: where values do not begin at bit 0 they are but larger, and MR intensities have no unit."""
    allocated = 8 * stored.itemsize
    bits = unsigned_short(header, "BitsStored") or allocated
    high_bit = unsigned_short(header, "HighBit")
    return min(allocated, max(bits, 0 if high_bit is None else high_bit + 1))


def decode_frames(stream: BinaryIO, pixels: PixelFormat, images: Mapping[int, Pixels]) -> Decoded:
    """Decode single frames of a file straight into arrays; compressed ones one at a time, with gdcm.

    Parameters
    ----------
    stream : the uncompressed file, at its beginning
    images : number of the frame, from 0 -> contiguous array [row, column] of type `pixels.values` or wider
    """
    damaged: set[int] = set()
    masked: set[int] = set()
    # The decoders raise a dozen kinds of exception on damaged code streams; all mean the same to the series.
    try:
        read = _reader(stream, pixels)
    except MemoryError:
        raise
    except Exception:
        return Decoded(frozenset(images), frozenset())
    for frame, image in sorted(images.items()):
        try:
            if read(frame, image):
                masked.add(frame)
        except MemoryError:
            raise
        except Exception:
            damaged.add(frame)
    return Decoded(frozenset(damaged), frozenset(masked))


def _reader(stream: BinaryIO, pixels: PixelFormat) -> Callable[[int, Pixels], bool]:
    """What reads a frame into an array and says if bits had to be masked."""
    if pixels.native is None:
        with quiet_pydicom():
            return partial(_decode, _decodable(stream), pixels)
    if pixels.transfer_syntax == DeflatedExplicitVRLittleEndian:
        stream = open_dicom(stream, random_access=True).stream
    return partial(_read_native, stream, pixels, *pixels.native)


def _read_native(stream: BinaryIO, pixels: PixelFormat, offset: int, length: int, frame: int, image: Pixels) -> bool:
    """Read one frame of uncompressed little-endian pixels, without a copy where the array is of their type."""
    stored = image if image.dtype == pixels.stored else np.empty(pixels.shape, pixels.stored)
    start = frame * stored.nbytes
    stream.seek(offset + start)
    if start + stored.nbytes > length or stream.readinto(stored.data) != stored.nbytes:  # type: ignore[attr-defined]
        raise RefusedError("damaged_pixels", "the pixels end early")
    return _finish(stored, pixels, image)


def _decodable(stream: BinaryIO) -> Dataset:
    """The whole data set of a file whose pixels a decoder must read."""
    data_set = dcmread(stream, force=True)
    if "TransferSyntaxUID" not in data_set.file_meta:  # a file without meta information cannot be compressed
        data_set.file_meta.TransferSyntaxUID = _UNCOMPRESSED[data_set.original_encoding]
    return data_set


def _decode(data_set: Dataset, pixels: PixelFormat, frame: int, image: Pixels) -> bool:
    syntax = data_set.file_meta.TransferSyntaxUID
    by_gdcm = syntax.is_encapsulated and syntax != RLELossless
    with quiet_pydicom():
        stored = pixel_array(data_set, raw=True, index=frame, decoding_plugin="gdcm" if by_gdcm else "")
    if stored.shape != pixels.shape or stored.dtype.newbyteorder("<") != pixels.stored:
        raise RefusedError("damaged_pixels", f"decoded {stored.dtype} {stored.shape}")
    return _finish(stored.astype(pixels.stored), pixels, image)


def _finish(stored: Pixels, pixels: PixelFormat, image: Pixels) -> bool:
    """Mask and invert stored values into `image`, which may be they themselves; says if bits had to be masked."""
    unused = 8 * stored.itemsize - pixels.bits
    masked = unused > 0 and _is_beyond(stored, pixels.bits)
    if masked:  # there and back: signed values get their sign again
        np.left_shift(stored, unused, out=stored)
        np.right_shift(stored, unused, out=stored)
    if stored is not image:
        image[...] = pixels.upright(stored)
    return masked


def _is_beyond(stored: Pixels, bits: int) -> bool:
    """Say if any value takes more than so many bits."""
    if stored.dtype.kind == "u":
        return bool(stored.max() >= 2**bits)
    return bool(stored.max() >= 2 ** (bits - 1) or stored.min() < -(2 ** (bits - 1)))


def to_common_scale(
    stacks: Sequence[Pixels], scales: Sequence[Sequence[tuple[float, float]]]
) -> list[npt.NDArray[np.uint16]]:
    """Bring the slices of one series to one scale of uint16.

    MR intensities have no unit, so a rescale that is the same for all slices changes nothing that counts, and stored
    values pass. Where it differs from slice to slice it is applied, at the finest slope of the series. Negative
    values are made positive by one offset for the whole series.

    Parameters
    ----------
    stacks : [slice, row, column] of upright values
    scales : (slope, intercept) of each slice of each stack, as given by `PixelFormat.scale`

    Raises
    ------
    RefusedError
        `damaged_pixels` if rescaled values are beyond all numbers
    """
    lowest = min(0, *(_lowest(stack) for stack in stacks))
    one_scale = len({scale for stack in scales for scale in stack}) == 1
    if one_scale and max(_highest(stack) for stack in stacks) - lowest <= LARGEST:
        return [_moved(stack, lowest) for stack in stacks]
    return _rescaled(stacks, scales)


def _lowest(stack: Pixels) -> int:
    return 0 if stack.dtype.kind == "u" else int(stack.min())


def _highest(stack: Pixels) -> int:
    return int(stack.max()) if stack.dtype.itemsize > 2 else int(np.iinfo(stack.dtype).max)


def _moved(stack: Pixels, lowest: int) -> npt.NDArray[np.uint16]:
    if lowest == 0 and stack.dtype.itemsize == 2:
        return stack.view(np.uint16)  # signed values of which none is negative need no copy
    return (stack.astype(np.int32) - lowest).astype(np.uint16)


def _rescaled(
    stacks: Sequence[Pixels], scales: Sequence[Sequence[tuple[float, float]]]
) -> list[npt.NDArray[np.uint16]]:
    ends = [
        (int(image.min()) * slope + intercept, int(image.max()) * slope + intercept)
        for stack, of_stack in zip(stacks, scales, strict=True)
        for image, (slope, intercept) in zip(stack, of_stack, strict=True)
    ]
    low = min(0.0, *(start for start, _ in ends))
    span = max(end for _, end in ends) - low
    if not math.isfinite(span):
        raise RefusedError("damaged_pixels", "rescaled values are beyond all numbers")
    step = max(min(slope for of_stack in scales for slope, _ in of_stack), span / LARGEST)
    rescaled = [np.empty(stack.shape, np.uint16) for stack in stacks]
    for result, stack, of_stack in zip(rescaled, stacks, scales, strict=True):
        for k, (slope, intercept) in enumerate(of_stack):
            result[k] = np.round((stack[k] * slope + (intercept - low)) / step)
    return rescaled
