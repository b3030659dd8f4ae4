"""`cohort export seg`: masks of an exam as DICOM Segmentation objects, de-identified or fit for the original study."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import pyarrow.dataset as ds
from pydicom import Dataset, dcmread
from pydicom.uid import MRImageStorage

from cohort.annotations.assemble import Place
from cohort.annotations.matching import ExamImages
from cohort.annotations.seg_uids import derived_uid
from cohort.annotations.seg_writer import SourceImage, SourceStack, pseudonymous_source, segmentations
from cohort.annotations.store import AUTOMATIC, Annotation, read_annotation, readers_of
from cohort.archive.header import quiet_pydicom
from cohort.archive.pseudonym import Pseudonyms, load_or_create_key
from cohort.archive.source import FileSource, open_source
from cohort.errors import ConfigurationError, RefusedError, StoreError
from cohort.reasons import REASONS
from cohort.rows import ExamRow, FileRow
from cohort.stacks import ImageStack
from cohort.store.arrays import open_store, root_attributes
from cohort.store.exam import StoredExam, read_exam
from cohort.store.labels import read_labels
from cohort.store.publish import publishing
from cohort.tables.buckets import objects_of, read_objects, table_dataset
from cohort.tables.ledger import Ledger, read_ledger
from pipelines.index import FileIndex, list_archive
from pipelines.read_exams import chosen_part, exam_row

SAME_PATIENT: Final = ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex")
SAME_STUDY: Final = ("StudyInstanceUID", "AccessionNumber")
"""What the headers of all slices must agree on before it is repeated."""


@dataclass(frozen=True)
class ExportedMasks:
    """What was written."""

    folder: Path
    files: tuple[str, ...]
    n_frames: int
    identified: bool
    """Whether the objects name the patient and the original images."""


@dataclass(frozen=True)
class Original:
    """Where the images of the exam are, and the key that leads to them."""

    archive: Path
    key_file: Path


def export_seg(store: Path, exam_id: str, reader: str, output: Path | None, original: Original | None) -> ExportedMasks:
    """Write the masks of one reader of one exam to a new folder, one object for each stack.

    Parameters
    ----------
    reader : code of a reader of `cohort annotations import`, or `automatic`
    original : None makes de-identified objects

    Raises
    ------
    ConfigurationError
        for an unknown exam or reader, an exam without masks (with the reason), a folder that is not empty or, for
        objects that name the patient, one inside the store, and a missing key
    StoreError
        if masks, or images of the archive, are no longer what they were
    """
    folder = output or Path(f"seg-{exam_id[:8]}-{reader}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(f"{folder.name!r} exists and is not empty; name another folder with --output")
    if original and folder.resolve().is_relative_to(store.resolve()):
        raise ConfigurationError("objects that name the patient do not go into the store: it holds pseudonyms alone")
    row = exam_row(read_objects(store, "exams"), exam_id)
    exam, annotation, weights = _masks(store, row, reader)
    source_of: Callable[[ImageStack], SourceStack] = partial(pseudonymous_source, exam_id, row.subject_id)
    if original:
        source_of = _Originals.of(store, row, exam, original).source
    objects = segmentations(annotation, source_of, weights)
    if folder.exists():
        folder.rmdir()
    names = [f"{one.ContentLabel.removeprefix('LUMBAR_').lower()}-{one.InstanceNumber:02d}.dcm" for one in objects]
    with publishing(folder) as building:
        building.mkdir()
        for name, one in zip(names, objects, strict=True):
            one.save_as(building / name)
    return ExportedMasks(folder, tuple(names), sum(int(one.NumberOfFrames) for one in objects), original is not None)


def _masks(store: Path, row: ExamRow, reader: str) -> tuple[StoredExam, Annotation, Mapping[str, str]]:
    """Stacks and masks of one reader, and the hashes of the networks that drew them, if they did."""
    ledger = read_ledger(store, [row.exam_id])
    exam = read_exam(store / _result(ledger, row, "convert"))
    if reader == AUTOMATIC:
        path = store / _result(ledger, row, "segment")
        weights: Mapping[str, str] = root_attributes(open_store(path, "labels"))["weights_sha256"]
        finished = ledger[row.exam_id, "segment"].finished_at
        labelled = read_labels(path, exam)
        slices = {
            (one.stack.plane, one.stack.index, name): tuple(range(one.stack.geometry.n_slices))
            for one in labelled
            for name in one.labels
        }
        return exam, Annotation(row.exam_id, AUTOMATIC, finished, "networks", labelled, slices, {}), weights
    readers = readers_of(store, row.exam_id)
    if reader not in readers:
        there = ", ".join([AUTOMATIC, *readers])
        raise ConfigurationError(f"exam {row.exam_id!r} has no masks of reader {reader!r}; it has: {there}")
    return exam, read_annotation(store, exam, row.exam_id, reader), {}


def _result(ledger: Ledger, row: ExamRow, stage: str) -> str:
    """Path of a stage's result, relative to the store; an error that says why there is none."""
    attempt = ledger.get((row.exam_id, stage))
    if attempt is not None and attempt.path is not None:
        return attempt.path
    status, reason = (attempt.status, attempt.reason) if attempt else (row.status, row.reason)
    why = f": {reason} ({REASONS[reason]})" if reason in REASONS else ""
    raise ConfigurationError(f"exam {row.exam_id!r} has no result of stage {stage}: it is {status}{why}")


@dataclass(frozen=True, eq=False)
class _Originals:
    """The images behind the slices of an exam's stacks, found again in the archive."""

    exam_id: str
    archive: Path
    rows: Mapping[Place, FileRow]
    source_of: Callable[[FileRow], FileSource]
    pseudonyms: Pseudonyms

    @classmethod
    def of(cls, store: Path, row: ExamRow, exam: StoredExam, original: Original) -> _Originals:
        """List the archive, and find the image of each slice in the file index by its place."""
        if not original.key_file.is_file():
            raise ConfigurationError("the pseudonym key is not there: name it in [privacy] key_file of --config")
        pseudonyms = Pseudonyms(load_or_create_key(original.key_file, store=store))
        table = table_dataset(store, "files").to_table(filter=ds.field("exam_id") == row.exam_id)
        files: list[FileRow] = objects_of("files", table)
        chosen = (
            *chosen_part(files, row.sagittal_series_id, row.sagittal_part),
            *chosen_part(files, row.axial_series_id, row.axial_part),
        )
        index = FileIndex(store, list_archive(original.archive, pseudonyms), 0)
        images = ExamImages.of(exam, chosen, (row.sagittal_series_id, row.axial_series_id))
        return cls(row.exam_id, original.archive, _by_place(images, chosen), index.source_of, pseudonyms)

    def source(self, stack: ImageStack) -> SourceStack:
        """Images, patient and study of a stack as their headers say them.

        Raises
        ------
        StoreError
            if an image is gone, is another one now, or contradicts the others about patient or study
        """
        places: list[Place] = [(stack.plane, stack.index, k) for k in range(stack.geometry.n_slices)]
        if missing := [k for *_, k in places if (stack.plane, stack.index, k) not in self.rows]:
            raise StoreError(f"images of {stack.plane} slices {missing} are not in the file index: run cohort run")
        rows = [self.rows[place] for place in places]
        headers: dict[FileSource, Dataset] = {}
        images = [self._image(row, headers) for row in rows]
        found = list(headers.values())
        _require_one_patient(found)
        first = found[0]
        if self.pseudonyms.exam_id(str(first.StudyInstanceUID)) != self.exam_id:
            raise StoreError("the images are of another study than the exam: the archive has changed, run cohort run")
        frame_uid = first.get("FrameOfReferenceUID") or derived_uid("frame", first.StudyInstanceUID, *places[0])
        patient = Dataset()
        patient.update(first)
        patient.SOPClassUID = MRImageStorage  # which modules of a patient and a study there are is the same for all
        return SourceStack(
            study_uid=str(first.StudyInstanceUID),
            series_uid=str(first.SeriesInstanceUID),
            frame_of_reference_uid=str(frame_uid),
            images=images,
            patient=patient,
            identified=True,
        )

    def _image(self, row: FileRow, headers: dict[FileSource, Dataset]) -> SourceImage:
        """The image of a row; its header is read once for all frames."""
        try:
            source = self.source_of(row)
        except KeyError as error:
            raise StoreError("a file of the exam is no longer in the archive: run cohort run") from error
        if source not in headers:
            headers[source] = _header(self.archive, source)
        header = headers[source]
        uid = str(header.get("SOPInstanceUID", ""))
        if self.pseudonyms.instance_id(uid) != row.instance_id:
            raise StoreError("a file of the exam holds another image now, or the key is another: run cohort run")
        return SourceImage(str(header.SOPClassUID), uid, None if row.frame is None else row.frame + 1)


def _by_place(images: ExamImages, rows: Iterable[FileRow]) -> dict[Place, FileRow]:
    """Slice -> its image; of copies the one that comes first by its pseudonym."""
    found: dict[Place, FileRow] = {}
    for row in sorted(rows, key=lambda row: (row.instance_id or "", row.frame or 0), reverse=True):
        if row.instance_id and row.position_mm:
            try:
                found[images.place(row.instance_id, frame=row.frame)] = row
            except RefusedError:  # an image that conversion left out
                continue
    return found


def _header(archive: Path, source: FileSource) -> Dataset:
    try:
        with open_source(archive, source) as stream, quiet_pydicom():
            return dcmread(stream, stop_before_pixels=True, force=True)
    except Exception as error:  # pydicom raises a dozen kinds on damaged headers, the disk its own
        raise StoreError(f"the header of an image cannot be read: {type(error).__name__}") from error


def _require_one_patient(headers: list[Dataset]) -> None:
    for keyword in (*SAME_PATIENT, *SAME_STUDY):
        if len({str(header.get(keyword, "")) for header in headers}) > 1:
            raise StoreError(f"the images contradict each other in {keyword}: correct them first")
