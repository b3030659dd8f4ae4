"""`cohort export seg`: no identifier leaves the store; with archive and key objects belong to the original study."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from click.testing import CliRunner, Result
from dicom_enhanced import frame_group, shared_group, write_enhanced
from dicom_exams import AXIAL, SAGITTAL, STUDY, write_block
from seg_stacks import annotation_of, random_masks

from cohort.annotations.assemble import Sheet, assemble
from cohort.annotations.classes import ClassTable
from cohort.annotations.dicom_seg import SegPart, read_seg
from cohort.annotations.matching import ExamImages
from cohort.annotations.store import read_annotation, write_annotation
from cohort.archive.listing import list_files
from cohort.archive.pseudonym import Pseudonyms
from cohort.archive.scan import read_file_rows
from cohort.archive.source import FileSource
from cohort.rows import ExamRow, FileRow
from cohort.stacks import LabelledStack
from cohort.store.convert import convert_exam
from cohort.store.exam import StoredExam, read_exam
from cohort.store.labels import write_labels
from cohort.store.layout import exam_store_path, label_store_path
from cohort.tables.commit import commit
from pipelines.cli import main
from pipelines.convert import image_sources
from pipelines.outcome import Outcome, commit_outcomes

SECRET = "GEHEIMRAT"
TILTED = (1.0, 0.0, 0.0, 0.0, 0.98, -0.199)
PATIENT = {
    "PatientName": f"{SECRET}^Änne",
    "PatientID": "PAT-4711",
    "PatientBirthDate": "19620317",
    "PatientSex": "F",
    "PatientComments": SECRET,
    "AccessionNumber": "ACC-4711",
    "StudyDate": "20240229",
    "StudyDescription": f"MR {SECRET}",
    "ReferringPhysicianName": SECRET,
    "InstitutionName": SECRET,
    "SpecificCharacterSet": "ISO_IR 192",
}
NEEDLES = (b"GEHEIMRAT", b"4711", b"19620317", b"20240229", STUDY.encode(), b"1.2.826.0.1.3680043.8.498", b"1.2.3.")
FINGERPRINT = "ab" * 32


@dataclass(frozen=True)
class Place:
    """An archive, a store with one exam, and a key."""

    folder: Path
    exam: StoredExam
    exam_id: str
    rows: list[FileRow]
    masks: list[LabelledStack]

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def archive(self) -> Path:
        return self.folder / SECRET

    def export(self, output: Path, *arguments: str) -> Result:
        command = ["export", "seg", self.exam_id, "--store", str(self.store), "--output", str(output), *arguments]
        return CliRunner().invoke(main, command)

    def identified(self, output: Path, *arguments: str) -> Result:
        named = ("--archive", str(self.archive), "--config", str(self.folder / "cohort.toml"))
        return self.export(output, *named, *arguments)


def write_archive(archive: Path) -> None:
    """A sagittal series in one multi-frame file, and axial single slices in two oblique blocks."""
    pixels = np.random.default_rng(0).integers(0, 4000, (6, 12, 10), dtype=np.uint16)
    frames = [frame_group((4.0 * k - 10, -20.0, 30.0)) for k in (3, 1, 2, 0, 5, 4)]
    shared = shared_group(orientation=SAGITTAL)
    write_enhanced(archive / SECRET / "sag.dcm", pixels, frames, series="1.2.3.4", shared=shared, **PATIENT)
    blocks = ((AXIAL, (0.0, 0.0, 0.0), 3), (TILTED, (0.0, 0.0, 60.0), 4))
    for orientation, first, n in blocks:
        write_block(archive, series="1.2.3.5", n=n, first=first, orientation=orientation, **PATIENT)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("seg")
    archive, store, key = folder / SECRET, folder / "store", folder / "key"
    write_archive(archive)
    key.write_bytes(bytes(range(32)))
    key.chmod(0o600)
    (folder / "cohort.toml").write_text('[privacy]\nkey_file = "key"\n')
    pseudonyms = Pseudonyms(bytes(range(32)))
    found = {path: read_file_rows(archive, path, size, time, pseudonyms) for path, size, time in list_files(archive)}
    paths = {row.file_id: path for path, rows in found.items() for row in rows}
    rows = sorted((row for rows in found.values() for row in rows), key=lambda row: (row.file_id, row.frame or 0))
    series = {plane: pseudonyms.series_id(uid) for plane, uid in (("sagittal", "1.2.3.4"), ("axial", "1.2.3.5"))}
    sources = {
        plane: image_sources([row for row in rows if row.series_id == one], lambda row: FileSource(paths[row.file_id]))
        for plane, one in series.items()
    }
    exam_id = pseudonyms.exam_id(STUDY)
    exam_path = exam_store_path(store, exam_id, FINGERPRINT)
    convert_exam(exam_path, archive=archive, exam_id=exam_id, attributes={}, pseudonyms=pseudonyms, **sources)
    exam = read_exam(exam_path)
    masks = [random_masks(stack, k) for k, stack in enumerate(exam.stacks)]
    labels_path = label_store_path(store, exam_id, FINGERPRINT)
    weights = {"vertebral_body": "ab" * 32, "disc": "cd" * 32, "muscle": "ef" * 32}
    write_labels(labels_path, masks, {"exam_id": exam_id, "weights_sha256": weights})
    row = ExamRow(exam_id=exam_id, subject_id=pseudonyms.subject_id("PAT-4711"), status="ok",
                  sagittal_series_id=series["sagittal"], sagittal_part=0, axial_series_id=series["axial"],
                  axial_part=0, store_path=str(exam_path.relative_to(store)))  # fmt: skip
    waiting = ExamRow(exam_id="waitingperson234567", subject_id="x", status="refused", reason="no_t1_sagittal")
    commit(store, "run", {"exams": [row, waiting], "files": rows}, touched={})
    results = {"convert": exam_path, "segment": labels_path}
    commit_outcomes(store, "run", [Outcome(exam_id, stage, FINGERPRINT, "ok", 1.0, path=str(path.relative_to(store)))
                                   for stage, path in results.items()])  # fmt: skip
    return Place(folder, exam, exam_id, rows, masks)


def read_back(place: Place, folder: Path, pseudonyms: Pseudonyms | None) -> dict[tuple[str, int], LabelledStack]:
    """All objects of a folder as one annotation."""
    sheet = Sheet(place.exam_id, "again", tool="", source="")
    chosen = {row.series_id for row in place.rows}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as stream:
            file = read_seg(stream)
        SegPart(file, ClassTable(), pseudonyms).add(ExamImages.of(place.exam, place.rows, chosen), sheet)
    assert sheet.rows == []
    return {(one.stack.plane, one.stack.index): one for one in assemble(place.exam, sheet).labelled}


def require_masks(found: dict[tuple[str, int], LabelledStack], place: Place) -> None:
    assert len(found) == len(place.masks) == 3
    for one in place.masks:
        labels = found[one.stack.plane, one.stack.index].labels
        assert set(labels) == set(one.labels)
        assert all(np.array_equal(labels[name], mask) for name, mask in one.labels.items())


def test_a_de_identified_export_holds_no_identifier_and_comes_back(place: Place, tmp_path: Path) -> None:
    result = place.export(tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "3 objects" in result.output
    assert "de-identified" in result.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "axial-01.dcm", "axial-02.dcm", "sagittal-01.dcm"
    ]  # fmt: skip
    for path in (tmp_path / "out").iterdir():
        content = path.read_bytes()
        assert [needle for needle in NEEDLES if needle in content] == []
        data = pydicom.dcmread(path)
        assert data.PatientIdentityRemoved == "YES"
        assert data.PatientID == Pseudonyms(bytes(range(32))).subject_id("PAT-4711")
        assert data.ContentDate == "19000101"
        uids = {str(one.value) for one in data.iterall() if one.VR == "UI" and str(one.value).startswith("2.25.")}
        assert len(uids) > 5
    require_masks(read_back(place, tmp_path / "out", None), place)
    again = place.export(tmp_path / "again", "--json")
    assert json.loads(again.stdout)["identified"] is False
    for path in (tmp_path / "out").iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_an_identified_export_repeats_patient_and_study_and_names_the_images(place: Place, tmp_path: Path) -> None:
    result = place.identified(tmp_path / "out")
    assert result.exit_code == 0, result.output
    originals = [pydicom.dcmread(path) for path in place.archive.rglob("*.dcm")]
    by_uid = {str(one.SOPInstanceUID): one for one in originals}
    for path in (tmp_path / "out").iterdir():
        segmentation = hd.seg.segread(path)
        for keyword, value in PATIENT.items():
            if keyword not in ("InstitutionName", "SpecificCharacterSet"):  # of the equipment, and of the object
                assert str(segmentation[keyword].value) == value, keyword
        assert segmentation.StudyInstanceUID == STUDY
        assert segmentation.FrameOfReferenceUID == originals[0].FrameOfReferenceUID
        assert "PatientIdentityRemoved" not in segmentation
        [series] = segmentation.ReferencedSeriesSequence
        for frame in segmentation.PerFrameFunctionalGroupsSequence:
            [reference] = frame.DerivationImageSequence[0].SourceImageSequence
            source = by_uid[reference.ReferencedSOPInstanceUID]
            assert (reference.ReferencedSOPClassUID, series.SeriesInstanceUID) == (
                source.SOPClassUID, source.SeriesInstanceUID
            )  # fmt: skip
            where = source
            if "NumberOfFrames" in source:
                group = source.PerFrameFunctionalGroupsSequence[reference.ReferencedFrameNumber - 1]
                where = group.PlanePositionSequence[0]
            position = frame.PlanePositionSequence[0].ImagePositionPatient
            np.testing.assert_allclose(position, where.ImagePositionPatient, atol=1e-6)
    require_masks(read_back(place, tmp_path / "out", Pseudonyms(bytes(range(32)))), place)
    names = {str(one.PatientName) for one in map(pydicom.dcmread, (tmp_path / "out").iterdir())}
    assert names == {PATIENT["PatientName"]}
    assert SECRET not in result.output


def test_a_reader_s_masks_are_written_as_drawn_by_hand(place: Place, tmp_path: Path) -> None:
    sagittal = place.masks[0]
    labels = {"disc": sagittal.labels["disc"].copy()}
    labels["disc"][[0, 1, 4, 5]] = 0
    one = annotation_of(
        [LabelledStack(sagittal.stack, labels, {})],
        exam_id=place.exam_id, reader="MB", drawn_at="2025-03-14T10:11:12", slices={("sagittal", 0, "disc"): (2, 3)},
    )  # fmt: skip
    write_annotation(place.store, one)
    result = place.identified(tmp_path / "out", "--reader", "MB")
    assert result.exit_code == 0, result.output
    [path] = (tmp_path / "out").iterdir()
    segmentation = hd.seg.segread(path)
    assert segmentation.NumberOfFrames == 2
    assert (segmentation.ContentDate, segmentation.ContentTime) == ("20250314", "101112")
    assert segmentation.get_segment_description(1).algorithm_type == hd.seg.SegmentAlgorithmTypeValues.MANUAL
    unknown = place.export(tmp_path / "other", "--reader", "NN")
    assert unknown.exit_code == 2
    assert "it has: automatic, MB" in unknown.output


def test_what_cannot_be_exported_says_why_and_leaves_nothing(place: Place, tmp_path: Path) -> None:
    output = tmp_path / "out"
    command = ["export", "seg", "--store", str(place.store), "--output", str(output)]
    missing = CliRunner().invoke(main, [*command, "nothing"])
    assert (missing.exit_code, "no exam 'nothing'" in missing.output) == (2, True)
    refused = CliRunner().invoke(main, [*command, "waitingperson234567"])
    assert (refused.exit_code, "no_t1_sagittal" in refused.output) == (2, True)
    inside = place.identified(place.store / "out")
    assert (inside.exit_code, "pseudonyms alone" in inside.output) == (2, True)
    (tmp_path / "empty.toml").write_text('[privacy]\nkey_file = "none"\n')
    arguments = ("--archive", str(place.archive), "--config", str(tmp_path / "empty.toml"))
    no_key = place.export(output, *arguments)
    assert (no_key.exit_code, "key is not there" in no_key.output) == (2, True)
    assert not (tmp_path / "none").exists()
    assert not output.exists()


def test_an_archive_that_changed_is_an_error(place: Place, tmp_path: Path) -> None:
    [path, *_] = sorted(place.archive.glob("1.2.3.5-*.dcm"))
    before = path.read_bytes()
    data = pydicom.dcmread(path)
    try:
        data.PatientName = "Another"
        data.save_as(path)
        other = place.identified(tmp_path / "out")
        data.SOPInstanceUID = "1.2.3.999"
        data.save_as(path)
        image = place.identified(tmp_path / "out")
        path.unlink()
        gone = place.identified(tmp_path / "out")
    finally:
        path.write_bytes(before)
    assert (other.exit_code, "contradict each other in PatientName" in other.output) == (2, True)
    assert (image.exit_code, "another image now" in image.output) == (2, True)
    assert (gone.exit_code, "no longer in the archive" in gone.output) == (2, True)
    assert not (tmp_path / "out").exists()


def run_import(place: Place, source: Path, *arguments: str) -> dict[str, object]:
    command = ["annotations", "import", str(source), str(place.store), "--format", "dicom-seg", "--json"]
    result = CliRunner().invoke(main, [*command, "--config", str(place.folder / "cohort.toml"), *arguments])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_both_kinds_of_objects_are_imported_as_they_were_drawn(place: Place, tmp_path: Path) -> None:
    """Random masks break the rules on shapes, which are tested elsewhere: muscles alone are compared."""
    assert place.export(tmp_path / "de-identified").exit_code == 0
    assert place.identified(tmp_path / "identified").exit_code == 0
    for folder in ("de-identified", "identified"):
        assert run_import(place, tmp_path / folder, "--reader", folder)["annotations"] == 1
        again = run_import(place, tmp_path / folder, "--reader", folder)
        assert (again["written"], again["unchanged"]) == (0, 1)
        found = read_annotation(place.store, place.exam, place.exam_id, folder).labelled
        muscles = {one.stack.index: one.labels["muscle"] for one in found if one.stack.plane == "axial"}
        assert len(muscles) == 2
        assert all(np.array_equal(muscles[one.stack.index], one.labels["muscle"]) for one in place.masks[1:])


def test_a_table_names_the_exam_of_a_copy_and_says_what_is_complete(place: Place, tmp_path: Path) -> None:
    assert place.export(tmp_path / "copies").exit_code == 0
    path = tmp_path / "copies" / "axial-01.dcm"
    data = pydicom.dcmread(path)
    data.StudyInstanceUID = data.FrameOfReferenceUID = "2.25.4"
    data.save_as(path)
    for other in ("axial-02", "sagittal-01"):
        (tmp_path / "copies" / f"{other}.dcm").unlink()
    (tmp_path / "copies" / "damaged.dcm").write_bytes(b"no DICOM")
    details = run_import(place, tmp_path / "copies", "--reader", "C")["details"]
    assert sorted(row["reason"] for row in details) == ["mask_unreadable", "study_unknown"]
    table = tmp_path / "table.csv"
    table.write_text(f"file,exam,complete\naxial-01.dcm,{place.exam_id},yes\n")
    done = run_import(place, tmp_path / "copies", "--reader", "C", "--table", str(table))
    assert done["annotations"] == 1
    [one] = read_annotation(place.store, place.exam, place.exam_id, "C").labelled
    assert np.array_equal(one.labels["muscle"], place.masks[1 + one.stack.index].labels["muscle"])
