"""Sort slices into stacks: one orientation, one grid, one line of positions, evenly spaced but for missing slices.

A series may hold one oblique stack per disc, several blocks with gaps or with overlap, or a block that lacks a slice.
Nothing is resampled, and no in-plane axis is flipped. Slices run along +normal (row direction x column direction): a
sagittal stack whose rows run to posterior and whose columns run to caudal goes from the patient's left to the right.
Positions alone decide: neither InstanceNumber, nor SpacingBetweenSlices, nor the order of the files plays a part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cohort.archive.header import SlicePose
from cohort.errors import RefusedError
from cohort.geometry import Floats, StackGeometry
from cohort.stacks import Plane

ORIENTATION_TOLERANCE_DEG: Final = 0.1
"""Slices tilted against each other by more are of different stacks; at 500 mm, across a whole slice, it is 0.9 mm.
Cosines with three decimals err by 0.03 degrees."""
SPACING_TOLERANCE_MM: Final = 1e-3
"""Largest difference of pixel spacing within a stack."""
LINE_TOLERANCE_MM: Final = 1.0
"""Largest in-plane offset of a slice from the line of positions of its stack."""
SAME_PLACE_MM: Final = 0.05
"""Slices nearer to each other are at one place; the thinnest MR slices lie ten times further apart."""
SPLIT_GAP: Final = 2.5
"""Gaps above this many usual gaps part stacks: one missing slice (2 gaps) does not, a step to the next disc does."""
MISSING_GAP: Final = 1.5
"""Gaps above this many usual gaps, in a stack of at least four slices, mean that a slice is missing."""
MOST_MISSING: Final = 1 / 3
"""Missing slices per gap; where more seem to be missing, slices are of two stacks that overlap by a part of a gap."""
EVEN_TOLERANCE: Final = 0.1
"""Part of the usual gap by which a gap may differ from it, or from a multiple of it, in an even stack."""
EVEN_TOLERANCE_MM: Final = 0.2
"""The same for thin slices, and for the steps of stacks that overlap: in files that give positions with one decimal two
gaps differ by so much."""
SQUEEZED: Final = 0.5
"""Gaps below this part of the thickness, between blocks that lie apart, are the offset of two stacks, not a spacing."""
SHORTEST_PROGRESSION: Final = 3
"""Any two slices are evenly spaced; it takes a third to show that they belong together."""
MOST_OVERLAPPING: Final = 3
"""Stacks that may overlap at one place."""
MOST_STEPS: Final = 16
"""Spacings to try; the true one is among the most frequent distances."""


@dataclass(frozen=True)
class Gaps:
    """How the slices of one stack follow each other."""

    n_missing: int
    """Slices that even spacing would expect inside the stack but that are not there."""
    uneven: bool
    """Gaps differ, and no missing slice explains it."""


def group_poses(poses: Sequence[SlicePose]) -> list[list[int]]:
    """Group slices into stacks by geometry alone.

    Returns
    -------
    indices into `poses`, one list per stack, each ordered along +normal; slices at one place stay in one list
    """
    return [stack.index.tolist() for parallel in _parallel(poses) for stack in _stacks(parallel)]


def group_slices(poses: Sequence[SlicePose], frames_of_reference: Sequence[str | None]) -> list[list[int]]:
    """`group_poses` within each frame of reference: positions of different ones cannot be compared."""
    members: dict[str | None, list[int]] = {}
    for i, frame in enumerate(frames_of_reference):
        members.setdefault(frame, []).append(i)
    return [[same[i] for i in group] for same in members.values() for group in group_poses([poses[i] for i in same])]


def place_numbers(poses: Sequence[SlicePose]) -> npt.NDArray[np.int64]:
    """[slice] number of the place of each slice of one ordered stack, from 0; copies share their place."""
    position = np.array([pose.position_mm for pose in poses])
    return _places(position @ poses[0].normal)


def stack_geometries(stacks: Sequence[Sequence[SlicePose]]) -> list[StackGeometry]:
    """Geometry of the stacks of one series, each ordered and without copies.

    Thickness is the median of what the slices of the stack say, else of what any of the series says, else the usual
    gap, of the stack or the series: contiguous slices are the best guess where no file says it.

    Raises
    ------
    RefusedError
        `inconsistent_series` if there are but single slices of unknown thickness
    """
    gaps = [_gaps(np.array([pose.position_mm for pose in poses]) @ poses[0].normal) for poses in stacks]
    of_series = _thickness_mm([pose for poses in stacks for pose in poses])
    geometries = []
    for poses, own in zip(stacks, gaps, strict=True):
        contiguous = own if len(own) else np.concatenate(gaps)
        if not of_series and not len(contiguous):
            raise RefusedError("inconsistent_series", "single slices of unknown thickness")
        geometries.append(_geometry(poses, _thickness_mm(poses) or of_series or _usual_gap(contiguous)))
    return geometries


def _thickness_mm(poses: Sequence[SlicePose]) -> float | None:
    said = [pose.thickness_mm for pose in poses if pose.thickness_mm is not None]
    return float(np.median(said)) if said else None


def _geometry(poses: Sequence[SlicePose], thickness_mm: float) -> StackGeometry:
    first = poses[0]
    return StackGeometry(
        position_mm=np.array([pose.position_mm for pose in poses]),
        row_dir=first.row_dir,
        col_dir=first.col_dir,
        spacing_mm=first.spacing_mm,
        shape=first.shape,
        thickness_mm=thickness_mm,
    )


def examine_gaps(geometry: StackGeometry) -> Gaps:
    """Say whether the slices of a stack are evenly spaced, or would be if none were missing."""
    gaps = np.diff(geometry.slice_distance_mm)
    if not _is_even(gaps):
        return Gaps(0, uneven=True)
    return Gaps(_n_missing(gaps) if len(gaps) > 2 else 0, uneven=False)


def order_of_stacks(geometries: Sequence[StackGeometry], plane: Plane) -> list[int]:
    """Order by centre: axial stacks from cranial to caudal, sagittal ones from the patient's left to the right."""
    return sorted(range(len(geometries)), key=lambda i: _centre_rank(geometries[i], plane))


def _centre_rank(geometry: StackGeometry, plane: Plane) -> tuple[float, ...]:
    """Sort key: cranial (+z) first for axial, left (+x) first for sagittal stacks, then the other axes."""
    rows, columns = geometry.shape
    centre = geometry.to_lps([(geometry.n_slices - 1) / 2, (rows - 1) / 2, (columns - 1) / 2])
    order = (2, 0, 1) if plane == "axial" else (0, 2, 1)
    return tuple(-float(centre[axis]) for axis in order)


@dataclass(frozen=True, eq=False)
class _Parallel:
    """Parallel slices of one in-plane grid, ordered along their normal."""

    index: npt.NDArray[np.intp]
    """[slice] index into the poses of the series."""
    along: Floats
    """[slice] ascending position along the normal, mm."""
    across: Floats
    """[slice, 2] position along row and column direction, mm."""
    thickness: Floats
    """[slice] mm; NaN where unknown."""

    def __len__(self) -> int:
        return len(self.index)

    def part(self, slices: Any) -> _Parallel:
        """Some of the slices, by their ascending numbers here, by a mask or by a range."""
        return _Parallel(self.index[slices], self.along[slices], self.across[slices], self.thickness[slices])

    @property
    def gaps(self) -> Floats:
        """Distances between neighbouring places, copies left out."""
        return _gaps(self.along)


def _parallel(poses: Sequence[SlicePose]) -> list[_Parallel]:
    """Part slices by grid and, within tolerance, by direction cosines."""
    if not poses:
        return []
    row_dir, col_dir = np.array([pose.row_dir for pose in poses]), np.array([pose.col_dir for pose in poses])
    grid = np.array([(*pose.spacing_mm, *pose.shape) for pose in poses])
    limit = np.cos(np.deg2rad(ORIENTATION_TOLERANCE_DEG))
    left = np.arange(len(poses))
    groups = []
    while len(left):
        first = left[0]
        same = np.all(np.abs(grid[left] - grid[first]) <= SPACING_TOLERANCE_MM, axis=1)
        same &= (row_dir[left] @ row_dir[first] >= limit) & (col_dir[left] @ col_dir[first] >= limit)
        same[0] = True  # whatever rounding makes of the product with itself
        groups.append(_ordered(poses, left[same]))
        left = left[~same]
    return groups


def _ordered(poses: Sequence[SlicePose], members: npt.NDArray[np.intp]) -> _Parallel:
    first = poses[members[0]]
    position = np.array([poses[i].position_mm for i in members])
    thickness = np.array([np.nan if poses[i].thickness_mm is None else poses[i].thickness_mm for i in members])
    along, across = position @ first.normal, position @ np.stack([first.row_dir, first.col_dir], axis=1)
    return _Parallel(members, along, across, thickness).part(np.argsort(along, kind="stable"))


def _stacks(parallel: _Parallel) -> list[_Parallel]:
    """Part parallel slices by their lines and by the gaps along them, in the order that leaves fewer stacks.

    Stacks that overlap, each with a field of view of its own, are found line by line. Stacks that are sheared each for
    itself lie on no common line, and shatter unless they are parted by their gaps first.
    """
    lines = _lines(parallel)
    by_line = [stack for line in lines for stack in _along_line(line)]
    if len(lines) == 1:
        return by_line
    by_gap = [stack for block in _split_at_gaps(parallel) for line in _lines(block) for stack in _along_line(line)]
    return by_gap if len(by_gap) < len(by_line) else by_line


def _lines(parallel: _Parallel) -> list[_Parallel]:
    """Part slices whose first voxels do not lie on one line: parallel stacks with fields of view of their own.

    The line may be oblique (sheared stacks); only where no single line fits are slices parted by in-plane offset.
    """
    if len(parallel) < 3 or _off_line_mm(parallel) <= LINE_TOLERANCE_MM:
        return [parallel]
    lines: list[list[int]] = []
    ends = np.empty_like(parallel.across)
    for k, here in enumerate(parallel.across):
        near = np.flatnonzero(np.all(np.abs(ends[: len(lines)] - here) <= LINE_TOLERANCE_MM, axis=1))
        number = int(near[0]) if len(near) else len(lines)
        if number == len(lines):
            lines.append([])
        lines[number].append(k)
        ends[number] = here
    return [parallel.part(line) for line in lines]


def _off_line_mm(parallel: _Parallel) -> float:
    """Largest in-plane residual of the positions from the straight line through them."""
    along, across = parallel.along - parallel.along.mean(), parallel.across - parallel.across.mean(axis=0)
    spread = float(along @ along)
    slope = along @ across / spread if spread else np.zeros(2)
    return float(np.max(np.abs(across - along[:, None] * slope)))


def _along_line(line: _Parallel) -> list[_Parallel]:
    """Stacks on one line: blocks with gaps between them or, where that leaves uneven ones, stacks that overlap."""
    blocks = _split_at_gaps(line)
    if all(_is_sound(block.gaps) for block in blocks) and not _are_squeezed(blocks):
        return blocks
    return _progressions(line) or blocks


def _is_sound(gaps: Floats) -> bool:
    """Say if gaps are those of one stack: even, with no more than a few slices missing."""
    return _is_even(gaps) and (len(gaps) < 2 or _n_missing(gaps) <= MOST_MISSING * len(gaps))


def _split_at_gaps(line: _Parallel) -> list[_Parallel]:
    if not len(line.gaps):
        return [line]
    cuts = np.flatnonzero(np.diff(line.along) > SPLIT_GAP * _usual_gap(line.gaps)) + 1
    return [line.part(numbers) for numbers in np.split(np.arange(len(line)), cuts)]


def _are_squeezed(blocks: Sequence[_Parallel]) -> bool:
    """Say if blocks are but pairs of near slices: one from each of two stacks that overlap."""
    gaps = np.concatenate([block.gaps for block in blocks])
    thickness = np.concatenate([block.thickness for block in blocks])
    if len(blocks) < 2 or not len(gaps) or np.all(np.isnan(thickness)):
        return False
    return _usual_gap(gaps) < SQUEEZED * float(np.nanmedian(thickness))


def _progressions(line: _Parallel) -> list[_Parallel]:
    """Part slices into as few evenly spaced stacks of one common spacing as cover them all; none if that fails.

    Two blocks of one field of view whose slices fall between each other are told apart in this way.
    """
    places = _places(line.along)
    at = line.along[np.unique(places, return_index=True)[1]]
    best: list[list[int]] = []
    for step in _steps(at):
        chains = _chains(at, step)
        if min(map(len, chains)) >= SHORTEST_PROGRESSION and (not best or len(chains) < len(best)):
            best = chains
    return [line.part(np.isin(places, chain)) for chain in best]


def _steps(at: Floats) -> list[float]:
    """The most frequent distances from a place to the next few, the smallest first: spacings the stacks may have."""
    lagged = np.concatenate([at[lag:] - at[:-lag] for lag in range(1, min(MOST_OVERLAPPING + 1, len(at)))])
    return sorted(step for step, _ in Counter(np.round(lagged, 1).tolist()).most_common(MOST_STEPS))


def _chains(at: Floats, step: float) -> list[list[int]]:
    """Number places so that each follows the one that lies most nearly one step before it."""
    chains: list[list[int]] = []
    for k in range(len(at)):
        off = [abs(at[k] - at[chain[-1]] - step) for chain in chains]
        if off and min(off) <= EVEN_TOLERANCE_MM:
            chains[off.index(min(off))].append(k)
        else:
            chains.append([k])
    return chains


def _places(along: Floats) -> npt.NDArray[np.int64]:
    """Number of the place of each slice, by ascending position along the normal."""
    return np.concatenate([[0], np.cumsum(np.diff(along) > SAME_PLACE_MM)])


def _gaps(along: Floats) -> Floats:
    """Distances between neighbouring places, copies left out."""
    gaps = np.diff(along)
    return gaps[gaps > SAME_PLACE_MM]


def _usual_gap(gaps: Floats) -> float:
    """Median gap; of two in the middle the smaller, since slices can be missing but not be added."""
    return float(np.sort(gaps)[(len(gaps) - 1) // 2])


def _n_missing(gaps: Floats) -> int:
    """Slices that even spacing would expect within the gaps."""
    usual = _usual_gap(gaps)
    return int(np.sum(np.round(gaps[gaps > MISSING_GAP * usual] / usual) - 1))


def _is_even(gaps: Floats) -> bool:
    """Say if all gaps are multiples of the usual one, within tolerance."""
    if len(gaps) < 2:
        return True
    usual = _usual_gap(gaps)
    off = np.abs(gaps - np.maximum(np.round(gaps / usual), 1) * usual)
    return bool(np.all(off <= max(EVEN_TOLERANCE * usual, EVEN_TOLERANCE_MM)))
