"""Readers who draw on phantom exams with an error that is known: every outline a little too far out or in.

A reader's shift is a bias that all structures share, and a part of each structure's own. Masks of two readers then
differ by a known distance, so what agreement statistics say of them has a known truth (`models.phantom.reader_truth`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from cohort.stacks import Labels, Plane
from models.phantom.exam import PhantomExam
from models.phantom.outlines import REACH_MM, Section, sections

AXIAL_APART: Final = 3
"""Of the axial slices every third is drawn on: people do not draw on all."""
_ARRAYS: Final = ("vertebral_body", "disc", "muscle")


@dataclass(frozen=True)
class Reader:
    """Who draws, and how far from the truth."""

    code: str
    bias_mm: float = 0.0
    """Mean distance of outlines from the true ones, outward positive."""
    sd_mm: float = 0.0
    """Of the distance between structures."""

    def shifts_mm(self, exam: PhantomExam, section: Section) -> tuple[float, ...]:
        """How far outside the true ones the outlines of `section.names` lie; the same on all slices of a stack, and
        whenever an equal reader draws the exam."""
        place = (("sagittal", "axial").index(section.plane), section.stack, _ARRAYS.index(section.array))
        rng = np.random.default_rng([exam.plan.seed, *self.code.encode(), *place])
        shifts = self.bias_mm + self.sd_mm * rng.standard_normal(len(section.names))
        return tuple(float(shift) for shift in np.clip(shifts, -REACH_MM, REACH_MM))


@dataclass(frozen=True, eq=False)
class Drawing:
    """What a reader drew of the structures of one label array on one slice."""

    reader: Reader
    section: Section
    shifts_mm: tuple[float, ...]
    """Of the outlines of `section.names`."""
    pixels: Labels
    """[row, column] of the stack's grid: values at the pixels' centres."""
    lattice: Labels
    """[row, column] of the section's lattice: the same outlines, as they were before there were pixels."""


def draw(exam: PhantomExam, readers: Sequence[Reader]) -> Iterator[tuple[Drawing, ...]]:
    """For each slice that readers look at and each label array on it, what each of them draws: bodies down to S1, discs
    and muscles. Who has no error draws the phantom's mask."""
    for plane, stack, k in looked_at(exam):
        for section in sections(exam, plane, stack, k):
            yield tuple(_drawing(exam, section, reader) for reader in readers)


def looked_at(exam: PhantomExam) -> Iterator[tuple[Plane, int, int]]:
    """(plane, stack, slice) that readers look at: all sagittal slices, some axial ones."""
    yield from (("sagittal", 0, k) for k in range(exam.sagittal.n_slices))
    for stack, grid in enumerate(exam.axial):
        yield from (("axial", stack, k) for k in range(grid.n_slices // 2 % AXIAL_APART, grid.n_slices, AXIAL_APART))


def _drawing(exam: PhantomExam, section: Section, reader: Reader) -> Drawing:
    shifts = reader.shifts_mm(exam, section)
    lattice = section.moved(shifts)
    return Drawing(reader, section, shifts, section.at_pixels(lattice) if any(shifts) else section.pixels, lattice)
