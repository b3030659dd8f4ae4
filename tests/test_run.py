"""`cohort run` on a small archive: what is done, what is not done again, what is refused, and what is never written."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from cohort.archive.pseudonym import Pseudonyms
from cohort.store.garbage import Grace
from cohort.tables.buckets import bucket_count, bucket_file, bucket_of, read_objects, read_rows
from cohort.tables.fsck import fsck, wrong
from cohort.tables.ledger import read_ledger
from models.phantom.dicom import ROOT, write_exam
from models.phantom.exam import ExamPlan, make_exam
from pipelines.cli import main
from pipelines.config import ClusterConfig, LoadConfig, PrivacyConfig, RunConfig
from pipelines.demo import answers, draw_pictures
from pipelines.fingerprint import STAGE_VERSIONS
from pipelines.maintenance import check, collect_garbage
from pipelines.progress import Progress
from pipelines.run import run
from pipelines.summary import Summary

WITH_AXIAL = ExamPlan(601, "F", 44, 1.64, 61.0, "per_disc", 7)
WITHOUT_AXIAL = ExamPlan(602, "M", 58, 1.79, 84.0, "none", 6)
LATER = ExamPlan(603, "M", 33, 1.81, 77.0, "none", 6)
SECRETS = ("Geheimrat", "PAT-4711", "Musterstadt", "19620317")


@dataclass(frozen=True)
class Place:
    """An archive, a store and a key."""

    folder: Path

    @property
    def archive(self) -> Path:
        return self.folder / "archive"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def config(self) -> RunConfig:
        return RunConfig(
            cluster=ClusterConfig(workers=1, device="cpu"),
            load=LoadConfig(tasks=("flexion60_5kg",)),
            privacy=PrivacyConfig(key_file=self.folder / "key"),
        )

    def exam_id(self, plan: ExamPlan) -> str:
        return Pseudonyms((self.folder / "key").read_bytes()).exam_id(f"{ROOT}.{plan.seed}")

    def run(self, **options: object) -> Summary:
        with Progress() as progress:
            return run(self.archive, self.store, config=self.config, progress=progress, **options)


def _write(place: Place, plan: ExamPlan) -> None:
    """One exam under a folder and with headers that name the patient in every way."""
    folder = place.archive / f"{SECRETS[0]}_{plan.seed}"
    for path in write_exam(folder, make_exam(plan), patient_name=f"{SECRETS[0]}^Anna", patient_id=SECRETS[1]):
        _plant_secrets(path)


def _plant_secrets(path: Path) -> None:
    import pydicom

    data = pydicom.dcmread(path)
    data.PatientBirthDate, data.InstitutionName, data.PatientAddress = SECRETS[3], SECRETS[2], SECRETS[2]
    data.StudyDescription, data.PatientComments = f"MR LWS {SECRETS[0]}", SECRETS[0]
    data.SeriesDescription = f"{data.SeriesDescription} {SECRETS[0]}"
    data.ReferringPhysicianName = SECRETS[0]
    data.add_new((0x0029, 0x0010), "LO", SECRETS[2])
    data.add_new((0x0029, 0x1010), "UN", SECRETS[0].encode())
    data.save_as(path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Summary]:
    """Two exams, one damaged file in a chosen series, one file that is no DICOM, processed once."""
    place = Place(tmp_path_factory.mktemp("run"))
    _write(place, WITH_AXIAL)
    _write(place, WITHOUT_AXIAL)
    victim = sorted((place.archive / f"{SECRETS[0]}_601" / "series03").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:20_000])
    (place.archive / f"{SECRETS[0]}.txt").write_text(f"Befund {SECRETS[0]}")
    return place, place.run()


@pytest.fixture
def place(finished: tuple[Place, Summary], tmp_path: Path) -> Place:
    """A copy of the finished place that a test may change."""
    shutil.copytree(finished[0].folder, tmp_path / "copy")
    return Place(tmp_path / "copy")


def test_every_exam_and_file_has_a_row_with_its_reason(finished: tuple[Place, Summary]) -> None:
    place, summary = finished
    assert (summary.run.n_exams, summary.run.n_failed, summary.run.n_refused) == (2, 0, 0)
    exams = {row.exam_id: row for row in read_objects(place.store, "exams")}
    assert exams[place.exam_id(WITH_AXIAL)].n_axial_stacks == 5
    reasons = pd.read_parquet(place.store / "tables" / "quality").groupby("exam_id").reason.agg(set)
    assert "damaged_file_in_series" in reasons[place.exam_id(WITH_AXIAL)]
    assert "no_t1_axial" in reasons[place.exam_id(WITHOUT_AXIAL)]
    assert exams[place.exam_id(WITHOUT_AXIAL)].status == "flagged"
    files = pd.read_parquet(place.store / "tables" / "files")
    assert files.reason.dropna().value_counts().to_dict() == {"truncated": 1, "not_dicom": 1}


def test_the_rest_completes(finished: tuple[Place, Summary]) -> None:
    place, summary = finished
    loads = pd.read_parquet(place.store / "tables" / "loads")
    assert set(loads.exam_id) == {place.exam_id(WITH_AXIAL), place.exam_id(WITHOUT_AXIAL)}
    assert set(loads.engine) == {"batch", "opensim"}
    assert summary.run.opensim_checked == 1
    assert summary.run.opensim_max_difference < 0.005
    without = loads[loads.exam_id == place.exam_id(WITHOUT_AXIAL)]
    assert set(without.strength_source) == {"default"}


def test_store_ledger_and_tables_agree_and_nothing_is_garbage(finished: tuple[Place, Summary]) -> None:
    store = finished[0].store
    assert fsck(store, deep=True) == []
    assert collect_garbage(store, grace=Grace(result_s=0.0, gone_s=0.0), dry_run=True) == []


def test_damaged_tables_and_results_are_repaired_by_the_next_run(place: Place) -> None:
    exam_id = place.exam_id(WITH_AXIAL)
    before = {table: read_rows(place.store, table).to_pylist() for table in ("discs", "muscles", "curvature")}
    bucket_file(place.store, "discs", bucket_of(exam_id, bucket_count(place.store))).write_bytes(b"PAR1")
    assert [one.check for one in check(place.store, deep=False, mend=False)] == ["damaged"]
    assert wrong(check(place.store, deep=False, mend=True)) == []
    assert place.run().run.stages_run == 2
    assert fsck(place.store, deep=True) == []
    assert {table: read_rows(place.store, table).to_pylist() for table in before} == before


def test_a_second_run_does_nothing_and_starts_no_worker(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.job.open_cluster", lambda *_, **__: pytest.fail("a cluster was started"))
    before = {path: path.stat().st_mtime_ns for path in (place.store / "tables").rglob("*.parquet")}
    summary = place.run()
    assert summary.did_nothing
    changed = {path.parts[-3] for path, at in before.items() if path.stat().st_mtime_ns != at}
    assert changed <= {"runs"}


def test_a_new_exam_is_the_only_one_processed(place: Place) -> None:
    _write(place, LATER)
    summary = place.run()
    assert summary.run.stages_run == 4
    assert {row.exam_id for row in read_ledger(place.store).values() if row.run_id == summary.run.run_id} == {
        place.exam_id(LATER)
    }
    assert len(pd.read_parquet(place.store / "tables" / "exams")) == 3


def test_a_night_that_is_over_leaves_the_rest_for_the_next_and_says_what_it_is(place: Place) -> None:
    _write(place, LATER)
    summary = place.run(command="nightly", stop=lambda: len(read_objects(place.store, "wanted")) == 3)
    assert (summary.run.command, summary.run.ended, summary.run.n_pending) == ("nightly", "stopped", 1)
    assert summary.run.stages_run == 0
    (exam,) = [row for row in read_objects(place.store, "exams") if row.exam_id == place.exam_id(LATER)]
    assert exam.status == "pending"
    config = place.folder / "cohort.toml"
    config.write_text('[privacy]\nkey_file = "key"\n[cluster]\nworkers = 1\n[load]\ntasks = ["flexion60_5kg"]\n')
    arguments = ["nightly", str(place.archive), "--store", str(place.store), "--config", str(config)]
    tables = {path: path.stat().st_mtime_ns for path in (place.store / "tables").rglob("*.parquet")}
    told = CliRunner().invoke(main, [*arguments, "--dry-run", "--json"])
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert found["exams"] == {place.exam_id(LATER): ["convert: new exam"]}
    assert found["stages"] == dict.fromkeys(("convert", "segment", "measure", "load"), 1)
    assert "new exam" in CliRunner().invoke(main, [*arguments, "--dry-run"]).output
    assert {path: path.stat().st_mtime_ns for path in (place.store / "tables").rglob("*.parquet")} == tables


def test_a_night_that_is_over_while_files_are_read_takes_nothing_for_gone(place: Place) -> None:
    """Files under new names are unknown until they are read; the old names are known to be gone at once."""
    (place.archive / f"{SECRETS[0]}_602").rename(place.archive / "elsewhere")
    before = {table: read_rows(place.store, table) for table in ("exams", "wanted", "loads", "ledger")}
    stopped = place.run(stop=lambda: True).run
    assert (stopped.ended, stopped.n_files_read, stopped.n_gone, stopped.n_exams) == ("stopped", 0, 0, 2)
    assert {table: read_rows(place.store, table) for table in before} == before
    summary = place.run()
    assert (summary.run.ended, summary.run.n_gone, summary.run.stages_run) == ("complete", 0, 0)
    assert read_rows(place.store, "loads") == before["loads"]


def test_a_changed_height_redoes_only_the_load(place: Place, tmp_path: Path) -> None:
    subjects = tmp_path / "subjects.csv"
    subjects.write_text(f"study_instance_uid,height_m\n{ROOT}.602,1.90\n")
    summary = place.run(subjects=subjects)
    done = [row for row in read_ledger(place.store).values() if row.run_id == summary.run.run_id]
    assert [(row.exam_id, row.stage) for row in done] == [(place.exam_id(WITHOUT_AXIAL), "load")]
    (exam,) = [row for row in read_objects(place.store, "exams") if row.exam_id == place.exam_id(WITHOUT_AXIAL)]
    assert (exam.height_m, exam.height_source) == (1.90, "subjects")


def test_an_exam_that_left_the_archive_is_gone_from_the_tables(place: Place) -> None:
    gone = place.exam_id(WITHOUT_AXIAL)
    shutil.rmtree(place.archive / f"{SECRETS[0]}_602")
    assert place.run().run.n_gone == 1
    assert gone not in set(pd.read_parquet(place.store / "tables" / "loads").exam_id)
    (exam,) = [row for row in read_objects(place.store, "exams") if row.exam_id == gone]
    assert (exam.status, exam.reason) == ("gone", "gone")
    assert place.run().did_nothing


def test_a_killed_run_resumes(place: Place) -> None:
    shutil.rmtree(place.store)
    code = (
        "import pipelines.chain; pipelines.chain.COMMIT_EVERY_S = 0.0\n"
        "from pathlib import Path; import tests.test_run as t\n"
        f"if __name__ == '__main__': t.Place(Path({str(place.folder)!r})).run()\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[1], start_new_session=True)
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and not _converted(place):
        time.sleep(0.1)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    before = {key for key, row in read_ledger(place.store).items() if row.status in ("ok", "flagged")}
    assert before
    summary = place.run()
    assert summary.run.stages_run == 8 - len(before)
    assert len(read_ledger(place.store)) == 8
    assert len(pd.read_parquet(place.store / "tables" / "exams")) == 2


def _converted(place: Place) -> bool:
    return (place.store / "tables" / "_store.json").exists() and any(read_ledger(place.store))


def test_a_new_version_of_segmentation_is_compared_by_its_masks_and_accepted(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STAGE_VERSIONS, "segment", 99)  # the same code under another version: the same masks
    summary = place.run()
    assert summary.run.change == "accepted"
    change = place.store / "runs" / summary.run.run_id / "change"
    masks = json.loads((change / "change.json").read_text())["masks"]
    assert (masks["n_with_both"], masks["n_compared"], masks["reason"]) == (2, 1, None)  # both are of one person
    assert masks["dice"].keys() >= {"vertebral_body", "disc"}
    assert set(masks["dice"].values()) == {1.0}
    assert (change / masks["page"]).exists()
    assert read_ledger(place.store)[place.exam_id(WITH_AXIAL), "segment"].stage_version == 99


def test_nothing_of_the_patient_is_written_anywhere(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(place.store)
    config = place.folder / "cohort.toml"
    config.write_text('[privacy]\nkey_file = "key"\n[cluster]\nworkers = 1\n[load]\ntasks = ["standing"]\n')
    result = CliRunner().invoke(
        main, ["run", str(place.archive), "--store", str(place.store), "--config", str(config), "--json"]
    )
    assert result.exit_code == 0, result.output
    printed = "".join([result.output, *capfd.readouterr()])
    assert json.loads(result.stdout)["n_exams"] == 2
    needles = [secret.encode() for secret in SECRETS] + [f"{ROOT}.60".encode(), b"A601", b"A602"]
    for needle in needles:
        assert needle not in printed.encode()
    files = [path for path in place.store.rglob("*") if path.is_file()]
    assert len(files) > 50
    for path in files:
        content = path.read_bytes() + str(path.relative_to(place.store)).encode()
        for needle in needles:
            assert needle not in content, path.name
    text_tables = "".join(
        pd.read_parquet(folder).to_csv() for folder in (place.store / "tables").iterdir() if folder.is_dir()
    )
    for needle in needles:  # compressed columns hide text from a byte search
        assert needle.decode() not in text_tables


def test_the_examples_of_the_readme_run(finished: tuple[Place, Summary], capsys: pytest.CaptureFixture[str]) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    store = finished[0].store
    (block,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(block.replace("STORE", str(store)), names)
    assert len(names["discs"]) == len(read_objects(store, "discs"))
    assert "level" in capsys.readouterr().out
    (statement,) = re.findall(r'cohort sql "(.*?)"', readme)
    result = CliRunner().invoke(main, ["sql", statement, "--store", str(store)])
    assert result.exit_code == 0, result.output


def test_sql_errors_name_the_tables(finished: tuple[Place, Summary]) -> None:
    result = CliRunner().invoke(main, ["sql", "select * from disks", "--store", str(finished[0].store)])
    assert result.exit_code == 2
    assert "discs" in result.output


def test_the_demo_asks_its_questions_and_draws_its_pictures(finished: tuple[Place, Summary], tmp_path: Path) -> None:
    found = answers(finished[0].store)
    assert len(found) == 3
    assert "axial_n" in found[2][2]
    pictures = draw_pictures(finished[0].store, tmp_path)
    assert pictures.plot.stat().st_size > 10_000


def test_an_archive_that_is_not_there_is_an_error_in_words(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["run", str(tmp_path / "nowhere"), "--store", str(tmp_path / "s")])
    assert result.exit_code == 2
    assert "does not exist" in result.output


def test_missing_weight_refuses_the_load_and_nothing_else(tmp_path: Path) -> None:
    place = Place(tmp_path)
    plan = replace(WITHOUT_AXIAL, weight_kg=0.0)
    _write(place, plan)
    place.run()
    stages = {stage: row.status for (_, stage), row in read_ledger(place.store).items()}
    assert stages["measure"] in ("ok", "flagged")
    assert stages["load"] == "refused"
    assert len(pd.read_parquet(place.store / "tables" / "loads")) == 0
