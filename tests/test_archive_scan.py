from __future__ import annotations

import dataclasses
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from dicom_exams import write_slice

from cohort.archive.pseudonym import Pseudonyms
from cohort.archive.scan import list_files, parse_age_years, read_file_row, years_between
from cohort.archive.vocabulary import HINTS, text_hints
from cohort.reasons import FILE_REASONS
from cohort.rows import FileRow

PSEUDONYMS = Pseudonyms(bytes(range(32)))
PIXELS = np.arange(120, dtype=np.uint16).reshape(12, 10)


def scan(root: Path) -> dict[str, FileRow]:
    return {found[0]: read_file_row(root, *found, PSEUDONYMS) for found in list_files(root)}


def row_of(path: Path) -> FileRow:
    return scan(path.parent)[path.name]


def test_usable_file_is_described_without_its_texts(tmp_path: Path) -> None:
    secrets = {
        "PatientName": "Zyxwvut^Querida",
        "PatientID": "PID-98765-QQ",
        "AccessionNumber": "ACC-4711-QQ",
        "PatientBirthDate": "19620314",
        "StudyDate": "20110405",
        "SeriesDescription": "SAG T1 TSE Doktor Zyxwvut",
        "ProtocolName": "Zyxwvut protocol",
        "Manufacturer": "SIEMENS Zyxwvut",
        "InstitutionName": "Zyxwvut Clinic",
        "BodyPartExamined": "LSPINE",
        "ScanningSequence": ["SE", "ZYXWVUT"],
        "ImageType": ["ORIGINAL", "PRIMARY", "ZYXWVUT"],
    }
    path = write_slice(tmp_path / "Zyxwvut.dcm", PIXELS, series="1.2.3", **secrets, MagneticFieldStrength="3")
    row = row_of(path)
    assert row.reason is None
    assert (row.text_hints, row.vendor, row.field_t) == ("t1+sagittal+lumbar", "Siemens", 3.0)
    assert (row.scanning_sequence, row.image_type, row.age_years) == ("SE", "ORIGINAL+PRIMARY", 49.0)
    assert (row.rows, row.columns, row.row_spacing_mm, row.thickness_mm) == (12, 10, 0.7, 4.0)
    written = repr(dataclasses.asdict(row)).lower()
    for secret in ("zyxwvut", "querida", "98765", "4711", "19620314", "1962", "20110405", "1.2.3"):
        assert secret not in written


def test_every_file_of_the_corpus_ends_as_a_row(real_data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = scan(real_data / "dicom_corpus")
    n_files = sum(path.is_file() for path in (real_data / "dicom_corpus").rglob("*"))
    assert len(rows) == n_files
    assert {row.reason for row in rows.values()} <= {None, *FILE_REASONS}
    assert capfd.readouterr() == ("", "")
    reasons = {name.removeprefix("pydicom/test_files/"): row.reason for name, row in rows.items()}
    assert reasons["MR_truncated.dcm"] == "truncated"
    assert reasons["MR_small_implicit.dcm"] is None
    assert reasons["MR_small_bigendian.dcm"] is None
    assert reasons["dicomdirtests/DICOMDIR"] == "not_an_image"
    assert reasons["CT_small.dcm"] == "not_mr"
    assert reasons["zipMR.gz"] == "not_dicom"
    assert reasons["dcm_qa_ts/1.dcm"] == "unsupported_pixels"  # mosaic
    assert all(row.reason == "enhanced_unsupported" for name, row in rows.items() if name.startswith("dcm_qa_enh/"))
    for row in rows.values():
        if row.reason is None:
            assert row.exam_id
            assert row.position_mm
            assert len(row.orientation or ()) == 6


def test_damaged_copies_of_a_file_each_end_as_a_row(tmp_path: Path) -> None:
    whole = write_slice(tmp_path / "whole.dcm", PIXELS, series="1.2").read_bytes()
    random = np.random.default_rng(0)
    for k in range(150):
        damaged = bytearray(whole)
        for at in random.integers(128, len(whole), 1 + k % 8):
            damaged[at] = random.integers(256)
        (tmp_path / f"bits-{k}").write_bytes(damaged)
        (tmp_path / f"cut-{k}").write_bytes(whole[: len(whole) * k // 150])
    rows = scan(tmp_path)
    assert len(rows) == 301
    assert {row.reason for row in rows.values()} <= {None, *FILE_REASONS}
    assert all(row.reason is not None for name, row in rows.items() if name.startswith("cut"))


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"Modality": None}, None),
        ({"Modality": None, "SOPClassUID": None}, None),
        ({"Modality": "CT"}, "not_mr"),
        ({"ImageOrientationPatient": None}, "no_geometry"),
        ({"ImageOrientationPatient": ["1", "0", "0", "1", "0", "0"]}, "no_geometry"),
        ({"PixelSpacing": ["0", "0"]}, "no_geometry"),
        ({"ImagePositionPatient": ["0", "0"]}, "no_geometry"),
        ({"StudyInstanceUID": None}, "no_identity"),
        ({"SOPInstanceUID": None}, "no_identity"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "unsupported_pixels"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "MOSAIC"]}, "unsupported_pixels"),
        ({"NumberOfFrames": "3"}, "enhanced_unsupported"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4.1"}, "enhanced_unsupported"),
    ],
)
def test_reason(tmp_path: Path, attributes: dict[str, object], reason: str | None) -> None:
    path = write_slice(tmp_path / "anything.txt", PIXELS, series="1.2", **attributes)
    assert row_of(path).reason == reason


def test_file_without_preamble_is_read(tmp_path: Path) -> None:
    whole = write_slice(tmp_path / "whole", PIXELS, series="1.2").read_bytes()
    path = tmp_path / "bare"
    path.write_bytes(whole[132:])
    assert row_of(path).reason is None


def test_files_without_patient_id_are_not_one_person(tmp_path: Path) -> None:
    write_slice(tmp_path / "a", PIXELS, series="1.2", PatientID="", StudyInstanceUID="1.2.3")
    write_slice(tmp_path / "b", PIXELS, series="1.2", PatientID=None, StudyInstanceUID="1.2.4")
    assert len({row.subject_id for row in scan(tmp_path).values()}) == 2


@pytest.mark.skipif(os.name != "posix", reason="links and pipes are made as on POSIX")
def test_loops_pipes_and_broken_links_do_not_stop_the_scan(tmp_path: Path) -> None:
    write_slice(tmp_path / "inner" / "a.dcm", PIXELS, series="1.2")
    (tmp_path / "inner" / "loop").symlink_to(tmp_path)
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    rows = scan(tmp_path)
    assert {name: row.reason for name, row in rows.items()} == {
        "inner/a.dcm": None,
        "gone": "unreadable",
        "empty": "not_dicom",
        "pipe": "unreadable",
    }


def test_missing_root_is_one_unreadable_row(tmp_path: Path) -> None:
    assert {name: row.reason for name, row in scan(tmp_path / "nowhere").items()} == {".": "unreadable"}


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind the root user")
def test_a_directory_that_cannot_be_listed_is_a_row(tmp_path: Path) -> None:
    write_slice(tmp_path / "locked" / "a.dcm", PIXELS, series="1.2")
    write_slice(tmp_path / "open" / "b.dcm", PIXELS, series="1.2")
    (tmp_path / "locked").chmod(0)
    try:
        assert {name: row.reason for name, row in scan(tmp_path).items()} == {
            "locked": "unreadable",
            "open/b.dcm": None,
        }
    finally:
        (tmp_path / "locked").chmod(0o700)


@pytest.mark.parametrize(
    ("text", "hints"),
    [
        ("SAG T1 TSE", {"t1", "sagittal"}),
        ("t1_vibe_dixon_tra_bh_in", {"t1", "dixon", "in_phase", "axial"}),
        ("t1_vibe_dixon_tra_bh_W", {"t1", "dixon", "water", "axial"}),
        ("t1_vibe_dixon_tra_bh_F", {"t1", "dixon", "fat", "axial"}),
        ("t1_vibe_dixon_tra_bh_opp", {"t1", "dixon", "out_of_phase", "axial"}),
        ("AX T1 FS POST GAD", {"t1", "axial", "fatsat", "post_contrast"}),
        ("T1 SAG +C", {"t1", "sagittal", "post_contrast"}),
        ("Ax T1 pre contrast", {"t1", "axial"}),
        ("T1 tra ohne KM", {"t1", "axial"}),
        ("AX T1 POST-OP", {"t1", "axial"}),
        ("STIR longTE SAG", {"stir", "sagittal"}),
        ("T12-L5 SAG", {"sagittal"}),
        ("Loc 3-plane", {"localiser"}),
        ("*tfi2d1", {"balanced"}),
        ("LUMBAR SAGT2", {"lumbar", "t2", "sagittal"}),
        ("Miller^Anna 12.03.1962", set()),
    ],
)
def test_text_hints(text: str, hints: set[str]) -> None:
    found = text_hints([text])
    assert set(found.split("+") if found else ()) == hints
    assert hints <= set(HINTS)


def test_contrast_agent_and_fat_saturation_come_from_their_own_attributes() -> None:
    assert text_hints(["T1"], contrast_agent="Gadovist 7 ml") == "t1+post_contrast"
    assert text_hints(["T1"], contrast_agent="None") == "t1"
    assert text_hints(["T1"], scan_options="PFP\\FS") == "t1+fatsat"


def test_ages() -> None:
    assert parse_age_years("045Y") == 45
    assert parse_age_years("018M") == 1.5
    assert parse_age_years("45") is None
    assert parse_age_years("") is None
    assert years_between("19620314", "20110313") == 48
    assert years_between("19000101", "20110313") is None
    assert years_between("20110313", "20110313") is None


def test_ages_over_89_are_one_class(tmp_path: Path) -> None:
    for age, kept in (("089Y", 89), ("090Y", 90), ("104Y", 90), ("999Y", 999)):
        path = write_slice(tmp_path / age, PIXELS, series="1.2", PatientAge=age)
        assert row_of(path).age_years == kept
