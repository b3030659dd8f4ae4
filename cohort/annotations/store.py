"""The annotation store: what one reader drew on one exam, laid out as a label store.

/                              attributes: exam_id, reader, drawn_at, tool, slices, content_sha256
/sagittal/<k>/vertebral_body   uint8 [slice, row, column], values of `cohort.terms`; likewise disc and, axial, muscle
/sagittal/<k>/levels/disc      uint8 of the same shape, where the reader named levels

A slice that no annotation speaks of is unknown, not empty: `slices` lists those on which the reader drew, or said that
there is nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from cohort.errors import ConfigurationError, StoreError
from cohort.stacks import ImageStack, LabelledStack, Plane
from cohort.store.arrays import (
    MASK_CODEC,
    VOXEL_AXES,
    open_store,
    read_array,
    root_attributes,
    write_array,
    write_group,
)
from cohort.store.exam import StoredExam
from cohort.store.labels import read_labels, write_labels
from cohort.store.layout import annotation_directory
from cohort.store.publish import FORMER_PREFIX, current, replacing_folder, withdraw
from cohort.terms import disc_name

AUTOMATIC: Final = "automatic"
"""Code, where readers are compared, of the networks' masks; no reader has it."""
CANDIDATE: Final = "candidate"
"""Likewise of the masks that a changed model made and that wait for acceptance."""
NETWORK_CODES: Final = frozenset((AUTOMATIC, CANDIDATE))

VERTEBRAE: Final = (*(f"T{k}" for k in range(8, 14)), *(f"L{k}" for k in range(1, 7)), "S1")
"""From cranial to caudal; T13 and L6 are there for those who have them."""
_ACROSS: Final = (("T11", "L1"), ("T12", "L1"), ("L4", "S1"), ("L5", "S1"))
"""Neighbours of people who lack T12 or L5, and of all who have no T13 or L6."""
DISCS: Final = tuple(disc_name(above, below) for above, below in (*pairwise(VERTEBRAE), *_ACROSS))
LEVEL_NAMES: Final = (*VERTEBRAE, *DISCS)
"""Value k + 1 of a level array means LEVEL_NAMES[k]. Stores hold the values: names are only ever added at the end."""

_READER: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")
_TOOL: Final = re.compile(r"[A-Za-z0-9._ -]{1,32}")

Masked = tuple[Plane, int, str]
"""Plane, index of the stack in its plane, name of the label array."""


@dataclass(frozen=True, eq=False)
class Annotation:
    """What one reader drew on one exam."""

    exam_id: str
    reader: str
    """Code of the reader, never a name: letters, digits, - and _, at most 32."""
    drawn_at: str | None
    """When the last of it was drawn, ISO 8601; None where the source does not say."""
    tool: str
    """What it was drawn with or read from: md.ai, nifti, mha, png, dicom-seg, ..."""
    labelled: list[LabelledStack]
    """Stacks with masks of the reader; stacks without any are left out."""
    slices: Mapping[Masked, tuple[int, ...]]
    """Slices, ascending, on which the reader drew or said that there is nothing; the others are unknown, not empty."""
    levels: Mapping[Masked, npt.NDArray[np.uint8]]
    """[slice, row, column] of the mask: 0 not named, else 1 + index into `LEVEL_NAMES`; empty without names."""

    @property
    def content_sha256(self) -> str:
        """Of all that is stored: equal annotations of one exam have equal digests."""
        digest = hashlib.sha256(json.dumps(_attributes(self), sort_keys=True).encode())
        for name, values in sorted(self._arrays()):
            digest.update(f"{name}{values.shape}".encode())
            digest.update(values.tobytes())
        return digest.hexdigest()

    def _arrays(self) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
        for one in self.labelled:
            group = f"{one.stack.plane}/{one.stack.index}"
            yield from ((f"{group}/{name}", mask) for name, mask in one.labels.items())
        for (plane, index, name), values in self.levels.items():
            yield f"{plane}/{index}/levels/{name}", values


def check_reader(reader: str) -> str:
    """The code of a reader; `ConfigurationError` where it is none, or one of the networks."""
    if reader in NETWORK_CODES:
        raise ConfigurationError(f"{reader!r} is the code of networks' masks, not of a reader")
    if not _READER.fullmatch(reader):
        raise ConfigurationError("a reader's code has 1 to 32 letters, digits, - or _; names of people are not stored")
    return reader


def annotation_path(store: Path, exam_id: str, reader: str) -> Path:
    """STORE/annotations/<first two characters>/<exam_id>/<reader>.zarr."""
    return annotation_directory(store, exam_id) / f"{check_reader(reader)}.zarr"


def readers_of(store: Path, exam_id: str) -> list[str]:
    """Codes of the readers with an annotation of an exam, in alphabetic order."""
    paths = annotation_directory(store, exam_id).glob("*.zarr")
    return sorted({path.stem.removeprefix(FORMER_PREFIX) for path in paths})


def annotated_exams(store: Path) -> list[str]:
    """Exams with an annotation by anyone, in alphabetic order."""
    return sorted({path.parent.name for path in (store / "annotations").glob("??/*/*.zarr")})


def write_annotation(store: Path, annotation: Annotation) -> bool:
    """Write an annotation in the place of the reader's former one of this exam: there is always one or the other.

    Parameters
    ----------
    store : STORE; the annotation goes to `annotation_path`

    Returns
    -------
    False where the same is there already: nothing is written then

    Raises
    ------
    ConfigurationError
        if the code of the reader or of the tool is none
    ValueError
        if a mask, a level array or a list of slices does not fit its stack
    """
    _check(annotation)
    target = annotation_path(store, annotation.exam_id, annotation.reader)
    digest = annotation.content_sha256
    with suppress(StoreError):  # one that is missing or damaged is written anew
        if annotation_attributes(store, annotation.exam_id, annotation.reader).get("content_sha256") == digest:
            return False
    with replacing_folder(target) as building:
        write_labels(building, annotation.labelled, {**_attributes(annotation), "content_sha256": digest})
        _write_levels(building, annotation.levels)
    return True


def annotation_attributes(store: Path, exam_id: str, reader: str) -> Mapping[str, Any]:
    """Attributes of a reader's annotation of an exam: reader, tool, drawn_at, slices; `StoreError` without one."""
    return root_attributes(open_store(current(annotation_path(store, exam_id, reader)), "labels"))


def remove_annotation(store: Path, exam_id: str, reader: str) -> bool:
    """Remove a reader's annotation of an exam; False where there is none."""
    return withdraw(annotation_path(store, exam_id, reader))


def _check(annotation: Annotation) -> None:
    check_reader(annotation.reader)
    if not _TOOL.fullmatch(annotation.tool):
        raise ConfigurationError("the code of a tool has 1 to 32 letters, digits, blanks, ., - or _")
    masks = {(one.stack.plane, one.stack.index, name): mask for one in annotation.labelled
             for name, mask in one.labels.items()}  # fmt: skip
    if set(annotation.slices) != set(masks):
        raise ValueError("each mask has its list of annotated slices, and each list its mask")
    for key, slices in annotation.slices.items():
        if list(slices) != sorted(set(slices)) or (slices and not 0 <= slices[0] <= slices[-1] < len(masks[key])):
            raise ValueError(f"{key}: annotated slices are ascending numbers of slices of the stack")
        if np.delete(masks[key], list(slices), axis=0).any():
            raise ValueError(f"{key}: something is drawn on a slice that is not among the annotated ones")
    for key, levels in annotation.levels.items():
        if key not in masks or levels.shape != masks[key].shape or levels.dtype != np.uint8:
            raise ValueError(f"{key}: levels are uint8 on the grid of a mask")
        if levels.max(initial=0) > len(LEVEL_NAMES) or np.any((levels > 0) & (masks[key] == 0)):
            raise ValueError(f"{key}: a level that is none, or outside the mask")


def _attributes(annotation: Annotation) -> dict[str, Any]:
    return {
        "exam_id": annotation.exam_id,
        "reader": annotation.reader,
        "drawn_at": annotation.drawn_at,
        "tool": annotation.tool,
        "slices": {f"{plane}/{index}/{name}": list(k) for (plane, index, name), k in annotation.slices.items()},
    }


def _write_levels(building: Path, levels: Mapping[Masked, npt.NDArray[np.uint8]]) -> None:
    for (plane, index, name), values in levels.items():
        group = building / plane / str(index) / "levels"
        write_group(group, {"level_names": list(LEVEL_NAMES)})
        write_array(group / name, values, VOXEL_AXES, MASK_CODEC)


def read_annotation(store: Path, exam: StoredExam, exam_id: str, reader: str) -> Annotation:
    """Read what a reader drew on an exam.

    Parameters
    ----------
    exam : the exam's store, whose stacks the masks lie on

    Raises
    ------
    StoreError
        if there is no such annotation, or it was drawn on other stacks than the exam has now
    """
    path = current(annotation_path(store, exam_id, reader))
    root = open_store(path, "labels")
    attributes = root_attributes(root)
    labelled = read_labels(path, exam)
    levels: dict[Masked, npt.NDArray[np.uint8]] = {}
    for one in labelled:
        group = root[f"{one.stack.plane}/{one.stack.index}"]
        _require_same_place(group.attrs["affine"], one.stack)
        for name in group["levels"].array_keys() if "levels" in group else ():
            levels[one.stack.plane, one.stack.index, name] = read_array(
                group["levels"], name, np.uint8, one.stack.image.shape
            )
    return Annotation(
        exam_id=str(attributes["exam_id"]),
        reader=str(attributes["reader"]),
        drawn_at=attributes["drawn_at"],
        tool=str(attributes["tool"]),
        labelled=labelled,
        slices={_masked(name): tuple(int(k) for k in slices) for name, slices in attributes["slices"].items()},
        levels=levels,
    )


def _masked(text: str) -> Masked:
    plane, index, name = text.split("/")
    return cast(Plane, plane), int(index), name


def _require_same_place(affine: Any, stack: ImageStack) -> None:
    """The stack may have been converted anew from another series since the annotation was drawn."""
    if not np.allclose(affine, stack.geometry.affine, rtol=0, atol=1e-3):
        raise StoreError(f"the annotation of {stack.plane} stack {stack.index} lies elsewhere than the exam's stack")
