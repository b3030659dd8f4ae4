"""Which exams are chosen again: those whose files, rules or subject lines changed, and no other."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from dicom_exams import write_block

from cohort.archive.candidates import SelectRules
from cohort.archive.demographics import read_subjects
from cohort.archive.pseudonym import Pseudonyms, load_or_create_key
from cohort.errors import ConfigurationError
from cohort.loading.assumptions import Assumptions
from cohort.rows import WantedRow
from cohort.tables.buckets import create_tables, read_objects
from cohort.tables.ledger import read_ledger
from cohort.tables.stages import STAGES
from pipelines import read_exams, wanted
from pipelines.chain import Chain
from pipelines.config import PrivacyConfig, RunConfig
from pipelines.exams import Artefacts, make_exam, plan_exam
from pipelines.index import update_index
from pipelines.job import Job
from pipelines.outcome import Outcome, commit_outcomes, ledger_row
from pipelines.plan import make_plan
from pipelines.progress import Progress
from pipelines.read_exams import read_exam_rows, read_images, read_planned
from pipelines.run import plan_run
from pipelines.run_log import RunLog
from pipelines.summary import exam_row, selected_row
from pipelines.survey import withdraw
from pipelines.wanted import Here, refresh_wanted
from pipelines.window import SerialExecutor

RULES = SelectRules()
ARTEFACTS = Artefacts(weights={"disc": "a"}, base_models={"F": "b", "M": "c"}, tasks=(), assumptions=Assumptions())


class InThisProcess:
    """Workers of a run, without a cluster."""

    def executor(self) -> SerialExecutor:
        return SerialExecutor()


@dataclass
class Site:
    """An archive that changes, and what each refresh chose anew."""

    folder: Path
    artefacts: Artefacts = ARTEFACTS
    rules: SelectRules = RULES
    subjects: str = ""

    def __post_init__(self) -> None:
        for study in ("1.1", "1.2"):
            write_block(self.folder / "archive" / study, StudyInstanceUID=study, series=f"{study}.1", n=9)

    def job(self) -> Job:
        store, key_file = self.folder / "store", self.folder / "key"
        create_tables(store)
        pseudonyms = Pseudonyms(load_or_create_key(key_file))
        table = self.folder / "subjects.csv"
        table.write_text(f"study_instance_uid,weight_kg\n{self.subjects}")
        return Job(
            archive=self.folder / "archive",
            store=store,
            config=RunConfig(select=self.rules, privacy=PrivacyConfig(key_file=key_file)),
            subjects=read_subjects(table, pseudonyms) if self.subjects else None,
            key_file=key_file,
            pseudonyms=pseudonyms,
            device="cpu",
            networks={},
            base_models={},
            artefacts=self.artefacts,
            progress=Progress(quiet=True),
        )

    def exam_id(self, study: str) -> str:
        return self.job().pseudonyms.exam_id(study)

    def refresh(self, monkeypatch: pytest.MonkeyPatch) -> tuple[Here, set[str]]:
        """Refresh, and the exams whose series were chosen."""
        job, workers = self.job(), InThisProcess()
        chosen: set[str] = set()

        def spy(rows, *rest):
            exam = make_exam(rows, *rest)
            chosen.add(exam.exam_id)
            return exam

        monkeypatch.setattr(wanted, "make_exam", spy)
        return refresh_wanted(job, workers, update_index(job, workers)), chosen

    def rows(self) -> dict[str, WantedRow]:
        return {row.exam_id: row for row in read_objects(self.folder / "store", "wanted")}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Two exams that were chosen once."""
    site = Site(tmp_path)
    here, chosen = site.refresh(monkeypatch)
    assert set(here.exam_ids) == chosen == {site.exam_id("1.1"), site.exam_id("1.2")}
    return site


def test_an_unchanged_archive_is_not_chosen_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    before = site.rows()
    here, chosen = site.refresh(monkeypatch)
    assert (len(here.exam_ids), chosen, site.rows()) == (2, set(), before)
    assert all(row.convert and row.load for row in before.values())


def test_rows_say_what_an_exam_by_itself_would_be_planned_as(site: Site) -> None:
    job = site.job()
    for rows in read_exam_rows(job, sorted(site.rows())):
        plan = plan_exam(make_exam(rows, None), ARTEFACTS)
        row = site.rows()[plan.exam_id]
        assert {stage: getattr(row, stage) for stage in STAGES} == plan.fingerprints


def test_exams_are_read_back_as_they_were_chosen(site: Site) -> None:
    site.subjects = "1.2,70\n"
    job, workers = site.job(), InThisProcess()
    refresh_wanted(job, workers, update_index(job, workers))
    ids = sorted(site.rows())
    planned = read_planned(job, [ids[1], "unknown", ids[0]])
    assert [one.plan.exam_id for one in planned] == [ids[1], ids[0]]
    for one, images in zip(planned, read_images(job, [exam.selected for exam in planned]), strict=True):
        (rows,) = read_exam_rows(job, [one.plan.exam_id])
        exam = make_exam(rows, job.subjects)
        assert one.selected == selected_row(exam)
        assert one.plan == plan_exam(exam, ARTEFACTS)
        assert (one.demographics, one.vertebrae) == (exam.demographics, exam.vertebrae)
        assert (images.sagittal, images.axial) == (exam.sagittal, exam.axial)
        assert images.digest(one.selected) == one.plan.parts["convert"].inputs


def test_an_exam_whose_images_changed_after_they_were_chosen_is_not_converted(site: Site) -> None:
    """The index may know of newer files than `wanted`; they must not be stored as those that were chosen."""
    job, one = site.job(), site.exam_id("1.1")
    write_block(site.folder / "archive" / "1.1", StudyInstanceUID="1.1", series="1.1.1", n=10)
    index = update_index(job, InThisProcess())
    plan = make_plan((job.store,), job.store)
    with RunLog(job.store, job.run_id) as log:
        chain = Chain(job, plan, index, ledgers=(job.store,), root=job.store, log=log)
        assert [item.exam_id for item in chain.items()] == [site.exam_id("1.2")]
    assert one in plan.exam_ids  # and so counts as left for the next run


def test_a_changed_file_and_a_new_file_count(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    before = site.rows()
    victim = next((site.folder / "archive" / "1.1").iterdir())
    os.utime(victim, ns=(1, 1))
    assert site.refresh(monkeypatch)[1] == {site.exam_id("1.1")}
    assert site.rows()[site.exam_id("1.1")].convert == before[site.exam_id("1.1")].convert  # the content is the same
    write_block(site.folder / "archive" / "1.2", StudyInstanceUID="1.2", series="1.2.7", n=3)
    assert site.refresh(monkeypatch)[1] == {site.exam_id("1.2")}
    assert site.refresh(monkeypatch)[1] == set()


def test_a_line_of_the_subject_table_touches_its_exam_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.subjects = "1.2,70\n9.9,80\n"
    before = site.rows()
    assert site.refresh(monkeypatch)[1] == {site.exam_id("1.2")}
    one = site.exam_id("1.2")
    changed = [stage for stage in STAGES if getattr(site.rows()[one], stage) != getattr(before[one], stage)]
    assert changed == ["load"]
    site.subjects = ""
    assert site.refresh(monkeypatch)[1] == {one}
    assert site.rows() == before


def test_other_rules_choose_all_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.rules = SelectRules(accept_t2_axial=True)
    assert len(site.refresh(monkeypatch)[1]) == 2


def test_new_weights_choose_nothing_again_but_renew_the_fingerprints(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.artefacts = replace(ARTEFACTS, weights={"disc": "z"}, base_models={"F": "y", "M": "x"}, impute=True)
    assert site.refresh(monkeypatch)[1] == set()
    renewed = site.rows()
    for rows in read_exam_rows(site.job(), sorted(renewed)):
        plan = plan_exam(make_exam(rows, None), site.artefacts)
        assert {stage: getattr(renewed[plan.exam_id], stage) for stage in STAGES} == plan.fingerprints
    assert all(row.recipe == site.artefacts.recipe for row in renewed.values())


def test_an_exam_with_a_file_that_could_not_be_hashed_is_looked_at_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_block(site.folder / "archive" / "1.3", StudyInstanceUID="1.3", series="1.3.1", n=9)
    job, workers = site.job(), InThisProcess()
    index = update_index(job, workers)
    hidden = next((site.folder / "archive" / "1.3").iterdir())
    hidden.rename(site.folder / "aside")
    refresh_wanted(job, workers, index)
    (site.folder / "aside").rename(hidden)
    assert site.rows()[site.exam_id("1.3")].index_digest == ""
    assert site.refresh(monkeypatch)[1] == {site.exam_id("1.3")}
    assert site.refresh(monkeypatch)[1] == set()


def test_exams_are_read_in_the_order_asked_for_however_they_are_grouped(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_exams, "EXAMS_PER_READ", 1)
    ids = sorted(site.rows(), reverse=True)
    found = list(read_exam_rows(site.job(), [ids[0], "unknown", ids[1]]))
    assert [{row.exam_id for row in rows} for rows in found] == [{ids[0]}, {ids[1]}]
    assert all(len(rows) == 9 for rows in found)


def test_another_archive_takes_no_results_away(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    store, old = site.folder / "store", sorted(site.rows())
    done = [Outcome(exam_id, "convert", "f", "ok", seconds=1.0) for exam_id in old]
    commit_outcomes(store, "earlier", done)
    for study in ("1.1", "1.2"):
        shutil.rmtree(site.folder / "archive" / study)
        write_block(site.folder / "archive" / f"other-{study}", StudyInstanceUID=f"9{study}", series=f"9{study}.1", n=9)
    here, _ = site.refresh(monkeypatch)
    with pytest.raises(ConfigurationError, match=r"2 of 2 exams with results .* --allow-gone"):
        withdraw(store, here.exam_ids, here.unchosen)
    assert {exam_id for exam_id, _ in read_ledger(store)} == set(old)
    assert withdraw(store, here.exam_ids, here.unchosen, allow_gone=True) == old
    assert read_ledger(store) == {}


@pytest.mark.parametrize(("known", "n_left"), [(True, 1), (False, 2)])
def test_exams_that_the_end_of_the_time_leaves_are_chosen_by_the_next_run(site: Site, known: bool, n_left: int) -> None:
    """After one exam: with content that is known it is chosen, else it would have to be read first."""
    site.rules = SelectRules(accept_t2_axial=True)
    for study in () if known else ("1.1", "1.2"):
        os.utime(next((site.folder / "archive" / study).iterdir()), ns=(1, 1))
    before, job, workers = site.rows(), site.job(), InThisProcess()
    index = update_index(job, workers)
    asked = iter([False])
    here = refresh_wanted(job, workers, index, stop=lambda: next(asked, True))
    assert (len(here.exam_ids), here.n_left) == (2, n_left)
    assert sum(row == before[exam_id] for exam_id, row in site.rows().items()) == n_left
    assert refresh_wanted(job, workers, update_index(job, workers)).n_left == 0
    assert not any(row == before[exam_id] for exam_id, row in site.rows().items())


def statuses(store: Path) -> dict[str, str]:
    return {row.exam_id: row.status for row in read_objects(store, "exams")}


@pytest.fixture
def done(site: Site) -> Site:
    """Both exams have been through all stages."""
    store = site.job().store
    for rows in read_exam_rows(site.job(), sorted(site.rows())):
        exam = make_exam(rows, None)
        plan = plan_exam(exam, ARTEFACTS)
        outcomes = [
            Outcome(plan.exam_id, stage, one, "ok", seconds=1.0, parts=plan.parts[stage])
            for stage, one in plan.fingerprints.items()
        ]
        ledger = {(one.exam_id, one.stage): ledger_row(one, run_id="earlier") for one in outcomes}
        for one in outcomes:
            commit_outcomes(store, "earlier", [one], [exam_row(selected_row(exam), plan, ledger)])
    assert set(statuses(store).values()) == {"flagged"}
    return site


def test_an_exam_chosen_while_other_weights_were_wanted_is_not_pending_when_they_are_taken_back(done: Site) -> None:
    job, one = done.job(), done.exam_id("1.1")
    before = statuses(job.store)
    done.artefacts = replace(ARTEFACTS, weights={"disc": "z"})
    os.utime(next((done.folder / "archive" / "1.1").iterdir()), ns=(1, 1))
    plan_run(done.job(), InThisProcess(), retry_failed=False)
    assert statuses(job.store) == before | {one: "pending"}  # the other's numbers stand until the change is accepted

    done.artefacts = ARTEFACTS
    planned = plan_run(done.job(), InThisProcess(), retry_failed=False)
    assert planned.plan.exam_ids == []
    assert statuses(job.store) == before


def test_exams_whose_numbers_rest_on_other_parameters_are_pending(done: Site) -> None:
    job, before = done.job(), statuses(done.job().store)
    done.artefacts = replace(ARTEFACTS, impute=True)
    plan_run(done.job(), InThisProcess(), retry_failed=False, dry=True)
    assert statuses(job.store) == before
    planned = plan_run(done.job(), InThisProcess(), retry_failed=False)
    assert planned.plan.stages == {"load": 2}
    assert statuses(job.store) == dict.fromkeys(before, "pending")

    done.artefacts = ARTEFACTS
    assert plan_run(done.job(), InThisProcess(), retry_failed=False).plan.exam_ids == []
    assert statuses(job.store) == before
