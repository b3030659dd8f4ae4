"""Faults of the axial stacks: where they lie, their pictures, the masks of muscles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import cv2
import numpy as np

from cohort.terms import MUSCLE_LABELS, SIDES
from pipelines.validation.flag_exam import LEVELS, Case, Exam, Mask, axial_stack, disk


def _changed_muscle(exam: Exam, level: str, muscle: str, side: str, change: Callable[[Mask], Mask]) -> Exam:
    """One muscle at one disc redrawn; what it grows into was no muscle before."""
    labels, value = exam.muscles(level), MUSCLE_LABELS[muscle, side]
    new = np.stack([change(plane) for plane in labels == value])
    labels[labels == value] = 0
    labels[new & (labels == 0)] = value
    return exam.with_muscles(level, labels)


def _huge_psoas(exam: Exam) -> Exam:
    return _changed_muscle(
        exam, "L3-L4", "psoas", "left", lambda plane: cv2.dilate(plane.astype(np.uint8), disk(12)) > 0
    )


def _small_psoas(exam: Exam) -> Exam:
    return _changed_muscle(exam, "L3-L4", "psoas", "left", lambda plane: cv2.erode(plane.astype(np.uint8), disk(5)) > 0)


def _no_multifidus(exam: Exam) -> Exam:
    return _changed_muscle(exam, "L4-L5", "multifidus", "right", np.zeros_like)


def _swapped_sides(exam: Exam) -> Exam:
    table = np.zeros(256, np.uint8)
    for (muscle, side), value in MUSCLE_LABELS.items():
        table[value] = MUSCLE_LABELS[muscle, SIDES[1 - SIDES.index(side)]]
    return exam.with_muscles("L3-L4", table[exam.muscles("L3-L4")])


def _no_slices(exam: Exam) -> Exam:
    return replace(exam, axial=tuple(one for one in exam.axial if one.stack.index != LEVELS.index("L3-L4")))


def _tilted_slices(exam: Exam) -> Exam:
    """Slices at the disc L3-L4 that lean by 30 degrees against it."""
    grid = exam.axial[2].stack.geometry
    across, back, up = grid.row_dir, grid.col_dir, grid.normal
    turn = np.radians(30.0)
    leaning, normal = np.cos(turn) * back + np.sin(turn) * up, np.cos(turn) * up - np.sin(turn) * back
    spine = exam.sagittal.stack.geometry.to_lps(np.argwhere(exam.disc("L3-L4")).mean(axis=0))
    corner = (
        spine - ((grid.position_mm[1] - spine) @ -across) * across + ((grid.position_mm[1] - spine) @ back) * leaning
    )
    steps = np.arange(-1, 2)[:, None] * 4.4 * normal
    leant = replace(grid, position_mm=corner + steps, col_dir=leaning)
    return replace(exam, axial=(*exam.axial[:2], axial_stack(exam.subject, 2, leant), *exam.axial[3:]))


def _other_frame(exam: Exam) -> Exam:
    last = exam.axial[2]
    moved = replace(last, stack=replace(last.stack, frame_of_reference_id="another"))
    return replace(exam, axial=(*exam.axial[:2], moved, *exam.axial[3:]))


def _gap_in_muscle(exam: Exam) -> Exam:
    labels = exam.muscles("L3-L4")
    labels[1][labels[1] == MUSCLE_LABELS["psoas", "left"]] = 0
    return exam.with_muscles("L3-L4", labels)


def _moved(exam: Exam, by_mm: tuple[float, float, float]) -> Exam:
    """All axial stacks elsewhere."""
    axial = []
    for one in exam.axial:
        geometry = replace(one.stack.geometry, position_mm=one.stack.geometry.position_mm + by_mm)
        axial.append(replace(one, stack=replace(one.stack, geometry=geometry)))
    return replace(exam, axial=tuple(axial))


def _moved_patient(exam: Exam) -> Exam:
    return _moved(exam, (15.0, 0.0, 0.0))


def _ghosts(exam: Exam) -> Exam:
    """A copy of a tenth of the signal, a third of the picture further back."""
    axial = []
    for one in exam.axial:
        image = one.stack.image + 0.1 * np.roll(one.stack.image, one.stack.image.shape[1] // 3, axis=1)
        axial.append(replace(one, stack=replace(one.stack, image=np.clip(image, 0, 4095).astype(np.uint16))))
    return replace(exam, axial=tuple(axial))


def _between_discs(exam: Exam) -> Exam:
    return _moved(exam, (0.0, 0.0, 18.0))


AXIAL_CASES: Final[Mapping[str, Case]] = {
    "axial_conflict": Case("all axial slices 18 mm too high: they lie on bodies", _between_discs, "planes"),
    "implausible_csa": Case("the left psoas is drawn far too large", _huge_psoas, "axial"),
    "side_asymmetry": Case("the left psoas is drawn too small", _small_psoas, "axial"),
    "sides_conflict": Case("left and right of the masks are exchanged", _swapped_sides, "axial"),
    "muscle_missing": Case("no right multifidus in the masks", _no_multifidus, "axial"),
    "muscle_gap": Case("no left psoas on the middle one of three slices", _gap_in_muscle, "axial"),
    "no_slice_at_level": Case("no axial slices at the disc L3-L4", _no_slices, "planes"),
    "oblique_slice": Case("slices at L3-L4 that lean by 30 degrees", _tilted_slices, "planes"),
    "different_frame": Case("the slices at L3-L4 have a frame of reference of their own", _other_frame, "planes"),
    "midlines_disagree": Case("all axial slices moved by 15 mm to the left", _moved_patient, "axial"),
    "ghosting": Case("a copy of a tenth of the signal, moved backward", _ghosts, "axial"),
}
"""Code -> case."""
