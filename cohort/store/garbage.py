"""What lies in a store and nothing points to any more."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cohort.store.publish import TEMPORARY_PREFIX

DAY_S: Final = 86_400.0
_RESULT: Final = re.compile(r"(exam|labels|measure)-[0-9a-f]{12}\.(zarr|json)")
"""Only files of this form are results; whatever else somebody put there stays."""
_MODEL: Final = re.compile(r"(partial-)?(male|female)-[0-9a-f]{12}\.osim")


@dataclass(frozen=True)
class Garbage:
    """Something that may go."""

    kind: str
    """result, gone exam, picture, temporary or base model."""
    path: Path
    size_bytes: int


@dataclass(frozen=True)
class Grace:
    """How long things stay that nothing points to (own choices)."""

    result_s: float = DAY_S
    """Results and leftovers: nothing of one exam takes a day, so no run is still at work on them."""
    gone_s: float = 30 * DAY_S
    """Everything of exams that left the archive, and base models: a disk that was not mounted for a night, or a
    configuration that comes back, costs no second conversion."""


def find_garbage(
    store: Path,
    *,
    referenced: Collection[str],
    exams: Collection[str],
    gone_since: Mapping[str, float],
    grace: Grace = Grace(),
    now: float | None = None,
) -> list[Garbage]:
    """What may be removed; nothing is.

    Parameters
    ----------
    referenced : paths relative to STORE that a ledger points to
    exams : exams of the archive, which keep their pictures
    gone_since : exam that left the archive -> when that was noticed, seconds since 1970
    now : seconds since 1970
    """
    now = time.time() if now is None else now
    found = [*_results(store, referenced, gone_since, grace, now), *_temporary(store, grace, now)]
    found += [*_pictures(store, exams, gone_since, grace, now), *_models(store, grace, now)]
    return found


def remove_garbage(garbage: Collection[Garbage]) -> None:
    """Remove what was found, and folders of exams that are empty then."""
    for one in garbage:
        if one.path.is_dir() and not one.path.is_symlink():
            shutil.rmtree(one.path)
        else:
            one.path.unlink(missing_ok=True)
        with suppress(OSError):  # folders of exams that are empty now; those that are not stay
            one.path.parent.rmdir()
            one.path.parent.parent.rmdir()


def _results(
    store: Path, referenced: Collection[str], gone_since: Mapping[str, float], grace: Grace, now: float
) -> Iterator[Garbage]:
    kept = set(referenced)
    for path in sorted((store / "exams").glob("*/*/*")):
        if not _RESULT.fullmatch(path.name) or str(path.relative_to(store)) in kept:
            continue
        left = gone_since.get(path.parent.name)
        if left is None and now - path.stat().st_mtime >= grace.result_s:
            yield Garbage("result", path, _size(path))
        elif left is not None and now - left >= grace.gone_s:
            yield Garbage("gone exam", path, _size(path))


def _pictures(
    store: Path, exams: Collection[str], gone_since: Mapping[str, float], grace: Grace, now: float
) -> Iterator[Garbage]:
    for folder in sorted((store / "review").glob("*/*")):
        since = gone_since.get(folder.name, folder.stat().st_mtime)
        if folder.name not in exams and now - since >= grace.gone_s:
            yield Garbage("picture", folder, _size(folder))


def _temporary(store: Path, grace: Grace, now: float) -> Iterator[Garbage]:
    places = ("exams/*/*", "review/*/*", "annotations/*/*", "tables", "candidate/tables")
    for place in places:
        for path in sorted(store.glob(f"{place}/{TEMPORARY_PREFIX}*")):
            if now - path.stat().st_mtime >= grace.result_s:
                yield Garbage("temporary", path, _size(path))


def _models(store: Path, grace: Grace, now: float) -> Iterator[Garbage]:
    """Base models that are old and not the newest of their sex; a run that wants one again builds it in seconds."""
    newest: dict[str, Path] = {}
    models = [path for path in (store / "models").glob("*.osim") if _MODEL.fullmatch(path.name)]
    for path in sorted(models, key=lambda path: path.stat().st_mtime):
        newest[path.name.partition("-")[0]] = path
    for path in sorted(models):
        if (path not in newest.values() or path.name.startswith("partial-")) and (
            now - path.stat().st_mtime >= grace.gone_s
        ):
            yield Garbage("base model", path, path.stat().st_size)


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
