"""Our loads beside what was measured in people: pressure in the disc L4/L5, and forces on vertebral implants.

Pressure becomes force as force = pressure x area of the disc / k, where k is how much the pressure in the nucleus
exceeds the mean pressure over the disc. Only abstracts could be read of some papers, and others only as they are
quoted elsewhere; `Measurement.read` says which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np

from cohort.loading.base_model import BaseModel
from cohort.loading.solve import STANDARD
from cohort.loading.tasks import (
    STANDING,
    WILKE_HOLD_60CM,
    WILKE_HOLD_CLOSE,
    WILKE_LIFT_ROUND_BACK,
    WILKE_SITTING,
    WILKE_SITTING_FLEXED,
    WILKE_STANDING_FLEXED,
    Task,
)
from cohort.terms import LUMBAR_VERTEBRAE
from pipelines.validation.loads_models import Table, axial_n
from pipelines.validation.loads_people import person

DISC_AREA_MM2: Final = 1800.0
"""Of the volunteer's disc L4/L5: Wilke et al. 2001 (Clin Biomech 16 Suppl 1, PMID 11275349), as quoted elsewhere."""
PRESSURE_FACTOR: Final = (1.30, 1.52)
"""k in the literature, as quoted elsewhere; for one disc it may be wrong by up to 44 % (Dreischarf et al. 2013,
quoted, too)."""
TOLERANCE: Final = 0.25
"""Beyond the range, that still counts as inside."""
HIDDEN_ACTIVATION: Final = 0.01
"""Least activation of OpenSim's muscles, in effect in most published models unless it was taken out."""

VOLUNTEER_HEIGHT_M: Final = 1.74
"""As the literature on this volunteer has it; not read in the paper itself."""
VOLUNTEER_MASS_KG: Final = 70.0

_LEVEL: Final = LUMBAR_VERTEBRAE.index("L4")
"""L4/L5 is the joint below L4."""


@dataclass(frozen=True)
class Measurement:
    """One figure measured in people, and the posture that stands for it."""

    activity: str
    low_n: float
    high_n: float
    task: Task
    people: str
    source: str
    read: Literal["abstract", "quoted"]
    """Whether the figure was read in the paper's abstract or only as other texts quote it."""


def force_range_n(low_mpa: float, high_mpa: float | None = None) -> tuple[float, float]:
    """Convert a pressure, or a range of pressures, to the range of forces that the range of k leaves."""
    most = low_mpa if high_mpa is None else high_mpa
    return low_mpa * DISC_AREA_MM2 / PRESSURE_FACTOR[1], most * DISC_AREA_MM2 / PRESSURE_FACTOR[0]


def place_in_range(value: float, low: float, high: float, tolerance: float = TOLERANCE) -> str:
    """Say where a value lies: inside the range, inside the widened range, below or above it."""
    if low <= value <= high:
        return "inside"
    if low * (1.0 - tolerance) <= value <= high * (1.0 + tolerance):
        return f"within {100.0 * tolerance:.0f} %"
    return "below" if value < low else "above"


def _wilke(activity: str, pressure_mpa: float, task: Task) -> Measurement:
    low, high = force_range_n(pressure_mpa)
    return Measurement(activity, low, high, task, "1 man", "Wilke 1999", "abstract")


MEASUREMENTS: Final = (
    _wilke("relaxed standing, 0.5 MPa", 0.5, STANDING),
    _wilke("standing, flexed forward, 1.1 MPa", 1.1, WILKE_STANDING_FLEXED),
    _wilke("sitting without support, 0.46 MPa", 0.46, WILKE_SITTING),
    _wilke("sitting, greatest flexion, 0.83 MPa", 0.83, WILKE_SITTING_FLEXED),
    _wilke("20 kg held close to the body, 1.1 MPa", 1.1, WILKE_HOLD_CLOSE),
    replace(_wilke("20 kg held at 60 cm, 1.8 MPa", 1.8, WILKE_HOLD_60CM), read="quoted"),
    _wilke("20 kg lifted with a round back, 2.3 MPa", 2.3, WILKE_LIFT_ROUND_BACK),
    Measurement("standing", 800.0, 800.0, STANDING, "8 people", "Sato 1999", "quoted"),
    Measurement("sitting", 996.0, 996.0, WILKE_SITTING, "8 people", "Sato 1999", "quoted"),
    Measurement(
        "standing, 0.5 to 0.87 MPa", *force_range_n(0.5, 0.87), STANDING, "several", "Nachemson 1964", "quoted"
    ),
)
"""The postures and their working values: `cohort.loading.tasks`."""

VBR_ANGLES_DEG: Final = (0.0, 10.0, 20.0, 33.0, 53.0)
"""Upright, plateau of the implant force from about 33 degrees, mean largest inclination 53 degrees (Dreischarf et al.
2015, J Biomech, doi 10.1016/j.jbiomech.2015.01.007, abstract)."""
VBR_FORCE_N: Final = {0.0: 120.0, 33.0: 450.0, 53.0: 450.0}
"""Forces there: about 450 N at the largest inclination, hardly different from those at the start of the plateau, and
about 330 N more than upright."""
TILT_ANGLES_DEG: Final = (0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0)
"""For the straight line that Takahashi et al. 2006 (Spine 31:18, abstract) found between tilt and load; their angles
are not in the abstract."""


CHOICES: Final = {
    "ours": STANDARD,
    "ours, least activation 0.01": replace(STANDARD, min_activation=HIDDEN_ACTIVATION),
    "ours, passive stiffness": replace(STANDARD, passive_stiffness=True),
}
"""Assumptions beside each other: as shipped; with the co-contraction that OpenSim's muscles insist on; with discs and
ligaments that carry part of the moment."""


def in_vivo_table(base: BaseModel) -> Table:
    """Load L4/L5 of Wilke's volunteer in each activity under each of `CHOICES`: newtons, place, ratio to standing."""
    volunteer = person("M", VOLUNTEER_HEIGHT_M, VOLUNTEER_MASS_KG)

    def loads(task: Task) -> dict[str, float]:
        choices = CHOICES.items()
        return {name: float(axial_n(base, [volunteer], task, assumptions=one)[0, _LEVEL]) for name, one in choices}

    upright = {one.source: one for one in MEASUREMENTS if one.task is STANDING}
    standing = loads(STANDING)
    return [_in_vivo_row(one, loads(one.task), standing, upright[one.source]) for one in MEASUREMENTS]


def _in_vivo_row(
    one: Measurement, ours: dict[str, float], standing: dict[str, float], upright: Measurement
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "measured": one.activity,
        "source": f"{one.source} ({one.people}, {one.read})",
        "low N": round(one.low_n),
        "high N": round(one.high_n),
        "over standing": round(one.low_n / upright.low_n, 2),
    }
    for name, load in ours.items():
        place = place_in_range(load, one.low_n, one.high_n)
        row |= {f"{name}, N": round(load), f"{name}: place": place, f"{name}: ratio": round(load / standing[name], 2)}
    return row


def flexion_trend(base: BaseModel) -> Table:
    """Load of L1 by trunk inclination beside the forces on implants that replaced L1 (four people) or L3 (one)."""
    volunteer = person("M", VOLUNTEER_HEIGHT_M, VOLUNTEER_MASS_KG)
    tasks = [Task(name="flexed", trunk_flexion_deg=angle) for angle in VBR_ANGLES_DEG]
    ours = [axial_n(base, [volunteer], task, convention="vertebra_mean")[0, 0] for task in tasks]
    return [
        {
            "trunk inclination, degrees": angle,
            "ours, L1, N": round(float(load)),
            "ours over upright": round(float(load / ours[0]), 2),
            "ours above upright, N": round(float(load - ours[0])),
            "implant, N": VBR_FORCE_N.get(angle),
            "implant over upright": round(VBR_FORCE_N[angle] / VBR_FORCE_N[0.0], 2) if angle in VBR_FORCE_N else None,
            "implant above upright, N": VBR_FORCE_N[angle] - VBR_FORCE_N[0.0] if angle in VBR_FORCE_N else None,
        }
        for angle, load in zip(VBR_ANGLES_DEG, ours, strict=True)
    ]


def tilt_line(base: BaseModel, hand_kg: Sequence[float] = (0.0, 5.0)) -> Table:
    """How straight the line of load L4/L5 over tilt is, without and with a weight in each hand."""
    volunteer = person("M", VOLUNTEER_HEIGHT_M, VOLUNTEER_MASS_KG)
    angles = np.array(TILT_ANGLES_DEG)
    table = []
    for weight in hand_kg:
        tasks = [
            Task(name="tilt", trunk_flexion_deg=angle, right_hand_kg=weight, left_hand_kg=weight)
            for angle in TILT_ANGLES_DEG
        ]
        load = np.array([axial_n(base, [volunteer], task)[0, _LEVEL] for task in tasks])
        slope, level = np.polyfit(angles, load, 1)
        table.append(
            {
                "kg in each hand": weight,
                "upright, N": round(float(load[0])),
                "at 30 degrees, N": round(float(load[-1])),
                "N per degree": round(float(slope), 1),
                "correlation with the angle": round(float(np.corrcoef(angles, load)[0, 1]), 4),
                "largest distance from the line, N": round(float(np.abs(load - slope * angles - level).max())),
            }
        )
    return table
