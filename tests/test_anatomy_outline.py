"""Sub-pixel outlines, rectangles, chords and fits of drawn shapes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.anatomy.outline import (
    CENTRAL_MM,
    area_mm2,
    central_outlines,
    chords,
    minimum_rectangle,
    outline,
    robust_polynomial,
)
from cohort.geometry import StackGeometry

Mask = npt.NDArray[np.bool_]

PIXELS = st.tuples(st.floats(0.45, 0.8), st.floats(0.45, 0.8))


def drawn(
    height: float, width: float, angle_deg: float, spacing: tuple[float, float], *, ellipse: bool = False,
    wedge_deg: float = 0.0, shift: tuple[float, float] = (0.0, 0.0),
) -> Mask:  # fmt: skip
    """Shape of known size around the middle of a grid; a pixel belongs to it if its centre does.

    A wedge has `height` in front, at small columns, and gets lower behind.
    """
    down, across = np.meshgrid(
        *(np.arange(int(50 / s)) * s - 24.9 - off for s, off in zip(spacing, shift, strict=True)), indexing="ij"
    )
    turn = np.radians(angle_deg)
    u, v = down * np.cos(turn) + across * np.sin(turn), -down * np.sin(turn) + across * np.cos(turn)
    if ellipse:
        return np.asarray((2 * u / height) ** 2 + (2 * v / width) ** 2 <= 1)
    half = height / 2 - (v + width / 2) * np.tan(np.radians(wedge_deg) / 2)
    return np.asarray((np.abs(u) <= half) & (np.abs(v) <= width / 2))


def stack_of(n: int, gap_mm: float, spacing: tuple[float, float], shape: tuple[int, int]) -> StackGeometry:
    position = np.arange(n)[:, None] * gap_mm * np.array([1.0, 0.0, 0.0])
    return StackGeometry(position, np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, -1.0]), spacing, shape, gap_mm)


@settings(max_examples=80, deadline=None)
@given(height=st.floats(4, 14), angle=st.floats(4, 60), spacing=PIXELS, ellipse=st.booleans())
def test_height_of_tilted_shapes(height: float, angle: float, spacing: tuple[float, float], ellipse: bool) -> None:
    points = outline(drawn(height, 35.0, angle, spacing, ellipse=ellipse), spacing)
    assert points is not None
    assert minimum_rectangle(points).short_mm == pytest.approx(height, abs=0.9 * max(spacing))


def test_mean_errors_are_far_below_a_pixel() -> None:
    """Corners of discs are rounded, between those of an ellipse and of a rectangle; a sharp one overshoots a little."""
    rng = np.random.default_rng(2)
    errors: dict[bool, list[float]] = {True: [], False: []}
    for ellipse, found in errors.items():
        for _ in range(100):
            height, angle, shift = rng.uniform(4, 14), rng.uniform(3, 45), rng.uniform(-0.5, 0.5, 2)
            mask = drawn(height, 35.0, angle, (0.7, 0.65), ellipse=ellipse, shift=(shift[0], shift[1]))
            points = outline(mask, (0.7, 0.65))
            assert points is not None
            found.append(minimum_rectangle(points).short_mm - height)
    assert abs(np.mean(errors[True])) < 0.06
    assert np.quantile(np.abs(errors[True]), 0.9) < 0.15
    assert abs(np.mean(errors[False])) < 0.3


@pytest.mark.parametrize("spacing", [(0.5, 0.5), (0.9, 0.45), (0.4, 1.0)])
def test_upright_rectangle_of_whole_pixels_is_exact(spacing: tuple[float, float]) -> None:
    mask = np.zeros((80, 120), dtype=bool)
    mask[30:46, 20:90] = True
    points = outline(mask, spacing)
    assert points is not None
    expected = sorted((16 * spacing[0], 70 * spacing[1]))
    assert minimum_rectangle(points).short_mm == pytest.approx(expected[0], abs=0.35)
    assert area_mm2(points) == pytest.approx(expected[0] * expected[1], rel=0.02)


def test_area_and_chords_of_an_ellipse() -> None:
    points = outline(drawn(10.0, 34.0, 0.0, (0.6, 0.6), ellipse=True), (0.6, 0.6))
    assert points is not None
    assert area_mm2(points) == pytest.approx(np.pi / 4 * 10 * 34, rel=0.02)
    found = chords(points, [24.9, 27.4, 80.0])
    assert np.diff(found).ravel()[:2] == pytest.approx([34.0, 34.0 * np.sqrt(0.75)], abs=1.0)
    assert np.isnan(found[2]).all()


def test_central_outlines_come_nearest_first_and_lie_over_each_other() -> None:
    spacing, gap = (0.6, 0.7), 4.0
    masks = np.stack([drawn(9.0, 34.0, 10.0, spacing, shift=(0.8 * k, -0.5 * k)) for k in range(9)])
    geometry = stack_of(9, gap, spacing, masks.shape[1:])
    found = central_outlines(masks, geometry, index=4)
    assert len(found) == 1 + 2 * int(CENTRAL_MM / gap)
    for one in found:
        np.testing.assert_allclose(one.mean(axis=0), found[0].mean(axis=0), atol=1e-9)
    own = outline(masks[4], spacing)
    np.testing.assert_allclose(found[0], own)


def test_central_outlines_of_a_part_of_the_stack_lie_in_the_stack() -> None:
    spacing = (0.6, 0.7)
    masks = np.stack([drawn(9.0, 34.0, 10.0, spacing)] * 3)
    geometry = stack_of(12, 4.0, spacing, masks.shape[1:])
    whole = central_outlines(np.concatenate([np.zeros_like(masks), masks]), geometry, index=4)
    part = central_outlines(masks[:, 8:, 5:], geometry, index=4, corner=(3, 8, 5))
    np.testing.assert_allclose(part[0], whole[0], atol=1e-6)


def test_small_neighbours_and_missing_slices_are_left_out() -> None:
    spacing = (0.6, 0.6)
    masks = np.stack([drawn(9.0, 34.0, 0.0, spacing)] * 5)
    masks[1] = drawn(3.0, 20.0, 0.0, spacing)
    masks[3] = False
    geometry = stack_of(5, 4.0, spacing, masks.shape[1:])
    assert len(central_outlines(masks, geometry, index=2)) == 3
    assert central_outlines(masks, geometry, index=3) == []


@settings(max_examples=30, deadline=None)
@given(coefficients=st.tuples(*[st.floats(-3, 3)] * 3), seed=st.integers(0, 99))
def test_a_few_wild_points_do_not_move_a_fit(coefficients: tuple[float, float, float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = np.linspace(-1, 1, 60)
    y = np.polyval(coefficients, x) + rng.normal(0, 0.02, 60)
    y[rng.choice(60, 5, replace=False)] += 8.0
    assert robust_polynomial(x, y, 2) == pytest.approx(coefficients, abs=0.2)


def test_empty_and_tiny_masks() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    assert outline(mask, (0.7, 0.7)) is None
    mask[5, 5] = True
    assert outline(mask, (0.7, 0.7)) is not None
