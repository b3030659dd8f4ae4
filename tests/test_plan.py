"""What is done again, what is left alone, and what is gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from cohort.rows import LedgerRow
from cohort.tables.ledger import Ledger
from pipelines.fingerprint import STAGES
from pipelines.plan import Plan, Wanted, make_plan


def wanted(exam_id: str, **changed: str) -> list[Wanted]:
    """All four stages of an exam; fingerprints change from the changed stage on, as real ones do."""
    suffix = ""
    found = []
    for stage in STAGES:
        suffix += changed.get(stage, "")
        found.append(Wanted(exam_id, stage, f"{stage}-{suffix}"))
    return found


def ledger(exam_id: str, status: Mapping[str, str]) -> Ledger:
    rows = [
        LedgerRow(
            exam_id=exam_id,
            stage=stage,
            fingerprint=f"{stage}-",
            status=how,
            seconds=1.0,
            worker="cpu-0",
            run_id="r0",
        )
        for stage, how in status.items()
    ]
    return {(row.exam_id, row.stage): row for row in rows}


ALL_OK = dict.fromkeys(STAGES, "ok")


def stages(part: tuple[Wanted, ...]) -> list[str]:
    return [one.stage for one in part]


def test_new_exam_is_done_from_the_beginning() -> None:
    assert make_plan(wanted("e1"), {}) == Plan(todo=tuple(wanted("e1")))


def test_second_run_does_nothing() -> None:
    plan = make_plan(wanted("e1"), ledger("e1", {**ALL_OK, "measure": "flagged"}))
    assert plan == Plan(done=tuple(wanted("e1")))


@pytest.mark.parametrize("stage", STAGES)
def test_change_redoes_a_stage_and_all_below_it(stage: str) -> None:
    plan = make_plan(wanted("e1", **{stage: "new"}), ledger("e1", ALL_OK))
    assert stages(plan.done) == list(STAGES[: STAGES.index(stage)])
    assert stages(plan.todo) == list(STAGES[STAGES.index(stage) :])


def test_one_new_exam_touches_one_exam() -> None:
    plan = make_plan([*wanted("e1"), *wanted("e2")], ledger("e1", ALL_OK))
    assert {one.exam_id for one in plan.todo} == {"e2"}


def test_interrupted_run_resumes_where_it_stopped() -> None:
    plan = make_plan(wanted("e1"), ledger("e1", {"convert": "ok", "segment": "ok"}))
    assert stages(plan.todo) == ["measure", "load"]


@pytest.mark.parametrize("status", ["failed", "refused"])
def test_settled_stage_blocks_what_rests_on_it(status: str) -> None:
    plan = make_plan(wanted("e1"), ledger("e1", {"convert": "ok", "segment": status}))
    assert stages(plan.settled) == ["segment"]
    assert stages(plan.blocked) == ["measure", "load"]
    assert not plan.todo


def test_changed_input_frees_a_settled_stage() -> None:
    plan = make_plan(wanted("e1", convert="new"), ledger("e1", {"convert": "refused"}))
    assert stages(plan.todo) == list(STAGES)


def test_retry_tries_failed_but_not_refused_stages() -> None:
    rows = ledger("e1", {"convert": "failed"}) | ledger("e2", {"convert": "refused"})
    plan = make_plan([*wanted("e1"), *wanted("e2")], rows, retry_failed=True)
    assert {one.exam_id for one in plan.todo} == {"e1"}
    assert stages(plan.settled) == ["convert"]


def test_a_full_disk_is_tried_again_by_the_next_run() -> None:
    rows = {
        key: replace(row, reason="disk_full") if row.status == "failed" else row
        for key, row in ledger("e1", {"convert": "ok", "segment": "failed"}).items()
    }
    assert stages(make_plan(wanted("e1"), rows).todo) == ["segment", "measure", "load"]


def test_stage_below_a_repeated_one_is_repeated_even_if_its_row_is_there() -> None:
    rows = ledger("e1", {**ALL_OK, "convert": "failed"})
    assert stages(make_plan(wanted("e1"), rows, retry_failed=True).todo) == list(STAGES)


def test_order_of_wanted_stages_does_not_matter() -> None:
    assert make_plan(reversed(wanted("e1")), {}) == make_plan(wanted("e1"), {})
