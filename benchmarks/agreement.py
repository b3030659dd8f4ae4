"""How often the 95 % intervals of agreement statistics hold the truth, by number of persons.

python benchmarks/agreement.py [--studies 1000] [--persons 5 8 20 60] [--json]

Made-up studies of two readers whose agreement is known: five levels of each person, a true value that differs between
persons (SD 2) and levels (SD 1), and a second reader with a bias of 0.3 and a difference that has a part of the person
(SD 0.8) and one of the level (SD 0.6). All normal. Intervals by person are made for any number of persons here, also
for the few of which tables have none.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from typing import Final

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy import stats

from cohort.agreement.bland_altman import Values
from cohort.agreement.statistics import statistics

BIAS, BETWEEN, WITHIN = 0.3, 0.8, 0.6
"""Of the second reader: mean difference, and its spread between persons and between the levels of one."""
TRUE_BETWEEN, TRUE_WITHIN = 2.0, 1.0
"""Spread of the true values between and within persons."""
LEVELS: Final = 5
STATISTICS: Final = ("mae", "bias", "lower_limit", "upper_limit", "r", "icc")

Shares = dict[str, dict[str, float]]
"""`by_person` and `naive` -> statistic -> share of studies whose interval holds the truth."""


def readers(random: np.random.Generator, n_persons: int) -> tuple[Values, Values, list[str]]:
    """Values of two readers at every level of each person, and whose they are."""
    codes = np.repeat(np.arange(n_persons), LEVELS)
    first = 30 + random.normal(0, TRUE_BETWEEN, n_persons)[codes] + random.normal(0, TRUE_WITHIN, len(codes))
    change = BIAS + random.normal(0, BETWEEN, n_persons)[codes] + random.normal(0, WITHIN, len(codes))
    return first, first + change, [f"person {code}" for code in codes]


def truth() -> dict[str, float]:
    """What the statistics estimate."""
    of_first, sd = TRUE_BETWEEN**2 + TRUE_WITHIN**2, math.hypot(BETWEEN, WITHIN)
    things, error = 2 * of_first + sd**2 / 2, sd**2 / 2
    return {
        "mae": float(stats.foldnorm.mean(BIAS / sd, scale=sd)),
        "bias": BIAS,
        "lower_limit": BIAS - float(stats.norm.ppf(0.975)) * sd,
        "upper_limit": BIAS + float(stats.norm.ppf(0.975)) * sd,
        "r": math.sqrt(of_first / (of_first + sd**2)),
        "icc": (things - error) / (things + error + BIAS**2),
    }


def coverage(n_persons: int, n_studies: int, *, seed: int = 0, fewest: int = 2) -> Shares:
    """Share of studies whose intervals hold the truth.

    Parameters
    ----------
    fewest : persons from which on there are intervals by person
    """
    random, true = np.random.default_rng([seed, n_persons]), truth()
    held = {"by_person": dict.fromkeys(STATISTICS, 0), "naive": dict.fromkeys(STATISTICS, 0)}
    for _ in range(n_studies):
        found = statistics(*readers(random, n_persons), fewest_persons=fewest)
        for kind, suffix in (("by_person", "_clustered"), ("naive", "")):
            for name in STATISTICS:
                low, high = found[f"{name}_low{suffix}"], found[f"{name}_high{suffix}"]
                held[kind][name] += low is not None and low <= true[name] <= high
    return {kind: {name: n / n_studies for name, n in counts.items()} for kind, counts in held.items()}


def main() -> None:
    """Print a Markdown table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--persons", type=int, nargs="+", default=[5, 8, 20, 60])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = {n: coverage(n, options.studies) for n in options.persons}
    if options.json:
        print(json.dumps(found))
        return
    print(f"| persons | intervals | {' | '.join(STATISTICS)} |\n|---|---|{'---|' * len(STATISTICS)}")
    for n, shares in found.items():
        for kind, text in (("by_person", "by person"), ("naive", "naive")):
            print(f"| {n} | {text} | {' | '.join(f'{100 * shares[kind][name]:.0f}' for name in STATISTICS)} |")


if __name__ == "__main__":
    main()
