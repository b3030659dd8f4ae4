"""Faults of the sagittal stack: its field of view, its pictures, the masks of bodies and discs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import cv2
import numpy as np

from cohort.anatomy.orientation import cropped
from cohort.errors import RefusedError
from cohort.rows import QualityRow
from cohort.stacks import LabelledStack
from cohort.terms import DISC, VERTEBRAL_BODY
from pipelines.validation.flag_exam import SUBJECT, Case, Exam, Spoilt, disk, exam_of
from pipelines.validation.real_scans import Networks


def _no_bodies(exam: Exam) -> Exam:
    return exam.with_labels(vertebral_body=np.zeros_like(exam.bodies))


def _no_discs(exam: Exam) -> Exam:
    return exam.with_labels(disc=np.zeros_like(exam.discs))


def _part(exam: Exam, slices: slice = slice(None), rows: slice = slice(None)) -> Exam:
    """The sagittal stack with a smaller field of view."""
    stack, (n_rows, n_columns) = exam.sagittal.stack, exam.sagittal.stack.geometry.shape
    start, stop, _ = rows.indices(n_rows)
    geometry = cropped(stack.geometry, (slice(start, stop), slice(0, n_columns)))
    geometry = replace(geometry, position_mm=geometry.position_mm[slices])
    labels = {name: one[slices, rows] for name, one in exam.sagittal.labels.items()}
    sagittal = LabelledStack(replace(stack, image=stack.image[slices, rows], geometry=geometry), labels, {})
    return replace(exam, sagittal=sagittal, bodies=exam.bodies[slices, rows], discs=exam.discs[slices, rows])


def _without_sacrum(exam: Exam) -> Exam:
    return _part(exam, rows=slice(0, int(np.nonzero(exam.disc("L5-S1"))[1].mean())))


def _through_top(exam: Exam) -> Exam:
    return _part(exam, rows=slice(int(np.nonzero(exam.body("L1"))[1].mean()), None))


def _few_slices(exam: Exam) -> Exam:
    middle = exam.sagittal.stack.geometry.n_slices // 2
    return _part(exam, slices=slice(middle - 3, middle + 4))


def _half_sacrum(exam: Exam) -> Exam:
    """The picture ends within S1, and what it shows of S1 is in the other class."""
    labels, s1 = exam.body_labels, exam.body("S1")
    labels[s1] = VERTEBRAL_BODY
    rows = np.nonzero(s1)[1]
    return _part(exam.with_labels(vertebral_body=labels), rows=slice(0, int(np.quantile(rows, 0.4))))


def _lumbarised(exam: Exam) -> Exam:
    """The phantom does not label the disc S1-S2: here the disc above S1 stands there, too."""
    exam = exam_of(replace(SUBJECT, seed=39, findings=("lumbarised_s1",)))
    disc = np.argwhere(exam.disc("L5-S1"))
    step = np.argwhere(exam.body("S2")).mean(axis=0) - np.argwhere(exam.body("S1")).mean(axis=0)
    labels, moved = exam.disc_labels, (disc + step.round().astype(int))
    inside = (moved < labels.shape).all(axis=1)
    labels[tuple(moved[inside].T)] = DISC
    return exam.with_labels(disc=labels)


def _disc_gone(exam: Exam) -> Exam:
    return exam.with_labels(disc=np.where(exam.disc("L3-L4"), 0, exam.disc_labels).astype(np.uint8))


def _tall_disc(exam: Exam) -> Exam:
    disc = exam.disc("L3-L4").astype(np.uint8)
    tall = np.stack([cv2.dilate(plane, np.ones((9, 1), np.uint8)) for plane in disc]).astype(bool)
    return exam.with_labels(disc=np.where(tall, DISC, exam.disc_labels).astype(np.uint8))


def _half_body(exam: Exam) -> Exam:
    body = exam.body("L3")
    front = body & (np.arange(body.shape[2]) < np.quantile(np.nonzero(body)[2], 0.6))
    return exam.with_labels(vertebral_body=np.where(body & ~front, 0, exam.body_labels).astype(np.uint8))


def _body_gone(exam: Exam) -> Exam:
    return exam.with_labels(vertebral_body=np.where(exam.body("L2"), 0, exam.body_labels).astype(np.uint8))


def _tongue(exam: Exam) -> Exam:
    """A tongue of the disc L3-L4, four millimetres wide and six high, into L3."""
    bodies, discs, disc = exam.body_labels, exam.disc_labels, exam.disc("L3-L4")
    _, row, column = np.argwhere(disc).mean(axis=0).astype(int)
    at = disc.any(axis=(1, 2)), slice(row - 8, row), slice(column, column + 3)
    discs[at], bodies[at] = DISC, 0
    return exam.with_labels(vertebral_body=bodies, disc=discs)


def _cut_endplate(exam: Exam, name: str, turn_deg: float) -> Exam:
    """What lies above the superior endplate of a body after that was turned about its higher end; positive lowers the
    front."""
    found = exam.measured()
    index = [one.level for one in found.vertebrae].index(name)
    ends = exam.sagittal.stack.geometry.to_index(found.endplates_mm[index])[:, 1:]
    (row, column), other = ends[::-1] if turn_deg > 0 else ends
    slope = np.arctan2(other[0] - row, abs(other[1] - column)) + np.radians(abs(turn_deg))
    rows, columns = np.indices(exam.bodies.shape[1:])
    above = exam.body(name) & (rows - row < np.tan(slope) * np.abs(columns - column))
    return exam.with_labels(vertebral_body=np.where(above, 0, exam.body_labels).astype(np.uint8))


def _steep_sacrum(exam: Exam) -> Exam:
    return _cut_endplate(exam, "S1", 27.0)


def _steep_l1(exam: Exam) -> Exam:
    return _cut_endplate(exam, "L1", -22.0)


def _triangle(exam: Exam) -> Exam:
    """L3 with a point for an upper endplate."""
    body = exam.body("L3")
    _, row, column = np.nonzero(body)
    rows, columns = np.indices(body.shape[1:])
    across = np.abs(columns - column.mean()) / np.ptp(column)
    inside = across < 0.4 * (rows - row.min()) / np.ptp(row)
    return exam.with_labels(vertebral_body=np.where(body & ~inside, 0, exam.body_labels).astype(np.uint8))


def _slice_gone(exam: Exam) -> Exam:
    stack = exam.sagittal.stack
    kept = np.arange(stack.geometry.n_slices) != stack.geometry.n_slices // 2 - 1
    geometry = replace(stack.geometry, position_mm=stack.geometry.position_mm[kept])
    labels = {name: one[kept] for name, one in exam.sagittal.labels.items()}
    sagittal = LabelledStack(replace(stack, image=stack.image[kept], geometry=geometry), labels, {})
    return replace(exam, sagittal=sagittal, bodies=exam.bodies[kept], discs=exam.discs[kept])


def _false_body(exam: Exam, half: tuple[float, float, float]) -> Exam:
    """An ellipsoid in front of the spine; half its extent in slices, rows and columns."""
    labels = exam.body_labels
    centre = np.argwhere(exam.body("L4")).mean(axis=0) - (0, 0, 38)
    at = np.indices(labels.shape, sparse=True)
    inside = sum(((axis - middle) / size) ** 2 for axis, middle, size in zip(at, centre, half, strict=True)) < 1
    labels[inside] = VERTEBRAL_BODY
    return exam.with_labels(vertebral_body=labels)


def _large_false_body(exam: Exam) -> Exam:
    return _false_body(exam, (3, 24, 15))


def _small_false_body(exam: Exam) -> Exam:
    return _false_body(exam, (2, 9, 9))


def _unsure(exam: Exam) -> Exam:
    return replace(exam, sagittal=replace(exam.sagittal, uncertainty={"disc": 0.62}))


def _coarse(exam: Exam) -> Spoilt:
    """Pixels of 4 mm, given to the shipped network."""
    stack = exam.sagittal.stack
    geometry = stack.geometry
    coarse = replace(geometry, spacing_mm=(4.0, 4.0), shape=(geometry.shape[0] // 4, geometry.shape[1] // 4))
    rows, columns = coarse.shape
    image = stack.image[:, : 4 * rows, : 4 * columns].reshape(-1, rows, 4, columns, 4).mean(axis=(2, 4))
    nothing = np.zeros(image.shape, np.uint8)
    labels = {"vertebral_body": nothing, "disc": nothing}
    spoilt = LabelledStack(replace(stack, image=image.astype(np.uint16), geometry=coarse), labels, {})
    exam = replace(exam, sagittal=spoilt, axial=(), bodies=nothing, discs=nothing)
    try:
        Networks("vertebral_body", "disc", "muscle").segment("vertebral_body", spoilt.stack)
    except RefusedError as refusal:
        row = QualityRow(exam_id="phantom", stage="segment", reason=refusal.reason, structure=None)
        return Spoilt(exam, replace(exam.measured(), quality=(row,)))
    return Spoilt(exam, exam.measured())


def _small_body(exam: Exam) -> Exam:
    """L3 five millimetres smaller all around, on its slices."""
    body = exam.body("L3")
    small = np.stack([cv2.erode(plane, disk(4)) for plane in body.astype(np.uint8)]).astype(bool)
    return exam.with_labels(vertebral_body=np.where(body & ~small, 0, exam.body_labels).astype(np.uint8))


def _broken_body(exam: Exam) -> Exam:
    """A gap of two pixels across the lower half of L3."""
    body = exam.body("L3")
    row = int(np.quantile(np.nonzero(body)[1], 0.7))
    labels = exam.body_labels
    labels[:, row : row + 2][body[:, row : row + 2]] = 0
    return exam.with_labels(vertebral_body=labels)


def _bridge(exam: Exam) -> Exam:
    """A strip of three pixels from L3 to L4 on all slices of both."""
    labels, both = exam.body_labels, exam.body("L3") | exam.body("L4")
    top, bottom = (int(np.nonzero(exam.body(name))[1].mean()) for name in ("L3", "L4"))
    column = int(np.nonzero(both)[2].mean())
    labels[both.any(axis=(1, 2)), top:bottom, column : column + 3] = VERTEBRAL_BODY
    return exam.with_labels(vertebral_body=labels)


def _holes(exam: Exam) -> Exam:
    labels = exam.body_labels
    _, row, column = np.argwhere(exam.body("L3")).mean(axis=0).astype(int)
    labels[:, row + 5 : row + 10, column - 2 : column + 3] = 0
    return exam.with_labels(vertebral_body=labels)


def _fracture(exam: Exam) -> Exam:
    return exam_of(replace(SUBJECT, seed=31, findings=("wedge_fracture",)))


def _noise(exam: Exam) -> Exam:
    stack = exam.sagittal.stack
    image = stack.image + np.random.default_rng(0).normal(0, 450, stack.image.shape)
    noisy = replace(stack, image=np.clip(image, 0, 4095).astype(np.uint16))
    return replace(exam, sagittal=replace(exam.sagittal, stack=noisy))


SPINE_CASES: Final[Mapping[str, Case]] = {
    "no_vertebrae": Case("no body in the masks", _no_bodies),
    "no_discs": Case("no disc in the masks", _no_discs),
    "levels_undecided": Case("the picture ends above the sacrum", _without_sacrum),
    "levels_low_confidence": Case("the picture ends in S1, and the masks call S1 a lumbar body", _half_sacrum),
    "lumbar_variant": Case("a subject with a lumbarised S1 and a disc below it", _lumbarised),
    "count_mismatch": Case("the disc L3-L4 is missing from the masks", _disc_gone),
    "touches_border": Case("the picture begins in the middle of L1", _through_top),
    "outermost_slice": Case("seven slices, narrower than the vertebrae", _few_slices),
    "no_shape": Case("L3 is a triangle in the masks", _triangle),
    "implausible_disc_height": Case("the disc L3-L4 is drawn far into the bodies", _tall_disc),
    "disc_readings_differ": Case("a tongue of the disc L3-L4 into L3", _tongue),
    "implausible_body_size": Case("only the front of L3 is in the masks", _half_body),
    "implausible_spacing": Case("L2 is missing from the masks", _body_gone),
    "implausible_angle": Case("the upper front of S1 is missing from the masks", _steep_sacrum),
    "compression_suspected": Case("a subject with a wedge fracture", _fracture),
    "lordosis_conflict": Case("the upper back of L1 is missing from the masks", _steep_l1),
    "slices_missing": Case("a slice is missing from the stack", _slice_gone),
    "size_jump": Case("L3 is drawn too small all around", _small_body),
    "low_contrast": Case("noise over the sagittal pictures", _noise),
    "components_removed": Case("a large false body in front of the spine", _large_false_body),
    "pieces_removed": Case("a small false body in front of the spine", _small_false_body),
    "pieces_joined": Case("a gap across L3", _broken_body),
    "pieces_separated": Case("a strip from L3 to L4", _bridge),
    "bridges_removed": Case("a strip from L3 to L4", _bridge),
    "cracks_filled": Case("a gap across L3", _broken_body),
    "holes_filled": Case("a hole in L3 on every slice", _holes),
    "network_uncertain": Case("the network reports 0.62 bit for its discs", _unsure),
    "network_misfit": Case("pixels of 4 mm", _coarse),
}
"""Code -> case."""
