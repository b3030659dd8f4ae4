"""Overlay pages: right way round, with names and numbers, whatever the acquisition order."""

from __future__ import annotations

from pathlib import Path

import anatomy_shapes as shapes
import numpy as np
import pytest
from skimage.io import imread

from cohort.anatomy.measure import Measurements, measure_exam
from cohort.review.overlay import axial_overlay, sagittal_overlay
from cohort.stacks import LabelledStack

DISC = np.array([0xFF, 0x4D, 0x8D])
FRONT_OF_SPINE = np.uint16(4000)


def with_image(stack: LabelledStack, image: np.ndarray) -> LabelledStack:
    g = stack.stack
    return shapes.labelled(g.plane, g.geometry, stack.labels, image=image, frame=g.frame_of_reference_id)


@pytest.fixture(scope="module")
def sagittal() -> LabelledStack:
    """Air behind, bright tissue in front of y = -20 mm."""
    stack = shapes.sagittal_stack(shapes.spine(), shapes.sagittal_geometry())
    image = np.zeros(stack.stack.image.shape, np.uint16)
    columns = stack.stack.geometry.to_index([0.0, -20.0, 100.0])[2]
    image[:, :, : int(columns)] = FRONT_OF_SPINE
    return with_image(stack, image)


def page(measured: Measurements, path: Path) -> np.ndarray:
    sagittal_overlay(measured, path)
    return imread(path)[..., :3].astype(int)


def test_every_acquisition_order_gives_the_same_page(sagittal: LabelledStack, tmp_path: Path) -> None:
    first = page(measure_exam("exampseudonym", sagittal, []), tmp_path / "a.png")
    turned = shapes.reordered(sagittal, swap=True, flip=(False, True, True))
    second = page(measure_exam("exampseudonym", turned, []), tmp_path / "b.png")
    np.testing.assert_array_equal(first, second)


def test_anterior_is_left_and_discs_are_outlined(sagittal: LabelledStack, tmp_path: Path) -> None:
    picture = page(measure_exam("exampseudonym", sagittal, []), tmp_path / "a.png")
    grey = (np.ptp(picture, axis=2) < 5) & (picture[..., 0] > 240)
    third = picture.shape[1] // 3
    bright, coloured = (np.nonzero(mask[:, :third])[1] for mask in (grey, np.abs(picture - DISC).sum(axis=2) < 40))
    assert len(coloured) > 200
    assert np.median(bright) < np.median(coloured)


def test_patients_right_is_on_the_left_of_axial_pages(tmp_path: Path) -> None:
    """Only the right psoas is drawn: its colour must appear in the left half of the panel."""
    stack = shapes.muscle_stack(
        shapes.axial_geometry(n=1), only=(("psoas", "right"), ("erector_spinae", "left"), ("erector_spinae", "right"))
    )
    for i, flip in enumerate(((False, False, False), (False, True, True))):
        measured = measure_exam("exampseudonym", None, [shapes.reordered(stack, swap=False, flip=flip)])
        axial_overlay(measured, tmp_path / f"{i}.png")
        picture = imread(tmp_path / f"{i}.png")[..., :3].astype(int)
        panel = picture[: int(picture.shape[0] * 0.93)]  # without the legend
        psoas = np.nonzero(np.abs(panel - [0x90, 0xBE, 0x6D]).sum(axis=2) < 40)[1]
        assert len(psoas) > 50
        assert np.median(psoas) < picture.shape[1] / 2


def test_flagged_and_empty_exams_have_pages_too(sagittal: LabelledStack, tmp_path: Path) -> None:
    empty = {name: np.zeros_like(volume) for name, volume in sagittal.labels.items()}
    nothing = measure_exam("exampseudonym", LabelledStack(sagittal.stack, empty, {}), [])
    assert page(nothing, tmp_path / "a.png").any()
    blank = shapes.muscle_stack(shapes.axial_geometry(n=2), only=())
    axial_overlay(measure_exam("exampseudonym", None, [blank]), tmp_path / "b.png")
    assert (tmp_path / "b.png").stat().st_size > 1000


def test_missing_planes_are_an_error(sagittal: LabelledStack, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no axial"):
        axial_overlay(measure_exam("exampseudonym", sagittal, []), tmp_path / "a.png")
    with pytest.raises(ValueError, match="no sagittal"):
        sagittal_overlay(measure_exam("exampseudonym", None, []), tmp_path / "a.png")
