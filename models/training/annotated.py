"""Real slices with human masks as training data: read, split by patient, and given a new contrast.

The layout is that of the SPIDER slices (van der Graaf et al. 2024): `images/<patient>_..._slice<k>.png` with
`labels/` of the same names and `series.csv` with PixelSpacing. Sagittal labels: 1 vertebra with posterior elements, 2
disc, 3 canal. Axial labels: 1 multifidus, 2 erector spinae, 3 psoas, 4 quadratus lumborum, both sides alike.
Not everything in view is labelled: the sacrum never, vertebrae and discs only up to where the annotator stopped,
muscles perhaps not all. So every class has a mask of the pixels where its label is known, and the loss looks only
there.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from cohort.errors import ConfigurationError
from cohort.stacks import Plane
from cohort.terms import MUSCLES
from models.preprocessing import normalise

Mask = npt.NDArray[np.bool_]
Part = Literal["training", "validation", "test"]

VERTEBRA: Final = 1
DISC: Final = 2
CANAL: Final = 3
BODY: Final = 4
UNSURE: Final = 5
"""Regions of `AnnotatedSlices.regions` that the files do not have: vertebra in front of the canal, and vertebra that
may be body or arch."""

MUSCLE_REGIONS: Final = {name: 11 + k for k, name in enumerate(MUSCLES)}
"""Muscle -> its region on axial slices, where the files have 1 to 4."""

UNSURE_MM: Final = 4.0
"""Where only discs show the posterior wall, vertebra this close to the line between them may be a pedicle's root."""
MAX_DENT_MM: Final = 8.0
"""A disc whose posterior tip lies further than this in front of the line through places at least `MIN_APART_MM` away is
broken, or only half of it is labelled."""
MIN_APART_MM: Final = 10.0

SHARES: Final[tuple[tuple[Part, int], ...]] = (("training", 5), ("validation", 7), ("test", 10))
"""Upper tenths: half of the patients for training, a fifth for choosing between networks, the rest for the score."""


class RealSlices(Protocol):
    """Normalised slices of patients on one grid, and what is known of them."""

    @property
    def images(self) -> npt.NDArray[np.float16]:
        """[n, row, column]."""

    @property
    def regions(self) -> npt.NDArray[np.uint8] | None:
        """[n, row, column] where slices are given a new contrast (`models.training.augment.recolour`), else None."""

    @property
    def patients(self) -> tuple[str, ...]:
        """Of each slice."""

    @property
    def content(self) -> tuple[npt.NDArray[Any], ...]:
        """All arrays that a training depends on."""

    @property
    def described(self) -> str:
        """How many there are, in words."""

    def targets(self, classes: tuple[str, ...]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Masks and known pixels, each [n, class, row, column] 0 or 1."""

    def take(self, index: npt.NDArray[np.int64]) -> RealSlices:
        """Some of the slices."""


@dataclass(frozen=True, eq=False)
class AnnotatedSlices:
    """Normalised slices on one grid, with what is labelled on them."""

    images: npt.NDArray[np.float16]
    """[n, row, column]."""
    regions: npt.NDArray[np.uint8]
    """[n, row, column] 0 elsewhere, VERTEBRA (posterior elements), DISC, CANAL, BODY, UNSURE or a muscle's."""
    patients: tuple[str, ...]

    @property
    def described(self) -> str:
        """As in `RealSlices`."""
        return f"{len(self.patients)} slices of {len(set(self.patients))} patients"

    @property
    def content(self) -> tuple[npt.NDArray[Any], ...]:
        """As in `RealSlices`."""
        return self.images, self.regions, np.array(self.patients, "U")

    def take(self, index: npt.NDArray[np.int64]) -> AnnotatedSlices:
        """As in `RealSlices`."""
        return AnnotatedSlices(self.images[index], self.regions[index], tuple(self.patients[k] for k in index))

    def targets(self, classes: tuple[str, ...]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """As in `RealSlices`."""
        pairs = [[_target(regions, name) for name in classes] for regions in self.regions]
        target, known = np.array(pairs, dtype=np.uint8).transpose(2, 0, 1, 3, 4)
        return target, known


@dataclass(frozen=True, eq=False)
class Annotated:
    """What a training sees of annotated slices: the test patients are not among it."""

    training: RealSlices
    validation: RealSlices


def patient_of(path: Path) -> str:
    """Number, or name, of the patient whose slice a file holds."""
    return path.stem.split("_")[0]


def read_png(path: Path, what: str = "picture") -> npt.NDArray[np.uint8]:
    """Grey values or labels [row, column] of a picture.

    Raises
    ------
    ConfigurationError
        if it is missing, damaged, in colour or not of 8 bit; it is called `what` in the message
    """
    content = path.read_bytes() if path.is_file() else b""  # cv2.imread itself would print the whole path
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if content else None
    if picture is None:
        raise ConfigurationError(f"{what} {path.name} is missing or cannot be read")
    if picture.dtype != np.uint8 or picture.ndim != 2:
        found = f"{picture.dtype.itemsize * 8} bit, {1 if picture.ndim == 2 else picture.shape[2]} channels"
        raise ConfigurationError(f"{what} {path.name} has {found}: 8 bit and one channel are expected")
    return np.asarray(picture, dtype=np.uint8)


def part_of_patient(patient: str) -> Part:
    """Which part of the data a patient belongs to: by a hash, so that more data never moves anybody."""
    tenth = hashlib.sha256(patient.encode()).digest()[0] * 10 // 256
    return next(part for part, upper in SHARES if tenth < upper)


def read_annotated(
    folder: Path, part: Part, *, size: int, spacing_mm: float, plane: Plane = "sagittal"
) -> AnnotatedSlices:
    """Read the slices of one part: sagittal ones on which canal or discs show where vertebral bodies end, axial ones
    on which any muscle is labelled.

    Parameters
    ----------
    size : rows and columns of the grid that the slices are centred on
    spacing_mm : its pixel

    Raises
    ------
    ConfigurationError
        if the folder is not laid out like this or has no slices of that part, a picture is not grey of 8 bit, a label
        has another size than its image or a value that its plane does not know
    """
    found = [
        (patient_of(path), *_on_grid(image, regions, pixel_mm, size, spacing_mm))
        for path, image, regions, pixel_mm in _slices(folder, part, plane)
    ]
    if not found:
        raise ConfigurationError(f"no annotated slices of the {part} patients in folder {folder.name}")
    patients, images, regions = zip(*found, strict=True)
    return AnnotatedSlices(np.stack(images), np.stack(regions), tuple(patients))


def read_spacings(folder: Path) -> Mapping[str, tuple[float, float]]:
    """Series -> (between rows, between columns) mm, from series.csv.

    Raises
    ------
    ConfigurationError
        if the file or one of its columns is missing, or a spacing is not two positive numbers
    """
    try:
        with (folder / "series.csv").open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), reader.fieldnames or ()
    except FileNotFoundError:
        raise ConfigurationError(f"folder {folder.name} of annotated slices has no series.csv") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError("series.csv is not a CSV file in UTF-8") from error
    if missing := sorted({"new_file_name", "PixelSpacing"} - set(columns)):
        raise ConfigurationError(f"series.csv has no column {' and no column '.join(missing)}")
    return {row["new_file_name"]: _spacing(row) for row in rows}


def _spacing(row: Mapping[str, str | None]) -> tuple[float, float]:
    text = row["PixelSpacing"] or ""
    try:
        between_rows, between_columns = map(float, text.strip(" []").split(","))
    except ValueError:
        between_rows = between_columns = 0.0
    if not all(0 < mm < math.inf for mm in (between_rows, between_columns)):
        raise ConfigurationError(
            f'series.csv, row {row["new_file_name"]}: PixelSpacing {text!r} is not "[row, column]" in mm, both above 0'
        )
    return between_rows, between_columns


def bodies_in_front_of_canal(label: npt.NDArray[np.uint8]) -> Mask | None:
    """Vertebra pixels anterior to the canal (anterior is left); None where the canal is not seen along the column."""
    vertebra, canal = label == VERTEBRA, label == CANAL
    rows = np.flatnonzero(vertebra.any(axis=1))
    seen = np.flatnonzero(canal.any(axis=1))
    if not len(rows) or len(seen) < 0.8 * len(rows):
        return None
    front = np.interp(np.arange(len(label)), seen, [int(np.argmax(canal[row])) for row in seen])
    return np.asarray(vertebra & (np.arange(label.shape[1]) < front[:, None]), dtype=bool)


def divide_vertebrae(label: npt.NDArray[np.uint8], pixel_mm: tuple[float, float]) -> npt.NDArray[np.uint8] | None:
    """Regions of a slice: vertebrae divided into BODY, VERTEBRA (arch) and, where it cannot be told, UNSURE.

    The posterior wall runs along the canal where that is seen, else from one disc's posterior edge to the next. None
    where fewer than three of these places are seen.
    """
    wall = {int(row): int(np.argmax(label[row] == CANAL)) for row in np.flatnonzero((label == CANAL).any(axis=1))}
    along_canal = np.isin(np.arange(len(label)), list(wall))
    wall |= {row: column for row, column in _posterior_tips_of_discs(label) if row not in wall}
    if len(wall) < 3:
        return None
    wall = _without_dents(wall, pixel_mm)
    rows, anchors = np.arange(len(label)), sorted(wall)
    behind = np.arange(label.shape[1]) - np.interp(rows, anchors, [wall[row] for row in anchors])[:, None]
    near = (rows >= anchors[0]) & (rows <= anchors[-1])
    sure = along_canal[:, None] | (near[:, None] & (np.abs(behind) * pixel_mm[1] > UNSURE_MM))
    regions = label.copy()
    vertebra = label == VERTEBRA
    regions[vertebra & (behind < 0)] = BODY
    regions[vertebra & ~sure] = UNSURE
    return regions


def _posterior_tips_of_discs(label: npt.NDArray[np.uint8]) -> list[tuple[int, int]]:
    """(row, column behind it) of the posterior tip of each disc."""
    n, components = cv2.connectedComponents((label == DISC).astype(np.uint8))
    discs = [np.argwhere(components == k) for k in range(1, n)]
    tips = [disc[np.argmax(disc[:, 1])] for disc in discs]
    return [(int(row), int(column) + 1) for row, column in tips]


def _without_dents(wall: dict[int, int], pixel_mm: tuple[float, float]) -> dict[int, int]:
    rows = np.array(sorted(wall))
    columns = np.array([wall[row] for row in rows])
    apart = np.abs(rows[:, None] - rows) * pixel_mm[0] >= MIN_APART_MM
    line = [np.interp(row, rows[far], columns[far]) if far.any() else 0 for row, far in zip(rows, apart, strict=True)]
    kept = (line - columns) * pixel_mm[1] < MAX_DENT_MM
    return dict(zip(rows[kept].tolist(), columns[kept].tolist(), strict=True))


def _slices(
    folder: Path, part: Part, plane: Plane
) -> Iterator[tuple[Path, npt.NDArray[np.uint8], npt.NDArray[np.uint8], tuple[float, float]]]:
    spacings = read_spacings(folder)
    if not (folder / "images").is_dir():
        raise ConfigurationError(f"folder {folder.name} of annotated slices has no folder images")
    for path in sorted((folder / "images").glob("*.png")):
        if part_of_patient(patient_of(path)) != part:
            continue
        pixel_mm = _spacing_of(path, spacings)
        image, label = read_png(path, "image"), read_png(folder / "labels" / path.name, "label")
        if image.shape != label.shape:
            raise ConfigurationError(f"label {path.name} has {label.shape} pixels, its image {image.shape}")
        _check_values(label, len(MUSCLES) if plane == "axial" else CANAL, path, plane)
        regions = _muscle_regions(label) if plane == "axial" else divide_vertebrae(label, pixel_mm)
        if regions is not None and (regions >= BODY).any():
            yield path, image, regions, pixel_mm


def _spacing_of(path: Path, spacings: Mapping[str, tuple[float, float]]) -> tuple[float, float]:
    series = path.stem.rsplit("_slice", 1)[0]
    if series not in spacings:
        raise ConfigurationError(f"series.csv has no row {series}, which image {path.name} is of")
    return spacings[series]


def _check_values(label: npt.NDArray[np.uint8], largest: int, path: Path, plane: Plane) -> None:
    if label.max(initial=0) > largest:
        raise ConfigurationError(
            f"label {path.name} has the value {label.max()}; {plane} labels are 0 to {largest} (docs/training.md)"
        )


def _muscle_regions(label: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.where(label > 0, label + (min(MUSCLE_REGIONS.values()) - 1), 0).astype(np.uint8)


def _on_grid(
    image: npt.NDArray[np.uint8],
    regions: npt.NDArray[np.uint8],
    pixel_mm: tuple[float, float],
    size: int,
    spacing_mm: float,
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.uint8]]:
    """Resample to `spacing_mm` and centre on a square of `size`; regions by nearest neighbour."""
    row_mm, column_mm = pixel_mm
    shape = (
        max(round(image.shape[1] * column_mm / spacing_mm), 1),
        max(round(image.shape[0] * row_mm / spacing_mm), 1),
    )
    small = cv2.resize(normalise(image), shape, interpolation=cv2.INTER_AREA)
    nearest = cv2.resize(regions, shape, interpolation=cv2.INTER_NEAREST)
    return centred(small, size).astype(np.float16), centred(nearest, size)


def centred(image: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """The middle of [row, column] on a square of `size`, zero beyond the image."""
    out = np.zeros((size, size), image.dtype)
    cut = [max(n - size, 0) // 2 for n in image.shape]
    inner = image[cut[0] : cut[0] + size, cut[1] : cut[1] + size]
    top, left = ((size - n) // 2 for n in inner.shape)
    out[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return out


def _target(regions: npt.NDArray[np.uint8], name: str) -> tuple[Mask, Mask]:
    """Target of one class, and where it is known: vertebrae and discs above the topmost labelled one are not, nor is a
    muscle on a slice that has no label of it."""
    if name in MUSCLE_REGIONS:
        muscle = regions == MUSCLE_REGIONS[name]
        return muscle, np.full_like(muscle, muscle.any())
    labelled = np.flatnonzero(np.isin(regions, (BODY, DISC)).any(axis=1))
    top = labelled[0] if len(labelled) else len(regions)
    below_top = np.broadcast_to(np.arange(len(regions))[:, None] >= top, regions.shape)
    if name == "vertebral_body":  # below the lowest disc there is sacrum, which is no lumbar body
        return regions == BODY, below_top & (regions != UNSURE)
    if name == "disc":  # L5/S1 is always labelled, and what is dark below it is no disc
        return regions == DISC, below_top
    if name == "sacral_body":  # never labelled; all that is known is that it is not where another structure is
        return np.zeros_like(below_top), regions > 0
    raise ConfigurationError(f"annotated slices have no class {name!r}")
