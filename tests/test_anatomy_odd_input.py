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


def test_masks_beyond_the_padding_are_kept_and_cut_by_the_border(
    sagittal: LabelledStack, blocks: dict[str, shapes.Block]
) -> None:
    row = round(float(GEOMETRY.to_index(blocks["L3"].centre_mm)[1]))
    image = shown(sagittal, slice(row, 384)).stack
    found = measure_exam("exam", LabelledStack(image, sagittal.labels, {}), [])
    assert [one.level for one in found.vertebrae] == ["S1", "L5", "L4", "L3", "L2", "L1", "T12", "T11"]
    assert [one.level for one in found.vertebrae if one.touches_border] == ["T11"]


@pytest.mark.parametrize("kept", [("L4",), ("L3", "L3-L4", "L4"), ("S1",), ("S1", "L5-S1", "L5")])
def test_one_or_two_bodies_have_no_names(blocks: dict[str, shapes.Block], kept: tuple[str, ...]) -> None:
    found = measure_exam("exam", shapes.sagittal_stack({name: blocks[name] for name in kept}, GEOMETRY), [])
    assert found.vertebrae
    assert {row.level for row in (*found.vertebrae, *found.discs)} == {None}
    assert found.reason == "levels_undecided" or "levels_undecided" in {row.reason for row in found.quality}


def disc_stacks(blocks: dict[str, shapes.Block]) -> list[LabelledStack]:
    """Five axial slices along each of two discs, muscles beside them."""
    stacks = []
    for index, name in enumerate(("L4-L5", "L3-L4")):
        disc = blocks[name]
        middle = (float(disc.centre_mm[0]), float(disc.centre_mm[1]) + 25.0, float(disc.centre_mm[2]))
        geometry = shapes.axial_geometry(n=5, size=160, spacing=1.4, tilt_deg=disc.tilt_deg, middle_mm=middle)
        stacks.append(shapes.muscle_stack(geometry, y_mm=float(disc.centre_mm[1]), index=index))
    return stacks


def test_swapped_sides_of_one_stack_leave_the_others(sagittal: LabelledStack, blocks: dict[str, shapes.Block]) -> None:
    right, other = disc_stacks(blocks)
    swap = np.array([0, 2, 1, 4, 3, 6, 5, 8, 7], dtype=np.uint8)
    wrong = LabelledStack(other.stack, {"muscle": swap[other.labels["muscle"]]}, {})
    found = measure_exam("exam", sagittal, [right, wrong])
    assert {(row.level, row.status) for row in found.muscle_levels} == {("L4-L5", "ok"), ("L3-L4", "refused")}


def test_doubtful_names_reach_the_muscles_at_their_levels(blocks: dict[str, shapes.Block]) -> None:
    """Straight muscles that do not grow downward contradict the names."""
    block = shapes.axial_geometry(n=40, size=160, spacing=1.4, middle_mm=(3.0, 30.0, 90.0))
    found = measure_exam("exam", shapes.sagittal_stack(blocks, GEOMETRY), [shapes.muscle_stack(block)])
    assert "levels_low_confidence" in {row.reason for row in found.quality}
    assert found.muscle_levels
    assert all("levels_low_confidence" in str(row.reasons) for row in found.muscle_levels)
    assert {row.status for row in found.muscle_levels} == {"flagged"}


def test_a_cut_muscle_has_no_difference_to_the_other_side(
    sagittal: LabelledStack, blocks: dict[str, shapes.Block]
) -> None:
    disc = blocks["L3-L4"]
    middle = (float(disc.centre_mm[0]) - 20.0, float(disc.centre_mm[1]) + 25.0, float(disc.centre_mm[2]))
    geometry = shapes.axial_geometry(n=5, size=100, spacing=1.2, tilt_deg=disc.tilt_deg, middle_mm=middle)
    stack = shapes.muscle_stack(geometry, x_mm=float(disc.centre_mm[0]), y_mm=float(disc.centre_mm[1]))
    found = measure_exam("exam", sagittal, [stack])
    difference = {row.muscle: row.side_difference for row in found.muscle_levels if row.level == "L3-L4"}
    assert difference["multifidus"] == pytest.approx(0.0, abs=0.03)
    assert difference["psoas"] is None
    assert difference["erector_spinae"] is None


def test_a_sagittal_stack_without_frame_of_reference_is_not_combined(
    sagittal: LabelledStack, blocks: dict[str, shapes.Block]
) -> None:
    lost = LabelledStack(replace(sagittal.stack, frame_of_reference_id=None), sagittal.labels, {})
    found = measure_exam("exam", lost, disc_stacks(blocks)[:1])
    assert (found.muscle_levels, found.reason) == ((), "different_frame")


def test_numbers_do_not_rest_on_cut_vertebrae(sagittal: LabelledStack, blocks: dict[str, shapes.Block]) -> None:
    """The centroid of a cut body is that of the part in view, and its heights are not those of a body."""
    row = round(float(GEOMETRY.to_index(blocks["L1"].centre_mm)[1]))
    found = measure_exam("exam", cut(sagittal, slice(row, 384)), [])
    whole = measure_exam("exam", sagittal, [])
    assert [one.level for one in found.vertebrae if one.touches_border] == ["L1"]
    assert found.curvature is not None
    assert found.curvature.lordosis_centroid_deg is None
    assert found.curvature.coronal_deviation_mm is None
    ratio = {one.level: one.compression_ratio for one in found.vertebrae}
    assert ratio["L2"] == pytest.approx(
        next(one.compression_ratio for one in whole.vertebrae if one.level == "L2"), abs=0.02
    )


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_plane_of_a_disc_that_few_slices_show(blocks: dict[str, shapes.Block], n: int) -> None:
    few = shapes.sagittal_geometry(n=n, gap_mm=3.0, shape=(384, 320), spacing=(0.9, 0.8), middle_mm=(3.0, 0.0, 115.0))
    found = measure_exam("exam", shapes.sagittal_stack(blocks, few), disc_stacks(blocks))
    assert {row.level for row in found.muscle_levels} == {"L4-L5", "L3-L4"}
    assert max(row.angle_deg for row in found.muscle_levels) < 4.0


def test_slices_that_pass_obliquely_through_the_spine_are_flagged(blocks: dict[str, shapes.Block]) -> None:
    """A disc of 10 mm reads 11.5 mm on slices that lean by 30 degrees."""
    leaning = shapes.sagittal_geometry(
        lean_deg=30.0, n=45, shape=(384, 320), spacing=(0.9, 0.8), middle_mm=(3.0, 0.0, 115.0)
    )
    found = measure_exam("exam", shapes.sagittal_stack(blocks, leaning), [])
    rows = [row for row in (*found.vertebrae, *found.discs) if row.level in ("L4", "L3", "L3-L4", "L2-L3")]
    assert len(rows) == 4
    assert all("oblique_slice" in str(row.reasons) and row.status == "flagged" for row in rows)
    angles = {row.structure: row.value for row in found.quality if row.reason == "oblique_slice"}
    assert [angles[name] for name in ("L4", "L3", "L3-L4", "L2-L3")] == pytest.approx([30.0] * 4, abs=3.0)


def test_a_spine_that_bends_the_wrong_way_has_no_lordosis(sagittal: LabelledStack) -> None:
    front_to_back = {name: volume[:, :, ::-1].copy() for name, volume in sagittal.labels.items()}
    found = measure_exam("exam", LabelledStack(sagittal.stack, front_to_back, {}), [])
    assert found.status == "flagged"
    assert found.curvature is not None
    assert (found.curvature.status, found.curvature.lordosis_l1_s1_deg) == ("refused", None)
    assert "implausible_angle" in str(found.curvature.reasons)


def test_discs_that_take_in_the_bodies_have_no_names(sagittal: LabelledStack) -> None:
    """A disc mask that covers bodies, too, is divided into many pieces, of which none is the disc more than another."""
    both = {**sagittal.labels, "disc": np.maximum(sagittal.labels["disc"], sagittal.labels["vertebral_body"] > 0)}
    found = measure_exam("exam", LabelledStack(sagittal.stack, both, {}), [])
    shared = [row for row in found.quality if row.reason == "count_mismatch" and row.structure == "disc"]
    assert shared
    assert [row.level for row in found.discs if row.level in ("L5-S1", "L4-L5", "L3-L4", "L2-L3")] == []
