"""A study made here: synthetic exams as DICOM, and two readers' annotations as an export of MD.ai.

Reader A draws the truth. Reader B's outlines lie further out, each structure's by a distance of its own: `truth.csv`
says by how much, `true_pairs.csv` and `true_overlaps.csv` what follows from it, so that every statistic of the two has
a known truth (`pipelines.study.example_truth`).
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
from pydicom import dcmread

from cohort.errors import ConfigurationError
from cohort.processes import process_pool
from cohort.stacks import Plane
from cohort.store.publish import replacing
from models.phantom.dicom import write_exam
from models.phantom.exam import ExamPlan, PhantomExam, make_exam
from models.phantom.reader_truth import KnownTruth, ReaderTruth
from models.phantom.readers import Drawing, Reader, draw

READERS: Final = (Reader("A"), Reader("B", bias_mm=0.4, sd_mm=0.4))
"""B's bias makes discs 0.8 mm higher; networks and people differed by 1.45 mm in Hess et al. 2023."""
N_EXAMS: Final = 60
FIRST_SEED: Final = 8100
TRUTH_FILES: Final = ("truth", "true_pairs", "true_overlaps")
"""CSV files with the known truth; columns are those of `TrueShift`, `TruePair` and `TrueOverlap`."""

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
    """CSV: exam, reader, plane, stack, label, shift_mm. The other `TRUTH_FILES` are beside it."""
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
    if all((folder / f"{name}.csv").exists() for name in TRUTH_FILES):
        _require_exams(example, n_exams)
        return example
    shutil.rmtree(example.archive, ignore_errors=True)
    plans = [plan(k) for k in range(n_exams)]
    entries: list[dict[str, Any]] = []
    known = KnownTruth()
    with process_pool(processes) as executor:
        drawn = executor.map(_write_one, [example.archive] * n_exams, plans)
        for done, (own_entries, of_exam) in enumerate(drawn, start=1):
            entries += own_entries
            known.extend(of_exam)
            if done % 10 == 0 or done == n_exams:
                report(f"synthetic exams with two readers: {done} of {n_exams}")
    example.export.write_text(json.dumps(_export(entries)))
    write_truth(folder, known)
    return example


def _require_exams(example: StudyExample, n_exams: int) -> None:
    found = sum(1 for _ in example.archive.glob("study*"))
    if found != n_exams:
        raise ConfigurationError(f"the folder has a study of {found} exams already, not of {n_exams}: name another one")


def plan(k: int) -> ExamPlan:
    """The k-th exam: women and men in turn; each third without axial images, each third with a stack for each disc."""
    rng = np.random.default_rng([FIRST_SEED, k])
    sex, axial = "FM"[k % 2], ("block", "per_disc", "none")[k % 3]
    height = float(np.clip(rng.normal({"F": 1.65, "M": 1.78}[sex], 0.06), 1.45, 2.0))
    weight = float(np.clip(rng.normal(25.5, 3.5), 19, 38)) * height**2
    return ExamPlan(FIRST_SEED + k, sex, int(rng.integers(22, 80)), round(height, 2), round(weight, 1), axial, 11)


def _write_one(archive: Path, of_exam: ExamPlan) -> tuple[list[dict[str, Any]], KnownTruth]:
    exam = make_exam(of_exam)
    folder = archive / f"study{of_exam.seed}"
    write_exam(folder, exam, patient_name=f"Phantom^{of_exam.seed}", patient_id=f"PID-{of_exam.seed}")
    instances = {plane: _instances(folder, exam, plane) for plane in _SERIES}
    entries, truth = [], ReaderTruth(exam)
    for drawings in draw(exam, READERS):
        truth.add(*drawings)
        for one in drawings:
            section = one.section
            entries += _entries(one, instances[section.plane][section.stack][section.slice])
    return entries, truth.known


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


def _entries(drawn: Drawing, uids: Uids) -> Iterator[dict[str, Any]]:
    """Annotations of one slice."""
    study, series, instance = uids
    for value, label in enumerate(drawn.section.names, start=1):
        mask = drawn.pixels == value
        if not mask.any():
            continue
        yield {
            "id": f"A_{drawn.reader.code}_{instance}_{label}",
            "labelId": f"L_{label}",
            "StudyInstanceUID": study,
            "SeriesInstanceUID": series,
            "SOPInstanceUID": instance,
            "frameNumber": None,
            "createdById": drawn.reader.code,
            "createdAt": "2026-01-01T00:00:00.000Z",
            "updatedAt": "2026-01-01T00:00:00.000Z",
            "data": _outlines(mask),
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


def write_truth(folder: Path, known: KnownTruth) -> None:
    """Write `TRUTH_FILES` into a folder."""
    for name, rows in zip(TRUTH_FILES, (known.shifts, known.pairs, known.overlaps), strict=True):
        with replacing(folder / f"{name}.csv") as path, path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(asdict(rows[0])))
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)
