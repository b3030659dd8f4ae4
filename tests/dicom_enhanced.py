"""Real Enhanced MR files for tests, written with pydicom."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from dicom_exams import SAGITTAL, decimal, write_slice
from pydicom import Dataset, dcmread

ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
_OF_SLICES = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "ScanningSequence",
    "RepetitionTime",
    "EchoTime",
)


def item(**attributes: Any) -> Dataset:
    """Data set of one sequence item."""
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def frame_group(position: npt.ArrayLike, *, echo_ms: float = 11.0, temporal_position: int = 1) -> Dataset:
    """Functional groups of one frame."""
    return item(
        FrameContentSequence=[item(TemporalPositionIndex=temporal_position)],
        PlanePositionSequence=[
            item(ImagePositionPatient=[decimal(value) for value in np.asarray(position, dtype=float)])
        ],
        MREchoSequence=[item(EffectiveEchoTime=echo_ms)],
    )


def shared_group(*, orientation: npt.ArrayLike = SAGITTAL, spacing: float = 0.7) -> Dataset:
    """Functional groups of all frames: a T1 spin echo."""
    return item(
        PlaneOrientationSequence=[
            item(ImageOrientationPatient=[decimal(value) for value in np.asarray(orientation, dtype=float)])
        ],
        PixelMeasuresSequence=[item(PixelSpacing=[decimal(spacing)] * 2, SliceThickness="4")],
        MRTimingAndRelatedParametersSequence=[item(RepetitionTime="550", FlipAngle="90")],
        MRImageFrameTypeSequence=[item(FrameType=["ORIGINAL", "PRIMARY", "M", "NONE"])],
    )


def write_enhanced(
    path: Path,
    pixels: npt.NDArray[np.uint16],
    frames: Sequence[Dataset],
    *,
    series: str,
    shared: Dataset | None = None,
    **attributes: Any,
) -> Path:
    """Write [frame, row, column] pixels with functional groups; attributes of the image by keyword, None removes."""
    write_slice(
        path,
        pixels[0],
        series=series,
        **{"SOPClassUID": ENHANCED_MR, "NumberOfFrames": len(frames), "EchoPulseSequence": "SPIN", **attributes},
    )
    image = dcmread(path)
    for keyword in _OF_SLICES:
        delattr(image, keyword)
    image.SharedFunctionalGroupsSequence = [shared_group() if shared is None else shared]
    image.PerFrameFunctionalGroupsSequence = list(frames)
    image.PixelData = pixels.astype("<u2").tobytes()
    image.save_as(path)
    return path
