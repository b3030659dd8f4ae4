"""The rows of the agreement of two readers: what was paired, how masks overlap, and the statistics of both.

They are beside the tables of a store, not among them: written where `cohort agreement` is told to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypedDict

import pyarrow as pa

from cohort.rows import column, optional
from cohort.tables.schema import as_table

SLICE_BINS: Final = 10
"""Parts of equal length into which the way through a stack is divided (own choice)."""


class Readers(TypedDict):
    """Whose exam rows are of, and by whom: columns that `pairs` and `overlaps` share."""

    exam_id: str
    subject_id: str | None
    first_reader: str
    second_reader: str


@dataclass(frozen=True, kw_only=True)
class PairRow:
    """One quantity of one structure that two readers measured, by the same code on the masks of each."""

    exam_id: str = column("exam pseudonym")
    subject_id: str | None = optional("pseudonym of the person; where it is null the exam stands for one")
    quantity: str = column(
        "disc_height_mm, csa_cm2, compression_n, centroid_distance_mm, lordosis_l1_s1_deg, ...: docs/agreement.md"
    )
    structure: str = column("L4-L5, L4, psoas left L4-L5, or spine")
    level: str | None = optional("vertebra or disc by the first reader's name; null for the spine as a whole")
    muscle: str | None = optional("multifidus, erector_spinae, psoas or quadratus_lumborum")
    side: str | None = optional("left or right of the patient")
    task: str | None = optional("task of a load, for example standing")
    first_reader: str = column("code of a reader; automatic: the networks")
    second_reader: str = column("code of another reader, or automatic")
    first: float | None = optional("value by the first reader's masks; null where refused or not measured")
    second: float | None = optional("value by the second reader's masks; null as first")
    unit: str = column("mm, cm2, deg or N")
    flags: str | None = optional("reason codes with which either value is flagged, joined by '+'; such pairs count")
    reason: str | None = optional("null, or the codes that say why there is no pair, joined by '+'")


@dataclass(frozen=True, kw_only=True)
class OverlapRow:
    """How the masks of one structure overlap, as a whole or on one slice; only slices that both readers looked at."""

    exam_id: str = column("exam pseudonym")
    subject_id: str | None = optional("pseudonym of the person, as in pairs")
    kind: str = column("vertebral_body, disc or muscle")
    structure: str = column("L4, L4-L5, psoas left, psoas (both sides), or all: everything of this kind")
    level: str | None = optional("name of the body or disc by the first reader; by the second where the first lacks it")
    second_level: str | None = optional("name of the same body or disc by the second reader; another one: misnamed")
    muscle: str | None = optional("multifidus, erector_spinae, psoas or quadratus_lumborum")
    side: str | None = optional("left or right of the patient")
    slice_position: float | None = optional(
        "place of the slice, 0 to 1: bodies and discs from the patient's left to the right end of the stack, muscles "
        "from the lowest to the highest axial slice; null for the structure as a whole"
    )
    first_reader: str = column("code of a reader; automatic: the networks")
    second_reader: str = column("code of another reader, or automatic")
    dice: float | None = optional("Dice coefficient, 0 to 1; null where only one reader has the structure")
    hausdorff95_mm: float | None = optional(
        "larger of the 95th percentiles of the distances from the outline of one to that of the other"
    )
    surface_mm: float | None = optional("mean of these distances, both directions together")
    n_first: int = column("voxels of the first reader")
    n_second: int = column("voxels of the second reader")
    reason: str | None = optional(
        "structure_missed, structure_extra, structure_cut_off, or another code; null where both have it"
    )


@dataclass(frozen=True, kw_only=True)
class AgreementRow:
    """Agreement of two readers on one quantity, in one group of pairs; differences are second - first."""

    quantity: str = column("as in pairs")
    unit: str = column("mm, cm2, deg or N; of everything but r, p and ICC")
    level: str | None = optional("vertebra or disc; null = all")
    muscle: str | None = optional("muscle; null = all")
    side: str | None = optional("left or right; null = both")
    task: str | None = optional("task of a load")
    first_reader: str = column("code of a reader; automatic: the networks")
    second_reader: str = column("code of another reader, or automatic")
    n: int = column("pairs")
    n_flagged: int = column("of n, pairs of which a value is flagged: they count, or hard cases would be left out")
    n_without: int = column("rows of this group without a pair, for the reasons that they carry")
    n_persons: int = column("persons that the pairs come from")
    r: float | None = optional("Pearson's correlation")
    r_p: float | None = optional("two-sided p of r = 0, pairs taken as independent")
    r_low: float | None = optional("95 % interval of r, lower end; pairs independent, as in all not _clustered")
    r_high: float | None = optional("95 % interval of r, upper end")
    r_low_clustered: float | None = optional(
        "95 % interval of r by a bootstrap of persons, lower end; so are all _clustered"
    )
    r_high_clustered: float | None = optional("the same, upper end")
    mae: float | None = optional("mean absolute difference")
    mae_low: float | None = optional("95 % interval, lower end")
    mae_high: float | None = optional("95 % interval, upper end")
    mae_low_clustered: float | None = optional("95 % interval by persons, lower end")
    mae_high_clustered: float | None = optional("95 % interval by persons, upper end")
    bias: float | None = optional("mean difference, second - first")
    bias_low: float | None = optional("95 % interval, lower end")
    bias_high: float | None = optional("95 % interval, upper end")
    bias_low_clustered: float | None = optional("95 % interval by persons, lower end")
    bias_high_clustered: float | None = optional("95 % interval by persons, upper end")
    lower_limit: float | None = optional("limit of agreement, bias - 1.96 standard deviations of the differences")
    lower_limit_low: float | None = optional("95 % interval, lower end")
    lower_limit_high: float | None = optional("95 % interval, upper end")
    lower_limit_low_clustered: float | None = optional("95 % interval by persons, lower end")
    lower_limit_high_clustered: float | None = optional("95 % interval by persons, upper end")
    upper_limit: float | None = optional("limit of agreement, bias + 1.96 standard deviations of the differences")
    upper_limit_low: float | None = optional("95 % interval, lower end")
    upper_limit_high: float | None = optional("95 % interval, upper end")
    upper_limit_low_clustered: float | None = optional("95 % interval by persons, lower end")
    upper_limit_high_clustered: float | None = optional("95 % interval by persons, upper end")
    icc: float | None = optional("intraclass correlation ICC(2,1), absolute agreement")
    icc_low: float | None = optional("95 % interval, lower end")
    icc_high: float | None = optional("95 % interval, upper end")
    icc_low_clustered: float | None = optional("95 % interval by persons, lower end")
    icc_high_clustered: float | None = optional("95 % interval by persons, upper end")
    reason: str | None = optional("codes that say why a statistic is null, joined by '+'")


@dataclass(frozen=True, kw_only=True)
class OverlapSummaryRow:
    """Mean overlap of two readers in one group of structures, or of slices at one place of the stack."""

    kind: str = column("vertebral_body, disc or muscle")
    structure: str | None = optional("all: everything of the kind as one mask; null: mean over structures or slices")
    level: str | None = optional("body or disc; null = all")
    muscle: str | None = optional("muscle; null = all")
    side: str | None = optional("left or right; null = both")
    slice_bin: int | None = optional("tenth of the way through the stack, 0 to 9; null = volumetric")
    first_reader: str = column("code of a reader; automatic: the networks")
    second_reader: str = column("code of another reader, or automatic")
    n: int = column("structures, or slices of structures, that both readers have")
    n_persons: int = column("persons that they come from")
    n_missed: int = column("structures of the first reader that the second lacks")
    n_extra: int = column("structures of the second reader that the first lacks")
    n_misnamed: int = column("of n, bodies or discs that the readers name differently")
    mean: float | None = optional("mean Dice coefficient")
    low: float | None = optional("95 % interval, lower end; structures taken as independent")
    high: float | None = optional("95 % interval, upper end")
    low_clustered: float | None = optional("95 % interval by a bootstrap of persons, lower end")
    high_clustered: float | None = optional("the same, upper end")
    hausdorff95_mm: float | None = optional("mean of the 95th percentile Hausdorff distances")
    hausdorff95_mm_low: float | None = optional("95 % interval, lower end")
    hausdorff95_mm_high: float | None = optional("95 % interval, upper end")
    hausdorff95_mm_low_clustered: float | None = optional("95 % interval by persons, lower end")
    hausdorff95_mm_high_clustered: float | None = optional("95 % interval by persons, upper end")
    surface_mm: float | None = optional("mean of the mean surface distances")
    surface_mm_low: float | None = optional("95 % interval, lower end")
    surface_mm_high: float | None = optional("95 % interval, upper end")
    surface_mm_low_clustered: float | None = optional("95 % interval by persons, lower end")
    surface_mm_high_clustered: float | None = optional("95 % interval by persons, upper end")
    reason: str | None = optional("codes that say why a figure is null, joined by '+'")


AGREEMENT_TABLES: Final[dict[str, type]] = {
    "pairs": PairRow,
    "overlaps": OverlapRow,
    "agreement": AgreementRow,
    "overlap_summary": OverlapSummaryRow,
}
"""Table name -> row class."""


def agreement_table(name: str, rows: Sequence[Any]) -> pa.Table:
    """Rows of one of `AGREEMENT_TABLES` as an Arrow table, checked as those of a store are (no NaN); `ValueError`
    where they do not fit."""
    return as_table(name, AGREEMENT_TABLES[name], rows)
