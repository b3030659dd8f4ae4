"""Spines and muscles of exactly known shape, drawn into label stacks of any geometry, for tests of `cohort.anatomy`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cohort.geometry import Floats, StackGeometry
from cohort.stacks import ImageStack, LabelledStack
from cohort.terms import MUSCLE_LABELS

TILTS_DEG = {
    "S2": 58.0,
    "S1": 40.0,
    "L5": 22.0,
    "L4": 8.0,
    "L3": -2.0,
    "L2": -8.0,
    "L1": -11.0,
    "T12": -10.0,
    "T11": -8.0,
}
HEIGHTS_MM = {
    "S1-S2": 3.0,
    "L5-S1": 8.0,
    "L4-L5": 10.0,
    "L3-L4": 9.0,
    "L2-L3": 8.0,
    "L1-L2": 7.0,
    "T12-L1": 6.0,
    "T11-T12": 5.0,
}
BODY_MM = (27.0, 33.0, 46.0)
DISC_MM = (34.0, 44.0)
"""(height, depth, width) of bodies; (depth, width) of discs."""
S2_MM = (22.0, 22.0, 40.0)
SACRAL_TAPER = 0.72
"""Depth of a sacral body at its lower end over that at its upper end."""


@dataclass(frozen=True, eq=False)
class Block:
    """Elliptic cylinder: height along `up`, elliptic across; its mid-sagittal section is a rectangle, with a `taper` a
    trapezium whose lower end is that much shorter."""

    name: str
    centre_mm: Floats
    tilt_deg: float
    height_mm: float
    depth_mm: float
    width_mm: float
    taper: float = 1.0

    @property
    def up(self) -> Floats:
        tilt = np.radians(self.tilt_deg)
        return np.array([0.0, -np.sin(tilt), np.cos(tilt)])

    @property
    def back(self) -> Floats:
        tilt = np.radians(self.tilt_deg)
        return np.array([0.0, np.cos(tilt), np.sin(tilt)])

    @property
    def centroid_mm(self) -> Floats:
        """Above the middle where the lower end is shorter."""
        return self.centre_mm + self.up * self.height_mm * (1 - self.taper) / (6 * (1 + self.taper))

    def contains(self, points: Floats) -> npt.NDArray[np.bool_]:
        local = points - self.centre_mm
        height = local @ self.up
        depth = self.depth_mm * (1 + (self.taper - 1) * (0.5 - height / self.height_mm))
        across = (local[..., 0] * 2 / self.width_mm) ** 2 + (local @ self.back * 2 / depth) ** 2
        return (np.abs(height) <= self.height_mm / 2) & (across <= 1)


def spine(*, top: str = "T11", x_mm: float = 3.0, s2: bool = True) -> dict[str, Block]:
    """Bodies and discs from S2 or S1 to `top`, stacked along a lordosis; S1 is at the origin of y and z."""
    names = list(TILTS_DEG)[0 if s2 else 1 :]
    names = names[: names.index(top) + 1]
    blocks: dict[str, Block] = {}
    at = np.zeros(3)
    for below, above in zip([None, *names], names, strict=False):
        if below is not None:
            at = _add_disc(blocks, below, above, at)
        size = S2_MM if above == "S2" else BODY_MM
        taper = SACRAL_TAPER if above.startswith("S") else 1.0
        up = Block(above, at, TILTS_DEG[above], *size).up
        at = at + up * size[0] / 2 if below is not None else at
        blocks[above] = Block(above, at, TILTS_DEG[above], *size, taper)
        at = at + up * size[0] / 2
    blocks.pop("S1-S2", None)  # a rudiment, which nobody outlines
    shift = np.array([x_mm, 0, 0]) - blocks["S1"].centre_mm
    return {name: replace(block, centre_mm=block.centre_mm + shift) for name, block in blocks.items()}


def _add_disc(blocks: dict[str, Block], below: str, above: str, at: Floats) -> Floats:
    """Disc between two bodies, with room for the wedge; returns the middle of the next inferior endplate."""
    room = 1.0 + BODY_MM[1] / 2 * np.sin(np.radians(abs(TILTS_DEG[below] - TILTS_DEG[above]) / 2))
    name = f"{above}-{below}"
    tilt = (TILTS_DEG[below] + TILTS_DEG[above]) / 2
    disc = Block(name, at, tilt, HEIGHTS_MM[name], *DISC_MM)
    centre = at + disc.up * (room + disc.height_mm / 2)
    blocks[name] = Block(name, centre, tilt, disc.height_mm, *DISC_MM)
    return centre + disc.up * (room + disc.height_mm / 2)


def rotation(turn_deg: float, lean_deg: float) -> Floats:
    """Turn about z, then lean about y."""
    a, b = np.radians([turn_deg, lean_deg])
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    return np.asarray(about_z @ about_y)


def sagittal_geometry(
    *, turn_deg: float = 3.0, lean_deg: float = -2.0, n: int = 15, spacing: tuple[float, float] = (0.65, 0.6),
    shape: tuple[int, int] = (512, 480), gap_mm: float = 4.0, middle_mm: tuple[float, float, float] = (1.0, 0.0, 115.0),
) -> StackGeometry:  # fmt: skip
    """Slightly oblique sagittal stack: rows caudal, columns posterior, slices towards the right (x falling)."""
    turn = rotation(turn_deg, lean_deg)
    row_dir, col_dir = turn @ [0.0, 1.0, 0.0], turn @ [0.0, 0.0, -1.0]
    normal = np.cross(row_dir, col_dir)
    corner = np.array(middle_mm) - col_dir * spacing[0] * (shape[0] - 1) / 2 - row_dir * spacing[1] * (shape[1] - 1) / 2
    position = corner + (np.arange(n) - (n - 1) / 2)[:, None] * gap_mm * normal
    return StackGeometry(position, row_dir, col_dir, spacing, shape, gap_mm * 0.9)


def axial_geometry(
    *, tilt_deg: float = 0.0, n: int = 30, spacing: float = 0.8, size: int = 256, gap_mm: float = 4.0,
    middle_mm: tuple[float, float, float] = (3.0, 40.0, 90.0),
) -> StackGeometry:  # fmt: skip
    """Axial stack leaning like a disc of tilt `tilt_deg`; rows posterior, columns left."""
    tilt = np.radians(tilt_deg)
    row_dir, col_dir = np.array([1.0, 0, 0]), np.array([0.0, np.cos(tilt), np.sin(tilt)])
    normal = np.cross(row_dir, col_dir)
    half = spacing * (size - 1) / 2
    corner = np.array(middle_mm) - row_dir * half - col_dir * half
    position = corner + (np.arange(n) - (n - 1) / 2)[:, None] * gap_mm * normal
    return StackGeometry(position, row_dir, col_dir, (spacing, spacing), (size, size), gap_mm)


def draw(block: Block, geometry: StackGeometry, out: npt.NDArray[np.uint8], value: int) -> None:
    """Write `value` where voxel centres lie inside the block."""
    radius = np.linalg.norm([block.height_mm, block.depth_mm, block.width_mm]) / 2
    centre = geometry.to_index(block.centre_mm)
    reach = radius / np.array([abs(geometry.slice_gap_mm), *geometry.spacing_mm]) + 1
    low = np.clip(np.floor(centre - reach), 0, out.shape).astype(int)
    high = np.clip(np.ceil(centre + reach) + 1, 0, out.shape).astype(int)
    index = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij"), axis=-1)
    if index.size:
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        out[box][block.contains(geometry.to_lps(index))] = value


def sagittal_stack(blocks: dict[str, Block], geometry: StackGeometry, *, frame: str | None = "frame") -> LabelledStack:
    """Label stack of a spine: names with '-' are discs, S1 and below sacral."""
    shape = (geometry.n_slices, *geometry.shape)
    bodies, discs = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    for name, block in blocks.items():
        if "-" in name:
            draw(block, geometry, discs, 1)
        else:
            draw(block, geometry, bodies, 2 if name.startswith("S") else 1)
    return labelled("sagittal", geometry, {"vertebral_body": bodies, "disc": discs}, frame=frame)


def labelled(plane, geometry, labels, *, image=None, index=0, frame: str | None = "frame") -> LabelledStack:  # type: ignore[no-untyped-def]
    shape = (geometry.n_slices, *geometry.shape)
    image = np.zeros(shape, np.uint16) if image is None else image
    return LabelledStack(ImageStack(plane, index, image, geometry, frame), labels, {})


MUSCLE_MM = {
    "multifidus": (11.0, 46.0, 9.0, 13.0),
    "erector_spinae": (42.0, 50.0, 20.0, 15.0),
    "psoas": (38.0, 5.0, 14.0, 18.0),
    "quadratus_lumborum": (68.0, 20.0, 6.0, 18.0),
}
"""Lateral and posterior offset from the vertebral body, lateral and sagittal half axes."""


def muscle_area_cm2(muscle: str) -> float:
    _, _, a, b = MUSCLE_MM[muscle]
    return float(np.pi * a * b / 100)


def muscle_stack(
    geometry: StackGeometry, *, x_mm: float = 3.0, y_mm: float = 0.0, turn_deg: float = 0.0, tilt_deg: float = 0.0,
    drift: float = 0.0, only: tuple[tuple[str, str], ...] = tuple(MUSCLE_LABELS), index: int = 0,
    frame: str | None = "frame",
) -> LabelledStack:  # fmt: skip
    """Elliptic columns of muscle beside the body at (x, y), running along the up direction of `tilt_deg`.

    `turn_deg` rotates the patient about z, `drift` shifts x by that much per mm of height (scoliosis).
    """
    shape = (geometry.n_slices, *geometry.shape)
    points = geometry.to_lps(np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1))
    a, t = np.radians([turn_deg, tilt_deg])
    height = points[..., 2] - geometry.position_mm[:, 2].mean()
    x, y = points[..., 0] - x_mm - drift * height, points[..., 1] - y_mm
    x, y = np.cos(a) * x + np.sin(a) * y, -np.sin(a) * x + np.cos(a) * y
    y = np.cos(t) * y + np.sin(t) * points[..., 2] if tilt_deg else y
    out = np.zeros(shape, np.uint8)
    for muscle, side in only:
        lateral, posterior, half_x, half_y = MUSCLE_MM[muscle]
        sign = 1 if side == "left" else -1
        inside = ((x - sign * lateral) / half_x) ** 2 + ((y - posterior) / half_y) ** 2 <= 1
        out[inside] = MUSCLE_LABELS[muscle, side]
    return labelled("axial", geometry, {"muscle": out}, index=index, frame=frame)


def reordered(stack: LabelledStack, *, swap: bool, flip: tuple[bool, bool, bool]) -> LabelledStack:
    """The same voxels in the same places, stored in another axis order."""
    g = stack.stack.geometry
    row_dir, col_dir, spacing, shape, position = g.row_dir, g.col_dir, g.spacing_mm, g.shape, g.position_mm
    if flip[0]:
        position = position[::-1]
    if flip[1]:
        position, col_dir = position + (shape[0] - 1) * spacing[0] * col_dir, -col_dir
    if flip[2]:
        position, row_dir = position + (shape[1] - 1) * spacing[1] * row_dir, -row_dir
    if swap:
        row_dir, col_dir, spacing, shape = col_dir, row_dir, spacing[::-1], shape[::-1]

    def turn(volume):  # type: ignore[no-untyped-def]
        volume = volume[tuple(slice(None, None, -1 if f else 1) for f in flip)]
        return np.ascontiguousarray(volume.transpose(0, 2, 1) if swap else volume)

    geometry = StackGeometry(np.array(position), row_dir, col_dir, spacing, shape, g.thickness_mm)
    image = ImageStack(
        stack.stack.plane, stack.stack.index, turn(stack.stack.image), geometry, stack.stack.frame_of_reference_id
    )
    return LabelledStack(image, {name: turn(volume) for name, volume in stack.labels.items()}, stack.uncertainty)
