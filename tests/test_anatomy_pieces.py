"""Separation: one piece per vertebra and disc, whatever the mask lacks or has too much."""

from __future__ import annotations

from dataclasses import replace

import anatomy_shapes as shapes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.anatomy.body_pieces import separate_bodies
from cohort.anatomy.disc_pieces import separate_discs
from cohort.anatomy.instances import Instances, section_width_mm, spine_curve
from cohort.anatomy.measure import Measurements, measure_exam
from cohort.anatomy.orientation import standing_order
from cohort.geometry import StackGeometry
from cohort.stacks import LabelledStack

LEVELS = ["S1", "L5", "L4", "L3", "L2", "L1", "T12", "T11"]
DISCS = ["L5-S1", "L4-L5", "L3-L4", "L2-L3", "L1-L2", "T12-L1", "T11-T12"]


@pytest.fixture(scope="module")
def blocks() -> dict[str, shapes.Block]:
    return shapes.spine()


@pytest.fixture(scope="module")
def sagittal(blocks: dict[str, shapes.Block]) -> LabelledStack:
    return coarse_stack(blocks)


def coarse_stack(blocks: dict[str, shapes.Block], **grid: object) -> LabelledStack:
    """On pixels of 1 mm, which take less time."""
    wanted = {"spacing": (1.0, 1.0), "shape": (340, 260), "n": 13} | grid
    return shapes.sagittal_stack(blocks, shapes.sagittal_geometry(**wanted))  # type: ignore[arg-type]


def edited(stack: LabelledStack, **labels: np.ndarray) -> LabelledStack:
    return replace(stack, labels={**stack.labels, **labels})


def drawn(stack: LabelledStack, name: str, block: shapes.Block, value: int = 1) -> LabelledStack:
    """The stack with a block drawn into one of its label arrays."""
    labels = stack.labels[name].copy()
    shapes.draw(block, stack.stack.geometry, labels, value)
    return edited(stack, **{name: labels})


def with_slices(stack: LabelledStack, kept: list[int]) -> LabelledStack:
    geometry = stack.stack.geometry
    fewer = replace(geometry, position_mm=geometry.position_mm[kept])
    return LabelledStack(
        replace(stack.stack, image=stack.stack.image[kept], geometry=fewer),
        {name: labels[kept] for name, labels in stack.labels.items()},
        {},
    )


def separated(stack: LabelledStack) -> tuple[Instances, Instances]:
    order = standing_order(stack.stack.geometry, "sagittal")
    bodies, discs = (np.ascontiguousarray(order.apply(stack.labels[name])) for name in ("vertebral_body", "disc"))
    geometry = order.geometry(stack.stack.geometry)
    curve = spine_curve(bodies > 0, discs > 0, geometry)
    assert curve is not None
    found = separate_bodies(bodies, discs > 0, geometry, curve)
    return found, separate_discs(discs > 0, found, geometry, curve)


def names(measured: Measurements) -> list[str | None]:
    return [row.level for row in measured.vertebrae]


def disc_names(measured: Measurements) -> list[str | None]:
    return [row.level for row in measured.discs]


def worst_centroid_mm(measured: Measurements, blocks: dict[str, shapes.Block], *levels: str) -> float:
    return max(
        float(np.linalg.norm(np.array([row.x_mm, row.y_mm, row.z_mm]) - blocks[str(row.level)].centre_mm))
        for row in (*measured.vertebrae, *measured.discs)
        if not levels or row.level in levels
    )


def test_a_clean_mask_is_not_changed(sagittal: LabelledStack) -> None:
    bodies, discs = separated(sagittal)
    for found, name in ((bodies, "vertebral_body"), (discs, "disc")):
        assert np.count_nonzero(found.labels) == np.count_nonzero(sagittal.labels[name])
        assert set(vars(found.changes).values()) == {0}
    assert len(bodies.pieces) == 9
    assert bodies.pieces[0].sacral_share == bodies.pieces[1].sacral_share == 1
    assert len(discs.pieces) == 7


# -- distances between slices ------------------------------------------------------------------------------------------


@given(st.lists(st.floats(1.0, 9.0), min_size=2, max_size=14), st.data())
def test_sections_stand_for_the_way_to_their_neighbours(gaps: list[float], data: st.DataObject) -> None:
    """The widths of a piece add up to its length and, at either end, half a gap, at most half the usual one."""
    at = np.concatenate([[0.0], np.cumsum(gaps)])
    position = np.stack([at, np.zeros_like(at), np.zeros_like(at)], axis=1)
    geometry = StackGeometry(position, np.array([0.0, 1, 0]), np.array([0.0, 0, 1]), (1.0, 1.0), (4, 4), 3.0)
    seen = np.array(data.draw(st.lists(st.booleans(), min_size=len(at), max_size=len(at))))
    width = section_width_mm(seen[None], geometry)[0]
    assert (width[~seen] == 0).all()
    if seen.any():
        first, last = np.flatnonzero(seen)[[0, -1]]
        usual = float(np.median(gaps))
        assert (width[seen] > 0).all()
        assert at[last] - at[first] < width.sum() <= at[last] - at[first] + usual + 1e-9


@pytest.mark.parametrize("missing", [{5}, {4, 5}, {3, 8}])
def test_volumes_and_centroids_do_not_mind_missing_slices(
    blocks: dict[str, shapes.Block], sagittal: LabelledStack, missing: set[int]
) -> None:
    kept = [k for k in range(13) if k not in missing]
    result = measure_exam("exam", with_slices(sagittal, kept), [])
    assert names(result) == LEVELS
    assert worst_centroid_mm(result, blocks) < 0.8
    whole = measure_exam("exam", sagittal, [])
    for row, same in zip(result.vertebrae, whole.vertebrae, strict=True):
        assert row.volume_cm3 == pytest.approx(same.volume_cm3, rel=0.05)


def test_slices_without_a_mask_are_bridged_in_volume_and_centroid(
    blocks: dict[str, shapes.Block], sagittal: LabelledStack
) -> None:
    labels = {name: volume.copy() for name, volume in sagittal.labels.items()}
    for volume in labels.values():
        volume[5] = 0
    result = measure_exam("exam", edited(sagittal, **labels), [])
    assert names(result) == LEVELS
    assert disc_names(result) == DISCS
    assert worst_centroid_mm(result, blocks) < 0.8
    assert {row.reason for row in result.quality} >= {"pieces_joined"}
    assert result.status == "ok"


@pytest.mark.parametrize("thickness_mm", [1.0, 4.0])
def test_one_slice_shows_all_bodies_and_discs(sagittal: LabelledStack, thickness_mm: float) -> None:
    one = with_slices(sagittal, [6])
    one = replace(one, stack=replace(one.stack, geometry=replace(one.stack.geometry, thickness_mm=thickness_mm)))
    result = measure_exam("exam", one, [])
    assert names(result) == LEVELS
    assert disc_names(result) == DISCS


# -- what is not spine -------------------------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(down=st.floats(30, 50), forward=st.floats(8, 25), radius=st.floats(6, 13))
def test_a_blob_before_the_sacrum_is_no_vertebra(
    sagittal: LabelledStack, blocks: dict[str, shapes.Block], down: float, forward: float, radius: float
) -> None:
    centre = blocks["L5"].centre_mm + np.array([0.0, -forward, -down])
    blob = shapes.Block("bowel", centre, 0.0, 2 * radius, 2 * radius, 20.0)
    result = measure_exam("exam", drawn(sagittal, "vertebral_body", blob), [])
    assert names(result) == LEVELS
    assert worst_centroid_mm(result, blocks, "L5", "L4", "L3") < 1.0


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_a_blob_beside_the_spine_loses_what_passes_the_outline_of_the_body(
    sagittal: LabelledStack, blocks: dict[str, shapes.Block], side: float
) -> None:
    """Muscle or kidney called body, on the outermost slices and past the outline of L3."""
    centre = blocks["L3"].centre_mm + np.array([side * 21.0, 14.0, 8.0])
    blob = shapes.Block("muscle", centre, 0.0, 34.0, 30.0, 14.0)
    result = measure_exam("exam", drawn(sagittal, "vertebral_body", blob), [])
    assert names(result) == LEVELS
    # What lies within the outline of the middle sections cannot be told from the body: uncut, L3 would be 4.2 mm off.
    assert worst_centroid_mm(result, blocks, "L3") < 3.5


def test_a_blob_and_a_false_disc_in_the_pelvis_are_dropped(
    sagittal: LabelledStack, blocks: dict[str, shapes.Block]
) -> None:
    lowest = blocks["S1"].centre_mm
    blob = shapes.Block("uterus", lowest + np.array([0.0, -12.0, -32.0]), 0.0, 18.0, 22.0, 20.0)
    false = shapes.Block("bladder", lowest + np.array([0.0, -14.0, -46.0]), 10.0, 6.0, 28.0, 20.0)
    both = drawn(drawn(sagittal, "vertebral_body", blob), "disc", false)
    result = measure_exam("exam", both, [])
    assert names(result) == LEVELS
    assert disc_names(result) == DISCS
    assert {row.structure for row in result.quality if row.reason == "pieces_removed"} == {"vertebral_body", "disc"}


def test_a_missing_body_does_not_end_the_spine(blocks: dict[str, shapes.Block]) -> None:
    bodies, _ = separated(coarse_stack({name: block for name, block in blocks.items() if name != "L3"}))
    assert len(bodies.pieces) == 8


def test_a_steep_sacrum_is_part_of_the_spine(blocks: dict[str, shapes.Block]) -> None:
    """The line of centres turns by 40 degrees at the promontory."""
    l5 = blocks["L5"]
    direction = np.array([0.0, np.sin(np.radians(62)), -np.cos(np.radians(62))])
    s1 = shapes.Block("S1", l5.centre_mm + 35 * direction, 66.0, 25.0, 30.0, 46.0)
    kept = {name: block for name, block in blocks.items() if name not in ("S1", "S2", "S1-S2", "L5-S1")}
    bodies, _ = separated(coarse_stack({**kept, "S1": s1}))
    assert bodies.pieces[0].sacral_share == 1


# -- touching and broken -----------------------------------------------------------------------------------------------


def test_a_block_vertebra_is_divided_where_two_bodies_meet(blocks: dict[str, shapes.Block]) -> None:
    upper, lower = blocks["L2"], blocks["L3"]
    fused = shapes.Block("fused", (upper.centre_mm + lower.centre_mm) / 2, -5.0, 12.0, 32.0, 45.0)
    stack = coarse_stack({**{name: one for name, one in blocks.items() if name != "L2-L3"}, "fused": fused})
    result = measure_exam("exam", stack, [])
    assert names(result) == LEVELS
    # half of the gap of 8 mm belongs to either
    assert worst_centroid_mm(result, blocks, "L2", "L3") < 3.0
    separations = [row.value for row in result.quality if row.reason == "pieces_separated"]
    assert separations == [1.0]


def test_sacral_bodies_that_touch_are_two(sagittal: LabelledStack, blocks: dict[str, shapes.Block]) -> None:
    upper, lower = blocks["S1"], blocks["S2"]
    bridge = shapes.Block("bridge", (upper.centre_mm + lower.centre_mm) / 2, 49.0, 16.0, 26.0, 30.0)
    labels = {**drawn(sagittal, "vertebral_body", bridge, 2).labels, "disc": np.zeros_like(sagittal.labels["disc"])}
    bodies, _ = separated(edited(sagittal, **labels))
    assert len(bodies.pieces) == 9
    for piece, name in zip(bodies.pieces[:2], ("S2", "S1"), strict=True):
        assert np.linalg.norm(np.array(piece.centroid_mm) - blocks[name].centroid_mm) < 4  # the bridge goes to both


@pytest.mark.parametrize(("name", "wrong", "place"), [("S1", 1, 1), ("L5", 2, 0)])
def test_a_bone_of_two_classes_is_one_piece(
    sagittal: LabelledStack, blocks: dict[str, shapes.Block], name: str, wrong: int, place: int
) -> None:
    """The upper part of S1 called body, or the lower part of L5 called sacral."""
    block = blocks[name]
    half = replace(block, centre_mm=block.centre_mm + block.up * (8 if wrong == 1 else -8), height_mm=10.0)
    labels = sagittal.labels["vertebral_body"].copy()
    shapes.draw(half, sagittal.stack.geometry, labels, wrong)
    bodies, _ = separated(edited(sagittal, vertebral_body=labels))
    assert len(bodies.pieces) == 9
    mixed = [piece for piece in bodies.pieces if 0 < piece.sacral_share < 1]
    assert len(mixed) == 1
    assert mixed[0].sacral_share == pytest.approx(10 / 27 if wrong == 2 else 17 / 27, abs=0.1)
    assert np.linalg.norm(np.array(mixed[0].centroid_mm) - block.centroid_mm) < 0.6
    assert bodies.pieces.index(mixed[0]) == (1 if name == "S1" else 2)


def test_sacral_voxels_that_reach_up_to_l5_are_divided_at_the_disc(
    sagittal: LabelledStack, blocks: dict[str, shapes.Block]
) -> None:
    """L5 and S1 touch at the back, and the lower part of L5 is called sacral."""
    l5, s1 = blocks["L5"], blocks["S1"]
    labels = sagittal.labels["vertebral_body"].copy()
    geometry = sagittal.stack.geometry
    middle = (l5.centre_mm + s1.centre_mm) / 2
    shapes.draw(shapes.Block("bridge", middle + s1.back * 13, 31.0, 20.0, 5.0, 20.0), geometry, labels, 2)
    shapes.draw(replace(l5, centre_mm=l5.centre_mm - l5.up * 8, height_mm=11.0), geometry, labels, 2)
    bodies, _ = separated(edited(sagittal, vertebral_body=labels))
    assert len(bodies.pieces) == 9
    for piece, block in zip(bodies.pieces[1:3], (s1, l5), strict=True):
        assert np.linalg.norm(np.array(piece.centroid_mm) - block.centre_mm) < 1.5


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_a_strip_from_disc_to_disc_leaves_no_trace(
    sagittal: LabelledStack, blocks: dict[str, shapes.Block], side: float
) -> None:
    body = blocks["L3"]
    strip = shapes.Block("strip", body.centre_mm + body.back * side * 17.5, body.tilt_deg, 40.0, 3.0, 16.0)
    clean = {row.level: row.height_mm for row in measure_exam("exam", sagittal, []).discs}
    result = measure_exam("exam", drawn(sagittal, "disc", strip), [])
    assert disc_names(result) == DISCS
    for row in result.discs:
        assert row.height_mm == pytest.approx(clean[row.level], abs=0.7)
    told = {row.reason: row.structure for row in result.quality}
    assert told["bridges_removed"] == told["pieces_separated"] == "disc"


@pytest.mark.parametrize("gap_mm", [1.5, 3.0])
def test_a_broken_body_is_joined_and_counted(
    sagittal: LabelledStack, blocks: dict[str, shapes.Block], gap_mm: float
) -> None:
    crack = shapes.Block("crack", blocks["L2"].centre_mm, shapes.TILTS_DEG["L2"], gap_mm, 60.0, 80.0)
    labels = sagittal.labels["vertebral_body"].copy()
    shapes.draw(crack, sagittal.stack.geometry, labels, 0)
    result = measure_exam("exam", edited(sagittal, vertebral_body=labels), [])
    assert names(result) == LEVELS
    assert [row.value for row in result.quality if row.reason == "pieces_joined"] == [1.0]
    assert "cracks_filled" in {row.reason for row in result.quality}
    assert result.status == "ok"
    for row, same in zip(result.vertebrae, measure_exam("exam", sagittal, []).vertebrae, strict=True):
        assert row.volume_cm3 == pytest.approx(same.volume_cm3, rel=0.01)
        assert row.middle_height_mm == pytest.approx(same.middle_height_mm, abs=0.2)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_counts_add_up_and_nothing_else_is_added(sagittal: LabelledStack, seed: int) -> None:
    """Masks with random blobs and cuts: every voxel is in one piece, removed, or strip; pieces go up the spine."""
    rng = np.random.default_rng(seed)
    labels = {name: volume.copy() for name, volume in sagittal.labels.items()}
    shape = labels["disc"].shape
    for name, volume in labels.items():
        for _ in range(12):
            at = [rng.integers(0, n) for n in shape]
            size = rng.integers(1, [4, 40, 40])
            box = tuple(slice(int(a), int(a + s)) for a, s in zip(at, size, strict=True))
            volume[box] = rng.integers(0, 3 if name == "vertebral_body" else 2)
    stack = edited(sagittal, **labels)
    order = standing_order(stack.stack.geometry, "sagittal")
    for found, name in zip(separated(stack), ("vertebral_body", "disc"), strict=True):
        mask = order.apply(labels[name]) > 0
        assert np.count_nonzero(found.labels[~mask]) == found.changes.crack_voxels
        kept = np.count_nonzero(found.labels[mask])
        assert kept + found.changes.removed_voxels + found.changes.bridge_voxels == np.count_nonzero(mask)
        assert [piece.arc_mm for piece in found.pieces] == sorted(piece.arc_mm for piece in found.pieces)
        assert len(np.unique(found.labels)) == len(found.pieces) + 1


def test_filled_holes_are_counted(sagittal: LabelledStack, blocks: dict[str, shapes.Block]) -> None:
    labels = sagittal.labels["vertebral_body"].copy()
    hole = shapes.Block("hole", blocks["L4"].centre_mm, 0.0, 9.0, 9.0, 20.0)
    shapes.draw(hole, sagittal.stack.geometry, labels, 0)
    missing = np.count_nonzero(sagittal.labels["vertebral_body"]) - np.count_nonzero(labels)
    quality = measure_exam("exam", edited(sagittal, vertebral_body=labels), []).quality
    assert [(row.structure, row.value) for row in quality if row.reason == "holes_filled"] == [
        ("vertebral_body", float(missing))
    ]


def test_counts_alone_do_not_flag_an_exam_but_a_large_share_does(
    sagittal: LabelledStack, blocks: dict[str, shapes.Block]
) -> None:
    for size, status in ((8.0, "ok"), (60.0, "flagged")):
        block = shapes.Block("bowel", blocks["L4"].centre_mm + np.array([0.0, -62.0, 0.0]), 0.0, size, size, 60.0)
        result = measure_exam("exam", drawn(sagittal, "vertebral_body", block), [])
        assert "pieces_removed" in {row.reason for row in result.quality}
        assert result.status == status
    assert result.reason == "components_removed"


def test_crumbs_all_over_the_picture_change_no_name(sagittal: LabelledStack) -> None:
    rng = np.random.default_rng(3)
    labels = {name: volume.copy() for name, volume in sagittal.labels.items()}
    for volume in labels.values():
        for _ in range(150):
            k, row, column = (int(rng.integers(0, n)) for n in volume.shape)
            volume[k, row : row + int(rng.integers(1, 5)), column : column + int(rng.integers(1, 5))] = 1
    result = measure_exam("exam", edited(sagittal, **labels), [])
    assert names(result) == LEVELS
    assert disc_names(result) == DISCS
