"""Measure human masks of real scans: are all structures found, and is every number outside the anatomy flagged?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from cohort.anatomy.levels import CONFIDENT
from cohort.anatomy.measure import Measurements, measure_exam
from cohort.anatomy.quality import LIMITS, Limit
from cohort.anatomy.sides import split_sides
from cohort.rows import DiscRow, MuscleRow, VertebraRow
from cohort.stacks import LabelledStack, Labels
from cohort.terms import MUSCLES, SACRAL_BODY
from models.training.annotated import BODY, CANAL, DISC, UNSURE, divide_vertebrae, read_png, read_spacings
from pipelines.validation.anatomy_errors import rounded, share
from pipelines.validation.real_scans import (
    MUSCLE_IDS,
    SMALLEST_MM2,
    listed_counts,
    pieces,
    read_headers,
    single_picture,
    stack_of,
)

Row = VertebraRow | DiscRow | MuscleRow

PICTURE_WIDTH_MM: Final = 40.0
"""A single picture stands for a whole body (46 mm wide), or the least volumes of bodies would drop every one in it."""
SAME_BODY: Final = 0.95
RANGES: Final = {
    "vertebrae": {
        "anterior_height_mm": "body_height_mm",
        "middle_height_mm": "body_height_mm",
        "posterior_height_mm": "body_height_mm",
        "depth_mm": "body_depth_mm",
        "wedge_deg": "body_wedge_deg",
    },
    "discs": {"height_mm": "disc_height_mm", "width_mm": "disc_width_mm"},
}
"""Rows -> column -> its range in `cohort.anatomy.quality.LIMITS`. Muscles have one range each."""


@dataclass(frozen=True)
class Count:
    """Structures counted in one picture."""

    picture: str
    vertebrae: int
    discs: int
    pieces: tuple[int, int]
    """Connected pieces of the human mask of vertebrae and of discs."""
    listed: tuple[int, int]
    """By the data set, for the whole series."""

    @property
    def match(self) -> bool:
        """Both numbers are the listed ones."""
        return (self.vertebrae, self.discs) == self.listed


@dataclass(frozen=True, eq=False)
class Spider:
    """The mid-sagittal picture of each series, measured."""

    counts: list[Count]
    measured: list[Measurements]


def human_results(data: Path) -> dict[str, Any]:
    """What human masks of real scans give: bodies of `real_exam`, counts of `spider_t2space`, numbers of both.

    Raises
    ------
    FileNotFoundError
        if a folder of real scans is not there
    """
    spider = measure_spider(data / "spider_t2space")
    stack, bodies = real_exam_bodies(data / "real_exam")
    found = measure_exam("study", stack, [])
    measured = [found, measure_exam("study", None, [real_exam_muscles(data / "real_exam")]), *spider.measured]
    counts = spider.counts
    return {
        "real_exam_bodies": bodies_found(found, bodies),
        "spider_pictures": len(counts),
        "spider_counts_match": share(one.match for one in counts),
        "spider_vertebrae_match": share(one.vertebrae == one.listed[0] for one in counts),
        "spider_discs_match": share(one.discs == one.listed[1] for one in counts),
        "spider_pieces_match": share(one.pieces == one.listed for one in counts),
        **spider_names(spider.measured),
        "human_out_of_range_unflagged": sum(len(unflagged(one)) for one in measured),
        "flagged_rows": flagged_rows(measured),
        "numbers": number_table(measured),
        "spider_mismatches": [asdict(one) for one in counts if not one.match],
    }


# -- SPIDER ------------------------------------------------------------------------------------------------------------


def measure_spider(folder: Path) -> Spider:
    """Measure the mid-sagittal picture of every series with human masks: the one that shows most of the canal."""
    spacings, listed = read_spacings(folder), listed_counts(folder)
    spider = Spider([], [])
    for series, spacing_mm in sorted(spacings.items()):
        path = _mid_sagittal(folder, series)
        regions = divide_vertebrae(read_png(path), spacing_mm) if path else None
        if path is None or regions is None:
            continue
        masks = (np.isin(regions, (BODY, UNSURE)), regions == DISC)
        found = measured_picture(*(mask.astype(np.uint8) for mask in masks), spacing_mm)
        n_pieces = [
            len(pieces(mask, spacing_mm, smallest)) for mask, smallest in zip(masks, SMALLEST_MM2.values(), strict=True)
        ]
        wanted = (listed[series]["vertebrae"], listed[series]["discs"])
        spider.measured.append(found)
        spider.counts.append(
            Count(path.stem, len(found.vertebrae), len(found.discs), (n_pieces[0], n_pieces[1]), wanted)
        )
    return spider


def spider_names(measured: Sequence[Measurements]) -> dict[str, int]:
    """Pictures by what the lowest vertebra is called. The data set never labels the sacrum, so it is L5 in nearly all
    patients, and S1 in none."""
    lowest = [one.vertebrae[0] for one in measured if one.vertebrae]
    wrong = [row.level_confidence for row in lowest if row.level == "S1"]
    return {
        "spider_lowest_unnamed": sum(row.level is None for row in lowest),
        "spider_lowest_called_s1": len(wrong),
        "spider_lowest_called_s1_confident": sum(confidence >= CONFIDENT for confidence in wrong),
    }


def _mid_sagittal(folder: Path, series: str) -> Path | None:
    """Of several with as much canal, the middle one."""
    paths = sorted((folder / "labels").glob(f"{series}_slice*.png"), key=lambda path: int(path.stem.split("slice")[1]))
    canal = [int((read_png(path) == CANAL).any(axis=1).sum()) for path in paths]
    best = [path for path, rows in zip(paths, canal, strict=True) if rows == max(canal)]
    return best[len(best) // 2] if best else None


def measured_picture(bodies: Labels, discs: Labels, spacing_mm: tuple[float, float]) -> Measurements:
    """Measure label arrays [row, column] of one mid-sagittal picture, head up and anterior to the left."""
    picture = single_picture(np.zeros_like(bodies), spacing_mm)  # no pixels, or the mask would say where it ends
    picture = replace(picture, geometry=replace(picture.geometry, thickness_mm=PICTURE_WIDTH_MM))
    return measure_exam("study", LabelledStack(picture, {"vertebral_body": bodies[None], "disc": discs[None]}, {}), [])


# -- the exam with whole stacks ----------------------------------------------------------------------------------------


def real_exam_bodies(folder: Path) -> tuple[LabelledStack, Labels]:
    """The sagittal stack with human-drawn bodies as labels, and which body each voxel is, 0 none."""
    stack = stack_of(read_headers(folder / "dicom" / "sagittal_t1"), "sagittal")
    paths = [folder / "masks" / f"sagittal_vertebral_bodies_{k:02d}.png" for k in range(len(stack.image))]
    human = np.stack([read_png(path) for path in paths])
    sacrum = _caudal_first(human)[0]
    bodies = np.where(human == sacrum, SACRAL_BODY, human > 0).astype(np.uint8)
    return LabelledStack(stack, {"vertebral_body": bodies, "disc": np.zeros_like(bodies)}, {}), human


def bodies_found(found: Measurements, human: Labels) -> int:
    """Rows that hold one human-drawn body each (95 % of either in the other), from caudal to cranial."""
    if found.sagittal is None:
        return 0
    instances = found.sagittal.labels["body_instances"]
    good = 0
    for number, body in enumerate(_caudal_first(human), start=1):
        here, true = instances == number, human == body
        common = np.count_nonzero(here & true)
        good += int(common >= SAME_BODY * max(np.count_nonzero(here), np.count_nonzero(true)))
    return good


def _caudal_first(human: Labels) -> list[int]:
    rows = {int(body): np.nonzero(human == body)[1].mean() for body in np.unique(human) if body}
    return sorted(rows, key=lambda body: -rows[body])


def real_exam_muscles(folder: Path) -> LabelledStack:
    """The axial stack of another person with human-drawn multifidus and erector spinae."""
    headers = read_headers(folder / "dicom" / "axial_inphase")
    stack = stack_of(headers, "axial")
    human = np.stack(
        [read_png(folder / "masks" / f"axial_es_mf_{int(one.InstanceNumber) - 1:02d}.png") for one in headers]
    )
    classes = np.zeros_like(human)
    for muscle, ids in MUSCLE_IDS.items():
        classes[np.isin(human, ids)] = 1 + MUSCLES.index(muscle)
    return LabelledStack(stack, {"muscle": split_sides(classes, stack.geometry)}, {})


# -- numbers against anatomy -------------------------------------------------------------------------------------------


def unflagged(found: Measurements) -> list[str]:
    """Columns of rows whose number lies outside the expected anatomy while the row does not say so.

    Looked at again from the finished rows.
    """
    return [
        column
        for row in (*found.vertebrae, *found.discs, *found.muscles)
        for column, limit in _limits(row)
        if _outside(row, column, limit) and limit.reason not in _codes(row)
    ]


def _outside(row: Row, column: str, limit: Limit) -> bool:
    value = getattr(row, column)
    return value is not None and not limit.expected[0] <= value <= limit.expected[1]


def _limits(row: Row) -> Iterator[tuple[str, Limit]]:
    """Columns with an expected range."""
    if isinstance(row, MuscleRow):
        limit = LIMITS[f"{row.muscle}_cm2"]
        yield "csa_cm2", replace(limit, expected=(0.0, limit.expected[1]))  # small where it begins or ends
        return
    for column, name in RANGES["vertebrae" if isinstance(row, VertebraRow) else "discs"].items():
        if not (column in ("wedge_deg", "depth_mm") and row.level == "S1"):  # it tapers, and has no inferior endplate
            yield column, LIMITS[name]


def number_table(measured: Sequence[Measurements]) -> dict[str, dict[str, float | int]]:
    """Spread of the numbers that have an expected range, and how many lie outside it."""
    values: dict[str, list[float]] = {}
    outside: dict[str, int] = {}
    limits: dict[str, Limit] = {}
    for row in (row for one in measured for row in (*one.vertebrae, *one.discs, *one.muscles)):
        for column, limit in _limits(row):
            if (value := getattr(row, column)) is not None:
                name = f"{row.muscle if isinstance(row, MuscleRow) else type(row).__name__[:-3].lower()} {column}"
                values.setdefault(name, []).append(value)
                outside[name] = outside.get(name, 0) + int(_outside(row, column, limit))
                limits[name] = limit
    return {
        name: {
            "n": len(found),
            **{f"p{percent}": rounded(np.percentile(found, percent)) for percent in (5, 50, 95)},
            "expected_from": limits[name].expected[0],
            "expected_to": limits[name].expected[1],
            "outside": outside[name],
        }
        for name, found in values.items()
    }


def flagged_rows(measured: Sequence[Measurements]) -> dict[str, dict[str, float | int | None]]:
    """Number of rows, shares that are flagged and refused, and share with each reason."""
    rows: Mapping[str, list[Row]] = {
        name: [row for one in measured for row in getattr(one, name)] for name in (*RANGES, "muscles")
    }
    codes = sorted({code for listed in rows.values() for row in listed for code in _codes(row)})
    return {
        "rows": {name: len(listed) for name, listed in rows.items()},
        "flagged": {name: share(row.status == "flagged" for row in listed) for name, listed in rows.items()},
        "refused": {name: share(row.status == "refused" for row in listed) for name, listed in rows.items()},
        **{
            code: {name: share(code in _codes(row) for row in listed) for name, listed in rows.items()}
            for code in codes
        },
    }


def _codes(row: Row) -> list[str]:
    return row.reasons.split("+") if row.reasons else []
