"""Odd masks and stacks: numbers and names that cannot be right are flagged or withheld, and nothing raises."""

from __future__ import annotations

from dataclasses import replace

import anatomy_shapes as shapes
import numpy as np
import pytest

from cohort.anatomy.measure import measure_exam
from cohort.geometry import StackGeometry
from cohort.stacks import LabelledStack

GEOMETRY = shapes.sagittal_geometry(shape=(384, 320), spacing=(0.9, 0.8), middle_mm=(3.0, 0.0, 115.0))


@pytest.fixture(scope="module")
def blocks() -> dict[str, shapes.Block]:
    return shapes.spine()


@pytest.fixture(scope="module")
def sagittal(blocks: dict[str, shapes.Block]) -> LabelledStack:
    return shapes.sagittal_stack(blocks, GEOMETRY)


def shown(stack: LabelledStack, rows: slice) -> LabelledStack:
    """The stack with an image that is zero but for some rows, and masks there alone."""
    image = np.zeros(stack.stack.image.shape, np.uint16)
    image[:, rows] = 500
    labels = {name: np.where(image > 0, volume, 0).astype(np.uint8) for name, volume in stack.labels.items()}
    return LabelledStack(replace(stack.stack, image=image), labels, {})


def cut(stack: LabelledStack, rows: slice) -> LabelledStack:
    """The same with the picture itself ending there."""
    part = shown(stack, rows)
    g = GEOMETRY
    position = g.position_mm + rows.start * g.spacing_mm[0] * g.col_dir
    geometry = StackGeometry(
        position, g.row_dir, g.col_dir, g.spacing_mm, (rows.stop - rows.start, g.shape[1]), g.thickness_mm
    )
    labels = {name: volume[:, rows] for name, volume in part.labels.items()}
    image = replace(part.stack, image=part.stack.image[:, rows], geometry=geometry)
    return LabelledStack(image, labels, {})


@pytest.mark.parametrize("half", ["upper", "lower"])
def test_padding_of_zeros_is_the_border_of_the_picture(
    sagittal: LabelledStack, blocks: dict[str, shapes.Block], half: str
) -> None:
    row = round(float(GEOMETRY.to_index(blocks["L3"].centre_mm)[1]))
    rows = slice(row, 384) if half == "lower" else slice(0, row)
    padded, smaller = (measure_exam("exam", make(sagittal, rows), []) for make in (shown, cut))
    assert sum(row.touches_border for row in padded.vertebrae) == 1
    assert [(row.level, row.status, row.anterior_height_mm) for row in padded.vertebrae] == [
        (row.level, row.status, row.anterior_height_mm) for row in smaller.vertebrae
    ]
    assert [row.level_confidence for row in padded.vertebrae] == pytest.approx(
        [row.level_confidence for row in smaller.vertebrae]
    )


@pytest.mark.parametrize("kept", [("L4",), ("L3", "L3-L4", "L4"), ("S1",), ("S1", "L5-S1", "L5")])
def test_one_or_two_bodies_have_no_names(blocks: dict[str, shapes.Block], kept: tuple[str, ...]) -> None:
    found = measure_exam("exam", shapes.sagittal_stack({name: blocks[name] for name in kept}, GEOMETRY), [])
    assert found.vertebrae
    assert {row.level for row in (*found.vertebrae, *found.discs)} == {None}
    assert found.reason == "levels_undecided" or "levels_undecided" in {row.reason for row in found.quality}
