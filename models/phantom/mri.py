"""What an acquisition does to tissues: the signal of each, and the imperfections of the scanner.

Spin-echo signal S = rho (1 - exp(-TR/T1)) exp(-TE/T2) per species; water and fat make separate images, and fat is
shifted along the frequency axis by 220 (1.5 T) or 440 Hz (3 T) over the bandwidth per pixel (0.35-2.7 px in 196
clinical T1 sagittal series). Ranges of TR and TE cover the clinical T1 series of the SPIDER collection (TR 446-746, TE
7-14 ms) with a margin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from models.phantom.fields import Array
from models.phantom.tissues import N_TISSUES, Tissue, property_table

Weighting = Literal["t1", "t2", "random"]


@dataclass(frozen=True, eq=False)
class Contrast:
    """Water and fat signal of every tissue."""

    water: Array
    """[tissue]"""
    fat: Array
    """[tissue]"""
    field_t: float
    repetition_time_ms: float
    echo_time_ms: float


@dataclass(frozen=True)
class Scanner:
    """How strong the imperfections of one acquisition are."""

    snr: float
    """Signal of marrow over noise."""
    coil_decay_mm: float
    """Depth over which the surface coil's sensitivity falls to 1/e."""
    coil_floor: float
    bias: float
    roll_off: float
    """Loss of signal towards the ends of the field of view."""
    roll_centre: float
    """Its middle, in half fields of view from their centre."""
    roll_power: float
    shift_px: float
    """Chemical shift along the frequency axis."""
    frequency_axis: int
    """0 rows, 1 columns."""
    ghost: float
    ghost_offset: float
    """Distance of the ghosts as a share of the field of view."""
    saturation: float
    """Depth of an anterior saturation band, 0 none."""
    saturation_edge_mm: float
    """Its edge, in front of the middle of the spine."""
    saturation_width_mm: float
    blur_px: float
    """Blur of the water image beyond its resolution."""
    resolution: tuple[float, float]
    """Acquired over displayed pixel size along rows and columns."""
    apodised: bool


DEMO_SCANNER = Scanner(
    snr=32, coil_decay_mm=170, coil_floor=0.35, bias=0.08, roll_off=0.1, roll_centre=0.0, roll_power=3.0, shift_px=0.6,
    frequency_axis=1, ghost=0.0, ghost_offset=0.0, saturation=0.0, saturation_edge_mm=60.0, saturation_width_mm=5.0,
    blur_px=0.25, resolution=(1.15, 1.05), apodised=True,
)  # fmt: skip


def draw_scanner(rng: np.random.Generator) -> Scanner:
    """Draw an acquisition from mild to bad."""
    resolution = (float(rng.uniform(1.0, 1.7)), float(rng.uniform(1.0, 1.25)))
    return Scanner(
        snr=float(np.exp(rng.uniform(np.log(7), np.log(60)))),
        coil_decay_mm=float(rng.uniform(45, 260)) if rng.random() < 0.85 else 1e4,
        coil_floor=float(rng.uniform(0.02, 0.4)),
        bias=float(rng.uniform(0, 0.35)),
        roll_off=float(rng.uniform(0, 0.6)),
        roll_centre=float(rng.normal(0, 0.15)),
        roll_power=float(rng.uniform(2, 6)),
        shift_px=float(rng.uniform(-2.2, 2.2)) if rng.random() < 0.8 else 0.0,
        frequency_axis=int(rng.integers(0, 2)),
        ghost=float(rng.uniform(0.01, 0.08)) if rng.random() < 0.35 else 0.0,
        ghost_offset=float(rng.uniform(0.05, 0.5)),
        saturation=float(rng.uniform(0.5, 0.97)) if rng.random() < 0.35 else 0.0,
        saturation_edge_mm=float(rng.uniform(45, 80)),
        saturation_width_mm=float(rng.uniform(3, 10)),
        blur_px=float(rng.uniform(0, 0.5)),
        resolution=resolution if rng.random() < 0.5 else resolution[::-1],
        apodised=bool(rng.random() < 0.5),
    )


def draw_weighting(rng: np.random.Generator) -> Weighting:
    """T1 in five of eight, the rest T2 and random contrasts in equal parts."""
    share = rng.random()
    return "t1" if share < 0.62 else "t2" if share < 0.8 else "random"


def draw_contrast(rng: np.random.Generator, weighting: Weighting, *, jitter: float = 0.12) -> Contrast:
    """Signal of every tissue.

    Parameters
    ----------
    weighting : "t1" spin echo, "t2" spin echo (or proton density), or "random": no physics, only contrast
    jitter : spread (log) of T1, T2 and proton density around their means
    """
    table = property_table() * np.exp(rng.normal(0, jitter, (N_TISSUES, 5)) * [1, 1, 1, 0.7, 0])
    field_t = 3.0 if rng.random() < 0.5 else 1.5
    t1, t2 = table[:, 1 if field_t == 3.0 else 0], table[:, 2]
    density, fat_share = np.minimum(table[:, 3], 1.1), table[:, 4].copy()
    marrow = np.clip(rng.normal(0.25 + 0.35 * rng.random(), 0.05), 0.1, 0.8)
    steps = {Tissue.RED_MARROW: -0.12, Tissue.YELLOW_MARROW: 0.15}
    for tissue in (Tissue.MARROW, Tissue.SACRAL_MARROW, Tissue.POSTERIOR_MARROW, *steps):
        fat_share[tissue] = np.clip(marrow + steps.get(tissue, 0.0) + rng.normal(0.03, 0.04), 0.1, 0.85)
    tr, te = (rng.uniform(380, 800), rng.uniform(7, 22)) if weighting == "t1" else (rng.uniform(2200, 5000), 0.0)
    if weighting != "t1":
        te = rng.uniform(70, 130) if rng.random() < 0.75 else rng.uniform(15, 50)
    fat_t1 = (382 if field_t == 3.0 else 343) * np.exp(rng.normal(0, 0.1))
    water = density * (1 - fat_share) * (1 - np.exp(-tr / t1)) * np.exp(-te / t2)
    fat = density * fat_share * (1 - np.exp(-tr / fat_t1)) * np.exp(-te / rng.uniform(80, 170))
    if weighting == "random":
        water, fat = _random_signal(rng), np.zeros(N_TISSUES)
    else:
        if rng.random() < 0.5:  # annulus and nucleus are often alike
            water[Tissue.ANNULUS] = rng.uniform(0.7, 1.0) * water[Tissue.NUCLEUS]
        if rng.random() < 0.05:  # fat suppression
            fat *= rng.uniform(0.05, 0.3)
    if rng.random() < 0.35:  # slow flow is not dark
        water[Tissue.VESSEL] *= rng.uniform(1, 5)
    return Contrast(water.astype(np.float32), fat.astype(np.float32), field_t, float(tr), float(te))


def _random_signal(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Any contrast, as long as like tissues stay alike and cortex and gas stay dark (Billot et al. 2023, SynthSeg)."""
    signal = rng.uniform(0.05, 1, N_TISSUES) ** rng.uniform(0.7, 1.4)
    signal[Tissue.AIR], signal[Tissue.GAS] = rng.uniform(0, 0.05), rng.uniform(0, 0.1)
    signal[Tissue.CORTEX] *= rng.uniform(0.1, 0.5)
    alike = {
        Tissue.SACRAL_MARROW: Tissue.MARROW,
        Tissue.RED_MARROW: Tissue.MARROW,
        Tissue.YELLOW_MARROW: Tissue.MARROW,
        Tissue.POSTERIOR_MARROW: Tissue.MARROW,
        Tissue.EPIDURAL_FAT: Tissue.VISCERAL_FAT,
        Tissue.SUBCUTANEOUS_FAT: Tissue.VISCERAL_FAT,
        Tissue.MUSCLE_FAT: Tissue.VISCERAL_FAT,
    }
    for tissue, model in alike.items():
        signal[tissue] = signal[model] * max(rng.normal(1, 0.08), 0.5)
    signal[Tissue.ANNULUS] = signal[Tissue.NUCLEUS] * rng.uniform(0.6, 1.05)
    return np.asarray(signal)
