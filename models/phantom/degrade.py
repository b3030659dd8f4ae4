"""Masks as a mediocre network would draw them, from true ones: for asking what the measurements stand.

Every structure is moved as a whole by eroding or dilating it, its edge is made wavy, and an exam gets some of the
faults of `FAULTS`. The strengths are own choices, set so that the Dice against the true masks is about 0.85.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cohort.geometry import StackGeometry
from cohort.stacks import Labels
from cohort.terms import SACRAL_BODY, VERTEBRAL_BODY

Mask = npt.NDArray[np.bool_]
Rng = np.random.Generator

FAULTS: Final = (
    "holes",
    "bridged bodies",
    "bridged discs",
    "dropped slices",
    "blob before the sacrum",
    "blob beside the spine",
    "broken body",
    "sacrum called body",
    "body called sacrum",
)
FAULT_SHARE: Final = {"sacrum called body": 0.08, "body called sacrum": 0.08}
"""Share of exams with a fault; 0.3 where not given."""

EDGE_MM: Final = {"body": (1.4, 1.1), "disc": (0.5, 0.65), "muscle": (1.5, 1.8)}
"""Standard deviation of the shift of a structure's edge, and of its waviness."""
WAVE_MM: Final = 4.0
MARGIN_MM: Final = 9.0


@dataclass(frozen=True, eq=False)
class SpineMasks:
    """Labels of a sagittal stack in standing order, [slice, row, column] each."""

    bodies: Labels
    """1 bodies, 2 sacral bodies."""
    discs: Labels
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Column:
    """True instances, and where they lie."""

    bodies: Labels
    sacral: Mask
    """[1 + body]."""
    discs: Labels
    geometry: StackGeometry

    @property
    def spacing(self) -> tuple[float, float]:
        return self.geometry.spacing_mm

    def middle(self, value: int) -> tuple[int, int, int]:
        """Central voxel of a body."""
        k, row, column = np.argwhere(self.bodies == value).mean(axis=0).round().astype(int)
        return int(k), int(row), int(column)

    @property
    def mobile(self) -> list[int]:
        """Bodies above the sacrum in view, from caudal to cranial."""
        return [int(v) for v in np.unique(self.bodies) if v > 0 and not self.sacral[v]]


def degrade_spine(
    bodies: Labels, discs: Labels, sacral: Mask, geometry: StackGeometry, *, seed: Sequence[int]
) -> SpineMasks:
    """Degraded masks of a spine.

    Parameters
    ----------
    bodies, discs : [slice, row, column] true instances in standing order (`truth.column_stack`)
    sacral : [1 + body] is the instance sacral
    seed : the same seed gives the same masks
    """
    rng = np.random.default_rng(seed)
    column = _Column(bodies, sacral, discs, geometry)
    drawn_bodies = _redrawn(bodies, geometry, "body", rng)
    found = SpineMasks(
        bodies=np.where(drawn_bodies > 0, np.where(sacral[drawn_bodies], SACRAL_BODY, VERTEBRAL_BODY), 0).astype(
            np.uint8
        ),
        discs=(_redrawn(discs, geometry, "disc", rng) > 0).astype(np.uint8),
    )
    wanted = [fault for fault in FAULTS if rng.random() < FAULT_SHARE.get(fault, 0.3)]
    for fault in wanted:
        if column.mobile:
            found = replace(_with_fault(found, fault, column, rng), faults=(*found.faults, fault))
    return found


def degrade_muscles(muscles: Labels, geometry: StackGeometry, *, seed: Sequence[int]) -> Labels:
    """Degraded muscle labels [slice, row, column], with holes, and a slice in twenty without any."""
    rng = np.random.default_rng(seed)
    found = _redrawn(muscles, geometry, "muscle", rng)
    for plane in found:
        if plane.any() and rng.random() < 0.3:
            _punch(plane, rng, geometry.spacing_mm)
    found[rng.random(len(found)) < 0.05] = 0
    return found


def _redrawn(instances: Labels, geometry: StackGeometry, kind: str, rng: Rng) -> Labels:
    """Instances with their edges shifted and wavy; where two meet, the one deeper inside keeps the voxel."""
    shift_sd, wave_sd = EDGE_MM[kind]
    common = rng.normal(0, shift_sd)
    shift = common + rng.normal(0, 0.4 * shift_sd, 256)
    margin = [int(np.ceil(MARGIN_MM / spacing)) for spacing in geometry.spacing_mm]
    result = np.zeros_like(instances)
    for k, plane in enumerate(instances):
        depth = np.zeros(plane.shape, np.float32)
        wave = _waves(plane.shape, geometry.spacing_mm, rng) * wave_sd
        for value, box in enumerate(ndimage.find_objects(plane), start=1):
            if box is None:
                continue
            wide = tuple(
                slice(max(edge.start - pad, 0), edge.stop + pad) for edge, pad in zip(box, margin, strict=True)
            )
            inside = _signed_mm(plane[wide] == value, geometry.spacing_mm) + shift[value] + wave[wide]
            taken = inside > depth[wide]
            result[k][wide][taken] = value
            depth[wide][taken] = inside[taken]
    return result


def _waves(shape: tuple[int, ...], spacing_mm: tuple[float, float], rng: Rng) -> npt.NDArray[np.float32]:
    """Smooth field [row, column] of standard deviation 1."""
    small = [max(int(n * spacing / WAVE_MM), 2) + 2 for n, spacing in zip(shape, spacing_mm, strict=True)]
    field = cv2.resize(rng.standard_normal(small).astype(np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray(field / field.std(), dtype=np.float32)


def _signed_mm(mask: Mask, spacing_mm: tuple[float, float]) -> npt.NDArray[np.float64]:
    """[row, column] distance inside the edge, negative outside."""
    if not mask.any():
        return np.full(mask.shape, -np.inf)
    edge = 0.5 * min(spacing_mm)
    inside = ndimage.distance_transform_edt(mask, sampling=spacing_mm)
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing_mm)
    return np.asarray(np.where(mask, inside - edge, edge - outside), dtype=np.float64)


def _with_fault(found: SpineMasks, fault: str, column: _Column, rng: Rng) -> SpineMasks:
    bodies, discs = found.bodies.copy(), found.discs.copy()
    match fault:
        case "holes":
            for plane in (*bodies, *discs):
                if plane.any() and rng.random() < 0.5:
                    _punch(plane, rng, column.spacing)
        case "bridged bodies":
            _bridge_bodies(bodies, column, rng)
        case "bridged discs":
            _bridge_discs(discs, column, rng)
        case "dropped slices":
            for volume in (bodies, discs):
                volume[rng.choice(len(volume), 1 + int(len(volume) > 9), replace=False)] = 0
        case "blob before the sacrum" | "blob beside the spine":
            _add_blob(bodies, column, rng, beside=fault.endswith("spine"))
        case "broken body":
            _break(bodies, column, rng)
        case _:
            _mix_up(bodies, column, rng, sacrum=fault.startswith("sacrum"))
    return replace(found, bodies=bodies, discs=discs)


def _punch(plane: Labels, rng: Rng, spacing_mm: tuple[float, float]) -> None:
    """One to four holes of 1-3 mm radius."""
    at = np.argwhere(plane)
    for row, column in at[rng.integers(0, len(at), int(rng.integers(1, 5)))]:
        plane[_ellipse(plane.shape, (row, column), (rng.uniform(1, 3),) * 2, spacing_mm)] = 0


def _ellipse(
    shape: tuple[int, ...], centre: Sequence[float], radii_mm: Sequence[float], spacing_mm: tuple[float, float]
) -> Mask:
    rows, columns = (np.arange(n) - at for n, at in zip(shape, centre, strict=True))
    down, across = rows * spacing_mm[0] / radii_mm[0], columns * spacing_mm[1] / radii_mm[1]
    return np.asarray(down[:, None] ** 2 + across**2 < 1)


def _bridge_bodies(bodies: Labels, column: _Column, rng: Rng) -> None:
    """Strips of 2-5 mm between one to three pairs of neighbours, on about half of the slices."""
    mobile = column.mobile
    for lower in rng.choice(mobile, min(int(rng.integers(1, 4)), len(mobile)), replace=False):
        if lower + 1 not in mobile:
            continue
        start, stop = column.middle(lower), column.middle(lower + 1)
        shift = int(rng.uniform(-13, 13) / column.spacing[1])
        width = max(int(rng.uniform(2, 5) / column.spacing[1]), 1)
        for k in np.flatnonzero((column.bodies == lower).any(axis=(1, 2))):
            if rng.random() < 0.5:
                cv2.line(bodies[k], (start[2] + shift, start[1]), (stop[2] + shift, stop[1]), VERTEBRAL_BODY, width)


def _bridge_discs(discs: Labels, column: _Column, rng: Rng) -> None:
    """A strip of 2-3 mm behind or in front of a body, from disc to disc, on a third of the slices."""
    body = int(rng.choice(column.mobile))
    here = column.bodies == body
    reach = int(12 / column.spacing[0])
    for k in np.flatnonzero(here.any(axis=(1, 2))):
        rows, columns = np.nonzero(here[k])
        if rng.random() < 0.35 and len(rows) > 20:
            at = int(columns.min() if rng.random() < 0.5 else columns.max())
            width = max(int(rng.uniform(2, 3) / column.spacing[1]), 1)
            cv2.line(discs[k], (at, int(rows.min()) - reach), (at, int(rows.max()) + reach), 1, width)


def _add_blob(bodies: Labels, column: _Column, rng: Rng, *, beside: bool) -> None:
    """A false body: before the sacrum (bowel, uterus) or beside the spine (muscle, kidney)."""
    lowest = column.mobile[0] if not beside else int(rng.choice(column.mobile))
    k, row, across = column.middle(lowest)
    if beside:
        k = int(rng.choice([0, len(bodies) - 1]))
        across += int(rng.normal(0, 10) / column.spacing[1])
    else:
        row += int(rng.uniform(30, 50) / column.spacing[0])
        across -= int(rng.uniform(5, 25) / column.spacing[1])
    radii = (rng.uniform(5, 14), rng.uniform(5, 14))
    for slice_ in range(max(k - 2, 0), min(k + 3, len(bodies))):
        mask = _ellipse(bodies[slice_].shape, (row, across), radii, column.spacing)
        bodies[slice_][mask & (bodies[slice_] == 0)] = VERTEBRAL_BODY


def _break(bodies: Labels, column: _Column, rng: Rng) -> None:
    """A gap of 1-3 mm across a body, on all of its slices."""
    body = int(rng.choice(column.mobile))
    _, row, across = column.middle(body)
    rows, columns = np.indices(bodies.shape[1:])
    tilt, half = np.tan(rng.normal(0, 0.2)), rng.uniform(0.5, 1.5)
    off = (rows - row) * column.spacing[0] - tilt * (columns - across) * column.spacing[1] - rng.uniform(-6, 6)
    near = ndimage.binary_dilation(column.bodies == body, iterations=2)
    bodies[near & (np.abs(off) < half)] = 0


def _mix_up(bodies: Labels, column: _Column, rng: Rng, *, sacrum: bool) -> None:
    """S1 (or the lowest mobile body) in the other class, from a part of it to all of it."""
    lowest = column.mobile[0]
    value = lowest - 1 if sacrum else lowest
    near = ndimage.binary_dilation(column.bodies == value, iterations=2) & (bodies > 0)
    if not near.any():
        return
    share = min(rng.uniform(0.3, 1.3), 1.0)
    rows = np.nonzero(near)[1]
    # seen from the side that the other class lies on
    limit = np.quantile(rows, share if sacrum else 1 - share)
    place = np.arange(bodies.shape[1])[None, :, None]
    part = near & (place <= limit if sacrum else place >= limit)
    bodies[part] = VERTEBRAL_BODY if sacrum else SACRAL_BODY
