"""The sacrum is found by evidence, the count is believed as far as it can be known, and names say how sure they are."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.anatomy.axial_levels import axial_evidence
from cohort.anatomy.instances import Piece
from cohort.anatomy.levels import CONFIDENT, UNDECIDED, Levels, name_levels
from cohort.anatomy.muscle_levels import DiscPlane
from cohort.anatomy.quality import Flag
from cohort.anatomy.sacrum import Observed, Sacrum, weigh
from cohort.anatomy.vertebral_count import USUAL, Count, known_count, most_likely_count
from cohort.geometry import StackGeometry
from cohort.rows import MuscleRow

S2 = Observed(1.0, taper=0.78, depth_ratio=0.67, lean_deg=43.0, disc_above=0.0)
S1 = Observed(1.0, taper=0.78, depth_ratio=0.87, lean_deg=30.0, disc_above=1.2)
L5 = Observed(0.0, taper=0.98, depth_ratio=1.0, lean_deg=10.0, disc_above=1.3)
L4 = Observed(0.0, taper=1.0, depth_ratio=1.0, lean_deg=-2.0, disc_above=1.2)
UPPER = Observed(0.0, taper=1.0, depth_ratio=1.02, lean_deg=-10.0, disc_above=1.0)
SPINE = [S2, S1, L5, L4, UPPER, UPPER, Observed(0.0)]


def column(n: int, *, step_mm: float = 37.0) -> list[Piece]:
    """Equal pieces, one above the other, the lowest sacral."""
    return [Piece(k + 1, (0.0, 0.0, k * step_mm), 30.0, k * step_mm, 27.0, 0.0, 0.0, float(k == 0)) for k in range(n)]


def discs_between(bodies: list[Piece]) -> list[Piece]:
    return [
        Piece(k + 1, (0.0, 0.0, (a.arc_mm + b.arc_mm) / 2), 8.0, (a.arc_mm + b.arc_mm) / 2, 8.0, 0.0, 0.0)
        for k, (a, b) in enumerate(pairwise(bodies))
    ]


def sure(n: int) -> Sacrum:
    return Sacrum((1.0, *(0.0,) * (n - 1)), 0.0)


def named(count: Count, *, n: int = 9, conflicts: tuple[Flag, ...] = ()) -> Levels:
    bodies = column(n)
    return name_levels(bodies, discs_between(bodies), sure(n), count, conflicts)


def test_a_whole_spine_has_one_probable_s1() -> None:
    found = weigh(SPINE)
    assert found.s1 == 1
    assert found.probability[1] > 0.98
    assert sum(found.probability) + found.not_in_view == pytest.approx(1.0)
    assert set(found.supporting) >= {"sacral_share", "taper", "disc_above"}
    assert not found.contradicting


@pytest.mark.parametrize(("s1", "l5"), [(0.0, 0.0), (1.0, 1.0), (0.0, 1.0)])
def test_shape_and_discs_outvote_the_class(s1: float, l5: float) -> None:
    found = weigh([S2, replace(S1, sacral_share=s1), replace(L5, sacral_share=l5), *SPINE[3:]])
    assert found.s1 == 1
    assert found.probability[1] < weigh(SPINE).probability[1]


def test_without_a_sacrum_s1_lies_below_the_picture() -> None:
    assert weigh(SPINE[2:]).s1 is None
    assert weigh([]).s1 is None


def test_a_class_without_any_other_evidence_is_not_certain() -> None:
    bare = [Observed(1.0), Observed(1.0), Observed(0.0), Observed(0.0)]
    assert max(weigh(bare).probability) < CONFIDENT


def test_conflicting_evidence_leaves_no_piece_probable() -> None:
    lumbarised = replace(S2, taper=1.0, depth_ratio=1.0), replace(S1, taper=1.0, depth_ratio=1.0, sacral_share=0.0)
    found = weigh([*(replace(one, disc_above=1.0) for one in lumbarised), *SPINE[2:]])
    assert max(found.probability) < CONFIDENT


@given(st.lists(st.builds(Observed, st.floats(0, 1), *[st.none() | st.floats(-100, 100)] * 4), max_size=12))
def test_probabilities_are_probabilities_whatever_is_seen(observed: list[Observed]) -> None:
    found = weigh(observed)
    assert sum(found.probability) + found.not_in_view == pytest.approx(1.0)
    assert all(0 <= one <= 1 for one in found.probability)


@pytest.mark.parametrize(
    ("count", "names"),
    [
        (USUAL, ["S1", "L5", "L4", "L3", "L2", "L1", "T12", "T11", "T10"]),
        (Count(4, 12, 1.0, "table"), ["S1", "L4", "L3", "L2", "L1", "T12", "T11", "T10", "T9"]),
        (Count(6, 12, 1.0, "table"), ["S1", "L6", "L5", "L4", "L3", "L2", "L1", "T12", "T11"]),
        (Count(5, 13, 1.0, "table"), ["S1", "L5", "L4", "L3", "L2", "L1", "T13", "T12", "T11"]),
    ],
)
def test_names_follow_the_count(count: Count, names: list[str]) -> None:
    levels = named(count)
    assert [one.level for one in levels.bodies] == names
    assert [one.level for one in levels.discs] == [f"{b}-{a}" for a, b in pairwise(names)]


def test_a_count_from_the_sacrum_alone_is_never_confident() -> None:
    assert max(one.confidence for one in named(USUAL).bodies) < CONFIDENT
    best = most_likely_count({0: 17.0, 1: 17.6, 2: 14.7, 3: 10.1, 4: 4.2, 5: 1.4})
    assert (best.n_lumbar, best.source) == (5, "psoas")
    assert USUAL.confidence < best.confidence < CONFIDENT
    assert max(one.confidence for one in named(best).bodies) < CONFIDENT


def test_a_known_count_is_confident() -> None:
    known = known_count(5, None)
    assert known is not None
    assert min(one.confidence for one in named(known).bodies) >= CONFIDENT
    assert known_count(None, 12) is None


@pytest.mark.parametrize("thoracic", [11, 13])
def test_another_number_of_thoracic_vertebrae_alone_leaves_the_names_open(thoracic: int) -> None:
    known = known_count(None, thoracic)
    assert known is not None
    assert known.n_thoracic == thoracic
    assert known.confidence < UNDECIDED


def test_a_psoas_that_begins_elsewhere_raises_doubt() -> None:
    later = most_likely_count({1: 17.0, 2: 17.6, 3: 13.5, 4: 9.5, 5: 5.0})
    assert later.confidence < USUAL.confidence
    assert "lumbar_variant" in {flag.reason for flag in named(later).flags}


def test_no_psoas_says_nothing() -> None:
    assert most_likely_count({}) == most_likely_count({3: 5.0, 4: 2.0}) == USUAL


def test_a_conflict_with_the_axial_slices_costs_confidence() -> None:
    conflict = Flag("axial_conflict", "psoas", 2.0, 1.2)
    without, with_ = (named(Count(5, 12, 1.0, "table"), conflicts=one) for one in ((), (conflict,)))
    assert with_.bodies[1].confidence < CONFIDENT <= without.bodies[1].confidence
    assert conflict in with_.flags


@pytest.mark.parametrize("step", [0.4, 1.8])
def test_names_end_where_a_body_is_missing_or_divided(step: float) -> None:
    bodies = column(8)
    moved = [
        replace(one, centroid_mm=(0.0, 0.0, one.arc_mm + shift), arc_mm=one.arc_mm + shift)
        for k, one in enumerate(bodies)
        for shift in [37.0 * (step - 1) if k > 3 else 0.0]
    ]
    levels = name_levels(moved, discs_between(moved), sure(8), USUAL)
    assert [one.level for one in levels.bodies] == ["S1", "L5", "L4", "L3", None, None, None, None]
    assert "count_mismatch" in {flag.reason for flag in levels.flags}


def test_an_improbable_s1_is_not_named() -> None:
    bodies = column(8)
    doubtful = Sacrum((0.55, 0.40, *(0.0,) * 6), 0.05)
    levels = name_levels(bodies, discs_between(bodies), doubtful, USUAL)
    assert {one.level for one in levels.bodies} == {None}
    assert {"levels_undecided", "lumbar_variant"} <= {flag.reason for flag in levels.flags}


def axial(z_mm: float, *, index: int, n: int = 3) -> tuple[int, StackGeometry]:
    """A few slices about a height, 200 mm wide."""
    position = np.array([[-100.0, -100.0, z_mm + 4.0 * (k - n // 2)] for k in range(n)])
    return index, StackGeometry(position, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), (1.0, 1.0), (200, 200), 4.0)


def muscle(stack: int, name: str, side: str, csa_cm2: float) -> MuscleRow:
    return MuscleRow(
        exam_id="e", stack=stack, slice=1, muscle=name, side=side, csa_cm2=csa_cm2, row_px=0.0, column_px=0.0,
        x_mm=0.0, y_mm=0.0, z_mm=0.0, touches_border=False, status="ok",
    )  # fmt: skip


def areas(upside_down: bool) -> tuple[dict[int, DiscPlane], list[tuple[int, StackGeometry]], list[MuscleRow]]:
    planes = {k: DiscPlane(f"disc-{k}", np.array([0.0, 0.0, 37.0 * k]), np.array([0.0, 0.0, 1.0])) for k in range(5)}
    stacks = [axial(37.0 * k, index=k) for k in range(5)]
    psoas = [16.0, 17.0, 15.0, 10.0, 4.0]
    rows = [
        muscle(k, "psoas", side, psoas[4 - k if upside_down else k]) for k in range(5) for side in ("left", "right")
    ]
    return planes, stacks, rows


def test_the_psoas_is_read_at_every_disc() -> None:
    found = axial_evidence(*areas(upside_down=False))
    assert found.psoas_cm2 == {0: 16.0, 1: 17.0, 2: 15.0, 3: 10.0, 4: 4.0}
    assert not found.conflicts


def test_a_slice_with_other_muscles_only_has_a_psoas_of_nothing() -> None:
    planes, stacks, rows = areas(upside_down=False)
    rows = [*(row for row in rows if row.stack != 4), muscle(4, "multifidus", "left", 2.0)]
    assert axial_evidence(planes, stacks, rows).psoas_cm2[4] == 0.0
    assert 4 not in axial_evidence(planes, stacks, rows[:-1]).psoas_cm2


def test_muscles_that_shrink_downward_are_a_conflict() -> None:
    found = axial_evidence(*areas(upside_down=True))
    assert [(flag.reason, flag.structure) for flag in found.conflicts] == [("axial_conflict", "psoas")]


def test_stacks_laid_along_discs_that_were_not_found_are_a_conflict() -> None:
    planes, stacks, rows = areas(upside_down=False)
    beside = [axial(37.0 * k + 18.0, index=k) for k in range(5)]
    assert [flag.structure for flag in axial_evidence(planes, beside, []).conflicts] == ["disc stacks"]
    assert not axial_evidence(planes, stacks, rows).conflicts
    assert not axial_evidence(planes, [axial(60.0, index=0, n=30)], []).conflicts
