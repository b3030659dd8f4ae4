"""Tables of a made-up study, as `cohort agreement` writes them: readers of known bias and noise, and missing things."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from cohort.agreement.overlap_summary import overlap_summary_rows
from cohort.agreement.rows import OverlapRow, PairRow, agreement_table
from cohort.agreement.statistics import agreement_rows
from cohort.terms import MUSCLES, SIDES

BODIES = ("T11", "T12", "L1", "L2", "L3", "L4", "L5", "S1")
DISCS = ("T11-T12", "T12-L1", "L1-L2", "L2-L3", "L3-L4", "L4-L5", "L5-S1")
LUMBAR_DISCS = DISCS[2:]
LUMBAR = BODIES[2:7]
AREAS_CM2 = {"multifidus": 6.5, "erector_spinae": 16.0, "psoas": 11.0, "quadratus_lumborum": 5.0}
DICE = {"vertebral_body": 0.9, "disc": 0.85, "muscle": 0.88}


@dataclass(frozen=True)
class MadeStudy:
    """What to make up."""

    n_exams: int = 24
    comparisons: tuple[tuple[str, str], ...] = (("anna", "automatic"), ("anna", "berta"))
    tasks: tuple[str, ...] = ("standing", "flexion60_5kg")
    slices: bool = True
    axial: bool = True
    bias: float = 0.03
    """Of the second reader, of the value."""


def write_study(folder: Path, made: MadeStudy = MadeStudy()) -> Path:
    """Write the four tables; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs, overlaps = list(_pairs(made)), list(_overlaps(made))
    tables: dict[str, Sequence[Any]] = {
        "pairs": pairs,
        "overlaps": overlaps,
        "agreement": agreement_rows(pairs),
        "overlap_summary": overlap_summary_rows(overlaps),
    }
    for name, rows in tables.items():
        pq.write_table(agreement_table(name, rows), folder / f"{name}.parquet")
    return folder


def exam(k: int) -> str:
    return f"{k:08x}examexamexamexam"


def _exams(made: MadeStudy) -> Iterator[tuple[np.random.Generator, dict[str, Any]]]:
    for number, (first, second) in enumerate(made.comparisons):
        for k in range(made.n_exams):
            random = np.random.default_rng([number, k])
            person = f"subject{k if k < 8 else 4 + k // 2}"
            yield random, {"exam_id": exam(k), "subject_id": person, "first_reader": first, "second_reader": second}


def _pairs(made: MadeStudy) -> Iterator[PairRow]:
    for random, who in _exams(made):
        for row, typical, spread, noise in _quantities(made):
            true = typical + random.normal(0, spread)
            first, second = true, true * (1 + made.bias) + random.normal(0, noise)
            if row["quantity"] == "disc_height_mm" and random.random() < 0.08:
                yield PairRow(**who, **row, reason="not_measured")
            else:
                yield PairRow(**who, **row, first=first, second=second)


def _quantities(made: MadeStudy) -> Iterator[tuple[dict[str, Any], float, float, float]]:
    """Row, typical value, spread between people, noise."""
    for k, level in enumerate(LUMBAR_DISCS):
        yield {"quantity": "disc_height_mm", "structure": level, "level": level, "unit": "mm"}, 7 + k, 1.4, 0.5
    for muscle, area in AREAS_CM2.items() if made.axial else ():
        for side in SIDES:
            for level in LUMBAR_DISCS:
                names = {"level": level, "muscle": muscle, "side": side}
                structure = f"{muscle} {side} {level}"
                yield (
                    {"quantity": "csa_cm2", "structure": structure, "unit": "cm2", **names},
                    area,
                    0.2 * area,
                    0.05 * area,
                )
    for task in made.tasks:
        for k, level in enumerate(LUMBAR):
            load = (1800 if task == "flexion60_5kg" else 450) + 60 * k
            names = {"structure": level, "level": level, "task": task}
            yield {"quantity": "compression_n", "unit": "N", **names}, load, 0.15 * load, 0.06 * load
    yield {"quantity": "lordosis_l1_s1_deg", "structure": "spine", "unit": "deg"}, 45.0, 9.0, 3.0


def _overlaps(made: MadeStudy) -> Iterator[OverlapRow]:
    for random, who in _exams(made):
        for row in _structures(made):
            if row["kind"] == "vertebral_body" and row.get("level") == "T11" and random.random() < 0.2:
                yield OverlapRow(**who, **row, n_first=900, n_second=0, reason="structure_missed")
                continue
            yield _scored(random, who, row, None)
            if made.slices and (row["structure"] in ("all",) or row.get("muscle")):
                for place in np.linspace(0.02, 0.98, 12):
                    yield _scored(random, who, row, float(place))


def _structures(made: MadeStudy) -> Iterator[dict[str, Any]]:
    for kind, levels in (("vertebral_body", BODIES), ("disc", DISCS)):
        for level in levels:
            yield {"kind": kind, "structure": level, "level": level, "second_level": level}
        yield {"kind": kind, "structure": "all"}
    if made.axial:
        for muscle in MUSCLES:
            yield {"kind": "muscle", "structure": muscle, "muscle": muscle}
            for side in SIDES:
                yield {"kind": "muscle", "structure": f"{muscle} {side}", "muscle": muscle, "side": side}
        yield {"kind": "muscle", "structure": "all"}


def _scored(random: np.random.Generator, who: dict[str, Any], row: dict[str, Any], place: float | None) -> OverlapRow:
    away = 0.0 if place is None else 0.25 * (2 * place - 1) ** 4
    dice = float(np.clip(DICE[row["kind"]] - away + random.normal(0, 0.025), 0, 1))
    distances = {} if place is not None else {"hausdorff95_mm": 9 * (1 - dice) + 1, "surface_mm": 3 * (1 - dice)}
    return OverlapRow(**who, **row, slice_position=place, dice=dice, n_first=1000, n_second=1030, **distances)
