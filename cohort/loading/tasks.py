"""Postures and hand loads for which loads are computed.

Angles are changes from a person's upright standing. Signs follow the model's frame, x forward, y up, z to the right:
flexion is a turn about -z, bending to the right about x, turning to the left about y.

How a posture is shared out:

- Flexion of the trunk is that of the lumbar spine (T12 against S1) plus that of the pelvis at the hips. Three quarters
  are lumbar, in quiet bending up to about 70 degrees. In 124 adults without back pain the lumbar spine gave 52 (SD 11)
  of 111 degrees of full flexion (BMC Musculoskelet Disord 2019;20:28, table 3), so its part is well above one half at
  first and ends near 52 degrees. The three quarters themselves are this project's choice; papers on the rhythm
  (reviewed by Vazirian et al. 2016, Int Musculoskelet Med 38:51) differ with pace, load, age and sex.
- The lumbar parts are shared by the six joints in fixed proportions (`LUMBAR_RHYTHM`, `BENDING_SHARE`,
  `TURNING_SHARE`). Each joint turns about its own axes, first z, then x, then y; where several angles are not zero,
  their sums over the joints describe the posture, and the thorax's own direction in space is only near to them.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import numpy.typing as npt

from cohort.errors import ConfigurationError

LUMBAR_RHYTHM: Final = (0.14, 0.26, 0.23, 0.16, 0.13, 0.08)
"""Share of lumbar flexion in L5/S1, L4/L5, L3/L4, L2/L3, L1/L2, T12/L1: Beaucage-Gauvreau et al. 2019 (Comput Methods
Biomech Biomed Eng 22:451), who give 1 : 1.857 : 1.643 : 1.143 : 0.929 : 0.571."""
BENDING_SHARE: Final = (0.0928, 0.1234, 0.2255, 0.2255, 0.1892, 0.1437)
"""Share of lateral bending in the same joints: couplers of the published model of Beaucage-Gauvreau et al. 2019,
1 : 1.33 : 2.4314 : 2.4314 : 2.0392 : 1.549; the model of Raabe & Chaudhari 2016 has the same order of levels."""
TURNING_SHARE: Final = (0.1798, 0.1910, 0.1910, 0.1573, 0.1461, 0.1348)
"""Share of axial turning: couplers of the same model, 1 : 1.0625 : 1.0625 : 0.875 : 0.8125 : 0.75. Nearly even, as in
volunteers: 1.2 to 1.7 degrees at each level when the trunk turns by 45 (Fujii et al. 2007, Eur Spine J 16:1867)."""

LIMITS: Final = {
    "trunk_flexion_deg": (-30.0, 110.0),
    "lumbar_share": (0.0, 1.0),
    "pelvic_retroversion_deg": (-30.0, 50.0),
    "lateral_bend_deg": (-40.0, 40.0),
    "axial_turn_deg": (-25.0, 25.0),
    "arm_elevation_deg": (-40.0, 180.0),
    "right_hand_kg": (0.0, 100.0),
    "left_hand_kg": (0.0, 100.0),
}
"""What a task may ask for (this project's choice, about what healthy adults can do)."""
LUMBAR_FLEXION_LIMIT_DEG: Final = 65.0
"""Lumbar flexion that one in ten adults exceeds (BMC Musculoskelet Disord 2019;20:28, table 3)."""
NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True, kw_only=True)
class Task:
    """A posture with a load in each hand; angles are changes from upright standing.

    Raises ConfigurationError, which names field and value, for a number that is not finite or outside `LIMITS`, for
    more lumbar flexion than `LUMBAR_FLEXION_LIMIT_DEG`, and for a name of other than small letters, digits, _ and -.

    Example
    -------
    >>> Task(name="bowing", trunk_flexion_deg=30.0).pelvis_tilt_rad
    -0.1308996938995747
    """

    name: str
    trunk_flexion_deg: float = 0.0
    """Forward inclination of the thorax from the person's own standing posture (`cohort.loading.standing`)."""
    lumbar_share: float = 0.75
    """Part of the inclination that comes from the lumbar spine (T12-S1); the pelvis turns by the rest at the hips."""
    pelvic_retroversion_deg: float = 0.0
    """Backward tilt of the pelvis that lumbar flexion makes up for, as in sitting: the thorax stays where it is."""
    lateral_bend_deg: float = 0.0
    """Of the thorax against the pelvis, to the right positive."""
    axial_turn_deg: float = 0.0
    """Of the thorax against the pelvis, to the left positive."""
    arm_elevation_deg: float = 0.0
    """Of both straight arms, forward from hanging vertically, in the vertical plane that the thorax faces."""
    right_hand_kg: float = 0.0
    left_hand_kg: float = 0.0

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ConfigurationError(f"the name of a task is small letters, digits, _ and -, not {self.name!r}")
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                raise ConfigurationError(f"task {self.name!r}: {name} is between {low:g} and {high:g}, not {value:g}")
        if self.lumbar_flexion_deg > LUMBAR_FLEXION_LIMIT_DEG:
            raise ConfigurationError(
                f"task {self.name!r}: trunk_flexion_deg x lumbar_share + pelvic_retroversion_deg is "
                f"{self.lumbar_flexion_deg:g} degrees of lumbar flexion, at most {LUMBAR_FLEXION_LIMIT_DEG:g}; lower "
                "lumbar_share"
            )

    @property
    def lumbar_flexion_deg(self) -> float:
        """Flexion of T12 against S1."""
        return self.trunk_flexion_deg * self.lumbar_share + self.pelvic_retroversion_deg

    @property
    def joint_angles_rad(self) -> npt.NDArray[np.float64]:
        """[6, 3] angles of L5/S1 .. T12/L1 about z (extension positive), x (to the right) and y (to the left), which
        are the coordinates `<joint>_FE`, `_LB` and `_AR`."""
        total = np.radians([-self.lumbar_flexion_deg, self.lateral_bend_deg, self.axial_turn_deg])
        share = np.array([LUMBAR_RHYTHM, BENDING_SHARE, TURNING_SHARE])
        return np.asarray((share / share.sum(axis=1, keepdims=True)).T * total, dtype=np.float64)

    @property
    def pelvis_tilt_rad(self) -> float:
        """Turn of the pelvis about z, backward positive."""
        return float(np.radians(self.pelvic_retroversion_deg - self.trunk_flexion_deg * (1.0 - self.lumbar_share)))

    @property
    def arm_elevation_rad(self) -> float:
        return math.radians(self.arm_elevation_deg)

    @property
    def hand_kg(self) -> tuple[float, float]:
        """Loads in the right and the left hand."""
        return self.right_hand_kg, self.left_hand_kg


STANDING: Final = Task(name="standing")
STANDING_5KG: Final = Task(name="standing_5kg", right_hand_kg=5.0, left_hand_kg=5.0)
FLEXION30: Final = Task(name="flexion30", trunk_flexion_deg=30.0)
FLEXION60_5KG: Final = Task(name="flexion60_5kg", trunk_flexion_deg=60.0, right_hand_kg=5.0, left_hand_kg=5.0)
"""Flexion of 60 degrees with 5 kg in each hand, as Hess et al. compute it. Their split between lumbar spine and hips is
not printed."""

WILKE_STANDING_FLEXED: Final = Task(name="wilke_standing_flexed", trunk_flexion_deg=36.0)
"""1.1 MPa. The abstract prints no angle; 36 degrees is what simulations of that measurement use (Rohlmann et al. 2009,
from memory)."""
WILKE_LIFT_ROUND_BACK: Final = Task(
    name="wilke_lift_round_back", trunk_flexion_deg=70.0, right_hand_kg=10.0, left_hand_kg=10.0
)
"""2.3 MPa, 20 kg lifted with round back and straight knees. No angle is printed: 70 degrees is a working value, at
which the lumbar spine (three quarters) has used up its range of 52 degrees and the hanging hands reach knee height."""
WILKE_HOLD_CLOSE: Final = Task(name="wilke_hold_close", arm_elevation_deg=20.0, right_hand_kg=10.0, left_hand_kg=10.0)
"""1.1 MPa, 20 kg held close to the body. The model's arms are straight, so the load hangs lower than in bent arms, but
as far in front: 20 degrees put it about 0.2 m before the shoulders (working value)."""
WILKE_HOLD_60CM: Final = Task(name="wilke_hold_60cm", arm_elevation_deg=75.0, right_hand_kg=10.0, left_hand_kg=10.0)
"""3.6 times standing (about 1.8 MPa; not in the abstract, read from the chart in the documentation of AnyBody's model
repository), 20 kg held 60 cm in front of the chest, where straight arms of a man of 1.75 m, raised by 75 degrees,
come nearest to it: 0.6 m before the shoulders (working value). People lean back; the model does not."""
WILKE_SITTING: Final = Task(name="wilke_sitting", pelvic_retroversion_deg=18.0)
"""0.46 MPa, sitting upright without backrest. The pelvis tilts back by 18 degrees against standing: Endo et al. 2012
(J Orthop Sci 17:682), 50 adults."""
WILKE_SITTING_FLEXED: Final = Task(name="wilke_sitting_flexed", pelvic_retroversion_deg=18.0, trunk_flexion_deg=45.0)
"""0.83 MPa, sitting and bent forward as far as possible. 45 degrees is a working value that with the pelvis tilted back
uses up the lumbar range of 52 degrees; the arms hang, elbows do not rest on the thighs."""

WILKE_TASKS: Final = (
    WILKE_STANDING_FLEXED,
    WILKE_LIFT_ROUND_BACK,
    WILKE_HOLD_CLOSE,
    WILKE_HOLD_60CM,
    WILKE_SITTING,
    WILKE_SITTING_FLEXED,
)
"""Postures in which Wilke et al. 1999 (Spine 24:755; one man, 45 years, 70 kg) measured the pressure in the disc L4-L5,
quoted with each; `standing` (0.5 MPa) is one of them, too. Not here: lying, leaning back and sitting with elbows on the
thighs, where something else than the spine carries the trunk; walking, running, stairs and sneezing, which are not
at rest; straining, for the model has no pressure in the abdomen."""

DEFAULT_TASKS: Final = ("standing", "standing_5kg", "flexion30", "flexion60_5kg")
"""Tasks of a run whose configuration names none."""
TASKS: Final = {task.name: task for task in (STANDING, STANDING_5KG, FLEXION30, FLEXION60_5KG, *WILKE_TASKS)}
"""Tasks that ship."""
TASK_KEYS: Final = tuple(field.name for field in fields(Task) if field.name != "name")
"""Keys of a task in the configuration."""
