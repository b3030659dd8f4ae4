"""Limits of plausible anatomy, and flags: every limit in one table, every flag with its value and the limit it
passed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, TypeVar

import numpy as np

from cohort.anatomy.instances import Changes
from cohort.reasons import REASONS
from cohort.rows import CurvatureRow, DiscRow, MuscleLevelRow, MuscleRow, QualityRow, VertebraRow
from cohort.terms import LUMBAR_VERTEBRAE


@dataclass(frozen=True)
class Limit:
    """Range of a measured number; outside `expected` it is flagged, outside `possible` it is refused."""

    reason: str
    expected: tuple[float, float]
    possible: tuple[float, float]
    source: str


LIMITS: Final[dict[str, Limit]] = {
    "disc_height_mm": Limit(
        "implausible_disc_height",
        (2.5, 17.0),
        (0.8, 25.0),
        "lumbar disc masks 6.7-9.2 +- 1.3 mm (Menezes-Reis 2016, n = 49), anterior gap to 13.2 +- 2.1 mm (Chu 2015); "
        "degeneration to 0.3 of that",
    ),
    "disc_width_mm": Limit(
        "implausible_disc_height", (18.0, 48.0), (8.0, 65.0), "AP depth 31-34 +- 3.3 mm (Menezes-Reis 2016, n = 49)"
    ),
    "disc_readings_mm": Limit(
        "disc_readings_differ",
        (0.0, 1.5),
        (0.0, 99.0),
        "passed by 1.3 % of 229 discs with human masks (SPIDER); 1.45 mm is the published error (Hess 2023)",
    ),
    "body_height_mm": Limit(
        "implausible_body_size",
        (15.0, 40.0),
        (6.0, 55.0),
        "T11-L5 23-31 +- 2.5 mm (Chu 2015, n = 17; MyoSegmenTUM, n = 53); compression fractures lose up to half",
    ),
    "body_depth_mm": Limit(
        "implausible_body_size", (20.0, 47.0), (12.0, 65.0), "30-35 mm, SD 2-3.5 (Chu 2015; MyoSegmenTUM); men to 42"
    ),
    "body_wedge_deg": Limit("implausible_body_size", (-22.0, 25.0), (-45.0, 45.0), "-5 to 10 +- 5 degrees (ibid.)"),
    "compression_ratio": Limit(
        "compression_suspected",
        (0.8, 99.0),
        (0.0, 99.0),
        "grade 1, the mildest deformity, is a loss of 20-25 % of the height (Genant 1993)",
    ),
    "segmental_deg": Limit(
        "implausible_angle",
        (-30.0, 45.0),
        (-180.0, 180.0),
        "-24 to 37 degrees on exact masks of 666 segments of phantoms, fractures and slips among them; widened. Own.",
    ),
    "lordosis_deg": Limit(
        "implausible_angle",
        (5.0, 95.0),
        (-45.0, 140.0),
        "L1-S1 supine 46, 20-81 degrees (n = 141, Hindawi 351769), T12-S1 37 +- 13 (n = 627); widened. A lordosis that "
        "bends forward by more than the possible is a picture whose front is taken for its back.",
    ),
    "sacral_slope_deg": Limit(
        "implausible_angle",
        (8.0, 75.0),
        (-30.0, 110.0),
        "supine 44.5 +- 9.9, 18-71 degrees (n = 274); widened",
    ),
    "lordosis_readings_deg": Limit(
        "lordosis_conflict",
        (-20.0, 25.0),
        (-50.0, 55.0),
        "endplates less centroids: 5 +- 5, -18 to 14 degrees on exact masks of 94 phantoms with slips and fractures",
    ),
    "body_spacing_mm": Limit(
        "implausible_spacing", (20.0, 48.0), (12.0, 90.0), "body 23-31 mm and disc gap 6-10 mm make 29-41 mm (Chu 2015)"
    ),
    "multifidus_cm2": Limit(
        "implausible_csa", (0.8, 18.0), (0.2, 30.0), "one side 2.6-10.8 cm2 L2-L5 (MyoSegmenTUM), seated women 1.8-5.7"
    ),
    "erector_spinae_cm2": Limit(
        "implausible_csa", (1.0, 36.0), (0.2, 60.0), "one side 2-23 cm2 L2-L5 (MyoSegmenTUM), group 21-23 +- 6 cm2"
    ),
    "psoas_cm2": Limit(
        "implausible_csa", (0.5, 32.0), (0.2, 50.0), "4.2 +- 2 (L1/2) to 17.6 +- 5 cm2 (L4/5), controls, n = 30"
    ),
    "quadratus_lumborum_cm2": Limit(
        "implausible_csa", (0.4, 15.0), (0.1, 25.0), "3.4 +- 1.5 to 6.8 +- 2.8 cm2, controls, n = 30"
    ),
    "side_asymmetry": Limit(
        "side_asymmetry",
        (0.0, 0.5),
        (0.0, 2.1),
        "|left - right| / mean. Own choice, not fitted to data.",
    ),
    "slice_angle_deg": Limit(
        "oblique_slice",
        (0.0, 20.0),
        (0.0, 60.0),
        "cos(20 degrees) changes the area by 6 %, less than the scatter between readers. Own choice.",
    ),
    "body_size_ratio": Limit(
        "size_jump",
        (0.65, 1.55),
        (0.0, np.inf),
        "volume over the mean of its neighbours'; L1 to L5 differ from one to the next by 0.86-1.11 on average "
        "(MyoSegmenTUM, n = 53). Working value: masks doubled or halved pass it, 99 % of phantom bodies do not.",
    ),
    "disc_size_ratio": Limit(
        "size_jump",
        (0.65, 1.55),
        (0.0, np.inf),
        "volume / mean height (the footprint, which a narrow disc keeps) over the mean of its neighbours'; depths "
        "31-34 +- 3.3 mm (Menezes-Reis 2016, n = 49). Working value.",
    ),
    "disc_height_ratio": Limit(
        "size_jump",
        (0.0, 1.8),
        (0.0, np.inf),
        "height over that of the higher neighbour; discs lose height, they do not gain it, and healthy neighbours "
        "differ by 0.8-1.2 on average (Menezes-Reis 2016). Working value.",
    ),
    "muscle_slice_ratio": Limit(
        "size_jump",
        (0.57, 1.7),
        (0.0, np.inf),
        "area over the mean of the slices before and behind. Working value: of 2500 true areas of phantom muscles 98 % "
        "lie within 0.8-1.25 and none beyond the limits.",
    ),
    "midline_mm": Limit(
        "midlines_disagree",
        (0.0, 8.0),
        (0.0, np.inf),
        "distance of the bodies from the middle of the muscles; below 3 mm in phantoms, scoliosis included. Own.",
    ),
    "body_disc_contrast": Limit(
        "low_contrast",
        (1.0, np.inf),
        (0.0, np.inf),
        "difference of the medians over the spread in the masks: at 1 a third of the pixels look like the other "
        "structure. Own choice.",
    ),
    "fat_separability": Limit(
        "low_contrast",
        (0.72, 1.0),
        (0.0, 1.0),
        "Otsu's share of variance between muscle and fat; one normal distribution cut in two gives 2 / pi = 0.64",
    ),
    "ghost_share": Limit(
        "ghosting",
        (0.0, 0.025),
        (0.0, np.inf),
        "signal of a copy in air over that of the body; 2.5 % is the limit of the percent-signal ghosting test of the "
        "ACR Large Phantom guidance, there between regions of a phantom",
    ),
    "uncertainty_bit": Limit(
        "network_uncertain", (0.0, 0.5), (0.0, 1.1), "half of the largest binary entropy. Own choice, not validated."
    ),
    "removed_share": Limit(
        "components_removed", (0.0, 0.1), (0.0, 1.1), "share of the network's voxels that post-processing removed. Own."
    ),
}

VOLUME_ONLY: Final = frozenset({"outermost_slice", "slices_missing"})
"""Reasons that concern only the volume of a structure: listed with it, but its row keeps status ok."""

FIELD_OF_VIEW: Final = frozenset(
    {
        "outermost_slice",
        "slices_missing",
        "touches_border",
        "oblique_slice",
        "no_slice_at_level",
        "muscle_missing",
        "muscle_gap",
        "side_asymmetry",
    }
)
"""Reasons that belong to single rows: they say how the scan was planned, and do not flag the exam as a whole."""


POST_PROCESSED: Final = {
    "pieces_removed": "pieces_removed",
    "pieces_joined": "pieces_joined",
    "pieces_separated": "pieces_separated",
    "bridge_voxels": "bridges_removed",
    "crack_voxels": "cracks_filled",
}
"""Counts of `cohort.anatomy.instances.Changes` -> reasons that tell them, and flag nothing."""
INFORMATION: Final = frozenset({*POST_PROCESSED.values(), "holes_filled"})


@dataclass(frozen=True)
class Flag:
    """One doubt about one structure."""

    reason: str
    structure: str | None = None
    value: float | None = None
    limit: float | None = None
    refused: bool = False

    def __post_init__(self) -> None:
        if self.reason not in REASONS:
            raise KeyError(f"reason code {self.reason!r} is not declared in cohort/reasons.py")


def check(name: str, value: float | None, structure: str | None) -> list[Flag]:
    """Compare a number with `LIMITS[name]`; not measured gives no flag."""
    if value is None:
        return []
    limit = LIMITS[name]
    low, high = limit.expected
    if low <= value <= high:
        return []
    refused = not limit.possible[0] <= value <= limit.possible[1]
    passed = (limit.possible if refused else limit.expected)[int(value > high)]
    return [Flag(limit.reason, structure, value, passed, refused)]


def area_flags(muscle: str, csa_cm2: float | None, structure: str, *, small: bool) -> list[Flag]:
    """Flags of a muscle's area; too small a one only where `small`, for all begin and end somewhere."""
    largest = LIMITS[f"{muscle}_cm2"].expected[1]
    return [flag for flag in check(f"{muscle}_cm2", csa_cm2, structure) if small or (flag.value or 0.0) > largest]


def missing_slices(seen: int, expected: int, structure: str) -> list[Flag]:
    """Flag of a structure that lacks slices between its first and its last."""
    return [Flag("slices_missing", structure, float(seen), float(expected))] if seen < expected else []


def row_status(flags: Iterable[Flag]) -> tuple[str, str | None]:
    """Status of a row and its reason codes joined by '+'."""
    listed = list(flags)
    reasons = "+".join(dict.fromkeys(flag.reason for flag in listed)) or None
    if any(flag.refused for flag in listed):
        return "refused", reasons
    return ("flagged" if any(flag.reason not in VOLUME_ONLY for flag in listed) else "ok"), reasons


STATUSES: Final = ("ok", "flagged", "refused")
"""Of a row, from best to worst."""

Row = TypeVar("Row", VertebraRow, DiscRow, MuscleRow, MuscleLevelRow, CurvatureRow)


def withheld(row: Row) -> Row:
    """A refused row without its measurements: the refused value stands in `quality`, where nobody averages it."""
    if row.status != "refused":
        return row
    empty: dict[str, Any] = {f.name: None for f in fields(row) if f.type == "float | None"}
    return replace(row, **empty)


def marked(row: Row, flags: Iterable[Flag]) -> Row:
    """The row with further flags: their reasons behind its own, and the worse status."""
    status, reasons = row_status(flags)
    listed = [one for joined in (row.reasons, reasons) if joined for one in joined.split("+")]
    worse = max(row.status, status, key=STATUSES.index)
    return replace(row, status=worse, reasons="+".join(dict.fromkeys(listed)) or None)


def uncertainty_flags(uncertainty: Mapping[str, float]) -> list[Flag]:
    """Flags of structure classes in whose masks the network was unsure."""
    return [flag for name, entropy in uncertainty.items() for flag in check("uncertainty_bit", entropy, name)]


def change_flags(changes: Changes, holes: int, structure: str) -> list[Flag]:
    """What post-processing changed in the masks of a structure class, each count that is not 0."""
    counts = {reason: getattr(changes, name) for name, reason in POST_PROCESSED.items()} | {"holes_filled": holes}
    return [Flag(reason, structure, float(count)) for reason, count in counts.items() if count]


def exam_status(flags: Iterable[Flag]) -> tuple[str, str | None]:
    """Status of the measured exam and the reason that explains it: first flags of the exam, then of lumbar
    structures."""
    told = FIELD_OF_VIEW | INFORMATION
    serious = [flag for flag in flags if flag.reason not in told and _lumbar_or_whole(flag.structure)]
    if not serious:
        return "ok", None
    first = min(serious, key=lambda flag: flag.structure is not None)
    return "flagged", first.reason


def quality_rows(exam_id: str, flags: Iterable[Flag]) -> tuple[QualityRow, ...]:
    """Rows of the quality table, each flag once."""
    return tuple(
        QualityRow(
            exam_id=exam_id,
            stage="measure",
            reason=flag.reason,
            structure=flag.structure,
            value=flag.value,
            limit=flag.limit,
        )
        for flag in dict.fromkeys(flags)
    )


def _lumbar_or_whole(structure: str | None) -> bool:
    """False for thoracic vertebrae and the discs between them, which no result of the lumbar spine rests on."""
    if structure is None or not structure.startswith("T"):
        return True
    return any(name in structure for name in LUMBAR_VERTEBRAE)
