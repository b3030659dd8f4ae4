"""Write phantom exams as DICOM: classic MR Image Storage, one file a slice, with everything a real archive puts in
the way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from cohort.geometry import StackGeometry
from models.phantom.exam import ExamPlan, PhantomExam, stack_image, t1_contrast, t2_contrast
from models.phantom.mri import Contrast

ROOT = "1.2.826.0.1.3680043.10.1338"
"""UID root of the phantom: a number under pydicom's public prefix, which is meant for such use."""


Frame = tuple[StackGeometry, int, npt.NDArray[np.uint16]]
"""Grid of a stack, slice in it, its pixels."""


def study_uid(seed: int) -> str:
    """StudyInstanceUID of the exam of a plan's seed."""
    return f"{ROOT}.{seed}"


@dataclass(frozen=True, eq=False)
class Series:
    """One series to write."""

    number: int
    description: str
    sequence: str
    repetition_time_ms: float
    echo_time_ms: float
    echo_train_length: int
    stacks: tuple[tuple[StackGeometry, npt.NDArray[np.uint16]], ...]
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "M", "SE")
    inversion_time_ms: float | None = None


def exam_series(exam: PhantomExam) -> list[Series]:
    """T1 sagittal and axial as planned, and what surrounds them in a clinical exam: localiser, T2, STIR."""
    t1, t2 = t1_contrast(exam), t2_contrast(exam)
    sagittal = exam.sagittal
    t1_image = stack_image(exam, exam.sagittal_slices, t1)
    t2_image = stack_image(exam, exam.sagittal_slices, t2)
    stir_image = stack_image(exam, exam.sagittal_slices, _fat_suppressed(t2))
    series = [
        _spin_echo(2, "T2 TSE SAG", t2, 16, ((sagittal, t2_image),)),
        _spin_echo(3, "T1 TSE SAG", t1, 3, ((sagittal, t1_image),)),
        Series(4, "STIR SAG", "IR", 4200.0, 55.0, 12, ((sagittal, stir_image),), inversion_time_ms=160.0),
        Series(1, "LOCALIZER", "GR", 8.0, 3.0, 1, _localiser(sagittal, t1_image), ("ORIGINAL", "PRIMARY", "M", "NORM")),
    ]
    if exam.axial:
        images = [
            (grid, stack_image(exam, slices, t1)) for grid, slices in zip(exam.axial, exam.axial_slices, strict=True)
        ]
        series.append(_spin_echo(5, "T1 TSE TRA", t1, 3, tuple(images)))
        images = [
            (grid, stack_image(exam, slices, t2)) for grid, slices in zip(exam.axial, exam.axial_slices, strict=True)
        ]
        series.append(_spin_echo(6, "T2 TSE TRA", t2, 14, tuple(images)))
    return series


def _spin_echo(
    number: int,
    description: str,
    contrast: Contrast,
    etl: int,
    stacks: tuple[tuple[StackGeometry, npt.NDArray[np.uint16]], ...],
) -> Series:
    return Series(number, description, "SE", contrast.repetition_time_ms, contrast.echo_time_ms, etl, stacks)


def _fat_suppressed(contrast: Contrast) -> Contrast:
    return Contrast(contrast.water, contrast.fat * 0.1, contrast.field_t, 4200.0, 55.0)


def _localiser(
    grid: StackGeometry, image: npt.NDArray[np.uint16]
) -> tuple[tuple[StackGeometry, npt.NDArray[np.uint16]], ...]:
    """Three thick slices at a quarter of the resolution."""
    chosen = [0, grid.n_slices // 2, grid.n_slices - 1]
    spacing = (grid.spacing_mm[0] * 4, grid.spacing_mm[1] * 4)
    shape = (grid.shape[0] // 4, grid.shape[1] // 4)
    coarse = StackGeometry(grid.position_mm[chosen], grid.row_dir, grid.col_dir, spacing, shape, 8.0)
    return ((coarse, image[chosen][:, : shape[0] * 4 : 4, : shape[1] * 4 : 4]),)


def write_exam(folder: Path, exam: PhantomExam, *, patient_name: str, patient_id: str) -> list[Path]:
    """Write all series of an exam below a folder; returns the files.

    File names and InstanceNumber follow no spatial order, as in archives that sort by UID.
    """
    rng = np.random.default_rng([exam.plan.seed, 14])
    paths = []
    for series in exam_series(exam):
        target = folder / f"series{series.number:02d}"
        target.mkdir(parents=True, exist_ok=True)
        frames = [(grid, k, image[k]) for grid, image in series.stacks for k in range(grid.n_slices)]
        for instance, at in enumerate(rng.permutation(len(frames)), start=1):
            data = _slice_dataset(exam, series, frames[at], instance)
            data.PatientName, data.PatientID = patient_name, patient_id
            path = target / f"IM{instance:05d}"
            data.save_as(path, enforce_file_format=True)
            paths.append(path)
    return paths


def _slice_dataset(exam: PhantomExam, series: Series, frame: Frame, instance: int) -> Dataset:
    grid, k, pixels = frame
    plan, uid = exam.plan, study_uid(exam.plan.seed)
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = MRImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = f"{uid}.{series.number}.{instance}"
    data.StudyInstanceUID, data.SeriesInstanceUID = uid, f"{uid}.{series.number}"
    data.FrameOfReferenceUID = f"{uid}.0"
    data.SpecificCharacterSet = "ISO_IR 192"
    _describe_patient(data, plan)
    _describe_acquisition(data, exam, series)
    data.SeriesNumber, data.InstanceNumber = series.number, instance
    data.ImageOrientationPatient = [round(float(v), 6) for v in (*grid.row_dir, *grid.col_dir)]
    data.ImagePositionPatient = [round(float(v), 5) for v in grid.position_mm[k]]
    data.PixelSpacing = [round(float(v), 5) for v in grid.spacing_mm]
    data.SliceThickness = grid.thickness_mm
    data.SpacingBetweenSlices = round(abs(grid.slice_gap_mm), 4)
    data.Rows, data.Columns = grid.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.PixelData = np.ascontiguousarray(pixels).tobytes()
    return data


def _describe_patient(data: Dataset, plan: ExamPlan) -> None:
    data.PatientSex, data.PatientAge = plan.sex, f"{plan.age_years:03d}Y"
    data.PatientSize, data.PatientWeight = plan.height_m, plan.weight_kg
    data.StudyDate, data.StudyTime, data.AccessionNumber = "20200102", "101500", f"A{plan.seed}"
    data.StudyDescription = "MR LUMBAR SPINE"


def _describe_acquisition(data: Dataset, exam: PhantomExam, series: Series) -> None:
    data.Modality, data.Manufacturer = "MR", "PHANTOM"
    data.SeriesDescription = data.ProtocolName = series.description
    data.ImageType = list(series.image_type)
    data.ScanningSequence, data.SequenceVariant, data.MRAcquisitionType = series.sequence, "SK", "2D"
    data.RepetitionTime = round(series.repetition_time_ms, 1)
    data.EchoTime = round(series.echo_time_ms, 2)
    data.EchoTrainLength = series.echo_train_length
    data.FlipAngle = 20.0 if series.sequence == "GR" else 90.0
    data.MagneticFieldStrength = t1_contrast(exam).field_t
    if series.inversion_time_ms is not None:
        data.InversionTime = series.inversion_time_ms
