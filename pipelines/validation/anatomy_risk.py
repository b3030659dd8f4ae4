"""Risk against coverage of level names: how many are given at a threshold of confidence, and how many of them wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import binomtest

from models.phantom.study import COUNT_KNOWN
from pipelines.validation.anatomy_score import CONFIDENT, ScoredExam, ScoredStructure

VARIANTS: Final = ("4 lumbar", "6 lumbar")
"""Strata whose names a count from the sacrum cannot give, unless the number is known."""
TABLE_THRESHOLDS: Final = tuple(sorted({0.0, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, CONFIDENT}))
THRESHOLDS: Final = tuple(sorted({*TABLE_THRESHOLDS, *(k / 20 for k in range(18)), *(k / 100 for k in range(90, 100))}))
LANDMARK: Final = "S1"
"""Left out: it is what the count starts from, and right whatever is wrong with the count."""
BINS: Final = (0.0, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
BOUND: Final = 0.95
"""Level of the upper bounds: none wrong of 60 leaves a risk of up to 5 %, of 240 up to 1.2 %."""

Table = dict[str, Any]


def group_of(exam: ScoredExam) -> str:
    """What an exam's field of view and anatomy leave to be known."""
    if not exam.complete:
        return "partial field of view"
    known = "known" if COUNT_KNOWN in exam.conditions else "not known"
    return f"complete, {'4 or 6' if exam.conditions[0] in VARIANTS else '5'} lumbar, number {known}"


def decidable(exam: ScoredExam) -> bool:
    """The picture is complete, and the number of vertebrae usual or known: every name can be right."""
    return exam.complete and (exam.conditions[0] not in VARIANTS or COUNT_KNOWN in exam.conditions)


def upper_bound(wrong: int, n: int) -> float:
    """One-sided upper bound of a share (Clopper & Pearson, Biometrika 1934); 1 where nothing was counted."""
    if not n:
        return 1.0
    return float(binomtest(wrong, n, alternative="less").proportion_ci(BOUND, method="exact").high)


def risk_table(exams: Sequence[ScoredExam]) -> dict[str, Table]:
    """Group of exams -> threshold -> coverage, risk and its upper bound, of names and of exams.

    A name that was given counts from its confidence up; structures without a row have none to give, and S1 is left out.
    An exam is covered if any of its names is, and wrong if any of those is wrong: names of one exam are wrong together,
    so the bound of exams is the honest one.
    """
    groups = {"all exams": list(exams)}
    for exam in exams:
        groups.setdefault(group_of(exam), []).append(exam)
    return {name: _thresholds(members) for name, members in groups.items()}


def _thresholds(exams: Sequence[ScoredExam]) -> Table:
    names = [[one for one in exam.named if one.found and one.name != LANDMARK] for exam in exams]
    return {f"{threshold:.2f}": _at(names, threshold) for threshold in THRESHOLDS}


def _at(exams: Sequence[Sequence[ScoredStructure]], threshold: float) -> Table:
    given = [[one for one in names if one.answer is not None and one.confidence >= threshold] for names in exams]
    wrong = [[one for one in names if one.outcome == "wrong"] for names in given]
    names = _risk(sum(map(len, exams)), sum(map(len, given)), sum(map(len, wrong)))
    whole = _risk(len(exams), sum(map(bool, given)), sum(map(bool, wrong)))
    return {f"names_{key}": value for key, value in names.items()} | {
        f"exams_{key}": value for key, value in whole.items()
    }


def _risk(n: int, given: int, wrong: int) -> Table:
    return {
        "coverage": round(given / n, 4) if n else None,
        "wrong": wrong,
        "risk": round(wrong / given, 4) if given else None,
        "risk_at_most": round(upper_bound(wrong, given), 4),
    }


def calibration_table(exams: Iterable[ScoredExam]) -> dict[str, Table]:
    """Bin of confidence -> names in it, their mean confidence, and the share that is right."""
    names = [one for exam in exams for one in exam.named if one.answer is not None]
    confidence = np.array([one.confidence for one in names])
    right = np.array([one.outcome == "right" for one in names])
    place = np.clip(np.digitize(confidence, BINS) - 1, 0, len(BINS) - 2)
    return {
        f"{low:.2f}-{high:.2f}": {
            "names": int(here.sum()),
            "mean_confidence": round(float(confidence[here].mean()), 4),
            "right": round(float(right[here].mean()), 4),
        }
        for k, (low, high) in enumerate(pairwise(BINS))
        for here in [place == k]
        if here.any()
    }


def risk_coverage_figure(results: Mapping[str, Any], path: Path) -> None:
    """Draw risk against coverage of exams as a picture: true and degraded masks, and the groups of `risk_table`.

    Parameters
    ----------
    results : of `validate_anatomy.anatomy_results`
    """
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for axis, (side, groups) in zip(axes, results["risk"].items(), strict=True):
        for name, table in groups.items():
            _draw_curve(axis, name, table)
        axis.set(title=f"{side} masks", xlabel="exams with a name at the threshold, share", xlim=(0, 1.02))
        axis.grid(alpha=0.3)
    axes[0].set(ylabel="of these with a wrong name, share", ylim=(-0.02, 1.02))
    figure.suptitle(f"Level names of {results['exams']} phantom exams")
    axes[0].legend(title=f"dots: confidence {CONFIDENT}", fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_curve(axis: plt.Axes, name: str, table: Mapping[str, Mapping[str, Any]]) -> None:
    """One group; the shade reaches up to the bound."""
    points = [row for row in table.values() if row["exams_risk"] is not None]
    if not points:
        return
    coverage, risk, bound = ([row[f"exams_{key}"] for row in points] for key in ("coverage", "risk", "risk_at_most"))
    (line,) = axis.plot(coverage, risk, label=name)
    axis.fill_between(coverage, risk, bound, color=line.get_color(), alpha=0.1, linewidth=0)
    row = table[f"{CONFIDENT:.2f}"]
    if row["exams_risk"] is not None:
        axis.plot(row["exams_coverage"], row["exams_risk"], "o", color=line.get_color())
