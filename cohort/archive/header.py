"""Reading single values out of a DICOM header that may be odd, damaged or hostile.

Values are decoded from the raw bytes of the few attributes that count, not through pydicom's typed elements: a wrong
value representation or a comma in a decimal string costs that one value, not the file, and nothing is warned about.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from warnings import catch_warnings, simplefilter

import numpy as np
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword

from cohort.errors import RefusedError
from cohort.geometry import Floats

HEADER_KEYWORDS: Final = (
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
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelSpacing",
    "BitsAllocated",
    "RescaleIntercept",
    "RescaleSlope",
)
"""All attributes that this project ever reads (PS3.6)."""

TAGS: Final[dict[str, int]] = {keyword: int(tag_for_keyword(keyword) or 0) for keyword in HEADER_KEYWORDS}

COSINE_TOLERANCE: Final = 0.02
"""Largest error of the length and of the right angle of the direction cosines; files with three decimals pass."""


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silence the warnings about non-conformant values while one file is read: thousands of files carry the same."""
    with catch_warnings():
        simplefilter("ignore")
        yield


def text(header: Dataset, keyword: str) -> str:
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


def _decoded(header: Dataset, keyword: str) -> str:
    try:
        return str(header[TAGS[keyword]].value)
    except Exception:  # whatever an unknown character set raises: the bytes themselves still identify
        raw = header.get_item(TAGS[keyword])
        return bytes(getattr(raw, "value", b"")).decode("latin-1")


def numbers(header: Dataset, keyword: str) -> tuple[float, ...]:
    """Finite numbers of a decimal or integer string; empty if missing or if any of them cannot be read."""
    parts = [part.strip() for part in text(header, keyword).split("\\")]
    try:
        values = tuple(float(part) for part in parts if part)
    except ValueError:
        return ()
    return values if all(math.isfinite(value) for value in values) else ()


def number(header: Dataset, keyword: str) -> float | None:
    """First number of a decimal or integer string, or None."""
    values = numbers(header, keyword)
    return values[0] if values else None


def positive(header: Dataset, keyword: str) -> float | None:
    """First number if above zero: scanners and anonymisers write 0 for unknown."""
    value = number(header, keyword)
    return value if value is not None and value > 0 else None


def unsigned_short(header: Dataset, keyword: str) -> int | None:
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


def slice_pose(
    *,
    position_mm: tuple[float, ...],
    orientation: tuple[float, ...],
    spacing_mm: tuple[float, ...],
    shape: tuple[int | None, int | None],
    thickness_mm: float | None,
) -> SlicePose:
    """Check the Image Plane module (PS3.3 C.7.6.2) of one slice and normalise its direction cosines.

    Raises
    ------
    RefusedError
        `no_geometry` if a value is missing, not a pair, triple or sextuple, or not a right-angled grid
    """
    rows, columns = shape
    counts = (len(position_mm), len(orientation), len(spacing_mm))
    if counts != (3, 6, 2) or not rows or not columns:
        raise RefusedError("no_geometry", f"{counts[0]} positions, {counts[1]} cosines, {counts[2]} spacings")
    if min(spacing_mm) <= 0:
        raise RefusedError("no_geometry", "pixel spacing is not positive")
    row, col = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = np.array([np.linalg.norm(row), np.linalg.norm(col)])
    if np.any(np.abs(lengths - 1) > COSINE_TOLERANCE) or abs(float(row @ col)) > COSINE_TOLERANCE:
        raise RefusedError("no_geometry", "direction cosines are not two unit vectors at a right angle")
    row_dir = row / lengths[0]
    col_dir = col - (col @ row_dir) * row_dir
    return SlicePose(
        position_mm=np.array(position_mm),
        row_dir=row_dir,
        col_dir=col_dir / np.linalg.norm(col_dir),
        spacing_mm=(spacing_mm[0], spacing_mm[1]),
        shape=(rows, columns),
        thickness_mm=thickness_mm,
    )


def header_pose(header: Dataset) -> SlicePose:
    """`slice_pose` of a header."""
    return slice_pose(
        position_mm=numbers(header, "ImagePositionPatient"),
        orientation=numbers(header, "ImageOrientationPatient"),
        spacing_mm=numbers(header, "PixelSpacing"),
        shape=(unsigned_short(header, "Rows"), unsigned_short(header, "Columns")),
        thickness_mm=positive(header, "SliceThickness"),
    )
