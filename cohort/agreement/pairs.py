"""What two readers' masks of one exam measure, side by side: structures are paired by place, names do not matter.

A value that its measurement refused is not there; one that is flagged is, but with the flags as the reason why the two
are no pair.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cohort.agreement.rows import PairRow, Readers
from cohort.agreement.structures import Match, Structures
from cohort.anatomy.measure import Measurements
from cohort.rows import CurvatureRow, DiscRow, LoadRow, MuscleLevelRow, VertebraRow

CONVENTION: Final = "vertebra_mean"
"""Of the loads that are paired: that of the paper."""
SPINE: Final = "spine"
"""Structure of curvature."""
_CURVATURE: Final = {
    "lordosis_l1_s1_deg": "deg",
    "lordosis_l1_l5_deg": "deg",
    "lordosis_centroid_deg": "deg",
    "sacral_slope_deg": "deg",
    "coronal_deviation_mm": "mm",
}
"""Column of `CurvatureRow`, and quantity -> unit."""
_LOADS: Final = {"compression_n": "axial_n", "shear_n": "shear_ap_n"}
"""Quantity -> column of `LoadRow`."""

Placed = VertebraRow | DiscRow | MuscleLevelRow | None
Row = Placed | CurvatureRow | LoadRow
Loads = Sequence[LoadRow] | str
"""Loads of an exam, or the reason why it has none."""
Place = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Matched:
    """Structures of one label array of both readers."""

    first: Structures
    second: Structures
    match: Match

    @property
    def misnamed(self) -> bool:
        """Whether a structure that both have has two names by its place above the sacrum, which measurements go by."""
        names = [(self.first.rows[i].level, self.second.rows[j].level) for i, j in self.match.both]
        return any(one is not None and other is not None and one != other for one, other in names)


def spine_pairs(
    first: Measurements, second: Measurements, bodies: Matched, discs: Matched, who: Readers
) -> list[PairRow]:
    """Pairs of discs, of centroids of bodies and discs, and of curvature.

    Parameters
    ----------
    bodies, discs : of the `vertebrae` and of the `discs` of both
    """
    found: list[PairRow] = []
    for one, other, named in _places("body", first.vertebrae, second.vertebrae, bodies):
        found.append(_distance("vertebra_centroid_distance_mm", one, other, **named, **who))
    for one, other, named in _places("disc", first.discs, second.discs, discs):
        found.append(_pair("disc_height_mm", "mm", "height_mm", one, other, **named, **who))
        found.append(_distance("disc_centroid_distance_mm", one, other, **named, **who))
    blocked = "levels_differ" if bodies.misnamed else None
    for column, unit in _CURVATURE.items() if first.curvature or second.curvature else ():
        rows = (first.curvature, second.curvature)
        found.append(_pair(column, unit, column, *rows, blocked=blocked, structure=SPINE, **who))
    return found


def _places(
    kind: str, first: Sequence[Any], second: Sequence[Any], matched: Matched
) -> Iterator[tuple[Any, Any, dict[str, Any]]]:
    """Rows of the two readers, None where one lacks the structure, with its name."""
    match = matched.match
    for i, j in (*match.both, *((i, None) for i in match.missed), *((None, j) for j in match.extra)):
        level = (None if i is None else matched.first.names[i]) or (None if j is None else matched.second.names[j])
        rows = (None if i is None else first[i], None if j is None else second[j])
        ordinal = next(row.ordinal for row in rows if row is not None)
        yield *rows, {"structure": level or f"{kind} {ordinal}", "level": level}


def muscle_pairs(first: Measurements, second: Measurements, discs: Matched, who: Readers) -> list[PairRow]:
    """Pairs of muscle areas and centroids at every disc that both readers have; each is read on the slice that is
    nearest to the disc in that reader's masks. Areas are those corrected for the angle of the slice."""
    ours, theirs = _by_disc(first), _by_disc(second)
    found: list[PairRow] = []
    for i, j in discs.match.both:
        here, there = ours.get(_plane(first.discs[i]), {}), theirs.get(_plane(second.discs[j]), {})
        level = discs.first.names[i] or discs.second.names[j]
        for muscle, side in dict.fromkeys((*here, *there)):
            rows = (here.get((muscle, side)), there.get((muscle, side)))
            place = level or f"disc {first.discs[i].ordinal}"
            named: dict[str, Any] = {
                "structure": f"{muscle} {side} {place}",
                "level": level,
                "muscle": muscle,
                "side": side,
            }
            found.append(_pair("csa_cm2", "cm2", "csa_corrected_cm2", *rows, **named, **who))
            found.append(_distance("muscle_centroid_distance_mm", *rows, **named, **who))
    return found


def _by_disc(found: Measurements) -> dict[str, dict[tuple[str, str], MuscleLevelRow]]:
    rows: dict[str, dict[tuple[str, str], MuscleLevelRow]] = {}
    for row in found.muscle_levels:
        rows.setdefault(row.level, {})[row.muscle, row.side] = row
    return rows


def _plane(disc: DiscRow) -> str:
    """What `muscle_levels` call a disc."""
    return disc.level or f"disc-{disc.ordinal}"


def load_pairs(first: Loads, second: Loads, *, misnamed: bool, who: Readers) -> list[PairRow]:
    """Pairs of loads of L1 to L5 in every task, in the convention `CONVENTION`.

    Parameters
    ----------
    first, second : rows of the batch engine, or a reason; with two reasons there is one row, for the exam
    misnamed : whether the readers name a vertebra differently: loads of one name are then those of two vertebrae
    """
    if isinstance(first, str) and isinstance(second, str):
        reason = "+".join(dict.fromkeys((first, second)))
        return [PairRow(quantity="compression_n", structure=SPINE, unit="N", reason=reason, **who)]
    ours, theirs = _by_task(first), _by_task(second)
    why = next((one for one in (first, second) if isinstance(one, str)), "levels_differ" if misnamed else None)
    return [
        _pair(quantity, "N", column, ours.get(key), theirs.get(key), blocked=why, structure=key[1], level=key[1],
              task=key[0], **who)
        for key in dict.fromkeys((*ours, *theirs))
        for quantity, column in _LOADS.items()
    ]  # fmt: skip


def _by_task(loads: Loads) -> Mapping[tuple[str, str], LoadRow]:
    if isinstance(loads, str):
        return {}
    return {(row.task, row.level): row for row in loads if (row.engine, row.convention) == ("batch", CONVENTION)}


def _pair(
    quantity: str, unit: str, column: str, first: Row, second: Row, *, blocked: str | None = None, **named: Any
) -> PairRow:
    """One quantity of two rows; a row that is refused, or a value that is missing, makes no pair."""
    values = tuple(_value(row, column) for row in (first, second))
    return PairRow(
        quantity=quantity,
        unit=unit,
        first=values[0],
        second=values[1],
        reason=_reason(first, second, values, blocked),
        **named,
    )


def _value(row: Row, column: str) -> float | None:
    return None if row is None or row.status == "refused" else getattr(row, column)


def _distance(quantity: str, first: Placed, second: Placed, **named: Any) -> PairRow:
    """How far the centroids of two rows lie from each other: the first reader's is at 0."""
    here, there = _place(first), _place(second)
    values = (0.0, math.dist(here, there)) if here and there else (None, None)
    return PairRow(
        quantity=quantity,
        unit="mm",
        first=values[0],
        second=values[1],
        reason=_reason(first, second, values, None),
        **named,
    )


def _place(row: Placed) -> Place | None:
    return None if row is None or row.status == "refused" else (row.x_mm, row.y_mm, row.z_mm)


def _reason(first: Row, second: Row, values: tuple[float | None, ...], blocked: str | None) -> str | None:
    """Why two values are no pair: what is missing, then the reasons of rows that are flagged or refused."""
    codes = [blocked] if blocked else []
    if isinstance(first or second, VertebraRow | DiscRow) and (first is None or second is None):
        codes.append("structure_extra" if first is None else "structure_missed")
    doubts = [row.reasons for row in (first, second) if row is not None and row.status != "ok" and row.reasons]
    codes += [code for reasons in doubts for code in reasons.split("+")]
    if not codes and None in values:
        codes.append("not_measured")
    return "+".join(dict.fromkeys(codes)) or None
