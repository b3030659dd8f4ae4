"""What pictures say: ghosts in air, marrow and disc alike."""

from __future__ import annotations

from dataclasses import replace

import anatomy_shapes as shapes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.anatomy.image_quality import ghost_flags, ghost_share
from cohort.anatomy.measure import measure_exam
from cohort.geometry import StackGeometry
from cohort.stacks import ImageStack, LabelledStack
from models.phantom.acquisition import acquire_slices
from models.phantom.exam import ExamPlan, PhantomExam, make_exam, t1_contrast
from models.phantom.mri import DEMO_SCANNER, draw_scanner
from models.phantom.sampling import TissueSlice, cut

Cuts = tuple[PhantomExam, StackGeometry, list[TissueSlice]]


@pytest.fixture(scope="module")
def axial() -> Cuts:
    """Two slices of a slim subject with air before and behind."""
    exam = make_exam(ExamPlan(seed=5003, sex="F", age_years=80, height_m=1.63, weight_kg=75.0))
    grid = exam.axial[0]
    chosen = [8, 16]
    return exam, replace(grid, position_mm=grid.position_mm[chosen]), [cut(exam.subject, grid, k) for k in chosen]


def scanned(cuts: Cuts, *, ghost: float, offset: float = 0.3, seed: int | None = None) -> ImageStack:
    """By the demonstration scanner, or by a drawn one that is mild to bad; phase runs along the rows' index."""
    exam, grid, slices = cuts
    scanner = DEMO_SCANNER if seed is None else draw_scanner(np.random.default_rng(seed))
    scanner = replace(scanner, ghost=ghost, ghost_offset=offset, frequency_axis=1)
    volume = acquire_slices(slices, t1_contrast(exam), scanner, seed=[2], back_y_mm=exam.subject.back_y_mm)
    image = np.clip(volume / np.percentile(volume, 99.5) * 2400, 0, 4095).astype(np.uint16)
    return ImageStack("axial", 0, image, grid, "phantom")


@pytest.mark.parametrize("offset", [0.2, 0.3, 0.45])
@pytest.mark.parametrize("ghost", [0.04, 0.08])
def test_ghosts_in_air_are_measured(axial: Cuts, ghost: float, offset: float) -> None:
    (flag,) = ghost_flags(scanned(axial, ghost=ghost, offset=offset))
    assert flag.value == pytest.approx(ghost, rel=0.3)
    assert (flag.reason, flag.structure) == ("ghosting", "axial stack 0")


@pytest.mark.parametrize("seed", [None, 1, 2, 3, 4, 5])
def test_noise_coil_and_ringing_are_no_ghosts(axial: Cuts, seed: int | None) -> None:
    assert not ghost_flags(scanned(axial, ghost=0.0, seed=seed))


@settings(max_examples=8, deadline=None)
@given(swap=st.booleans(), flip=st.tuples(*[st.booleans()] * 3))
def test_ghosts_are_seen_in_any_storage_order(axial, swap, flip) -> None:  # type: ignore[no-untyped-def]
    stack = scanned(axial, ghost=0.06)
    turned = shapes.reordered(LabelledStack(stack, {}, {}), swap=swap, flip=flip).stack
    assert ghost_share(turned) == pytest.approx(ghost_share(stack), rel=0.15)


def test_pictures_without_air_or_without_anything_say_nothing(axial: Cuts) -> None:
    stack = scanned(axial, ghost=0.08)
    masked = np.where(stack.image > 300, stack.image, 0).astype(np.uint16)
    assert not ghost_flags(replace(stack, image=masked))
    for constant in (0, 900):
        assert not ghost_flags(replace(stack, image=np.full_like(stack.image, constant)))
    middle = replace(stack, image=np.ascontiguousarray(stack.image[:1, 100:140, 100:140]))
    assert ghost_share(middle) is None


@pytest.fixture(scope="module")
def sagittal() -> LabelledStack:
    return shapes.sagittal_stack(shapes.spine(), shapes.sagittal_geometry())


@pytest.mark.parametrize(("disc", "low"), [(300.0, False), (640.0, False), (690.0, True), (700.0, True)])
def test_discs_that_look_like_marrow_are_flagged(sagittal: LabelledStack, disc: float, low: bool) -> None:
    rng = np.random.default_rng(4)
    signal = np.where(sagittal.labels["disc"] > 0, disc, 700.0) + rng.normal(0, 30, sagittal.stack.image.shape)
    stack = replace(sagittal, stack=replace(sagittal.stack, image=signal.astype(np.uint16)))
    flags = [row for row in measure_exam("exam", stack, []).quality if row.reason == "low_contrast"]
    assert [row.structure for row in flags] == (["sagittal stack"] if low else [])
    assert all(row.value == pytest.approx((700 - disc) / 30, abs=0.2) for row in flags)
