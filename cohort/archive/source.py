"""Where the bytes of a DICOM file are: a file of its own, a gzip-compressed one, or a member of a .zip.

What is compressed is told by its first bytes, never by its name. Nothing that a compressed file says about its sizes is
believed: bytes are counted as they come out, and a file that swells beyond the limits below is left at once. Reading
goes through a buffer of constant size and writes nothing to disk.
"""

from __future__ import annotations

import errno
import io
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from gzip import BadGzipFile, GzipFile
from pathlib import Path
from typing import IO, Any, BinaryIO, Final, Literal, cast

from cohort.errors import RefusedError

LARGEST_FILE_BYTES: Final = 2**31
"""Of one uncompressed DICOM file: a multi-frame image of 4,000 frames of 512 x 512 pixels of 16 bits."""
LARGEST_RATIO: Final = 200
"""Bytes that may come out of a compressed file for each of its own. MR images give 2 to 4; zeros, of which bombs are
made, give up to 1,032 (deflate, RFC 1951)."""
ALWAYS_ALLOWED_BYTES: Final = 2**24
"""What may come out whatever the ratio, so that a small image which is all background passes."""
MOST_MEMBERS: Final = 100_000
"""Of one .zip."""
LARGEST_DIRECTORY_BYTES: Final = 2**24
"""Of the list of members of a .zip, which Python reads as a whole."""

START_BYTES: Final = 132
"""A preamble of 128 bytes and the prefix DICM (PS3.10 7.1)."""
_BUFFER_BYTES: Final = 2**16
_GZIP: Final = b"\x1f\x8b"  # RFC 1952 2.3.1
_ZIP: Final = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")  # APPNOTE 4.3.7; 4.3.16, no member; 8.5.3, in several parts
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # decoders of others do not bound what one call returns

Packed = GzipFile | zipfile.ZipExtFile
"""Decompressors of the standard library."""


@dataclass(frozen=True)
class FileSource:
    """One DICOM file of the archive."""

    relative: str
    """Path below the archive root of the file, or of the .zip that holds it; in memory alone."""
    member: int | None = None
    """Position in the directory of the .zip."""


@dataclass(frozen=True)
class ImageSource:
    """The images of one file that belong to a chosen part of a series."""

    file: FileSource
    frames: tuple[int, ...] | None = None
    """Numbers of the frames, from 0; None for a single-frame file."""


@contextmanager
def open_source(archive: Path, source: FileSource) -> Iterator[BinaryIO]:
    """Open the uncompressed bytes of a DICOM file for reading; the stream can seek.

    Raises
    ------
    OSError
        if the file is gone or cannot be read
    RefusedError
        `damaged_container` or `container_limit`, on opening or while the stream is read
    """
    with io.FileIO(archive / source.relative) as raw:
        allowance = Allowance(raw)
        if source.member is None:
            with io.BufferedReader(raw, _BUFFER_BYTES) as stream:
                yield uncompressed(stream, allowance)
        else:
            with open_zip(raw) as archived:
                yield open_member(archived, member_at(archived, source.member), allowance)


def compression(start: bytes) -> Literal["gzip", "zip"] | None:
    """How a file is compressed, by its first `START_BYTES`; a DICOM file may begin with anything before its prefix."""
    if start[128:START_BYTES] == b"DICM":
        return None
    if start.startswith(_GZIP):
        return "gzip"
    return "zip" if start.startswith(_ZIP) else None


class Allowance:
    """How much may still come out of one compressed file, all members of a .zip together."""

    def __init__(self, compressed: IO[bytes] | io.RawIOBase) -> None:
        size = compressed.seek(0, io.SEEK_END)
        compressed.seek(0)
        self.left = ALWAYS_ALLOWED_BYTES + LARGEST_RATIO * size

    def take(self, n_bytes: int) -> None:
        """Count bytes that came out; RefusedError `container_limit` beyond the limit."""
        self.left -= n_bytes
        if self.left < 0:
            raise RefusedError("container_limit", f"more than {LARGEST_RATIO} times its compressed size")


def uncompressed(stream: io.BufferedReader[Any], allowance: Allowance) -> io.BufferedReader[Any]:
    """The stream itself, or what its gzip compression holds; one level only.

    Raises RefusedError `container_limit` if there is a further level, or a .zip.
    """
    kind = compression(_start(stream))
    if kind == "gzip":
        stream = _inflated(GzipFile(fileobj=stream), allowance)
        kind = compression(_start(stream))
    if kind is not None:
        raise RefusedError("container_limit", "compressed more than once")
    return stream


def _start(stream: io.BufferedReader[Any]) -> bytes:
    start = stream.read(START_BYTES)
    stream.seek(0)
    return start


@contextmanager
def open_zip(raw: io.RawIOBase) -> Iterator[zipfile.ZipFile]:
    """Open a .zip and read its directory.

    Raises RefusedError `container_limit` if it has too many members, `damaged_container` if it cannot be read.
    """
    with LimitedReader(raw, limit=LARGEST_DIRECTORY_BYTES, reason="container_limit") as reader:
        with _damage_refused():
            archived = zipfile.ZipFile(reader)
        with archived:
            if len(archived.filelist) > MOST_MEMBERS:
                raise RefusedError("container_limit", f"{len(archived.filelist)} members")
            reader.left = sys.maxsize - 1  # members are counted as they are uncompressed
            yield archived


def member_at(archived: zipfile.ZipFile, position: int) -> zipfile.ZipInfo:
    """Member at a position of the directory; RefusedError `damaged_container` if there are fewer."""
    if position >= len(archived.filelist):
        raise RefusedError("damaged_container", f"{len(archived.filelist)} members")
    return archived.filelist[position]


def open_member(archived: zipfile.ZipFile, member: zipfile.ZipInfo, allowance: Allowance) -> io.BufferedReader[Any]:
    """Uncompressed bytes of a member, which may itself be gzip-compressed; errors as of `open_source`."""
    if member.compress_type not in _METHODS:
        raise RefusedError("damaged_container", f"compression method {member.compress_type}")
    with _damage_refused():
        inner = cast(zipfile.ZipExtFile, archived.open(member))
    return uncompressed(_inflated(inner, allowance), allowance)


def _inflated(compressed: Packed, allowance: Allowance) -> io.BufferedReader[Any]:
    return io.BufferedReader(_Inflated(compressed, allowance), _BUFFER_BYTES)


class LimitedReader(io.BufferedReader):
    """A buffered file out of which only so many bytes can be read; what is skipped does not count.

    A hostile length of 4 GB is thereby refused before it takes memory. Raises RefusedError with the reason given.
    """

    def __init__(self, raw: io.RawIOBase, *, limit: int, reason: str) -> None:
        super().__init__(raw, _BUFFER_BYTES)
        self.left = limit
        self._reason = reason

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as from any file."""
        all_left = self.left + 1
        found = super().read(all_left if size is None or size < 0 else min(size, all_left))
        self.left -= len(found)
        if self.left < 0:
            raise RefusedError(self._reason, "more bytes than may be read")
        return found


class _Inflated(io.RawIOBase):
    """Bytes that come out of a decompressor, counted; its errors become reasons. Seeking back begins anew."""

    name = ""  # pydicom asks every BufferedReader for it

    def __init__(self, compressed: Packed, allowance: Allowance) -> None:
        super().__init__()
        self._compressed, self._allowance = compressed, allowance
        self._at = self._furthest = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Read into a buffer of bytes, as `io.RawIOBase` describes it."""
        found = self._read(len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to a position by uncompressing what lies before it; at most to the end."""
        if whence == io.SEEK_END:
            self._skip_to(LARGEST_FILE_BYTES + 1)
        target = offset if whence == io.SEEK_SET else self._at + offset
        if target < self._at:
            with _damage_refused():
                self._compressed.seek(0)
            self._at = 0
        self._skip_to(target)
        return self._at

    def _skip_to(self, target: int) -> None:
        while self._at < target and self._read(min(_BUFFER_BYTES, target - self._at)):
            pass

    def _read(self, size: int) -> bytes:
        with _damage_refused():
            found = self._compressed.read1(size)  # unlike read, it gives what comes before damage
        self._at += len(found)
        if self._at > self._furthest:
            self._allowance.take(self._at - self._furthest)
            self._furthest = self._at
        if self._furthest > LARGEST_FILE_BYTES:
            raise RefusedError("container_limit", f"more than {LARGEST_FILE_BYTES} bytes")
        return found


@contextmanager
def _damage_refused() -> Iterator[None]:
    """Turn what gzip, zipfile and zlib raise into the reason `damaged_container`; errors of the disk pass."""
    try:
        yield
    except RefusedError:
        raise
    except Exception as error:  # they raise a dozen kinds: bad sums, encryption, offsets beyond the end, ...
        of_disk = isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)
        if of_disk and not isinstance(error, BadGzipFile):
            raise
        raise RefusedError("damaged_container", type(error).__name__) from error
