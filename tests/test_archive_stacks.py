from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.archive.header import SlicePose, slice_pose
from cohort.archive.stacks import Slice, stacks_from_slices
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


def pose(position: npt.ArrayLike, row: npt.ArrayLike, col: npt.ArrayLike, thickness: float | None = 4.0) -> SlicePose:
    return slice_pose(
        position_mm=tuple(np.asarray(position, dtype=float).tolist()),
        orientation=(*np.asarray(row, dtype=float).tolist(), *np.asarray(col, dtype=float).tolist()),
        spacing_mm=(0.8, 0.5),
        shape=(6, 5),
        thickness_mm=thickness,
    )


def block(
    n: int, gap: float = 4.0, *, first: npt.ArrayLike = (0, 0, 0), tilt_deg: float = 0.0, name: str = "", **rest: object
) -> list[Slice]:
    """Axial slices tilted about the x axis, each with its own pixels."""
    angle = np.deg2rad(tilt_deg)
    row, col = np.array([1.0, 0.0, 0.0]), np.array([0.0, np.cos(angle), -np.sin(angle)])
    normal = np.cross(row, col)
    random = np.random.default_rng(abs(round(1000 * tilt_deg)) + n)
    return [
        Slice(
            pose=pose(np.asarray(first, dtype=float) + k * gap * normal, row, col, **rest),  # type: ignore[arg-type]
            pixels=random.integers(0, 4000, (6, 5), dtype=np.uint16),
            instance_id=f"{name}{np.asarray(first)}{tilt_deg}{(k * 7) % 11}-{k}",
            frame_of_reference_id="frame",
        )
        for k in range(n)
    ]


@pytest.mark.parametrize(("order", "signs", "reverse"), AXES_48)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_affine_in_all_48_axis_orders(
    order: tuple[int, int, int], signs: tuple[int, int], reverse: bool, data: st.DataObject
) -> None:
    row, col = signs[0] * np.eye(3)[order[0]], signs[1] * np.eye(3)[order[1]]
    normal = np.cross(row, col)
    n = data.draw(st.integers(2, 5))
    gap = data.draw(st.floats(0.5, 10))
    origin = np.array(data.draw(st.lists(st.floats(-500, 500), min_size=3, max_size=3)))
    slices = [
        Slice(pose(origin + k * gap * normal, row, col), np.full((6, 5), k, np.uint16), str(k), "frame")
        for k in range(n)
    ]
    (stack,) = stacks_from_slices(slices[::-1] if reverse else slices, "axial").stacks
    assert stack.image[:, 0, 0].tolist() == list(range(n))
    index = np.array(list(itertools.product(range(n), range(6), range(5))), dtype=float)
    # DICOM PS3.3 C.7.6.2.1.1: position + column index x column spacing x row cosines + row index x ...
    truth = origin + index[:, :1] * gap * normal + index[:, 1:2] * 0.8 * col + index[:, 2:] * 0.5 * row
    homogeneous = np.concatenate([index, np.ones((len(index), 1))], axis=1)
    np.testing.assert_allclose((homogeneous @ stack.geometry.affine.T)[:, :3], truth, atol=1e-6)
    np.testing.assert_allclose(stack.geometry.to_lps(index), truth, atol=1e-6)
    np.testing.assert_allclose(stack.geometry.to_index(truth), index, atol=1e-6)
    assert np.sign(np.linalg.det(stack.geometry.affine[:3, :3])) == -1  # (slice, row, column) is left-handed


@settings(max_examples=60, deadline=None)
@given(
    gaps=st.lists(st.floats(1, 9), min_size=0, max_size=5),
    rotation=st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 0.1),
    shear=st.floats(-0.3, 0.3),
    index=st.lists(st.floats(-20, 40), min_size=3, max_size=3),
)
def test_mapping_there_and_back_holds_beyond_the_stack(
    gaps: list[float], rotation: list[float], shear: float, index: list[float]
) -> None:
    w, x, y, z = np.array(rotation) / np.linalg.norm(rotation)
    row = np.array([1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w)])
    col = np.array([2 * (x * y - z * w), 1 - 2 * (x * x + z * z), 2 * (y * z + x * w)])
    along = np.concatenate([[0.0], np.cumsum(gaps)])
    position = np.array([10.0, -20.0, 30.0]) + along[:, None] * (np.cross(row, col) + shear * row)
    geometry = StackGeometry(position, row, col, (0.8, 0.5), (6, 5), 4.0)
    np.testing.assert_allclose(geometry.to_index(geometry.to_lps(index)), index, atol=1e-6)


def test_slices_run_along_the_normal_whatever_their_order() -> None:
    slices = block(9, tilt_deg=20)
    shuffled = [slices[i] for i in np.random.default_rng(1).permutation(9)]
    (stack,) = stacks_from_slices(shuffled, "axial").stacks
    assert np.array_equal(stack.image, [one.pixels for one in slices])
    assert np.all(np.diff(stack.geometry.slice_distance_mm) > 0)
    assert stack.frame_of_reference_id == "frame"


def test_one_oblique_stack_per_disc_stays_apart_cranial_first() -> None:
    blocks = [block(4, tilt_deg=tilt, first=(0, 0, -35 * k)) for k, tilt in enumerate((-10.0, -2.0, 6.0, 18.0, 30.0))]
    sorted_slices = stacks_from_slices([one for some in blocks[::-1] for one in some], "axial")
    assert [stack.index for stack in sorted_slices.stacks] == [0, 1, 2, 3, 4]
    for stack, slices in zip(sorted_slices.stacks, blocks, strict=True):
        assert np.array_equal(stack.image, [one.pixels for one in slices])
        np.testing.assert_array_equal(stack.geometry.position_mm, [one.pose.position_mm for one in slices])


def test_parallel_stacks_with_gaps_are_parted_and_keep_their_place() -> None:
    blocks = [block(5, 4.4, first=(0, 0, -35 * k), name=str(k)) for k in range(5)]
    stacks = stacks_from_slices([one for some in blocks for one in some], "axial").stacks
    assert [stack.geometry.n_slices for stack in stacks] == [5] * 5
    np.testing.assert_allclose([stack.geometry.position_mm[0, 2] for stack in stacks], [0, -35, -70, -105, -140])
    assert all(stack.geometry.slice_gap_mm == pytest.approx(4.4) for stack in stacks)


def test_parallel_stacks_that_overlap_are_parted_by_their_fields_of_view() -> None:
    blocks = [block(5, first=(0, 25.0 * k * (-1) ** k, -14.0 * k), name=str(k)) for k in range(3)]
    stacks = stacks_from_slices([one for some in blocks for one in some], "axial").stacks
    assert [stack.geometry.n_slices for stack in stacks] == [5, 5, 5]
    assert all(np.ptp(stack.geometry.position_mm[:, 1]) == 0 for stack in stacks)


def test_a_missing_slice_leaves_its_gap_in_one_stack() -> None:
    slices = block(12)
    sorted_slices = stacks_from_slices([*slices[:5], *slices[6:]], "axial")
    (stack,) = sorted_slices.stacks
    assert sorted_slices.n_missing == 1
    assert stack.geometry.n_slices == 11
    np.testing.assert_allclose(stack.geometry.slice_distance_mm, np.delete(np.arange(12) * 4.0, 5))
    # What lies in the gap and behind it is found where it is, not one slice off.
    np.testing.assert_allclose(stack.geometry.to_index([0, 0, 20.0]), [4.5, 0, 0], atol=1e-9)
    np.testing.assert_allclose(stack.geometry.to_lps([5, 0, 0]), [0, 0, 24.0], atol=1e-9)


def test_copies_collapse_and_are_counted() -> None:
    slices = block(6)
    copy = Slice(slices[2].pose, slices[2].pixels, "another-instance", "frame")
    sorted_slices = stacks_from_slices([*slices, slices[3], copy], "axial")
    assert sorted_slices.n_duplicates == 2
    assert sorted_slices.stacks[0].geometry.n_slices == 6
    assert sorted_slices.n_missing == 0


def test_one_place_with_two_images_is_refused() -> None:
    slices = block(6)
    other = Slice(slices[2].pose, slices[2].pixels + 1, "second-echo", "frame")
    with pytest.raises(RefusedError, match="inconsistent_series"):
        stacks_from_slices([*slices, other], "axial")
    repeated = Slice(slices[2].pose, slices[2].pixels + 1, slices[2].instance_id, "frame")
    with pytest.raises(RefusedError, match="inconsistent_series"):
        stacks_from_slices([*slices, repeated], "axial")


def test_frames_of_reference_and_grids_are_not_mixed() -> None:
    slices = block(6)
    moved = [
        Slice(one.pose, one.pixels, f"{one.instance_id}-moved", "other") for one in block(6, first=(0.0, 0.0, 2.0))
    ]
    stacks = stacks_from_slices([*slices, *moved], "axial").stacks
    assert sorted((stack.frame_of_reference_id, stack.geometry.n_slices) for stack in stacks) == [
        ("frame", 6),
        ("other", 6),
    ]


def test_single_slice_needs_a_thickness() -> None:
    (stack,) = stacks_from_slices(block(1), "axial").stacks
    assert stack.geometry.slice_gap_mm == 4.0
    with pytest.raises(RefusedError, match="inconsistent_series"):
        stacks_from_slices(block(1, thickness=None), "axial")
    (stack,) = stacks_from_slices(block(3, 5.0, thickness=None), "axial").stacks
    assert stack.geometry.thickness_mm == pytest.approx(5.0)


def test_direction_cosines_are_made_exact() -> None:
    rounded = pose((0, 0, 0), (0.999, 0.035, 0), (-0.03, 0.999, 0.02))
    assert np.linalg.norm(rounded.row_dir) == pytest.approx(1, abs=1e-12)
    assert float(rounded.row_dir @ rounded.col_dir) == pytest.approx(0, abs=1e-12)
