"""Whole phantom exams: stacks as a scanner would acquire them, with the true labels and the true numbers beside
them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from cohort.geometry import StackGeometry
from cohort.stacks import ImageStack, LabelledStack, Plane
from cohort.terms import MUSCLE_LABELS, MUSCLES, SACRAL_BODY, SIDES, VERTEBRAL_BODY
from models.phantom.acquisition import acquire_slices
from models.phantom.anatomy import Anatomy, draw_anatomy
from models.phantom.bodies import Disc
from models.phantom.mri import DEMO_SCANNER, Contrast, draw_contrast
from models.phantom.sampling import Subject, TissueSlice, cut, draw_subject, tissue_at, voxel_centres
from models.phantom.vertebral_column import DISC_INSET_MM, disc_centre, disc_depth

AxialLayout = Literal["block", "per_disc", "none"]

MEAN_HEIGHT_M = {"M": 1.76, "F": 1.63}
"""Body height at which the phantom's spine has its tabulated size; spine size follows height in proportion (working
rule)."""


@dataclass(frozen=True)
class ExamPlan:
    """One exam to be acquired."""

    seed: int
    sex: str
    age_years: int
    height_m: float
    weight_kg: float
    axial: AxialLayout = "block"
    n_sagittal: int = 13
    reversed_order: bool = False
    """Sagittal slices from the patient's left to right instead of right to left."""
    n_lumbar: int = 5
    findings: tuple[str, ...] = ()
    """Keys of `pathology.KINDS`; none makes a healthy subject."""


@dataclass(frozen=True, eq=False)
class PhantomExam:
    """A subject and the grids on which it is acquired."""

    plan: ExamPlan
    subject: Subject
    sagittal: StackGeometry
    axial: tuple[StackGeometry, ...]

    @property
    def anatomy(self) -> Anatomy:
        return self.subject.anatomy

    @cached_property
    def sagittal_slices(self) -> tuple[TissueSlice, ...]:
        """Cut once, imaged with as many contrasts as wanted."""
        return tuple(cut(self.subject, self.sagittal, k) for k in range(self.sagittal.n_slices))

    @cached_property
    def axial_slices(self) -> tuple[tuple[TissueSlice, ...], ...]:
        """Per stack."""
        return tuple(tuple(cut(self.subject, grid, k) for k in range(grid.n_slices)) for grid in self.axial)

    def labelled(self) -> tuple[LabelledStack, list[LabelledStack]]:
        """Sagittal and axial stacks with true masks and T1 images."""
        contrast = t1_contrast(self)
        image = stack_image(self, self.sagittal_slices, contrast)
        sagittal = _labelled("sagittal", 0, image, self.sagittal, self._sagittal_labels())
        axial = []
        for k, (grid, slices) in enumerate(zip(self.axial, self.axial_slices, strict=True)):
            masks = {"muscle": np.stack([slice_.muscle for slice_ in slices])}
            axial.append(_labelled("axial", k, stack_image(self, slices, contrast), grid, masks))
        return sagittal, axial

    def _sagittal_labels(self) -> dict[str, npt.NDArray[np.uint8]]:
        values = [0, *(SACRAL_BODY if body.sacral else VERTEBRAL_BODY for body in self.anatomy.bodies)]
        bodies = np.array(values, np.uint8)[np.stack([slice_.body for slice_ in self.sagittal_slices])]
        discs = np.stack([slice_.disc > 0 for slice_ in self.sagittal_slices]).astype(np.uint8)
        return {"vertebral_body": bodies, "disc": discs}


def _labelled(
    plane: Plane,
    index: int,
    image: npt.NDArray[np.uint16],
    grid: StackGeometry,
    labels: dict[str, npt.NDArray[np.uint8]],
) -> LabelledStack:
    return LabelledStack(ImageStack(plane, index, image, grid, "phantom"), labels, {})


def make_exam(plan: ExamPlan) -> PhantomExam:
    """Draw the subject and lay the stacks over it."""
    subject = draw_subject(plan_anatomy(plan))
    rng = np.random.default_rng([plan.seed, 10])
    axial: tuple[StackGeometry, ...] = ()
    if plan.axial == "block":
        axial = (axial_block(subject.anatomy, rng),)
    elif plan.axial == "per_disc":
        axial = tuple(disc_stack(subject.anatomy, disc) for disc in subject.anatomy.discs[:5])
    return PhantomExam(plan, subject, _sagittal_grid(subject.anatomy, plan, rng), axial)


def plan_anatomy(plan: ExamPlan) -> Anatomy:
    """The subject's column and proportions, without the soft tissue around it.

    Raises
    ------
    ConfigurationError
        if a finding is unknown
    """
    return draw_anatomy(
        plan.seed,
        sex=plan.sex,
        scale=plan.height_m / MEAN_HEIGHT_M[plan.sex],
        healthy=not plan.findings,
        n_lumbar=plan.n_lumbar,
        findings=plan.findings or None,
    )


def _sagittal_grid(anatomy: Anatomy, plan: ExamPlan, rng: np.random.Generator) -> StackGeometry:
    """320 x 320 pixels of 0.9 mm, slices 4 mm thick every 4.4 mm, turned a few degrees as patients lie."""
    turn = np.deg2rad(rng.normal(0, 1.5))
    across = np.array([np.cos(turn), np.sin(turn), 0.0])
    row_dir, col_dir = np.array([-np.sin(turn), np.cos(turn), 0.0]), np.array([0.0, 0.0, -1.0])
    middle = next(body.centre for body in anatomy.bodies if body.name == "L3") + np.array([0.0, 15.0, -14.0])
    corner = middle - 159.5 * 0.9 * (row_dir + col_dir)
    steps = (np.arange(plan.n_sagittal) - (plan.n_sagittal - 1) / 2) * 4.4
    if plan.reversed_order:
        steps = -steps
    return StackGeometry(corner + steps[:, None] * across, row_dir, col_dir, (0.9, 0.9), (320, 320), 4.0)


def axial_block(anatomy: Anatomy, rng: np.random.Generator) -> StackGeometry:
    """256 x 256 pixels of 0.9 mm, 5 mm thick every 6 mm, from S1's centre to the top of L1."""
    bodies = {body.name: body for body in anatomy.bodies}
    low, high = bodies["S1"].centre, bodies["L1"].endplate_centre(+1)
    n = int(np.ceil((high[2] - low[2]) / 6.0)) + 1
    middle = bodies["L3"].centre + np.array([rng.normal(0, 4), 32.0, 0.0])
    corner = np.array([middle[0] - 127.5 * 0.9, middle[1] - 127.5 * 0.9, low[2]])
    position = corner + np.arange(n)[:, None] * np.array([0.0, 0.0, 6.0])
    return StackGeometry(position, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), (0.9, 0.9), (256, 256), 5.0)


def disc_stack(anatomy: Anatomy, disc: Disc) -> StackGeometry:
    """Five slices of 4 mm parallel to a disc, centred on it."""
    lower, upper = anatomy.bodies[disc.lower], anatomy.bodies[disc.upper]
    tilt = (lower.endplate_tilt_rad(+1) + upper.endplate_tilt_rad(-1)) / 2
    row_dir, col_dir = np.array([1.0, 0, 0]), np.array([0.0, np.cos(tilt), np.sin(tilt)])
    normal = np.cross(row_dir, col_dir)
    middle = disc_centre(anatomy, disc) + 32.0 * col_dir
    corner = middle - 127.5 * 0.9 * (row_dir + col_dir)
    position = corner + (np.arange(5) - 2)[:, None] * 4.4 * normal
    return StackGeometry(position, row_dir, col_dir, (0.9, 0.9), (256, 256), 4.0)


def t1_contrast(exam: PhantomExam) -> Contrast:
    """The T1 spin-echo contrast of an exam."""
    return draw_contrast(np.random.default_rng([exam.plan.seed, 11]), "t1", jitter=0.03)


def t2_contrast(exam: PhantomExam) -> Contrast:
    """The T2 spin-echo contrast of an exam."""
    return draw_contrast(np.random.default_rng([exam.plan.seed, 12]), "t2", jitter=0.03)


def stack_image(exam: PhantomExam, slices: tuple[TissueSlice, ...], contrast: Contrast) -> npt.NDArray[np.uint16]:
    """[slice, row, column] stored values, about 12 bit."""
    seed, back_y_mm = [exam.plan.seed, 13], exam.subject.back_y_mm
    volume = acquire_slices(slices, contrast, DEMO_SCANNER, seed=seed, back_y_mm=back_y_mm)
    return np.asarray(np.clip(volume / np.percentile(volume, 99.5) * 2400, 0, 4095), dtype=np.uint16)


# -- truth -------------------------------------------------------------------------------------------------------------


def true_vertebra_centroids(exam: PhantomExam) -> dict[str, npt.NDArray[np.float64]]:
    """Name -> [3] LPS mm centroid of the labelled part of each mobile body and of S1, on a 1 mm lattice."""
    result = {}
    for k, body in enumerate(exam.anatomy.bodies):
        if body.sacral and body.name != "S1":
            continue
        points = _lattice(body.centre, 35.0, 1.0)
        inside = tissue_at(exam.subject, points)[1] == k + 1
        result[body.name] = points[inside].mean(axis=0).astype(np.float64)
    return result


def true_disc_centroids(exam: PhantomExam) -> dict[str, npt.NDArray[np.float64]]:
    """Name -> [3] LPS mm centroid of the labelled disc, on a 1 mm lattice."""
    result = {}
    for disc in exam.anatomy.discs:
        points = _lattice(disc_centre(exam.anatomy, disc), 35.0, 1.0)
        inside = disc_depth(exam.anatomy, disc, points)[0] > DISC_INSET_MM
        result[disc.name] = points[inside].mean(axis=0).astype(np.float64)
    return result


def true_disc_height_mm(exam: PhantomExam, disc: Disc, centroid: npt.NDArray[np.float64]) -> float:
    """Shortest side of the minimum-area rectangle of the disc's outline on the sagittal plane through its centroid.

    The same definition as the measurement (Hess et al. 2023), but on a lattice of 0.1 mm cut from the analytic shape.
    """
    step = 0.1
    offsets = np.arange(-28, 28, step)
    y, z = np.meshgrid(offsets, offsets)
    along, down = exam.sagittal.row_dir, exam.sagittal.col_dir
    points = centroid + y.ravel()[:, None] * along + z.ravel()[:, None] * down
    inside = disc_depth(exam.anatomy, disc, points.astype(np.float32))[0].reshape(y.shape) > DISC_INSET_MM
    outline = np.argwhere(inside).astype(np.float32)
    return float(min(cv2.minAreaRect(outline)[1]) * step + step)


def true_csa_cm2(exam: PhantomExam, stack: int, k: int) -> dict[tuple[str, str], float]:
    """(muscle, side) -> area on one axial slice, counted on a lattice three times finer than the image."""
    grid = exam.axial[stack]
    fine = StackGeometry(
        grid.position_mm[k : k + 1] - grid.spacing_mm[0] / 3 * (grid.row_dir + grid.col_dir),
        grid.row_dir,
        grid.col_dir,
        (grid.spacing_mm[0] / 3, grid.spacing_mm[1] / 3),
        (grid.shape[0] * 3, grid.shape[1] * 3),
        grid.thickness_mm,
    )
    muscle = tissue_at(exam.subject, voxel_centres(fine, 0).reshape(-1, 3))[3]
    pixel_cm2 = fine.spacing_mm[0] * fine.spacing_mm[1] / 100
    counts = np.bincount(muscle, minlength=len(MUSCLES) * len(SIDES) + 1)
    return {key: float(counts[value] * pixel_cm2) for key, value in MUSCLE_LABELS.items()}


def _lattice(centre: npt.NDArray[np.float64], reach: float, step: float) -> npt.NDArray[np.float32]:
    """[n, 3] cubic lattice around a centre."""
    offsets = np.arange(-reach, reach + step, step)
    grid = np.stack(np.meshgrid(offsets, offsets, offsets, indexing="ij"), axis=-1).reshape(-1, 3)
    return np.asarray(centre + grid, dtype=np.float32)
