"""The phantom: same seed same subject, anatomy in range, labels that mean what they say, MRI that looks like it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.terms import MUSCLE_LABELS, MUSCLES
from models.phantom.anatomy import draw_anatomy
from models.phantom.fields import Cloud, capsule, smooth_minimum
from models.phantom.mri import draw_contrast
from models.phantom.sampling import Subject, cut, draw_subject, plane, tissue_at
from models.phantom.slices import draw_samples
from models.phantom.tissues import Tissue


@pytest.fixture(scope="module")
def subject() -> Subject:
    return draw_subject(draw_anatomy(7, sex="M", scale=1.0, healthy=True, n_lumbar=5))


def test_the_same_seed_gives_the_same_slices_and_another_seed_does_not() -> None:
    (first,), (again,), (other,) = (draw_samples(seed, "sagittal", 1) for seed in (3, 3, 4))
    assert np.array_equal(first.tissue, again.tissue)
    assert np.array_equal(first.masks, again.masks)
    assert not np.array_equal(first.tissue, other.tissue)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_the_column_is_ordered_from_caudal_to_cranial_and_its_numbers_are_in_range(seed: int) -> None:
    anatomy = draw_anatomy(seed)
    mobile = anatomy.bodies[anatomy.first_mobile :]
    heights = [body.centre[2] for body in mobile]
    assert heights == sorted(heights)
    assert anatomy.bodies[anatomy.first_mobile - 1].name == "S1"
    assert [body.name for body in mobile][-4:] == ["T12", "T11", "T10", "T9"]
    assert all(6 < body.height_mm < 40 for body in mobile)
    assert all(20 < body.depth_mm < 48 for body in mobile)
    fused = sum(finding.kind == "block_vertebra" for finding in anatomy.findings)
    assert [disc.upper - disc.lower for disc in anatomy.discs] == [1] * (len(mobile) - fused)


@pytest.mark.parametrize("n_lumbar", [4, 5, 6])
def test_lumbar_variants_have_as_many_lumbar_bodies(n_lumbar: int) -> None:
    names = [body.name for body in draw_anatomy(1, n_lumbar=n_lumbar).bodies]
    assert [name for name in names if name.startswith("L")] == [f"L{k}" for k in range(n_lumbar, 0, -1)]


def test_a_body_is_labelled_at_its_centre_and_its_label_lies_inside_the_cortex(subject: Subject) -> None:
    for k, body in enumerate(subject.anatomy.bodies):
        tissue, label, _, _ = tissue_at(subject, body.centre[None].astype(np.float32))
        assert label[0] == k + 1
        assert tissue[0] == (Tissue.SACRAL_MARROW if body.sacral else Tissue.MARROW)


def test_a_midsagittal_slice_shows_bodies_and_discs_in_turn(subject: Subject) -> None:
    middle = next(body.centre for body in subject.anatomy.bodies if body.name == "L3")
    grid = plane(middle, (0, 1, 0), (0, 0, -1), size=256, spacing_mm=1.0, thickness_mm=4)
    slice_ = cut(subject, grid, 0)
    column = [(int(b) or None, int(d) or None) for b, d in zip(slice_.body[:, 128], slice_.disc[:, 128], strict=True)]
    assert not np.any((slice_.body > 0) & (slice_.disc > 0))
    assert sum(body is not None for body, _ in column) > 60
    assert len({disc for _, disc in column if disc}) >= 3


def test_muscles_lie_on_their_sides_and_psoas_grows_caudally(subject: Subject) -> None:
    areas = {}
    for body in subject.anatomy.bodies:
        if body.name not in ("L1", "L4"):
            continue
        grid = plane(body.centre + np.array([0, 25, 0]), (1, 0, 0), (0, 1, 0), size=200, spacing_mm=1.0, thickness_mm=4)
        slice_ = cut(subject, grid, 0)
        for (muscle, side), value in MUSCLE_LABELS.items():
            x = slice_.points_mm[..., 0][slice_.muscle == value]
            assert len(x) > 20, (muscle, side, body.name)
            assert (x.mean() - body.centre[0] > 0) == (side == "left")
            areas[body.name, muscle] = areas.get((body.name, muscle), 0) + len(x) / 100
    assert areas["L4", "psoas"] > 1.5 * areas["L1", "psoas"]
    assert areas["L4", "multifidus"] > areas["L1", "multifidus"]
    assert all(1 < area < 70 for area in areas.values())


def test_t1_shows_fat_bright_and_fluid_dark_and_t2_shows_fluid_bright() -> None:
    rng = np.random.default_rng(0)
    t1 = draw_contrast(rng, "t1", jitter=0.0)
    t2 = max((draw_contrast(rng, "t2", jitter=0.0) for _ in range(8)), key=lambda drawn: drawn.echo_time_ms)
    fat = t1.water[Tissue.SUBCUTANEOUS_FAT] + t1.fat[Tissue.SUBCUTANEOUS_FAT]
    marrow = t1.water[Tissue.MARROW] + t1.fat[Tissue.MARROW]
    assert fat > marrow > t1.water[Tissue.MUSCLE] > t1.water[Tissue.CSF] > t1.water[Tissue.CORTEX] / 2
    assert t2.water[Tissue.CSF] > 2 * t2.water[Tissue.MUSCLE]


def test_samples_have_a_channel_a_class_and_nothing_is_labelled_out_of_view() -> None:
    for plane_name, n_classes in (("sagittal", 3), ("axial", len(MUSCLES))):
        for sample in draw_samples(5, plane_name, 4, size=128):
            assert sample.tissue.shape == (4, 128, 128)
            assert sample.masks.shape == (n_classes, 128, 128)
            top, bottom, front, back = sample.view
            beyond = np.ones((128, 128), bool)
            beyond[top:bottom, front:back] = False
            assert not sample.masks[:, beyond].any()
        assert sample.masks.any()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0.5, 60))
def test_a_cloud_finds_the_points_that_brute_force_finds(seed: int, radius: float) -> None:
    rng = np.random.default_rng(seed)
    points = rng.uniform(-50, 50, (257, 3)).astype(np.float32)
    centre = rng.uniform(-60, 60, 3).astype(np.float32)
    expected = np.nonzero((np.abs(points - centre) < np.float32(radius)).all(axis=1))[0]
    assert np.array_equal(np.sort(Cloud(points).near(centre, radius)), expected)


def test_capsule_and_smooth_minimum() -> None:
    points = np.array([[0, 0, 0], [0, 0, 9], [0, 3, 5], [40, 0, 0]], np.float32)
    distance = capsule(points, [[0, 0, 0], [0, 0, 10]], (2, 2, 2))
    assert distance[0] == distance[1] == 0
    assert distance[2] > 1
    assert np.isinf(distance[3])
    assert smooth_minimum(np.float32([1.0]), np.float32([9.0]), 2.0) == pytest.approx(1.0)
    assert smooth_minimum(np.float32([1.0]), np.float32([1.0]), 2.0) < 1.0
