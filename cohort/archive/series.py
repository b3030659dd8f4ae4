"""Read the images of one chosen part of a series into stacks.

Headers come first, all of them, because positions decide which image goes where; then each image is decoded straight
into its place. So memory holds the series once, and one compressed file beside it.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from cohort.archive.header import (
    PIXEL_KEYWORDS,
    TAGS,
    Elements,
    SlicePose,
    number,
    numbers,
    positive,
    quiet_pydicom,
    slice_pose,
    text,
)
from cohort.archive.multiframe import FrameHeader, frame_headers, is_multiframe
from cohort.archive.parse import DicomFile, open_dicom, read_frame_elements, read_image_elements
from cohort.archive.pixels import Decoded, PixelFormat, Pixels, decode_frames, pixel_format, to_common_scale
from cohort.archive.pseudonym import Pseudonyms
from cohort.archive.source import FileSource, ImageSource, open_source
from cohort.archive.stacks import examine_gaps, group_slices, order_of_stacks, place_numbers, stack_geometries
from cohort.archive.vocabulary import sequence_codes
from cohort.errors import RefusedError
from cohort.stacks import ImageStack, Plane

SLICE_KEYWORDS: Final = (
    "SOPInstanceUID",
    "ScanningSequence",
    "SliceThickness",
    "RepetitionTime",
    "EchoTime",
    "InversionTime",
    "FlipAngle",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "FrameOfReferenceUID",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelSpacing",
    "BitsAllocated",
    *PIXEL_KEYWORDS,
)
"""Attributes of a single-frame image that are read here."""
SLICE_TAGS: Final = [TAGS[keyword] for keyword in SLICE_KEYWORDS]

Acquisition = dict[str, float | str | bool | None]


@dataclass(frozen=True)
class SeriesStacks:
    """Stacks of one series, and what befell its images."""

    stacks: list[ImageStack]
    """Axial ones from cranial to caudal, sagittal ones from the patient's left to the right, by their centre."""
    n_damaged: int
    """Images that could not be read or decoded and were left out."""
    n_duplicates: int
    """Copies that were dropped."""
    n_missing: int
    """Slices that even spacing would expect inside the stacks but that are not there."""
    n_uneven: int
    """Stacks with uneven gaps that no missing slice explains."""
    n_lossy: int
    """Images that were compressed with loss."""
    n_masked: int
    """Images in which bits were set that do not belong to a value."""
    acquisition: Acquisition
    """Times, flip angle and sequence codes; the rescale of stored values, and whether it had to be applied."""

    @property
    def n_slices(self) -> int:
        return sum(stack.geometry.n_slices for stack in self.stacks)


@dataclass(frozen=True, eq=False)
class _Image:
    """One slice before its pixels are read."""

    file: FileSource
    number: int
    """Of the frame, from 0; 0 in a single-frame file."""
    instance: str
    """SOPInstanceUID, '' if missing."""
    frame_of_reference: str
    """FrameOfReferenceUID, '' if missing."""
    pose: SlicePose
    pixels: PixelFormat
    scale: tuple[float, float]
    """(slope, intercept) of its values."""
    frame: FrameHeader

    @property
    def name(self) -> tuple[str, int]:
        """Sort key that does not depend on the names of files."""
        return self.instance, self.number


@dataclass(frozen=True, eq=False)
class _Block:
    """Images of one stack, ordered along the normal."""

    images: list[_Image]
    values: Pixels
    """[image, row, column]."""

    @classmethod
    def of(cls, images: list[_Image]) -> _Block:
        """A block whose pixels are not read yet."""
        kind = np.result_type(*{image.pixels.values for image in images})
        return cls(images, np.empty((len(images), *images[0].pixels.shape), kind))


def read_series(archive: Path, sources: Sequence[ImageSource], plane: Plane, *, pseudonyms: Pseudonyms) -> SeriesStacks:
    """Read images of one series into stacks; those that cannot be read or decoded are left out and counted.

    Parameters
    ----------
    archive : root folder
    sources : images of one part of a series, copies included; no frame of a file is named twice
    plane : plane of the series, passed on to the stacks

    Raises
    ------
    RefusedError
        `files_changed` if a file is gone; `damaged_pixels` if no image can be decoded; `inconsistent_series` if two
        images of one frame of reference lie at one place with different pixels (several echoes or repetitions), or if
        no stack can be made
    """
    n_sources = sum(len(source.frames or (0,)) for source in dict.fromkeys(sources))
    try:
        images = [image for source in dict.fromkeys(sources) for image in _read_headers(archive, source)]
        blocks, n_masked = _read_blocks(archive, sorted(images, key=lambda image: image.name))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RefusedError("files_changed", "a file of the series is gone") from error
    if not blocks:
        raise RefusedError("damaged_pixels", f"none of {n_sources} images of the {plane} series can be decoded")
    return _series(blocks, plane, n_sources, n_masked, pseudonyms)


def _read_headers(archive: Path, source: ImageSource) -> list[_Image]:
    """Images of one file; none if it cannot be read."""
    try:
        with open_source(archive, source.file) as stream, quiet_pydicom():
            on_disk = isinstance(getattr(stream, "raw", None), io.FileIO)
            return _images(open_dicom(stream, random_access=on_disk), source)
    except (FileNotFoundError, NotADirectoryError, MemoryError):
        raise
    except Exception:  # pydicom raises a dozen kinds of exception on damaged headers; its images count as damaged
        return []


def _images(file: DicomFile, source: ImageSource) -> list[_Image]:
    """Wanted images of a file; frames without geometry are left out.

    Raises
    ------
    RefusedError
        if the header is not that of such an image
    """
    if source.frames is None:
        with suppress(RefusedError):  # its elements may be out of order: then all are read
            header = read_image_elements(file, wanted=SLICE_TAGS)
            return [_image(source.file, header, 0, _single_frame(header), pixel_format(file, header, n_frames=1))]
    data_set = read_frame_elements(file)
    frames = frame_headers(data_set) if is_multiframe(data_set) else [_single_frame(data_set)]
    if source.frames is None and len(frames) > 1:
        raise RefusedError("damaged_header", "several frames where one was expected")
    pixels = pixel_format(file, data_set, n_frames=len(frames))
    images = []
    for k in source.frames or (0,):
        with suppress(RefusedError, IndexError):
            images.append(_image(source.file, data_set, k, frames[k], pixels))
    return images


def _single_frame(header: Elements) -> FrameHeader:
    """Header of a single-frame image; RefusedError if there are several frames."""
    if (number(header, "NumberOfFrames") or 1) > 1:
        raise RefusedError("no_geometry", "several frames without functional groups")
    return FrameHeader(
        position=numbers(header, "ImagePositionPatient"),
        orientation=numbers(header, "ImageOrientationPatient"),
        spacing=numbers(header, "PixelSpacing"),
        thickness_mm=positive(header, "SliceThickness"),
        repetition_time_ms=positive(header, "RepetitionTime"),
        echo_time_ms=positive(header, "EchoTime"),
        inversion_time_ms=positive(header, "InversionTime"),
        flip_angle_deg=positive(header, "FlipAngle"),
        rescale_slope=number(header, "RescaleSlope"),
        rescale_intercept=number(header, "RescaleIntercept"),
        scanning_sequence=sequence_codes(text(header, "ScanningSequence")),
    )


def _image(file: FileSource, header: Elements, number: int, frame: FrameHeader, pixels: PixelFormat) -> _Image:
    pose = slice_pose(
        position_mm=frame.position,
        orientation=frame.orientation,
        spacing_mm=frame.spacing,
        shape=pixels.shape,
        thickness_mm=frame.thickness_mm,
    )
    return _Image(
        file=file,
        number=number,
        instance=text(header, "SOPInstanceUID"),
        frame_of_reference=text(header, "FrameOfReferenceUID"),
        pose=pose,
        pixels=pixels,
        scale=pixels.scale(frame.rescale_slope, frame.rescale_intercept),
        frame=frame,
    )


def _read_blocks(archive: Path, images: Sequence[_Image]) -> tuple[list[_Block], int]:
    """Decode images into the places that their poses give them; also returns in how many bits had to be masked.

    Which images are damaged shows only then, and stacks may differ without them: so they are sorted and read again.
    """
    left = list(images)
    while left:
        groups = group_slices([image.pose for image in left], [image.frame_of_reference for image in left])
        blocks = [_Block.of([left[i] for i in group]) for group in groups]
        damaged, masked = _decode(archive, blocks)
        if not damaged:
            return blocks, len(masked)
        left = [image for image in left if image not in damaged]
    return [], 0


def _decode(archive: Path, blocks: Sequence[_Block]) -> tuple[set[_Image], set[_Image]]:
    """Fill blocks with pixels, file by file; returns the damaged images and those in which bits had to be masked."""
    files: defaultdict[FileSource, dict[_Image, Pixels]] = defaultdict(dict)
    for block in blocks:
        for image, values in zip(block.images, block.values, strict=True):
            files[image.file][image] = values
    damaged: set[_Image] = set()
    masked: set[_Image] = set()
    for file, places in files.items():
        decoded = _decode_file(archive, file, places)
        damaged |= {image for image in places if image.number in decoded.damaged}
        masked |= {image for image in places if image.number in decoded.masked}
    return damaged, masked


def _decode_file(archive: Path, file: FileSource, places: Mapping[_Image, Pixels]) -> Decoded:
    pixels = next(iter(places)).pixels
    frames = {image.number: values for image, values in places.items()}
    try:
        with open_source(archive, file) as stream:
            return decode_frames(stream, pixels, frames)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except (OSError, RefusedError):
        return Decoded(damaged=frozenset(frames), masked=frozenset())


def _series(
    blocks: Sequence[_Block], plane: Plane, n_sources: int, n_masked: int, pseudonyms: Pseudonyms
) -> SeriesStacks:
    distinct = [_without_copies(block) for block in blocks]
    images = [image for block in distinct for image in block.images]
    scales = [[image.scale for image in block.images] for block in distinct]
    pixels = to_common_scale([block.values for block in distinct], scales)
    geometries = stack_geometries([[image.pose for image in block.images] for block in distinct])
    stacks = []
    for index, i in enumerate(order_of_stacks(geometries, plane)):
        frame = distinct[i].images[0].frame_of_reference
        frame_id = pseudonyms.frame_of_reference_id(frame) if frame else None
        stacks.append(ImageStack(plane, index, pixels[i], geometries[i], frame_id))
    n_read = sum(len(block.images) for block in blocks)
    gaps = [examine_gaps(geometry) for geometry in geometries]
    return SeriesStacks(
        stacks=stacks,
        n_damaged=n_sources - n_read,
        n_duplicates=n_read - len(images),
        n_missing=sum(gap.n_missing for gap in gaps),
        n_uneven=sum(gap.uneven for gap in gaps),
        n_lossy=sum(image.pixels.lossy for image in images),
        n_masked=n_masked,
        acquisition=_acquisition(images),
    )


def _without_copies(block: _Block) -> _Block:
    """Collapse images at one place; RefusedError `inconsistent_series` if they differ."""
    places = place_numbers([image.pose for image in block.images])
    firsts = np.unique(places, return_index=True)[1]
    if len(firsts) == len(places):
        return block
    for image, values, first in zip(block.images, block.values, firsts[places], strict=True):
        if image.scale != block.images[first].scale or not np.array_equal(values, block.values[first]):
            raise RefusedError("inconsistent_series", "two images at one place have different pixels")
    return _Block([block.images[k] for k in firsts], block.values[firsts])


def _acquisition(images: Sequence[_Image]) -> Acquisition:
    """What the first image says, by its name; names of files play no part."""
    first = min(images, key=lambda image: image.name)
    return {
        "repetition_time_ms": first.frame.repetition_time_ms,
        "echo_time_ms": first.frame.echo_time_ms,
        "inversion_time_ms": first.frame.inversion_time_ms,
        "flip_angle_deg": first.frame.flip_angle_deg,
        "scanning_sequence": first.frame.scanning_sequence,
        "rescale_slope": first.scale[0],
        "rescale_intercept": first.scale[1],
        "rescale_applied": len({image.scale for image in images}) > 1,
    }
