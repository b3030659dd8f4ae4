from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_exams import AXIAL, SAGITTAL

from cohort.archive.pseudonym import Pseudonyms
from cohort.archive.scan import list_files, read_file_row
from cohort.archive.select import Selection, select_series
from cohort.rows import FileRow

CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
T1_TSE: dict[str, Any] = {
    "scanning_sequence": "SE",
    "repetition_time_ms": 560.0,
    "echo_time_ms": 11.0,
    "image_type": "ORIGINAL+PRIMARY+M",
}
T2_TSE = T1_TSE | {"repetition_time_ms": 3500.0, "echo_time_ms": 100.0}
T1_FLAIR = T1_TSE | {"repetition_time_ms": 2100.0, "echo_time_ms": 9.0, "inversion_time_ms": 860.0}
STIR = T1_TSE | {"repetition_time_ms": 600.0, "echo_time_ms": 14.0, "inversion_time_ms": 160.0}
VIBE = T1_TSE | {"scanning_sequence": "GR", "repetition_time_ms": 6.7, "echo_time_ms": 2.4, "flip_angle_deg": 10.0}
IN_PHASE = VIBE | {"image_type": "DERIVED+PRIMARY+DIXON+IN_PHASE", "text_hints": "t1+dixon"}
MEDIC = T1_TSE | {
    "scanning_sequence": "GR",
    "repetition_time_ms": 700.0,
    "echo_time_ms": 17.0,
    "flip_angle_deg": 30.0,
}
SERIAL = itertools.count()


def tilted_axial(degrees: float) -> tuple[float, ...]:
    angle = np.deg2rad(degrees)
    return (1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(-np.sin(angle)))


def series(
    name: str,
    *,
    n: int,
    orientation: tuple[float, ...] = SAGITTAL,
    gap: float = 4.0,
    first: float = 0.0,
    **columns: Any,
) -> list[FileRow]:
    normal = np.cross(orientation[:3], orientation[3:])
    given: dict[str, Any] = {"row_spacing_mm": 0.7, "column_spacing_mm": 0.7, "thickness_mm": 4.0, **columns}
    return [
        FileRow(
            file_id=f"file{next(SERIAL)}",
            size_bytes=1,
            mtime_ns=1,
            exam_id="exam",
            series_id=name,
            instance_id=f"{name}-{first}-{k}-{columns.get('echo_time_ms')}",
            position_mm=((first + k * gap) * normal).tolist(),
            orientation=list(orientation),
            rows=512,
            columns=512,
            **given,
        )
        for k in range(n)
    ]


def reasons(selection: Selection) -> dict[str, str]:
    return {row.series_id: row.reason for row in selection.series}


def test_the_usual_exam() -> None:
    rows = [
        *series("localiser", n=3, image_type="ORIGINAL+PRIMARY+LOCALIZER", repetition_time_ms=5.0, echo_time_ms=2.0),
        *series("sag_t1", n=15, **T1_TSE),
        *series("sag_t2", n=15, **T2_TSE),
        *series("sag_stir", n=15, **STIR),
        *series("sag_t1_fs", n=15, **T1_TSE, text_hints="t1+fatsat"),
        *series("sag_t1_gd", n=15, **T1_TSE, text_hints="t1+post_contrast"),
        *series("cor_t1", n=15, orientation=CORONAL, **T1_TSE),
        *series("ax_t1", n=25, orientation=AXIAL, **T1_TSE),
        *series("ax_t2", n=25, orientation=AXIAL, **T2_TSE),
        *series("ax_medic", n=25, orientation=AXIAL, **MEDIC),
        *series("reformat", n=25, orientation=AXIAL, **(T1_TSE | {"image_type": "DERIVED+SECONDARY+MPR"})),
    ]
    selection = select_series(rows)
    assert (selection.sagittal_series_id, selection.axial_series_id, selection.reason) == ("sag_t1", "ax_t1", None)
    assert reasons(selection) == {
        "localiser": "localiser",
        "sag_t1": "chosen",
        "sag_t2": "not_t1",
        "sag_stir": "fat_suppressed",
        "sag_t1_fs": "fat_suppressed",
        "sag_t1_gd": "post_contrast",
        "cor_t1": "wrong_plane",
        "ax_t1": "chosen",
        "ax_t2": "not_t1",
        "ax_medic": "not_t1",
        "reformat": "derived",
    }
    chosen = {row.series_id: row for row in selection.series}["ax_t1"]
    assert (chosen.role, chosen.plane, chosen.n_files, chosen.n_stacks) == ("axial_t1", "axial", 25, 1)


def test_order_of_the_rows_does_not_matter() -> None:
    rows = [*series("a", n=15, **T1_TSE), *series("b", n=15, **T1_TSE), *series("c", n=20, orientation=AXIAL, **VIBE)]
    assert select_series(rows) == select_series(rows[::-1])


def test_one_oblique_stack_per_disc_is_axial() -> None:
    rows = [
        row
        for k, tilt in enumerate((-12.0, -5.0, 4.0, 15.0, 34.0))
        for row in series("ax", n=4, orientation=tilted_axial(tilt), first=-35.0 * k, **T1_TSE)
    ]
    (row,) = select_series(rows).series
    assert (row.plane, row.n_stacks, row.reason) == ("axial", 5, "chosen")


def test_slices_of_several_planes_in_one_series_are_a_localiser_or_of_the_wrong_plane() -> None:
    rows = [*series("mixed", n=5, **T1_TSE), *series("mixed", n=5, orientation=AXIAL, first=50.0, **T1_TSE)]
    (row,) = select_series(rows).series
    assert (row.plane, row.reason) == ("mixed", "wrong_plane")


@pytest.mark.parametrize(("tilt", "plane"), [(34.0, "axial"), (40.0, "oblique"), (80.0, "coronal")])
def test_limit_of_obliqueness(tilt: float, plane: str) -> None:
    (row,) = select_series(series("ax", n=10, orientation=tilted_axial(tilt), **T1_TSE)).series
    assert row.plane == plane


@pytest.mark.parametrize("weighting", [T1_TSE, T1_FLAIR, VIBE, IN_PHASE, {"text_hints": "t1"}])
def test_t1_weighted_sequences_are_accepted(weighting: dict[str, Any]) -> None:
    assert reasons(select_series(series("a", n=15, **weighting))) == {"a": "chosen"}


@pytest.mark.parametrize(
    ("weighting", "reason"),
    [
        ({}, "not_t1"),
        ({"text_hints": "t1+t2"}, "not_t1"),
        (T1_TSE | {"repetition_time_ms": 2500.0}, "not_t1"),
        (T1_TSE | {"scanning_sequence": "EP"}, "not_t1"),
        (VIBE | {"text_hints": "balanced"}, "not_t1"),
        (VIBE | {"text_hints": "angiography"}, "not_t1"),
        (VIBE | {"text_hints": "t1+dixon+water"}, "fat_suppressed"),
        (VIBE | {"text_hints": "t1+dixon+fat"}, "derived"),
        (VIBE | {"text_hints": "t1+dixon+out_of_phase"}, "not_t1"),
        (VIBE | {"image_type": "ORIGINAL+PRIMARY+M+OPP_PHASE"}, "not_t1"),
        (VIBE | {"image_type": "ORIGINAL+PRIMARY+M+WATER"}, "fat_suppressed"),
        (T1_TSE | {"image_type": "DERIVED+PRIMARY+T1_MAP"}, "derived"),
        (T1_TSE | {"row_spacing_mm": 2.5}, "localiser"),
    ],
)
def test_other_images_are_not(weighting: dict[str, Any], reason: str) -> None:
    selection = select_series(series("a", n=15, **weighting))
    assert reasons(selection) == {"a": reason}
    assert selection.reason == "no_t1_sagittal"
    assert selection.series[0].score == 0


def test_spin_echo_wins_over_gradient_echo_and_more_slices_over_a_repetition() -> None:
    rows = [
        *series("gradient", n=15, **VIBE),
        *series("first", n=14, **T1_TSE),
        *series("second", n=15, **T1_TSE),
        *series("third", n=15, **T1_TSE),
    ]
    assert select_series(rows).sagittal_series_id == "second"


def test_other_kinds_of_equal_score_are_ambiguous() -> None:
    rows = [
        *series("spin_echo", n=6, **T1_TSE),
        *series("inversion_recovery", n=15, **T1_FLAIR, text_hints="t1"),
        *series("axial", n=20, orientation=AXIAL, **T1_TSE),
    ]
    selection = select_series(rows)
    assert selection.sagittal_series_id is None
    assert selection.axial_series_id == "axial"
    assert selection.reason == "ambiguous"
    assert reasons(selection)["spin_echo"] == reasons(selection)["inversion_recovery"] == "ambiguous"


def test_lumbar_series_of_a_whole_spine_exam_is_chosen() -> None:
    rows = [
        *series("neck", n=15, **T1_TSE, text_hints="t1+cervical"),
        *series("chest", n=17, **T1_TSE, text_hints="t1+thoracic"),
        *series("lumbar", n=11, **T1_TSE, text_hints="t1+lumbar"),
    ]
    assert select_series(rows).sagittal_series_id == "lumbar"


def test_few_slices_two_echoes_and_unusable_files_have_their_reason() -> None:
    enhanced = FileRow(
        file_id="e", size_bytes=1, mtime_ns=1, exam_id="exam", series_id="enhanced", reason="enhanced_unsupported"
    )
    rows = [
        *series("few", n=4, **T1_TSE),
        *series("echoes", n=10, orientation=AXIAL, **VIBE),
        *series("echoes", n=10, orientation=AXIAL, **(VIBE | {"echo_time_ms": 4.8})),
        enhanced,
    ]
    selection = select_series(rows)
    assert reasons(selection) == {
        "few": "too_few_slices",
        "echoes": "inconsistent_series",
        "enhanced": "enhanced_unsupported",
    }
    assert selection.reason == "no_t1_sagittal"


def test_copies_of_files_count_once() -> None:
    rows = series("a", n=4, **T1_TSE)
    assert reasons(select_series(rows + rows)) == {"a": "too_few_slices"}


def test_without_axial_series_the_sagittal_one_is_chosen() -> None:
    selection = select_series(series("a", n=15, **T1_TSE))
    assert (selection.sagittal_series_id, selection.axial_series_id) == ("a", None)
    assert selection.reason == "no_t1_axial"


def test_no_rows_no_series() -> None:
    assert select_series([]) == Selection([], None, None, "no_t1_sagittal")


def test_both_series_of_the_real_exam_are_chosen(real_data: Path) -> None:
    root = real_data / "real_exam" / "dicom"
    pseudonyms = Pseudonyms(bytes(32))
    rows = {found[0]: read_file_row(root, *found, pseudonyms) for found in list_files(root)}
    selection = select_series(list(rows.values()))
    assert selection.reason is None
    assert selection.sagittal_series_id == rows["sagittal_t1/IM0001.dcm"].series_id
    assert selection.axial_series_id == rows["axial_inphase/IM0001.dcm"].series_id
    assert [
        (row.plane, row.n_files, row.n_stacks) for row in sorted(selection.series, key=lambda row: row.n_files)
    ] == [
        ("sagittal", 15, 1),
        ("axial", 29, 1),
    ]
