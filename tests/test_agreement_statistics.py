"""Statistics of made-up readers against their known truth, against other packages, and on bad input."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from reader_studies import pair

from cohort.agreement.bland_altman import bland_altman, mean_absolute_error
from cohort.agreement.by_person import FEWEST_PERSONS, intervals_by_person, mean_by_person
from cohort.agreement.correlation import correlation, intraclass
from cohort.agreement.overlap_summary import overlap_summary_rows
from cohort.agreement.rows import OverlapRow, agreement_table
from cohort.agreement.statistics import agreement_rows, statistics
from cohort.reasons import REASONS


def loaded_benchmark() -> ModuleType:
    """benchmarks/agreement.py, which makes up readers of known agreement."""
    path = Path(__file__).parents[1] / "benchmarks" / "agreement.py"
    spec = importlib.util.spec_from_file_location("agreement_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


benchmark = loaded_benchmark()
readers, truth, LEVELS = benchmark.readers, benchmark.truth, benchmark.LEVELS
INTERVALS = ("mae", "bias", "lower_limit", "upper_limit", "r", "icc")


@pytest.fixture(scope="module")
def study() -> dict[str, Any]:
    return statistics(*readers(np.random.default_rng(1), 4000))


@pytest.mark.parametrize("name", INTERVALS)
def test_a_large_study_finds_the_truth(study: dict[str, Any], name: str) -> None:
    true = truth()[name]
    assert study["reason"] is None
    assert study[name] == pytest.approx(true, abs=0.05)
    assert study[f"{name}_low_clustered"] <= true <= study[f"{name}_high_clustered"]


def test_intervals_by_person_hold_the_truth_and_those_of_single_pairs_do_not() -> None:
    """200 studies of 20 persons with five levels each: 95 % less three standard errors is 90 %."""
    found = benchmark.coverage(20, 200)
    assert {name: share for name, share in found["by_person"].items() if not 0.90 <= share <= 0.99} == {}
    assert max(found["naive"].values()) < 0.87


def test_intervals_of_independent_pairs_are_about_those_by_person() -> None:
    random = np.random.default_rng(6)
    first = random.normal(30, 2, 300)
    found = statistics(first, first + random.normal(0.3, 1.0, 300), [str(k) for k in range(300)])
    for name in INTERVALS:
        naive = found[f"{name}_high"] - found[f"{name}_low"]
        assert found[f"{name}_high_clustered"] - found[f"{name}_low_clustered"] == pytest.approx(naive, rel=0.2)


def test_the_same_pairs_have_the_same_intervals_in_any_order() -> None:
    first, second, persons = readers(np.random.default_rng(7), 12)
    once, again = intervals_by_person(first, second, persons), intervals_by_person(first, second, persons)
    assert once == again
    shift = intervals_by_person(first + 1e6, second + 1e6, persons)
    assert shift["icc"] == pytest.approx(once["icc"], rel=1e-6)


@pytest.fixture
def oracle() -> Iterator[Any]:
    """pingouin without the rounding of its intervals."""
    pingouin = pytest.importorskip("pingouin")
    before = pingouin.options["round.column.CI95"]
    pingouin.options["round.column.CI95"] = 12
    yield pingouin
    pingouin.options["round.column.CI95"] = before


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # pandas, of what pingouin does
@pytest.mark.parametrize(("n", "bias", "noise"), [(40, 0.5, 1.0), (5, -3.0, 0.4), (12, 0.0, 5.0)])
def test_pingouin_finds_the_same_correlations(oracle: Any, n: int, bias: float, noise: float) -> None:
    random = np.random.default_rng(n)
    first = random.normal(10, 2, n)
    second = first + bias + random.normal(0, noise, n)
    ours, theirs = correlation(first, second), oracle.corr(first, second).iloc[0]
    assert ours is not None
    assert (ours.r.value, ours.p) == pytest.approx((theirs["r"], theirs["p_val"]), abs=1e-6)
    assert (ours.r.low, ours.r.high) == pytest.approx(tuple(theirs["CI95"]), abs=1e-6)
    ratings = pd.DataFrame({
        "thing": np.tile(np.arange(n), 2), "rater": np.repeat([1, 2], n), "value": np.concatenate([first, second])
    })  # fmt: skip
    table = oracle.intraclass_corr(ratings, targets="thing", raters="rater", ratings="value").set_index("Type")
    icc = intraclass(np.column_stack([first, second]))
    assert icc is not None
    assert icc.value == pytest.approx(table.loc["ICC(A,1)", "ICC"], abs=1e-6)
    assert (icc.low, icc.high) == pytest.approx(tuple(table.loc["ICC(A,1)", "CI95"]), abs=1e-6)


def test_statsmodels_finds_the_same_means_and_intervals() -> None:
    weightstats = pytest.importorskip("statsmodels.stats.weightstats")
    random = np.random.default_rng(8)
    first, second = random.normal(10, 2, 30), random.normal(10.4, 2, 30)
    bias, mae = bland_altman(first, second).bias, mean_absolute_error(first, second)
    for ours, values in ((bias, second - first), (mae, np.abs(second - first))):
        theirs = weightstats.DescrStatsW(values)
        assert ours.value == pytest.approx(theirs.mean, abs=1e-6)
        assert (ours.low, ours.high) == pytest.approx(theirs.tconfint_mean(), abs=1e-6)


@pytest.mark.parametrize(
    ("first", "second", "known", "reasons"),
    [
        ([8.0], [9.0], {"mae": 1.0, "bias": 1.0}, "too_few_pairs+too_few_persons"),
        ([8.0, 9.0], [9.0, 9.0], {"mae": 0.5, "bias": 0.5}, "too_few_pairs+too_few_persons"),
        ([8.0, 8.0, 8.0], [7.0, 8.0, 9.0], {"bias": 0.0}, "constant_values+too_few_persons"),
        ([8.0, 8.0, 8.0], [8.0, 8.0, 8.0], {"bias": 0.0, "mae": 0.0}, "constant_values+too_few_persons"),
        ([7.0, 8.0, 9.0], [8.0, 9.0, 10.0], {"r": 1.0, "icc": 2 / 3}, "constant_differences+too_few_persons"),
    ],
)
def test_what_cannot_be_known_is_missing_for_a_reason(
    first: list[float], second: list[float], known: dict[str, float], reasons: str
) -> None:
    (row,) = agreement_rows([pair(k, *values) for k, values in enumerate(zip(first, second, strict=True))])
    assert row.reason == reasons
    assert all(code in REASONS for code in reasons.split("+"))
    assert {name: getattr(row, name) for name in known} == pytest.approx(known)
    assert row.mae_low_clustered is None
    assert (row.r is None) == ("constant_values" in reasons or len(first) < 3)
    assert (row.lower_limit is None) == (len(first) == 1)
    assert agreement_table("agreement", [row]).num_rows == 1  # no NaN


def test_pairs_without_values_are_counted_and_give_no_statistics() -> None:
    (row,) = agreement_rows([pair(1, None, 8.0, reason="structure_missed")])  # type: ignore[arg-type]
    assert (row.n, row.n_without, row.reason, row.bias) == (0, 1, "no_pairs", None)


def test_flagged_pairs_count_and_are_counted() -> None:
    (row,) = agreement_rows([pair(k, 8.0, 9.0, flags="size_jump" if k else None) for k in range(3)])
    assert (row.n, row.n_flagged) == (3, 2)


def test_one_person_has_no_interval_by_persons() -> None:
    first, second, _ = readers(np.random.default_rng(9), 10)
    found = statistics(first, second, ["one"] * len(first))
    assert found["reason"] == "too_few_persons"
    assert {found[f"{name}_low_clustered"] for name in INTERVALS} == {None}
    assert mean_by_person([0.8, 0.9], ["one", "one"]) is None


def test_enough_persons_have_intervals_and_one_less_has_none() -> None:
    first, second, persons = readers(np.random.default_rng(10), FEWEST_PERSONS)
    assert statistics(first, second, persons)["icc_low_clustered"] is not None
    fewer = statistics(first[LEVELS:], second[LEVELS:], persons[LEVELS:])
    assert (fewer["icc_low_clustered"], fewer["upper_limit_low_clustered"]) == (None, None)
    assert fewer["reason"] == "too_few_persons"


def test_a_statistic_that_most_resamples_lack_has_no_interval() -> None:
    first = np.array([5.0] * 9 + [6.0])  # without the last person nothing varies
    found = intervals_by_person(first, first + np.arange(10) / 10, [str(k) for k in range(10)])
    assert found["r"] is None
    assert found["bias"] is not None


def test_groups_are_levels_muscles_and_sides() -> None:
    areas = [
        pair(k, 8.0, 8.5, level=level, muscle="psoas", side=side)
        for k, (level, side) in enumerate([("L4-L5", "left"), ("L4-L5", "right"), ("L3-L4", "left")])
    ]
    rows = {(row.level, row.muscle, row.side): row.n for row in agreement_rows(areas)}
    assert rows == {
        (None, None, None): 3, ("L4-L5", None, None): 2, ("L3-L4", None, None): 1, (None, "psoas", None): 3,
        (None, "psoas", "left"): 2, (None, "psoas", "right"): 1, ("L4-L5", "psoas", None): 2,
        ("L3-L4", "psoas", None): 1,
    }  # fmt: skip


def overlap(exam: int, dice: float | None, **named: Any) -> OverlapRow:
    return OverlapRow(
        exam_id=f"exam{exam}", subject_id=f"person{exam}", kind="disc", first_reader="anna", second_reader="automatic",
        dice=dice, n_first=100, n_second=100, **{"structure": "L4-L5", "level": "L4-L5", **named},
    )  # fmt: skip


def test_missed_extra_and_misnamed_structures_are_counted_apart_from_overlap() -> None:
    rows = [
        *(overlap(k, 0.9 + 0.01 * (k % 3), second_level="L4-L5", hausdorff95_mm=1.0, surface_mm=0.5) for k in range(9)),
        overlap(9, 0.8, second_level="L5-S1", hausdorff95_mm=3.0, surface_mm=1.0),
        overlap(10, None, reason="structure_missed"),
        overlap(11, None, reason="structure_extra"),
    ]
    found = {row.level: row for row in overlap_summary_rows(rows)}["L4-L5"]
    assert (found.n, found.n_persons, found.n_missed, found.n_extra, found.n_misnamed) == (10, 10, 1, 1, 1)
    assert found.mean == pytest.approx(0.899)
    assert found.hausdorff95_mm == pytest.approx(1.2)
    assert found.low is not None
    assert found.low_clustered is not None
    assert found.low < 0.899 < found.high  # type: ignore[operator]
    assert found.low_clustered < 0.899 < found.high_clustered  # type: ignore[operator]
    assert found.reason is None


def test_slices_are_summed_up_in_tenths_of_the_stack() -> None:
    places = [0.0, 0.05, 0.55, 1.0]
    rows = [overlap(k, 0.5 + k / 10, structure="all", level=None, slice_position=at) for k, at in enumerate(places)]
    found = overlap_summary_rows(rows)
    assert [(row.slice_bin, row.n, row.mean) for row in found] == [
        (0, 2, pytest.approx(0.55)), (5, 1, pytest.approx(0.7)), (9, 1, pytest.approx(0.8))
    ]  # fmt: skip
    assert found[1].reason == "too_few_pairs+too_few_persons"
