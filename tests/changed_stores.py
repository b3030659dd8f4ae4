"""Stores with two generations of numbers: what stood before a change, and what the change made of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from cohort.rows import (
    CurvatureRow,
    DiscRow,
    ExamRow,
    LedgerRow,
    LoadRow,
    MuscleLevelRow,
    QualityRow,
    RunRow,
    SeriesRow,
    VertebraRow,
    WantedRow,
)
from cohort.store.layout import candidate_path
from cohort.tables.buckets import N_BUCKETS, bucket_of
from cohort.tables.commit import commit
from cohort.tables.stages import STAGES
from pipelines.candidate import open_candidate
from pipelines.fingerprint import NOTHING


def _exam_id(number: int) -> str:
    """A pseudonym that ends in its number and falls in one of two buckets: commits of few files are quick."""
    return next(name for j in count() if bucket_of(name := f"exam{j}-{number:02d}", N_BUCKETS) in (3, 40))


EXAMS = tuple(_exam_id(k) for k in range(12))
NEWCOMER = _exam_id(20)
VENDORS = ("ge", "siemens")
LEVELS = ("L5", "L4", "L3", "L2", "L1")
DISCS = ("L5-S1", "L4-L5", "L3-L4", "L2-L3", "L1-L2")
OLD, NEW = "20260101T000000-old000", "20260202T000000-new000"


@dataclass(frozen=True)
class Generation:
    """What one version measures."""

    run_id: str
    version: int
    disc_shift_mm: float = 0.0
    load_factor: float = 1.0
    noise_mm: float = 0.0
    up: int = 0
    """Levels by which names are too high in `misnamed`."""
    misnamed: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    """Exams whose stage measure is refused."""
    flagged: tuple[str, ...] = ()
    """Exams all of whose discs are flagged."""


BEFORE = Generation(OLD, 2)
AFTER = Generation(NEW, 3, disc_shift_mm=0.3, load_factor=1.015)


def subject(exam_id: str) -> str:
    """The first two exams are of one person."""
    return f"subject of {EXAMS[0] if exam_id == EXAMS[1] else exam_id}"


def vendor(exam_id: str) -> str:
    return VENDORS[int(exam_id[-2:]) % 2]


def features(exam_id: str, of: Generation) -> dict[str, list[Any]]:
    """Rows of one exam; without shift and noise they are the same in every generation."""
    number = int(exam_id[-2:])
    random = np.random.default_rng([number, of.version])
    noise = random.normal(0.0, of.noise_mm, len(DISCS)) if of.noise_mm else np.zeros(len(DISCS))
    up = of.up if exam_id in of.misnamed else 0
    place: dict[str, Any] = {"x_mm": 0.0, "y_mm": 0.0}
    status: dict[str, Any] = {"status": "flagged" if exam_id in of.flagged else "ok"}
    rows: dict[str, list[Any]] = {"vertebrae": [], "discs": [], "muscle_levels": [], "loads": []}
    for k, level in enumerate(LEVELS):
        shown = LEVELS[k + up] if k + up < len(LEVELS) else "T12"
        shown_disc = DISCS[k + up] if k + up < len(DISCS) else "T12-L1"
        whole: dict[str, Any] = {"slices_seen": 9, "slices_expected": 9, "touches_border": False}
        rows["vertebrae"].append(
            VertebraRow(exam_id=exam_id, ordinal=k + 1, level=shown, level_confidence=0.99, level_evidence="sacrum+",
                        z_mm=35.0 * k, anterior_height_mm=28.0 + number / 10, volume_cm3=40.0, status="ok",
                        **place, **whole)
        )  # fmt: skip
        rows["discs"].append(
            DiscRow(exam_id=exam_id, ordinal=k + 1, level=shown_disc, level_confidence=0.99, z_mm=35.0 * k - 17.0,
                    height_mm=8.0 + k / 2 + number / 10 + of.disc_shift_mm + float(noise[k]), central_slice=5,
                    volume_cm3=12.0, **place, **whole, **status)
        )  # fmt: skip
        for side in ("left", "right"):
            rows["muscle_levels"].append(
                MuscleLevelRow(exam_id=exam_id, level=shown_disc, muscle="psoas", side=side, stack=0, slice=k,
                               distance_mm=1.0, angle_deg=3.0, csa_cm2=12.0, csa_corrected_cm2=11.0 + number / 5,
                               lean_fraction=0.8, z_mm=35.0 * k, status="ok", **place)
            )  # fmt: skip
        for convention in ("joint_below", "vertebra_mean"):
            axial = (500.0 + 30.0 * k + number) * of.load_factor
            rows["loads"].append(load(exam_id, level, convention, axial))
    rows["curvature"] = [CurvatureRow(exam_id=exam_id, lordosis_l1_s1_deg=45.0 + number, status="ok")]
    return rows


def load(exam_id: str, level: str, convention: str, axial_n: float) -> LoadRow:
    return LoadRow(
        exam_id=exam_id, task="standing", level=level, engine="batch", convention=convention, axial_n=axial_n,
        shear_ap_n=100.0, shear_lateral_n=0.0, moment_flexion_nm=0.0, max_activation=0.3, n_saturated=0,
        reserve_max_nm=0.0, base_model="lumbar_cohort_male", geometry="polygon", height_source="measured",
        mass_source="measured", curvature_source="measured", strength_source="measured", position_source="measured",
        status="ok",
    )  # fmt: skip


def attempt(exam_id: str, stage: str, of: Generation, status: str = "ok", reason: str | None = None) -> LedgerRow:
    changed = stage in ("segment", "measure", "load")
    version = of.version if changed else 2
    return LedgerRow(
        exam_id=exam_id, stage=stage, fingerprint=fingerprint(exam_id, stage, of), status=status, reason=reason,
        seconds=1.0, worker="cpu-0", run_id=of.run_id, stage_version=version, inputs=NOTHING, parameters=NOTHING,
        artefacts=NOTHING,
    )  # fmt: skip


def fingerprint(exam_id: str, stage: str, of: Generation) -> str:
    return f"{exam_id}-{stage}-{2 if stage == 'convert' else of.version}"


def ledger(exam_id: str, of: Generation) -> list[LedgerRow]:
    if exam_id not in of.refused:
        return [attempt(exam_id, stage, of) for stage in STAGES]
    return [
        *(attempt(exam_id, stage, of) for stage in STAGES[:2]),
        attempt(exam_id, "measure", of, "refused", "no_vertebrae"),
    ]


def exam_row(exam_id: str, status: str = "ok") -> ExamRow:
    return ExamRow(exam_id=exam_id, subject_id=subject(exam_id), status=status, vendor=vendor(exam_id))


def write(folder: Path, exams: Iterable[str], of: Generation, *, stages: Sequence[str] = STAGES) -> None:
    """Commit what a generation measures of exams, as stages and selection do; of `stages` alone where given."""
    rows: dict[str, list[Any]] = {}
    for exam_id in exams:
        parts = dict(features(exam_id, of)) if exam_id not in of.refused and "measure" in stages else {}
        parts["ledger"] = [row for row in ledger(exam_id, of) if row.stage in stages]
        parts["exams"] = [exam_row(exam_id, "refused" if exam_id in of.refused else "ok")]
        parts["series"] = [SeriesRow(exam_id=exam_id, series_id="s", part=0, n_slices=9, n_stacks=1, score=1.0,
                                     reason="chosen")]  # fmt: skip
        parts["quality"] = [QualityRow(exam_id=exam_id, stage=stage, reason="muscle_gap", value=float(of.version))
                            for stage in ("select", "measure")]  # fmt: skip
        for table, new in parts.items():
            rows.setdefault(table, []).extend(new)
    commit(folder, of.run_id, rows, touched={})


def want(store: Path, exams: Iterable[str], of: Generation) -> None:
    """Commit what the archive's exams should have."""
    rows = [
        WantedRow(exam_id=exam_id, index_digest="i", selection_digest="s", newest_ns=1, recipe="r",
                  selected_status="ok", **{stage: fingerprint(exam_id, stage, of) for stage in STAGES})
        for exam_id in exams
    ]  # fmt: skip
    commit(store, of.run_id, {"wanted": rows}, touched={})


def run_row(of: Generation, change: str | None = None) -> RunRow:
    return RunRow(
        run_id=of.run_id, command="run", started_at="2026-01-01T00:00:00+00:00", seconds=1.0,
        version=f"0.{of.version}", device="cpu", n_files=1, n_files_read=1, n_exams=12, n_ok=12, n_flagged=0,
        n_refused=0, n_failed=0, n_gone=0, n_pending=0, stages_run=48, ended="complete", change=change, status="ok",
        opensim_checked=0,
    )  # fmt: skip


def changed_store(store: Path, after: Generation = AFTER, *, new: Iterable[str] = ()) -> Path:
    """A store of 12 exams whose old numbers stand, with those of `after` in the candidate; `new` came in since."""
    write(store, EXAMS, BEFORE)
    open_candidate(store, "change", note=str)
    write(candidate_path(store), [*EXAMS, *new], after)
    want(store, [*EXAMS, *new], after)
    commit(store, OLD, {"runs": [run_row(BEFORE)]}, touched={})
    commit(store, NEW, {"runs": [run_row(after, "held")]}, touched={})
    return store


def renamed(of: Generation, *exams: str) -> Generation:
    """The generation with names one level too high in some exams."""
    return replace(of, up=1, misnamed=exams)
