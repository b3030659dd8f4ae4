"""A study made here: synthetic exams as DICOM, and two readers' annotations as an export of MD.ai.

Reader A draws the truth. Reader B's outlines lie further out, each structure's by a distance of its own: `truth.csv`
says by how much, so that every statistic of the two has a known truth.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
from pydicom import dcmread

from cohort.errors import ConfigurationError
from cohort.stacks import Plane
from models.phantom.dicom import write_exam
from models.phantom.exam import ExamPlan, PhantomExam, make_exam
from models.phantom.readers import DrawnStructure, Reader, draw

READERS: Final = (Reader("A"), Reader("B", bias_mm=0.4, sd_mm=0.4))
"""B's bias makes discs 0.8 mm higher; networks and people differed by 1.45 mm in Hess et al. 2023."""
N_EXAMS: Final = 60
FIRST_SEED: Final = 8100
AXIAL_APART: Final = 3
"""Of the axial slices every third is annotated: people do not draw on all."""

_CONFIG: Final = '[privacy]\nkey_file = "pseudonym.key"\n'
"""As in the demonstration: pseudonyms of synthetic exams need not be those of the user's."""

_SERIES: Final[dict[Plane, str]] = {"sagittal": "series03", "axial": "series05"}
"""Folders of the T1-weighted series that `models.phantom.dicom.write_exam` writes."""


@dataclass(frozen=True)
class StudyExample:
    """Where things are."""

    archive: Path
    export: Path
    """JSON of MD.ai with both readers' annotations; their user codes are those of `READERS`."""
    truth: Path
    """CSV: exam, reader, plane, stack, label, shift_mm."""
    config: Path
    """cohort.toml: a key of its own for the pseudonyms."""


def write_study_example(
    folder: Path, *, n_exams: int = N_EXAMS, processes: int = 2, report: Callable[[str], None]
) -> StudyExample:
    """Write the archive, the export, the truth and a configuration below `folder`, unless they are there already.

    Raises
    ------
    ConfigurationError
        if they are there already, but of another number of exams
    """
    names = ("archive", "annotations.json", "truth.csv", "cohort.toml")
    example = StudyExample(*(folder / name for name in names))
    if not example.config.exists():
        example.config.write_text(_CONFIG)
    if example.truth.exists():
        _require_exams(example, n_exams)
        return example
    shutil.rmtree(example.archive, ignore_errors=True)
    plans = [_plan(k) for k in range(n_exams)]
    entries: list[dict[str, Any]] = []
    shifts: list[dict[str, Any]] = []
    with ProcessPoolExecutor(processes) as executor:
        drawn = executor.map(_write_one, [example.archive] * n_exams, plans)
        for done, (own_entries, own_shifts) in enumerate(drawn, start=1):
            entries += own_entries
            shifts += own_shifts
            if done % 10 == 0 or done == n_exams:
                report(f"synthetic exams with two readers: {done} of {n_exams}")
    example.export.write_text(json.dumps(_export(entries)))
    _write_truth(example.truth, shifts)
    return example


def _require_exams(example: StudyExample, n_exams: int) -> None:
    found = sum(1 for _ in example.archive.glob("study*"))
    if found != n_exams:
        raise ConfigurationError(f"the folder has a study of {found} exams already, not of {n_exams}: name another one")


def _plan(k: int) -> ExamPlan:
    """Women and men in turn; each third exam without axial images, each third with a stack for each disc."""
    rng = np.random.default_rng([FIRST_SEED, k])
    sex, axial = "FM"[k % 2], ("block", "per_disc", "none")[k % 3]
    height = float(np.clip(rng.normal({"F": 1.65, "M": 1.78}[sex], 0.06), 1.45, 2.0))
    weight = float(np.clip(rng.normal(25.5, 3.5), 19, 38)) * height**2
    return ExamPlan(FIRST_SEED + k, sex, int(rng.integers(22, 80)), round(height, 2), round(weight, 1), axial, 11)


def _write_one(archive: Path, plan: ExamPlan) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    exam = make_exam(plan)
    folder = archive / f"study{plan.seed}"
    write_exam(folder, exam, patient_name=f"Phantom^{plan.seed}", patient_id=f"PID-{plan.seed}")
    instances = {plane: _instances(folder, exam, plane) for plane in _SERIES}
    entries, shifts = [], []
    for reader in READERS:
        for one in draw(exam, reader):
            entries += _entries(one, reader, instances[one.plane][one.stack] if instances[one.plane] else [])
            shifts.append({"exam": plan.seed, "reader": reader.code, "plane": one.plane, "stack": one.stack,
                           "label": one.label, "shift_mm": round(one.shift_mm, 4)})  # fmt: skip
    return entries, shifts


Uids = tuple[str, str, str]
"""Of study, series and instance."""


def _instances(folder: Path, exam: PhantomExam, plane: Plane) -> list[list[Uids]]:
    """[stack][slice] UIDs of the images that were written, found by their positions."""
    grids = [exam.sagittal] if plane == "sagittal" else list(exam.axial)
    headers = [dcmread(path, stop_before_pixels=True) for path in sorted((folder / _SERIES[plane]).glob("*"))]
    places = np.array([header.ImagePositionPatient for header in headers], np.float64)
    found = []
    for grid in grids:
        nearest = [int(np.argmin(np.sum((places - at) ** 2, axis=1))) for at in grid.position_mm]
        found.append([_uids(headers[k]) for k in nearest])
    return found


def _uids(header: Any) -> Uids:
    return str(header.StudyInstanceUID), str(header.SeriesInstanceUID), str(header.SOPInstanceUID)


def _entries(drawn: DrawnStructure, reader: Reader, instances: Sequence[Uids]) -> Iterator[dict[str, Any]]:
    """Annotations of the slices that a reader looks at: all sagittal ones, some axial ones."""
    step = 1 if drawn.plane == "sagittal" else AXIAL_APART
    for k in range(len(drawn.mask) // 2 % step, len(drawn.mask), step):
        if not drawn.mask[k].any():
            continue
        study, series, instance = instances[k]
        yield {
            "id": f"A_{reader.code}_{instance}_{drawn.label}",
            "labelId": f"L_{drawn.label}",
            "StudyInstanceUID": study,
            "SeriesInstanceUID": series,
            "SOPInstanceUID": instance,
            "frameNumber": None,
            "createdById": reader.code,
            "createdAt": "2026-01-01T00:00:00.000Z",
            "updatedAt": "2026-01-01T00:00:00.000Z",
            "data": _outlines(drawn.mask[k]),
        }


def _outlines(mask: npt.NDArray[np.bool_]) -> dict[str, list[Any]]:
    """Outlines through the outermost pixels' centres, those of holes apart, as MD.ai keeps a mask."""
    found, tree = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    data: dict[str, list[Any]] = {"foreground": [], "background": []}
    for outline, (_, _, _, parent) in zip(found, tree[0], strict=True):
        data["foreground" if parent < 0 else "background"].append(outline.reshape(-1, 2).tolist())
    return data


def _export(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    names = dict.fromkeys(entry["labelId"].removeprefix("L_") for entry in entries)
    labels = [{"id": f"L_{name}", "name": name, "scope": "INSTANCE", "annotationMode": "mask"} for name in names]
    return {
        "labelGroups": [{"id": "G_1", "name": "Spine", "labels": labels}],
        "datasets": [{"id": "D_1", "name": "synthetic", "annotations": list(entries)}],
    }


def _write_truth(path: Path, shifts: Sequence[dict[str, Any]]) -> None:
    building = path.with_suffix(".part")
    with building.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(shifts[0]))
        writer.writeheader()
        writer.writerows(shifts)
    building.replace(path)
