"""Masks of old and new networks in the report of a change: real label stores of both, some exams of many."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from changed_stores import BEFORE, attempt, changed_store, exam_row
from click.testing import CliRunner
from reader_studies import EXAMS, annotated_store, stacks

from cohort.agreement.rows import OverlapSummaryRow
from cohort.rows import ExamRow, LedgerRow
from cohort.stacks import LabelledStack
from cohort.store.labels import write_labels
from cohort.store.layout import candidate_path, label_store_path
from cohort.tables.buckets import read_objects
from cohort.tables.commit import commit
from pipelines.agreement import agree
from pipelines.candidate import open_candidate
from pipelines.change import ChangeReport, MaskAgreement, compare_change
from pipelines.change_masks import drawn_exams, with_masks
from pipelines.change_report import change_json, write_change_report
from pipelines.cli import main
from pipelines.config import GateConfig
from pipelines.gate import accepts, verdict

KINDS = ("vertebral_body", "disc", "muscle")


def give_candidate(store: Path, exam_id: str, masks: list[LabelledStack], **of_exam: str) -> None:
    """New masks of an exam, by another version of stage segment."""
    fingerprint = "1" * 64
    path = label_store_path(store, exam_id, fingerprint)
    write_labels(path, masks, {})
    old: LedgerRow = next(row for row in read_objects(store, "ledger") if row.exam_id == exam_id)
    exam: ExamRow = next(row for row in read_objects(store, "exams") if row.exam_id == exam_id)
    new = replace(old, fingerprint=fingerprint, stage_version=3, path=str(path.relative_to(store)))
    rows = {"ledger": [new], "exams": [replace(exam, **of_exam)]}
    commit(candidate_path(store), "20260202T000000-agree1", rows, touched={})


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two exams: of the first the new networks miss L3, of the second they draw what the old ones drew less a pixel."""
    store = annotated_store(tmp_path_factory.mktemp("store"))
    open_candidate(store, "change", note=str)
    give_candidate(store, EXAMS[0], list(stacks(0, without="L3")))
    give_candidate(store, EXAMS[1], list(stacks(1)))
    return store


@pytest.fixture(scope="module")
def folder(changed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Report of the command line, with loads of one task, which saves figures."""
    config = tmp_path_factory.mktemp("config") / "cohort.toml"
    config.write_text('[load]\ntasks = ["standing"]\n')
    shown = CliRunner().invoke(main, ["changes", "show", "--store", str(changed), "--config", str(config), "--json"])
    assert shown.exit_code == 0, shown.output
    assert "masks of both versions in 2 of 2 exams" in shown.stderr
    found = changed / "candidate" / "report"
    assert json.loads(shown.stdout) == json.loads((found / "change.json").read_text())
    return found


@pytest.fixture(scope="module")
def masks(folder: Path) -> MaskAgreement:
    content = json.loads((folder / "change.json").read_text())["masks"]
    overlaps = tuple(OverlapSummaryRow(**row) for row in content.pop("overlaps"))
    found = MaskAgreement(**{name: value for name, value in content.items() if name != "dice"}, overlaps=overlaps)
    assert content["dice"] == found.dice
    return found


def masks_of(report: ChangeReport) -> MaskAgreement:
    assert report.masks is not None
    return report.masks


def whole(masks: MaskAgreement, kind: str, **wanted: str | None) -> OverlapSummaryRow:
    wanted = {"level": None, "muscle": None, "structure": None, **wanted}
    (found,) = [
        row for row in masks.overlaps
        if row.kind == kind and all(getattr(row, name) == value for name, value in wanted.items())
    ]  # fmt: skip
    return found


def test_masks_of_two_versions_are_compared_by_structure(masks: MaskAgreement) -> None:
    assert (masks.n_with_both, masks.n_compared, masks.reason, masks.problems) == (2, 2, None, {})
    for kind in KINDS:
        every = whole(masks, kind, structure="all")
        assert every.n == 2
        assert 0.6 < (every.mean or 0) < 1.0
        assert (every.surface_mm or 0) < (every.hausdorff95_mm or 0)
    lacking = whole(masks, "vertebral_body", level="L3")
    assert (lacking.n, lacking.n_missed, lacking.n_extra) == (1, 1, 0)
    assert masks.dice == pytest.approx({kind: whole(masks, kind, structure="all").mean for kind in KINDS})


def test_the_figures_are_those_of_the_agreement_command(masks: MaskAgreement, changed: Path) -> None:
    found = agree(changed, first="automatic", second="candidate", config=None, test_part=None, processes=1, report=str)
    assert masks.overlaps == tuple(row for row in found.rows["overlap_summary"] if row.slice_bin is None)


def test_the_page_tells_of_the_masks_and_leads_to_the_full_report(folder: Path) -> None:
    page = (folder / "change.html").read_text()
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert "Exams with masks of both versions: 2; compared: 2." in text
    assert "vertebral bodies L3 1 1" in text
    (link,) = re.findall(r'<a href="([^"]+)"', page)
    study = (folder / link).read_text()
    assert "candidate against automatic" in study
    assert "Figure 3" in study
    assert (folder / "masks" / "overlaps.parquet").exists()


def test_masks_that_overlap_too_little_hold_the_change(changed: Path, masks: MaskAgreement) -> None:
    report = replace(compare_change(changed), masks=masks)
    assert accepts(report, GateConfig(least_dice=0.6, renamed_exams=1.0))
    strict = GateConfig(least_dice=0.999, renamed_exams=1.0)
    found = [str(one) for one in verdict(report, strict)]
    assert sorted(line.split(",")[0] for line in found) == ["disc", "muscle", "vertebral body"]
    assert re.search(r"mean Dice of old and new masks in 2 exams: 0\.\d+ of 1, limit 0.999 of 1$", found[0])
    assert not accepts(report, strict)


def test_an_exam_that_only_one_version_has_masks_of_counts_as_no_overlap() -> None:
    row = OverlapSummaryRow(kind="disc", structure="all", first_reader="automatic", second_reader="candidate", n=3,
                            n_persons=3, n_missed=1, n_extra=0, n_misnamed=0, mean=0.9)  # fmt: skip
    assert MaskAgreement(overlaps=(row,)).dice == pytest.approx({"disc": 0.675})
    nothing = replace(row, n=0, n_missed=4, mean=None)
    assert MaskAgreement(overlaps=(nothing,)).dice == {"disc": 0.0}


def test_a_change_of_loads_alone_says_that_masks_are_the_same(tmp_path: Path) -> None:
    store = changed_store(tmp_path)
    plain = compare_change(store)
    loads = replace(plain, stages=tuple(one for one in plain.stages if one.stage == "load"))
    found = with_masks(loads, store, tmp_path / "change", config=None, note=str)
    assert found == loads
    page = write_change_report(found, GateConfig(), tmp_path / "change").read_text()
    assert "the same networks, by the same code, made the masks of both" in page
    assert change_json(found, GateConfig())["masks"] is None


def test_what_cannot_be_compared_is_said_and_numbers_are_judged_all_the_same(tmp_path: Path) -> None:
    store = changed_store(tmp_path)  # its exams have no label stores
    found = with_masks(compare_change(store), store, tmp_path / "change", config=None, note=str)
    assert masks_of(found) == MaskAgreement(reason="No exam has masks of both versions on the same images.")
    assert accepts(found, GateConfig())
    waiting = replace(found, exams=replace(found.exams, n_waiting=3))
    later = masks_of(with_masks(waiting, store, tmp_path / "change", config=None, note=str))
    assert later.reason == "Masks are compared when all exams have been redone."


def test_a_comparison_that_fails_holds_the_change_and_loses_nothing(changed: Path, tmp_path: Path) -> None:
    broken = tmp_path / "store"
    shutil.copytree(changed, broken)
    for labels in broken.glob("exams/*/*/labels-111111111111.zarr"):
        shutil.rmtree(labels)
    left = tmp_path / "change" / "masks" / "report.html"
    left.parent.mkdir(parents=True)
    left.write_text("of an earlier look")
    found = with_masks(compare_change(broken), broken, tmp_path / "change", config=None, note=str, at_most=1)
    assert not left.exists()
    assert masks_of(found).reason == "None of the exams that were drawn could be compared."
    assert list(masks_of(found).problems.values()) == ["no labels store here"]
    assert [one.what.split(":")[0] for one in verdict(found, GateConfig())] == ["masks"]
    assert not accepts(found, GateConfig())
    assert accepts(found, GateConfig(least_dice=0.0))
    page = write_change_report(found, GateConfig(), tmp_path / "change").read_text()
    assert "None of the exams" in page
    absent = tmp_path / "absent.toml"
    unreadable = masks_of(with_masks(compare_change(changed), changed, tmp_path / "x", config=absent, note=str))
    assert unreadable.failed
    assert str(tmp_path) not in str(unreadable.reason)


def test_images_that_were_converted_anew_are_left_out(changed: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(changed, store)
    give_candidate(store, EXAMS[1], list(stacks(1)), store_path="exams/bb/bbbb3/exam-222222222222.zarr")
    drawn = drawn_exams(store, 60)
    assert (drawn.exam_ids, drawn.n_with_both, drawn.n_other_images) == (EXAMS[:1], 1, 1)
    found = agree(store, first="automatic", second="candidate", config=None, test_part=None, processes=1, report=str)
    assert found.problems == {EXAMS[1]: "the candidate's masks are of images that were converted anew"}
    assert {row.exam_id for row in found.rows["overlaps"]} == {EXAMS[0]}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70 exams of vendor a (two of each person), 20 of b, 1 of c; 5 that only one version has masks of."""
    store = tmp_path_factory.mktemp("many")
    vendors = ["a"] * 70 + ["b"] * 20 + ["c"] + ["b"] * 5
    ids = [f"exam{chr(97 + k // 26)}{chr(97 + k % 26)}" for k in range(len(vendors))]
    rows = [
        replace(exam_row("exam0-00"), exam_id=exam_id, vendor=vendor, store_path=f"exams/{exam_id}",
                subject_id=f"person {k // 2 if vendor == 'a' else k}")
        for k, (exam_id, vendor) in enumerate(zip(ids, vendors, strict=True))
    ]  # fmt: skip
    made = [replace(attempt(exam_id, "segment", BEFORE), path="labels") for exam_id in ids]
    again = [replace(row, stage_version=3, path="new labels" if k < 91 else None) for k, row in enumerate(made)]
    commit(store, "old", {"exams": rows, "ledger": made}, touched={})
    commit(open_candidate(store, "change", note=str), "new", {"ledger": again}, touched={})
    return store


def test_exams_are_drawn_by_vendor_one_of_each_person_and_always_the_same(many: Path) -> None:
    drawn = drawn_exams(many, 20)
    assert drawn == drawn_exams(many, 20)
    assert (drawn.n_with_both, drawn.n_other_images, len(drawn.exam_ids)) == (91, 0, 20)
    rows = {row.exam_id: row for row in read_objects(many, "exams")}
    assert len({rows[exam_id].subject_id for exam_id in drawn.exam_ids}) == 20
    counts = Counter(rows[exam_id].vendor for exam_id in drawn.exam_ids)
    assert counts["c"] == 1
    assert 11 <= counts["a"] <= 13  # 35 persons of 56
    assert len(drawn_exams(many, 60).exam_ids) == 56
    assert drawn_exams(many, 2).exam_ids != drawn_exams(many, 3).exam_ids
