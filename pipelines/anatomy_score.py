"""Score the measurements of one exam against its truth. Rows find their structure by place, never by name."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cohort.agreement.overlap import dice
from cohort.anatomy.measure import Measurements, measure_exam
from cohort.anatomy.spine import measure_spine
from cohort.geometry import StackGeometry
from cohort.rows import DiscRow, VertebraRow
from cohort.stacks import ImageStack, LabelledStack, Labels, Plane
from cohort.terms import SACRAL_BODY, VERTEBRAL_BODY
from models.phantom.degrade import SpineMasks, degrade_muscles, degrade_spine
from models.phantom.exam import plan_anatomy
from models.phantom.sampling import Subject, draw_subject
from models.phantom.study import StudyExam, axial_grids, sagittal_grid
from models.phantom.truth import (
    TrueStructure,
    Truth,
    column_stack,
    column_truth,
    csa_cm2,
    muscle_stack,
    sacral_values,
)

MIN_OVERLAP = 0.2
"""Share of a row's voxels that must lie in a true structure for the row to be its."""
NAMED_IN_VIEW = 0.5
WHOLE_IN_VIEW = 0.99
"""Structures seen less than this have no true centroid in the stack, or no true height in the picture."""
CONFIDENT = 0.7
"""Names from this confidence up count as confident; below it `cohort.anatomy.levels` flags the exam."""
CSA_SLICES = 3
"""Axial slices of an exam whose true areas are counted."""

Outcome = Literal["right", "refused", "wrong", "missed"]


@dataclass(frozen=True)
class ScoredStructure:
    """A true vertebra or disc, and what was measured of it."""

    kind: Literal["vertebra", "disc"]
    name: str
    counted_name: str
    in_view: float
    found: bool
    answer: str | None = None
    confidence: float = 0.0
    centroid_error_mm: float | None = None
    height_error_mm: float | None = None
    """Measured less true."""

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
    lordosis_error_deg: float | None
    slope_error_deg: float | None
    areas: tuple[ScoredArea, ...]
    flags: tuple[str, ...]
    seconds: Mapping[str, float]
    """Processor time of measuring: the whole exam, and `spine` alone."""

    @property
    def named(self) -> list[ScoredStructure]:
        """Structures of which at least half is in view."""
        return [one for one in self.structures if one.in_view >= NAMED_IN_VIEW]

    @property
    def all_right(self) -> bool:
        return all(one.outcome == "right" for one in self.named)


@dataclass(frozen=True, eq=False)
class _Drawn:
    """A study exam with everything that scoring needs, in standing order."""

    exam: StudyExam
    grid: StackGeometry
    bodies: Labels
    discs: Labels
    truth: Truth
    true_masks: SpineMasks
    degraded: SpineMasks
    axial: tuple[StackGeometry, ...]
    muscles: tuple[Labels, ...]
    areas: Mapping[tuple[int, int], Mapping[tuple[str, str], float]]
    """(stack, slice) -> (muscle, side) -> cm2."""


@dataclass(frozen=True, eq=False)
class ShownExam:
    """An exam of the study to be looked at: what is true, what was measured, and how they compare."""

    truth: Truth
    found: Measurements
    scored: ScoredExam


def score_exam(exam: StudyExam) -> tuple[ScoredExam, ScoredExam]:
    """Draw one exam of the study and score it on true and on degraded masks."""
    drawn = _draw(exam)
    return _scored(drawn, drawn.true_masks, drawn.muscles), _scored(drawn, drawn.degraded, _degraded_muscles(drawn))


def show_exam(exam: StudyExam, *, degraded: bool) -> ShownExam:
    """Draw one exam of the study and measure it as `score_exam` does, on true or on degraded masks."""
    drawn = _draw(exam)
    masks, muscles = (drawn.degraded, _degraded_muscles(drawn)) if degraded else (drawn.true_masks, drawn.muscles)
    found, seconds = _measured(drawn, masks, muscles)
    return ShownExam(drawn.truth, found, _compared(drawn, masks, muscles, found, seconds))


def _degraded_muscles(drawn: _Drawn) -> tuple[Labels, ...]:
    return tuple(
        degrade_muscles(muscles, grid, seed=[drawn.exam.plan.seed, 31, k])
        for k, (muscles, grid) in enumerate(zip(drawn.muscles, drawn.axial, strict=True))
    )


def _draw(exam: StudyExam) -> _Drawn:
    anatomy = plan_anatomy(exam.plan)
    grid = sagittal_grid(anatomy, exam.acquisition)
    bodies, discs = column_stack(anatomy, grid)
    sacral = sacral_values(anatomy)
    true_bodies = np.where(bodies > 0, np.where(sacral[bodies], SACRAL_BODY, VERTEBRAL_BODY), 0).astype(np.uint8)
    axial = axial_grids(anatomy, exam.plan)
    subject = draw_subject(anatomy) if axial else None
    muscles = tuple(muscle_stack(subject, one) for one in axial) if subject else ()
    return _Drawn(
        exam=exam,
        grid=grid,
        bodies=bodies,
        discs=discs,
        truth=column_truth(anatomy, grid),
        true_masks=SpineMasks(true_bodies, (discs > 0).astype(np.uint8)),
        degraded=degrade_spine(bodies, discs, sacral, grid, seed=[exam.plan.seed, 30]),
        axial=axial,
        muscles=muscles,
        areas=_true_areas(subject, axial, muscles) if subject else {},
    )


def _true_areas(
    subject: Subject, axial: Sequence[StackGeometry], muscles: Sequence[Labels]
) -> dict[tuple[int, int], Mapping[tuple[str, str], float]]:
    """On slices spread evenly over all stacks."""
    places = [(stack, k) for stack, grid in enumerate(axial) for k in range(grid.n_slices)]
    chosen = np.linspace(0, len(places) - 1, CSA_SLICES + 2)[1:-1].round().astype(int)
    return {places[i]: csa_cm2(subject, axial[places[i][0]], muscles[places[i][0]], places[i][1]) for i in chosen}


def _stack(plane: Plane, index: int, labels: Mapping[str, Labels], geometry: StackGeometry) -> LabelledStack:
    # Without pixels there is no lean fraction; nothing that is scored here depends on it.
    image = np.zeros(next(iter(labels.values())).shape, np.uint16)
    return LabelledStack(ImageStack(plane, index, image, geometry, "phantom"), labels, {})


def _scored(drawn: _Drawn, masks: SpineMasks, muscles: Sequence[Labels]) -> ScoredExam:
    return _compared(drawn, masks, muscles, *_measured(drawn, masks, muscles))


def _measured(drawn: _Drawn, masks: SpineMasks, muscles: Sequence[Labels]) -> tuple[Measurements, Mapping[str, float]]:
    """What is measured, and the processor time of it: the whole exam, and `spine` alone."""
    order = drawn.exam.acquisition.order
    labels = {"vertebral_body": order.apply(masks.bodies), "disc": order.apply(masks.discs)}
    sagittal = _stack("sagittal", 0, labels, order.geometry(drawn.grid))
    axial = [
        _stack("axial", k, {"muscle": one}, grid)
        for k, (one, grid) in enumerate(zip(muscles, drawn.axial, strict=True))
    ]
    started = time.process_time()
    found = measure_exam("study", sagittal, axial)
    whole = time.process_time() - started
    started = time.process_time()
    measure_spine("study", sagittal)
    return found, {"exam": whole, "spine": time.process_time() - started}


def _compared(
    drawn: _Drawn,
    masks: SpineMasks,
    muscles: Sequence[Labels],
    found: Measurements,
    seconds: Mapping[str, float],
) -> ScoredExam:
    vertebrae, extra_vertebrae = _matched(drawn, found, "vertebra")
    discs, extra_discs = _matched(drawn, found, "disc")
    curve = found.curvature
    truth = drawn.truth
    return ScoredExam(
        number=drawn.exam.number,
        conditions=drawn.exam.conditions,
        complete=truth.complete,
        faults=masks.faults,
        dice=_dice(drawn, masks, muscles),
        structures=(*vertebrae, *discs),
        extra=extra_vertebrae + extra_discs,
        lordosis_error_deg=_less(curve.lordosis_l1_s1_deg if curve else None, truth.lordosis_l1_s1_deg),
        slope_error_deg=_less(curve.sacral_slope_deg if curve else None, truth.sacral_slope_deg),
        areas=tuple(_areas(drawn, found)),
        flags=tuple(dict.fromkeys(row.reason for row in found.quality)),
        seconds=seconds,
    )


def _less(measured: float | None, true: float | None) -> float | None:
    return None if measured is None or true is None else measured - true


def _dice(drawn: _Drawn, masks: SpineMasks, muscles: Sequence[Labels]) -> dict[str, float]:
    scores = {
        "vertebral_body": dice(masks.bodies > 0, drawn.true_masks.bodies > 0),
        "disc": dice(masks.discs > 0, drawn.true_masks.discs > 0),
    }
    if muscles:
        flat = [np.concatenate([one.ravel() for one in part]) for part in (muscles, drawn.muscles)]
        scores["muscle"] = dice(*(one > 0 for one in flat))
    return scores


def _matched(
    drawn: _Drawn, found: Measurements, kind: Literal["vertebra", "disc"]
) -> tuple[list[ScoredStructure], int]:
    """Every true structure with its row, and the number of rows left over."""
    rows: Sequence[VertebraRow] | Sequence[DiscRow] = found.vertebrae if kind == "vertebra" else found.discs
    true = drawn.truth.bodies if kind == "vertebra" else drawn.truth.discs
    owner: dict[int, int] = {}
    if found.sagittal is not None:
        name = "body_instances" if kind == "vertebra" else "disc_instances"
        instances = found.sagittal.labels[name]
        places = drawn.exam.acquisition.order.apply(drawn.bodies if kind == "vertebra" else drawn.discs)
        owner = _owners(instances, places, len(rows))
    return [_structure(kind, one, rows[owner[one.value]] if one.value in owner else None) for one in true], len(
        rows
    ) - sum(one.value in owner for one in true)


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
    kind: Literal["vertebra", "disc"], true: TrueStructure, row: VertebraRow | DiscRow | None
) -> ScoredStructure:
    if row is None:
        return ScoredStructure(kind, true.name, true.counted_name, true.in_view, found=False)
    whole = true.in_view >= WHOLE_IN_VIEW
    off = float(np.linalg.norm(np.array([row.x_mm, row.y_mm, row.z_mm]) - true.centroid_mm))
    # the height is that of one slice: it needs no more
    in_picture = true.in_picture >= WHOLE_IN_VIEW
    height = _less(row.height_mm, true.height_mm) if isinstance(row, DiscRow) and in_picture else None
    return ScoredStructure(
        kind,
        true.name,
        true.counted_name,
        true.in_view,
        found=True,
        answer=row.level,
        confidence=row.level_confidence,
        centroid_error_mm=off if whole else None,
        height_error_mm=height,
    )


def _areas(drawn: _Drawn, found: Measurements) -> list[ScoredArea]:
    measured = {(row.stack, row.slice, row.muscle, row.side): row.csa_cm2 for row in found.muscles}
    return [
        ScoredArea(muscle, true, None if area is None else 100 * (area - true) / true)
        for (stack, k), areas in drawn.areas.items()
        for (muscle, side), true in areas.items()
        for area in [measured.get((stack, k, muscle, side))]
    ]
