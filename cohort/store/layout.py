"""Where things lie below STORE. Every name is made of pseudonyms and fingerprints."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

from cohort.errors import ConfigurationError

FINGERPRINT_CHARACTERS: Final = 12
"""Hexadecimal characters of a fingerprint in a file name: 48 bits, for the few results of one exam."""

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_EXAM_ID: Final = re.compile(r"[a-z2-7]{4,}")
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{12,}")


def store_path(text: str) -> Path:
    """Folder of a store that is named by a path or by a file:// URL.

    Raises
    ------
    ConfigurationError
        for other URLs: a result is published by renaming a folder, which is one step on a file system and does not
        exist in object stores
    """
    scheme = _SCHEME.match(text)
    if scheme is None:
        return Path(text)
    if scheme[1].lower() != "file":
        raise ConfigurationError(
            f"the store is a folder or a file:// URL, not {scheme[1]}://: results appear by one rename of a folder, "
            "which object stores do not have"
        )
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment or not parts.path:
        raise ConfigurationError("a store's URL is file:///path: three slashes, and ? and # written as %3F and %23")
    return Path(url2pathname(parts.path))


def exam_directory(store: Path, exam_id: str) -> Path:
    """STORE/exams/<first two characters>/<exam_id>: all results of one exam."""
    return store / "exams" / _prefix(exam_id) / exam_id


def exam_store_path(store: Path, exam_id: str, fingerprint: str) -> Path:
    """Zarr store with the images of one exam."""
    return exam_directory(store, exam_id) / f"exam-{_short(fingerprint)}.zarr"


def label_store_path(store: Path, exam_id: str, fingerprint: str) -> Path:
    """Zarr store with the masks of one exam."""
    return exam_directory(store, exam_id) / f"labels-{_short(fingerprint)}.zarr"


def measure_path(store: Path, exam_id: str, fingerprint: str) -> Path:
    """Measured rows of one exam."""
    return exam_directory(store, exam_id) / f"measure-{_short(fingerprint)}.json"


def review_directory(store: Path, exam_id: str) -> Path:
    """STORE/review/<first two characters>/<exam_id>: overlays and corrections of one exam."""
    return store / "review" / _prefix(exam_id) / exam_id


def annotation_directory(store: Path, exam_id: str) -> Path:
    """STORE/annotations/<first two characters>/<exam_id>: what readers drew on one exam, a Zarr store each."""
    return store / "annotations" / _prefix(exam_id) / exam_id


def candidate_path(store: Path) -> Path:
    """STORE/candidate: numbers of a changed model that wait for acceptance, laid out like a store; it may be absent."""
    return store / "candidate"


def _prefix(exam_id: str) -> str:
    if not _EXAM_ID.fullmatch(exam_id):
        raise ValueError("an exam is named by its pseudonym: lower-case base32")
    return exam_id[:2]


def _short(fingerprint: str) -> str:
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise ValueError(f"a fingerprint has at least {FINGERPRINT_CHARACTERS} lower-case hexadecimal characters")
    return fingerprint[:FINGERPRINT_CHARACTERS]
