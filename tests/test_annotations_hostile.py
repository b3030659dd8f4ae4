"""Annotations as no program should write them: a reason, never a wrong mask, a name of a person or a crash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
import pytest
from annotated_exams import (
    EXAM,
    STUDY,
    Place,
    entry,
    make_place,
    outlines,
    write_mdai,
    write_meta,
    write_nifti,
    write_table,
)
from click.testing import CliRunner, Result

from cohort.annotations.classes import read_classes, usual_meaning
from cohort.annotations.outlines import fill
from cohort.annotations.placement import RAS_TO_LPS
from cohort.annotations.rows import read_annotation_rows
from cohort.annotations.store import Annotation, read_annotation, readers_of
from cohort.annotations.times import iso_time, later
from cohort.annotations.volumes import read_volume
from cohort.errors import ConfigurationError, RefusedError
from pipelines.cli import main


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("hostile"))


def run(place: Place, source: Path, *options: str) -> Result:
    command = ["annotations", "import", str(source), str(place.store), "--config", str(place.config), *options]
    return CliRunner().invoke(main, command, catch_exceptions=False)


def reasons(place: Place, reader: str) -> set[str]:
    """Of what was refused."""
    rows = read_annotation_rows(place.store)
    return {row.reason for row in rows if row.reader == reader and row.status == "refused"}


def read(place: Place, reader: str) -> Annotation | None:
    return read_annotation(place.store, place.exam, EXAM, reader) if reader in readers_of(place.store, EXAM) else None


def mask(annotation: Annotation | None, name: str) -> Any:
    assert annotation is not None
    return next(one.labels[name] for one in annotation.labelled if name in one.labels)


def disc(place: Place, data: Any = None, **changed: Any) -> dict[str, Any]:
    """The disc L4-L5 on slice 3, or another shape in its place."""
    return {**entry("L4-L5", "sagittal", 3, data or outlines(place.levels["L4-L5"][3])), "id": "A_1", **changed}


# -- MD.ai -------------------------------------------------------------------------------------------------------------


def test_of_the_versions_of_an_annotation_in_exports_of_several_days_the_last_counts(
    place: Place, tmp_path: Path
) -> None:
    later_one = outlines(np.roll(place.levels["L4-L5"][3], 2, axis=0))
    write_mdai(tmp_path / "b.json", [disc(place, updatedAt="2024-05-01T10:00:00Z")])
    write_mdai(tmp_path / "a.json", [disc(place, later_one, updatedAt="2024-06-01T10:00:00Z")])
    assert run(place, tmp_path, "--format", "mdai", "--reader", "versions").exit_code == 0
    assert reasons(place, "versions") == {"annotation_superseded"}
    assert np.array_equal(mask(read(place, "versions"), "disc")[3], np.roll(place.levels["L4-L5"][3], 2, axis=0))


def test_lines_and_stray_clicks_are_no_masks(place: Place, tmp_path: Path) -> None:
    click = disc(place, {"vertices": [[60, 200], [90, 200]]})
    line = disc(place, {"vertices": [[60, 200], [90, 200], [90, 240]]}, labelId="L_L3-L4")
    content = json.loads(write_mdai(tmp_path / "e.json", [click, line]).read_text())
    content["labelGroups"][0]["labels"][0]["annotationMode"] = "line"
    for number, entries in enumerate(([click], [line])):
        content["datasets"][0]["annotations"] = entries
        (tmp_path / "e.json").write_text(json.dumps(content))
        run(place, tmp_path / "e.json", "--format", "mdai", "--reader", f"line{number}")
        assert "annotation_malformed" in reasons(place, f"line{number}")
        assert read(place, f"line{number}") is None


def test_a_user_of_mdai_without_a_code_is_not_named_anywhere(place: Place, tmp_path: Path) -> None:
    stranger = disc(place, createdById="jane.doe@example.org", StudyInstanceUID="9.9.9")
    source = write_mdai(tmp_path / "e.json", [stranger])
    refused = run(place, source, "--format", "mdai", "--reader", "U_a=A")
    assert refused.exit_code == 2
    assert "--reader ID=CODE" in refused.output.replace("\n", " ")
    assert "jane" not in refused.output
    assert not any("jane" in row.reader for row in read_annotation_rows(place.store))


def test_the_later_of_two_shapes_is_told_across_time_zones(place: Place, tmp_path: Path) -> None:
    where = outlines(place.axial.labels["muscle"][3] == 1)
    at_ten = {**entry("ES left", "axial", 3, where), "updatedAt": "2024-05-06T12:00:00+02:00"}
    at_eleven = {**entry("MF left", "axial", 3, where), "updatedAt": "2024-05-06T11:00:00Z"}
    run(place, write_mdai(tmp_path / "e.json", [at_ten, at_eleven]), "--format", "mdai", "--reader", "zones")
    found = read(place, "zones")
    assert set(np.unique(mask(found, "muscle"))) == {0, 1}
    assert found is not None
    assert found.drawn_at == "2024-05-06T11:00:00Z"


def test_only_times_are_kept_as_times() -> None:
    assert iso_time(" 2024-05-06 ") == "2024-05-06"
    assert [iso_time(text) for text in ("Dr. Who, 3 April", "1714989600000", "")] == [None] * 3
    assert later(None, "2024-05-06T23:30:00-05:00", "2024-05-07T03:00:00Z") == "2024-05-06T23:30:00-05:00"
    assert later(None) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(datasets={"a": 1}),
        lambda content: content.update(labelGroups=None),
        lambda content: content["datasets"][0].update(annotations=[None, 3, "x", [1]]),
        lambda content: content["datasets"][0]["annotations"][0].update(frameNumber=float("inf")),
        lambda content: content["datasets"][0]["annotations"][0].update(data={"vertices": 3}),
    ],
)
def test_a_malformed_export_has_a_reason(place: Place, tmp_path: Path, change: Any) -> None:
    path = write_mdai(tmp_path / "e.json", [disc(place)])
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    assert run(place, path, "--format", "mdai", "--reader", "malformed").exit_code == 0
    assert read(place, "malformed") is None
    rows = read_annotation_rows(place.store)
    assert {row.reason for row in rows if row.reader in ("-", "malformed")} & {
        "mask_unreadable",
        "annotation_malformed",
    }


def test_an_export_nested_beyond_reason_is_unreadable(place: Place, tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text("[" * 100_000)
    assert run(place, tmp_path / "e.json", "--format", "mdai", "--reader", "deep").exit_code == 0
    assert reasons(place, "deep") == {"mask_unreadable"}


def test_an_outline_far_beyond_the_image_is_refused_before_it_is_drawn() -> None:
    with pytest.raises(RefusedError, match="annotation_outside"):
        fill([np.array([[0, 0], [1e6, 1], [1, 1e6], [1e6, 1e6]])], [], (100, 80))


# -- volumes and pictures ----------------------------------------------------------------------------------------------


def image_of(place: Place, values: Any = None) -> nibabel.Nifti1Image:
    body = place.sagittal.labels["vertebral_body"] if values is None else values
    affine = RAS_TO_LPS @ place.sagittal.stack.geometry.affine[:, [2, 1, 0, 3]]
    return nibabel.Nifti1Image(body.transpose(2, 1, 0), affine)


def test_a_nifti_whose_two_places_contradict_each_other_is_refused(place: Place, tmp_path: Path) -> None:
    image, path = image_of(place), tmp_path / "m.nii"
    for moved, passes in ((np.eye(4), True), (np.diag([-1.0, 1, 1, 1]), False)):
        image.set_sform(image.affine, 1)
        image.set_qform(moved @ image.affine, 1)
        nibabel.save(image, path)
        if passes:
            assert read_volume(path).values.any()
        else:
            with pytest.raises(RefusedError, match="sform and qform") as caught:
                read_volume(path)
            assert caught.value.reason == "mask_grid_differs"


def test_a_sheared_nifti_counts_by_its_sform(place: Place, tmp_path: Path) -> None:
    image, path = image_of(place), tmp_path / "m.nii"
    sheared = image.affine.copy()
    sheared[:3, 2] += 0.2 * sheared[:3, 1]
    image.set_sform(sheared, 1)
    image.set_qform(image.affine, 1)
    nibabel.save(image, path)
    assert np.allclose(read_volume(path).affine, RAS_TO_LPS @ sheared, atol=1e-4)


def test_colours_and_complex_numbers_are_no_labels(place: Place, tmp_path: Path) -> None:
    body = place.sagittal.labels["vertebral_body"]
    colours = np.zeros(body.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    for values in (colours, body.astype(np.complex64)):
        nibabel.save(image_of(place, values), tmp_path / "m.nii")
        with pytest.raises(RefusedError, match="colours or complex"):
            read_volume(tmp_path / "m.nii")


def test_a_picture_of_one_plane_has_too_few_axes(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 4), np.uint8), np.eye(4)), tmp_path / "m.nii")
    with pytest.raises(RefusedError, match="2 axes"):
        read_volume(tmp_path / "m.nii")


def test_a_meta_image_has_as_many_bytes_as_its_header_says(place: Place, tmp_path: Path) -> None:
    path = write_meta(tmp_path / "m.mha", place.sagittal.labels["disc"], place.sagittal.stack.geometry)
    assert read_volume(path).values.any()
    path.write_bytes(path.read_bytes() + b"\0" * 8)
    with pytest.raises(RefusedError, match="mask_unreadable"):
        read_volume(path)


def test_a_complete_volume_without_a_voxel_says_that_there_is_nothing(place: Place, tmp_path: Path) -> None:
    nothing = np.zeros_like(place.sagittal.labels["disc"])
    write_nifti(tmp_path / "m.nii", nothing, place.sagittal.stack.geometry)
    table = write_table(tmp_path / "t.csv", {"file": "m.nii", "exam": STUDY, "label": "disc", "complete": "yes"})
    run(place, tmp_path, "--format", "nifti", "--table", str(table), "--reader", "nothing")
    found = read(place, "nothing")
    assert found is not None
    assert found.slices == {("sagittal", 0, "disc"): tuple(range(7))}


def test_a_lossy_picture_is_no_mask(place: Place, tmp_path: Path) -> None:
    jpeg = cv2.imencode(".jpg", 255 * place.sagittal.labels["disc"][3])[1].tobytes()
    (tmp_path / "m.png").write_bytes(jpeg)
    line = {"file": "m.png", "exam": STUDY, "plane": "sagittal", "slice": "3", "label": "disc"}
    table = write_table(tmp_path / "t.csv", line)
    run(place, tmp_path, "--format", "png", "--table", str(table), "--reader", "jpeg")
    assert reasons(place, "jpeg") == {"mask_unreadable"}
    assert read(place, "jpeg") is None


# -- tables and commands -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ({"label": "disc", "array": "vertebral_body"}, "array or label, not both"),
        ({"complete": "ja"}, "complete is yes or no"),
        ({"drawn_at": "Dr. Who, 3 April"}, "drawn_at is a date"),
    ],
)
def test_lines_of_a_mask_table_that_mean_two_things_are_refused(
    place: Place, tmp_path: Path, line: dict[str, str], text: str
) -> None:
    table = write_table(tmp_path / "t.csv", {"file": "m.nii", "exam": STUDY, **line})
    refused = run(place, tmp_path, "--format", "nifti", "--table", str(table), "--reader", "a")
    assert refused.exit_code == 2
    assert text in refused.output
    assert "Dr. Who" not in refused.output


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("c.csv", "label,structure\nA,psoas\nA,disc\n", "two lines of one label"),
        ("c.csv", "label,structure,level\nA,disc,L4\n", "L4 is no level of structure disc"),
        ("c.csv", "label,structure,level\nA,sacrum,L5\n", "L5 is no level of structure sacrum"),
        ("c.csv", "label,structure,level\nA,vertebral_body,L4-L5\n", "no level of structure vertebral_body"),
        ("c.csv", "label,structure,empty\nA,disc,ja\n", "empty is yes or no"),
        ("c.toml", "labels = 3\n", "needs a table"),
        ("c.toml", '[labels]\nA = "psoas"\n', "needs a table"),
    ],
)
def test_a_class_table_that_means_two_things_is_refused(tmp_path: Path, name: str, content: str, text: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigurationError, match=text):
        read_classes(tmp_path / name)


def test_a_disc_may_be_written_with_any_dash() -> None:
    assert usual_meaning("L4\u2013L5") == usual_meaning("L4-L5") == usual_meaning("L4\u2014L5 disc")


def test_a_folder_without_files_of_the_format_is_refused(place: Place, tmp_path: Path) -> None:
    (tmp_path / "IM0001").write_bytes(b"DICOM without an ending")
    for kind in ("dicom-seg", "mdai"):
        refused = run(place, tmp_path, "--format", kind, "--reader", "a")
        assert refused.exit_code == 2
        assert "no file that ends in" in refused.output.replace("\n", " ")


def test_the_command_names_unknown_labels_and_suspects_the_key(place: Place, tmp_path: Path) -> None:
    unknown = run(place, write_mdai(tmp_path / "e.json", [disc(place), entry("nerve", "sagittal", 3, {})]),
                  "--format", "mdai", "--reader", "labels")  # fmt: skip
    assert "Unknown labels: 'nerve'" in unknown.output
    other = disc(place, StudyInstanceUID="9.9.9")
    lost = run(place, write_mdai(tmp_path / "e.json", [other]), "--format", "mdai", "--reader", "lost")
    assert "is it the key" in lost.output
