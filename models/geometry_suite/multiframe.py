"""Data sets of multi-frame MR images: Enhanced MR and Legacy Converted Enhanced MR (PS3.3 A.36.2, A.70)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.uid import EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage

from models.geometry_suite.classic import (
    PERSON,
    T1_SPIN_ECHO,
    MarkedSlice,
    PixelFormat,
    decimals,
    pixel_attributes,
)
from models.geometry_suite.plane import THICKNESS_MM

Groups = dict[str, Dataset]
"""Keyword of a functional group sequence -> its one item."""

FRAME_TYPE: Final = ["ORIGINAL", "PRIMARY", "T1", "NONE"]
PART_DIMENSIONS: Final = {
    "EchoTime": ("EffectiveEchoTime", "MREchoSequence"),
    "TemporalPositionIdentifier": ("TemporalPositionIndex", "FrameContentSequence"),
    "ImageType": ("FrameType", "MRImageFrameTypeSequence"),
    "ComplexImageComponent": ("ComplexImageComponent", "MRImageFrameTypeSequence"),
}
"""Keyword that tells parts apart -> (keyword in multi-frame images, functional group)."""


def multiframe_attributes(
    slices: Sequence[MarkedSlice], pixels: PixelFormat, *, shared: bool, legacy: bool
) -> dict[str, Any]:
    """Attributes of an image of all slices as frames in the given order, without identity.

    Parameters
    ----------
    shared : what is equal in all frames stands in the shared functional groups, else everything stands in each frame
    legacy : converted from single-frame images: times and types in unassigned attributes
    """
    frames = [_frame_groups(one, legacy=legacy) | _frame_content(one, slices) for one in slices]
    common = {name: group for name, group in frames[0].items() if shared and all(one[name] == group for one in frames)}
    per_frame = [{name: group for name, group in one.items() if name not in common} for one in frames]
    return {
        **PERSON,
        **{
            name: T1_SPIN_ECHO[name]
            for name in ("Modality", "Manufacturer", "MagneticFieldStrength", "BodyPartExamined")
        },
        "SOPClassUID": LegacyConvertedEnhancedMRImageStorage if legacy else EnhancedMRImageStorage,
        "ImageType": FRAME_TYPE,
        "PatientPosition": "HFS",
        "EchoPulseSequence": "SPIN",
        "MRAcquisitionType": "2D",
        "ComplexImageComponent": "MAGNITUDE",
        "AcquisitionContrast": "T1",
        "VolumetricProperties": "VOLUME",
        "ContentDate": "20200102",
        "ContentTime": "101500",
        "NumberOfFrames": len(slices),
        "SharedFunctionalGroupsSequence": [_sequences(common)],
        "PerFrameFunctionalGroupsSequence": [_sequences(groups) for groups in per_frame],
        **_dimensions(slices),
        **pixel_attributes(slices[0].plane.shape, pixels),
    }


def _frame_groups(one: MarkedSlice, *, legacy: bool) -> Groups:
    plane, values = one.plane, {**T1_SPIN_ECHO, **one.attributes}
    values["FrameType"] = one.attributes.get("ImageType", FRAME_TYPE)
    cosines = decimals((*plane.row_cosine, *plane.column_cosine))
    groups = {
        "PixelMeasuresSequence": _item(PixelSpacing=decimals(plane.spacing_mm), SliceThickness=str(THICKNESS_MM)),
        "PlanePositionSequence": _item(ImagePositionPatient=decimals(plane.position_mm)),
        "PlaneOrientationSequence": _item(ImageOrientationPatient=cosines),
        "FrameAnatomySequence": _item(FrameLaterality="U"),
    }
    if "RescaleSlope" in values:
        groups["PixelValueTransformationSequence"] = _item(
            RescaleSlope=values["RescaleSlope"], RescaleIntercept=values["RescaleIntercept"], RescaleType="US"
        )
    return groups | (_unassigned(values) if legacy else _enhanced(values))


def _enhanced(values: Mapping[str, Any]) -> Groups:
    return {
        "MRImageFrameTypeSequence": _item(
            FrameType=values["FrameType"],
            ComplexImageComponent=values.get("ComplexImageComponent", "MAGNITUDE"),
            AcquisitionContrast="T1",
            PixelPresentation="MONOCHROME",
            VolumetricProperties="VOLUME",
            VolumeBasedCalculationTechnique="NONE",
        ),
        "MRTimingAndRelatedParametersSequence": _item(
            RepetitionTime=values["RepetitionTime"],
            FlipAngle=values["FlipAngle"],
            EchoTrainLength=values["EchoTrainLength"],
            RFEchoTrainLength=int(values["EchoTrainLength"]),
        ),
        "MREchoSequence": _item(EffectiveEchoTime=float(values["EchoTime"])),
    }


def _unassigned(values: Mapping[str, Any]) -> Groups:
    kept = ("ScanningSequence", "SequenceVariant", "RepetitionTime", "EchoTime", "EchoTrainLength", "FlipAngle")
    return {
        "UnassignedPerFrameConvertedAttributesSequence": _item(**{keyword: values[keyword] for keyword in kept}),
        "MRImageFrameTypeSequence": _item(FrameType=values["FrameType"]),
    }


def _frame_content(one: MarkedSlice, slices: Sequence[MarkedSlice]) -> Groups:
    stack, position, part = _index(one, slices)
    varying = _part_keywords(slices)
    content = _item(
        StackID=str(stack),
        InStackPositionNumber=position,
        DimensionIndexValues=[stack, position, part][: 3 if varying else 2],
    )
    if "TemporalPositionIdentifier" in one.attributes:
        content.TemporalPositionIndex = int(one.attributes["TemporalPositionIdentifier"])
    return {"FrameContentSequence": content}


def _index(one: MarkedSlice, slices: Sequence[MarkedSlice]) -> tuple[int, int, int]:
    """(stack, position in it, part), each from 1; parallel frames are of one stack."""
    normals = [tuple(other.plane.normal.round(6)) for other in slices]
    stacks = list(dict.fromkeys(normals))
    own = tuple(one.plane.normal.round(6))
    distances = {float((one.plane.normal @ other.plane.position_mm).round(4))
                 for other, normal in zip(slices, normals, strict=True) if normal == own}  # fmt: skip
    at = sorted(distances).index(float((one.plane.normal @ one.plane.position_mm).round(4)))
    parts = list(dict.fromkeys(_part(other, slices) for other in slices))
    return stacks.index(own) + 1, at + 1, parts.index(_part(one, slices)) + 1


def _part_keywords(slices: Sequence[MarkedSlice]) -> list[str]:
    return [name for name in PART_DIMENSIONS if len({str(one.attributes.get(name)) for one in slices}) > 1]


def _part(one: MarkedSlice, slices: Sequence[MarkedSlice]) -> tuple[str, ...]:
    return tuple(str(one.attributes.get(name)) for name in _part_keywords(slices))


def _dimensions(slices: Sequence[MarkedSlice]) -> dict[str, Any]:
    """Multi-frame Dimension module (PS3.3 C.7.6.17): stack, place in it, and what tells the parts apart."""
    organisation = "1.2.826.0.1.3680043.8.498.1"
    pointers = [("StackID", "FrameContentSequence"), ("InStackPositionNumber", "FrameContentSequence")]
    pointers += [PART_DIMENSIONS[name] for name in _part_keywords(slices)[:1]]
    return {
        "DimensionOrganizationSequence": [_item(DimensionOrganizationUID=organisation)],
        "DimensionIndexSequence": [
            _item(
                DimensionOrganizationUID=organisation,
                DimensionIndexPointer=tag_for_keyword(pointer),
                FunctionalGroupPointer=tag_for_keyword(group),
            )
            for pointer, group in pointers
        ],
    }


def _item(**values: Any) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def _sequences(groups: Groups) -> Dataset:
    return _item(**{name: [group] for name, group in groups.items()})
