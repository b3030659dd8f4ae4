"""Which of many pieces are the vertebrae: those that make the best chain up the spine.

A vertebra continues the chain of its neighbours at a plausible distance and direction and has a plausible size; what
lies before or below the sacrum (bowel, uterus) or beside the spine does not. Every piece gains by its size, every link
costs by what is unusual about it, and the chain of the largest sum is taken (dynamic programming over pairs). Gains and
costs are working values, set on phantoms and looked at on real scans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from cohort.anatomy.instances import Piece
from cohort.geometry import Floats

WHOLE_BODY_CM2 = 8.0
"""Mid-sagittal section of T11-L5: 7.6-9.4 +- 0.9 cm2 (Chu et al. 2015, n = 17); larger gains no more."""
GAP_MM = (-6.0, 20.0)
"""Room for a disc between the faces of two neighbours at no cost: 6-13 mm (Chu et al. 2015); a fractured or cut body
has its centre elsewhere."""
MAX_GAP_MM = 80.0
"""Two bodies missing between two that were found."""
GAP_COST_PER_MM = 0.015
OVERLAP_MM = -10.0
"""Faces of different vertebrae do not overlap further."""
TURN_DEG = 6.0
"""Usual turn of the line of centres from one vertebra to the next upward, backward positive: a lordosis of 50 degrees
over five lumbar levels turns by 10, the thoracolumbar spine by less than 0."""
PROMONTORY_TURN_DEG = 20.0
"""The same above a piece called sacral: the lumbosacral angle is 44 +- 10, 18-71 degrees."""
TURN_SCALE_DEG = 25.0
DISCS_TURN_SHARE = 0.5
"""Of the cost of a turn where discs on both sides of the body say who its neighbours are: a wedge fracture of L5 turns
the other way than the promontory."""
MAX_TURN_OFF_DEG = 60.0
"""Sacral promontory and slip of spondylolisthesis make 30-40 degrees."""
DISC_GAIN = 0.3
DISC_ROOM_MM = 30.0
"""Further apart, a disc between two pieces does not make them neighbours."""
DISC_MISSING_COST = 0.3
"""A lowest piece called vertebral body, without a disc above it where discs were found at all."""
DISC_OFF_MM = 14.0
BELOW_SACRUM_COST = 0.8
"""A piece called vertebral body below one called sacral: bowel, uterus, or a class mistaken; a whole body with a disc
above it stays, so that the contradiction is seen."""
LATERAL_MM = 25.0
"""Scale of the cost of a step to the side: 5-10 mm from vertebra to vertebra in a scoliosis."""


@dataclass(frozen=True)
class Link:
    """Step from a piece to the next one above it."""

    gain: float
    lowest_cost: float
    """Of this step where the lower piece is the lowest of the chain."""
    below_sacrum_cost: float
    """Of this step unless the lower piece itself stands on a sacral one."""
    lean_deg: float
    """Direction in the sagittal plane, backward positive."""
    from_sacrum: bool
    """The lower piece was called sacral, the upper was not."""
    disc: bool
    """A disc lies between them."""


def spine_chain(bodies: Sequence[Piece], discs: Sequence[Piece]) -> list[Piece]:
    """The bodies that make the spine, from caudal to cranial.

    Parameters
    ----------
    bodies : candidates
    discs : pieces of the disc mask, right or wrong: evidence that two bodies are neighbours
    """
    if not bodies:
        return []
    upward = sorted(bodies, key=lambda piece: piece.arc_mm)
    gain = [min(piece.area_cm2 / WHOLE_BODY_CM2, 1.0) for piece in upward]
    links = _links(upward, discs)
    # best[i, j]: sum and predecessor of the best chain that ends with the step from i to j; i = -1 starts there
    best: dict[tuple[int, int], tuple[float, int | None]] = {(-1, i): (gain[i], None) for i in range(len(upward))}
    for (i, j), link in sorted(links.items(), key=lambda item: item[0][::-1]):
        sums = [(best[before, i][0] - _step_cost(links.get((before, i)), link), before) for before in range(-1, i)
                if (before, i) in best]  # fmt: skip
        total, before = max(sums)
        best[i, j] = (total + link.gain + gain[j], before)
    return _followed(upward, best)


def _followed(upward: Sequence[Piece], best: dict[tuple[int, int], tuple[float, int | None]]) -> list[Piece]:
    step = max(best, key=lambda pair: best[pair][0])
    chain = []
    while True:
        chain.append(upward[step[1]])
        before = best[step][1]
        if step[0] < 0 or before is None:
            return chain[::-1]
        step = (before, step[0])


def _links(upward: Sequence[Piece], discs: Sequence[Piece]) -> dict[tuple[int, int], Link]:
    pairs = [(i, j) for j in range(len(upward)) for i in range(j)]
    found = {(i, j): _link(upward[i], upward[j], discs) for i, j in pairs}
    return {pair: link for pair, link in found.items() if link is not None}


def _link(lower: Piece, upper: Piece, discs: Sequence[Piece]) -> Link | None:
    step = np.subtract(upper.centroid_mm, lower.centroid_mm)
    length = float(np.hypot(step[1], step[2]))
    gap = length - (lower.extent_mm + upper.extent_mm) / 2
    if step[2] <= 0 or not OVERLAP_MM <= gap <= MAX_GAP_MM:
        return None
    unusual = max(GAP_MM[0] - gap, gap - GAP_MM[1], 0.0)
    cost = GAP_COST_PER_MM * unusual + min((float(step[0]) / LATERAL_MM) ** 2, 4.0) / 2
    below_sacrum_cost = BELOW_SACRUM_COST if lower.sacral_share <= 0.5 < upper.sacral_share else 0.0
    disc_between = any(on_link(disc, lower, upper) for disc in discs)
    neighbours = disc_between and gap <= DISC_ROOM_MM
    cost -= DISC_GAIN if neighbours else 0.0
    lowest_cost = 0.0 if disc_between or not discs or lower.sacral_share > 0.5 else DISC_MISSING_COST
    promontory = lower.sacral_share > 0.5 >= upper.sacral_share
    lean = float(np.degrees(np.arctan2(step[1], step[2])))
    return Link(-cost, lowest_cost, below_sacrum_cost, lean, promontory, neighbours)


def _step_cost(below: Link | None, above: Link) -> float:
    if below is None:
        return above.lowest_cost + above.below_sacrum_cost
    off = abs(above.lean_deg - below.lean_deg - (PROMONTORY_TURN_DEG if below.from_sacrum else TURN_DEG))
    if off > MAX_TURN_OFF_DEG:
        return float("inf")
    believed = DISCS_TURN_SHARE if below.disc and above.disc else 1.0
    return believed * (off / TURN_SCALE_DEG) ** 2 / 2 + (0.0 if below.from_sacrum else above.below_sacrum_cost)


def on_link(disc: Piece, lower: Piece, upper: Piece) -> bool:
    """The centre of a disc lies between two bodies, near the line from one to the other."""
    start = np.array(lower.centroid_mm)[1:]
    along = np.array(upper.centroid_mm)[1:] - start
    share, off = place_on(start, along, np.array(disc.centroid_mm)[1:])
    return 0.15 < share < 0.85 and off < DISC_OFF_MM


def place_on(start: Floats, along: Floats, point: Floats) -> tuple[float, float]:
    """Place of a point [2] beside a line: share of `along` from `start`, and distance from the line, mm."""
    rest = point - start
    share = float(rest @ along / (along @ along))
    return share, float(np.linalg.norm(rest - share * along))


def spacings_mm(chain: Sequence[Piece]) -> list[float]:
    """Distances between the centroids of neighbours."""
    return [float(np.linalg.norm(np.subtract(b.centroid_mm, a.centroid_mm))) for a, b in pairwise(chain)]


def usual_spacing_mm(chain: Sequence[Piece], *, least: int = 2) -> float:
    """Median of `spacings_mm`; 33 mm (body 27 mm and disc 6-8 mm) where there are fewer than `least`."""
    steps = spacings_mm(chain)
    return float(np.median(steps)) if len(steps) >= least else 33.0
