"""List the files of an archive, several directories at once where the file system answers slowly."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from time import perf_counter
from typing import Final

FAST_LISTING_THREADS: Final = 2
"""Directories listed at once on a local disk. More would only fight for Python's interpreter lock: of a million files
in memory one thread lists 230,000 a second, two 250,000, eight 100,000."""
SLOW_LISTING_THREADS: Final = 16
"""On a file server, where threads wait."""
SLOW_ENTRY_S: Final = 1e-4
"""Mean time of one entry that tells a file server from a local disk, where it takes 5 microseconds."""
JUDGED_ENTRIES: Final = 1000
"""Entries before the file system is judged."""

FoundFile = tuple[str, int, int]
"""(path relative to the root, size in bytes, modification time in ns since 1970)."""
Identity = tuple[int, int]
"""Device and inode of a directory, the same by whatever path it is reached."""


@dataclass
class _Contents:
    """Entries of one directory, by paths relative to the root."""

    identity: Identity | None = None
    files: list[FoundFile] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    """Links to directories."""
    n_entries: int = 0
    seconds: float = 0.0


def list_files(root: os.PathLike[str] | str) -> Iterator[FoundFile]:
    """List every file below `root`, in no particular order.

    Directories come before links to them, and links in the order of their paths: each directory is listed under one
    path, the same in every run, and loops end. A directory that cannot be listed and an entry that cannot be examined
    are listed themselves with size and time 0: `read_file_rows` makes a row of them.
    """
    seen: set[Identity] = set()
    with ThreadPoolExecutor(SLOW_LISTING_THREADS) as pool:
        links: list[str] = []
        yield from _tree(pool, os.fspath(root), "", seen, links, linked=False)
        while links:
            waiting, links = sorted(links), []
            for link in waiting:
                yield from _tree(pool, os.fspath(root), link, seen, links, linked=True)


def _tree(
    pool: ThreadPoolExecutor, root: str, top: str, seen: set[Identity], links: list[str], *, linked: bool
) -> Iterator[FoundFile]:
    """Files of a directory and of all below it, and to `links` those to directories.

    Behind a link, directories that were seen are left out. Real ones below the root cannot be met twice, and file
    systems exist that give several the same identity.
    """
    done: SimpleQueue[Future[_Contents]] = SimpleQueue()
    waiting, n_listing, n_at_once = [top], 0, FAST_LISTING_THREADS
    n_entries, seconds = 0, 0.0
    while waiting or n_listing:
        while waiting and n_listing < n_at_once:
            pool.submit(_contents, root, waiting.pop()).add_done_callback(done.put)
            n_listing += 1
        contents = done.get().result()
        n_listing -= 1
        n_entries, seconds = n_entries + contents.n_entries, seconds + contents.seconds
        if n_entries > JUDGED_ENTRIES and seconds / n_entries > SLOW_ENTRY_S:
            n_at_once = SLOW_LISTING_THREADS
        if linked and contents.identity in seen:
            continue
        if contents.identity is not None:
            seen.add(contents.identity)
        yield from contents.files
        links += contents.links
        waiting += contents.directories


def _contents(root: str, relative: str) -> _Contents:
    found, started = _Contents(), perf_counter()
    try:
        path = os.path.join(root, relative)
        status = os.stat(path)
        found.identity = (status.st_dev, status.st_ino)
        with os.scandir(path) as entries:
            for entry in entries:
                _add(found, entry, f"{relative}/{entry.name}" if relative else entry.name)
    except OSError:
        found.files.append((relative or ".", 0, 0))
    found.n_entries = len(found.files) + len(found.directories) + len(found.links)
    found.seconds = perf_counter() - started
    return found


def _add(found: _Contents, entry: os.DirEntry[str], path: str) -> None:
    try:
        if entry.is_dir(follow_symlinks=False):
            found.directories.append(path)
        elif entry.is_symlink() and entry.is_dir():
            found.links.append(path)
        else:
            status = entry.stat()
            found.files.append((path, status.st_size, status.st_mtime_ns))
    except OSError:
        found.files.append((path, 0, 0))
