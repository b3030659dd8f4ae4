"""Muscles slice by slice: areas that cannot be, cut muscles, missing slices, the middle between the sides."""

from __future__ import annotations

from dataclasses import asdict, replace

import anatomy_shapes as shapes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.anatomy.measure import measure_exam
from cohort.anatomy.muscles import judged_rows, midline_flags, muscle_rows
from cohort.anatomy.quality import area_flags, withheld
from cohort.rows import MuscleRow
from cohort.stacks import LabelledStack
from cohort.terms import MUSCLE_LABELS

ROW = MuscleRow(
    exam_id="exam",
    stack=0,
    slice=22,
    muscle="erector_spinae",
    side="left",
    csa_cm2=20.0,
    lean_fraction=0.9,
    row_px=1.0,
    column_px=2.0,
    x_mm=40.0,
    y_mm=0.0,
    z_mm=0.0,
    touches_border=False,
    status="ok",
)


GEOMETRY = shapes.axial_geometry(n=30, size=8)


def judged(row: MuscleRow) -> MuscleRow:
    (found,), _ = judged_rows([row], GEOMETRY, [])
    return found


def test_a_plausible_area_stands() -> None:
    assert withheld(judged(ROW)) == ROW


def test_a_large_area_is_flagged_and_a_huge_one_is_withheld() -> None:
    large, huge = (withheld(judged(replace(ROW, csa_cm2=area))) for area in (47.2, 80.0))
    assert (large.status, large.csa_cm2, large.reasons) == ("flagged", 47.2, "implausible_csa")
    assert (huge.status, huge.csa_cm2) == ("refused", None)
    _, (flag,) = judged_rows([replace(ROW, csa_cm2=80.0)], GEOMETRY, [])
    assert (flag.value, flag.structure) == (80.0, "erector_spinae left stack 0 slice 22")


def test_where_a_muscle_begins_it_may_be_small() -> None:
    assert judged(replace(ROW, csa_cm2=0.3)).status == "ok"
    assert not area_flags("psoas", 0.3, "psoas left L5-S1", small=False)
    assert area_flags("psoas", 0.3, "psoas left L3-L4", small=True)


def block(areas: dict[int, float]) -> list[MuscleRow]:
    return [replace(ROW, slice=k, csa_cm2=area) for k, area in areas.items()]


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_slice_with_half_or_twice_the_area_of_its_neighbours_is_flagged(factor: float) -> None:
    areas = {k: 10.0 + 0.6 * k for k in range(8)}
    assert not judged_rows(block(areas), GEOMETRY, [])[1]
    rows, flags = judged_rows(block(areas | {4: areas[4] * factor}), GEOMETRY, [])
    assert [(flag.reason, flag.structure) for flag in flags] == [("size_jump", "erector_spinae left stack 0 slice 4")]
    assert flags[0].value == pytest.approx(factor, rel=0.02)
    assert [row.slice for row in rows if row.status == "flagged"] == [4]


def test_slices_far_apart_are_no_neighbours() -> None:
    far = shapes.axial_geometry(n=8, size=8, gap_mm=15.0)
    assert not judged_rows(block({0: 10.0, 1: 3.0, 2: 10.0, 4: 10.0}), far, [])[1]


def test_a_slice_without_a_muscle_between_two_with_it_is_counted() -> None:
    _, flags = judged_rows(block({3: 5.0, 4: 5.0, 7: 5.0}), GEOMETRY, [])
    assert [(f.reason, f.structure, f.value) for f in flags] == [("muscle_gap", "axial stack 0", 2.0)]
    other = [replace(ROW, side="right", slice=k) for k in range(3, 8)]
    _, flags = judged_rows([*block({3: 5.0, 4: 5.0, 7: 5.0}), *other], GEOMETRY, [])
    assert [(f.structure, f.value) for f in flags] == [("erector_spinae left stack 0", 2.0)]


def padded(stack: LabelledStack, columns: slice) -> LabelledStack:
    """The picture shows only these columns, and the masks end with it."""
    image = np.zeros(stack.stack.image.shape, np.uint16)
    image[:, :, columns] = 500
    labels = np.where(image > 0, stack.labels["muscle"], 0).astype(np.uint8)
    return shapes.labelled("axial", stack.stack.geometry, {"muscle": labels}, image=image)


def test_a_muscle_cut_by_the_edge_of_a_padded_picture_touches_the_border() -> None:
    whole = shapes.muscle_stack(shapes.axial_geometry(n=4, size=160, spacing=1.3))
    result = measure_exam("exam", None, [padded(whole, slice(0, 110))])
    cut = {(row.muscle, row.side) for row in result.muscles if row.touches_border}
    assert cut == {("erector_spinae", "left"), ("psoas", "left")}
    assert all((row.status == "flagged") == row.touches_border for row in result.muscles)
    flags = {row.structure: row.value for row in result.quality if row.reason == "touches_border"}
    assert flags == {"erector_spinae left stack 0": 4.0, "psoas left stack 0": 4.0}
    assert not any(row.touches_border for row in measure_exam("exam", None, [whole]).muscles)


@pytest.mark.parametrize(("turn", "lean"), [(0.0, 0.0), (15.0, 0.0), (-8.0, 25.0)])
def test_bodies_beside_the_middle_of_the_muscles_are_flagged(turn: float, lean: float) -> None:
    geometry = shapes.axial_geometry(n=6, size=160, spacing=1.3, tilt_deg=lean)
    stack = shapes.muscle_stack(geometry, x_mm=3.0, turn_deg=turn)
    rows = muscle_rows("exam", stack.stack, stack.labels["muscle"], None)
    spine = np.array([[3.0, 0.0, z] for z in np.linspace(-20.0, 200.0, 8)])
    assert not midline_flags(rows, geometry, spine)
    (flag,) = midline_flags(rows, geometry, spine + np.array([12.0, 0.0, 0.0]))
    assert flag.reason == "midlines_disagree"
    assert flag.value == pytest.approx(12.0 * np.cos(np.radians(turn)), abs=1.0)
    assert not midline_flags(rows, geometry, spine + np.array([12.0, 0.0, 400.0]))  # no slice crosses it


@pytest.fixture(scope="module")
def pictured() -> LabelledStack:
    """Muscles with fat in them under a coil that is sensitive behind and to the left."""
    stack = shapes.muscle_stack(shapes.axial_geometry(n=9, size=128, spacing=1.6))
    rng = np.random.default_rng(3)
    labels = stack.labels["muscle"]
    tissue = np.where((labels > 0) & (rng.random(labels.shape) > 0.2), 400.0, 1100.0)
    rows, columns = np.linspace(0.7, 1.6, 128)[:, None], np.linspace(0.8, 1.2, 128)
    image = (tissue * rows * columns + rng.normal(0, 30, labels.shape)).clip(0).astype(np.uint16)
    return shapes.labelled("axial", stack.stack.geometry, {"muscle": labels}, image=image)


@settings(max_examples=16, deadline=None)
@given(swap=st.booleans(), flip=st.tuples(*[st.booleans()] * 3))
def test_rows_do_not_depend_on_how_a_stack_is_stored(  # type: ignore[no-untyped-def]
    pictured, swap, flip
) -> None:
    """Rows and columns swapped or reversed, slices from head to feet: sides, areas, centroids and lean fractions are
    those of the patient."""
    turned = shapes.reordered(pictured, swap=swap, flip=flip)
    expected, found = (measure_exam("exam", None, [stack]) for stack in (pictured, turned))
    last = pictured.stack.geometry.n_slices - 1
    by_key = {(row.slice, row.muscle, row.side): row for row in found.muscles}
    assert len(expected.muscles) == len(found.muscles) == 9 * len(MUSCLE_LABELS)
    for row in expected.muscles:
        same = asdict(by_key[last - row.slice if flip[0] else row.slice, row.muscle, row.side])
        for name, value in asdict(row).items():
            if name not in {"slice", "row_px", "column_px"}:
                assert same[name] == (pytest.approx(value, abs=1e-6) if isinstance(value, float) else value), name
        at = turned.stack.geometry.to_lps([same["slice"], same["row_px"], same["column_px"]])
        assert at == pytest.approx([row.x_mm, row.y_mm, row.z_mm], abs=1e-6)
        assert row.lean_fraction is not None
        assert (row.x_mm - 3.0 > 0) == (row.side == "left")
    assert {(row.reason, row.value) for row in expected.quality} == {(row.reason, row.value) for row in found.quality}
