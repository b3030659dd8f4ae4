"""DICOM Segmentation objects (PS3.3 A.51) as masks on the stacks of an exam.

Each frame is placed by its own position, orientation and spacing, and only where its pixels are voxels of a slice
(`placement`); the image that it names must then be that slice. A slice counts as looked at for an array once it has a
frame of one of the array's segments, an empty one too. What other software leaves out as empty therefore stays unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, BinaryIO, Final

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.valuerep import DA, TM

from cohort.annotations.placement import FramePlacement, MisplacedError, place_frame
from cohort.annotations.seg_classes import Target, target_of
from cohort.annotations.seg_writer import NO_DATE, frame_of_reference_uid, study_uid
from cohort.annotations.store import LEVEL_NAMES, Annotation, Masked
from cohort.archive.header import check_geometry, quiet_pydicom
from cohort.archive.pseudonym import Pseudonyms
from cohort.errors import RefusedError
from cohort.stacks import ImageStack, LabelledStack, Plane

TOOLS: Final = (
    "lumbar-cohort",
    "dcmqi",
    "slicer",
    "mitk",
    "ohif",
    "itk-snap",
    "totalsegmentator",
    "md.ai",
    "highdicom",
)
"""Words of Manufacturer, ManufacturerModelName and SoftwareVersions that are kept; no other text of the file is."""
PLANES: Final[dict[str, Plane]] = {"vertebral_body": "sagittal", "disc": "sagittal", "muscle": "axial"}
"""Label array -> plane of the stacks that have it."""

Slice = tuple[Plane, int, int]
"""Plane, index of the stack in its plane, slice."""
Pixels = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SegProblem:
    """A frame or a segment that was left out, or a doubt about one. No text of the file is repeated."""

    reason: str
    """Code from `cohort.reasons`."""
    detail: str
    """What was seen, with numbers."""
    frame: int | None = None
    """From 1, as DICOM counts; None where it concerns the whole segment or file."""
    segment: int | None = None
    """SegmentNumber."""
    value: float | None = None
    limit: float | None = None


@dataclass(frozen=True, eq=False)
class SegMasks:
    """What a file gave."""

    annotation: Annotation
    problems: list[SegProblem]


@dataclass(frozen=True, eq=False)
class SegPlace:
    """The exam that a file is of, and how its UIDs are known again."""

    exam_id: str
    stacks: Sequence[ImageStack]
    pseudonyms: Pseudonyms | None
    """Of the archive; None knows only what was exported with UIDs from pseudonyms."""
    images: Mapping[tuple[str, int | None], Slice] = field(default_factory=dict)
    """(pseudonym of SOPInstanceUID, number of the frame from 1 or None) -> its slice, where known."""
    named_by_table: bool = False
    """A table names the exam: the UIDs are those of a copy, and geometry alone decides."""


def read_seg(stream: BinaryIO, place: SegPlace, *, reader: str, table: Mapping[str, Target] | None = None) -> SegMasks:
    """Read a BINARY or LABELMAP segmentation as a reader's annotation.

    Parameters
    ----------
    stream : the file
    reader : code of the reader, given by the user; names in the file are not read
    table : SegmentLabel -> where it goes, before the names and codes of `seg_classes`

    Raises
    ------
    RefusedError
        `mask_unreadable`; `mask_not_whole_numbers` for a FRACTIONAL one; `study_unknown` if it is of another exam;
        `frame_of_reference_differs` if no stack shares its frame of reference
    """
    with quiet_pydicom():
        segmentation, frames = _opened(stream)
        _require_exam(segmentation, place)
        stacks = _stacks_of(segmentation, place)
        drawing = _Drawing(_targets(segmentation, table), place, stacks)
        for frame in frames:
            drawing.add(frame)
        return SegMasks(drawing.annotation(reader, _drawn_at(segmentation), _tool(segmentation)), drawing.problems)


def _opened(stream: BinaryIO) -> tuple[hd.seg.Segmentation, list[_Frame]]:
    try:
        segmentation = hd.seg.segread(stream)
        if segmentation.segmentation_type != hd.seg.SegmentationTypeValues.FRACTIONAL:
            return segmentation, _frames(segmentation)
    except Exception as error:  # highdicom and pydicom raise a dozen kinds on files that are none or damaged
        raise RefusedError("mask_unreadable", f"not read as a segmentation: {type(error).__name__}") from error
    raise RefusedError("mask_not_whole_numbers", "a FRACTIONAL segmentation holds probabilities or parts of pixels")


def _require_exam(segmentation: Dataset, place: SegPlace) -> None:
    uid = str(segmentation.get("StudyInstanceUID", ""))
    own = uid == study_uid(place.exam_id)
    of_archive = place.pseudonyms is not None and place.pseudonyms.exam_id(uid) == place.exam_id
    if not (own or of_archive or place.named_by_table):
        raise RefusedError("study_unknown", "a segmentation of another exam than the one that it was given for")


def _stacks_of(segmentation: Dataset, place: SegPlace) -> list[ImageStack]:
    """Stacks whose positions may be compared with those of the file."""
    if place.named_by_table:
        return list(place.stacks)
    uid = str(segmentation.get("FrameOfReferenceUID", ""))
    pseudonym = place.pseudonyms.frame_of_reference_id(uid) if place.pseudonyms and uid else None
    stacks = [
        stack
        for stack in place.stacks
        if uid == frame_of_reference_uid(place.exam_id, stack)
        or (pseudonym is not None and pseudonym == stack.frame_of_reference_id)
    ]
    if not stacks:
        raise RefusedError("frame_of_reference_differs", f"that of none of {len(place.stacks)} stacks")
    return stacks


def _targets(segmentation: hd.seg.Segmentation, table: Mapping[str, Target] | None) -> dict[int, Target | None]:
    """SegmentNumber -> where it goes; None where neither its label nor its code is known."""
    found: dict[int, Target | None] = {}
    for number in segmentation.segment_numbers:
        described = segmentation.get_segment_description(number)
        code = described.segmented_property_type
        sides = code.get("SegmentedPropertyTypeModifierCodeSequence", None)
        side = str(sides[0].get("CodeValue", "")) if sides else None
        target = target_of(described.segment_label, (code.scheme_designator, code.value), side, table)
        found[int(number)] = target
    return found


@dataclass(frozen=True, eq=False)
class _Frame:
    """One frame of the file."""

    number: int
    """From 1."""
    segment: int | None
    """SegmentNumber; None in a LABELMAP, whose frames name no segment and whose pixels are the numbers."""
    pixels: npt.NDArray[Any]
    plane: tuple[tuple[float, ...], ...] | None
    """Position, orientation and spacing; None where the file does not say all of them."""
    source: tuple[str, int | None] | None
    """SOPInstanceUID and frame of the one image it was drawn on, if it says so."""

    def drawn(self, segment: int) -> Pixels:
        """[row, column] where one segment is."""
        return np.asarray(self.pixels == (1 if self.segment is not None else segment))


def _frames(segmentation: hd.seg.Segmentation) -> list[_Frame]:
    """All frames; ValueError if there are not as many headers as pictures."""
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    pixels = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    of_frames = segmentation.PerFrameFunctionalGroupsSequence
    return [_frame(k, own, shared, picture) for k, (own, picture) in enumerate(zip(of_frames, pixels, strict=True), 1)]


def _frame(number: int, own: Dataset, shared: Dataset, pixels: npt.NDArray[Any]) -> _Frame:
    identified = _group(own, shared, "SegmentIdentificationSequence")
    segment = None if identified is None else int(identified.ReferencedSegmentNumber)
    return _Frame(number, segment, pixels, _plane(own, shared), _source(own, shared))


def _group(own: Dataset, shared: Dataset, keyword: str) -> Dataset | None:
    """A functional group of the frame, else the one that all frames share."""
    items = own.get(keyword) or shared.get(keyword)
    return items[0] if items else None


def _plane(own: Dataset, shared: Dataset) -> tuple[tuple[float, ...], ...] | None:
    wanted = {
        "PlanePositionSequence": ("ImagePositionPatient", 3),
        "PlaneOrientationSequence": ("ImageOrientationPatient", 6),
        "PixelMeasuresSequence": ("PixelSpacing", 2),
    }
    found = []
    for keyword, (attribute, count) in wanted.items():
        group = _group(own, shared, keyword)
        values = tuple(float(value) for value in (group.get(attribute) if group is not None else None) or ())
        if len(values) != count or not np.all(np.isfinite(values)):
            return None
        found.append(values)
    return tuple(found)


def _source(own: Dataset, shared: Dataset) -> tuple[str, int | None] | None:
    derivation = _group(own, shared, "DerivationImageSequence")
    images = derivation.get("SourceImageSequence") if derivation is not None else None
    if not images or len(images) != 1:
        return None
    frame = images[0].get("ReferencedFrameNumber")
    return str(images[0].get("ReferencedSOPInstanceUID", "")), None if frame is None else int(np.atleast_1d(frame)[0])


class _Drawing:
    """Masks that grow frame by frame."""

    def __init__(self, targets: Mapping[int, Target | None], place: SegPlace, stacks: Sequence[ImageStack]) -> None:
        self.problems = [
            SegProblem("label_unknown", f"segment {number}", segment=number)
            for number, target in targets.items()
            if target is None
        ]
        self._targets = {number: target for number, target in targets.items() if target is not None}
        self._place, self._stacks = place, stacks
        self._placed: dict[object, tuple[ImageStack, FramePlacement] | MisplacedError] = {}
        self._masks: dict[Masked, npt.NDArray[np.uint8]] = {}
        self._levels: dict[Masked, npt.NDArray[np.uint8]] = {}
        self._slices: dict[Masked, set[int]] = {}

    def add(self, frame: _Frame) -> None:
        """Draw one frame, or say why not."""
        segments = [frame.segment] if frame.segment is not None else list(self._targets)
        known = [number for number in segments if number in self._targets]
        if not known:
            return
        try:
            stack, where = self._where(frame)
        except MisplacedError as error:
            found = (error.reason, error.detail, frame.number, frame.segment, error.offset_mm, error.limit_mm)
            self.problems.append(SegProblem(*found))
            return
        for number in known:
            self._draw(frame, number, stack, where)

    def _where(self, frame: _Frame) -> tuple[ImageStack, FramePlacement]:
        """Stack and slice of a frame: by its geometry, or by its source image where it has none."""
        named = self._named(frame)
        if frame.plane is None:
            return self._by_name(frame, named)
        key = (frame.plane, frame.pixels.shape)
        if key not in self._placed:
            self._placed[key] = _nearest_placement(self._stacks, frame)
        found = self._placed[key]
        if isinstance(found, MisplacedError):
            raise found
        stack, where = found
        if named is not None and named != (stack.plane, stack.index, where.slice):
            detail = f"lies on slice {where.slice} of {stack.plane} stack {stack.index}, but names the image of {named}"
            raise MisplacedError("mask_shifted", detail, offset_mm=None, limit_mm=None)
        return found

    def _named(self, frame: _Frame) -> Slice | None:
        if frame.source is None or self._place.pseudonyms is None:
            return None
        uid, number = frame.source
        return self._place.images.get((self._place.pseudonyms.instance_id(uid), number))

    def _by_name(self, frame: _Frame, named: Slice | None) -> tuple[ImageStack, FramePlacement]:
        stack = next((one for one in self._stacks if named and (one.plane, one.index) == named[:2]), None)
        if named is None or stack is None:
            detail = "neither a position nor a known image"
            raise MisplacedError("slice_unknown", detail, offset_mm=None, limit_mm=None)
        if frame.pixels.shape != stack.geometry.shape:
            detail = f"{frame.pixels.shape} pixels without a position, stack of {stack.geometry.shape}"
            raise MisplacedError("mask_grid_differs", detail, offset_mm=None, limit_mm=None)
        return stack, FramePlacement(named[2], swap=False, flip=(False, False), offset_mm=0.0)

    def _draw(self, frame: _Frame, number: int, stack: ImageStack, where: FramePlacement) -> None:
        target = self._targets[number]
        drawn = where.apply(frame.drawn(number))
        if PLANES[target.array] != stack.plane:
            if drawn.any():
                detail = f"segment {number} on {stack.plane} stack {stack.index}"
                self.problems.append(SegProblem("label_other_plane", detail, frame.number, number))
            return
        key = (stack.plane, stack.index, target.array)
        picture = self._array(self._masks, key, stack)[where.slice]
        levels = self._array(self._levels, key, stack)[where.slice]
        level = 1 + LEVEL_NAMES.index(target.level) if target.level else 0
        twice = int(np.sum(drawn & (picture > 0) & ((picture != target.value) | (levels != level))))
        if twice:
            detail = f"{twice} pixels of slice {where.slice} of {stack.plane} stack {stack.index}"
            self.problems.append(SegProblem("labels_overlap", detail, frame.number, number, float(twice), 0.0))
        picture[drawn], levels[drawn] = target.value, level
        self._slices.setdefault(key, set()).add(where.slice)

    def _array(
        self, arrays: dict[Masked, npt.NDArray[np.uint8]], key: Masked, stack: ImageStack
    ) -> npt.NDArray[np.uint8]:
        return arrays.setdefault(key, np.zeros(stack.image.shape, np.uint8))

    def annotation(self, reader: str, drawn_at: str | None, tool: str) -> Annotation:
        """What was drawn."""
        if not any(mask.any() for mask in self._masks.values()):
            self.problems.append(SegProblem("annotation_empty", f"{len(self._masks)} masks without a pixel"))
        labelled = []
        for stack in self._stacks:
            own = {key[2]: mask for key, mask in self._masks.items() if key[:2] == (stack.plane, stack.index)}
            if own:
                labelled.append(LabelledStack(stack, own, {}))
        return Annotation(
            exam_id=self._place.exam_id,
            reader=reader,
            drawn_at=drawn_at,
            tool=tool,
            labelled=labelled,
            slices={key: tuple(sorted(slices)) for key, slices in self._slices.items()},
            levels={key: levels for key, levels in self._levels.items() if levels.any()},
        )


def _nearest_placement(
    stacks: Sequence[ImageStack], frame: _Frame
) -> tuple[ImageStack, FramePlacement] | MisplacedError:
    """The stack that a frame lies on, else the refusal by the stack that it comes nearest to."""
    position, cosines, (between_rows, between_columns) = frame.plane or ((), (), (0.0, 0.0))
    try:
        check_geometry(position, cosines, (between_rows, between_columns), frame.pixels.shape)
    except RefusedError as error:
        return MisplacedError("mask_grid_differs", error.detail, offset_mm=None, limit_mm=None)
    refusals = []
    for stack in stacks:
        try:
            spacing = (between_rows, between_columns)
            return stack, place_frame(stack.geometry, position, cosines[:3], cosines[3:], spacing, frame.pixels.shape)
        except MisplacedError as error:
            detail = f"{error.detail}; {stack.plane} stack {stack.index}"
            told = MisplacedError(error.reason, detail, offset_mm=error.offset_mm, limit_mm=error.limit_mm)
            refusals.append((_parallel(stack, cosines), told))
    return min(refusals, key=lambda one: (not one[0], one[1].offset_mm or 0.0))[1]


def _parallel(stack: ImageStack, cosines: tuple[float, ...]) -> bool:
    """Whether a frame is a slice of the stack's kind rather than of the other plane's: within 45 degrees."""
    return bool(abs(np.cross(cosines[:3], cosines[3:]) @ stack.geometry.normal) > np.sqrt(0.5))


def _drawn_at(segmentation: Dataset) -> str | None:
    """ContentDate and ContentTime, ISO 8601; None where they are missing, malformed or a stand-in."""
    try:
        day = DA(str(segmentation.get("ContentDate", "")))
        time = TM(str(segmentation.get("ContentTime", "")) or "000000")
        found = datetime.combine(day, time)
    except (ValueError, TypeError):
        return None
    return None if found.date() == NO_DATE.date() else found.isoformat(timespec="seconds")


def _tool(segmentation: Dataset) -> str:
    keywords = ("Manufacturer", "ManufacturerModelName", "SoftwareVersions")
    said = " ".join(str(segmentation.get(keyword, "")) for keyword in keywords).lower()
    return " ".join(["dicom-seg", *[word for word in TOOLS if word in said][:1]])
