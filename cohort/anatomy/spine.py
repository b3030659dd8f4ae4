"""Measure the spine of one exam: from the masks of its sagittal stack to rows of vertebrae, discs and curvature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cohort.anatomy.body_pieces import separate_bodies
from cohort.anatomy.curvature import curvature_row
from cohort.anatomy.disc_pieces import separate_discs
from cohort.anatomy.discs import DiscShape, MotionSegment, disc_row, disc_shape, mid_plane_normal
from cohort.anatomy.instances import Instances, Piece, spine_curve
from cohort.anatomy.levels import Levels, Named, disc_doubts, name_levels
from cohort.anatomy.muscle_levels import DiscPlane
from cohort.anatomy.orientation import Orientation, crop_box, cropped, shown_box, standing_order
from cohort.anatomy.outline import central_outlines
from cohort.anatomy.postprocess import cleaned
from cohort.anatomy.quality import VOLUME_ONLY, Flag, change_flags, check, marked, uncertainty_flags
from cohort.anatomy.sacrum import Sacrum, find_sacrum
from cohort.anatomy.size_jumps import marked_discs, marked_vertebrae
from cohort.anatomy.spine_curve import SpineCurve
from cohort.anatomy.vertebrae import (
    BodyShape,
    Endplate,
    body_shape,
    compression_ratios,
    facing_endplate,
    superior_endplate,
    vertebra_row,
)
from cohort.anatomy.vertebral_count import Count
from cohort.geometry import Floats, StackGeometry
from cohort.rows import CurvatureRow, DiscRow, VertebraRow
from cohort.stacks import LabelledStack, Labels
from cohort.terms import DISC, SACRAL_BODY, VERTEBRAL_BODY

CROP_MARGIN_PX = 6
"""Room around the structures for edge smoothing."""
CURVATURE_RESTS_ON = (None, "L1", "L2", "L5", "S1")
"""Structures whose flags the curvature inherits; None is the exam as a whole."""
MIN_ENDPLATE_SHARE = 0.65
"""Of the depth of the vertebra above: facing endplates are equally deep (L5 and S1 32 +- 3 mm). At least 0.73 on true
and degraded masks of development phantoms; a mask that lacks the top of S1 shows a shorter edge, tilted anyhow."""
SAME_ENDPLATE_DEG = 8.0
"""Two readings of one endplate; readers differ by 3-5 degrees on a Cobb angle."""


@dataclass(frozen=True, eq=False)
class Spine:
    """What was measured on the sagittal stack."""

    vertebrae: tuple[VertebraRow, ...] = ()
    discs: tuple[DiscRow, ...] = ()
    curvature: CurvatureRow | None = None
    flags: tuple[Flag, ...] = ()
    planes: tuple[DiscPlane, ...] = ()
    disc_doubts: Mapping[str, Sequence[Flag]] = field(default_factory=dict)
    """Name of a plane -> flags that everything read at it inherits."""
    endplates: Mapping[int, Endplate] = field(default_factory=dict)
    disc_shapes: Mapping[int, DiscShape] = field(default_factory=dict)
    cleaned: LabelledStack | None = None


SEGMENT_MM = 30.0
"""From a disc's centre to that of a body beside it: half a body (15 mm) and half a disc (6 mm), with room."""
Sides = tuple[BodyShape | None, Endplate | None]


@dataclass(frozen=True, eq=False)
class _Cut:
    """The part of a sagittal stack that holds the spine, in standing order."""

    bodies: Labels
    discs: Labels
    geometry: StackGeometry
    box: tuple[slice, slice]
    picture: tuple[slice, slice]
    """Rows and columns that are not padding: what is cut there is cut by the border."""
    full: StackGeometry
    order: Orientation
    holes: Mapping[str, int]
    """Label array -> voxels of holes that were filled."""


@dataclass(frozen=True, eq=False)
class Column:
    """Bodies and discs as they were found, before they are named."""

    cut: _Cut
    bodies: Instances
    discs: Instances
    sides: tuple[Sides, ...]
    """Of each body."""
    sacrum: Sacrum
    normals: tuple[Floats, ...]
    """Of each disc: [3] normal of its mid-plane, LPS, cranial."""
    curve: SpineCurve | None = None
    """None where there are neither bodies nor discs."""

    def slice_angle_deg(self, piece: Piece) -> float | None:
        """Angle between the spine at a piece and the plane of the slices: they pass through it obliquely by that much,
        and heights are too large by its cosine."""
        if self.curve is None:
            return None
        along = self.curve.tangent(np.asarray(self.curve.foot_z_mm(np.array(piece.centroid_mm))))
        return float(np.degrees(np.arcsin(min(abs(float(along @ self.cut.geometry.normal)), 1.0))))

    def centroids_mm(self) -> Floats:
        """[n, 3] LPS of the bodies from the probable S1 upward, from caudal to cranial."""
        kept = self.bodies.pieces[self.sacrum.s1 or 0 :]
        return np.array([piece.centroid_mm for piece in kept]).reshape(-1, 3)

    def planes(self) -> dict[int, DiscPlane]:
        """Place above S1 (0 is the lumbosacral disc) -> mid-plane of the disc, the largest where there are several;
        empty where S1 is not known."""
        if self.sacrum.s1 is None:
            return {}
        arcs = [body.arc_mm for body in self.bodies.pieces[self.sacrum.s1 :]]
        planes: dict[int, DiscPlane] = {}
        for disc, normal in sorted(
            zip(self.discs.pieces, self.normals, strict=True), key=lambda one: one[0].volume_cm3
        ):
            place = int(np.searchsorted(arcs, disc.arc_mm)) - 1
            if place >= 0:
                planes[place] = DiscPlane(f"disc-{place + 1}", np.array(disc.centroid_mm), normal)
        return planes


def find_column(sagittal: LabelledStack) -> Column:
    """Separate bodies and discs of one sagittal stack and find the sacrum among them."""
    cut = _cut(sagittal)
    curve = spine_curve(cut.bodies > 0, cut.discs > 0, cut.geometry)
    if curve is None:
        return Column(cut, _nothing(cut), _nothing(cut), (), Sacrum((), 1.0), ())
    bodies = separate_bodies(cut.bodies, cut.discs > 0, cut.geometry, curve)
    discs = separate_discs(cut.discs > 0, bodies, cut.geometry, curve)
    sacrum = find_sacrum(bodies, discs.pieces, cut.geometry, picture=cropped(cut.full, cut.picture))
    sides = tuple(
        _body_sides(bodies, i + 1, cut.geometry, curve, sacral=sacrum.is_sacral(i, piece))
        for i, piece in enumerate(bodies.pieces)
    )
    return Column(
        cut=cut,
        bodies=bodies,
        discs=discs,
        sides=_without_short_endplate(sides, sacrum.s1),
        sacrum=sacrum,
        normals=tuple(
            mid_plane_normal(discs.points_mm(label, cut.geometry), cut.geometry.normal)
            for label in range(1, len(discs.pieces) + 1)
        ),
        curve=curve,
    )


def _nothing(cut: _Cut) -> Instances:
    return Instances(np.zeros(cut.bodies.shape, np.uint8), (), ())


def measure_spine(
    exam_id: str, sagittal: LabelledStack, column: Column, count: Count, conflicts: Sequence[Flag] = ()
) -> Spine:
    """Name and measure the vertebrae and discs of one sagittal stack, and its curvature.

    Parameters
    ----------
    column : what `find_column` found in it
    count, conflicts : see `levels.name_levels`
    """
    cut, bodies, discs = column.cut, column.bodies, column.discs
    doubts = uncertainty_flags(sagittal.uncertainty)
    if not bodies.pieces and not discs.pieces:
        missing = (Flag("no_vertebrae"), Flag("no_discs"), *doubts)
        return Spine(flags=missing, cleaned=_cleaned(sagittal, cut, None, None))
    levels = name_levels(bodies.pieces, discs.pieces, column.sacrum, count, conflicts)
    doubts += _found_flags(cut, bodies, discs, levels)
    vertebrae, used, body_flags = _vertebra_rows(exam_id, column, levels)
    segments = _segments(bodies, discs, {levels.bodies[i].index: used[i] for i in used})
    disc_rows, disc_shapes, disc_flags = _disc_rows(exam_id, column, levels.discs, segments)
    vertebrae, body_jumps = marked_vertebrae(vertebrae)
    disc_rows, disc_jumps = marked_discs(disc_rows)
    body_flags, disc_flags = [*body_flags, *body_jumps], [*disc_flags, *disc_jumps]
    curvature, curvature_flags = curvature_row(
        exam_id,
        {row.level: np.array([row.x_mm, row.y_mm, row.z_mm]) for row in vertebrae if row.level and _whole(row)},
        {row.level: used[i][1] for i, row in enumerate(vertebrae) if row.level and i in used},
        {row.level: shape for i, row in enumerate(vertebrae) if row.level and i in used and (shape := used[i][0])},
        [
            flag
            for flag in (*levels.flags, *body_flags)
            if flag.structure in CURVATURE_RESTS_ON and flag.reason not in VOLUME_ONLY
        ],
    )
    return Spine(
        vertebrae=tuple(vertebrae),
        discs=tuple(disc_rows),
        curvature=curvature,
        flags=(*doubts, *body_flags, *disc_flags, *curvature_flags),
        planes=tuple(
            DiscPlane(
                one.called("disc"),
                np.array(discs.pieces[one.index].centroid_mm),
                column.normals[one.index],
            )
            for one in levels.discs
        ),
        disc_doubts=disc_doubts(levels, disc_flags),
        endplates={i: endplate for i, (_, endplate) in used.items()},
        disc_shapes=disc_shapes,
        cleaned=_cleaned(
            sagittal, cut, _renumbered(bodies.labels, levels.bodies), _renumbered(discs.labels, levels.discs)
        ),
    )


def _whole(row: VertebraRow) -> bool:
    """Its centroid is that of the body, not of the part in view or of something else."""
    return row.status != "refused" and not row.touches_border


def _cut(sagittal: LabelledStack) -> _Cut:
    native = sagittal.stack.geometry
    order = standing_order(native, "sagittal")
    bodies, discs = (order.apply(sagittal.labels[name]) for name in ("vertebral_body", "disc"))
    full = order.geometry(native)
    mask = (bodies | discs) > 0
    picture = shown_box(order.apply(sagittal.stack.image), mask)
    box = crop_box(mask, margin=CROP_MARGIN_PX, within=picture)
    bodies, discs = (np.ascontiguousarray(labels[:, box[0], box[1]]) for labels in (bodies, discs))
    geometry = cropped(full, box)
    bodies, body_holes = cleaned(bodies, (VERTEBRAL_BODY, SACRAL_BODY), spacing_mm=geometry.spacing_mm)
    discs, disc_holes = cleaned(discs, (DISC,), spacing_mm=geometry.spacing_mm)
    holes = {"vertebral_body": body_holes, "disc": disc_holes}
    return _Cut(bodies, discs, geometry, box, picture, full, order, holes)


def _body_sides(bodies: Instances, label: int, geometry: StackGeometry, curve: SpineCurve, *, sacral: bool) -> Sides:
    """Shape and superior endplate of one body on its central slices.

    A sacral body is no box: its endplate is the part that faces the body above, and its shape counts only where it
    agrees."""
    piece = bodies.pieces[label - 1]
    centroid = np.array(piece.centroid_mm)
    k = _central_slice(bodies, label, geometry)
    outlines = _outlines(bodies, label, geometry, k)
    if not sacral or label == len(bodies.pieces):
        shape = body_shape(outlines, geometry, index=k, cranial=curve.tangent(np.array(curve.foot_z_mm(centroid))))
        return shape, superior_endplate(shape) if shape else None
    above = np.array(bodies.pieces[label].centroid_mm) - centroid
    endplate = facing_endplate(outlines, geometry, index=k, cranial=above)
    shape = body_shape(outlines, geometry, index=k, cranial=above)
    if endplate is None or shape is None:
        return None, endplate
    agree = abs(superior_endplate(shape).tilt_deg - endplate.tilt_deg) < SAME_ENDPLATE_DEG
    return (shape if agree else None), endplate


def _without_short_endplate(sides: tuple[Sides, ...], s1: int | None) -> tuple[Sides, ...]:
    """Without the endplate of S1 where it is much shorter than the vertebra above is deep: its mask lacks the top."""
    if s1 is None or s1 + 1 >= len(sides):
        return sides
    endplate, above = sides[s1][1], sides[s1 + 1][0]
    if endplate is None or above is None or endplate.depth_mm >= MIN_ENDPLATE_SHARE * above.depth_mm:
        return sides
    return (*sides[:s1], (None, None), *sides[s1 + 1 :])


def _central_slice(instances: Instances, label: int, geometry: StackGeometry) -> int:
    """Slice nearest to the centroid of a piece among those that show it."""
    wanted = float(geometry.to_index(np.array(instances.pieces[label - 1].centroid_mm))[0])
    present = np.flatnonzero(instances.mask(label).any(axis=(1, 2))) + instances.boxes[label - 1][0].start
    return int(present[np.argmin(np.abs(present - wanted))])


def _outlines(instances: Instances, label: int, geometry: StackGeometry, k: int) -> list[Floats]:
    first, top, left = (edge.start for edge in instances.boxes[label - 1])
    return central_outlines(instances.mask(label), geometry, index=k, corner=(first, top, left))


def _segments(bodies: Instances, discs: Instances, used: Mapping[int, Sides]) -> list[MotionSegment]:
    """Of each disc, the shapes of the bodies beside it that may be used."""
    segments = []
    for disc in discs.pieces:
        near = [i for i, body in enumerate(bodies.pieces) if abs(body.arc_mm - disc.arc_mm) <= SEGMENT_MM]
        above = next((used.get(i) for i in near if bodies.pieces[i].arc_mm > disc.arc_mm), None)
        below = next((used.get(i) for i in reversed(near) if bodies.pieces[i].arc_mm <= disc.arc_mm), None)
        shape, endplate = above or (None, None)
        segments.append(MotionSegment(shape, endplate, below[1] if below else None))
    return segments


def _found_flags(cut: _Cut, bodies: Instances, discs: Instances, levels: Levels) -> list[Flag]:
    flags = [] if bodies.pieces else [Flag("no_vertebrae")]
    flags += [] if discs.pieces else [Flag("no_discs")]
    for name, instances, mask in (("vertebral_body", bodies, cut.bodies), ("disc", discs, cut.discs)):
        removed = instances.changes.removed_voxels + instances.changes.bridge_voxels
        flags += check("removed_share", removed / max(int(np.count_nonzero(mask)), 1), name)
        flags += change_flags(instances.changes, cut.holes[name], name)
    return [*flags, *levels.flags]


def _extent(instances: Instances, label: int, cut: _Cut) -> tuple[int, int, bool, bool]:
    """Slices seen, slices there would be without gaps, cut by the image border, reaches the first or last slice."""
    k, row, column = instances.boxes[label - 1]
    border = any(
        extent.start + box.start == shown.start or extent.stop + box.start == shown.stop
        for extent, box, shown in zip((row, column), cut.box, cut.picture, strict=True)
    )
    seen = int(instances.mask(label).any(axis=(1, 2)).sum())
    reach = cut.full.slice_distance_mm[[k.start, k.stop - 1]]
    expected = 1 + round(float(np.ptp(reach)) / abs(cut.full.slice_gap_mm))
    return seen, expected, border, k.start == 0 or k.stop == cut.full.n_slices


def _vertebra_rows(
    exam_id: str, column: Column, levels: Levels
) -> tuple[list[VertebraRow], dict[int, tuple[BodyShape | None, Endplate]], list[Flag]]:
    """Rows, the shapes that may be used (index of the row -> shape, endplate), and flags."""
    rows: list[VertebraRow] = []
    used: dict[int, tuple[BodyShape | None, Endplate]] = {}
    flags: list[Flag] = []
    cut, bodies = column.cut, column.bodies
    extents = [_extent(bodies, one.index + 1, cut) for one in levels.bodies]
    heights = compression_ratios(
        [
            None if border else _mobile_shape(column, one.index)
            for one, (_, _, border, _) in zip(levels.bodies, extents, strict=True)
        ]
    )
    for i, one in enumerate(levels.bodies):
        seen, expected, border, outermost = extents[i]
        shape, endplate = column.sides[one.index]
        row, own = vertebra_row(
            exam_id,
            one,
            bodies.pieces[one.index],
            shape,
            endplate,
            compression=heights[i],
            slices_seen=seen,
            slices_expected=expected,
            touches_border=border,
            outermost_slice=outermost,
            evidence=levels.evidence,
        )
        oblique = check("slice_angle_deg", column.slice_angle_deg(bodies.pieces[one.index]), one.called("body"))
        row = marked(row, oblique)
        rows.append(row)
        flags += [*own, *oblique]
        if endplate is not None and not border and row.status != "refused":
            used[i] = (shape, endplate)
    return rows, used, flags


def _mobile_shape(column: Column, index: int) -> BodyShape | None:
    return None if column.sacrum.is_sacral(index, column.bodies.pieces[index]) else column.sides[index][0]


def _disc_rows(
    exam_id: str, column: Column, named: Sequence[Named], segments: Sequence[MotionSegment]
) -> tuple[list[DiscRow], dict[int, DiscShape], list[Flag]]:
    cut, discs = column.cut, column.discs
    rows: list[DiscRow] = []
    shapes: dict[int, DiscShape] = {}
    flags: list[Flag] = []
    for i, one in enumerate(named):
        label, piece = one.index + 1, discs.pieces[one.index]
        k = _central_slice(discs, label, cut.geometry)
        shape = disc_shape(_outlines(discs, label, cut.geometry, k), cut.geometry, index=k)
        seen, expected, border, outermost = _extent(discs, label, cut)
        row, own = disc_row(
            exam_id,
            one,
            piece,
            shape,
            segments[one.index],
            central_slice=cut.order.native_slice(k, n_slices=cut.full.n_slices),
            slices_seen=seen,
            slices_expected=expected,
            touches_border=border,
            outermost_slice=outermost,
        )
        oblique = check("slice_angle_deg", column.slice_angle_deg(piece), one.called("disc"))
        rows.append(marked(row, oblique))
        flags += [*own, *oblique]
        if shape is not None and not border:
            shapes[i] = shape
    return rows, shapes, flags


def _renumbered(labels: Labels, named: Sequence[Named]) -> Labels:
    """Instance array whose value v is the v-th named piece; unnamed ones (below S1) are background."""
    new = np.zeros(256, dtype=np.uint8)
    for number, one in enumerate(named, start=1):
        new[one.index + 1] = number
    return new[labels]


def _cleaned(sagittal: LabelledStack, cut: _Cut, bodies: Labels | None, discs: Labels | None) -> LabelledStack:
    def native(part: Labels | None) -> Labels:
        whole = np.zeros((cut.full.n_slices, *cut.full.shape), dtype=np.uint8)
        if part is not None:
            whole[:, cut.box[0], cut.box[1]] = part
        return np.asarray(cut.order.restore(whole), dtype=np.uint8)

    labels = {
        "vertebral_body": native(cut.bodies),
        "disc": native(cut.discs),
        "body_instances": native(bodies),
        "disc_instances": native(discs),
    }
    return replace(sagittal, labels=labels)
