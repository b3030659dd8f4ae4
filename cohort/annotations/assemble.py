"""From single shapes to one reader's annotation of an exam: whatever the format, everything passes through here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from cohort.anatomy.sides import split_sides
from cohort.annotations.classes import EITHER_SIDE, Meaning
from cohort.annotations.rows import AnnotationRow, Status
from cohort.annotations.store import LEVEL_NAMES, Annotation, Masked
from cohort.annotations.times import moment
from cohort.stacks import ImageStack, LabelledStack, Labels, Plane
from cohort.store.exam import StoredExam
from cohort.terms import MUSCLE_LABELS, SACRAL_BODY

MUSCLE_NAMES: Final = {
    **{value: f"{muscle} {side}" for (muscle, side), value in MUSCLE_LABELS.items()},
    **{value: muscle for muscle, value in EITHER_SIDE.items()},
}

Place = tuple[Plane, int, int]
"""Plane, stack, slice."""


@dataclass(frozen=True, eq=False)
class Drawing:
    """One shape on one slice: what every reader of a format makes of its file."""

    place: Place
    meaning: Meaning
    mask: npt.NDArray[np.bool_]
    """[row, column] of the slice; nothing of it is used where the meaning is that there is nothing."""
    drawn_at: str | None = None
    """ISO 8601; later shapes lie on earlier ones."""


@dataclass(eq=False)
class Sheet:
    """Everything that one reader drew on one exam, as it is gathered from one or more files."""

    exam_id: str
    reader: str
    tool: str
    source: str
    """First characters of the sha256 of the file at hand; rows name it."""
    drawings: list[Drawing] = field(default_factory=list)
    rows: list[AnnotationRow] = field(default_factory=list)
    spoiled: set[tuple[Place, str]] = field(default_factory=set)
    """Slices and arrays of which a shape was refused: what else is drawn there is not all that is there."""
    drawn_at: str | None = None

    def note(
        self,
        reason: str,
        status: Status,
        *,
        place: tuple[Plane, int, int | None] | None = None,
        array: str | None = None,
        label: str | None = None,
        value: float | None = None,
        limit: float | None = None,
        detail: str | None = None,
    ) -> None:
        """Add a row; the slice of a place is None where the whole stack is meant."""
        plane, stack, k = place or (None, None, None)
        self.rows.append(
            AnnotationRow(
                exam_id=self.exam_id, reader=self.reader, source=self.source, plane=plane, stack=stack, slice=k,
                array=array, label=label, status=status, reason=reason, value=value, limit=limit, detail=detail,
            )
        )  # fmt: skip

    def refuse_shape(
        self,
        reason: str,
        place: Place,
        meaning: Meaning,
        *,
        value: float | None = None,
        limit: float | None = None,
        detail: str | None = None,
    ) -> None:
        """Leave one shape out, and with it its slice of this array."""
        label = label_of(meaning)
        self.note(
            reason, "refused", place=place, array=meaning.array, label=label, value=value, limit=limit, detail=detail
        )
        self.spoiled.add((place, meaning.array))


def label_of(meaning: Meaning) -> str | None:
    """What rows call a structure: its level, the muscle and side, or sacrum."""
    muscle = MUSCLE_NAMES.get(meaning.value) if meaning.array == "muscle" else None
    if muscle:
        return f"{muscle} {meaning.level}" if meaning.level else muscle
    sacral = meaning.array == "vertebral_body" and meaning.value == SACRAL_BODY
    return meaning.level or ("sacrum" if sacral else None)


def assemble(exam: StoredExam, sheet: Sheet) -> Annotation:
    """Lay the shapes of a sheet over each other and say what was doubtful; rows are added to the sheet.

    A pixel that two labels of one array claim belongs to the one drawn later (`labels_overlap`, flagged); one that is
    body and disc stays both, and is told too. A slice of which a shape of an array was refused is not used for it.
    """
    layers: dict[tuple[Plane, int], _Layers] = {}
    stacks = {(stack.plane, stack.index): stack for stack in exam.stacks}
    for drawing in sorted(sheet.drawings, key=lambda one: moment(one.drawn_at)):
        plane, index, _ = drawing.place
        layer = layers.setdefault((plane, index), _Layers(stacks[plane, index]))
        if drawing.meaning.below_s1:
            label = label_of(drawing.meaning)
            sheet.note("below_s1", "refused", place=drawing.place, array=drawing.meaning.array, label=label)
        else:
            layer.add(drawing)
    for layer in layers.values():
        layer.forget(sheet)
        layer.tell_overlaps(sheet)
    labelled = [layer.labelled() for _, layer in sorted(layers.items(), reverse=True) if layer.slices]
    slices = {key: k for layer in layers.values() for key, k in layer.annotated().items()}
    levels = {key: values for layer in layers.values() for key, values in layer.levels().items()}
    return Annotation(sheet.exam_id, sheet.reader, sheet.drawn_at, sheet.tool, labelled, slices, levels)


class _Layers:
    """Shapes over each other on one stack: each pixel of each array knows which of them it belongs to."""

    def __init__(self, stack: ImageStack) -> None:
        self._stack = stack
        self.slices: dict[str, set[int]] = {}
        """Array -> annotated slices."""
        self._owner: dict[str, npt.NDArray[np.uint8]] = {}
        """Array -> 1 + index into its kinds; 0 belongs to nobody."""
        self._kinds: dict[str, list[Meaning]] = {}
        self._overlaps: dict[tuple[int, frozenset[Meaning]], int] = {}

    def add(self, drawing: Drawing) -> None:
        """Lay a shape over those before it."""
        meaning, k = drawing.meaning, drawing.place[2]
        self.slices.setdefault(meaning.array, set()).add(k)
        owner = self._owner.setdefault(meaning.array, np.zeros(self._stack.image.shape, np.uint8))[k]
        kinds = self._kinds.setdefault(meaning.array, [])
        if meaning.empty:
            return
        if meaning not in kinds:
            kinds.append(meaning)
        number = 1 + kinds.index(meaning)
        for other in np.unique(owner[drawing.mask & (owner > 0) & (owner != number)]).tolist():
            pair = (k, frozenset((meaning, kinds[other - 1])))
            taken = int(np.count_nonzero(drawing.mask & (owner == other)))
            self._overlaps[pair] = self._overlaps.get(pair, 0) + taken
        owner[drawing.mask] = number

    def forget(self, sheet: Sheet) -> None:
        """Take away what is drawn on slices of which a shape was refused."""
        here = (self._stack.plane, self._stack.index)
        for place, array in sorted(sheet.spoiled):
            if place[:2] == here and place[2] in self.slices.get(array, ()):
                sheet.note("slice_in_doubt", "refused", place=place, array=array)
                self.slices[array].discard(place[2])
                self._owner[array][place[2]] = 0
        self.slices = {array: slices for array, slices in self.slices.items() if slices}

    def tell_overlaps(self, sheet: Sheet) -> None:
        """One row for each slice and pair of labels of one array, and for each slice of pixels of two arrays."""
        here = (self._stack.plane, self._stack.index)
        for (k, pair), count in self._overlaps.items():
            array = min(meaning.array for meaning in pair)
            names = " and ".join(sorted(label_of(meaning) or meaning.array for meaning in pair))
            if k in self.slices.get(array, ()):
                _note_overlap(sheet, (*here, k), array, names, count)
        if {"vertebral_body", "disc"} <= set(self.slices):
            both = (self._owner["vertebral_body"] > 0) & (self._owner["disc"] > 0)
            for k in np.flatnonzero(both.any(axis=(1, 2))).tolist():
                _note_overlap(sheet, (*here, k), None, "vertebral_body and disc", int(both[k].sum()))

    def labelled(self) -> LabelledStack:
        """The stack with its masks."""
        masks = {name: self._mapped(name, _value) for name in sorted(self.slices)}
        if "muscle" in masks:
            masks["muscle"] = self._with_sides(masks["muscle"])
        return LabelledStack(self._stack, masks, {})

    def _with_sides(self, muscle: Labels) -> Labels:
        """Muscles whose labels name no side, divided by the plane about which they mirror each other."""
        without = np.isin(muscle, list(EITHER_SIDE.values()))
        if not without.any():
            return muscle
        classes = np.where(without, muscle - (min(EITHER_SIDE.values()) - 1), 0).astype(np.uint8)
        return np.where(without, split_sides(classes, self._stack.geometry), muscle).astype(np.uint8)

    def annotated(self) -> dict[Masked, tuple[int, ...]]:
        """The slices of each mask."""
        stack = self._stack
        return {(stack.plane, stack.index, name): tuple(sorted(slices)) for name, slices in self.slices.items()}

    def levels(self) -> dict[Masked, npt.NDArray[np.uint8]]:
        """Level arrays of masks with named levels."""
        found = {(self._stack.plane, self._stack.index, name): self._mapped(name, _level) for name in self.slices}
        return {key: values for key, values in found.items() if values.any()}

    def _mapped(self, array: str, number: Callable[[Meaning], int]) -> npt.NDArray[np.uint8]:
        return np.array([0, *map(number, self._kinds[array])], np.uint8)[self._owner[array]]


def _note_overlap(sheet: Sheet, place: Place, array: str | None, names: str, count: int) -> None:
    detail = f"{count} pixels"
    sheet.note(
        "labels_overlap", "flagged", place=place, array=array, label=names, value=float(count), limit=0.0, detail=detail
    )


def _value(meaning: Meaning) -> int:
    return meaning.value


def _level(meaning: Meaning) -> int:
    return 0 if meaning.level is None else 1 + LEVEL_NAMES.index(meaning.level)
