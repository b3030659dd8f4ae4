"""Readers of the study made here: outlines moved by fractions of a pixel, and statistics against their known truth."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest
from skimage.measure import perimeter_crofton

from cohort.agreement.statistics import statistics
from cohort.errors import ConfigurationError
from models.phantom.exam import ExamPlan, PhantomExam, make_exam
from models.phantom.outlines import REACH_MM, Section, sections
from models.phantom.reader_truth import ReaderTruth, filled_points, rectangle_height
from models.phantom.readers import Reader, draw
from models.phantom.truth import csa_cm2
from pipelines.study.example_truth import STATISTICS, TruthRow, compare_with_truth, summary, true_statistics

PIXEL_MM = 0.9


@pytest.fixture(scope="module")
def exam() -> PhantomExam:
    return make_exam(ExamPlan(8100, "F", 40, 1.65, 70.0, "per_disc", 5))


def shape_of(inside: Callable[[npt.NDArray[np.float64], npt.NDArray[np.float64]], npt.NDArray[np.bool_]]) -> Section:
    """Section of 40 x 40 pixels in which the places (down, across, mm from the middle) are inside."""
    at = (np.arange(120) / 3 - 19.7) * PIXEL_MM
    samples = inside(at[:, None], at[None, :]).astype(np.uint8)
    box = (slice(0, 40), slice(0, 40))
    return Section("sagittal", 0, 0, "disc", ("L4-L5",), samples[::3, ::3], samples, box, PIXEL_MM)


@pytest.mark.parametrize("shift_mm", [-0.4, -0.1, 0.1, 0.2, 0.4])
def test_a_moved_circle_has_the_area_of_a_larger_or_smaller_circle(shift_mm: float) -> None:
    section = shape_of(lambda down, across: down**2 + across**2 < 10**2)
    area_mm2 = np.count_nonzero(section.moved([shift_mm])) * section.lattice_mm**2
    assert np.sqrt(area_mm2 / np.pi) == pytest.approx(10 + shift_mm, abs=0.02)


@pytest.mark.parametrize("tilt_deg", [0.0, 3.0, 20.0, 45.0])
def test_a_moved_bar_is_higher_by_twice_the_shift_whatever_way_it_lies(tilt_deg: float) -> None:
    cos, sin = np.cos(np.radians(tilt_deg)), np.sin(np.radians(tilt_deg))
    section = shape_of(
        lambda down, across: (abs(down * cos - across * sin) < 4) & (abs(down * sin + across * cos) < 11)
    )
    heights = [rectangle_height(section.moved([shift]) > 0) * section.lattice_mm for shift in (0.0, 0.2, 0.4, 1.0)]
    assert np.diff(heights, prepend=heights[0]).cumsum() == pytest.approx([0.0, 0.4, 0.8, 2.0], abs=0.08)


@pytest.mark.parametrize("shift_mm", [0.1, 0.2, 0.4])
def test_outlines_lie_as_far_out_as_they_were_moved_on_average_over_all_places_of_the_pixels(
    exam: PhantomExam, shift_mm: float
) -> None:
    grown, length_mm = 0.0, 0.0
    for section in (one for k in range(5) for one in sections(exam, "sagittal", 0, k)):
        by = [section.moved([share * shift_mm] * len(section.names)) > 0 for share in (0.0, 0.5, 1.0)]
        # every point of the lattice is a pixel's centre somewhere, depending on how the patient lies
        grown += float(np.count_nonzero(by[2]) - np.count_nonzero(by[0])) * section.lattice_mm**2
        length_mm += perimeter_crofton(np.pad(by[1], 1), directions=4) * section.lattice_mm
    # an area grows by the shift times the length of the outline half way
    assert grown / length_mm == pytest.approx(shift_mm, abs=0.01)


def test_who_has_no_error_draws_the_mask_and_structures_never_overlap(exam: PhantomExam) -> None:
    readers = (Reader("A"), Reader("B", bias_mm=2.0), Reader("C", bias_mm=-9.0))
    for true, wide, narrow in draw(exam, readers):
        assert np.array_equal(true.pixels, true.section.pixels)
        assert set(true.shifts_mm) | set(wide.shifts_mm) | set(narrow.shifts_mm) == {0.0, 2.0, -REACH_MM}
        inside = true.lattice > 0
        assert np.array_equal(wide.lattice[inside], true.lattice[inside])  # what a neighbour has is never taken
        assert np.all((narrow.lattice == 0) | (narrow.lattice == true.lattice))
        if true.section.array == "vertebral_body":
            assert not {true.section.names[value - 1] for value in np.unique(true.pixels[true.pixels > 0])} & {
                "S2",
                "S3",
            }


def test_equal_readers_draw_equally_and_a_structure_is_off_by_one_distance(exam: PhantomExam) -> None:
    reader = Reader("B", 0.4, 0.4)
    first, other = (sections(exam, "sagittal", 0, k)[0] for k in (1, 2))
    assert (
        reader.shifts_mm(exam, first) == reader.shifts_mm(exam, other) == Reader("B", 0.4, 0.4).shifts_mm(exam, first)
    )
    assert reader.shifts_mm(exam, first) != Reader("C", 0.4, 0.4).shifts_mm(exam, first)
    assert len(set(reader.shifts_mm(exam, first))) == len(first.names)


def test_truth_of_two_readers_is_that_of_their_outlines(exam: PhantomExam) -> None:
    truth, pixels = ReaderTruth(exam), np.zeros(3)
    for first, second in draw(exam, (Reader("A"), Reader("B", bias_mm=1.0))):
        truth.add(first, second)
        if first.section.array == "disc":
            a, b = first.pixels == 4, second.pixels == 4
            pixels += [np.count_nonzero(a), np.count_nonzero(b), np.count_nonzero(a & b)]
    known = truth.known
    heights = [pair.second - pair.first for pair in known.pairs if pair.quantity == "disc_height_mm"]
    assert len(heights) >= 6
    assert heights == pytest.approx([2.0] * len(heights), abs=0.15)
    label = exam.anatomy.discs[3].name
    (disc,) = (one for one in known.overlaps if one.structure == label)
    assert disc.dice == pytest.approx(2 * pixels[2] / (pixels[0] + pixels[1]), abs=0.01)
    muscle = np.stack([section.pixels for (section,) in (sections(exam, "axial", 2, k) for k in range(5))])
    areas = csa_cm2(exam.subject, exam.axial[2], muscle, 2)  # that stack lies along its disc: the cosine is near one
    at_disc = {(pair.muscle, pair.side): pair for pair in known.pairs if pair.level == exam.anatomy.discs[2].name}
    for key, area in areas.items():
        assert at_disc[key].first == pytest.approx(area, rel=0.02, abs=0.02)
        assert at_disc[key].second > at_disc[key].first
    shifts = {(one.reader, one.shift_mm) for one in known.shifts}
    assert shifts == {("A", 0.0), ("B", 1.0)}


def test_a_muscle_is_as_large_as_its_outline_whatever_holes_it_has() -> None:
    mask = np.ones((9, 9), bool)
    mask[3:5, 3:5] = False
    assert (filled_points(mask), filled_points(np.zeros((9, 9), bool))) == (81, 0)


def test_formulas_of_the_truth_agree_with_those_under_test() -> None:
    rng = np.random.default_rng(3)
    first = rng.normal(9, 2, 60)
    second = first + rng.normal(0.4, 0.4, 60)
    found = statistics(first, second, [str(k // 5) for k in range(60)])
    assert true_statistics(first, second) == pytest.approx({name: found[name] for name in STATISTICS}, abs=1e-9)


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    script = Path(__file__).parents[1] / "benchmarks" / "study_truth.py"
    spec = importlib.util.spec_from_file_location("study_truth", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def study(benchmark: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[TruthRow]]:
    """Folder of a study of one exam, and its comparison with the truth."""
    folder = tmp_path_factory.mktemp("study")
    return folder, benchmark.run(folder, 1, 1)


def test_what_agreement_finds_on_a_study_made_here_is_its_known_truth(study: tuple[Path, list[TruthRow]]) -> None:
    _, rows = study
    known = [row for row in rows if row.truth is not None and row.found is not None]
    within = {"disc_height_mm": 0.35, "csa_cm2": 0.15, "dice": 0.02}
    large = [row for row in known if row.n >= 7]  # one disc of one exam may lie along the pixels
    assert {row.quantity for row in large} == set(within)
    for row in large:
        assert row.found == pytest.approx(row.truth, abs=within[row.quantity]), row
        assert row.holds_naive is not False, row
        assert row.holds is None  # of one person
    assert {row.statistic for row in large} == {*STATISTICS, "mean"}
    heights = {row.statistic: row.population for row in large if row.group == "all levels"}
    assert (heights["bias"], heights["r"]) == (pytest.approx(0.8), None)
    without = {row.quantity for row in rows if row.reason}
    assert {"compression_n", "lordosis_l1_s1_deg", "disc_centroid_distance_mm"} <= without
    assert all(row.truth is None and row.holds is None for row in rows if row.reason)
    assert "compression_n" in summary(rows)


def changed(study: Path, folder: Path, change: Callable[[dict[str, str]], dict[str, str] | None]) -> Path:
    """Copy of the truth with other disc heights."""
    for name in ("true_pairs", "true_overlaps"):
        with (study / f"{name}.csv").open(newline="") as file:
            lines = list(csv.DictReader(file))
        if name == "true_pairs":
            lines = [line for old in lines if (line := change(old)) is not None]
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)
    return folder


def test_a_truth_that_is_another_one_is_not_held(
    study: tuple[Path, list[TruthRow]], benchmark: ModuleType, tmp_path: Path
) -> None:
    folder, _ = study
    other = changed(folder, tmp_path, lambda line: line | {"second": str(float(line["second"]) + 3)})
    rows = compare_with_truth(other, folder / "agreement", benchmark.PSEUDONYMS.exam_id)
    answers = {row.statistic: row.holds_naive for row in rows if row.group in ("all levels", "psoas")}
    assert (answers["mae"], answers["bias"], answers["lower_limit"]) == (False, False, False)


def test_tables_of_another_study_are_refused(
    study: tuple[Path, list[TruthRow]], benchmark: ModuleType, tmp_path: Path
) -> None:
    folder, _ = study
    fewer = changed(folder, tmp_path, lambda line: None if line["level"] == "L4-L5" else line)
    with pytest.raises(ConfigurationError, match=r"L4-L5 .*no truth"):
        compare_with_truth(fewer, folder / "agreement", benchmark.PSEUDONYMS.exam_id)
    with pytest.raises(ConfigurationError, match="do not compare A with C"):
        compare_with_truth(
            folder, folder / "agreement", benchmark.PSEUDONYMS.exam_id, readers=(Reader("A"), Reader("C"))
        )
