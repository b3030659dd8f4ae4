"""Pseudonyms: keyed hashes that stand for DICOM identifiers in every table and store.

HMAC-SHA256 (RFC 2104) under a secret key, cut to 130 bits and written in base32 (RFC 4648): without the key, neither a
list of all possible patient numbers nor a known identifier leads from or to a pseudonym.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from cohort.errors import ConfigurationError

KEY_BYTES: Final = 32
PSEUDONYM_LENGTH: Final = 26
"""Characters of a pseudonym: 26 x 5 = 130 bits."""
_ENCODED_BYTES: Final = 20
"""Least number of bytes whose base32 has no padding and is long enough."""
_ALPHABET: Final = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz234567", np.uint8)
_BLOCK_BYTES: Final = 64
"""Of SHA-256."""
_BLOCK_ROWS: Final = 2**16
"""Digests encoded at once; their bits are taken apart, one a byte."""
_FILE: Final = b"file\0"


def load_or_create_key(path: Path, *, store: Path | None = None) -> bytes:
    """Read the key file, or create it with 32 random bytes, readable by its owner alone.

    Parameters
    ----------
    path : the key file
    store : the store that the pseudonyms go to; the key must not lie inside it, since stores are shared

    Raises
    ------
    ConfigurationError
        if the key lies inside the store, has another length, or others may read it
    """
    if store is not None and path.resolve().is_relative_to(store.resolve()):
        raise ConfigurationError("the pseudonym key must lie outside the store: whoever has both can undo pseudonyms")
    if not path.exists():
        _create_key(path)
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise ConfigurationError("the pseudonym key may be read by others than its owner: chmod 600 it")
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise ConfigurationError(f"the pseudonym key has {len(key)} bytes instead of {KEY_BYTES}")
    return key


def _create_key(path: Path) -> None:
    """Write a new key beside `path` and link it there, so that two first runs at once end with one complete key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(secrets.token_bytes(KEY_BYTES))
        try:
            os.link(new, path)
        except FileExistsError:
            return  # another process was first: its key counts
    finally:
        new.unlink()


@dataclass(frozen=True)
class Pseudonyms:
    """Pseudonyms of one archive under one key.

    Identifiers are stripped of surrounding blanks and NULs (DICOM pads to even length); each kind has its own prefix
    inside the hash, so equal texts of different kinds give unrelated pseudonyms.
    """

    key: bytes = field(repr=False)

    def exam_id(self, study_uid: str) -> str:
        """Pseudonym of StudyInstanceUID."""
        return self._of("exam", study_uid)

    def subject_id(self, patient_id: str, issuer: str = "") -> str:
        """Pseudonym of PatientID together with IssuerOfPatientID."""
        return self._of("subject", patient_id, issuer)

    def subject_of_exam(self, study_uid: str) -> str:
        """Subject pseudonym for an exam without PatientID: such exams must not be joined into one person."""
        return self._of("subject-of-exam", study_uid)

    def series_id(self, series_uid: str) -> str:
        """Pseudonym of SeriesInstanceUID."""
        return self._of("series", series_uid)

    def instance_id(self, instance_uid: str) -> str:
        """Pseudonym of SOPInstanceUID."""
        return self._of("instance", instance_uid)

    def frame_of_reference_id(self, frame_of_reference_uid: str) -> str:
        """Pseudonym of FrameOfReferenceUID."""
        return self._of("frame-of-reference", frame_of_reference_uid)

    def accession_id(self, accession_number: str) -> str:
        """Pseudonym of AccessionNumber."""
        return self._of("accession", accession_number)

    def file_id(self, relative_path: str) -> str:
        """Pseudonym of a path below the archive root; names that are not UTF-8 are hashed by their bytes."""
        return self._digest(_FILE + os.fsencode(relative_path))

    def file_ids(self, relative_paths: Iterable[str]) -> npt.NDArray[np.bytes_]:
        """[n] `file_id` of many paths as ASCII bytes, several times faster than one by one."""
        digests = b"".join([self._mac(_FILE + os.fsencode(path)) for path in relative_paths])
        rows = np.frombuffer(digests, np.uint8).reshape(-1, hashlib.sha256().digest_size)
        blocks = [_base32(rows[k : k + _BLOCK_ROWS]) for k in range(0, len(rows), _BLOCK_ROWS)]
        return np.concatenate(blocks) if blocks else np.empty(0, f"S{PSEUDONYM_LENGTH}")

    def _of(self, kind: str, *identifiers: str) -> str:
        parts = [kind, *(identifier.strip(" \0\t\r\n") for identifier in identifiers)]
        return self._digest("\0".join(parts).encode(errors="surrogateescape"))

    def _digest(self, message: bytes) -> str:
        digest = self._mac(message)[:_ENCODED_BYTES]
        return base64.b32encode(digest).decode("ascii").lower()[:PSEUDONYM_LENGTH]

    def _mac(self, message: bytes) -> bytes:
        """HMAC-SHA256 of a message."""
        inner, outer = (state.copy() for state in _key_states(self.key))
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()


@lru_cache(maxsize=4)
def _key_states(key: bytes) -> tuple[hashlib._Hash, hashlib._Hash]:
    """Inner and outer hash after the key (RFC 2104, 4): kept, they save two thirds of the time of `hmac.digest`."""
    padded = (key if len(key) <= _BLOCK_BYTES else hashlib.sha256(key).digest()).ljust(_BLOCK_BYTES, b"\0")
    inner, outer = (hashlib.sha256(bytes(byte ^ pad for byte in padded)) for pad in (0x36, 0x5C))
    return inner, outer


def _base32(digests: npt.NDArray[np.uint8]) -> npt.NDArray[np.bytes_]:
    """[n] first characters of the base32 text of [n, bytes]."""
    bits = np.unpackbits(digests[:, :_ENCODED_BYTES], axis=1)[:, : 5 * PSEUDONYM_LENGTH]
    values = np.packbits(bits.reshape(-1, PSEUDONYM_LENGTH, 5), axis=2)[:, :, 0] >> 3
    found: npt.NDArray[np.bytes_] = _ALPHABET[values].view(f"S{PSEUDONYM_LENGTH}")[:, 0]
    return found
