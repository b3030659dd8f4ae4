"""Measurements on spines and muscles of exactly known shape."""

from __future__ import annotations

from dataclasses import fields, replace

import anatomy_shapes as shapes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.anatomy.measure import Measurements, measure_exam
from cohort.stacks import LabelledStack


@pytest.fixture(scope="module")
def blocks() -> dict[str, shapes.Block]:
    return shapes.spine()


@pytest.fixture(scope="module")
def sagittal(blocks: dict[str, shapes.Block]) -> LabelledStack:
    return shapes.sagittal_stack(blocks, shapes.sagittal_geometry())


@pytest.fixture(scope="module")
def axial() -> LabelledStack:
    return shapes.muscle_stack(shapes.axial_geometry(n=14, middle_mm=(3.3, 40.0, 76.0)), turn_deg=4.0)


@pytest.fixture(scope="module")
def measured(sagittal: LabelledStack, axial: LabelledStack) -> Measurements:
    return measure_exam("exam", sagittal, [axial])


def names(measured: Measurements) -> list[str | None]:
    return [row.level for row in measured.vertebrae]


def edited(stack: LabelledStack, **labels: np.ndarray) -> LabelledStack:
    return LabelledStack(stack.stack, {**stack.labels, **labels}, stack.uncertainty)


def without(blocks: dict[str, shapes.Block], *gone: str) -> dict[str, shapes.Block]:
    return {name: block for name, block in blocks.items() if name not in gone}


def test_levels_are_named_from_the_sacrum(measured: Measurements) -> None:
    assert names(measured) == ["S1", "L5", "L4", "L3", "L2", "L1", "T12", "T11"]
    assert [row.ordinal for row in measured.vertebrae] == list(range(8))
    assert [row.level for row in measured.discs] == [
        "L5-S1",
        "L4-L5",
        "L3-L4",
        "L2-L3",
        "L1-L2",
        "T12-L1",
        "T11-T12",
    ]
    assert [row.ordinal for row in measured.discs] == list(range(1, 8))
    assert all(row.level_confidence > 0.8 for row in measured.vertebrae)
    assert measured.status == "ok"


def test_disc_heights(measured: Measurements, blocks: dict[str, shapes.Block]) -> None:
    for row in measured.discs:
        truth = blocks[str(row.level)]
        assert row.height_mm == pytest.approx(truth.height_mm, abs=0.3)
        assert row.middle_height_mm == pytest.approx(truth.height_mm, abs=0.4)
        assert row.width_mm == pytest.approx(truth.depth_mm, abs=0.7)
        assert row.wedge_deg == pytest.approx(0, abs=1.0)
        assert row.volume_cm3 == pytest.approx(truth.height_mm * np.pi / 4 * 34 * 44 / 1000, rel=0.04)


def test_centroids(measured: Measurements, blocks: dict[str, shapes.Block]) -> None:
    for row in (*measured.vertebrae, *measured.discs):
        at = np.array([row.x_mm, row.y_mm, row.z_mm])
        assert np.linalg.norm(at - blocks[str(row.level)].centroid_mm) < 0.5


def test_bodies(measured: Measurements) -> None:
    height, depth, width = shapes.BODY_MM
    assert measured.vertebrae[0].tilt_deg == pytest.approx(shapes.TILTS_DEG["S1"], abs=0.7)
    for row in measured.vertebrae[1:]:
        assert row.anterior_height_mm == pytest.approx(height, abs=0.5)
        assert row.posterior_height_mm == pytest.approx(height, abs=0.5)
        assert row.middle_height_mm == pytest.approx(height, abs=0.5)
        assert row.depth_mm == pytest.approx(depth, abs=0.5)
        assert row.wedge_deg == pytest.approx(0, abs=0.7)
        assert row.tilt_deg == pytest.approx(shapes.TILTS_DEG[str(row.level)], abs=0.7)
        assert row.volume_cm3 == pytest.approx(height * np.pi / 4 * depth * width / 1000, rel=0.03)


def test_curvature(measured: Measurements, blocks: dict[str, shapes.Block]) -> None:
    row = measured.curvature
    assert row is not None
    assert row.lordosis_l1_s1_deg == pytest.approx(40 + 11, abs=2)
    assert row.lordosis_l1_l5_deg == pytest.approx(22 + 11, abs=2)
    assert row.sacral_slope_deg == pytest.approx(40, abs=1)
    lines = [blocks[b].centre_mm - blocks[a].centre_mm for a, b in (("L1", "L2"), ("L5", "S1"))]
    lean = [np.degrees(np.arctan2(line[1], -line[2])) for line in lines]
    assert row.lordosis_centroid_deg == pytest.approx(lean[1] - lean[0], abs=2)
    assert row.coronal_deviation_mm == pytest.approx(0, abs=0.5)


def test_muscle_areas(measured: Measurements) -> None:
    assert len(measured.muscles) == 14 * 8
    for row in measured.muscles:
        assert row.csa_cm2 == pytest.approx(shapes.muscle_area_cm2(row.muscle), rel=0.02)
        assert not row.touches_border
        turn = np.radians(4.0)
        lateral, posterior, _, _ = shapes.MUSCLE_MM[row.muscle]
        lateral *= 1 if row.side == "left" else -1
        assert row.x_mm == pytest.approx(3 + np.cos(turn) * lateral - np.sin(turn) * posterior, abs=0.5)
        assert row.y_mm == pytest.approx(np.sin(turn) * lateral + np.cos(turn) * posterior, abs=0.5)


def test_muscles_at_the_discs(measured: Measurements, blocks: dict[str, shapes.Block]) -> None:
    assert {row.level for row in measured.muscle_levels} == {"L4-L5", "L3-L4"}
    for row in measured.muscle_levels:
        disc = blocks[row.level]
        assert row.distance_mm <= 2.1
        assert row.angle_deg == pytest.approx(abs(disc.tilt_deg), abs=1.5)
        assert row.csa_corrected_cm2 == pytest.approx(row.csa_cm2 * np.cos(np.radians(row.angle_deg)))
    missing = {row.structure for row in measured.quality if row.reason == "no_slice_at_level"}
    assert missing == {"L5-S1", "L2-L3", "L1-L2", "T12-L1", "T11-T12"}


def test_a_slice_along_the_disc_gives_the_true_section(
    sagittal: LabelledStack, blocks: dict[str, shapes.Block]
) -> None:
    """Muscles run at right angles to the L4-L5 disc; an axial stack that does not follow it sees a larger section."""
    disc = blocks["L4-L5"]
    straight = shapes.muscle_stack(
        shapes.axial_geometry(n=3, middle_mm=tuple(disc.centre_mm)),
        y_mm=float(disc.centre_mm @ disc.back),
        tilt_deg=disc.tilt_deg,
    )
    result = measure_exam("exam", sagittal, [straight])
    rows = [row for row in result.muscle_levels if row.level == "L4-L5" and row.muscle != "quadratus_lumborum"]
    assert len(rows) == 6
    for row in rows:
        assert row.csa_cm2 > 1.02 * row.csa_corrected_cm2
        assert row.csa_corrected_cm2 == pytest.approx(shapes.muscle_area_cm2(row.muscle), rel=0.02)


def test_the_least_oblique_of_several_stacks_is_used(sagittal: LabelledStack, blocks: dict[str, shapes.Block]) -> None:
    disc = blocks["L5-S1"]
    stacks = [
        shapes.muscle_stack(
            shapes.axial_geometry(n=3, tilt_deg=tilt, middle_mm=tuple(disc.centre_mm)),
            y_mm=float(disc.centre_mm[1]) - 30,
            index=i,
        )
        for i, tilt in enumerate((0.0, disc.tilt_deg))
    ]
    rows = [row for row in measure_exam("exam", sagittal, stacks).muscle_levels if row.level == "L5-S1"]
    assert {row.stack for row in rows} == {1}
    assert all(row.angle_deg < 2 and row.distance_mm < 1 for row in rows)


@settings(max_examples=6, deadline=None)
@given(
    swap=st.booleans(),
    flip=st.tuples(*[st.booleans()] * 3),
    axial_swap=st.booleans(),
    axial_flip=st.tuples(*[st.booleans()] * 3),
)
def test_axis_order_changes_nothing(  # type: ignore[no-untyped-def]
    sagittal, axial, measured, swap, flip, axial_swap, axial_flip
) -> None:
    turned = measure_exam(
        "exam",
        shapes.reordered(sagittal, swap=swap, flip=flip),
        [shapes.reordered(axial, swap=axial_swap, flip=axial_flip)],
    )
    for table in ("vertebrae", "discs", "muscle_levels"):
        for row, same in zip(getattr(measured, table), getattr(turned, table), strict=True):
            assert_equal_rows(row, same, skip={"central_slice", "slice"})
    assert_equal_rows(measured.curvature, turned.curvature, skip=set())
    last = sagittal.stack.geometry.n_slices - 1
    for row, same in zip(measured.discs, turned.discs, strict=True):
        assert same.central_slice == (last - row.central_slice if flip[0] else row.central_slice)
    assert turned.sagittal is not None
    assert measured.sagittal is not None
    expected = shapes.reordered(measured.sagittal, swap=swap, flip=flip)
    for name, volume in expected.labels.items():
        np.testing.assert_array_equal(turned.sagittal.labels[name], volume)


def assert_equal_rows(row: object, same: object, *, skip: set[str]) -> None:
    for column in fields(row):  # type: ignore[arg-type]
        if column.name not in skip:
            a, b = getattr(row, column.name), getattr(same, column.name)
            assert b == (pytest.approx(a, abs=1e-6) if isinstance(a, float) else a), column.name


def test_without_a_sacrum_nothing_is_named(blocks: dict[str, shapes.Block]) -> None:
    seen = without(blocks, "S1", "S2")
    result = measure_exam("exam", shapes.sagittal_stack(seen, shapes.sagittal_geometry()), [])
    assert names(result) == [None] * 7
    assert [row.ordinal for row in result.vertebrae] == list(range(1, 8))
    assert [row.ordinal for row in result.discs] == list(range(1, 8))
    assert all(row.level is None and row.height_mm is not None for row in result.discs)
    assert (result.status, result.reason) == ("flagged", "levels_undecided")
    assert result.curvature is None


def test_undecided_levels_still_have_muscles_at_discs(blocks: dict[str, shapes.Block], axial: LabelledStack) -> None:
    seen = without(blocks, "S1", "S2", "L5-S1")
    result = measure_exam("exam", shapes.sagittal_stack(seen, shapes.sagittal_geometry()), [axial])
    assert {row.level for row in result.muscle_levels} == {"disc-1", "disc-2"}


def test_a_swapped_class_is_outvoted_by_shape_and_discs_and_costs_confidence(
    sagittal: LabelledStack, measured: Measurements
) -> None:
    """L5 called sacral and S1 called lumbar."""
    labels = sagittal.labels["vertebral_body"].copy()
    result = measure_exam("exam", sagittal, [])
    assert result.sagittal is not None
    instances = result.sagittal.labels["body_instances"]
    labels[instances == 1], labels[instances == 2] = 1, 2
    result = measure_exam("exam", edited(sagittal, vertebral_body=labels), [])
    assert names(result) == names(measured)
    assert result.vertebrae[0].level_confidence < measured.vertebrae[0].level_confidence
    assert "+sacral_share" in measured.vertebrae[0].level_evidence
    assert "+sacral_share" not in result.vertebrae[0].level_evidence
    assert "+disc_above" in result.vertebrae[0].level_evidence


def test_an_l5_called_sacral_with_the_shape_of_one_is_not_named(blocks: dict[str, shapes.Block]) -> None:
    """Everything but the place speaks for another S1: no names."""
    square = {name: replace(block, taper=1.0) if name == "S1" else block for name, block in blocks.items()}
    square["S2"] = replace(blocks["S2"], depth_mm=33.0, taper=1.0)
    square["S1-S2"] = shapes.Block(
        "S1-S2", (blocks["S1"].centre_mm + blocks["S2"].centre_mm) / 2, 49.0, 4.0, 34.0, 44.0
    )
    result = measure_exam("exam", shapes.sagittal_stack(square, shapes.sagittal_geometry()), [])
    assert set(names(result)) == {None}
    assert result.reason == "levels_undecided"


def test_a_missing_body_ends_the_names(blocks: dict[str, shapes.Block]) -> None:
    result = measure_exam("exam", shapes.sagittal_stack(without(blocks, "L3"), shapes.sagittal_geometry()), [])
    assert names(result) == ["S1", "L5", "L4", None, None, None, None]
    assert {"implausible_spacing", "count_mismatch"} <= {row.reason for row in result.quality}
    assert len({row.ordinal for row in result.discs}) == len(result.discs) == 7
    named = [row.level for row in result.discs if row.level]
    assert named == ["L5-S1", "L4-L5"]


def test_a_missing_disc_leaves_its_ordinal_free(blocks: dict[str, shapes.Block]) -> None:
    result = measure_exam("exam", shapes.sagittal_stack(without(blocks, "L4-L5"), shapes.sagittal_geometry()), [])
    assert names(result)[:3] == ["S1", "L5", "L4"]
    assert [(row.ordinal, row.level) for row in result.discs][:2] == [(1, "L5-S1"), (3, "L3-L4")]
    assert "count_mismatch" in {row.reason for row in result.quality}


def test_six_bodies_above_the_sacrum_are_not_an_l6(blocks: dict[str, shapes.Block]) -> None:
    seen = without(blocks, "T11", "T11-T12")
    result = measure_exam("exam", shapes.sagittal_stack(seen, shapes.sagittal_geometry()), [])
    assert names(result) == ["S1", "L5", "L4", "L3", "L2", "L1", "T12"]
    assert "lumbar_variant" not in {row.reason for row in result.quality}


def test_a_full_disc_below_s1_is_evidence_of_a_variant(blocks: dict[str, shapes.Block]) -> None:
    s1 = blocks["S1"]
    big = shapes.Block("S1-S2", s1.centre_mm - s1.up * 19, s1.tilt_deg, 8.0, 34.0, 44.0)
    seen = {**without(blocks, "S2"), "S1-S2": big}
    result = measure_exam("exam", shapes.sagittal_stack(seen, shapes.sagittal_geometry()), [])
    assert result.reason == "lumbar_variant"
    assert result.discs[0].level == "L5-S1"


def test_touching_bodies_are_separated(sagittal: LabelledStack, blocks: dict[str, shapes.Block]) -> None:
    """A bridge at the front between L3 and L4, and S1 fused with S2 over the whole face."""
    labels = sagittal.labels["vertebral_body"].copy()
    geometry = sagittal.stack.geometry
    for pair, offset, depth, value in ((("L3", "L4"), -13.0, 5.0, 1), (("S1", "S2"), 0.0, 30.0, 2)):
        upper, lower = (blocks[name] for name in pair)
        middle = (upper.centre_mm + lower.centre_mm) / 2 + lower.back * offset
        bridge = shapes.Block("bridge", middle, (upper.tilt_deg + lower.tilt_deg) / 2, 18.0, depth, 20.0)
        shapes.draw(bridge, geometry, labels, value)
    result = measure_exam("exam", edited(sagittal, vertebral_body=labels), [])
    assert names(result) == ["S1", "L5", "L4", "L3", "L2", "L1", "T12", "T11"]
    for row in result.vertebrae:
        at = np.array([row.x_mm, row.y_mm, row.z_mm])
        assert np.linalg.norm(at - blocks[str(row.level)].centre_mm) < 2.5


def test_bodies_fused_over_their_whole_face_are_cut(blocks: dict[str, shapes.Block]) -> None:
    """L2 and L3 as a block vertebra with a slight waist and no disc between them."""
    upper, lower = blocks["L2"], blocks["L3"]
    waist = shapes.Block("waist", (upper.centre_mm + lower.centre_mm) / 2, -5.0, 14.0, 27.0, 40.0)
    stack = shapes.sagittal_stack({**without(blocks, "L2-L3"), "waist": waist}, shapes.sagittal_geometry())
    result = measure_exam("exam", stack, [])
    assert names(result) == ["S1", "L5", "L4", "L3", "L2", "L1", "T12", "T11"]
    centroids = {row.level: np.array([row.x_mm, row.y_mm, row.z_mm]) for row in result.vertebrae}
    assert np.linalg.norm(centroids["L3"] - lower.centre_mm) < 3


def test_touching_discs_are_separated(sagittal: LabelledStack, blocks: dict[str, shapes.Block]) -> None:
    labels = sagittal.labels["disc"].copy()
    body = blocks["L3"]
    strip = shapes.Block("strip", body.centre_mm - body.back * 18.5, body.tilt_deg, 34.0, 3.0, 16.0)
    shapes.draw(strip, sagittal.stack.geometry, labels, 1)
    result = measure_exam("exam", edited(sagittal, disc=labels), [])
    assert len(result.discs) == 7
    heights = {row.level: row.height_mm for row in result.discs}
    assert heights["L3-L4"] == pytest.approx(9.0, abs=1.5)
    assert heights["L2-L3"] == pytest.approx(8.0, abs=1.5)


def test_holes_are_filled_and_broken_bodies_joined(sagittal: LabelledStack, blocks: dict[str, shapes.Block]) -> None:
    labels = sagittal.labels["vertebral_body"].copy()
    geometry = sagittal.stack.geometry
    body = blocks["L4"]
    shapes.draw(shapes.Block("hole", body.centre_mm, 0.0, 8.0, 8.0, 20.0), geometry, labels, 0)
    crack = shapes.Block("crack", blocks["L2"].centre_mm, shapes.TILTS_DEG["L2"], 1.5, 60.0, 80.0)
    shapes.draw(crack, geometry, labels, 0)
    middle = round(float(geometry.to_index(blocks["T12"].centre_mm)[0]))
    low, high = (int(geometry.to_index(blocks["T12"].centre_mm + np.array([0, 0, dz]))[1]) for dz in (25, -25))
    labels[middle, low:high] = np.where(labels[middle, low:high] == 1, 0, labels[middle, low:high])
    result = measure_exam("exam", edited(sagittal, vertebral_body=labels), [])
    assert names(result) == ["S1", "L5", "L4", "L3", "L2", "L1", "T12", "T11"]
    whole = {row.level: row.volume_cm3 for row in measure_exam("exam", sagittal, []).vertebrae}
    volume = {row.level: row.volume_cm3 for row in result.vertebrae}
    assert volume["L4"] == pytest.approx(whole["L4"], rel=1e-6)
    assert volume["L2"] == pytest.approx(whole["L2"], rel=0.1)


def test_what_is_not_spine_is_removed_and_counted(sagittal: LabelledStack, blocks: dict[str, shapes.Block]) -> None:
    labels = sagittal.labels["vertebral_body"].copy()
    spinous = shapes.Block("process", blocks["L3"].centre_mm + np.array([0, 55, 0]), 0.0, 20.0, 28.0, 10.0)
    abdomen = shapes.Block("bowel", blocks["L4"].centre_mm + np.array([0, -70, 0]), 0.0, 60.0, 60.0, 60.0)
    for block in (spinous, abdomen):
        shapes.draw(block, sagittal.stack.geometry, labels, 1)
    result = measure_exam("exam", edited(sagittal, vertebral_body=labels), [])
    assert names(result) == ["S1", "L5", "L4", "L3", "L2", "L1", "T12", "T11"]
    removed = [row for row in result.quality if row.reason == "components_removed"]
    assert len(removed) == 1
    assert removed[0].value is not None
    assert removed[0].value > 0.1


def test_a_body_cut_by_the_border_has_no_heights(blocks: dict[str, shapes.Block]) -> None:
    top = blocks["T11"].centre_mm[2]
    geometry = shapes.sagittal_geometry(middle_mm=(1.0, 0.0, float(top) - 511 / 2 * 0.65))
    result = measure_exam("exam", shapes.sagittal_stack(without(blocks, "S2"), geometry), [])
    highest = result.vertebrae[-1]
    assert highest.level == "T11"
    assert highest.touches_border
    assert highest.anterior_height_mm is None
    assert highest.tilt_deg is None
    assert highest.status == "flagged"
    assert result.vertebrae[2].anterior_height_mm is not None


def test_empty_masks_give_a_refused_exam(sagittal: LabelledStack, axial: LabelledStack) -> None:
    empty = {name: np.zeros_like(volume) for name, volume in sagittal.labels.items()}
    blank = LabelledStack(axial.stack, {"muscle": np.zeros_like(axial.labels["muscle"])}, {})
    result = measure_exam("exam", edited(sagittal, **empty), [blank])
    assert (result.status, result.reason) == ("refused", "no_vertebrae")
    assert not (*result.vertebrae, *result.discs, *result.muscles, *result.muscle_levels)
    assert {row.reason for row in result.quality} >= {"no_vertebrae", "no_discs"}


def test_nothing_at_all_is_refused() -> None:
    result = measure_exam("exam", None, [])
    assert (result.status, result.reason) == ("refused", "no_t1_sagittal")


def test_discs_without_bodies_and_bodies_without_discs(sagittal: LabelledStack) -> None:
    for name, other in (("vertebral_body", "discs"), ("disc", "vertebrae")):
        result = measure_exam("exam", edited(sagittal, **{name: np.zeros_like(sagittal.labels[name])}), [])
        assert len(getattr(result, other)) >= 7
        assert result.status == "flagged"


def test_axial_alone_gives_muscles(axial: LabelledStack) -> None:
    result = measure_exam("exam", None, [axial])
    assert len(result.muscles) == 14 * 8
    assert not result.muscle_levels
    assert (result.status, result.reason) == ("flagged", "no_t1_sagittal")


@pytest.mark.parametrize("frame", [None, "another"])
def test_another_frame_of_reference_is_not_combined(sagittal: LabelledStack, frame: str | None) -> None:
    other = shapes.muscle_stack(shapes.axial_geometry(n=3, size=128, spacing=1.6), frame=frame)
    result = measure_exam("exam", sagittal, [other])
    assert result.muscles
    assert not result.muscle_levels
    assert result.reason == "different_frame"


def test_swapped_sides_are_refused(sagittal: LabelledStack, axial: LabelledStack) -> None:
    swap = np.array([0, 2, 1, 4, 3, 6, 5, 8, 7], dtype=np.uint8)
    wrong = LabelledStack(axial.stack, {"muscle": swap[axial.labels["muscle"]]}, {})
    for stack in (sagittal, None):
        result = measure_exam("exam", stack, [wrong])
        assert "sides_conflict" in {row.reason for row in result.quality}
        assert all(row.status == "refused" for row in result.muscle_levels)


def test_a_sure_network_and_an_unsure_one(sagittal: LabelledStack) -> None:
    unsure = LabelledStack(sagittal.stack, sagittal.labels, {"disc": 0.8, "vertebral_body": 0.1})
    flags = [row for row in measure_exam("exam", unsure, []).quality if row.reason == "network_uncertain"]
    assert [(row.structure, row.value, row.limit) for row in flags] == [("disc", 0.8, 0.5)]


def test_lean_fraction(axial: LabelledStack) -> None:
    """A quarter of each muscle as bright as the fat around it."""
    rng = np.random.default_rng(5)
    labels = axial.labels["muscle"]
    fatty = rng.random(labels.shape) < 0.25
    image = np.where((labels > 0) & ~fatty, 300, 1200) + rng.integers(-60, 60, labels.shape)
    bright = shapes.labelled("axial", axial.stack.geometry, {"muscle": labels}, image=image.astype(np.uint16))
    result = measure_exam("exam", None, [bright])
    assert all(row.lean_fraction == pytest.approx(0.75, abs=0.06) for row in result.muscles)
    noise = rng.normal(500, 50, labels.shape).astype(np.uint16)
    plain = shapes.labelled("axial", axial.stack.geometry, {"muscle": labels}, image=noise)
    assert all(row.lean_fraction is None for row in measure_exam("exam", None, [plain]).muscles)


def test_the_difference_between_the_sides(sagittal: LabelledStack, blocks: dict[str, shapes.Block]) -> None:
    """The left multifidus cut to half: -2/3 of the mean; where it is expected the pair is flagged."""
    disc = blocks["L3-L4"]
    geometry = shapes.axial_geometry(n=3, tilt_deg=disc.tilt_deg, middle_mm=tuple(disc.centre_mm))
    stack = shapes.muscle_stack(geometry, y_mm=float(disc.centre_mm[1]) - 30)
    labels = stack.labels["muscle"].copy()
    rows = np.nonzero(labels == 1)[1]
    labels[:, : int(np.median(rows))][labels[:, : int(np.median(rows))] == 1] = 0
    result = measure_exam("exam", sagittal, [LabelledStack(stack.stack, {"muscle": labels}, {})])
    at_disc = [row for row in result.muscle_levels if row.level == "L3-L4"]
    by_muscle = {row.muscle: (row.side_difference, row.reasons) for row in at_disc}
    assert by_muscle["multifidus"] == (pytest.approx(-2 / 3, abs=0.1), "side_asymmetry")
    assert by_muscle["psoas"] == (pytest.approx(0.0, abs=0.02), None)
    assert len({(row.muscle, row.side_difference) for row in at_disc}) == 4
