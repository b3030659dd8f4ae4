"""What is true of the suite: the contents of `truth.json`.

All positions are DICOM LPS in mm, all directions unit vectors; slices are in order along +normal (row x column cosine).
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from cohort.errors import ConfigurationError
from models.geometry_suite import SUITE_VERSION
from models.geometry_suite.plane import Vector

TRUTH_FILE: Final = "truth.json"
FILES_FOLDER: Final = "dicom"


@dataclass(frozen=True)
class Marker:
    """One voxel of a value that occurs once in its case."""

    value: int
    """After the modality LUT: RescaleSlope x stored + RescaleIntercept (PS3.3 C.11.1)."""
    stored: int | None
    """Stored value; null where slices of one series differ in rescale, so that stored values lose their meaning."""
    lps_mm: Vector | None
    """Centre of the voxel; null if no place follows from the file, so that any place is a guess."""


@dataclass(frozen=True)
class Stack:
    """Parallel slices of one grid: what a converter should make one volume of."""

    part: dict[str, Any]
    """Attributes (DICOM keywords) that tell it from other stacks of its series at equal places: echo time and such."""
    n_slices: int
    shape: tuple[int, int]
    """(Rows, Columns)."""
    spacing_mm: tuple[float, float]
    """(between rows, between columns)."""
    row_cosine: Vector
    column_cosine: Vector
    positions_mm: list[Vector]
    """[slice, 3] first voxel of each slice, along +normal; uneven where slices are missing."""
    markers: list[Marker]


@dataclass(frozen=True)
class Series:
    """One series and its stacks."""

    series_instance_uid: str
    stacks: list[Stack]


@dataclass(frozen=True)
class RefusedFile:
    """A file that cannot be used, or not whole."""

    file: str
    reason: str
    """Class of reason, see REFUSALS."""
    markers: list[Marker]
    """Of the pixels that are left. With a place: may be used or not. Without: a converter that shows them guessed."""


REFUSALS: Final[dict[str, str]] = {
    "truncated": "The file ends within its pixel data, or before.",
    "no_geometry": "Position, orientation or pixel spacing is missing or not usable.",
    "no_identity": "A UID of study, series or instance is missing.",
    "mosaic": "Slices tiled into one image, and nothing says where the tiles lie.",
    "unsupported_pixels": "Colour.",
    "not_an_image": "DICOM, but no image.",
    "not_mr": "An image of another modality.",
    "not_dicom": "No DICOM file.",
    "damaged_container": "A compressed file that cannot be unpacked.",
}
"""Class of reason -> what is wrong with the file."""


@dataclass(frozen=True)
class Case:
    """One study of the suite."""

    name: str
    """Also the folder of its files below `dicom`, and PatientID."""
    description: str
    study_instance_uid: str
    files: list[str]
    """Paths below `dicom`; a member of a .zip is named path-of-the-zip/name."""
    series: list[Series]
    background: int
    """Value of all voxels without marker, after the modality LUT."""
    stored_background: int | None
    inverted: bool = False
    """MONOCHROME1: a converter may turn the scale of stored values round."""
    copies: list[list[str]] = field(default_factory=list)
    """Groups of files that hold one and the same slice."""
    missing_mm: list[Vector] = field(default_factory=list)
    """First voxel of each slice that even spacing would expect and that no usable file holds."""
    refused: list[RefusedFile] = field(default_factory=list)

    @property
    def markers(self) -> list[Marker]:
        """All markers that must come out."""
        return [marker for series in self.series for stack in series.stacks for marker in stack.markers]


@dataclass(frozen=True)
class Truth:
    """The whole suite."""

    seed: int
    cases: list[Case]

    def case(self, name: str) -> Case:
        """Case of that name; KeyError if there is none."""
        return {case.name: case for case in self.cases}[name]


def write_truth(folder: Path, truth: Truth) -> None:
    """Write `truth.json`, with every list of numbers on one line, for people who read it."""
    document = {
        "format": "lumbar-cohort geometry suite",
        "version": SUITE_VERSION,
        "frame": "DICOM LPS, mm",
        "refusals": REFUSALS,
        **asdict(truth),
    }
    text = _NUMBERS.sub(lambda found: " ".join(found[0].split()), json.dumps(document, indent=1))
    (folder / TRUTH_FILE).write_text(text + "\n")


_NUMBERS: Final = re.compile(r"\[[\s\d.,eE+-]+\]")


def read_truth(folder: Path) -> Truth:
    """Read `truth.json`.

    Raises
    ------
    ConfigurationError
        if there is none in the folder, or one of another version
    """
    path = folder / TRUTH_FILE
    if not path.is_file():
        raise ConfigurationError(f"the folder holds no {TRUTH_FILE}: write the suite there first")
    document = _with_vectors(json.loads(path.read_text()))
    if document.get("version") != SUITE_VERSION:
        raise ConfigurationError(f"{TRUTH_FILE} is of another version of the suite: write it again")
    return Truth(seed=document["seed"], cases=[_case(case) for case in document["cases"]])


def _with_vectors(value: Any) -> Any:
    """JSON knows no tuples: turn lists of numbers back into them."""
    if isinstance(value, dict):
        return {key: _with_vectors(one) for key, one in value.items()}
    if not isinstance(value, list):
        return value
    if value and all(isinstance(one, int | float) for one in value):
        return tuple(value)
    return [_with_vectors(one) for one in value]


def _case(found: dict[str, Any]) -> Case:
    series = [
        Series(one["series_instance_uid"], [Stack(**stack | {"markers": _markers(stack)}) for stack in one["stacks"]])
        for one in found["series"]
    ]
    refused = [RefusedFile(**one | {"markers": _markers(one)}) for one in found["refused"]]
    return Case(**found | {"series": series, "refused": refused})


def _markers(found: dict[str, Any]) -> list[Marker]:
    return [Marker(**marker) for marker in found["markers"]]
