"""Weighting of a series by the physics of its sequence: times and flip angle first, names where nothing else is left.

Limits are those of clinical lumbar protocols at 0.2-3 T; what lies outside is not guessed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Final, Literal

from cohort.archive.vocabulary import FAT_WORDS, IN_PHASE_WORDS, OUT_OF_PHASE_WORDS, WATER_WORDS
from cohort.rows import FileRow

Contrast = Literal["t1", "t2"]
SequenceKind = Literal["spin_echo", "inversion_recovery", "gradient_echo", "in_phase", "described"]
DixonImage = Literal["water", "fat", "out_of_phase", "in_phase", "unknown"]

T1_SPIN_ECHO_TR_MS: Final = (300.0, 1100.0)
T1_SPIN_ECHO_MAX_TE_MS: Final = 30.0
"""Lumbar T1 (turbo) spin echo: TR 446-746 ms, TE 7-14 ms in 196 clinical series (SPIDER, van der Graaf et al. 2024),
up to about 1,000 ms at 3 T, and TE up to 26 ms at low field."""
T1_FLAIR_TI_MS: Final = (500.0, 1300.0)
T1_FLAIR_TR_MS: Final = (1400.0, 3500.0)
"""T1 FLAIR, usual at 3 T: TI about 700-1,000 ms, TR about 1,800-2,500 ms."""
STIR_MAX_TI_MS: Final = 300.0
"""TI that nulls fat: about 150-180 ms at 1.5 T and 200-240 ms at 3 T."""
T1_GRADIENT_ECHO_MAX_TE_MS: Final = 10.0
SHORT_TR_MS: Final = 300.0
"""Spin echoes take longer: a shorter one is a mislabelled gradient echo."""
MUSCLE_T1_MS: Final = 900.0
"""Paravertebral muscle, 856 ms at 1.5 T and 898 ms at 3 T (de Bazelaire et al., Radiology 2004)."""
T2_SPIN_ECHO_MIN_TR_MS: Final = 1000.0
T2_SPIN_ECHO_TE_MS: Final = (60.0, 200.0)
"""Lumbar T2 turbo spin echo, 3D ones included; longer echoes are myelograms, shorter ones proton density."""
SHORTEST_TR_MS: Final = 1.5
SHORTEST_TE_MS: Final = 0.5
"""Below, the file's times are in seconds, or placeholders."""

WATER_FAT_SHIFT_HZ_PER_T: Final = 3.4e-6 * 42.577e6
"""Fat precesses 3.4 ppm slower than water: 217 Hz at 1.5 T."""
PHASE_TOLERANCE: Final = 0.15
"""Echoes within this part of a cycle of 0 or 1/2 are in phase or out of phase."""

OTHER_SEQUENCES: Final = frozenset(("balanced", "diffusion", "angiography"))


@dataclass(frozen=True)
class Weighting:
    """What a series shows, and what that rests on."""

    contrast: Contrast | None = None
    kind: SequenceKind | None = None
    known: bool = True
    """False if neither the physics nor the description says it."""


OTHER: Final = Weighting()
UNKNOWN: Final = Weighting(known=False)


def weighting(rows: Sequence[FileRow], image: DixonImage | None) -> Weighting:
    """Weighting of the images of one part of a series.

    Times count before names: a "spin echo" of TR 10 ms is a mislabelled gradient echo.

    Parameters
    ----------
    rows : usable rows of the part
    image : as `dixon_image` finds it
    """
    hints = words(rows, "text_hints")
    if "EP" in words(rows, "scanning_sequence") or hints & OTHER_SEQUENCES:
        return OTHER
    repetition, echo = _times(rows)
    if repetition is None or echo is None:
        return _described(hints, repetition, echo)
    inversion = middle(row.inversion_time_ms for row in rows)
    if inversion is not None and repetition >= T1_FLAIR_TR_MS[0]:
        return _inverted(repetition, echo, inversion)
    found = _gradient_echo(rows, repetition, echo) if is_gradient_echo(rows) else _spin_echo(repetition, echo)
    return replace(found, kind="in_phase") if found.contrast and image == "in_phase" else found


def is_gradient_echo(rows: Sequence[FileRow]) -> bool:
    """Say if it is a gradient echo by its repetition time, else by ScanningSequence."""
    repetition, _ = _times(rows)
    codes = words(rows, "scanning_sequence")
    return (repetition or math.inf) < SHORT_TR_MS or ("GR" in codes and "SE" not in codes)


def _times(rows: Sequence[FileRow]) -> tuple[float | None, float | None]:
    """Repetition and echo time that can be, else None."""
    repetition = middle(row.repetition_time_ms for row in rows)
    echo = middle(row.echo_time_ms for row in rows)
    in_seconds = (repetition or math.inf) < SHORTEST_TR_MS or (echo or math.inf) < SHORTEST_TE_MS
    return (None, None) if in_seconds else (repetition, echo)


def _described(hints: frozenset[str], repetition_ms: float | None, echo_ms: float | None) -> Weighting:
    """Weighting by the words of the description alone; they must name one, and no time may speak against it."""
    named = hints & {"t1", "t2", "pd", "stir"}
    if named == {"t1"}:
        denied = (repetition_ms or 0) > T1_FLAIR_TR_MS[1] or (echo_ms or 0) > T1_SPIN_ECHO_MAX_TE_MS
        return OTHER if denied else Weighting("t1", "described")
    if named == {"t2"} and "flair" not in hints:
        denied = (repetition_ms or math.inf) < T2_SPIN_ECHO_MIN_TR_MS or not _within(echo_ms, T2_SPIN_ECHO_TE_MS)
        return OTHER if denied else Weighting("t2", "described")
    return OTHER if named and "t1" not in named else UNKNOWN


def _inverted(repetition_ms: float, echo_ms: float, inversion_ms: float) -> Weighting:
    is_t1 = _within(inversion_ms, T1_FLAIR_TI_MS) and _within(repetition_ms, T1_FLAIR_TR_MS)
    return Weighting("t1", "inversion_recovery") if is_t1 and echo_ms <= T1_SPIN_ECHO_MAX_TE_MS else OTHER


def _spin_echo(repetition_ms: float, echo_ms: float) -> Weighting:
    if _within(repetition_ms, T1_SPIN_ECHO_TR_MS) and echo_ms <= T1_SPIN_ECHO_MAX_TE_MS:
        return Weighting("t1", "spin_echo")
    if repetition_ms >= T2_SPIN_ECHO_MIN_TR_MS and _within(echo_ms, T2_SPIN_ECHO_TE_MS):
        return Weighting("t2", "spin_echo")
    return OTHER


def _gradient_echo(rows: Sequence[FileRow], repetition_ms: float, echo_ms: float) -> Weighting:
    """T1 if the flip angle is the Ernst angle of muscle or more (Ernst and Anderson, Rev Sci Instrum 1966).

    MEDIC and MERGE (T2*) and Dixon acquisitions for fat fractions stay well below it.
    """
    flip = middle(row.flip_angle_deg for row in rows)
    ernst = math.degrees(math.acos(math.exp(-repetition_ms / MUSCLE_T1_MS)))
    enough = repetition_ms < SHORT_TR_MS if flip is None else flip >= ernst
    return Weighting("t1", "gradient_echo") if enough and echo_ms <= T1_GRADIENT_ECHO_MAX_TE_MS else OTHER


def nulls_fat(rows: Sequence[FileRow]) -> bool:
    """Say if the inversion time is that of STIR; in gradient echoes it is the interval between preparations."""
    inversion = middle(row.inversion_time_ms for row in rows)
    return inversion is not None and inversion <= STIR_MAX_TI_MS and "GR" not in words(rows, "scanning_sequence")


def dixon_image(rows: Sequence[FileRow], *, one_of_several_echoes: bool) -> DixonImage | None:
    """Which image of a Dixon acquisition this is, None if it is of none; `unknown` if the header does not say which.

    ImageType counts before the description; the phase of an echo counts where a gradient echo has several.
    """
    types, hints = words(rows, "image_type"), words(rows, "text_hints")
    in_or_out = {"in_phase", "out_of_phase"} <= hints  # the name of the acquisition, not of one image
    found = _image_of_types(types) or (None if in_or_out else _image_of_hints(hints))
    if found:
        return found
    if "dixon" in hints or "DIXON" in types:  # water and fat carry the echo time of one of the images they come from
        return "unknown"
    if (one_of_several_echoes or in_or_out) and is_gradient_echo(rows):
        return echo_phase(rows) or "unknown"
    return "unknown" if in_or_out else None


def _image_of_types(types: frozenset[str]) -> DixonImage | None:
    if types & OUT_OF_PHASE_WORDS:
        return "out_of_phase"
    if types & WATER_WORDS:
        return "water"
    if types & FAT_WORDS:
        return "fat"
    return "in_phase" if types & IN_PHASE_WORDS else None


def _image_of_hints(hints: frozenset[str]) -> DixonImage | None:
    if "out_of_phase" in hints:
        return "out_of_phase"
    if "water" in hints:
        return "water"
    if {"dixon", "fat"} <= hints:
        return "fat"
    return "in_phase" if "in_phase" in hints else None


def echo_phase(rows: Sequence[FileRow]) -> DixonImage | None:
    """In or out of phase by the echo time of a gradient echo; `unknown` in between, None without field strength."""
    field, echo = middle(row.field_t for row in rows), middle(row.echo_time_ms for row in rows)
    if field is None or echo is None:
        return None
    cycles = WATER_FAT_SHIFT_HZ_PER_T * field * echo / 1000.0
    from_half = abs(cycles % 1.0 - 0.5)
    if from_half < PHASE_TOLERANCE:
        return "out_of_phase"
    return "in_phase" if from_half > 0.5 - PHASE_TOLERANCE else "unknown"


def words(rows: Sequence[FileRow], column: str) -> frozenset[str]:
    """Words that at least half of the rows have in a '+'-joined column."""
    texts = Counter(getattr(row, column) for row in rows)
    counts: Counter[str] = Counter()
    for text, n in texts.items():
        counts.update(dict.fromkeys((text or "").split("+"), n))
    return frozenset(word for word, n in counts.items() if word and 2 * n >= len(rows))


def middle(values: Iterable[float | None]) -> float | None:
    """Median of the values that are known, None if none is."""
    known = [value for value in values if value is not None]
    return float(median(known)) if known else None


def _within(value: float | None, limits: tuple[float, float]) -> bool:
    """Say if a value lies within limits; one that is not known may."""
    return value is None or limits[0] <= value <= limits[1]
