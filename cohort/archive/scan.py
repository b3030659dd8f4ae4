"""Turn every file of an archive into rows: usable, or with the reason why not.

Only headers are read: of the pixels no more than is needed to know that they are all there. A file has one row, a .zip
one for itself and those of its members, a multi-frame image one for each frame.
"""

from __future__ import annotations

import io
import os
import stat
import sys
import zipfile
from collections import Counter
from typing import Any, BinaryIO, Final

from pydicom import Dataset

from cohort.archive.describe import (
    ENHANCED_MR,
    Columns,
    frame_columns,
    identity,
    image_columns,
    require_mr_image,
    require_usable_image,
    require_usable_slice,
    slice_columns,
)
from cohort.archive.header import Elements, number, numbers, quiet_pydicom, text, unsigned_short
from cohort.archive.multiframe import frame_headers, is_multiframe
from cohort.archive.parse import (
    HEADER_BYTES,
    DicomFile,
    open_dicom,
    pixels_are_complete,
    read_frame_elements,
    read_image_elements,
)
from cohort.archive.pseudonym import Pseudonyms
from cohort.archive.source import (
    START_BYTES,
    Allowance,
    LimitedReader,
    compression,
    open_member,
    open_zip,
    uncompressed,
)
from cohort.errors import RefusedError
from cohort.rows import FileRow

_OUT_OF_ORDER: Final = frozenset(("not_dicom", "not_an_image", "truncated", "no_identity", "no_geometry"))
"""Reasons to read on to the pixels: what is missing may stand there, in files whose elements are not in order."""


def read_file_rows(
    root: os.PathLike[str] | str, relative: str, size_bytes: int, mtime_ns: int, pseudonyms: Pseudonyms
) -> list[FileRow]:
    """Read the header of one file into its rows, those of members and frames included.

    Never raises for what is in a file: each ends as usable rows or as one with a reason of
    `cohort.reasons.FILE_REASONS`. `content_sha256` is left empty; only files of a chosen series need it.

    Parameters
    ----------
    root, relative, size_bytes, mtime_ns : as given by `cohort.archive.listing.list_files`
    pseudonyms : hashes identifiers before they reach the row
    """
    path = os.path.join(root, relative)
    listed: Columns = {"file_id": pseudonyms.file_id(relative), "size_bytes": size_bytes, "mtime_ns": mtime_ns}
    reason = "unreadable"
    try:
        if stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for ever
            with io.FileIO(path) as raw, quiet_pydicom():
                return _rows_of_file(raw, relative, listed, pseudonyms)
    except RefusedError as error:
        reason = error.reason
    except (FileNotFoundError, NotADirectoryError):
        reason = "unreadable" if os.path.lexists(path) else "vanished"  # a link to nowhere is still there
    except OSError:
        pass
    return [FileRow(**listed, reason=reason)]


def _rows_of_file(raw: io.FileIO, relative: str, listed: Columns, pseudonyms: Pseudonyms) -> list[FileRow]:
    kind = compression(raw.read(START_BYTES))
    raw.seek(0)
    if kind == "zip":
        return _rows_of_zip(raw, relative, listed, pseudonyms)
    if kind == "gzip":
        with io.BufferedReader(raw) as packed:
            unpacked = uncompressed(packed, Allowance(raw)).detach()
            with _header_reader(unpacked) as stream:
                return _rows_of_dicom(stream, listed, pseudonyms, random_access=False)
    small = listed["size_bytes"] <= HEADER_BYTES
    with io.BufferedReader(raw) if small else _header_reader(raw) as stream:
        return _rows_of_dicom(stream, listed, pseudonyms, random_access=True)


def _header_reader(raw: io.RawIOBase) -> LimitedReader:
    """Reader from the beginning of a file, large or of unknown size, that reads no more than a header."""
    raw.seek(0)
    return LimitedReader(raw, limit=HEADER_BYTES, reason="damaged_header")


def _rows_of_zip(raw: io.FileIO, relative: str, listed: Columns, pseudonyms: Pseudonyms) -> list[FileRow]:
    """Row of the .zip and those of its members; directories in it have none."""
    rows = [FileRow(**listed, reason="container")]
    allowance = Allowance(raw)
    seen: Counter[str] = Counter()
    with open_zip(raw) as archived:
        for position, member in enumerate(archived.filelist):
            if member.is_dir():
                continue
            seen[member.filename] += 1
            name = f"{relative}\0{member.filename}" + f"\0{seen[member.filename]}" * (seen[member.filename] > 1)
            found = {
                "file_id": pseudonyms.file_id(name),
                "container_id": listed["file_id"],
                "member": position,
                "size_bytes": min(member.file_size, sys.maxsize),
                "mtime_ns": listed["mtime_ns"],
            }
            rows += _rows_of_member(archived, member, found, pseudonyms, allowance)
    return rows


def _rows_of_member(
    archived: zipfile.ZipFile,
    member: zipfile.ZipInfo,
    listed: Columns,
    pseudonyms: Pseudonyms,
    allowance: Allowance,
) -> list[FileRow]:
    try:
        with _header_reader(open_member(archived, member, allowance).detach()) as stream:
            return _rows_of_dicom(stream, listed, pseudonyms, random_access=False)
    except RefusedError as error:
        return [FileRow(**listed, reason=error.reason)]
    except OSError:
        return [FileRow(**listed, reason="unreadable")]


def _rows_of_dicom(stream: BinaryIO, listed: Columns, pseudonyms: Pseudonyms, *, random_access: bool) -> list[FileRow]:
    """One row, or one for each frame; of an unusable image with all that is known of it."""
    found: dict[str, Any] = {}
    frames: list[Columns]
    try:
        frames = _read_into(found, open_dicom(stream, random_access=random_access), pseudonyms)
    except RefusedError as error:
        frames = [{"reason": error.reason}]
    except OSError:
        frames = [{"reason": "unreadable"}]
    except Exception:
        # pydicom raises a dozen kinds of exception, and plain Python ones, on damaged headers. The file is not lost:
        # its row says so.
        frames = [{"reason": "damaged_header"}]
    return [FileRow(**listed, **found | frame) for frame in frames]


def _read_into(found: dict[str, Any], file: DicomFile, pseudonyms: Pseudonyms) -> list[Columns]:
    """Fill `found` with what holds for the whole image and return what holds for each frame; RefusedError if unusable.

    What was found before a refusal stays: the row of an unusable image belongs to its series all the same.
    """
    try:
        return _described(found, file, read_image_elements(file), pseudonyms)
    except RefusedError as error:
        if error.reason not in _OUT_OF_ORDER:
            raise
    found.clear()
    return _described(found, file, read_image_elements(file, to_pixels=True), pseudonyms)


def _described(found: dict[str, Any], file: DicomFile, header: Elements, pseudonyms: Pseudonyms) -> list[Columns]:
    sop_class = text(header, "SOPClassUID") or text(file.meta, "MediaStorageSOPClassUID")
    found |= identity(header, pseudonyms)
    require_mr_image(header, sop_class, has_preamble=file.has_preamble)
    found |= image_columns(header)
    if not _may_have_groups(header, sop_class):
        return _slice(found, file, header)
    data_set = read_frame_elements(file)
    if is_multiframe(data_set):
        return _frames(found, file, data_set)
    if (number(data_set, "NumberOfFrames") or 1) > 1:
        raise RefusedError("no_geometry", "several frames without functional groups")
    return _slice(found, file, data_set)


def _may_have_groups(header: Elements, sop_class: str) -> bool:
    """Say if functional groups are worth looking for: they come late, and few files have them.

    Files whose meta information alone says Enhanced MR, but which are plain slices, exist in public collections.
    """
    n_frames = number(header, "NumberOfFrames")
    several, enhanced = (n_frames or 1) > 1, n_frames is not None and sop_class in ENHANCED_MR
    return several or enhanced or not numbers(header, "ImagePositionPatient")


def _slice(found: dict[str, Any], file: DicomFile, header: Elements) -> list[Columns]:
    """The only frame of a single-frame image."""
    found |= slice_columns(header)
    require_usable_image(header, found, file.transfer_syntax)
    require_usable_slice(found)
    _require_pixels(file, header, n_frames=1)
    return [{}]


def _frames(found: dict[str, Any], file: DicomFile, data_set: Dataset) -> list[Columns]:
    """All frames of a multi-frame image; what is wrong with the image is wrong with each."""
    headers = frame_headers(data_set)
    reason = None
    try:
        require_usable_image(data_set, found, file.transfer_syntax)
        _require_pixels(file, data_set, n_frames=len(headers))
    except RefusedError as error:
        reason = error.reason
    frames = [{"frame": k, **frame_columns(data_set, header)} for k, header in enumerate(headers)]
    return [frame | {"reason": reason or _slice_reason(found | frame)} for frame in frames]


def _slice_reason(found: Columns) -> str | None:
    try:
        require_usable_slice(found)
    except RefusedError as error:
        return error.reason
    return None


def _require_pixels(file: DicomFile, header: Elements, *, n_frames: int) -> None:
    rows, columns, bits = (unsigned_short(header, keyword) or 0 for keyword in ("Rows", "Columns", "BitsAllocated"))
    if not pixels_are_complete(file, rows * columns * bits // 8 * n_frames):
        raise RefusedError("truncated", f"{n_frames} frames of {rows} x {columns} pixels of {bits} bits")
