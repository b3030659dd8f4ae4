"""A small folder of annotated slices in the layout of `annotated`, drawn by the phantom: to try a training with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from cohort.errors import ConfigurationError
from models.phantom.acquisition import acquire_slices
from models.phantom.anatomy import Anatomy, draw_anatomy
from models.phantom.mri import DEMO_SCANNER, draw_contrast
from models.phantom.sampling import TissueSlice, cut, draw_subject, plane
from models.phantom.tissues import Tissue
from models.preprocessing import normalise
from models.training.annotated import CANAL, DISC, VERTEBRA

PATIENTS: Final = (101, 102, 103, 104, 105, 108, 110, 111)
"""Numbers of the example's patients: five in the part for training, two in that for validation, one for tests."""
OFFSETS_MM: Final = (-4.0, 4.0)
"""Of the slices from the midline."""
SIZE_PX: Final = 256
SPACING_MM: Final = 1.0
GREY: Final = 127
"""Grey value of normalised intensity 1, the 95th percentile."""

_CANAL: Final = (Tissue.CSF, Tissue.CORD, Tissue.ROOTS)
_POSTERIOR: Final = (Tissue.POSTERIOR_MARROW, Tissue.CORTEX)


def write_example(folder: Path, report: Callable[[str], None], *, patients: Sequence[int] = PATIENTS) -> None:
    """Write `images/*.png`, `labels/*.png` and `series.csv`; the same pictures each time.

    Raises
    ------
    ConfigurationError
        if the folder exists and is not empty
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigurationError(f"folder {folder.name} is not empty: name a new one for the example")
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    lines = ["new_file_name,PixelSpacing"]
    for patient in patients:
        lines.append(f'{patient}_t2,"[{SPACING_MM}, {SPACING_MM}]"')
        _write_patient(folder, patient)
        report(f"example: patient {patient}, {len(OFFSETS_MM)} slices")
    (folder / "series.csv").write_text("\n".join(lines) + "\n")


def _write_patient(folder: Path, patient: int) -> None:
    anatomy = draw_anatomy(patient)
    subject, rng = draw_subject(anatomy), np.random.default_rng([patient, 11])
    contrast = draw_contrast(rng, "t2")
    middle = next(np.asarray(body.centre) for body in anatomy.bodies if body.name == "L3")
    for k, offset_mm in enumerate(OFFSETS_MM):
        centre = middle + np.array([offset_mm, 0.0, 0.0])
        geometry = plane(centre, (0, 1, 0), (0, 0, -1), size=SIZE_PX, spacing_mm=SPACING_MM, thickness_mm=4.0)
        slice_ = cut(subject, geometry, 0)
        back_y_mm = subject.back_y_mm
        image = normalise(acquire_slices([slice_], contrast, DEMO_SCANNER, seed=[patient, k], back_y_mm=back_y_mm)[0])
        name = f"{patient}_t2_slice{k}.png"
        cv2.imwrite(str(folder / "images" / name), (image * GREY).clip(0, 255).astype(np.uint8))
        cv2.imwrite(str(folder / "labels" / name), _labels(anatomy, slice_))


def _labels(anatomy: Anatomy, slice_: TissueSlice) -> npt.NDArray[np.uint8]:
    """What an annotator of SPIDER draws [row, column]: vertebrae with their arches, discs, canal; no sacrum."""
    lumbar = np.array([False, *(not body.sacral for body in anatomy.bodies)])[slice_.body]
    rows = np.flatnonzero(lumbar.any(axis=1))
    if not rows.size:
        raise ConfigurationError("the phantom shows no lumbar vertebra on a slice of the example")
    seen = np.zeros_like(lumbar)
    seen[rows[0] : rows[-1] + 1] = True
    canal = np.isin(slice_.tissue[0], _CANAL) & seen
    behind = np.cumsum(canal, axis=1) > 0
    labels = np.zeros(lumbar.shape, dtype=np.uint8)
    labels[np.isin(slice_.tissue[0], _POSTERIOR) & behind & seen] = VERTEBRA
    labels[canal] = CANAL
    labels[lumbar] = VERTEBRA
    labels[slice_.disc > 0] = DISC
    return labels
