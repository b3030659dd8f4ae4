"""What is true of two readers who drew on a phantom exam, in the quantities and units of the tables of agreement.

Counted on the outlines as they were before there were pixels (`Drawing.lattice`), by means of its own: nothing that
measures masks is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cohort.geometry import StackGeometry
from cohort.stacks import Plane
from cohort.terms import MUSCLE_LABELS, MUSCLES, SIDES
from models.phantom.bodies import Disc
from models.phantom.exam import PhantomExam
from models.phantom.outlines import Section
from models.phantom.readers import Drawing, looked_at
from models.phantom.truth import mid_plane_normal
from models.phantom.vertebral_column import disc_centre

Mask = npt.NDArray[np.bool_]

FARTHEST_MM: Final = 5.0
"""An axial slice may lie its thickness and this away from the disc that its muscles are given for, as the tables have
it; else there is no area."""


@dataclass(frozen=True)
class TrueShift:
    """How far outside the true outlines of a structure a reader's lie."""

    exam: int
    """Seed of its plan."""
    reader: str
    plane: Plane
    stack: int
    label: str
    shift_mm: float


@dataclass(frozen=True)
class TruePair:
    """A quantity of a structure, true of the outlines of both readers."""

    exam: int
    """Seed of its plan."""
    quantity: str
    """disc_height_mm or csa_cm2."""
    level: str
    muscle: str
    """Empty for discs, as `side`."""
    side: str
    first: float
    second: float


@dataclass(frozen=True)
class TrueOverlap:
    """How the outlines of one structure overlap, on all slices that both readers drew on."""

    exam: int
    kind: str
    """vertebral_body, disc or muscle."""
    structure: str
    """L4, L4-L5, erector_spinae left, erector_spinae (both sides), or all."""
    dice: float
    area_first_cm2: float
    """Sum over slices."""
    area_second_cm2: float


@dataclass
class KnownTruth:
    """What is true of two readers, of one exam or of several."""

    shifts: list[TrueShift] = field(default_factory=list)
    pairs: list[TruePair] = field(default_factory=list)
    """Disc heights, and muscle areas at discs."""
    overlaps: list[TrueOverlap] = field(default_factory=list)
    """Of every structure that both readers drew."""

    def extend(self, other: KnownTruth) -> None:
        """Take in what is true of more exams."""
        self.shifts += other.shifts
        self.pairs += other.pairs
        self.overlaps += other.overlaps


@dataclass(frozen=True)
class _Overlap:
    """Points of the lattice in a structure on one slice."""

    kind: str
    structure: str
    first: int
    second: int
    both: int
    point_cm2: float


class ReaderTruth:
    """Gathers what is true of an exam from the drawings of its slices, in any order.

    Parameters
    ----------
    exam : the discs' places say which slice heights and areas are read on
    """

    def __init__(self, exam: PhantomExam) -> None:
        self._exam = exam
        self._shifts: dict[TrueShift, None] = {}
        self._overlaps: list[_Overlap] = []
        self._pairs: list[TruePair] = []
        self._discs_on = _discs_on_slices(exam)

    def add(self, first: Drawing, second: Drawing) -> None:
        """Take in what both drew of one array on one slice; of what one of them left empty only the shifts."""
        for drawing in (first, second):
            self._shifts |= dict.fromkeys(_shifts(self._exam.plan.seed, drawing))
        if not (first.pixels.any() and second.pixels.any()):
            return
        self._overlaps += _overlaps(first, second)
        section = first.section
        for disc in self._discs_on.get((section.plane, section.stack, section.slice), ()):
            self._pairs += self._heights(disc, first, second) if section.array == "disc" else []
            self._pairs += self._areas(disc, first, second) if section.array == "muscle" else []

    @property
    def known(self) -> KnownTruth:
        """Of all that was added."""
        groups: dict[tuple[str, str], list[_Overlap]] = {}
        for one in self._overlaps:
            groups.setdefault((one.kind, one.structure), []).append(one)
        overlaps = [_whole(self._exam.plan.seed, group) for group in groups.values()]
        return KnownTruth(list(self._shifts), list(self._pairs), [one for one in overlaps if one is not None])

    def _heights(self, disc: Disc, first: Drawing, second: Drawing) -> Iterator[TruePair]:
        value = first.section.names.index(disc.name) + 1
        masks = [drawing.lattice == value for drawing in (first, second)]
        if all(mask.any() for mask in masks):
            heights = [rectangle_height(mask) * first.section.lattice_mm for mask in masks]
            yield TruePair(self._exam.plan.seed, "disc_height_mm", disc.name, "", "", *heights)

    def _areas(self, disc: Disc, first: Drawing, second: Drawing) -> Iterator[TruePair]:
        """As seen along the disc's plane: the area times the cosine of the angle between slice and disc."""
        grid = self._exam.axial[first.section.stack]
        cosine = abs(float(mid_plane_normal(self._exam.anatomy, disc) @ grid.normal))
        point_cm2 = first.section.lattice_mm**2 / 100 * cosine
        for (muscle, side), value in MUSCLE_LABELS.items():
            areas = [filled_points(drawing.lattice == value) * point_cm2 for drawing in (first, second)]
            if all(areas):
                yield TruePair(self._exam.plan.seed, "csa_cm2", disc.name, muscle, side, *areas)


def _shifts(exam: int, drawing: Drawing) -> Iterator[TrueShift]:
    section = drawing.section
    for value, (label, shift) in enumerate(zip(section.names, drawing.shifts_mm, strict=True), start=1):
        if np.any(drawing.pixels == value):
            yield TrueShift(exam, drawing.reader.code, section.plane, section.stack, label, round(shift, 4))


def rectangle_height(mask: Mask) -> float:
    """Shorter side, in steps, of the rectangle of least area around the largest piece of a mask [row, column]: the
    height of a disc as Hess et al. (2023) define it."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return float(min(cv2.minAreaRect(max(outlines, key=cv2.contourArea))[1])) + 1


def filled_points(mask: Mask) -> int:
    """Points of a mask [row, column] and of its holes: the area of a muscle is that inside its outline."""
    if not mask.any():
        return 0
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    return int(np.count_nonzero(ndimage.binary_fill_holes(mask[box])))


def _discs_on_slices(exam: PhantomExam) -> dict[tuple[str, int, int], list[Disc]]:
    """(plane, stack, slice) that readers look at -> discs that are read on it: on the sagittal and on the axial slice
    that is nearest to their centre."""
    found: dict[tuple[str, int, int], list[Disc]] = {}
    slices = list(looked_at(exam))
    for disc in exam.anatomy.discs:
        centre = disc_centre(exam.anatomy, disc)
        for plane in ("sagittal", "axial"):
            away = {at: _away_mm(_grid(exam, *at[:2]), at[2], centre) for at in slices if at[0] == plane}
            nearest = min(away, key=away.__getitem__, default=None)
            if nearest and away[nearest] <= _grid(exam, *nearest[:2]).thickness_mm + FARTHEST_MM:
                found.setdefault(nearest, []).append(disc)
    return found


def _grid(exam: PhantomExam, plane: str, stack: int) -> StackGeometry:
    return exam.sagittal if plane == "sagittal" else exam.axial[stack]


def _away_mm(grid: StackGeometry, k: int, point_mm: npt.NDArray[np.float64]) -> float:
    return abs(float((point_mm - grid.position_mm[k]) @ grid.normal))


def _overlaps(first: Drawing, second: Drawing) -> Iterator[_Overlap]:
    """Of everything, of each structure, and of muscles of both sides."""
    kind, point_cm2 = first.section.array, first.section.lattice_mm**2 / 100
    joint = _joint_counts(first.lattice, second.lattice, len(first.section.names) + 1)
    for structure, chosen in _groups(first.section).items():
        n_first, n_second = int(joint[chosen].sum()), int(joint[:, chosen].sum())
        if n_first or n_second:
            yield _Overlap(kind, structure, n_first, n_second, int(joint[np.ix_(chosen, chosen)].sum()), point_cm2)


def _groups(section: Section) -> dict[str, list[int]]:
    """Structure, as the tables name it -> its values."""
    everything = {"all": list(range(1, len(section.names) + 1))}
    if section.array != "muscle":
        return everything | {name: [value] for value, name in enumerate(section.names, start=1)}
    both_sides = {muscle: [MUSCLE_LABELS[muscle, side] for side in SIDES] for muscle in MUSCLES}
    return everything | both_sides | {f"{muscle} {side}": [value] for (muscle, side), value in MUSCLE_LABELS.items()}


def _joint_counts(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8], n: int) -> npt.NDArray[np.int64]:
    """[value of the first, value of the second] points."""
    joint = first.astype(np.int64) * n + second
    return np.bincount(joint.ravel(), minlength=n * n).reshape(n, n)


def _whole(exam: int, slices: Sequence[_Overlap]) -> TrueOverlap | None:
    """The slices of a structure together; None where one of the readers has none of it."""
    first, second, both = (
        float(sum(getattr(one, name) * one.point_cm2 for one in slices)) for name in ("first", "second", "both")
    )
    if not (first and second):
        return None
    return TrueOverlap(exam, slices[0].kind, slices[0].structure, 2 * both / (first + second), first, second)
