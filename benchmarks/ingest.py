"""Exams per second from DICOM to stores: this library beside dcm2niix and dicom2nifti, in one run on the same cores.

python benchmarks/ingest.py [--exams 20] [--json]

Every exam holds 15 sagittal slices and five oblique axial stacks of five, all of 512 x 512 pixels that compress like
clinical ones. This library scans, selects, hashes, converts and publishes with the functions of `cohort run`, in as
many processes as there are cores (concurrent.futures; a Dask cluster would add its scheduler and nothing else). Its
processes are started and have imported before the clock runs, as in a run over a whole archive. Rivals run once over
the whole tree, and once per exam with as many at a time as there are cores; their better way counts. The files are in
the page cache, tools take turns, the best of three counts.

The same tools then convert the geometry suite (docs/geometry-suite.md).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import subprocess
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from cluster.resources import available_cores
from cohort.archive.pseudonym import Pseudonyms, load_or_create_key
from cohort.loading.assumptions import Assumptions
from cohort.rows import FileRow
from cohort.store.exam import read_exam
from models.geometry_suite.check import CaseResult, check_nifti
from models.geometry_suite.classic import MarkedSlice
from models.geometry_suite.plane import AXIAL, SAGITTAL, ImagePlane, stack
from models.geometry_suite.study import Study
from models.geometry_suite.suite import write_suite
from models.geometry_suite.truth import Truth
from pipelines.convert import ConvertTask, convert, image_sources
from pipelines.convert_suite import check_library
from pipelines.exams import Artefacts, Exam, ExamPlan, group_exams, plan_exam
from pipelines.index import FileIndex, list_archive, read_headers
from pipelines.outcome import Outcome, WorkItem, each
from pipelines.scan import SCAN_STAGES, HashTask, file_rows, scan_items
from pipelines.window import Finished, Stage, finished_batch, run_batch, run_window

REPETITIONS: Final = 3
MATRIX: Final = 512
ACQUIRED: Final = 256
"""Matrix before zero filling; clinical images are interpolated like this."""
PIXEL_STEP: Final = 8
"""Intensities are multiples, as in exports scaled from 8 to 12 bits; deflate then gives 2.8, on a clinical exam 3.0."""
SLICES_PER_EXAM: Final = 15 + 5 * 5

Pixels = npt.NDArray[np.uint16]


# -- the archive -------------------------------------------------------------------------------------------------------


def write_archive(root: Path, n_exams: int) -> float:
    """Write exams below `root`; returns how much deflate makes of their pixels (times smaller)."""
    rng = np.random.default_rng(0)
    pool = [mri_like(rng) for _ in range(SLICES_PER_EXAM)]
    sagittal = stack(SAGITTAL, n=15, shape=(MATRIX, MATRIX), spacing_mm=(0.586, 0.586))
    axial = [
        stack(AXIAL.turned(tilt), n=5, centre_mm=(0, 0, 70 - 35 * k), shape=(MATRIX, MATRIX), spacing_mm=(0.391, 0.391))
        for k, tilt in enumerate((-12.0, -4.0, 3.0, 12.0, 31.0))
    ]
    for exam in range(n_exams):
        images = iter([np.roll(image, exam, axis=1) for image in pool])
        study = Study(root, f"exam{exam:03d}", seed=0)
        study.classic(_with_images(sagittal, images), series=1, SeriesDescription="T1 TSE SAG")
        stacks = [_with_images(planes, images) for planes in axial]
        study.classic(*stacks, series=2, SeriesDescription="T1 TSE TRA")
    raw = b"".join(image.tobytes() for image in pool[:4])
    return len(raw) / len(zlib.compress(raw))


def _with_images(planes: Sequence[ImagePlane], images: Iterator[Pixels]) -> list[MarkedSlice]:
    return [MarkedSlice(plane, next(images), (), {}) for plane in planes]


def mri_like(rng: np.random.Generator) -> Pixels:
    """[512, 512]: tissues of five intensities within a body, a surface coil, Rician noise, zero-filled k-space."""
    texture = gaussian_filter(rng.normal(size=(ACQUIRED, ACQUIRED)), 5)
    tissue = np.array([0.05, 0.25, 0.4, 0.7, 1.0])[np.digitize(texture / texture.std(), [-1.2, -0.4, 0.4, 1.2])]
    y, x = np.mgrid[-1 : 1 : ACQUIRED * 1j, -1 : 1 : ACQUIRED * 1j]
    signal = tissue * ((x / 0.75) ** 2 + (y / 0.95) ** 2 < 1) * np.exp(-1.5 * (x + 0.75))
    noise = rng.normal(scale=0.01, size=(2, ACQUIRED, ACQUIRED))
    k_space = np.fft.fftshift(np.fft.fft2(signal + noise[0] + 1j * noise[1]))
    image = np.abs(np.fft.ifft2(np.fft.ifftshift(np.pad(k_space, (MATRIX - ACQUIRED) // 2))))
    levels = np.round(image / np.percentile(image, 99.9) * (1600 // PIXEL_STEP))
    return np.asarray(np.minimum(levels, 4095 // PIXEL_STEP) * PIXEL_STEP, dtype=np.uint16)


# -- tools -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """One way to run one tool over an archive whose folders are exams."""

    tool: str
    how: str
    run: Callable[[Path, Path], None]
    """(archive, empty output folder)."""
    n_slices: Callable[[Path], int]
    """Slices in an output folder."""


def dcm2niix_ways(cores: int) -> list[Way]:
    """Without and with compression, each over the tree and per exam."""
    program = str(import_module("dcm2niix").bin)

    def convert(flags: tuple[str, ...], source: Path, output: Path) -> None:
        command = [program, *flags, "-b", "n", "-f", "%i_%s_%p", "-o", str(output), str(source)]
        subprocess.run(command, check=False, capture_output=True)  # it exits with 1 where it skipped a file

    def per_exam(flags: tuple[str, ...], archive: Path, output: Path) -> None:
        with ThreadPoolExecutor(cores) as threads:
            list(threads.map(lambda source: convert(flags, source, _made(output / source.name)), archive.iterdir()))

    ways = []
    for flags in (("-z", "n"), ("-z", "y")):
        tool = f"dcm2niix {' '.join(flags)}"
        ways.append(Way(tool, "one call", partial(convert, flags), nifti_slices))
        ways.append(Way(tool, f"per exam, {cores} at a time", partial(per_exam, flags), nifti_slices))
    return ways


def dicom2nifti_ways(pool: Executor, cores: int) -> list[Way]:
    """Without compression, per exam; it has no faster way."""

    def per_exam(archive: Path, output: Path) -> None:
        sources = sorted(archive.iterdir())
        list(pool.map(_dicom2nifti, sources, [_made(output / source.name) for source in sources]))

    return [Way("dicom2nifti", f"per exam, {cores} at a time", per_exam, nifti_slices)]


def _dicom2nifti(source: Path, output: Path) -> None:
    logging.disable(logging.CRITICAL)
    # Whatever it raises, what it did not convert counts as lost.
    with warnings.catch_warnings(), _quiet_output(), suppress(Exception):
        warnings.simplefilter("ignore")
        import_module("dicom2nifti").convert_directory(str(source), str(output), compression=False)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def nifti_slices(output: Path) -> int:
    """Slices of all NIfTI images below a folder."""
    nibabel = import_module("nibabel")
    return sum(int(np.prod(nibabel.load(path).shape)) for path in output.rglob("*.nii*")) // MATRIX**2


@contextmanager
def _quiet_output() -> Iterator[None]:
    """dicom2nifti prints the traceback of every series that it refuses."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def missing_rivals() -> list[str]:
    """Rivals that are not installed."""
    return [name for name in ("dcm2niix", "dicom2nifti", "nibabel") if find_spec(name) is None]


# -- this library ------------------------------------------------------------------------------------------------------


class PoolExecutor:
    """`pipelines.window.Executor` on a pool of processes."""

    def __init__(self, pool: ProcessPoolExecutor, cores: int) -> None:
        self._pool, self._cores = pool, cores
        self._flying: dict[Future[Any], tuple[Stage, tuple[WorkItem, ...]]] = {}

    def slots(self, resource: str) -> int:
        """One for each process."""
        return self._cores

    def submit(self, stage: Stage, items: tuple[WorkItem, ...]) -> None:
        """Send a batch to the pool."""
        future = self._pool.submit(run_batch, stage, items, worker="pool")
        self._flying[future] = (stage, items)

    def wait(self) -> Finished:
        """Wait for any batch."""
        done = next(iter(wait(self._flying, return_when=FIRST_COMPLETED).done))
        return finished_batch(*self._flying.pop(done), 0.0, done.result())

    def cancel(self) -> None:
        """Forget what was submitted."""
        self._flying.clear()


def ours(pool: ProcessPoolExecutor, cores: int, key_file: Path) -> Way:
    """Scan, select, hash, convert, publish: the stages of `cohort run` up to the exam store, without its tables."""
    return Way(
        "this library", f"{cores} processes", partial(_ingest, PoolExecutor(pool, cores), key_file), store_slices
    )


def _ingest(executor: PoolExecutor, key_file: Path, archive: Path, output: Path) -> None:
    pseudonyms = Pseudonyms(load_or_create_key(key_file))
    listing = list_archive(archive, pseudonyms)
    items = scan_items(archive, key_file, listing.files(np.arange(len(listing.relative))))
    rows: list[FileRow] = []
    read_headers(items, executor, pseudonyms, rows.extend)
    index = FileIndex(output, listing, len(rows))
    exams = _hashed(executor, archive, index, group_exams(rows, None))
    artefacts = Artefacts({}, {"F": "", "M": ""}, (), Assumptions())
    tasks = [_convert_item(exam, plan_exam(exam, artefacts), index, archive, key_file, output) for exam in exams]
    stage = Stage("convert", "CPU", partial(each, convert))
    run_window(tasks, (stage,), executor=executor, on_outcome=_require_success)


def _hashed(executor: PoolExecutor, archive: Path, index: FileIndex, exams: Sequence[Exam]) -> list[Exam]:
    """Exams with the hashes of their chosen files, as `pipelines.wanted.refresh_wanted` adds them."""
    items = [
        WorkItem(
            exam.exam_id, "hash", "", HashTask(archive, tuple((index.source_of(row), (row,)) for row in exam.chosen))
        )
        for exam in exams
    ]
    hashes: dict[str, str | None] = {}

    def on_outcome(outcome: Outcome) -> tuple[WorkItem, ...]:
        hashes.update({row.file_id: row.content_sha256 for row in file_rows(outcome)})
        return _require_success(outcome)

    run_window(items, SCAN_STAGES, executor=executor, on_outcome=on_outcome)

    def updated(rows: Sequence[FileRow]) -> tuple[FileRow, ...]:
        return tuple(replace(row, content_sha256=hashes[row.file_id]) for row in rows)

    return [replace(exam, sagittal=updated(exam.sagittal), axial=updated(exam.axial)) for exam in exams]


def _convert_item(exam: Exam, plan: ExamPlan, index: FileIndex, archive: Path, key_file: Path, store: Path) -> WorkItem:
    task = ConvertTask(
        store=store,
        archive=archive,
        key_file=key_file,
        sagittal=image_sources(exam.sagittal, index.source_of),
        axial=image_sources(exam.axial, index.source_of),
        attributes={"subject_id": exam.subject_id, "vendor": exam.vendor, "field_t": exam.field_t},
    )
    return WorkItem(exam.exam_id, "convert", plan.fingerprints["convert"], task)


def _require_success(outcome: Outcome) -> tuple[WorkItem, ...]:
    if outcome.status != "ok":
        raise RuntimeError(f"{outcome.stage} of an exam of the benchmark ended as {outcome.status}: {outcome.reason}")
    return ()


def store_slices(output: Path) -> int:
    """Slices of all published stores."""
    return sum(stack.geometry.n_slices for path in output.rglob("exam-*.zarr") for stack in read_exam(path).stacks)


# -- measurement -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timing:
    """The best time of one way."""

    way: Way
    exams_per_s: float
    n_slices: int
    """Slices that came out, of all exams."""


def time_ways(ways: Sequence[Way], archive: Path, work: Path, n_exams: int) -> list[Timing]:
    """Run every way `REPETITIONS` times, in alternating order."""
    for path in archive.rglob("*"):
        if path.is_file():
            path.read_bytes()  # into the page cache
    seconds: dict[Way, list[float]] = {way: [] for way in ways}
    n_slices: dict[Way, int] = {}
    for repetition in range(REPETITIONS):
        for way in ways if repetition % 2 == 0 else ways[::-1]:
            output = _made(work / "output")
            started = time.perf_counter()
            way.run(archive, output)
            seconds[way].append(time.perf_counter() - started)
            n_slices[way] = way.n_slices(output)
            shutil.rmtree(output)
    return [Timing(way, n_exams / min(seconds[way]), n_slices[way]) for way in ways]


def suite_results(ways: Sequence[Way], truth: Truth, suite: Path, work: Path) -> dict[str, list[CaseResult]]:
    """Convert the geometry suite with the per-exam way of each rival, and compare with the truth."""
    results = {}
    for way in ways:
        if way.how.startswith("per exam") and way.tool != "dcm2niix -z y":
            output = _made(work / "suite-output")
            way.run(suite / "dicom", output)
            results[way.tool] = check_nifti(truth, output)
            shutil.rmtree(output)
    return results


def measure(n_exams: int) -> dict[str, Any]:
    """Write the archive and the suite, run every tool, and gather what it did."""
    cores = available_cores()
    missing = missing_rivals()
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(cores) as pool:
        work = Path(folder)
        list(pool.map(_warm_up, range(4 * cores)))
        ways = [ours(pool, cores, work / "key")]
        if "nibabel" not in missing:
            ways += dcm2niix_ways(cores) if "dcm2niix" not in missing else []
            ways += dicom2nifti_ways(pool, cores) if "dicom2nifti" not in missing else []
        deflated = write_archive(work / "archive", n_exams)
        timings = time_ways(ways, work / "archive", work, n_exams)
        truth = write_suite(work / "suite")
        results = {"this library": check_library(work / "suite" / "dicom", truth)}
        results |= suite_results(ways[1:], truth, work / "suite", work)
    return summary(n_exams, cores, deflated, timings, results) | {"missing_rivals": missing}


def _warm_up(_: int) -> None:
    """The pool has imported this module by now; a moment more, so that every process gets one of these."""
    time.sleep(0.05)


def summary(
    n_exams: int, cores: int, deflated: float, timings: Sequence[Timing], results: dict[str, list[CaseResult]]
) -> dict[str, Any]:
    """One object of plain values; of each tool the faster way counts."""
    best: dict[str, float] = {}
    for timing in timings:
        best[timing.way.tool] = max(best.get(timing.way.tool, 0.0), timing.exams_per_s)
    mine = best["this library"]
    ratios = {tool: mine / speed for tool, speed in best.items() if tool != "this library"}
    return {
        "exams": n_exams,
        "cores": cores,
        "slices": n_exams * SLICES_PER_EXAM,
        "deflate_ratio": deflated,
        "exams_per_s": mine,
        "ratio_to_dcm2niix_nz": ratios.get("dcm2niix -z n"),
        "ratio_to_dcm2niix_gz": ratios.get("dcm2niix -z y"),
        "ratio_to_dicom2nifti": ratios.get("dicom2nifti"),
        "max_geometry_error_mm": max(one.max_error_mm for one in results["this library"]),
        "timings": [
            {"tool": one.way.tool, "how": one.way.how, "exams_per_s": one.exams_per_s, "slices": one.n_slices}
            for one in timings
        ],
        "geometry": {tool: suite_summary(cases) for tool, cases in results.items()},
    }


def suite_summary(cases: Sequence[CaseResult]) -> dict[str, Any]:
    """Sums over the suite, and the cases that are not exact."""
    return {
        "cases": len(cases),
        "exact": sum(one.is_exact for one in cases),
        "max_error_mm": max(one.max_error_mm for one in cases),
        "markers": sum(one.n_markers for one in cases),
        **{
            name: sum(getattr(one, f"n_{name}") for one in cases)
            for name in ("misplaced", "lost", "doubled", "invented")
        },
        "not_exact": [asdict(one) for one in cases if not one.is_exact],
    }


def print_tables(found: dict[str, Any]) -> None:
    """The same for people, in Markdown."""
    print(
        f"{found['exams']} exams of {SLICES_PER_EXAM} slices 512 x 512, {found['cores']} cores, best of {REPETITIONS};"
    )
    print(f"deflate makes the pixels {found['deflate_ratio']:.1f} times smaller\n")
    print("| tool | how | exams/s | this library is | slices converted |\n|---|---|---|---|---|")
    for one in found["timings"]:
        ratio = found["exams_per_s"] / one["exams_per_s"]
        print(
            f"| {one['tool']} | {one['how']} | {one['exams_per_s']:.2f} | {ratio:.2f} x as fast |"
            f" {one['slices']} of {found['slices']} |"
        )
    print("\n| tool | cases exact | largest error, mm | markers misplaced | lost | doubled | invented |")
    print("|---|---|---|---|---|---|---|")
    for tool, sums in found["geometry"].items():
        print(
            f"| {tool} | {sums['exact']} of {sums['cases']} | {sums['max_error_mm']:.4f} |"
            f" {sums['misplaced']} of {sums['markers']} | {sums['lost']} | {sums['doubled']} | {sums['invented']} |"
        )
    for tool, sums in found["geometry"].items():
        print(f"\nNot exact, {tool}: " + ", ".join(one["name"] for one in sums["not_exact"]))
    if found["missing_rivals"]:
        print(f"\nNot compared; to compare: pip install {' '.join(found['missing_rivals'])}")


def main() -> None:
    """Print tables, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exams", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.exams)
    print(json.dumps(found)) if options.json else print_tables(found)


if __name__ == "__main__":
    main()
