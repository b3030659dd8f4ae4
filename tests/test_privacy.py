"""Identifiers planted in every text of every header, in private elements, names and tables: none is written or said."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pandas as pd
import pydicom
import pytest
from click.testing import CliRunner
from dicom_exams import AXIAL, SAGITTAL, sources, write_block
from pydicom._dicom_dict import DicomDictionary

from cohort.archive.pseudonym import Pseudonyms
from cohort.store.convert import convert_exam
from pipelines.cli import main

SECRET = "GEHEIMRAT"
STUDY = "1.2.840.113619.4711.1"
TEXTS = frozenset(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"))
KEPT = frozenset(("Modality", "ImageType", "ScanningSequence", "PhotometricInterpretation", "SpecificCharacterSet"))
"""Texts without which the file would be no usable T1 image."""
LAST_GROUP = 0x0040


def _plant(path: Path) -> int:
    """Write the secret into every text element of the dictionary up to the pixels; returns how many."""
    data = pydicom.dcmread(path)
    planted = 0
    for tag, (representation, _, _, _, keyword) in DicomDictionary.items():
        if 0x0002 < tag >> 16 <= LAST_GROUP and representation in TEXTS and keyword not in KEPT:
            data.add_new(tag, representation, SECRET)
            planted += 1
    data.PatientBirthDate, data.StudyInstanceUID = "19620314", STUDY
    private = data.private_block(0x0029, SECRET, create=True)
    private.add_new(0x10, "LO", SECRET)
    private.add_new(0x11, "OB", SECRET.encode() + b"\0")
    data.save_as(path)
    return planted


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An exam that names its patient wherever it can: loose files, a gzip-compressed one, members of a .zip."""
    root = tmp_path / f"{SECRET}_Anna"
    sagittal = write_block(root / SECRET, series="1.2.840.113619.4711.4", n=6, orientation=SAGITTAL)
    axial = write_block(tmp_path / "loose", series="1.2.840.113619.4711.5", n=4, orientation=AXIAL)
    assert min(_plant(path) for path in (*sagittal, *axial)) > 800
    sagittal[0].with_name(f"{SECRET}.gz").write_bytes(gzip.compress(sagittal[0].read_bytes()))
    sagittal[0].unlink()
    sagittal[1].write_bytes(sagittal[1].read_bytes()[:-40])
    (root / f"{SECRET}.dcm").write_text(SECRET)
    with zipfile.ZipFile(root / f"{SECRET}.zip", "w") as bundle:
        for path in axial:
            bundle.write(path, f"{SECRET}/{path.name}")
    return root


NEEDLES = (SECRET.encode(), b"geheimrat", b"113619.4711", b"19620314")


def _search(*contents: bytes) -> None:
    for content in contents:
        for needle in NEEDLES:
            assert needle not in content


def test_a_scan_keeps_and_says_nothing(archive: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store, config = tmp_path / "store", tmp_path / "cohort.toml"
    config.write_text('[privacy]\nkey_file = "key"\n[cluster]\nworkers = 1\n')
    result = CliRunner().invoke(main, ["scan", str(archive), "--store", str(store), "--config", str(config)])
    assert result.exit_code == 0, result.output
    files = pd.read_parquet(store / "tables" / "files")
    assert set(files.reason.dropna()) == {"truncated", "not_dicom", "container"}
    assert files.reason.isna().sum() == 9
    tables = [pd.read_parquet(folder).to_csv() for folder in (store / "tables").iterdir() if folder.is_dir()]
    _search(result.output.encode(), *(text.encode() for text in (*tables, *capfd.readouterr())))
    for path in (one for one in store.rglob("*") if one.is_file()):
        _search(path.read_bytes(), str(path.relative_to(store)).encode())


def test_an_exam_store_holds_nothing(archive: Path, tmp_path: Path) -> None:
    loose = sorted(path for path in (archive / SECRET).iterdir() if path.suffix == ".dcm")
    target = tmp_path / "exam.zarr"
    converted = convert_exam(
        target,
        archive=archive,
        exam_id="exam",
        sagittal=sources(archive, [*loose, archive / SECRET / f"{SECRET}.gz"]),
        axial=[],
        attributes={},
        pseudonyms=Pseudonyms(bytes(32)),
    )
    assert [flag.reason for flag in converted.quality][:1] == ["damaged_file_in_series"]
    _search(repr(converted).encode(), *(path.read_bytes() for path in target.rglob("*") if path.is_file()))


@pytest.mark.parametrize(
    "table",
    [
        f"patient_id,height_m\n{SECRET},{SECRET}\n",
        f"patient_id,{SECRET}\n1,2\n",
        f"{SECRET}\n1\n",
        f"height_m\n{SECRET}",
    ],
)
def test_errors_about_a_subject_table_quote_no_cell(archive: Path, tmp_path: Path, table: str) -> None:
    subjects, config = tmp_path / "subjects.csv", tmp_path / "cohort.toml"
    subjects.write_text(table)
    config.write_text('[privacy]\nkey_file = "key"\n[cluster]\nworkers = 1\n')
    arguments = ["scan", str(archive), "--store", str(tmp_path / "s"), "--config", str(config)]
    result = CliRunner().invoke(main, [*arguments, "--subjects", str(subjects)])
    assert result.exit_code == 2
    assert "subject table" in result.output
    cells = table.split("\n", 1)[1]
    if SECRET in cells:  # names of columns are the user's own words, and are named
        assert SECRET not in result.output
