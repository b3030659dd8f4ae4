"""Measured rows of random people, as stage measure leaves them, and items of stage load for them."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scanned_people import FLAT_DISCS_MM, FLAT_VERTEBRAE_MM

from cohort.archive.demographics import Demographics
from cohort.geometry import Floats
from cohort.loading.position import typical_place_m
from cohort.loading.tasks import FLEXION30, STANDING
from cohort.rows import DiscRow, MuscleLevelRow, QualityRow, VertebraRow
from cohort.terms import MUSCLES, SIDES
from pipelines.load import LoadTask
from pipelines.measure import write_rows
from pipelines.outcome import WorkItem

TYPICAL_CM2 = {"multifidus": 6.0, "erector_spinae": 18.0, "psoas": 11.0, "quadratus_lumborum": 5.0}
FINGERPRINT = "f" * 64


def measured_rows(exam_id: str, seed: int) -> dict[str, list[Any]]:
    """A spine of random size and lordosis with muscles, some of them flagged, some not measured."""
    rng = np.random.default_rng(seed)
    scale, bend = rng.uniform(0.9, 1.1), rng.uniform(-0.002, 0.002)

    def place(point: tuple[float, float, float]) -> dict[str, float]:
        x, y, z = point
        moved = np.array([x, scale * y + bend * z * z, scale * z]) + rng.normal(0.0, 0.6, 3)
        return dict(zip(("x_mm", "y_mm", "z_mm"), moved.tolist(), strict=True))

    def status() -> str:
        return str(rng.choice(["ok", "flagged", "refused"], p=[0.85, 0.12, 0.03]))

    body = {
        "exam_id": exam_id, "level_confidence": 1.0, "volume_cm3": 30.0, "slices_seen": 9, "slices_expected": 9,
        "touches_border": False,
    }  # fmt: skip
    vertebrae = [
        VertebraRow(ordinal=k, level=name, level_evidence="", status=status(), **place(point), **body)
        for k, (name, point) in enumerate(FLAT_VERTEBRAE_MM.items())
    ]
    discs = [
        DiscRow(ordinal=k, level=name, central_slice=4, status=status(), **place(point), **body)
        for k, (name, point) in enumerate(FLAT_DISCS_MM.items(), start=1)
    ]
    flags = [QualityRow(exam_id=exam_id, stage="measure", reason="count_mismatch", structure="disc")]
    return {
        "vertebrae": vertebrae,
        "discs": discs if rng.random() < 0.9 else [],
        "muscle_levels": _muscles(exam_id, rng, discs) if rng.random() < 0.8 else [],
        "quality": flags if rng.random() < 0.1 else [],
    }


def _muscles(exam_id: str, rng: np.random.Generator, discs: list[DiscRow]) -> list[MuscleLevelRow]:
    typical = typical_place_m(1.75) * 1000.0
    places = product(enumerate(discs[:5]), enumerate(MUSCLES), SIDES)
    return [
        _muscle(exam_id, rng, disc, muscle, side, typical[m, d])
        for (d, disc), (m, muscle), side in places
        if not np.isnan(typical[m, d]).any()
    ]


def _muscle(
    exam_id: str, rng: np.random.Generator, disc: DiscRow, muscle: str, side: str, typical_mm: Floats
) -> MuscleLevelRow:
    forward, outward = (typical_mm + rng.normal(0.0, 2.0, 2)).tolist()
    area = float(TYPICAL_CM2[muscle] * rng.uniform(0.6, 1.3))
    return MuscleLevelRow(
        exam_id=exam_id, level=disc.level, muscle=muscle, side=side, stack=1, slice=3, distance_mm=0.0, angle_deg=0.0,
        csa_cm2=area, csa_corrected_cm2=area, x_mm=disc.x_mm + (outward if side == "left" else -outward),
        y_mm=disc.y_mm - forward, z_mm=disc.z_mm, status="flagged" if rng.random() < 0.1 else "ok",
    )  # fmt: skip


def load_item(store: Path, base_models: dict[str, Path], seed: int) -> WorkItem:
    """Write the measured rows of one random person into `store` and return the item that solves them."""
    rng = np.random.default_rng(10_000 + seed)
    sex = "MF"[seed % 2]
    height_m = float(rng.normal(1.76 if sex == "M" else 1.63, 0.07))
    mass_kg = float(rng.normal(25.0, 3.0) * height_m**2)
    exam_id = f"person{seed}"
    write_rows(store / f"{exam_id}.json", measured_rows(exam_id, seed))
    task = LoadTask(
        store=store,
        measured_path=f"{exam_id}.json",
        demographics=Demographics(sex, "dicom", 50.0, "dicom", height_m, "dicom", mass_kg, "dicom"),
        tasks=(STANDING, FLEXION30),
        base_models=base_models,
        with_opensim=False,
        opensim_timeout_s=60.0,
    )
    return WorkItem(exam_id, "load", FINGERPRINT, task)


def with_task(item: WorkItem, **changes: Any) -> WorkItem:
    """The same item with other fields of its task."""
    return replace(item, task=replace(item.task, **changes))
