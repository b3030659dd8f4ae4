"""A sound phantom exam, and what a case needs to spoil it on purpose.

The cases themselves stand in `spine_cases` and `axial_cases`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Final, Literal

import cv2
import numpy as np
import numpy.typing as npt

from cohort.anatomy.measure import Measurements, measure_exam
from cohort.anatomy.orientation import Orientation, cropped
from cohort.geometry import StackGeometry
from cohort.stacks import ImageStack, LabelledStack, Labels
from cohort.terms import DISC, SACRAL_BODY, VERTEBRAL_BODY
from models.phantom.anatomy import Anatomy
from models.phantom.bodies import Disc
from models.phantom.exam import ExamPlan, disc_stack, plan_anatomy
from models.phantom.sampling import Subject, cut, draw_subject
from models.phantom.study import MUSCLE_BOX, Acquisition, sagittal_grid
from models.phantom.truth import column_stack, muscle_stack
from pipelines.validation.anatomy_panels import t1_pictures

Mask = npt.NDArray[np.bool_]
FRAME: Final = "phantom"
SUBJECT: Final = ExamPlan(21, "M", 40, 1.78, 80.0)
AS_IS: Final = Orientation(False, (False, False, False))
FIELD: Final = Acquisition(
    pixel_mm=(1.2, 1.2), gap_mm=5.0, thickness_mm=4.0, n_slices=12, tilt_deg=(0.0, 0.0, 0.0), lateral_mm=0.0,
    top=("T11", 1.6), bottom=("S2", -1.5), missing=(), order=AS_IS, axial_order=AS_IS,
)  # fmt: skip
LEVELS: Final = ("L5-S1", "L4-L5", "L3-L4", "L2-L3", "L1-L2")
AXIAL_PIXEL_MM: Final = 1.35


@dataclass(frozen=True, eq=False)
class Exam:
    """A phantom exam with everything that a case may spoil."""

    subject: Subject
    sagittal: LabelledStack
    """In standing order."""
    axial: tuple[LabelledStack, ...]
    """Three slices along each of `LEVELS`."""
    bodies: Labels
    """[slice, row, column] 1 + index into the bodies of the anatomy; `discs` alike."""
    discs: Labels

    @property
    def anatomy(self) -> Anatomy:
        return self.subject.anatomy

    def body(self, name: str) -> Mask:
        """[slice, row, column]."""
        return np.asarray(self.bodies == 1 + [one.name for one in self.anatomy.bodies].index(name))

    def disc(self, name: str) -> Mask:
        return np.asarray(self.discs == 1 + [one.name for one in self.anatomy.discs].index(name))

    def with_labels(self, **labels: Labels) -> Exam:
        """With other sagittal masks: `vertebral_body`, `disc`."""
        return replace(self, sagittal=replace(self.sagittal, labels={**self.sagittal.labels, **labels}))

    def with_muscles(self, level: str, labels: Labels) -> Exam:
        """With other masks of the axial stack at a disc."""
        axial = list(self.axial)
        axial[LEVELS.index(level)] = replace(axial[LEVELS.index(level)], labels={"muscle": labels})
        return replace(self, axial=tuple(axial))

    def muscles(self, level: str) -> Labels:
        return self.axial[LEVELS.index(level)].labels["muscle"].copy()

    @property
    def body_labels(self) -> Labels:
        return self.sagittal.labels["vertebral_body"].copy()

    @property
    def disc_labels(self) -> Labels:
        return self.sagittal.labels["disc"].copy()

    def measured(self) -> Measurements:
        return measure_exam("phantom", self.sagittal, self.axial)


@cache
def sound_exam() -> Exam:
    """The exam that most cases spoil: a healthy subject, complete field of view, true masks."""
    exam = exam_of(SUBJECT)
    grids = [_grid(exam.anatomy, disc) for disc in exam.anatomy.discs if disc.name in LEVELS]
    return replace(exam, axial=tuple(axial_stack(exam.subject, k, grid) for k, grid in enumerate(grids)))


def _grid(anatomy: Anatomy, disc: Disc) -> StackGeometry:
    fine = cropped(disc_stack(anatomy, disc), MUSCLE_BOX)
    rows, columns = (int(n * spacing / AXIAL_PIXEL_MM) for n, spacing in zip(fine.shape, fine.spacing_mm, strict=True))
    spacing = (AXIAL_PIXEL_MM, AXIAL_PIXEL_MM)
    return replace(fine, position_mm=fine.position_mm[1:4], spacing_mm=spacing, shape=(rows, columns))


def exam_of(plan: ExamPlan) -> Exam:
    """A subject's sagittal stack with true masks and T1 pictures."""
    anatomy = plan_anatomy(plan)
    subject = draw_subject(anatomy)
    grid = sagittal_grid(anatomy, FIELD)
    bodies, discs = column_stack(anatomy, grid)
    sacral = np.array([False, *(one.sacral for one in anatomy.bodies)])
    labels: dict[str, Labels] = {
        "vertebral_body": np.where(sacral[bodies], SACRAL_BODY, (bodies > 0) * VERTEBRAL_BODY).astype(np.uint8),
        "disc": ((discs > 0) * DISC).astype(np.uint8),
    }
    image = t1_pictures(subject, [cut(subject, grid, k) for k in range(grid.n_slices)], plan.seed)
    stack = ImageStack("sagittal", 0, image, grid, FRAME)
    return Exam(subject, LabelledStack(stack, labels, {}), (), bodies, discs)


def axial_stack(subject: Subject, index: int, grid: StackGeometry) -> LabelledStack:
    """A subject's axial stack with true masks and T1 pictures."""
    image = t1_pictures(subject, [cut(subject, grid, k) for k in range(grid.n_slices)], SUBJECT.seed)
    return LabelledStack(ImageStack("axial", index, image, grid, FRAME), {"muscle": muscle_stack(subject, grid)}, {})


@dataclass(frozen=True, eq=False)
class Spoilt:
    """An exam after a fault was made on purpose."""

    exam: Exam
    found: Measurements


@dataclass(frozen=True)
class Case:
    """How a flag comes about."""

    fault: str
    """What was done, for the caption."""
    spoil: Callable[[Exam], Exam | Spoilt]
    view: Literal["sagittal", "axial", "planes"] = "sagittal"
    """`planes` are the axial slices drawn on the sagittal picture."""


def disk(radius: int) -> npt.NDArray[np.uint8]:
    """Round element of morphology, radius in pixels."""
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)), np.uint8)
