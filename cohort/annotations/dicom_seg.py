"""DICOM Segmentation objects (PS3.3 A.51) as masks on the stacks of an exam.

Each frame is placed by its own position, orientation and spacing, and only where its pixels are voxels of a slice
(`placement`); the image that it names must then be that slice. A slice counts as looked at for an array once it has a
frame of one of the array's segments, an empty one too. What other software leaves out as empty therefore stays unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO, Final

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.valuerep import DA, TM

from cohort.annotations.assemble import Drawing, Place, Sheet
from cohort.annotations.classes import ClassTable, Meaning
from cohort.annotations.matching import ExamImages
from cohort.annotations.placement import FramePlacement, MisplacedError, place_frame
from cohort.annotations.rows import Status
from cohort.annotations.seg_classes import segment_meaning
from cohort.annotations.seg_uids import frame_of_reference_uid, study_uid
from cohort.annotations.seg_writer import NO_DATE
from cohort.annotations.times import later
from cohort.archive.header import check_geometry, quiet_pydicom
from cohort.archive.pseudonym import Pseudonyms
from cohort.errors import RefusedError
from cohort.stacks import ImageStack

TOOL: Final = "dicom-seg"
PROGRAMS: Final = ("lumbar-cohort", "dcmqi", "slicer", "mitk", "ohif", "itk-snap", "totalsegmentator", "highdicom")
"""Words of Manufacturer, ManufacturerModelName and SoftwareVersions that are kept; no other text of the file is."""

Numbers = tuple[float, ...]
Found = tuple[ImageStack, FramePlacement]


@dataclass(frozen=True, eq=False)
class SegFrame:
    """One frame of a file."""

    number: int
    """From 1, as DICOM counts."""
    segment: int | None
    """SegmentNumber; None in a LABELMAP, whose frames name no segment and whose pixels are the numbers."""
    pixels: npt.NDArray[Any]
    """[row, column] stored values."""
    plane: tuple[Numbers, Numbers, Numbers] | None
    """Position, orientation and spacing; None where the file does not say all of them."""
    source: tuple[str, int | None] | None
    """SOPInstanceUID and frame, from 0, of the one image that it was drawn on, if it says so."""

    def drawn(self, segment: int) -> npt.NDArray[np.bool_]:
        """[row, column] where one segment is."""
        return np.asarray(self.pixels == (segment if self.segment is None else 1))


@dataclass(frozen=True, eq=False)
class SegFile:
    """A BINARY or LABELMAP segmentation, as it is."""

    study_uid: str
    frame_of_reference_uid: str
    segments: Mapping[int, tuple[str, tuple[str, str], str | None]]
    """SegmentNumber -> label, (scheme, value) of the property type, value of its first modifier."""
    frames: Sequence[SegFrame]
    drawn_at: str | None
    tool: str
    """`dicom-seg`, and the program where it is one of `PROGRAMS`."""


def read_seg(stream: BinaryIO) -> SegFile:
    """Read a segmentation. Names of people in it are not read: the user says whose it is.

    Raises
    ------
    RefusedError
        `mask_unreadable`, or `mask_not_whole_numbers` for a FRACTIONAL one
    """
    with quiet_pydicom():
        try:
            segmentation = hd.seg.segread(stream)
            if segmentation.segmentation_type != hd.seg.SegmentationTypeValues.FRACTIONAL:
                return _read(segmentation)
        except Exception as error:  # highdicom and pydicom raise a dozen kinds on files that are none or damaged
            raise RefusedError("mask_unreadable", f"not read as a segmentation: {type(error).__name__}") from error
    raise RefusedError("mask_not_whole_numbers", "a FRACTIONAL segmentation holds probabilities or parts of pixels")


def _read(segmentation: hd.seg.Segmentation) -> SegFile:
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    pixels = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    of_frames = zip(segmentation.PerFrameFunctionalGroupsSequence, pixels, strict=True)
    frames = [_frame(k, own, shared, picture) for k, (own, picture) in enumerate(of_frames, start=1)]
    if not _named(frames) <= set(map(int, segmentation.segment_numbers)):
        raise ValueError("a frame is of a segment that the file does not describe: its slice would count as without it")
    return SegFile(
        study_uid=str(segmentation.StudyInstanceUID),
        frame_of_reference_uid=str(segmentation.get("FrameOfReferenceUID", "")),
        segments={int(number): _segment(segmentation, number) for number in segmentation.segment_numbers},
        frames=frames,
        drawn_at=_drawn_at(segmentation),
        tool=_tool(segmentation),
    )


def _named(frames: Sequence[SegFrame]) -> set[int]:
    """SegmentNumbers that frames, or the pixels of a LABELMAP, name."""
    found: set[int] = set()
    for frame in frames:
        found |= set(np.unique(frame.pixels).tolist()) - {0} if frame.segment is None else {frame.segment}
    return found


def _segment(segmentation: hd.seg.Segmentation, number: int) -> tuple[str, tuple[str, str], str | None]:
    described = segmentation.get_segment_description(number)
    code = described.segmented_property_type
    sides = code.get("SegmentedPropertyTypeModifierCodeSequence", None)
    side = str(sides[0].get("CodeValue", "")) if sides else None
    return described.segment_label, (code.scheme_designator, code.value), side


def _frame(number: int, own: Dataset, shared: Dataset, pixels: npt.NDArray[Any]) -> SegFrame:
    identified = _group(own, shared, "SegmentIdentificationSequence")
    segment = None if identified is None else int(identified.ReferencedSegmentNumber)
    return SegFrame(number, segment, pixels, _plane(own, shared), _source(own, shared))


def _group(own: Dataset, shared: Dataset, keyword: str) -> Dataset | None:
    """A functional group of the frame, else the one that all frames share."""
    items = own.get(keyword) or shared.get(keyword)
    return items[0] if items else None


def _plane(own: Dataset, shared: Dataset) -> tuple[Numbers, Numbers, Numbers] | None:
    position = _numbers(_group(own, shared, "PlanePositionSequence"), "ImagePositionPatient")
    orientation = _numbers(_group(own, shared, "PlaneOrientationSequence"), "ImageOrientationPatient")
    spacing = _numbers(_group(own, shared, "PixelMeasuresSequence"), "PixelSpacing")
    return (position, orientation, spacing) if position and orientation and spacing else None


def _numbers(group: Dataset | None, keyword: str) -> Numbers:
    return tuple(float(value) for value in (group.get(keyword) if group is not None else None) or ())


def _source(own: Dataset, shared: Dataset) -> tuple[str, int | None] | None:
    derivation = _group(own, shared, "DerivationImageSequence")
    images = derivation.get("SourceImageSequence") if derivation is not None else None
    if not images or len(images) != 1:
        return None
    frame = images[0].get("ReferencedFrameNumber")
    return str(images[0].ReferencedSOPInstanceUID), None if frame is None else int(np.atleast_1d(frame)[0]) - 1


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
    return " ".join([TOOL, *[word for word in PROGRAMS if word in said][:1]])


@dataclass(frozen=True, eq=False)
class SegPart:
    """One file as a part of what a reader drew on an exam."""

    file: SegFile
    classes: ClassTable
    pseudonyms: Pseudonyms | None
    """Of the archive; None knows only what was exported with UIDs from pseudonyms."""
    named_by_table: bool = False
    """A table names the exam: the UIDs are those of a copy, and geometry alone decides."""

    def add(self, images: ExamImages, sheet: Sheet) -> None:
        """Add each frame of a known segment to the sheet; each frame that fits no slice is a row of it.

        Raises
        ------
        RefusedError
            `study_unknown` if the file is of another exam; `frame_of_reference_differs` if no stack shares its own
        """
        self._require_exam(sheet.exam_id)
        stacks = self._stacks(images, sheet.exam_id)
        sheet.tool, sheet.drawn_at = self.file.tool, later(sheet.drawn_at, self.file.drawn_at)
        meanings = self._meanings(sheet)
        placed: dict[object, Found | MisplacedError] = {}
        empty, n_before = True, len(sheet.drawings)
        for frame in self.file.frames:
            segments = [number for number in meanings if frame.segment in (None, number)]
            if not segments:
                continue
            try:
                found = self._place(frame, stacks, images, placed)
            except RefusedError as error:
                _refuse(sheet, frame, error)
                in_doubt = self._in_doubt(frame, images, placed)
                sheet.spoiled |= {(place, meanings[number].array) for place in in_doubt for number in segments}
                continue
            for number in segments:
                empty &= not _draw(sheet, frame, number, meanings[number], found, self.file.drawn_at)
        if empty:
            taken: Status = "flagged" if len(sheet.drawings) > n_before else "refused"
            sheet.note("annotation_empty", taken, detail=f"{len(self.file.frames)} frames, no known pixel")

    def _require_exam(self, exam_id: str) -> None:
        of_archive = self.pseudonyms is not None and self.pseudonyms.exam_id(self.file.study_uid) == exam_id
        if not (self.named_by_table or of_archive or self.file.study_uid == study_uid(exam_id)):
            raise RefusedError("study_unknown", "a segmentation of another exam than the one that it was given for")

    def _stacks(self, images: ExamImages, exam_id: str) -> list[ImageStack]:
        """Stacks whose positions may be compared with those of the file."""
        if self.named_by_table:
            return list(images.exam.stacks)
        uid = self.file.frame_of_reference_uid
        pseudonym = self.pseudonyms.frame_of_reference_id(uid) if self.pseudonyms and uid else None
        stacks = [
            stack
            for stack in images.exam.stacks
            if uid == frame_of_reference_uid(exam_id, stack)
            or (pseudonym is not None and pseudonym == stack.frame_of_reference_id)
        ]
        if not stacks:
            raise RefusedError("frame_of_reference_differs", f"that of none of {len(images.exam.stacks)} stacks")
        return stacks

    def _meanings(self, sheet: Sheet) -> dict[int, Meaning]:
        """SegmentNumber -> what it stands for, of known segments."""
        found = {number: segment_meaning(*names, self.classes) for number, names in self.file.segments.items()}
        for number in (number for number, meaning in found.items() if meaning is None):
            sheet.note("label_unknown", "refused", detail=f"segment {number}, neither by its label nor by its code")
        return {number: meaning for number, meaning in found.items() if meaning is not None}

    def _place(
        self,
        frame: SegFrame,
        stacks: Sequence[ImageStack],
        images: ExamImages,
        placed: dict[object, Found | MisplacedError],
    ) -> Found:
        """Stack and slice of a frame by its geometry, which must be those of the image that it names."""
        key = (frame.plane, frame.pixels.shape)
        if key not in placed:
            placed[key] = _nearest_placement(stacks, frame)
        found = placed[key]
        if isinstance(found, MisplacedError):
            raise found
        named = self._named(frame, images)
        here = (found[0].plane, found[0].index, found[1].slice)
        if named not in (None, here):
            raise RefusedError("mask_shifted", f"lies on {_said(here)}, but names the image of {_said(named)}")
        return found

    def _named(self, frame: SegFrame, images: ExamImages) -> Place | None:
        """Slice of the image that a frame names; None where it names none that the archive has."""
        if frame.source is None or self.pseudonyms is None or self.named_by_table:
            return None
        uid, number = frame.source
        try:
            return images.place(self.pseudonyms.instance_id(uid), frame=number)
        except RefusedError as error:
            if error.reason == "series_not_chosen":
                raise
            return None

    def _in_doubt(
        self, frame: SegFrame, images: ExamImages, placed: Mapping[object, Found | MisplacedError]
    ) -> list[Place]:
        """Slices that a refused frame may be of: what else is drawn there is not all that is there."""
        found = placed[frame.plane, frame.pixels.shape]
        lies_on = [] if isinstance(found, MisplacedError) else [(found[0].plane, found[0].index, found[1].slice)]
        with suppress(RefusedError):  # of a series that has no stack
            named = self._named(frame, images)
            return [*lies_on, named] if named else lies_on
        return lies_on


def _said(place: Place | None) -> str:
    plane, index, k = place or ("no", 0, 0)
    return f"{plane} stack {index} slice {k}"


def _draw(sheet: Sheet, frame: SegFrame, number: int, meaning: Meaning, found: Found, drawn_at: str | None) -> bool:
    """Add one segment of a frame; says whether a pixel was drawn."""
    stack, where = found
    place: Place = (stack.plane, stack.index, where.slice)
    drawn = where.apply(frame.drawn(number))
    if meaning.plane == stack.plane:
        sheet.drawings.append(Drawing(place, meaning, drawn, drawn_at))
        return bool(drawn.any())
    if drawn.any():
        detail = f"frame {frame.number}, segment {number}"
        sheet.note("label_other_plane", "refused", place=place, array=meaning.array, detail=detail)
    return False


def _refuse(sheet: Sheet, frame: SegFrame, error: RefusedError) -> None:
    segment = "" if frame.segment is None else f", segment {frame.segment}"
    offset, limit = (error.offset_mm, error.limit_mm) if isinstance(error, MisplacedError) else (None, None)
    detail = f"frame {frame.number}{segment}: {error.detail}"
    sheet.note(error.reason, "refused", value=offset, limit=limit, detail=detail)


def _nearest_placement(stacks: Sequence[ImageStack], frame: SegFrame) -> Found | MisplacedError:
    """The stack that a frame lies on, else the refusal by the stack that it comes nearest to."""
    position, cosines, spacing = frame.plane or ((), (), ())
    try:
        check_geometry(position, cosines, spacing, frame.pixels.shape)
    except RefusedError as error:
        return MisplacedError("mask_grid_differs", error.detail, offset_mm=None, limit_mm=None)
    refusals = []
    for stack in stacks:
        try:
            step = (spacing[0], spacing[1])
            return stack, place_frame(stack.geometry, position, cosines[:3], cosines[3:], step, frame.pixels.shape)
        except MisplacedError as error:
            detail = f"{error.detail}; {stack.plane} stack {stack.index}"
            told = MisplacedError(error.reason, detail, offset_mm=error.offset_mm, limit_mm=error.limit_mm)
            refusals.append((_parallel(stack, cosines), told))
    return min(refusals, key=lambda one: (not one[0], one[1].offset_mm or 0.0))[1]


def _parallel(stack: ImageStack, cosines: tuple[float, ...]) -> bool:
    """Whether a frame is a slice of the stack's kind rather than of the other plane's: within 45 degrees."""
    return bool(abs(np.cross(cosines[:3], cosines[3:]) @ stack.geometry.normal) > np.sqrt(0.5))
