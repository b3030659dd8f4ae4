"""Pseudonyms: keyed hashes that stand for DICOM identifiers in every table and store.

HMAC-SHA256 (RFC 2104) under a secret key, cut to 130 bits and written in base32 (RFC 4648): without the key, neither a
list of all possible patient numbers nor a known identifier leads from or to a pseudonym.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cohort.errors import ConfigurationError

KEY_BYTES: Final = 32
PSEUDONYM_LENGTH: Final = 26
"""Characters of a pseudonym: 26 x 5 = 130 bits."""


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
        return self._digest(b"file\0" + os.fsencode(relative_path))

    def _of(self, kind: str, *identifiers: str) -> str:
        parts = [kind, *(identifier.strip(" \0\t\r\n") for identifier in identifiers)]
        return self._digest("\0".join(parts).encode(errors="surrogateescape"))

    def _digest(self, message: bytes) -> str:
        digest = hmac.new(self.key, message, hashlib.sha256).digest()
        return base64.b32encode(digest).decode("ascii").lower()[:PSEUDONYM_LENGTH]
