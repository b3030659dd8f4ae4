"""Masks of an exam as DICOM Segmentation objects (PS3.3 A.51), written with highdicom.

One object for each stack, since an object has one orientation; stacks of a plane are instances of one series. Slices
keep their own positions, so that oblique blocks and uneven gaps survive. A slice that was looked at has a frame of
every segment, empty ones too, and a slice that was not has none: so a reader's three slices stay three slices. Where
the arrays of a stack (bodies, discs) were not looked at on the same slices, each has an object of its own.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Final

import highdicom as hd
import numpy as np
import numpy.typing as npt
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import MRImageStorage
from pydicom.valuerep import format_number_as_ds

from cohort import __version__
from cohort.annotations.seg_classes import PRIVATE_SCHEME, SegmentClass, classes_of
from cohort.annotations.seg_uids import derived_uid, frame_of_reference_uid, study_uid
from cohort.annotations.store import Annotation
from cohort.stacks import ImageStack, LabelledStack, Plane

SERIES_NUMBERS: Final[dict[Plane, int]] = {"sagittal": 9001, "axial": 9002}
NO_DATE: Final = datetime(1900, 1, 1, tzinfo=UTC)
"""Stands in a de-identified object for the date that the standard requires: the day a nightly run segmented an exam is
the day of the exam or the one after."""


@dataclass(frozen=True)
class SourceImage:
    """The image of one slice as an object refers to it."""

    sop_class_uid: str
    sop_instance_uid: str
    frame: int | None = None
    """From 1 (PS3.3 10.3, Referenced Frame Number); None for a single-frame image."""


@dataclass(frozen=True, eq=False)
class SourceStack:
    """What an object says of the stack that it is drawn on."""

    study_uid: str
    series_uid: str
    frame_of_reference_uid: str
    images: Sequence[SourceImage]
    """[slice]."""
    patient: Dataset
    """A header whose Patient and Study modules the object repeats."""
    identified: bool
    """Whether that header is the original one."""


def pseudonymous_source(exam_id: str, subject_id: str, stack: ImageStack) -> SourceStack:
    """Source of a de-identified object: every UID follows from pseudonyms, and PatientID is the subject's."""
    patient = Dataset()
    patient.SOPClassUID = MRImageStorage
    patient.SOPInstanceUID = patient.StudyInstanceUID = study_uid(exam_id)
    patient.PatientID, patient.PatientName = subject_id, ""
    patient.PatientIdentityRemoved = "YES"
    patient.DeidentificationMethod = "Made from pseudonyms; nothing of the source headers copied"
    uids = [derived_uid("image", exam_id, stack.plane, stack.index, k) for k in range(stack.geometry.n_slices)]
    return SourceStack(
        study_uid=patient.StudyInstanceUID,
        series_uid=derived_uid("series", exam_id, stack.plane),
        frame_of_reference_uid=frame_of_reference_uid(exam_id, stack),
        images=[SourceImage(MRImageStorage, uid) for uid in uids],
        patient=patient,
        identified=False,
    )


def segmentations(
    annotation: Annotation,
    source_of: Callable[[ImageStack], SourceStack],
    weights_sha256: Mapping[str, str] | None = None,
) -> list[hd.seg.Segmentation]:
    """Segmentation objects of all masks, BINARY, one for each stack and set of slices that were looked at.

    The same masks of the same images give the same objects with the same UIDs, so that a second export is no second
    result in an archive of images. Names of levels are not written: a segment is a class.

    Parameters
    ----------
    annotation : of a person, or of the networks
    source_of : stack -> what the object refers to, for example `pseudonymous_source`
    weights_sha256 : label array -> hash of the network that drew it; None for a person's masks

    Raises
    ------
    ValueError
        if a mask holds a value that is no class
    """
    objects: list[hd.seg.Segmentation] = []
    numbers: Counter[Plane] = Counter()
    for one in annotation.labelled:
        source = source_of(one.stack)
        for slices, arrays in _groups(annotation, one):
            numbers[one.stack.plane] += 1
            drawn = _Drawn(annotation, one, arrays, slices, weights_sha256 or {})
            objects.append(_segmentation(drawn, source, numbers[one.stack.plane]))
    return objects


def _groups(annotation: Annotation, one: LabelledStack) -> list[tuple[tuple[int, ...], list[str]]]:
    """Slices that were looked at, and the arrays that they are the same for."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for array in sorted(one.labels, reverse=True):  # bodies before discs
        if slices := annotation.slices.get((one.stack.plane, one.stack.index, array), ()):
            groups.setdefault(slices, []).append(array)
    return list(groups.items())


@dataclass(frozen=True, eq=False)
class _Drawn:
    """What goes into one object."""

    annotation: Annotation
    labelled: LabelledStack
    arrays: Sequence[str]
    slices: tuple[int, ...]
    weights_sha256: Mapping[str, str]

    @property
    def stack(self) -> ImageStack:
        return self.labelled.stack

    @property
    def classes(self) -> list[SegmentClass]:
        """In the order of the segments."""
        return [found for array in self.arrays for found in classes_of(array)]

    @cached_property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """[slice, row, column, segment] 1 where the segment is; ValueError for a value that is no class."""
        for array in self.arrays:
            strange = np.setdiff1d(self.labelled.labels[array], [0, *(found.value for found in classes_of(array))])
            if len(strange):
                raise ValueError(f"mask {array} holds {strange.tolist()}, which are no classes")
        chosen = {array: self.labelled.labels[array][list(self.slices)] for array in self.arrays}
        return np.stack([chosen[found.array] == found.value for found in self.classes], axis=-1).astype(np.uint8)

    @cached_property
    def name(self) -> tuple[object, ...]:
        """What UIDs follow from, besides the study: equal masks have equal names."""
        packed = np.packbits(self.pixels).tobytes()
        content = hashlib.sha256(repr((self.arrays, self.slices, self.pixels.shape)).encode() + packed).hexdigest()
        return *self.series_name, self.stack.index, content

    @property
    def series_name(self) -> tuple[object, ...]:
        """One series for each reader, plane and version of the networks."""
        return self.annotation.reader, self.stack.plane, sorted(self.weights_sha256.items())

    def made_at(self, source: SourceStack) -> datetime:
        """Date of the content; now where an identified object's is not known."""
        if not source.identified:
            return NO_DATE
        known = self.annotation.drawn_at
        return datetime.fromisoformat(known) if known else datetime.now(UTC)


def _segmentation(drawn: _Drawn, source: SourceStack, number: int) -> hd.seg.Segmentation:
    plane, reader, made_at = drawn.stack.plane, drawn.annotation.reader, drawn.made_at(source)
    segmentation = hd.seg.Segmentation(
        source_images=_stand_ins(drawn.stack, drawn.slices, source),
        pixel_array=drawn.pixels,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _described(found, k, drawn.weights_sha256) for k, found in enumerate(drawn.classes, start=1)
        ],
        series_instance_uid=derived_uid("seg-series", source.study_uid, *drawn.series_name),
        series_number=SERIES_NUMBERS[plane],
        sop_instance_uid=derived_uid("seg", source.study_uid, *drawn.name),
        instance_number=number,
        manufacturer="lumbar-cohort",
        manufacturer_model_name="lumbar-cohort",
        software_versions=__version__,
        device_serial_number="none",
        content_label=f"LUMBAR_{plane}".upper(),
        content_description=f"{plane} stack {drawn.stack.index}, reader {reader}",
        series_description=f"Lumbar masks, {plane}, {reader}",
        omit_empty_frames=False,
        coding_schemes=[_private_scheme()],
        content_date=made_at.date(),
        content_time=made_at.time().replace(microsecond=0),
        specific_character_set="ISO_IR 192",
    )
    n_slices, _, _, n_segments = drawn.pixels.shape
    if segmentation.NumberOfFrames != n_slices * n_segments:
        raise ValueError(f"{segmentation.NumberOfFrames} frames written of {n_slices} x {n_segments}")
    _refer_to(segmentation, drawn.slices, source)
    _make_repeatable(segmentation, derived_uid("dimensions", source.study_uid, *drawn.name))
    return segmentation


def _stand_ins(stack: ImageStack, slices: tuple[int, ...], source: SourceStack) -> list[Dataset]:
    """Headers of the slices as highdicom wants them: geometry of the exam store, UIDs until `_refer_to`."""
    geometry = stack.geometry
    headers = []
    for k in slices:
        header = Dataset()
        header.SOPClassUID, header.SOPInstanceUID = MRImageStorage, derived_uid("stand-in", k)
        header.StudyInstanceUID, header.SeriesInstanceUID = source.study_uid, source.series_uid
        header.FrameOfReferenceUID = source.frame_of_reference_uid
        header.Modality = "MR"
        header.Rows, header.Columns = geometry.shape
        header.ImagePositionPatient = _decimals(geometry.position_mm[k])
        header.ImageOrientationPatient = _decimals([*geometry.row_dir, *geometry.col_dir])
        header.PixelSpacing = _decimals(geometry.spacing_mm)
        header.SliceThickness = _decimals([geometry.thickness_mm])[0]
        for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
                        "StudyDate", "StudyTime", "ReferringPhysicianName"):  # fmt: skip
            setattr(header, keyword, "")
        headers.append(header)
    return headers


def _decimals(values: npt.ArrayLike) -> list[str]:
    """Decimal Strings of at most 16 characters (PS3.5 6.2), which keep at least nine digits."""
    return [str(format_number_as_ds(float(value))) for value in np.asarray(values, dtype=np.float64)]


def _described(found: SegmentClass, number: int, weights_sha256: Mapping[str, str]) -> hd.seg.SegmentDescription:
    algorithm = None
    if weights_sha256:
        weights = weights_sha256[found.array]
        algorithm = hd.AlgorithmIdentificationSequence(
            name=f"lumbar-cohort {found.array}",
            family=codes.DCM.ArtificialIntelligence,
            version=weights,
            source="lumbar-cohort",
            parameters={"weights_sha256": weights},
        )
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=found.label,
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=found.property_type,
        algorithm_type="AUTOMATIC" if algorithm else "MANUAL",
        algorithm_identification=algorithm,
        primary_anatomic_structures=[found.part_of] if found.part_of else None,
    )
    if found.laterality:
        side = hd.sr.CodedConcept.from_code(found.laterality)
        description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [side]
    return description


def _private_scheme() -> CodingSchemeIdentificationItem:
    return CodingSchemeIdentificationItem(
        designator=PRIVATE_SCHEME, name="Classes of lumbar-cohort label arrays", version="1"
    )


def _refer_to(segmentation: hd.seg.Segmentation, slices: tuple[int, ...], source: SourceStack) -> None:
    """Put the true images into the places of the stand-ins, and the true patient and study into theirs."""
    images = {derived_uid("stand-in", k): source.images[k] for k in slices}
    # Frames of one slice share one item, which must be renamed once.
    shared = {
        id(reference): reference
        for frame in segmentation.PerFrameFunctionalGroupsSequence
        for derivation in frame.DerivationImageSequence
        for reference in derivation.SourceImageSequence
    }
    for reference in shared.values():
        _point_at(reference, images[reference.ReferencedSOPInstanceUID])
    whole = {(image.sop_class_uid, image.sop_instance_uid): image for image in images.values()}
    references = [_point_at(Dataset(), SourceImage(*names)) for names in whole]
    segmentation.SourceImageSequence = references
    segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence = references
    segmentation.copy_patient_and_study_information(source.patient)
    if "SpecificCharacterSet" in source.patient:
        segmentation.SpecificCharacterSet = source.patient.SpecificCharacterSet


def _point_at(reference: Dataset, image: SourceImage) -> Dataset:
    reference.ReferencedSOPClassUID = image.sop_class_uid
    reference.ReferencedSOPInstanceUID = image.sop_instance_uid
    if image.frame is not None:
        reference.ReferencedFrameNumber = image.frame
    return reference


def _make_repeatable(segmentation: hd.seg.Segmentation, dimensions_uid: str) -> None:
    """Take out what differs from one export of the same masks to the next."""
    del segmentation.InstanceCreationDate, segmentation.InstanceCreationTime
    for equipment in segmentation.ContributingEquipmentSequence:
        del equipment.ContributionDateTime
    segmentation.DimensionOrganizationSequence[0].DimensionOrganizationUID = dimensions_uid
    for index in segmentation.DimensionIndexSequence:
        index.DimensionOrganizationUID = dimensions_uid
