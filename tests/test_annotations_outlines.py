"""Outlines to masks, labels to meanings, volumes from files, and whether outlines follow the picture."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import anatomy_shapes as shapes
import cv2
import nibabel
import numpy as np
import pytest
from annotated_exams import outlines, write_meta, write_nifti
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from cohort.annotations.classes import read_classes, terms_table, usual_meaning
from cohort.annotations.follows_picture import best_elsewhere
from cohort.annotations.outlines import area, crosses_itself, fill
from cohort.annotations.placement import RAS_TO_LPS, place_volume
from cohort.annotations.rules import CLEARLY, DOUBTFUL, stalk_mm
from cohort.annotations.volumes import read_volume
from cohort.errors import ConfigurationError, RefusedError
from cohort.geometry import Floats, StackGeometry
from cohort.stacks import ImageStack
from pipelines.validation.human_masks import real_exam_bodies, real_exam_muscles


def star(random: np.random.Generator, n: int = 30) -> Floats:
    """An outline without crossings about a point between pixels."""
    angle = np.sort(random.uniform(0, 2 * np.pi, n))
    radius = random.uniform(8, 14, n)
    return random.uniform(20, 21, 2) + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def test_the_first_pixels_centre_is_at_the_origin() -> None:
    mask, _ = fill([np.array([[-0.4, -0.4], [1.4, -0.4], [1.4, 0.4], [-0.4, 0.4]])], [], (4, 5))
    assert np.argwhere(mask).tolist() == [[0, 0], [0, 1]]
    mask, _ = fill([np.array([[0.6, 1.6], [3.4, 1.6], [3.4, 2.4], [0.6, 2.4]])], [], (4, 5))
    assert np.argwhere(mask).tolist() == [[2, 1], [2, 2], [2, 3]]


def test_masks_have_the_area_of_their_outlines_without_bias() -> None:
    random = np.random.default_rng(4)
    drawn = [outline for outline in (star(random) for _ in range(200)) if not crosses_itself(outline)]
    off = [np.count_nonzero(fill([outline], [], (48, 48))[0]) - abs(area(outline)) for outline in drawn]
    assert len(drawn) > 100
    assert abs(np.mean(off)) < 1.0  # of 300 pixels; a line of one pixel drawn around it would add some 40
    assert np.std(off) < 6.0


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), roughness=st.floats(0.6, 3.0))
def test_outlines_of_any_mask_with_holes_and_islands_give_it_back(seed: int, roughness: float) -> None:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(30, 26)), roughness)
    mask = noise > np.quantile(noise, 0.6)
    found = outlines(mask)
    outer, holes = ([np.array(one, float) for one in found[kind]] for kind in ("foreground", "background"))
    back, _ = fill(outer, holes, mask.shape)
    assert np.array_equal(back, mask)


def test_crossing_is_told_from_touching() -> None:
    square = np.array([[0, 0], [4, 0], [4, 4], [0, 4]], float)
    assert not crosses_itself(square)
    assert crosses_itself(square[[0, 2, 1, 3]])
    assert not crosses_itself(np.array([[0, 0], [4, 0], [2, 0], [2, 3]], float))
    with pytest.raises(RefusedError, match="polygon_crosses_itself: 100%"):
        fill([3 * square[[0, 2, 1, 3]]], [], (20, 20))
    for outline in ([[np.nan, 1], [2, 2], [3, 1]], [[1, 2, 3]], []):
        with pytest.raises(RefusedError, match="annotation_malformed"):
            fill([np.array(outline, float)], [], (20, 20))


def test_labels_are_read_as_people_write_them() -> None:
    for label, wanted in {
        "L4": ("vertebral_body", 1, "L4"), "T11 body": ("vertebral_body", 1, "T11"), "VB": ("vertebral_body", 1, None),
        "S1": ("vertebral_body", 2, "S1"), "Sacrum": ("vertebral_body", 2, None), "L4-L5": ("disc", 1, "L4-L5"),
        "L4/5": ("disc", 1, "L4-L5"), "L5S1 disc": ("disc", 1, "L5-S1"), "IVD": ("disc", 1, None),
        "Left Multifidus": ("muscle", 1, None), "ES_R": ("muscle", 4, None), "psoas major right": ("muscle", 6, None),
        "Quadratus lumborum (L)": ("muscle", 7, None), "L3-L4 psoas left": ("muscle", 5, "L3-L4"),
    }.items():  # fmt: skip
        meaning = usual_meaning(label)
        assert meaning is not None, label
        assert (meaning.array, meaning.value, meaning.level) == wanted, label
    for label in ("psoas", "canal", "L4 and L5", "1", "", "L4-S2", "left", "multifidus left right"):
        assert usual_meaning(label) is None, label
    assert terms_table("muscle").meaning("8") is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,structure\nx,bone\n", "structure is one of"),
        ("label,structure,level\nx,disc,L9\n", "level is one of"),
        ("label,structure\nx,psoas\n", "has a side"),
        ("label,structure,colour\nx,disc,red\n", "unknown column 'colour'"),
        ("label,structure\n", "no line"),
    ],
)
def test_class_tables_are_checked(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "classes.csv").write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        read_classes(tmp_path / "classes.csv")


def oblique() -> StackGeometry:
    turn = shapes.rotation(20.0, -15.0)
    row_dir, col_dir = turn @ [0.0, 1.0, 0.0], turn @ [0.0, 0.0, -1.0]
    position = np.array([7.0, -20, 30]) + 4.4 * np.arange(5)[:, None] * np.cross(row_dir, col_dir)
    return StackGeometry(position, row_dir, col_dir, (0.9, 0.8), (9, 7), 4.0)


GRIDS = {
    "sagittal": shapes.sagittal_geometry(turn_deg=0, lean_deg=0, n=5, shape=(9, 7)),
    "axial": shapes.axial_geometry(n=5, size=8),
    "oblique": oblique(),
}


@pytest.mark.parametrize("name", GRIDS)
def test_nifti_files_in_all_48_orders_and_directions_map_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    grid = GRIDS[name]
    mask = np.random.default_rng(2).integers(0, 9, (5, *grid.shape)).astype(np.uint8)
    path = tmp_path / "mask.nii"
    for order, flip in product(permutations(range(3)), product((1, -1), repeat=3)):
        affine = grid.affine[:, [*order, 3]]
        turned = mask.transpose(order)
        for axis in range(3):
            if flip[axis] < 0:
                affine[:3, 3] += affine[:3, axis] * (turned.shape[axis] - 1)
                affine[:3, axis] *= -1
        nibabel.save(
            nibabel.Nifti1Image(turned[tuple(slice(None, None, one) for one in flip)], RAS_TO_LPS @ affine), path
        )
        volume = read_volume(path)
        placement = place_volume(grid, volume.affine, volume.values.shape)
        assert np.array_equal(placement.apply(volume.values), mask)


@pytest.mark.parametrize("name", GRIDS)
def test_metaimage_and_nifti_say_the_same(name: str, tmp_path: Path) -> None:
    grid = GRIDS[name]
    mask = np.random.default_rng(3).integers(0, 9, (5, *grid.shape)).astype(np.uint8)
    meta = read_volume(write_meta(tmp_path / "mask.mha", mask, grid))
    nifti = read_volume(write_nifti(tmp_path / "mask.nii.gz", mask, grid))
    assert np.array_equal(meta.values, nifti.values)
    assert np.allclose(meta.affine, nifti.affine, atol=1e-4)


def test_metaimages_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    whole = write_meta(tmp_path / "mask.mha", np.ones((5, 8, 8), np.uint8), GRIDS["axial"]).read_bytes()
    for wrong in (
        whole[:-1],
        whole.replace(b"MET_UCHAR", b"MET_STRING"),
        whole.replace(b"Offset", b"Comment"),
        whole.replace(b"ElementDataFile = LOCAL", b"ElementDataFile = ../other.raw"),
        b"no header",
    ):
        (tmp_path / "wrong.mha").write_bytes(wrong)
        with pytest.raises(RefusedError, match="mask_unreadable"):
            read_volume(tmp_path / "wrong.mha")


def test_a_stalk_is_found_on_bodies_of_any_tilt_and_not_on_bodies_alone() -> None:
    for tilt, height in product((-20, 0, 15, 35), (18, 27, 31)):
        corners = np.array([[-17, -height / 2], [17, -height / 2], [17, height / 2], [-17, height / 2]])
        pedicle = np.array(
            [[10, -height / 2 + 1], [28, -height / 2 + 1], [28, -height / 2 + 13], [10, -height / 2 + 13]]
        )
        angle = np.deg2rad(tilt)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        body = np.zeros((120, 120), np.uint8)
        cv2.fillPoly(body, [np.rint(corners @ turn.T / 0.8 + 60).astype(int)], 1)
        assert stalk_mm(body > 0, (0.8, 0.8)) < 5.0
        cv2.fillPoly(body, [np.rint(pedicle @ turn.T / 0.8 + 60).astype(int)], 1)
        if height > 20:
            assert stalk_mm(body > 0, (0.8, 0.8)) >= 7.0, (tilt, height)


def gains(stack: ImageStack, mask: np.ndarray, slices: list[int]) -> dict[str, float]:
    """Gain elsewhere of a mask as it is, mirrored, and moved."""
    down = round(6 / stack.geometry.spacing_mm[0])
    changed = {"true": mask, "across": mask[:, :, ::-1], "down": mask[:, ::-1], "moved": np.roll(mask, down, 1)}
    return {name: best_elsewhere(stack, one, slices).gain for name, one in changed.items()}  # type: ignore[union-attr]


def test_human_masks_follow_their_pictures_and_moved_ones_do_not(real_data: Path) -> None:
    bodies = real_exam_bodies(real_data / "real_exam")[0]
    muscles = real_exam_muscles(real_data / "real_exam")
    found = gains(bodies.stack, bodies.labels["vertebral_body"], [5, 7, 9])
    assert found["true"] < 1.0
    assert min(found["across"], found["down"], found["moved"]) >= CLEARLY
    found = gains(muscles.stack, muscles.labels["muscle"], list(range(4, 24, 3)))
    assert found["true"] < 1.01
    assert found["down"] >= CLEARLY
    assert found["across"] > found["true"]
    assert DOUBTFUL < CLEARLY
