"""Convert the chosen series of one exam into its store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cohort.archive.pseudonym import Pseudonyms
from cohort.archive.series import SeriesStacks, read_series
from cohort.archive.source import ImageSource
from cohort.errors import RefusedError
from cohort.rows import QualityRow
from cohort.stacks import Plane
from cohort.store.exam import write_exam

MIN_SAGITTAL_SLICES: Final = 5
"""Fewer do not show vertebral bodies from side to side."""


@dataclass(frozen=True)
class ConvertedExam:
    """What was published."""

    n_sagittal_slices: int
    n_sagittal_stacks: int
    n_axial_slices: int
    n_axial_stacks: int
    quality: list[QualityRow]


def convert_exam(
    target: Path,
    *,
    archive: Path,
    exam_id: str,
    sagittal: Sequence[ImageSource],
    axial: Sequence[ImageSource],
    attributes: Mapping[str, Any],
    pseudonyms: Pseudonyms,
) -> ConvertedExam:
    """Read the images of the chosen series and publish the exam store at `target`.

    An image that cannot be decoded is left out with the flag `damaged_file_in_series`. An axial series that cannot be
    read at all is left out with its reason as flag: vertebrae and discs can still be measured.

    Parameters
    ----------
    target : path from `layout.exam_store_path`
    archive : root folder of the sources
    exam_id : pseudonym
    sagittal, axial : all images of the chosen parts, those included that the scan found truncated, so that they are
        flagged here; `axial` may be empty
    attributes : of the exam (subject, demographics, fingerprint, versions): JSON values, pseudonyms only

    Raises
    ------
    RefusedError
        if the sagittal series cannot be used: `damaged_pixels`, `too_few_slices` or `inconsistent_series`;
        `files_changed` if a file of either series is gone
    """
    quality: list[QualityRow] = []
    read = {"sagittal": _read(exam_id, "sagittal", archive, sagittal, pseudonyms, quality)}
    _require_enough(read["sagittal"])
    if axial:
        try:
            read["axial"] = _read(exam_id, "axial", archive, axial, pseudonyms, quality)
        except RefusedError as error:
            if error.reason == "files_changed":
                raise
            quality.append(_flag(exam_id, error.reason, "axial"))
    write_exam(
        target,
        [stack for series in read.values() for stack in series.stacks],
        {**attributes, "exam_id": exam_id, "acquisition": {plane: one.acquisition for plane, one in read.items()}},
    )
    sizes = {plane: (one.n_slices, len(one.stacks)) for plane, one in read.items()}
    n_axial_slices, n_axial_stacks = sizes.get("axial", (0, 0))
    return ConvertedExam(*sizes["sagittal"], n_axial_slices, n_axial_stacks, quality)


def _require_enough(series: SeriesStacks) -> None:
    if series.n_slices < MIN_SAGITTAL_SLICES:
        reason = "damaged_pixels" if series.n_damaged else "too_few_slices"
        raise RefusedError(reason, f"{series.n_slices} sagittal slices, {series.n_damaged} damaged images")


def _read(
    exam_id: str,
    plane: Plane,
    archive: Path,
    images: Sequence[ImageSource],
    pseudonyms: Pseudonyms,
    quality: list[QualityRow],
) -> SeriesStacks:
    """Read one series and flag what befell its images."""
    series = read_series(archive, images, plane, pseudonyms=pseudonyms)
    counts = {
        "damaged_file_in_series": series.n_damaged,
        "duplicate_slices": series.n_duplicates,
        "missing_slices": series.n_missing,
        "uneven_spacing": series.n_uneven,
        "several_sagittal_stacks": len(series.stacks) - 1 if plane == "sagittal" else 0,
        "lossy_compression": series.n_lossy,
        "unused_bits": series.n_masked,
    }
    quality += [_flag(exam_id, reason, plane, float(count), 0.0) for reason, count in counts.items() if count]
    return series


def _flag(
    exam_id: str, reason: str, structure: str, value: float | None = None, limit: float | None = None
) -> QualityRow:
    return QualityRow(exam_id=exam_id, stage="convert", reason=reason, structure=structure, value=value, limit=limit)
