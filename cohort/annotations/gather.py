"""From files of any format to sheets: all that one reader drew on one exam, on the grid of its stacks."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from cohort.annotations.assemble import Drawing, Place, Sheet
from cohort.annotations.classes import ARRAY_PLANES, ClassTable, Meaning, terms_table
from cohort.annotations.mask_table import MaskLine
from cohort.annotations.matching import ExamImages
from cohort.annotations.mdai import TOOL, MdaiExport, MdaiShape, read_mdai
from cohort.annotations.outlines import Doubt, Mask, fill
from cohort.annotations.placement import MisplacedError, place_volume
from cohort.annotations.rows import AnnotationRow
from cohort.annotations.store import check_reader
from cohort.annotations.times import later, moment
from cohort.annotations.volumes import MaskVolume, read_volume
from cohort.archive.pseudonym import Pseudonyms
from cohort.errors import ConfigurationError, RefusedError
from cohort.stacks import ImageStack, Plane

SOURCE_CHARACTERS: Final = 12
PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
SHOWN_LABEL: Final = 40
"""Characters of an unknown label that its row repeats: a word of the drawing tool's vocabulary, not of a patient."""

Fill = Callable[[ExamImages, Sheet], None]
"""Adds what one file holds of an exam to its sheet."""


@dataclass
class Gathered:
    """What the files of an import hold, before any mask is placed."""

    parts: dict[tuple[str, str], list[tuple[str, str, Fill]]] = field(default_factory=lambda: defaultdict(list))
    """(exam, reader) -> (tool, source, what adds it to the sheet)."""
    rows: list[AnnotationRow] = field(default_factory=list)
    """Of what belongs to no exam of the store."""
    sources: set[str] = field(default_factory=set)

    def refuse(self, reason: str, reader: str, source: str, *, value: float | None = None, detail: str | None) -> None:
        """Add a row of something that belongs to no exam."""
        self.rows.append(
            AnnotationRow(reader=reader, source=source, status="refused", reason=reason, value=value, detail=detail)
        )


def sheet_of(exam_id: str, reader: str, parts: Iterable[tuple[str, str, Fill]], images: ExamImages) -> Sheet:
    """Everything that one reader drew on one exam."""
    sheet = Sheet(exam_id, reader, tool="", source="")
    for tool, source, add in parts:
        sheet.tool, sheet.source = tool, source
        try:
            add(images, sheet)
        except MisplacedError as error:
            sheet.note(error.reason, "refused", value=error.offset_mm, limit=error.limit_mm, detail=error.detail)
        except RefusedError as error:
            sheet.note(error.reason, "refused", detail=error.detail)
    return sheet


def source_of(path: Path) -> str:
    """First characters of the sha256 of a file; of its absence where it is not there."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:SOURCE_CHARACTERS]
    except OSError:
        return "0" * SOURCE_CHARACTERS


# -- MD.ai -------------------------------------------------------------------------------------------------------------


def gather_mdai(
    paths: Iterable[Path],
    exam_id: Callable[[str], str | None],
    pseudonyms: Pseudonyms,
    classes: ClassTable,
    readers: Mapping[str, str],
) -> Gathered:
    """Read exports of MD.ai.

    Parameters
    ----------
    exam_id : finds an exam of the store by its StudyInstanceUID
    readers : MD.ai's code of a user -> code of the reader; "" names the reader of all others, who else keep MD.ai's

    Raises
    ------
    ConfigurationError
        if MD.ai's code of a user is no code of a reader, and `readers` gives none
    """
    found = Gathered()
    exports: list[tuple[str, MdaiExport]] = []
    for path in paths:
        source = source_of(path)
        found.sources.add(source)
        try:
            export = read_mdai(path)
        except RefusedError as error:
            found.refuse(error.reason, readers.get("", "-"), source, detail=error.detail)
            continue
        if export.n_malformed:
            detail = "annotations without label, exam or image"
            found.refuse("annotation_malformed", "-", source, value=float(export.n_malformed), detail=detail)
        exports.append((source, export))
    latest = _latest(shape for _, export in exports for shape in export.shapes)
    for source, export in exports:
        _group_shapes(found, export.shapes, latest, source, exam_id, pseudonyms, classes, readers)
    return found


def _latest(shapes: Iterable[MdaiShape]) -> dict[tuple[str, ...], MdaiShape]:
    """The last version of each annotation: exports of several days lie in one folder, and hold it again and again."""
    found: dict[tuple[str, ...], MdaiShape] = {}
    for shape in shapes:
        known = found.get(_key(shape))
        if known is None or moment(shape.drawn_at) >= moment(known.drawn_at):
            found[_key(shape)] = shape
    return found


def _key(shape: MdaiShape) -> tuple[str, ...]:
    """Equal for versions of one annotation."""
    return shape.id, shape.reader, shape.instance_uid


def _group_shapes(
    found: Gathered,
    shapes: Sequence[MdaiShape],
    latest: Mapping[tuple[str, ...], MdaiShape],
    source: str,
    exam_id: Callable[[str], str | None],
    pseudonyms: Pseudonyms,
    classes: ClassTable,
    readers: Mapping[str, str],
) -> None:
    groups: defaultdict[tuple[str, str], list[MdaiShape]] = defaultdict(list)
    for shape in shapes:
        groups[shape.study_uid, _code_of(shape.reader, readers)].append(shape)
    for (study, reader), group in groups.items():
        known = exam_id(study)
        if known is None:
            found.refuse("study_unknown", reader, source, value=float(len(group)), detail=f"{len(group)} shapes")
        else:
            last = [shape for shape in group if not shape.id or latest[_key(shape)] is shape]
            part = _MdaiPart(last, len(group) - len(last), pseudonyms, classes)
            found.parts[known, reader].append((TOOL, source, part.add))


def _code_of(user: str, readers: Mapping[str, str]) -> str:
    """Code of a reader; also where nothing of theirs is taken, for their rows name it."""
    try:
        return check_reader(readers.get(user, readers.get("", user)))
    except ConfigurationError as error:
        detail = "give users of MD.ai codes with --reader ID=CODE, or all of them one with --reader CODE"
        raise ConfigurationError(f"{error}; {detail}") from error


@dataclass(frozen=True, eq=False)
class _MdaiPart:
    """Shapes of one reader on one exam."""

    shapes: Sequence[MdaiShape]
    n_superseded: int
    """Earlier versions, which are left out."""
    pseudonyms: Pseudonyms
    classes: ClassTable

    def add(self, images: ExamImages, sheet: Sheet) -> None:
        """Fill every outline on its slice."""
        unknown: defaultdict[str, int] = defaultdict(int)
        unplaced: Counter[tuple[str, str, str]] = Counter()
        if self.n_superseded:
            detail = f"{self.n_superseded} earlier versions"
            sheet.note("annotation_superseded", "refused", value=float(self.n_superseded), detail=detail)
        for shape in self.shapes:
            meaning = self.classes.meaning(shape.label)
            if meaning is None:
                unknown[shape.label] += 1
                continue
            try:
                place = self._place(images, shape)
            except RefusedError as error:
                unplaced[error.reason, meaning.array, error.detail] += 1
                continue
            if meaning.plane != place[0]:
                sheet.note("label_other_plane", "refused", place=place, array=meaning.array)
                continue
            _add_shape(images, sheet, shape, place, meaning)
        for (reason, array, detail), n in unplaced.items():
            sheet.note(reason, "refused", array=array, value=float(n), detail=f"{n} shapes: {detail}")
        _tell_unknown(sheet, unknown)

    def _place(self, images: ExamImages, shape: MdaiShape) -> Place:
        return images.place(
            self.pseudonyms.instance_id(shape.instance_uid),
            series_id=self.pseudonyms.series_id(shape.series_uid) if shape.series_uid else None,
            frame=shape.frame,
        )


def _add_shape(images: ExamImages, sheet: Sheet, shape: MdaiShape, place: Place, meaning: Meaning) -> None:
    grid = images.stack(place).geometry
    sheet.drawn_at = later(sheet.drawn_at, shape.drawn_at)
    mask = np.zeros(grid.shape, bool)
    if not meaning.empty:
        try:
            mask, doubts = _filled(shape, grid.shape)
        except RefusedError as error:
            sheet.refuse_shape(error.reason, place, meaning, detail=error.detail)
            return
        for doubt in doubts:
            sheet.note(doubt.reason, "flagged", place=place, array=meaning.array, value=doubt.value, limit=doubt.limit)
    sheet.drawings.append(Drawing(place, meaning, mask, shape.drawn_at))


def _filled(shape: MdaiShape, size: tuple[int, int]) -> tuple[Mask, list[Doubt]]:
    if not shape.has_inside:
        raise RefusedError("annotation_malformed", "a line or a place, which has no inside")
    return fill(shape.foreground, shape.background, size)


def _tell_unknown(sheet: Sheet, unknown: Mapping[str, int]) -> None:
    for label, count in unknown.items():
        sheet.note("label_unknown", "refused", value=float(count), detail=f"{count} of label {label[:SHOWN_LABEL]!r}")


# -- files with masks --------------------------------------------------------------------------------------------------


def gather_files(
    lines: Iterable[MaskLine],
    exam_id: Callable[[str], str | None],
    pseudonyms: Pseudonyms,
    classes: ClassTable,
    tool: str,
) -> Gathered:
    """Read the mask files that a table names: volumes (nifti, mha) or pictures (png).

    Parameters
    ----------
    exam_id : finds an exam of the store by its StudyInstanceUID or pseudonym
    """
    found = Gathered()
    for line in lines:
        source = source_of(line.path)
        found.sources.add(source)
        known = exam_id(line.exam)
        if known is None:
            found.refuse("study_unknown", line.reader, source, detail="1 file")
            continue
        part = _PicturePart(line, pseudonyms, classes) if tool == "png" else _VolumePart(line, classes)
        found.parts[known, line.reader].append((tool, source, part.add))
    return found


def _meaning(line: MaskLine, classes: ClassTable, value: int) -> Meaning | None:
    if line.label is not None:
        return classes.meaning(line.label)
    return (terms_table(line.array) if line.array is not None else classes).meaning(str(value))


@dataclass(frozen=True, eq=False)
class _VolumePart:
    """One volume of masks."""

    line: MaskLine
    classes: ClassTable

    def add(self, images: ExamImages, sheet: Sheet) -> None:
        """Place the volume on the stack that has its grid."""
        line = self.line
        volume = read_volume(line.path)
        stack, values = _placed(images, line, volume)
        place: Place = (stack.plane, stack.index, 0)
        said = _said_of(line, self.classes, stack.plane)
        if not values.any() and not said:
            sheet.note(
                "annotation_empty", "refused", place=(*place[:2], 0), array=line.array, detail="no voxel is drawn"
            )
            return
        arrays = _add_values(sheet, line, self.classes, values, place)
        if line.complete:
            for array in arrays | said:
                whole = Meaning(array, 0, empty=True)
                nothing = np.zeros(values.shape[1:], bool)
                sheet.drawings += [Drawing((*place[:2], k), whole, nothing, line.drawn_at) for k in range(len(values))]


def _placed(images: ExamImages, line: MaskLine, volume: MaskVolume) -> tuple[ImageStack, npt.NDArray[np.int64]]:
    """The stack whose grid a volume has, and its values there; the refusal of the nearest stack where none has it."""
    refusals: list[MisplacedError] = []
    for stack in images.exam.stacks:
        if line.plane not in (None, stack.plane) or line.stack not in (None, stack.index):
            continue
        try:
            placement = place_volume(stack.geometry, volume.affine, volume.values.shape)
        except MisplacedError as error:
            refusals.append(error)
        else:
            return stack, placement.apply(volume.values)
    if not refusals:
        raise RefusedError("slice_unknown", "the exam has no such stack")
    raise min(refusals, key=lambda error: (error.reason == "mask_grid_differs", error.offset_mm or 0.0))


@dataclass(frozen=True, eq=False)
class _PicturePart:
    """One picture of the masks of one slice."""

    line: MaskLine
    pseudonyms: Pseudonyms
    classes: ClassTable

    def add(self, images: ExamImages, sheet: Sheet) -> None:
        """Lay the picture on its slice."""
        line = self.line
        place = self._place(images)
        content = _bytes(line.path)
        lossless = content.startswith(PNG_SIGNATURE)  # OpenCV reads JPEG too, whose edges ring: a label would grow
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if lossless else None
        if picture is None or picture.ndim != 2:
            raise RefusedError("mask_unreadable", "no PNG with one value a pixel")
        shape = images.stack(place).geometry.shape
        if picture.shape != shape:
            sizes = " x ".join(map(str, picture.shape)), " x ".join(map(str, shape))
            raise RefusedError("mask_grid_differs", f"picture of {sizes[0]} pixels, slice of {sizes[1]}")
        said = _said_of(line, self.classes, place[0])
        if not picture.any() and not said:
            sheet.note("annotation_empty", "refused", place=place, array=line.array, detail="no pixel is drawn")
            return
        arrays = _add_values(sheet, line, self.classes, picture.astype(np.int64)[None], place) | said
        nothing = np.zeros(shape, bool)
        sheet.drawings += [Drawing(place, Meaning(array, 0, empty=True), nothing, line.drawn_at) for array in arrays]

    def _place(self, images: ExamImages) -> Place:
        line = self.line
        if line.instance is not None:
            return images.place(self.pseudonyms.instance_id(line.instance))
        if line.plane is None or line.slice is None:
            raise RefusedError("slice_unknown", "a picture needs the SOPInstanceUID of its slice, or plane and slice")
        place: Place = (line.plane, line.stack or 0, line.slice)
        images.stack(place)
        return place


def _said_of(line: MaskLine, classes: ClassTable, plane: Plane) -> set[str]:
    """The array of which a complete file says that there is no more than it holds, also where it holds nothing."""
    meaning = classes.meaning(line.label) if line.label is not None else None
    array = line.array or (meaning.array if meaning else None)
    return {array} if line.complete and array and ARRAY_PLANES[array] == plane else set()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RefusedError("mask_unreadable", f"the file cannot be read: {type(error).__name__}") from error


def _add_values(
    sheet: Sheet, line: MaskLine, classes: ClassTable, values: npt.NDArray[np.int64], first: Place
) -> set[str]:
    """Add each label of [slice, row, column] values, the first slice of which is `first`; returns the arrays."""
    plane, stack, start = first
    unknown: defaultdict[str, int] = defaultdict(int)
    arrays: set[str] = set()
    sheet.drawn_at = later(sheet.drawn_at, line.drawn_at)
    for value in np.unique(values[values > 0]).tolist():
        meaning = _meaning(line, classes, value)
        here = values == value
        if meaning is None:
            unknown[line.label or str(value)] += int(here.sum())
            continue
        if meaning.plane != plane:
            sheet.note("label_other_plane", "refused", place=first, array=meaning.array, value=float(here.sum()))
            continue
        arrays.add(meaning.array)
        slices = np.flatnonzero(here.any(axis=(1, 2))).tolist()
        sheet.drawings += [Drawing((plane, stack, start + k), meaning, here[k], line.drawn_at) for k in slices]
    _tell_unknown(sheet, unknown)
    return arrays


def read_paths(source: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    """A file, or the files of a folder with these suffixes, in the order of their names."""
    if source.is_file():
        yield source
        return
    yield from (path for path in sorted(source.iterdir()) if path.name.lower().endswith(tuple(suffixes)))
