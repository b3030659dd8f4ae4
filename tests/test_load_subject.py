"""What the loads of an exam rest on, and whom the base models do not fit."""

from __future__ import annotations

from typing import Any

import pytest

from cohort.archive.demographics import Demographics
from cohort.errors import RefusedError
from cohort.rows import QualityRow, VertebraRow
from pipelines.load import loading_subject

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


def test_usual_vertebrae_personalise_the_model() -> None:
    subject, doubts = loading_subject("e", SOMEBODY, rows(USUAL))
    assert set(subject.vertebra_centroids_mm) == set(USUAL)
    assert doubts == ()


def test_names_of_low_confidence_make_the_loads_doubtful() -> None:
    assert loading_subject("e", SOMEBODY, rows(USUAL, confidence=0.7))[1] == ("upstream_untrusted",)


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
