"""Score the measurements of one exam against its truth. Rows find their structure by place, never by name."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from cohort.agreement.overlap import dice
from cohort.anatomy.levels import CONFIDENT
from cohort.anatomy.measure import Measurements, measure_exam
from cohort.anatomy.sides import split_sides
from cohort.geometry import StackGeometry
from cohort.rows import DiscRow, VertebraRow
from cohort.stacks import ImageStack, LabelledStack, Labels, Plane
from models.phantom.study import StudyExam
from models.phantom.study_masks import DrawnExam, StudyMasks, draw_exam
from models.phantom.truth import TrueStructure

MIN_OVERLAP: Final = 0.2
"""Share of a row's voxels that must lie in a true structure for the row to be its."""
NAMED_IN_VIEW: Final = 0.5
WHOLE_IN_VIEW: Final = 0.99
"""Structures seen less than this have no true centroid or volume in the stack, or no true shape in the picture."""
SLICE_TOLERANCE_MM: Final = 0.5
"""A slice so much farther from a disc than the best one is as good: about the error of the disc's centroid."""

Kind = Literal["vertebra", "disc"]
Outcome = Literal["right", "refused", "wrong", "missed"]


@dataclass(frozen=True)
class ScoredStructure:
    """A true vertebra or disc, and what was measured of it."""

    kind: Kind
    name: str
    counted_name: str
    in_view: float
    found: bool
    answer: str | None = None
    confidence: float = 0.0
    centroid_error_mm: float | None = None
    errors: Mapping[str, float] = field(default_factory=dict)
    """Column -> measured less true; of `volume_cm3` in per cent."""

    @property
    def outcome(self) -> Outcome:
        """What became of its name."""
        if not self.found:
            return "missed"
        if self.answer is None:
            return "refused"
        return "right" if self.answer == self.name else "wrong"

    @property
    def wrong_confident(self) -> bool:
        return self.outcome == "wrong" and self.confidence >= CONFIDENT


@dataclass(frozen=True)
class ScoredArea:
    """A muscle on one axial slice."""

    muscle: str
    true_cm2: float
    error_pct: float | None
    """Measured less true; None where not found."""


@dataclass(frozen=True)
class ScoredLevel:
    """The axial slice that was chosen for the muscles at a disc."""

    right_slice: bool
    """As near to the disc's true centroid as any, or within half a slice distance of it."""
    angle_error_deg: float
    """Angle between slice and disc, measured less true."""


@dataclass(frozen=True)
class ScoredExam:
    """One exam measured on one kind of masks."""

    number: int
    conditions: tuple[str, ...]
    complete: bool
    faults: tuple[str, ...]
    dice: Mapping[str, float]
    """Against the true masks, by structure."""
    structures: tuple[ScoredStructure, ...]
    extra: int
    """Rows that are no true structure, or a second part of one."""
    curvature_errors: Mapping[str, float]
    """Column of `CurvatureRow` -> measured less true."""
    areas: tuple[ScoredArea, ...]
    levels: tuple[ScoredLevel, ...]
    sides: tuple[int, int]
    """Muscles on slices that lie on the right, and on the wrong side."""
    flags: tuple[str, ...]
    seconds: float
    """Processor time of measuring."""

    @property
    def named(self) -> list[ScoredStructure]:
        """Structures of which at least half is in view."""
        return [one for one in self.structures if one.in_view >= NAMED_IN_VIEW]

    @property
    def all_right(self) -> bool:
        return all(one.outcome == "right" for one in self.named)


def score_exam(exam: StudyExam) -> tuple[ScoredExam, ScoredExam]:
    """Draw one exam of the study and score it on true and on degraded masks."""
    return score_drawn(draw_exam(exam))


def score_drawn(drawn: DrawnExam) -> tuple[ScoredExam, ScoredExam]:
    """Score an exam that is drawn already."""
    return _scored(drawn, drawn.true_masks), _scored(drawn, drawn.degraded)


def study_stacks(drawn: DrawnExam, masks: StudyMasks) -> tuple[LabelledStack, list[LabelledStack]]:
    """The sagittal stack and the axial ones, as a run would pass them to `measure_exam`.

    Axes are in the order that the exam stores. Sides of muscles are found from their classes, as after the network.
    """
    order, axial_order = drawn.exam.acquisition.order, drawn.exam.acquisition.axial_order
    spine = {"vertebral_body": order.apply(masks.spine.bodies), "disc": order.apply(masks.spine.discs)}
    axial = []
    for k, (muscles, grid) in enumerate(zip(masks.muscles, drawn.axial, strict=True)):
        stored, geometry = axial_order.apply(muscles), axial_order.geometry(grid)
        sides = split_sides(np.asarray((stored + 1) // 2, dtype=np.uint8), geometry)
        axial.append(_stack("axial", k, {"muscle": sides}, geometry))
    return _stack("sagittal", 0, spine, order.geometry(drawn.sagittal)), axial


def _stack(plane: Plane, index: int, labels: Mapping[str, Labels], geometry: StackGeometry) -> LabelledStack:
    # Without pixels there is no lean fraction; nothing that is scored here depends on it.
    image = np.zeros(next(iter(labels.values())).shape, np.uint16)
    return LabelledStack(ImageStack(plane, index, image, geometry, "phantom"), labels, {})


def measure_study_exam(exam: StudyExam, sagittal: LabelledStack, axial: Sequence[LabelledStack]) -> Measurements:
    """The one place that says what is told of an exam: its masks, and of half of them the number of vertebrae."""
    n_lumbar = exam.plan.n_lumbar if exam.count_known else None
    return measure_exam(f"study-{exam.number}", sagittal, axial, n_lumbar=n_lumbar)


def _scored(drawn: DrawnExam, masks: StudyMasks) -> ScoredExam:
    sagittal, axial = study_stacks(drawn, masks)
    started = time.process_time()
    found = measure_study_exam(drawn.exam, sagittal, axial)
    seconds = time.process_time() - started
    vertebra_owner, disc_owner = (_owners_of(drawn, found, kind) for kind in ("vertebra", "disc"))
    truth = drawn.truth
    vertebrae = [_structure("vertebra", one, found.vertebrae, vertebra_owner) for one in truth.bodies]
    discs = [_structure("disc", one, found.discs, disc_owner) for one in truth.discs]
    return ScoredExam(
        number=drawn.exam.number,
        conditions=drawn.exam.conditions,
        complete=truth.complete,
        faults=masks.spine.faults,
        dice=_dice(drawn, masks),
        structures=(*vertebrae, *discs),
        extra=len(found.vertebrae) + len(found.discs) - sum(one.found for one in (*vertebrae, *discs)),
        curvature_errors=_errors(found.curvature, truth.curvature) if found.curvature else {},
        areas=tuple(_areas(drawn, found)),
        levels=tuple(_levels(drawn, found, disc_owner)),
        sides=_sides(drawn, found),
        flags=tuple(dict.fromkeys(row.reason for row in found.quality)),
        seconds=seconds,
    )


def _errors(row: object, true: Mapping[str, float]) -> dict[str, float]:
    """Measured less true, of what was measured."""
    pairs = {column: (getattr(row, column), value) for column, value in true.items()}
    return {column: measured - value for column, (measured, value) in pairs.items() if measured is not None}


def _dice(drawn: DrawnExam, masks: StudyMasks) -> dict[str, float]:
    true = drawn.true_masks
    scores = {
        "vertebral_body": dice(masks.spine.bodies > 0, true.spine.bodies > 0),
        "disc": dice(masks.spine.discs > 0, true.spine.discs > 0),
    }
    if masks.muscles:
        flat = [np.concatenate([one.ravel() for one in part]) for part in (masks.muscles, true.muscles)]
        scores["muscle"] = dice(*(one > 0 for one in flat))
    return scores


def _owners_of(drawn: DrawnExam, found: Measurements, kind: Kind) -> dict[int, int]:
    """True value -> index of its row."""
    if found.sagittal is None:
        return {}
    name, true, n_rows = {
        "vertebra": ("body_instances", drawn.bodies, len(found.vertebrae)),
        "disc": ("disc_instances", drawn.discs, len(found.discs)),
    }[kind]
    return _owners(found.sagittal.labels[name], drawn.exam.acquisition.order.apply(true), n_rows)


def _owners(instances: Labels, places: Labels, n_rows: int) -> dict[int, int]:
    """True value -> index of the row that has most of its voxels there."""
    common = np.bincount(instances.ravel().astype(np.int64) * 256 + places.ravel(), minlength=256 * (n_rows + 1))
    table = common.reshape(-1, 256)[: n_rows + 1]
    owner: dict[int, int] = {}
    for row in sorted(range(1, n_rows + 1), key=lambda row: -int(table[row, 1:].max())):
        value = int(np.argmax(table[row, 1:])) + 1
        if table[row, value] >= MIN_OVERLAP * table[row].sum() and value not in owner:
            owner[value] = row - 1
    return owner


def _structure(
    kind: Kind, true: TrueStructure, rows: Sequence[VertebraRow] | Sequence[DiscRow], owner: Mapping[int, int]
) -> ScoredStructure:
    if true.value not in owner:
        return ScoredStructure(kind, true.name, true.counted_name, true.in_view, found=False)
    row = rows[owner[true.value]]
    errors = _errors(row, true.numbers)
    off = float(np.linalg.norm(np.array([row.x_mm, row.y_mm, row.z_mm]) - true.centroid_mm))
    volume = errors.pop("volume_cm3", None)
    if true.in_picture < WHOLE_IN_VIEW:  # shapes are those of one slice: they need no more
        errors = {}
    whole = true.in_view >= WHOLE_IN_VIEW
    if whole and volume is not None:
        errors["volume_cm3"] = 100 * volume / true.numbers["volume_cm3"]
    return ScoredStructure(
        kind,
        true.name,
        true.counted_name,
        true.in_view,
        found=True,
        answer=row.level,
        confidence=row.level_confidence,
        centroid_error_mm=off if whole else None,
        errors=errors,
    )


def _areas(drawn: DrawnExam, found: Measurements) -> list[ScoredArea]:
    order = drawn.exam.acquisition.axial_order
    measured = {(row.stack, row.slice, row.muscle, row.side): row.csa_cm2 for row in found.muscles}
    return [
        ScoredArea(muscle, true, None if area is None else 100 * (area - true) / true)
        for (stack, k), areas in drawn.areas_cm2.items()
        for stored in [order.native_slice(k, n_slices=drawn.axial[stack].n_slices)]
        for (muscle, side), true in areas.items()
        for area in [measured.get((stack, stored, muscle, side))]
    ]


def _levels(drawn: DrawnExam, found: Measurements, owner: Mapping[int, int]) -> list[ScoredLevel]:
    """Every true disc, at least half of it in view, at which muscles were measured."""
    order = drawn.exam.acquisition.axial_order
    chosen = {row.level: row for row in found.muscle_levels}
    levels = []
    for true in drawn.truth.discs:
        disc = found.discs[owner[true.value]] if true.value in owner else None
        row = chosen.get(disc.level or f"disc-{disc.ordinal}") if disc else None
        if row is not None and true.normal is not None and true.in_view >= NAMED_IN_VIEW:
            geometry = drawn.axial[row.stack]
            k = order.native_slice(row.slice, n_slices=geometry.n_slices)
            far = [np.abs((true.centroid_mm - one.position_mm) @ one.normal) for one in drawn.axial]
            best = max(min(one.min() for one in far), abs(geometry.slice_gap_mm) / 2)
            angle = np.degrees(np.arccos(min(abs(true.normal @ geometry.normal), 1.0)))
            right = bool(far[row.stack][k] <= best + SLICE_TOLERANCE_MM)
            levels.append(ScoredLevel(right, row.angle_deg - float(angle)))
    return levels


def _sides(drawn: DrawnExam, found: Measurements) -> tuple[int, int]:
    """Muscles on slices whose mask has most of its true voxels' side, and those that have most of the other's."""
    right = wrong = 0
    for stack, true in zip(found.axial, drawn.true_masks.muscles, strict=True):
        stored = drawn.exam.acquisition.axial_order.apply(true)
        for plane, true_plane in zip(stack.labels["muscle"], stored, strict=True):
            common = np.bincount(plane.ravel().astype(np.int64) * 9 + true_plane.ravel(), minlength=81).reshape(9, 9)
            for value in range(1, 9):
                other = value + 1 if value % 2 else value - 1
                right += int(common[value, value] > common[other, value])
                wrong += int(common[value, value] < common[other, value])
    return right, wrong
