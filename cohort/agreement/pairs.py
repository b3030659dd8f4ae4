"""What two readers' masks of one exam measure, side by side: structures are paired by place, names do not matter.

A value that its measurement refused is not there, and the two are no pair. A value that is flagged is there and counts,
with its flags beside it: flags are raised where measuring is hard, and without the hard cases agreement would look
better than it is.
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


def load_pairs(first: Loads, second: Loads, *, tasks: Sequence[str], misnamed: bool, who: Readers) -> list[PairRow]:
    """Pairs of loads of L1 to L5 in every task, in the convention `CONVENTION`.

    Parameters
    ----------
    first, second : rows of the batch engine, or a reason; with two reasons there is one row for each of the `tasks`
    misnamed : whether the readers name a vertebra differently: loads of one name are then those of two vertebrae
    """
    if isinstance(first, str) and isinstance(second, str):
        reason = "+".join(dict.fromkeys((first, second)))
        return [
            PairRow(quantity="compression_n", structure=SPINE, unit="N", task=task, reason=reason, **who)
            for task in tasks
        ]
    ours, theirs = _by_task(first), _by_task(second)
    why = next((one for one in (first, second) if isinstance(one, str)), "levels_differ" if misnamed else None)
    return [
        _pair("compression_n", "N", "axial_n", ours.get((task, level)), theirs.get((task, level)), blocked=why,
              structure=level, level=level, task=task, **who)
        for task, level in dict.fromkeys((*ours, *theirs))
    ]  # fmt: skip


def _by_task(loads: Loads) -> Mapping[tuple[str, str], LoadRow]:
    if isinstance(loads, str):
        return {}
    return {(row.task, row.level): row for row in loads if (row.engine, row.convention) == ("batch", CONVENTION)}


def _pair(
    quantity: str, unit: str, column: str, first: Row, second: Row, *, blocked: str | None = None, **named: Any
) -> PairRow:
    """One quantity of two rows; a row that is refused, or a value that is missing, makes no pair.

    Parameters
    ----------
    blocked : why the two are not compared, whatever they are
    """
    values = (_value(first, column), _value(second, column))
    return _row(first, second, values, blocked, quantity=quantity, unit=unit, **named)


def _value(row: Row, column: str) -> float | None:
    return None if row is None or row.status == "refused" else getattr(row, column)


def _distance(quantity: str, first: Placed, second: Placed, **named: Any) -> PairRow:
    """How far the centroids of two rows lie from each other: the first reader's is at 0."""
    here, there = _place(first), _place(second)
    values = (0.0, math.dist(here, there)) if here and there else (None, None)
    return _row(first, second, values, None, quantity=quantity, unit="mm", **named)


def _place(row: Placed) -> Place | None:
    return None if row is None or row.status == "refused" else (row.x_mm, row.y_mm, row.z_mm)


def _row(
    first: Row, second: Row, values: tuple[float | None, float | None], blocked: str | None, **named: Any
) -> PairRow:
    doubts = [row.reasons for row in (first, second) if row is not None and row.status != "ok" and row.reasons]
    codes = "+".join(dict.fromkeys(code for reasons in doubts for code in reasons.split("+"))) or None
    if blocked is None and None not in values:
        return PairRow(first=values[0], second=values[1], flags=codes, **named)
    return PairRow(first=values[0], second=values[1], reason=blocked or _missing(first, second, codes), **named)


def _missing(first: Row, second: Row, codes: str | None) -> str:
    """Why one of two values is not there."""
    if isinstance(first or second, VertebraRow | DiscRow) and (first is None or second is None):
        return "structure_extra" if first is None else "structure_missed"
    return codes or "not_measured"
