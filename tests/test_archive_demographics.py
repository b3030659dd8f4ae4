from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cohort.archive.demographics import Demographics, VertebraCount, exam_demographics, exam_vertebrae, read_subjects
from cohort.archive.pseudonym import Pseudonyms
from cohort.errors import ConfigurationError
from cohort.rows import FileRow

PSEUDONYMS = Pseudonyms(bytes(range(32)))


def row(**columns: Any) -> FileRow:
    return FileRow(
        file_id="f",
        size_bytes=1,
        mtime_ns=1,
        exam_id=PSEUDONYMS.exam_id("1.2.3"),
        subject_id=PSEUDONYMS.subject_id("0042"),
        accession_id=PSEUDONYMS.accession_id("A-7"),
        **columns,
    )


def test_values_of_the_files_with_their_source() -> None:
    rows = [row(sex="F", age_years=45.0, height_m=1.68, weight_kg=70.0), row(sex="F", weight_kg=70.4), row()]
    found, flags = exam_demographics(rows)
    assert found == Demographics("F", "dicom", 45.0, "dicom", 1.68, "dicom", 70.0, "dicom")
    assert flags == []


def test_implausible_values_are_dropped_and_reported_not_repaired() -> None:
    found, flags = exam_demographics([row(sex="O", age_years=999.0, height_m=175.0, weight_kg=0.5)] * 2)
    assert found == Demographics()
    assert {(flag.reason, flag.structure, flag.value, flag.limit) for flag in flags} == {
        ("implausible_demographics", "age_years", 999.0, 120.0),
        ("implausible_demographics", "height_m", 175.0, 2.3),
        ("implausible_demographics", "weight_kg", 0.5, 30.0),
    }
    assert len(flags) == 3


def test_centimetres_and_typing_errors_are_refused_with_the_value_that_was_found() -> None:
    found, flags = exam_demographics([row(height_m=176.0, weight_kg=780.0)])
    assert (found.height_m, found.weight_kg) == (None, None)
    assert [(flag.structure, flag.value) for flag in flags] == [("height_m", 176.0), ("weight_kg", 780.0)]
    found, flags = exam_demographics([row(height_m=17.6), row(height_m=1.76)])
    assert found.height_m == 1.76
    assert [(flag.reason, flag.value) for flag in flags] == [("implausible_demographics", 17.6)]


def test_nought_leaves_a_trace_unless_another_file_knows_better() -> None:
    found, flags = exam_demographics([row(height_m=0.0, weight_kg=0.0)] * 3)
    assert (found.height_m, found.weight_kg) == (None, None)
    assert [(flag.reason, flag.structure, flag.value, flag.limit) for flag in flags] == [
        ("implausible_demographics", "height_m", 0.0, 1.2),
        ("implausible_demographics", "weight_kg", 0.0, 30.0),
    ]
    found, flags = exam_demographics([row(weight_kg=0.0), row(weight_kg=71.0)])
    assert (found.weight_kg, flags) == (71.0, [])


def test_newborns_age_is_a_value() -> None:
    assert exam_demographics([row(age_years=0.0)])[0].age_years == 0.0


def test_contradicting_files_are_reported() -> None:
    found, flags = exam_demographics(
        [row(sex="F", height_m=1.6, weight_kg=70), row(sex="M", height_m=1.8, weight_kg=70)]
    )
    assert (found.sex, found.height_m, found.weight_kg) == (None, None, 70)
    assert [(flag.reason, flag.structure) for flag in flags] == [
        ("conflicting_demographics", "sex"),
        ("conflicting_demographics", "height_m"),
    ]


@pytest.mark.parametrize(
    "line", ["patient_id,0042", "accession_number,A-7", "study_instance_uid,1.2.3"], ids=lambda line: line.split(",")[0]
)
def test_table_overrides_the_files(tmp_path: Path, line: str) -> None:
    column, key = line.split(",")
    path = tmp_path / "subjects.csv"
    path.write_text(f"{column},sex,age_years,height_m,weight_kg\n{key},male,93,1.81,\nother,F,50,1.5,50\n")
    found, flags = exam_demographics([row(sex="M", height_m=175.0, weight_kg=82.0)], read_subjects(path, PSEUDONYMS))
    assert found == Demographics("M", "subjects", 90.0, "subjects", 1.81, "subjects", 82.0, "dicom")
    assert flags == []


def test_patient_of_an_issuer_is_not_that_of_another(tmp_path: Path) -> None:
    path = tmp_path / "subjects.csv"
    path.write_text("patient_id,issuer_of_patient_id,weight_kg\n0042,NORTH,61\n0042,SOUTH,62\n0042,,63\n")
    table = read_subjects(path, PSEUDONYMS)
    for issuer, weight in (("NORTH", 61.0), ("SOUTH", 62.0), ("", 63.0)):
        one = replace(row(), subject_id=PSEUDONYMS.subject_id("0042", issuer))
        assert exam_demographics([one], table)[0].weight_kg == weight
    assert table.n_unmatched([row().subject_id]) == 2


def test_line_for_the_exam_counts_though_some_files_lack_the_accession_number(tmp_path: Path) -> None:
    path = tmp_path / "subjects.csv"
    path.write_text("patient_id,accession_number,weight_kg\n0042,,60\n,A-7,66\n")
    rows = [row(), replace(row(), accession_id=None)]
    found, flags = exam_demographics(rows, read_subjects(path, PSEUDONYMS))
    assert (found.weight_kg, flags) == (66.0, [])


@pytest.mark.parametrize(
    ("column", "in_file", "in_table"), [("age_years", 45, 52), ("height_m", 1.6, 1.78), ("weight_kg", 60, 95)]
)
def test_table_that_cannot_speak_of_the_same_person_is_reported(
    tmp_path: Path, column: str, in_file: float, in_table: float
) -> None:
    path = tmp_path / "subjects.csv"
    path.write_text(f"patient_id,{column}\n0042,{in_table}\n")
    found, flags = exam_demographics([row(**{column: in_file})], read_subjects(path, PSEUDONYMS))
    assert (getattr(found, column), flags[0].reason, flags[0].structure) == (
        in_table,
        "conflicting_demographics",
        column,
    )


def test_identifiers_that_pandas_made_numbers_are_still_found(tmp_path: Path) -> None:
    path = tmp_path / "subjects.parquet"
    pd.DataFrame(
        {"patient_id": [4711.0, None], "study_instance_uid": [None, "1.2.9"], "weight_kg": [70.0, 80.0]}
    ).to_parquet(path)
    one = replace(row(), subject_id=PSEUDONYMS.subject_id("4711"))
    table = read_subjects(path, PSEUDONYMS)
    assert exam_demographics([one], table)[0].weight_kg == 70.0
    assert table.n_unmatched([one.subject_id]) == 1


@pytest.mark.parametrize("name", ["none.csv", "none.parquet", "latin.csv", "text.parquet"])
def test_table_that_cannot_be_read_is_an_error_of_the_configuration(tmp_path: Path, name: str) -> None:
    if not name.startswith("none"):
        (tmp_path / name).write_bytes("patient_id,sex\nM\xfcller,F\n".encode("latin-1"))
    with pytest.raises(ConfigurationError, match="subject table"):
        read_subjects(tmp_path / name, PSEUDONYMS)


def test_parquet_table_and_line_for_the_exam_before_line_for_the_patient(tmp_path: Path) -> None:
    path = tmp_path / "subjects.parquet"
    pd.DataFrame(
        {
            "patient_id": ["0042", "0042"],
            "study_instance_uid": [None, "1.2.3"],
            "weight_kg": [60.0, 66.0],
            "height_m": [1.7, None],
        }
    ).to_parquet(path)
    found, _ = exam_demographics([row()], read_subjects(path, PSEUDONYMS))
    assert (found.weight_kg, found.height_m) == (66.0, 1.7)


def test_table_that_contradicts_the_files_or_itself_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "subjects.csv"
    path.write_text("patient_id,sex,weight_kg,height_m\n0042,F,60,175\n0042,F,80,175\n")
    found, flags = exam_demographics([row(sex="M", weight_kg=70.0, height_m=1.7)], read_subjects(path, PSEUDONYMS))
    assert (found.sex, found.sex_source) == ("F", "subjects")
    assert (found.weight_kg, found.weight_source) == (70.0, "dicom")
    assert (found.height_m, found.height_source) == (1.7, "dicom")
    assert [(flag.reason, flag.structure) for flag in flags] == [
        ("conflicting_demographics", "sex"),
        ("implausible_demographics", "height_m"),
        ("conflicting_demographics", "weight_kg"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("patient_id,size\n1,2\n", "unknown columns"),
        ("sex,height_m\nF,1.7\n", "wanted one of"),
        ("patient_id,height_m\nSECRET,tall\n", "row 1, column height_m"),
        ("patient_id,sex\n1,F\nSECRET,2\n", "row 2, column sex"),
        ("patient_id,sex\n,F\n", "row 1 has no identifier"),
    ],
)
def test_wrong_table_says_where_and_quotes_nothing(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "subjects.csv"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=message) as caught:
        read_subjects(path, PSEUDONYMS)
    assert "SECRET" not in str(caught.value)


def test_numbers_of_vertebrae_come_from_the_table_alone(tmp_path: Path) -> None:
    path = tmp_path / "subjects.csv"
    path.write_text("patient_id,lumbar_vertebrae,thoracic_vertebrae\n0042,6,\nother,5,13\n")
    table = read_subjects(path, PSEUDONYMS)
    assert exam_vertebrae([row()], table) == (VertebraCount(6, None), [])
    assert exam_vertebrae([row()]) == (VertebraCount(), [])
    assert exam_demographics([row()], table)[0] == Demographics()


def test_impossible_and_contradictory_numbers_of_vertebrae_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "subjects.csv"
    path.write_text("patient_id,lumbar_vertebrae,thoracic_vertebrae\n0042,7,12\n0042,,13\n")
    found, flags = exam_vertebrae([row()], read_subjects(path, PSEUDONYMS))
    assert found == VertebraCount()
    assert [(flag.reason, flag.structure, flag.value) for flag in flags] == [
        ("implausible_demographics", "lumbar_vertebrae", 7.0),
        ("conflicting_demographics", "thoracic_vertebrae", None),
    ]


def test_half_a_vertebra_is_an_error_of_the_table(tmp_path: Path) -> None:
    path = tmp_path / "subjects.csv"
    path.write_text("patient_id,lumbar_vertebrae\n0042,5.5\n")
    with pytest.raises(ConfigurationError, match="row 1, column lumbar_vertebrae: not a whole number"):
        read_subjects(path, PSEUDONYMS)
