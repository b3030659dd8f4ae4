"""Masks on exact grids: every order and direction of axes maps back bit for bit, anything else is refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest

from cohort.annotations.placement import MisplacedError, place_frame, place_volume
from cohort.geometry import Floats, StackGeometry

SHAPE = (5, 7, 6)


def turned(a: Floats, b: Floats, angle_deg: float) -> tuple[Floats, Floats]:
    angle = np.deg2rad(angle_deg)
    return np.cos(angle) * a + np.sin(angle) * b, np.cos(angle) * b - np.sin(angle) * a


def stack(row_dir: Floats, col_dir: Floats) -> StackGeometry:
    normal = np.cross(row_dir, col_dir)
    position = np.array([12.0, -40.0, 33.0]) + 4.4 * np.arange(SHAPE[0])[:, None] * normal
    return StackGeometry(position, row_dir, col_dir, (0.9, 0.8), SHAPE[1:], 4.0)


X, Y, Z = np.eye(3)
OBLIQUE = turned(turned(Y, X, 11.0)[0], -Z, 23.0)
STACKS = {
    "sagittal": stack(Y, -Z),
    "axial": stack(X, Y),
    "oblique": stack(*OBLIQUE),
    "cubic voxels": replace(stack(X, Y), spacing_mm=(4.4, 4.4)),
}


def rewritten(volume: np.ndarray, affine: Floats, order: tuple[int, ...], flip: tuple[bool, ...]):  # type: ignore[no-untyped-def]
    """The same voxels with other axes, as another program might write them."""
    turned_affine = affine.copy()
    turned_affine[:3, :3] = affine[:3, list(order)]
    out = volume.transpose(order)
    for axis in range(3):
        if flip[axis]:
            turned_affine[:3, 3] += turned_affine[:3, axis] * (out.shape[axis] - 1)
            turned_affine[:3, axis] *= -1
            out = np.flip(out, axis)
    return out, turned_affine


@pytest.mark.parametrize("name", STACKS)
def test_all_48_orders_and_directions_of_axes_map_back_bit_for_bit(name: str) -> None:
    geometry = STACKS[name]
    volume = np.arange(np.prod(SHAPE), dtype=np.uint8).reshape(SHAPE)
    for order, flip in product(permutations(range(3)), product((False, True), repeat=3)):
        written, affine = rewritten(volume, geometry.affine, order, flip)
        placement = place_volume(geometry, affine.astype(np.float32), written.shape)
        assert np.array_equal(placement.apply(written), volume)
        assert placement.offset_mm < 1e-3


@pytest.mark.parametrize("name", STACKS)
def test_a_picture_finds_its_slice_in_all_8_orders_and_directions(name: str) -> None:
    geometry = STACKS[name]
    picture = np.arange(SHAPE[1] * SHAPE[2], dtype=np.uint8).reshape(SHAPE[1:])
    for swap, down, across in product((False, True), repeat=3):
        col_dir, row_dir, position = geometry.col_dir, geometry.row_dir, geometry.position_mm[3]
        written = picture
        if down:
            position = position + col_dir * geometry.spacing_mm[0] * (SHAPE[1] - 1)
            col_dir, written = -col_dir, written[::-1]
        if across:
            position = position + row_dir * geometry.spacing_mm[1] * (SHAPE[2] - 1)
            row_dir, written = -row_dir, written[:, ::-1]
        spacing = geometry.spacing_mm
        if swap:
            row_dir, col_dir, written, spacing = col_dir, row_dir, written.T, spacing[::-1]
        found = place_frame(geometry, position, row_dir, col_dir, spacing, written.shape)
        assert found.slice == 3
        assert np.array_equal(found.apply(written), picture)


def test_a_shift_is_refused_with_its_millimetres_and_axes() -> None:
    geometry = STACKS["sagittal"]
    for along, axis, mm in ((geometry.col_dir, "rows", 0.9), (geometry.row_dir, "columns", -0.5), (X, "slices", 4.4)):
        affine = geometry.affine
        affine[:3, 3] += along * mm
        with pytest.raises(MisplacedError, match=rf"mask_shifted: [+-]{abs(mm):.2f} mm along {axis} off") as refused:
            place_volume(geometry, affine, SHAPE)
        assert refused.value.offset_mm == pytest.approx(abs(mm))
        assert refused.value.limit_mm == pytest.approx({"rows": 0.225, "columns": 0.2, "slices": 1.1}[axis])


def test_a_deviation_within_a_quarter_of_a_voxel_is_tolerated_and_told() -> None:
    geometry = STACKS["axial"]
    affine = geometry.affine
    affine[:3, 3] += 0.15 * geometry.row_dir
    assert place_volume(geometry, affine, SHAPE).offset_mm == pytest.approx(0.15)


def test_a_mirror_image_is_told_from_a_shift() -> None:
    geometry = STACKS["axial"]
    with pytest.raises(MisplacedError, match="mask_mirrored: fits once x and y of LPS are reversed"):
        place_volume(geometry, np.diag([-1.0, -1, 1, 1]) @ geometry.affine, SHAPE)


def test_another_grid_is_refused_with_its_sizes() -> None:
    geometry = STACKS["axial"]
    with pytest.raises(MisplacedError, match=r"mask_grid_differs: mask of 5 x 7 x 7 voxels, stack of 5 x 7 x 6"):
        place_volume(geometry, geometry.affine, (5, 7, 7))
    coarse = geometry.affine @ np.diag([1.0, 1, 1.5, 1])
    with pytest.raises(MisplacedError, match=r"mask_grid_differs: turned by 0.0 degrees, voxels of 4.4 x 0.9 x 1.2 mm"):
        place_volume(geometry, coarse, SHAPE)
    row_dir, col_dir = turned(X, Y, 20.0)
    with pytest.raises(MisplacedError, match=r"mask_grid_differs: turned by 20\.0 degrees"):
        place_volume(geometry, stack(row_dir, col_dir).affine, SHAPE)
    with pytest.raises(MisplacedError, match="mask_grid_differs"):
        place_volume(geometry, geometry.affine[:, [0, 2, 1, 3]], SHAPE)


def test_a_picture_between_two_slices_is_refused() -> None:
    geometry = STACKS["axial"]
    between = geometry.position_mm[2] + 2.0 * geometry.normal
    with pytest.raises(MisplacedError, match=r"mask_shifted: \+2.00 mm along slices off.*; slice 2"):
        place_frame(geometry, between, geometry.row_dir, geometry.col_dir, geometry.spacing_mm, geometry.shape)


def test_slices_that_lie_unevenly_fit_by_their_places_and_by_the_mean_step() -> None:
    geometry = STACKS["axial"]
    position = geometry.position_mm.copy()
    position[2] += 2.0 * geometry.normal
    uneven = replace(geometry, position_mm=position)
    assert place_volume(uneven, uneven.affine, SHAPE).offset_mm < 1e-6
    found = place_frame(uneven, position[2], uneven.row_dir, uneven.col_dir, uneven.spacing_mm, uneven.shape)
    assert found.slice == 2
