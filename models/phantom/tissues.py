"""Tissues of the phantom and their MR properties.

T1 and T2 at 1.5 and 3 T after de Bazelaire et al. 2004 (muscle, fat, marrow, kidney, liver), the SyMRI lumbar series of
PMC7410772 (disc, CSF, cord, marrow) and Stanisz et al. 2005; marrow fat fraction after Baum et al. 2018. Cortical bone,
ligament, gas, vessel, focal marrow, stool and uterus values are working values, not measurements.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


class Tissue(IntEnum):
    """What is at a point of the phantom."""

    AIR = 0
    SKIN = 1
    SUBCUTANEOUS_FAT = 2
    SEPTUM = 3
    MUSCLE = 4
    VISCERAL_FAT = 5
    MUSCLE_FAT = 6
    BOWEL = 7
    SOLID_ORGAN = 8
    KIDNEY = 9
    GAS = 10
    FLUID = 11
    VESSEL = 12
    MARROW = 13
    SACRAL_MARROW = 14
    POSTERIOR_MARROW = 15
    CORTEX = 16
    NUCLEUS = 17
    ANNULUS = 18
    CLEFT = 19
    CSF = 20
    CORD = 21
    ROOTS = 22
    EPIDURAL_FAT = 23
    LIGAMENT = 24
    INTERSPINOUS = 25
    FATTY_MARROW = 26
    OEDEMA = 27
    SCLEROSIS = 28
    VEIN = 29
    RED_MARROW = 30
    YELLOW_MARROW = 31
    REPLACED_MARROW = 32
    STOOL = 33
    MYOMETRIUM = 34


N_TISSUES = len(Tissue)


@dataclass(frozen=True)
class Relaxation:
    """MR properties of one tissue: times in ms, proton density relative to water, fat share of its protons."""

    t1_15: float
    t1_30: float
    t2: float
    density: float
    fat: float


PROPERTIES: dict[Tissue, Relaxation] = {
    Tissue.AIR: Relaxation(1000, 1000, 1, 0.0, 0.0),
    Tissue.SKIN: Relaxation(800, 950, 35, 0.7, 0.05),
    Tissue.SUBCUTANEOUS_FAT: Relaxation(343, 382, 68, 1.0, 0.97),
    Tissue.SEPTUM: Relaxation(900, 1000, 30, 0.6, 0.5),
    Tissue.MUSCLE: Relaxation(856, 898, 34, 0.95, 0.04),
    Tissue.VISCERAL_FAT: Relaxation(343, 382, 68, 1.0, 0.93),
    Tissue.MUSCLE_FAT: Relaxation(343, 382, 68, 1.0, 0.85),
    Tissue.BOWEL: Relaxation(900, 1100, 60, 0.92, 0.03),
    Tissue.SOLID_ORGAN: Relaxation(586, 809, 40, 0.9, 0.03),
    Tissue.KIDNEY: Relaxation(1100, 1300, 78, 0.95, 0.03),
    Tissue.GAS: Relaxation(1000, 1000, 1, 0.02, 0.0),
    Tissue.FLUID: Relaxation(3500, 3800, 800, 1.0, 0.0),
    Tissue.VESSEL: Relaxation(1441, 1932, 200, 0.12, 0.0),
    Tissue.MARROW: Relaxation(800, 950, 50, 0.85, 0.40),
    Tissue.SACRAL_MARROW: Relaxation(780, 930, 50, 0.85, 0.45),
    Tissue.POSTERIOR_MARROW: Relaxation(750, 900, 50, 0.80, 0.55),
    Tissue.CORTEX: Relaxation(600, 700, 6, 0.12, 0.05),
    Tissue.NUCLEUS: Relaxation(1165, 1300, 110, 0.90, 0.0),
    Tissue.ANNULUS: Relaxation(900, 1050, 45, 0.72, 0.0),
    Tissue.CLEFT: Relaxation(900, 1100, 30, 0.5, 0.0),
    Tissue.CSF: Relaxation(4273, 4200, 1578, 1.0, 0.0),
    Tissue.CORD: Relaxation(780, 993, 78, 0.85, 0.0),
    Tissue.ROOTS: Relaxation(900, 1080, 80, 0.85, 0.0),
    Tissue.EPIDURAL_FAT: Relaxation(343, 382, 68, 1.0, 0.95),
    Tissue.LIGAMENT: Relaxation(800, 950, 10, 0.35, 0.05),
    Tissue.INTERSPINOUS: Relaxation(700, 900, 45, 0.7, 0.45),
    Tissue.FATTY_MARROW: Relaxation(400, 450, 65, 0.95, 0.85),
    Tissue.OEDEMA: Relaxation(1200, 1350, 90, 0.95, 0.15),
    Tissue.SCLEROSIS: Relaxation(900, 1000, 25, 0.5, 0.1),
    Tissue.VEIN: Relaxation(1000, 1300, 120, 0.7, 0.2),
    Tissue.RED_MARROW: Relaxation(880, 1040, 52, 0.85, 0.28),
    Tissue.YELLOW_MARROW: Relaxation(650, 780, 55, 0.88, 0.62),
    Tissue.REPLACED_MARROW: Relaxation(1100, 1250, 70, 0.85, 0.04),
    Tissue.STOOL: Relaxation(650, 800, 60, 0.75, 0.25),
    Tissue.MYOMETRIUM: Relaxation(1150, 1350, 75, 0.92, 0.0),
}


def property_table() -> npt.NDArray[np.float64]:
    """[tissue, 5] columns T1 at 1.5 T, T1 at 3 T, T2 (ms), proton density, fat fraction."""
    rows = [(p.t1_15, p.t1_30, p.t2, p.density, p.fat) for p in (PROPERTIES[t] for t in Tissue)]
    return np.array(rows, dtype=np.float64)
