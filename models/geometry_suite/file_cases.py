"""Cases of files: copies, damage, missing attributes, encodings, compressed archives.

Each function writes one case of its name; its docstring is the description in `truth.json`.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from pydicom import DataElement, Dataset
from pydicom.config import IGNORE
from pydicom.uid import (
    UID,
    BasicTextSRStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

from models.geometry_suite.classic import PixelFormat, new_data_set
from models.geometry_suite.encoding import COMPRESSED, set_pixels
from models.geometry_suite.geometry_cases import CaseWriter
from models.geometry_suite.plane import SAGITTAL, stack
from models.geometry_suite.study import Study

ENCODINGS: Final[dict[str, UID]] = {
    "implicit_little_endian": ImplicitVRLittleEndian,
    "explicit_big_endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    **COMPRESSED,
}


def encodings() -> dict[str, tuple[str, CaseWriter]]:
    """Single-frame files in each transfer syntax that loses nothing: name -> (description, writer)."""
    return {
        name: (f"Single-frame files in transfer syntax {syntax.name}.", _encoded(syntax))
        for name, syntax in ENCODINGS.items()
    }


def _encoded(syntax: UID) -> CaseWriter:
    def write(study: Study) -> None:
        study.classic(study.mark(stack(SAGITTAL)), syntax=syntax)

    return write


def mixed_encodings(study: Study) -> None:
    """One series whose slices were stored in different transfer syntaxes."""
    syntaxes = [ExplicitVRLittleEndian, *ENCODINGS.values()]
    study.classic(study.mark(stack(SAGITTAL, n=len(syntaxes))), each=[{"syntax": syntax} for syntax in syntaxes])


def fragments(study: Study) -> None:
    """JPEG 2000 code streams cut into three fragments each, without offset table."""
    study.classic(study.mark(stack(SAGITTAL)), syntax=COMPRESSED["jpeg_2000"], fragments=3)


# -- pixels ------------------------------------------------------------------------------------------------------------


def signed_pixels(study: Study) -> None:
    """Signed pixels on a background of -200."""
    study.pixels, study.background = PixelFormat(stored=16, signed=True), -200
    study.classic(study.mark(stack(SAGITTAL)))


def sixteen_bit(study: Study) -> None:
    """Unsigned pixels that use all 16 bits."""
    study.pixels = PixelFormat(stored=16)
    study.classic(study.mark(stack(SAGITTAL)))


def eight_bit(study: Study) -> None:
    """Pixels of 8 bits."""
    study.pixels = PixelFormat(allocated=8, stored=8)
    study.classic(study.mark(stack(SAGITTAL)))


def monochrome1(study: Study) -> None:
    """MONOCHROME1: small values are bright."""
    study.pixels, study.background = PixelFormat(photometric="MONOCHROME1"), 100
    study.classic(study.mark(stack(SAGITTAL)))


def unused_bits(study: Study) -> None:
    """12 bits stored; the four bits above them hold an old overlay, which is no part of the value (PS3.5 8.1.1)."""
    for name in study.classic(study.mark(stack(SAGITTAL))):
        data_set = study.read(name)
        raw = np.frombuffer(data_set.PixelData, "<u2").copy()
        raw[::5] |= 0xA000
        data_set.PixelData = raw.tobytes()
        study.rewrite(name, data_set)


# -- copies ------------------------------------------------------------------------------------------------------------


def copies_same_uid(study: Study) -> None:
    """Two slices are there twice, with the same SOPInstanceUID."""
    names = study.classic(study.mark(stack(SAGITTAL)))
    study.copy(names[1])
    study.copy(names[4])


def copies_new_uid(study: Study) -> None:
    """All slices are there twice, the copies with a SOPInstanceUID of their own."""
    for k, name in enumerate(study.classic(study.mark(stack(SAGITTAL)))):
        data_set = study.read(name)
        data_set.SOPInstanceUID = data_set.file_meta.MediaStorageSOPInstanceUID = study.uid("copy", k)
        study.copy(name, data_set)


def copies_in_another_encoding(study: Study) -> None:
    """A copy of each slice in another folder, compressed, with the same SOPInstanceUID."""
    slices = study.mark(stack(SAGITTAL))
    for name, one in zip(study.classic(slices), slices, strict=True):
        data_set = study.read(name)
        data_set.file_meta.TransferSyntaxUID = COMPRESSED["jpeg_ls"]
        set_pixels(data_set, [one.stored])
        study.copy(name, data_set, folder="archive")


def several_folders(study: Study) -> None:
    """One series in three folders, and another one (T2) of the same SeriesNumber in one of them."""
    study.classic(study.mark(stack(SAGITTAL)), each=[{"folder": f"f{k % 3}"} for k in range(7)])
    t2: dict[str, Any] = {"SeriesNumber": 1, "SeriesDescription": "T2 TSE", "RepetitionTime": "3500", "EchoTime": "100"}
    study.classic(study.mark(stack(SAGITTAL, n=5, centre_mm=(0, 0, 60))), series=2, folder="f0", **t2)


# -- damage and missing attributes -------------------------------------------------------------------------------------


def truncated(study: Study) -> None:
    """One inner slice ends in the middle of its pixel data."""
    names = study.classic(study.mark(stack(SAGITTAL)))
    study.replace_content(names[3], study.content(names[3])[:-768])
    study.refuse(names[3], "truncated", placed=True)


def truncated_at_the_end(study: Study) -> None:
    """The last slice lacks the last two bytes."""
    names = study.classic(study.mark(stack(SAGITTAL)))
    study.replace_content(names[6], study.content(names[6])[:-2])
    study.refuse(names[6], "truncated", placed=True)


def truncated_code_stream(study: Study) -> None:
    """One slice, JPEG lossless, ends in the middle of its code stream."""
    names = study.classic(study.mark(stack(SAGITTAL)), syntax=COMPRESSED["jpeg_lossless_sv1"])
    study.replace_content(names[3], study.content(names[3])[:-60])
    study.refuse(names[3], "truncated", placed=True)


def truncated_header(study: Study) -> None:
    """One file ends within its header, another is empty."""
    names = study.classic(study.mark(stack(SAGITTAL)))
    study.replace_content(names[2], study.content(names[2])[:500])
    study.replace_content(names[5], b"")
    study.refuse(names[2], "truncated", placed=True)
    study.refuse(names[5], "not_dicom", placed=True)


def enhanced_truncated(study: Study) -> None:
    """Enhanced MR: the file ends in the middle of its frames."""
    name = study.multiframe(study.mark(stack(SAGITTAL)))
    study.replace_content(name, study.content(name)[: -3 * 32 * 24 * 2])
    study.refuse(name, "truncated", placed=True)


def position_missing(study: Study) -> None:
    """One slice has no ImagePositionPatient."""
    _without_attribute(study, "ImagePositionPatient")


def orientation_missing(study: Study) -> None:
    """One slice has no ImageOrientationPatient."""
    _without_attribute(study, "ImageOrientationPatient")


def pixel_spacing_missing(study: Study) -> None:
    """One slice has no PixelSpacing."""
    _without_attribute(study, "PixelSpacing")


def orientation_degenerate(study: Study) -> None:
    """One slice has direction cosines that are all 0."""
    _with_value(study, "ImageOrientationPatient", ["0"] * 6)


def orientation_not_at_right_angles(study: Study) -> None:
    """One slice has row and column directions 60 degrees apart."""
    _with_value(study, "ImageOrientationPatient", ["0", "1", "0", "0", "0.5", "-0.8660254"])


def position_is_not_a_number(study: Study) -> None:
    """One slice has a position that is no number."""
    _with_value(study, "ImagePositionPatient", ["NaN", "NaN", "NaN"])


def uid_missing(study: Study) -> None:
    """One slice has no SOPInstanceUID."""
    names = study.classic(study.mark(stack(SAGITTAL)))
    data_set = study.read(names[3])
    del data_set.SOPInstanceUID
    study.rewrite(names[3], data_set)
    study.refuse(names[3], "no_identity", placed=True)


def mosaic(study: Study) -> None:
    """Nine slices tiled into one image, without vendor attributes: a plain series beside it can be used."""
    (tiles,) = study.mark(stack(SAGITTAL, n=1, shape=(96, 72)), ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"])
    (name,) = study.classic([tiles], series=2, expected=False)
    study.refuse(name, "mosaic", placed=False)
    study.classic(study.mark(stack(SAGITTAL)))


def colour(study: Study) -> None:
    """A colour image among the slices."""
    study.classic(study.mark(stack(SAGITTAL)))
    (one,) = study.mark(stack(SAGITTAL, n=1))
    (name,) = study.classic([one], series=2, expected=False)
    data_set = study.read(name)
    data_set.SamplesPerPixel, data_set.PhotometricInterpretation, data_set.PlanarConfiguration = 3, "RGB", 0
    data_set.BitsAllocated, data_set.BitsStored, data_set.HighBit = 8, 8, 7
    data_set.PixelData = np.repeat((one.stored // 16).astype(np.uint8), 3).tobytes()
    study.rewrite(name, data_set, marked=False)
    study.refuse(name, "unsupported_pixels", placed=True)


def other_objects(study: Study) -> None:
    """A text report, an image of another modality, a text file and a picture beside the slices."""
    study.classic(study.mark(stack(SAGITTAL)))
    (one,) = study.mark(stack(SAGITTAL, n=1))
    (name,) = study.classic([one], series=3, expected=False, Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    study.refuse(name, "not_mr", placed=True)
    study.refuse(study.save(_report(study)), "not_an_image", placed=True)
    study.refuse(study.add_file(b"Findings: none.\n", "README.txt"), "not_dicom", placed=True)
    study.refuse(study.add_file(b"\x89PNG\r\n\x1a\n" + bytes(200), "key.png"), "not_dicom", placed=True)


def secondary_capture(study: Study) -> None:
    """A screenshot (Secondary Capture) without geometry in the study."""
    study.classic(study.mark(stack(SAGITTAL)))
    (one,) = study.mark(stack(SAGITTAL, n=1))
    gone: dict[str, Any] = dict.fromkeys(
        ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "FrameOfReferenceUID")
    )
    (name,) = study.classic([one], series=3, expected=False, SOPClassUID=SecondaryCaptureImageStorage, **gone)
    study.refuse(name, "no_geometry", placed=False)


def stripped_headers(study: Study) -> None:
    """Single-frame slices without Modality, SOPClassUID, Manufacturer and times; meta information says Enhanced MR."""
    gone: dict[str, Any] = dict.fromkeys(
        "Modality SOPClassUID Manufacturer ManufacturerModelName ImageType ScanningSequence SequenceVariant "
        "ScanOptions MRAcquisitionType RepetitionTime EchoTime EchoTrainLength FlipAngle MagneticFieldStrength".split()
    )
    for name in study.classic(study.mark(stack(SAGITTAL)), SeriesDescription="T1_TSE_SAG", **gone):
        data_set = study.read(name)
        data_set.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
        study.rewrite(name, data_set)


def without_preamble(study: Study) -> None:
    """Files without preamble and meta information, implicit little endian."""
    for name in study.classic(study.mark(stack(SAGITTAL)), syntax=ImplicitVRLittleEndian):
        data_set = study.read(name)
        del data_set.file_meta
        study.rewrite(name, data_set, plain=True)


# -- compressed files --------------------------------------------------------------------------------------------------


def gzip_files(study: Study) -> None:
    """Each file compressed with gzip."""
    for name in study.classic(study.mark(stack(SAGITTAL))):
        study.gzip(name)


def zip_archive(study: Study) -> None:
    """The study in one .zip file."""
    study.zip(study.classic(study.mark(stack(SAGITTAL))), "study.zip")


def zip_and_files(study: Study) -> None:
    """Four slices in a .zip file, three beside it."""
    study.zip(study.classic(study.mark(stack(SAGITTAL)))[:4], "part.zip")


def damaged_archives(study: Study) -> None:
    """A .zip and a .gz that cannot be unpacked beside usable slices."""
    study.classic(study.mark(stack(SAGITTAL)))
    for name, content in (
        ("more.zip", b"PK\x03\x04" + bytes(range(200))),
        ("more.gz", b"\x1f\x8b\x08" + bytes(range(200))),
    ):
        study.refuse(study.add_file(content, name), "damaged_container", placed=True)


def _without_attribute(study: Study, keyword: str) -> None:
    names = study.classic(study.mark(stack(SAGITTAL)))
    data_set = study.read(names[3])
    del data_set[keyword]
    study.rewrite(names[3], data_set)
    study.refuse(names[3], "no_geometry", placed=False)


def _with_value(study: Study, keyword: str, value: list[str]) -> None:
    names = study.classic(study.mark(stack(SAGITTAL)))
    data_set = study.read(names[3])
    data_set[keyword] = DataElement(keyword, "DS", value, validation_mode=IGNORE)
    study.rewrite(names[3], data_set)
    study.refuse(names[3], "no_geometry", placed=False)


def _report(study: Study) -> Dataset:
    values = {
        "SOPClassUID": BasicTextSRStorage,
        "SOPInstanceUID": study.uid("report"),
        "StudyInstanceUID": study.uid("study"),
        "SeriesInstanceUID": study.uid("series", 8),
        "PatientID": study.name,
        "Modality": "SR",
        "ContentSequence": [],
    }
    return new_data_set(values, syntax=ExplicitVRLittleEndian)


FILE_CASES: Final[tuple[CaseWriter, ...]] = (
    mixed_encodings,
    fragments,
    signed_pixels,
    sixteen_bit,
    eight_bit,
    monochrome1,
    unused_bits,
    copies_same_uid,
    copies_new_uid,
    copies_in_another_encoding,
    several_folders,
    truncated,
    truncated_at_the_end,
    truncated_code_stream,
    truncated_header,
    enhanced_truncated,
    position_missing,
    orientation_missing,
    pixel_spacing_missing,
    orientation_degenerate,
    orientation_not_at_right_angles,
    position_is_not_a_number,
    uid_missing,
    mosaic,
    colour,
    other_objects,
    secondary_capture,
    stripped_headers,
    without_preamble,
    gzip_files,
    zip_archive,
    zip_and_files,
    damaged_archives,
)
