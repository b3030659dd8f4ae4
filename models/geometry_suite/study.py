"""Write the files of one case, and keep book of what is true of them."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from models.geometry_suite.classic import MarkedSlice, PixelFormat, classic_attributes, new_data_set
from models.geometry_suite.encoding import set_pixels
from models.geometry_suite.multiframe import multiframe_attributes
from models.geometry_suite.plane import ImagePlane, Vector
from models.geometry_suite.truth import Case, Marker, RefusedFile, Series, Stack

PART_KEYWORDS: Final = (
    "EchoTime",
    "ImageType",
    "ComplexImageComponent",
    "TemporalPositionIdentifier",
    "AcquisitionNumber",
    "FrameOfReferenceUID",
)
"""What tells apart stacks of one series that lie at equal places."""
MARKERS_PER_SLICE: Final = 4
"""One in each quarter of the slice: a flip, a swap of axes and a shift each show."""


class Study:
    """One case while it is written."""

    def __init__(self, root: Path, name: str, *, seed: int) -> None:
        """Files go to `root`/`name`."""
        self.name = name
        self.pixels = PixelFormat()
        self.background = 0
        """Value of all voxels without marker, after rescale; like `pixels` set before the first image."""
        self.missing: list[Vector] = []
        """First voxels of slices that even spacing would expect, declared by the case."""
        self.copies: list[list[str]] = []
        self._rng = np.random.default_rng([seed, crc32(name.encode())])
        self._root, self._seed = root, seed
        self._used: set[int] = set()
        self._files: dict[str, Sequence[MarkedSlice]] = {}
        self._expected: list[tuple[str, Sequence[Sequence[MarkedSlice]]]] = []
        self._refused: dict[str, tuple[str, bool]] = {}
        self._stored_background: int | None = None
        self._n_files = self._n_instances = 0

    def uid(self, *parts: object) -> str:
        """UID that depends on the seed, the case and the parts alone."""
        return str(generate_uid(entropy_srcs=["geometry suite", str(self._seed), self.name, *map(str, parts)]))

    # -- images --------------------------------------------------------------------------------------------------------

    def mark(
        self,
        planes: Sequence[ImagePlane],
        *,
        slope: float = 1,
        intercept: float = 0,
        stored_survives: bool = True,
        **attributes: Any,
    ) -> list[MarkedSlice]:
        """Put markers into the images of planes.

        Parameters
        ----------
        slope, intercept : rescale; written where it is not 1 and 0
        stored_survives : a converter may keep stored values, because all slices of the series share the rescale
        attributes : DICOM keywords of these slices alone
        """
        if (slope, intercept) != (1, 0):
            attributes |= {"RescaleSlope": str(slope), "RescaleIntercept": str(intercept), "RescaleType": "US"}
        return [self._marked(plane, slope, intercept, stored_survives, attributes) for plane in planes]

    def _marked(
        self, plane: ImagePlane, slope: float, intercept: float, stored_survives: bool, attributes: Mapping[str, Any]
    ) -> MarkedSlice:
        rows, columns = plane.shape
        stored_background = round((self.background - intercept) / slope)
        if stored_survives:
            self._stored_background = stored_background
        stored = np.full(plane.shape, stored_background, self.pixels.dtype)
        markers = []
        for quarter in range(MARKERS_PER_SLICE):
            row = int(self._rng.integers(rows // 2)) + (quarter // 2) * (rows // 2)
            column = int(self._rng.integers(columns // 2)) + (quarter % 2) * (columns // 2)
            stored[row, column] = raw = self._new_value(slope, intercept)
            value = round(raw * slope + intercept)
            markers.append(Marker(value, raw if stored_survives else None, plane.lps_mm(row, column)))
        return MarkedSlice(plane, stored, tuple(markers), attributes)

    def _new_value(self, slope: float, intercept: float) -> int:
        """A stored value that is far from the background, and whose rescaled value is new to the case."""
        limit = 2 ** (self.pixels.stored - self.pixels.signed)
        while True:
            raw = int(self._rng.integers(limit // 16, limit)) * int(
                self._rng.choice([-1, 1] if self.pixels.signed else [1])
            )
            value = round(raw * slope + intercept)
            if value not in self._used:
                self._used.add(value)
                return raw

    # -- files ---------------------------------------------------------------------------------------------------------

    def classic(
        self,
        *stacks: Sequence[MarkedSlice],
        series: int = 1,
        numbers: Sequence[int] | None = None,
        each: Sequence[Mapping[str, Any]] | None = None,
        expected: bool = True,
        **options: Any,
    ) -> list[str]:
        """Write one file a slice; returns their names in the order of the slices.

        File names follow no spatial order, as in archives that sort by UID.

        Parameters
        ----------
        stacks : as a converter should find them, each along +normal
        numbers : InstanceNumber of each slice, by default ascending
        each : options of each slice
        expected : the slices are part of the truth; False for files that cannot be used
        options : `folder`, `syntax` and `fragments` of `write`, and DICOM keywords of all slices (None removes one)
        """
        slices = [one for stack in stacks for one in stack]
        if expected:
            self._expected.append((self.uid("series", series), stacks))
        numbers = numbers or range(1, len(slices) + 1)
        names: dict[int, str] = {}
        for at in self._rng.permutation(len(slices)):
            attributes = classic_attributes(slices[at], self.pixels) | {"InstanceNumber": numbers[at]}
            own = each[at] if each else {}
            names[int(at)] = self.write([slices[at]], attributes, series=series, **{**options, **own})
        return [names[at] for at in range(len(slices))]

    def multiframe(
        self,
        *stacks: Sequence[MarkedSlice],
        series: int = 1,
        order: Sequence[int] | None = None,
        shared: bool = True,
        legacy: bool = False,
        **options: Any,
    ) -> str:
        """Write all slices as frames of one file, in the given `order` of them; see `multiframe_attributes`."""
        slices = [one for stack in stacks for one in stack]
        frames = [slices[at] for at in (order if order is not None else range(len(slices)))]
        self._expected.append((self.uid("series", series), stacks))
        return self._write_frames(frames, 1, shared=shared, legacy=legacy, series=series, **options)

    def multiframe_files(self, stack: Sequence[MarkedSlice], *, frames_per_file: int) -> None:
        """Write one stack into several multi-frame files of one series."""
        self._expected.append((self.uid("series", 1), [stack]))
        for number, at in enumerate(range(0, len(stack), frames_per_file), start=1):
            self._write_frames(stack[at : at + frames_per_file], number, shared=True, legacy=False)

    def _write_frames(
        self, frames: Sequence[MarkedSlice], number: int, *, shared: bool, legacy: bool, **options: Any
    ) -> str:
        attributes = multiframe_attributes(frames, self.pixels, shared=shared, legacy=legacy)
        return self.write(frames, attributes | {"InstanceNumber": number}, **options)

    def write(
        self,
        frames: Sequence[MarkedSlice],
        attributes: Mapping[str, Any],
        *,
        series: int = 1,
        folder: str = "",
        syntax: UID = ExplicitVRLittleEndian,
        fragments: int = 1,
        **overrides: Any,
    ) -> str:
        """Write one file; returns its name below the folder of the suite."""
        self._n_instances += 1
        identity = {
            "SOPInstanceUID": self.uid("instance", self._n_instances),
            "StudyInstanceUID": self.uid("study"),
            "SeriesInstanceUID": self.uid("series", series),
            "FrameOfReferenceUID": self.uid("frame of reference"),
            "PatientID": self.name,
            "AccessionNumber": f"{crc32(self.name.encode()):010d}",
            "SeriesNumber": series,
            "SeriesDescription": "T1 TSE",
            "ProtocolName": "T1 TSE",
        }
        data_set = new_data_set({**identity, **attributes, **overrides}, syntax=syntax)
        set_pixels(data_set, [frame.stored for frame in frames], fragments=fragments)
        return self.save(data_set, frames, folder=folder)

    def save(self, data_set: Dataset, frames: Sequence[MarkedSlice] = (), *, folder: str = "") -> str:
        """Write a data set to a file of the next name."""
        name = self._next_name(folder)
        data_set.save_as(self._root / name, enforce_file_format=True)
        self._files[name] = frames
        return name

    def add_file(self, content: bytes, name: str) -> str:
        """Add a file that is no image of the case."""
        (self._root / self.name).mkdir(parents=True, exist_ok=True)
        path = f"{self.name}/{name}"
        self.replace_content(path, content)
        self._files[path] = ()
        return path

    def _next_name(self, folder: str) -> str:
        self._n_files += 1
        name = "/".join(part for part in (self.name, folder, f"IM{self._n_files:04d}") if part)
        (self._root / name).parent.mkdir(parents=True, exist_ok=True)
        return name

    def read(self, name: str) -> Dataset:
        """Data set of a file written before, to write it changed."""
        return dcmread(self._root / name)

    def rewrite(self, name: str, data_set: Dataset, *, plain: bool = False, marked: bool = True) -> None:
        """Write a file anew: `plain` without preamble and meta information, not `marked` with other pixels."""
        if plain:
            data_set.save_as(self._root / name, implicit_vr=True, little_endian=True)
        else:
            data_set.save_as(self._root / name, enforce_file_format=True)
        if not marked:
            self._files[name] = ()

    def copy(self, name: str, data_set: Dataset | None = None, *, folder: str = "") -> str:
        """Write a file once more, or another data set of the same slice."""
        again = self.save(data_set or self.read(name), self._files[name], folder=folder)
        self.copies.append([name, again])
        return again

    def content(self, name: str) -> bytes:
        """Bytes of a file."""
        return (self._root / name).read_bytes()

    def replace_content(self, name: str, content: bytes) -> None:
        """Overwrite a file."""
        (self._root / name).write_bytes(content)

    def gzip(self, name: str) -> None:
        """Compress one file in place; `.gz` is added to its name."""
        self.replace_content(name, gzip.compress(self.content(name), mtime=0))
        (self._root / name).rename(self._root / f"{name}.gz")
        self._files[f"{name}.gz"] = self._files.pop(name)

    def zip(self, names: Sequence[str], archive: str) -> None:
        """Move files into a .zip below the folder of the case."""
        target = f"{self.name}/{archive}"
        with zipfile.ZipFile(self._root / target, "w", zipfile.ZIP_DEFLATED) as packed:
            for name in names:
                member = zipfile.ZipInfo(f"images/{Path(name).name}", (2020, 1, 2, 10, 15, 0))
                packed.writestr(member, self.content(name), zipfile.ZIP_DEFLATED)
                (self._root / name).unlink()
                self._files[f"{target}/{member.filename}"] = self._files.pop(name)

    def refuse(self, name: str, reason: str, *, placed: bool) -> None:
        """Say that a file cannot be used; `placed`: its voxels have a place, so that using what is left is no guess."""
        self._refused[name] = (reason, placed)

    # -- truth ---------------------------------------------------------------------------------------------------------

    def truth(self, description: str) -> Case:
        """What is true of the files written."""
        lost = {id(one) for name in self._refused for one in self._files[name]}
        slices = [one for _, stacks in self._expected for stack in stacks for one in stack]
        series = {uid: Series(uid, []) for uid, _ in self._expected}
        for uid, stacks in self._expected:
            series[uid].stacks.extend(_stacks(stacks, lost))
        return Case(
            name=self.name,
            description=description,
            study_instance_uid=self.uid("study"),
            files=sorted(self._files),
            series=list(series.values()),
            background=self.background,
            stored_background=self._stored_background,
            inverted=self.pixels.photometric == "MONOCHROME1",
            copies=self.copies,
            missing_mm=self.missing + [one.plane.position_mm for one in slices if id(one) in lost],
            refused=[self._refused_file(name) for name in sorted(self._refused)],
        )

    def _refused_file(self, name: str) -> RefusedFile:
        reason, placed = self._refused[name]
        markers = [marker for one in self._files[name] for marker in one.markers]
        return RefusedFile(name, reason, [m if placed else Marker(m.value, m.stored, None) for m in markers])


def _stacks(stacks: Sequence[Sequence[MarkedSlice]], lost: set[int]) -> Iterator[Stack]:
    for stack in stacks:
        usable = [one for one in stack if id(one) not in lost]
        if not usable:
            continue
        plane = usable[0].plane
        usable.sort(key=lambda one: float(plane.normal @ one.plane.position_mm))
        yield Stack(
            part={
                key: value
                for key, value in usable[0].attributes.items()
                if key in PART_KEYWORDS and all(one.attributes.get(key) == value for one in usable)
            },
            n_slices=len(usable),
            shape=plane.shape,
            spacing_mm=plane.spacing_mm,
            row_cosine=plane.row_cosine,
            column_cosine=plane.column_cosine,
            positions_mm=[one.plane.position_mm for one in usable],
            markers=[marker for one in usable for marker in one.markers],
        )
