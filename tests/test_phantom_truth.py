"""True numbers of phantom exams, the plan of the study that asks for them, and the degraded masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.agreement.overlap import dice
from cohort.errors import ConfigurationError
from models.phantom.anatomy import Anatomy, draw_anatomy
from models.phantom.degrade import degrade_muscles, degrade_spine
from models.phantom.exam import ExamPlan, make_exam, true_disc_height_mm
from models.phantom.sampling import cut, draw_subject
from models.phantom.study import STRATA, axial_grids, sagittal_grid, study_plan
from models.phantom.truth import (
    Truth,
    column_stack,
    column_truth,
    csa_cm2,
    endplate_tilt_deg,
    muscle_stack,
    sacral_values,
)
from models.phantom.vertebral_column import BODY_INSET_MM, DISC_INSET_MM, disc_centre, disc_depth

EXAM = replace(study_plan(1)[0], plan=ExamPlan(77, "F", 40, 1.66, 64.0))


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return draw_anatomy(77, sex="F", scale=1.66 / 1.63, healthy=True, n_lumbar=5)


@pytest.fixture(scope="module")
def truth(anatomy: Anatomy) -> Truth:
    return column_truth(anatomy, sagittal_grid(anatomy, EXAM.acquisition))


def test_labels_without_soft_tissue_are_those_of_the_whole_phantom(anatomy: Anatomy) -> None:
    grid = sagittal_grid(anatomy, replace(EXAM.acquisition, pixel_mm=(1.5, 1.5)))
    bodies, discs = column_stack(anatomy, grid)
    whole = cut(draw_subject(anatomy), grid, 6)
    assert np.array_equal(bodies[6], whole.body)
    assert np.array_equal(discs[6], whole.disc)
    assert bodies[6].any()


def test_heights_and_centroids_agree_with_a_fine_lattice(anatomy: Anatomy) -> None:
    exam = make_exam(EXAM.plan)
    found = column_truth(anatomy, exam.sagittal)
    offsets = np.arange(-30.25, 30.5, 0.5)
    lattice = np.stack(np.meshgrid(offsets, offsets, offsets[20:-20], indexing="ij"), axis=-1).reshape(-1, 3)
    for one, disc in list(zip(found.discs, anatomy.discs, strict=False))[1:4:2]:
        points = (disc_centre(anatomy, disc) + lattice).astype(np.float32)
        centroid = points[disc_depth(anatomy, disc, points)[0] > DISC_INSET_MM].mean(axis=0, dtype=float)
        assert np.linalg.norm(one.centroid_mm - centroid) < 0.1
        assert one.numbers["height_mm"] == pytest.approx(true_disc_height_mm(exam, disc, centroid), abs=0.15)
        inside = np.count_nonzero(disc_depth(anatomy, disc, points)[0] > DISC_INSET_MM)
        assert one.numbers["volume_cm3"] == pytest.approx(inside * 0.5**3 / 1000, rel=0.03)


def test_heights_of_a_disc_are_ordered_as_its_wedge_says(truth: Truth) -> None:
    for disc in truth.discs:
        numbers = disc.numbers
        wedged = numbers["anterior_height_mm"] - numbers["posterior_height_mm"]
        assert np.sign(wedged) == np.sign(numbers["wedge_deg"]) or abs(wedged) < 0.3
        assert numbers["height_mm"] >= max(numbers["middle_height_mm"], numbers["posterior_height_mm"]) - 0.2
        assert disc.normal is not None
        assert disc.normal[2] > 0.5


def test_bodies_above_the_sacrum_are_as_high_as_their_endplates_leave(anatomy: Anatomy, truth: Truth) -> None:
    for one, body in zip(truth.bodies[1:], anatomy.bodies[anatomy.first_mobile :], strict=False):
        expected = body.height_mm - sum(body.concavity_mm) - 2 * BODY_INSET_MM
        assert one.numbers["middle_height_mm"] == pytest.approx(expected, abs=0.3)
        assert one.numbers["wedge_deg"] == pytest.approx(
            np.degrees(body.endplate_tilt_rad(-1) - body.endplate_tilt_rad(+1))
        )
    assert "wedge_deg" not in truth.bodies[0].numbers


def test_endplates_of_an_unrolled_body_tilt_as_the_body_says(anatomy: Anatomy) -> None:
    for body in anatomy.bodies:
        straight = replace(body, roll_rad=0.0, turn_rad=0.0)
        assert endplate_tilt_deg(straight) == pytest.approx(np.degrees(body.endplate_tilt_rad(+1)), abs=1e-6)


def test_a_complete_picture_has_every_lumbar_name(truth: Truth) -> None:
    names = [body.name for body in truth.bodies]
    assert names[:7] == ["S1", "L5", "L4", "L3", "L2", "L1", "T12"]
    assert [body.counted_name for body in truth.bodies] == names
    assert truth.complete
    assert truth.curvature["lordosis_l1_s1_deg"] == pytest.approx(45, abs=40)
    # by centroids the vertebrae's own wedges are left out, not the discs'
    assert truth.curvature["lordosis_centroid_deg"] == pytest.approx(truth.curvature["lordosis_l1_s1_deg"], abs=20)


@pytest.mark.parametrize(("n_lumbar", "lowest"), [(4, "L4"), (6, "L6")])
def test_variants_are_named_from_above_and_counted_from_below(n_lumbar: int, lowest: str) -> None:
    anatomy = draw_anatomy(5, sex="M", healthy=True, n_lumbar=n_lumbar)
    found = column_truth(anatomy, sagittal_grid(anatomy, EXAM.acquisition))
    assert (found.bodies[1].name, found.bodies[1].counted_name) == (lowest, "L5")
    assert found.discs[0].name == f"{lowest}-S1"
    assert found.discs[0].counted_name == "L5-S1"


def test_a_picture_that_ends_in_a_body_shows_part_of_it(anatomy: Anatomy) -> None:
    upright = replace(EXAM.acquisition, tilt_deg=(0.0, 0.0, 0.0), bottom=("L5", 0.0))
    found = column_truth(anatomy, sagittal_grid(anatomy, upright))
    lowest = found.bodies[0]
    assert lowest.name == "L5"
    assert 0.3 < lowest.in_picture < 0.7
    assert not found.complete


def test_true_areas_are_close_to_counted_pixels() -> None:
    plan = replace(EXAM.plan, axial="per_disc")
    subject = make_exam(plan).subject
    grid = axial_grids(subject.anatomy, plan)[1]
    muscles = muscle_stack(subject, grid)
    areas = csa_cm2(subject, grid, muscles, 1)
    assert sum(areas.values()) == pytest.approx(np.count_nonzero(muscles[1]) * 0.81 / 100, rel=0.02)


def test_the_plan_of_the_study_has_every_stratum_and_does_not_depend_on_its_length() -> None:
    exams = study_plan(240)
    assert {exam.stratum for exam in exams} == set(STRATA)
    for name, stratum in STRATA.items():
        assert sum(exam.stratum == name for exam in exams) == pytest.approx(stratum.share, abs=1)
    assert study_plan(15) == exams[:15]
    assert {exam.plan.n_lumbar for exam in exams} == {4, 5, 6}
    assert {exam.plan.axial for exam in exams} == {"block", "per_disc", "none"}
    assert any(exam.acquisition.missing for exam in exams)
    assert any(exam.acquisition.order.flip[0] for exam in exams)
    assert {exam.acquisition.axial_order.flip[2] for exam in exams} == {True, False}


def test_an_unknown_finding_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no such finding"):
        make_exam(ExamPlan(1, "M", 40, 1.8, 80.0, findings=("broken_heart",)))


@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 1000))
def test_degraded_masks_repeat_and_stay_near_the_true_ones(seed: int) -> None:
    anatomy = draw_anatomy(3, sex="M", scale=1.0, healthy=True, n_lumbar=5)
    grid = sagittal_grid(anatomy, replace(EXAM.acquisition, pixel_mm=(1.5, 1.5), n_slices=7))
    bodies, discs = column_stack(anatomy, grid)
    first, again = (degrade_spine(bodies, discs, sacral_values(anatomy), grid, seed=[seed]) for _ in range(2))
    assert np.array_equal(first.bodies, again.bodies)
    assert np.array_equal(first.discs, again.discs)
    assert 0.4 < dice(first.bodies > 0, bodies > 0) < 1
    assert 0.3 < dice(first.discs > 0, discs > 0) < 1
    assert set(np.unique(first.bodies)) <= {0, 1, 2}


def test_degraded_muscles_keep_their_sides() -> None:
    plan = replace(EXAM.plan, axial="per_disc")
    subject = make_exam(plan).subject
    grid = axial_grids(subject.anatomy, plan)[2]
    muscles = muscle_stack(subject, grid)
    found = degrade_muscles(muscles, grid, seed=[4])
    both = (found > 0) & (muscles > 0)
    assert np.mean(found[both] == muscles[both]) > 0.9
    assert not np.array_equal(found, muscles)
