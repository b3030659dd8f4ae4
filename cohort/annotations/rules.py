"""Rules of Hess et al. 2023 on what is annotated, as checks of an annotation.

Bodies that are not wholly in view are left out, nothing below S1 is labelled, posterior elements are no part of a body,
and exams that show fewer than half of the discs are not used. Mirror images are found as far as labels show them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cohort.anatomy.orientation import standing_order
from cohort.annotations.assemble import Sheet
from cohort.annotations.follows_picture import best_elsewhere
from cohort.annotations.store import LEVEL_NAMES, Annotation, Masked
from cohort.stacks import LabelledStack, Labels
from cohort.terms import MUSCLE_LABELS, MUSCLES, SACRAL_BODY, VERTEBRAL_BODY

PAPER_DISCS: Final = 7
"""T11-T12 to L5-S1, as in Hess et al. 2023."""
SAME_BODY: Final = 0.5
"""Part of the smaller mask that two slices must share to show one body (own choice)."""
OPENING: Final = 0.8
"""Diameter of the disc that a body is opened with, of the largest that fits into it (own choice): bodies are 22 to 31
mm high, pedicles 13 to 16 mm (Panjabi et al. 1992, as remembered), so the stalk goes and the body stays."""
STALK_MM: Final = 7.0
"""Thickness of what is left behind the opened body from which a pedicle is suspected (own choice): half a pedicle. What
opening takes off the corner of a rectangle is thinner than 5 mm."""
SMALLEST_DISC_MM2: Final = 30.0
"""Pieces smaller than this are no disc: the smallest is 20 mm long and 3 mm high (own choice)."""
DOUBTFUL: Final = 1.05
CLEARLY: Final = 1.10
"""Gain of the gradient under outlines, elsewhere in the picture, from which a mask is flagged, and refused. Own choice:
masks in their place gain 1.02 at most, mirrored ones of two slices or more 1.09 or more (docs/annotations.md)."""

Bools = npt.NDArray[np.bool_]


def apply_rules(annotation: Annotation, sheet: Sheet) -> Annotation:
    """Check an annotation; rows are added to the sheet.

    Returns
    -------
    The annotation without what the rules leave out: whole arrays that are mirrored or shifted, bodies that touch the
    border of the image, and what lies below S1
    """
    kept = _without(annotation, _misplaced(annotation, sheet))
    for one in kept.labelled:
        if "vertebral_body" in one.labels:
            _suspect_pedicles(one, kept, sheet)
    return _count_discs(_in_view_and_above(kept, sheet), sheet)


def _without(annotation: Annotation, dropped: set[Masked]) -> Annotation:
    """Without some arrays, and without stacks that have none left."""
    labelled = []
    for one in annotation.labelled:
        key = (one.stack.plane, one.stack.index)
        labels = {name: mask for name, mask in one.labels.items() if (*key, name) not in dropped}
        labelled += [replace(one, labels=labels)] if labels else []
    slices = {key: k for key, k in annotation.slices.items() if key not in dropped}
    levels = {key: values for key, values in annotation.levels.items() if key not in dropped}
    return replace(annotation, labelled=labelled, slices=slices, levels=levels)


# -- mirrored and shifted ----------------------------------------------------------------------------------------------


def _misplaced(annotation: Annotation, sheet: Sheet) -> set[Masked]:
    """Arrays that are mirror images, or that the picture shows to lie elsewhere."""
    dropped: set[Masked] = set()
    for one in annotation.labelled:
        key = (one.stack.plane, one.stack.index)
        for name, mask in one.labels.items():
            if _swapped(one, name, mask, sheet) or _upside_down(one, name, annotation, sheet):
                dropped.add((*key, name))
            elif name != "disc" and _off_picture(one, name, annotation.slices[*key, name], sheet):
                dropped.add((*key, name))
        if dropped & {(*key, "vertebral_body")}:
            dropped |= {(*key, name) for name in one.labels}  # of one picture: the discs lie as the bodies do
    return dropped


def _swapped(one: LabelledStack, name: str, mask: Labels, sheet: Sheet) -> bool:
    """Left muscles must lie at larger x than right ones."""
    if name != "muscle":
        return False
    apart = []
    for muscle in MUSCLES:
        left, right = (mask == MUSCLE_LABELS[muscle, side] for side in ("left", "right"))
        if left.any() and right.any():
            apart.append(float(_centre(one, left)[0] - _centre(one, right)[0]))
    if not apart or np.median(apart) > 0:
        return False
    off = round(float(np.median(apart)), 1)
    detail = f"left muscles lie {-off:.1f} mm to the right of right ones along x of LPS"
    _note(one, sheet, "sides_swapped", "refused", name, value=off, limit=0.0, detail=detail)
    return True


def _upside_down(one: LabelledStack, name: str, annotation: Annotation, sheet: Sheet) -> bool:
    """Structures named or classed from cranial to caudal must lie so; neighbours that do not are told."""
    heights = _heights(one, name, annotation.levels.get((one.stack.plane, one.stack.index, name)))
    if len(heights) < 2:
        return False
    steps = -np.diff([height for _, height in heights])
    if np.all(steps < 0):
        detail = f"{heights[0][0]} lies {-steps.sum():.1f} mm below {heights[-1][0]}"
        _note(
            one, sheet, "mask_mirrored", "refused", name, value=round(float(steps.sum()), 1), limit=0.0, detail=detail
        )
        return True
    for (above, _), (below, _), step in zip(heights, heights[1:], steps, strict=False):
        if step < 0:
            detail = f"{above} lies {-step:.1f} mm below {below}"
            _note(
                one,
                sheet,
                "levels_out_of_order",
                "flagged",
                name,
                value=round(float(step), 1),
                limit=0.0,
                detail=detail,
            )
    return False


def _heights(one: LabelledStack, name: str, levels: Labels | None) -> list[tuple[str, float]]:
    """Structures of a sagittal stack from the one that should be highest, with z of their centres, mm."""
    if one.stack.plane != "sagittal":
        return []
    if levels is not None:
        values = [int(value) for value in np.unique(levels[levels > 0])]
        order = sorted(values, key=lambda value: _caudal_rank(LEVEL_NAMES[value - 1]))
        return [(LEVEL_NAMES[value - 1], float(_centre(one, levels == value)[2])) for value in order]
    kinds = {"bodies": VERTEBRAL_BODY, "sacrum": SACRAL_BODY} if name == "vertebral_body" else {}
    masks = {text: one.labels[name] == value for text, value in kinds.items()}
    return [(text, float(_centre(one, mask)[2])) for text, mask in masks.items() if mask.any()]


def _caudal_rank(level: str) -> int:
    """By the upper vertebra of a disc, or the vertebra."""
    return LEVEL_NAMES.index(level.split("-", 1)[0])


def _off_picture(one: LabelledStack, name: str, slices: Sequence[int], sheet: Sheet) -> bool:
    """Would the outlines follow the picture clearly better elsewhere?"""
    drawn = [k for k in slices if one.labels[name][k].any()]
    found = best_elsewhere(one.stack, one.labels[name], drawn) if drawn else None
    if found is None or found.gain < DOUBTFUL:
        return False
    turned = f"{' and '.join(found.mirrored)} reversed and " if found.mirrored else ""
    detail = f"fits better with {turned}moved by {found.shift_mm[0]:+.1f} mm along rows, {found.shift_mm[1]:+.1f} mm "
    detail += f"along columns; {found.n_pixels} pixels of outlines"
    status = "refused" if found.gain >= CLEARLY else "flagged"
    _note(one, sheet, "mask_off_picture", status, name, value=found.gain, limit=DOUBTFUL, detail=detail)
    return found.gain >= CLEARLY


# -- bodies, discs and S1 ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Piece:
    """One connected piece of a mask on one slice."""

    slice: int
    mask: Bools
    """[row, column]."""
    value: int
    level: int


def _pieces(one: LabelledStack, name: str, levels: Labels | None, slices: Sequence[int]) -> Iterator[_Piece]:
    """Pieces of one value and one level; pixels that touch by a corner belong together."""
    for k in slices:
        kinds = one.labels[name][k].astype(np.int64) * 256 + (levels[k] if levels is not None else 0)
        for kind in np.unique(kinds[one.labels[name][k] > 0]).tolist():
            numbered, n = ndimage.label(kinds == kind, np.ones((3, 3)))
            yield from (_Piece(k, numbered == number, kind // 256, kind % 256) for number in range(1, n + 1))


def _in_view_and_above(annotation: Annotation, sheet: Sheet) -> Annotation:
    """Without bodies that touch the border and without what lies below S1."""
    labelled, levels = [], dict(annotation.levels)
    for one in annotation.labelled:
        gone = {name: np.zeros(mask.shape, bool) for name, mask in one.labels.items()}
        if "vertebral_body" in one.labels:
            _cut_off(one, annotation, gone, sheet)
            _below_s1(one, annotation, gone, sheet)
        labels = {name: np.where(gone[name], 0, mask).astype(np.uint8) for name, mask in one.labels.items()}
        labelled.append(replace(one, labels=labels))
        for name in labels:
            key = (one.stack.plane, one.stack.index, name)
            if key in levels:
                levels[key] = np.where(gone[name], 0, levels[key]).astype(np.uint8)
    return replace(annotation, labelled=labelled, levels=levels)


def _listed(one: LabelledStack, name: str, annotation: Annotation) -> list[_Piece]:
    key = (one.stack.plane, one.stack.index, name)
    return list(_pieces(one, name, annotation.levels.get(key), annotation.slices[key]))


def _cut_off(one: LabelledStack, annotation: Annotation, gone: Mapping[str, Bools], sheet: Sheet) -> None:
    """Bodies above the sacrum that touch the border on any slice go on all slices."""
    bodies = [piece for piece in _listed(one, "vertebral_body", annotation) if piece.value == VERTEBRAL_BODY]
    cut = [piece for piece in bodies if _touches_border(piece.mask)]
    for piece in bodies:
        if any(piece is other or _same_body(piece, other) for other in cut):
            gone["vertebral_body"][piece.slice][piece.mask] = True
            _note_piece(one, sheet, "body_cut_off", piece)


def _touches_border(mask: Bools) -> bool:
    return bool(mask[[0, -1]].any() or mask[:, [0, -1]].any())


def _same_body(a: _Piece, b: _Piece) -> bool:
    if a.level and b.level:
        return a.level == b.level
    shared = np.count_nonzero(a.mask & b.mask)
    return a.slice != b.slice and bool(shared >= SAME_BODY * min(np.count_nonzero(a.mask), np.count_nonzero(b.mask)))


def _below_s1(one: LabelledStack, annotation: Annotation, gone: Mapping[str, Bools], sheet: Sheet) -> None:
    """The highest sacral piece of a slice is S1; sacral pieces and discs below it go."""
    down = _downward(one)
    sacral: dict[int, list[_Piece]] = {}
    for piece in _listed(one, "vertebral_body", annotation):
        if piece.value == SACRAL_BODY:
            sacral.setdefault(piece.slice, []).append(piece)
    highest = {k: min(float(down[piece.mask].mean()) for piece in pieces) for k, pieces in sacral.items()}
    for k, pieces in sacral.items():
        for piece in pieces:
            if down[piece.mask].mean() > highest[k]:
                gone["vertebral_body"][k][piece.mask] = True
                _note_piece(one, sheet, "below_s1", piece)
    for piece in _listed(one, "disc", annotation) if "disc" in one.labels and highest else ():
        nearest = min(highest, key=lambda k: abs(k - piece.slice))
        if down[piece.mask].mean() > highest[nearest]:
            gone["disc"][piece.slice][piece.mask] = True
            _note_piece(one, sheet, "below_s1", piece, array="disc")


def _downward(one: LabelledStack) -> npt.NDArray[np.float64]:
    """[row, column] mm towards the feet."""
    grid = one.stack.geometry
    rows, columns = np.indices(grid.shape)
    per_row, per_column = -grid.col_dir[2] * grid.spacing_mm[0], -grid.row_dir[2] * grid.spacing_mm[1]
    return np.asarray(rows * per_row + columns * per_column, dtype=np.float64)


def _suspect_pedicles(one: LabelledStack, annotation: Annotation, sheet: Sheet) -> None:
    """Tell of bodies with a thick stalk at their back."""
    order = standing_order(one.stack.geometry, "sagittal")
    spacing = order.geometry(one.stack.geometry).spacing_mm
    for piece in _listed(one, "vertebral_body", annotation):
        if piece.value == VERTEBRAL_BODY:
            thick = stalk_mm(order.apply(piece.mask[None])[0], spacing)
            if thick >= STALK_MM:
                _note_piece(one, sheet, "pedicle_suspected", piece, "flagged", value=round(thick, 1), limit=STALK_MM)


def stalk_mm(body: Bools, spacing_mm: tuple[float, float]) -> float:
    """Thickness of the thickest piece that opening takes off the back of a body, mm; 0 without one.

    The body is opened with a disc of `OPENING` times the largest that fits into it, and thickness is the diameter of
    the largest disc that fits into what goes. Own method: a pedicle is a stalk half as thick as its body is high.

    Parameters
    ----------
    body : [row, column] mask of one body on a sagittal slice, columns from front to back
    """
    box = np.pad(body[ndimage.find_objects(body.astype(np.int8))[0]], 1)
    depth = ndimage.distance_transform_edt(box, spacing_mm)
    radius = OPENING * float(depth.max())
    core = depth >= radius
    opened = ndimage.distance_transform_edt(~core, spacing_mm) < radius
    rest, n = ndimage.label(box & ~opened)
    middle = np.nonzero(core)[1].mean()
    behind = [number for number in range(1, n + 1) if np.nonzero(rest == number)[1].mean() > middle]
    inside = [float(ndimage.distance_transform_edt(rest == number, spacing_mm).max()) for number in behind]
    return max(2 * max(inside, default=0.0) - float(np.mean(spacing_mm)), 0.0)


def _count_discs(annotation: Annotation, sheet: Sheet) -> Annotation:
    """Tell of exams with fewer than half of the discs."""
    for one in annotation.labelled:
        if "disc" not in one.labels:
            continue
        key = (one.stack.plane, one.stack.index, "disc")
        n_discs = _n_discs(one, annotation.levels.get(key), annotation.slices[key])
        if n_discs < PAPER_DISCS / 2:
            detail = f"{n_discs} of {PAPER_DISCS} discs"
            limit = PAPER_DISCS / 2
            _note(one, sheet, "exam_incomplete", "flagged", "disc", value=float(n_discs), limit=limit, detail=detail)
    return annotation


def _n_discs(one: LabelledStack, levels: Labels | None, slices: Sequence[int]) -> int:
    """Named levels, or pieces: of the slice with most of them, or of all slices laid over each other."""
    if levels is not None and levels.any():
        return len(np.unique(levels[levels > 0]))
    mask = one.labels["disc"] > 0
    least = SMALLEST_DISC_MM2 / (one.stack.geometry.spacing_mm[0] * one.stack.geometry.spacing_mm[1])
    return max((_n_pieces(plane, least) for plane in (*mask[list(slices)], mask.any(axis=0))), default=0)


def _n_pieces(plane: Bools, least: float) -> int:
    numbered, _ = ndimage.label(plane, np.ones((3, 3)))
    return int(np.count_nonzero(np.bincount(numbered.ravel())[1:] >= least))


# -- rows --------------------------------------------------------------------------------------------------------------


def _centre(one: LabelledStack, mask: Bools) -> npt.NDArray[np.float64]:
    """[3] centroid, LPS mm."""
    return one.stack.geometry.to_lps(np.argwhere(mask).mean(axis=0))


def _note(one: LabelledStack, sheet: Sheet, reason: str, status: Any, array: str, **seen: Any) -> None:
    sheet.note(reason, status, place=(one.stack.plane, one.stack.index, None), array=array, **seen)


def _note_piece(
    one: LabelledStack, sheet: Sheet, reason: str, piece: _Piece, status: Any = "refused",
    array: str = "vertebral_body", **seen: Any,
) -> None:  # fmt: skip
    place = (one.stack.plane, one.stack.index, piece.slice)
    label = LEVEL_NAMES[piece.level - 1] if piece.level else None
    sheet.note(reason, status, place=place, array=array, label=label, **seen)
