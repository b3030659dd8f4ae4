"""Walk an archive and turn every file into one row: usable, or with the reason why not.

Only headers are read: the file is left at its pixel data, whose length is compared with what is left of the file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

from pydicom import Dataset, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian

from cohort.archive.header import (
    TAGS,
    header_pose,
    number,
    numbers,
    positive,
    quiet_pydicom,
    text,
    unsigned_short,
)
from cohort.archive.pseudonym import Pseudonyms
from cohort.archive.vocabulary import image_type_words, sequence_codes, sex_code, text_hints, vendor_name
from cohort.errors import RefusedError
from cohort.rows import FileRow

MR_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR: Final = (f"{MR_IMAGE}.1", f"{MR_IMAGE}.3", f"{MR_IMAGE}.4")
"""Enhanced MR, Enhanced MR Colour and Legacy Converted Enhanced MR Image Storage (PS3.4 B.5)."""
NON_IMAGE_CLASSES: Final = (f"{MR_IMAGE}.2", "1.2.840.10008.1.3.10", "1.2.840.10008.5.1.4.1.1.66")
"""MR Spectroscopy, DICOMDIR and Raw Data."""

OLDEST_AGE_KEPT_YEARS: Final = 89
AGE_OF_THE_OLDEST_YEARS: Final = 90.0
"""Ages over 89 identify; HIPAA's safe harbour (45 CFR 164.514(b)(2)) puts them into one class."""
OLDEST_PLAUSIBLE_AGE_YEARS: Final = 120
PLACEHOLDER_BIRTH_DATE: Final = date(1900, 1, 1)

_FIRST_GROUPS: Final = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")
"""First bytes of files without preamble: group 0002 or 0008 in either byte order."""


def list_files(root: Path) -> Iterator[tuple[str, int, int]]:
    """List every file below `root` as (path relative to it, size in bytes, mtime in ns), in sorted order.

    Linked directories are followed once, loops end. A directory that cannot be listed and an entry that cannot be
    examined are listed themselves with size and time 0: `read_file_row` makes an `unreadable` row of them.
    """
    yield from _walk(os.fspath(root), "", set())


def _walk(directory: str, relative: str, seen: set[tuple[int, int]]) -> Iterator[tuple[str, int, int]]:
    try:
        identity = os.stat(directory)
        if (identity.st_dev, identity.st_ino) in seen:
            return
        seen.add((identity.st_dev, identity.st_ino))
        with os.scandir(directory) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError:
        yield relative or ".", 0, 0
        return
    for entry in entries:
        path = f"{relative}/{entry.name}" if relative else entry.name
        try:
            is_directory = entry.is_dir()
            status = None if is_directory else entry.stat()
        except OSError:
            status, is_directory = None, False
        if is_directory:
            yield from _walk(entry.path, path, seen)
        else:
            yield (path, status.st_size, status.st_mtime_ns) if status else (path, 0, 0)


def read_file_row(root: Path, relative: str, size_bytes: int, mtime_ns: int, pseudonyms: Pseudonyms) -> FileRow:
    """Read the header of one file into its row.

    Never raises for what is in a file: each ends as a usable row or as one with a reason of
    `cohort.reasons.FILE_REASONS`. `content_sha256` is left empty; only files of a chosen series need it.

    Parameters
    ----------
    root, relative, size_bytes, mtime_ns : as given by `list_files`
    pseudonyms : hashes identifiers before they reach the row
    """
    found: dict[str, Any] = {}
    reason: str | None = None
    try:
        _read_into(found, os.path.join(root, relative), pseudonyms)
    except RefusedError as error:
        reason = error.reason
    except OSError:
        reason = "unreadable"
    except Exception:
        # pydicom raises a dozen kinds of exception, and plain Python ones, on damaged headers. The file is not lost:
        # its row says so.
        reason = "damaged_header"
    return FileRow(
        file_id=pseudonyms.file_id(relative), size_bytes=size_bytes, mtime_ns=mtime_ns, reason=reason, **found
    )


def _read_into(found: dict[str, Any], path: str, pseudonyms: Pseudonyms) -> None:
    """Fill `found` with what can be said of the file, and raise RefusedError if that is not enough."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for ever
        raise RefusedError("unreadable", "not a regular file")
    with open(path, "rb") as stream:
        has_preamble = _has_preamble(stream)
        with quiet_pydicom():
            header = dcmread(stream, force=True, stop_before_pixels=True, specific_tags=list(TAGS.values()))
            found |= _identity(header, pseudonyms)
            _require_mr_image(header, has_preamble=has_preamble)
            found |= _acquisition(header) | _person(header) | _grid(header)
            _require_usable(header, found)
            _require_complete(header, stream)


def _has_preamble(stream: BinaryIO) -> bool:
    start = stream.read(132)
    stream.seek(0)
    if start[128:] == b"DICM":
        return True
    if start[:2] not in _FIRST_GROUPS:
        raise RefusedError("not_dicom", "neither a preamble nor a first element of group 0002 or 0008")
    return False


def _identity(header: Dataset, pseudonyms: Pseudonyms) -> dict[str, Any]:
    study, patient = text(header, "StudyInstanceUID"), text(header, "PatientID")
    named = (
        ("series_id", "SeriesInstanceUID", pseudonyms.series_id),
        ("instance_id", "SOPInstanceUID", pseudonyms.instance_id),
        ("frame_of_reference_id", "FrameOfReferenceUID", pseudonyms.frame_of_reference_id),
        ("accession_id", "AccessionNumber", pseudonyms.accession_id),
    )
    found: dict[str, Any] = {name: hashed(uid) for name, key, hashed in named if (uid := text(header, key))}
    if study:
        found["exam_id"] = pseudonyms.exam_id(study)
        found["subject_id"] = pseudonyms.subject_of_exam(study)
    if patient:
        found["subject_id"] = pseudonyms.subject_id(patient, text(header, "IssuerOfPatientID"))
    return found


def _require_mr_image(header: Dataset, *, has_preamble: bool) -> None:
    meta = getattr(header, "file_meta", Dataset())
    sop_class = text(header, "SOPClassUID") or str(meta.get("MediaStorageSOPClassUID", ""))
    has_pixels_attributes = unsigned_short(header, "Rows") is not None
    if not has_preamble and not sop_class and not has_pixels_attributes and not text(header, "StudyInstanceUID"):
        raise RefusedError("not_dicom", "no preamble and no known attribute")
    if sop_class in NON_IMAGE_CLASSES or not has_pixels_attributes:
        raise RefusedError("not_an_image", "no image attributes")
    if not _is_mr(header, sop_class):
        raise RefusedError("not_mr", "another modality")
    if sop_class in ENHANCED_MR or (number(header, "NumberOfFrames") or 1) > 1:
        raise RefusedError("enhanced_unsupported", "several frames in one file")


def _is_mr(header: Dataset, sop_class: str) -> bool:
    """Say if it is MR by Modality, else by the SOP class, else by attributes that only MR has."""
    modality = text(header, "Modality").upper()
    if modality:
        return modality == "MR"
    if sop_class:
        return sop_class.startswith(MR_IMAGE) and sop_class[len(MR_IMAGE) :][:1] in ("", ".")
    return any(number(header, keyword) is not None for keyword in ("RepetitionTime", "EchoTime"))


def _acquisition(header: Dataset) -> dict[str, Any]:
    described = ("SeriesDescription", "ProtocolName", "SequenceName", "BodyPartExamined")
    echo_train = positive(header, "EchoTrainLength")
    return {
        "repetition_time_ms": positive(header, "RepetitionTime"),
        "echo_time_ms": positive(header, "EchoTime"),
        "inversion_time_ms": positive(header, "InversionTime"),
        "flip_angle_deg": positive(header, "FlipAngle"),
        "echo_train_length": None if echo_train is None else int(echo_train),
        "scanning_sequence": sequence_codes(text(header, "ScanningSequence")),
        "image_type": image_type_words(text(header, "ImageType")),
        "text_hints": text_hints(
            [text(header, keyword) for keyword in described],
            contrast_agent=text(header, "ContrastBolusAgent"),
            scan_options=text(header, "ScanOptions"),
        ),
        "vendor": vendor_name(text(header, "Manufacturer")),
        "field_t": positive(header, "MagneticFieldStrength"),
    }


def _person(header: Dataset) -> dict[str, Any]:
    age = parse_age_years(text(header, "PatientAge"))
    if age is None:
        age = years_between(text(header, "PatientBirthDate"), text(header, "StudyDate"))
    return {
        "sex": sex_code(text(header, "PatientSex")),
        "age_years": None if age is None else coarse_age_years(age),
        "height_m": positive(header, "PatientSize"),
        "weight_kg": positive(header, "PatientWeight"),
    }


def parse_age_years(age: str) -> float | None:
    """Years of an Age String such as 045Y, 018M, 010W or 003D (PS3.5 6.2); None if it is not one."""
    per_year = {"Y": 1.0, "M": 12.0, "W": 52.1775, "D": 365.2425}.get(age[-1:].upper())
    if per_year is None or not age[:-1].strip().isdecimal():
        return None
    return round(int(age[:-1]) / per_year, 2)


def years_between(birth: str, exam: str) -> float | None:
    """Whole years from a DICOM date of birth (YYYYMMDD) to an exam's; None if either is no true date.

    Anonymisers write the date of the exam, or the first of January 1900, for an unknown birth date.
    """
    born, examined = _day(birth), _day(exam)
    if born is None or examined is None or born >= examined or born == PLACEHOLDER_BIRTH_DATE:
        return None
    return float(int((examined - born).days / 365.2425))


def _day(text_date: str) -> date | None:
    try:
        return datetime.strptime(text_date.replace(".", ""), "%Y%m%d").date()  # ACR-NEMA wrote YYYY.MM.DD
    except ValueError:
        return None


def coarse_age_years(age: float) -> float:
    """Put ages over 89 into one class; what no person reaches is left for `demographics` to report."""
    return AGE_OF_THE_OLDEST_YEARS if OLDEST_AGE_KEPT_YEARS < age <= OLDEST_PLAUSIBLE_AGE_YEARS else age


def _grid(header: Dataset) -> dict[str, Any]:
    position, cosines = numbers(header, "ImagePositionPatient"), numbers(header, "ImageOrientationPatient")
    spacing = numbers(header, "PixelSpacing")
    return {
        "position_mm": list(position) if len(position) == 3 else None,
        "orientation": list(cosines) if len(cosines) == 6 else None,
        "row_spacing_mm": spacing[0] if len(spacing) == 2 else None,
        "column_spacing_mm": spacing[1] if len(spacing) == 2 else None,
        "rows": unsigned_short(header, "Rows"),
        "columns": unsigned_short(header, "Columns"),
        "thickness_mm": positive(header, "SliceThickness"),
    }


def _require_usable(header: Dataset, found: dict[str, Any]) -> None:
    if not all(found.get(name) for name in ("exam_id", "series_id", "instance_id")):
        raise RefusedError("no_identity", "a UID is missing")
    photometric = text(header, "PhotometricInterpretation")
    grey = photometric in ("MONOCHROME1", "MONOCHROME2", "")
    samples, bits = unsigned_short(header, "SamplesPerPixel"), unsigned_short(header, "BitsAllocated")
    if not grey or samples not in (1, None) or bits not in (8, 16) or "MOSAIC" in (found["image_type"] or ""):
        raise RefusedError("unsupported_pixels", f"{samples} samples of {bits} bits")
    header_pose(header)


def _require_complete(header: Dataset, stream: BinaryIO) -> None:
    """Compare the pixel data element that the stream stands at with the rest of the file.

    Uncompressed pixels must all be there; of compressed ones only the presence of the element is checked, since their
    length is known to the decoder alone.
    """
    syntax = getattr(header, "file_meta", Dataset()).get("TransferSyntaxUID", "")
    if syntax == DeflatedExplicitVRLittleEndian:
        return  # the stream is at the end of the deflated data
    implicit, little_endian = header.original_encoding
    start = stream.read(12)
    if len(start) < 12:
        raise RefusedError("truncated", "the file ends before its pixel data")
    length = int.from_bytes(start[4:8] if implicit else start[8:12], "little" if little_endian else "big")
    if length == 0xFFFFFFFF:
        return  # encapsulated
    left = os.fstat(stream.fileno()).st_size - stream.tell() + (4 if implicit else 0)
    bits = unsigned_short(header, "BitsAllocated") or 16
    pixels = (unsigned_short(header, "Rows") or 0) * (unsigned_short(header, "Columns") or 0)
    if min(left, length) < pixels * bits // 8:
        raise RefusedError("truncated", f"{min(left, length)} bytes for {pixels} pixels of {bits} bits")
