"""What the loads of an exam rest on, and whom the base models do not fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cohort.archive.demographics import Demographics
from cohort.errors import RefusedError
from cohort.loading.assumptions import Personalisation
from cohort.loading.base_model import BaseModel, read_base_model
from cohort.rows import MuscleLevelRow, QualityRow, VertebraRow
from models.musculoskeletal.build import build_base_model
from pipelines.load import impute_demographics, loading_subject

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
    subject, doubts = loading_subject("e", SOMEBODY, rows(USUAL))
    assert set(subject.vertebra_centroids_mm) == set(USUAL)
    assert doubts == ()


def test_names_of_low_confidence_make_the_loads_doubtful() -> None:
    assert loading_subject("e", SOMEBODY, rows(USUAL, confidence=0.7))[1] == ("upstream_untrusted",)


def test_areas_and_centroids_of_muscles_are_passed_on() -> None:
    found = {**rows(USUAL), "muscle_levels": [muscle("flagged"), muscle("refused", side="right")]}
    subject, doubts = loading_subject("e", SOMEBODY, found)
    key = ("psoas", "left", "L3-L4")
    assert (dict(subject.csa_cm2), dict(subject.muscle_centroids_mm)) == ({key: 12.0}, {key: (40.0, 5.0, 70.0)})
    assert doubts == ("upstream_untrusted",)


def test_doubts_about_what_is_not_used_do_not_count() -> None:
    found = {**rows(USUAL), "muscle_levels": [muscle("flagged")]}
    use = Personalisation(strength=False, position=False)
    assert loading_subject("e", SOMEBODY, found, use=use)[1] == ()


@pytest.mark.parametrize("missing", [{"height_m": None}, {"weight_kg": None}, {"sex": None}])
def test_unknown_people_get_no_loads(missing: dict[str, None]) -> None:
    with pytest.raises(RefusedError, match=next(iter(missing))) as error:
        loading_subject("e", replace(SOMEBODY, **missing), rows(USUAL))
    assert error.value.reason == "no_demographics"


def test_a_typical_height_and_mass_stand_in_where_the_configuration_says_so(base: BaseModel) -> None:
    subject, _ = loading_subject(
        "e", impute_demographics(replace(SOMEBODY, height_m=None, height_source=None), base), rows(USUAL)
    )
    assert (subject.height_m, subject.height_source, subject.mass_source) == (base.height_m, "imputed", "measured")
    subject, _ = loading_subject(
        "e", impute_demographics(replace(SOMEBODY, weight_kg=None, weight_source=None), base), rows(USUAL)
    )
    index = base.total_mass_kg / base.height_m**2
    assert (subject.height_source, subject.mass_source) == ("measured", "imputed")
    assert subject.mass_kg == pytest.approx(index * 1.65**2)
    assert impute_demographics(SOMEBODY, base) == SOMEBODY


@pytest.mark.parametrize(
    ("reason", "structure", "doubts"),
    [
        ("network_uncertain", "vertebral_body", ("upstream_untrusted",)),
        ("count_mismatch", "disc", ("upstream_untrusted",)),
        ("pieces_joined", "disc", ()),
        ("size_jump", "T11", ()),
    ],
)
def test_doubts_about_a_whole_mask_make_the_loads_doubtful(
    reason: str, structure: str, doubts: tuple[str, ...]
) -> None:
    flag = QualityRow(exam_id="e", stage="measure", reason=reason, structure=structure)
    assert loading_subject("e", SOMEBODY, {**rows(USUAL), "quality": [flag]})[1] == doubts


@pytest.mark.parametrize(
    ("reason", "structure", "doubts"),
    [
        ("network_uncertain", "psoas", ("upstream_untrusted",)),
        ("network_uncertain", "quadratus_lumborum", ()),
        ("low_contrast", "axial stack 0", ("upstream_untrusted",)),
        ("low_contrast", "axial stack 1", ()),
        ("axial_conflict", "multifidus", ("upstream_untrusted",)),
    ],
)
def test_doubts_about_muscles_and_stacks_count_where_these_are_used(
    reason: str, structure: str, doubts: tuple[str, ...]
) -> None:
    flag = QualityRow(exam_id="e", stage="measure", reason=reason, structure=structure)
    found = {**rows(USUAL), "muscle_levels": [muscle("ok")], "quality": [flag]}
    assert loading_subject("e", SOMEBODY, found)[1] == doubts


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
        loading_subject("e", SOMEBODY, rows(names))
    assert error.value.reason == "lumbar_variant"
