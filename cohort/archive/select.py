"""Choose the T1-weighted sagittal and axial series of an exam, and say of each other series why it was not chosen.

Physics and geometry decide: sequence kind from repetition, echo and inversion time, plane from the direction cosines,
number and size of slices and pixels. Words of the description are weak evidence, except for what physics cannot show
(contrast agent, Dixon water image).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, Literal

import numpy as np

from cohort.archive.header import SlicePose, slice_pose
from cohort.archive.stacks import group_poses
from cohort.rows import FileRow, SeriesRow
from cohort.stacks import Plane

SequenceKind = Literal["spin_echo", "inversion_recovery", "gradient_echo", "in_phase", "described"]

OBLIQUE_LIMIT_DEG: Final = 35.0
"""Largest angle between a slice's normal and the axis of its plane; L5-S1 discs are tilted by up to about 35."""
MIN_SLICES: Final[dict[Plane, int]] = {"sagittal": 5, "axial": 3}
FULL_SLICES: Final[dict[Plane, int]] = {"sagittal": 11, "axial": 15}
"""Slices of a complete series: five discs of three axial slices, or 11 x 4 mm across the lumbar vertebral bodies."""
MAX_PIXEL_MM: Final = 2.0
MAX_THICKNESS_MM: Final = 10.0

T1_SPIN_ECHO_TR_MS: Final = (300.0, 1100.0)
T1_SPIN_ECHO_MAX_TE_MS: Final = 30.0
"""Lumbar T1 (turbo) spin echo: TR 446-746 ms, TE 7-14 ms in 196 clinical series (SPIDER, van der Graaf et al. 2024),
up to about 1,000 ms at 3 T."""
T1_FLAIR_TI_MS: Final = (500.0, 1300.0)
T1_FLAIR_TR_MS: Final = (1400.0, 3500.0)
"""T1 FLAIR, usual at 3 T: TI about 700-1,000 ms, TR about 1,800-2,500 ms."""
STIR_MAX_TI_MS: Final = 300.0
"""TI that nulls fat: about 150-180 ms at 1.5 T and 200-240 ms at 3 T."""
T1_GRADIENT_ECHO_MAX_TE_MS: Final = 10.0
SHORT_TR_MS: Final = 300.0
T1_GRADIENT_ECHO_MIN_FLIP_DEG: Final = 40.0
"""A gradient echo of long TR is T1-weighted only at a large flip angle; MEDIC and MERGE (T2*) use about 30 degrees."""

KIND_SCORE: Final[dict[SequenceKind, float]] = {
    "spin_echo": 1.0,
    "inversion_recovery": 0.9,
    "in_phase": 0.75,
    "gradient_echo": 0.65,
    "described": 0.4,
}
AMBIGUOUS_MARGIN: Final = 0.03
"""Series of different kinds whose scores differ by no more are equally likely."""

DERIVED_WORDS: Final = frozenset(
    "SECONDARY MPR CSA_MPR PROJECTION_IMAGE MIP MIN_IP ADC TRACEW FA SUB SUBTRACT SUBTRACTION REFORMATTED SCREEN_SAVE "
    "MAP T1_MAP T2_MAP P PHASE PHASE_MAP R REAL I IMAGINARY FAT_FRACTION T2_STAR_MAP R2_STAR AVERAGE".split()
)
IN_PHASE_WORDS: Final = frozenset(("IN_PHASE", "IP"))


@dataclass(frozen=True)
class Selection:
    """The series of one exam and which of them were chosen."""

    series: list[SeriesRow]
    """One row per series, in the order of the series pseudonyms."""
    sagittal_series_id: str | None
    axial_series_id: str | None
    reason: str | None
    """None if both were chosen, otherwise why not: that of the sagittal series comes first."""


@dataclass(frozen=True)
class _Candidate:
    """One series with what its files have in common."""

    series_id: str
    plane: str | None
    n_files: int
    n_stacks: int
    pixel_mm: float
    kind: SequenceKind | None
    reason: str | None
    score: float


def select_series(rows: Sequence[FileRow]) -> Selection:
    """Choose the T1 sagittal and T1 axial series of one exam.

    Among candidates of one plane the highest score wins. Candidates within `AMBIGUOUS_MARGIN` of it are, if of the
    same kind, repetitions: more slices, then the smaller pixel, then the series pseudonym decide. If they are of
    different kinds none is chosen and all are `ambiguous`.

    Parameters
    ----------
    rows : all file rows of one exam, unusable ones included
    """
    exam_id = next((row.exam_id for row in rows if row.exam_id), "")
    by_series: dict[str, list[FileRow]] = {}
    for row in rows:
        if row.series_id:
            by_series.setdefault(row.series_id, []).append(row)
    candidates = [_examine(series_id, by_series[series_id]) for series_id in sorted(by_series)]
    sagittal, sagittal_reasons = _choose(candidates, "sagittal")
    axial, axial_reasons = _choose(candidates, "axial")
    reasons = sagittal_reasons | axial_reasons
    return Selection(
        series=[
            _series_row(exam_id, one, reasons.get(one.series_id, one.reason or "wrong_plane")) for one in candidates
        ],
        sagittal_series_id=sagittal,
        axial_series_id=axial,
        reason=_exam_reason(sagittal, sagittal_reasons, "no_t1_sagittal")
        or _exam_reason(axial, axial_reasons, "no_t1_axial"),
    )


def _exam_reason(chosen: str | None, reasons: dict[str, str], none_left: str) -> str | None:
    if chosen is not None:
        return None
    return "ambiguous" if "ambiguous" in reasons.values() else none_left


def _choose(candidates: Iterable[_Candidate], plane: Plane) -> tuple[str | None, dict[str, str]]:
    """Best candidate of a plane and the reason of each candidate of it."""
    eligible = [one for one in candidates if one.plane == plane and one.reason is None]
    if not eligible:
        return None, {}
    best_score = max(one.score for one in eligible)
    near = [one for one in eligible if best_score - one.score <= AMBIGUOUS_MARGIN]
    reasons = {one.series_id: "not_best" for one in eligible}
    if len({one.kind for one in near}) > 1:
        return None, reasons | {one.series_id: "ambiguous" for one in near}
    best = min(near, key=lambda one: (-one.n_files, one.pixel_mm, one.series_id))
    return best.series_id, reasons | {best.series_id: "chosen"}


def _series_row(exam_id: str, one: _Candidate, reason: str) -> SeriesRow:
    return SeriesRow(
        exam_id=exam_id,
        series_id=one.series_id,
        plane=one.plane,
        n_files=one.n_files,
        n_stacks=one.n_stacks,
        score=round(one.score, 4),
        role=f"{one.plane}_t1" if reason == "chosen" else None,
        reason=reason,
    )


def _examine(series_id: str, rows: Sequence[FileRow]) -> _Candidate:
    usable = _distinct_instances([row for row in rows if row.reason is None])
    if not usable:
        reason = Counter(row.reason for row in rows).most_common(1)[0][0]
        return _Candidate(series_id, None, 0, 0, 0.0, None, reason, 0.0)
    poses = [row_pose(row) for row in usable]
    plane = series_plane(poses)
    n_stacks = len(group_poses(poses))
    kind = sequence_kind(usable)
    reason = _why_not(usable, poses, plane, kind)
    pixel = float(median(max(pose.spacing_mm) for pose in poses))
    score = 0.0
    if reason is None and kind is not None and plane in ("sagittal", "axial"):
        score = _score(usable, kind, plane, pixel)
    return _Candidate(series_id, plane, len(usable), n_stacks, pixel, kind, reason, score)


def _distinct_instances(rows: Sequence[FileRow]) -> list[FileRow]:
    by_instance = {row.instance_id: row for row in sorted(rows, key=lambda row: row.file_id)}
    return list(by_instance.values())


def row_pose(row: FileRow) -> SlicePose:
    """Pose of a usable file row (RefusedError `no_geometry` otherwise)."""
    spacing = [value for value in (row.row_spacing_mm, row.column_spacing_mm) if value is not None]
    return slice_pose(
        position_mm=tuple(row.position_mm or ()),
        orientation=tuple(row.orientation or ()),
        spacing_mm=tuple(spacing),
        shape=(row.rows, row.columns),
        thickness_mm=row.thickness_mm,
    )


def slice_plane(pose: SlicePose) -> str:
    """Plane of one slice by its normal: sagittal, coronal, axial (within OBLIQUE_LIMIT_DEG) or oblique."""
    along = np.abs(pose.normal)
    axis = int(np.argmax(along))
    if float(along[axis]) < np.cos(np.deg2rad(OBLIQUE_LIMIT_DEG)):
        return "oblique"
    return ("sagittal", "coronal", "axial")[axis]


def series_plane(poses: Sequence[SlicePose]) -> str:
    """Plane of a series: that of its slices, steeper oblique ones among them allowed; 'mixed' if there are several."""
    counts = Counter(slice_plane(pose) for pose in poses)
    oblique = counts.pop("oblique", 0)
    if len(counts) > 1:
        return "mixed"
    plane, n = counts.most_common(1)[0] if counts else ("oblique", oblique)
    return plane if n >= oblique else "oblique"


def sequence_kind(rows: Sequence[FileRow]) -> SequenceKind | None:
    """Kind of T1-weighted sequence by its physics, or None if the weighting is another.

    Times count before names: a "spin echo" of TR 10 ms is a mislabelled gradient echo.
    """
    repetition = _median(row.repetition_time_ms for row in rows)
    echo = _median(row.echo_time_ms for row in rows)
    inversion = _median(row.inversion_time_ms for row in rows)
    flip = _median(row.flip_angle_deg for row in rows)
    codes, hints = _words(rows, "scanning_sequence"), _words(rows, "text_hints")
    if "EP" in codes or hints & {"balanced", "diffusion", "angiography"}:
        return None
    if repetition is None or echo is None:
        return "described" if "t1" in hints and not hints & {"t2", "pd", "stir"} else None
    if inversion is not None and repetition >= T1_FLAIR_TR_MS[0]:
        inverted = _within(inversion, T1_FLAIR_TI_MS) and _within(repetition, T1_FLAIR_TR_MS)
        return "inversion_recovery" if inverted and echo <= T1_SPIN_ECHO_MAX_TE_MS else None
    if repetition < SHORT_TR_MS or codes == {"GR"}:
        return _gradient_echo_kind(rows, repetition, echo, flip)
    if _within(repetition, T1_SPIN_ECHO_TR_MS) and echo <= T1_SPIN_ECHO_MAX_TE_MS:
        return "spin_echo"
    return None


def _gradient_echo_kind(
    rows: Sequence[FileRow], repetition_ms: float, echo_ms: float, flip_deg: float | None
) -> SequenceKind | None:
    if echo_ms > T1_GRADIENT_ECHO_MAX_TE_MS:
        return None
    if "in_phase" in _words(rows, "text_hints") or _words(rows, "image_type") & IN_PHASE_WORDS:
        return "in_phase"
    large_flip = flip_deg is not None and flip_deg >= T1_GRADIENT_ECHO_MIN_FLIP_DEG
    return "gradient_echo" if repetition_ms < SHORT_TR_MS or large_flip else None


def _why_not(rows: Sequence[FileRow], poses: Sequence[SlicePose], plane: str, kind: SequenceKind | None) -> str | None:
    """Reason that excludes the series, or None; the most telling one first."""
    types, hints = _words(rows, "image_type"), _words(rows, "text_hints")
    if "LOCALIZER" in types or "localiser" in hints:
        return "localiser"
    if plane not in ("sagittal", "axial"):
        return "wrong_plane"
    if types & DERIVED_WORDS or "derived" in hints or ("DERIVED" in types and kind != "in_phase"):
        return "derived"
    if not types & IN_PHASE_WORDS and (dixon := _dixon_reason(types, hints)):
        return dixon
    if hints & {"stir", "fatsat"} or _nulls_fat(rows):
        return "fat_suppressed"
    if "post_contrast" in hints:
        return "post_contrast"
    if kind is None:
        return "not_t1"
    if _several_echoes(rows, poses):
        return "inconsistent_series"
    return _too_coarse_or_few(rows, poses, plane)


def _dixon_reason(types: frozenset[str], hints: frozenset[str]) -> str | None:
    """Reason that excludes a Dixon image other than the in-phase one."""
    if types & {"OPP_PHASE", "OUT_PHASE", "OP"} or "out_of_phase" in hints:
        return "not_t1"
    if types & {"W", "WATER"} or "water" in hints:
        return "fat_suppressed"
    return "derived" if types & {"F", "FAT"} or {"dixon", "fat"} <= hints else None


def _nulls_fat(rows: Sequence[FileRow]) -> bool:
    """Say if the inversion time is that of STIR; in gradient echoes it is the interval between preparations."""
    inversion = _median(row.inversion_time_ms for row in rows)
    return inversion is not None and inversion <= STIR_MAX_TI_MS and "GR" not in _words(rows, "scanning_sequence")


def _too_coarse_or_few(rows: Sequence[FileRow], poses: Sequence[SlicePose], plane: str) -> str | None:
    if len(rows) < (MIN_SLICES["sagittal"] if plane == "sagittal" else MIN_SLICES["axial"]):
        return "too_few_slices"
    thickness = _median(pose.thickness_mm for pose in poses)
    coarse = median(max(pose.spacing_mm) for pose in poses) > MAX_PIXEL_MM
    return "localiser" if coarse or (thickness is not None and thickness > MAX_THICKNESS_MM) else None


def _several_echoes(rows: Sequence[FileRow], poses: Sequence[SlicePose]) -> bool:
    """Say if slices of different echo times lie at one place: a Dixon or mapping series in one piece."""
    echo_at: dict[tuple[float, ...], float | None] = {}
    for row, pose in zip(rows, poses, strict=True):
        place = (*np.round(pose.position_mm, 1).tolist(), *np.round(pose.normal, 2).tolist())
        if echo_at.setdefault(place, row.echo_time_ms) != row.echo_time_ms:
            return True
    return False


def _score(rows: Sequence[FileRow], kind: SequenceKind, plane: str, pixel_mm: float) -> float:
    """Score of an eligible series: its kind, then cover and pixel size, then words; always above zero."""
    hints = _words(rows, "text_hints")
    full = FULL_SLICES["sagittal"] if plane == "sagittal" else FULL_SLICES["axial"]
    score = KIND_SCORE[kind]
    score += 0.15 * min(1.0, len(rows) / full)
    score += 0.1 * min(1.0, max(0.0, 1.5 - pixel_mm))
    score += 0.05 * ("t1" in hints) - 0.1 * bool(hints & {"t2", "pd"})
    elsewhere = bool(hints & {"cervical", "thoracic"}) and "lumbar" not in hints
    return max(0.01, score - 0.5 * elsewhere)


def _words(rows: Sequence[FileRow], column: str) -> frozenset[str]:
    """Words that at least half of the rows have in a '+'-joined column."""
    counts = Counter(word for row in rows for word in (getattr(row, column) or "").split("+") if word)
    return frozenset(word for word, n in counts.items() if 2 * n >= len(rows))


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(median(known)) if known else None


def _within(value: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= value <= limits[1]
