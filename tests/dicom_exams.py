"""Real DICOM files for tests, written with pydicom."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from cohort.archive.source import FileSource, ImageSource

SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
STUDY = "1.2.826.0.1.3680043.8.498.1"
FRAME = "1.2.826.0.1.3680043.8.498.2"
SPIN_ECHO: dict[str, Any] = {"ScanningSequence": "SE", "RepetitionTime": "550", "EchoTime": "11"}


def sources(archive: Path, paths: Iterable[Path]) -> list[ImageSource]:
    """Single-frame files below an archive as conversion is given them."""
    return [ImageSource(FileSource(path.relative_to(archive).as_posix())) for path in paths]


def decimal(value: float) -> str:
    """Decimal String of at most 16 characters."""
    return f"{value:.9g}"


def write_slice(
    path: Path,
    pixels: npt.NDArray[Any],
    *,
    series: str,
    position: npt.ArrayLike = (0.0, 0.0, 0.0),
    orientation: npt.ArrayLike = SAGITTAL,
    spacing: tuple[float, float] = (0.7, 0.7),
    thickness: float | None = 4.0,
    **attributes: Any,
) -> Path:
    """Write one MR slice; attributes by keyword override, None removes."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = Dataset()
    header.file_meta = meta
    values: dict[str, Any] = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4",
        "SOPInstanceUID": generate_uid(),
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": series,
        "FrameOfReferenceUID": FRAME,
        "Modality": "MR",
        "ImageType": ["ORIGINAL", "PRIMARY", "M"],
        "PatientID": "1234",
        "ImagePositionPatient": [decimal(value) for value in np.asarray(position, dtype=float)],
        "ImageOrientationPatient": [decimal(value) for value in np.asarray(orientation, dtype=float)],
        "PixelSpacing": [decimal(value) for value in spacing],
        "SliceThickness": thickness,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        **SPIN_ECHO,
        **attributes,
    }
    for keyword, value in values.items():
        if value is not None:
            setattr(header, keyword, value)
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    meta.MediaStorageSOPInstanceUID = header.get("SOPInstanceUID", generate_uid())
    header.PixelData = pixels.astype("<i2" if pixels.dtype.kind == "i" else "<u2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    header.save_as(path, enforce_file_format=True)
    return path


def write_block(
    folder: Path,
    *,
    series: str,
    n: int,
    first: npt.ArrayLike = (0.0, 0.0, 0.0),
    orientation: npt.ArrayLike = SAGITTAL,
    gap: float = 4.0,
    shape: tuple[int, int] = (12, 10),
    **attributes: Any,
) -> list[Path]:
    """Write `n` parallel slices along +normal with random pixels, all different."""
    random = np.random.default_rng(crc32(f"{series} {n} {first}".encode()))
    cosines = np.asarray(orientation, dtype=float)
    normal = np.cross(cosines[:3], cosines[3:])
    return [
        write_slice(
            folder / f"{series}-{np.asarray(first, dtype=float)[2]:.0f}-{k}.dcm",
            random.integers(0, 4000, shape, dtype=np.uint16),
            series=series,
            position=np.asarray(first, dtype=float) + k * gap * normal,
            orientation=orientation,
            **attributes,
        )
        for k in range(n)
    ]
