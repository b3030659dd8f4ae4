"""Annotations of MD.ai, volumes and PNG into a store: the drawn masks, and a row for what is wrong."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from annotated_exams import (
    EXAM,
    MUSCLES,
    SERIES,
    STUDY,
    Place,
    drawn,
    entry,
    instance,
    make_place,
    masked,
    outlines,
    write_mdai,
    write_nifti,
    write_table,
)
from click.testing import CliRunner

from cohort.annotations.rows import AnnotationRow, read_annotation_rows
from cohort.annotations.store import LEVEL_NAMES, Annotation, read_annotation, readers_of
from pipelines.cli import main


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("annotated"))


def run(place: Place, source: Path, *options: str) -> dict[str, Any]:
    """Import by the command; its JSON."""
    command = [
        "annotations",
        "import",
        str(source),
        str(place.store),
        "--config",
        str(place.config),
        "--json",
        *options,
    ]
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def read(place: Place, reader: str) -> Annotation:
    return read_annotation(place.store, place.exam, EXAM, reader)


def rows(place: Place, reader: str) -> list[AnnotationRow]:
    return [row for row in read_annotation_rows(place.store) if row.reader == reader]


def reasons(place: Place, reader: str) -> Counter[tuple[str, str]]:
    return Counter((row.status, row.reason) for row in rows(place, reader))


def arrays(annotation: Annotation) -> dict[tuple[str, int, str], np.ndarray]:
    return {(one.stack.plane, one.stack.index, name): mask for one in annotation.labelled
            for name, mask in one.labels.items()}  # fmt: skip


def import_mdai(place: Place, folder: Path, reader: str, entries: list[dict[str, Any]]) -> Counter[tuple[str, str]]:
    run(place, write_mdai(folder / "export.json", entries), "--format", "mdai", "--reader", reader)
    return reasons(place, reader)


@pytest.fixture(scope="module")
def from_mdai(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Annotation:
    folder = tmp_path_factory.mktemp("mdai")
    assert not import_mdai(place, folder, "mdai", list(drawn(place)))
    return read(place, "mdai")


def test_an_export_of_mdai_gives_the_drawn_masks_bit_for_bit(place: Place, from_mdai: Annotation) -> None:
    found = arrays(from_mdai)
    for name in ("vertebral_body", "disc"):
        assert np.array_equal(found["sagittal", 0, name], masked(place.sagittal.labels[name], (2, 3, 4)))
        assert from_mdai.slices["sagittal", 0, name] == (2, 3, 4)
    assert np.array_equal(found["axial", 0, "muscle"], masked(place.axial.labels["muscle"], (1, 3)))
    assert from_mdai.slices["axial", 0, "muscle"] == (1, 3)
    assert (from_mdai.tool, from_mdai.drawn_at) == ("md.ai", "2024-05-06T10:00:00.000Z")
    level = from_mdai.levels["sagittal", 0, "disc"]
    assert np.array_equal(level == 1 + LEVEL_NAMES.index("L4-L5"), masked(place.levels["L4-L5"], (2, 3, 4)) > 0)


def test_pictures_of_slices_are_found_by_uid_and_by_number(place: Place, tmp_path: Path) -> None:
    for k in (1, 3):
        cv2.imwrite(str(tmp_path / f"{k}.png"), place.axial.labels["muscle"][k])
    cv2.imwrite(str(tmp_path / "disc.png"), 255 * place.sagittal.labels["disc"][3])
    table = write_table(
        tmp_path / "slices.csv",
        {"file": "1.png", "exam": STUDY, "instance": instance("axial", 1), "array": "muscle"},
        {"file": "3.png", "exam": EXAM, "plane": "axial", "slice": "3", "array": "muscle"},
        {"file": "disc.png", "exam": EXAM, "plane": "sagittal", "slice": "3", "label": "disc"},
    )
    assert run(place, tmp_path, "--format", "png", "--table", str(table), "--reader", "png")["rows"] == []
    found = read(place, "png")
    assert np.array_equal(arrays(found)["axial", 0, "muscle"], masked(place.axial.labels["muscle"], (1, 3)))
    assert np.array_equal(arrays(found)["sagittal", 0, "disc"], masked(place.sagittal.labels["disc"], (3,)))
    assert found.slices == {("axial", 0, "muscle"): (1, 3), ("sagittal", 0, "disc"): (3,)}


def test_the_same_import_again_changes_nothing(place: Place, tmp_path: Path) -> None:
    broken = [*drawn(place), entry("L4-L5", "t2", 3, outlines(place.levels["L4-L5"][3]))]
    import_mdai(place, tmp_path, "again", broken)

    def state() -> dict[Path, tuple[int, int]]:
        files = (path for path in place.store.rglob("*") if path.is_file() and not path.name.startswith(".lock"))
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in files}

    before = state()
    found = run(place, tmp_path / "export.json", "--format", "mdai", "--reader", "again")
    assert (found["written"], found["unchanged"]) == (0, 1)
    assert state() == before


def test_muscles_without_a_side_are_divided_by_the_geometry(place: Place, tmp_path: Path) -> None:
    muscle = place.axial.labels["muscle"]
    pairs = {"multifidus": (1, 2), "erector spinae": (3, 4), "psoas": (5, 6), "QL": (7, 8)}
    entries = [
        entry(name, "axial", k, outlines(np.isin(muscle[k], both))) for name, both in pairs.items() for k in (1, 3)
    ]
    assert not import_mdai(place, tmp_path, "unsided", entries)
    assert np.array_equal(arrays(read(place, "unsided"))["axial", 0, "muscle"], masked(muscle, (1, 3)))


def test_readers_of_an_export_are_kept_apart_and_get_their_codes(place: Place, tmp_path: Path) -> None:
    entries = [*drawn(place), *({**one, "createdById": "U_b"} for one in drawn(place, slices=(3,), axial=(1,)))]
    source = write_mdai(tmp_path / "two.json", entries)
    run(place, source, "--format", "mdai", "--reader", "U_a=first", "--reader", "U_b=second")
    assert {"first", "second"} <= set(readers_of(place.store, EXAM))
    assert read(place, "second").slices["sagittal", 0, "disc"] == (3,)


def test_annotations_are_listed(place: Place, from_mdai: Annotation) -> None:
    result = CliRunner().invoke(main, ["annotations", "list", str(place.store), "--json"])
    listed = {one["reader"]: one for one in json.loads(result.stdout)}
    assert listed["mdai"]["slices"] == {"vertebral_body": 3, "disc": 3, "muscle": 2}
    assert listed["mdai"]["tool"] == "md.ai"
    assert "md.ai" in CliRunner().invoke(main, ["annotations", "list", str(place.store)]).stdout


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_an_annotation_that_is_refused_now_does_not_stay(place: Place, tmp_path: Path) -> None:
    volume = place.sagittal.labels["vertebral_body"]
    volume_rows(place, tmp_path, "changed", volume)
    assert "changed" in readers_of(place.store, EXAM)
    (row,) = volume_rows(place, tmp_path, "changed", volume[:, 1:])
    assert row.reason == "mask_grid_differs"
    assert "changed" not in readers_of(place.store, EXAM)


def test_nothing_in_the_store_names_a_uid(place: Place, from_mdai: Annotation) -> None:
    files = [path for path in (place.store / "annotations").rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path.name for path in files if STUDY.encode() in path.read_bytes()]


def test_what_is_unknown_has_a_row_and_the_rest_is_taken(place: Place, tmp_path: Path) -> None:
    body = outlines(place.levels["L3"][3])
    bad = [
        {**entry("L3", "sagittal", 3, body), "StudyInstanceUID": "1.2.3"},
        {**entry("L3", "sagittal", 3, body), "SeriesInstanceUID": "1.2.3", "SOPInstanceUID": "1.2.3.4"},
        {**entry("L3", "sagittal", 3, body), "SOPInstanceUID": f"{SERIES['sagittal']}.99"},
        entry("L3", "t2", 3, body),
        entry("spinal canal", "sagittal", 3, body),
        entry("MF left", "sagittal", 3, body),
        {**entry("L3", "sagittal", 3, body), "SOPInstanceUID": None, "StudyInstanceUID": None, "data": 7},
    ]
    assert import_mdai(place, tmp_path, "unknown", [*drawn(place), *bad]) == {
        ("refused", "study_unknown"): 1,
        ("refused", "series_unknown"): 1,
        ("refused", "slice_unknown"): 1,
        ("refused", "series_not_chosen"): 1,
        ("refused", "label_unknown"): 1,
        ("refused", "label_other_plane"): 1,
    }
    assert ("refused", "annotation_malformed") in reasons(place, "-")
    assert np.array_equal(arrays(read(place, "unknown"))["sagittal", 0, "disc"],
                          masked(place.sagittal.labels["disc"], (2, 3, 4)))  # fmt: skip


def test_a_refused_shape_makes_its_slice_unknown_and_no_other(place: Place, tmp_path: Path) -> None:
    eight = {"vertices": [[60, 100], [90, 130], [90, 100], [60, 130]]}
    bad = [
        entry("L3", "sagittal", 2, eight),
        entry("L4-L5", "sagittal", 4, {"vertices": [[10.2, 10.2], [10.4, 10.2], [10.4, 10.4]]}),
        entry("MF left", "axial", 1, {"vertices": [["x", None]]}),
    ]
    found = import_mdai(place, tmp_path, "shapes", [*drawn(place), *bad])
    assert found == {
        ("refused", "polygon_crosses_itself"): 1,
        ("refused", "annotation_empty"): 1,
        ("refused", "annotation_malformed"): 1,
        ("refused", "slice_in_doubt"): 3,
    }
    slices = read(place, "shapes").slices
    assert slices["sagittal", 0, "vertebral_body"] == (3, 4)
    assert slices["sagittal", 0, "disc"] == (2, 3)
    assert slices["axial", 0, "muscle"] == (3,)


def test_a_small_loop_and_a_shape_beyond_the_border_are_flagged_and_taken(place: Place, tmp_path: Path) -> None:
    looped = [[60, 100], [100, 100], [100, 130], [60, 130], [60.5, 99], [59.5, 99]]
    beyond = [[-3, 200], [20, 200], [20, 220], [-3, 220]]
    bad = [entry("disc", "sagittal", 3, {"vertices": looped}), entry("disc", "sagittal", 3, {"vertices": beyond})]
    found = import_mdai(place, tmp_path, "loops", bad)
    assert found[("flagged", "polygon_crosses_itself")] == 1
    assert found[("flagged", "annotation_outside")] == 1
    assert arrays(read(place, "loops"))["sagittal", 0, "disc"][3, 110, 80] == 1


def test_of_two_labels_on_a_pixel_the_later_one_has_it(place: Place, tmp_path: Path) -> None:
    muscle = place.axial.labels["muscle"]
    both = outlines(muscle[1] == 1)
    entries = [*drawn(place), entry("ES left", "axial", 1, both, at="2024-05-07")]
    assert import_mdai(place, tmp_path, "two", entries) == {("flagged", "labels_overlap"): 1}
    (row,) = rows(place, "two")
    assert (row.plane, row.slice, row.label) == ("axial", 1, "erector_spinae left and multifidus left")
    assert row.value == np.count_nonzero(muscle[1] == 1)
    assert np.all(arrays(read(place, "two"))["axial", 0, "muscle"][1][muscle[1] == 1] == 3)


def test_a_label_may_say_that_there_is_nothing(place: Place, tmp_path: Path) -> None:
    source = write_mdai(tmp_path / "export.json", [*drawn(place), entry("no disc", "sagittal", 0, None)])
    table = tmp_path / "classes.csv"
    table.write_text("label,structure,empty\nno disc,disc,yes\n")
    run(place, source, "--format", "mdai", "--reader", "nothing", "--classes", str(table))
    assert read(place, "nothing").slices["sagittal", 0, "disc"] == (0, 2, 3, 4)


def volume_rows(place: Place, folder: Path, reader: str, volume: np.ndarray, affine: Any = None, **line: str) -> Any:
    write_nifti(folder / "mask.nii.gz", volume, place.sagittal.stack.geometry, affine)
    table = write_table(folder / "t.csv", {"file": "mask.nii.gz", "exam": STUDY, "array": "vertebral_body", **line})
    run(place, folder, "--format", "nifti", "--table", str(table), "--reader", reader)
    return rows(place, reader)


def test_misplaced_volumes_are_refused_with_their_offset(place: Place, tmp_path: Path) -> None:
    grid, volume = place.sagittal.stack.geometry, place.sagittal.labels["vertebral_body"]
    shifted = grid.affine
    shifted[:3, 3] += 0.9 * grid.col_dir
    mirrored = np.diag([-1.0, -1, 1, 1]) @ grid.affine
    for reader, affine, reason, off in (
        ("shifted", shifted, "mask_shifted", 0.9),
        ("ras", mirrored, "mask_mirrored", None),
    ):
        (row,) = volume_rows(place, tmp_path, reader, volume, affine)
        assert (row.status, row.reason) == ("refused", reason)
        assert row.value == pytest.approx(off, abs=0.01) if off else row.value > 1
        assert "mm along" in row.detail
        assert reader not in readers_of(place.store, EXAM)


def test_volumes_that_are_no_masks_have_their_reason(place: Place, tmp_path: Path) -> None:
    volume = place.sagittal.labels["vertebral_body"]
    for reader, values, reason in (
        ("half", volume * np.float32(0.5), "mask_not_whole_numbers"),
        ("none", np.zeros_like(volume), "annotation_empty"),
        ("small", volume[:, 1:], "mask_grid_differs"),
    ):
        assert [row.reason for row in volume_rows(place, tmp_path, reader, values)] == [reason]
    (tmp_path / "mask.nii.gz").write_bytes(b"no NIfTI")
    table = write_table(tmp_path / "t.csv", {"file": "mask.nii.gz", "exam": STUDY}, {"file": "gone.nii", "exam": STUDY})
    run(place, tmp_path, "--format", "nifti", "--table", str(table), "--reader", "broken")
    assert reasons(place, "broken") == {("refused", "mask_unreadable"): 2}


def test_a_volume_may_be_complete(place: Place, tmp_path: Path) -> None:
    volume = masked(place.sagittal.labels["vertebral_body"], (3,))
    volume_rows(place, tmp_path, "complete", volume, complete="yes")
    assert read(place, "complete").slices["sagittal", 0, "vertebral_body"] == tuple(range(7))


def test_a_reader_is_not_called_automatic_and_tables_are_checked(place: Place, tmp_path: Path) -> None:
    source = write_mdai(tmp_path / "e.json", [])
    base = ["annotations", "import", str(source), str(place.store), "--config", str(place.config)]
    table = write_table(tmp_path / "t.csv", {"file": "../x.nii", "exam": STUDY})
    named = write_table(tmp_path / "named.csv", {"file": "x.nii", "exam": STUDY, "reader": "automatic"})
    odd = write_table(tmp_path / "odd.csv", {"file": "x.nii", "exam": STUDY, "flavour": "1"})
    for options, text in (
        (["--format", "mdai", "--reader", "automatic"], "networks' masks"),
        (["--format", "mdai", "--reader", "U_a=candidate"], "networks' masks"),
        (["--format", "nifti", "--table", str(named)], "networks' masks"),
        (["--format", "mdai", "--reader", "Dr. Who"], "reader's code"),
        (["--format", "nifti", "--reader", "a"], "need --table"),
        (["--format", "nifti", "--reader", "a", "--table", str(table)], "outside the folder"),
        (["--format", "nifti", "--reader", "a", "--table", str(odd)], "unknown column 'flavour'"),
    ):
        result = CliRunner().invoke(main, [*base, *options])
        assert result.exit_code == 2
        assert text in result.output.replace("\n", " ")


# -- rules of the paper ------------------------------------------------------------------------------------------------


def test_what_lies_below_s1_and_what_is_cut_off_is_left_out(place: Place, tmp_path: Path) -> None:
    s2 = {"vertices": [[150, 370], [170, 370], [170, 385], [150, 385]]}
    cut = {"vertices": [[90, 0], [130, 0], [130, 12], [90, 12]]}
    entries = [*drawn(place), entry("S2", "sagittal", 3, s2), entry("sacrum", "sagittal", 4, s2),
               entry("T10", "sagittal", 3, cut)]  # fmt: skip
    cut_twice = {"vertices": [[0, 20], [8, 20], [8, 40], [0, 40]]}
    entries += [
        entry("vertebra", "sagittal", 3, data) for data in (cut_twice, {"vertices": [[0, 60], [8, 60], [8, 70]]})
    ]
    found = import_mdai(place, tmp_path, "rules", entries)
    assert found == {("refused", "below_s1"): 2, ("refused", "body_cut_off"): 3}
    assert np.array_equal(arrays(read(place, "rules"))["sagittal", 0, "vertebral_body"],
                          masked(place.sagittal.labels["vertebral_body"], (2, 3, 4)))  # fmt: skip
    assert (place.store / "review" / EXAM[:2] / EXAM / "annotation-rules.png").stat().st_size > 10_000


def test_a_pedicle_in_a_body_is_suspected(place: Place, tmp_path: Path) -> None:
    body = place.levels["L3"][3].astype(bool)
    down, across = (round(at) for at in np.argwhere(body).mean(axis=0))
    back = int(np.nonzero(body)[1].max())
    body[down - 7 : down + 8, across : back + 14] = True
    others = [one for one in drawn(place) if one["labelId"] != "L_L3"]
    found = import_mdai(place, tmp_path, "pedicle", [*others, entry("L3", "sagittal", 3, outlines(body))])
    assert found == {("flagged", "pedicle_suspected"): 1}
    (row,) = rows(place, "pedicle")
    assert (row.slice, row.label, row.limit) == (3, "L3", 7.0)


def test_an_exam_with_fewer_than_half_of_the_discs_is_reported(place: Place, tmp_path: Path) -> None:
    few = [one for one in drawn(place) if one["labelId"] in ("L_L5-S1", "L_L4-L5", "L_L3-L4")]
    assert import_mdai(place, tmp_path, "few", few) == {("flagged", "exam_incomplete"): 1}
    assert rows(place, "few")[0].value == 3


def test_mirrored_and_shifted_drawings_are_refused_by_labels_or_by_the_picture(place: Place, tmp_path: Path) -> None:
    def redrawn(change: Any) -> list[dict[str, Any]]:
        named = [(level, "sagittal", mask) for level, mask in place.levels.items()]
        named += [(text, "axial", place.axial.labels["muscle"] == value) for value, text in MUSCLES.items()]
        pairs = [(one, k) for one in named for k in (1, 2, 3, 4) if one[2][k].any()]
        return [entry(label, series, k, outlines(change(mask[k]))) for (label, series, mask), k in pairs]

    across = import_mdai(place, tmp_path, "across", redrawn(lambda mask: mask[:, ::-1]))
    assert across[("refused", "sides_swapped")] == 1
    assert across[("refused", "mask_off_picture")] == 1
    down = import_mdai(place, tmp_path, "down", redrawn(lambda mask: mask[::-1]))
    assert down[("refused", "mask_mirrored")] >= 1
    moved = import_mdai(place, tmp_path, "moved", redrawn(lambda mask: np.roll(mask, (6, 0), (0, 1))))
    assert {reason for _, reason in moved} == {"mask_off_picture"}
    (row,) = (row for row in rows(place, "moved") if row.array == "vertebral_body")
    found_mm = [float(number) for number in re.findall(r"([+-]\d+\.\d) mm", str(row.detail))]
    assert np.allclose(found_mm, [-5.4, 0.0], atol=0.95)  # a pixel
    for reader in ("across", "down", "moved"):
        kept = arrays(read(place, reader)) if reader in readers_of(place.store, EXAM) else {}
        assert ("sagittal", 0, "vertebral_body") not in kept
        assert ("sagittal", 0, "disc") not in kept
