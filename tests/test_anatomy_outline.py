"""Sub-pixel outlines, rectangles and chords of drawn shapes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.anatomy.outline import SMOOTH_MM, area_mm2, chord, minimum_rectangle, outline


def drawn(height: float, width: float, angle_deg: float, spacing: tuple[float, float], *, ellipse: bool) -> np.ndarray:
    """Shape of known size around the middle of a grid; a pixel belongs to it if its centre does."""
    down, across = np.meshgrid(
        *(np.arange(n) * s - 24.9 for n, s in zip((100, 100), spacing, strict=True)), indexing="ij"
    )
    turn = np.radians(angle_deg)
    u, v = down * np.cos(turn) + across * np.sin(turn), -down * np.sin(turn) + across * np.cos(turn)
    if ellipse:
        return (2 * u / height) ** 2 + (2 * v / width) ** 2 <= 1
    return (np.abs(u) <= height / 2) & (np.abs(v) <= width / 2)


@settings(max_examples=60, deadline=None)
@given(
    height=st.floats(4, 14),
    angle=st.floats(4, 60),
    spacing=st.tuples(st.floats(0.5, 0.7), st.floats(0.5, 0.7)),
    ellipse=st.booleans(),
)
def test_height_of_tilted_shapes(height: float, angle: float, spacing: tuple[float, float], ellipse: bool) -> None:
    points = outline(drawn(height, 35.0, angle, spacing, ellipse=ellipse), spacing, low_pass_mm=SMOOTH_MM)
    assert points is not None
    assert minimum_rectangle(points).short_mm == pytest.approx(height, abs=0.4)


def test_mean_error_of_the_height_is_far_below_a_pixel() -> None:
    rng = np.random.default_rng(2)
    errors = []
    for _ in range(150):
        height, angle = rng.uniform(4, 14), rng.uniform(3, 45)
        mask = drawn(height, 35.0, angle, (0.7, 0.65), ellipse=False)
        points = outline(mask, (0.7, 0.65), low_pass_mm=SMOOTH_MM)
        assert points is not None
        errors.append(minimum_rectangle(points).short_mm - height)
    assert abs(np.mean(errors)) < 0.12
    assert np.quantile(np.abs(errors), 0.9) < 0.25


@pytest.mark.parametrize("spacing", [(0.5, 0.5), (0.9, 0.45), (0.4, 1.0)])
def test_upright_rectangle_of_whole_pixels_is_exact(spacing: tuple[float, float]) -> None:
    mask = np.zeros((80, 120), dtype=bool)
    mask[30:46, 20:90] = True
    points = outline(mask, spacing, low_pass_mm=SMOOTH_MM)
    assert points is not None
    sides = minimum_rectangle(points)
    expected = sorted((16 * spacing[0], 70 * spacing[1]))
    assert sides.short_mm == pytest.approx(expected[0], abs=0.2)
    light = outline(mask, spacing)
    assert light is not None
    assert area_mm2(light) == pytest.approx(expected[0] * expected[1], rel=0.02)


def test_area_and_chords_of_an_ellipse() -> None:
    points = outline(drawn(10.0, 34.0, 0.0, (0.6, 0.6), ellipse=True), (0.6, 0.6))
    assert points is not None
    assert area_mm2(points) == pytest.approx(np.pi / 4 * 10 * 34, rel=0.03)
    crossing = chord(points, 24.9)
    assert crossing is not None
    assert crossing[1] - crossing[0] == pytest.approx(34.0, abs=1.2)
    assert chord(points, 80.0) is None


def test_empty_and_tiny_masks() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    assert outline(mask, (0.7, 0.7)) is None
    mask[5, 5] = True
    assert outline(mask, (0.7, 0.7)) is not None
