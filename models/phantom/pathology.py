"""What is wrong with a subject's column: which findings at which levels, decided before the column is built.

Prevalences are working values, higher than in any population: rare findings have to be seen often to be learnt.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from cohort.errors import ConfigurationError

Place = Literal["column", "body", "disc"]


@dataclass(frozen=True)
class Finding:
    """One finding of one subject."""

    kind: str
    """A key of `KINDS`."""
    level: str
    """Name of the body or disc; "" for the whole column."""
    size: float
    """In the unit of its kind."""


@dataclass(frozen=True)
class Kind:
    """Where a kind of finding sits and how large it gets."""

    place: Place
    low: float
    high: float
    unit: str
    reach: tuple[int, int] = (0, 9)
    """Levels that can have it, counted from the lowest mobile body or disc: first, last + 1."""


KINDS: Final[dict[str, Kind]] = {
    "narrow_disc": Kind("disc", 0.35, 0.75, "gap over its healthy height", (0, 7)),
    "collapsed_disc": Kind("disc", 1.5, 2.5, "gap, mm", (0, 5)),
    "schmorl_node": Kind("body", 3.0, 6.5, "depth, mm", (0, 8)),
    "haemangioma": Kind("body", 4.0, 11.0, "radius, mm", (0, 8)),
    "modic_change": Kind("disc", 1.0, 4.0, "type, rounded down", (0, 5)),
    "osteophytes": Kind("disc", 2.5, 6.5, "anterior overhang, mm", (0, 8)),
    "scoliosis": Kind("column", 10.0, 40.0, "Cobb angle, degrees"),
    "spondylolisthesis": Kind("disc", 0.10, 0.50, "anterior slip over depth", (0, 3)),
    "wedge_fracture": Kind("body", 0.35, 0.80, "anterior over posterior height", (0, 8)),
    "biconcave_fracture": Kind("body", 0.35, 0.80, "middle over posterior height", (0, 8)),
    "crush_fracture": Kind("body", 0.35, 0.80, "height over healthy height", (0, 8)),
    "block_vertebra": Kind("disc", 0.0, 1.0, "0-0.5 remnant line, 0.5-1 none", (0, 7)),
    "sacralised_l5": Kind("disc", 2.5, 4.5, "gap, mm", (0, 1)),
    "lumbarised_s1": Kind("column", 5.0, 8.5, "S1/S2 gap, mm"),
    "replaced_body": Kind("body", 0.6, 1.0, "share of the body", (0, 8)),
    "irradiated_marrow": Kind("column", 0.0, 3.0, "mobile bodies in the field, rounded down"),
    "metal": Kind("disc", 4.0, 9.0, "radius of the void around a screw, mm", (0, 5)),
}
"""Every finding that can be asked for by name."""

FRACTURES: Final = ("wedge_fracture", "biconcave_fracture", "crush_fracture")
_REBUILT_DISC: Final = ("narrow_disc", "collapsed_disc", "block_vertebra", "sacralised_l5")


def disc_names(mobile: Collection[str]) -> list[str]:
    """Names of the discs below each mobile body, from the sacrum up ("L5-S1", "L4-L5", ...)."""
    names = list(mobile)
    return [f"{name}-{below}" for name, below in zip(names, ["S1", *names], strict=False)]


def check_kinds(wanted: Collection[str], *, healthy: bool) -> None:
    """Raise `ConfigurationError` for a kind that does not exist or a healthy subject with findings."""
    unknown = sorted(set(wanted) - set(KINDS))
    if unknown:
        raise ConfigurationError(f"no such finding: {', '.join(unknown)}; known: {', '.join(KINDS)}")
    if healthy and wanted:
        raise ConfigurationError("a healthy subject has no findings")


def place_findings(rng: np.random.Generator, mobile: list[str], wanted: Collection[str]) -> tuple[Finding, ...]:
    """One finding of each wanted kind, at a random level that it can have, no two that exclude each other together."""
    found: list[Finding] = []
    # those with the fewest possible levels choose first
    for kind in sorted(wanted, key=lambda kind: (KINDS[kind].reach[1] - KINDS[kind].reach[0], kind)):
        _add(rng, mobile, found, kind)
    return tuple(found)


def draw_findings(rng: np.random.Generator, mobile: list[str]) -> tuple[Finding, ...]:
    """Findings of a subject as they come: discs wear together, fractures come in groups."""
    found: list[Finding] = []
    discs, wear = disc_names(mobile), rng.random()
    for k, name in enumerate(discs):
        if rng.random() < (0.45 if k < 5 else 0.15) * wear:
            _add(rng, mobile, found, "collapsed_disc" if k < 5 and rng.random() < 0.25 else "narrow_disc", name)
            if k < 5 and rng.random() < 0.28:
                _add(rng, mobile, found, "modic_change", name)
        if rng.random() < (0.1 + 0.5 * wear) * 0.5:
            _add(rng, mobile, found, "osteophytes", name)
    for kind, share, most in (("schmorl_node", 0.30, 4), ("haemangioma", 0.30, 3), ("replaced_body", 0.05, 3)):
        for _ in range(int(rng.integers(1, most + 1)) if rng.random() < share else 0):
            _add(rng, mobile, found, kind)
    osteoporotic = rng.random() < 0.09
    for _ in range(int(rng.integers(2, 5)) if osteoporotic else int(rng.random() < 0.12)):
        _add(rng, mobile, found, str(rng.choice(FRACTURES, p=[0.5, 0.3, 0.2])))
    for kind, share in _SHARES.items():
        if rng.random() < share:
            _add(rng, mobile, found, kind)
    return tuple(found)


_SHARES: Final = {
    "spondylolisthesis": 0.10,
    "scoliosis": 0.08,
    "block_vertebra": 0.03,
    "sacralised_l5": 0.05,
    "lumbarised_s1": 0.05,
    "irradiated_marrow": 0.03,
    "metal": 0.025,
}


def _add(rng: np.random.Generator, mobile: list[str], found: list[Finding], kind: str, level: str = "") -> None:
    """Add a finding, at a free level if none is named; nothing where every level is taken."""
    rule = KINDS[kind]
    size = float(rng.uniform(rule.low, rule.high))
    if rule.place == "column":
        found.append(Finding(kind, "", size))
        return
    names = mobile if rule.place == "body" else disc_names(mobile)
    taken = {finding.level for finding in found if _excludes(finding.kind, kind)}
    free = [name for name in names[slice(*rule.reach)] if name not in taken and level in ("", name)]
    if free:
        found.append(Finding(kind, str(rng.choice(free)), size))


def _excludes(one: str, other: str) -> bool:
    """Can two findings not share a level."""
    if "block_vertebra" in (one, other) and KINDS[one].place == KINDS[other].place == "disc":
        return True
    return one == other or any(one in group and other in group for group in (FRACTURES, _REBUILT_DISC))
