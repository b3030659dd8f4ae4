"""Headers of the frames of a multi-frame MR image, out of its functional groups.

An Enhanced MR image (PS3.3 A.36, C.8.13) holds many slices in one object. What differs from frame to frame stands in
the Per-Frame Functional Groups Sequence, what is common in the Shared one (PS3.3 C.7.6.16); images converted from
single-frame ones (Legacy Converted Enhanced MR, A.70) keep the rest as unassigned attributes of both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword

from cohort.archive.header import Elements, RawElements, integer, number, numbers, positive, text
from cohort.archive.vocabulary import sequence_codes
from cohort.errors import RefusedError

GROUP_KEYWORDS: Final = (
    "MRTimingAndRelatedParametersSequence",
    "MREchoSequence",
    "MRModifierSequence",
    "MRImageFrameTypeSequence",
    "ContrastBolusUsageSequence",
    "FrameContentSequence",
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "UnassignedSharedConvertedAttributesSequence",
    "UnassignedPerFrameConvertedAttributesSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
)
"""Functional groups that are read; no attribute that counts here is in two of them."""
SHARED_GROUPS: Final = "SharedFunctionalGroupsSequence"
FRAME_GROUPS: Final = "PerFrameFunctionalGroupsSequence"
CONTRAST_AGENT: Final = "ContrastBolusAgentSequence"

SEQUENCE_TAGS: Final[dict[str, int]] = {
    keyword: int(tag_for_keyword(keyword) or 0)
    for keyword in (*GROUP_KEYWORDS, SHARED_GROUPS, FRAME_GROUPS, CONTRAST_AGENT)
}

ECHO_CODES: Final = {"SPIN": "SE", "GRADIENT": "GR", "BOTH": "SE\\GR"}
"""EchoPulseSequence (PS3.3 C.8.13.4) -> ScanningSequence of single-frame images."""


@dataclass(frozen=True)
class FrameHeader:
    """Attributes of one frame. A tuple is empty and a number is None where the file does not say them."""

    position: tuple[float, ...] = ()
    """[3] ImagePositionPatient: centre of the first voxel, LPS mm."""
    orientation: tuple[float, ...] = ()
    """[6] ImageOrientationPatient: cosines of the row, then of the column."""
    spacing: tuple[float, ...] = ()
    """[2] PixelSpacing, mm (between rows, between columns)."""
    thickness_mm: float | None = None
    repetition_time_ms: float | None = None
    echo_time_ms: float | None = None
    """EffectiveEchoTime."""
    inversion_time_ms: float | None = None
    """The first of InversionTimes."""
    flip_angle_deg: float | None = None
    echo_train_length: int | None = None
    frame_type: str = ""
    """FrameType joined by backslash; PHASE, REAL or IMAGINARY is added where ComplexImageComponent says so."""
    temporal_position: int | None = None
    """TemporalPositionIndex."""
    rescale_slope: float | None = None
    rescale_intercept: float | None = None
    scanning_sequence: str | None = None
    """Codes of ScanningSequence joined by '+', translated from EchoPulseSequence and its like."""
    fat_suppressed: bool = False
    """Fat is saturated (SpectrallySelectedSuppression) or water alone is excited (SpectrallySelectedExcitation)."""
    contrast_given: bool = False
    """A contrast agent was given before this frame; where frames do not say, the image lists one in a sequence."""


def is_multiframe(data_set: Dataset) -> bool:
    """Say if there are functional groups of frames and a number of frames; plain geometry of one slice is neither.

    Call it, and `frame_headers`, within `cohort.archive.header.quiet_pydicom`.
    """
    return number(data_set, "NumberOfFrames") is not None and bool(_items(data_set, FRAME_GROUPS))


def frame_headers(data_set: Dataset) -> list[FrameHeader]:
    """Headers of all frames in stored order: what the frame says, else what all share, else what the image says.

    The position alone is never taken from the image where it has several frames: all would lie at one place.

    Raises
    ------
    RefusedError
        `damaged_header` if there are not as many functional groups as frames
    """
    groups, n_frames = _items(data_set, FRAME_GROUPS), number(data_set, "NumberOfFrames")
    if n_frames != len(groups):
        raise RefusedError("damaged_header", f"{n_frames} frames, {len(groups)} functional groups")
    common = _of_image(data_set)
    if len(groups) > 1:
        common = replace(common, position=())
    for shared in _items(data_set, SHARED_GROUPS)[:1]:
        common = _read(_merged(shared), common)
    return [_read(_merged(group), common) for group in groups]


def _items(data_set: Dataset, keyword: str) -> list[Dataset]:
    """Items of a sequence; none where it is missing, or where its bytes are not a sequence."""
    tag = SEQUENCE_TAGS[keyword]
    if tag not in data_set:
        return []
    try:
        return [item for item in data_set[tag].value if isinstance(item, Dataset)]
    except Exception:  # pydicom raises a dozen kinds of exception on damaged sequences
        return []


def _merged(groups: Dataset) -> RawElements:
    """Elements of all functional groups of one frame."""
    return RawElements(
        (int(tag), item.get_item(tag))
        for keyword in GROUP_KEYWORDS
        for item in _items(groups, keyword)[:1]
        for tag in item.keys()
    )


def _of_image(data_set: Dataset) -> FrameHeader:
    """Attributes of the image as a whole, under the names that single-frame images give them too."""
    image = FrameHeader(
        frame_type=text(data_set, "ImageType"),
        temporal_position=integer(data_set, "TemporalPositionIdentifier"),
        scanning_sequence=sequence_codes(text(data_set, "ScanningSequence")),
        contrast_given=any(len(agent) for agent in _items(data_set, CONTRAST_AGENT)),
    )
    return _read(data_set, image)


def _read(elements: Elements, fallback: FrameHeader) -> FrameHeader:
    """Header of one level, image, shared or frame; `fallback` is the level above."""
    temporal = integer(elements, "TemporalPositionIndex")
    return FrameHeader(
        position=numbers(elements, "ImagePositionPatient") or fallback.position,
        orientation=numbers(elements, "ImageOrientationPatient") or fallback.orientation,
        spacing=numbers(elements, "PixelSpacing") or fallback.spacing,
        thickness_mm=positive(elements, "SliceThickness") or fallback.thickness_mm,
        repetition_time_ms=positive(elements, "RepetitionTime") or fallback.repetition_time_ms,
        echo_time_ms=_first_positive(elements, "EffectiveEchoTime", "EchoTime") or fallback.echo_time_ms,
        inversion_time_ms=_first_positive(elements, "InversionTimes", "InversionTime") or fallback.inversion_time_ms,
        flip_angle_deg=positive(elements, "FlipAngle") or fallback.flip_angle_deg,
        echo_train_length=_echo_train_length(elements) or fallback.echo_train_length,
        frame_type=_frame_type(elements, fallback.frame_type),
        temporal_position=fallback.temporal_position if temporal is None else temporal,
        rescale_slope=_or(number(elements, "RescaleSlope"), fallback.rescale_slope),
        rescale_intercept=_or(number(elements, "RescaleIntercept"), fallback.rescale_intercept),
        scanning_sequence=_codes(elements, fallback.scanning_sequence),
        fat_suppressed=_suppresses_fat(elements) or fallback.fat_suppressed,
        contrast_given=_contrast_given(elements, fallback.contrast_given),
    )


def _or(value: float | None, fallback: float | None) -> float | None:
    return fallback if value is None else value


def _first_positive(elements: Elements, *keywords: str) -> float | None:
    """First number above zero of the first attribute that has one."""
    return next((value for keyword in keywords for value in numbers(elements, keyword) if value > 0), None)


def _echo_train_length(elements: Elements) -> int | None:
    """EchoTrainLength, else RFEchoTrainLength (PS3.3 C.8.13.5.2)."""
    lengths = (integer(elements, keyword) for keyword in ("EchoTrainLength", "RFEchoTrainLength"))
    return next((length for length in lengths if length and length > 0), None)


def _frame_type(elements: Elements, fallback: str) -> str:
    """FrameType with the kind of value of each pixel (PS3.3 C.8.13.3.1.2), which FrameType itself may leave out."""
    said, component = text(elements, "FrameType") or fallback, text(elements, "ComplexImageComponent")
    if component in ("PHASE", "REAL", "IMAGINARY") and component not in said.split("\\"):
        return f"{said}\\{component}"
    return said


def _codes(elements: Elements, fallback: str | None) -> str | None:
    """ScanningSequence codes of this level and of the one above (PS3.3 C.8.13.4, C.8.13.5.4)."""
    said = [(fallback or "").replace("+", "\\"), ECHO_CODES.get(text(elements, "EchoPulseSequence"), "")]
    said += ["EP"] * (text(elements, "EchoPlanarPulseSequence") == "YES")
    said += ["IR"] * (text(elements, "InversionRecovery") == "YES")
    return sequence_codes("\\".join(said))


def _suppresses_fat(elements: Elements) -> bool:
    """Say if fat is saturated or left out (PS3.3 C.8.13.4, C.8.13.5.4)."""
    saturated = text(elements, "SpectrallySelectedSuppression") in ("FAT", "FAT_AND_WATER")
    return saturated or text(elements, "SpectrallySelectedExcitation") == "WATER"


def _contrast_given(elements: Elements, fallback: bool) -> bool:
    """ContrastBolusAgentAdministered of the frame (PS3.3 C.7.6.16.2.12)."""
    said = text(elements, "ContrastBolusAgentAdministered")
    return said == "YES" if said else fallback
