"""Exams of a study of the measurements: subjects of every kind on grids of every kind, planned from one seed.

Each exam belongs to one stratum, which says what is special about its subject or about how it was acquired; pixels,
slice distances, axis order, a slight tilt of the stack and the axial series are drawn for every exam alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from cohort.anatomy.orientation import Orientation, cropped
from cohort.geometry import Floats, StackGeometry
from models.phantom.anatomy import Anatomy
from models.phantom.bodies import Body
from models.phantom.exam import AxialLayout, ExamPlan, axial_block, disc_stack

Edge = tuple[str, float] | None
"""Where the picture ends: body and place in it, from -1 (below its inferior endplate by half its height) to 1."""


@dataclass(frozen=True)
class Stratum:
    """A kind of exam."""

    share: int
    """Exams of it in a study of 240."""
    findings: tuple[tuple[str, ...], ...] = ((),)
    """Taken in turn."""
    n_lumbar: int = 5
    top: tuple[Edge, ...] = (None,)
    """Taken in turn; None is within T12 to T10."""
    bottom: tuple[Edge, ...] = (None,)
    """Taken in turn; None is below S2."""


STRATA: Final[dict[str, Stratum]] = {
    "typical": Stratum(24),
    "scoliosis": Stratum(20, (("scoliosis",),)),
    "fracture": Stratum(24, (("wedge_fracture",), ("biconcave_fracture",), ("crush_fracture",))),
    "narrow disc": Stratum(12, (("narrow_disc",), ("narrow_disc", "osteophytes"))),
    "collapsed disc": Stratum(12, (("collapsed_disc",), ("collapsed_disc", "narrow_disc"))),
    "spondylolisthesis": Stratum(16, (("spondylolisthesis",), ("spondylolisthesis", "narrow_disc"))),
    "block vertebra": Stratum(12, (("block_vertebra",),)),
    "transitional": Stratum(16, (("sacralised_l5",), ("lumbarised_s1",))),
    "4 lumbar": Stratum(12, n_lumbar=4),
    "6 lumbar": Stratum(12, n_lumbar=6),
    "top cut": Stratum(16, top=(("L1", 0.0), ("L2", 0.2), ("L3", -0.3), ("L1", 1.3))),
    "sacrum cut": Stratum(12, bottom=(("S1", 0.0), ("S1", -0.6), ("S1", 0.6))),
    "no sacrum": Stratum(20, bottom=(("L5", -1.05), ("L5", 0.0), ("L4", -1.2), ("L5", -1.3), ("L4", 0.3))),
    "few slices": Stratum(12),
    "missing slices": Stratum(12),
    "oblique": Stratum(16),
}
"""What the study is made of. Shares are own choices: enough of each kind to see a failure of one in ten."""

LAYOUTS: Final[tuple[AxialLayout, ...]] = ("none", "per_disc", "none", "block", "none", "per_disc", "none", "none")
"""Axial series of the exams in turn: muscles take most of the time of a phantom, and say nothing about the spine."""
MUSCLE_BOX: Final = (slice(32, 228), slice(14, 242))
"""Rows and columns of the 256 x 256 axial pictures that hold every muscle: the rest costs time and changes nothing."""


COUNT_KNOWN: Final = "number of vertebrae known"


@dataclass(frozen=True)
class Acquisition:
    """How the sagittal stack of an exam is laid."""

    pixel_mm: tuple[float, float]
    gap_mm: float
    thickness_mm: float
    n_slices: int
    tilt_deg: tuple[float, float, float]
    """Turns about x (the picture leans in its plane), y (follows a bend to the side) and z (a turned patient)."""
    lateral_mm: float
    """How far the middle slice lies beside the lumbar spine."""
    top: Edge
    bottom: Edge
    missing: tuple[int, ...]
    order: Orientation
    """From slices right to left, rows head to feet and columns front to back to the order that is stored."""
    axial_order: Orientation
    """The same for every axial stack: from slices feet to head, rows front to back and columns right to left."""


@dataclass(frozen=True)
class StudyExam:
    """One exam of the study."""

    number: int
    stratum: str
    plan: ExamPlan
    acquisition: Acquisition
    count_known: bool
    """Somebody has counted this person's vertebrae: the measurements are told, as by a table of subjects."""

    @property
    def conditions(self) -> tuple[str, ...]:
        """The stratum, then what was drawn of the grid."""
        grid = self.acquisition
        named = {
            "slices >= 4.5 mm apart": grid.gap_mm >= 4.5,
            "slices < 4.5 mm apart": grid.gap_mm < 4.5,
            "pixels not square": abs(grid.pixel_mm[0] - grid.pixel_mm[1]) > 0.05,
            "axes swapped or reversed": grid.order.swap or any(grid.order.flip),
            COUNT_KNOWN: self.count_known,
            f"axial {self.plan.axial.replace('_', ' ')}": True,
        }
        return (self.stratum, *(name for name, holds in named.items() if holds))


def study_plan(n: int, *, seed: int = 0) -> list[StudyExam]:
    """The first `n` exams of the study; strata come in turn, so that every start of it is a fair sample.

    An exam depends on its number and the seed alone, not on `n`.
    """
    order = [
        name for _, name in sorted(((k + 0.5) / s.share, name) for name, s in STRATA.items() for k in range(s.share))
    ]
    seen = dict.fromkeys(STRATA, 0)
    exams = []
    for number in range(n):
        stratum = order[number % len(order)]
        exams.append(_draw(number, stratum, seen[stratum], np.random.default_rng([seed, number, 20])))
        seen[stratum] += 1
    return exams


def _draw(number: int, name: str, turn: int, rng: np.random.Generator) -> StudyExam:
    stratum = STRATA[name]
    sex = str(rng.choice(["M", "F"]))
    height = float(np.clip(rng.normal(1.76 if sex == "M" else 1.63, 0.07), 1.45, 2.0))
    plan = ExamPlan(
        seed=int(rng.integers(1 << 30)),
        sex=sex,
        age_years=int(rng.integers(20, 85)),
        height_m=height,
        weight_kg=75.0,
        axial=LAYOUTS[number % len(LAYOUTS)],
        n_lumbar=stratum.n_lumbar,
        findings=stratum.findings[turn % len(stratum.findings)],
    )
    top, bottom = (edges[turn % len(edges)] for edges in (stratum.top, stratum.bottom))
    acquisition = _acquisition(name, turn, top, bottom, rng)
    return StudyExam(number, name, plan, acquisition, count_known=turn % 2 == 1)


def _acquisition(name: str, turn: int, top: Edge, bottom: Edge, rng: np.random.Generator) -> Acquisition:
    pixel = float(rng.uniform(0.5, 0.95))
    ratio = float(rng.choice([1.0, 1.0, 1.0, rng.uniform(1.15, 1.6)]))
    gap = float(rng.uniform(3.0, 5.0))
    spread = 8.0 if name == "oblique" else 1.5
    n = int(np.ceil((80.0 if name == "scoliosis" else 60.0) / gap)) + int(rng.integers(0, 3))
    missing: tuple[int, ...] = ()
    if name == "few slices":
        gap, n = float(rng.uniform(4.5, 6.0)), int(rng.integers(5, 9))
    if name == "missing slices":
        missing = tuple(sorted(int(k) for k in rng.choice(np.arange(1, n - 1), 1 + turn % 3, replace=False)))
    flip = _flip(rng)
    return Acquisition(
        pixel_mm=(pixel, pixel * ratio) if rng.random() < 0.5 else (pixel * ratio, pixel),
        gap_mm=gap,
        thickness_mm=gap / float(rng.uniform(1.0, 1.25)),
        n_slices=n,
        tilt_deg=(float(rng.normal(0, spread)), float(rng.normal(0, spread)), float(rng.normal(0, spread))),
        lateral_mm=float(rng.normal(0, 3.0)),
        top=top if top is not None else (str(rng.choice(["T12", "T11", "T10"])), float(rng.uniform(-0.8, 1.2))),
        bottom=bottom if bottom is not None else ("S2", float(rng.uniform(-2.5, -1.2))),
        missing=missing,
        order=Orientation(bool(rng.random() < 0.1), flip),
        axial_order=Orientation(bool(rng.random() < 0.1), _flip(rng)),
    )


def _flip(rng: np.random.Generator) -> tuple[bool, bool, bool]:
    """Slices in either direction, rows and columns usually as radiologists look at them."""
    slices, rows, columns = rng.random(3) < (0.3, 0.15, 0.15)
    return bool(slices), bool(rows), bool(columns)


def sagittal_grid(anatomy: Anatomy, acquisition: Acquisition) -> StackGeometry:
    """The stack in standing order, before `Acquisition.order`."""
    across, back, down = _axes(acquisition.tilt_deg)
    bodies = {body.name: body for body in anatomy.bodies}
    low, high = (_edge(bodies, edge) @ -down for edge in (acquisition.bottom, acquisition.top))
    lumbar = np.mean([body.centre for body in anatomy.bodies if body.name.startswith("L")], axis=0)
    rows = max(int((high - low) / acquisition.pixel_mm[0]), 64)
    columns = int(170.0 / acquisition.pixel_mm[1])
    # the picture's middle row lies between its edges; the spine lies a little in front of its middle column
    middle = lumbar + acquisition.lateral_mm * across + 15.0 * back
    middle = middle + (middle @ -down - (high + low) / 2) * down
    half = (rows - 1) / 2 * acquisition.pixel_mm[0] * down + (columns - 1) / 2 * acquisition.pixel_mm[1] * back
    kept = np.delete(np.arange(acquisition.n_slices), acquisition.missing)
    steps = (kept - (acquisition.n_slices - 1) / 2) * acquisition.gap_mm
    return StackGeometry(
        middle - half + steps[:, None] * across,
        back,
        down,
        acquisition.pixel_mm,
        (rows, columns),
        acquisition.thickness_mm,
    )


def _edge(bodies: dict[str, Body], edge: Edge) -> Floats:
    """[3] LPS mm of the place where a picture ends."""
    if edge is None:
        raise ValueError("an acquisition has two edges")
    return bodies[edge[0]].at(0.0, 0.0, edge[1] * bodies[edge[0]].height_mm / 2)


def _axes(tilt_deg: tuple[float, float, float]) -> tuple[Floats, Floats, Floats]:
    """[3] directions of slices (left), columns (posterior) and rows (caudal)."""
    turn = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(tilt_deg)):
        c, s = np.cos(angle), np.sin(angle)
        one = np.eye(3)
        j, k = (axis + 1) % 3, (axis + 2) % 3
        one[j, j], one[k, k], one[j, k], one[k, j] = c, c, -s, s
        turn = one @ turn
    return turn[:, 0], turn[:, 1], -turn[:, 2]


def axial_grids(anatomy: Anatomy, plan: ExamPlan) -> tuple[StackGeometry, ...]:
    """The axial stacks: one block, or three slices along each of the five lowest discs."""
    if plan.axial == "block":
        return (cropped(axial_block(anatomy, np.random.default_rng([plan.seed, 10])), MUSCLE_BOX),)
    if plan.axial == "per_disc":
        return tuple(_middle(cropped(disc_stack(anatomy, disc), MUSCLE_BOX)) for disc in anatomy.discs[:5])
    return ()


def _middle(grid: StackGeometry) -> StackGeometry:
    return replace(grid, position_mm=grid.position_mm[1:4])
