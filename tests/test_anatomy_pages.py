"""Pages of measured exams: what is drawn lies where it was measured, and every flag has a case that raises it."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from cohort.anatomy.levels import CONFIDENT, LOW_CONFIDENCE, UNDECIDED, VARIANT_DISC_SHARE, VARIANT_PROBABILITY
from cohort.anatomy.measure import Measurements, measure_exam
from cohort.anatomy.muscles import MAX_WRONG_SIDE
from cohort.anatomy.quality import LIMITS
from cohort.reasons import ANATOMY_REASONS
from cohort.stacks import ImageStack, LabelledStack
from cohort.terms import SACRAL_BODY
from models.phantom.exam import plan_anatomy
from models.phantom.study import sagittal_grid, study_plan
from models.phantom.truth import column_stack, column_truth
from pipelines.validation.anatomy_pages import human_card, page, study_card
from pipelines.validation.anatomy_panels import Sheet, draw_spine, spine_sheet
from pipelines.validation.flag_exam import Spoilt, sound_exam
from pipelines.validation.flag_gallery import CASES, draw_case, spoilt
from pipelines.validation.overlay_pages import jpeg

PAGE = Path(__file__).parent.parent / "docs" / "quality.md"
SCOLIOSIS = 3
NO_SACRUM = 18


@pytest.fixture(scope="module")
def bent() -> tuple[LabelledStack, Measurements]:
    """An exam with scoliosis and pixels that are not square, without pictures."""
    exam = study_plan(SCOLIOSIS + 1)[SCOLIOSIS]
    anatomy = plan_anatomy(exam.plan)
    grid = sagittal_grid(anatomy, replace(exam.acquisition, pixel_mm=(0.8, 1.2)))
    bodies, discs = column_stack(anatomy, grid)
    sacral = np.array([False, *(one.sacral for one in anatomy.bodies)])
    labels = {
        "vertebral_body": np.where(sacral[bodies], SACRAL_BODY, bodies > 0).astype(np.uint8),
        "disc": (discs > 0).astype(np.uint8),
    }
    stack = LabelledStack(ImageStack("sagittal", 0, np.zeros(bodies.shape, np.uint16), grid, None), labels, {})
    return stack, measure_exam("bent", stack, [])


def test_the_sheet_follows_a_bent_spine_through_every_disc(bent: tuple[LabelledStack, Measurements]) -> None:
    stack, found = bent
    sheet = spine_sheet(stack, found)
    assert len(np.unique(sheet.slices)) > 1
    assert found.sagittal is not None
    shown = Sheet(replace(sheet, view=type(sheet.view)(found.sagittal, "sagittal")).view, sheet.slices)
    seen = np.unique(shown.labels("disc_instances"))
    assert set(seen) - {0} == set(range(1, len(found.discs) + 1))


def test_pixels_that_are_not_square_keep_their_proportions(bent: tuple[LabelledStack, Measurements]) -> None:
    stack, found = bent
    sheet = spine_sheet(stack, found)
    panel = Figure().add_subplot()
    draw_spine(panel, sheet, sheet.plane(sheet.view.image), found)
    assert panel.get_aspect() == pytest.approx(0.8 / 1.2)


def test_a_wrong_name_is_shown_with_the_true_one(bent: tuple[LabelledStack, Measurements]) -> None:
    stack, found = bent
    exam = study_plan(SCOLIOSIS + 1)[SCOLIOSIS]
    truth = column_truth(plan_anatomy(exam.plan), stack.stack.geometry)
    wrong = tuple(replace(row, level="L4") if row.level == "L3" else row for row in found.vertebrae)
    sheet = spine_sheet(stack, found)
    panel = Figure().add_subplot()
    draw_spine(panel, sheet, sheet.plane(sheet.view.image), replace(found, vertebrae=wrong), true=truth.bodies)
    written = [text.get_text() for text in panel.texts]
    assert sum("\nis L3" in text for text in written) == 1
    assert sum("\nis" in text for text in written) == 1


def test_a_card_says_what_became_of_an_exam() -> None:
    card = study_card(NO_SACRUM, degraded=False)
    text = "\n".join(card.lines)
    assert "refused" in text
    assert "levels_undecided (exam)" in text
    assert "no lordosis" in text
    assert card.axial is None
    assert card.picture is not None
    assert card.picture.std() > 100
    picture = np.asarray(Image.open(BytesIO(jpeg(page("a page", [card])))))
    assert np.count_nonzero(np.ptp(picture.astype(int), axis=2) > 60) > 1000


def test_every_human_drawn_body_of_the_real_exam_is_on_its_card(real_data: Path) -> None:
    card = human_card(real_data / "real_exam")
    assert card.lines[0] == "9 bodies, 0 discs"
    assert card.picture is not None
    assert card.picture.any()


def test_every_flag_of_the_measurements_has_a_case() -> None:
    assert set(CASES) == set(ANATOMY_REASONS)


def test_every_case_raises_its_flag_and_can_be_drawn() -> None:
    made = {code: spoilt(code) for code in CASES}
    raised = {code: {row.reason for row in one.found.quality} for code, one in made.items()}
    assert {code: flags for code, flags in raised.items() if code not in flags} == {}
    for code in ("touches_border", "sides_conflict", "oblique_slice", "network_misfit"):
        assert draw_case(code, made[code]).axes


def test_a_case_that_does_not_raise_its_flag_is_not_drawn() -> None:
    sound = sound_exam()
    with pytest.raises(ValueError, match="the case of no_discs raises"):
        draw_case("no_discs", Spoilt(sound, sound.measured()))


def page_sections() -> dict[str, str]:
    """Code -> its section of the page that explains the flags, in the order of the page."""
    parts = PAGE.read_text().split("\n## How the lean")[0].split("\n### `")[1:]
    return {part.partition("`")[0]: part.partition("`")[2] for part in parts}


def test_the_page_explains_every_flag_in_order_and_shows_it() -> None:
    sections = page_sections()
    assert list(sections) == list(ANATOMY_REASONS)
    for code, text in sections.items():
        assert f"(quality/{code}.png)" in text
        assert "*Do*" in text
    pictures = {path.stem for path in (PAGE.parent / "quality").glob("*")}
    assert pictures == set(ANATOMY_REASONS)


@pytest.mark.parametrize("name", LIMITS)
def test_the_page_quotes_every_limit_as_the_code_has_it(name: str) -> None:
    limit = LIMITS[name]
    (low, high), (lowest, highest) = limit.expected, limit.possible
    quoted = f"{low:g} to {high:g}"
    if low == 0:
        quoted = f"at most {high:g}"
    elif high >= min(highest, 99.0):
        quoted = f"at least {low:g}"
    text = page_sections()[limit.reason]
    assert f"- `{name}` {quoted}" in text
    if lowest not in (0.0, -180.0):  # other ranges of what is possible end where the number does
        assert f"- `{name}` {quoted}, refused outside {lowest:g} to {highest:g}" in text


def test_the_page_quotes_the_limits_of_names() -> None:
    sections = page_sections()
    assert f"*Limit*: {UNDECIDED:g}," in sections["levels_undecided"]
    assert f"*Limit*: {LOW_CONFIDENCE:g}," in sections["levels_low_confidence"]
    assert f"from\n{CONFIDENT:g};" in sections["levels_low_confidence"]
    for limit in (VARIANT_PROBABILITY, VARIANT_DISC_SHARE):
        assert f"*limit* {limit:g}," in sections["lumbar_variant"]
    assert f"*Limit*: {MAX_WRONG_SIDE:g}," in sections["sides_conflict"]
