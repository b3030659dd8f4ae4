"""The plan: what is wanted against what the ledger says was done."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cohort.rows import LedgerRow
from cohort.tables.ledger import Ledger
from pipelines.fingerprint import STAGES

PASSING_REASONS: Final = frozenset(("disk_full",))
"""Failures of the surroundings, not of the exam: the next run tries again."""


@dataclass(frozen=True)
class Wanted:
    """One stage of one exam, with the fingerprint its result must have."""

    exam_id: str
    stage: str
    fingerprint: str


@dataclass(frozen=True)
class Plan:
    """What to do, in the order of the chain within each exam, and what needs nothing."""

    todo: tuple[Wanted, ...] = ()
    done: tuple[Wanted, ...] = ()
    """The result is there (ok or flagged)."""
    settled: tuple[Wanted, ...] = ()
    """Refused or failed with this very fingerprint: not tried again until something changes."""
    blocked: tuple[Wanted, ...] = ()
    """A stage before it is settled, so there is nothing to work on."""


def make_plan(
    wanted: Iterable[Wanted],
    ledger: Ledger,
    *,
    retry_failed: bool = False,
) -> Plan:
    """Compare wanted fingerprints with the latest attempts.

    A stage is done again when its fingerprint is new, or when a stage before it is done again. A failed fingerprint is
    tried again only with `retry_failed` or when it failed for one of `PASSING_REASONS`; a refused one never is.
    """
    exams: defaultdict[str, list[Wanted]] = defaultdict(list)
    for one in wanted:
        exams[one.exam_id].append(one)
    parts: dict[str, list[Wanted]] = {"todo": [], "done": [], "settled": [], "blocked": []}
    for stages in exams.values():
        standing = "done"
        for one in sorted(stages, key=lambda w: STAGES.index(w.stage)):
            standing = _standing(one, ledger.get((one.exam_id, one.stage)), before=standing, retry_failed=retry_failed)
            parts[standing].append(one)
    return Plan(**{name: tuple(part) for name, part in parts.items()})


def _standing(wanted: Wanted, last: LedgerRow | None, *, before: str, retry_failed: bool) -> str:
    """Which part of the plan a stage belongs to, given the part that the stage before it belongs to."""
    if before in ("settled", "blocked"):
        return "blocked"
    if before == "todo" or last is None or last.fingerprint != wanted.fingerprint:
        return "todo"
    if last.status == "refused":
        return "settled"
    if last.status == "failed":
        return "todo" if retry_failed or last.reason in PASSING_REASONS else "settled"
    return "done"
