"""Draw one subject: the chain of vertebral bodies, discs and sacral segments, and everything else that has a number.

Frame: LPS, mm, origin at the centre of the superior endplate of S1; x to the patient's left, y posterior, z cranial.
Sagittal angles are tilts of an endplate: positive where its anterior edge is lower (as at S1).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from models.phantom.bodies import Blob, Body, Disc, Floats
from models.phantom.chain import draw_chain, level_names
from models.phantom.fields import Array, periodic_noise
from models.phantom.marrow import draw_implants, draw_marrow
from models.phantom.pathology import Finding, check_kinds, draw_findings, place_findings


@dataclass(frozen=True)
class Habitus:
    """Soft-tissue proportions of a subject."""

    muscle: float
    """Linear scale of all muscles."""
    fat_infiltration: tuple[float, float]
    """Share of fat in multifidus and erector spinae."""
    subcutaneous_mm: float
    half_width_mm: float
    half_depth_mm: float
    wall_mm: float
    visceral_fat: float
    """Share of the abdominal cavity that is fat; the rest is bowel and organs."""
    dorsal_sheet_mm: float
    """Thickness of latissimus and serratus behind the flanks, upper lumbar."""
    sheath: float
    """Fat around psoas and quadratus, in body widths."""
    cleft: float
    """Fat between multifidus and erector spinae at L4, in body widths."""
    tent: float
    """Fat between thoracolumbar fascia and muscle at S1, in body widths."""
    furrow_mm: float
    """Depth of the midline furrow of the back's skin."""
    midline_mm: float
    """Half-width of what lies between the two multifidi: spinous process, ligament, fat."""
    side_scale: Floats
    """[muscle, side] linear scale: multifidus, erector spinae, psoas, quadratus lumborum x left, right."""


@dataclass(frozen=True)
class Anatomy:
    """Everything that `sampling` needs to know what is where."""

    seed: int
    sex: str
    scale: float
    bodies: tuple[Body, ...]
    """From the lowest sacral segment up."""
    discs: tuple[Disc, ...]
    """From the sacrum up; a block vertebra has none."""
    marrow_blobs: tuple[Blob, ...]
    """Focal changes inside bodies (haemangioma, Modic change, Schmorl node, vein)."""
    implants: tuple[Blob, ...]
    """Signal voids of metal and the bright rims beside them."""
    mottle: tuple[float, float]
    """Shares of marrow that are redder and yellower than the rest, in patches of about 5 mm."""
    habitus: Habitus
    conus_z_mm: float
    sac_end_z_mm: float
    findings: tuple[Finding, ...]
    """What was drawn beyond a healthy column."""

    @property
    def first_mobile(self) -> int:
        """Index of the lowest body above the sacrum."""
        return next(i for i, body in enumerate(self.bodies) if not body.sacral)

    @cached_property
    def marrow_noise(self) -> Array:
        """Periodic field behind the mottle."""
        return periodic_noise(self.seed, 3, sigma=2.5)


def draw_anatomy(
    seed: int,
    *,
    sex: str | None = None,
    scale: float | None = None,
    healthy: bool = False,
    n_lumbar: int | None = None,
    findings: Collection[str] | None = None,
) -> Anatomy:
    """Draw a subject.

    Parameters
    ----------
    seed : the same seed gives the same subject
    sex : "M" or "F"; drawn if not given
    scale : linear size relative to the mean of that sex; drawn (sd 0.05) if not given
    healthy : no findings; moderate wear of discs (for demos and truth tests)
    n_lumbar : 4, 5 or 6 lumbar vertebrae; drawn (2 % each for 4 and 6) if not given
    findings : exactly these kinds (keys of `pathology.KINDS`), one of each at a drawn level; drawn if not given

    Raises
    ------
    ConfigurationError : unknown finding, or findings in a healthy subject
    """
    check_kinds(findings or (), healthy=healthy)
    rng = np.random.default_rng([seed, 1])
    sex = sex or str(rng.choice(["M", "F"]))
    scale = scale if scale is not None else float(np.clip(rng.normal(1.0, 0.05), 0.85, 1.15))
    n_lumbar = n_lumbar or int(rng.choice([4, 5, 6], p=[0.02, 0.96, 0.02]))
    mobile = level_names(n_lumbar)
    if healthy or findings is not None:
        found = place_findings(rng, mobile, findings or ())
    else:
        found = draw_findings(rng, mobile)
    bodies, discs = draw_chain(rng, found, sex=sex, scale=scale, healthy=healthy, n_lumbar=n_lumbar)
    top = {body.name: body for body in bodies}
    # conus tip: lower third of L1 on average, mid-T12 to upper L3 (n = 504); a level is 36 mm
    conus = top["L1"].centre[2] - rng.normal(0.3, 0.5) * 36.0 * scale
    return Anatomy(
        seed=seed,
        sex=sex,
        scale=scale,
        bodies=bodies,
        discs=discs,
        marrow_blobs=draw_marrow(rng, bodies, discs, found) if not healthy else (),
        implants=draw_implants(rng, bodies, found),
        mottle=(0.0, 0.0) if healthy else (float(rng.uniform(0, 0.25)), float(rng.uniform(0, 0.25))),
        habitus=_habitus(rng, sex, healthy=healthy),
        conus_z_mm=float(conus),
        sac_end_z_mm=float(rng.uniform(-60, -35)),
        findings=found,
    )


def _habitus(rng: np.random.Generator, sex: str, *, healthy: bool) -> Habitus:
    """Working values; fat between and inside the muscles goes with one draw of how worn a back is."""
    male = sex == "M"
    worn = float(rng.random()) * (0.5 if healthy else 1.0)
    fat = np.clip(rng.beta(1.2, 7.0, 2) * 1.8 * worn**2, 0.002, 0.6)
    stout = float(rng.normal(0, 1))
    subcutaneous = float(np.clip(np.exp(np.log(15) + 0.5 * stout + rng.normal(0, 0.3)), 5, 60))
    return Habitus(
        muscle=float(np.exp(np.clip(rng.normal(0, 0.07), -0.14, 0.16)) * (1.05 if male else 0.96)),
        fat_infiltration=(float(max(fat)), float(0.5 * min(fat))),
        subcutaneous_mm=subcutaneous,
        half_width_mm=float(np.clip((138 if male else 130) + 9 * stout + rng.normal(0, 8), 110, 190)),
        half_depth_mm=float(np.clip((84 if male else 77) + 11 * stout + rng.normal(0, 7), 60, 140)),
        wall_mm=float(rng.uniform(15, 32) * (1 - 0.35 * worn)),
        visceral_fat=float(np.clip(0.5 + 0.15 * stout + rng.normal(0, 0.2), 0.12, 0.95)),
        dorsal_sheet_mm=float(rng.uniform(2, 9)),
        sheath=float(rng.choice([rng.uniform(0.0, 0.01), rng.uniform(0.01, 0.05)])),
        cleft=float(rng.choice([rng.uniform(0, 0.006), rng.uniform(0.01, 0.03), rng.uniform(0.03, 0.08) * worn]))
        if worn > 0.4
        else float(rng.uniform(0, 0.008)),
        tent=float(rng.uniform(0, 0.22) * worn) if rng.random() < 0.6 else 0.0,
        furrow_mm=float(rng.uniform(0, 14)),
        midline_mm=float(rng.uniform(3.2, 4.8)),
        side_scale=np.exp(rng.normal(0, 0.04 if healthy else 0.06, (4, 2))),
    )
