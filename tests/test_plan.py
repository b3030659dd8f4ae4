"""What is done again, what is left alone, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cohort.loading.assumptions import Assumptions
from cohort.rows import LedgerRow, WantedRow
from cohort.tables.buckets import create_tables
from cohort.tables.commit import commit
from cohort.tables.stages import STAGES
from pipelines.exams import Artefacts
from pipelines.fingerprint import NOTHING, STAGE_VERSIONS, Parts, chained, digest
from pipelines.plan import Plan, make_plan, why

ARTEFACTS = Artefacts(weights={"disc": "a"}, base_models={"F": "b", "M": "c"}, tasks=(), assumptions=Assumptions())
INPUTS = {"convert": digest("images"), "segment": NOTHING, "measure": digest("five"), "load": digest("60 kg")}
ALL_OK = dict.fromkeys(STAGES, "ok")


def parts(artefacts: Artefacts = ARTEFACTS, sex: str = "F", **inputs: str) -> dict[str, Parts]:
    return {stage: artefacts.parts(stage, {**INPUTS, **inputs}[stage], sex) for stage in STAGES}


def wanted(exam_id: str, of: Mapping[str, Parts] | None = None, *, newest_ns: int = 0) -> WantedRow:
    of = of or parts()
    return WantedRow(
        exam_id=exam_id,
        index_digest="",
        selection_digest="",
        newest_ns=newest_ns,
        recipe="",
        sex="F",
        selected_status="ok",
        convert_inputs=of["convert"].inputs,
        measure_inputs=of["measure"].inputs,
        load_inputs=of["load"].inputs,
        **chained(of),
    )


def attempts(exam_id: str, status: Mapping[str, str], of: Mapping[str, Parts] | None = None) -> list[LedgerRow]:
    of = of or parts()
    made = chained(of)
    return [
        LedgerRow(
            exam_id=exam_id,
            stage=stage,
            fingerprint=made[stage],
            status=how,
            seconds=1.0,
            worker="cpu-0",
            run_id="r0",
            stage_version=of[stage].version,
            inputs=of[stage].inputs,
            parameters=of[stage].parameters,
            artefacts=of[stage].artefacts,
        )
        for stage, how in status.items()
    ]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    create_tables(tmp_path)
    return tmp_path


def planned(store: Path, wants: Sequence[WantedRow], ledger: Sequence[LedgerRow] = (), *, retry: bool = False) -> Plan:
    commit(store, "r0", {"wanted": wants, "ledger": list(ledger)}, touched={})
    return make_plan([store], store, retry_failed=retry)


def todo(plan: Plan) -> dict[str, str]:
    """Exam -> first stage to do, in the order of the plan."""
    return dict(zip(plan.exam_ids, plan.todo["stage"].to_pylist(), strict=True))


def reasons(store: Path, plan: Plan, artefacts: Artefacts = ARTEFACTS) -> dict[tuple[str, str], tuple[str, bool]]:
    rows = why([store], store, artefacts, plan).to_pylist()
    return {(row["exam_id"], row["stage"]): (row["why"], row["replaces"]) for row in rows}


def test_new_exam_is_done_from_the_beginning(store: Path) -> None:
    plan = planned(store, [wanted("e1")])
    assert todo(plan) == {"e1": "convert"}
    assert plan.stages == dict.fromkeys(STAGES, 1)
    assert reasons(store, plan) == {("e1", "convert"): ("new exam", False)}


def test_second_run_does_nothing(store: Path) -> None:
    plan = planned(store, [wanted("e1")], attempts("e1", {**ALL_OK, "measure": "flagged"}))
    assert (todo(plan), plan.stages) == ({}, {})
    assert reasons(store, plan) == {}


def test_an_exam_of_which_nothing_was_chosen_needs_nothing(store: Path) -> None:
    nothing = dict.fromkeys((*STAGES, "convert_inputs", "measure_inputs", "load_inputs"))
    assert todo(planned(store, [replace(wanted("e1"), **nothing)])) == {}


@pytest.mark.parametrize(
    ("stage", "text"),
    [("convert", "new data"), ("measure", "new count of vertebrae"), ("load", "new demographics")],
)
def test_a_change_redoes_a_stage_and_all_below_it_and_says_why(store: Path, stage: str, text: str) -> None:
    plan = planned(store, [wanted("e1", parts(**{stage: digest("other")}))], attempts("e1", ALL_OK))
    assert todo(plan) == {"e1": stage}
    assert list(plan.stages) == list(STAGES[STAGES.index(stage) :])
    assert reasons(store, plan) == {("e1", stage): (text, True)}


@pytest.mark.parametrize(
    ("changed", "stage", "text"),
    [
        ({"weights": {"disc": "z"}}, "segment", "new weights"),
        ({"base_models": {"F": "z", "M": "c"}}, "load", "new base model"),
        ({"impute": True}, "load", "new parameters"),
    ],
)
def test_what_a_run_brings_with_it_is_named(store: Path, changed: dict[str, object], stage: str, text: str) -> None:
    artefacts = replace(ARTEFACTS, **changed)
    plan = planned(store, [wanted("e1", parts(artefacts))], attempts("e1", ALL_OK))
    assert todo(plan) == {"e1": stage}
    assert reasons(store, plan, artefacts) == {("e1", stage): (text, True)}


def test_the_base_model_of_the_other_sex_changes_nothing(store: Path) -> None:
    artefacts = replace(ARTEFACTS, base_models={"F": "b", "M": "z"})
    assert todo(planned(store, [wanted("e1", parts(artefacts))], attempts("e1", ALL_OK))) == {}


def test_new_code_is_named_also_where_an_old_ledger_does_not_say_its_version(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = attempts("e1", ALL_OK) + [replace(row, stage_version=None) for row in attempts("e2", ALL_OK)]
    monkeypatch.setitem(STAGE_VERSIONS, "measure", STAGE_VERSIONS["measure"] + 1)
    plan = planned(store, [wanted("e1", parts()), wanted("e2", parts())], old)
    assert todo(plan) == {"e1": "measure", "e2": "measure"}
    assert reasons(store, plan)["e1", "measure"] == ("new code", True)
    assert reasons(store, plan)["e2", "measure"] == ("new code", True)


def test_all_reasons_of_an_exam_are_told(store: Path) -> None:
    artefacts = replace(ARTEFACTS, weights={"disc": "z"})
    plan = planned(store, [wanted("e1", parts(artefacts, load=digest("61 kg")))], attempts("e1", ALL_OK))
    assert todo(plan) == {"e1": "segment"}
    assert reasons(store, plan, artefacts) == {
        ("e1", "segment"): ("new weights", True),
        ("e1", "load"): ("new demographics", True),
    }


def test_one_new_exam_touches_no_other(store: Path) -> None:
    assert todo(planned(store, [wanted("e1"), wanted("e2")], attempts("e1", ALL_OK))) == {"e2": "convert"}


def test_newest_exams_come_first(store: Path) -> None:
    plan = planned(store, [wanted("e1", newest_ns=5), wanted("e2", newest_ns=7), wanted("e3", newest_ns=6)])
    assert plan.exam_ids == ["e2", "e3", "e1"]


def test_interrupted_exam_goes_on_where_it_stopped(store: Path) -> None:
    plan = planned(store, [wanted("e1")], attempts("e1", {"convert": "ok", "segment": "ok"}))
    assert todo(plan) == {"e1": "measure"}
    assert reasons(store, plan) == {("e1", "measure"): ("not done yet", False)}


@pytest.mark.parametrize("status", ["refused", "failed"])
def test_settled_stage_blocks_the_rest_and_is_not_tried_again(store: Path, status: str) -> None:
    plan = planned(store, [wanted("e1")], attempts("e1", {"convert": "ok", "segment": status}))
    assert (todo(plan), plan.stages) == ({}, {})


def test_refused_stage_is_tried_again_when_something_changes(store: Path) -> None:
    plan = planned(store, [wanted("e1", parts(convert=digest("new")))], attempts("e1", {"convert": "refused"}))
    assert todo(plan) == {"e1": "convert"}
    assert reasons(store, plan) == {("e1", "convert"): ("new data", False)}


def test_retry_failed_tries_failures_again_but_not_refusals(store: Path) -> None:
    ledger = [*attempts("e1", {"convert": "failed"}), *attempts("e2", {"convert": "refused"})]
    plan = planned(store, [wanted("e1"), wanted("e2")], ledger, retry=True)
    assert todo(plan) == {"e1": "convert"}
    assert reasons(store, plan) == {("e1", "convert"): ("tried again", False)}


def test_a_full_disk_is_no_property_of_the_exam(store: Path) -> None:
    ledger = [replace(row, reason="disk_full") for row in attempts("e1", {"convert": "failed"})]
    assert todo(planned(store, [wanted("e1")], ledger)) == {"e1": "convert"}


def test_attempts_of_a_later_folder_count_instead(store: Path, tmp_path: Path) -> None:
    newer = tmp_path / "candidate"
    create_tables(newer)
    artefacts = replace(ARTEFACTS, weights={"disc": "z"})
    planned(store, [wanted("e1", parts(artefacts)), wanted("e2", parts(artefacts))], attempts("e1", ALL_OK))
    commit(newer, "r1", {"ledger": attempts("e1", ALL_OK, parts(artefacts))}, touched={})
    assert todo(make_plan([store], store)) == {"e1": "segment", "e2": "convert"}
    assert todo(make_plan([store, newer], store)) == {"e2": "convert"}
