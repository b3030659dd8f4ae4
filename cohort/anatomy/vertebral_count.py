"""How many lumbar vertebrae: what may be believed of a count that starts at the sacrum.

A lumbar field of view does not show whether the lowest mobile body is L4, L5 or L6: "numerical variants can be reliably
identified only with whole-spine imaging" (Tins & Balain, Insights Imaging 2016), and readers of lumbar MRI alone
mis-number 14 % of transitional spines' exams (Tokgoz et al., Korean J Radiol 2014, n = 1,049). So a count assumes five
with the frequency of the population; where axial slices show the psoas beginning, its size from disc to disc raises
that a little or lowers it; and who knows the number (from whole-spine images) says so in the table of subjects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from cohort.terms import disc_name

PRIOR: Final[dict[int, float]] = {4: 0.033, 5: 0.924, 6: 0.043}
"""Mobile vertebrae one fewer in 14, usual in 386, one more in 18 of 418 patients (Tins & Balain 2016)."""
LEVELS: Final = (-0.5, 0.5, 1.5, 2.5, 3.5)
"""T12-L1, L1-L2, L2-L3, L3-L4, L4-L5 on the scale of five lumbar vertebrae: 0 at the centre of L1, 5 at that of S1."""
PSOAS_SHARE: Final = (0.08, 0.24, 0.57, 0.84, 1.0)
"""Area of the psoas there as a share of its area at the two discs above the lumbosacral one: 4.2, 10.1 and 14.7 of 17.6
cm2 in 30 controls (medscimonit 951651, Table 2). At T12-L1 a working value: the muscle begins there."""
PSOAS_SPREAD: Final = (0.12, 0.13, 0.17, 0.15, 0.12)
"""From the coefficients of variation of the same table that are left when a person's overall muscle size (30 %) is
taken out, widened by a third."""
MOST_FROM_PSOAS: Final = 0.94
"""No landmark in a lumbar field of view proves the count (Tokgoz 2014; Tins & Balain 2016): agreement raises its
probability to this and no further, below `levels.CONFIDENT`."""
DAMPING: Final = 0.7
"""Share of the log likelihood that is believed: areas of one muscle at neighbouring discs are not independent."""
OUTLIER: Final = 0.05
"""Density, in units of the spread, of an area under any count: kidneys are taken for psoas now and then."""


@dataclass(frozen=True)
class Count:
    """Numbers of vertebrae, and how sure they are."""

    n_lumbar: int
    n_thoracic: int
    confidence: float
    source: str
    """table, psoas or usual."""

    def name(self, place: int) -> str | None:
        """Name of the vertebra `place` steps above S1 (0 is S1); None above the thoracic vertebrae."""
        if place == 0:
            return "S1"
        if place <= self.n_lumbar:
            return f"L{self.n_lumbar - place + 1}"
        number = self.n_thoracic - (place - self.n_lumbar) + 1
        return f"T{number}" if number > 0 else None

    def disc(self, place: int) -> str | None:
        """Name of the disc above the vertebra `place` steps above S1."""
        above, below = self.name(place + 1), self.name(place)
        return disc_name(above, below) if above and below else None


USUAL: Final = Count(5, 12, PRIOR[5], "usual")
UNUSUAL_THORAX: Final = 0.5
"""Probability of five lumbar vertebrae in people with another number of thoracic ones than twelve: the vertebra beside
the twelfth rib may have been taken from or given to the lumbar spine. Own choice, below `levels.UNDECIDED`."""


def known_count(n_lumbar: int | None, n_thoracic: int | None) -> Count | None:
    """The count that somebody read from whole-spine images; None where they did not.

    Eleven or thirteen thoracic vertebrae alone say that the person is not as usual, and not how many lumbar ones there
    are: no names rest on such a count.
    """
    if n_lumbar is not None:
        return Count(n_lumbar, n_thoracic or USUAL.n_thoracic, 1.0, "table")
    if n_thoracic is None or n_thoracic == USUAL.n_thoracic:
        return None
    return replace(USUAL, n_thoracic=n_thoracic, confidence=UNUSUAL_THORAX)


def most_likely_count(psoas_cm2: Mapping[int, float]) -> Count:
    """Weigh four, five and six lumbar vertebrae by the sizes of the psoas.

    Parameters
    ----------
    psoas_cm2 : place of a disc above S1 (0 is the lumbosacral one) -> mean area of the sides there, 0 where a slice
        shows other muscles and no psoas
    """
    caudal = max((psoas_cm2.get(place, 0.0) for place in (1, 2)), default=0.0)
    upper = {place: area / caudal for place, area in psoas_cm2.items() if place >= 3} if caudal > 0 else {}
    if not upper:
        return USUAL
    score = {n: np.log(PRIOR[n]) + DAMPING * sum(_log_likelihood(n, *one) for one in upper.items()) for n in PRIOR}
    best = max(score, key=lambda n: score[n])
    confidence = 1 / sum(np.exp(value - score[best]) for value in score.values())
    return Count(best, 12, min(float(confidence), MOST_FROM_PSOAS), "psoas")


def _log_likelihood(n_lumbar: int, place: int, share: float) -> float:
    """Of a psoas of this share at the disc `place` steps above the lumbosacral one.

    The muscle reaches from the last rib to the pelvis whatever the number of vertebrae: its five levels are spread over
    as many as there are. An assumption: nobody has measured it.
    """
    level = 4 - (place - 0.5) * 4 / (n_lumbar - 1)
    level = level if place < n_lumbar else n_lumbar - place - 0.5
    mean, spread = (float(np.interp(level, LEVELS, table)) for table in (PSOAS_SHARE, PSOAS_SPREAD))
    density = np.exp(-0.5 * ((share - mean) / spread) ** 2) / np.sqrt(2 * np.pi) + OUTLIER
    return float(np.log(density / spread))
