"""What the loads of an exam rest on, and whom the base models do not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from cohort.archive.demographics import Demographics
from cohort.errors import RefusedError
from cohort.loading.assumptions import Personalisation
from cohort.loading.base_model import BaseModel, read_base_model
from cohort.loading.tasks import STANDING
from cohort.rows import LoadRow, MuscleLevelRow, QualityRow, VertebraRow
from models.musculoskeletal.build import build_base_model
from pipelines.load import UPSTREAM_LIMIT, LoadTask, load
from pipelines.loading_inputs import impute_demographics, loading_inputs
from pipelines.measure import write_rows
from pipelines.outcome import WorkItem

Solve = Callable[[dict[str, list[Any]]], list[LoadRow]]

SOMEBODY = Demographics("F", "dicom", 50.0, "dicom", 1.65, "dicom", 70.0, "dicom")
USUAL = ("S1", "L5", "L4", "L3", "L2", "L1", "T12")


def rows(names: tuple[str, ...], *, confidence: float = 0.92) -> dict[str, list[Any]]:
    vertebrae = [
        VertebraRow(
            exam_id="e", ordinal=k, level=name, level_confidence=confidence, level_evidence="", x_mm=0.0, y_mm=0.0,
            z_mm=37.0 * k, volume_cm3=30.0, slices_seen=9, slices_expected=9, touches_border=False, status="ok",
        )
        for k, name in enumerate(names)
    ]  # fmt: skip
    return {"vertebrae": vertebrae, "discs": [], "muscle_levels": [], "quality": []}


def muscle(status: str, side: str = "left") -> MuscleLevelRow:
    return MuscleLevelRow(
        exam_id="e", level="L3-L4", muscle="psoas", side=side, stack=0, slice=3, distance_mm=1.0, angle_deg=4.0,
        csa_cm2=12.0, csa_corrected_cm2=12.0, x_mm=40.0, y_mm=5.0, z_mm=70.0, status=status,
    )  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return read_base_model(build_base_model("female", tmp_path_factory.mktemp("models") / "female.osim"))


def test_usual_vertebrae_personalise_the_model() -> None:
    inputs = loading_inputs("e", SOMEBODY, rows(USUAL))
    assert set(inputs.subject.vertebra_centroids_mm) == set(USUAL)
    assert (inputs.without_doubted, inputs.doubted) == (None, False)


def test_names_of_low_confidence_make_the_loads_doubtful() -> None:
    assert loading_inputs("e", SOMEBODY, rows(USUAL, confidence=0.7)).doubted


def test_areas_and_centroids_of_muscles_are_passed_on() -> None:
    found = {**rows(USUAL), "muscle_levels": [muscle("flagged"), muscle("refused", side="right")]}
    subject = loading_inputs("e", SOMEBODY, found).subject
    key = ("psoas", "left", "L3-L4")
    assert (dict(subject.csa_cm2), dict(subject.muscle_centroids_mm)) == ({key: 12.0}, {key: (40.0, 5.0, 70.0)})


def test_what_is_flagged_itself_is_left_out_for_comparison() -> None:
    found = {**rows(USUAL), "muscle_levels": [muscle("flagged"), muscle("ok", side="right")]}
    found["vertebrae"][3] = replace(found["vertebrae"][3], status="flagged")
    inputs = loading_inputs("e", SOMEBODY, found)
    assert inputs.without_doubted is not None
    assert set(inputs.without_doubted.csa_cm2) == {("psoas", "right", "L3-L4")}
    assert set(inputs.without_doubted.vertebra_centroids_mm) == set(USUAL) - {"L3"}
    assert len(inputs.subject.csa_cm2) == 2
    assert not inputs.doubted


def test_doubts_about_what_is_not_used_do_not_count() -> None:
    found = {**rows(USUAL), "muscle_levels": [muscle("flagged")]}
    use = Personalisation(strength=False, position=False)
    assert loading_inputs("e", SOMEBODY, found, use=use).without_doubted is None


@pytest.mark.parametrize("missing", [{"height_m": None}, {"weight_kg": None}, {"sex": None}])
def test_unknown_people_get_no_loads(missing: dict[str, None]) -> None:
    with pytest.raises(RefusedError, match=next(iter(missing))) as error:
        loading_inputs("e", replace(SOMEBODY, **missing), rows(USUAL))
    assert error.value.reason == "no_demographics"


def test_a_typical_height_and_mass_stand_in_where_the_configuration_says_so(base: BaseModel) -> None:
    known = impute_demographics(replace(SOMEBODY, height_m=None, height_source=None), base)
    subject = loading_inputs("e", known, rows(USUAL)).subject
    assert (subject.height_m, subject.height_source, subject.mass_source) == (base.height_m, "imputed", "measured")
    known = impute_demographics(replace(SOMEBODY, weight_kg=None, weight_source=None), base)
    subject = loading_inputs("e", known, rows(USUAL)).subject
    index = base.total_mass_kg / base.height_m**2
    assert (subject.height_source, subject.mass_source) == ("measured", "imputed")
    assert subject.mass_kg == pytest.approx(index * 1.65**2)
    assert impute_demographics(SOMEBODY, base) == SOMEBODY


@pytest.mark.parametrize(
    ("reason", "structure", "doubted"),
    [
        ("network_uncertain", "vertebral_body", True),
        ("count_mismatch", "disc", True),
        ("axial_conflict", "multifidus", True),
        ("pieces_joined", "disc", False),
        ("size_jump", "T11", False),
        ("network_uncertain", "psoas", False),
    ],
)
def test_doubts_about_names_and_masks_of_the_spine_make_the_loads_doubtful(
    reason: str, structure: str, doubted: bool
) -> None:
    flag = QualityRow(exam_id="e", stage="measure", reason=reason, structure=structure)
    assert loading_inputs("e", SOMEBODY, {**rows(USUAL), "quality": [flag]}).doubted == doubted


@pytest.mark.parametrize(
    ("reason", "structure", "left_out"),
    [
        ("network_uncertain", "psoas", True),
        ("network_uncertain", "quadratus_lumborum", False),
        ("low_contrast", "axial stack 0", True),
        ("low_contrast", "axial stack 1", False),
    ],
)
def test_muscles_with_a_doubtful_mask_or_stack_are_left_out_for_comparison(
    reason: str, structure: str, left_out: bool
) -> None:
    flag = QualityRow(exam_id="e", stage="measure", reason=reason, structure=structure)
    inputs = loading_inputs("e", SOMEBODY, {**rows(USUAL), "muscle_levels": [muscle("ok")], "quality": [flag]})
    assert not inputs.doubted
    assert (inputs.without_doubted is not None) == left_out


@pytest.fixture(scope="module")
def loads_of(base: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> Solve:
    """Loads of an exam with these measured rows, standing."""
    store = tmp_path_factory.mktemp("store")
    task = LoadTask(
        store=store, measured_path="measured.json", demographics=SOMEBODY, tasks=(STANDING,),
        base_models={"F": base.osim_path}, with_opensim=False, opensim_timeout_s=60.0,
    )  # fmt: skip

    def solve(measured: dict[str, list[Any]]) -> list[LoadRow]:
        write_rows(store / "measured.json", measured)
        return list(load(WorkItem("e", "load", "f" * 64, task)).rows["loads"])

    return solve


def test_a_flagged_area_that_moves_no_load_flags_none(loads_of: Solve) -> None:
    for row in loads_of({**rows(USUAL), "muscle_levels": [muscle("flagged"), muscle("ok", side="right")]}):
        assert row.change_without_doubted is not None
        assert abs(row.change_without_doubted) <= UPSTREAM_LIMIT
        assert "upstream_untrusted" not in (row.reasons or "")


def test_a_flagged_vertebra_that_moves_loads_flags_those(loads_of: Solve) -> None:
    found = rows(USUAL)
    found["vertebrae"][2] = replace(found["vertebrae"][2], y_mm=-9.0, status="flagged")
    loads = loads_of(found)
    for row in loads:
        assert row.change_without_doubted is not None
        moved = abs(row.change_without_doubted) > UPSTREAM_LIMIT
        assert moved == ("upstream_untrusted" in (row.reasons or ""))
    assert any("upstream_untrusted" in (row.reasons or "") for row in loads)


@pytest.mark.parametrize(
    "names",
    [
        ("S1", "L6", "L5", "L4", "L3", "L2", "L1"),
        ("S1", "L4", "L3", "L2", "L1", "T12"),
        ("S1", "L5", "L4", "L3", "L2", "L1", "T13"),
    ],
)
def test_a_person_with_other_vertebrae_than_the_base_models_gets_no_loads(names: tuple[str, ...]) -> None:
    with pytest.raises(RefusedError, match="five lumbar") as error:
        loading_inputs("e", SOMEBODY, rows(names))
    assert error.value.reason == "lumbar_variant"
