"""The gate: may the numbers of a change become current without anybody's look?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cohort.errors import ConfigurationError
from pipelines.candidate import drop, finish_promotion, held_run, promote, require_candidate
from pipelines.change import Agreement, ChangeReport
from pipelines.change_pairs import ALL, ChangePairs
from pipelines.config import GateConfig


@dataclass(frozen=True)
class Breach:
    """A limit that a change exceeds."""

    what: str
    """For people: feature, level and vendor, and which limit."""
    value: float
    limit: float
    unit: str
    agreement: Agreement | None = None
    """The comparison that it is of; None where it is of the exams, or of masks."""

    def __str__(self) -> str:
        return f"{self.what}: {self.value:.3g} {self.unit}, limit {self.limit:g} {self.unit}"


def verdict(report: ChangeReport, gate: GateConfig) -> tuple[Breach, ...]:
    """Limits of the configuration that a change exceeds: on exams, on masks, then features in the report's order."""
    of_features = (one for a in report.agreements for one in _breaches(a, gate))
    return (*_breaches_of_exams(report, gate), *_breaches_of_masks(report, gate), *of_features)


def accepts(report: ChangeReport, gate: GateConfig) -> bool:
    """Say if the new rows may become current: the change has been through all exams, and the gate lets it pass."""
    if report.exams.n_waiting or gate.accept == "never":
        return False
    return gate.accept == "always" or not verdict(report, gate)


def accept_held(store: Path) -> int:
    """Make held numbers current, whatever the limits say; returns the number of exams.

    An acceptance that was interrupted is finished first. `ConfigurationError` when nothing waits, and when the change
    has not been through all exams: tables of two versions side by side are what the gate is there to prevent.
    """
    if finish_promotion(store):
        return 0
    with ChangePairs(store) as pairs:
        n_waiting = pairs.exams().n_waiting
    run_id = held_run(store)
    if n_waiting or run_id is None:
        raise ConfigurationError(
            f"the change has not been through all exams (still to be redone: {n_waiting}): run again until it has"
        )
    return promote(store, run_id)


def discard_held(store: Path) -> None:
    """Drop the numbers that wait, and say so in the row of the run that held them.

    `ConfigurationError` when nothing waits, or when they are accepted already and only an interruption left them.
    """
    if finish_promotion(store):
        raise ConfigurationError("these numbers had been accepted; the interrupted acceptance is finished now")
    require_candidate(store)
    drop(store)


def _breaches_of_exams(report: ChangeReport, gate: GateConfig) -> Iterator[Breach]:
    exams = report.exams
    for what, n, limit in (
        ("exams with results that are now refused or failed", exams.n_lost, gate.lost_exams),
        ("exams in which a level has another name", exams.n_renamed, gate.renamed_exams),
    ):
        share = n / exams.n_compared if exams.n_compared else 0.0
        if share > limit:
            yield Breach(f"{what}, {n} of {exams.n_compared}", 100 * share, 100 * limit, "%")


def _breaches_of_masks(report: ChangeReport, gate: GateConfig) -> Iterator[Breach]:
    """A kind whose masks overlap too little; a comparison that failed has found no exam in which they overlap."""
    masks = report.masks
    if masks is None or not gate.least_dice:
        return
    if masks.failed:
        yield Breach(f"masks: {masks.reason} Exams compared", 0.0, 1.0, "exams")
    for kind, dice in masks.dice.items():
        if dice < gate.least_dice:
            what = f"{kind.replace('_', ' ')}, mean Dice of old and new masks in {masks.n_compared} exams"
            yield Breach(what, dice, gate.least_dice, "of 1")


def _breaches(one: Agreement, gate: GateConfig) -> Iterator[Breach]:
    where = ", ".join(part for part in (one.title, one.level, one.vendor) if part != ALL)
    n_persons = one.limits.n_persons if one.limits else 0
    together = one.level == ALL and one.vendor == ALL
    if one.lost is not None and one.lost > gate.lost_numbers and (together or one.n_before >= gate.least_persons):
        what = f"{where}: numbers that vanished, {one.n_vanished} of {one.n_before}"
        yield Breach(what, 100 * one.lost, 100 * gate.lost_numbers, "%", one)
    if one.limits is None or not (together or n_persons >= gate.least_persons):
        return
    kind = one.feature.kind
    bias = one.bias_percent if kind.relative else one.limits.bias.value
    width = one.width_percent if kind.relative else one.limits.width
    unit = "%" if kind.relative else one.feature.unit
    for what, value in (("bias", bias), ("width", width)):
        limit = _limit(gate, kind.name, what)
        if value is not None and abs(value) > limit:
            named = "bias" if what == "bias" else "width of the limits of agreement"
            yield Breach(f"{where}: {named}", value, limit, unit, one)


def _limit(gate: GateConfig, kind: str, what: str) -> float:
    """`length` and `bias` -> gate.length_bias_mm; the unit is the end of the name."""
    units = {"length": "_mm", "angle": "_deg", "area": "_percent", "load": "_percent", "lean": ""}
    return float(getattr(gate, f"{kind}_{what}{units[kind]}"))
