"""Loads of many exams in one solve: each exam gets what it would get alone, and its own error alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measured_people import load_item, with_task

import cohort.loading.personalise as personal
import pipelines.load as stage
from cohort.archive.demographics import Demographics
from cohort.errors import RefusedError
from cohort.loading.assumptions import Assumptions, Personalisation
from cohort.loading.base_model import BaseModel, read_base_model
from cohort.loading.rest_posture import place_bodies, place_points
from cohort.loading.solve import solve_each
from cohort.loading.tasks import FLEXION30, FLEXION60_5KG, STANDING
from cohort.reasons import LOADING_REASONS, REASONS
from cohort.tables.buckets import objects_of
from models.musculoskeletal.build import build_base_model
from pipelines.load import BATCH_SIZE, WORST_FIRST, Solved, exams_at_once, load, load_batch
from pipelines.outcome import Outcome, WorkItem

TOGETHER = 32
TOLERANCE = 1e-9
"""Relative; on one machine the numbers are the same to the last bit, but no linear algebra library promises that."""
NO_LOADS = {"no_demographics", "implausible_demographics", "implausible_geometry"}
"""Reasons for which an exam has no rows that could carry them."""
WOMEN = (1, 27, 29, 31)
"""Items of the same base model and settings."""


@pytest.fixture(scope="module")
def base_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {sex: build_base_model(name, folder / f"{name}.osim") for sex, name in (("M", "male"), ("F", "female"))}


@pytest.fixture(scope="module")
def items(base_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[WorkItem]:
    """A batch of both sexes, of several settings, and of people who get no loads for every reason there is."""
    store = tmp_path_factory.mktemp("store")
    people = [load_item(store, base_models, seed) for seed in range(TOGETHER)]
    unknown = Demographics(None, None, 50.0, "dicom", None, None, 70.0, "dicom")
    giant = replace(people[5].task.demographics, height_m=17.5)
    people[2] = with_task(people[2], demographics=unknown)
    people[3] = with_task(people[3], demographics=replace(people[3].task.demographics, weight_kg=None), impute=True)
    people[5] = with_task(people[5], demographics=giant)
    people[7] = with_task(people[7], measured_path="nothing.json")
    people[9] = with_task(people[9], assumptions=Assumptions(min_activation=0.02))
    people[11] = with_task(people[11], use=Personalisation(position=False))
    people[13] = with_task(people[13], tasks=(FLEXION60_5KG,))
    people[15] = with_task(people[15], base_models=dict.fromkeys("MF", store / "no.osim"))
    _edit(people[17], lambda rows: rows["vertebrae"][3].update(z_mm=float("nan")))
    _edit(people[19], lambda rows: rows["vertebrae"][3].update(z_mm=-400.0))
    _edit(people[21], lambda rows: rows["vertebrae"][1].update(level="L6"))
    (store / people[23].task.measured_path).write_text("{")
    _edit(people[25], lambda rows: rows["vertebrae"][0].pop("ordinal"))
    return people


def _edit(item: WorkItem, change: Callable[[dict[str, Any]], Any]) -> None:
    path = item.task.store / item.task.measured_path
    rows = json.loads(path.read_text())
    change(rows)
    path.write_text(json.dumps(rows))


@pytest.fixture(scope="module")
def together(items: list[WorkItem]) -> list[Outcome]:
    return load_batch(items)


@pytest.fixture(scope="module")
def alone(items: list[WorkItem]) -> list[Outcome]:
    return [outcome for item in items for outcome in load_batch([item])]


def assert_same(one: Outcome, other: Outcome) -> None:
    """Equal words, and numbers equal to the tolerance."""
    names = ("exam_id", "stage", "fingerprint", "status", "reason", "error_type")
    assert [getattr(one, name) for name in names] == [getattr(other, name) for name in names]
    assert one.rows.keys() == other.rows.keys()
    for table in one.rows:
        ours, theirs = [[astuple(row) for row in objects_of(table, outcome.rows[table])] for outcome in (one, other)]
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            numbers = [k for k, value in enumerate(a) if isinstance(value, float) and isinstance(b[k], float)]
            assert [v for k, v in enumerate(a) if k not in numbers] == [v for k, v in enumerate(b) if k not in numbers]
            np.testing.assert_allclose([a[k] for k in numbers], [b[k] for k in numbers], rtol=TOLERANCE, atol=TOLERANCE)


def test_every_item_has_its_outcome_in_the_order_of_the_items(items: list[WorkItem], together: list[Outcome]) -> None:
    assert [outcome.exam_id for outcome in together] == [item.exam_id for item in items]
    assert {outcome.stage for outcome in together} == {"load"}
    solved = [outcome for outcome in together if outcome.status in ("ok", "flagged")]
    assert len(solved) >= 24
    assert all(outcome.seconds > 0 for outcome in together)


def test_a_batch_gives_everybody_what_they_get_alone(together: list[Outcome], alone: list[Outcome]) -> None:
    for one, other in zip(together, alone, strict=True):
        assert_same(one, other)


def test_the_batch_has_people_with_doubted_measurements(together: list[Outcome]) -> None:
    loads = [outcome.rows["loads"] for outcome in together if "loads" in outcome.rows]
    changes = [value for rows in loads for value in rows["change_without_doubted"].to_pylist()]
    assert sum(change is not None for change in changes) >= 20
    assert any(change is None for change in changes)


@settings(max_examples=6, deadline=None)
@given(order=st.permutations(range(TOGETHER)), size=st.integers(1, TOGETHER))
def test_neither_order_nor_company_changes_what_an_exam_gets(
    items: list[WorkItem], alone: list[Outcome], order: Sequence[int], size: int
) -> None:
    chosen = order[:size]
    for at, outcome in zip(chosen, load_batch([items[at] for at in chosen]), strict=True):
        assert_same(outcome, alone[at])


@pytest.mark.parametrize(
    ("at", "status", "why"),
    [
        (2, "refused", "no_demographics"),
        (5, "refused", "implausible_demographics"),
        (7, "failed", "FileNotFoundError"),
        (15, "failed", "ConfigurationError"),
        (17, "refused", "implausible_geometry"),
        (21, "refused", "lumbar_variant"),
        (23, "failed", "JSONDecodeError"),
        (25, "failed", "TypeError"),
    ],
)
def test_who_gets_no_loads_has_the_own_reason(together: list[Outcome], at: int, status: str, why: str) -> None:
    assert (together[at].status, together[at].error_type or together[at].reason) == (status, why)
    assert not together[at].rows


def test_a_curvature_that_no_spine_has_flags_its_own_exam(together: list[Outcome]) -> None:
    assert "implausible_curvature" in set(together[19].rows["quality"]["reason"].to_pylist())


def test_one_person_is_refused_by_the_same_code_with_the_same_reason(items: list[WorkItem]) -> None:
    with pytest.raises(RefusedError) as refusal:
        load(items[2])
    assert refusal.value.reason == "no_demographics"


def test_a_model_that_is_no_body_refuses_its_own_exam(
    items: list[WorkItem], alone: list[Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No input is known to make one, so the limit is drawn below one of the people."""
    people = [items[at] for at in WOMEN]
    base = read_base_model(people[0].task.base_models["F"])
    reach = [_reach_m(base, item) for item in people]
    largest = max(reach)
    monkeypatch.setattr(personal, "FARTHEST_POINT_M", largest - 1e-9)
    for outcome, item, own in zip(load_batch(people), people, reach, strict=True):
        if own == largest:
            assert (outcome.status, outcome.reason) == ("refused", "implausible_geometry")
        else:
            assert_same(outcome, alone[items.index(item)])


def _reach_m(base: BaseModel, item: WorkItem) -> float:
    """Distance of the farthest path point from the pelvis."""
    models = personal.personalise(base, [stage._person(item).inputs.subject])
    axes, origin = place_bodies(base, models.rest_rotation, models.rest_offset_m)
    points = place_points(base, axes, origin, models.point_m)
    pelvis = origin[:, base.parent[base.joint_body[0]], None]
    return float(np.linalg.norm(points - pelvis, axis=2).max())


def test_a_number_that_is_not_finite_refuses_its_own_subject(items: list[WorkItem]) -> None:
    subjects = [stage._person(items[at]).inputs.subject for at in WOMEN]
    base = read_base_model(items[WOMEN[0]].task.base_models["F"])
    sound = solve_each(base, subjects, [STANDING, FLEXION30])
    object.__setattr__(subjects[1], "mass_kg", float("nan"))  # past the subject's own check
    answers = solve_each(base, subjects, [STANDING, FLEXION30])
    assert isinstance(answers[1], RefusedError)
    assert answers[1].reason == "not_converged"
    assert [answers[at] for at in (0, 2, 3)] == [sound[at] for at in (0, 2, 3)]


def test_an_error_that_ends_a_whole_solve_is_laid_at_the_right_door(items: list[WorkItem]) -> None:
    people = [stage._person(items[at]) for at in WOMEN]
    object.__setattr__(people[2].inputs.subject, "height_m", "tall")  # past the subject's own check
    answers = stage._solved(people[0].settings, [person.inputs for person in people])
    assert isinstance(answers[2], TypeError)
    assert all(isinstance(answers[at], Solved) for at in (0, 1, 3))


def test_nobody_gives_no_outcomes() -> None:
    assert load_batch([]) == []


def test_tasks_solved_together_are_those_solved_one_by_one(items: list[WorkItem]) -> None:
    both = load(items[4]).rows["loads"]
    one_by_one = [load(with_task(items[4], tasks=(task,))).rows["loads"] for task in (STANDING, FLEXION30)]
    assert [*one_by_one[0], *one_by_one[1]] == both


def test_the_ledger_names_the_worst_reason(items: list[WorkItem]) -> None:
    person = with_task(items[1], demographics=replace(items[1].task.demographics, weight_kg=None), impute=True)
    weak = {"muscle_saturated", "imputed_demographics", "muscle_missing"}
    result = load(with_task(person, tasks=(FLEXION60_5KG,)))
    seen = {row.reason for row in result.rows["quality"]}
    assert len(seen & weak) >= 2
    assert result.reason == min(seen, key=WORST_FIRST.index)
    assert result.reason != min(seen)


def test_every_reason_of_a_load_has_its_rank() -> None:
    assert set(LOADING_REASONS) - NO_LOADS <= set(WORST_FIRST) <= set(REASONS)
    assert len(set(WORST_FIRST)) == len(WORST_FIRST)


def test_models_without_wrap_surfaces_are_solved_in_batches(base_models: dict[str, Path]) -> None:
    assert exams_at_once(base_models.values()) == BATCH_SIZE
