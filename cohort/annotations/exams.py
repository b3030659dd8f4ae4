"""Exams of a store as annotations name them: by pseudonym or by UID, with their stacks and the images behind these."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pyarrow.dataset as ds

from cohort.annotations.matching import ExamImages
from cohort.archive.pseudonym import Pseudonyms
from cohort.errors import RefusedError, StoreError
from cohort.rows import ExamRow, FileRow
from cohort.store.exam import read_exam
from cohort.tables.buckets import objects_of, read_objects, table_dataset


class Exams:
    """The exams of a store.

    Parameters
    ----------
    store : STORE, with tables
    pseudonyms : under the key that the store was made with
    """

    def __init__(self, store: Path, pseudonyms: Pseudonyms) -> None:
        self._store = store
        self.pseudonyms = pseudonyms
        self._rows: dict[str, ExamRow] = {row.exam_id: row for row in read_objects(store, "exams")}
        self._files: dict[str, list[FileRow]] = {}

    def exam_id(self, name: str) -> str | None:
        """Pseudonym of an exam that is named by it or by its StudyInstanceUID; None where the store has no such."""
        for exam_id in (name.strip(), self.pseudonyms.exam_id(name)):
            if exam_id in self._rows and self._rows[exam_id].store_path:
                return exam_id
        return None

    def subject_id(self, exam_id: str) -> str:
        """Pseudonym of the person."""
        return self._rows[exam_id].subject_id

    def load_files(self, exam_ids: Collection[str]) -> None:
        """Read the index of the images of these exams, all in one go."""
        chosen = ds.field("exam_id").isin(sorted(exam_ids))
        self._files = {exam_id: [] for exam_id in exam_ids}
        for row in objects_of("files", table_dataset(self._store, "files").to_table(filter=chosen)):
            self._files[row.exam_id].append(row)

    def images(self, exam_id: str) -> ExamImages:
        """Stacks and images of an exam.

        Raises
        ------
        RefusedError
            `study_unknown` if its store is not there or damaged
        """
        row = self._rows[exam_id]
        try:
            exam = read_exam(self._store / str(row.store_path))
        except StoreError as error:
            raise RefusedError("study_unknown", "its exam store cannot be read: run cohort fsck") from error
        return ExamImages.of(exam, self._files.get(exam_id, ()), (row.sagittal_series_id, row.axial_series_id))
