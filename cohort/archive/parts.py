"""Part the images of one series: echoes, Dixon images, magnitude and phase, inversions, repeated volumes.

A series of one echo and one kind of image is one part. Words of ImageType that say what is shown (water, phase, a map)
always part it. Acquisition values and harmless words (NORM, DIS2D) do so only where they tell images at one place
apart: scanners write slightly different echo times for the slices of one stack.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from cohort.archive.vocabulary import CONTENT_WORDS
from cohort.rows import FileRow

SAME_ECHO_MS: Final = 0.3
"""Echo times nearer to each other are one echo; the echoes of a Dixon train lie about 1 ms apart at 3 T."""
PLACE_GRID: Final = np.array([10.0] * 3 + [100.0] * 6)
"""Positions are compared on a grid of 0.1 mm, cosines of 0.01; images at one place carry the same text."""
FAR_MM: Final = 1e6
"""Positions beyond are nonsense, and would not fit the grid."""

DAMAGED: Final = frozenset(("truncated", "damaged_container"))
"""Reasons of images whose header tells where they belong: conversion is given them, so that it says what it lost."""

Label = Hashable


@dataclass(frozen=True)
class Part:
    """Images of one series that show one thing at one echo, one inversion time and one temporal position."""

    rows: tuple[FileRow, ...]
    """Usable and damaged rows, copies included, in the order of files and frames."""
    one_of_several_echoes: bool = False
    """Other parts hold other echoes of the same places, and ImageType does not say what each shows."""

    @cached_property
    def usable(self) -> tuple[FileRow, ...]:
        """Rows without reason, copies included."""
        return tuple(row for row in self.rows if row.reason is None)

    @cached_property
    def _images_at(self) -> dict[Label, set[Label]]:
        images: defaultdict[Label, set[Label]] = defaultdict(set)
        for row, place in zip(self.usable, _places(self.usable), strict=True):
            images[place].add((row.instance_id, row.frame))
        return images

    @property
    def n_slices(self) -> int:
        """Places with a usable image."""
        return len(self._images_at)

    @property
    def overlaps(self) -> bool:
        """Say if images that nothing in the header tells apart lie at one place: copies, or repetitions."""
        return any(len(images) > 1 for images in self._images_at.values())


def split_parts(rows: Sequence[FileRow]) -> list[Part]:
    """Part the readable rows of one series, in an order that does not depend on theirs.

    Rows of other reasons than `DAMAGED`, and damaged ones without geometry, belong to no part.
    """
    readable = [row for row in rows if row.reason is None or (row.reason in DAMAGED and _has_geometry(row))]
    readable.sort(key=lambda row: (row.file_id, -1 if row.frame is None else row.frame))
    parts = [
        Part(tuple(echo), one_of_several_echoes=len(echoes) > 1)
        for same_content in _grouped(readable, [_content(row) for row in readable])
        for echoes in [_where_overlapping(same_content, _echo_numbers)]
        for echo in echoes
    ]
    for tell_apart in (_inversion_times, _temporal_positions, _acquisition_numbers, _image_types):
        parts = [
            Part(tuple(group), part.one_of_several_echoes)
            for part in parts
            for group in _where_overlapping(part.rows, tell_apart)
        ]
    return sorted(parts, key=_order)


def _has_geometry(row: FileRow) -> bool:
    return bool(row.position_mm and row.orientation and row.row_spacing_mm and row.column_spacing_mm)


def _content(row: FileRow) -> frozenset[str]:
    return CONTENT_WORDS.intersection((row.image_type or "").split("+"))


def _echo_numbers(rows: Sequence[FileRow]) -> list[Label]:
    """Number of the cluster of each row's echo time; None where it is unknown."""
    times = sorted({row.echo_time_ms for row in rows if row.echo_time_ms is not None})
    number: dict[float | None, int] = {}
    for k, time in enumerate(times):
        step = k > 0 and time - times[k - 1] > SAME_ECHO_MS
        number[time] = (number[times[k - 1]] if k else 0) + step
    return [number.get(row.echo_time_ms) for row in rows]


def _inversion_times(rows: Sequence[FileRow]) -> list[Label]:
    return [row.inversion_time_ms for row in rows]


def _temporal_positions(rows: Sequence[FileRow]) -> list[Label]:
    return [row.temporal_position for row in rows]


def _acquisition_numbers(rows: Sequence[FileRow]) -> list[Label]:
    return [row.acquisition_number for row in rows]


def _image_types(rows: Sequence[FileRow]) -> list[Label]:
    return [row.image_type for row in rows]


def _where_overlapping(
    rows: Sequence[FileRow], tell_apart: Callable[[Sequence[FileRow]], list[Label]]
) -> list[list[FileRow]]:
    """Group rows by label if any place holds images of two labels; else they stay together."""
    labels = tell_apart(rows)
    if len(set(labels)) < 2:
        return [list(rows)]
    first_at: dict[Label, Label] = {}
    if all(first_at.setdefault(place, label) == label for place, label in zip(_places(rows), labels, strict=True)):
        return [list(rows)]
    return _grouped(rows, labels)


def _grouped(rows: Sequence[FileRow], labels: Sequence[Label]) -> list[list[FileRow]]:
    groups: defaultdict[Label, list[FileRow]] = defaultdict(list)
    for row, label in zip(rows, labels, strict=True):
        groups[label].append(row)
    return list(groups.values())


def _places(rows: Sequence[FileRow]) -> list[Label]:
    """Frame of reference and place of each row."""
    if not rows:
        return []
    geometry = np.array([[*(row.position_mm or ()), *(row.orientation or ())] for row in rows])
    cells = np.rint(np.clip(geometry, -FAR_MM, FAR_MM) * PLACE_GRID).astype(np.int64)
    return [(row.frame_of_reference_id, *cell) for row, cell in zip(rows, cells.tolist(), strict=True)]


def _order(part: Part) -> tuple[float | int | str, ...]:
    """Sort key: early echoes and temporal positions first."""
    first = part.rows[0]
    return (
        min((row.echo_time_ms for row in part.rows if row.echo_time_ms is not None), default=-1.0),
        -1.0 if first.inversion_time_ms is None else first.inversion_time_ms,
        min((row.temporal_position for row in part.rows if row.temporal_position is not None), default=-1),
        min((row.acquisition_number for row in part.rows if row.acquisition_number is not None), default=-1),
        "+".join(sorted(_content(first))),
        first.image_type or "",
        first.file_id,
        -1 if first.frame is None else first.frame,
    )
