"""Scoring of networks: overlap and distance, what of a human mask is scored, and the command on a few real slices."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cohort.agreement.overlap import dice, spread
from cohort.agreement.surface import surface_distance
from models.card import PAGES, RESULTS_FILE, Measured, card_text, read_measured, write_card
from models.inference import segment_stack
from models.phantom.exam import ExamPlan, make_exam, stack_image, t1_contrast
from models.registry import WEIGHTS, load_network, read_contract, shipped_networks
from pipelines.cli import main
from pipelines.validation.overlay_pages import MAX_BYTES
from pipelines.validation.real_scans import (
    Compared,
    Count,
    Networks,
    RealScans,
    SegmentedSlice,
    head_down,
    pieces,
    t1_pictures,
)
from pipelines.validation.weights import as_table, measure, slices_table

ROOT = Path(__file__).parents[1]
MASKS = arrays(bool, (6, 7))
SHIPPED = Networks("vertebral_body", "disc", "muscle")
DICE_KEYS = (
    "real_exam/vertebral_body",
    "real_exam/vertebral_body/volume",
    "real_exam/multifidus",
    "real_exam/multifidus/volume",
    "real_exam/erector_spinae",
    "real_exam/erector_spinae/volume",
    "spider/vertebral_body",
    "spider/disc",
)


@given(MASKS, MASKS)
def test_dice_is_symmetric_and_between_zero_and_one(a: np.ndarray, b: np.ndarray) -> None:
    assert dice(a, b) == dice(b, a)
    assert 0 <= dice(a, b) <= 1
    assert dice(a, a) == 1


def test_dice_of_half_an_overlap() -> None:
    a, b = np.zeros((2, 4), bool), np.zeros((2, 4), bool)
    a[:, :2], b[:, 1:3] = True, True
    assert dice(a, b) == pytest.approx(0.5)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_spread_counts_and_averages(scores: list[float]) -> None:
    found = spread(scores)
    assert found.n == len(scores)
    assert found.dice == pytest.approx(np.mean(scores), abs=1e-4)
    assert found.worst == pytest.approx(min(scores), abs=1e-4)
    assert found.median == pytest.approx(np.median(scores), abs=1e-4)
    assert spread([]).dice is None


@given(MASKS, MASKS)
def test_surfaces_are_as_far_from_each_other_both_ways(a: np.ndarray, b: np.ndarray) -> None:
    there, back = surface_distance(a, b, (1.0, 2.0)), surface_distance(b, a, (1.0, 2.0))
    assert (there is None) == (not a.any() or not b.any())
    if there is not None and back is not None:
        assert there.mean_mm == pytest.approx(back.mean_mm)
        assert there.p95_mm == back.p95_mm


def test_a_shifted_mask_is_as_far_away_as_it_was_shifted() -> None:
    a, b = np.zeros((3, 30, 30), bool), np.zeros((3, 30, 30), bool)
    a[1, 5:8, 5], b[1, 5:8, 9] = True, True
    found = surface_distance(a, b, (4.0, 1.0, 0.5))
    assert found is not None
    assert found.mean_mm == pytest.approx(2.0)
    assert found.p95_mm == pytest.approx(2.0)
    assert surface_distance(a, a, (4.0, 1.0, 0.5)).p95_mm == 0  # type: ignore[union-attr]


def test_rows_beyond_the_human_mask_are_not_scored() -> None:
    found, human = np.ones((5, 3), bool), np.zeros((5, 3), bool)
    human[1:3] = True
    np.testing.assert_array_equal(Compared(found, human, whole_slice=False).scored, human)
    np.testing.assert_array_equal(Compared(found, human, whole_slice=True).scored, found)


def _axial_slice(name: str, *, found: int, human: int) -> SegmentedSlice:
    """So many rows found, and so many drawn by a human."""
    masks = [np.arange(8)[:, None] < np.full(8, rows) for rows in (found, human)]
    compared = {"real_exam/multifidus": Compared(masks[0], masks[1], whole_slice=True)}
    return SegmentedSlice(name, np.zeros((8, 8)), (1.0, 1.0), 4.0, compared)


def test_a_volume_reaches_from_the_first_to_the_last_slice_with_a_human_mask() -> None:
    rows = [(8, 0), (2, 4), (4, 0), (4, 4), (8, 0)]
    axial = [_axial_slice(str(k), found=found, human=human) for k, (found, human) in enumerate(rows)]
    counts = {what: Count(6, 6) for what in ("vertebrae", "discs")}
    t1 = [SegmentedSlice("7_t1", np.zeros((8, 8)), (1.0, 1.0), counts=counts)]
    patients = {"training": ["7"], "validation": [], "test": []}
    by_humans = {what: [count] for what, count in counts.items()}
    scans = RealScans([], axial, [], t1, {False: 0.0, True: 1.0}, by_humans, patients)  # type: ignore[arg-type]
    results = measure(scans, SHIPPED).results
    assert results["real_exam/multifidus"]["n"] == 2
    assert results["real_exam/multifidus/volume"]["dice"] == pytest.approx(2 * (2 + 4) / (2 + 4 + 4 + 4 + 4), abs=1e-4)


def test_what_is_scored_is_what_a_run_writes() -> None:
    stack = make_exam(ExamPlan(4, "F", 50, 1.65, 70.0, "none", n_sagittal=3)).labelled()[0].stack
    scored = SHIPPED.segment("vertebral_body", stack)
    contract = SHIPPED.contracts["vertebral_body"]
    network = load_network("vertebral_body", contract.weights_sha256, "cpu")
    run = segment_stack(network, contract, stack, batch_slices=3, device="cpu", arithmetic="fp32")
    assert list(scored) == list(contract.classes)
    for value, mask in enumerate(scored.values(), start=1):
        np.testing.assert_array_equal(mask, run.winner == value)
        assert mask.sum() > 500
    assert not (scored["vertebral_body"] & scored["sacral_body"]).any()


def test_small_pieces_are_not_counted() -> None:
    mask = np.zeros((40, 40), bool)
    mask[2:14, 2:16] = mask[20:22, 20:22] = True
    np.testing.assert_allclose(pieces(mask, (1.0, 1.0), 100.0), [[7.5, 8.5]])


def test_pieces_are_numbered_from_the_top() -> None:
    mask = np.zeros((40, 40), bool)
    mask[30:34, 2:20] = mask[10:14, 25:39] = mask[20:24, 5:20] = True
    assert pieces(mask, (1.0, 1.0), 10.0)[:, 0].tolist() == [11.5, 21.5, 31.5]


def test_the_table_has_a_line_for_each_score() -> None:
    distances = {"surface_mm": 1.0, "hd95_mm": None, "n_nothing_found": 1}
    results = {
        "a/disc": {"n": 2, "dice": 0.9, "sd": 0.01, "median": 0.9, "worst": 0.8, **distances},
        "t1_counts/exact": 0.5,
        "t1_counts/discs": {"n": 3, "exact": 0.5, "within_one": 1.0, "bias": -0.25},
    }
    lines = as_table(results).splitlines()
    assert lines[2] == "| a/disc | 2 | 0.900 ± 0.010 | 0.900 | 0.800 | 1.0 | - | 1 |"
    assert lines[-1] == "| t1_counts/discs | 3 | 50.0% | 100.0% | -0.25 |"


def write_pictures(folder: Path, pictures: list[np.ndarray]) -> None:
    (folder / "images").mkdir(parents=True)
    with (folder / "series.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["new_file_name", "num_vertebrae", "num_discs", "PixelSpacing"])
        for k, picture in enumerate(pictures):
            cv2.imwrite(str(folder / "images" / f"{k}_t1.png"), picture)
            writer.writerow([f"{k}_t1", 6, 6, "[0.9, 0.9]"])


def test_pictures_are_counted_head_up_however_they_are_stored(tmp_path: Path) -> None:
    plans = [ExamPlan(seed, "F", 50, 1.65, 70.0, n_sagittal=1) for seed in range(3)]
    exams = [make_exam(plan) for plan in plans]
    images = [stack_image(exam, exam.sagittal_slices, t1_contrast(exam))[0] for exam in exams]
    head_up = [np.clip(image // 12, 0, 255).astype(np.uint8) for image in images]
    found = {}
    for upside_down in (False, True):
        folder = tmp_path / str(upside_down)
        write_pictures(folder, [picture[::-1] for picture in head_up] if upside_down else head_up)
        slices, sacrum_cm2 = t1_pictures(folder, SHIPPED, lambda line: None)
        assert head_down(sacrum_cm2) == upside_down
        found[upside_down] = [(one.name, one.counts) for one in slices]
    assert found[False] == found[True]


def few_slices(data: Path, folder: Path) -> None:
    """Some slices of every set, with the layout of the whole."""
    patterns = {
        "real_exam": ("masks/*",),
        "spider_t2space": ("*/57_t2_SPACE_slice59.png", "*/166_t2_SPACE_slice5[46].png", "*/22_*.png", "series.csv"),
        "spider_t1_midsagittal": ("images/22_*.png", "images/24_*.png", "images/166_*.png", "series.csv"),
    }
    wanted = [path for name, globs in patterns.items() for one in globs for path in sorted((data / name).glob(one))]
    wanted += sorted((data / "real_exam/dicom/sagittal_t1").iterdir())[6:9]
    wanted += sorted((data / "real_exam/dicom/axial_inphase").iterdir())[10:12]
    for path in wanted:
        copy = folder / path.relative_to(data)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


@dataclass(frozen=True)
class Validated:
    """What the command printed and wrote."""

    results: Mapping[str, Any]
    weights: Path
    pages: Path

    @property
    def networks(self) -> list[str]:
        names = ("vertebral_body", "disc", "muscle")
        return [word for name in names for word in (f"--{name.replace('_', '-')}", str(self.weights / f"{name}.json"))]


@pytest.fixture(scope="module")
def validated(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Validated:
    folder = tmp_path_factory.mktemp("validate")
    few_slices(real_data, folder / "scans")
    shutil.copytree(WEIGHTS, folder / "weights")
    found = Validated({}, folder / "weights", folder / "pages")
    options = ["--data", str(folder / "scans"), "--pictures", str(found.pages), "--cards", "--slices", "--json"]
    result = CliRunner().invoke(main, ["validate", "weights", *options, *found.networks], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return Validated(json.loads(result.stdout), found.weights, found.pages)


def test_every_set_has_its_numbers(validated: Validated) -> None:
    for key in DICE_KEYS:
        scores = validated.results[key]
        assert scores["n"] >= 1
        assert 0 <= scores["worst"] <= scores["median"] <= 1
        assert 0 < scores["dice"] <= 1
        assert scores["sd"] >= 0
        assert scores["surface_mm"] <= scores["hd95_mm"]
    assert validated.results["real_exam/vertebral_body"]["n"] == 3
    assert validated.results["real_exam/multifidus/volume"]["n"] == 1
    assert validated.results["spider/disc"]["n"] == 3
    assert validated.results["slices"]["real_exam/multifidus"].keys() == {"10", "11"}


def test_central_slices_of_the_real_exam_are_outlined(validated: Validated) -> None:
    """Their masks belong to them: slices are matched by number, whichever are there."""
    assert validated.results["real_exam/vertebral_body"]["worst"] > 0.7
    assert validated.results["real_exam/erector_spinae"]["worst"] > 0.7


def test_counts_are_shares_of_bodies_and_discs_together(validated: Validated) -> None:
    results = validated.results
    assert results["t1_counts/turned"] is True
    parts = [results[f"t1_counts/{what}"] for what in ("vertebrae", "discs")]
    for share in ("within_one", "exact"):
        assert results[f"t1_counts/{share}"] == pytest.approx(np.mean([part[share] for part in parts]), abs=1e-4)
    assert all(part["n"] == 3 for part in parts)
    assert results["t1_counts/persons"] == ["166", "22", "24"]
    human = results["human_counts/discs"]
    assert human["within_one"] > 0.9  # the rule of counting, applied to human masks
    assert results["spider/patients"] == {"training": ["22"], "validation": [], "test": ["57", "166"]}


def test_pages_are_pictures_small_enough_for_the_documentation(validated: Validated) -> None:
    pages = {path.name: path for path in validated.pages.iterdir()}
    known = {name for of_class in PAGES.values() for name in of_class}
    assert {"real-exam-sagittal.jpg", "real-exam-axial.jpg", "spider-best-worst.jpg"} <= set(pages) <= known
    assert {"t1-counts-good.jpg", "t1-counts-bad.jpg"} & set(pages)
    for path in pages.values():
        assert path.stat().st_size <= MAX_BYTES
        picture = cv2.imread(str(path)).astype(int)
        assert np.ptp(picture, axis=2).max() > 60, "there are coloured lines"
        assert (picture.max(axis=2) > 40).mean() > 0.03, "there is anatomy"


def test_cards_tell_what_was_measured(validated: Validated) -> None:
    measured = read_measured(validated.weights)
    assert measured is not None
    assert {**measured.results, "slices": measured.slices} == validated.results
    for name in SHIPPED.contracts:
        card = (validated.weights / f"{name}.md").read_text()
        assert card == card_text(read_contract(name), measured, shipped=False)
        assert "docs/validation" not in card
        assert "Not for clinical use" in card
    assert f"| real_exam/multifidus | 2 slices | {measured.results['real_exam/multifidus']['dice']:.3f} ±" in card


def test_stored_results_are_shown_where_no_scans_are_named(validated: Validated) -> None:
    options = ["validate", "weights", "--json", "--slices", *validated.networks]
    result = CliRunner(env={"COHORT_TEST_DATA": None}).invoke(main, options)
    assert json.loads(result.stdout) == validated.results
    assert "stored" in result.stderr


def test_results_of_other_weights_are_not_shown(tmp_path: Path) -> None:
    contract = read_contract("disc")
    other = Measured({"disc": "0" * 64}, {}, {})
    assert "Not measured yet" in card_text(contract, other, shipped=True)
    write_card(tmp_path, contract)
    assert (tmp_path / "disc.md").read_text() == card_text(contract, None, shipped=False)
    shutil.copytree(WEIGHTS, tmp_path / "weights")
    (tmp_path / "weights" / RESULTS_FILE).unlink(missing_ok=True)
    paths = [f"--{name.replace('_', '-')}={tmp_path}/weights/{name}.json" for name in SHIPPED.contracts]
    result = CliRunner(env={"COHORT_TEST_DATA": None}).invoke(main, ["validate", "weights", *paths])
    assert result.exit_code == 2
    assert "no results" in result.output


def test_a_card_of_somebody_s_network_tells_what_its_contract_says() -> None:
    patients = {"training": ["7", "22"], "validation": ["3"]}
    contract = dataclasses.replace(
        read_contract("disc"), credit="Not SPIDER, CC BY 4.0", annotated_patients=patients, weights_sha256="1" * 64
    )
    counted = {"n": 3, "exact": 0.5, "within_one": 1.0, "bias": 0.0}
    results = {"t1_counts/discs": counted, "t1_counts/persons": ["22", "22", "24", "7"]}
    measured = Measured({"disc": "1" * 64}, results, {})
    card = card_text(contract, measured, shipped=False)
    assert "real slices of Not SPIDER" in card
    assert "- training: 2 patients, 7, 22\n- validation: 1 patients, 3\n" in card
    assert "2 of these persons have the number of" in " ".join(card.split())
    ours = card_text(contract, measured, shipped=True)
    for claim in (
        "Choices were made",
        "docs/validation",
        "Apache-2.0, code",
        "T2 SPACE alone",
        "No weights were fitted",
    ):
        assert claim in ours
        assert claim not in card


def test_cards_are_for_networks_of_one_folder(real_data: Path, tmp_path: Path) -> None:
    shutil.copytree(WEIGHTS, tmp_path / "weights")
    disc = tmp_path / "weights" / "disc.json"
    options = ["validate", "weights", "--data", str(real_data), "--cards", "--disc", str(disc)]
    result = CliRunner().invoke(main, options)
    assert result.exit_code == 2
    assert "one folder" in result.output


@pytest.mark.parametrize("name", shipped_networks())
def test_the_shipped_card_is_that_of_the_stored_results(name: str) -> None:
    """If this fails: `cohort validate weights --cards`."""
    assert (WEIGHTS / f"{name}.md").read_text() == card_text(read_contract(name), read_measured(WEIGHTS), shipped=True)


def test_the_table_of_the_documentation_is_that_of_the_stored_results() -> None:
    measured = read_measured(WEIGHTS)
    assert measured is not None
    assert measured.weights == {name: contract.weights_sha256 for name, contract in SHIPPED.contracts.items()}
    table = (ROOT / "docs/validation/segmentation-table.md").read_text()
    assert table == f"{as_table(measured.results)}\n\n{slices_table(measured.slices)}\n"


@pytest.mark.parametrize(
    ("emptied", "named"),
    [
        ("spider_t1_midsagittal/images/*", "no pictures (images/*.png) in spider_t1_midsagittal"),
        ("spider_t2space/labels/22_*", "no slices of training or validation patients in spider_t2space"),
    ],
)
def test_an_empty_set_is_refused_before_anything_is_measured(
    real_data: Path, tmp_path: Path, emptied: str, named: str
) -> None:
    few_slices(real_data, tmp_path)
    for path in tmp_path.glob(emptied):
        path.unlink()
    result = CliRunner().invoke(main, ["validate", "weights", "--json", "--data", str(tmp_path)])
    assert result.exit_code == 2
    assert named in " ".join(result.output.replace("│", " ").split())
    assert not result.stdout


def test_a_folder_without_scans_is_named_in_the_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["validate", "weights", "--data", str(tmp_path)])
    assert result.exit_code == 2
    assert "real_exam" in result.output
