"""Cases of place: where slices lie, in what order, and what the header says about their distance.

Each function writes one case of its name; its docstring is the description in `truth.json`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from models.geometry_suite.plane import (
    AXES,
    AXIAL,
    CORONAL,
    GAP_MM,
    SAGITTAL,
    ImagePlane,
    Orientation,
    along,
    reversed_order,
    stack,
    stack_at,
)
from models.geometry_suite.study import Study

CaseWriter = Callable[[Study], None]

DISC_TILTS_DEG: Final = (-12.0, -4.0, 3.0, 12.0, 31.0)
"""Tilt of the axial slices of a lumbar exam, L1-L2 to L5-S1."""
DISC_DISTANCE_MM: Final = 35.0


def _add_sagittal(study: Study) -> None:
    """A plain sagittal series beside an axial one: a lumbar exam has both."""
    study.classic(study.mark(stack(SAGITTAL)), series=9, SeriesDescription="T1 TSE SAG")


def _disc_stacks(n: int = 5) -> list[list[ImagePlane]]:
    return [
        stack(AXIAL.turned(tilt), n=n, centre_mm=(3.0, 12.0, 70.0 - DISC_DISTANCE_MM * k))
        for k, tilt in enumerate(DISC_TILTS_DEG)
    ]


# -- several stacks in one series --------------------------------------------------------------------------------------


def plain_sagittal(study: Study) -> None:
    """One slightly oblique sagittal stack, nothing odd."""
    study.classic(study.mark(stack(SAGITTAL)))


def oblique_stacks_per_disc(study: Study) -> None:
    """Five oblique axial stacks of five slices in one series, each parallel to its disc."""
    study.classic(*[study.mark(planes) for planes in _disc_stacks()], SeriesDescription="T1 TSE TRA")
    _add_sagittal(study)


def oblique_stacks_interleaved_numbers(study: Study) -> None:
    """Five oblique stacks; InstanceNumber goes round the stacks, first slice of each, second of each, ..."""
    stacks = [study.mark(planes) for planes in _disc_stacks()]
    numbers = [1 + k + 5 * at for k in range(5) for at in range(5)]
    study.classic(*stacks, numbers=numbers, SeriesDescription="T1 TSE TRA")
    _add_sagittal(study)


def oblique_stacks_crossing(study: Study) -> None:
    """Two oblique axial stacks that cross each other within the field of view."""
    stacks = [stack(AXIAL.turned(tilt), n=5, centre_mm=(0, 0, z)) for tilt, z in ((-12.0, 6.0), (14.0, -6.0))]
    study.classic(*[study.mark(planes) for planes in stacks], SeriesDescription="T1 TSE TRA")
    _add_sagittal(study)


def parallel_stacks_with_gaps(study: Study) -> None:
    """Five parallel stacks of five slices, 4.4 mm from slice to slice and 35 mm from stack to stack."""
    stacks = [stack(AXIAL, n=5, centre_mm=_on_normal(AXIAL, 70.0 - DISC_DISTANCE_MM * k)) for k in range(5)]
    study.classic(*[study.mark(planes) for planes in stacks], SeriesDescription="T1 TSE TRA")
    _add_sagittal(study)


def parallel_stacks_shifted(study: Study) -> None:
    """Five parallel stacks with gaps, each with a field of view of its own."""
    shifts = (0.0, 6.0, 11.0, 13.0, 9.0)
    stacks = [stack(AXIAL, n=5, centre_mm=(0, shift, 70 - DISC_DISTANCE_MM * k)) for k, shift in enumerate(shifts)]
    study.classic(*[study.mark(planes) for planes in stacks], SeriesDescription="T1 TSE TRA")
    _add_sagittal(study)


def parallel_stacks_overlapping(study: Study) -> None:
    """Two parallel stacks; the first slice of the second lies between the last two of the first."""
    stacks = [stack(AXIAL, n=5, centre_mm=_on_normal(AXIAL, z)) for z in (0.0, 3.5 * GAP_MM)]
    study.classic(*[study.mark(planes) for planes in stacks], SeriesDescription="T1 TSE TRA")
    _add_sagittal(study)


def fan(study: Study) -> None:
    """Five slices fanned out by 7 degrees each, one per disc: five stacks of one slice."""
    planes = [stack(AXIAL.turned(7.0 * k), n=1, centre_mm=(0, 0, 60.0 - 30.0 * k)) for k in range(5)]
    study.classic(*[study.mark(one) for one in planes], SeriesDescription="T1 TSE TRA")
    _add_sagittal(study)


def three_plane_localiser(study: Study) -> None:
    """One sagittal, one coronal and one axial slice in one series."""
    planes = [stack(orientation, n=1) for orientation in (SAGITTAL, CORONAL, AXIAL)]
    study.classic(
        *[study.mark(one) for one in planes],
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        SeriesDescription="LOCALIZER",
    )


def two_frames_of_reference(study: Study) -> None:
    """One SeriesInstanceUID, two frames of reference: the patient moved, so the two blocks are not one stack."""
    blocks = [stack(SAGITTAL, n=5, centre_mm=_on_normal(SAGITTAL, x)) for x in (-2.5 * GAP_MM, 2.5 * GAP_MM)]
    frames = [study.uid("frame of reference", k) for k in range(2)]
    study.classic(
        *[study.mark(planes, FrameOfReferenceUID=frame) for planes, frame in zip(blocks, frames, strict=True)]
    )


def mixed_matrices(study: Study) -> None:
    """Two blocks of different matrix and pixel size in one series."""
    coarse = stack(SAGITTAL, n=5, centre_mm=_on_normal(SAGITTAL, -14.0), shape=(16, 12), spacing_mm=(2.5, 2.5))
    fine = stack(SAGITTAL, n=6, centre_mm=_on_normal(SAGITTAL, 14.0))
    study.classic(study.mark(coarse), study.mark(fine))


def transposed_matrices(study: Study) -> None:
    """Two blocks in one series, one 32 x 24 and one 24 x 32."""
    upright = stack(SAGITTAL, n=5, centre_mm=_on_normal(SAGITTAL, -14.0))
    lying = stack(SAGITTAL, n=5, centre_mm=_on_normal(SAGITTAL, 14.0), shape=(24, 32))
    study.classic(study.mark(upright), study.mark(lying))


# -- order of slices ---------------------------------------------------------------------------------------------------


def instance_number_reversed(study: Study) -> None:
    """InstanceNumber runs against the normal."""
    study.classic(study.mark(stack(SAGITTAL)), numbers=range(7, 0, -1))


def instance_number_interleaved(study: Study) -> None:
    """InstanceNumber is the order of acquisition: odd slices first, then even ones."""
    study.classic(study.mark(stack(SAGITTAL)), numbers=[1, 5, 2, 6, 3, 7, 4])


def instance_number_shuffled(study: Study) -> None:
    """InstanceNumber follows no spatial order."""
    study.classic(study.mark(stack(SAGITTAL)), numbers=[4, 7, 1, 3, 6, 2, 5])


def instance_number_missing(study: Study) -> None:
    """No InstanceNumber."""
    study.classic(study.mark(stack(SAGITTAL)), InstanceNumber=None)


def instance_number_equal(study: Study) -> None:
    """All slices have InstanceNumber 1."""
    study.classic(study.mark(stack(SAGITTAL)), numbers=[1] * 7)


def sagittal_left_to_right(study: Study) -> None:
    """Sagittal slices numbered from the patient's left to the right."""
    planes = stack(along("PF"))  # its normal points to the right
    study.classic(study.mark(planes))


def sagittal_right_to_left(study: Study) -> None:
    """Sagittal slices numbered from the patient's right to the left."""
    study.classic(study.mark(reversed_order(stack(along("PF")))))


def sagittal_from_the_other_side(study: Study) -> None:
    """Sagittal slices whose rows run to anterior: seen from the patient's right instead of the left."""
    study.classic(study.mark(stack(along("AF").turned(2.0, -1.5, 3.0))))


def axial_from_above(study: Study) -> None:
    """Axial slices whose rows run to the patient's right: left and right are swapped on the screen."""
    study.classic(study.mark(stack(along("RP").turned(-4.0, 1.0, 2.0), n=5)), SeriesDescription="T1 TSE TRA")
    _add_sagittal(study)


def axial_feet_first(study: Study) -> None:
    """Axial slices whose columns run to anterior, PatientPosition FFP (prone, feet first)."""
    study.classic(
        study.mark(stack(along("LA").turned(-4.0, 1.0, 2.0), n=5)),
        PatientPosition="FFP",
        SeriesDescription="T1 TSE TRA",
    )
    _add_sagittal(study)


# -- distances and shapes ----------------------------------------------------------------------------------------------


def missing_slice(study: Study) -> None:
    """An inner slice is not there; InstanceNumber is continuous."""
    _without(study, 3)


def missing_slices_two(study: Study) -> None:
    """Two neighbouring inner slices are not there."""
    _without(study, 3, 4)


def uneven_spacing(study: Study) -> None:
    """Distances from slice to slice between 3.6 and 5.2 mm."""
    study.classic(study.mark(stack_at(SAGITTAL, np.cumsum([-14.0, 3.6, 4.4, 5.2, 4.0, 4.8, 4.4]))))


def overlapping_slices(study: Study) -> None:
    """Slices 4 mm thick every 2.5 mm."""
    study.classic(study.mark(stack(SAGITTAL, gap_mm=2.5)), SpacingBetweenSlices="2.5")


def sheared_stack(study: Study) -> None:
    """Positions leave the normal by 1.5 mm along rows and -2.2 mm along columns from slice to slice."""
    study.classic(study.mark(stack(SAGITTAL, shear_mm=(1.5, -2.2))))


def sheared_axial_stack(study: Study) -> None:
    """An axial block whose slices follow the lordosis: each shifted by 2 mm to posterior."""
    study.classic(study.mark(stack(AXIAL, n=5, shear_mm=(0.0, 2.0))), SeriesDescription="T1 TSE TRA")
    _add_sagittal(study)


def non_square_pixels(study: Study) -> None:
    """Pixels of 1.6 mm between rows and 0.7 mm between columns."""
    study.classic(study.mark(stack(SAGITTAL, spacing_mm=(1.6, 0.7))))


def spacing_between_slices_wrong(study: Study) -> None:
    """SpacingBetweenSlices says 8.8 mm; positions say 4.4 mm."""
    study.classic(study.mark(stack(SAGITTAL)), SpacingBetweenSlices="8.8")


def spacing_between_slices_negative(study: Study) -> None:
    """SpacingBetweenSlices says -4.4 mm."""
    study.classic(study.mark(stack(SAGITTAL)), SpacingBetweenSlices="-4.4")


def spacing_between_slices_is_the_gap(study: Study) -> None:
    """SpacingBetweenSlices says 0.4 mm: the gap between slices and not the distance of their centres."""
    study.classic(study.mark(stack(SAGITTAL)), SpacingBetweenSlices="0.4")


def spacing_between_slices_zero(study: Study) -> None:
    """SpacingBetweenSlices is 0."""
    study.classic(study.mark(stack(SAGITTAL)), SpacingBetweenSlices="0")


def slice_thickness_wrong(study: Study) -> None:
    """SliceThickness says 6 mm, more than slices are apart."""
    study.classic(study.mark(stack(SAGITTAL)), SliceThickness="6")


def slice_thickness_missing(study: Study) -> None:
    """Neither SliceThickness nor SpacingBetweenSlices."""
    study.classic(study.mark(stack(SAGITTAL)), SliceThickness=None)


def slice_location_wrong(study: Study) -> None:
    """SliceLocation runs against the positions, 2 mm from slice to slice."""
    planes = stack(SAGITTAL)
    study.classic([one for k, plane in enumerate(planes) for one in study.mark([plane], SliceLocation=str(70 - 2 * k))])


def cosines_of_four_digits(study: Study) -> None:
    """Direction cosines with four digits."""
    study.classic(study.mark(stack(SAGITTAL.rounded(4))))


def far_from_isocentre(study: Study) -> None:
    """Positions about a metre from the origin, as after table movement."""
    study.classic(study.mark(stack(SAGITTAL, centre_mm=(80.0, -120.0, -1130.0))))


def _on_normal(orientation: Orientation, distance_mm: float) -> tuple[float, ...]:
    return tuple(distance_mm * np.cross(orientation.row_cosine, orientation.column_cosine))


def _without(study: Study, *left_out: int) -> None:
    planes = stack(SAGITTAL, n=9)
    study.missing += [planes[k].position_mm for k in left_out]
    study.classic(study.mark([plane for k, plane in enumerate(planes) if k not in left_out]))


GEOMETRY_CASES: Final[tuple[CaseWriter, ...]] = (
    plain_sagittal,
    oblique_stacks_per_disc,
    oblique_stacks_interleaved_numbers,
    oblique_stacks_crossing,
    parallel_stacks_with_gaps,
    parallel_stacks_shifted,
    parallel_stacks_overlapping,
    fan,
    three_plane_localiser,
    two_frames_of_reference,
    mixed_matrices,
    transposed_matrices,
    instance_number_reversed,
    instance_number_interleaved,
    instance_number_shuffled,
    instance_number_missing,
    instance_number_equal,
    sagittal_left_to_right,
    sagittal_right_to_left,
    sagittal_from_the_other_side,
    axial_from_above,
    axial_feet_first,
    missing_slice,
    missing_slices_two,
    uneven_spacing,
    overlapping_slices,
    sheared_stack,
    sheared_axial_stack,
    non_square_pixels,
    spacing_between_slices_wrong,
    spacing_between_slices_negative,
    spacing_between_slices_is_the_gap,
    spacing_between_slices_zero,
    slice_thickness_wrong,
    slice_thickness_missing,
    slice_location_wrong,
    cosines_of_four_digits,
    far_from_isocentre,
)


def axis_orders() -> dict[str, tuple[str, CaseWriter]]:
    """The 48 ways to lay a stack along the patient's axes: name -> (description, writer).

    24 pairs of directions at right angles, each with its slices numbered along and against the normal.
    """
    cases: dict[str, tuple[str, CaseWriter]] = {}
    for row in AXES:
        for column in AXES:
            if np.dot(AXES[row], AXES[column]):
                continue
            for order in ("along", "against"):
                described = f"Rows run to {row}, columns to {column}, slices {order} the normal row x column."
                cases[f"axes_{row}{column}_{order}"] = (described, _axis_order(row + column, order))
    return cases


def _axis_order(letters: str, order: str) -> CaseWriter:
    def write(study: Study) -> None:
        planes = stack(along(letters), n=5, centre_mm=(5.3, -11.9, 23.7))
        study.classic(study.mark(planes if order == "along" else reversed_order(planes)))

    return write
