"""Cut a subject along planes: tissue with partial volume, and labels at voxel centres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cohort.geometry import StackGeometry
from models.phantom.anatomy import Anatomy
from models.phantom.fields import Array, Cloud
from models.phantom.soft_tissue import SoftTissue, draw_soft_tissue, paint_soft_tissue
from models.phantom.tissues import Bytes, Tissue
from models.phantom.vertebral_column import paint_column

# Sub-samples of a voxel: one of four through-plane layers each with its own in-plane quarter (row, column, slice), in
# voxels.
_SUBSAMPLES = ((-0.25, -0.25, -0.375), (0.25, 0.25, -0.125), (-0.25, 0.25, 0.125), (0.25, -0.25, 0.375))

_NOT_MUSCLE = np.isin(
    np.arange(len(Tissue)),
    [Tissue.MUSCLE, Tissue.MUSCLE_FAT, Tissue.LIGAMENT],
    invert=True,
)


@dataclass(frozen=True)
class Subject:
    """A drawn subject, ready to be cut."""

    anatomy: Anatomy
    soft: SoftTissue

    @property
    def back_y_mm(self) -> float:
        """LPS y of the skin of the back, mm: mean over the heights of the track."""
        return float(self.soft.track[:, 4].mean()) + self.anatomy.habitus.subcutaneous_mm


@dataclass(frozen=True, eq=False)
class TissueSlice:
    """One slice: tissue at sub-voxel positions, labels at voxel centres."""

    tissue: Bytes
    """[sub-sample, row, column] values of `Tissue`."""
    points_mm: Array
    """[row, column, 3] voxel centres, LPS."""
    body: Bytes
    """[row, column] 1 + index into `Anatomy.bodies`."""
    disc: Bytes
    """[row, column] 1 + index into `Anatomy.discs`."""
    muscle: Bytes
    """[row, column] values of `cohort.terms.MUSCLE_LABELS`."""


def draw_subject(anatomy: Anatomy) -> Subject:
    """Prepare a subject for cutting."""
    return Subject(anatomy, draw_soft_tissue(anatomy))


def voxel_centres(geometry: StackGeometry, k: int) -> Array:
    """[row, column, 3] LPS mm of slice k."""
    rows = np.arange(geometry.shape[0])[:, None, None] * (geometry.spacing_mm[0] * geometry.col_dir)
    columns = np.arange(geometry.shape[1])[None, :, None] * (geometry.spacing_mm[1] * geometry.row_dir)
    return np.asarray(geometry.position_mm[k] + rows + columns, dtype=np.float32)


def tissue_at(subject: Subject, points: Array) -> tuple[Bytes, Bytes, Bytes, Bytes]:
    """Tissue, body, disc and muscle labels at points [n, 3] (LPS mm)."""
    cloud = Cloud(points)
    tissue, muscle = paint_soft_tissue(subject.soft, cloud)
    body, disc = paint_column(subject.anatomy, cloud, tissue)
    muscle[_NOT_MUSCLE[tissue]] = 0
    return tissue, body, disc, muscle


def cut(subject: Subject, geometry: StackGeometry, k: int) -> TissueSlice:
    """Cut slice k of a stack."""
    centres = voxel_centres(geometry, k)
    flat = centres.reshape(-1, 3)
    _, body, disc, muscle = tissue_at(subject, flat)
    layers = []
    for row, column, through in _SUBSAMPLES:
        shift = row * geometry.spacing_mm[0] * geometry.col_dir + column * geometry.spacing_mm[1] * geometry.row_dir
        shift = shift + through * geometry.thickness_mm * geometry.normal
        layers.append(tissue_at(subject, flat + shift.astype(np.float32))[0].reshape(geometry.shape))
    return TissueSlice(
        tissue=np.stack(layers),
        points_mm=centres,
        body=body.reshape(geometry.shape),
        disc=disc.reshape(geometry.shape),
        muscle=muscle.reshape(geometry.shape),
    )


def plane(
    centre_mm: npt.ArrayLike,
    row_dir: npt.ArrayLike,
    col_dir: npt.ArrayLike,
    *,
    size: int,
    spacing_mm: float,
    thickness_mm: float,
) -> StackGeometry:
    """Square single-slice grid around a centre."""
    across, down = np.asarray(row_dir, float), np.asarray(col_dir, float)
    corner = np.asarray(centre_mm, float) - (size - 1) / 2 * spacing_mm * (across + down)
    return StackGeometry(corner[None], across, down, (spacing_mm, spacing_mm), (size, size), thickness_mm)
