"""One exam of the study drawn: true and degraded masks on its grids, and what is true of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cohort.geometry import StackGeometry
from cohort.stacks import Labels
from cohort.terms import SACRAL_BODY, VERTEBRAL_BODY
from models.phantom.degrade import SpineMasks, degrade_muscles, degrade_spine
from models.phantom.exam import plan_anatomy
from models.phantom.sampling import Subject, draw_subject
from models.phantom.study import StudyExam, axial_grids, sagittal_grid
from models.phantom.truth import Truth, column_stack, column_truth, csa_cm2, muscle_stack, sacral_values

CSA_SLICES = 3
"""Axial slices of an exam whose true areas are counted."""


@dataclass(frozen=True, eq=False)
class StudyMasks:
    """Masks of all stacks of one exam."""

    spine: SpineMasks
    muscles: tuple[Labels, ...]
    """[slice, row, column] of each axial stack, values of `terms.MUSCLE_LABELS`."""


@dataclass(frozen=True, eq=False)
class DrawnExam:
    """A study exam with everything that scoring needs, all stacks in standing order."""

    exam: StudyExam
    sagittal: StackGeometry
    axial: tuple[StackGeometry, ...]
    bodies: Labels
    """True instances, as `discs`: `truth.column_stack`."""
    discs: Labels
    truth: Truth
    true_masks: StudyMasks
    degraded: StudyMasks
    areas_cm2: Mapping[tuple[int, int], Mapping[tuple[str, str], float]]
    """(stack, slice) -> (muscle, side) -> true area, of some slices."""


def draw_exam(exam: StudyExam) -> DrawnExam:
    """Draw one exam of the study; takes about a second, two with axial stacks."""
    anatomy = plan_anatomy(exam.plan)
    sagittal = sagittal_grid(anatomy, exam.acquisition)
    bodies, discs = column_stack(anatomy, sagittal)
    sacral = sacral_values(anatomy)
    classes = np.where(bodies > 0, np.where(sacral[bodies], SACRAL_BODY, VERTEBRAL_BODY), 0).astype(np.uint8)
    axial = axial_grids(anatomy, exam.plan)
    subject = draw_subject(anatomy) if axial else None
    muscles = tuple(muscle_stack(subject, grid) for grid in axial) if subject else ()
    seed = exam.plan.seed
    return DrawnExam(
        exam=exam,
        sagittal=sagittal,
        axial=axial,
        bodies=bodies,
        discs=discs,
        truth=column_truth(anatomy, sagittal),
        true_masks=StudyMasks(SpineMasks(classes, (discs > 0).astype(np.uint8)), muscles),
        degraded=StudyMasks(
            degrade_spine(bodies, discs, sacral, sagittal, seed=[seed, 30]),
            tuple(
                degrade_muscles(one, grid, seed=[seed, 31, k])
                for k, (one, grid) in enumerate(zip(muscles, axial, strict=True))
            ),
        ),
        areas_cm2=_true_areas(subject, axial, muscles) if subject else {},
    )


def _true_areas(
    subject: Subject, axial: Sequence[StackGeometry], muscles: Sequence[Labels]
) -> dict[tuple[int, int], Mapping[tuple[str, str], float]]:
    """On slices spread evenly over all stacks."""
    places = [(stack, k) for stack, grid in enumerate(axial) for k in range(grid.n_slices)]
    chosen = np.linspace(0, len(places) - 1, CSA_SLICES + 2)[1:-1].round().astype(int)
    return {places[i]: csa_cm2(subject, axial[places[i][0]], muscles[places[i][0]], places[i][1]) for i in chosen}
