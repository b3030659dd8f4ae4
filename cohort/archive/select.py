"""Choose the T1-weighted sagittal and axial images of an exam, and say of all others why they were not chosen.

Physics and geometry decide: weighting from repetition, echo and inversion time and flip angle, plane from the direction
cosines, number and size of slices, where the series lie to each other. Words of the description are weak evidence,
except for what physics cannot show (contrast agent, fat saturation, another region of the body).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Final

from cohort.archive.candidates import OTHER_REGIONS, STANDARD_RULES, Candidate, SelectRules, examine_series
from cohort.archive.weighting import Contrast
from cohort.rows import FileRow, SeriesRow
from cohort.stacks import Plane

AMBIGUOUS_MARGIN: Final = 0.03
"""Candidates of different kinds whose scores differ by no more are equally likely."""
COMPARABLE_MARGIN: Final = 0.3
"""Sagittal series that score worse than this below the best do not make its region doubtful."""
SAME_STATION: Final = 0.5
"""Share of the smaller field of view, along the body, that two series of one region have in common."""
OUTSIDE_PENALTY: Final = 0.3
"""Score that an axial series loses if all its slices lie outside the sagittal field of view."""
JUDGED: Final = frozenset(("chosen", "not_best", "ambiguous", None))
"""Reasons of candidates that could have been chosen: they keep their score."""


@dataclass(frozen=True)
class Choice:
    """The images chosen for one plane."""

    rows: tuple[FileRow, ...]
    """What conversion reads: usable and damaged rows, copies included, in the order of files and frames."""
    series_id: str
    part: int
    """Number of the part within its series."""
    weighting: Contrast
    score: float
    runner_up_id: str | None
    """Series of the next best candidate; the same series if it is another part of it."""
    runner_up_score: float | None


@dataclass(frozen=True)
class Selection:
    """The series of one exam and what was chosen of them."""

    series: list[SeriesRow]
    """One row per part of a series, in the order of the series pseudonyms."""
    sagittal: Choice | None
    axial: Choice | None
    sagittal_reason: str | None
    """`no_t1_sagittal` or `ambiguous` if nothing was chosen."""
    axial_reason: str | None
    """`no_t1_axial` or `ambiguous` if nothing was chosen."""


def select_series(rows: Sequence[FileRow], rules: SelectRules = STANDARD_RULES) -> Selection:
    """Choose one part of one sagittal and of one axial series.

    Among candidates of one plane the highest score wins. Candidates within `AMBIGUOUS_MARGIN` of it are, if of the
    same kind, repetitions: more slices, then the smaller pixel, then the pseudonym of the series decide. If they are of
    different kinds none is chosen and all are `ambiguous`. Sagittal candidates of several regions of the spine are
    told apart by their descriptions, or are `ambiguous`.

    Parameters
    ----------
    rows : all file rows of one exam, unusable ones included
    rules : what the site accepts
    """
    by_series: dict[str, list[FileRow]] = {}
    for row in rows:
        if row.series_id:
            by_series.setdefault(row.series_id, []).append(row)
    series = sorted(by_series.items())
    candidates = [one for series_id, members in series for one in examine_series(series_id, members, rules)]
    sagittal, judged = _choose(_lumbar_station(_eligible(candidates, "sagittal", "t1")))
    axial, judged_axial = _choose(_axial_pool(candidates, [one for one in judged if one.reason == "chosen"]))
    final = {(one.series_id, one.part): one for one in (*candidates, *judged, *judged_axial)}
    exam_id = next((row.exam_id for row in rows if row.exam_id), "")
    return Selection(
        series=[_series_row(exam_id, one) for one in final.values()],
        sagittal=sagittal,
        axial=axial,
        sagittal_reason=None if sagittal else _none_chosen(judged, "no_t1_sagittal"),
        axial_reason=None if axial else _none_chosen(judged_axial, "no_t1_axial"),
    )


def _eligible(candidates: Iterable[Candidate], plane: Plane, contrast: Contrast) -> list[Candidate]:
    return [
        one for one in candidates if one.reason is None and (one.plane, one.weighting.contrast) == (plane, contrast)
    ]


def _none_chosen(judged: Iterable[Candidate], none_left: str) -> str:
    return "ambiguous" if any(one.reason == "ambiguous" for one in judged) else none_left


def _lumbar_station(pool: Sequence[Candidate]) -> list[Candidate]:
    """Exclude sagittal candidates of other regions where several regions were scanned.

    Where the table stood is in no header, so descriptions must name the lumbar one; otherwise all are `ambiguous`.
    """
    best = max((one.score for one in pool), default=0.0)
    comparable = [one for one in pool if best - one.score <= COMPARABLE_MARGIN]
    if _one_station(comparable):
        return list(pool)
    named = [one for one in comparable if "lumbar" in one.hints]
    named = [one for one in named if not one.hints & OTHER_REGIONS] or named
    if not named or not _one_station(named):
        return [_judged(one, "ambiguous" if one in comparable else "not_best") for one in pool]
    return [one if _one_station([*named, one]) else _judged(one, "other_region") for one in pool]


def _one_station(candidates: Sequence[Candidate]) -> bool:
    """Say if all fields of view have a good part of their length along the body in common."""
    for one, other in combinations(candidates, 2):
        common = min(one.z_mm[1], other.z_mm[1]) - max(one.z_mm[0], other.z_mm[0])
        if common < SAME_STATION * min(one.z_mm[1] - one.z_mm[0], other.z_mm[1] - other.z_mm[0]):
            return False
    return True


def _axial_pool(candidates: Sequence[Candidate], sagittal: Sequence[Candidate]) -> list[Candidate]:
    """Axial candidates judged by where they lie to the chosen sagittal part; T2-weighted ones if no other is left."""
    pool = [_inside(one, sagittal) for one in _eligible(candidates, "axial", "t1")]
    if any(one.reason is None for one in pool):
        return pool
    return pool + [_inside(one, sagittal) for one in _eligible(candidates, "axial", "t2")]


def _inside(one: Candidate, sagittal: Sequence[Candidate]) -> Candidate:
    """Lower the score by the share of slices outside the sagittal field of view, or exclude what lies outside as a
    whole; positions of different frames of reference say nothing about each other."""
    if not sagittal or not one.frames & sagittal[0].frames:
        return one
    low, high = sagittal[0].z_mm
    outside = sum(not low <= z <= high for z in one.slice_z_mm) / len(one.slice_z_mm)
    if outside == 1:
        return _judged(one, "other_region")
    return replace(one, score=max(0.01, one.score - OUTSIDE_PENALTY * outside))


def _choose(pool: Sequence[Candidate]) -> tuple[Choice | None, list[Candidate]]:
    """The best of the candidates of a plane, and all of them with their reasons."""
    eligible = [one for one in pool if one.reason is None]
    if not eligible:
        return None, list(pool)
    best_score = max(one.score for one in eligible)
    near = [one for one in eligible if best_score - one.score <= AMBIGUOUS_MARGIN]
    if len({one.weighting.kind for one in near}) > 1:
        return None, [_judged(one, "ambiguous" if one in near else "not_best") for one in pool]
    best = min(near, key=lambda one: (-one.n_slices, one.pixel_mm, one.series_id, one.part))
    others = [one for one in eligible if one is not best]
    runner_up = max(others, key=lambda one: one.score, default=None)
    choice = Choice(
        rows=best.rows,
        series_id=best.series_id,
        part=best.part,
        weighting=best.weighting.contrast or "t1",
        score=round(best.score, 4),
        runner_up_id=runner_up.series_id if runner_up else None,
        runner_up_score=round(runner_up.score, 4) if runner_up else None,
    )
    return choice, [_judged(one, "chosen" if one is best else "not_best") for one in pool]


def _judged(one: Candidate, reason: str) -> Candidate:
    return one if one.reason else replace(one, reason=reason)


def _series_row(exam_id: str, one: Candidate) -> SeriesRow:
    chosen = one.reason == "chosen"
    return SeriesRow(
        exam_id=exam_id,
        series_id=one.series_id,
        part=one.part,
        plane=one.plane,
        n_slices=one.n_slices,
        n_stacks=one.n_stacks,
        weighting=one.weighting.contrast,
        kind=one.weighting.kind,
        score=round(one.score, 4) if one.reason in JUDGED else 0.0,
        role=f"{one.plane}_{one.weighting.contrast}" if chosen else None,
        reason=one.reason or "not_best",
    )
