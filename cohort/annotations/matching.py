"""Which slice of an exam's stacks an annotated image is: by its UIDs through the pseudonym key, and by its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from cohort.annotations.assemble import Place
from cohort.archive.stacks import SAME_PLACE_MM
from cohort.errors import RefusedError
from cohort.rows import FileRow
from cohort.stacks import ImageStack
from cohort.store.exam import StoredExam

SAME_DIRECTION: Final = 1 - 1e-5
"""Cosine between directions that are one: 0.26 degrees (own choice); slices of one stack differ by up to 0.1."""


@dataclass(frozen=True, eq=False)
class ExamImages:
    """Images of one exam as the file index knows them, and the stacks that the store took from them."""

    exam: StoredExam
    series: frozenset[str]
    """Pseudonyms of all series of the exam."""
    chosen: frozenset[str]
    """Pseudonyms of the series that the stacks are made of."""
    rows: Mapping[tuple[str, int], FileRow]
    """(pseudonym of SOPInstanceUID, frame from 0, 0 in single-frame files) -> row."""

    @classmethod
    def of(cls, exam: StoredExam, rows: Iterable[FileRow], chosen: Iterable[str | None]) -> ExamImages:
        """From all rows of the exam in the file index and the series that its row in `exams` names."""
        listed = list(rows)
        images = {(row.instance_id, row.frame or 0): row for row in listed if row.instance_id and row.position_mm}
        return cls(
            exam=exam,
            series=frozenset(row.series_id for row in listed if row.series_id),
            chosen=frozenset(series for series in chosen if series),
            rows=images,
        )

    def place(self, instance_id: str, *, series_id: str | None = None, frame: int | None = None) -> Place:
        """Plane, stack and slice of an image.

        Parameters
        ----------
        instance_id, series_id : pseudonyms of SOPInstanceUID and SeriesInstanceUID
        frame : of a multi-frame image, from 0

        Raises
        ------
        RefusedError
            `series_unknown`, `series_not_chosen` or `slice_unknown`
        """
        row = self.rows.get((instance_id, frame or 0))
        of = row.series_id if row is not None else series_id
        if of is not None and of not in self.series:
            raise RefusedError("series_unknown", "the archive has no such series in this exam")
        if of is not None and of not in self.chosen:
            raise RefusedError("series_not_chosen", "another series of this exam was converted")
        if row is None:
            raise RefusedError("slice_unknown", "the archive has no such image in this exam")
        return self._by_position(row)

    def stack(self, place: Place) -> ImageStack:
        """The stack of a place; RefusedError `slice_unknown` where it, or the slice in it, does not exist."""
        plane, index, k = place
        for stack in self.exam.stacks:
            if (stack.plane, stack.index) == (plane, index) and 0 <= k < stack.geometry.n_slices:
                return stack
        raise RefusedError("slice_unknown", f"{plane} stack {index} has no slice {k}")

    def _by_position(self, row: FileRow) -> Place:
        position, directions = np.array(row.position_mm), np.array(row.orientation or ()).reshape(-1, 3)
        for stack in self.exam.stacks:
            grid = stack.geometry
            own = np.stack([grid.row_dir, grid.col_dir])
            if directions.shape != (2, 3) or np.any(np.sum(own * directions, axis=1) < SAME_DIRECTION):
                continue
            away = np.linalg.norm(grid.position_mm - position, axis=1)
            if away.min() <= SAME_PLACE_MM and (row.rows, row.columns) == grid.shape:
                return stack.plane, stack.index, int(away.argmin())
        raise RefusedError("slice_unknown", "no stack has a slice where the image lies")
