"""What views are made of: columns, and the numbers and levels that they show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cohort.tables.schema import description
from cohort.terms import LUMBAR_VERTEBRAE

CONVENTION: Final = "vertebra_mean"
"""Of the loads in all views: that of Bruno et al. 2015, with which published loads can be compared."""

MIN_SUBJECTS: Final = 20
"""Below it a percentile is null (own choice): with fewer values the 5th and the 95th are the smallest and the largest,
and a cell of few people says too much about each of them."""

VERTEBRAE: Final = ("S1", *reversed(LUMBAR_VERTEBRAE), "T12")
DISCS: Final = ("L5-S1", "L4-L5", "L3-L4", "L2-L3", "L1-L2", "T12-L1")
"""Levels with columns in the wide views. Others (L6, T11, L4-S1, ...) are in `levels` and `features`."""

VERTEBRA_FEATURES: Final = {
    f"vertebra_{column}": column
    for column in (
        "anterior_height_mm",
        "middle_height_mm",
        "posterior_height_mm",
        "depth_mm",
        "wedge_deg",
        "tilt_deg",
        "inferior_tilt_deg",
        "compression_ratio",
        "volume_cm3",
    )
}
DISC_FEATURES: Final = {
    f"disc_{column}": column
    for column in (
        "height_mm",
        "outline_height_mm",
        "mean_height_mm",
        "anterior_height_mm",
        "middle_height_mm",
        "posterior_height_mm",
        "height_index",
        "width_mm",
        "area_mm2",
        "wedge_deg",
        "endplate_wedge_deg",
        "segmental_deg",
        "volume_cm3",
    )
}
MUSCLE_FEATURES: Final = ("csa_cm2", "csa_corrected_cm2", "lean_fraction")
CURVATURE_FEATURES: Final = (
    "lordosis_l1_s1_deg",
    "lordosis_l1_l5_deg",
    "lordosis_centroid_deg",
    "sacral_slope_deg",
    "coronal_deviation_mm",
)
LOAD_FEATURES: Final = {f"load_{column}": column for column in ("axial_n", "shear_ap_n", "shear_lateral_n")}
EXAM_COLUMNS: Final = (
    "exam_id",
    "subject_id",
    "status",
    "reason",
    "sex",
    "age_years",
    "height_m",
    "weight_kg",
    "vendor",
    "field_t",
    "axial_weighting",
)

WORST: Final = (
    "CASE WHEN bool_or(status = 'refused') THEN 'refused' WHEN bool_or(status = 'flagged') THEN 'flagged' "
    "WHEN count(status) > 0 THEN 'ok' END"
)
_DECADE: Final = "floor(age_years / 10)::INT * 10"  # not age_years // 10, which divides a double without rounding down
AGE_BAND: Final = (
    f"CASE WHEN age_years >= 90 THEN '90+' ELSE format('{{0:02d}}-{{1:02d}}', {_DECADE}, {_DECADE} + 9) END"
)
LOADS: Final = f"loads WHERE engine = 'batch' AND convention = '{CONVENTION}'"


@dataclass(frozen=True)
class Column:
    """One column of a view."""

    name: str
    sql: str
    """Expression that makes it."""
    text: str
    """What it means, for the data dictionary."""
    pattern: str = ""
    """How the dictionary names it together with its likes, for example `disc_height_mm_<disc>`; empty: by its name."""


@dataclass(frozen=True)
class View:
    """One view."""

    name: str
    summary: str
    columns: tuple[Column, ...]
    source: str
    """What follows FROM."""
    before: str = ""
    """Common table expressions."""

    @property
    def sql(self) -> str:
        """The SELECT behind the view."""
        shown = ",\n  ".join(f"{column.sql} AS {column.name}" for column in self.columns)
        return f"{self.before}SELECT\n  {shown}\nFROM {self.source}"


def level_name(level: str) -> str:
    """A level as part of a column's name: `L4-L5` is `L4_L5`."""
    return level.replace("-", "_")


def same(table: str, names: Iterable[str], *, of: str = "") -> tuple[Column, ...]:
    """Columns of a table as they are."""
    return tuple(Column(name, f"{of}{name}", description(table, name)) for name in names)


def unless_refused(column: str) -> str:
    return f"CASE WHEN status <> 'refused' THEN {column} END"
