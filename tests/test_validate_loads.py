"""`cohort validate loads`: conversions of measurements, random people, and a small run of the whole command."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from cohort.loading import dual_newton
from cohort.loading.curvature import DISCS
from cohort.loading.personalise import personalise
from cohort.loading.tasks import FLEXION60_5KG, STANDING
from cohort.terms import LUMBAR_VERTEBRAE
from pipelines.cli import main
from pipelines.validation.loads import SECTIONS, loads_tables
from pipelines.validation.loads_agreement import compare_engines
from pipelines.validation.loads_in_vivo import force_range_n, in_vivo_table, place_in_range, tilt_line
from pipelines.validation.loads_models import NamedModel, adopt_public_models, axial_n, shipped_models
from pipelines.validation.loads_people import measured_person, person, random_person
from pipelines.validation.loads_public import PLACE, REFERENCES, capacity_table, moment_arm_table, public_table
from pipelines.validation.loads_sensitivity import RHYTHMS, input_table, sensitivity_table, sex_table, with_rhythm


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[NamedModel]:
    return shipped_models(tmp_path_factory.mktemp("models"))


def test_pressure_becomes_the_range_of_forces_that_the_pressure_factor_leaves() -> None:
    assert force_range_n(0.5) == pytest.approx((0.5 * 1800 / 1.52, 0.5 * 1800 / 1.30))
    assert force_range_n(0.5, 0.87) == pytest.approx((592.1, 1204.6), abs=0.1)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (74.9, "below"),
        (75.0, "within 25 %"),
        (100.0, "inside"),
        (200.0, "inside"),
        (250.0, "within 25 %"),
        (251.0, "above"),
    ],
)
def test_a_load_is_placed_in_beside_or_outside_a_range(value: float, place: str) -> None:
    assert place_in_range(value, 100.0, 200.0) == place


def test_a_measured_typical_person_has_the_base_model_bent_and_strong_as_it_is(models: list[NamedModel]) -> None:
    for model in models:
        subject = measured_person(model.base, model.sex, model.base.height_m, model.base.total_mass_kg)
        personal = personalise(model.base, [subject])
        sources = (personal.curvature_source, personal.strength_source, personal.position_source)
        assert sources == (("measured",),) * 3
        assert personal.reasons == ((),)
        assert personal.point_m[0] == pytest.approx(model.base.point_m, abs=1e-9)
        assert personal.rest_rotation[0] == pytest.approx(model.base.rest_rotation, abs=1e-9)
        assert personal.strength_n[0] == pytest.approx(model.base.strength_n)


def test_random_people_are_the_same_however_many_are_drawn_and_differ_from_each_other(models: list[NamedModel]) -> None:
    model = models[0]
    people = [random_person(model.base, "M", number) for number in range(4)]
    assert people[2] == random_person(model.base, "M", 2)
    assert len({one.mass_kg for one in people}) == len(people)
    assert all(set(one.disc_centroids_mm) == set(DISCS) for one in people)
    assert not any(personalise(model.base, people).reasons)
    loads = axial_n(model.base, people, STANDING)
    assert loads.shape == (4, len(LUMBAR_VERTEBRAE))
    assert all(np.abs(one - other).max() > 1.0 for one, other in pairwise(loads))


def test_the_rhythm_moves_loads_in_flexion_only(models: list[NamedModel]) -> None:
    base, subject = models[0].base, person("M", 1.75, 75.0)
    for rhythm in RHYTHMS.values():
        for task, moves in ((STANDING, False), (FLEXION60_5KG, True)):
            shipped, other = (axial_n(base, [subject], one) for one in (task, with_rhythm(task, rhythm)))
            assert (np.abs(other / shipped - 1.0).max() > 0.01) == moves


def test_heavier_people_and_greater_tilt_mean_greater_loads(models: list[NamedModel]) -> None:
    rows = [row for row in sensitivity_table(models[0].base) if row["task"] == "flexion60_5kg"]
    by_mass = [row["L4"] for row in rows if row["kind"] == "mass"]
    assert by_mass == sorted(by_mass)
    assert all(row["correlation with the angle"] > 0.95 for row in tilt_line(models[0].base))


def test_errors_of_loads_grow_with_errors_of_areas_and_centroids(models: list[NamedModel]) -> None:
    rows = {(row["task"], row["error of"]): row for row in input_table(models[0].base, draws=20)}
    assert rows["flexion60_5kg", "areas, 18 %"]["L3 %"] > rows["flexion60_5kg", "areas, 5 %"]["L3 %"] > 0.0
    assert (
        rows["standing", "spine, centroids, 1 mm"]["L4 %"] > rows["standing", "spine, centroids, 0.5 mm"]["L4 %"] > 0.0
    )


def test_a_case_that_an_engine_refuses_is_no_pair(models: list[NamedModel], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dual_newton, "MAX_ITERATIONS", 1)
    pairs, (unsolved,) = compare_engines(models[:1], [STANDING], 1, lambda _: None)
    assert (pairs, unsolved.reason) == ([], "not_converged")


def test_tables_name_every_model_and_level(models: list[NamedModel]) -> None:
    assert {row["model"] for row in moment_arm_table(models)} == {model.name for model in models}
    erector = next(row for row in moment_arm_table(models) if row["group"] == "longissimus_thoracis")
    assert 20.0 < erector["L4_L5"] < 80.0
    assert {row["model"] for row in sex_table(models)} >= {"man", "woman"}
    gravity = [row for row in capacity_table(models) if row["figure"].startswith("moment of gravity, flexion")]
    assert all(row["L5_S1"] > row["T12_L1"] > 0.0 for row in gravity)
    places = [row for row in public_table(models) if row["model"] == PLACE]
    assert {(row["task"], row["convention"], row["least activation"]) for row in places} == set(REFERENCES)
    assert all(row["ours, N"] > 0 for row in in_vivo_table(models[0].base))


def test_the_public_models_take_part(public_models: Path, tmp_path: Path) -> None:
    adopted = adopt_public_models(public_models, tmp_path, print)
    assert len(adopted) == 2
    assert all(model.public for model in adopted)


def test_a_small_run_of_the_whole_command(tmp_path: Path) -> None:
    command = ["validate", "loads", "--personalisations", "1", "--task", "standing", "--json"]
    ran = CliRunner().invoke(main, [*command, "--pictures", str(tmp_path)], catch_exceptions=False)
    results = json.loads(ran.stdout)
    assert all(row["n"] == 1 and row["kept"] for row in results["agreement"])
    assert 0.0 < results["max_relative_difference_shipped"] < 0.001
    assert "2 of 2 cases solved" in ran.stderr
    tables = loads_tables(results)
    assert all(f"### {title}" in tables for title in SECTIONS.values())
    pictures = list(tmp_path.glob("loads-*.png"))
    assert len(pictures) == 6
    assert all(cv2.imread(str(path)).std() > 10 for path in pictures)


def test_an_unknown_task_is_refused_by_name() -> None:
    ran = CliRunner().invoke(main, ["validate", "loads", "--task", "flying"])
    assert ran.exit_code == 2
    assert "no task flying" in ran.output
