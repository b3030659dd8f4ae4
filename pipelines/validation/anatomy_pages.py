"""Pages of measured exams for a human eye: phantom exams good and bad beside their truth, and the real exam.

Every card says what the exam is, what was measured, how far that is from the truth, and which flags it raised.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cohort.anatomy.measure import Measurements, measure_exam
from cohort.anatomy.quality import INFORMATION
from cohort.anatomy.sides import split_sides
from cohort.processes import process_pool
from cohort.review.overlay import BODY_COLOURS, DISC_COLOUR, MUSCLE_COLOURS, View, folded
from cohort.stacks import LabelledStack
from cohort.terms import DISC, MUSCLES, SACRAL_BODY, VERTEBRAL_BODY
from models.phantom.exam import plan_anatomy
from models.phantom.pathology import KINDS, Finding
from models.phantom.sampling import cut, draw_subject
from models.phantom.study import StudyExam, study_plan
from models.phantom.study_masks import draw_exam
from models.phantom.truth import TrueStructure, Truth
from pipelines.validation.anatomy_panels import (
    MUSCLE_STYLES,
    Picture,
    Sheet,
    draw_muscles,
    draw_spine,
    phantom_sheet,
    spine_sheet,
    t1_pictures,
)
from pipelines.validation.anatomy_risk import risk_coverage_figure
from pipelines.validation.anatomy_score import ScoredExam, measure_study_exam, score_drawn, study_stacks
from pipelines.validation.flag_gallery import write_gallery
from pipelines.validation.human_masks import real_exam_bodies, real_exam_muscles
from pipelines.validation.overlay_pages import BURIAN, DPI, ZUKIC, jpeg
from pipelines.validation.real_scans import Networks, Report, read_headers, stack_of

SEED: Final = 1
"""Of the study that the cases are taken from: not the one whose figures are reported."""
GOOD: Final = ((45, False), (43, False), (0, False), (5, False), (27, False), (9, False))
BAD: Final = ((33, False), (13, True), (54, True), (37, True), (40, True), (7, True))
"""Numbers of study exams, and whether their masks are degraded: chosen by looking, to show one of each kind."""
LAST: Final = max(number for number, _ in (*GOOD, *BAD))

CARD_INCHES: Final = (6.4, 4.5)
PICTURE_SHARE: Final = 0.52
"""Of a card's width that is its sagittal picture."""
COLUMNS: Final = 2
TEXT_POINTS: Final = 8
TEXT_WIDTH: Final = 47
"""Letters in a line."""


@dataclass(frozen=True, eq=False)
class AxialView:
    """One slice to show."""

    stack: LabelledStack
    slice: int
    """As stored."""
    picture: Picture
    """[row, column] in standing order."""


@dataclass(frozen=True, eq=False)
class Card:
    """One measured exam on a page."""

    title: str
    lines: tuple[str, ...]
    found: Measurements
    sheet: Sheet | None
    picture: Picture | None
    """[row, column] of the sheet."""
    axial: AxialView | None = None
    true: tuple[TrueStructure, ...] = ()


def write_pictures(folder: Path, data: Path | None, results: Mapping[str, Any], *, report: Report) -> None:
    """Draw all pages: `validation/anatomy-*`, of the real exam only with `data`, and the flags in `quality`.

    Parameters
    ----------
    results : of `validate_anatomy.anatomy_results`, for risk against coverage
    """
    pages = folder / "validation"
    pages.mkdir(parents=True, exist_ok=True)
    risk_coverage_figure(results, pages / "anatomy-risk.png")
    write_case_pages(pages, report)
    if data is not None:
        write_real_page(pages, data)
        report("real exam drawn")
    write_gallery(folder / "quality", report)


def write_case_pages(folder: Path, report: Report, *, processes: int = 2) -> None:
    """Draw phantom exams with their truth: `anatomy-cases-good.jpg` and `anatomy-cases-bad.jpg`."""
    with process_pool(processes) as pool:
        cards = list(pool.map(study_card, *zip(*(*GOOD, *BAD), strict=True)))
    report(f"{len(cards)} phantom exams drawn")
    pages = {
        "anatomy-cases-good.jpg": ("Phantom exams measured from true masks", cards[: len(GOOD)]),
        "anatomy-cases-bad.jpg": ("Phantom exams cut off, or with the masks of a mediocre network", cards[len(GOOD) :]),
    }
    for name, (title, own) in pages.items():
        (folder / name).write_bytes(jpeg(page(title, own)))


def study_card(number: int, degraded: bool) -> Card:
    """Measure an exam of the study, and picture it as its subject would be acquired."""
    exam = study_plan(LAST + 1, seed=SEED)[number]
    drawn = draw_exam(exam)
    found = measure_study_exam(exam, *study_stacks(drawn, drawn.degraded if degraded else drawn.true_masks))
    scored = score_drawn(drawn)[int(degraded)]
    subject = draw_subject(plan_anatomy(exam.plan))
    sheet = spine_sheet(found.sagittal, found) if found.sagittal is not None else None
    axial = None
    if chosen := _axial_slice(found):
        stack, k = chosen
        view = View(stack, "axial")
        axial = AxialView(
            stack, k, t1_pictures(subject, [cut(subject, view.geometry, view.native(k))], exam.plan.seed)[0]
        )
    return Card(
        title=f"{exam.stratum}, {'degraded' if degraded else 'true'} masks ({number})",
        lines=tuple(_lines(exam, scored, drawn.truth, found)),
        found=found,
        sheet=sheet,
        picture=phantom_sheet(subject, sheet, exam.plan.seed) if sheet else None,
        axial=axial,
        true=(*drawn.truth.bodies, *drawn.truth.discs),
    )


def _axial_slice(found: Measurements) -> tuple[LabelledStack, int] | None:
    """A slice at a disc, L3-L4 if there is one."""
    places = {row.level: (row.stack, row.slice) for row in found.muscle_levels}
    if not places:
        return None
    index, k = places.get("L3-L4", next(iter(places.values())))
    return next(stack for stack in found.axial if stack.stack.index == index), k


_DICE_OF: Final = {"vertebral_body": "bodies", "disc": "discs", "muscle": "muscles"}


def _lines(exam: StudyExam, scored: ScoredExam, truth: Truth, found: Measurements) -> list[str]:
    grid = exam.acquisition
    missing = f", {len(grid.missing)} missing" if grid.missing else ""
    findings = [_finding(one) for one in plan_anatomy(exam.plan).findings]
    outcomes = Counter(one.outcome for one in scored.named)
    heights = [abs(one.errors["height_mm"]) for one in scored.structures if "height_mm" in one.errors]
    wrong = max((one.confidence for one in scored.named if one.outcome == "wrong"), default=None)
    overlap = ", ".join(f"{_DICE_OF[what]} {value:.2f}" for what, value in scored.dice.items())
    degraded = [f"faults: {', '.join(scored.faults) or 'edges only'}", f"Dice: {overlap}"]
    lordosis = scored.curvature_errors.get("lordosis_l1_s1_deg")
    return [
        f"pixels {grid.pixel_mm[0]:.2f} x {grid.pixel_mm[1]:.2f} mm, {grid.n_slices - len(grid.missing)} slices "
        f"every {grid.gap_mm:.1f} mm{missing}",
        f"{exam.plan.n_lumbar} lumbar vertebrae, {'told' if exam.count_known else 'not told'} to the measurement",
        *([f"subject: {'; '.join(findings)}"] if findings else []),
        *(degraded if scored.dice["disc"] < 1 else []),
        f"names: {', '.join(f'{n} {outcome}' for outcome, n in outcomes.items())}"
        + (f"; the surest wrong one has {wrong:.2f}" if wrong is not None else "")
        + (f"; rows that are nothing: {scored.extra}" if scored.extra else ""),
        f"disc height off by {np.mean(heights):.2f} mm, at most {max(heights):.2f}" if heights else "no disc height",
        "no lordosis"
        if lordosis is None
        else f"lordosis L1-S1 off by {lordosis:+.1f} of {truth.curvature['lordosis_l1_s1_deg']:.0f} degrees",
        _flags(found),
    ]


def _finding(one: Finding) -> str:
    where = f" {one.level}" if one.level else ""
    return f"{one.kind.replace('_', ' ')}{where}, {one.size:.2g} ({KINDS[one.kind].unit})"


def _flags(found: Measurements) -> str:
    """Status and flags, each with the structures that raised it; without what post-processing only counted."""
    where: dict[str, list[str]] = {}
    for row in [one for one in found.quality if one.reason not in INFORMATION]:
        where.setdefault(row.reason, []).append(row.structure or "exam")
    listed = "; ".join(f"{code} ({_some(list(dict.fromkeys(names)))})" for code, names in where.items())
    return f"status {found.status}: {listed or 'no flags'}"


def _some(names: Sequence[str], n: int = 3) -> str:
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")


def write_real_page(folder: Path, data: Path) -> None:
    """Draw the real exam below `data`, measured on human masks and on those of the shipped networks:
    `anatomy-real.jpg`."""
    title = f"One real exam (the axial slices are of another person)\n{ZUKIC}\n{BURIAN}"
    exam = data / "real_exam"
    cards = [human_card(exam), network_card(exam, Networks("vertebral_body", "disc", "muscle"))]
    (folder / "anatomy-real.jpg").write_bytes(jpeg(page(title, cards)))


def human_card(folder: Path) -> Card:
    """The real exam, measured on the bodies and back muscles that humans drew."""
    return _real_card("real exam, outlines of humans", real_exam_bodies(folder)[0], real_exam_muscles(folder))


def network_card(folder: Path, networks: Networks) -> Card:
    """The real exam, measured on what the networks find."""
    stack = stack_of(read_headers(folder / "dicom" / "sagittal_t1"), "sagittal")
    found = networks.segment("vertebral_body", stack) | networks.segment("disc", stack)
    values = {"vertebral_body": VERTEBRAL_BODY, "sacral_body": SACRAL_BODY}
    bodies = np.zeros(stack.image.shape, np.uint8)
    for name, value in values.items():
        bodies[found[name]] = value
    sagittal = LabelledStack(stack, {"vertebral_body": bodies, "disc": (found["disc"] * DISC).astype(np.uint8)}, {})
    pictures = stack_of(read_headers(folder / "dicom" / "axial_inphase"), "axial")
    classes = np.zeros(pictures.image.shape, np.uint8)
    for name, mask in networks.segment("muscle", pictures).items():
        classes[mask] = 1 + MUSCLES.index(name)
    axial = LabelledStack(pictures, {"muscle": split_sides(classes, pictures.geometry)}, {})
    return _real_card("real exam, shipped networks", sagittal, axial)


def _real_card(title: str, sagittal: LabelledStack, axial: LabelledStack) -> Card:
    found = measure_exam("real", sagittal, [axial])
    sheet = spine_sheet(sagittal, found)
    stack = found.axial[0]
    k = stack.stack.geometry.n_slices // 2
    curve = found.curvature
    lordosis = None if curve is None else curve.lordosis_l1_s1_deg
    lines = (
        f"{len(found.vertebrae)} bodies, {len(found.discs)} discs",
        "no lordosis" if lordosis is None else f"lordosis L1-S1 {lordosis:.0f} degrees",
        _flags(found),
    )
    return Card(
        title, lines, found, sheet, sheet.plane(sheet.view.image), AxialView(stack, k, _standing_slice(stack, k))
    )


def _standing_slice(axial: LabelledStack, k: int) -> Picture:
    view = View(axial, "axial")
    return np.asarray(view.image[view.native(k)])


# -- drawing -----------------------------------------------------------------------------------------------------------


def page(title: str, cards: Sequence[Card]) -> Figure:
    """Cards side by side: sagittal picture, text, and below the text an axial slice."""
    rows = -(-len(cards) // COLUMNS)
    head = 0.2 + 0.2 * len(title.split("\n"))
    width, height = COLUMNS * CARD_INCHES[0], rows * CARD_INCHES[1] + head + 0.5
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="black")
    card_width, card_height = CARD_INCHES[0] / width, CARD_INCHES[1] / height
    for n, card in enumerate(cards):
        corner = (n % COLUMNS * card_width, 1 - head / height - (n // COLUMNS + 1) * card_height)
        _card(figure, card, corner, (card_width, card_height))
    figure.text(0.5, 1 - 0.08 / height, title, color="white", fontsize=10, ha="center", va="top")
    _legend(figure)
    return figure


def _card(figure: Figure, card: Card, corner: tuple[float, float], size: tuple[float, float]) -> None:
    (left, bottom), (width, height) = corner, size
    middle = left + (PICTURE_SHARE + 0.01) * width
    if card.sheet is not None and card.picture is not None:
        panel = figure.add_axes((left + 0.01 * width, bottom, PICTURE_SHARE * width * 0.97, 0.98 * height))
        draw_spine(panel, card.sheet, card.picture, card.found, true=card.true)
        panel.set_anchor("NW")
    title = folded(card.title, width=36)
    figure.text(middle, bottom + 0.98 * height, title, color="white", fontsize=9, va="top", weight="bold")
    below = bottom + (0.94 - 0.035 * title.count("\n")) * height
    lines = "\n".join(folded(line, width=TEXT_WIDTH, lines=9) for line in card.lines)
    figure.text(middle, below, lines, color="white", fontsize=TEXT_POINTS, va="top", linespacing=1.25)
    if card.axial is not None:
        axes = (middle, bottom + 0.01 * height, (0.98 - PICTURE_SHARE) * width * 0.97, 0.42 * height)
        axial = card.axial
        panel = figure.add_axes(axes)
        draw_muscles(panel, axial.stack, axial.slice, card.found, picture=axial.picture)
        panel.set_anchor("SW")


def _legend(figure: Figure) -> None:
    lines = [
        Line2D([], [], color=BODY_COLOURS[0], label="bodies (colours alternate), name and confidence"),
        Line2D([], [], color=DISC_COLOUR, linestyle="dashed", label="discs"),
        Line2D([], [], color="white", linewidth=0.7, label="rectangle: disc height, mm (less true)"),
        Line2D([], [], color="white", linewidth=2.2, label="endplates of L1 and S1"),
        *(Line2D([], [], color=MUSCLE_COLOURS[one], linestyle=MUSCLE_STYLES[one], label=f"{one.replace('_', ' ')}, cm²")
          for one in MUSCLES),
    ]  # fmt: skip
    figure.legend(
        handles=lines, loc="lower center", ncols=4, facecolor="black", labelcolor="white", fontsize=8, handlelength=4
    )
