"""Files to rows: real and hostile ones, each usable or with its reason."""

from __future__ import annotations

import dataclasses
import gzip
import os
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from dicom_enhanced import ENHANCED_MR, frame_group, item, write_enhanced
from dicom_exams import write_slice
from pydicom import dcmread, dcmwrite
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
from scanned_files import FRAMES, PIXELS, PSEUDONYMS, reasons_of, row_of, rows_of, write_zip

from cohort.archive.describe import is_decodable, parse_age_years, years_between
from cohort.archive.listing import list_files
from cohort.archive.scan import read_file_rows
from cohort.archive.vocabulary import HINTS, text_hints
from cohort.reasons import FILE_REASONS
from cohort.rows import FileRow


def scan_all(root: Path) -> dict[str, list[FileRow]]:
    return {found[0]: read_file_rows(root, *found, PSEUDONYMS) for found in list_files(root)}


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


def test_every_file_of_the_corpus_ends_as_rows(real_data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = scan_all(real_data / "dicom_corpus")
    assert capfd.readouterr() == ("", "")
    n_files = sum(path.is_file() for path in (real_data / "dicom_corpus").rglob("*"))
    assert len(rows) == n_files
    for found in rows.values():
        assert {row.reason for row in found} <= {None, *FILE_REASONS}
        assert [row.frame for row in found] in ([None], list(range(len(found))))
        for row in found:
            if row.reason is None:
                assert row.exam_id
                assert row.position_mm
                assert len(row.orientation or ()) == 6
    one = {name.removeprefix("pydicom/test_files/"): found[0].reason for name, found in rows.items()}
    assert one["MR_truncated.dcm"] == "truncated"
    assert one["MR_small_implicit.dcm"] is None
    assert one["MR_small_bigendian.dcm"] is None
    assert one["dicomdirtests/DICOMDIR"] == "not_an_image"
    assert one["CT_small.dcm"] == "not_mr"
    assert one["zipMR.gz"] is None
    assert one["dcm_qa_ts/1.dcm"] == "mosaic"
    assert one["pydicom_data/emri_small.dcm"] == "no_geometry"
    assert one["dcm_qa_philips_enh/enh/1901_WIP_3DpCASL_Raw.dcm.gz"] == "not_an_image"


def test_frames_of_real_enhanced_images_are_rows(real_data: Path) -> None:
    corpus = real_data / "dicom_corpus"
    rows = rows_of(corpus / "dcm_qa_philips_enh" / "enh" / "2001_WIP_fcMRI_Field_Mapping_e2_phMag.dcm.gz")
    assert len(rows) == 212
    assert {row.reason for row in rows} == {None}
    assert len({(row.file_id, row.instance_id, row.series_id) for row in rows}) == 1
    assert {(row.echo_time_ms, "PHASE" in (row.image_type or "")) for row in rows} == {
        (2.3, False),
        (2.3, True),
        (4.6, False),
        (4.6, True),
    }
    (siemens, *_) = rows_of(corpus / "dcm_qa_enh" / "Siemens" / "XA10" / "6_3.dcm")
    assert (siemens.temporal_position, siemens.scanning_sequence, siemens.thickness_mm) == (3, "GR+EP", 2.4)
    assert "fatsat" in (siemens.text_hints or "")


def test_frames_of_one_file_differ_where_its_functional_groups_do(tmp_path: Path) -> None:
    groups = [frame_group((k, 0, 0), echo_ms=echo) for echo in (11.0, 80.0) for k in (0.0, 4.0)]
    rows = rows_of(write_enhanced(tmp_path / "a", FRAMES, groups, series="1.2"))
    assert [(row.frame, row.echo_time_ms, row.position_mm) for row in rows] == [
        (0, 11.0, [0, 0, 0]),
        (1, 11.0, [4, 0, 0]),
        (2, 80.0, [0, 0, 0]),
        (3, 80.0, [4, 0, 0]),
    ]
    assert {(row.reason, row.rows, row.row_spacing_mm, row.repetition_time_ms) for row in rows} == {
        (None, 12, 0.7, 550)
    }


def test_one_frame_without_place_costs_no_other(tmp_path: Path) -> None:
    groups = [frame_group((k, 0, 0)) for k in range(3)]
    path = write_enhanced(tmp_path / "a", FRAMES, [*groups, item()], series="1.2")
    assert [row.reason for row in rows_of(path)] == [None, None, None, "no_geometry"]


def test_what_is_wrong_with_an_image_is_wrong_with_all_its_frames(tmp_path: Path) -> None:
    groups = [frame_group((k, 0, 0)) for k in range(4)]
    path = write_enhanced(tmp_path / "a", FRAMES, groups, series="1.2")
    path.write_bytes(path.read_bytes()[:-1])
    assert reasons_of(path) == {"truncated": 4}
    write_enhanced(path, FRAMES, groups, series="1.2", PhotometricInterpretation="PALETTE COLOR")
    assert reasons_of(path) == {"unsupported_pixels": 4}
    write_enhanced(path, FRAMES, groups, series="1.2", NumberOfFrames=5)
    assert reasons_of(path) == {"damaged_header": 1}


def write_variants(folder: Path) -> list[Path]:
    """One slice in several encodings, with private elements and a trailing one around its pixels."""
    image = dcmread(write_slice(folder / "explicit", PIXELS, series="1.2"))
    image.private_block(0x0029, "PRIVATE", create=True).add_new(1, "OB", bytes(3000))
    image.save_as(folder / "private")
    image.add_new(0xFFFCFFFC, "OB", bytes(100))  # DataSetTrailingPadding
    image.save_as(folder / "trailing")
    for name, syntax in (("implicit", ImplicitVRLittleEndian), ("big", ExplicitVRBigEndian)):
        image.file_meta.TransferSyntaxUID = syntax
        dcmwrite(folder / name, image, enforce_file_format=True)
    return sorted(folder.iterdir())


def test_pixels_are_complete_in_every_encoding_and_never_when_cut(tmp_path: Path) -> None:
    for path in write_variants(tmp_path / "whole"):
        whole = path.read_bytes()
        assert row_of(path).reason is None, path.name
        trailing = 0 if path.name in ("explicit", "private") else 112
        for kept in (*range(0, len(whole) - trailing, 97), len(whole) - trailing - 1):
            cut = tmp_path / "cut"
            cut.write_bytes(whole[:kept])
            assert row_of(cut).reason is not None, (path.name, kept)


def test_a_slice_that_was_cut_within_its_header_still_belongs_to_its_series(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "a", PIXELS, series="1.2")
    series_id, whole = row_of(path).series_id, path.read_bytes()
    path.write_bytes(whole[: whole.index(b"\x28\x00\x02\x00")])  # before SamplesPerPixel
    assert (row_of(path).reason, row_of(path).series_id) == ("truncated", series_id)


def test_elements_out_of_order_are_found(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "a", PIXELS, series="1.2")
    whole, ordinary = path.read_bytes(), row_of(path)
    begin = whole.index(b"\x08\x00\x08\x00")
    late = b"\x01\x70\x10\x00LO\x04\x00late"  # (7001,0010) before everything else
    path.write_bytes(whole[:begin] + late + whole[begin:])
    found = row_of(path)
    assert dataclasses.replace(found, size_bytes=ordinary.size_bytes) == ordinary


def test_deflated_data_sets(tmp_path: Path) -> None:
    image = dcmread(write_slice(tmp_path / "plain", PIXELS, series="1.2"))
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = tmp_path / "deflated"
    dcmwrite(path, image, enforce_file_format=True)
    assert row_of(path).reason is None
    path.write_bytes(path.read_bytes()[:-40])
    assert row_of(path).reason == "truncated"


def test_a_deflated_bomb_is_left(tmp_path: Path) -> None:
    image = dcmread(write_slice(tmp_path / "plain", PIXELS, series="1.2"))
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = tmp_path / "bomb"
    dcmwrite(path, image, enforce_file_format=True)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = b"".join(packer.compress(bytes(2**20)) for _ in range(2**8 + 1)) + packer.flush()
    meta_end = 132 + 12 + int.from_bytes(path.read_bytes()[140:144], "little")
    path.write_bytes(path.read_bytes()[:meta_end] + zeros)
    assert row_of(path).reason == "container_limit"


def test_lengths_of_gigabytes_take_no_memory(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "a", PIXELS, series="1.2")
    whole = path.read_bytes()
    at = whole.index(b"\x10\x00\x20\x00LO")  # PatientID
    huge = b"\x10\x00\x20\x00UT\0\0" + (2**31).to_bytes(4, "little")
    endless = b"\x09\x00\x10\x10OB\0\0\xff\xff\xff\xff"  # a private element of undefined length
    for hostile in (huge, endless):
        path.write_bytes(whole[:at] + hostile)
        os.truncate(path, 2**32)  # a hole, not four gigabytes
        tracemalloc.start()
        row = row_of(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert row.reason is not None
        assert peak < 2**30


def damaged(whole: bytes, k: int) -> list[bytes]:
    """A copy with some bytes changed, and one that was cut off."""
    random = np.random.default_rng(k)
    changed = bytearray(whole)
    for at in random.integers(0, len(whole), 1 + k % 8):
        changed[at] = random.integers(256)
    return [bytes(changed), whole[: len(whole) * k // 100]]


def test_damaged_copies_of_every_kind_of_file_end_as_rows(tmp_path: Path) -> None:
    plain = write_slice(tmp_path / "plain", PIXELS, series="1.2").read_bytes()
    groups = [frame_group((k, 0, 0)) for k in range(4)]
    enhanced = write_enhanced(tmp_path / "enhanced", FRAMES, groups, series="1.2").read_bytes()
    zipped = write_zip(tmp_path / "zip", {"a": plain, "b": gzip.compress(plain), "c": enhanced}).read_bytes()
    path = tmp_path / "damaged"
    for whole in (plain, enhanced, gzip.compress(plain), gzip.compress(enhanced), zipped):
        for k in range(100):
            changed, cut = damaged(whole, k)
            path.write_bytes(changed)
            assert {row.reason for row in rows_of(path)} <= {None, *FILE_REASONS}
            path.write_bytes(cut)
            assert None not in {row.reason for row in rows_of(path)}


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
        ({"BitsAllocated": 32}, "unsupported_pixels"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "MOSAIC"]}, "mosaic"),
        ({"NumberOfFrames": "3"}, "no_geometry"),
        ({"NumberOfFrames": "1"}, None),
        ({"SOPClassUID": ENHANCED_MR}, None),
        ({"SOPClassUID": ENHANCED_MR, "Rows": None}, "truncated"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66"}, "not_an_image"),
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
    one = write_slice(tmp_path / "a", PIXELS, series="1.2", PatientID="", StudyInstanceUID="1.2.3")
    other = write_slice(tmp_path / "b", PIXELS, series="1.2", PatientID=None, StudyInstanceUID="1.2.4")
    assert row_of(one).subject_id != row_of(other).subject_id


def test_identifiers_are_read_in_the_character_set_of_the_file(tmp_path: Path) -> None:
    latin = write_slice(tmp_path / "a", PIXELS, series="1.2", SpecificCharacterSet="ISO_IR 100", PatientID="Jäger")
    utf8 = write_slice(tmp_path / "b", PIXELS, series="1.2", SpecificCharacterSet="ISO_IR 192", PatientID="Jäger")
    assert row_of(latin).subject_id == row_of(utf8).subject_id == PSEUDONYMS.subject_id("Jäger")


@pytest.mark.parametrize(
    ("transfer_syntax", "decodable"),
    [
        ("1.2.840.10008.1.2", True),
        ("1.2.840.10008.1.2.1", True),
        ("1.2.840.10008.1.2.1.99", True),  # deflated
        ("1.2.840.10008.1.2.2", True),  # big endian
        ("1.2.840.10008.1.2.5", True),  # RLE
        ("1.2.840.10008.1.2.4.50", True),  # JPEG baseline
        ("1.2.840.10008.1.2.4.70", True),  # JPEG lossless
        ("1.2.840.10008.1.2.4.80", True),  # JPEG-LS
        ("1.2.840.10008.1.2.4.90", True),  # JPEG 2000
        ("1.2.840.10008.1.2.4.94", False),  # JPIP
        ("1.2.840.10008.1.2.4.102", False),  # MPEG-4
        ("1.2.840.10008.1.2.4.201", False),  # HTJ2K
        ("1.2.840.113619.5.2", False),  # private
    ],
)
def test_transfer_syntaxes_that_can_be_decoded(transfer_syntax: str, decodable: bool) -> None:
    assert is_decodable(transfer_syntax) == decodable


def test_a_transfer_syntax_without_decoder_is_a_reason(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "a", PIXELS, series="1.2")
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.4\0"))
    assert row_of(path).reason == "unsupported_transfer_syntax"


def test_a_file_that_vanished_is_told_from_a_link_to_nowhere(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    for name, reason in (("gone", "vanished"), ("file/gone", "vanished"), ("link", "unreadable")):
        (row,) = read_file_rows(tmp_path, name, 10, 7, PSEUDONYMS)
        assert (row.reason, row.size_bytes, row.mtime_ns) == (reason, 10, 7)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind the root user")
def test_a_file_that_must_not_be_read_is_unreadable(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "a", PIXELS, series="1.2")
    path.chmod(0)
    assert row_of(path).reason == "unreadable"


def test_pipes_and_directories_do_not_stop_the_scan(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        (row,) = read_file_rows(tmp_path, name, 0, 0, PSEUDONYMS)
        assert row.reason == "unreadable"


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


def test_numbers_that_no_column_holds_are_missing(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "a", PIXELS, series="1.2", EchoTrainLength="11")
    whole = path.read_bytes()
    for hostile in (b"1e30", b"-inf", b"nan ", b"1\\x ", b"\xff\xfe\xfd\xfc"):
        path.write_bytes(whole.replace(b"IS\x02\x0011", b"IS\x04\x00" + hostile))
        assert (row_of(path).reason, row_of(path).echo_train_length) == (None, None)


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
