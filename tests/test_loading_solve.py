"""Loads: physics of the batch engine, and its agreement with OpenSim's own tools."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from scanned_people import FLAT_DISCS_MM, FLAT_VERTEBRAE_MM

from cohort.errors import ConfigurationError, RefusedError
from cohort.loading import dual_newton, opensim_engine, opensim_setup
from cohort.loading.assumptions import Assumptions
from cohort.loading.base_model import BaseModel, read_base_model
from cohort.loading.opensim_engine import solve_with_opensim
from cohort.loading.solve import solve_loads
from cohort.loading.subject import LoadingSubject
from cohort.loading.tasks import FLEXION30, FLEXION60_5KG, STANDING, STANDING_5KG, Task
from cohort.rows import LoadRow
from models.musculoskeletal.build import build_base_model

GENERIC = LoadingSubject(exam_id="generic", sex="M", height_m=1.75, mass_kg=75.0)

# A tall, heavy person with a flat lumbar spine, seen from S1 to T12, and a weak left side; LPS mm.
PERSON = LoadingSubject(
    exam_id="person",
    sex="M",
    height_m=1.84,
    mass_kg=92.0,
    vertebra_centroids_mm=FLAT_VERTEBRAE_MM,
    disc_centroids_mm=FLAT_DISCS_MM,
    csa_cm2={
        (muscle, side, disc): area * (0.8 if side == "left" else 1.0)
        for muscle, disc, area in (
            ("multifidus", "L4-L5", 9.0),
            ("multifidus", "L3-L4", 6.5),
            ("erector_spinae", "L4-L5", 13.0),
            ("erector_spinae", "L3-L4", 17.0),
            ("psoas", "L4-L5", 19.0),
            ("psoas", "L3-L4", 15.0),
            ("quadratus_lumborum", "L3-L4", 7.0),
        )
        for side in ("left", "right")
    },
)


@pytest.fixture(scope="module")
def osim_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_base_model("male", tmp_path_factory.mktemp("models") / "male.osim")


@pytest.fixture(scope="module")
def base(osim_path: Path) -> BaseModel:
    return read_base_model(osim_path)


def axial(rows: Sequence[LoadRow], convention: str = "vertebra_mean") -> np.ndarray:
    return np.array([row.axial_n for row in rows if row.convention == convention])


def loads(base: BaseModel, subject: LoadingSubject, task: Task) -> np.ndarray:
    return axial(solve_loads(base, [subject], task))


def test_rows_are_complete_and_finite(base: BaseModel) -> None:
    rows = solve_loads(base, [GENERIC, PERSON], FLEXION60_5KG)
    keys = {(row.exam_id, row.level, row.convention) for row in rows}
    assert len(rows) == len(keys) == 20
    for row in rows:
        assert all(np.isfinite(value) for value in asdict(row).values() if isinstance(value, float))
        assert row.engine == "batch"
        assert row.task == "flexion60_5kg"
    assert rows[0].reasons == "muscle_saturated+default_curvature+default_strength+default_position"
    assert rows[0].curvature_source == "default"
    assert rows[-1].curvature_source == rows[-1].strength_source == "measured"


def test_magnitudes_are_those_of_published_models(base: BaseModel) -> None:
    # 60 degrees, 5 kg a hand: other thoracolumbar and lumbar models give about 2.2 to 3.6 kN.
    bent = loads(base, GENERIC, FLEXION60_5KG)
    assert (bent > 2200.0).all()
    assert (bent < 3700.0).all()
    assert (np.diff(bent) > 0.0).all()
    standing = loads(base, GENERIC, STANDING)
    assert (standing > 300.0).all()
    assert (standing < 600.0).all()


def test_joint_below_L5_carries_at_least_the_weight_above(base: BaseModel) -> None:  # noqa: N802
    rows = solve_loads(base, [GENERIC], STANDING)
    lowest = next(row for row in rows if row.level == "L5" and row.convention == "joint_below")
    total = np.linalg.norm([lowest.axial_n, lowest.shear_ap_n, lowest.shear_lateral_n])
    above = base.mass_kg[base.distal[0]].sum() * 9.80665
    assert total > 0.95 * above


def test_more_weight_more_load(base: BaseModel) -> None:
    heavy = replace(GENERIC, mass_kg=100.0)
    for task in (STANDING, STANDING_5KG, FLEXION60_5KG):
        assert (loads(base, heavy, task) > loads(base, GENERIC, task)).all()


def test_hand_loads_and_flexion_add_load(base: BaseModel) -> None:
    standing, loaded = loads(base, GENERIC, STANDING), loads(base, GENERIC, STANDING_5KG)
    assert (loaded > standing + 50.0).all()
    assert (loads(base, GENERIC, FLEXION60_5KG) > 3.0 * loaded).all()


def test_symmetric_people_have_no_lateral_shear(base: BaseModel) -> None:
    for row in solve_loads(base, [GENERIC], FLEXION60_5KG):
        assert row.shear_lateral_n == pytest.approx(0.0, abs=1e-4)


def test_a_weak_side_mirrors(base: BaseModel) -> None:
    areas = {("erector_spinae", side, "L3-L4"): 17.0 for side in ("left", "right")}
    weak = [
        replace(GENERIC, exam_id=side, csa_cm2=areas | {("erector_spinae", side, "L3-L4"): 9.0})
        for side in ("left", "right")
    ]
    rows = solve_loads(base, weak, FLEXION60_5KG)
    shear = np.array([[row.shear_lateral_n for row in rows if row.exam_id == side] for side in ("left", "right")])
    assert np.abs(shear[0]).max() > 5.0
    np.testing.assert_allclose(shear[0], -shear[1], atol=1e-3)
    np.testing.assert_allclose(axial(rows[:10]), axial(rows[10:]), rtol=1e-7)


def test_very_weak_people_are_flagged(base: BaseModel) -> None:
    areas = {
        (muscle, side, "L3-L4"): 1.0
        for muscle in ("erector_spinae", "multifidus", "psoas", "quadratus_lumborum")
        for side in ("left", "right")
    }
    rows = solve_loads(base, [replace(GENERIC, mass_kg=140.0, csa_cm2=areas)], FLEXION60_5KG)
    assert rows[0].status == "flagged"
    assert {"muscle_saturated", "not_in_equilibrium", "implausible_csa"} <= set((rows[0].reasons or "").split("+"))
    assert rows[0].reserve_max_nm > 1.0


def test_batch_equals_one_by_one(base: BaseModel) -> None:
    people = [replace(PERSON, exam_id=str(i), mass_kg=60.0 + 2.0 * i, height_m=1.6 + 0.01 * i) for i in range(12)]
    people.insert(5, GENERIC)
    together = solve_loads(base, people, FLEXION60_5KG)
    alone = [row for person in people for row in solve_loads(base, [person], FLEXION60_5KG)]
    assert [row.exam_id for row in together] == [row.exam_id for row in alone]
    np.testing.assert_allclose(axial(together), axial(alone), rtol=1e-8)


def test_nobody_gives_no_rows(base: BaseModel) -> None:
    assert solve_loads(base, [], STANDING) == []


TWISTED = Task(
    name="twisted",
    trunk_flexion_deg=35.0,
    pelvic_retroversion_deg=5.0,
    lateral_bend_deg=15.0,
    axial_turn_deg=-8.0,
    arm_elevation_deg=30.0,
    right_hand_kg=4.0,
    left_hand_kg=1.0,
)


@pytest.mark.parametrize(
    ("subject", "task", "assumptions"),
    [
        (GENERIC, FLEXION60_5KG, Assumptions()),
        (PERSON, STANDING, Assumptions()),
        (PERSON, TWISTED, Assumptions()),
        (GENERIC, STANDING, Assumptions(min_activation=0.01)),
        (GENERIC, FLEXION60_5KG, Assumptions(force_length=True)),
        (PERSON, TWISTED, Assumptions(min_activation=0.02, force_length=True, passive_stiffness=True)),
    ],
    ids=["flexion", "standing", "twisted", "least activation", "force-length", "all"],
)
def test_agrees_with_opensim(
    base: BaseModel, osim_path: Path, subject: LoadingSubject, task: Task, assumptions: Assumptions
) -> None:
    theirs = solve_with_opensim(osim_path, subject, task, assumptions=assumptions, timeout_s=120.0)
    ours = solve_loads(base, [subject], task, assumptions=assumptions)
    assert [(r.level, r.convention) for r in theirs] == [(r.level, r.convention) for r in ours]
    for a, b in zip(theirs, ours, strict=True):
        assert a.engine == "opensim"
        assert b.axial_n == pytest.approx(a.axial_n, rel=0.0001)
        assert b.shear_ap_n == pytest.approx(a.shear_ap_n, abs=0.0001 * a.axial_n)
        assert b.shear_lateral_n == pytest.approx(a.shear_lateral_n, abs=0.0001 * a.axial_n)
        assert b.moment_flexion_nm == pytest.approx(a.moment_flexion_nm, abs=0.001)
        assert b.max_activation == pytest.approx(a.max_activation, abs=0.001)
        assert (a.reasons, a.status) == (b.reasons, b.status)


def test_least_activation_loads_the_spine(base: BaseModel) -> None:
    free = axial(solve_loads(base, [GENERIC], STANDING))
    held = axial(solve_loads(base, [GENERIC], STANDING, assumptions=Assumptions(min_activation=0.01)))
    assert (held > 1.1 * free).all()


def test_passive_stiffness_helps_in_flexion_and_is_nothing_in_standing(base: BaseModel) -> None:
    stiff = Assumptions(passive_stiffness=True)
    assert (axial(solve_loads(base, [GENERIC], FLEXION30, assumptions=stiff)) < loads(base, GENERIC, FLEXION30)).all()
    standing = axial(solve_loads(base, [GENERIC], STANDING, assumptions=stiff))
    np.testing.assert_array_equal(standing, loads(base, GENERIC, STANDING))


@pytest.mark.parametrize("low", [-0.01, 1.0, float("nan")])
def test_impossible_least_activation_is_refused(low: float) -> None:
    with pytest.raises(ConfigurationError, match="min_activation"):
        Assumptions(min_activation=low)


def test_a_solver_that_stops_early_gives_refused_rows(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dual_newton, "MAX_ITERATIONS", 1)
    rows = solve_loads(base, [GENERIC, PERSON], FLEXION60_5KG)
    assert len(rows) == 20
    for row in rows:
        assert row.status == "refused"
        assert (row.reasons or "").startswith("not_converged")
        assert row.generic_axial_n is row.curvature_axial_n is row.muscle_axial_n is None


def test_an_optimiser_of_opensim_that_stops_early_gives_refused_rows(
    osim_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opensim_setup, "MAX_ITERATIONS", 2)
    for row in opensim_engine.run_opensim(osim_path, GENERIC, STANDING, tmp_path):
        assert row.status == "refused"
        assert (row.reasons or "").startswith("not_converged")


def test_loads_without_a_part_are_those_of_a_person_in_whom_it_was_not_measured(base: BaseModel) -> None:
    person = solve_loads(base, [PERSON], FLEXION30)
    bare = replace(PERSON, vertebra_centroids_mm={}, disc_centroids_mm={}, csa_cm2={})
    straight = replace(PERSON, csa_cm2={})
    strong = replace(PERSON, vertebra_centroids_mm={}, disc_centroids_mm={})
    for name, alone in (("generic", bare), ("curvature", straight), ("muscle", strong)):
        rows = solve_loads(base, [alone], FLEXION30)
        column = [getattr(row, f"{name}_axial_n") for row in person]
        np.testing.assert_allclose(column, [row.axial_n for row in rows], rtol=1e-9)
    assert all(row.axial_n != pytest.approx(row.generic_axial_n, rel=1e-4) for row in person)


def test_parts_that_were_not_measured_change_nothing(base: BaseModel) -> None:
    people = [
        GENERIC,
        replace(PERSON, exam_id="curved", csa_cm2={}),
        replace(PERSON, exam_id="strong", vertebra_centroids_mm={}, disc_centroids_mm={}),
    ]
    rows = solve_loads(base, people, FLEXION30)
    for row in rows:
        if row.exam_id == "generic":
            assert row.axial_n == row.generic_axial_n == row.curvature_axial_n == row.muscle_axial_n
        if row.exam_id == "curved":
            assert row.axial_n == row.curvature_axial_n != row.generic_axial_n == row.muscle_axial_n
        if row.exam_id == "strong":
            assert row.axial_n == row.muscle_axial_n != row.generic_axial_n == row.curvature_axial_n


def test_a_slow_child_is_killed(osim_path: Path) -> None:
    with pytest.raises(RefusedError) as refusal:
        solve_with_opensim(osim_path, GENERIC, STANDING, timeout_s=0.05)
    assert refusal.value.reason == "timed_out"
    assert multiprocessing.active_children() == []


def test_a_broken_model_is_an_answer_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / "x.osim").write_text("<not a model/>")
    with pytest.raises(RefusedError) as refusal:
        solve_with_opensim(tmp_path / "x.osim", GENERIC, STANDING, timeout_s=60.0)
    assert refusal.value.reason == "internal_error"
