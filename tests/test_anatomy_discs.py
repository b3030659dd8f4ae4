"""Heights, wedge and rows of discs drawn on grids of every pixel shape."""

from __future__ import annotations

import anatomy_shapes as shapes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from test_anatomy_outline import PIXELS, drawn, stack_of

from cohort.anatomy.discs import DiscShape, MotionSegment, disc_row, disc_shape
from cohort.anatomy.instances import Piece
from cohort.anatomy.levels import Named
from cohort.anatomy.measure import measure_exam
from cohort.anatomy.outline import central_outlines, minimum_rectangle
from cohort.anatomy.vertebrae import BodyShape, Endplate
from cohort.stacks import LabelledStack

DEPTH_MM = 34.0


def measured(masks: npt.NDArray[np.bool_], spacing: tuple[float, float]) -> DiscShape:
    """Shape on the middle slice of a stack with slices 4 mm apart."""
    geometry = stack_of(len(masks), 4.0, spacing, masks.shape[1:])
    middle = len(masks) // 2
    shape = disc_shape(central_outlines(masks, geometry, index=middle), geometry, index=middle)
    assert shape is not None
    return shape


def true_height(height: float, wedge_deg: float) -> float:
    low = height - 2 * DEPTH_MM * np.tan(np.radians(wedge_deg) / 2)
    corners = [(s * one / 2, v) for one, v in ((height, 0.0), (low, DEPTH_MM)) for s in (-1, 1)]
    return minimum_rectangle(np.array(corners)).short_mm


@settings(max_examples=60, deadline=None)
@given(height=st.floats(8, 15), wedge=st.floats(0, 10), angle=st.floats(-40, 40), spacing=PIXELS, ellipse=st.booleans())
def test_heights_of_tilted_shapes(
    height: float, wedge: float, angle: float, spacing: tuple[float, float], ellipse: bool
) -> None:
    """Within the width of a pixel, whatever the tilt; a border along the rows can be known no better."""
    mask = drawn(height, DEPTH_MM, angle, spacing, wedge_deg=wedge, ellipse=ellipse)
    shape = measured(np.stack([mask] * 3), spacing)
    expected = height if ellipse else true_height(height, wedge)
    assert shape.height_mm == pytest.approx(expected, abs=1.3 * max(spacing))
    if not ellipse:
        assert shape.wedge_deg == pytest.approx(wedge, abs=np.degrees(2.5 * max(spacing) / DEPTH_MM))
        assert shape.width_mm == pytest.approx(DEPTH_MM, abs=2 * max(spacing) + 1)
        assert shape.anterior_height_mm >= shape.middle_height_mm - max(spacing)


@pytest.mark.parametrize(("wedge", "ellipse"), [(0.0, False), (10.0, False), (0.0, True)])
@pytest.mark.parametrize("spacing", [(0.6, 0.6), (0.85, 0.5), (0.5, 0.8)])
def test_no_shape_is_read_too_high_or_too_low(wedge: float, ellipse: bool, spacing: tuple[float, float]) -> None:
    """On rectangles, wedges like L5-S1 and ellipses alike: a third of a millimetre on average. The sharp rim of a wedge
    lies in the twentieth of the depth that is not fitted."""
    rng = np.random.default_rng(4)
    errors = []
    for _ in range(40):
        height, angle, shift = rng.uniform(9, 14), rng.uniform(3, 45), rng.uniform(-0.5, 0.5, 2)
        mask = drawn(
            height, DEPTH_MM, angle, spacing, wedge_deg=wedge, ellipse=ellipse, shift=(float(shift[0]), float(shift[1]))
        )
        expected = height if ellipse else true_height(height, wedge)
        errors.append(measured(np.stack([mask] * 3), spacing).height_mm - expected)
    assert abs(np.mean(errors)) < 0.35
    assert np.mean(np.abs(errors)) < 0.4


def test_waves_in_the_edge_raise_the_outline_twice_as_much_as_the_height() -> None:
    """Edges that wander by 0.65 mm, differently on every slice, as those of a mediocre network."""
    rng = np.random.default_rng(8)
    spacing = (0.6, 0.6)
    heights, outlines = [], []
    for _ in range(12):
        mask = drawn(9.0, DEPTH_MM, rng.uniform(5, 30), spacing)
        depth = (ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)) * 0.6
        waves = np.stack([ndimage.gaussian_filter(rng.standard_normal(mask.shape), 5) for _ in range(3)])
        shape = measured(depth + 0.65 * waves / waves.std() > 0, spacing)
        heights.append(shape.height_mm - 9.0)
        outlines.append(shape.outline_height_mm - 9.0)
    assert abs(np.mean(heights)) < 0.55
    assert np.mean(outlines) > 2 * np.mean(heights)


def test_what_is_too_small_has_no_shape() -> None:
    masks = np.zeros((3, 40, 40), dtype=bool)
    geometry = stack_of(3, 4.0, (0.6, 0.6), (40, 40))
    assert disc_shape(central_outlines(masks, geometry, index=1), geometry, index=1) is None
    masks[1, 20:22, 20:22] = True
    assert disc_shape(central_outlines(masks, geometry, index=1), geometry, index=1) is None


def row_of(shape: DiscShape | None, segment: MotionSegment, *, seen: int = 11, border: bool = False):  # type: ignore[no-untyped-def]
    piece = Piece(1, (0.0, 0.0, 0.0), 8.0, 0.0, 8.0, 0.0, 0.0)
    return disc_row(
        "exam",
        Named(0, 2, "L4-L5", 0.9),
        piece,
        shape,
        segment,
        central_slice=5,
        slices_seen=seen,
        slices_expected=11,
        touches_border=border,
        outermost_slice=False,
    )


def flat_shape(height_mm: float, outline_height_mm: float) -> DiscShape:
    return DiscShape(height_mm, outline_height_mm, 34.0, 300.0, 9.0, 10.0, 8.0, 2.0, np.zeros((4, 3)))


BODY = BodyShape(np.zeros((4, 3)), 28.0, 27.0, 30.0, 33.0, 2.0, 5.0)


def test_readings_that_differ_are_flagged() -> None:
    row, flags = row_of(flat_shape(9.0, 10.2), MotionSegment())
    assert (row.status, flags, row.height_mm, row.outline_height_mm) == ("ok", [], 9.0, 10.2)
    row, flags = row_of(flat_shape(9.0, 11.0), MotionSegment())
    assert (row.status, row.reasons) == ("flagged", "disc_readings_differ")
    assert flags[0].value == pytest.approx(2.0)


def test_index_and_angles_rest_on_the_vertebrae_beside_the_disc() -> None:
    above, below = Endplate(np.zeros((2, 3)), 1.0), Endplate(np.zeros((2, 3)), 14.0)
    row, _ = row_of(flat_shape(9.0, 9.0), MotionSegment(BODY, above, below))
    assert row.height_index == pytest.approx(9.0 / 30.0)
    assert row.endplate_wedge_deg == pytest.approx(14.0 - 5.0)
    assert row.segmental_deg == pytest.approx(13.0)
    row, _ = row_of(flat_shape(9.0, 9.0), MotionSegment())
    assert (row.height_index, row.endplate_wedge_deg, row.segmental_deg) == (None, None, None)
    steep = MotionSegment(BODY, above, Endplate(np.zeros((2, 3)), 70.0))
    assert row_of(flat_shape(9.0, 9.0), steep)[0].reasons == "implausible_angle"


def test_a_volume_with_a_hole_is_seen_in_the_row_and_leaves_the_heights_alone() -> None:
    row, flags = row_of(flat_shape(9.0, 9.0), MotionSegment(), seen=9)
    assert (row.status, row.reasons, row.slices_seen, row.slices_expected) == ("ok", "slices_missing", 9, 11)
    assert (flags[0].value, flags[0].limit) == (9.0, 11.0)
    cut, _ = row_of(flat_shape(9.0, 9.0), MotionSegment(), border=True)
    assert cut.height_mm is None
    assert cut.outline_height_mm is None


def test_angles_and_indices_of_a_whole_spine() -> None:
    blocks = shapes.spine()
    result = measure_exam("exam", shapes.sagittal_stack(blocks, shapes.sagittal_geometry()), [])
    lumbar = [row for row in result.discs if row.level and not row.level.startswith("T")]
    assert result.curvature is not None
    assert sum(row.segmental_deg or 0.0 for row in lumbar) == pytest.approx(result.curvature.lordosis_l1_s1_deg)
    for row in lumbar:
        above, below = str(row.level).split("-")
        expected = shapes.TILTS_DEG[below] - shapes.TILTS_DEG[above]
        assert row.endplate_wedge_deg == pytest.approx(expected, abs=1.4)
        assert row.segmental_deg == pytest.approx(expected, abs=1.4)
        assert row.height_index == pytest.approx(shapes.HEIGHTS_MM[str(row.level)] / shapes.BODY_MM[0], abs=0.02)
        assert row.outline_height_mm == pytest.approx(row.height_mm, abs=0.4)
        assert row.slices_seen == row.slices_expected


def test_missing_slices_of_the_stack_and_of_the_mask_are_counted() -> None:
    blocks = shapes.spine()
    geometry = shapes.sagittal_geometry()
    stack = shapes.sagittal_stack(blocks, geometry)
    empty = {name: volume.copy() for name, volume in stack.labels.items()}
    for volume in empty.values():
        volume[9] = 0
    rows = measure_exam("exam", LabelledStack(stack.stack, empty, {}), []).discs
    assert all(row.slices_expected == row.slices_seen + 1 for row in rows)
    assert all(row.reasons == "slices_missing" and row.status == "ok" for row in rows)
