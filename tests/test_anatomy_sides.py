"""Left and right of the patient from geometry and symmetry."""

from __future__ import annotations

import anatomy_shapes as shapes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.anatomy.sides import find_midline, split_sides
from cohort.stacks import LabelledStack
from cohort.terms import MUSCLE_LABELS


def classes(stack: LabelledStack) -> np.ndarray:
    return ((stack.labels["muscle"] + 1) // 2).astype(np.uint8)


def wrong_share(stack: LabelledStack) -> float:
    truth = stack.labels["muscle"]
    return float(np.mean(split_sides(classes(stack), stack.stack.geometry)[truth > 0] != truth[truth > 0]))


GRID = {"n": 10, "size": 160, "spacing": 1.3}


@settings(max_examples=12, deadline=None)
@given(
    x=st.floats(-25, 25),
    y=st.floats(-15, 15),
    turn=st.floats(-20, 20),
    drift=st.floats(-0.3, 0.3),
    lean=st.floats(-30, 30),
    swap=st.booleans(),
    flip=st.tuples(*[st.booleans()] * 3),
)
def test_sides_of_off_centre_turned_and_flipped_patients(  # type: ignore[no-untyped-def]
    x, y, turn, drift, lean, swap, flip
) -> None:
    geometry = shapes.axial_geometry(tilt_deg=lean, middle_mm=(0.0, 40.0, 0.0), **GRID)
    stack = shapes.muscle_stack(geometry, x_mm=x, y_mm=y, turn_deg=turn, drift=drift)
    assert wrong_share(shapes.reordered(stack, swap=swap, flip=flip)) < 0.002


def test_the_patients_left_is_positive_x() -> None:
    stack = shapes.muscle_stack(shapes.axial_geometry(**GRID))
    for flip in ((False, False, False), (False, False, True)):
        turned = shapes.reordered(stack, swap=False, flip=flip)
        split = split_sides(classes(turned), turned.stack.geometry)
        at = turned.stack.geometry.to_lps(np.argwhere(split == MUSCLE_LABELS["psoas", "left"]))
        assert (at[:, 0] > 3).all()


@pytest.mark.parametrize("lost", [("erector_spinae", "left"), ("psoas", "right"), ("multifidus", "left")])
def test_one_missing_muscle_does_not_move_the_middle(lost: tuple[str, str]) -> None:
    seen = tuple(name for name in MUSCLE_LABELS if name != lost)
    stack = shapes.muscle_stack(shapes.axial_geometry(**GRID), only=seen, turn_deg=8.0)
    assert wrong_share(stack) < 0.002


def test_a_cropped_side_does_not_move_the_middle() -> None:
    """The image ends 30 mm left of the spine on every slice."""
    stack = shapes.muscle_stack(shapes.axial_geometry(middle_mm=(-62.0, 40.0, 90.0), **GRID))
    assert wrong_share(stack) < 0.01


def test_a_lone_muscle_lies_on_its_side_of_the_image() -> None:
    stack = shapes.muscle_stack(shapes.axial_geometry(**GRID), only=(("psoas", "right"),))
    assert find_midline(classes(stack), stack.stack.geometry).score < 0.1
    assert wrong_share(stack) == 0


def test_multifidi_that_touch_are_divided() -> None:
    stack = shapes.muscle_stack(shapes.axial_geometry(**GRID))
    labels = stack.labels["muscle"].copy()
    x = stack.stack.geometry.to_lps(np.argwhere(labels == 0))[:, 0]
    y = stack.stack.geometry.to_lps(np.argwhere(labels == 0))[:, 1]
    between = (np.abs(x - 3) < 4) & (np.abs(y - 46) < 8)
    index = tuple(np.argwhere(labels == 0)[between].T)
    labels[index] = np.where(x[between] > 3, 1, 2)
    assert wrong_share(LabelledStack(stack.stack, {"muscle": labels}, {})) < 0.02


def test_empty_and_single_slice_stacks() -> None:
    geometry = shapes.axial_geometry(n=1, size=160, spacing=1.3)
    stack = shapes.muscle_stack(geometry)
    assert wrong_share(stack) < 0.002
    assert not split_sides(np.zeros_like(stack.labels["muscle"]), geometry).any()
