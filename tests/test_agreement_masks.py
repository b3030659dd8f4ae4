"""Two readers' masks compared: shifts of known overlap and distance, sparse and empty annotations, names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from reader_studies import grown, moved, reading, stacks

from cohort.agreement.common_slices import common_stacks
from cohort.agreement.compare import Comparison, compare
from cohort.agreement.overlap_summary import overlap_summary_rows
from cohort.agreement.overlaps import muscle_overlaps
from cohort.agreement.pairs import Matched, load_pairs
from cohort.agreement.rows import OverlapRow, Readers, agreement_table
from cohort.agreement.structures import Match, Structures, matched
from cohort.agreement.surface import outline, outline_distance
from cohort.annotations.store import LEVEL_NAMES, Annotation
from cohort.archive.demographics import VertebraCount
from cohort.geometry import StackGeometry
from cohort.stacks import ImageStack, LabelledStack
from pipelines.measure import measure_labelled

ROW_MM, COLUMN_MM, GAP_MM = 0.5, 0.8, 4.0
WHO = Readers(exam_id="aaaa2", subject_id=None, first_reader="anna", second_reader="ben")
PSOAS_LEFT = 5

measure = partial(measure_labelled, "aaaa2", vertebrae=VertebraCount(), t2_axial=False)


def axial_grid(n_slices: int = 8, shape: tuple[int, int] = (60, 40)) -> StackGeometry:
    """Axial slices from the feet upward, unequal pixels."""
    return StackGeometry(
        position_mm=np.array([[0.0, 0.0, GAP_MM * k] for k in range(n_slices)]),
        row_dir=np.array([1.0, 0.0, 0.0]),
        col_dir=np.array([0.0, 1.0, 0.0]),
        spacing_mm=(ROW_MM, COLUMN_MM),
        shape=shape,
        thickness_mm=4.0,
    )


def block(slices: slice, rows: slice, columns: slice) -> npt.NDArray[np.uint8]:
    mask = np.zeros((8, 60, 40), np.uint8)
    mask[slices, rows, columns] = PSOAS_LEFT
    return mask


def axial(mask: npt.NDArray[np.uint8]) -> LabelledStack:
    stack = ImageStack("axial", 0, np.zeros(mask.shape, np.uint16), axial_grid(), "frame")
    return LabelledStack(stack, {"muscle": mask}, {})


def psoas_rows(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> list[OverlapRow]:
    readings = (reading("aaaa2", code, [axial(mask)]) for code, mask in (("anna", first), ("ben", second)))
    return [row for row in muscle_overlaps(common_stacks(*readings), WHO) if row.structure == "psoas left"]


def test_a_block_moved_across_slices_has_the_overlap_and_distance_of_arithmetic() -> None:
    rows, columns = slice(10, 40), slice(5, 25)
    whole, *slices = psoas_rows(block(slice(2, 6), rows, columns), block(slice(3, 7), rows, columns))
    assert whole.dice == pytest.approx(2 * 3 / 8)
    assert whole.hausdorff95_mm == pytest.approx(GAP_MM)  # a quarter of each outline is one slice away
    assert whole.surface_mm == pytest.approx(GAP_MM / 4)
    assert (whole.n_first, whole.n_second) == (4 * 30 * 20, 4 * 30 * 20)
    assert [row.dice for row in slices] == [0.0, 1.0, 1.0, 1.0, 0.0]
    assert [row.slice_position for row in slices] == pytest.approx([k / 7 for k in range(2, 7)])
    assert (slices[0].surface_mm, slices[1].surface_mm) == (None, 0.0)


def test_a_tall_block_moved_across_columns_has_the_overlap_and_distance_of_arithmetic() -> None:
    rows, moved_by = slice(5, 55), 2
    whole, *slices = psoas_rows(block(slice(0, 8), rows, slice(10, 20)), block(slice(0, 8), rows, slice(12, 22)))
    shift_mm = moved_by * COLUMN_MM
    # of one outline: the outer edge and the inner one, whose ends are nearer to the other's top and bottom; the part
    # of top and bottom beyond the other block
    edge = [min(shift_mm, k * ROW_MM, (49 - k) * ROW_MM) for k in range(50)]
    beyond = 2 * [(moved_by - j) * COLUMN_MM for j in range(1, moved_by)]
    mean_mm = (50 * shift_mm + sum(edge) + sum(beyond)) / (2 * 50 + 2 * 8)
    assert whole.dice == pytest.approx(0.8)
    assert whole.hausdorff95_mm == pytest.approx(shift_mm)
    assert whole.surface_mm == pytest.approx(mean_mm)
    assert [row.surface_mm for row in slices] == pytest.approx([mean_mm] * 8)


def test_an_outline_is_drawn_in_the_plane_of_the_slices() -> None:
    mask = np.ones((3, 5, 5), bool)
    assert len(outline(mask)) == 3 * 16
    assert outline_distance([], []) is None


def test_points_without_an_outline_in_their_own_stack_look_in_the_others() -> None:
    origin, near, far = np.zeros((1, 3)), np.array([[0.0, 0.0, 3.0]]), np.array([[0.0, 0.0, 10.0]])
    nothing = np.zeros((0, 3))
    found = outline_distance([origin, far], [nothing, near])
    assert found is not None
    assert (found.mean_mm, found.p95_mm) == (pytest.approx((3 + 7 + 7) / 3), pytest.approx(7.0))


def test_only_slices_that_both_looked_at_count() -> None:
    mask = block(slice(0, 8), slice(10, 40), slice(5, 25))
    readings = (
        reading("aaaa2", code, [axial(mask)], {"muscle": slices})
        for code, slices in (("anna", (0, 1, 2, 4, 6)), ("ben", (1, 2, 3, 4, 5)))
    )
    runs = common_stacks(*readings)
    assert [one.first.stack.geometry.position_mm[:, 2].tolist() for one in runs] == [[4.0, 8.0], [16.0]]
    assert [one.first.stack.index for one in runs] == [0, 1]
    assert [one.position for one in runs] == [pytest.approx((1 / 7, 2 / 7)), pytest.approx((4 / 7,))]
    for one in runs:
        assert np.array_equal(one.first.labels["muscle"], one.second.labels["muscle"])
        assert one.first.labels["muscle"].any()


def test_an_array_that_one_did_not_look_at_is_empty_on_both_sides() -> None:
    true = stacks(0)[:1]
    middle = true[0].stack.geometry.n_slices // 2
    first = reading("aaaa2", "anna", true, {"disc": (middle,), "vertebral_body": (middle - 1, middle)})
    (found,) = common_stacks(first, reading("aaaa2", "ben", true))
    assert found.first.stack.geometry.n_slices == 2
    for one in (found.first, found.second):
        assert one.labels["vertebral_body"].any(axis=(1, 2)).tolist() == [True, True]
        assert one.labels["disc"].any(axis=(1, 2)).tolist() == [False, True]


def test_positions_run_from_the_patients_left_to_the_right_in_any_order_of_slices() -> None:
    true = stacks(0)[0]
    turned = replace(true.stack.geometry, position_mm=true.stack.geometry.position_mm[::-1])
    flipped = replace(true, stack=replace(true.stack, geometry=turned))
    for one in (true, flipped):
        (found,) = common_stacks(*(reading("aaaa2", code, [one]) for code in ("anna", "ben")))
        x_mm = one.stack.geometry.position_mm[:, 0]
        assert found.position[int(np.argmax(x_mm))] == 0.0
        assert found.position[int(np.argmin(x_mm))] == 1.0


def compared(first: Sequence[LabelledStack], second: Sequence[LabelledStack], **slices: Any) -> Comparison:
    readings = (reading("aaaa2", code, one, slices or None) for code, one in (("anna", first), ("ben", second)))
    return compare(*readings, measure)


@cache
def equal_readings() -> Comparison:
    true = stacks(0)
    return compared(true, true)


def test_equal_masks_agree_in_everything() -> None:
    found = equal_readings()
    assert {row.dice for row in found.overlaps} == {1.0}
    assert {row.surface_mm for row in found.overlaps} == {0.0}
    assert {row.reason for row in (*found.overlaps, *found.pairs)} <= {None, "not_measured"}
    assert all(row.first == row.second for row in found.pairs)
    quantities = {row.quantity for row in found.pairs if row.reason is None}
    assert {"disc_height_mm", "csa_cm2", "lordosis_l1_s1_deg", "disc_centroid_distance_mm"} <= quantities
    levels = {row.level for row in found.pairs if row.quantity == "csa_cm2"}
    assert {"L3-L4", "L4-L5"} <= levels


def test_masks_moved_along_the_image_are_as_far_from_each_other_as_they_were_moved() -> None:
    true = stacks(0)[:1]
    rows, spacing_mm = 3, true[0].stack.geometry.spacing_mm[0]
    found = compared(true, moved(true, rows))
    distances = [row.second for row in found.pairs if row.quantity == "disc_centroid_distance_mm"]
    assert distances == pytest.approx([rows * spacing_mm] * len(distances))
    heights = [(row.first, row.second) for row in found.pairs if row.quantity == "disc_height_mm"]
    assert all(first == pytest.approx(second) for first, second in heights)
    mask = true[0].labels["disc"] > 0
    both = mask & np.roll(mask, rows, axis=1)
    (whole,) = (row for row in found.overlaps if (row.kind, row.structure, row.slice_position) == ("disc", "all", None))
    assert whole.dice == pytest.approx(both.sum() / mask.sum())


def test_a_structure_of_one_reader_alone_is_counted_and_has_no_overlap() -> None:
    true = stacks(0)[:1]
    lacking = stacks(0, without="L3-L4")[:1]
    for first, second, reason in ((true, lacking, "structure_missed"), (lacking, true, "structure_extra")):
        found = compared(first, second)
        alone = [row for row in found.overlaps if row.reason is not None]
        assert [(row.structure, row.reason, row.dice) for row in alone] == [("L3-L4", reason, None)]
        heights = {row.structure: row.reason for row in found.pairs if row.quantity == "disc_height_mm"}
        assert heights.pop("L3-L4") == reason
        assert set(heights.values()) == {None}


@pytest.mark.parametrize("swapped", [False, True])
def test_what_one_reader_alone_has_at_the_border_of_the_image_counts_neither_way(swapped: bool) -> None:
    (whole,) = (upper_part(one) for one in stacks(0)[:1])
    names = whole.labels["vertebral_body"]
    top = int(np.flatnonzero(names.any(axis=(0, 2)))[0])
    assert top == 0
    instances = compared([whole], [whole]).first.sagittal
    assert instances is not None
    cut = instances.labels["body_instances"]
    uppermost = cut == np.unique(cut[:, 0][cut[:, 0] > 0])[0]
    lacking = replace(whole, labels=whole.labels | {"vertebral_body": np.where(uppermost, 0, names).astype(np.uint8)})
    found = compared(*([lacking], [whole])[:: -1 if swapped else 1])
    bodies = [row for row in found.overlaps if row.kind == "vertebral_body" and row.slice_position is None]
    (alone,) = (row for row in bodies if row.reason)
    assert (alone.reason, alone.dice, (alone.n_first > 0, alone.n_second > 0)) == (
        "structure_cut_off",
        None,
        (swapped, not swapped),
    )
    assert {row.dice for row in bodies if row is not alone} == {1.0}
    summary = [row for row in overlap_summary_rows(found.overlaps) if row.kind == "vertebral_body"]
    assert sum(row.n_missed + row.n_extra for row in summary) == 0


def upper_part(one: LabelledStack) -> LabelledStack:
    """The stack without the rows above the middle of the uppermost body."""
    rows = np.flatnonzero(one.labels["vertebral_body"].any(axis=(0, 2)))
    first = int(rows[0]) + 6
    grid = one.stack.geometry
    geometry = replace(
        grid,
        position_mm=grid.position_mm + first * grid.spacing_mm[0] * grid.col_dir,
        shape=(grid.shape[0] - first, grid.shape[1]),
    )
    return LabelledStack(
        replace(one.stack, image=one.stack.image[:, first:], geometry=geometry),
        {name: mask[:, first:] for name, mask in one.labels.items()},
        {},
    )


def named(annotation: Annotation, found: Comparison, shift: int) -> Annotation:
    """The annotation with names of discs, so many places too far down the list of names."""
    assert found.first.sagittal is not None
    instances = found.first.sagittal.labels["disc_instances"]
    values = [0, *(LEVEL_NAMES.index(str(row.level)) + 1 + shift for row in found.first.discs)]
    levels = np.where(annotation.labelled[0].labels["disc"] > 0, np.array(values)[instances], 0).astype(np.uint8)
    return replace(annotation, levels={("sagittal", 0, "disc"): levels})


def test_the_sacrum_below_s1_does_not_count() -> None:
    true = stacks(0)[:1]
    shorter = stacks(0, without="S2")[:1]
    assert (true[0].labels["vertebral_body"] > 0).sum() > (shorter[0].labels["vertebral_body"] > 0).sum()
    bodies = [row for row in compared(true, shorter).overlaps if row.kind == "vertebral_body"]
    assert {row.reason for row in bodies} == {None}
    assert {row.level for row in bodies} == {None, "S1", "L5", "L4", "L3", "L2", "L1", "T12", "T11"}
    assert {row.dice for row in bodies if row.structure == "all"} == {1.0}


def test_names_that_readers_gave_are_compared_by_place() -> None:
    true = stacks(0)[:1]
    first, second = (reading("aaaa2", code, true) for code in ("anna", "ben"))
    found = compare(named(first, equal_readings(), 0), named(second, equal_readings(), -1), measure)
    discs = [row for row in found.overlaps if row.kind == "disc" and row.level and row.slice_position is None]
    assert all(row.dice == 1.0 for row in discs)
    assert all(row.level != row.second_level for row in discs)
    bodies = [row for row in found.overlaps if row.kind == "vertebral_body" and row.level]
    assert all(row.level == row.second_level for row in bodies)


def test_few_slices_of_a_level_are_enough_to_pair_it() -> None:
    true = stacks(0)[:1]
    middle = true[0].stack.geometry.n_slices // 2
    found = compared(true, grown(true), vertebral_body=(middle,), disc=(middle,))
    heights = [row for row in found.pairs if row.quantity == "disc_height_mm" and row.reason is None]
    assert len(heights) >= 5
    places = {row.slice_position for row in found.overlaps} - {None}
    assert len(places) == 1
    assert places.pop() == pytest.approx(0.5, abs=0.1)


def test_empty_masks_give_reasons_and_no_numbers() -> None:
    true = stacks(0)
    empty = [replace(one, labels={name: np.zeros_like(mask) for name, mask in one.labels.items()}) for one in true]
    found = compared(true, empty)
    assert {row.reason for row in found.overlaps} == {"structure_missed"}
    assert all(row.reason for row in found.pairs)
    nothing = compared(empty, empty)
    assert (nothing.overlaps, nothing.pairs) == ([], [])


def test_readers_without_a_common_slice_give_a_reason_for_each_array() -> None:
    true = stacks(0)
    first = reading("aaaa2", "anna", true, {"vertebral_body": (3,), "disc": (3,), "muscle": (0,)})
    second = reading("aaaa2", "ben", true, {"vertebral_body": (4,), "disc": (3,), "muscle": (1,)})
    found = compare(first, second, measure)
    without = {row.kind for row in found.overlaps if row.reason == "no_common_slices"}
    assert without == {"vertebral_body", "muscle"}
    assert agreement_table("overlaps", found.overlaps).num_rows == len(found.overlaps)
    with pytest.raises(ValueError, match="two exams"):
        compare(first, replace(second, exam_id="bbbb3"), measure)


@pytest.mark.parametrize("swapped", [False, True])
def test_muscles_of_a_reader_who_drew_no_spine_are_compared_at_the_discs_of_the_other(swapped: bool) -> None:
    true = stacks(0)
    readings = [reading("aaaa2", "anna", true[1:]), reading("aaaa2", "automatic", [true[0], *grown(true[1:])])]
    found = compare(*(readings[::-1] if swapped else readings), measure)
    areas = [row for row in found.pairs if row.quantity == "csa_cm2"]
    assert {row.quantity for row in found.pairs} == {"csa_cm2", "muscle_centroid_distance_mm"}
    assert {row.level for row in areas} == {"L3-L4", "L4-L5"}
    assert all((row.first > row.second) == swapped for row in areas)  # type: ignore[operator]
    without = {row.kind for row in found.overlaps if row.reason == "no_common_slices"}
    assert without == {"vertebral_body", "disc"}
    assert found.no_loads == "no_common_slices"


def test_loads_that_would_rest_on_one_array_less_are_not_compared() -> None:
    true = stacks(0)
    discs_alone = [replace(true[0], labels={"disc": true[0].labels["disc"]}), true[1]]
    found = compare(reading("aaaa2", "anna", discs_alone), reading("aaaa2", "automatic", true), measure)
    assert found.no_loads == "no_common_slices"
    assert any(row.reason is None for row in found.pairs if row.quantity == "disc_height_mm")
    assert equal_readings().no_loads is None


def test_structures_pair_by_overlap_and_touching_ones_do_not() -> None:
    def made(*columns: slice) -> Structures:
        instances = np.zeros((1, 4, 40), np.uint8)
        for value, where in enumerate(columns, start=1):
            instances[:, 1:-1, where] = value
        rows: Any = [SimpleNamespace(level=f"L{k}", ordinal=k) for k in range(len(columns))]
        return Structures(instances, tuple(row.level for row in rows), rows)

    first, second = made(slice(1, 8), slice(10, 18), slice(20, 28)), made(slice(9, 17), slice(21, 30), slice(35, 39))
    match = matched(first, second)
    assert match == Match(both=((1, 0), (2, 1)), missed=(0,), extra=(2,))
    cut = matched(made(slice(0, 8)), made(slice(10, 18), slice(36, 40)))
    assert cut == Match(both=(), missed=(), extra=(0,), cut_off=((0,), (1,)))
    assert Matched(first, second, match).misnamed
    assert not Matched(first, first, matched(first, first)).misnamed


def test_loads_of_levels_with_two_names_are_not_paired() -> None:
    load: Any = SimpleNamespace(
        task="standing", level="L4", engine="batch", convention="vertebra_mean", axial_n=500.0, status="flagged",
        reasons="size_jump",
    )  # fmt: skip
    (row,) = load_pairs([load], [load], tasks=("standing",), blocked="levels_differ", who=WHO)
    assert (row.reason, row.first, row.second) == ("levels_differ", 500.0, 500.0)
    (row,) = load_pairs([load], [load], tasks=("standing",), blocked=None, who=WHO)
    assert (row.reason, row.flags, row.second) == (None, "size_jump", 500.0)
    (row,) = load_pairs([load], "no_demographics", tasks=("standing",), blocked=None, who=WHO)
    assert (row.reason, row.second) == ("no_demographics", None)
    rows = load_pairs("no_demographics", "no_demographics", tasks=("standing", "bowing"), blocked=None, who=WHO)
    assert [(row.task, row.reason) for row in rows] == [("standing", "no_demographics"), ("bowing", "no_demographics")]
