"""What readers drew on exams of a store, as training slices: those that they looked at, and what is known there.

A reader draws on some slices of an exam; the others teach nothing. Nor is all that a reader left empty known to be
empty: a structure that is drawn on a neighbouring slice and not on this one may have been left out here, bodies that
are cut by the image's upper edge are not drawn, nor is anything below S1. So every class has a mask of known pixels,
as in `models.training.annotated`, and the loss looks only there. These rules are our own choice; where a reader drew
nothing at all on a slice that he is said to have looked at, all of it is known to be empty.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from cohort.anatomy.orientation import standing_order
from cohort.annotations.store import Annotation, read_annotation, readers_of
from cohort.errors import ConfigurationError, RefusedError
from cohort.stacks import LabelledStack
from cohort.store.exam import read_exam
from cohort.terms import DISC, MUSCLE_LABELS, MUSCLES, SACRAL_BODY, VERTEBRAL_BODY
from models.inference import network_size
from models.preprocessing import normalise
from models.training.annotated import Mask, centred
from models.training.config import TrainingConfig

Values = npt.NDArray[np.uint8]

ARRAY_OF_CLASS: Final = {
    "vertebral_body": "vertebral_body",
    "sacral_body": "vertebral_body",
    "disc": "disc",
    **dict.fromkeys(MUSCLES, "muscle"),
}
"""Class of a network -> label array that holds it."""


@dataclass(frozen=True)
class ExamSource:
    """Where an annotated exam is."""

    exam_id: str
    subject_id: str
    path: Path
    """Its exam store."""


@dataclass(frozen=True, eq=False)
class DrawnSlices:
    """Normalised slices on one grid with the masks of their readers; a `models.training.annotated.RealSlices`."""

    images: npt.NDArray[np.float16]
    """[n, row, column]."""
    masks: Values
    """[n, class, row, column] 0 or 1."""
    known: Values
    """[n, class, row, column] 1 where the mask is known."""
    classes: tuple[str, ...]
    patients: tuple[str, ...]
    """Subject of each slice."""
    exams: tuple[str, ...]
    """Exam of each slice."""
    readers: tuple[str, ...]
    """Code of the reader of each slice."""
    regions: None = None
    """They keep their contrast: it is what the network will see."""

    @property
    def described(self) -> str:
        """How many there are, in words."""
        by = ", ".join(f"{reader} {n}" for reader, n in sorted(Counter(self.readers).items()))
        n_exams, n_patients = len(set(self.exams)), len(set(self.patients))
        return f"{len(self.images)} slices of {n_exams} exams of {n_patients} patients (by reader: {by})"

    @property
    def content(self) -> tuple[npt.NDArray[Any], ...]:
        """All arrays that a training depends on."""
        return self.images, self.masks, self.known, np.array(self.patients, "U")

    def targets(self, classes: tuple[str, ...]) -> tuple[Values, Values]:
        """Masks and known pixels, each [n, class, row, column] 0 or 1."""
        index = [self.classes.index(name) for name in classes]
        return self.masks[:, index], self.known[:, index]

    def take(self, index: npt.NDArray[np.int64]) -> DrawnSlices:
        """Some of the slices."""
        patients, exams, readers = (tuple(one[k] for k in index) for one in (self.patients, self.exams, self.readers))
        arrays = self.images[index], self.masks[index], self.known[index]
        return DrawnSlices(*arrays, self.classes, patients, exams, readers)


@dataclass(frozen=True, eq=False)
class _Slice:
    image: npt.NDArray[np.float16]
    masks: Values
    known: Values


def array_of(classes: Sequence[str]) -> str:
    """The label array that holds all classes of a network.

    Raises
    ------
    ConfigurationError
        if there is none: readers draw bodies, discs and muscles by themselves, and splits divide patients by that
    """
    found = {ARRAY_OF_CLASS[name] for name in classes}
    if len(found) > 1:
        raise ConfigurationError(f"classes {list(classes)} are of the annotations {sorted(found)}: train one of them")
    return found.pop()


def read_drawn(
    store: Path, exams: Sequence[ExamSource], config: TrainingConfig, report: Callable[[str], None]
) -> DrawnSlices:
    """Slices of these exams, and of no other, as the network of a configuration is given them.

    All persons' drawings count: a slice that two readers drew on is two slices. An exam whose images the network could
    not be given is left out with a line of `report`.

    Raises
    ------
    ConfigurationError
        if no slice is left
    StoreError
        if an exam or an annotation is damaged, or they do not fit
    """
    name = array_of(config.classes)
    found: list[tuple[_Slice, ExamSource, str]] = []
    for exam in exams:
        try:
            found += [(one, exam, reader) for reader, one in _of_exam(store, exam, name, config)]
        except RefusedError as error:
            report(f"{config.name}: exam {exam.exam_id} is left out: {error}")
    if not found:
        raise ConfigurationError(f"none of {len(exams)} exams has slices with {name} that a reader drew on")
    slices, sources, readers = zip(*found, strict=True)
    return DrawnSlices(
        images=np.stack([one.image for one in slices]),
        masks=np.stack([one.masks for one in slices]),
        known=np.stack([one.known for one in slices]),
        classes=config.classes,
        patients=tuple(source.subject_id for source in sources),
        exams=tuple(source.exam_id for source in sources),
        readers=readers,
    )


def _of_exam(store: Path, source: ExamSource, name: str, config: TrainingConfig) -> Iterator[tuple[str, _Slice]]:
    exam = read_exam(source.path)
    for reader in readers_of(store, source.exam_id):
        annotation = read_annotation(store, exam, source.exam_id, reader)
        for one in annotation.labelled:
            if name in one.labels and one.stack.plane == config.plane:
                yield from ((reader, slice_) for slice_ in _of_stack(annotation, one, name, config))


def _of_stack(annotation: Annotation, labelled: LabelledStack, name: str, config: TrainingConfig) -> Iterator[_Slice]:
    stack = labelled.stack
    drawn = annotation.slices[stack.plane, stack.index, name]
    if not drawn:
        return
    orientation = standing_order(stack.geometry, stack.plane)
    size = network_size(stack, config)
    native = np.zeros(len(stack.image), bool)
    native[list(drawn)] = True
    looked_at = np.flatnonzero(native[::-1] if orientation.flip[0] else native)
    images, labels = orientation.apply(stack.image)[looked_at], orientation.apply(labelled.labels[name])[looked_at]
    for k, image in enumerate(images):
        targets = [target(labels, k, class_name) for class_name in config.classes]
        grid = _Grid.around(labels[k] > 0, size, config.size_px)
        masks, known = (np.stack([grid.mask(mask) for mask in part]) for part in zip(*targets, strict=True))
        yield _Slice(grid.image(image), masks, known)


@dataclass(frozen=True)
class _Grid:
    """Where a slice is laid: resampled to a size, then on a square, the middle of what is drawn in its middle as far as
    the picture reaches; beyond the picture there is nothing, and nothing is known."""

    size: tuple[int, int]
    """Rows, columns at the network's spacing."""
    side: int
    window: tuple[slice, slice]

    @classmethod
    def around(cls, drawn: Mask, size: tuple[int, int], side: int) -> _Grid:
        """For a slice with this drawn on it, [row, column] on the native grid; around its own middle if nothing is."""
        rows, columns = (_window(np.asarray(drawn.any(axis=1 - axis)), size[axis], side) for axis in (0, 1))
        return cls(size, side, (rows, columns))

    def mask(self, mask: Mask) -> Values:
        """[side, side] by nearest neighbour."""
        whole = cv2.resize(mask.astype(np.uint8), self.size[::-1], interpolation=cv2.INTER_NEAREST)
        return centred(whole[self.window], self.side)

    def image(self, image: npt.NDArray[np.uint16]) -> npt.NDArray[np.float16]:
        """[side, side] normalised, mean over the area of a pixel."""
        whole = cv2.resize(normalise(image), self.size[::-1], interpolation=cv2.INTER_AREA)
        return np.asarray(centred(whole[self.window], self.side), dtype=np.float16)


def _window(drawn: npt.NDArray[np.bool_], n: int, side: int) -> slice:
    """At most `side` of n pixels, around the middle of what is drawn along a native axis."""
    found = np.flatnonzero(drawn)
    middle = (found[0] + found[-1] + 1) / 2 / len(drawn) * n if len(found) else n / 2
    first = int(np.clip(round(middle - side / 2), 0, max(n - side, 0)))
    return slice(first, first + side)


# -- what is known -----------------------------------------------------------------------------------------------------


def target(labels: Values, k: int, name: str) -> tuple[Mask, Mask]:
    """Mask of one class on slice k, and where it is known.

    Parameters
    ----------
    labels : [slice, row, column] in standing order, values of `cohort.terms`; the slices that one reader looked at
    """
    if name in MUSCLES:
        return _muscle(labels[k], name)
    value = {"vertebral_body": VERTEBRAL_BODY, "sacral_body": SACRAL_BODY, "disc": DISC}[name]
    mask = labels[k] == value
    known = _below_the_top(labels[k]) & ~_left_out(labels, k)
    if name == "sacral_body" and labels[k].any():
        known &= _sacrum_known(labels[k])
    return mask, known


def _below_the_top(values: Values) -> Mask:
    """Rows from the topmost labelled one on: a body or a disc that the upper edge cuts is not drawn."""
    rows = np.arange(len(values))[:, None] >= int(np.argmax(values.any(axis=1)))
    return np.asarray(np.broadcast_to(rows, values.shape))


def _left_out(labels: Values, k: int) -> Mask:
    """Where other slices show a structure of which this one has nothing, though it has others: it ends before this
    slice, or the reader drew it on its middle slices alone."""
    if not labels[k].any():
        return np.zeros(labels[k].shape, bool)
    _, pieces = cv2.connectedComponents(labels.any(axis=0).astype(np.uint8))
    return np.asarray((pieces > 0) & ~np.isin(pieces, pieces[labels[k] > 0]))


def _sacrum_known(values: Values) -> Mask:
    """Down to the lowest row of what is drawn of the sacrum, below which S2 is not drawn; where no sacrum is drawn, on
    other bodies alone."""
    rows = np.flatnonzero((values == SACRAL_BODY).any(axis=1))
    if not len(rows):
        return np.asarray(values > 0)
    return np.asarray(np.broadcast_to(np.arange(len(values))[:, None] <= rows[-1], values.shape))


def _muscle(values: Values, name: str) -> tuple[Mask, Mask]:
    """Both sides alike. A muscle that is not drawn beside others is not known to be absent; where one side of it is
    drawn, all is known from its medial edge outwards."""
    right, left = (values == MUSCLE_LABELS[name, side] for side in ("right", "left"))
    known = np.full(values.shape, not values.any())
    if right.any() and left.any():
        known[:] = True
    elif left.any():  # on the right of the image in standing order
        known[:, int(np.argmax(left.any(axis=0))) :] = True
    elif right.any():
        known[:, : int(np.flatnonzero(right.any(axis=0))[-1]) + 1] = True
    return np.asarray(right | left), known
