"""Standing order of stacks: only swaps and reversals, every voxel keeps its place."""

from __future__ import annotations

import anatomy_shapes as shapes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.anatomy.orientation import STANDING_AXES, crop_box, cropped, standing_order
from cohort.geometry import StackGeometry
from cohort.stacks import Plane

SMALL = {
    "sagittal": shapes.sagittal_geometry(n=4, shape=(7, 5)),
    "axial": shapes.axial_geometry(n=4, size=6, tilt_deg=20),
}


def volume_of(geometry: StackGeometry) -> np.ndarray:
    return np.arange(geometry.n_slices * geometry.shape[0] * geometry.shape[1]).reshape(-1, *geometry.shape)


@given(plane=st.sampled_from(["sagittal", "axial"]), swap=st.booleans(), flip=st.tuples(*[st.booleans()] * 3))
def test_voxels_keep_their_places(plane: Plane, swap: bool, flip: tuple[bool, bool, bool]) -> None:
    base = SMALL[plane]
    stack = shapes.reordered(shapes.labelled(plane, base, {"id": volume_of(base)}), swap=swap, flip=flip)
    native, volume = stack.stack.geometry, stack.labels["id"]
    order = standing_order(native, plane)
    geometry, turned = order.geometry(native), order.apply(volume)
    for at in np.ndindex(volume.shape):
        where = np.argwhere(turned == volume[at])[0]
        np.testing.assert_allclose(geometry.to_lps(where), native.to_lps(at), atol=1e-9)
        assert order.native_slice(int(where[0]), n_slices=geometry.n_slices) == at[0]
    np.testing.assert_array_equal(order.restore(turned), volume)
    slices, rows, columns = STANDING_AXES[plane]
    assert geometry.col_dir @ rows > 0.8
    assert geometry.row_dir @ columns > 0.8
    assert (geometry.position_mm[-1] - geometry.position_mm[0]) @ slices > 0


def test_a_cropped_stack_keeps_its_places() -> None:
    geometry = SMALL["sagittal"]
    mask = np.zeros((4, 7, 5), dtype=bool)
    mask[1, 3:5, 2] = True
    box = crop_box(mask, margin=1)
    assert box == (slice(2, 6), slice(1, 4))
    np.testing.assert_allclose(cropped(geometry, box).to_lps([2, 1, 1]), geometry.to_lps([2, 3, 2]))
    assert crop_box(np.zeros_like(mask), margin=1) == (slice(0, 0), slice(0, 0))


@pytest.mark.parametrize("plane", ["sagittal", "axial"])
def test_standing_stacks_stay_as_they_are_but_for_slices(plane: Plane) -> None:
    order = standing_order(SMALL[plane], plane)
    assert not order.swap
    assert order.flip[1:] == (False, False)
