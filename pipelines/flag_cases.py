"""Phantom exams with a fault made on purpose, one for every flag of the measurements.

A case takes the sound exam of one subject, spoils its masks, its pictures or its geometry, and measures the result;
`CASES` lists them by code. A new code needs a function of a few lines and its place in that table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Final, Literal

import cv2
import numpy as np
import numpy.typing as npt

from cohort.anatomy.measure import Measurements, measure_exam
from cohort.anatomy.orientation import Orientation, cropped
from cohort.errors import RefusedError
from cohort.geometry import StackGeometry
from cohort.rows import QualityRow
from cohort.stacks import ImageStack, LabelledStack, Labels
from cohort.terms import DISC, MUSCLE_LABELS, SACRAL_BODY, SIDES, VERTEBRAL_BODY
from models.phantom.anatomy import Anatomy
from models.phantom.bodies import Disc
from models.phantom.exam import ExamPlan, disc_stack, plan_anatomy
from models.phantom.sampling import Subject, cut, draw_subject
from models.phantom.study import MUSCLE_BOX, Acquisition, sagittal_grid
from models.phantom.truth import column_stack, muscle_stack
from pipelines.anatomy_panels import t1_pictures
from pipelines.real_scans import Networks

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
    return replace(exam, axial=tuple(_axial(exam.subject, k, grid) for k, grid in enumerate(grids)))


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


def _axial(subject: Subject, index: int, grid: StackGeometry) -> LabelledStack:
    image = t1_pictures(subject, [cut(subject, grid, k) for k in range(grid.n_slices)], SUBJECT.seed)
    return LabelledStack(ImageStack("axial", index, image, grid, FRAME), {"muscle": muscle_stack(subject, grid)}, {})


# -- cases -------------------------------------------------------------------------------------------------------------


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


def _no_bodies(exam: Exam) -> Exam:
    return exam.with_labels(vertebral_body=np.zeros_like(exam.bodies))


def _no_discs(exam: Exam) -> Exam:
    return exam.with_labels(disc=np.zeros_like(exam.discs))


def _part(exam: Exam, slices: slice = slice(None), rows: slice = slice(None)) -> Exam:
    """The sagittal stack with a smaller field of view."""
    stack, (n_rows, n_columns) = exam.sagittal.stack, exam.sagittal.stack.geometry.shape
    start, stop, _ = rows.indices(n_rows)
    geometry = cropped(stack.geometry, (slice(start, stop), slice(0, n_columns)))
    geometry = replace(geometry, position_mm=geometry.position_mm[slices])
    labels = {name: one[slices, rows] for name, one in exam.sagittal.labels.items()}
    sagittal = LabelledStack(replace(stack, image=stack.image[slices, rows], geometry=geometry), labels, {})
    return replace(exam, sagittal=sagittal, bodies=exam.bodies[slices, rows], discs=exam.discs[slices, rows])


def _without_sacrum(exam: Exam) -> Exam:
    return _part(exam, rows=slice(0, int(np.nonzero(exam.disc("L5-S1"))[1].mean())))


def _through_top(exam: Exam) -> Exam:
    return _part(exam, rows=slice(int(np.nonzero(exam.body("L1"))[1].mean()), None))


def _few_slices(exam: Exam) -> Exam:
    middle = exam.sagittal.stack.geometry.n_slices // 2
    return _part(exam, slices=slice(middle - 3, middle + 4))


def _half_sacrum(exam: Exam) -> Exam:
    """The upper part of S1 in the other class."""
    labels, s1 = exam.body_labels, exam.body("S1")
    rows = np.nonzero(s1)[1]
    upper = s1 & (np.arange(s1.shape[1])[None, :, None] < np.quantile(rows, 0.4))
    labels[upper] = VERTEBRAL_BODY
    return exam.with_labels(vertebral_body=labels)


def _lumbarised(exam: Exam) -> Exam:
    """The phantom does not label the disc S1-S2: here the disc above S1 stands there, too."""
    exam = exam_of(replace(SUBJECT, seed=39, findings=("lumbarised_s1",)))
    disc = np.argwhere(exam.disc("L5-S1"))
    step = np.argwhere(exam.body("S2")).mean(axis=0) - np.argwhere(exam.body("S1")).mean(axis=0)
    labels, moved = exam.disc_labels, (disc + step.round().astype(int))
    inside = (moved < labels.shape).all(axis=1)
    labels[tuple(moved[inside].T)] = DISC
    return exam.with_labels(disc=labels)


def _disc_gone(exam: Exam) -> Exam:
    return exam.with_labels(disc=np.where(exam.disc("L3-L4"), 0, exam.disc_labels).astype(np.uint8))


def _tall_disc(exam: Exam) -> Exam:
    disc = exam.disc("L3-L4").astype(np.uint8)
    tall = np.stack([cv2.dilate(plane, np.ones((9, 1), np.uint8)) for plane in disc]).astype(bool)
    return exam.with_labels(disc=np.where(tall, DISC, exam.disc_labels).astype(np.uint8))


def _half_body(exam: Exam) -> Exam:
    body = exam.body("L3")
    front = body & (np.arange(body.shape[2]) < np.quantile(np.nonzero(body)[2], 0.6))
    return exam.with_labels(vertebral_body=np.where(body & ~front, 0, exam.body_labels).astype(np.uint8))


def _body_gone(exam: Exam) -> Exam:
    return exam.with_labels(vertebral_body=np.where(exam.body("L2"), 0, exam.body_labels).astype(np.uint8))


def _blob(exam: Exam) -> Exam:
    """A false body in front of the spine."""
    labels = exam.body_labels
    k, row, column = np.argwhere(exam.body("L4")).mean(axis=0).tolist()
    slices, rows, columns = np.indices(labels.shape, sparse=True)
    inside = ((slices - k) / 3) ** 2 + ((rows - row) / 24) ** 2 + ((columns - column + 38) / 15) ** 2 < 1
    labels[inside] = VERTEBRAL_BODY
    return exam.with_labels(vertebral_body=labels)


def _unsure(exam: Exam) -> Exam:
    return replace(exam, sagittal=replace(exam.sagittal, uncertainty={"disc": 0.62}))


def _coarse(exam: Exam) -> Spoilt:
    """Pixels of 4 mm, given to the shipped network."""
    stack = exam.sagittal.stack
    geometry = stack.geometry
    coarse = replace(geometry, spacing_mm=(4.0, 4.0), shape=(geometry.shape[0] // 4, geometry.shape[1] // 4))
    rows, columns = coarse.shape
    image = stack.image[:, : 4 * rows, : 4 * columns].reshape(-1, rows, 4, columns, 4).mean(axis=(2, 4))
    nothing = np.zeros(image.shape, np.uint8)
    labels = {"vertebral_body": nothing, "disc": nothing}
    spoilt = LabelledStack(replace(stack, image=image.astype(np.uint16), geometry=coarse), labels, {})
    exam = replace(exam, sagittal=spoilt, axial=(), bodies=nothing, discs=nothing)
    try:
        Networks("vertebral_body", "disc", "muscle").segment("vertebral_body", spoilt.stack)
    except RefusedError as refusal:
        row = QualityRow(exam_id="phantom", stage="segment", reason=refusal.reason, structure=None)
        return Spoilt(exam, replace(exam.measured(), quality=(row,)))
    return Spoilt(exam, exam.measured())


def _changed_muscle(exam: Exam, level: str, muscle: str, side: str, change: Callable[[Mask], Mask]) -> Exam:
    """One muscle at one disc redrawn; what it grows into was no muscle before."""
    labels, value = exam.muscles(level), MUSCLE_LABELS[muscle, side]
    new = np.stack([change(plane) for plane in labels == value])
    labels[labels == value] = 0
    labels[new & (labels == 0)] = value
    return exam.with_muscles(level, labels)


def _ball(radius: int) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)), np.uint8)


def _huge_psoas(exam: Exam) -> Exam:
    return _changed_muscle(
        exam, "L3-L4", "psoas", "left", lambda plane: cv2.dilate(plane.astype(np.uint8), _ball(12)) > 0
    )


def _small_psoas(exam: Exam) -> Exam:
    return _changed_muscle(
        exam, "L3-L4", "psoas", "left", lambda plane: cv2.erode(plane.astype(np.uint8), _ball(5)) > 0
    )


def _no_multifidus(exam: Exam) -> Exam:
    return _changed_muscle(exam, "L4-L5", "multifidus", "right", np.zeros_like)


def _swapped_sides(exam: Exam) -> Exam:
    table = np.zeros(256, np.uint8)
    for (muscle, side), value in MUSCLE_LABELS.items():
        table[value] = MUSCLE_LABELS[muscle, SIDES[1 - SIDES.index(side)]]
    return exam.with_muscles("L3-L4", table[exam.muscles("L3-L4")])


def _no_slices(exam: Exam) -> Exam:
    return replace(exam, axial=tuple(one for one in exam.axial if one.stack.index != LEVELS.index("L3-L4")))


def _tilted_slices(exam: Exam) -> Exam:
    """Slices at the disc L3-L4 that lean by 30 degrees against it."""
    grid = exam.axial[2].stack.geometry
    across, back, up = grid.row_dir, grid.col_dir, grid.normal
    turn = np.radians(30.0)
    leaning, normal = np.cos(turn) * back + np.sin(turn) * up, np.cos(turn) * up - np.sin(turn) * back
    spine = exam.sagittal.stack.geometry.to_lps(np.argwhere(exam.disc("L3-L4")).mean(axis=0))
    corner = (
        spine - ((grid.position_mm[1] - spine) @ -across) * across + ((grid.position_mm[1] - spine) @ back) * leaning
    )
    steps = np.arange(-1, 2)[:, None] * 4.4 * normal
    leant = replace(grid, position_mm=corner + steps, col_dir=leaning)
    return replace(exam, axial=(*exam.axial[:2], _axial(exam.subject, 2, leant), *exam.axial[3:]))


def _other_frame(exam: Exam) -> Exam:
    last = exam.axial[2]
    moved = replace(last, stack=replace(last.stack, frame_of_reference_id="another"))
    return replace(exam, axial=(*exam.axial[:2], moved, *exam.axial[3:]))


def _small_body(exam: Exam) -> Exam:
    """L3 five millimetres smaller all around, on its slices."""
    body = exam.body("L3")
    small = np.stack([cv2.erode(plane, _ball(4)) for plane in body.astype(np.uint8)]).astype(bool)
    return exam.with_labels(vertebral_body=np.where(body & ~small, 0, exam.body_labels).astype(np.uint8))


def _gap_in_muscle(exam: Exam) -> Exam:
    labels = exam.muscles("L3-L4")
    labels[1][labels[1] == MUSCLE_LABELS["psoas", "left"]] = 0
    return exam.with_muscles("L3-L4", labels)


def _moved(exam: Exam, by_mm: tuple[float, float, float]) -> Exam:
    """All axial stacks elsewhere."""
    axial = []
    for one in exam.axial:
        geometry = replace(one.stack.geometry, position_mm=one.stack.geometry.position_mm + by_mm)
        axial.append(replace(one, stack=replace(one.stack, geometry=geometry)))
    return replace(exam, axial=tuple(axial))


def _moved_patient(exam: Exam) -> Exam:
    return _moved(exam, (15.0, 0.0, 0.0))


def _noise(exam: Exam) -> Exam:
    stack = exam.sagittal.stack
    image = stack.image + np.random.default_rng(0).normal(0, 450, stack.image.shape)
    noisy = replace(stack, image=np.clip(image, 0, 4095).astype(np.uint16))
    return replace(exam, sagittal=replace(exam.sagittal, stack=noisy))


def _ghosts(exam: Exam) -> Exam:
    """A copy of a tenth of the signal, a third of the picture further back."""
    axial = []
    for one in exam.axial:
        image = one.stack.image + 0.1 * np.roll(one.stack.image, one.stack.image.shape[1] // 3, axis=1)
        axial.append(replace(one, stack=replace(one.stack, image=np.clip(image, 0, 4095).astype(np.uint16))))
    return replace(exam, axial=tuple(axial))


def _broken_body(exam: Exam) -> Exam:
    """A gap of two pixels across L3."""
    body = exam.body("L3")
    middle = int(np.nonzero(body)[1].mean())
    labels = exam.body_labels
    labels[:, middle : middle + 2][body[:, middle : middle + 2]] = 0
    return exam.with_labels(vertebral_body=labels)


def _bridge(exam: Exam) -> Exam:
    """A strip of three pixels from L3 to L4 on all slices of both."""
    labels, both = exam.body_labels, exam.body("L3") | exam.body("L4")
    top, bottom = (int(np.nonzero(exam.body(name))[1].mean()) for name in ("L3", "L4"))
    column = int(np.nonzero(both)[2].mean())
    labels[both.any(axis=(1, 2)), top:bottom, column : column + 3] = VERTEBRAL_BODY
    return exam.with_labels(vertebral_body=labels)


def _holes(exam: Exam) -> Exam:
    labels = exam.body_labels
    _, row, column = np.argwhere(exam.body("L3")).mean(axis=0).astype(int)
    labels[:, row + 5 : row + 10, column - 2 : column + 3] = 0
    return exam.with_labels(vertebral_body=labels)


def _fracture(exam: Exam) -> Exam:
    return exam_of(replace(SUBJECT, seed=31, findings=("wedge_fracture",)))


def _moved_up(exam: Exam) -> Exam:
    """All axial slices one vertebra higher than they were acquired."""
    return _moved(exam, (0.0, -4.0, 36.0))


CASES: Final[Mapping[str, Case]] = {
    "no_vertebrae": Case("no body in the masks", _no_bodies),
    "no_discs": Case("no disc in the masks", _no_discs),
    "levels_undecided": Case("the picture ends above the sacrum", _without_sacrum),
    "levels_low_confidence": Case("the upper part of S1 is called a lumbar body", _half_sacrum),
    "lumbar_variant": Case("a subject with a lumbarised S1", _lumbarised),
    "count_mismatch": Case("the disc L3-L4 is missing from the masks", _disc_gone),
    "touches_border": Case("the picture begins in the middle of L1", _through_top),
    "outermost_slice": Case("seven slices, narrower than the vertebrae", _few_slices),
    "implausible_disc_height": Case("the disc L3-L4 is drawn far into the bodies", _tall_disc),
    "implausible_body_size": Case("only the front of L3 is in the masks", _half_body),
    "implausible_spacing": Case("L2 is missing from the masks", _body_gone),
    "implausible_csa": Case("the left psoas is drawn far too large", _huge_psoas, "axial"),
    "side_asymmetry": Case("the left psoas is drawn too small", _small_psoas, "axial"),
    "sides_conflict": Case("left and right of the masks are exchanged", _swapped_sides, "axial"),
    "muscle_missing": Case("no right multifidus in the masks", _no_multifidus, "axial"),
    "no_slice_at_level": Case("no axial slices at the disc L3-L4", _no_slices, "planes"),
    "oblique_slice": Case("slices at L3-L4 that lean by 30 degrees", _tilted_slices, "planes"),
    "different_frame": Case("the slices at L3-L4 have a frame of reference of their own", _other_frame, "planes"),
    "components_removed": Case("a false body in front of the spine", _blob),
    "network_uncertain": Case("the network reports 0.62 bit for its discs", _unsure),
    "network_misfit": Case("pixels of 4 mm", _coarse),
    "size_jump": Case("L3 is drawn too small all around", _small_body),
    "muscle_gap": Case("no left psoas on the middle one of three slices", _gap_in_muscle, "axial"),
    "midlines_disagree": Case("all axial slices moved by 15 mm to the left", _moved_patient, "axial"),
    "low_contrast": Case("noise over the sagittal pictures", _noise),
    "ghosting": Case("a copy of a tenth of the signal, moved backward", _ghosts, "axial"),
    "pieces_removed": Case("a false body in front of the spine", _blob),
    "pieces_joined": Case("a gap across L3", _broken_body),
    "pieces_separated": Case("a strip from L3 to L4", _bridge),
    "bridges_removed": Case("a strip from L3 to L4", _bridge),
    "holes_filled": Case("a hole in L3 on every slice", _holes),
    "compression_suspected": Case("a subject with a wedge fracture", _fracture),
    "axial_conflict": Case("all axial slices a vertebra too high", _moved_up),
}
"""Code -> case."""


def spoilt(code: str) -> Spoilt:
    """Make the fault of a code and measure the exam."""
    made = CASES[code].spoil(sound_exam())
    return made if isinstance(made, Spoilt) else Spoilt(made, made.measured())
