"""Stacks by geometry alone: grouping, order, gaps, and the place of every voxel."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.archive.header import SlicePose, slice_pose
from cohort.archive.stacks import (
    examine_gaps,
    group_poses,
    group_slices,
    order_of_stacks,
    place_numbers,
    stack_geometries,
)
from cohort.errors import RefusedError
from cohort.geometry import StackGeometry

Vector = npt.NDArray[np.float64]
AXES_48 = [
    (order, signs, reverse)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=2)
    for reverse in (False, True)
]
"""Axis of the row direction, of the column direction and of the normal; signs of the first two; file order."""


def pose(
    position: npt.ArrayLike,
    row: npt.ArrayLike,
    col: npt.ArrayLike,
    *,
    thickness: float | None = 4.0,
    shape: tuple[int, int] = (6, 5),
) -> SlicePose:
    return slice_pose(
        position_mm=tuple(np.asarray(position, dtype=float).tolist()),
        orientation=(*np.asarray(row, dtype=float).tolist(), *np.asarray(col, dtype=float).tolist()),
        spacing_mm=(0.8, 0.5),
        shape=shape,
        thickness_mm=thickness,
    )


def block(
    at: npt.ArrayLike,
    *,
    first: npt.ArrayLike = (0, 0, 0),
    tilt_deg: float = 0.0,
    shear: npt.ArrayLike = (0, 0),
    thickness: float | None = 4.0,
    shape: tuple[int, int] = (6, 5),
) -> list[SlicePose]:
    """Axial slices at distances along their normal, tilted about the x axis, sheared by mm per mm in the plane."""
    angle = np.deg2rad(tilt_deg)
    row, col = np.array([1.0, 0.0, 0.0]), np.array([0.0, np.cos(angle), -np.sin(angle)])
    step = np.cross(row, col) + np.asarray(shear, dtype=float) @ np.stack([row, col])
    origin = np.asarray(first, dtype=float)
    return [pose(origin + d * step, row, col, thickness=thickness, shape=shape) for d in np.asarray(at, dtype=float)]


def even(n: int, gap: float = 4.0, start: float = 0.0) -> Vector:
    return start + gap * np.arange(n)


def positions(poses: list[SlicePose]) -> list[list[float]]:
    return [one.position_mm.tolist() for one in poses]


def sorted_stacks(poses: list[SlicePose]) -> list[StackGeometry]:
    """Geometries in the order of axial stacks, of poses in an order that says nothing."""
    shuffled = [poses[i] for i in np.random.default_rng(len(poses)).permutation(len(poses))]
    geometries = stack_geometries([[shuffled[i] for i in group] for group in group_poses(shuffled)])
    return [geometries[i] for i in order_of_stacks(geometries, "axial")]


def assert_stacks_are(geometries: list[StackGeometry], blocks: list[list[SlicePose]]) -> None:
    found = sorted(geometry.position_mm.tolist() for geometry in geometries)
    assert found == sorted(positions(one) for one in blocks)


@pytest.mark.parametrize(("order", "signs", "reverse"), AXES_48)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_every_voxel_has_its_place_in_all_48_axis_orders(
    order: tuple[int, int, int], signs: tuple[int, int], reverse: bool, data: st.DataObject
) -> None:
    """Oblique, sheared and with pixels that are not square, in a stack of as few as two slices."""
    turned = rotation(data.draw(st.lists(st.floats(-0.3, 0.3), min_size=3, max_size=3)))
    row, col = turned @ (signs[0] * np.eye(3)[order[0]]), turned @ (signs[1] * np.eye(3)[order[1]])
    shear = data.draw(st.lists(st.floats(-0.5, 0.5), min_size=2, max_size=2))
    step = data.draw(st.floats(0.5, 10)) * (np.cross(row, col) + shear[0] * row + shear[1] * col)
    n = data.draw(st.integers(2, 5))
    origin = np.array(data.draw(st.lists(st.floats(-500, 500), min_size=3, max_size=3)))
    poses = [pose(origin + k * step, row, col) for k in range(n)]
    (group,) = group_poses(poses[::-1] if reverse else poses)
    assert group == (list(range(n))[::-1] if reverse else list(range(n)))
    (geometry,) = stack_geometries([poses])
    index = np.array(list(itertools.product(range(n), range(6), range(5))), dtype=float)
    # DICOM PS3.3 C.7.6.2.1.1: position + column index x column spacing x row cosines + row index x ...
    truth = origin + index[:, :1] * step + index[:, 1:2] * 0.8 * col + index[:, 2:] * 0.5 * row
    homogeneous = np.concatenate([index, np.ones((len(index), 1))], axis=1)
    np.testing.assert_allclose((homogeneous @ geometry.affine.T)[:, :3], truth, atol=1e-6)
    np.testing.assert_allclose(geometry.to_lps(index), truth, atol=1e-6)
    np.testing.assert_allclose(geometry.to_index(truth), index, atol=1e-6)
    assert geometry.affine_error_mm == 0
    assert np.sign(np.linalg.det(geometry.affine[:3, :3])) == -1  # (slice, row, column) is left-handed


def rotation(axis_angle: list[float]) -> Vector:
    """Rotation about a vector by its length in radians (Rodrigues)."""
    x, y, z = axis_angle
    angle = float(np.linalg.norm(axis_angle))
    if angle == 0:
        return np.eye(3)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) / angle
    return np.asarray(np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k)


@settings(max_examples=60, deadline=None)
@given(
    gaps=st.lists(st.floats(1, 9), min_size=0, max_size=5),
    axis_angle=st.lists(st.floats(-3, 3), min_size=3, max_size=3),
    shear=st.floats(-0.3, 0.3),
    index=st.lists(st.floats(-20, 40), min_size=3, max_size=3),
)
def test_mapping_there_and_back_holds_beyond_the_stack(
    gaps: list[float], axis_angle: list[float], shear: float, index: list[float]
) -> None:
    row, col, normal = rotation(axis_angle).T
    along = np.concatenate([[0.0], np.cumsum(gaps)])
    position = np.array([10.0, -20.0, 30.0]) + along[:, None] * (normal + shear * row)
    geometry = StackGeometry(position, row, col, (0.8, 0.5), (6, 5), 4.0)
    np.testing.assert_allclose(geometry.to_index(geometry.to_lps(index)), index, atol=1e-6)


def test_slices_run_along_the_normal_whatever_their_order() -> None:
    poses = block(even(9), tilt_deg=20)
    (stack,) = sorted_stacks(poses)
    assert stack.position_mm.tolist() == positions(poses)
    assert np.all(np.diff(stack.slice_distance_mm) > 0)
    assert examine_gaps(stack) == examine_gaps(sorted_stacks(block(even(2)))[0])


def test_one_oblique_stack_per_disc_stays_apart_cranial_first() -> None:
    blocks = [
        block(even(4), tilt_deg=tilt, first=(0, 0, -35 * k)) for k, tilt in enumerate((-10.0, -2.0, 6.0, 18.0, 30.0))
    ]
    stacks = sorted_stacks([one for some in blocks for one in some])
    for stack, poses in zip(stacks, blocks, strict=True):
        assert stack.position_mm.tolist() == positions(poses)


def test_slices_tilted_by_a_third_of_a_degree_are_of_different_stacks() -> None:
    blocks = [block(even(5), tilt_deg=10.0), block(even(5, start=20.0), tilt_deg=10.3)]
    assert_stacks_are(sorted_stacks([*blocks[0], *blocks[1]]), blocks)


def test_parallel_stacks_with_gaps_are_parted_and_keep_their_place() -> None:
    blocks = [block(even(5, 4.4), first=(0, 0, -35 * k)) for k in range(5)]
    stacks = sorted_stacks([one for some in blocks for one in some])
    assert [stack.n_slices for stack in stacks] == [5] * 5
    np.testing.assert_allclose([stack.position_mm[0, 2] for stack in stacks], [0, -35, -70, -105, -140])
    assert all(stack.slice_gap_mm == pytest.approx(4.4) for stack in stacks)


def test_blocks_of_two_and_one_slice_are_parted() -> None:
    blocks = [block(even(2), first=(0, 0, -35 * k)) for k in range(4)] + [block([30.0])]
    assert_stacks_are(sorted_stacks([one for some in blocks for one in some]), blocks)


def test_parallel_stacks_that_overlap_are_parted_by_their_fields_of_view() -> None:
    blocks = [block(even(5), first=(0, 25.0 * k * (-1) ** k, -14.0 * k)) for k in range(3)]
    assert_stacks_are(sorted_stacks([one for some in blocks for one in some]), blocks)


def test_sheared_blocks_are_parted_by_their_gaps() -> None:
    """Each block goes back to where the one before began, so that all together lie on no line."""
    blocks = [block(even(5, start=35.0 * k), first=(0, -0.6 * 35 * k, 0), shear=(0, 0.6)) for k in range(4)]
    stacks = sorted_stacks([one for some in blocks for one in some])
    assert_stacks_are(stacks, blocks)
    assert all(stack.affine_error_mm == 0 for stack in stacks)


@settings(max_examples=200, deadline=None)
@given(
    gap=st.floats(2, 6),
    sizes=st.lists(st.integers(3, 9), min_size=2, max_size=2),
    begin=st.floats(0, 1),
    part=st.floats(0.12, 0.88).filter(lambda part: abs(part - 0.5) > 0.12),
)
def test_two_stacks_of_one_field_of_view_are_told_apart_wherever_they_overlap(
    gap: float, sizes: list[int], begin: float, part: float
) -> None:
    """The second begins somewhere between two slices of the first, but not just half-way: that is half the spacing."""
    first = int(begin * (sizes[0] - 2)) + part
    blocks = [block(even(sizes[0], gap)), block(even(sizes[1], gap, first * gap))]
    stacks = sorted_stacks([*blocks[0], *blocks[1]])
    assert_stacks_are(stacks, blocks)
    assert not any(examine_gaps(stack).uneven for stack in stacks)


def test_three_overlapping_stacks_are_told_apart() -> None:
    blocks = [block(even(6, 4.0, start)) for start in (0.0, 18.5, 37.2)]
    assert_stacks_are(sorted_stacks([one for some in blocks for one in some]), blocks)


def test_near_copies_of_a_stack_are_not_paired_with_it() -> None:
    """A stack taken again 0.3 mm further on: the gaps within each pair are no spacing of 4 mm thick slices."""
    blocks = [block(even(6)), block(even(6, start=0.3))]
    assert_stacks_are(sorted_stacks([*blocks[0], *blocks[1]]), blocks)


def test_overlapping_slices_of_one_stack_stay_together() -> None:
    """Reconstructed every millimetre at 4 mm thickness, in two slabs."""
    blocks = [block(even(20, 1.0)), block(even(20, 1.0, 60.0))]
    assert_stacks_are(sorted_stacks([*blocks[0], *blocks[1]]), blocks)


def test_uneven_spacing_is_said_and_no_slice_moves() -> None:
    poses = block(np.cumsum([0.0, 3.6, 4.4, 5.2, 4.0, 4.8, 4.4]))
    (stack,) = sorted_stacks(poses)
    assert stack.position_mm.tolist() == positions(poses)
    assert examine_gaps(stack).uneven
    by_affine = stack.affine @ np.array([2.0, 0, 0, 1])
    assert stack.affine_error_mm >= np.linalg.norm(by_affine[:3] - stack.position_mm[2]) > 0.5
    np.testing.assert_allclose(stack.to_lps([2, 0, 0]), stack.position_mm[2], atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(jitter=st.lists(st.floats(-0.05, 0.05), min_size=8, max_size=8), gap=st.floats(1.0, 6.0))
def test_rounded_positions_are_neither_uneven_nor_missing(jitter: list[float], gap: float) -> None:
    (stack,) = sorted_stacks(block(even(8, gap) + np.array(jitter)))
    assert (examine_gaps(stack).n_missing, examine_gaps(stack).uneven) == (0, False)


def test_a_missing_slice_leaves_its_gap_in_one_stack() -> None:
    (stack,) = sorted_stacks(block(np.delete(even(12), 5)))
    gaps = examine_gaps(stack)
    assert (gaps.n_missing, gaps.uneven) == (1, False)
    assert stack.affine_error_mm > 1
    np.testing.assert_allclose(stack.slice_distance_mm, np.delete(np.arange(12) * 4.0, 5))
    # What lies in the gap and behind it is found where it is, not one slice off.
    np.testing.assert_allclose(stack.to_index([0, 0, 20.0]), [4.5, 0, 0], atol=1e-9)
    np.testing.assert_allclose(stack.to_lps([5, 0, 0]), [0, 0, 24.0], atol=1e-9)


def test_copies_share_a_place() -> None:
    poses = block([0.0, 4.0, 4.0, 8.0, 8.02, 12.0])
    (group,) = group_poses(poses)
    assert place_numbers([poses[i] for i in group]).tolist() == [0, 1, 1, 2, 2, 3]


def test_frames_of_reference_and_grids_are_not_mixed() -> None:
    poses = [*block(even(6)), *block(even(6), first=(0, 0, 2.0)), *block(even(4, start=30.0), shape=(12, 10))]
    groups = group_slices(poses, ["frame"] * 6 + ["other"] * 6 + ["frame"] * 4)
    assert sorted(groups) == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11], [12, 13, 14, 15]]


def test_thickness_comes_from_the_stack_the_series_or_the_gaps() -> None:
    (single,) = stack_geometries([block([0.0])])
    assert single.slice_gap_mm == 4.0
    with pytest.raises(RefusedError, match="inconsistent_series"):
        stack_geometries([block([0.0], thickness=None)])
    (gaps,) = stack_geometries([block(even(3, 5.0), thickness=None)])
    assert gaps.thickness_mm == pytest.approx(5.0)
    said, unsaid = stack_geometries([block(even(3, 5.0)), block([40.0], thickness=None)])
    assert (said.thickness_mm, unsaid.thickness_mm) == (4.0, 4.0)
    several, lonely = stack_geometries([block(even(3, 5.0), thickness=None), block([40.0], thickness=None)])
    assert several.thickness_mm == lonely.thickness_mm == pytest.approx(5.0)


def test_direction_cosines_are_made_exact() -> None:
    rounded = pose((0, 0, 0), (0.999, 0.035, 0), (-0.03, 0.999, 0.02))
    assert np.linalg.norm(rounded.row_dir) == pytest.approx(1, abs=1e-12)
    assert float(rounded.row_dir @ rounded.col_dir) == pytest.approx(0, abs=1e-12)
