"""Rows of the file index as the scan would write them for MR series of given physics, geometry and description."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from cohort.archive.vocabulary import image_type_words, text_hints
from cohort.rows import FileRow

PLANES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "sagittal": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
    "axial": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    "coronal": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
}
"""Directions of rows and columns, LPS."""

_FILES = itertools.count()


def series(
    name: str,
    *,
    n: int,
    plane: str = "sagittal",
    tilt_deg: float = 0.0,
    gap: float = 4.4,
    pixel: float = 0.6,
    size: int = 480,
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0),
    description: str = "",
    image_type: str = "ORIGINAL\\PRIMARY\\M",
    agent: str = "",
    options: str = "",
    one_file: bool = False,
    first_frame: int = 0,
    **columns: Any,
) -> list[FileRow]:
    """Parallel slices around a centre (LPS, mm), tilted about the axis from right to left; the description's words and
    those of ImageType go through the vocabularies. Frames of one multi-frame file where `one_file` is set."""
    row, col = (np.array(direction) for direction in PLANES[plane])
    angle = np.deg2rad(tilt_deg)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    row, col = turn @ row, turn @ col
    corner = np.array(centre) - (row + col) * pixel * (size - 1) / 2
    given: dict[str, Any] = {
        "image_type": image_type_words(image_type),
        "text_hints": text_hints([description], contrast_agent=agent, scan_options=options),
        "frame_of_reference_id": "frame",
        "thickness_mm": 4.0,
        **columns,
    }
    return [
        FileRow(
            file_id=f"{name}-file" if one_file else f"file{next(_FILES):06d}",
            size_bytes=1,
            mtime_ns=1,
            exam_id="exam",
            series_id=name,
            instance_id=f"{name}-file" if one_file else f"instance{next(_FILES)}",
            frame=first_frame + k if one_file else None,
            position_mm=(corner + (k - (n - 1) / 2) * gap * np.cross(row, col)).tolist(),
            orientation=[*row.tolist(), *col.tolist()],
            row_spacing_mm=pixel,
            column_spacing_mm=pixel,
            rows=size,
            columns=size,
            **given,
        )
        for k in range(n)
    ]


def spin_echo(tr: float, te: float, **columns: Any) -> dict[str, Any]:
    """Times of a (turbo) spin echo, ms."""
    return {
        "scanning_sequence": "SE",
        "repetition_time_ms": tr,
        "echo_time_ms": te,
        "flip_angle_deg": 150.0,
        "field_t": 1.5,
        **columns,
    }


def inversion(tr: float, te: float, ti: float, **columns: Any) -> dict[str, Any]:
    """Times of an inversion recovery turbo spin echo, ms."""
    return spin_echo(tr, te, scanning_sequence="SE+IR", inversion_time_ms=ti, **columns)


def gradient_echo(tr: float, te: float, flip: float, **columns: Any) -> dict[str, Any]:
    """Times, ms, and flip angle, degrees, of a gradient echo."""
    return spin_echo(tr, te, scanning_sequence="GR", flip_angle_deg=flip, **columns)
