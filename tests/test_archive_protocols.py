"""Clinical lumbar protocols of several vendors and field strengths: what is chosen, and why nothing else is.

Times and geometry are those usual in clinics; descriptions and image types are written as the scanners write them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from mri_rows import gradient_echo, inversion, series, spin_echo

from cohort.archive.candidates import SelectRules
from cohort.archive.select import Selection, select_series
from cohort.rows import FileRow

SIEMENS = "ORIGINAL\\PRIMARY\\M\\NORM\\DIS2D"
PHILIPS = "ORIGINAL\\PRIMARY\\M_SE\\M\\SE"
GE = "ORIGINAL\\PRIMARY\\OTHER"
DIXON = "DERIVED\\PRIMARY\\DIXON\\{}\\NORM\\DIS2D"

Part = tuple[str, int]


def reasons(selection: Selection) -> dict[str | Part, str]:
    """Reason of each series, or of each part where there are several."""
    names = [row.series_id for row in selection.series]
    return {
        row.series_id if names.count(row.series_id) == 1 else (row.series_id, row.part): row.reason
        for row in selection.series
    }


def chosen(selection: Selection) -> tuple[str | None, str | None]:
    """Chosen sagittal and axial series."""
    choices = (selection.sagittal, selection.axial)
    sagittal, axial = (choice.series_id if choice else None for choice in choices)
    return sagittal, axial


def per_disc(name: str, *, n: int = 5, **columns: Any) -> list[FileRow]:
    """One oblique axial stack per disc, L1-L2 to L5-S1."""
    return [
        row
        for k, tilt in enumerate((-12.0, -6.0, 0.0, 12.0, 30.0))
        for row in series(name, n=n, plane="axial", tilt_deg=tilt, centre=(0, 0, 70 - 35 * k), pixel=0.5, **columns)
    ]


def localiser(name: str, **columns: Any) -> list[FileRow]:
    """Three planes of five thick slices."""
    return [
        row
        for plane in ("sagittal", "coronal", "axial")
        for row in series(name, n=5, plane=plane, gap=20, pixel=0.9, thickness_mm=8.0, **columns)
    ]


def test_siemens_1_5_t_with_oblique_axial_stacks() -> None:
    rows = [
        *localiser("loc", description="localizer", image_type=SIEMENS, **gradient_echo(7.8, 3.7, 20)),
        *series("t2", n=15, description="t2_tse_sag_384", image_type=SIEMENS, **spin_echo(3800, 105)),
        *series("t1", n=15, description="t1_tse_sag_384", image_type=SIEMENS, **spin_echo(560, 11)),
        *series("stir", n=15, description="t2_tirm_sag", image_type=SIEMENS, **inversion(4000, 60, 160)),
        *per_disc("t2_tra", description="t2_tse_tra", image_type=SIEMENS, **spin_echo(4200, 110)),
        *per_disc("t1_tra", description="t1_tse_tra", image_type=SIEMENS, **spin_echo(620, 12)),
        *per_disc("medic", description="t2_me2d_tra", image_type=SIEMENS, **gradient_echo(650, 17, 30)),
        *series("mym", n=5, plane="coronal", description="MR-Myelo haste", **spin_echo(8000, 1100)),
    ]
    selection = select_series(rows)
    assert chosen(selection) == ("t1", "t1_tra")
    assert reasons(selection) == {
        "loc": "localiser",
        "t2": "not_t1",
        "t1": "chosen",
        "stir": "fat_suppressed",
        "t2_tra": "not_t1",
        "t1_tra": "chosen",
        "medic": "not_t1",
        "mym": "wrong_plane",
    }
    axial = next(row for row in selection.series if row.series_id == "t1_tra")
    assert (axial.n_slices, axial.n_stacks, axial.weighting, axial.kind) == (25, 5, "t1", "spin_echo")


def test_philips_3_t_with_an_axial_block_and_slightly_different_echo_times() -> None:
    t1 = [
        row
        for k, te in enumerate((8.0, 8.004, 8.0, 8.11))
        for row in series("t1", n=4, centre=(-24 + 16.0 * k, 0, 0), gap=4, image_type=PHILIPS, **spin_echo(580, te))
    ]
    rows = [
        *localiser("survey", description="Survey", image_type="ORIGINAL\\PRIMARY\\M_FFE\\M\\FFE"),
        *t1,
        *series("t2", n=16, image_type=PHILIPS, description="sT2W_TSE", **spin_echo(3100, 100)),
        *series("ax", n=30, plane="axial", image_type=PHILIPS, description="T1W_TSE_TRA", **spin_echo(690, 8)),
        *series("drive", n=30, plane="axial", image_type=PHILIPS, description="T2W_TSE_DRIVE", **spin_echo(1600, 120)),
    ]
    selection = select_series(rows)
    assert chosen(selection) == ("t1", "ax")
    assert reasons(selection) == {
        "survey": "localiser",
        "t1": "chosen",
        "t2": "not_t1",
        "ax": "chosen",
        "drive": "not_t1",
    }


def test_ge_3_t_with_t1_flair_and_water_and_fat_images_of_ideal() -> None:
    flair = inversion(2300, 24, 860, field_t=3.0, image_type=GE, description="Sag T1 FLAIR")
    ideal = spin_echo(620, 12, field_t=3.0)
    rows = [
        *series("flair", n=13, **flair),
        *series("t2", n=13, image_type=GE, description="Sag T2 FRFSE", **spin_echo(3200, 105)),
        *series("water", n=26, plane="axial", description="WATER:Ax T1 FSE IDEAL", **ideal),
        *series("fat", n=26, plane="axial", description="FAT:Ax T1 FSE IDEAL", **ideal),
        *series("in", n=26, plane="axial", description="InPhase:Ax T1 FSE IDEAL", **ideal),
        *series("out", n=26, plane="axial", description="OutPhase:Ax T1 FSE IDEAL", **ideal),
    ]
    selection = select_series(rows)
    assert chosen(selection) == ("flair", "in")
    assert reasons(selection) == {
        "flair": "chosen",
        "t2": "not_t1",
        "water": "dixon_part",
        "fat": "dixon_part",
        "in": "chosen",
        "out": "dixon_part",
    }
    strict = select_series(rows, SelectRules(accept_in_phase=False))
    assert chosen(strict) == ("flair", None)
    assert reasons(strict)["in"] == "dixon_part"
    assert strict.axial_reason == "no_t1_axial"


def test_canon_1_5_t_with_a_gradient_echo_axial_series() -> None:
    rows = [
        *series("t1", n=13, image_type=GE, description="SAG T1 FSE", **spin_echo(520, 14)),
        *series("t2", n=13, image_type=GE, description="SAG T2 FSE", **spin_echo(3600, 112)),
        *series("fs", n=13, image_type=GE, description="SAG T2 FatSat", **spin_echo(3600, 80)),
        *series("star", n=20, plane="axial", image_type=GE, description="AX T2*", **gradient_echo(600, 15, 25)),
        *series("flash", n=20, plane="axial", image_type=GE, description="AX T1 FE", **gradient_echo(150, 4.6, 70)),
    ]
    selection = select_series(rows)
    assert chosen(selection) == ("t1", "flash")
    assert reasons(selection) == {
        "t1": "chosen",
        "t2": "not_t1",
        "fs": "fat_suppressed",
        "star": "not_t1",
        "flash": "chosen",
    }


def test_low_field_with_coarse_thick_slices() -> None:
    low = {"field_t": 0.3, "pixel": 1.0, "size": 300, "thickness_mm": 5.0, "gap": 5.5}
    rows = [
        *localiser("scano", description="Scanogram", **gradient_echo(30, 9, 30)),
        *series("t1", n=11, description="SAG T1 SE", **(spin_echo(440, 20) | low)),
        *series("t2", n=11, description="SAG T2 FSE", **(spin_echo(3500, 125) | low)),
        *series("ax_t1", n=15, plane="axial", description="AX T1 SE", **(spin_echo(500, 20) | low)),
        *series("few", n=2, plane="axial", description="AX T1 SE rpt", **(spin_echo(500, 20) | low)),
    ]
    selection = select_series(rows)
    assert chosen(selection) == ("t1", "ax_t1")
    assert reasons(selection) == {
        "scano": "wrong_plane",
        "t1": "chosen",
        "t2": "not_t1",
        "ax_t1": "chosen",
        "few": "too_few_slices",
    }


def test_before_and_after_contrast_agent_with_equal_physics() -> None:
    t1, t1_tra = spin_echo(560, 11), spin_echo(640, 11)
    rows = [
        *series("pre", n=15, description="t1_tse_sag", **t1),
        *series("post", n=15, description="t1_tse_sag", agent="Gadovist", **t1),
        *series("post_fs", n=15, description="t1_tse_fs_sag KM", options="FS", **t1),
        *series("pre_tra", n=25, plane="axial", description="t1_tse_tra pre contrast", **t1_tra),
        *series("post_tra", n=25, plane="axial", description="t1_tse_tra +C", **t1_tra),
    ]
    selection = select_series(rows)
    assert chosen(selection) == ("pre", "pre_tra")
    assert reasons(selection) == {
        "pre": "chosen",
        "post": "post_contrast",
        "post_fs": "fat_suppressed",
        "pre_tra": "chosen",
        "post_tra": "post_contrast",
    }
    after = [row for row in rows if row.series_id not in ("pre", "pre_tra")]
    assert chosen(select_series(after)) == (None, None)
    accepted = select_series(rows, SelectRules(accept_post_contrast=True))
    assert chosen(accepted) == ("pre", "pre_tra")
    assert reasons(accepted)["post"] == "not_best"
    assert chosen(select_series(after, SelectRules(accept_post_contrast=True))) == ("post", "post_tra")


@pytest.mark.parametrize("one_file", [False, True], ids=["classic", "multi-frame"])
def test_dixon_tse_with_four_images_in_one_series(one_file: bool) -> None:
    rows = [
        row
        for k, image in enumerate(("WATER", "IN_PHASE", "FAT", "OPP_PHASE"))
        for row in series(
            "dixon",
            n=15,
            description="t1_tse_dixon_sag",
            image_type=DIXON.format(image),
            one_file=one_file,
            first_frame=15 * k,
            **spin_echo(560, 11, field_t=3.0),
        )
    ]
    selection = select_series(rows)
    assert selection.sagittal is not None
    assert {row.image_type for row in selection.sagittal.rows} == {"DERIVED+PRIMARY+DIXON+IN_PHASE+NORM+DIS2D"}
    assert len(selection.sagittal.rows) == 15
    assert sorted(row.reason for row in selection.series) == ["chosen", "dixon_part", "dixon_part", "dixon_part"]
    (taken,) = (row for row in selection.series if row.reason == "chosen")
    assert (taken.n_slices, taken.kind, taken.role) == (15, "in_phase", "sagittal_t1")
    assert taken.part == selection.sagittal.part


def test_philips_mdixon_enhanced_with_types_of_its_own_and_a_plain_t1() -> None:
    """All frames in one file; the plain spin echo is preferred to the in-phase image."""
    quant = gradient_echo(5.6, 2.4, 15, field_t=3.0)
    rows = [
        row
        for k, image in enumerate(("W", "F", "IP", "OP"))
        for row in series(
            "mdixon",
            n=40,
            plane="axial",
            gap=3,
            image_type=f"DERIVED\\PRIMARY\\{image}\\{image}\\DERIVED",
            one_file=True,
            first_frame=40 * k,
            description="mDIXON_tra",
            **quant,
        )
    ]
    assert chosen(select_series(rows)) == (None, "mdixon")
    plain = series("t1", n=24, plane="axial", description="T1W_TSE", image_type=PHILIPS, **spin_echo(600, 9))
    selection = select_series(rows + plain)
    assert selection.axial is not None
    assert (selection.axial.series_id, selection.axial.runner_up_id) == ("t1", "mdixon")
    assert selection.axial.score > (selection.axial.runner_up_score or 0) > 0
    assert sorted(row.reason for row in selection.series) == [
        "chosen",
        "dixon_part",
        "dixon_part",
        "dixon_part",
        "not_best",
    ]


def test_vibe_dixon_as_one_series_per_image() -> None:
    vibe = gradient_echo(4.1, 2.46, 9, field_t=3.0) | {"plane": "axial", "gap": 3.0, "thickness_mm": 3.0}
    rows = [
        row
        for suffix in ("in", "opp", "F", "W")
        for row in series(suffix, n=64, description=f"t1_vibe_dixon_tra_bh_{suffix}", image_type=SIEMENS, **vibe)
    ]
    selection = select_series(rows)
    assert chosen(selection) == (None, "in")
    assert reasons(selection) == {"in": "chosen", "opp": "dixon_part", "F": "dixon_part", "W": "dixon_part"}


@pytest.mark.parametrize(("field_t", "in_phase_part"), [(1.5, 1), (3.0, None), (None, None)])
def test_two_unnamed_gradient_echoes_in_one_series_are_told_apart_by_their_phase(
    field_t: float | None, in_phase_part: int | None
) -> None:
    """At 1.5 T 2.3 ms is out of phase and 4.6 ms in phase; at 3 T both are in phase and the shorter one is as good."""
    rows = [
        row
        for te in (4.6, 2.3)
        for row in series("dual", n=20, plane="axial", **gradient_echo(150, te, 70, field_t=field_t))
    ]
    selection = select_series(rows)
    if field_t is None:
        assert reasons(selection) == {("dual", 0): "dixon_part", ("dual", 1): "dixon_part"}
    elif in_phase_part == 1:
        assert reasons(selection) == {("dual", 0): "dixon_part", ("dual", 1): "chosen"}
        assert selection.axial is not None
        assert {row.echo_time_ms for row in selection.axial.rows} == {4.6}
    else:
        assert reasons(selection) == {("dual", 0): "chosen", ("dual", 1): "not_best"}


def test_dixon_images_that_nothing_names_are_not_guessed_by_their_echo() -> None:
    """Water and fat carry the echo time of the in-phase image."""
    rows = [
        row
        for te in (1.23, 2.46, 2.46, 2.46)
        for row in series("vibe", n=40, plane="axial", description="t1_vibe_dixon_tra", **gradient_echo(4.1, te, 9))
    ]
    assert reasons(select_series(rows)) == {("vibe", 0): "dixon_part", ("vibe", 1): "dixon_part"}


@pytest.mark.parametrize(("te", "reason"), [(2.3, "dixon_part"), (4.6, "chosen")])
def test_in_and_out_of_phase_as_two_series_of_one_name(te: float, reason: str) -> None:
    rows = series("a", n=20, plane="axial", description="t1_fl2d in/opp phase", **gradient_echo(150, te, 70))
    assert reasons(select_series(rows)) == {"a": reason}


def test_of_two_unnamed_gradient_echoes_the_one_in_phase_is_preferred() -> None:
    out_of_phase = series("out", n=30, plane="axial", pixel=0.4, **gradient_echo(150, 2.3, 70))
    in_phase = series("in", n=20, plane="axial", **gradient_echo(150, 4.6, 70))
    assert reasons(select_series(out_of_phase + in_phase)) == {"out": "not_best", "in": "chosen"}


def test_dixon_for_fat_fractions_is_not_t1() -> None:
    """Six echoes at a flip angle of 3 degrees, below the Ernst angle of muscle."""
    rows = [
        row
        for te in (1.1, 1.9, 2.7, 3.5, 4.3, 5.1)
        for row in series("quant", n=30, plane="axial", gap=3, **gradient_echo(7.2, te, 3, field_t=3.0))
    ]
    selection = select_series(rows)
    assert len(selection.series) == 6
    assert {row.reason for row in selection.series} <= {"not_t1", "dixon_part"}


def test_repetition_after_motion_takes_one_and_names_the_other() -> None:
    rows = [
        *series("a_aborted", n=9, description="t1_tse_sag", **spin_echo(560, 11)),
        *series("b_full", n=15, description="t1_tse_sag", **spin_echo(560, 11)),
        *series("c_again", n=15, description="t1_tse_sag rpt", **spin_echo(560, 11)),
    ]
    selection = select_series(rows)
    assert chosen(selection)[0] == "b_full"
    assert selection.sagittal is not None
    assert selection.sagittal.runner_up_id == "c_again"
    assert selection.sagittal.runner_up_score == selection.sagittal.score


def whole_spine(*descriptions: str) -> list[FileRow]:
    """Cervical, thoracic and lumbar station; the thoracic one has the most slices and the smallest pixels."""
    stations = zip("abc", descriptions, (500.0, 250.0, 0.0), (11, 17, 13), (0.5, 0.55, 0.6), strict=True)
    return [
        row
        for name, text, z, n, pixel in stations
        for row in series(name, n=n, description=text, centre=(0, 0, z), pixel=pixel, size=500, **spin_echo(600, 10))
    ]


def test_whole_spine_with_named_stations() -> None:
    selection = select_series(whole_spine("T1 sag C-Spine", "T1 sag BWS", "T1 sag LWS"))
    assert reasons(selection) == {"a": "other_region", "b": "other_region", "c": "chosen"}
    selection = select_series(whole_spine("T1 sag", "T1 sag", "T1 sag lumbar"))
    assert reasons(selection) == {"a": "other_region", "b": "other_region", "c": "chosen"}


def test_whole_spine_without_names_is_ambiguous_and_refused() -> None:
    axial = series("ax", n=20, plane="axial", description="T1 tra", **spin_echo(600, 10))
    vibe = series("vibe", n=15, **gradient_echo(5.0, 2.4, 12))
    selection = select_series(whole_spine("T1 sag", "T1 sag", "T1 sag") + axial + vibe)
    assert reasons(selection) == dict.fromkeys("abc", "ambiguous") | {"ax": "chosen", "vibe": "not_best"}
    assert (selection.sagittal, selection.sagittal_reason) == (None, "ambiguous")


def test_body_part_lumbar_in_every_header_does_not_hide_the_names_of_the_stations() -> None:
    selection = select_series(whole_spine("cervical LSPINE", "thoracic LSPINE", "sag LSPINE"))
    assert chosen(selection)[0] == "c"


def test_long_field_of_view_over_the_whole_spine_loses_to_the_lumbar_one() -> None:
    rows = [
        *series("lumbar", n=13, description="T1 sag", **spin_echo(600, 10)),
        *series("whole", n=17, description="T1 sag", centre=(0, 0, 100), pixel=0.5, size=1000, **spin_echo(600, 10)),
    ]
    assert reasons(select_series(rows)) == {"lumbar": "chosen", "whole": "not_best"}


def test_axial_series_outside_the_sagittal_field_of_view_is_of_another_region() -> None:
    sagittal = series("sag", n=15, description="t1", **spin_echo(600, 10))
    far = series("far", n=40, plane="axial", centre=(0, 0, 400), description="t1", **spin_echo(600, 10))
    near = series("near", n=12, plane="axial", description="t1", **gradient_echo(150, 4.6, 70))
    selection = select_series(sagittal + far + near)
    assert reasons(selection) == {"sag": "chosen", "far": "other_region", "near": "chosen"}
    half = series("half", n=40, plane="axial", centre=(0, 0, 140), description="t1", **spin_echo(600, 10))
    inside = series("inside", n=9, plane="axial", description="t1", **spin_echo(600, 10))
    assert reasons(select_series(sagittal + half + inside)) == {"sag": "chosen", "half": "not_best", "inside": "chosen"}
    elsewhere = [replace(row, frame_of_reference_id="other") for row in far]
    assert reasons(select_series(sagittal + elsewhere)) == {"sag": "chosen", "far": "chosen"}


@pytest.mark.parametrize("description", ["t1_se_sag BRAIN", "T1 SAG NECK", "T1 sag thoracic spine", "T1 SIJ"])
def test_other_region_by_name_alone(description: str) -> None:
    assert reasons(select_series(series("a", n=15, description=description, **spin_echo(560, 11)))) == {
        "a": "other_region"
    }


@pytest.mark.parametrize(
    "description",
    ["T1 sag thoracolumbar", "T1 L-SPINE W/WO CONTRAST", "LWS mit und ohne KM T1", "T1 L-SPINE PRE/POST GAD"],
)
def test_lumbar_by_name_and_protocols_that_come_with_and_without_contrast(description: str) -> None:
    assert reasons(select_series(series("a", n=15, description=description, **spin_echo(560, 11)))) == {"a": "chosen"}


def test_unnamed_sagittal_localiser_is_known_by_its_speed_and_thickness() -> None:
    thick = {"thickness_mm": 7.0, "gap": 8.0, "pixel": 1.1}
    assert reasons(select_series(series("loc", n=7, **gradient_echo(8.6, 4.0, 20), **thick))) == {"loc": "localiser"}
    apart = {"thickness_mm": 6.0, "gap": 15.0}
    assert reasons(select_series(series("loc", n=5, **spin_echo(500, 12), **apart))) == {"loc": "localiser"}


def test_computed_images_of_every_kind() -> None:
    t1, dwi = spin_echo(560, 11), spin_echo(4200, 70, scanning_sequence="SE+EP")
    rows = [
        *series("mpr", n=40, plane="axial", image_type="DERIVED\\SECONDARY\\MPR\\CSA MPR\\M", **t1),
        *series("reformat", n=40, plane="axial", image_type="DERIVED\\SECONDARY\\REFORMATTED\\AVERAGE", **t1),
        *series("screen", n=5, image_type="DERIVED\\SECONDARY\\SCREEN SAVE"),
        *series("composed", n=15, image_type="DERIVED\\PRIMARY\\M\\COMPOSED", **t1),
        *series("adc", n=20, image_type="DERIVED\\PRIMARY\\DIFFUSION\\ADC\\NORM", description="ep2d_adc", **dwi),
        *series("dwi", n=20, description="ep2d_diff_b800", **dwi),
        *series("sub", n=15, image_type="DERIVED\\PRIMARY\\M\\SUB", **t1),
        *series("phase", n=15, image_type="ORIGINAL\\PRIMARY\\PHASE MAP\\P\\SE", **t1),
        *series("t1map", n=15, image_type="DERIVED\\PRIMARY\\T1 MAP\\ND", **t1),
        *series("ffmap", n=40, plane="axial", image_type="DERIVED\\PRIMARY\\DIXON\\FAT_FRACTION", **t1),
        *series("vibe", n=40, plane="axial", image_type="DERIVED\\PRIMARY\\M", **gradient_echo(5, 2.4, 12)),
    ]
    selection = select_series(rows)
    expected = {row.series_id: "derived" for row in rows} | {"dwi": "not_t1"}
    assert reasons(selection) == expected
    assert chosen(selection) == (None, None)


def test_magnitude_and_phase_in_one_series_are_parted() -> None:
    t1 = spin_echo(560, 11)
    rows = [
        *series("both", n=15, image_type="ORIGINAL\\PRIMARY\\M_SE\\M\\SE", **t1),
        *series("both", n=15, image_type="ORIGINAL\\PRIMARY\\PHASE MAP\\P\\SE", **t1),
    ]
    assert reasons(select_series(rows)) == {("both", 0): "chosen", ("both", 1): "derived"}


def test_three_dimensional_turbo_spin_echo_sagittal() -> None:
    thin = {"gap": 0.9, "thickness_mm": 0.9, "pixel": 0.9, "size": 320, "field_t": 3.0}
    rows = [
        *series("t1", n=80, description="t1_space_sag_p2_iso", **(spin_echo(620, 12) | thin)),
        *series("t2", n=80, description="t2_space_sag_p2_iso", **(spin_echo(1500, 135) | thin)),
    ]
    selection = select_series(rows)
    assert reasons(selection) == {"t1": "chosen", "t2": "not_t1"}
    assert [row.weighting for row in selection.series] == ["t1", "t2"]


def test_t2_axial_is_accepted_only_if_configured_and_only_without_t1() -> None:
    sagittal = series("sag", n=15, description="Sag T1", **spin_echo(560, 11))
    t2 = series("t2", n=25, plane="axial", description="Ax T2", **spin_echo(4000, 100))
    star = series("star", n=40, plane="axial", description="Ax T2*", **gradient_echo(600, 15, 25))
    sagittal_t2 = series("sag_t2", n=15, description="Sag T2", **spin_echo(4000, 100))
    rows = sagittal + t2 + star + sagittal_t2
    selection = select_series(rows)
    assert (selection.axial, selection.axial_reason) == (None, "no_t1_axial")
    accepting = SelectRules(accept_t2_axial=True)
    selection = select_series(rows, accepting)
    assert selection.axial is not None
    assert (selection.axial.series_id, selection.axial.weighting, selection.axial_reason) == ("t2", "t2", None)
    assert reasons(selection) == {"sag": "chosen", "t2": "chosen", "star": "not_t1", "sag_t2": "not_t1"}
    assert {row.role for row in selection.series} == {"sagittal_t1", "axial_t2", None}
    t1 = series("t1", n=12, plane="axial", description="Ax T1", **gradient_echo(150, 4.6, 70))
    assert chosen(select_series(rows + t1, accepting)) == ("sag", "t1")


def stripped(name: str, description: str, **geometry: Any) -> list[FileRow]:
    """A series whose header has neither times nor vendor, image type or sequence."""
    return series(name, n=15, description=description, image_type="", thickness_mm=None, **geometry)


def test_headers_without_physics_are_chosen_by_their_description() -> None:
    rows = [
        *stripped("a", "Sagittal T1"),
        *stripped("b", "Sagittal T2/STIR"),
        *stripped("c", "Axial T2", plane="axial"),
    ]
    selection = select_series(rows)
    assert chosen(selection) == ("a", None)
    assert reasons(selection) == {"a": "chosen", "b": "fat_suppressed", "c": "not_t1"}
    assert selection.sagittal is not None
    assert selection.sagittal.score < 0.8
    assert next(row.kind for row in selection.series if row.role) == "described"
    assert chosen(select_series(rows, SelectRules(accept_t2_axial=True))) == ("a", "c")


@pytest.mark.parametrize(
    ("description", "reason"),
    [
        ("T1", "chosen"),
        ("T1w", "chosen"),
        ("SAG T1 FLAIR", "chosen"),
        ("", "weighting_unknown"),
        ("Sagittal", "weighting_unknown"),
        ("T1/T2", "weighting_unknown"),
        ("Sag T1 & T2", "weighting_unknown"),
        ("T1 and STIR", "fat_suppressed"),
        ("T2/STIR", "fat_suppressed"),
        ("T2", "not_t1"),
        ("T2 FLAIR", "not_t1"),
        ("PD", "not_t1"),
        ("C7-T1", "weighting_unknown"),
        ("Levels T1-T12", "weighting_unknown"),
        ("T1 Dixon", "dixon_part"),
        ("T1 water", "dixon_part"),
    ],
)
def test_descriptions_without_physics(description: str, reason: str) -> None:
    assert reasons(select_series(stripped("a", description))) == {"a": reason}


def test_a_plain_word_does_not_overrule_a_time_that_is_there() -> None:
    assert reasons(select_series(stripped("a", "T1", repetition_time_ms=4000.0))) == {"a": "not_t1"}
    assert reasons(select_series(stripped("a", "T1", echo_time_ms=90.0))) == {"a": "not_t1"}


def test_times_in_seconds_are_not_taken_for_a_fast_gradient_echo() -> None:
    in_seconds = {"repetition_time_ms": 3.5, "echo_time_ms": 0.1, "flip_angle_deg": 90.0}
    assert reasons(select_series(stripped("a", "", **in_seconds))) == {"a": "weighting_unknown"}
