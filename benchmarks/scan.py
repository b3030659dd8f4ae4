"""Headers per second beside bare pydicom, and seconds to find that a large archive has not changed, in one run.

python benchmarks/scan.py [--headers 4000] [--files 1000000] [--json]

Headers are those of a phantom's exam (small, single-frame), read again and again from the page cache by one process.
`pydicom.dcmread(stop_before_pixels, specific_tags)` reads the same attributes and does nothing with them; the two take
turns, the best of three counts. The large archive is empty files in directories of a thousand; what is timed is what
`cohort run` does with it when nothing has changed: listing, reading the columns of the index, comparing.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
from pydicom import dcmread

from cohort.archive.listing import FoundFile, list_files
from cohort.archive.parse import IMAGE_TAGS
from cohort.archive.pseudonym import Pseudonyms
from cohort.archive.scan import read_file_rows
from cohort.tables.buckets import bucket_files, create_tables
from cohort.tables.schema import arrow_schema
from models.phantom.dicom import write_exam
from models.phantom.exam import ExamPlan, make_exam
from pipelines.index import COMPARED, Listing, compare, index_columns, list_archive

PSEUDONYMS: Final = Pseudonyms(bytes(32))
REPETITIONS: Final = 3
FILES_PER_DIRECTORY: Final = 1000


def best_seconds(*tools: Callable[[], None]) -> list[float]:
    """Least time of each tool; they take turns, so that a busy moment of the machine does not hit one alone."""
    found = [float("inf")] * len(tools)
    for _ in range(REPETITIONS):
        for k, tool in enumerate(tools):
            started = time.perf_counter()
            tool()
            found[k] = min(found[k], time.perf_counter() - started)
    return found


def headers(folder: Path, n: int) -> dict[str, float]:
    """Headers per second of this library and of bare pydicom."""
    exam = make_exam(ExamPlan(1, "F", 44, 1.64, 61.0, "per_disc", 7))
    write_exam(folder, exam, patient_name="Phantom", patient_id="1")
    files: list[FoundFile] = list(islice(cycle(list_files(folder)), n))

    def ours() -> None:
        for file in files:
            read_file_rows(folder, *file, PSEUDONYMS)

    def bare() -> None:
        for path, _, _ in files:
            dcmread(folder / path, stop_before_pixels=True, force=True, specific_tags=IMAGE_TAGS)

    ours_s, bare_s = best_seconds(ours, bare)
    return {"headers_per_s": n / ours_s, "pydicom_headers_per_s": n / bare_s, "ratio": bare_s / ours_s}


def make_archive(folder: Path, n: int) -> None:
    """Empty files."""
    for k in range(n):
        directory = folder / f"exam{k // FILES_PER_DIRECTORY:06d}" / "series"
        if k % FILES_PER_DIRECTORY == 0:
            directory.mkdir(parents=True)
        os.close(os.open(directory / f"IM{k:08d}.dcm", os.O_CREAT | os.O_WRONLY))


def write_index(store: Path, listing: Listing) -> None:
    """File index of an archive of which nothing is known but names, sizes and times."""
    create_tables(store)
    schema, n = arrow_schema("files"), len(listing.relative)
    known = {
        "file_id": pa.array(listing.file_ids).cast(pa.string()),
        "size_bytes": pa.array(listing.size_bytes),
        "mtime_ns": pa.array(listing.mtime_ns),
    }
    columns = [known.get(field.name, pa.nulls(n, field.type)) for field in schema]
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), bucket_files(store, "files")[0], compression="zstd")


def rescan(folder: Path, n: int) -> dict[str, float]:
    """Seconds for an unchanged archive: listing, and reading and comparing the index."""
    archive, store = folder / "archive", folder / "store"
    make_archive(archive, n)
    write_index(store, list_archive(archive, PSEUDONYMS))
    started = time.perf_counter()
    listing = list_archive(archive, PSEUDONYMS)
    listed = time.perf_counter()
    changes = compare(listing, index_columns(store, *COMPARED))
    ended = time.perf_counter()
    if len(changes.to_read) or changes.outdated:
        raise RuntimeError("an unchanged archive seems to have changed")
    return {
        "files": n,
        "listing_s": listed - started,
        "comparing_s": ended - listed,
        "s_per_million_files": (ended - started) * 1e6 / n,
    }


def main() -> None:
    """Print a table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--headers", type=int, default=4000)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = headers(Path(folder) / "headers", options.headers) | rescan(Path(folder), options.files)
    if options.json:
        print(json.dumps(found))
        return
    print(f"headers to rows    {found['headers_per_s']:8.0f} per second and core ({options.headers} headers)")
    print(f"bare pydicom       {found['pydicom_headers_per_s']:8.0f} per second and core")
    print(f"ratio              {found['ratio']:8.2f}")
    print(f"listing, hashing   {found['listing_s']:8.2f} s ({options.files} unchanged files)")
    print(f"comparing          {found['comparing_s']:8.2f} s")
    print(f"per million files  {found['s_per_million_files']:8.2f} s")


if __name__ == "__main__":
    main()
