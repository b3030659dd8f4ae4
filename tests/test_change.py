"""The comparison of old and new numbers equals the change that was made, and the gate lets pass what it should."""

from __future__ import annotations

import math
import tomllib
from dataclasses import fields, replace
from pathlib import Path

import pytest
from changed_stores import (
    AFTER,
    BEFORE,
    DISCS,
    EXAMS,
    NEW,
    NEWCOMER,
    OLD,
    VENDORS,
    attempt,
    changed_store,
    exam_row,
    renamed,
    want,
    write,
)

from cohort.errors import ConfigurationError
from cohort.store.layout import candidate_path
from cohort.tables.buckets import create_tables
from cohort.tables.commit import commit
from pipelines.candidate import open_candidate
from pipelines.change import Agreement, ChangeReport, agreement_rows, compare_change
from pipelines.change_pairs import Renamed, StageDifference
from pipelines.config import GateConfig, RunConfig, parse_config
from pipelines.gate import accepts, verdict
from pipelines.run_facts import record_software

GATE = GateConfig(least_persons=2, lost_numbers=1.0)


def one(report: ChangeReport, column: str, of: str = "", level: str = "all", vendor: str = "all") -> Agreement:
    found = [a for a in report.agreements if (a.feature.column, a.of, a.level, a.vendor) == (column, of, level, vendor)]
    assert len(found) == 1
    return found[0]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> ChangeReport:
    """Discs 0.3 mm higher and loads 1.5 % larger, nothing else; one exam came in since."""
    return compare_change(changed_store(tmp_path_factory.mktemp("store"), new=[NEWCOMER]))


def test_the_report_finds_the_shift_of_disc_heights_at_every_level_and_vendor(plain: ChangeReport) -> None:
    for level in ("all", *DISCS):
        for vendor in ("all", *VENDORS):
            found = one(plain, "height_mm", "", level, vendor).limits
            assert found is not None
            assert found.bias.value == pytest.approx(0.3)
            assert found.sd == pytest.approx(0.0, abs=1e-9)
            assert found.n == 12 * (5 if level == "all" else 1) / (1 if vendor == "all" else 2)


def test_persons_are_counted_and_not_exams(plain: ChangeReport) -> None:
    found = one(plain, "height_mm").limits
    assert found is not None
    assert (found.n, found.n_persons) == (60, 11)


def test_the_report_finds_the_change_of_loads_in_newtons_and_per_cent(plain: ChangeReport) -> None:
    found = one(plain, "axial_n", "standing, vertebra_mean")
    assert found.bias_percent == pytest.approx(1.5)
    assert found.limits is not None
    old = [500.0 + 30.0 * k + number for k in range(5) for number in range(12)]
    assert found.limits.bias.value == pytest.approx(0.015 * sum(old) / 60)
    assert found.largest_change == pytest.approx(0.015 * max(old))
    assert found.largest_exam_id == EXAMS[11]
    assert found.beyond_tolerance == 0.0
    assert found.mae is not None
    assert found.mae.value == pytest.approx(found.limits.bias.value)


def test_what_did_not_change_has_no_bias_and_constants_have_no_correlation(plain: ChangeReport) -> None:
    area = one(plain, "csa_corrected_cm2", "psoas")
    assert area.limits is not None
    assert (area.limits.n, area.limits.bias.value, area.limits.width) == (120, 0.0, 0.0)
    assert area.pearson_r == pytest.approx(1.0)
    assert area.icc == pytest.approx(1.0)
    lean = one(plain, "lean_fraction", "psoas")
    assert (lean.pearson_r, lean.icc) == (None, None)
    lordosis = one(plain, "lordosis_l1_s1_deg")
    assert lordosis.limits is not None
    assert lordosis.limits.n == 12
    assert [a.level for a in plain.agreements if a.feature.table == "curvature"] == ["all"] * 3


def test_numbers_of_the_report_are_never_nan(plain: ChangeReport) -> None:
    for row in agreement_rows(plain.agreements):
        assert not any(isinstance(value, float) and not math.isfinite(value) for value in row.values())


def test_the_report_says_what_changed_and_how_many_exams(plain: ChangeReport) -> None:
    assert plain.stages == tuple(
        StageDifference(stage, 2, 3, plain.stages[0].old_artefacts, plain.stages[0].new_artefacts, 12)
        for stage in ("segment", "measure", "load")
    )
    assert plain.software == ("0.2", "0.3")
    exams = plain.exams
    assert (exams.n_compared, exams.n_new, exams.n_waiting, exams.n_lost, exams.n_renamed) == (12, 1, 0, 0, 0)


def test_networks_are_told_by_name_and_weights_and_never_by_path(tmp_path: Path) -> None:
    write(tmp_path, EXAMS[:2], BEFORE)
    write(open_candidate(tmp_path, "change", note=str), EXAMS[:2], AFTER)
    for run_id, network in ((OLD, ("disc", "0123456789")), (NEW, ("/home/somebody/new.json", "abcdefabcdef"))):
        record_software(tmp_path, run_id, command="run", device="cpu", networks={"disc": network},
                        base_models={"F": "5" * 64})  # fmt: skip
    assert compare_change(tmp_path).models == (
        "disc 01234567, base model F 55555555",
        "new.json abcdefab, base model F 55555555",
    )


def test_the_gate_lets_a_small_change_pass_and_holds_a_large_one(plain: ChangeReport, tmp_path: Path) -> None:
    assert verdict(plain, GATE) == ()
    assert accepts(plain, GATE)
    assert not accepts(plain, replace(GATE, accept="never"))
    tight = replace(GATE, load_bias_percent=1.0)
    assert len(verdict(plain, tight)) == 2 * 6 * 3  # conventions, levels and all, vendors and all
    assert str(verdict(plain, tight)[0]) == "axial load, standing, joint_below: bias: 1.5 %, limit 1 %"
    assert not accepts(plain, tight)
    assert accepts(plain, replace(tight, accept="always"))
    noisy = compare_change(changed_store(tmp_path, replace(AFTER, disc_shift_mm=0.0, noise_mm=2.0)))
    assert {b.what.split(":")[0] for b in verdict(noisy, replace(GATE, least_persons=20))} == {"disc height"}
    assert len(verdict(noisy, GATE)) > 1


def test_a_renamed_level_is_reported_and_its_numbers_are_not_compared(tmp_path: Path) -> None:
    report = compare_change(changed_store(tmp_path, renamed(AFTER, EXAMS[3], EXAMS[4])))
    assert report.exams.n_renamed == 2
    assert Renamed("vertebra", "L5", "L4", 2) in report.renamed
    assert Renamed("disc", "L1-L2", "T12-L1", 2) in report.renamed
    height = one(report, "height_mm")
    assert height.limits is not None
    assert (height.limits.n, height.n_renamed) == (50, 10)
    assert height.limits.bias.value == pytest.approx(0.3)  # 0.5 mm a level would show if names were believed
    for column, of in (
        ("axial_n", "standing, joint_below"),
        ("csa_corrected_cm2", "psoas"),
        ("lordosis_l1_s1_deg", ""),
    ):
        assert one(report, column, of).n_renamed > 0
    lordosis = one(report, "lordosis_l1_s1_deg").limits
    assert lordosis is not None
    assert lordosis.n == 10
    assert [b.what for b in verdict(report, GATE)] == ["exams in which a level has another name, 2 of 12"]


def test_exams_that_turn_refused_are_counted_and_hold_the_change(tmp_path: Path) -> None:
    report = compare_change(changed_store(tmp_path, replace(AFTER, refused=(EXAMS[5],), flagged=(EXAMS[6],))))
    assert report.exams.n_lost == 1
    assert report.exams.lost_reasons == {"no_vertebrae": 1}
    assert report.exams.lost_examples == (EXAMS[5],)
    height = one(report, "height_mm")
    assert (height.n_vanished, height.n_appeared, height.n_newly_flagged) == (5, 0, 5)
    assert one(report, "axial_n", "standing, joint_below").n_vanished == 5
    assert [str(b) for b in verdict(report, GATE)] == [
        "exams with results that are now refused or failed, 1 of 12: 8.33 %, limit 1 %"
    ]


def test_numbers_that_vanish_from_exams_that_stay_hold_the_change(tmp_path: Path) -> None:
    write(tmp_path, EXAMS, BEFORE)
    candidate = open_candidate(tmp_path, "change", note=str)
    write(candidate, EXAMS, BEFORE)
    commit(candidate, NEW, {}, touched={"muscle_levels": [(EXAMS[0],), (EXAMS[2],)]})  # two exams of one vendor
    report = compare_change(tmp_path)
    assert report.exams.n_lost == 0
    found = [str(b) for b in verdict(report, GateConfig(least_persons=60))]
    assert found == [
        "cross-sectional area, psoas: numbers that vanished, 20 of 120: 16.7 %, limit 2 %",
        "cross-sectional area, psoas, ge: numbers that vanished, 20 of 60: 33.3 %, limit 2 %",
        "lean fraction, psoas: numbers that vanished, 20 of 120: 16.7 %, limit 2 %",
        "lean fraction, psoas, ge: numbers that vanished, 20 of 60: 33.3 %, limit 2 %",
    ]


def test_an_exam_that_is_measurable_at_last_appears(tmp_path: Path) -> None:
    write(tmp_path, EXAMS, replace(BEFORE, refused=(EXAMS[7],)))
    open_candidate(tmp_path, "change", note=str)
    write(candidate_path(tmp_path), EXAMS, AFTER)
    report = compare_change(tmp_path)
    assert (report.exams.n_recovered, report.exams.n_lost) == (1, 0)
    assert one(report, "height_mm").n_appeared == 5


def test_a_change_that_has_not_been_through_all_exams_is_never_accepted(tmp_path: Path) -> None:
    write(tmp_path, EXAMS, BEFORE)
    want(tmp_path, EXAMS, AFTER)
    open_candidate(tmp_path, "change", note=str)
    write(candidate_path(tmp_path), EXAMS[:5], AFTER)
    write(candidate_path(tmp_path), EXAMS[5:6], AFTER, stages=("convert", "segment"))
    report = compare_change(tmp_path)
    assert (report.exams.n_compared, report.exams.n_waiting) == (6, 7)
    height = one(report, "height_mm")
    assert height.limits is not None
    assert (height.limits.n, height.n_vanished) == (25, 0)  # of the sixth exam nothing is known yet
    assert verdict(report, GATE) == ()
    assert not accepts(report, replace(GATE, accept="always"))


def test_a_change_of_loads_alone_compares_loads_alone(tmp_path: Path) -> None:
    write(tmp_path, EXAMS, BEFORE)
    candidate = open_candidate(tmp_path, "change", note=str)
    loads = {"ledger": [attempt(exam_id, "load", AFTER) for exam_id in EXAMS], "exams": [exam_row(e) for e in EXAMS]}
    commit(candidate, "new", loads, touched={})
    report = compare_change(tmp_path)
    assert {a.feature.table for a in report.agreements} == {"loads"}
    vanished = one(report, "axial_n", "standing, joint_below")
    assert (vanished.n_vanished, vanished.limits, vanished.lost) == (60, None, 1.0)
    assert not accepts(report, GateConfig())


def test_the_documented_limits_are_the_defaults() -> None:
    page = (Path(__file__).parents[1] / "docs" / "model-changes.md").read_text()
    shown = page.split("```toml\n")[1].split("```")[0]
    content = tomllib.loads(shown)
    assert set(content["gate"]) == {one.name for one in fields(GateConfig)}
    assert parse_config(content, folder=Path()) == RunConfig()


def test_nothing_to_compare_is_said(tmp_path: Path) -> None:
    create_tables(tmp_path)
    with pytest.raises(ConfigurationError, match="no numbers wait"):
        compare_change(tmp_path)
    open_candidate(tmp_path, "change", note=str)
    report = compare_change(tmp_path)
    assert (report.agreements, report.exams.n_compared, verdict(report, GATE)) == ((), 0, ())
