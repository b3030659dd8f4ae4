"""`cohort validate anatomy`: measure phantom exams whose truth is known, and human masks of real scans."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np

from cohort.anatomy.measure import measure_exam
from cohort.stacks import LabelledStack, Labels
from cohort.terms import SACRAL_BODY
from models.phantom.study import STRATA, study_plan
from models.training.annotated import BODY, DISC, UNSURE, divide_vertebrae, read_png, read_spacings
from pipelines.anatomy_score import CONFIDENT, Outcome, ScoredExam, ScoredStructure, score_exam
from pipelines.real_scans import (
    SMALLEST_MM2,
    Report,
    listed_counts,
    pieces,
    read_headers,
    single_picture,
    stack_of,
)

Results = dict[str, Any]
Scores = Sequence[tuple[ScoredExam, ScoredExam]]
"""Each exam on true and on degraded masks."""

N_EXAMS: Final = 240
PROCESSES: Final = 2
THRESHOLDS: Final = (0.0, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
VARIANTS: Final = ("4 lumbar", "6 lumbar")
"""Strata whose names a count from the sacrum cannot give; scored by themselves, too."""
SWAPS: Final = ("sacrum called body", "body called sacrum")
"""Faults that change what a voxel is called, not where the structures end."""
OUTCOMES: Final[tuple[Outcome, ...]] = ("right", "refused", "wrong", "missed")
PICTURE_WIDTH_MM: Final = 40.0
"""A single picture stands for a whole body (46 mm wide), or the least volumes of bodies would drop every one in it."""
MIN_TRUE_CM2: Final = 0.8
"""Smaller sections (where a muscle begins or ends) are left out of the error in per cent."""


def score_study(n: int, report: Report, *, processes: int = PROCESSES) -> Scores:
    """Score the first `n` exams of the study, several at a time."""
    scores = []
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for pair in pool.map(score_exam, study_plan(n)):
            scores.append(pair)
            if len(scores) % 20 == 0 or len(scores) == n:
                report(f"{len(scores)} of {n} exams")
    return scores


def anatomy_results(scores: Scores, human: Mapping[str, Any]) -> Results:
    """Everything that was measured, as one object that JSON can hold.

    Keys of the figures that are aimed at; then the tables: `structures`, `conditions`, `faults`, `confidence`, `dice`,
    `failures`, each for `true` and `degraded` masks; then `seconds` and what human masks gave.
    """
    sides = {"true": [pair[0] for pair in scores], "degraded": [pair[1] for pair in scores]}
    results: Results = {"exams": len(scores)}
    for side, prefix in (("true", ""), ("degraded", "degraded_")):
        results |= {prefix + key: value for key, value in _figures(sides[side]).items()}
    results["spider_counts_match"] = human.get("spider_counts_match")
    results["measure_s_per_exam"] = _rounded(np.mean([one.seconds["exam"] for one in sides["true"]]))
    results["human_masks"] = dict(human)
    results["seconds"] = {side: _seconds(exams) for side, exams in sides.items()}
    for name, table in _TABLES.items():
        results[name] = {side: table(exams) for side, exams in sides.items()}
    return results


def _figures(exams: Sequence[ScoredExam]) -> Results:
    complete = [one for one in exams if one.complete]
    usual = [one for one in complete if one.conditions[0] not in VARIANTS]
    names = [structure for one in exams for structure in one.named]
    complete_names = [structure for one in usual for structure in one.named]
    return {
        "disc_height_mae_mm": _errors(_heights(exams))["mae"],
        "csa_error_pct": _errors(_area_errors(exams))["mae"],
        "centroid_mae_mm": _errors(_centroids(exams))["mae"],
        "lordosis_mae_deg": _errors(_lordosis(exams))["mae"],
        "levels_right": _share(one.all_right for one in usual),
        "levels_right_variants": _share(one.all_right for one in complete if one.conditions[0] in VARIANTS),
        "names_right_or_refused": _share(one.outcome in ("right", "refused") for one in complete_names),
        "names_right_or_refused_no_swap": _share(
            one.outcome in ("right", "refused")
            for exam in usual
            if not set(exam.faults) & set(SWAPS)
            for one in exam.named
        ),
        "levels_wrong_confident": sum(any(one.wrong_confident for one in exam.named) for exam in exams),
        "names_wrong_confident": sum(one.wrong_confident for one in names),
    }


def _heights(exams: Iterable[ScoredExam]) -> list[float | None]:
    return [one.height_error_mm for exam in exams for one in exam.structures if one.kind == "disc"]


def _centroids(exams: Iterable[ScoredExam], kind: str | None = None) -> list[float | None]:
    return [one.centroid_error_mm for exam in exams for one in exam.structures if kind in (None, one.kind)]


def _lordosis(exams: Iterable[ScoredExam]) -> list[float | None]:
    return [exam.lordosis_error_deg for exam in exams]


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
        "bias": _rounded(known.mean()),
        "mae": _rounded(size.mean()),
        "p95": _rounded(np.quantile(size, 0.95)),
    }


def _share(holds: Iterable[bool]) -> float | None:
    listed = list(holds)
    return _rounded(np.mean(listed)) if listed else None


def _rounded(value: Any) -> float:
    return round(float(value), 4)


def _structure_table(exams: Sequence[ScoredExam]) -> Results:
    structures = [one for exam in exams for one in exam.structures]
    discs = sorted({one.name for one in structures if one.kind == "disc"}, key=_caudal_first)
    table = {
        f"height of {name}, mm": _errors(one.height_error_mm for one in structures if one.name == name)
        for name in discs
    }
    table["height of all discs, mm"] = _errors(_heights(exams))
    table["centroid of vertebrae, mm"] = _errors(_centroids(exams, "vertebra"))
    table["centroid of discs, mm"] = _errors(_centroids(exams, "disc"))
    table["lordosis L1-S1, degrees"] = _errors(_lordosis(exams))
    table["sacral slope, degrees"] = _errors(exam.slope_error_deg for exam in exams)
    for muscle in sorted({area.muscle for exam in exams for area in exam.areas}):
        table[f"area of {muscle.replace('_', ' ')}, %"] = _errors(_area_errors(exams, muscle))
    return table


def _caudal_first(name: str) -> tuple[int, int]:
    above = name.split("-")[0]
    return (-"TL".index(above[0]), -int(above[1:]))


def _group(exams: Sequence[ScoredExam]) -> Results:
    names = [one for exam in exams for one in exam.named]
    return {
        "exams": len(exams),
        "exams_all_right": sum(one.all_right for one in exams),
        **{outcome: sum(one.outcome == outcome for one in names) for outcome in OUTCOMES},
        "wrong_confident": sum(one.wrong_confident for one in names),
        "right_by_count": sum(one.answer == one.counted_name for one in names),
        "extra": sum(one.extra for one in exams),
        "disc_height_mae_mm": _errors(_heights(exams))["mae"],
        "centroid_mae_mm": _errors(_centroids(exams))["mae"],
        "lordosis_mae_deg": _errors(_lordosis(exams))["mae"],
        "csa_error_pct": _errors(_area_errors(exams))["mae"],
    }


def _condition_table(exams: Sequence[ScoredExam]) -> Results:
    found = list(dict.fromkeys(name for exam in exams for name in exam.conditions))
    table = {
        "complete field of view": _group([exam for exam in exams if exam.complete]),
        "partial field of view": _group([exam for exam in exams if not exam.complete]),
    }
    for name in [*(name for name in STRATA if name in found), *(name for name in found if name not in STRATA)]:
        table[name] = _group([exam for exam in exams if name in exam.conditions])
    return table


def _fault_table(exams: Sequence[ScoredExam]) -> Results:
    found = sorted({fault for exam in exams for fault in exam.faults})
    table = {fault: _group([exam for exam in exams if fault in exam.faults]) for fault in found}
    whole = [exam for exam in exams if not set(exam.faults) & set(SWAPS)]
    return table | {"no class swapped": _group(whole), "no fault": _group([e for e in exams if not e.faults])}


def _confidence_table(exams: Sequence[ScoredExam]) -> Results:
    """Of all names that could be given, how many are at a threshold of confidence, and how many of those wrong."""
    names = [one for exam in exams for one in exam.named if one.found]
    return {
        f"{threshold:.2f}": {
            "named": _share(_given(one, threshold) for one in names),
            "wrong": _share(one.outcome == "wrong" for one in names if _given(one, threshold)),
        }
        for threshold in THRESHOLDS
    }


def _given(one: ScoredStructure, threshold: float) -> bool:
    return one.answer is not None and one.confidence >= threshold


def _dice_table(exams: Sequence[ScoredExam]) -> Results:
    return {
        name: _rounded(np.mean([exam.dice[name] for exam in exams if name in exam.dice]))
        for name in ("vertebral_body", "disc", "muscle")
        if any(name in exam.dice for exam in exams)
    }


def _failures(exams: Sequence[ScoredExam]) -> list[Results]:
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


_TABLES: Final[dict[str, Callable[[Sequence[ScoredExam]], Any]]] = {
    "structures": _structure_table,
    "conditions": _condition_table,
    "faults": _fault_table,
    "confidence": _confidence_table,
    "dice": _dice_table,
    "failures": _failures,
}


def _seconds(exams: Sequence[ScoredExam]) -> Results:
    whole, spine = (np.array([one.seconds[step] for one in exams]) for step in ("exam", "spine"))
    axial = np.array(["axial none" not in one.conditions for one in exams])
    muscles = (whole - spine)[axial]
    return {
        "exam": _rounded(whole.mean()),
        "exam_p95": _rounded(np.quantile(whole, 0.95)),
        "spine": _rounded(spine.mean()),
        "muscles_where_axial": _rounded(muscles.mean()) if len(muscles) else None,
    }


# -- human masks -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Count:
    """Bodies or discs counted in one picture."""

    picture: str
    what: str
    found: int
    pieces: int
    """Connected pieces of the human mask: where the data set lists another number, it is not in this picture."""
    listed: int


def human_results(data: Path) -> Results:
    """What human masks of real scans give: bodies of `real_exam`, and counts of `spider_t2space`.

    Raises
    ------
    FileNotFoundError
        if a folder of real scans is not there
    """
    counts = spider_counts(data / "spider_t2space")
    bodies = real_exam_bodies(data / "real_exam")
    return {
        "real_exam_bodies": bodies,
        "spider_counts_match": _share(one.found == one.listed for one in counts),
        "spider_vertebrae_match": _share(one.found == one.listed for one in counts if one.what == "vertebrae"),
        "spider_discs_match": _share(one.found == one.listed for one in counts if one.what == "discs"),
        "spider_counts": len(counts),
        "spider_mismatches": [asdict(one) for one in counts if one.found != one.listed],
    }


def spider_counts(folder: Path) -> list[Count]:
    """Vertebrae and discs measured on the middle one of each series' pictures with human masks."""
    spacings, listed = read_spacings(folder), listed_counts(folder)
    counts = []
    for series in sorted(spacings):
        paths = sorted(
            (folder / "labels").glob(f"{series}_slice*.png"), key=lambda path: int(path.stem.split("slice")[1])
        )
        if not paths:
            continue
        path = paths[len(paths) // 2]
        regions = divide_vertebrae(read_png(path), spacings[series])
        if regions is None:
            continue
        counts += _counts(path.stem, regions, spacings[series], listed[series])
    return counts


def _counts(name: str, regions: Labels, spacing_mm: tuple[float, float], listed: Mapping[str, int]) -> list[Count]:
    masks = {"vertebrae": np.isin(regions, (BODY, UNSURE)), "discs": regions == DISC}
    bodies, discs = (mask.astype(np.uint8) for mask in masks.values())
    picture = single_picture(bodies, spacing_mm)
    picture = replace(picture, geometry=replace(picture.geometry, thickness_mm=PICTURE_WIDTH_MM))
    found = measure_exam("study", LabelledStack(picture, {"vertebral_body": bodies[None], "disc": discs[None]}, {}), [])
    numbers = {"vertebrae": len(found.vertebrae), "discs": len(found.discs)}
    return [
        Count(name, what, number, len(pieces(masks[what], spacing_mm, SMALLEST_MM2[what])), listed[what])
        for what, number in numbers.items()
    ]


def human_spine(folder: Path) -> tuple[LabelledStack, Labels]:
    """The real sagittal exam with the bodies that a human drew, the lowest as sacrum, and their instances."""
    stack = stack_of(read_headers(folder / "dicom" / "sagittal_t1"), "sagittal")
    paths = [folder / "masks" / f"sagittal_vertebral_bodies_{k:02d}.png" for k in range(len(stack.image))]
    human = np.stack([read_png(path) for path in paths])
    bodies = np.where(human == _caudal_first_ids(human)[0], SACRAL_BODY, human > 0).astype(np.uint8)
    return LabelledStack(stack, {"vertebral_body": bodies, "disc": np.zeros_like(bodies)}, {}), human


def _caudal_first_ids(human: Labels) -> list[int]:
    """Values of bodies [slice, row, column] in a stack with its head up, from caudal to cranial."""
    return sorted(
        (int(body) for body in np.unique(human) if body), key=lambda body: -np.nonzero(human == body)[1].mean()
    )


def real_exam_bodies(folder: Path) -> int:
    """Rows that hold one human-drawn body each (95 % of either in the other), of nine, from caudal to cranial."""
    labelled, human = human_spine(folder)
    found = measure_exam("study", labelled, [])
    if found.sagittal is None:
        return 0
    instances = found.sagittal.labels["body_instances"]
    good = 0
    for number, wanted in enumerate(_caudal_first_ids(human), start=1):
        here, true = instances == number, human == wanted
        good += int(np.count_nonzero(here & true) >= 0.95 * max(np.count_nonzero(here), np.count_nonzero(true)))
    return good


# -- tables ------------------------------------------------------------------------------------------------------------

_FIGURES: Final = {
    "disc_height_mae_mm": ("Disc height, mean absolute error, mm", "<= 0.3", "<= 1.0"),
    "csa_error_pct": ("Muscle area, mean absolute error, %", "<= 2", ""),
    "centroid_mae_mm": ("Centroid, mean distance, mm", "<= 0.5", ""),
    "lordosis_mae_deg": ("Lordosis L1-S1, mean absolute error, degrees", "<= 2", ""),
    "levels_right": ("Complete fields of view with every name right, share of exams", "1", ""),
    "levels_right_variants": ("The same with 4 or 6 lumbar vertebrae", "", ""),
    "names_right_or_refused": ("Names right or refused in complete fields of view", "1", ">= 0.98"),
    "names_right_or_refused_no_swap": (
        "The same without exams whose sacrum and lowest body were swapped",
        "1",
        ">= 0.98",
    ),
    "levels_wrong_confident": (f"Exams with a wrong name of confidence >= {CONFIDENT}", "0", "0"),
    "names_wrong_confident": ("Such names", "0", "0"),
}


def anatomy_tables(results: Results) -> str:
    """The results as Markdown."""
    parts = [_figure_table(results)]
    titles = {"true": "true masks", "degraded": "degraded masks"}
    for side, title in titles.items():
        parts.append(f"### Errors on {title}\n\n{_markdown(results['structures'][side])}")
    for side, title in titles.items():
        parts.append(f"### By condition, {title}\n\n{_markdown(results['conditions'][side])}")
    parts.append(f"### By fault of the degraded masks\n\n{_markdown(results['faults']['degraded'])}")
    for side, title in titles.items():
        parts.append(f"### Names by confidence, {title}\n\n{_markdown(results['confidence'][side])}")
    parts.append(f"### Dice of the degraded masks\n\n{_markdown({'mean': results['dice']['degraded']})}")
    parts.append(f"### Processor seconds of measuring an exam\n\n{_markdown(results['seconds'])}")
    if human := {key: value for key, value in results["human_masks"].items() if key != "spider_mismatches"}:
        parts.append(f"### Human masks of real scans\n\n{_markdown({'found': human})}")
    return "\n\n".join(parts)


def _figure_table(results: Results) -> str:
    rows = {
        text: {
            "true masks": results[key],
            "goal": goal,
            "degraded": results[f"degraded_{key}"],
            "goal ": degraded_goal,
        }
        for key, (text, goal, degraded_goal) in _FIGURES.items()
    }
    return f"{results['exams']} phantom exams.\n\n{_markdown(rows)}"


def _markdown(rows: Mapping[str, Mapping[str, Any]]) -> str:
    if not rows:
        return "none"
    columns = list(next(iter(rows.values())))
    lines = [["", *(column.replace("_", " ") for column in columns)], ["---", *("---:" for _ in columns)]]
    lines += [[name, *(_cell(row[column]) for column in columns)] for name, row in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
