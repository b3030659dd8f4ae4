"""From the file index to exams and to the tables that say how they stand, under the rules of a site."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mri_rows import gradient_echo, series, spin_echo

from cohort.archive.candidates import SelectRules
from cohort.archive.demographics import VertebraCount, read_subjects
from cohort.archive.pseudonym import Pseudonyms
from cohort.loading.assumptions import Assumptions, Personalisation
from cohort.loading.tasks import STANDING
from cohort.rows import ExamRow, FileRow, LedgerRow, QualityRow
from cohort.tables.buckets import create_tables, read_objects
from cohort.tables.stages import STAGES
from pipelines.exams import Artefacts, Exam, group_exams, plan_exam
from pipelines.summary import exam_row, selected_row, update_exam_tables

ARTEFACTS = Artefacts(
    weights={"disc": "ab"}, base_models={"F": "cd", "M": "ef"}, tasks=(STANDING,), assumptions=Assumptions()
)
SAGITTAL = spin_echo(560, 11, vendor="Siemens")


def hashed(exam_id: str, rows: list[FileRow]) -> list[FileRow]:
    """Rows of one exam, with hashes that depend on the file alone."""
    return [
        replace(row, exam_id=exam_id, subject_id="subject", content_sha256=f"sha-{row.file_id}", sex="F")
        for row in rows
    ]


def archive() -> list[FileRow]:
    """An exam with T1 axial, one with T2 axial alone, one with neither."""
    t2: dict[str, Any] = {"plane": "axial", "description": "Ax T2", **spin_echo(4000, 100)}
    return [
        *hashed("a", [*series("a1", n=15, **SAGITTAL), *series("a2", n=25, plane="axial", **SAGITTAL)]),
        *hashed("a", series("a3", n=25, **t2)),
        *hashed("b", [*series("b1", n=15, **SAGITTAL), *series("b2", n=25, **t2)]),
        *hashed("c", series("c1", n=15, **SAGITTAL)),
    ]


def plans(rows: list[FileRow], rules: SelectRules) -> dict[str, str]:
    return {exam.exam_id: plan_exam(exam, ARTEFACTS).fingerprints["convert"] for exam in group_exams(rows, None, rules)}


def test_a_changed_rule_redoes_just_the_exams_whose_images_change() -> None:
    rows = archive()
    before, after = plans(rows, SelectRules()), plans(rows, SelectRules(accept_t2_axial=True))
    assert {exam for exam in before if before[exam] != after[exam]} == {"b"}
    assert plans(rows, SelectRules(accept_post_contrast=True, accept_in_phase=False)) == before


def test_frames_and_content_count_and_the_order_of_the_files_does_not() -> None:
    frames = hashed("a", series("f", n=30, plane="sagittal", gap=2, one_file=True, **SAGITTAL))
    (before,) = plans(frames, SelectRules()).values()
    assert plans(frames[::-1], SelectRules()) == {"a": before}
    assert plans(frames[:15], SelectRules()) != plans(frames[15:], SelectRules())
    changed = [replace(row, content_sha256="sha-other") for row in frames]
    assert plans(changed, SelectRules()) != {"a": before}


def test_a_known_number_of_vertebrae_redoes_what_is_named_and_nothing_before(tmp_path: Path) -> None:
    pseudonyms = Pseudonyms(bytes(32))
    table = tmp_path / "subjects.csv"
    table.write_text("patient_id,lumbar_vertebrae\n1,6\n")
    rows = [replace(row, subject_id=pseudonyms.subject_id("1")) for row in archive() if row.exam_id == "a"]
    (before,), (after,) = group_exams(rows, None), group_exams(rows, read_subjects(table, pseudonyms))
    assert after.vertebrae == VertebraCount(6, None)
    first, second = (plan_exam(exam, ARTEFACTS) for exam in (before, after))
    assert {stage for stage in STAGES if first.fingerprints[stage] != second.fingerprints[stage]} == {"measure", "load"}
    assert exam_row(selected_row(after), None, {}).lumbar_vertebrae == 6


@pytest.mark.parametrize("changed", [{"personalise": Personalisation(position=False)}, {"impute": True}])
def test_another_personalisation_redoes_the_loads_alone(changed: dict[str, Any]) -> None:
    (exam,) = group_exams([row for row in archive() if row.exam_id == "a"], None)
    first, second = plan_exam(exam, ARTEFACTS), plan_exam(exam, replace(ARTEFACTS, **changed))
    assert {stage for stage in STAGES if first.fingerprints[stage] != second.fingerprints[stage]} == {"load"}


def test_one_identifier_in_a_plain_and_in_a_multi_frame_file_has_a_fingerprint() -> None:
    frames = hashed("a", series("f", n=15, one_file=True, **SAGITTAL))
    plain = [replace(frames[0], file_id="plain", frame=None)]
    assert plans(frames + plain, SelectRules()) == plans(plain + frames, SelectRules())


def test_containers_and_other_objects_are_in_no_exam() -> None:
    others = [
        FileRow(file_id=reason, size_bytes=1, mtime_ns=1, exam_id="z", series_id="z", reason=reason)
        for reason in ("container", "not_mr", "not_an_image")
    ]
    assert group_exams(others, None) == []
    (exam,) = group_exams([*hashed("z", series("s", n=15, **SAGITTAL)), *others], None)
    assert [row.series_id for row in exam.selection.series] == ["s"]


def standing(rows: list[FileRow], rules: SelectRules) -> dict[str, ExamRow]:
    """Rows of the table `exams` once all stages have succeeded."""
    exams = {exam.exam_id: exam for exam in group_exams(rows, None, rules)}
    todo = {name: plan_exam(exam, ARTEFACTS) for name, exam in exams.items() if exam.sagittal}
    ledger = {
        (name, stage): LedgerRow(
            exam_id=name,
            stage=stage,
            fingerprint=fingerprint,
            status="ok",
            seconds=1.0,
            worker="w",
            run_id="r",
        )
        for name, plan in todo.items()
        for stage, fingerprint in plan.fingerprints.items()
    }
    return {name: exam_row(selected_row(exam), todo.get(name), ledger) for name, exam in exams.items()}


def test_table_of_exams_says_what_was_chosen_and_what_came_next() -> None:
    more = hashed("a", series("a4", n=11, plane="axial", **gradient_echo(150, 4.6, 70)))
    rows = standing(archive() + more, SelectRules(accept_t2_axial=True))
    exam = rows["a"]
    assert (exam.status, exam.reason) == ("ok", None)
    assert (exam.sagittal_series_id, exam.sagittal_part, exam.n_sagittal_slices) == ("a1", 0, 15)
    assert (exam.sagittal_runner_up_id, exam.sagittal_runner_up_score, exam.sagittal_reason) == (None, None, None)
    assert (exam.axial_series_id, exam.axial_part, exam.axial_weighting, exam.axial_runner_up_id) == (
        "a2",
        0,
        "t1",
        "a4",
    )
    assert (exam.axial_score or 0) > (exam.axial_runner_up_score or 0) > 0
    assert (exam.n_axial_slices, exam.n_axial_stacks, exam.vendor, exam.field_t) == (25, 1, "Siemens", 1.5)
    assert (rows["b"].status, rows["b"].reason, rows["b"].axial_weighting) == ("flagged", "t2_axial", "t2")
    assert (rows["b"].axial_series_id, rows["b"].axial_reason) == ("b2", None)
    assert (rows["c"].status, rows["c"].reason, rows["c"].axial_reason) == ("flagged", "no_t1_axial", "no_t1_axial")
    assert (rows["c"].axial_series_id, rows["c"].n_axial_slices, rows["c"].axial_weighting) == (None, None, None)


def test_exam_without_sagittal_images_is_refused_with_both_reasons() -> None:
    rows = hashed("a", series("a", n=15, **spin_echo(4000, 100)))
    exam = standing(rows, SelectRules())["a"]
    assert (exam.status, exam.reason) == ("refused", "no_t1_sagittal")
    assert (exam.sagittal_reason, exam.axial_reason) == ("no_t1_sagittal", "no_t1_axial")


def commit(store: Path, exams: list[Exam]) -> list[QualityRow]:
    """Flags of selection after a commit of some exams."""
    update_exam_tables(store, "run", exams, [exam_row(selected_row(exam), None, {}) for exam in exams], [])
    return sorted(read_objects(store, "quality"), key=lambda row: row.exam_id)


def test_t2_axial_images_are_flagged_in_quality_and_no_longer_once_the_rule_is_gone(tmp_path: Path) -> None:
    create_tables(tmp_path)
    rows = archive()
    flags = commit(tmp_path, group_exams(rows, None, SelectRules(accept_t2_axial=True)))
    assert [(flag.exam_id, flag.stage, flag.reason, flag.structure) for flag in flags] == [
        ("b", "select", "t2_axial", "axial"),
        ("c", "select", "no_t1_axial", "axial"),
    ]
    roles = {row.series_id: row.role for row in read_objects(tmp_path, "series") if row.role}
    assert roles == {"a1": "sagittal_t1", "a2": "axial_t1", "b1": "sagittal_t1", "b2": "axial_t2", "c1": "sagittal_t1"}
    flags = commit(tmp_path, group_exams(rows, None))
    assert [(flag.exam_id, flag.reason) for flag in flags] == [("b", "no_t1_axial"), ("c", "no_t1_axial")]
    assert {row.exam_id: row.axial_reason for row in read_objects(tmp_path, "exams")}["b"] == "no_t1_axial"
