"""Measure one exam: from label arrays and geometry to rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cohort.anatomy.axial_levels import axial_evidence
from cohort.anatomy.image_quality import picture_flags
from cohort.anatomy.lean import lean_rule
from cohort.anatomy.muscle_levels import muscle_level_rows
from cohort.anatomy.muscles import clean_muscles, judged_rows, midline_flags, muscle_rows, side_flags
from cohort.anatomy.quality import Flag, check, exam_status, quality_rows, uncertainty_flags, withheld
from cohort.anatomy.spine import Column, Spine, find_column, measure_spine
from cohort.anatomy.vertebral_count import known_count, most_likely_count
from cohort.geometry import Floats, StackGeometry
from cohort.rows import CurvatureRow, DiscRow, MuscleLevelRow, MuscleRow, QualityRow, VertebraRow
from cohort.stacks import LabelledStack


@dataclass(frozen=True, eq=False)
class Measurements:
    """All rows of one exam, and the masks they were measured on."""

    exam_id: str
    vertebrae: tuple[VertebraRow, ...]
    """From caudal to cranial, as the discs."""
    discs: tuple[DiscRow, ...]
    muscles: tuple[MuscleRow, ...]
    muscle_levels: tuple[MuscleLevelRow, ...]
    curvature: CurvatureRow | None
    quality: tuple[QualityRow, ...]
    status: str
    """ok, flagged or refused."""
    reason: str | None
    sagittal: LabelledStack | None
    """Cleaned labels `vertebral_body` and `disc`, and instances `body_instances` and `disc_instances` (value v is
    `vertebrae[v - 1]`, `discs[v - 1]`), in the stack's own axis order."""
    axial: tuple[LabelledStack, ...]
    """Cleaned label `muscle`."""
    endplates_mm: Mapping[int, Floats] = field(default_factory=dict)
    """Index of a vertebra -> [2, 3] anterior and posterior end of the superior endplate, LPS."""
    disc_rectangles_mm: Mapping[int, Floats] = field(default_factory=dict)
    """Index of a disc -> [4, 3] corners of the rectangle that its height is a side of, LPS."""


@dataclass(frozen=True, eq=False)
class Muscles:
    """What was measured on the axial stacks."""

    rows: tuple[MuscleRow, ...]
    shared: tuple[tuple[int, StackGeometry], ...]
    """(index in the exam store, geometry) of the stacks in the frame of reference of the sagittal one."""
    flags: tuple[Flag, ...]
    cleaned: tuple[LabelledStack, ...]


def measure_exam(
    exam_id: str,
    sagittal: LabelledStack | None,
    axial: Sequence[LabelledStack],
    *,
    n_lumbar: int | None = None,
    n_thoracic: int | None = None,
) -> Measurements:
    """Measure vertebrae, discs, curvature and muscles of one exam.

    Parameters
    ----------
    sagittal : labels `vertebral_body` (1 body, 2 sacral body) and `disc` (1); any axis order; of several stacks the
        caller passes the one with most slices
    axial : labels `muscle` (values of `terms.MUSCLE_LABELS`), any axis order and obliquity
    n_lumbar, n_thoracic : vertebrae of this person where somebody counted them on images of the whole spine

    Empty masks, missing stacks and stacks of another frame of reference give flags and fewer rows, never an error.
    """
    frame = sagittal.stack.frame_of_reference_id if sagittal is not None else None
    column = find_column(sagittal) if sagittal is not None else None
    muscles = measure_muscles(exam_id, axial, column, frame_of_reference_id=frame)
    spine = Spine(flags=(Flag("no_t1_sagittal"),))
    if sagittal is not None and column is not None:
        seen = axial_evidence(column.planes(), muscles.shared, muscles.rows)
        count = known_count(n_lumbar, n_thoracic) or most_likely_count(seen.psoas_cm2)
        spine = measure_spine(exam_id, sagittal, column, count, seen.conflicts)
    levels: list[MuscleLevelRow] = []
    flags = (*spine.flags, *muscles.flags, *picture_flags(spine.cleaned, muscles.cleaned))
    if muscles.shared:
        levels, doubts = muscle_level_rows(exam_id, spine.planes, muscles.shared, muscles.rows, spine.disc_doubts)
        flags = (*flags, *doubts)
    status, reason = exam_status(flags)
    if not spine.vertebrae and not spine.discs and not muscles.rows:
        status, reason = "refused", flags[0].reason
    return Measurements(
        exam_id=exam_id,
        vertebrae=tuple(withheld(row) for row in spine.vertebrae),
        discs=tuple(withheld(row) for row in spine.discs),
        muscles=tuple(withheld(row) for row in muscles.rows),
        muscle_levels=tuple(withheld(row) for row in levels),
        curvature=withheld(spine.curvature) if spine.curvature else None,
        quality=quality_rows(exam_id, flags),
        status=status,
        reason=reason,
        sagittal=spine.cleaned,
        axial=muscles.cleaned,
        endplates_mm={index: endplate.ends_mm for index, endplate in spine.endplates.items()},
        disc_rectangles_mm={index: shape.rectangle_mm for index, shape in spine.disc_shapes.items()},
    )


def measure_muscles(
    exam_id: str, axial: Sequence[LabelledStack], column: Column | None, *, frame_of_reference_id: str | None
) -> Muscles:
    """Measure muscles on all slices of the axial stacks.

    Parameters
    ----------
    column : the midline of stacks that share its frame of reference
    """
    rows: list[MuscleRow] = []
    flags: list[Flag] = []
    cleaned: list[LabelledStack] = []
    shared: list[tuple[int, StackGeometry]] = []
    spine_mm = column.centroids_mm() if column else np.zeros((0, 3))
    for one in axial:
        same = frame_of_reference_id is not None and one.stack.frame_of_reference_id == frame_of_reference_id
        found = _measure_stack(exam_id, one, spine_mm if same and len(spine_mm) >= 2 else None)
        rows += found.rows
        cleaned += found.cleaned
        flags += found.flags
        if same:
            shared.append((one.stack.index, one.stack.geometry))
        elif column is not None:
            flags.append(Flag("different_frame", f"axial stack {one.stack.index}"))
    return Muscles(tuple(rows), tuple(shared), tuple(flags), tuple(cleaned))


def _measure_stack(exam_id: str, one: LabelledStack, spine_mm: Floats | None) -> Muscles:
    """Muscles of one axial stack; `spine_mm` [n, 3] are bodies in its frame of reference, None where there are none."""
    geometry = one.stack.geometry
    labels = clean_muscles(one.labels["muscle"], geometry)
    rule, separability = lean_rule(one.stack, labels)
    found = muscle_rows(exam_id, one.stack, labels, rule)
    doubts = side_flags(found, labels, geometry, spine_mm=spine_mm)
    doubts += midline_flags(found, geometry, spine_mm) if spine_mm is not None else []
    rows, flags = judged_rows(found, geometry, doubts)
    picture = check("fat_separability", separability, f"axial stack {one.stack.index}")
    return Muscles(
        rows=tuple(rows),
        shared=(),
        flags=(*doubts, *uncertainty_flags(one.uncertainty), *picture, *flags),
        cleaned=(replace(one, labels={"muscle": labels}),),
    )
