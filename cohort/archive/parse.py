"""Parse the header of one DICOM file: with pydicom's parser of elements, and no further than what counts.

`pydicom.dcmread` makes a Dataset of each header and walks every element before the pixels, private ones of any size
among them. Here the parser stops behind the last attribute of the image that is read.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Literal

from pydicom import Dataset
from pydicom.charset import default_encoding
from pydicom.filereader import data_element_generator
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pydicom.valuerep import VR

from cohort.archive.header import HEADER_KEYWORDS, TAGS, Elements, RawElements, text
from cohort.archive.multiframe import SEQUENCE_TAGS
from cohort.archive.source import START_BYTES
from cohort.errors import RefusedError

HEADER_BYTES: Final = 2**28
"""What may be read of one header; 10,000 frames of functional groups take 160 MB."""
MOST_ELEMENTS: Final = 100_000
"""Of one data set, those within sequences apart; usual are hundreds. Zeros read as empty elements without end."""
LARGEST_VALUE_BYTES: Final = 2**16
"""Longer values of single attributes count as missing: none of those that are read comes near."""
LARGEST_DEFLATED_BYTES: Final = 2**28
"""Of a deflated data set (PS3.5 A.5), uncompressed; it is held in memory."""

IMAGE_TAGS: Final = [TAGS[keyword] for keyword in HEADER_KEYWORDS]
FRAME_TAGS: Final = [*TAGS.values(), *SEQUENCE_TAGS.values()]
NO_TAGS: Final = [TAGS["SpecificCharacterSet"]]
"""What the parser keeps when nothing is wanted."""
PIXEL_TAGS: Final = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))
"""FloatPixelData, DoubleFloatPixelData and PixelData."""

NATIVE_SYNTAXES: Final = ("", ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
"""Transfer syntaxes of uncompressed little-endian pixels; a file that says none is not compressed."""

_FIRST_GROUPS: Final = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")
"""First bytes of files without preamble: group 0002 or 0008 in either byte order."""
_REPRESENTATIONS: Final = frozenset(vr.encode() for vr in VR)
_UNDEFINED_LENGTH: Final = 0xFFFFFFFF

StopWhen = Callable[[int, str | None, int], bool]


@dataclass(frozen=True)
class Encoding:
    """How the elements of a data set are written (PS3.5 7.1 and 7.3)."""

    implicit: bool
    little_endian: bool


@dataclass(frozen=True, eq=False)
class DicomFile:
    """A file that may be DICOM, before its data set is read."""

    stream: BinaryIO
    """Uncompressed, deflated data sets included."""
    start: int
    """Where the data set begins in `stream`."""
    encoding: Encoding
    meta: Elements
    """File meta information (PS3.10 7.1)."""
    has_preamble: bool
    random_access: bool
    """Seeking costs nothing: the stream is not being uncompressed."""

    @property
    def transfer_syntax(self) -> str:
        """TransferSyntaxUID; '' if it is not said."""
        return text(self.meta, "TransferSyntaxUID")


def open_dicom(stream: BinaryIO, *, random_access: bool) -> DicomFile:
    """Read the file meta information, and find out how the data set is encoded.

    Raises RefusedError `not_dicom` if the file has no preamble and does not begin like a data set,
    `container_limit` if a deflated data set is too large.
    """
    start = stream.read(START_BYTES)
    has_preamble = start[128:] == b"DICM"
    if not has_preamble:
        if start[:2] not in _FIRST_GROUPS:
            raise RefusedError("not_dicom", "neither a preamble nor a first element of group 0002 or 0008")
        stream.seek(0)
    meta = _group(stream, 0x0002, implicit=False)
    _group(stream, 0x0000, implicit=True)  # command set of a network message, kept by some writers
    syntax = text(meta, "TransferSyntaxUID")
    if syntax == DeflatedExplicitVRLittleEndian:
        stream = _undeflated(stream)
        random_access = True
    encoding = _encoding(stream, syntax)
    return DicomFile(stream, stream.tell(), encoding, meta, has_preamble, random_access)


def _group(stream: BinaryIO, group: int, *, implicit: bool) -> RawElements:
    """Elements of the one group that the stream stands at, little endian; none if it is another group."""
    implicit = _looks_implicit(stream, implicit)
    return _parsed(data_element_generator(stream, implicit, True, lambda tag, _vr, _length: tag >> 16 != group))


def _encoding(stream: BinaryIO, syntax: str) -> Encoding:
    """Encoding by the transfer syntax, corrected by the first element where the file contradicts itself."""
    implicit, little_endian = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    if not syntax:
        first = _peek(stream, 6)
        implicit = first[4:6] not in _REPRESENTATIONS
        little_endian = implicit or int.from_bytes(first[:2], "little") < 0x0400  # group 0008 as big endian is 0800
    return Encoding(_looks_implicit(stream, implicit), little_endian)


def _looks_implicit(stream: BinaryIO, assumed: bool) -> bool:
    """Say if the first element lacks the two capital letters of a value representation."""
    first = _peek(stream, 6)
    return assumed if len(first) < 6 else not (0x40 < first[4] < 0x5B and 0x40 < first[5] < 0x5B)


def _peek(stream: BinaryIO, size: int) -> bytes:
    found = stream.read(size)
    stream.seek(-len(found), os.SEEK_CUR)
    return found


def _undeflated(stream: BinaryIO) -> BinaryIO:
    """The rest of the stream, inflated; what was cut off is missing at its end (see `pixels_are_complete`)."""
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(stream.read(), LARGEST_DEFLATED_BYTES + 1)
    if len(inflated) > LARGEST_DEFLATED_BYTES:
        raise RefusedError("container_limit", f"more than {LARGEST_DEFLATED_BYTES} bytes deflated")
    return io.BytesIO(inflated)


def read_image_elements(file: DicomFile, *, to_pixels: bool = False, wanted: list[int] = IMAGE_TAGS) -> RawElements:
    """Raw elements of a single-frame image; the stream is left at the first element behind them.

    Parameters
    ----------
    to_pixels : go on to the pixels, for files whose elements are not in order
    wanted : tags of the elements
    """
    file.stream.seek(file.start)
    last = max(wanted)
    return _elements(file, _at_pixels if to_pixels else lambda tag, _vr, _length: int(tag) > last, wanted)


def read_frame_elements(file: DicomFile) -> Dataset:
    """All that is read of a multi-frame image, functional groups included; the stream is left at the pixels."""
    file.stream.seek(file.start)
    found = _elements(file, _at_pixels, FRAME_TAGS, largest_value=None)
    data_set = Dataset({element.tag: element for element in found.values()})
    data_set.set_original_encoding(file.encoding.implicit, file.encoding.little_endian, default_encoding)
    return data_set


def _at_pixels(tag: int, _representation: str | None, _length: int) -> bool:
    return int(tag) in PIXEL_TAGS  # pydicom's BaseTag compares itself in Python, which would cost a tenth of the scan


def _elements(
    file: DicomFile, stop_when: StopWhen, wanted: list[int], largest_value: int | None = LARGEST_VALUE_BYTES
) -> RawElements:
    """Wanted elements from where the stream stands; RefusedError `damaged_header` if there are too many in between."""
    n_left = MOST_ELEMENTS

    def stop(tag: int, representation: str | None, length: int) -> bool:
        nonlocal n_left
        n_left -= 1
        if n_left < 0:
            raise RefusedError("damaged_header", f"more than {MOST_ELEMENTS} elements")
        return stop_when(tag, representation, length)

    implicit, little_endian = file.encoding.implicit, file.encoding.little_endian
    return _parsed(
        data_element_generator(file.stream, implicit, little_endian, stop, largest_value, specific_tags=wanted)
    )


def _parsed(elements: Iterator[Any]) -> RawElements:
    """Elements by tag; those before the end of a file that ends within one are kept.

    Raises RefusedError `damaged_header` for a sequence that is not one; pydicom raises other exceptions besides.
    """
    found = RawElements()
    try:
        found.update((int(element.tag), element) for element in elements)
    except (EOFError, struct.error):
        pass  # the file ends here: what comes later is missed later
    except OSError as error:
        if error.errno is not None:
            raise
        raise RefusedError("damaged_header", "a sequence without items") from error
    return found


def pixels_are_complete(file: DicomFile, n_bytes: int) -> bool:
    """Say if all pixels are there, where the stream stands at any element before them, or at them.

    Uncompressed pixels must all be there; of compressed ones only the presence of the element is checked, since their
    length is known to the decoder alone. A gzip-compressed file and a member of a .zip are read to their end, so that
    their check sum is verified.

    Parameters
    ----------
    n_bytes : of the uncompressed pixels of all frames
    """
    length = _go_to_pixels(file, n_bytes)
    begin = file.stream.tell()
    left = file.stream.seek(0, os.SEEK_END) - begin
    return length is not None and (length == _UNDEFINED_LENGTH or min(left, length) >= n_bytes)


def native_pixels(file: DicomFile, n_bytes: int) -> tuple[int, int] | None:
    """Offset in the stream, and length, of uncompressed little-endian pixels; None if there are none.

    The stream stands as for `pixels_are_complete`; the length is what the file says, its end may come earlier.
    """
    if file.transfer_syntax not in NATIVE_SYNTAXES or not file.encoding.little_endian:
        return None
    length = _go_to_pixels(file, n_bytes)
    return None if length is None or length == _UNDEFINED_LENGTH else (file.stream.tell(), length)


def _go_to_pixels(file: DicomFile, n_bytes: int) -> int | None:
    """Length of the pixel data element, at whose value the stream is left; None if there is none."""
    here = file.stream.tell()
    length = _pixel_length(file)
    if length is None and file.random_access and _ends_with_pixels(file, n_bytes):
        return n_bytes + n_bytes % 2
    if length is None:
        file.stream.seek(here)
        _elements(file, _at_pixels, NO_TAGS)
        length = _pixel_length(file)
    return length


def _ends_with_pixels(file: DicomFile, n_bytes: int) -> bool:
    """Say if the file ends with a pixel data element of just this length: most do, which saves the way there."""
    length = n_bytes + n_bytes % 2
    prefix = 8 if file.encoding.implicit else 12
    file.stream.seek(max(0, file.stream.seek(0, os.SEEK_END) - length - prefix))
    return _pixel_length(file) == length


def _pixel_length(file: DicomFile) -> int | None:
    """Length of the pixel data element that the stream stands at, which is then left at its value; None at another."""
    prefix = 8 if file.encoding.implicit else 12
    found = file.stream.read(prefix)
    order: Literal["little", "big"] = "little" if file.encoding.little_endian else "big"
    tag = int.from_bytes(found[:2], order) << 16 | int.from_bytes(found[2:4], order)
    return int.from_bytes(found[-4:], order) if tag in PIXEL_TAGS and len(found) == prefix else None
