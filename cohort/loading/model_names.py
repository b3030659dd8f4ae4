"""What joints, bodies and muscles are called in base models from elsewhere; see `cohort.loading.adopt`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from cohort.errors import ConfigurationError
from cohort.loading.base_model import ARMS, HANDS, MUSCLE_OF_GROUP, SPINAL_JOINTS

SPINE: Final = ("L5", "L4", "L3", "L2", "L1", "thorax")
"""Bodies of the adopted model that the spinal joints carry, caudal to cranial."""
ADOPTED_BODIES: Final = ("pelvis", *SPINE, *ARMS, *HANDS)

MUSCLES: Final[Mapping[str, str]] = {
    "multifidus": "MF_.*|multifidus.*",
    "iliocostalis_lumborum": "IL_L.*",
    "iliocostalis_thoracis": "IL_[RT].*",
    "longissimus_lumborum": "LTpL_.*",
    "longissimus_thoracis": "LTpT_.*",
    "psoas": "Ps_.*",
    "quadratus_lumborum": "QL_.*",
    "rectus_abdominis": "rect_abd.*",
    "external_oblique": "EO.*|E\\d.*",
    "internal_oblique": "IO.*",
    "transversus_abdominis": "TR\\d.*",
    "latissimus_dorsi": "LD_.*",
}
"""Group -> regular expression: the muscle names of Christophy et al. 2012, which the models after it have kept."""

SACRAL_SLOPE_LIMITS_DEG: Final = (0.0, 80.0)
"""Of people who stand (own choice, wider than any published sample)."""


@dataclass(frozen=True, kw_only=True)
class ModelNames:
    """Names in the file of a base model; the defaults are those of Bruno et al. 2015 (`READY["bidmc"]`)."""

    pelvis: str = "pelvis"
    """Body; what no spinal joint carries (sacrum, legs) becomes part of it."""
    joints: tuple[str, ...] = (
        "L5_S1_IVDjnt",
        "L4_L5_IVDjnt",
        "L3_L4_IVDjnt",
        "L2_L3_IVDjnt",
        "L1_L2_IVDjnt",
        "T12_L1_IVDjnt",
    )
    """L5/S1 to T12/L1. What the last one carries, but for the arms, becomes one rigid thorax."""
    arms: tuple[str, ...] = ("humerus_R", "humerus_L")
    """Bodies that hang from the shoulders, right and left."""
    hands: tuple[str, ...] = ("hand_R", "hand_L")
    sides: tuple[str, ...] = ("_r", "_l")
    """How names of muscles end, right and left, in capitals or not; where neither fits, the place of the muscle tells
    (in models after Bruno et al. 2015 some right ones have no ending)."""
    groups: Mapping[str, str] = field(default_factory=lambda: dict(MUSCLES))
    """Group of muscles (`cohort.loading.base_model.MUSCLE_OF_GROUP`) -> regular expression of the whole name without
    the side."""
    carried: Mapping[str, str] = field(default_factory=dict)
    """Body that follows other joints by couplers -> body of the adopted model that carries it: pelvis, L5..L1, thorax.
    Those not named go with the body that they are jointed to."""
    centres_m: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Joint of `SPINAL_JOINTS` -> its centre in the frame of its lower body, where the file's joint is elsewhere."""
    height_m: float | None = None
    """Stature, for models without markers `vertex` and `sole`."""
    female_height_m: float | None = None
    """Stature of the female model, where one table names a male and a female one."""
    sacral_slope_deg: float = 40.0
    """Slope of the endplate of S1 in the model's posture; mean of adults, Legaye et al. 1998."""

    def __post_init__(self) -> None:
        _require(len(self.joints) == len(SPINAL_JOINTS), f"joints are six, {', '.join(SPINAL_JOINTS)}")
        for name in ("arms", "hands", "sides"):
            _require(len(getattr(self, name)) == 2, f"{name} are two, right and left")
        for known, found, what in (
            (MUSCLE_OF_GROUP, self.groups, "group"),
            (SPINAL_JOINTS, self.centres_m, "joint"),
            (ADOPTED_BODIES, self.carried.values(), "body"),
        ):
            for name in found:
                _require(name in known, f"no {what} {name!r}; there are {', '.join(known)}")
        for joint, centre in self.centres_m.items():
            finite = all(math.isfinite(value) for value in centre)
            _require(len(centre) == 3 and finite, f"the centre of {joint} is x, y, z in metres")
        for height_m in (self.height_m, self.female_height_m):
            _require(height_m is None or 0.0 < height_m < math.inf, "a stature is more than 0 m")
        low, high = SACRAL_SLOPE_LIMITS_DEG
        _require(low <= self.sacral_slope_deg <= high, f"sacral_slope_deg is from {low:g} to {high:g}")
        for group, pattern in self.groups.items():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigurationError(f"names of base models: pattern of {group}: {error}") from error

    def of_sex(self, sex: Literal["male", "female"]) -> ModelNames:
        """The table for the model of one sex: `height_m` is its stature."""
        height_m = self.height_m if sex == "male" or self.female_height_m is None else self.female_height_m
        return replace(self, height_m=height_m, female_height_m=None)

    def side_of(self, muscle: str) -> str | None:
        """The ending `_r` or `_l` of adopted names; None where the name ends otherwise."""
        right, left = (muscle.lower().endswith(side.lower()) for side in self.sides)
        return "_r" if right else "_l" if left else None

    def stem_of(self, muscle: str) -> str:
        """Name of a muscle without its side."""
        endings = {"_r": self.sides[0], "_l": self.sides[1], None: ""}
        return muscle[: len(muscle) - len(endings[self.side_of(muscle)])]

    def group_of(self, muscle: str) -> str | None:
        """Group of a muscle; None where no pattern, or more than one, fits."""
        stem = self.stem_of(muscle)
        fits = [group for group, pattern in self.groups.items() if re.fullmatch(pattern, stem)]
        return fits[0] if len(fits) == 1 else None


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise ConfigurationError(f"names of base models: {message}")


_CHRISTOPHY_JOINTS: Final = ("L5_S1_IVDjnt", "L4_L5_IVDjnt", "L3_L4_IVDjnt", "L2_L3_IVD_jnt", "L1_L2_IVD_jnt")
_ESTIMATED_HEIGHT_M: Final = 1.80
"""Own estimate: pelvis 0.94 m above the soles, vertex 0.86 m above the pelvis (length of the head, de Leva 1996). The
legs of both models come from one of a man of 1.8 m."""

READY: Final[Mapping[str, ModelNames]] = {
    "bidmc": ModelNames(carried={"Abdomen": "L2"}, height_m=1.75, female_height_m=1.63),
    "lfb": ModelNames(
        joints=(*_CHRISTOPHY_JOINTS, "L1_T12_IVD_jnt"),
        arms=("humerus_r", "humerus_l"),
        hands=("hand_r", "hand_l"),
        carried={"Abdomen": "L2"},
        height_m=_ESTIMATED_HEIGHT_M,
    ),
    "fbls": ModelNames(
        joints=(*_CHRISTOPHY_JOINTS, "Torsojnt"),
        arms=("humerus_r", "humerus_l"),
        hands=("hand_r", "hand_l"),
        carried={"Abdomen": "L2", "LB_wrap": "L3"},
        centres_m={"T12_L1": (-0.0104, 0.0275, 0.0)},
        height_m=_ESTIMATED_HEIGHT_M,
    ),
}
"""Ready tables: models after Bruno et al. 2015, the lifting full-body model (Beaucage-Gauvreau et al. 2019) and the
full-body lumbar spine model (Raabe & Chaudhari 2016), whose torso turns about a point far below T12/L1: the centre is
that of the lifting model, whose vertebrae have the same frames.

Of all bodies L2 brings the points of the abdomen, and L3 the lumbar wrap surface, closest to where the couplers of the
last two bring them in lumbar flexion of 45 degrees (tests/test_loading_adopt.py)."""
