"""The networks against human masks of real scans, by the commands that a user would type.

python benchmarks/real_masks.py [--folder FOLDER] [--data FOLDER]

The folder of real scans (--data, else COHORT_TEST_DATA) has `real_exam` and `spider_t2space`; without them this says so
and ends. What is written goes to --folder, else to a temporary one: an archive, masks with their tables, a store, the
agreement tables and the study report. At the end the tables of docs/worked-study-real.md are printed.

Two things are not as a user would have them. SPIDER's slices are pictures, and become DICOM here: their order, distance
and pixel size are those of series.csv, but position and side are made up, and the headers say T1 because `cohort run`
takes no T2 sagittal series. And SPIDER's vertebrae include the arches: they are cut at the spinal canal, and bodies on
slices that do not show it stay unknown.
"""

from __future__ import annotations

import argparse
import csv
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import nibabel
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from cohort.annotations.placement import RAS_TO_LPS
from cohort.terms import MUSCLE_LABELS, SACRAL_BODY, VERTEBRAL_BODY
from models.training.annotated import (
    DISC,
    bodies_in_front_of_canal,
    part_of_patient,
    patient_of,
    read_png,
    read_spacings,
)

DATA: Final = ("real_exam", "spider_t2space")
CONFIG: Final = '[privacy]\nkey_file = "{key}"\n'
MUSCLES: Final = {1: ("erector_spinae", "right"), 2: ("multifidus", "right"), 3: ("multifidus", "left"),
                  4: ("erector_spinae", "left")}  # fmt: skip
"""Values of the axial human masks, from the left to the right end of the rows, which is the patient's right to left."""
THICKNESS_MM, GAP_MM = 0.9, 1.0
"""SliceThickness and SpacingBetweenSlices of every T2 SPACE series in series.csv; file names count slices."""

Line = dict[str, str]
"""One line of a table of mask files."""


def main() -> None:
    """Do it all and print the tables."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--folder", type=Path)
    arguments.add_argument("--data", type=Path, default=os.environ.get("COHORT_TEST_DATA", "real-scans"))
    given = arguments.parse_args()
    if missing := [name for name in DATA if not (given.data / name).is_dir()]:
        print(f"skipped: no {', no '.join(missing)} below the folder of real scans (--data or COHORT_TEST_DATA)")
        return
    if given.folder:
        study(given.data, given.folder)
    else:
        with tempfile.TemporaryDirectory() as folder:
            study(given.data, Path(folder))


def study(data: Path, folder: Path) -> None:
    """Archive and masks into an empty folder, then the commands, then the tables."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cohort.toml").write_text(CONFIG.format(key=(folder / "key").resolve()))
    for name, lines in (("real_exam", write_real_exam(data, folder)), ("spider", write_spider(data, folder))):
        _write_table(folder / f"{name}.csv", lines)
    cohort(folder, "run", "archive", "--store", "store", "--config", "cohort.toml")
    for name, kind in (("real_exam", "png"), ("spider", "nifti")):
        cohort(folder, "annotations", "import", name, "store", "--format", kind, "--table", f"{name}.csv",
               "--reader", name, "--config", "cohort.toml")  # fmt: skip
    cohort(folder, "annotations", "list", "store")
    cohort(folder, "agreement", "store", "--second", "automatic", "-o", "report", "--config", "cohort.toml")
    print("\n".join(tables(folder / "report")))


def cohort(folder: Path, *command: str) -> None:
    """Run a command in the folder as from a terminal; a failure ends everything."""
    print(f"$ cohort {shlex.join(command)}", flush=True)
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, "-m", "pipelines.cli", *command], cwd=folder, check=True,
                   env={**os.environ, "PYTHONPATH": path})  # fmt: skip


def _write_table(path: Path, lines: Sequence[Line]) -> None:
    with path.open("w", newline="") as stream:
        table = csv.DictWriter(stream, list(lines[0]))
        table.writeheader()
        table.writerows(lines)


# -- the exam that is DICOM already ------------------------------------------------------------------------------------


def write_real_exam(data: Path, folder: Path) -> list[Line]:
    """Copy its files; write its masks as pictures with the values of our label arrays."""
    archive, masks = folder / "archive" / "real_exam", folder / "real_exam"
    archive.mkdir(parents=True)
    masks.mkdir()
    lines = []
    human = {path.name: read_png(path) for path in sorted((data / "real_exam" / "masks").glob("*.png"))}
    sacrum = lowest_body([mask for name, mask in human.items() if name.startswith("sagittal")])
    for path in sorted((data / "real_exam" / "dicom").glob("*/*.dcm")):
        (archive / f"{path.parent.name}-{path.name}").write_bytes(path.read_bytes())
        header = dcmread(path, stop_before_pixels=True)
        sagittal = path.parent.name.startswith("sagittal")
        stem = "sagittal_vertebral_bodies" if sagittal else "axial_es_mf"
        name = f"{stem}_{int(header.InstanceNumber) - 1:02d}.png"
        values = bodies(human[name], sacrum) if sagittal else muscles(human[name])
        cv2.imwrite(str(masks / name), values)
        lines.append({
            "file": name, "exam": header.StudyInstanceUID, "instance": header.SOPInstanceUID,
            "array": "vertebral_body" if sagittal else "muscle",
        })  # fmt: skip
    return lines


def lowest_body(masks: Sequence[npt.NDArray[np.uint8]]) -> int:
    """Value of the body that lies lowest in all slices together: S1, as the data set has it."""
    values = np.unique(np.stack(masks))
    rows = {int(value): np.nonzero(np.stack(masks) == value)[1].mean() for value in values if value}
    return max(rows, key=lambda value: rows[value])


def bodies(human: npt.NDArray[np.uint8], sacrum: int) -> npt.NDArray[np.uint8]:
    return np.where(human == sacrum, SACRAL_BODY, np.where(human > 0, VERTEBRAL_BODY, 0)).astype(np.uint8)


def muscles(human: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    found = np.zeros_like(human)
    for value, muscle in MUSCLES.items():
        found[human == value] = MUSCLE_LABELS[muscle]
    return found


# -- SPIDER ------------------------------------------------------------------------------------------------------------


def write_spider(data: Path, folder: Path) -> list[Line]:
    """Write the slices of each test patient as a DICOM series, and the masks as NIfTI on its grid."""
    source, masks = data / "spider_t2space", folder / "spider"
    masks.mkdir()
    lines = []
    for patient, series in test_series(source):
        spacing_mm = read_spacings(source)[series]
        paths = sorted((source / "images").glob(f"{series}_slice*.png"), key=_slice_number)
        study_uid, affine = generate_uid(entropy_srcs=["study", series]), _affine(paths, spacing_mm)
        archive = folder / "archive" / series
        archive.mkdir(parents=True)
        for path in paths:
            header = _header(patient, series, study_uid, _slice_number(path), spacing_mm, read_png(path))
            header.save_as(archive / f"{path.stem}.dcm", enforce_file_format=True)
        human = [read_png(source / "labels" / path.name) for path in paths]
        of_arrays = {
            "vertebral_body": [np.zeros(mask.shape, bool) if (body := bodies_in_front_of_canal(mask)) is None else body
                               for mask in human],
            "disc": [mask == DISC for mask in human],
        }  # fmt: skip
        for array, slices in of_arrays.items():
            name = f"{series}_{array}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(np.stack(slices).astype(np.uint8), affine), masks / name)
            lines.append({"file": name, "exam": study_uid, "array": array})
    return lines


def test_series(source: Path) -> Iterator[tuple[str, str]]:
    """(patient, series) that no network was trained on or chosen by."""
    series = sorted({path.stem.rsplit("_slice", 1)[0] for path in (source / "images").glob("*.png")})
    yield from ((patient_of(Path(one)), one) for one in series if part_of_patient(patient_of(Path(one))) == "test")


def _slice_number(path: Path) -> int:
    return int(path.stem.rsplit("_slice", 1)[1])


def _position(number: int) -> list[float]:
    return [number * GAP_MM, 0.0, 0.0]


def _affine(paths: Sequence[Path], spacing_mm: tuple[float, float]) -> npt.NDArray[np.float64]:
    """[slice, row, column] to NIfTI's RAS mm: slices run to the left, rows downward, columns to the back."""
    step = (_slice_number(paths[-1]) - _slice_number(paths[0])) * GAP_MM / (len(paths) - 1)
    affine = np.zeros((4, 4))
    affine[0, 0], affine[2, 1], affine[1, 2], affine[3, 3] = step, -spacing_mm[0], spacing_mm[1], 1
    affine[:3, 3] = _position(_slice_number(paths[0]))
    return np.asarray(RAS_TO_LPS @ affine)  # which is its own inverse


def _header(
    patient: str, series: str, study_uid: str, number: int, spacing_mm: tuple[float, float], pixels: npt.NDArray[Any]
) -> Dataset:
    """One slice; what is not in series.csv, and the echo times of T1, are made up."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID, header.SOPInstanceUID = MRImageStorage, generate_uid(entropy_srcs=[series, str(number)])
    header.StudyInstanceUID, header.SeriesInstanceUID = study_uid, generate_uid(entropy_srcs=["series", series])
    header.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame", series])
    header.Modality, header.ImageType = "MR", ["ORIGINAL", "PRIMARY", "M"]
    header.PatientID, header.SeriesNumber, header.InstanceNumber = f"SPIDER-{patient}", 1, number
    header.ScanningSequence, header.RepetitionTime, header.EchoTime = "SE", "550", "11"
    header.ImagePositionPatient, header.ImageOrientationPatient = _position(number), [0, 1, 0, 0, 0, -1]
    header.PixelSpacing, header.SliceThickness = list(spacing_mm), THICKNESS_MM
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.Rows, header.Columns = pixels.shape
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit, header.PixelRepresentation = 15, 0
    header.PixelData = pixels.astype("<u2").tobytes()
    return header


# -- tables ------------------------------------------------------------------------------------------------------------


def tables(agreement: Path) -> Iterator[str]:
    """Markdown of what overlaps and of what was measured twice, all levels together; the report has each level."""
    yield "\n| masks | what | n | persons | Dice | HD95 mm | surface mm | missed | extra | misnamed |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for row in pq.read_table(agreement / "overlap_summary.parquet").to_pylist():
        if row["n"] and not any(row[key] is not None for key in ("slice_bin", "side", "level")):
            what = " ".join(row[key] for key in ("muscle", "structure") if row[key])
            figures = (
                _interval(row, "mean", "low", "high", 3),
                _own(row, "hausdorff95_mm", 1),
                _own(row, "surface_mm", 2),
            )
            counts = (row["n_missed"], row["n_extra"], row["n_misnamed"])
            cells = (
                row["first_reader"],
                f"{row['kind']} {what or 'each'}",
                row["n"],
                row["n_persons"],
                *figures,
                *counts,
            )
            yield f"| {' | '.join(map(str, cells))} |"
    yield "\n| masks | quantity | n | flagged | persons | bias | limits | MAE | R | ICC(2,1) |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for row in pq.read_table(agreement / "agreement.parquet").to_pylist():
        if row["n"] and row["side"] is None and row["level"] is None:
            what = " ".join(row[key] for key in ("quantity", "muscle", "task") if row[key])
            limits = " to ".join(_number(row[f"{end}_limit"], 2) for end in ("lower", "upper"))
            figures = (_own(row, "bias", 2), limits, _own(row, "mae", 2), _own(row, "r", 2), _own(row, "icc", 2))
            cells = (
                row["first_reader"],
                f"{what}, {row['unit']}",
                row["n"],
                row["n_flagged"],
                row["n_persons"],
                *figures,
            )
            yield f"| {' | '.join(map(str, cells))} |"


def _own(row: dict[str, Any], name: str, digits: int) -> str:
    return _interval(row, name, f"{name}_low", f"{name}_high", digits)


def _interval(row: dict[str, Any], name: str, low: str, high: str, digits: int) -> str:
    """A figure, and its 95 % interval if it has one."""
    ends = [_number(row[end], digits) for end in (low, high)]
    return _number(row[name], digits) + ("" if row[low] is None else f" ({ends[0]} to {ends[1]})")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    main()
