"""Data sets of single-frame MR images: MR Image Storage (PS3.3 A.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, MRImageStorage
from pydicom.valuerep import format_number_as_ds

from models.geometry_suite.plane import THICKNESS_MM, ImagePlane
from models.geometry_suite.truth import Marker


@dataclass(frozen=True, eq=False)
class MarkedSlice:
    """One image: where it lies, its pixels and the markers in them."""

    plane: ImagePlane
    stored: npt.NDArray[Any]
    """[row, column]."""
    markers: tuple[Marker, ...]
    attributes: Mapping[str, Any]
    """DICOM keywords of this slice alone: rescale, echo time, ..."""


@dataclass(frozen=True)
class PixelFormat:
    """Image Pixel module (PS3.3 C.7.6.3) of all images of a case."""

    allocated: int = 16
    stored: int = 12
    signed: bool = False
    photometric: str = "MONOCHROME2"

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(f"{'i' if self.signed else 'u'}{self.allocated // 8}")


T1_SPIN_ECHO: Final[dict[str, Any]] = {
    "Modality": "MR",
    "Manufacturer": "PHANTOM",
    "ManufacturerModelName": "geometry suite",
    "ImageType": ["ORIGINAL", "PRIMARY", "M", "SE"],
    "ScanningSequence": "SE",
    "SequenceVariant": "SK",
    "ScanOptions": "",
    "MRAcquisitionType": "2D",
    "RepetitionTime": "550",
    "EchoTime": "11",
    "EchoTrainLength": "3",
    "FlipAngle": "90",
    "MagneticFieldStrength": "1.5",
    "ImagingFrequency": "63.87",
    "NumberOfAverages": "1",
    "PatientPosition": "HFS",
    "BodyPartExamined": "LSPINE",
}
"""What a lumbar T1 spin echo says of itself, so that a pipeline that selects series can choose the suite's."""

PERSON: Final[dict[str, Any]] = {
    "SpecificCharacterSet": "ISO_IR 192",
    "PatientName": "Suite^Geometry",
    "PatientSex": "M",
    "PatientAge": "045Y",
    "PatientSize": "1.75",
    "PatientWeight": "75",
    "StudyDate": "20200102",
    "StudyTime": "101500",
    "StudyID": "1",
    "StudyDescription": "MR LUMBAR SPINE",
    "PatientIdentityRemoved": "YES",
}


def decimals(values: tuple[float, ...]) -> list[str]:
    """Decimal Strings; the numbers went through `plane.as_written` before, so that nothing is lost here."""
    return [format_number_as_ds(value) for value in values]


def new_data_set(values: Mapping[str, Any], *, syntax: UID) -> Dataset:
    """Data set with meta information; a value None leaves its attribute out."""
    data_set = Dataset()
    for keyword, value in values.items():
        if value is not None:
            setattr(data_set, keyword, value)
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = syntax
    data_set.file_meta.MediaStorageSOPClassUID = values.get("SOPClassUID") or MRImageStorage
    data_set.file_meta.MediaStorageSOPInstanceUID = values.get("SOPInstanceUID") or "1.2.3"
    return data_set


def pixel_attributes(shape: tuple[int, int], pixels: PixelFormat) -> dict[str, Any]:
    """Image Pixel module but for the pixels."""
    return {
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": pixels.photometric,
        "Rows": shape[0],
        "Columns": shape[1],
        "BitsAllocated": pixels.allocated,
        "BitsStored": pixels.stored,
        "HighBit": pixels.stored - 1,
        "PixelRepresentation": int(pixels.signed),
    }


def classic_attributes(one: MarkedSlice, pixels: PixelFormat) -> dict[str, Any]:
    """Attributes of one slice, without identity."""
    plane = one.plane
    return {
        **T1_SPIN_ECHO,
        **PERSON,
        "SOPClassUID": MRImageStorage,
        "ImagePositionPatient": decimals(plane.position_mm),
        "ImageOrientationPatient": decimals((*plane.row_cosine, *plane.column_cosine)),
        "PixelSpacing": decimals(plane.spacing_mm),
        "SliceThickness": decimals((THICKNESS_MM,))[0],
        **pixel_attributes(plane.shape, pixels),
        **one.attributes,
    }
