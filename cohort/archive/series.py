"""Read the files of one chosen series into stacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom import Dataset, dcmread

from cohort.archive.header import SlicePose, header_pose, positive, quiet_pydicom, text
from cohort.archive.pixels import DecodedPixels, decode_pixels, to_common_scale
from cohort.archive.pseudonym import Pseudonyms
from cohort.archive.stacks import Slice, SortedSlices, stacks_from_slices
from cohort.archive.vocabulary import sequence_codes
from cohort.errors import RefusedError
from cohort.stacks import Plane

ACQUISITION_KEYWORDS: Final = {
    "repetition_time_ms": "RepetitionTime",
    "echo_time_ms": "EchoTime",
    "inversion_time_ms": "InversionTime",
    "flip_angle_deg": "FlipAngle",
}


@dataclass(frozen=True)
class SeriesStacks:
    """Stacks of one series, and what befell its files."""

    sorted_slices: SortedSlices
    n_damaged: int
    """Files that could not be read or decoded and were left out."""
    acquisition: dict[str, float | str | bool | None]
    """Times, flip angle and sequence codes; the rescale of stored values, and whether it had to be applied."""

    @property
    def n_slices(self) -> int:
        return sum(stack.geometry.n_slices for stack in self.sorted_slices.stacks)


@dataclass(frozen=True, eq=False)
class _ReadFile:
    pose: SlicePose
    decoded: DecodedPixels
    instance_id: str
    frame_of_reference_id: str | None
    acquisition: dict[str, float | str | bool | None]


def read_series(paths: Sequence[Path], plane: Plane, *, pseudonyms: Pseudonyms) -> SeriesStacks:
    """Decode the files of one series and sort them into stacks; files that cannot be decoded are left out and counted.

    Raises
    ------
    RefusedError
        `files_changed` if a file is gone, `damaged_pixels` if none can be decoded, `inconsistent_series` if they do
        not form a stack
    """
    files: list[_ReadFile] = []
    for path in sorted(paths):
        try:
            files.append(_read_file(path, pseudonyms))
        except FileNotFoundError as error:
            raise RefusedError("files_changed", "a file of the series is gone") from error
        except (RefusedError, OSError):
            continue  # counted below as damaged
    if not files:
        raise RefusedError("damaged_pixels", f"none of {len(paths)} files of the {plane} series can be decoded")
    pixels = to_common_scale([one.decoded for one in files])
    slices = [
        Slice(one.pose, image, one.instance_id, one.frame_of_reference_id)
        for one, image in zip(files, pixels, strict=True)
    ]
    rescaled = len({(one.decoded.slope, one.decoded.intercept) for one in files}) > 1
    return SeriesStacks(
        sorted_slices=stacks_from_slices(slices, plane),
        n_damaged=len(paths) - len(files),
        acquisition=files[0].acquisition | {"rescale_applied": rescaled},
    )


def _read_file(path: Path, pseudonyms: Pseudonyms) -> _ReadFile:
    with quiet_pydicom():
        try:
            data_set = dcmread(path, force=True)
        except OSError:
            raise
        except Exception as error:  # pydicom raises a dozen kinds of exception on damaged headers
            raise RefusedError("damaged_header", type(error).__name__) from error
        return _described(data_set, pseudonyms)


def _described(data_set: Dataset, pseudonyms: Pseudonyms) -> _ReadFile:
    decoded = decode_pixels(data_set)
    pose = header_pose(data_set)
    if decoded.stored.shape != pose.shape:
        raise RefusedError("damaged_pixels", f"decoded {decoded.stored.shape}, declared {pose.shape}")
    instance, frame = text(data_set, "SOPInstanceUID"), text(data_set, "FrameOfReferenceUID")
    return _ReadFile(
        pose=pose,
        decoded=decoded,
        instance_id=pseudonyms.instance_id(instance),
        frame_of_reference_id=pseudonyms.frame_of_reference_id(frame) if frame else None,
        acquisition=_acquisition(data_set, decoded),
    )


def _acquisition(data_set: Dataset, decoded: DecodedPixels) -> dict[str, float | str | bool | None]:
    times = {name: positive(data_set, keyword) for name, keyword in ACQUISITION_KEYWORDS.items()}
    return {
        **times,
        "scanning_sequence": sequence_codes(text(data_set, "ScanningSequence")),
        "rescale_slope": decoded.slope,
        "rescale_intercept": decoded.intercept,
    }
