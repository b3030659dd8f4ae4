"""Compare what a converter made of the suite with its truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cohort.errors import ConfigurationError
from models.geometry_suite.truth import Case, Marker, Truth

TOLERANCE_MM: Final = 0.01
"""Error up to which a place counts as exact; affines in single precision stay far below it."""
RAS_TO_LPS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])
"""NIfTI counts x to the patient's right and y to anterior as negative, DICOM as positive."""


@dataclass(frozen=True, eq=False)
class Volume:
    """One volume that a converter made."""

    values: npt.NDArray[Any]
    """[i, j, k, ...]; axes after the third are echoes, times and such."""
    to_lps: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
    """Maps voxel indices [n, 3] to LPS mm [n, 3]."""


@dataclass(frozen=True)
class CaseResult:
    """How one case came out."""

    name: str
    n_markers: int
    """That must come out."""
    max_error_mm: float
    """Largest distance of a marker from its true place; 0 if none was found."""
    n_misplaced: int
    """Markers further off than TOLERANCE_MM."""
    n_lost: int
    """Markers that are in no volume."""
    n_doubled: int
    """Markers that are in more than one voxel of all volumes."""
    n_invented: int
    """Markers of refused files that no place follows for, but that are in a volume."""

    @property
    def is_exact(self) -> bool:
        return not (self.n_misplaced or self.n_lost or self.n_doubled or self.n_invented)


def check_case(case: Case, volumes: Iterable[Volume]) -> CaseResult:
    """Find every marker of a case by its value and compare its place with the true one."""
    found = [hit for volume in volumes for hit in _find(case, volume)]
    places = {marker.value: marker.lps_mm for marker in _all_markers(case)}
    errors: dict[int, float] = {}
    for value, place in found:
        true = places[value]
        if true is not None:
            errors[value] = max(errors.get(value, 0.0), float(np.linalg.norm(place - np.array(true))))
    n_found = Counter(value for value, _ in found)
    required = {marker.value for marker in case.markers}
    return CaseResult(
        name=case.name,
        n_markers=len(required),
        max_error_mm=max(errors.values(), default=0.0),
        n_misplaced=sum(error > TOLERANCE_MM for error in errors.values()),
        n_lost=sum(not n_found[value] for value in required),
        n_doubled=sum(n > 1 for n in n_found.values()),
        n_invented=sum(places[value] is None for value in n_found),
    )


def _all_markers(case: Case) -> Iterator[Marker]:
    yield from case.markers
    for refused in case.refused:
        yield from refused.markers


def _find(case: Case, volume: Volume) -> list[tuple[int, npt.NDArray[np.float64]]]:
    """(value, place) of every voxel that holds the value of a marker.

    A converter may keep stored values or apply the rescale, and may add an offset to make values positive; of these
    readings, the one that finds most markers counts for the whole volume.
    """
    values = np.asarray(volume.values, dtype=np.float64)
    if values.ndim < 3 or not values.size:
        return []
    levels, counts = np.unique(np.rint(values), return_counts=True)
    background = levels[np.argmax(counts)]
    best: list[tuple[int, npt.NDArray[np.intp]]] = []
    for reading in _readings(case):
        hits = _hits(values, {background + signal: value for signal, value in reading.items()})
        best = max(best, hits, key=len)
    if not best:
        return []
    places = volume.to_lps(np.array([index[:3] for _, index in best], dtype=np.float64))
    return [(value, place) for (value, _), place in zip(best, places, strict=True)]


def _readings(case: Case) -> Iterator[dict[float, int]]:
    """Signal over the background -> value of the marker, for each way to keep intensities without loss."""
    markers = list(_all_markers(case))
    yield {marker.value - case.background: marker.value for marker in markers}
    if case.stored_background is None:
        return
    stored: dict[float, int] = {m.stored - case.stored_background: m.value for m in markers if m.stored is not None}
    yield stored
    if case.inverted:
        yield {-signal: value for signal, value in stored.items()}


def _hits(values: npt.NDArray[np.float64], wanted: dict[float, int]) -> list[tuple[int, npt.NDArray[np.intp]]]:
    whole = np.rint(values)
    indices = np.argwhere(np.isin(whole, list(wanted)))
    return [(wanted[float(whole[tuple(index)])], index) for index in indices]


def nifti_volumes(folder: Path) -> Iterator[Volume]:
    """All NIfTI images below a folder, as their affines place them; files that are none are passed over.

    Raises
    ------
    ConfigurationError
        if nibabel is not installed
    """
    try:
        nibabel = import_module("nibabel")
    except ImportError as error:
        raise ConfigurationError("reading NIfTI needs nibabel: pip install nibabel") from error
    for path in sorted(folder.rglob("*.nii*")):
        with suppress(nibabel.filebasedimages.ImageFileError):
            image = nibabel.load(path)
            yield Volume(_numeric(np.asanyarray(image.dataobj)), _to_lps(image.affine))


def _numeric(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Values of a grey image; none of a colour image, whose voxels are records."""
    return values if values.dtype.fields is None else np.zeros((0, 0, 0))


def _to_lps(affine: npt.NDArray[Any]) -> Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]:
    to_lps = RAS_TO_LPS @ np.asarray(affine, dtype=np.float64)

    def place(index: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(index @ to_lps[:3, :3].T + to_lps[:3, 3], dtype=np.float64)

    return place


def check_nifti(truth: Truth, output: Path) -> list[CaseResult]:
    """Check the NIfTI images of each case, which lie below `output`/<case>/.

    Raises
    ------
    ConfigurationError
        if no folder of any case is there
    """
    if not any((output / case.name).is_dir() for case in truth.cases):
        raise ConfigurationError("the output holds no folder with the name of a case: convert each case into its own")
    return [check_case(case, nifti_volumes(output / case.name)) for case in truth.cases]


def as_table(results: Sequence[CaseResult]) -> str:
    """Cases that are not exact, and a last line on all, as text."""
    lines = [f"{'case':44} markers  largest error  misplaced  lost  doubled  invented"]
    lines += [
        f"{one.name:44} {one.n_markers:7d} {one.max_error_mm:11.3f} mm {one.n_misplaced:10d} {one.n_lost:5d}"
        f" {one.n_doubled:8d} {one.n_invented:9d}"
        for one in results
        if not one.is_exact
    ]
    n_exact = sum(one.is_exact for one in results)
    worst = max((one.max_error_mm for one in results), default=0.0)
    lines.append(f"{n_exact} of {len(results)} cases exact; largest error {worst:.4f} mm")
    return "\n".join(lines)
