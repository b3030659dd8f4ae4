"""Errors of the study's measurements: the figures that are aimed at, and tables by structure, condition and fault."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from models.phantom.study import STRATA
from pipelines.validation.anatomy_risk import decidable
from pipelines.validation.anatomy_score import Kind, Outcome, ScoredExam, ScoredStructure

SWAPS: Final = ("sacrum called body", "body called sacrum")
"""Faults that change what a voxel is called, not where the structures end."""
OUTCOMES: Final[tuple[Outcome, ...]] = ("right", "refused", "wrong", "missed")
MIN_TRUE_CM2: Final = 0.8
"""Smaller sections (where a muscle begins or ends) are left out of the error in per cent."""
STRUCTURE_COLUMNS: Final[dict[Kind, dict[str, str]]] = {
    "disc": {
        "height_mm": "height of all discs, mm",
        "anterior_height_mm": "anterior height of discs, mm",
        "middle_height_mm": "middle height of discs, mm",
        "posterior_height_mm": "posterior height of discs, mm",
        "wedge_deg": "wedge of discs, degrees",
        "volume_cm3": "volume of discs, %",
    },
    "vertebra": {
        "anterior_height_mm": "anterior height of vertebrae, mm",
        "middle_height_mm": "middle height of vertebrae, mm",
        "posterior_height_mm": "posterior height of vertebrae, mm",
        "wedge_deg": "wedge of vertebrae, degrees",
        "volume_cm3": "volume of vertebrae, %",
    },
}
CURVATURE_COLUMNS: Final = {
    "lordosis_l1_s1_deg": "lordosis L1-S1, degrees",
    "lordosis_centroid_deg": "lordosis by centroids, degrees",
    "sacral_slope_deg": "sacral slope, degrees",
}

Table = dict[str, Any]


def figures(exams: Sequence[ScoredExam]) -> Table:
    """The figures that are aimed at, and those that say what they leave out."""
    complete = [one for one in exams if one.complete]
    can_be_right = [one for one in exams if decidable(one)]
    names = [structure for one in exams for structure in one.named]
    levels = [level for one in exams for level in one.levels]
    sides = np.array([one.sides for one in exams]).sum(axis=0)
    return {
        "disc_height_mae_mm": _errors(_column(exams, "disc", "height_mm"))["mae"],
        "csa_error_pct": _errors(_area_errors(exams))["mae"],
        "centroid_mae_mm": _errors(_centroids(exams))["mae"],
        "lordosis_mae_deg": _errors(_curvature(exams, "lordosis_l1_s1_deg"))["mae"],
        "levels_right": share(one.all_right for one in can_be_right),
        "levels_right_unknown_variants": share(one.all_right for one in complete if not decidable(one)),
        "levels_right_all": share(one.all_right for one in complete),
        "names_right_or_refused": _right_or_refused(can_be_right),
        "names_right_or_refused_no_swap": _right_or_refused(
            [one for one in can_be_right if not set(one.faults) & set(SWAPS)]
        ),
        "levels_wrong_confident": sum(any(one.wrong_confident for one in exam.named) for exam in exams),
        "names_wrong_confident": sum(one.wrong_confident for one in names),
        "muscle_sides_right": rounded(sides[0] / sides.sum()) if sides.sum() else None,
        "level_slices_right": share(level.right_slice for level in levels),
    }


def _right_or_refused(exams: Iterable[ScoredExam]) -> float | None:
    return share(one.outcome in ("right", "refused") for exam in exams for one in exam.named)


def _column(exams: Iterable[ScoredExam], kind: Kind, column: str) -> list[float | None]:
    return [one.errors.get(column) for exam in exams for one in exam.structures if one.kind == kind]


def _curvature(exams: Iterable[ScoredExam], column: str) -> list[float | None]:
    return [exam.curvature_errors.get(column) for exam in exams]


def _centroids(exams: Iterable[ScoredExam], kind: Kind | None = None) -> list[float | None]:
    return [one.centroid_error_mm for exam in exams for one in exam.structures if kind in (None, one.kind)]


def _area_errors(exams: Iterable[ScoredExam], muscle: str | None = None) -> list[float | None]:
    return [
        area.error_pct
        for exam in exams
        for area in exam.areas
        if area.true_cm2 >= MIN_TRUE_CM2 and muscle in (None, area.muscle)
    ]


def _errors(values: Iterable[float | None]) -> dict[str, float | int | None]:
    """Number, bias, mean and 95th percentile of the absolute error of what was measured."""
    known = np.array([value for value in values if value is not None], dtype=float)
    if not len(known):
        return {"n": 0, "bias": None, "mae": None, "p95": None}
    size = np.abs(known)
    return {
        "n": len(known),
        "bias": rounded(known.mean()),
        "mae": rounded(size.mean()),
        "p95": rounded(np.quantile(size, 0.95)),
    }


def share(holds: Iterable[bool]) -> float | None:
    """Share of what holds; None of nothing."""
    listed = list(holds)
    return rounded(np.mean(listed)) if listed else None


def rounded(value: Any) -> float:
    """A number as the tables and the JSON hold it."""
    return round(float(value), 4)


def structure_table(exams: Sequence[ScoredExam]) -> Table:
    """Errors by what was measured; heights of discs by level, too."""
    structures = [one for exam in exams for one in exam.structures]
    measured = {one.name for one in structures if one.kind == "disc" and "height_mm" in one.errors}
    discs = sorted(measured, key=_caudal_first)
    table = {
        f"height of {name}, mm": _errors(one.errors.get("height_mm") for one in structures if one.name == name)
        for name in discs
    }
    for kind, columns in STRUCTURE_COLUMNS.items():
        table |= {text: _errors(_column(exams, kind, column)) for column, text in columns.items()}
    table["centroid of vertebrae, mm"] = _errors(_centroids(exams, "vertebra"))
    table["centroid of discs, mm"] = _errors(_centroids(exams, "disc"))
    table |= {text: _errors(_curvature(exams, column)) for column, text in CURVATURE_COLUMNS.items()}
    for muscle in sorted({area.muscle for exam in exams for area in exam.areas}):
        table[f"area of {muscle.replace('_', ' ')}, %"] = _errors(_area_errors(exams, muscle))
    table["angle of slices to discs, degrees"] = _errors(
        level.angle_error_deg for exam in exams for level in exam.levels
    )
    return table


def _caudal_first(name: str) -> tuple[int, int, str]:
    above = name.split("-")[0]
    return (-"TL".index(above[0]), -int(above[1:]), name)


def condition_table(exams: Sequence[ScoredExam]) -> Table:
    """Names and errors by field of view, stratum and grid."""
    found = list(dict.fromkeys(name for exam in exams for name in exam.conditions))
    table = {
        "complete field of view": _group([exam for exam in exams if exam.complete]),
        "partial field of view": _group([exam for exam in exams if not exam.complete]),
    }
    for name in [*(name for name in STRATA if name in found), *(name for name in found if name not in STRATA)]:
        table[name] = _group([exam for exam in exams if name in exam.conditions])
    return table


def fault_table(exams: Sequence[ScoredExam]) -> Table:
    """The same by fault of the masks."""
    found = sorted({fault for exam in exams for fault in exam.faults})
    table = {fault: _group([exam for exam in exams if fault in exam.faults]) for fault in found}
    whole = [exam for exam in exams if not set(exam.faults) & set(SWAPS)]
    return table | {"no class swapped": _group(whole), "no fault": _group([e for e in exams if not e.faults])}


def _group(exams: Sequence[ScoredExam]) -> Table:
    names: list[ScoredStructure] = [one for exam in exams for one in exam.named]
    return {
        "exams": len(exams),
        "exams_all_right": sum(one.all_right for one in exams),
        **{outcome: sum(one.outcome == outcome for one in names) for outcome in OUTCOMES},
        "wrong_confident": sum(one.wrong_confident for one in names),
        "right_by_count": sum(one.answer == one.counted_name for one in names),
        "extra": sum(one.extra for one in exams),
        "disc_height_mae_mm": _errors(_column(exams, "disc", "height_mm"))["mae"],
        "centroid_mae_mm": _errors(_centroids(exams))["mae"],
        "lordosis_mae_deg": _errors(_curvature(exams, "lordosis_l1_s1_deg"))["mae"],
        "csa_error_pct": _errors(_area_errors(exams))["mae"],
    }


def dice_table(exams: Sequence[ScoredExam]) -> Table:
    """Mean Dice of the masks against the true ones."""
    return {
        name: rounded(np.mean([exam.dice[name] for exam in exams if name in exam.dice]))
        for name in ("vertebral_body", "disc", "muscle")
        if any(name in exam.dice for exam in exams)
    }


def failures(exams: Sequence[ScoredExam]) -> list[Table]:
    """Exams with a wrong or missed name, or with rows that are nothing, so that they can be looked at."""
    return [
        {
            "exam": exam.number,
            "conditions": exam.conditions,
            "faults": exam.faults,
            "names": {one.name: one.answer or one.outcome for one in exam.named if one.outcome in ("wrong", "missed")},
            "wrong_confident": any(one.wrong_confident for one in exam.named),
            "extra": exam.extra,
            "flags": exam.flags,
        }
        for exam in exams
        if exam.extra or any(one.outcome in ("wrong", "missed") for one in exam.named)
    ]


def seconds_table(exams: Sequence[ScoredExam]) -> Table:
    """Processor seconds of measuring an exam, with and without axial stacks."""
    axial = [exam for exam in exams if "axial none" not in exam.conditions]
    groups = {"all": exams, "with_axial": axial, "without_axial": [exam for exam in exams if exam not in axial]}
    return {name: rounded(np.mean([exam.seconds for exam in group])) for name, group in groups.items() if group} | {
        "all_p95": rounded(np.quantile([exam.seconds for exam in exams], 0.95))
    }
