"""`cohort validate anatomy`: measure phantom exams whose truth is known; results as one object or as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from cohort.processes import process_pool
from models.phantom.study import study_plan
from pipelines.validation.anatomy_errors import (
    condition_table,
    dice_table,
    failures,
    fault_table,
    figures,
    rounded,
    seconds_table,
    structure_table,
)
from pipelines.validation.anatomy_risk import TABLE_THRESHOLDS, calibration_table, risk_table
from pipelines.validation.anatomy_score import CONFIDENT, ScoredExam, score_exam
from pipelines.validation.real_scans import Report

Results = dict[str, Any]
Scores = Sequence[tuple[ScoredExam, ScoredExam]]
"""Each exam on true and on degraded masks."""

PROCESSES: Final = 2
SIDES: Final = {"true": "true masks", "degraded": "degraded masks"}


def score_study(n: int, report: Report, *, processes: int = PROCESSES) -> Scores:
    """Score the first `n` exams of the study, several at a time."""
    scores = []
    with process_pool(processes) as pool:
        for pair in pool.map(score_exam, study_plan(n)):
            scores.append(pair)
            if len(scores) % 20 == 0 or len(scores) == n:
                report(f"{len(scores)} of {n} exams")
    return scores


def anatomy_results(scores: Scores, human: Mapping[str, Any]) -> Results:
    """Everything that was measured, as one object that JSON can hold.

    First the figures of `anatomy_errors.figures` (those of degraded masks with `degraded_` before the key); then the
    tables of `TABLES`, each for `true` and `degraded` masks; then what human masks gave.

    Parameters
    ----------
    human : of `human_masks.human_results` and `t1_names.t1_results`; may be empty
    """
    sides = {"true": [pair[0] for pair in scores], "degraded": [pair[1] for pair in scores]}
    results: Results = {"exams": len(scores)}
    for side, prefix in (("true", ""), ("degraded", "degraded_")):
        results |= {prefix + key: value for key, value in figures(sides[side]).items()}
    for key in ("spider_counts_match", "human_out_of_range_unflagged"):
        results[key] = human.get(key)
    results["measure_s_per_exam"] = rounded(np.mean([one.seconds for one in sides["true"]]))
    results["human_masks"] = dict(human)
    for name, table in TABLES.items():
        results[name] = {side: table(exams) for side, exams in sides.items()}
    return results


TABLES: Final[dict[str, Callable[[Sequence[ScoredExam]], Any]]] = {
    "structures": structure_table,
    "conditions": condition_table,
    "faults": fault_table,
    "risk": risk_table,
    "calibration": calibration_table,
    "dice": dice_table,
    "failures": failures,
    "seconds": seconds_table,
}

_FIGURES: Final = {
    "disc_height_mae_mm": ("Disc height, mean absolute error, mm", "<= 0.3", "<= 1.0"),
    "csa_error_pct": ("Muscle area, mean absolute error, %", "<= 2", ""),
    "centroid_mae_mm": ("Centroid, mean distance, mm", "<= 0.5", ""),
    "lordosis_mae_deg": ("Lordosis L1-S1, mean absolute error, degrees", "<= 2", ""),
    "levels_right": ("Complete, five lumbar vertebrae or number known: exams with every name right, share", "1", ""),
    "levels_right_unknown_variants": ("Complete, four or six and nobody knows: the same", "", ""),
    "levels_right_all": ("Complete, all of these: the same", "", ""),
    "names_right_or_refused": ("Complete, five or number known: names right or refused, share", "1", ">= 0.98"),
    "names_right_or_refused_no_swap": ("The same without swapped sacrum and lowest body", "1", ">= 0.98"),
    "levels_wrong_confident": (f"All exams: those with a wrong name of confidence >= {CONFIDENT}", "0", "0"),
    "names_wrong_confident": ("Such names", "0", "0"),
    "muscle_sides_right": ("Muscles on their own side of the patient, share", "1", ""),
    "level_slices_right": ("Discs whose muscles were read on the right slice, share", "1", ""),
}
_HUMAN_TABLES: Final = {"flagged_rows": "Rows of human masks by reason", "numbers": "Numbers of human masks"}


def anatomy_tables(results: Results) -> str:
    """The results as Markdown."""
    parts = [_figure_table(results)]
    for side, title in SIDES.items():
        parts.append(f"### Errors on {title}\n\n{_markdown(results['structures'][side])}")
    for side, title in SIDES.items():
        for group, table in results["risk"][side].items():
            rows = {key: table[key] for key in (f"{threshold:.2f}" for threshold in TABLE_THRESHOLDS)}
            parts.append(f"### Names by confidence: {group}, {title}\n\n{_markdown(rows)}")
        parts.append(f"### Confidence and names that are right, {title}\n\n{_markdown(results['calibration'][side])}")
    for side, title in SIDES.items():
        parts.append(f"### By condition, {title}\n\n{_markdown(results['conditions'][side])}")
    parts.append(f"### By fault of the degraded masks\n\n{_markdown(results['faults']['degraded'])}")
    parts.append(f"### Dice of the degraded masks\n\n{_markdown({'mean': results['dice']['degraded']})}")
    parts.append(f"### Processor seconds of measuring an exam\n\n{_markdown(results['seconds'])}")
    if human := results["human_masks"]:
        rows = {key: {"found": value} for key, value in human.items() if not isinstance(value, dict | list)}
        parts.append(f"### Real scans\n\n{_markdown(rows)}")
        parts += [f"### {title}\n\n{_markdown(human[key])}" for key, title in _HUMAN_TABLES.items()]
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
    lines += [[name.replace("_", " "), *(_cell(row[column]) for column in columns)] for name, row in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
