"""Which of the pieces is S1: independent evidence of shape, place, discs and the network's class, weighed together.

Every piece in turn is supposed to be S1, or S1 to lie below the picture, and each supposition is judged by how well all
pieces then play their parts: sacral body below S1, S1, lowest mobile body, the one above it, any higher body. The log
likelihoods of the single observations are added (naive Bayes) and damped, because observations of one spine are not
independent; so a class that the network confused is outvoted by a disc, a taper and a tilt, and where they disagree
the probability says so.

The numbers of `PARTS` are working values: mean and spread over phantoms (true and degraded masks of subjects that no
reported figure is measured on), rounded, and the spread widened by about a third. Published where a figure exists:
supine sacral slope 44.5 +- 9.9 degrees, range 18-71 (n = 274).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

import numpy as np

from cohort.anatomy.instances import Instances, Piece
from cohort.geometry import Floats, StackGeometry

MIDDLE_MM: Final = 12.0
"""Half the width of the part of a body whose sagittal shape is looked at: pedicles and transverse processes begin
beyond it."""
ROOM_MM: Final = 60.0
"""Picture below the centre of a piece that would show the whole of another body: neighbours are up to 44 mm apart, and
half a body is 15 mm."""
DAMPING: Final = 0.6
"""Share of the added log likelihoods that is believed; chosen so that stated probabilities agree with how often they
are right on degraded masks."""
OUTLIER: Final = 0.03
"""Density, in units of the spread, that every observation has under any part: no single one can decide alone."""
CUT_PRIOR: Final = 0.1
"""Before anything is seen: S1 lies below the picture. Sagittal lumbar protocols are planned with the sacrum in view."""
CUT_DEPTHS: Final = (0.5, 0.3, 0.2)
"""Of these, the lowest body in view is the first, second or third above S1."""
CLASS_RIGHT: Final = 0.9
"""The network's class of S1 and of the lowest mobile body; elsewhere `CLASS_RIGHT_FAR`. In about one of ten T1 exams
networks confuse them (steep or transitional sacra)."""
CLASS_RIGHT_FAR: Final = 0.98
CLEAR: Final = 0.7
"""Log of two: evidence that makes one place twice as likely as another."""
DISC_PRESENT: Final = 0.35
"""A disc above a piece counts as whole from this share of the exam's median disc volume, as a rudiment from a third of
it."""


@dataclass(frozen=True)
class Observed:
    """What is seen of one piece; None is not seen."""

    sacral_share: float
    """Share of voxels of the network's sacral class."""
    taper: float | None = None
    """Depth of the lowest third over depth of the highest third, mid-sagittal."""
    depth_ratio: float | None = None
    """Depth over the depth of the piece above."""
    lean_deg: float | None = None
    """Line to the piece above against the vertical in the sagittal plane, forward positive."""
    disc_above: float | None = None
    """Volume of the disc between this piece and the one above, as a share of the exam's median disc; 0 is none."""
    disc_below: float | None = None
    """Volume of the largest disc below the lowest piece, as a share of the median disc; None where there is none, which
    says nothing."""
    nothing_below: bool | None = None
    """True of the lowest piece where the picture has room for another one below it."""


@dataclass(frozen=True)
class Part:
    """Mean and spread of what a piece in one place of the spine looks like, and chances of what it lacks."""

    taper: tuple[float, float]
    depth_ratio: tuple[float, float]
    lean_deg: tuple[float, float]
    disc_above: tuple[float, float, float]
    """Chance of no disc, of a rudiment, of a whole disc above."""
    disc_below: tuple[float, float]
    """Of a disc that is seen below it: chance of a rudiment, of a whole disc."""
    nothing_below: float
    """Chance that nothing is found below although there is room."""


PARTS: Final = (
    Part((0.78, 0.20), (0.67, 0.14), (43.0, 16.0), (0.93, 0.04, 0.03), (0.5, 0.02), 0.30),  # below S1
    Part((0.78, 0.12), (0.86, 0.11), (30.0, 13.0), (0.04, 0.08, 0.88), (0.5, 0.05), 0.15),  # S1
    Part((0.98, 0.08), (1.00, 0.08), (10.0, 9.0), (0.05, 0.05, 0.90), (0.3, 0.9), 0.03),  # lowest mobile body
    Part((1.00, 0.07), (1.00, 0.08), (-2.0, 8.0), (0.05, 0.05, 0.90), (0.3, 0.9), 0.03),
    Part((1.00, 0.08), (1.03, 0.08), (-10.0, 11.0), (0.07, 0.05, 0.88), (0.3, 0.9), 0.03),  # any higher one
)
S1_PART: Final = 1


@dataclass(frozen=True)
class Sacrum:
    """How probable it is that each piece is S1."""

    probability: tuple[float, ...]
    """Of each piece, from caudal to cranial."""
    not_in_view: float
    """Probability that S1 lies below the picture."""
    supporting: tuple[str, ...] = ()
    contradicting: tuple[str, ...] = ()
    """Kinds of evidence (fields of `Observed`) that speak for and against the most probable piece."""

    @property
    def s1(self) -> int | None:
        """The most probable piece; None where S1 more probably lies below the picture."""
        if not self.probability or max(self.probability) <= self.not_in_view:
            return None
        return int(np.argmax(self.probability))

    def is_sacral(self, index: int, piece: Piece) -> bool:
        """Is the piece at `index` S1 or below; by the network's class where S1 was not found."""
        return piece.sacral_share > 0.5 if self.s1 is None else index <= self.s1


def find_sacrum(
    bodies: Instances, discs: Sequence[Piece], geometry: StackGeometry, *, picture: StackGeometry
) -> Sacrum:
    """Judge which of the pieces is S1.

    Parameters
    ----------
    bodies, discs : pieces from caudal to cranial
    geometry : of the array that `bodies` labels, in standing order (rows caudal); it touches the border of the picture
        where a piece does
    picture : of the whole slices
    """
    return weigh(observe(bodies, discs, geometry, picture=picture))


def weigh(observed: Sequence[Observed]) -> Sacrum:
    """Posterior probability of every supposition about S1, given the pieces from caudal to cranial."""
    if not observed:
        return Sacrum((), 1.0)
    kinds = [field.name for field in fields(Observed)]
    likely = [
        [{kind: _log_likelihood(one, kind, part) for kind in kinds} for part in range(len(PARTS))] for one in observed
    ]
    suppositions = [(-j, (1 - CUT_PRIOR) / len(observed)) for j in range(len(observed))]
    suppositions += [(depth, CUT_PRIOR * share) for depth, share in enumerate(CUT_DEPTHS, start=1)]
    scores = [_score(likely, shift, prior) for shift, prior in suppositions]
    weight = np.exp(np.array(scores) - max(scores))
    weight /= weight.sum()
    found = Sacrum(tuple(float(one) for one in weight[: len(observed)]), float(weight[len(observed) :].sum()))
    return found if found.s1 is None else _explained(found, likely, kinds)


def _part(place: int) -> int:
    """Index into `PARTS` of a piece `place` steps above S1."""
    return int(np.clip(place + S1_PART, 0, len(PARTS) - 1))


Likely = list[list[dict[str, float]]]
"""[piece][part] -> kind of evidence -> log likelihood."""


def _score(likely: Likely, shift: int, prior: float) -> float:
    total = sum(sum(parts[_part(i + shift)].values()) for i, parts in enumerate(likely))
    return float(np.log(prior) + DAMPING * total)


def _explained(found: Sacrum, likely: Likely, kinds: Sequence[str]) -> Sacrum:
    """Evidence for and against the most probable piece, each against the better of its two neighbours in the count."""
    s1 = int(np.argmax(found.probability))
    supporting, contradicting = [], []
    for kind in kinds:
        sums = [sum(parts[_part(i - s1 + k)][kind] for i, parts in enumerate(likely)) for k in (0, -1, 1)]
        gain = sums[0] - max(sums[1:])
        if gain > CLEAR:
            supporting.append(kind)
        elif gain < -CLEAR:
            contradicting.append(kind)
    return Sacrum(found.probability, found.not_in_view, tuple(supporting), tuple(contradicting))


def _log_likelihood(observed: Observed, kind: str, part: int) -> float:
    value = getattr(observed, kind)
    if value is None:
        return 0.0
    model = PARTS[part]
    if kind == "sacral_share":
        right = CLASS_RIGHT if part in (S1_PART, S1_PART + 1) else CLASS_RIGHT_FAR
        sacral = right if part <= S1_PART else 1 - right
        return float(value * np.log(sacral) + (1 - value) * np.log(1 - sacral))
    if kind == "disc_above":
        return float(np.log(model.disc_above[int(value > DISC_PRESENT / 3) + int(value >= DISC_PRESENT)]))
    if kind == "disc_below":
        return float(np.log(model.disc_below[int(value >= DISC_PRESENT)]))
    if kind == "nothing_below":
        return float(np.log(model.nothing_below))
    mean, spread = getattr(model, kind)
    density = np.exp(-0.5 * ((value - mean) / spread) ** 2) / np.sqrt(2 * np.pi) + OUTLIER
    return float(np.log(density / spread))


def observe(
    bodies: Instances, discs: Sequence[Piece], geometry: StackGeometry, *, picture: StackGeometry
) -> list[Observed]:
    """What each piece shows; see `find_sacrum`."""
    shapes = [_depths(bodies, label, geometry) for label in range(1, len(bodies.pieces) + 1)]
    usual_disc = float(np.median([disc.volume_cm3 for disc in discs])) if len(discs) > 1 else 0.0
    observed = []
    for i, piece in enumerate(bodies.pieces):
        above = bodies.pieces[i + 1] if i + 1 < len(bodies.pieces) else None
        own, next_ = shapes[i], shapes[i + 1] if above else None
        observed.append(
            Observed(
                sacral_share=piece.sacral_share,
                taper=own[0] / own[2] if own else None,
                depth_ratio=own[1] / next_[1] if own and next_ else None,
                lean_deg=_lean_deg(piece, above) if above else None,
                disc_above=_disc_between(piece, above, discs, usual_disc) if above else None,
                disc_below=_disc_below(piece, discs, usual_disc) if i == 0 else None,
                nothing_below=_has_room_below(piece, picture) or None if i == 0 else None,
            )
        )
    return observed


def _depths(bodies: Instances, label: int, geometry: StackGeometry) -> tuple[float, float, float] | None:
    """Depth (mm) of the lowest, middle and highest third of a piece across its direction; None if cut or too small."""
    box = bodies.boxes[label - 1]
    if box[1].start == 0 or box[1].stop == geometry.shape[0]:
        return None
    points = bodies.points_mm(label, geometry)
    centre = points.mean(axis=0)
    points = points[np.abs((points - centre) @ geometry.normal) <= MIDDLE_MM]
    up = _direction(bodies.pieces, label - 1)
    if up is None or len(points) < 30:
        return None
    along, across = (points - centre) @ up, (points - centre) @ np.array([0.0, up[2], -up[1]])
    low, high = np.quantile(along, [0.02, 0.98])
    third = np.clip((3 * (along - low) / max(high - low, 1e-6)).astype(int), 0, 2)
    depths = [_reach(across[third == part]) for part in range(3)]
    return None if min(depths) < 2.0 else (depths[0], depths[1], depths[2])


def _reach(values: Floats) -> float:
    return float(np.ptp(np.quantile(values, [0.03, 0.97]))) if len(values) > 8 else 0.0


def _direction(pieces: Sequence[Piece], i: int) -> Floats | None:
    """[3] sagittal unit vector towards the piece above, from the piece below for the highest."""
    if len(pieces) < 2:
        return None
    lower, upper = (i, i + 1) if i + 1 < len(pieces) else (i - 1, i)
    step = np.subtract(pieces[upper].centroid_mm, pieces[lower].centroid_mm) * [0.0, 1.0, 1.0]
    return np.asarray(step / np.linalg.norm(step))


def _lean_deg(lower: Piece, upper: Piece) -> float:
    step = np.subtract(upper.centroid_mm, lower.centroid_mm)
    return float(np.degrees(np.arctan2(-step[1], step[2])))


def _disc_between(lower: Piece, upper: Piece, discs: Sequence[Piece], usual_cm3: float) -> float | None:
    if usual_cm3 == 0:
        return None
    between = [disc.volume_cm3 for disc in discs if lower.arc_mm < disc.arc_mm < upper.arc_mm]
    return max(between, default=0.0) / usual_cm3


def _disc_below(piece: Piece, discs: Sequence[Piece], usual_cm3: float) -> float | None:
    below = [disc.volume_cm3 for disc in discs if disc.arc_mm < piece.arc_mm]
    return max(below) / usual_cm3 if below and usual_cm3 else None


def _has_room_below(piece: Piece, picture: StackGeometry) -> bool:
    row = float(picture.to_index(np.array(piece.centroid_mm))[1])
    return (picture.shape[0] - 1 - row) * picture.spacing_mm[0] > ROOM_MM
