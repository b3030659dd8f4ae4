"""Manual masks of a real exam: every body found, ordered, separated and named; sides found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from skimage.io import imread

from cohort.anatomy.measure import measure_exam
from cohort.anatomy.sides import split_sides
from cohort.geometry import StackGeometry
from cohort.review.overlay import axial_overlay, sagittal_overlay
from cohort.stacks import ImageStack, LabelledStack, Plane


def read_stack(folder: Path, plane: Plane) -> ImageStack:
    files = [pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))]
    orientation = np.array(files[0].ImageOrientationPatient, dtype=float)
    geometry = StackGeometry(
        np.array([file.ImagePositionPatient for file in files], dtype=float),
        orientation[:3],
        orientation[3:],
        (float(files[0].PixelSpacing[0]), float(files[0].PixelSpacing[1])),
        files[0].pixel_array.shape,
        float(files[0].SliceThickness),
    )
    image = np.stack([file.pixel_array for file in files]).astype(np.uint16)
    return ImageStack(plane, 0, image, geometry, plane)


def read_masks(folder: Path, name: str, n: int) -> np.ndarray:
    return np.stack([imread(folder / f"{name}_{k:02d}.png") for k in range(n)])


@pytest.fixture(scope="module")
def manual_bodies(real_data: Path) -> np.ndarray:
    return read_masks(real_data / "real_exam" / "masks", "sagittal_vertebral_bodies", 15)


@pytest.fixture(scope="module")
def sagittal(real_data: Path, manual_bodies: np.ndarray) -> LabelledStack:
    """Manual bodies as one class, the lowest as sacral; no discs were drawn."""
    stack = read_stack(real_data / "real_exam" / "dicom" / "sagittal_t1", "sagittal")
    rows = {body: np.nonzero(manual_bodies == body)[1].mean() for body in range(1, 10)}
    lowest = max(rows, key=lambda body: rows[body])
    bodies = np.where(manual_bodies == lowest, 2, manual_bodies > 0).astype(np.uint8)
    return LabelledStack(stack, {"vertebral_body": bodies, "disc": np.zeros_like(bodies)}, {})


@pytest.fixture(scope="module")
def axial(real_data: Path) -> LabelledStack:
    stack = read_stack(real_data / "real_exam" / "dicom" / "axial_inphase", "axial")
    manual = read_masks(real_data / "real_exam" / "masks", "axial_es_mf", 29)
    classes = np.array([0, 2, 1, 1, 2], dtype=np.uint8)[manual]
    return LabelledStack(stack, {"muscle": split_sides(classes, stack.geometry)}, {})


def test_all_bodies_are_found_separated_and_ordered(sagittal: LabelledStack, manual_bodies: np.ndarray) -> None:
    result = measure_exam("exam", sagittal, [])
    assert [row.level for row in result.vertebrae] == ["S1", "L5", "L4", "L3", "L2", "L1", "T12", "T11", "T10"]
    assert result.sagittal is not None
    instances = result.sagittal.labels["body_instances"]
    owners = []
    for number in range(1, 10):
        inside = np.bincount(manual_bodies[instances == number], minlength=10)
        owners.append(int(np.argmax(inside)))
        assert inside.max() > 0.99 * inside.sum()
        assert inside.max() > 0.95 * np.count_nonzero(manual_bodies == owners[-1])
    assert sorted(owners) == list(range(1, 10))
    heights = [row.z_mm for row in result.vertebrae]
    assert heights == sorted(heights)
    assert result.curvature is not None
    assert result.curvature.lordosis_l1_l5_deg == pytest.approx(45, abs=15)
    assert result.curvature.sacral_slope_deg == pytest.approx(55, abs=6)  # read by eye on the overlay


def test_bodies_joined_at_their_rims_are_separated(sagittal: LabelledStack, manual_bodies: np.ndarray) -> None:
    """Neighbouring bodies bridged by a strip of 3 mm on four slices."""
    bodies = sagittal.labels["vertebral_body"].copy()
    for k in range(6, 10):
        for above in range(1, 9):
            rows, columns = np.nonzero(bodies[k] == 1)
            column = int(np.quantile(columns, above / 10))
            here = rows[columns == column]
            bodies[k, here.min() : here.max(), column : column + 4] = np.maximum(
                bodies[k, here.min() : here.max(), column : column + 4], 1
            )
    joined = LabelledStack(sagittal.stack, {**sagittal.labels, "vertebral_body": bodies}, {})
    result = measure_exam("exam", joined, [])
    assert [row.level for row in result.vertebrae] == ["S1", "L5", "L4", "L3", "L2", "L1", "T12", "T11", "T10"]


def test_sides_of_manual_muscles(real_data: Path, axial: LabelledStack) -> None:
    """Each manual identifier is one muscle of one side: the split must not mix them."""
    manual = read_masks(real_data / "real_exam" / "masks", "axial_es_mf", 29)
    split = axial.labels["muscle"]
    for identifier in range(1, 5):
        assert len(np.unique(split[manual == identifier])) == 1
    result = measure_exam("exam", None, [axial])
    assert len(result.muscles) == 29 * 4
    # A lean young adult: some percent of fat at most (MyoSegmenTUM subjects are healthy volunteers).
    assert all(row.lean_fraction is not None and 0.85 < row.lean_fraction <= 1 for row in result.muscles)
    assert "sides_conflict" not in {row.reason for row in result.quality}


def test_overlays_of_a_real_exam(sagittal: LabelledStack, axial: LabelledStack, tmp_path: Path) -> None:
    result = measure_exam("abcdefghijklmnop", sagittal, [axial])
    sagittal_overlay(result, tmp_path / "sagittal.png")
    axial_overlay(result, tmp_path / "axial.png")
    for name in ("sagittal.png", "axial.png"):
        picture = imread(tmp_path / name)
        assert picture.shape[0] > 600
        assert picture.shape[1] > 1200
        assert picture[..., :3].std() > 20


def test_a_sacrum_whose_top_was_missed_has_no_slope(sagittal: LabelledStack) -> None:
    """Networks often find only the lower part of S1; its upper edge is then no endplate."""
    bodies = sagittal.labels["vertebral_body"].copy()
    for plane in bodies:
        rows, columns = np.nonzero(plane == 2)
        if len(rows):
            # the superior endplate falls to the front: what lies above the diagonal is its side
            above = (rows - rows.mean()) - (columns - columns.mean()) < 5
            plane[rows[above], columns[above]] = 0
    result = measure_exam("exam", LabelledStack(sagittal.stack, {**sagittal.labels, "vertebral_body": bodies}, {}), [])
    s1 = result.vertebrae[0]
    assert (s1.level, s1.tilt_deg, s1.status) == ("S1", None, "flagged")
    assert result.curvature is not None
    assert result.curvature.sacral_slope_deg is None
    assert result.curvature.lordosis_l1_s1_deg is None


def test_bodies_too_tall_by_a_wrong_pixel_size_are_not_halved(sagittal: LabelledStack) -> None:
    geometry, bodies = sagittal.stack.geometry, sagittal.labels["vertebral_body"].copy()
    rows = np.flatnonzero(bodies.any(axis=(0, 2)))
    bodies[:, : rows[0] + 14] = 0  # the upper half of the highest body: what is left has the height of a whole one
    rows_mm, columns_mm = geometry.spacing_mm
    stretched = replace(sagittal.stack, geometry=replace(geometry, spacing_mm=(2.2 * rows_mm, 1.6 * columns_mm)))
    result = measure_exam("exam", LabelledStack(stretched, {**sagittal.labels, "vertebral_body": bodies}, {}), [])
    assert len(result.vertebrae) == 9
    assert sum(row.reason == "implausible_spacing" for row in result.quality) == 8
