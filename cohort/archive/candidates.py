"""One part of a series as a candidate: what it shows, whether it may be chosen, and how good it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from cohort.archive.header import SlicePose, slice_pose
from cohort.archive.parts import Part, split_parts
from cohort.archive.stacks import SAME_PLACE_MM, group_slices
from cohort.archive.vocabulary import DERIVED_WORDS
from cohort.archive.weighting import (
    OTHER,
    DixonImage,
    SequenceKind,
    Weighting,
    dixon_image,
    echo_phase,
    middle,
    nulls_fat,
    weighting,
    words,
)
from cohort.geometry import Floats
from cohort.rows import FileRow
from cohort.stacks import Plane

OBLIQUE_LIMIT_DEG: Final = 35.0
"""Largest angle between a slice's normal and the axis of its plane; L5-S1 discs are tilted by up to about 35."""
MIN_SLICES: Final[dict[Plane, int]] = {"sagittal": 5, "axial": 3}
FULL_SLICES: Final[dict[Plane, int]] = {"sagittal": 11, "axial": 15}
"""Slices of a complete series: five discs of three axial slices, or 11 x 4 mm across the lumbar vertebral bodies."""
MAX_PIXEL_MM: Final = 2.0
MAX_THICKNESS_MM: Final = 8.0
MAX_SAGITTAL_GAP_MM: Final = 10.0
"""Coarser images are localisers; clinical slices are 3-5 mm thick, at low field up to 6 mm every 7 mm."""
LOCALISER_MAX_TR_MS: Final = 20.0
LOCALISER_MIN_THICKNESS_MM: Final = 5.5
"""Gradient echoes this fast are localisers when their slices are this thick; 3D ones for diagnosis are thin."""
SAME_PROTOCOL: Final = 2.0
"""Images whose echo or repetition times differ by more than this factor are not of one acquisition."""
LUMBAR_FIELD_MM: Final = (180.0, 420.0)
"""Sagittal field of view along the body: L1 to S1 at least, not the whole spine."""

OTHER_REGIONS: Final = frozenset(("cervical", "thoracic", "elsewhere"))
VOUCHED_KINDS: Final[frozenset[SequenceKind | None]] = frozenset(("spin_echo", "inversion_recovery", "in_phase"))
"""Kinds whose physics vouches for an image that says no more than DERIVED: lossy compression makes images DERIVED too
(PS3.3 C.7.6.1.1.2). It costs score; of other kinds a DERIVED image may be anything."""

KIND_SCORE: Final[dict[SequenceKind, float]] = {
    "spin_echo": 1.0,
    "inversion_recovery": 0.9,
    "in_phase": 0.75,
    "gradient_echo": 0.65,
    "described": 0.4,
}


@dataclass(frozen=True)
class SelectRules:
    """Section [select]: what a site accepts beyond plain T1-weighted series."""

    accept_t2_axial: bool = False
    """Take a T2-weighted axial series where there is no T1-weighted one; the exam is flagged `t2_axial`."""
    accept_post_contrast: bool = False
    """Take series acquired after contrast agent, at a lower score."""
    accept_in_phase: bool = True
    """Take in-phase images of Dixon and gradient-echo acquisitions as T1-weighted, at a lower score."""


STANDARD_RULES: Final = SelectRules()


@dataclass(frozen=True)
class Candidate:
    """One part of a series with what its images have in common."""

    series_id: str
    part: int
    reason: str | None
    """Why it cannot be chosen; None if it can."""
    rows: tuple[FileRow, ...] = ()
    """All rows that conversion would read."""
    plane: str | None = None
    n_slices: int = 0
    n_stacks: int = 0
    pixel_mm: float = 0.0
    weighting: Weighting = OTHER
    score: float = 0.0
    z_mm: tuple[float, float] = (0.0, 0.0)
    """Lowest and highest image corner along the body, LPS z."""
    slice_z_mm: tuple[float, ...] = ()
    """Centres of the usable slices along the body, LPS z."""

    @property
    def frames(self) -> frozenset[str | None]:
        """Pseudonyms of the frames of reference."""
        return frozenset(row.frame_of_reference_id for row in self.rows)

    @property
    def hints(self) -> frozenset[str]:
        """Words of the descriptions."""
        return words(self.rows, "text_hints")


def examine_series(series_id: str, rows: Sequence[FileRow], rules: SelectRules) -> list[Candidate]:
    """Candidates of one series, one per part; a series without readable image is one candidate with its reason.

    Parameters
    ----------
    rows : all file rows of the series, unusable ones included
    """
    parts = split_parts(rows)
    if not parts:
        reasons = [row.reason for row in rows if row.reason]
        return [Candidate(series_id, 0, max(sorted(set(reasons)), key=reasons.count))]
    with np.errstate(over="ignore", invalid="ignore"):  # absurd numbers of a header end as a reason, not as a warning
        return [_examine(series_id, number, part, rules) for number, part in enumerate(parts)]


def _examine(series_id: str, number: int, part: Part, rules: SelectRules) -> Candidate:
    rows = part.usable
    if not rows:
        return Candidate(series_id, number, part.rows[0].reason, part.rows)
    geometry = _Geometry.of(rows)
    plane = series_plane(geometry.normal)
    image = dixon_image(rows, one_of_several_echoes=part.one_of_several_echoes)
    found = weighting(rows, image)
    reason = (
        _other_image(rows, plane, image, found, rules)
        or _other_weighting(rows, plane, found, rules)
        or _unfit(part, geometry, plane)
    )
    z_mm = geometry.corners_z_mm
    return Candidate(
        series_id=series_id,
        part=number,
        reason=reason,
        rows=part.rows,
        plane=plane,
        n_slices=part.n_slices,
        n_stacks=len(group_slices([row_pose(row) for row in rows], [row.frame_of_reference_id for row in rows])),
        pixel_mm=geometry.pixel_mm,
        weighting=found,
        score=0.0 if reason else _score(part, geometry, plane, found),
        z_mm=(float(np.min(z_mm)), float(np.max(z_mm))),
        slice_z_mm=tuple(np.mean(z_mm, axis=1).tolist()),
    )


@dataclass(frozen=True, eq=False)
class _Geometry:
    """Image planes of usable rows, [slice, ...]; LPS, mm."""

    position: Floats
    row_dir: Floats
    col_dir: Floats
    spacing: Floats
    """[slice, 2] between rows, between columns."""
    shape: Floats
    """[slice, 2] rows, columns."""

    @classmethod
    def of(cls, rows: Sequence[FileRow]) -> _Geometry:
        cosines = np.array([row.orientation for row in rows], dtype=np.float64)
        return cls(
            position=np.array([row.position_mm for row in rows], dtype=np.float64),
            row_dir=cosines[:, :3],
            col_dir=cosines[:, 3:],
            spacing=np.array([(row.row_spacing_mm, row.column_spacing_mm) for row in rows], dtype=np.float64),
            shape=np.array([(row.rows, row.columns) for row in rows], dtype=np.float64),
        )

    @cached_property
    def normal(self) -> Floats:
        """[slice, 3]."""
        return np.cross(self.row_dir, self.col_dir)

    @cached_property
    def pixel_mm(self) -> float:
        """Median of the larger pixel spacing."""
        return float(np.median(np.max(self.spacing, axis=1)))

    @cached_property
    def corners_z_mm(self) -> Floats:
        """[slice, 4] z of the corner voxels."""
        down, across = ((self.shape - 1) * self.spacing).T
        along_row, along_column = across * self.row_dir[:, 2], down * self.col_dir[:, 2]
        first = self.position[:, 2]
        return np.stack([first, first + along_row, first + along_column, first + along_row + along_column], axis=1)

    @property
    def gap_mm(self) -> float:
        """Median distance between neighbouring places along the first slice's normal; 0 where there is but one."""
        gaps = np.diff(np.sort(self.position @ self.normal[0]))
        apart = gaps[gaps > SAME_PLACE_MM]
        return float(np.median(apart)) if len(apart) else 0.0


def row_pose(row: FileRow) -> SlicePose:
    """Pose of a usable file row (RefusedError `no_geometry` otherwise)."""
    spacing = [value for value in (row.row_spacing_mm, row.column_spacing_mm) if value is not None]
    return slice_pose(
        position_mm=tuple(row.position_mm or ()),
        orientation=tuple(row.orientation or ()),
        spacing_mm=tuple(spacing),
        shape=(row.rows, row.columns),
        thickness_mm=row.thickness_mm,
    )


def series_plane(normals: Floats) -> str:
    """Plane of a series by the [n, 3] normals of its slices (LPS): sagittal, coronal, axial, oblique or mixed.

    A slice is of a plane within `OBLIQUE_LIMIT_DEG`. Steeper ones are allowed while they are the minority; slices of
    several planes are mixed.
    """
    along = np.abs(normals)
    axis = np.argmax(along, axis=1)
    near = np.max(along, axis=1) >= np.cos(np.deg2rad(OBLIQUE_LIMIT_DEG))
    planes = np.unique(axis[near])
    if len(planes) > 1:
        return "mixed"
    return ("sagittal", "coronal", "axial")[planes[0]] if 2 * np.sum(near) >= len(near) else "oblique"


def _other_image(
    rows: Sequence[FileRow], plane: str, image: DixonImage | None, found: Weighting, rules: SelectRules
) -> str | None:
    """Reason that excludes images of another kind, place or preparation, or None; the most telling one first."""
    types, hints = words(rows, "image_type"), words(rows, "text_hints")
    if "LOCALIZER" in types or "localiser" in hints:
        return "localiser"
    if plane not in ("sagittal", "axial"):
        return "wrong_plane"
    if types & DERIVED_WORDS or "derived" in hints:
        return "derived"
    if image not in (None, "in_phase") or (image == "in_phase" and not rules.accept_in_phase):
        return "dixon_part"
    if "DERIVED" in types and found.kind not in VOUCHED_KINDS:
        return "derived"
    if hints & {"stir", "fatsat"} or nulls_fat(rows):
        return "fat_suppressed"
    if "post_contrast" in hints and not rules.accept_post_contrast:
        return "post_contrast"
    return "other_region" if hints & OTHER_REGIONS and "lumbar" not in hints else None


def _other_weighting(rows: Sequence[FileRow], plane: str, found: Weighting, rules: SelectRules) -> str | None:
    """Reason that excludes a weighting, or a mixture of acquisitions that has none."""
    for values in ([row.echo_time_ms for row in rows], [row.repetition_time_ms for row in rows]):
        known = [value for value in values if value is not None]
        if known and max(known) > SAME_PROTOCOL * min(known):
            return "inconsistent_series"
    accepted = found.contrast == "t1" or (found.contrast == "t2" and plane == "axial" and rules.accept_t2_axial)
    if accepted:
        return None
    return "not_t1" if found.known else "weighting_unknown"


def _unfit(part: Part, geometry: _Geometry, plane: str) -> str | None:
    """Reason that excludes too few or too coarse slices."""
    minimum = MIN_SLICES["sagittal"] if plane == "sagittal" else MIN_SLICES["axial"]
    if part.n_slices < minimum:
        return "too_few_slices"
    repetition = middle(row.repetition_time_ms for row in part.usable) or np.inf
    thickness = middle(row.thickness_mm for row in part.usable) or 0.0
    fast_and_thick = repetition <= LOCALISER_MAX_TR_MS and thickness >= LOCALISER_MIN_THICKNESS_MM
    coarse = geometry.pixel_mm > MAX_PIXEL_MM or thickness > MAX_THICKNESS_MM
    wide = plane == "sagittal" and geometry.gap_mm > MAX_SAGITTAL_GAP_MM
    return "localiser" if fast_and_thick or coarse or wide else None


def _score(part: Part, geometry: _Geometry, plane: str, found: Weighting) -> float:
    """Score of an eligible part: its kind, then cover and pixel size, then what speaks against it; above zero."""
    rows = part.usable
    types, hints = words(rows, "image_type"), words(rows, "text_hints")
    full = FULL_SLICES["sagittal"] if plane == "sagittal" else FULL_SLICES["axial"]
    score = KIND_SCORE[found.kind] if found.kind else 0.0
    score += 0.15 * min(1.0, part.n_slices / full)
    score += 0.1 * min(1.0, max(0.0, 1.5 - geometry.pixel_mm))
    score += 0.05 * (found.contrast in hints) - 0.1 * bool(hints & ({"t1", "t2", "pd"} - {found.contrast}))
    score -= 0.2 * ("post_contrast" in hints)
    score -= 0.3 * ("DERIVED" in types and found.kind != "in_phase") + 0.3 * part.overlaps
    score -= 0.15 * (found.kind == "gradient_echo" and echo_phase(rows) == "out_of_phase")
    field_mm = float(np.ptp(geometry.corners_z_mm))
    score -= 0.1 * (plane == "sagittal" and not LUMBAR_FIELD_MM[0] <= field_mm <= LUMBAR_FIELD_MM[1])
    return max(0.01, score)
