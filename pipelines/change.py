"""Old numbers against new ones: what a change of weights, code or base models did to the tables of a store.

Old rows are the current ones, new rows those of STORE/candidate (`pipelines/candidate.py`). Vertebrae and discs are the
same ones where they lie at the same place, whatever they are called; a number is compared where the name is the same
too, and sound (ok or flagged) on both sides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from cohort.agreement.bland_altman import BlandAltman, Interval, bland_altman, mean_absolute_error
from cohort.agreement.correlation import icc_2_1, pearson
from cohort.agreement.overlaps import ALL as WHOLE_KIND
from cohort.agreement.rows import OverlapSummaryRow
from pipelines.change_pairs import ALL, ChangePairs, Exams, Renamed, StageDifference

Columns = dict[str, Any]
"""Name -> array [pair]; exam_id as code."""
_NUMBERS: Final = ("person", "old", "new", "scale", "renamed", "newly_flagged", "no_longer_flagged")

SEED: Final = 0
MAX_POINTS: Final = 1500
"""Of one plot; more hide each other."""


@dataclass(frozen=True)
class Kind:
    """Features that are judged by one pair of limits."""

    name: str
    """Beginning of the names of its limits in [gate]."""
    relative: bool
    """Whether changes are judged in per cent of the old value."""
    tolerance: float
    """Largest change of one value that passes for the same; in the unit of the feature, or in per cent."""


LENGTH: Final = Kind("length", relative=False, tolerance=1.45)
"""Tolerance: mean error of automatic disc heights against manual ones in Hess et al. 2023."""
ANGLE: Final = Kind("angle", relative=False, tolerance=5.0)  # own choice
AREA: Final = Kind("area", relative=True, tolerance=10.0)  # own choice
LEAN: Final = Kind("lean", relative=False, tolerance=0.05)  # own choice
LOAD: Final = Kind("load", relative=True, tolerance=10.0)  # own choice


@dataclass(frozen=True)
class Feature:
    """A column that is compared."""

    table: str
    column: str
    label: str
    unit: str
    kind: Kind
    scale: str | None = None
    """Column that a relative change is a share of; the feature's own by default."""


FEATURES: Final = (
    Feature("discs", "height_mm", "disc height", "mm", LENGTH),
    Feature("discs", "wedge_deg", "disc wedge", "degrees", ANGLE),
    Feature("vertebrae", "anterior_height_mm", "anterior vertebral height", "mm", LENGTH),
    Feature("vertebrae", "middle_height_mm", "middle vertebral height", "mm", LENGTH),
    Feature("vertebrae", "posterior_height_mm", "posterior vertebral height", "mm", LENGTH),
    Feature("muscle_levels", "csa_corrected_cm2", "cross-sectional area", "cm2", AREA),
    Feature("muscle_levels", "lean_fraction", "lean fraction", "of 1", LEAN),
    Feature("curvature", "lordosis_l1_s1_deg", "lordosis L1-S1", "degrees", ANGLE),
    Feature("curvature", "lordosis_l1_l5_deg", "lordosis L1-L5", "degrees", ANGLE),
    Feature("curvature", "lordosis_centroid_deg", "lordosis by centroids", "degrees", ANGLE),
    Feature("curvature", "sacral_slope_deg", "sacral slope", "degrees", ANGLE),
    Feature("curvature", "coronal_deviation_mm", "coronal deviation", "mm", LENGTH),
    Feature("loads", "axial_n", "axial load", "N", LOAD),
    Feature("loads", "shear_ap_n", "antero-posterior shear", "N", LOAD, scale="axial_n"),
)


@dataclass(frozen=True)
class Agreement:
    """Old against new numbers of one feature, at one level and of one vendor, or of all of them."""

    feature: Feature
    of: str
    """Muscle, or task and convention of a load; empty where a feature is one."""
    level: str
    """Name, `undecided`, or `all`."""
    vendor: str
    """Name, `unknown`, or `all`."""
    limits: BlandAltman | None
    """New minus old; None where no pair can be compared."""
    mae: Interval | None
    pearson_r: float | None
    icc: float | None
    mean_scale: float | None
    """Mean old value that relative changes are a share of."""
    largest_change: float | None
    largest_exam_id: str | None
    beyond_tolerance: float | None
    """Share of pairs that changed by more than the tolerance of their kind."""
    n_appeared: int
    """Numbers that were not there, or refused, and now are sound."""
    n_vanished: int
    n_newly_flagged: int
    """Compared numbers that were ok and now are flagged."""
    n_no_longer_flagged: int
    n_renamed: int
    """Numbers not compared, because what they are of has another name."""

    @property
    def title(self) -> str:
        """Feature and what it is of."""
        return f"{self.feature.label}, {self.of}" if self.of else self.feature.label

    @property
    def bias_percent(self) -> float | None:
        """Bias in per cent of the mean old value."""
        return self._percent(self.limits.bias.value if self.limits else None)

    @property
    def width_percent(self) -> float | None:
        """Distance of the limits of agreement in per cent of the mean old value."""
        return self._percent(self.limits.width if self.limits else None)

    @property
    def n_before(self) -> int:
        """Sound numbers of before, in exams that the change has been through."""
        return (self.limits.n if self.limits else 0) + self.n_renamed + self.n_vanished

    @property
    def lost(self) -> float | None:
        """Share of them that vanished; None where there were none."""
        return self.n_vanished / self.n_before if self.n_before else None

    def _percent(self, value: float | None) -> float | None:
        return None if value is None or not self.mean_scale else 100 * value / abs(self.mean_scale)


@dataclass(frozen=True)
class MaskAgreement:
    """How far the masks of old and new networks agree, in some exams (`pipelines/change_masks.py`)."""

    n_with_both: int = 0
    """Exams with masks by the old and by the new networks, on the same images."""
    n_other_images: int = 0
    """Exams with masks of both whose images were converted anew: the two are not of the same slices."""
    n_compared: int = 0
    problems: Mapping[str, str] = field(default_factory=dict)
    """Exam that was drawn and could not be compared -> why."""
    overlaps: tuple[OverlapSummaryRow, ...] = ()
    """Of whole structures: each kind as one mask, the mean of its structures, levels, muscles and sides."""
    reason: str | None = None
    """Why there are no figures, as a sentence."""
    failed: bool = False
    """Whether there are exams to compare and no figures of them: nothing can be said of the limit of [gate]."""
    page: str | None = None
    """The report of the study kind, relative to the change report."""
    page_problem: str | None = None
    """Why there is no such page though there are figures, as a sentence."""

    @property
    def dice(self) -> dict[str, float]:
        """Kind -> mean Dice over exams of all of it as one mask; 0, as defined, where only one version has any."""
        as_one = [row for row in self.overlaps if row.structure == WHOLE_KIND]
        counts = {row.kind: row.n + row.n_missed + row.n_extra for row in as_one}
        return {row.kind: row.n * (row.mean or 0.0) / counts[row.kind] for row in as_one if counts[row.kind]}


@dataclass(frozen=True)
class ChangeReport:
    """What changed, and what it did to the numbers."""

    stages: tuple[StageDifference, ...]
    software: tuple[str, str]
    """Versions of the software that made the old and the new results; several are joined by commas."""
    models: tuple[str, str]
    """Networks and base models of the runs that made them, with the beginning of their sha256."""
    exams: Exams
    renamed: tuple[Renamed, ...]
    agreements: tuple[Agreement, ...]
    points: Mapping[tuple[str, str], pd.DataFrame]
    """(column, of) -> some of the pairs: mean, difference, level, vendor."""
    masks: MaskAgreement | None = None
    """None where masks were not compared: the same networks, by the same code, made old and new ones."""

    @property
    def overall(self) -> tuple[Agreement, ...]:
        """Agreements of all levels and vendors together."""
        return tuple(one for one in self.agreements if one.level == ALL and one.vendor == ALL)


def compare_change(store: Path) -> ChangeReport:
    """Compare the rows of STORE/candidate with the current ones, exam by exam.

    Only exams are compared that the change has been through to the stage in question; those that came in since are
    counted. Masks are not looked at (`pipelines/change_masks.py` adds them). `StoreError` when the store has no tables,
    `ConfigurationError` when it has no candidate.
    """
    with ChangePairs(store) as pairs:
        agreements: list[Agreement] = []
        points: dict[tuple[str, str], pd.DataFrame] = {}
        for feature in FEATURES:
            for of in pairs.parts(feature.table):
                frame = pairs.frame(feature.table, feature.column, feature.scale or feature.column, of)
                if len(frame):
                    agreements += _agreements(feature, of, frame)
                    points[feature.column, of] = _some(frame)
        return ChangeReport(
            stages=pairs.stages(),
            software=pairs.software(),
            models=pairs.models(),
            exams=pairs.exams(),
            renamed=pairs.renamed(),
            agreements=tuple(agreements),
            points=points,
        )


def _agreements(feature: Feature, of: str, frame: pd.DataFrame) -> Iterator[Agreement]:
    """All together, then by level, by vendor and by both; a feature without levels by vendor alone."""
    columns = {name: frame[name].to_numpy() for name in _NUMBERS}
    columns["exam_id"] = frame["exam_id"].cat.codes.to_numpy()
    exam_ids = frame["exam_id"].cat.categories
    yield _agreement(feature, of, ALL, ALL, columns, exam_ids)
    has_levels = bool((frame["level"] != ALL).any())
    for keys in ([["level"]] if has_levels else []) + [["vendor"]] + ([["level", "vendor"]] if has_levels else []):
        for values, members in sorted(frame.groupby(keys, observed=True).indices.items()):
            found = values if isinstance(values, tuple) else (values,)
            at = dict(zip(keys, map(str, found), strict=True))
            part = {name: column[members] for name, column in columns.items()}
            yield _agreement(feature, of, at.get("level", ALL), at.get("vendor", ALL), part, exam_ids)


def _agreement(feature: Feature, of: str, level: str, vendor: str, part: Columns, exam_ids: pd.Index) -> Agreement:
    was, is_now = ~np.isnan(part["old"]), ~np.isnan(part["new"])
    compared = was & is_now & ~part["renamed"]
    counts = {
        "n_appeared": int((~was & is_now).sum()),
        "n_vanished": int((was & ~is_now).sum()),
        "n_newly_flagged": int((compared & part["newly_flagged"]).sum()),
        "n_no_longer_flagged": int((compared & part["no_longer_flagged"]).sum()),
        "n_renamed": int((was & is_now & part["renamed"]).sum()),
    }
    pairs = {name: column[compared] for name, column in part.items()}
    return Agreement(feature, of, level, vendor, **_statistics(feature, pairs, exam_ids), **counts)


def _statistics(feature: Feature, pairs: Columns, exam_ids: pd.Index) -> dict[str, Any]:
    """Everything that rests on pairs; all None without any."""
    names = ("limits", "mae", "pearson_r", "icc", "mean_scale", "largest_change", "largest_exam_id", "beyond_tolerance")
    old, new, scale, persons = (pairs[name] for name in ("old", "new", "scale", "person"))
    if not len(old):
        return dict.fromkeys(names)
    change = new - old
    largest = int(np.abs(change).argmax())
    allowed = feature.kind.tolerance * (np.abs(scale) / 100 if feature.kind.relative else np.ones_like(scale))
    values = (
        bland_altman(old, new, persons),
        mean_absolute_error(old, new, persons),
        pearson(old, new),
        icc_2_1(np.column_stack([old, new])),
        float(scale.mean()),
        float(change[largest]),
        str(exam_ids[pairs["exam_id"][largest]]) if change[largest] else None,
        float((np.abs(change) > allowed).mean()),
    )
    return dict(zip(names, values, strict=True))


def _some(frame: pd.DataFrame) -> pd.DataFrame:
    """Pairs for a plot, drawn with a fixed seed where there are too many."""
    compared = frame[frame["old"].notna() & frame["new"].notna() & ~frame["renamed"]]
    if len(compared) > MAX_POINTS:
        compared = compared.sample(MAX_POINTS, random_state=SEED)
    means = (compared["old"] + compared["new"]) / 2
    return pd.DataFrame(
        {
            "mean": means,
            "difference": compared["new"] - compared["old"],
            "level": compared["level"],
            "vendor": compared["vendor"],
        }
    )


def agreement_rows(agreements: Sequence[Agreement]) -> list[dict[str, Any]]:
    """One flat dictionary per agreement, every number with its name; None where there is none."""
    return [_flat(one) for one in agreements]


def _flat(one: Agreement) -> dict[str, Any]:
    limits = one.limits
    return {
        "table": one.feature.table,
        "feature": one.feature.column,
        "of": one.of,
        "level": one.level,
        "vendor": one.vendor,
        "unit": one.feature.unit,
        "n": limits.n if limits else 0,
        "n_persons": limits.n_persons if limits else 0,
        "mean_old_scale": one.mean_scale,
        **_named("bias", limits.bias if limits else None),
        "sd": limits.sd if limits else None,
        **_named("lower_limit", limits.lower if limits else None),
        **_named("upper_limit", limits.upper if limits else None),
        "width": limits.width if limits else None,
        "bias_percent": one.bias_percent,
        "width_percent": one.width_percent,
        **_named("mae", one.mae),
        "pearson_r": one.pearson_r,
        "icc_2_1": one.icc,
        "largest_change": one.largest_change,
        "largest_exam_id": one.largest_exam_id,
        "tolerance": one.feature.kind.tolerance,
        "tolerance_is_percent": one.feature.kind.relative,
        "beyond_tolerance": one.beyond_tolerance,
        "n_appeared": one.n_appeared,
        "n_vanished": one.n_vanished,
        "n_newly_flagged": one.n_newly_flagged,
        "n_no_longer_flagged": one.n_no_longer_flagged,
        "n_renamed": one.n_renamed,
    }


def _named(name: str, interval: Interval | None) -> dict[str, float | None]:
    low, high = (interval.low, interval.high) if interval else (None, None)
    return {name: interval.value if interval else None, f"{name}_low": low, f"{name}_high": high}
