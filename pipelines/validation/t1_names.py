"""Names on real T1 pictures that the networks segmented: is the sacrum found, are bodies and discs those listed?

The pictures have no masks. By their planning all show the sacrum, so that the lowest row must be S1 or have no name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cohort.anatomy.measure import Measurements
from cohort.stacks import Labels
from cohort.terms import SACRAL_BODY, VERTEBRAL_BODY
from models.training.annotated import read_spacings
from pipelines.validation.anatomy_errors import share
from pipelines.validation.human_masks import measured_picture
from pipelines.validation.real_scans import Networks, Report, SegmentedSlice, listed_counts, t1_pictures

SHIPPED = Networks("vertebral_body", "disc", "muscle")
FOLDER = "spider_t1_midsagittal"


@dataclass(frozen=True)
class T1Picture:
    """What was measured in one picture, beside what the data set lists."""

    picture: str
    lowest: str | None
    """Name of the lowest row."""
    confidence: float
    mobile: int
    """Vertebrae above S1; where nothing is named, above the piece that the networks call sacral."""
    discs: int
    listed: tuple[int, int]
    """Vertebrae and discs."""


def t1_results(data: Path, report: Report) -> dict[str, Any]:
    """Segment the pictures with the shipped networks, measure each as a stack of one slice, and count.

    Takes some minutes. Keys begin with `t1_`; pictures whose lowest row is not S1, or whose counts are not the listed
    ones, are listed under `t1_differing`.

    Raises
    ------
    ConfigurationError
        if the folder holds no pictures
    """
    folder = data / FOLDER
    spacings, listed = read_spacings(folder), listed_counts(folder)
    measured = []
    for one in t1_pictures(folder, SHIPPED, report)[0]:
        found = measured_picture(*_labels(one), spacings[one.name])
        measured.append(_picture(one.name, found, (listed[one.name]["vertebrae"], listed[one.name]["discs"])))
    return t1_figures(measured)


def _labels(one: SegmentedSlice) -> tuple[Labels, Labels]:
    """[row, column] labels of bodies and of discs."""
    bodies = np.where(one.alone["sacral_body"], SACRAL_BODY, np.where(one.alone["vertebral_body"], VERTEBRAL_BODY, 0))
    return bodies.astype(np.uint8), one.alone["disc"].astype(np.uint8)


def _picture(name: str, found: Measurements, listed: tuple[int, int]) -> T1Picture:
    lowest = found.vertebrae[0] if found.vertebrae else None
    return T1Picture(
        picture=name,
        lowest=lowest.level if lowest else None,
        confidence=lowest.level_confidence if lowest else 0.0,
        mobile=sum(row.ordinal > 0 for row in found.vertebrae),
        discs=len(found.discs),
        listed=listed,
    )


def t1_figures(pictures: Sequence[T1Picture]) -> dict[str, Any]:
    """Shares of the pictures, and those that differ."""
    off = [(abs(one.mobile - one.listed[0]), abs(one.discs - one.listed[1])) for one in pictures]
    return {
        "t1_pictures": len(pictures),
        "t1_lowest_named_s1": share(one.lowest == "S1" for one in pictures),
        "t1_refused": share(one.lowest is None for one in pictures),
        "t1_lowest_named_otherwise": sum(one.lowest not in ("S1", None) for one in pictures),
        "t1_vertebrae_match": share(vertebrae == 0 for vertebrae, _ in off),
        "t1_vertebrae_within_one": share(vertebrae <= 1 for vertebrae, _ in off),
        "t1_discs_match": share(discs == 0 for _, discs in off),
        "t1_discs_within_one": share(discs <= 1 for _, discs in off),
        "t1_differing": [
            asdict(one) for one, both in zip(pictures, off, strict=True) if one.lowest != "S1" or both != (0, 0)
        ],
    }
