"""The lean fraction against pictures whose share of fat is known exactly."""

from __future__ import annotations

import anatomy_shapes as shapes
import numpy as np
import pytest

from cohort.anatomy.lean import lean_rule, otsu
from cohort.anatomy.measure import measure_exam
from cohort.stacks import LabelledStack
from cohort.terms import MUSCLE_LABELS
from models.phantom.acquisition import acquire_slices
from models.phantom.exam import ExamPlan, make_exam, t1_contrast
from models.phantom.mri import DEMO_SCANNER, Scanner
from models.phantom.sampling import cut
from models.phantom.tissues import Tissue

FAT = [Tissue.MUSCLE_FAT, Tissue.VISCERAL_FAT, Tissue.SUBCUTANEOUS_FAT, Tissue.EPIDURAL_FAT]


def pictured(coil: float, fat_share: float, *, seed: int = 0) -> LabelledStack:
    """Muscles with a share of fat pixels, in fat; the coil loses `coil` of its logarithm from back to front."""
    stack = shapes.muscle_stack(shapes.axial_geometry(n=8, size=128, spacing=1.6))
    rng = np.random.default_rng(seed)
    labels = stack.labels["muscle"]
    tissue = np.where((labels > 0) & (rng.random(labels.shape) >= fat_share), 400.0, 1000.0)
    sensitivity = np.exp(-coil * np.linspace(1, 0, 128))[:, None]
    image = (tissue * sensitivity + rng.normal(0, 20, labels.shape)).clip(0).astype(np.uint16)
    return shapes.labelled("axial", stack.stack.geometry, {"muscle": labels}, image=image)


@pytest.mark.parametrize("coil", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("fat_share", [0.05, 0.3])
def test_a_receive_coil_does_not_change_the_lean_fraction(coil: float, fat_share: float) -> None:
    stack = pictured(coil, fat_share)
    result = measure_exam("exam", None, [stack])
    for muscle, side in MUSCLE_LABELS:
        found = [row.lean_fraction for row in result.muscles if (row.muscle, row.side) == (muscle, side)]
        assert np.array(found, float).mean() == pytest.approx(1 - fat_share, abs=0.045)  # 1000 random pixels
    assert "low_contrast" not in {row.reason for row in result.quality}


def test_without_correction_the_coil_hides_what_is_fat() -> None:
    """With a fall to a seventh from back to front, fat in front is darker than muscle behind."""
    stack = pictured(2.0, 0.3)
    image, labels = stack.stack.image, stack.labels["muscle"]
    threshold, _ = otsu(image[:, 20:108:2, ::2].ravel().astype(float))
    psoas, multifidus = (labels == MUSCLE_LABELS[name, "left"] for name in ("psoas", "multifidus"))
    assert abs((image[psoas] < threshold).mean() - (image[multifidus] < threshold).mean()) > 0.1
    rule, _ = lean_rule(stack.stack, labels)
    assert rule is not None
    lean = rule.lean(image, labels)
    assert lean[psoas].mean() == pytest.approx(lean[multifidus].mean(), abs=0.03)


def test_muscle_and_fat_alike_give_no_fraction_and_a_flag() -> None:
    stack = pictured(0.0, 0.1)
    noise = np.random.default_rng(1).normal(500, 50, stack.stack.image.shape).astype(np.uint16)
    alike = shapes.labelled("axial", stack.stack.geometry, stack.labels, image=noise)
    result = measure_exam("exam", None, [alike])
    assert all(row.lean_fraction is None for row in result.muscles)
    (flag,) = [row for row in result.quality if row.reason == "low_contrast"]
    assert flag.value is not None
    assert 0.6 < flag.value < 0.72


def test_suppressed_fat_gives_no_fraction() -> None:
    stack = pictured(0.0, 0.1)
    dark = shapes.labelled("axial", stack.stack.geometry, stack.labels, image=(1200 - stack.stack.image // 2 * 2))
    assert lean_rule(dark.stack, stack.labels["muscle"])[0] is None


@pytest.mark.parametrize("value", [0, 700])
def test_a_constant_picture_says_nothing(value: int) -> None:
    stack = pictured(0.0, 0.1)
    flat = np.full(stack.stack.image.shape, value, np.uint16)
    result = measure_exam("exam", None, [shapes.labelled("axial", stack.stack.geometry, stack.labels, image=flat)])
    assert all(row.lean_fraction is None for row in result.muscles)
    assert not {"low_contrast", "ghosting"} & {row.reason for row in result.quality}
    nothing = np.zeros_like(stack.labels["muscle"])
    assert lean_rule(stack.stack, nothing) == (None, None)


STRONG_COIL = Scanner(**{**DEMO_SCANNER.__dict__, "coil_decay_mm": 70.0, "coil_floor": 0.1, "bias": 0.15})


@pytest.mark.parametrize("scanner", [DEMO_SCANNER, STRONG_COIL])
def test_lean_fraction_of_a_phantom_with_patches_of_fat(scanner: Scanner) -> None:
    """A quarter of every muscle is turned to fat in patches of some millimetres; partial volume, noise, chemical shift
    and coil as drawn. Off by less than 0.05 per muscle and 0.03 on average."""
    exam = make_exam(ExamPlan(seed=5001, sex="F", age_years=45, height_m=1.63, weight_kg=70.0))
    slices, rng = [], np.random.default_rng(7)
    for k in (12, 16, 20):
        slice_ = cut(exam.subject, exam.axial[0], k)
        patches = np.kron(rng.random((86, 86)) < 0.25, np.ones((3, 3), bool))[:256, :256] & (slice_.muscle > 0)
        slice_.tissue[:, patches] = Tissue.MUSCLE_FAT
        slices.append(slice_)
    volume = acquire_slices(slices, t1_contrast(exam), scanner, seed=[1], back_y_mm=exam.subject.back_y_mm)
    image = np.clip(volume / np.percentile(volume, 99.5) * 2400, 0, 4095).astype(np.uint16)
    labels = np.stack([slice_.muscle for slice_ in slices])
    lean = 1 - np.isin(np.stack([slice_.tissue for slice_ in slices]), FAT).mean(axis=1)
    geometry = shapes.axial_geometry(n=3, size=256, spacing=0.9, gap_mm=24.0)
    rule, _ = lean_rule(shapes.labelled("axial", geometry, {}, image=image).stack, labels)
    assert rule is not None
    found = rule.lean(image, labels)
    errors = [found[labels == v].mean() - lean[labels == v].mean() for v in range(1, 9)]
    assert np.abs(errors).max() < 0.05
    assert np.abs(errors).mean() < 0.03
