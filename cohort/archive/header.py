"""Reading single values out of a DICOM header that may be odd, damaged or hostile.

Values are decoded from the raw bytes of the few attributes that count, not through pydicom's typed elements: a wrong
value representation or a comma in a decimal string costs that one value, not the file, and nothing is warned about.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol
from warnings import catch_warnings, simplefilter

import numpy as np
from pydicom.charset import convert_encodings
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement, convert_raw_data_element

from cohort.errors import RefusedError
from cohort.geometry import Floats

HEADER_KEYWORDS: Final = (
    "SpecificCharacterSet",
    "ImageType",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyDate",
    "AccessionNumber",
    "Modality",
    "Manufacturer",
    "SeriesDescription",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "ContrastBolusAgent",
    "BodyPartExamined",
    "ScanningSequence",
    "ScanOptions",
    "SequenceName",
    "SliceThickness",
    "RepetitionTime",
    "EchoTime",
    "InversionTime",
    "MagneticFieldStrength",
    "EchoTrainLength",
    "ProtocolName",
    "FlipAngle",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "FrameOfReferenceUID",
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelSpacing",
    "BitsAllocated",
)
"""Attributes of a single-frame image that the scan reads (PS3.6)."""

META_KEYWORDS: Final = ("MediaStorageSOPClassUID", "TransferSyntaxUID")
"""Those of the file meta information."""

PIXEL_KEYWORDS: Final = (
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "RescaleIntercept",
    "RescaleSlope",
    "LossyImageCompression",
)
"""Those that are read together with the pixels."""

FRAME_KEYWORDS: Final = (
    "FrameType",
    "ComplexImageComponent",
    "EchoPulseSequence",
    "InversionRecovery",
    "EchoPlanarPulseSequence",
    "SpectrallySelectedSuppression",
    "SpectrallySelectedExcitation",
    "InversionTimes",
    "EffectiveEchoTime",
    "RFEchoTrainLength",
    "ContrastBolusAgentAdministered",
    "TemporalPositionIndex",
)
"""Those that only multi-frame images have, most of them in functional groups."""

TAGS: Final[dict[str, int]] = {
    keyword: int(tag_for_keyword(keyword) or 0)
    for keyword in (*HEADER_KEYWORDS, *META_KEYWORDS, *PIXEL_KEYWORDS, *FRAME_KEYWORDS)
}
_REPRESENTATIONS: Final[dict[str, str]] = {keyword: str(dictionary_VR(tag)) for keyword, tag in TAGS.items()}
_BINARY: Final = {"FD": "d", "FL": "f", "US": "H", "SS": "h", "UL": "I", "SL": "i"}
"""Value representations of binary numbers (PS3.5 6.2) and their codes in `struct`."""


class Elements(Protocol):
    """A `pydicom.Dataset`, or the raw elements of one."""

    def get_item(self, key: int, /) -> Any:
        """Element of a tag as it was read (`RawDataElement` or `DataElement`), or None."""


class RawElements(dict[int, Any]):
    """Raw elements by tag: what pydicom's parser yields, without the cost of a Dataset."""

    def get_item(self, key: int, /) -> Any:
        """Element of a tag, or None."""
        return self.get(key)


COSINE_TOLERANCE: Final = 0.02
"""Largest error of the length and of the right angle of the direction cosines; files with three decimals pass."""


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silence the warnings about non-conformant values while one file is read: thousands of files carry the same."""
    with catch_warnings():
        simplefilter("ignore")
        yield


def text(header: Elements, keyword: str) -> str:
    """Value as text without padding, all values of a multi-valued attribute joined by backslash; '' if missing."""
    element = header.get_item(TAGS[keyword])
    value: Any = None if element is None else element.value
    if isinstance(value, bytes):
        # The encoding matters for identifiers only, and those that are not ASCII take pydicom's decoder.
        decoded = value.decode("ascii") if value.isascii() else _decoded(header, keyword)
        return decoded.strip(" \0\t\r\n")
    if value is None:
        return ""
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return str(value).strip(" \0\t\r\n")
    return "\\".join(str(part).strip() for part in value)


def _decoded(header: Elements, keyword: str) -> str:
    """Text of an element in the character set that the header declares (PS3.3 C.12.1.1.2)."""
    element = header.get_item(TAGS[keyword])
    declared = header.get_item(TAGS["SpecificCharacterSet"])
    try:
        if isinstance(declared, RawDataElement):
            declared = convert_raw_data_element(declared)
        encodings = convert_encodings(None if declared is None else declared.value)
        return str(convert_raw_data_element(element, encoding=encodings).value)
    except Exception:  # whatever an unknown character set raises: the bytes themselves still identify
        return bytes(element.value).decode("latin-1")


def numbers(header: Elements, keyword: str) -> tuple[float, ...]:
    """Finite numbers of an attribute, text or binary; empty if missing or if any of them cannot be read."""
    element = header.get_item(TAGS[keyword])
    if element is None:
        return ()
    code = _BINARY.get(_representation(element, keyword))
    if code is not None and isinstance(element.value, bytes):
        return _unpacked(element, code)
    try:
        values = tuple(float(part) for part in text(header, keyword).split("\\") if part.strip())
    except ValueError:
        return ()
    return values if all(map(math.isfinite, values)) else ()


def _representation(element: Any, keyword: str) -> str:
    """Value representation of an element; that of the dictionary where the file does not say it."""
    said = element.VR
    return str(said) if said and said != "UN" else _REPRESENTATIONS[keyword]


def _unpacked(element: Any, code: str) -> tuple[float, ...]:
    """All binary numbers of a raw element; bytes left over are ignored."""
    order = "<" if element.is_little_endian else ">"
    whole = len(element.value) // struct.calcsize(code)
    values = struct.unpack_from(f"{order}{whole}{code}", element.value)
    return values if all(map(math.isfinite, values)) else ()


def number(header: Elements, keyword: str) -> float | None:
    """First number of a decimal or integer string, or None."""
    values = numbers(header, keyword)
    return values[0] if values else None


def integer(header: Elements, keyword: str) -> int | None:
    """First number of an integer string, or None; -2**31 to 2**31 - 1 (PS3.5 6.2, IS)."""
    value = number(header, keyword)
    return int(value) if value is not None and -(2**31) <= value < 2**31 else None


def positive(header: Elements, keyword: str) -> float | None:
    """First number if above zero: scanners and anonymisers write 0 for unknown."""
    value = number(header, keyword)
    return value if value is not None and value > 0 else None


def unsigned_short(header: Elements, keyword: str) -> int | None:
    """Value of an attribute of value representation US, or None."""
    element = header.get_item(TAGS[keyword])
    value: Any = None if element is None else element.value
    if isinstance(value, bytes):
        little_endian = bool(getattr(element, "is_little_endian", True))
        return int.from_bytes(value[:2], "little" if little_endian else "big") if len(value) >= 2 else None
    return value if isinstance(value, int) else None


@dataclass(frozen=True, eq=False)
class SlicePose:
    """Where one slice lies, and its grid."""

    position_mm: Floats
    """[3] centre of the first voxel, LPS mm (ImagePositionPatient)."""
    row_dir: Floats
    """[3] unit vector of increasing column index."""
    col_dir: Floats
    """[3] unit vector of increasing row index, at a right angle to `row_dir`."""
    spacing_mm: tuple[float, float]
    """(between rows, between columns)."""
    shape: tuple[int, int]
    """(rows, columns)."""
    thickness_mm: float | None
    """SliceThickness, if known."""

    @property
    def normal(self) -> Floats:
        """[3] row_dir x col_dir."""
        return np.cross(self.row_dir, self.col_dir)


def check_geometry(
    position_mm: Sequence[float], orientation: Sequence[float], spacing_mm: Sequence[float], shape: Sequence[int | None]
) -> None:
    """Check the Image Plane module (PS3.3 C.7.6.2) of one slice; parameters as of `slice_pose`.

    Raises
    ------
    RefusedError
        `no_geometry` if a value is missing, not a pair, triple or sextuple, or not a right-angled grid
    """
    counts = (len(position_mm), len(orientation), len(spacing_mm))
    if counts != (3, 6, 2) or not all(shape):
        raise RefusedError("no_geometry", f"{counts[0]} positions, {counts[1]} cosines, {counts[2]} spacings")
    if min(spacing_mm) <= 0:
        raise RefusedError("no_geometry", "pixel spacing is not positive")
    row, col = orientation[:3], orientation[3:]
    errors = (math.hypot(*row) - 1, math.hypot(*col) - 1, row[0] * col[0] + row[1] * col[1] + row[2] * col[2])
    if max(map(abs, errors)) > COSINE_TOLERANCE:
        raise RefusedError("no_geometry", "direction cosines are not two unit vectors at a right angle")


def slice_pose(
    *,
    position_mm: tuple[float, ...],
    orientation: tuple[float, ...],
    spacing_mm: tuple[float, ...],
    shape: tuple[int | None, int | None],
    thickness_mm: float | None,
) -> SlicePose:
    """Pose of one slice with its direction cosines normalised; RefusedError as of `check_geometry`."""
    check_geometry(position_mm, orientation, spacing_mm, shape)
    rows, columns = shape
    row, col = np.array(orientation[:3]), np.array(orientation[3:])
    row_dir = row / np.linalg.norm(row)
    col_dir = col - (col @ row_dir) * row_dir
    return SlicePose(
        position_mm=np.array(position_mm),
        row_dir=row_dir,
        col_dir=col_dir / np.linalg.norm(col_dir),
        spacing_mm=(spacing_mm[0], spacing_mm[1]),
        shape=(rows or 0, columns or 0),
        thickness_mm=thickness_mm,
    )


def header_pose(header: Elements) -> SlicePose:
    """`slice_pose` of a header."""
    return slice_pose(
        position_mm=numbers(header, "ImagePositionPatient"),
        orientation=numbers(header, "ImageOrientationPatient"),
        spacing_mm=numbers(header, "PixelSpacing"),
        shape=(unsigned_short(header, "Rows"), unsigned_short(header, "Columns")),
        thickness_mm=positive(header, "SliceThickness"),
    )
