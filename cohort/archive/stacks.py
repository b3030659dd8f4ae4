"""Sort slices into stacks: one orientation, one grid, one line of positions, evenly spaced within tolerance.

A series may hold one oblique stack per disc, several blocks with gaps, or a block that lacks a slice. Nothing is
resampled, and no in-plane axis is flipped. Slices run along +normal (row direction x column direction): a sagittal
stack whose rows run to posterior and whose columns run to caudal goes from the patient's left to the right. Neither
InstanceNumber nor the order of the files plays a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from cohort.archive.header import SlicePose
from cohort.errors import RefusedError
from cohort.geometry import Floats, StackGeometry
from cohort.stacks import ImageStack, Plane

ORIENTATION_TOLERANCE_DEG: Final = 0.5
"""Slices tilted against each other by more are of different stacks; at 100 mm from the axis it is 0.9 mm."""
LINE_TOLERANCE_MM: Final = 1.0
"""Largest in-plane offset of a slice from the line of positions of its stack."""
SAME_PLACE_MM: Final = 0.05
"""Slices nearer to each other are at one place; the thinnest MR slices lie ten times further apart."""
SPLIT_GAP: Final = 2.5
"""Gaps above this many median gaps part stacks: one missing slice (2 gaps) does not, a step to the next disc does."""
MISSING_GAP: Final = 1.5
"""Gaps above this many median gaps, in a stack of at least four slices, mean that a slice is missing."""


@dataclass(frozen=True, eq=False)
class Slice:
    """One decoded slice of a series."""

    pose: SlicePose
    pixels: npt.NDArray[np.uint16]
    """[row, column]."""
    instance_id: str
    frame_of_reference_id: str | None


@dataclass(frozen=True)
class SortedSlices:
    """What `stacks_from_slices` made of a series."""

    stacks: list[ImageStack]
    n_duplicates: int
    """Copies that were dropped."""
    n_missing: int
    """Slices that even spacing would expect inside the stacks but that are not there."""


def stacks_from_slices(slices: Sequence[Slice], plane: Plane) -> SortedSlices:
    """Sort the slices of one series into stacks.

    Stacks are numbered from cranial to caudal (sagittal ones: from the patient's left to the right) by their centre.

    Parameters
    ----------
    slices : in any order, copies included
    plane : plane of the series, passed on to the stacks

    Raises
    ------
    RefusedError
        `inconsistent_series` if two slices of one frame of reference lie at one place with different pixels (several
        echoes or repetitions), or if no stack can be made
    """
    distinct = _without_repeated_instances(slices)
    groups = [[distinct[i] for i in group] for group in _groups_of_slices(distinct)]
    ordered = [_without_copies(group) for group in groups]
    usable = [group for group in ordered if len(group) > 1 or group[0].pose.thickness_mm is not None]
    if not usable:
        raise RefusedError("inconsistent_series", f"no stack among {len(slices)} slices")
    geometries = [_geometry(group) for group in usable]
    by_place = sorted(range(len(usable)), key=lambda i: _centre_rank(geometries[i], plane))
    stacks = [_stack(usable[i], geometries[i], plane, index) for index, i in enumerate(by_place)]
    return SortedSlices(
        stacks=stacks,
        n_duplicates=len(slices) - sum(len(group) for group in ordered),
        n_missing=sum(_missing_slices(stack.geometry) for stack in stacks),
    )


def group_poses(poses: Sequence[SlicePose]) -> list[list[int]]:
    """Group slices into stacks by geometry alone.

    Returns
    -------
    indices into `poses`, one list per stack, each ordered along +normal; slices at one place stay in one list
    """
    stacks: list[list[int]] = []
    for parallel in _parallel(poses):
        for line in _lines(poses, parallel):
            stacks += _split_at_gaps(poses, line)
    return stacks


def _groups_of_slices(slices: Sequence[Slice]) -> list[list[int]]:
    """`group_poses` within each frame of reference."""
    frames: dict[str | None, list[int]] = {}
    for i, one in enumerate(slices):
        frames.setdefault(one.frame_of_reference_id, []).append(i)
    return [
        [members[i] for i in group]
        for members in frames.values()
        for group in group_poses([slices[i].pose for i in members])
    ]


def _parallel(poses: Sequence[SlicePose]) -> list[list[int]]:
    """Indices of slices with equal grid and, within tolerance, equal direction cosines."""
    limit = np.cos(np.deg2rad(ORIENTATION_TOLERANCE_DEG))
    groups: list[list[int]] = []
    for i, pose in enumerate(poses):
        for group in groups:
            first = poses[group[0]]
            turned = min(float(pose.row_dir @ first.row_dir), float(pose.col_dir @ first.col_dir)) < limit
            if not turned and pose.shape == first.shape and np.allclose(pose.spacing_mm, first.spacing_mm, atol=1e-3):
                group.append(i)
                break
        else:
            groups.append([i])
    return groups


def _lines(poses: Sequence[SlicePose], parallel: Sequence[int]) -> list[list[int]]:
    """Part parallel slices whose first voxels do not lie on one line: parallel stacks with fields of view of their own.

    The line may be oblique (sheared stacks); only where no single line fits are slices parted by in-plane offset.
    """
    first = poses[parallel[0]]
    positions = np.array([poses[i].position_mm for i in parallel])
    along = positions @ first.normal
    across = positions @ np.stack([first.row_dir, first.col_dir], axis=1)
    if len(parallel) < 3 or _off_line_mm(along, across) <= LINE_TOLERANCE_MM:
        return [list(parallel)]
    lines: list[list[int]] = []
    for k in np.lexsort((across[:, 1], across[:, 0], along)):
        for line in lines:
            if np.max(np.abs(across[k] - across[line[-1]])) <= LINE_TOLERANCE_MM:
                line.append(int(k))
                break
        else:
            lines.append([int(k)])
    return [[parallel[k] for k in line] for line in lines]


def _off_line_mm(along: Floats, across: Floats) -> float:
    """Largest in-plane residual of the positions from the straight line through them."""
    design = np.stack([np.ones_like(along), along - along.mean()], axis=1)
    fit, *_ = np.linalg.lstsq(design, across, rcond=None)
    return float(np.max(np.abs(across - design @ fit)))


def _split_at_gaps(poses: Sequence[SlicePose], line: Sequence[int]) -> list[list[int]]:
    normal = poses[line[0]].normal
    ordered = sorted(line, key=lambda i: (float(poses[i].position_mm @ normal), i))
    gaps = np.diff([float(poses[i].position_mm @ normal) for i in ordered])
    apart = gaps[gaps > SAME_PLACE_MM]
    if not len(apart):
        return [ordered]
    limit = SPLIT_GAP * float(np.median(apart))
    cuts = [0, *(np.flatnonzero(gaps > limit) + 1).tolist(), len(ordered)]
    return [ordered[start:end] for start, end in pairwise(cuts)]


def _without_repeated_instances(slices: Sequence[Slice]) -> list[Slice]:
    """One slice per SOPInstanceUID, in an order that does not depend on the order of the files."""
    by_instance = {one.instance_id: one for one in slices}
    for one in slices:
        if not np.array_equal(one.pixels, by_instance[one.instance_id].pixels):
            raise RefusedError("inconsistent_series", "two files of one SOPInstanceUID have different pixels")
    return [by_instance[instance] for instance in sorted(by_instance)]


def _without_copies(ordered: Sequence[Slice]) -> list[Slice]:
    """Collapse slices at one place with equal pixels; `ordered` is sorted along the normal."""
    kept: list[Slice] = []
    for one in ordered:
        if not kept or float(np.linalg.norm(one.pose.position_mm - kept[-1].pose.position_mm)) > SAME_PLACE_MM:
            kept.append(one)
        elif not np.array_equal(one.pixels, kept[-1].pixels):
            raise RefusedError("inconsistent_series", "two slices at one place have different pixels")
    return kept


def _geometry(ordered: Sequence[Slice]) -> StackGeometry:
    first = ordered[0].pose
    thickness = [one.pose.thickness_mm for one in ordered if one.pose.thickness_mm is not None]
    position = np.array([one.pose.position_mm for one in ordered])
    if thickness:
        nominal = float(np.median(thickness))
    else:  # contiguous slices are the best guess where the file does not say
        nominal = float(np.median(np.diff(position @ first.normal)))
    return StackGeometry(
        position_mm=position,
        row_dir=first.row_dir,
        col_dir=first.col_dir,
        spacing_mm=first.spacing_mm,
        shape=first.shape,
        thickness_mm=nominal,
    )


def _centre_rank(geometry: StackGeometry, plane: Plane) -> tuple[float, ...]:
    """Sort key: cranial (+z) first for axial, left (+x) first for sagittal stacks, then the other axes."""
    rows, columns = geometry.shape
    centre = geometry.to_lps([(geometry.n_slices - 1) / 2, (rows - 1) / 2, (columns - 1) / 2])
    order = (2, 0, 1) if plane == "axial" else (0, 2, 1)
    return tuple(-float(centre[axis]) for axis in order)


def _stack(ordered: Sequence[Slice], geometry: StackGeometry, plane: Plane, index: int) -> ImageStack:
    return ImageStack(
        plane=plane,
        index=index,
        image=np.stack([one.pixels for one in ordered]),
        geometry=geometry,
        frame_of_reference_id=ordered[0].frame_of_reference_id,
    )


def _missing_slices(geometry: StackGeometry) -> int:
    if geometry.n_slices < 4:
        return 0
    gaps = np.diff(geometry.slice_distance_mm)
    wide = gaps[gaps > MISSING_GAP * geometry.slice_gap_mm]
    return int(np.sum(np.round(wide / geometry.slice_gap_mm) - 1))
