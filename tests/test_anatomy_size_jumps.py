"""One structure twice or half as large as its neighbours is seen, whatever the size of the person."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import anatomy_shapes as shapes
import pytest

from cohort.anatomy.measure import measure_exam
from cohort.anatomy.size_jumps import marked_discs, marked_vertebrae
from cohort.stacks import LabelledStack

Blocks = dict[str, shapes.Block]


def jumps(blocks: Blocks) -> list[tuple[str | None, float | None]]:
    stack = shapes.sagittal_stack(blocks, shapes.sagittal_geometry())
    rows = measure_exam("exam", stack, []).quality
    return [(row.structure, row.value) for row in rows if row.reason == "size_jump"]


@pytest.fixture(scope="module")
def blocks() -> Blocks:
    return shapes.spine()


def test_a_spine_of_even_bodies_and_ordinary_discs_has_no_jump(blocks: Blocks) -> None:
    assert jumps(blocks) == []


def wide(factor: float) -> Callable[[shapes.Block], shapes.Block]:
    return lambda block: replace(block, width_mm=block.width_mm * factor)


@pytest.mark.parametrize("name", ["L2", "L3", "L5", "L2-L3"])
def test_half_a_body_or_half_a_disc_is_a_jump(blocks: Blocks, name: str) -> None:
    ((structure, value),) = jumps({**blocks, name: wide(0.5)(blocks[name])})
    assert structure == name
    assert value == pytest.approx(0.5, abs=0.08)


def test_a_narrow_disc_is_no_jump_but_a_swollen_one_is(blocks: Blocks) -> None:
    narrow, swollen = (replace(blocks["L2-L3"], height_mm=height) for height in (4.0, 17.5))
    assert jumps({**blocks, "L2-L3": narrow}) == []
    stack: LabelledStack = shapes.sagittal_stack(blocks, shapes.sagittal_geometry())
    discs = measure_exam("exam", stack, []).discs
    rows, flags = marked_discs([replace(d, height_mm=swollen.height_mm) if d.level == "L2-L3" else d for d in discs])
    assert [(flag.structure, flag.limit) for flag in flags] == [("L2-L3", 1.8)]
    assert [row.level for row in rows if row.reasons] == ["L2-L3"]


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_doubled_or_halved_volume_is_a_jump_and_its_neighbours_are_not(blocks: Blocks, factor: float) -> None:
    stack = shapes.sagittal_stack(blocks, shapes.sagittal_geometry())
    vertebrae = measure_exam("exam", stack, []).vertebrae
    changed = [replace(v, volume_cm3=v.volume_cm3 * factor) if v.level == "L3" else v for v in vertebrae]
    rows, flags = marked_vertebrae(changed)
    assert [flag.structure for flag in flags] == ["L3"]
    assert {row.level: row.status for row in rows if row.status != "ok"} == {"L3": "flagged"}
    assert marked_vertebrae(vertebrae)[1] == []


def test_cut_bodies_and_lone_ones_are_not_judged(blocks: Blocks) -> None:
    stack = shapes.sagittal_stack(blocks, shapes.sagittal_geometry())
    vertebrae = measure_exam("exam", stack, []).vertebrae
    cut = [replace(v, volume_cm3=1.0, touches_border=True) if v.level == "L3" else v for v in vertebrae]
    assert marked_vertebrae(cut)[1] == []
    assert marked_vertebrae(vertebrae[2:3])[1] == []
    assert marked_vertebrae([]) == ([], [])
