"""The table that goes with mask files: which exam, plane and reader each is of."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cohort.annotations.classes import ARRAY_PLANES
from cohort.annotations.store import check_reader
from cohort.annotations.times import iso_time
from cohort.errors import ConfigurationError
from cohort.stacks import Plane

COLUMNS: Final = (
    "file", "exam", "plane", "stack", "slice", "instance", "reader", "array", "label", "complete", "drawn_at"
)  # fmt: skip
_PLANES: Final[dict[str, Plane]] = {"sagittal": "sagittal", "axial": "axial"}
_YES: Final = ("1", "true", "yes")
_NO: Final = ("", "0", "false", "no")


@dataclass(frozen=True)
class MaskLine:
    """One file with masks."""

    path: Path
    exam: str
    """StudyInstanceUID, or the exam's pseudonym."""
    reader: str
    plane: Plane | None
    """None: any whose grid fits."""
    stack: int | None
    """None: any of the plane whose grid fits."""
    slice: int | None
    """Of a picture: number in the stack of the store, from 0."""
    instance: str | None
    """Of a picture: SOPInstanceUID."""
    array: str | None
    """The values are those of `cohort.terms` for this label array; None: the class table says what they mean."""
    label: str | None
    """Whatever is not 0 is this label; None: each value is a label of its own."""
    complete: bool
    """Slices without a mask have nothing of these structures; else they are unknown."""
    drawn_at: str | None
    """ISO 8601."""


def read_mask_table(path: Path, folder: Path, reader: str | None) -> list[MaskLine]:
    """Read the table, a CSV file with the columns `COLUMNS`, of which `file` and `exam` are needed.

    Parameters
    ----------
    folder : that the names of files are relative to
    reader : of files whose line names none

    Raises
    ------
    ConfigurationError
        if it cannot be read, has an unknown column or value, a line without file, exam or reader, or names a file
        outside the folder
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            content = csv.DictReader(stream)
            unknown = set(content.fieldnames or ()) - set(COLUMNS)
            lines = list(content)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f"the table {path.name} cannot be read: {type(error).__name__}") from error
    if unknown or not lines:
        what = f"unknown column {sorted(unknown)[0]!r}" if unknown else "no line"
        raise ConfigurationError(f"the table {path.name} has {what}; columns: {', '.join(COLUMNS)}")
    return [_line(line, folder, reader, f"{path.name}, line {k}") for k, line in enumerate(lines, start=2)]


def _line(line: dict[str, str | None], folder: Path, reader: str | None, where: str) -> MaskLine:
    given = {name: (line.get(name) or "").strip() or None for name in COLUMNS}
    file, exam, by, plane, array = (
        given["file"],
        given["exam"],
        given["reader"] or reader,
        given["plane"],
        given["array"],
    )
    if file is None or exam is None or by is None:
        raise ConfigurationError(f"{where}: file, exam and reader (or --reader) are needed")
    if plane is not None and plane not in _PLANES:
        raise ConfigurationError(f"{where}: plane is sagittal or axial")
    if array is not None and array not in ARRAY_PLANES:
        raise ConfigurationError(f"{where}: array is one of {', '.join(ARRAY_PLANES)}")
    if array is not None and given["label"] is not None:
        raise ConfigurationError(f"{where}: array or label, not both")
    if (given["complete"] or "").lower() not in (*_YES, *_NO):
        raise ConfigurationError(f"{where}: complete is yes or no")
    if given["drawn_at"] is not None and iso_time(given["drawn_at"]) is None:
        raise ConfigurationError(f"{where}: drawn_at is a date or time of ISO 8601, as 2024-05-06")
    target = folder / file
    if not target.resolve().is_relative_to(folder.resolve()):
        raise ConfigurationError(f"{where}: the file lies outside the folder")
    return MaskLine(
        path=target,
        exam=exam,
        reader=check_reader(by),
        plane=_PLANES[plane] if plane else None,
        stack=_number(given["stack"], where),
        slice=_number(given["slice"], where),
        instance=given["instance"],
        array=array,
        label=given["label"],
        complete=(given["complete"] or "").lower() in _YES,
        drawn_at=given["drawn_at"],
    )


def _number(text: str | None, where: str) -> int | None:
    if text is None:
        return None
    if not text.isdecimal():
        raise ConfigurationError(f"{where}: stack and slice are whole numbers from 0")
    return int(text)
