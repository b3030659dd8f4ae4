"""Real slices with human masks as training data: read, split by patient, and given a new contrast.

The layout is that of the SPIDER slices (van der Graaf et al. 2024): `images/<patient>_..._slice<k>.png` with
`labels/` of the same names (1 vertebra with posterior elements, 2 disc, 3 canal) and `series.csv` with PixelSpacing.
Not everything in view is labelled: the sacrum never, vertebrae and discs only up to where the annotator stopped. So
every class has a mask of the pixels where its label is known, and the loss looks only there.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import cv2
import numpy as np
import numpy.typing as npt

from cohort.errors import ConfigurationError
from models.preprocessing import normalise

Mask = npt.NDArray[np.bool_]
Part = Literal["training", "validation", "test"]

VERTEBRA: Final = 1
DISC: Final = 2
CANAL: Final = 3
BODY: Final = 4
"""Region of `AnnotatedSlices.regions` that the files do not have: vertebra in front of the canal."""

SHARES: Final[tuple[tuple[Part, int], ...]] = (("training", 5), ("validation", 7), ("test", 10))
"""Upper tenths: half of the patients for training, a fifth for choosing between networks, the rest for the score."""


@dataclass(frozen=True, eq=False)
class AnnotatedSlices:
    """Normalised slices on one grid, with what is labelled on them."""

    images: npt.NDArray[np.float16]
    """[n, row, column]."""
    regions: npt.NDArray[np.uint8]
    """[n, row, column] 0 elsewhere, VERTEBRA (posterior elements), DISC, CANAL or BODY."""
    patients: tuple[str, ...]

    def targets(self, classes: tuple[str, ...]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Masks and known pixels, each [n, class, row, column] 0 or 1."""
        pairs = [[_target(regions, name) for name in classes] for regions in self.regions]
        target, known = np.array(pairs, dtype=np.uint8).transpose(2, 0, 1, 3, 4)
        return target, known


@dataclass(frozen=True, eq=False)
class Annotated:
    """What a training sees of a folder of annotated slices: the test patients are not among it."""

    training: AnnotatedSlices
    validation: AnnotatedSlices


def patient_of(path: Path) -> str:
    """Number of the patient whose slice a file holds."""
    return path.stem.split("_")[0]


def read_png(path: Path) -> npt.NDArray[np.uint8]:
    """Grey values or labels [row, column] of a picture."""
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), dtype=np.uint8)


def part_of_patient(patient: str) -> Part:
    """Which part of the data a patient belongs to: by a hash, so that more data never moves anybody."""
    tenth = hashlib.sha256(patient.encode()).digest()[0] * 10 // 256
    return next(part for part, upper in SHARES if tenth < upper)


def read_annotated(folder: Path, part: Part, *, size: int, spacing_mm: float) -> AnnotatedSlices:
    """Read the slices of one part on which the canal shows where vertebral bodies end.

    Parameters
    ----------
    size : rows and columns of the grid that the slices are centred on
    spacing_mm : its pixel

    Raises
    ------
    ConfigurationError
        if the folder has no series.csv or no slices of that part
    """
    found = [
        (patient_of(path), *_on_grid(image, regions, pixel_mm, size, spacing_mm))
        for path, image, regions, pixel_mm in _slices(folder, part)
    ]
    if not found:
        raise ConfigurationError(f"no annotated slices of the {part} patients in folder {folder.name}")
    patients, images, regions = zip(*found, strict=True)
    return AnnotatedSlices(np.stack(images), np.stack(regions), tuple(patients))


def read_spacings(folder: Path) -> Mapping[str, tuple[float, float]]:
    """Series -> (between rows, between columns) mm, from series.csv."""
    try:
        with (folder / "series.csv").open() as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise ConfigurationError(f"folder {folder.name} of annotated slices has no series.csv") from None
    pairs = {row["new_file_name"]: row["PixelSpacing"].strip("[]").split(",") for row in rows}
    return {name: (float(pair[0]), float(pair[1])) for name, pair in pairs.items()}


def bodies_in_front_of_canal(label: npt.NDArray[np.uint8]) -> Mask | None:
    """Vertebra pixels anterior to the canal (anterior is left); None where the canal is not seen along the column."""
    vertebra, canal = label == VERTEBRA, label == CANAL
    rows = np.flatnonzero(vertebra.any(axis=1))
    seen = np.flatnonzero(canal.any(axis=1))
    if not len(rows) or len(seen) < 0.8 * len(rows):
        return None
    front = np.interp(np.arange(len(label)), seen, [int(np.argmax(canal[row])) for row in seen])
    return np.asarray(vertebra & (np.arange(label.shape[1]) < front[:, None]), dtype=bool)


def _slices(
    folder: Path, part: Part
) -> Iterator[tuple[Path, npt.NDArray[np.uint8], npt.NDArray[np.uint8], tuple[float, float]]]:
    spacings = read_spacings(folder)
    for path in sorted((folder / "images").iterdir()):
        if part_of_patient(patient_of(path)) != part:
            continue
        regions = read_png(folder / "labels" / path.name)
        bodies = bodies_in_front_of_canal(regions)
        if bodies is not None:
            regions[bodies] = BODY
            yield path, read_png(path), regions, spacings[path.stem.rsplit("_slice", 1)[0]]


def _on_grid(
    image: npt.NDArray[np.uint8],
    regions: npt.NDArray[np.uint8],
    pixel_mm: tuple[float, float],
    size: int,
    spacing_mm: float,
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.uint8]]:
    """Resample to `spacing_mm` and centre on a square of `size`; regions by nearest neighbour."""
    shape = (round(image.shape[1] * pixel_mm[1] / spacing_mm), round(image.shape[0] * pixel_mm[0] / spacing_mm))
    small = cv2.resize(normalise(image), shape, interpolation=cv2.INTER_AREA)
    nearest = cv2.resize(regions, shape, interpolation=cv2.INTER_NEAREST)
    return _centred(small, size).astype(np.float16), _centred(nearest, size)


def _centred(image: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    out = np.zeros((size, size), image.dtype)
    cut = [max(n - size, 0) // 2 for n in image.shape]
    inner = image[cut[0] : cut[0] + size, cut[1] : cut[1] + size]
    top, left = ((size - n) // 2 for n in inner.shape)
    out[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return out


def _target(regions: npt.NDArray[np.uint8], name: str) -> tuple[Mask, Mask]:
    """Target of one class, and where it is known."""
    rows = np.arange(len(regions))[:, None]
    labelled = np.flatnonzero(np.isin(regions, (BODY, DISC)).any(axis=1))
    top, bottom = int(labelled[0]), int(labelled[-1])
    everywhere = np.ones_like(regions, dtype=bool)
    if name == "vertebral_body":  # below the lowest disc there is sacrum, which is no lumbar body
        return regions == BODY, everywhere & (rows >= top)
    if name == "disc":
        return regions == DISC, everywhere & (rows >= top) & (rows <= bottom)
    if name == "sacral_body":  # never labelled; all that is known is that it is not where another structure is
        return np.zeros_like(everywhere), regions > 0
    raise ConfigurationError(f"annotated slices have no class {name!r}")
