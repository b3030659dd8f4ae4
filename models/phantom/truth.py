"""What is true of a phantom subject, whatever grid it is seen on: names, places, heights, angles, muscle areas.

Centroids and volumes are those of the labelled structures on points drawn in cells of 2 mm3, shapes of discs and areas
of muscles on fine lattices; angles come from the endplates' planes. Nothing here is measured on the masks that are
scored against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from cohort.anatomy.vertebral_count import USUAL
from cohort.geometry import Floats, StackGeometry
from cohort.stacks import Labels
from cohort.terms import MUSCLE_LABELS, disc_name
from models.phantom.anatomy import Anatomy
from models.phantom.bodies import Body, Disc
from models.phantom.sampling import Subject, tissue_at, voxel_centres
from models.phantom.vertebral_column import BODY_INSET_MM, DISC_INSET_MM, column_labels, disc_depth

CELL_MM = np.array([2.0, 1.0, 1.0])
"""Of the points that volumes are found with; x, y, z."""
REACH_MM = np.array([34.0, 28.0, 24.0])
"""Around the bodies' centres, within which they and their discs lie; x, y, z."""
HEIGHT_STEP_MM = 0.1
LINE_STEP_MM = 0.05
CHORD_SHARES = np.linspace(0.15, 0.85, 15)
"""Where along a disc its borders are read: its anterior height at the first, its posterior one at the last, its wedge
from lines through all (the definition of `cohort.anatomy.discs`)."""
CSA_REFINEMENT = 3
"""Lattice points along each side of a pixel."""


@dataclass(frozen=True, eq=False)
class TrueStructure:
    """A vertebral body or a disc."""

    value: int
    """In the instance labels of `column_stack`."""
    name: str
    """By where it lies in the column, counted from T12: with six lumbar vertebrae the lowest is L6, with four L4."""
    counted_name: str
    """What counting up from the sacrum calls it, with the lowest mobile vertebra as L5."""
    centroid_mm: Floats
    """[3] LPS."""
    in_view: float
    """Share of its volume inside the stack."""
    in_picture: float
    """Share of its volume within rows and columns, were there slices enough."""
    numbers: Mapping[str, float]
    """Columns of `DiscRow` or `VertebraRow` whose true value is known: `volume_cm3`, those of `disc_numbers`, and of
    vertebrae above the sacrum those of `body_numbers`."""
    normal: Floats | None = None
    """[3] Of a disc: cranial normal of its mid-plane."""


@dataclass(frozen=True, eq=False)
class Truth:
    """The column of one exam."""

    bodies: tuple[TrueStructure, ...]
    """From S1 upward, as far as any of them is in view."""
    discs: tuple[TrueStructure, ...]
    curvature: Mapping[str, float]
    """Columns of `CurvatureRow`."""

    @property
    def complete(self) -> bool:
        """S1's upper half and every lumbar vertebra are in view."""
        view = {body.name: body.in_picture for body in self.bodies}
        lumbar = [share for name, share in view.items() if name.startswith("L")]
        return view.get("S1", 0.0) > 0.5 and "L1" in view and min(lumbar) > 0.95


def column_stack(anatomy: Anatomy, grid: StackGeometry) -> tuple[Labels, Labels]:
    """Instances of bodies and discs [slice, row, column] at voxel centres: 1 + index into `bodies`, `discs`."""
    pairs = [column_labels(anatomy, voxel_centres(grid, k).reshape(-1, 3)) for k in range(grid.n_slices)]
    bodies, discs = (np.stack(part).reshape(grid.n_slices, *grid.shape) for part in zip(*pairs, strict=True))
    return bodies, discs


def muscle_stack(subject: Subject, grid: StackGeometry) -> Labels:
    """Muscles [slice, row, column] at voxel centres, values of `terms.MUSCLE_LABELS`."""
    slices = [tissue_at(subject, voxel_centres(grid, k).reshape(-1, 3))[3] for k in range(grid.n_slices)]
    return np.asarray(np.stack(slices).reshape(grid.n_slices, *grid.shape), dtype=np.uint8)


def column_truth(anatomy: Anatomy, grid: StackGeometry) -> Truth:
    """What is true of the column, and how much of it lies inside a sagittal stack (edges half a voxel out)."""
    bodies, discs = _points(anatomy)
    true_bodies = [
        _structure(grid, bodies[k + 1], k + 1, body.name, _counted(anatomy, k), body_numbers(anatomy, k))
        for k, body in enumerate(anatomy.bodies)
        if k >= anatomy.first_mobile - 1 and k + 1 in bodies
    ]
    true_discs = []
    for k, disc in enumerate(anatomy.discs):
        if k + 1 in discs:
            counted = disc_name(_counted(anatomy, disc.upper), _counted(anatomy, disc.lower))
            numbers = disc_numbers(anatomy, disc, discs[k + 1], grid)
            found = _structure(grid, discs[k + 1], k + 1, disc.name, counted, numbers)
            true_discs.append(replace(found, normal=mid_plane_normal(anatomy, disc)))
    return Truth(
        bodies=tuple(one for one in true_bodies if one.in_view > 0),
        discs=tuple(one for one in true_discs if one.in_view > 0),
        curvature=_curvature(anatomy, {one.name: one.centroid_mm for one in true_bodies}),
    )


def _curvature(anatomy: Anatomy, centroids_mm: Mapping[str, Floats]) -> dict[str, float]:
    named = {body.name: body for body in anatomy.bodies}
    slope = endplate_tilt_deg(named["S1"])
    numbers = {"lordosis_l1_s1_deg": slope - endplate_tilt_deg(named["L1"]), "sacral_slope_deg": slope}
    if "L5" in centroids_mm:
        low, high = (centroids_mm[a] - centroids_mm[b] for a, b in (("L5", "S1"), ("L1", "L2")))
        leans = [np.degrees(np.arctan2(-step[1], step[2])) for step in (low, high)]
        numbers["lordosis_centroid_deg"] = float(leans[0] - leans[1])
    return numbers


def mid_plane_normal(anatomy: Anatomy, disc: Disc) -> Floats:
    """[3] Mean of the normals of the two endplates."""
    lower, upper = anatomy.bodies[disc.lower], anatomy.bodies[disc.upper]
    normal = _endplate_normal(lower, +1) + _endplate_normal(upper, -1)
    return np.asarray(normal / np.linalg.norm(normal))


def _endplate_normal(body: Body, side: int) -> Floats:
    """[3] Cranial normal of the plane of the superior (`side` = +1) or inferior (-1) endplate."""
    normal = np.array([0.0, side * np.tan(body.half_wedge_rad), 1.0]) @ body.axes
    return np.asarray(normal / np.linalg.norm(normal))


def _counted(anatomy: Anatomy, k: int) -> str:
    place = k - anatomy.first_mobile + 1
    return USUAL.name(place) or f"{place} above S1"


def _points(anatomy: Anatomy) -> tuple[dict[int, Floats], dict[int, Floats]]:
    """Instance -> [n, 3] LPS mm of points in it, of bodies and of discs.

    One random point in each cell of 2 x 1 x 1 mm: on a regular lattice a disc of 8 mm that lies along it gains or loses
    a layer on one side, which moves its centroid by 0.3 mm.
    """
    rng = np.random.default_rng([anatomy.seed, 40])
    centres = np.array([body.centre for body in anatomy.bodies[anatomy.first_mobile - 1 :]])
    low, high = centres.min(axis=0) - REACH_MM, centres.max(axis=0) + REACH_MM
    axes = [np.arange(start, stop, step) for start, stop, step in zip(low, high, CELL_MM, strict=True)]
    plane = np.stack(np.meshgrid([0.0], axes[1], axes[2], indexing="ij"), axis=-1).reshape(-1, 3)
    found: list[list[tuple[Floats, Labels]]] = [[], []]
    for x in axes[0]:
        points = plane + [x, 0.0, 0.0] + rng.random(plane.shape) * CELL_MM
        for part, labels in zip(found, column_labels(anatomy, points.astype(np.float32)), strict=True):
            part.append((points[labels > 0], labels[labels > 0]))
    bodies, discs = (_by_value(*(np.concatenate(one) for one in zip(*part, strict=True))) for part in found)
    return bodies, discs


def _by_value(points: Floats, labels: Labels) -> dict[int, Floats]:
    return {int(value): points[labels == value] for value in np.unique(labels)}


def _structure(
    grid: StackGeometry, points_mm: Floats, value: int, name: str, counted: str, numbers: Mapping[str, float]
) -> TrueStructure:
    index = grid.to_index(points_mm)
    last = np.array([grid.n_slices, *grid.shape]) - 0.5
    inside = (index >= -0.5) & (index <= last)
    return TrueStructure(
        value=value,
        name=name,
        counted_name=counted,
        centroid_mm=points_mm.mean(axis=0),
        in_view=float(inside.all(axis=1).mean()),
        in_picture=float(inside[:, 1:].all(axis=1).mean()),
        numbers={**numbers, "volume_cm3": float(len(points_mm) * CELL_MM.prod() / 1000)},
    )


def disc_numbers(anatomy: Anatomy, disc: Disc, points_mm: Floats, grid: StackGeometry) -> dict[str, float]:
    """Heights and wedge of the disc's outline in the plane of `grid` through its centroid, by column of `DiscRow`.

    The definition of Hess et al. (2023) on the analytic shape, cut on a lattice of 0.1 mm: `height_mm` is the shortest
    side of the rectangle of least area. Along its long side lie the places of the other heights and of the wedge.

    Parameters
    ----------
    points_mm : [n, 3] LPS points in the disc: their mean is its centroid, their extent bounds the outline
    grid : a sagittal stack in standing order
    """
    centre = points_mm.mean(axis=0)
    reach = [(points_mm - centre) @ axis for axis in (grid.row_dir, grid.col_dir)]
    offsets = [np.arange(one.min() - 2, one.max() + 2, HEIGHT_STEP_MM) for one in reach]
    along, down = np.meshgrid(*offsets, indexing="ij")
    points = centre + along.reshape(-1, 1) * grid.row_dir + down.reshape(-1, 1) * grid.col_dir
    depth = disc_depth(anatomy, disc, points.astype(np.float32))[0].reshape(along.shape)
    inside = depth > DISC_INSET_MM
    outlines, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    rectangle = cv2.minAreaRect(max(outlines, key=len))
    corners = cv2.boxPoints(rectangle)[:, ::-1]  # OpenCV's x is the second axis of the lattice
    sides = np.diff(corners[:3], axis=0)
    back = sides[np.argmax(np.linalg.norm(sides, axis=1))]
    back = back / np.linalg.norm(back) * (1 if back[0] > 0 else -1)
    up = np.array([back[1], -back[0]])
    u, v = (HEIGHT_STEP_MM * np.argwhere(inside) @ np.stack([back, up], axis=-1)).T
    numbers = {"height_mm": float((min(rectangle[1]) + 1) * HEIGHT_STEP_MM)}
    return numbers | _chord_numbers(u, v)


def _chord_numbers(u: Floats, v: Floats) -> dict[str, float]:
    """Heights and wedge of a disc whose lattice points [n] lie at `u` along its long side and `v` across, cranial."""
    places = u.min() + np.append(CHORD_SHARES, 0.5) * np.ptp(u)
    chords = [v[np.abs(u - place) < HEIGHT_STEP_MM] for place in places]
    heights = [float(np.ptp(chord)) + HEIGHT_STEP_MM for chord in chords]
    borders = [[end(chord) for chord in chords[:-1]] for end in (np.min, np.max)]
    lower, upper = (np.arctan(np.polyfit(places[:-1], border, 1)[0]) for border in borders)
    return {
        "anterior_height_mm": heights[0],
        "middle_height_mm": heights[-1],
        "posterior_height_mm": heights[-2],
        "wedge_deg": float(np.degrees(lower - upper)),
    }


def body_numbers(anatomy: Anatomy, k: int) -> dict[str, float]:
    """Heights and wedge of a body above the sacrum, by column of `VertebraRow`.

    The middle height is the labelled part of a line along the body's own axis, so that fused halves and nodes in the
    endplates count. The others are those of the planes of the endplates, without their hollows, where the walls meet
    them.
    """
    body = anatomy.bodies[k]
    if body.sacral:
        return {}
    offsets = np.arange(-0.7 * body.height_mm, 0.7 * body.height_mm, LINE_STEP_MM)
    # beside the axis, on which the walls of the shape have no direction
    line = (body.centre + offsets[:, None] * body.axes[2] + 2.0 * body.axes[0]).astype(np.float32)
    labelled = np.count_nonzero(column_labels(anatomy, line)[0] == k + 1)
    inset = BODY_INSET_MM * (2 - sum(body.fused))
    return {
        "anterior_height_mm": body.wall_height_mm(-1) - inset,
        "middle_height_mm": float(labelled * LINE_STEP_MM),
        "posterior_height_mm": body.wall_height_mm(+1) - inset,
        "wedge_deg": float(np.degrees(2 * body.half_wedge_rad)),
    }


def endplate_tilt_deg(body: Body) -> float:
    """Tilt of the plane of the superior endplate where a sagittal plane of the patient cuts it, anterior lower
    positive."""
    normal = _endplate_normal(body, +1)
    return float(np.degrees(np.arctan2(-normal[1], normal[2])))


def csa_cm2(subject: Subject, grid: StackGeometry, muscles: Labels, k: int) -> Mapping[tuple[str, str], float]:
    """(muscle, side) -> area on axial slice k, counted on a lattice three times finer than the picture.

    Parameters
    ----------
    muscles : [slice, row, column] of `muscle_stack`; says where to look
    """
    rows, columns = (np.flatnonzero(muscles[k].any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return {}
    top, left = max(int(rows[0]) - 2, 0), max(int(columns[0]) - 2, 0)
    shape = (min(int(rows[-1]) + 3, grid.shape[0]) - top, min(int(columns[-1]) + 3, grid.shape[1]) - left)
    fine = _refined(grid, k, (top, left), shape)
    found = tissue_at(subject, voxel_centres(fine, 0).reshape(-1, 3))[3]
    count = np.bincount(found, minlength=len(MUSCLE_LABELS) + 1)
    pixel_cm2 = fine.spacing_mm[0] * fine.spacing_mm[1] / 100
    return {key: float(count[value] * pixel_cm2) for key, value in MUSCLE_LABELS.items() if count[value]}


def _refined(grid: StackGeometry, k: int, corner: tuple[int, int], shape: tuple[int, int]) -> StackGeometry:
    """Slice k of a grid between `corner` and `corner` + `shape`, with smaller pixels over the same area."""
    spacing = (grid.spacing_mm[0] / CSA_REFINEMENT, grid.spacing_mm[1] / CSA_REFINEMENT)
    back = (CSA_REFINEMENT - 1) / 2
    origin = grid.to_lps([k, *corner]) - back * (spacing[0] * grid.col_dir + spacing[1] * grid.row_dir)
    size = (shape[0] * CSA_REFINEMENT, shape[1] * CSA_REFINEMENT)
    return StackGeometry(origin[None], grid.row_dir, grid.col_dir, spacing, size, grid.thickness_mm)


def sacral_values(anatomy: Anatomy) -> npt.NDArray[np.bool_]:
    """[1 + body] Is the instance value a sacral body."""
    return np.array([False, *(body.sacral for body in anatomy.bodies)])
