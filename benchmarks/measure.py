"""Seconds per exam and core of measuring masks, by step; beside it the plain way to measure them, in one run.

python benchmarks/measure.py [--exams 8] [--json]

Phantom exams of usual size: 15 sagittal slices of 512 x 512 pixels of 0.586 mm every 4.4 mm, and axial slices in one
block or in five stacks along the discs. The plain way is what a reader of Hess et al. (2023) would write with the
functions everybody has: `scipy.ndimage.label` and `skimage.measure.regionprops` for discs in 3D, `cv2.minAreaRect` of
the pixels on the slice of the centroid, and counted pixels of muscles. It names nothing, separates nothing and checks
nothing. Both measure true masks and degraded ones; heights of discs are compared with the truth.

Time is processor time of one core, the best of three. The split is the share of time spent in the functions of each
step (cProfile) times the time without the profiler.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core for everybody

import cv2
import numpy as np
from scipy import ndimage
from skimage.measure import regionprops

from cohort.anatomy.measure import Measurements, measure_exam
from cohort.anatomy.orientation import Orientation, cropped
from cohort.geometry import Floats, StackGeometry
from cohort.stacks import LabelledStack, Labels
from cohort.terms import MUSCLE_LABELS
from models.phantom.study import Acquisition, StudyExam, study_plan
from models.phantom.study_masks import DrawnExam, StudyMasks, draw_exam
from pipelines.validation.anatomy_score import WHOLE_IN_VIEW, study_stacks

REPETITIONS: Final = 3
MATRIX: Final = 512
STANDING: Final = Orientation(False, (False, False, False))
NEAR_MM: Final = 10.0
"""A measured disc is the true one within this distance of its centroid: the next one is 28 mm away or more."""
MIN_VOXELS: Final = 20

STEPS: Final[dict[str, tuple[str, ...]]] = {
    "cut and clean": ("spine.py:_cut", "muscles.py:clean_muscles"),
    "curve": ("instances.py:spine_curve",),
    "separation": ("body_pieces.py:separate_bodies", "disc_pieces.py:separate_discs"),
    "shapes": (
        "outline.py:central_outlines",
        "vertebrae.py:body_shape",
        "vertebrae.py:facing_endplate",
        "discs.py:disc_shape",
        "discs.py:mid_plane_normal",
    ),
    "naming": ("sacrum.py:find_sacrum", "axial_levels.py:axial_evidence", "levels.py:name_levels"),
    "muscles": (
        "lean.py:lean_rule",
        "muscles.py:muscle_rows",
        "muscles.py:side_flags",
        "muscles.py:midline_flags",
        "muscles.py:judged_rows",
    ),
    "muscles at levels": ("muscle_levels.py:muscle_level_rows",),
    "quality": (
        "image_quality.py:picture_flags",
        "size_jumps.py:marked_vertebrae",
        "size_jumps.py:marked_discs",
        "quality.py:quality_rows",
        "quality.py:exam_status",
        "quality.py:withheld",
    ),
}
"""Step -> functions of `cohort.anatomy` that are it; none of them calls another."""


@dataclass(frozen=True, eq=False)
class Case:
    """One exam on one kind of masks."""

    drawn: DrawnExam
    sagittal: LabelledStack
    axial: list[LabelledStack]


@dataclass(frozen=True, eq=False)
class PlainDisc:
    """A disc measured the plain way."""

    centroid_mm: Floats
    height_mm: float


# -- exams -------------------------------------------------------------------------------------------------------------


def cases(n: int) -> dict[str, list[Case]]:
    """Exams with true and with degraded masks, from complete fields of view of the study."""
    chosen = [exam for exam in study_plan(16 * n) if exam.stratum in ("typical", "fracture", "narrow disc")][:n]
    drawn = [draw_exam(_usual(exam, k)) for k, exam in enumerate(chosen)]
    return {
        "true": [_case(one, one.true_masks) for one in drawn],
        "degraded": [_case(one, one.degraded) for one in drawn],
    }


def _usual(exam: StudyExam, k: int) -> StudyExam:
    """The exam on the grid of an everyday protocol."""
    usual: Acquisition = replace(
        exam.acquisition,
        pixel_mm=(0.586, 0.586),
        gap_mm=4.4,
        thickness_mm=4.0,
        n_slices=15,
        missing=(),
        top=("T12", 0.0),
        bottom=("S2", -1.2),
        order=STANDING,
    )
    plan = replace(exam.plan, axial="block" if k % 2 else "per_disc")
    return replace(exam, plan=plan, acquisition=usual)


def _case(drawn: DrawnExam, masks: StudyMasks) -> Case:
    sagittal, axial = study_stacks(drawn, masks)
    rows, columns = sagittal.stack.geometry.shape
    top, left = (MATRIX - rows) // 2, (MATRIX - columns) // 2
    box = (slice(-top, MATRIX - top), slice(-left, MATRIX - left))
    pads = ((0, 0), (top, MATRIX - rows - top), (left, MATRIX - columns - left))
    stack = replace(
        sagittal.stack, image=np.pad(sagittal.stack.image, pads), geometry=cropped(sagittal.stack.geometry, box)
    )
    labels = {name: np.pad(label, pads) for name, label in sagittal.labels.items()}
    return Case(drawn, LabelledStack(stack, labels, {}), axial)


# -- two ways ----------------------------------------------------------------------------------------------------------


def ours(case: Case) -> Measurements:
    """This library."""
    return measure_exam("benchmark", case.sagittal, case.axial)


def plain(case: Case) -> tuple[list[PlainDisc], dict[tuple[int, int, int], float]]:
    """Discs, and (stack, slice, muscle label) -> cm2."""
    areas = {}
    for s, one in enumerate(case.axial):
        pixel_cm2 = float(np.prod(one.stack.geometry.spacing_mm)) / 100
        for k, plane in enumerate(one.labels["muscle"]):
            areas |= {(s, k, value): float((plane == value).sum() * pixel_cm2) for value in MUSCLE_LABELS.values()}
    return plain_discs(case.sagittal.labels["disc"], case.sagittal.stack.geometry), areas


def plain_discs(mask: Labels, geometry: StackGeometry) -> list[PlainDisc]:
    """Connected pieces [slice, row, column], each with the rectangle of its pixels on the slice of its centroid."""
    labelled, _ = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    found = []
    for region in regionprops(labelled):
        plane = labelled[round(region.centroid[0])] == region.label
        points = np.argwhere(plane) * geometry.spacing_mm
        if region.area >= MIN_VOXELS and len(points):
            height = min(cv2.minAreaRect(points.astype(np.float32))[1])
            found.append(PlainDisc(geometry.to_lps(np.array(region.centroid)), float(height)))
    return found


# -- figures -----------------------------------------------------------------------------------------------------------


def seconds(way: Callable[[Case], object], listed: Sequence[Case]) -> float:
    """Processor seconds per exam, the best of three."""
    tries = []
    for _ in range(REPETITIONS):
        started = time.process_time()
        for case in listed:
            way(case)
        tries.append((time.process_time() - started) / len(listed))
    return min(tries)


def split(listed: Sequence[Case], whole_s: float) -> dict[str, float]:
    """Step -> seconds of `whole_s`; what no step names is `rows and the rest`.

    Raises
    ------
    KeyError
        if a step names a function that was not called
    """
    profile = cProfile.Profile()
    profile.enable()
    for case in listed:
        ours(case)
    profile.disable()
    stats = pstats.Stats(profile).stats
    spent = {f"{Path(file).name}:{name}": cumulative for (file, _, name), (*_, cumulative, _) in stats.items()}
    total = spent["measure.py:measure_exam"]
    shares = {step: sum(spent[function] for function in functions) / total for step, functions in STEPS.items()}
    shares["rows and the rest"] = 1 - sum(shares.values())
    return {step: share * whole_s for step, share in shares.items()}


def height_errors(listed: Sequence[Case]) -> dict[str, dict[str, float]]:
    """Way -> mean and largest absolute error of the discs that it has, and how many of the true ones those are."""
    errors: dict[str, list[float]] = {"ours": [], "plain": []}
    n_true = 0
    for case in listed:
        rows = [(np.array([row.x_mm, row.y_mm, row.z_mm]), row.height_mm) for row in ours(case).discs]
        measured = [PlainDisc(centroid, height) for centroid, height in rows if height is not None]
        for true in case.drawn.truth.discs:
            if true.in_picture > WHOLE_IN_VIEW:
                n_true += 1
                for way, discs in (("ours", measured), ("plain", plain(case)[0])):
                    near = [one for one in discs if np.linalg.norm(one.centroid_mm - true.centroid_mm) < NEAR_MM]
                    errors[way] += [abs(one.height_mm - true.numbers["height_mm"]) for one in near[:1]]
    return {
        way: {"mean_mm": float(np.mean(off)), "largest_mm": float(np.max(off)), "found_share": len(off) / n_true}
        for way, off in errors.items()
    }


def measure(n: int) -> dict[str, Any]:
    """All figures, for true and for degraded masks."""
    results: dict[str, Any] = {"exams": n}
    for masks, listed in cases(n).items():
        ours(listed[0]), plain(listed[0])
        ours_s, plain_s = seconds(ours, listed), seconds(plain, listed)
        results[masks] = {
            "ours_s_per_exam": ours_s,
            "plain_s_per_exam": plain_s,
            "ratio": ours_s / plain_s,
            "split_s": split(listed, ours_s),
            "disc_height_error": height_errors(listed),
        }
    return results


def main() -> None:
    """Print tables, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exams", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.exams)
    if options.json:
        print(json.dumps(found))
        return
    true, degraded = found["true"], found["degraded"]
    print(f"{'seconds per exam and core':34} {'true':>9} {'degraded':>9}")
    for step in true["split_s"]:
        print(f"  {step:32} {true['split_s'][step]:9.4f} {degraded['split_s'][step]:9.4f}")
    for text, key in (("this library", "ours_s_per_exam"), ("the plain way", "plain_s_per_exam"), ("ratio", "ratio")):
        print(f"{text:34} {true[key]:9.4f} {degraded[key]:9.4f}")
    for way, name in (("ours", "this library"), ("plain", "the plain way")):
        print(f"\ndisc height, {name}")
        for text, key in (("mean error, mm", "mean_mm"), ("largest, mm", "largest_mm"), ("discs found", "found_share")):
            print(f"  {text:32} " + " ".join(f"{one['disc_height_error'][way][key]:9.3f}" for one in (true, degraded)))


if __name__ == "__main__":
    main()
