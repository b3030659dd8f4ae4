"""Agreement statistics against published worked examples and simulated truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cohort.agreement.bland_altman import Interval, bland_altman, mean_absolute_error
from cohort.agreement.correlation import icc_2_1, pearson

WRIGHT = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
MINI_WRIGHT = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]
"""Peak expiratory flow of 17 persons, l/min, by two meters (Bland & Altman 1986, table 1)."""

CARDIAC: dict[int, list[tuple[float, float]]] = {
    1: [(7.83, 6.57), (7.42, 5.62), (7.89, 6.90), (7.12, 6.57), (7.88, 6.35)],
    2: [(6.16, 4.06), (7.26, 4.29), (6.71, 4.26), (6.54, 4.09)],
    3: [(4.75, 4.71), (5.24, 5.50), (4.86, 5.08), (4.78, 5.02), (6.05, 6.01), (5.42, 5.67)],
    4: [(4.21, 4.14), (3.61, 4.20), (3.72, 4.61), (3.87, 4.68), (3.92, 5.04)],
    5: [(3.13, 3.03), (2.98, 2.86), (2.85, 2.77), (3.17, 2.46), (3.09, 2.32), (3.12, 2.43)],
    6: [(5.92, 5.90), (6.42, 5.81), (5.92, 5.70), (6.27, 5.76)],
    7: [(7.13, 5.09), (6.62, 4.63), (6.58, 4.61), (6.93, 5.09)],
    8: [(4.54, 4.72), (4.81, 4.61), (5.11, 4.36), (5.29, 4.20), (5.39, 4.36), (5.57, 4.20)],
    9: [(4.48, 3.17), (4.92, 3.12), (3.97, 2.96)],
    10: [(4.22, 4.35), (4.65, 4.62), (4.74, 3.16), (4.44, 3.53), (4.50, 3.53)],
    11: [(6.78, 7.20), (6.07, 6.09), (6.52, 7.00), (6.42, 7.10), (6.41, 7.40), (5.76, 6.80)],
    12: [(5.06, 4.50), (4.72, 4.20), (4.90, 3.80), (4.80, 3.80), (4.90, 4.20), (5.10, 4.50)],
}
"""Person -> pairs by radionuclide ventriculography and by impedance cardiography (Bland & Altman 2007, table 1)."""


def cardiac() -> tuple[list[float], list[float], list[int]]:
    """Impedance, ventriculography and person of 60 pairs."""
    rows = [(ic, rv, person) for person, pairs in CARDIAC.items() for rv, ic in pairs]
    first, second, persons = zip(*rows, strict=True)
    return list(first), list(second), list(persons)


def width(found: Interval | None) -> float:
    """Of a confidence interval that must be there."""
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    return found.high - found.low


def test_peak_flow_gives_the_figures_of_the_paper() -> None:
    found = bland_altman(MINI_WRIGHT, WRIGHT)
    assert (found.n, found.n_persons) == (17, 17)
    assert found.sd is not None
    assert (round(found.bias.value, 1), round(found.sd, 1)) == (-2.1, 38.8)
    assert found.bias.low == pytest.approx(-22.0, abs=0.1)  # the paper rounds on the way: -2.1 -+ 2.12 * 9.4
    assert found.bias.high == pytest.approx(17.8, abs=0.1)


def test_limits_of_one_pair_a_person_follow_the_formula_of_1999() -> None:
    found = bland_altman(MINI_WRIGHT, WRIGHT)
    assert found.sd is not None
    assert found.lower is not None
    assert found.upper is not None
    reach = stats.t.ppf(0.975, 16) * found.sd * np.sqrt(1 / 17 + stats.norm.ppf(0.975) ** 2 / 32)
    assert found.lower.value == pytest.approx(found.bias.value - 1.959964 * found.sd, abs=1e-4)
    assert found.upper.value == pytest.approx(found.bias.value + 1.959964 * found.sd, abs=1e-4)
    assert (found.lower.low, found.lower.high) == pytest.approx((found.lower.value - reach, found.lower.value + reach))
    assert (found.upper.low, found.upper.high) == pytest.approx((found.upper.value - reach, found.upper.value + reach))
    assert found.width == pytest.approx(2 * 1.959964 * found.sd, abs=1e-3)


def test_several_pairs_of_a_person_give_the_figures_of_2007() -> None:
    found = bland_altman(*cardiac())
    assert (found.n, found.n_persons) == (60, 12)
    assert found.bias.value == pytest.approx(0.6021667, abs=5e-8)
    assert found.sd == pytest.approx(0.99062408, abs=5e-8)
    assert found.lower is not None
    assert found.upper is not None
    assert found.lower.value == pytest.approx(-1.3394565, abs=5e-5)  # the paper takes 1.96 for 1.959964
    assert found.upper.value == pytest.approx(2.5437899, abs=5e-5)


def test_pairs_taken_for_persons_look_surer_than_they_are() -> None:
    first, second, persons = cardiac()
    ours, naive = bland_altman(first, second, persons), bland_altman(first, second)
    assert naive.sd == pytest.approx(0.9610571, abs=5e-8)  # the paper's figure without regard to persons
    assert naive.n_persons == 60
    for mine, other in ((ours.bias, naive.bias), (ours.lower, naive.lower), (ours.upper, naive.upper)):
        assert width(mine) > 1.5 * width(other)


def test_one_second_value_of_one_person_hardly_changes_the_intervals() -> None:
    random = np.random.default_rng(3)
    new = random.normal(0.4, 1.0, 30)
    alone = bland_altman(np.zeros(30), new)
    repeated = bland_altman(np.zeros(31), [*new, new[0] + 0.1], [*range(30), 0])
    assert width(repeated.upper) == pytest.approx(width(alone.upper), rel=0.1)
    assert width(repeated.bias) == pytest.approx(width(alone.bias), rel=0.1)


def test_values_that_only_repeat_themselves_tell_nothing_more() -> None:
    random = np.random.default_rng(4)
    new = random.normal(0.4, 1.0, 20)
    once, thrice = bland_altman(np.zeros(20), new), bland_altman(np.zeros(60), np.repeat(new, 3), np.arange(60) // 3)
    assert thrice.sd == pytest.approx(once.sd)
    assert width(thrice.bias) == pytest.approx(width(once.bias))
    assert width(thrice.lower) == pytest.approx(width(once.lower))


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """600 simulated studies of 20 persons with 2 to 6 levels each: 95 % less three standard errors is 0.923."""
    random = np.random.default_rng(11)
    bias, between, within = 0.3, 0.8, 0.6
    limit = bias + stats.norm.ppf(0.975) * np.hypot(between, within)
    held = {"bias": 0, "upper": 0}
    for _ in range(600):
        persons = np.repeat(np.arange(20), random.integers(2, 7, 20))
        new = bias + random.normal(0, between, 20)[persons] + random.normal(0, within, len(persons))
        found = bland_altman(np.zeros(len(persons)), new, persons)
        assert found.upper is not None
        held["bias"] += found.bias.low <= bias <= found.bias.high  # type: ignore[operator]
        held["upper"] += found.upper.low <= limit <= found.upper.high  # type: ignore[operator]
    assert 0.923 <= held["bias"] / 600 <= 0.98
    assert 0.923 <= held["upper"] / 600 <= 0.98


def test_mean_absolute_error_of_a_normal_difference() -> None:
    random = np.random.default_rng(5)
    found = mean_absolute_error(np.zeros(4000), random.normal(0.0, 2.0, 4000))
    truth = 2.0 * np.sqrt(2 / np.pi)
    assert found.low is not None
    assert found.high is not None
    assert found.low < truth < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * 2.0 * np.sqrt(1 - 2 / np.pi) / np.sqrt(4000), rel=0.1)


def test_large_values_lose_no_digits() -> None:
    small = bland_altman([0.0, 0.0, 0.0, 0.0], [0.1, 0.2, 0.3, 0.6], [1, 1, 2, 2])
    large = bland_altman([1e9] * 4, [1e9 + 0.1, 1e9 + 0.2, 1e9 + 0.3, 1e9 + 0.6], [1, 1, 2, 2])
    assert large.sd == pytest.approx(small.sd, rel=1e-5)


def test_one_pair_or_one_person_has_a_bias_and_nothing_that_it_cannot_know() -> None:
    for found in (bland_altman([1.0], [1.5]), bland_altman([1.0, 2.0], [1.5, 2.5], ["a", "a"])):
        assert found.bias.value == 0.5
        assert (found.bias.low, found.sd, found.lower, found.upper, found.width) == (None,) * 5
    assert mean_absolute_error([1.0], [0.5]).high is None


def test_no_change_at_all_has_limits_of_zero_width() -> None:
    found = bland_altman([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0], [1, 1, 2, 2])
    assert (found.bias.value, found.sd, found.width) == (0.0, 0.0, 0.0)
    assert found.lower is not None
    assert found.lower.low == 0.0


@pytest.mark.parametrize(
    ("first", "second", "persons"),
    [([], [], None), ([1.0], [1.0, 2.0], None), ([1.0], [float("nan")], None), ([1.0, 2.0], [1.0, 2.0], [1])],
)
def test_what_is_no_list_of_pairs_is_an_error(first: list[float], second: list[float], persons: list[int]) -> None:
    with pytest.raises(ValueError, match=r"pair"):
        bland_altman(first, second, persons)


def test_correlation_is_scipys_and_undefined_where_nothing_varies() -> None:
    assert pearson(WRIGHT, MINI_WRIGHT) == pytest.approx(stats.pearsonr(WRIGHT, MINI_WRIGHT).statistic)
    assert pearson([1.0, 2.0], [1.0, 2.0]) is None
    assert pearson([0.1 + 0.2, 0.3, 0.3], [1.0, 2.0, 3.0]) is None
    assert pearson([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]) == 1.0


def test_intraclass_correlation_gives_the_published_value() -> None:
    ratings = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    found = icc_2_1(ratings)  # Shrout & Fleiss 1979, tables 2 and 4
    assert found is not None
    assert round(found, 2) == 0.29


def test_intraclass_correlation_falls_with_a_bias_that_pearson_does_not_see() -> None:
    first = np.array([1.0, 2.0, 3.0, 4.0])
    assert icc_2_1(np.column_stack([first, first])) == pytest.approx(1.0)
    biased = icc_2_1(np.column_stack([first, first + 2.0]))
    assert biased is not None
    assert biased < 0.5
    assert pearson(first, first + 2.0) == pytest.approx(1.0)
    assert icc_2_1([[1.0, 1.0]] * 5) is None
    assert icc_2_1([[1.0, 2.0], [2.0, 3.0]]) is None
    with pytest.raises(ValueError, match="ratings"):
        icc_2_1([1.0, 2.0])
