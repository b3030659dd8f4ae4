"""Lines, heights, compression and curvature of vertebral bodies of exactly known shape."""

from __future__ import annotations

from dataclasses import replace

import anatomy_shapes as shapes
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from test_anatomy_outline import PIXELS, drawn, stack_of

from cohort.anatomy.curvature import curvature_row
from cohort.anatomy.measure import measure_exam
from cohort.anatomy.outline import central_outlines
from cohort.anatomy.vertebrae import (
    BodyShape,
    Endplate,
    body_shape,
    compression_ratios,
    facing_endplate,
    superior_endplate,
)
from cohort.geometry import Floats

UP = np.array([0.0, 0.0, 1.0])


def wavy(mask: np.ndarray, rng: np.random.Generator, *, sd_mm: float, pixel_mm: float, n: int) -> np.ndarray:
    """Copies of a mask with edges that wander, differently in each."""
    depth = (ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)) * pixel_mm
    waves = np.stack([ndimage.gaussian_filter(rng.standard_normal(mask.shape), 5) for _ in range(n)])
    return np.asarray(depth + sd_mm * waves / waves.std() > 0)


@settings(max_examples=50, deadline=None)
@example(height=30.0, wedge=-8.0, angle=30.0, spacing=(0.5, 0.5))
@example(height=25.25, wedge=1.0, angle=0.0, spacing=(0.77734375, 0.5))  # endplates along rows: a step is a pixel
@example(height=27.25, wedge=0.0, angle=0.5, spacing=(0.755859375, 0.5))
@given(height=st.floats(24, 32), wedge=st.floats(-8, 12), angle=st.floats(-25, 25), spacing=PIXELS)
def test_a_tilted_body(height: float, wedge: float, angle: float, spacing: tuple[float, float]) -> None:
    """`drawn` is `height` at small columns, in front; it turns the shape so that the back rises with the angle.

    Edges of a mask are known to half a pixel. The line through points that are off by so much, one way in front and
    the other way behind, is turned by at most 1.5 pixels over its length.
    """
    mask = drawn(height, 33.0, angle, spacing, wedge_deg=wedge)
    geometry = stack_of(3, 4.0, spacing, mask.shape)
    outlines = central_outlines(np.stack([mask] * 3), geometry, index=1)
    shape = body_shape(outlines, geometry, index=1, cranial=UP)
    assert shape is not None
    pixel = max(spacing)
    turned = np.degrees(1.5 * pixel / 33.0)
    behind = height - 2 * 33.0 * np.tan(np.radians(wedge) / 2)
    assert shape.anterior_height_mm == pytest.approx(height, abs=1.5 * pixel + 0.2)
    assert shape.posterior_height_mm == pytest.approx(behind, abs=1.5 * pixel + 0.2)
    assert shape.middle_height_mm == pytest.approx((height + behind) / 2, abs=pixel + 0.3)
    assert shape.depth_mm == pytest.approx(33.0, abs=pixel + 0.3)
    assert shape.wedge_deg == pytest.approx(wedge, abs=2 * turned)
    middle = (superior_endplate(shape).tilt_deg + shape.inferior_tilt_deg) / 2
    assert middle == pytest.approx(angle, abs=turned)


def test_lines_through_five_slices_are_steadier_than_through_one() -> None:
    rng = np.random.default_rng(3)
    errors: dict[int, list[float]] = {1: [], 5: []}
    mask = drawn(27.0, 33.0, 8.0, (0.6, 0.6))
    geometry = stack_of(5, 4.0, (0.6, 0.6), mask.shape)
    for _ in range(15):
        outlines = central_outlines(wavy(mask, rng, sd_mm=1.1, pixel_mm=0.6, n=5), geometry, index=2)
        for n, found in errors.items():
            shape = body_shape(outlines[:n], geometry, index=2, cranial=UP)
            assert shape is not None
            plate = facing_endplate(outlines[:n], geometry, index=2, cranial=UP)
            assert plate is not None
            found += [superior_endplate(shape).tilt_deg - 8.0, plate.tilt_deg - 8.0]
    assert np.mean(np.abs(errors[5])) < 1.5
    assert np.mean(np.abs(errors[5])) < 0.7 * np.mean(np.abs(errors[1]))


def body(anterior: float, middle: float, posterior: float) -> BodyShape:
    return BodyShape(np.zeros((4, 3)), anterior, posterior, middle, 33.0, 0.0, 0.0)


NORMAL = [
    body(30.6, 26.8, 26.3),
    body(30.0, 27.0, 28.3),
    body(29.8, 26.9, 29.2),
    body(28.6, 26.9, 29.0),
    body(27.2, 26.9, 28.6),
    body(25.9, 25.7, 27.2),
    body(23.1, 24.0, 25.6),
]
"""Mean heights of L5 to T11 (Chu et al. 2015)."""


def test_normal_bodies_are_not_compressed() -> None:
    assert all(ratio is not None and ratio > 0.88 for ratio in compression_ratios(NORMAL))


@pytest.mark.parametrize(
    ("share", "ratio"),
    [((0.7, 0.85, 1.0), 0.7), ((1.0, 0.65, 1.0), 0.65), ((0.6, 0.6, 0.6), 0.6)],
    ids=["wedge", "biconcave", "crush"],
)
@pytest.mark.parametrize("at", range(1, 6))
def test_fractures_are_suspected(share: tuple[float, float, float], ratio: float, at: int) -> None:
    one = NORMAL[at]
    heights = np.array([one.anterior_height_mm, one.middle_height_mm, one.posterior_height_mm]) * share
    found = compression_ratios([*NORMAL[:at], body(*heights), *NORMAL[at + 1 :]])
    assert found[at] == pytest.approx(ratio, abs=0.12)
    others = [one for i, one in enumerate(found) if abs(i - at) != 0]
    assert all(one is not None and one > 0.85 for one in others)


def test_a_body_without_neighbours_is_compared_with_itself() -> None:
    assert compression_ratios([None, body(20.0, 24.0, 25.0), None]) == [None, pytest.approx(0.8), None]


def test_a_crushed_body_is_flagged_for_review() -> None:
    blocks = shapes.spine()
    low = replace(blocks["L2"], height_mm=17.0)
    result = measure_exam("exam", shapes.sagittal_stack({**blocks, "L2": low}, shapes.sagittal_geometry()), [])
    flagged = [row.level for row in result.vertebrae if "compression_suspected" in (row.reasons or "")]
    assert flagged == ["L2"]
    ratio = {row.level: row.compression_ratio for row in result.vertebrae}
    assert ratio["L2"] == pytest.approx(17 / 27, abs=0.03)
    assert ratio["S1"] is None


def endplate(tilt_deg: float) -> Endplate:
    return Endplate(np.zeros((2, 3)), tilt_deg)


def column(lordosis_deg: float) -> dict[str, Floats]:
    """Centroids L1 to S1, 35 mm apart along an arc; the line L5-S1 leans `lordosis_deg` more than L1-L2."""
    lean = np.radians(np.linspace(-lordosis_deg / 2, lordosis_deg / 2, 5))
    steps = 35.0 * np.stack([np.zeros(5), np.sin(lean), -np.cos(lean)], axis=-1)
    return dict(
        zip(("L1", "L2", "L3", "L4", "L5", "S1"), np.vstack([np.zeros(3), np.cumsum(steps, axis=0)]), strict=True)
    )


def test_two_readings_of_the_lordosis() -> None:
    row, flags = curvature_row("exam", column(40.0), {"L1": endplate(-10.0), "S1": endplate(36.0)}, {}, [])
    assert row is not None
    assert row.lordosis_l1_s1_deg == pytest.approx(46.0)
    assert row.lordosis_centroid_deg == pytest.approx(40.0)
    assert (row.status, flags) == ("ok", [])


@pytest.mark.parametrize(("slope", "status"), [(62.0, "flagged"), (-2.0, "flagged"), (-40.0, "refused")])
def test_readings_of_the_lordosis_that_conflict(slope: float, status: str) -> None:
    row, flags = curvature_row("exam", column(40.0), {"L1": endplate(-10.0), "S1": endplate(slope)}, {}, [])
    assert row is not None
    assert row.status == status
    assert "lordosis_conflict" in str(row.reasons)
    assert flags[0].value == pytest.approx(slope + 10.0 - 40.0)


@pytest.mark.parametrize(("slope", "status"), [(40.0, "ok"), (5.0, "flagged"), (80.0, "flagged"), (-40.0, "refused")])
def test_a_sacral_slope_outside_the_anatomical_range(slope: float, status: str) -> None:
    row, flags = curvature_row("exam", {}, {"S1": endplate(slope)}, {}, [])
    assert row is not None
    assert (row.status, row.sacral_slope_deg) == (status, slope)
    assert [flag.reason for flag in flags] == ([] if status == "ok" else ["implausible_angle"])
