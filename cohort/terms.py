"""The project's vocabulary: levels, muscles, sides and the integers that stand for them in label arrays."""

from __future__ import annotations

from typing import Final

LUMBAR_VERTEBRAE: Final = ("L1", "L2", "L3", "L4", "L5")

MUSCLES: Final = ("multifidus", "erector_spinae", "psoas", "quadratus_lumborum")
SIDES: Final = ("left", "right")
"""The patient's sides: left is +x in DICOM LPS."""

VERTEBRAL_BODY: Final = 1
SACRAL_BODY: Final = 2
"""Values of the `vertebral_body` label array: bodies down to the last lumbar one, and S1 with all below."""

DISC: Final = 1
"""Value of the `disc` label array."""

MUSCLE_LABELS: Final[dict[tuple[str, str], int]] = {
    (muscle, side): 1 + 2 * m + s for m, muscle in enumerate(MUSCLES) for s, side in enumerate(SIDES)
}
"""Values of the `muscle` label array: multifidus left 1, right 2, erector spinae left 3, right 4, ..."""


def disc_name(above: str, below: str) -> str:
    """Name of the disc between two vertebrae, cranial first, for example `L4-L5`."""
    return f"{above}-{below}"
