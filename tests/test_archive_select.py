"""Rules of the selection: parts of series, planes, limits, ties, and the reason of everything that is not chosen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mri_rows import gradient_echo, inversion, series, spin_echo

from cohort.archive.candidates import SelectRules
from cohort.archive.listing import list_files
from cohort.archive.parts import split_parts
from cohort.archive.pseudonym import Pseudonyms
from cohort.archive.scan import read_file_rows
from cohort.archive.select import Selection, select_series
from cohort.reasons import REASONS
from cohort.rows import FileRow

T1 = spin_echo(560, 11)
T2 = spin_echo(3500, 100)
FLAIR = inversion(2100, 9, 860)
VIBE = gradient_echo(6.7, 2.4, 12, field_t=3.0)


def reasons(selection: Selection) -> dict[str, str]:
    return {row.series_id: row.reason for row in selection.series}


def parts(rows: list[FileRow]) -> list[int]:
    """Slices of each part."""
    return [part.n_slices for part in split_parts(rows)]


def test_order_of_the_rows_does_not_matter() -> None:
    rows = [
        *series("a", n=15, **T1),
        *series("b", n=15, **T1),
        *series("c", n=20, plane="axial", **VIBE),
        *series("c", n=20, plane="axial", image_type="DERIVED\\PRIMARY\\DIXON\\WATER", **VIBE),
    ]
    assert select_series(rows) == select_series(rows[::-1])


def test_slices_of_several_planes_in_one_series_are_of_no_plane() -> None:
    (row,) = select_series([*series("mixed", n=5, **T1), *series("mixed", n=5, plane="axial", **T1)]).series
    assert (row.plane, row.reason) == ("mixed", "wrong_plane")


@pytest.mark.parametrize(("tilt", "plane"), [(34.0, "axial"), (-34.0, "axial"), (40.0, "oblique"), (80.0, "coronal")])
def test_limit_of_obliqueness(tilt: float, plane: str) -> None:
    (row,) = select_series(series("ax", n=10, plane="axial", tilt_deg=tilt, **T1)).series
    assert row.plane == plane


@given(st.permutations(range(20)), st.floats(-30, 30))
def test_one_plain_series_is_one_part_wherever_it_lies(order: list[int], tilt: float) -> None:
    rows = series("a", n=20, plane="axial", tilt_deg=tilt, centre=(3.3, -17.77, 1.05), **T1)
    (row,) = select_series([rows[k] for k in order]).series
    assert (row.part, row.n_slices, row.n_stacks, row.reason) == (0, 20, 1, "chosen")


@pytest.mark.parametrize(
    ("physics", "kind"),
    [
        (T1, "spin_echo"),
        (spin_echo(990, 20, field_t=3.0), "spin_echo"),
        (FLAIR, "inversion_recovery"),
        (VIBE, "gradient_echo"),
        (gradient_echo(170, 4.8, 75), "gradient_echo"),
        (gradient_echo(6.7, 2.4, 12, inversion_time_ms=160.0), "gradient_echo"),
        (VIBE | {"scanning_sequence": "SE"}, "gradient_echo"),
        (VIBE | {"description": "t1 in phase"}, "in_phase"),
        (gradient_echo(1900, 2.5, 9, inversion_time_ms=900.0), "inversion_recovery"),
        ({"description": "t1"}, "described"),
    ],
)
def test_t1_weighted_sequences_are_accepted(physics: dict[str, Any], kind: str) -> None:
    selection = select_series(series("a", n=15, **physics))
    assert reasons(selection) == {"a": "chosen"}
    assert (selection.series[0].weighting, selection.series[0].kind) == ("t1", kind)
    assert selection.series[0].score > 0


@pytest.mark.parametrize(
    ("physics", "reason"),
    [
        ({}, "weighting_unknown"),
        (spin_echo(2500, 11), "not_t1"),
        (spin_echo(1250, 11), "not_t1"),
        (spin_echo(560, 45), "not_t1"),
        (T2 | {"description": "T1"}, "not_t1"),
        (T1 | {"scanning_sequence": "SE+EP"}, "not_t1"),
        (gradient_echo(6.7, 2.4, 4), "not_t1"),
        (gradient_echo(600, 8, 30), "not_t1"),
        (VIBE | {"description": "*tfi2d1"}, "not_t1"),
        (VIBE | {"description": "bFFE"}, "not_t1"),
        (VIBE | {"description": "TOF"}, "not_t1"),
        (inversion(600, 14, 160), "fat_suppressed"),
        (T1 | {"options": "PFP\\FS"}, "fat_suppressed"),
        (T1 | {"description": "T1 SPAIR"}, "fat_suppressed"),
        (T1 | {"pixel": 2.5, "size": 128}, "localiser"),
        (T1 | {"plane": "coronal"}, "wrong_plane"),
        (VIBE | {"image_type": "ORIGINAL\\PRIMARY\\M\\OUT_OF_PHASE"}, "dixon_part"),
    ],
)
def test_other_images_are_not(physics: dict[str, Any], reason: str) -> None:
    selection = select_series(series("a", n=15, **physics))
    assert reasons(selection) == {"a": reason}
    assert (selection.sagittal, selection.sagittal_reason) == (None, "no_t1_sagittal")
    assert selection.series[0].score == 0
    assert reason in REASONS


def test_spin_echo_wins_over_gradient_echo_and_more_slices_over_a_repetition() -> None:
    rows = [
        *series("gradient", n=15, **VIBE),
        *series("first", n=14, **T1),
        *series("second", n=15, **T1),
        *series("third", n=15, **T1),
    ]
    selection = select_series(rows)
    assert selection.sagittal is not None
    assert (selection.sagittal.series_id, selection.sagittal.runner_up_id) == ("second", "first")


def test_other_kinds_of_equal_score_are_ambiguous() -> None:
    rows = [
        *series("spin_echo", n=6, **T1),
        *series("inversion_recovery", n=15, description="t1", **FLAIR),
        *series("gradient_echo", n=15, **VIBE),
        *series("axial", n=20, plane="axial", **T1),
    ]
    selection = select_series(rows)
    assert (selection.sagittal, selection.sagittal_reason, selection.axial_reason) == (None, "ambiguous", None)
    assert reasons(selection) == {
        "spin_echo": "ambiguous",
        "inversion_recovery": "ambiguous",
        "gradient_echo": "not_best",
        "axial": "chosen",
    }
    assert all(row.score > 0 for row in selection.series)


def test_harmless_differences_do_not_part_a_series() -> None:
    rows = [
        *series("a", n=5, centre=(-20, 0, 0), gap=4, image_type="ORIGINAL\\PRIMARY\\M\\NORM\\DIS2D", **T1),
        *series("a", n=5, gap=4, image_type="ORIGINAL\\PRIMARY\\M\\ND", **(T1 | {"echo_time_ms": 11.4})),
        *series("a", n=5, centre=(20, 0, 0), gap=4, image_type="", temporal_position=3, **T1),
    ]
    (row,) = select_series(rows).series
    assert (row.n_slices, row.n_stacks, row.reason) == (15, 1, "chosen")


def test_images_at_one_place_are_parted_by_what_tells_them_apart() -> None:
    plain = series("a", n=10, **T1)
    assert parts(plain + series("a", n=10, **(T1 | {"echo_time_ms": 25.0}))) == [10, 10]
    assert parts(plain + series("a", n=10, **T1, inversion_time_ms=400.0)) == [10, 10]
    assert parts(plain + series("a", n=10, image_type="ORIGINAL\\PRIMARY\\M\\ND", **T1)) == [10, 10]
    volumes = [row for k in range(1, 4) for row in series("a", n=10, temporal_position=k, **T1)]
    assert parts(volumes) == [10, 10, 10]
    assert [part.rows[0].temporal_position for part in split_parts(volumes[::-1])] == [1, 2, 3]


def test_the_first_of_several_volumes_is_chosen_and_the_runner_up_is_another_part() -> None:
    volumes = [row for k in range(1, 4) for row in series("a", n=20, plane="axial", temporal_position=k, **VIBE)]
    choice = select_series(volumes).axial
    assert choice is not None
    assert (choice.part, choice.runner_up_id, len(choice.rows)) == (0, "a", 20)
    assert {row.temporal_position for row in choice.rows} == {1}


def test_the_shortest_of_several_spin_echoes_is_chosen() -> None:
    echoes = [row for te in (24.0, 8.0, 16.0) for row in series("a", n=15, **(T1 | {"echo_time_ms": te}))]
    choice = select_series(echoes).sagittal
    assert choice is not None
    assert {row.echo_time_ms for row in choice.rows} == {8.0}


def test_other_patient_positions_are_not_one_place() -> None:
    moved = series("a", n=10, frame_of_reference_id="moved", **(T1 | {"echo_time_ms": 12.0}))
    (part,) = split_parts(series("a", n=10, **T1) + moved)
    assert (part.n_slices, part.overlaps) == (20, False)


def test_acquisitions_of_other_times_in_one_series_are_no_series() -> None:
    rows = [*series("a", n=10, **T1), *series("a", n=10, centre=(60, 0, 0), **T2)]
    assert reasons(select_series(rows)) == {"a": "inconsistent_series"}


def test_copies_of_files_count_once_and_are_all_read() -> None:
    rows = series("a", n=4, **T1)
    copies = [replace(row, file_id=f"copy-{row.file_id}") for row in rows]
    assert reasons(select_series(rows + copies)) == {"a": "too_few_slices"}
    rows = series("a", n=10, **T1)
    copies = [replace(row, file_id=f"copy-{row.file_id}") for row in rows]
    selection = select_series(rows + copies)
    assert selection.series[0].n_slices == 10
    assert selection.sagittal is not None
    assert len(selection.sagittal.rows) == 20


def test_images_that_nothing_tells_apart_lose_to_a_clean_series() -> None:
    rows = [*series("a", n=15, **T1), *series("a", n=15, **T1), *series("b", n=11, **T1)]
    assert reasons(select_series(rows)) == {"a": "not_best", "b": "chosen"}


def test_truncated_files_go_with_their_part_to_conversion() -> None:
    water = series("a", n=15, image_type="DERIVED\\PRIMARY\\DIXON\\WATER", **T1)
    in_phase = series("a", n=15, image_type="DERIVED\\PRIMARY\\DIXON\\IN_PHASE", **T1)
    cut = [replace(row, reason="truncated") for row in (in_phase[3], water[3])]
    rows = [row for row in water + in_phase if row.instance_id not in {one.instance_id for one in cut}]
    choice = select_series(rows + cut).sagittal
    assert choice is not None
    assert [row.reason for row in choice.rows].count("truncated") == 1
    assert {row.image_type for row in choice.rows} == {"DERIVED+PRIMARY+DIXON+IN_PHASE"}
    assert select_series(rows + cut).series[0].n_slices == 14


def test_series_without_a_usable_image_have_the_most_frequent_reason() -> None:
    rows = [
        *(replace(row, reason="truncated") for row in series("cut", n=5, **T1)),
        *(replace(row, reason="mosaic") for row in series("tiles", n=5, **T1)),
        *(replace(row, reason="truncated", position_mm=None) for row in series("tiles", n=2, **T1)),
    ]
    selection = select_series(rows)
    assert reasons(selection) == {"cut": "truncated", "tiles": "mosaic"}
    assert [(row.part, row.n_slices) for row in selection.series] == [(0, 0), (0, 0)]


def test_lossy_images_are_derived_but_keep_their_physics() -> None:
    lossy = series("lossy", n=15, image_type="DERIVED\\PRIMARY\\M", **T1)
    assert reasons(select_series(lossy)) == {"lossy": "chosen"}
    plain = series("plain", n=11, image_type="ORIGINAL\\PRIMARY\\M", **T1)
    assert reasons(select_series(lossy + plain)) == {"lossy": "not_best", "plain": "chosen"}


@pytest.mark.parametrize("absurd", [1e300, -1e18])
def test_absurd_numbers_end_as_a_row(absurd: float) -> None:
    rows = [replace(row, position_mm=[absurd, absurd, absurd]) for row in series("a", n=15, **T1)]
    wide = [replace(row, row_spacing_mm=abs(absurd)) for row in series("b", n=15, **T1)]
    assert {row.reason for row in select_series(rows + wide).series} == {"too_few_slices", "localiser"}
    echoes = [replace(row, echo_time_ms=11.0 + 8 * (k % 2)) for k, row in enumerate(rows)]
    assert {row.reason for row in select_series(echoes).series} == {"too_few_slices"}


def test_without_axial_series_the_sagittal_one_is_chosen() -> None:
    selection = select_series(series("a", n=15, **T1))
    assert selection.sagittal is not None
    assert (selection.sagittal.runner_up_id, selection.sagittal.runner_up_score) == (None, None)
    assert (selection.sagittal_reason, selection.axial, selection.axial_reason) == (None, None, "no_t1_axial")


def test_no_rows_no_series() -> None:
    assert select_series([], SelectRules()) == Selection([], None, None, "no_t1_sagittal", "no_t1_axial")


def test_both_series_of_the_real_exam_are_chosen(real_data: Path) -> None:
    root = real_data / "real_exam" / "dicom"
    pseudonyms = Pseudonyms(bytes(32))
    found = {one[0]: read_file_rows(root, *one, pseudonyms) for one in list_files(root)}
    selection = select_series([row for rows in found.values() for row in rows])
    assert (selection.sagittal_reason, selection.axial_reason) == (None, None)
    choices = {"sagittal_t1": selection.sagittal, "axial_inphase": selection.axial}
    for folder, choice in choices.items():
        assert choice is not None
        assert choice.series_id == found[f"{folder}/IM0001.dcm"][0].series_id
    rows = sorted(selection.series, key=lambda row: row.n_slices)
    assert [(row.plane, row.n_slices, row.n_stacks) for row in rows] == [("sagittal", 15, 1), ("axial", 29, 1)]
    strict = select_series([row for rows in found.values() for row in rows], SelectRules(accept_in_phase=False))
    assert strict.axial is None
