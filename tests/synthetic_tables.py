"""Tables of a small synthetic archive, made from row dataclasses alone: quick, and every number is known."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from cohort.loading.tasks import DEFAULT_TASKS
from cohort.rows import (
    CurvatureRow,
    DiscRow,
    ExamRow,
    FileRow,
    LedgerRow,
    LoadRow,
    MuscleLevelRow,
    MuscleRow,
    QualityRow,
    RunRow,
    SeriesRow,
    VertebraRow,
    WantedRow,
)
from cohort.tables.commit import commit
from cohort.terms import LUMBAR_VERTEBRAE, MUSCLES, SIDES

RUN_ID = "20260301T020000-abc123"
STAGES = ("convert", "segment", "measure", "load")
DISCS = ("L5-S1", "L4-L5", "L3-L4", "L2-L3", "L1-L2")
VENDORS = ("siemens", "ge", "philips")

Rows = dict[str, list[Any]]


def pseudonym(text: str) -> str:
    """A name of the form that pseudonyms have."""
    return base64.b32encode(hashlib.sha256(text.encode()).digest()[:16]).decode().rstrip("=").lower()


def fingerprint(exam_id: str, stage: str) -> str:
    """64 hexadecimal characters."""
    return hashlib.sha256(f"{exam_id} {stage}".encode()).hexdigest()


def result_path(exam_id: str, stage: str) -> str | None:
    """What a stage leaves, relative to STORE."""
    name = {"convert": "exam-{}.zarr", "segment": "labels-{}.zarr", "measure": "measure-{}.json"}.get(stage)
    return name and f"exams/{exam_id[:2]}/{exam_id}/{name.format(fingerprint(exam_id, stage)[:12])}"


def synthetic_rows(n_exams: int, *, seed: int = 0, run_id: str = RUN_ID, ages: tuple[int, int] = (20, 85)) -> Rows:
    """Rows of every table.

    Each fifth exam is a second one of the subject before it, two to eight years later. Exam 3 is refused by selection,
    exam 7 has no level names, exam 8 no axial images, exam 9 no loads for want of a weight; one disc of exam 4 is
    refused and one of exam 5 flagged; loads of exam 6 did not converge in one task.
    """
    rng = np.random.default_rng(seed)
    rows: Rows = {
        "files": [],
        "series": [],
        "exams": [],
        "vertebrae": [],
        "discs": [],
        "muscles": [],
        "muscle_levels": [],
    }
    rows |= {"curvature": [], "loads": [], "quality": [], "wanted": [], "ledger": [], "runs": []}
    before: ExamRow | None = None
    for number in range(n_exams):
        exam = _exam_row(number, rng, before, ages)
        before = exam
        rows["exams"].append(exam)
        _add_index(rows, exam)
        _add_ledger(rows, exam, number, run_id)
        if number != 3:
            _add_anatomy(rows, exam, number, rng)
        if number not in (3, 9):
            _add_loads(rows, exam, number, rng)
    rows["runs"].append(_run_row(rows, run_id))
    return rows


def write_synthetic_store(store: Path, n_exams: int = 30, **options: Any) -> Rows:
    """Commit `synthetic_rows` and lay the files down that the ledger names; returns the rows."""
    rows = synthetic_rows(n_exams, **options)
    for row in rows["ledger"]:
        if row.path:
            _lay_down(store / row.path)
    commit(store, rows["runs"][0].run_id, rows, touched={})
    return rows


def _lay_down(path: Path) -> None:
    if path.suffix == ".json":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    else:
        path.mkdir(parents=True)
        (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')


def _exam_row(number: int, rng: np.random.Generator, before: ExamRow | None, ages: tuple[int, int]) -> ExamRow:
    again = number % 5 == 4 and before is not None
    sex = str(rng.choice(["F", "M"]))
    age = float(rng.integers(*ages))
    height, weight = rng.normal(1.66 if sex == "F" else 1.79, 0.06), rng.normal(70 if sex == "F" else 84, 10)
    if again and before is not None:
        sex, age, height = (
            before.sex or "F",
            (before.age_years or 50.0) + float(rng.integers(2, 9)),
            before.height_m or 1.7,
        )
    refused = number == 3
    status = "refused" if refused or number == 9 else "flagged" if number in (4, 5, 6, 7, 8) else "ok"
    reasons = {3: "no_t1_sagittal", 4: "no_shape", 5: "implausible_disc_height", 6: "not_converged"}
    reasons |= {7: "levels_undecided", 8: "no_t1_axial", 9: "no_demographics"}
    exam_id = pseudonym(f"exam {number}")
    return ExamRow(
        exam_id=exam_id,
        subject_id=before.subject_id if again and before else pseudonym(f"subject {number}"),
        status=status,
        reason=reasons.get(number),
        sagittal_series_id=None if refused else pseudonym(f"sagittal {number}"),
        sagittal_reason="no_t1_sagittal" if refused else None,
        axial_reason="no_t1_axial" if number == 8 else None,
        sex=sex,
        sex_source="dicom",
        age_years=age,
        age_source="dicom",
        height_m=round(float(height), 2),
        height_source="dicom",
        weight_kg=None if number == 9 else round(float(weight), 1),
        vendor=VENDORS[number % 3],
        field_t=1.5,
        n_sagittal_slices=None if refused else 15,
        store_path=None if refused else result_path(exam_id, "convert"),
    )


def _add_index(rows: Rows, exam: ExamRow) -> None:
    for k in range(3):
        name = f"{exam.exam_id} {k}"
        rows["files"].append(
            FileRow(
                file_id=pseudonym(f"file {name}"),
                size_bytes=500_000,
                mtime_ns=1_700_000_000_000_000_000 + k,
                exam_id=exam.exam_id,
                subject_id=exam.subject_id,
                series_id=exam.sagittal_series_id,
                instance_id=pseudonym(f"instance {name}"),
                position_mm=[0.0, 1.0, float(k)],
                vendor=exam.vendor,
            )
        )
    if exam.sagittal_series_id:
        rows["series"].append(
            SeriesRow(
                exam_id=exam.exam_id,
                series_id=exam.sagittal_series_id,
                part=0,
                plane="sagittal",
                n_slices=15,
                n_stacks=1,
                weighting="t1",
                score=0.9,
                role="sagittal_t1",
                reason="chosen",
            )
        )


def _add_ledger(rows: Rows, exam: ExamRow, number: int, run_id: str) -> None:
    stages = () if number == 3 else STAGES
    for stage in stages:
        refused = stage == "load" and number == 9
        flagged = exam.status == "flagged" and stage in ("measure", "load")
        rows["ledger"].append(
            LedgerRow(
                exam_id=exam.exam_id,
                stage=stage,
                fingerprint=fingerprint(exam.exam_id, stage),
                status="refused" if refused else "flagged" if flagged else "ok",
                reason=exam.reason if refused or flagged else None,
                path=None if refused else result_path(exam.exam_id, stage),
                seconds=1.5,
                worker="cpu-0",
                run_id=run_id,
                finished_at="2026-03-01T02:10:00+00:00",
                stage_version=2,
            )
        )
    wanted = {stage: fingerprint(exam.exam_id, stage) for stage in stages}
    rows["wanted"].append(
        WantedRow(
            exam_id=exam.exam_id,
            index_digest="0" * 32,
            selection_digest="1" * 32,
            newest_ns=1,
            recipe="2" * 32,
            sex=exam.sex,
            selected_status="ok",
            **wanted,
        )
    )
    if exam.reason:
        stage = "select" if number in (3, 8) else "load" if number in (6, 9) else "measure"
        structure = "L3-L4" if number in (4, 5) else None
        rows["quality"].append(
            QualityRow(exam_id=exam.exam_id, stage=stage, reason=exam.reason, structure=structure, value=3.0, limit=4.0)
        )


def _add_anatomy(rows: Rows, exam: ExamRow, number: int, rng: np.random.Generator) -> None:
    named = number != 7
    age = exam.age_years or 50.0
    place = {"x_mm": 0.0, "y_mm": 0.0, "slices_seen": 9, "slices_expected": 9, "touches_border": False}
    for k, level in enumerate((*reversed(LUMBAR_VERTEBRAE), "T12"), start=1):
        rows["vertebrae"].append(
            VertebraRow(
                exam_id=exam.exam_id,
                ordinal=k,
                level=level if named else None,
                level_confidence=0.96 if named else 0.4,
                level_evidence="sacrum+",
                z_mm=35.0 * k,
                anterior_height_mm=float(rng.normal(27, 1)),
                posterior_height_mm=float(rng.normal(28, 1)),
                middle_height_mm=float(rng.normal(26, 1)),
                depth_mm=float(rng.normal(34, 2)),
                compression_ratio=0.95,
                volume_cm3=float(rng.normal(45, 4)),
                status="ok",
                **place,
            )
        )
    for k, level in enumerate(DISCS, start=1):
        refused, flagged = number == 4 and level == "L3-L4", number == 5 and level == "L3-L4"
        height = float(rng.normal(10.0 - 0.03 * (age - 40.0), 0.8))
        rows["discs"].append(
            DiscRow(
                exam_id=exam.exam_id,
                ordinal=k,
                level=level if named else None,
                level_confidence=0.96 if named else 0.4,
                height_mm=None if refused else 3.0 if flagged else height,
                width_mm=None if refused else 34.0,
                height_index=None if refused else height / 26.0,
                z_mm=35.0 * k - 17.0,
                central_slice=7,
                volume_cm3=float(rng.normal(12, 1)),
                status="refused" if refused else "flagged" if flagged else "ok",
                reasons="no_shape" if refused else "implausible_disc_height" if flagged else None,
                **place,
            )
        )
    if number != 8:
        _add_muscles(rows, exam, named, rng)
    lordosis = float(rng.normal(50, 9))
    rows["curvature"].append(
        CurvatureRow(
            exam_id=exam.exam_id,
            lordosis_l1_s1_deg=lordosis if named else None,
            sacral_slope_deg=float(rng.normal(38, 6)) if named else None,
            status="ok" if named else "flagged",
            reasons=None if named else "levels_undecided",
        )
    )


def _add_muscles(rows: Rows, exam: ExamRow, named: bool, rng: np.random.Generator) -> None:
    typical = {"multifidus": 9.0, "erector_spinae": 17.0, "psoas": 13.0, "quadratus_lumborum": 6.0}
    for k, disc in enumerate(DISCS, start=1):
        for muscle in MUSCLES:
            areas = {side: typical[muscle] * float(rng.normal(1.0, 0.08)) for side in SIDES}
            difference = (areas["left"] - areas["right"]) / ((areas["left"] + areas["right"]) / 2)
            for side in SIDES:
                common: dict[str, Any] = {
                    "exam_id": exam.exam_id,
                    "stack": 0,
                    "slice": k,
                    "muscle": muscle,
                    "side": side,
                    "csa_cm2": areas[side],
                    "lean_fraction": float(np.clip(rng.normal(0.85, 0.06), 0, 1)),
                    "x_mm": 30.0 if side == "left" else -30.0,
                    "y_mm": 40.0,
                    "z_mm": 35.0 * k - 17.0,
                    "status": "ok",
                }
                rows["muscles"].append(MuscleRow(row_px=100.0, column_px=90.0, touches_border=False, **common))
                rows["muscle_levels"].append(
                    MuscleLevelRow(
                        level=disc if named else f"disc-{k}",
                        distance_mm=1.0,
                        angle_deg=10.0,
                        csa_corrected_cm2=areas[side] * 0.985,
                        side_difference=difference,
                        **common,
                    )
                )


def _add_loads(rows: Rows, exam: ExamRow, number: int, rng: np.random.Generator) -> None:
    weight = exam.weight_kg or 75.0
    for task in DEFAULT_TASKS:
        refused = number == 6 and task == "flexion60_5kg"
        factor = {"standing": 6.0, "standing_5kg": 9.0, "flexion30": 22.0, "flexion60_5kg": 38.0}[task]
        for k, level in enumerate(LUMBAR_VERTEBRAE):
            axial = weight * factor * (0.8 + 0.05 * k) * float(rng.normal(1.0, 0.03))
            for engine, convention in (
                ("batch", "joint_below"),
                ("batch", "vertebra_mean"),
                ("opensim", "joint_below"),
            ):
                if engine == "opensim" and number:
                    continue
                rows["loads"].append(
                    LoadRow(
                        exam_id=exam.exam_id,
                        task=task,
                        level=level,
                        engine=engine,
                        convention=convention,
                        axial_n=axial * (0.97 if convention == "vertebra_mean" else 1.0),
                        shear_ap_n=axial * 0.1,
                        shear_lateral_n=0.0,
                        moment_flexion_nm=0.0,
                        generic_axial_n=axial * 1.05,
                        max_activation=0.4,
                        n_saturated=0,
                        reserve_max_nm=0.0,
                        base_model="lumbar_cohort_male" if exam.sex == "M" else "lumbar_cohort_female",
                        geometry="polygon",
                        height_source="measured",
                        mass_source="measured",
                        curvature_source="measured",
                        strength_source="default" if number == 8 else "measured",
                        position_source="default" if number == 8 else "measured",
                        status="refused" if refused else "flagged" if number in (7, 8) else "ok",
                        reasons="not_converged" if refused else "default_strength" if number in (7, 8) else None,
                    )
                )


def _run_row(rows: Rows, run_id: str) -> RunRow:
    counts = {status: sum(row.status == status for row in rows["exams"]) for status in ("ok", "flagged", "refused")}
    return RunRow(
        run_id=run_id,
        command="run",
        started_at="2026-03-01T02:00:00+00:00",
        seconds=600.0,
        version="0.1.0",
        device="cpu",
        n_files=len(rows["files"]),
        n_files_read=len(rows["files"]),
        n_exams=len(rows["exams"]),
        n_ok=counts["ok"],
        n_flagged=counts["flagged"],
        n_refused=counts["refused"],
        n_failed=0,
        n_gone=0,
        n_pending=0,
        stages_run=len(rows["ledger"]),
        ended="complete",
        status="ok",
        opensim_checked=1,
        opensim_max_difference=0.001,
    )
