"""MD.ai: the JSON export of a project.

The format as MD.ai's own client reads it (github.com/mdai/mdai-client-py, mdai/utils/common_utils.py and
docs.md.ai): `labelGroups` with `labels` (id, name, scope, annotationMode); `datasets` with `annotations` (labelId,
StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID, frameNumber from 0, createdById, createdAt, updatedAt, data), where
`data` holds `vertices` [[x, y], ...] of freeform and polygon shapes, `foreground` and `background` outlines of masks,
or nothing. The client turns vertices into pixels by truncation and a line of one pixel; here the convention of
`cohort.annotations.outlines` holds: MD.ai does not say where in a pixel its coordinates count from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from cohort.annotations.times import iso_time
from cohort.errors import RefusedError
from cohort.geometry import Floats

TOOL: Final = "md.ai"
WITHOUT_INSIDE: Final = ("line", "location")
"""Modes of labels (as the client has them, remembered and not read) whose `vertices` are no outline."""


@dataclass(frozen=True, eq=False)
class MdaiShape:
    """One annotation of an export."""

    id: str
    """MD.ai's own of the annotation, which a later export repeats; "" where the export gives none."""
    label: str
    """Name of its label."""
    study_uid: str
    series_uid: str
    instance_uid: str
    frame: int | None
    """From 0; None where the export gives none."""
    reader: str
    """createdById: MD.ai's code of the user."""
    drawn_at: str | None
    """updatedAt, else createdAt; None where that is no time."""
    has_inside: bool
    """False of lines and places, and of shapes of one or two `vertices`, as a stray click leaves them."""
    foreground: list[Floats]
    """Outlines [vertex, (x, y)], pixels; none where the label speaks of the image as a whole."""
    background: list[Floats]


@dataclass(frozen=True)
class MdaiExport:
    """An export, read."""

    shapes: list[MdaiShape]
    n_malformed: int
    """Entries that are no annotation of an image (labels of an exam or a series as a whole are not counted)."""


def read_mdai(path: Path) -> MdaiExport:
    """Read an export.

    Raises
    ------
    RefusedError
        `mask_unreadable` for what is not JSON, or has no label groups or data sets
    """
    try:
        content = json.loads(path.read_bytes())
        labels = {label["id"]: label for group in content["labelGroups"] for label in group["labels"]}
        entries = [entry for data in content["datasets"] for entry in data.get("annotations") or ()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RefusedError("mask_unreadable", f"no MD.ai export: {type(error).__name__}") from error
    images = [entry for entry in entries if _is_of_image(labels, entry)]
    shapes = [shape for entry in images for shape in _shape(labels, entry)]
    return MdaiExport(shapes, len(images) - len(shapes))


def _is_of_image(labels: Mapping[str, Any], entry: Any) -> bool:
    """Labels of a whole exam or series (its scope says so) hold no outlines."""
    label = labels.get(str(entry.get("labelId"))) if isinstance(entry, dict) else None
    return label is None or str(label.get("scope", "INSTANCE")).upper() not in ("EXAM", "STUDY", "SERIES")


def _shape(labels: Mapping[str, Any], entry: Any) -> Iterator[MdaiShape]:
    try:
        data = entry.get("data") or {}
        label = labels[entry["labelId"]]
        yield MdaiShape(
            id=str(entry.get("id") or ""),
            label=str(label["name"]),
            study_uid=str(entry["StudyInstanceUID"]),
            series_uid=str(entry.get("SeriesInstanceUID") or ""),
            instance_uid=str(entry["SOPInstanceUID"]),
            frame=None if entry.get("frameNumber") is None else int(entry["frameNumber"]),
            reader=str(entry.get("createdById") or ""),
            drawn_at=iso_time(str(entry.get("updatedAt") or entry.get("createdAt") or "")),
            has_inside=label.get("annotationMode") not in WITHOUT_INSIDE and len(data.get("vertices") or "any") > 2,
            foreground=[_outline(points) for points in _outlines(data)],
            background=[_outline(points) for points in data.get("background") or ()],
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return


def _outlines(data: Mapping[str, Any]) -> list[Any]:
    return [data["vertices"]] if data.get("vertices") else list(data.get("foreground") or ())


def _outline(points: Any) -> Floats:
    """[vertex, (x, y)]; what is no list of numbers becomes an outline that filling refuses."""
    try:
        return np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError):
        return np.full((1, 2), np.nan)
