"""What a header says of its image, as columns of `FileRow`, and what makes an image unusable.

Texts that identify or are free leave as pseudonyms and as words of closed vocabularies. What is the same for all files
of a series is worked out once per process: an archive repeats it hundreds of times.
"""

from __future__ import annotations

from datetime import date, datetime
from functools import lru_cache
from typing import Any, Final

from pydicom.pixels import get_decoder
from pydicom.uid import UID, RLELossless

from cohort.archive.header import (
    Elements,
    check_geometry,
    integer,
    number,
    numbers,
    positive,
    text,
    unsigned_short,
)
from cohort.archive.multiframe import FrameHeader
from cohort.archive.pseudonym import Pseudonyms
from cohort.archive.vocabulary import image_type_words, sequence_codes, sex_code, text_hints, vendor_name
from cohort.errors import RefusedError

Columns = dict[str, Any]
"""Names of `FileRow` fields -> values."""

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

_DESCRIPTIONS: Final = ("SeriesDescription", "ProtocolName", "SequenceName", "BodyPartExamined")
_LONGEST_DESCRIPTION: Final = 1024
"""Characters that are searched for words; DICOM allows 64 (PS3.5 6.2, LO)."""


def identity(header: Elements, pseudonyms: Pseudonyms) -> Columns:
    """Pseudonyms of study, patient, series, instance, frame of reference and accession number."""
    texts = tuple(
        text(header, keyword)
        for keyword in (
            "StudyInstanceUID",
            "PatientID",
            "IssuerOfPatientID",
            "SeriesInstanceUID",
            "FrameOfReferenceUID",
            "AccessionNumber",
        )
    )
    instance = text(header, "SOPInstanceUID")
    return _series_identity(pseudonyms, *texts) | (
        {"instance_id": pseudonyms.instance_id(instance)} if instance else {}
    )


@lru_cache(maxsize=1024)
def _series_identity(
    pseudonyms: Pseudonyms, study: str, patient: str, issuer: str, series: str, frame_of_reference: str, accession: str
) -> dict[str, str]:
    found: dict[str, str] = {}
    if study:
        found |= {"exam_id": pseudonyms.exam_id(study), "subject_id": pseudonyms.subject_of_exam(study)}
    if patient:
        found["subject_id"] = pseudonyms.subject_id(patient, issuer)
    if series:
        found["series_id"] = pseudonyms.series_id(series)
    if frame_of_reference:
        found["frame_of_reference_id"] = pseudonyms.frame_of_reference_id(frame_of_reference)
    if accession:
        found["accession_id"] = pseudonyms.accession_id(accession)
    return found


def require_mr_image(header: Elements, sop_class: str, *, has_preamble: bool) -> None:
    """Refuse what is not DICOM, not an image, or not MR; an MR image without image attributes is `truncated`."""
    has_image_attributes = unsigned_short(header, "Rows") is not None
    if not has_preamble and not sop_class and not has_image_attributes and not text(header, "StudyInstanceUID"):
        raise RefusedError("not_dicom", "no preamble and no known attribute")
    if not has_image_attributes and sop_class in (MR_IMAGE, *ENHANCED_MR):
        raise RefusedError("truncated", "the file ends before its image attributes")
    if sop_class in NON_IMAGE_CLASSES or not has_image_attributes:
        raise RefusedError("not_an_image", "no image attributes")
    if not _is_mr(header, sop_class):
        raise RefusedError("not_mr", "another modality")


def _is_mr(header: Elements, sop_class: str) -> bool:
    """Say if it is MR by Modality, else by the SOP class, else by attributes that only MR has."""
    modality = text(header, "Modality").upper()
    if modality:
        return modality == "MR"
    if sop_class:
        return sop_class.startswith(MR_IMAGE) and sop_class[len(MR_IMAGE) :][:1] in ("", ".")
    return any(number(header, keyword) is not None for keyword in ("RepetitionTime", "EchoTime"))


def image_columns(header: Elements) -> Columns:
    """What holds for all frames of an image: scanner, person, and its size in pixels."""
    return {
        "vendor": vendor_name(text(header, "Manufacturer")),
        "field_t": positive(header, "MagneticFieldStrength"),
        **_person(*(text(header, key) for key in ("PatientAge", "PatientBirthDate", "StudyDate", "PatientSex"))),
        "height_m": number(header, "PatientSize"),
        "weight_kg": number(header, "PatientWeight"),
        "rows": unsigned_short(header, "Rows"),
        "columns": unsigned_short(header, "Columns"),
    }


def slice_columns(header: Elements) -> Columns:
    """Acquisition and geometry of a single-frame image."""
    return {
        "repetition_time_ms": positive(header, "RepetitionTime"),
        "echo_time_ms": positive(header, "EchoTime"),
        "inversion_time_ms": positive(header, "InversionTime"),
        "flip_angle_deg": positive(header, "FlipAngle"),
        "echo_train_length": integer(header, "EchoTrainLength") or None,
        "acquisition_number": integer(header, "AcquisitionNumber"),
        "temporal_position": integer(header, "TemporalPositionIdentifier"),
        "scanning_sequence": sequence_codes(text(header, "ScanningSequence")),
        "thickness_mm": positive(header, "SliceThickness"),
        **_words(header, text(header, "ImageType")),
        **_grid(*(numbers(header, key) for key in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"))),
    }


def frame_columns(header: Elements, frame: FrameHeader) -> Columns:
    """Acquisition and geometry of one frame of the image."""
    return {
        "repetition_time_ms": frame.repetition_time_ms,
        "echo_time_ms": frame.echo_time_ms,
        "inversion_time_ms": frame.inversion_time_ms,
        "flip_angle_deg": frame.flip_angle_deg,
        "echo_train_length": frame.echo_train_length,
        "temporal_position": frame.temporal_position,
        "scanning_sequence": frame.scanning_sequence,
        "thickness_mm": frame.thickness_mm,
        **_words(header, frame.frame_type, contrast=frame.contrast_given, fat_suppressed=frame.fat_suppressed),
        **_grid(frame.position, frame.orientation, frame.spacing),
    }


def _words(header: Elements, image_type: str, *, contrast: bool = False, fat_suppressed: bool = False) -> Columns:
    agent, options = text(header, "ContrastBolusAgent"), text(header, "ScanOptions")
    descriptions = tuple(text(header, keyword)[:_LONGEST_DESCRIPTION] for keyword in _DESCRIPTIONS)
    return _known_words(
        descriptions, agent or "given" * contrast, f"{options}\\FS" if fat_suppressed else options, image_type
    )


@lru_cache(maxsize=1024)
def _known_words(descriptions: tuple[str, ...], agent: str, options: str, image_type: str) -> dict[str, str | None]:
    return {
        "text_hints": text_hints(descriptions, contrast_agent=agent, scan_options=options),
        "image_type": image_type_words(image_type),
    }


def _grid(position: tuple[float, ...], cosines: tuple[float, ...], spacing: tuple[float, ...]) -> Columns:
    return {
        "position_mm": list(position) if len(position) == 3 else None,
        "orientation": list(cosines) if len(cosines) == 6 else None,
        "row_spacing_mm": spacing[0] if len(spacing) == 2 else None,
        "column_spacing_mm": spacing[1] if len(spacing) == 2 else None,
    }


def require_usable_image(header: Elements, found: Columns, transfer_syntax: str) -> None:
    """Refuse an image without identity or whose pixels cannot be measured, whatever its geometry."""
    if not all(found.get(name) for name in ("exam_id", "series_id", "instance_id")):
        raise RefusedError("no_identity", "a UID is missing")
    grey = text(header, "PhotometricInterpretation") in ("MONOCHROME1", "MONOCHROME2", "")
    samples, bits = unsigned_short(header, "SamplesPerPixel"), unsigned_short(header, "BitsAllocated")
    if not grey or samples not in (1, None) or bits not in (8, 16):
        raise RefusedError("unsupported_pixels", f"{samples} samples of {bits} bits")
    if transfer_syntax and not is_decodable(transfer_syntax):
        raise RefusedError("unsupported_transfer_syntax", "no decoder")


def require_usable_slice(found: Columns) -> None:
    """Refuse a slice of several tiles, or without usable geometry."""
    if "MOSAIC" in (found["image_type"] or "").split("+"):
        raise RefusedError("mosaic", "tiles")
    spacing = [value for value in (found["row_spacing_mm"], found["column_spacing_mm"]) if value is not None]
    shape = (found["rows"], found["columns"])
    check_geometry(found["position_mm"] or (), found["orientation"] or (), spacing, shape)


@lru_cache(maxsize=64)
def is_decodable(transfer_syntax: str) -> bool:
    """Say if pixels of a transfer syntax can be decoded here: uncompressed ones, RLE, and what gdcm knows."""
    try:
        decoder = get_decoder(UID(transfer_syntax))
    except NotImplementedError:
        return False
    return not decoder.UID.is_encapsulated or decoder.UID == RLELossless or "gdcm" in decoder.available_plugins


@lru_cache(maxsize=1024)
def _person(age: str, birth: str, exam: str, sex: str) -> dict[str, Any]:
    years = parse_age_years(age)
    if years is None:
        years = years_between(birth, exam)
    return {"sex": sex_code(sex), "age_years": None if years is None else coarse_age_years(years)}


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
