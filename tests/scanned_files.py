"""Single files as the scan sees them, for tests of scanning."""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path

import numpy as np

from cohort.archive.pseudonym import Pseudonyms
from cohort.archive.scan import read_file_rows
from cohort.rows import FileRow

PSEUDONYMS = Pseudonyms(bytes(range(32)))
PIXELS = np.arange(120, dtype=np.uint16).reshape(12, 10)
FRAMES = np.arange(4 * 120, dtype=np.uint16).reshape(4, 12, 10)


def rows_of(path: Path) -> list[FileRow]:
    """All rows of one file."""
    return read_file_rows(path.parent, path.name, path.stat().st_size, 7, PSEUDONYMS)


def row_of(path: Path) -> FileRow:
    """The only row of one file."""
    (row,) = rows_of(path)
    return row


def reasons_of(path: Path) -> Counter[str | None]:
    """How often each reason stands in the rows of one file."""
    return Counter(row.reason for row in rows_of(path))


def write_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write a .zip."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path
