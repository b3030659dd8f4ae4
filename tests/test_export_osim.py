"""`cohort export osim`: the folder runs in OpenSim wherever it is copied, and gives the loads of the table."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import opensim
import pytest
from click.testing import CliRunner, Result
from foreign_model import write_foreign_model
from scanned_people import FLAT_DISCS_MM, FLAT_VERTEBRAE_MM
from skimage.io import imread

from cohort.archive.demographics import Demographics
from cohort.loading.assumptions import Personalisation
from cohort.loading.base_model import read_base_model
from cohort.loading.equilibrium import gravity_wrenches
from cohort.loading.model_names import ModelNames
from cohort.loading.personalise import LEAN_LIMIT_DEG
from cohort.rows import DiscRow, ExamRow, LoadRow, MuscleLevelRow, RunRow, VertebraRow
from cohort.store.layout import measure_path
from cohort.tables.buckets import read_objects
from cohort.tables.commit import commit
from pipelines.base_models import store_base_models
from pipelines.cli import main
from pipelines.config import BaseModelsConfig, LoadConfig, RunConfig, resolved_toml
from pipelines.export_osim import rebuild
from pipelines.load import LoadTask, load
from pipelines.measure import write_rows
from pipelines.outcome import Outcome, WorkItem, commit_outcomes, guarded

EXAM, REFUSED, WAITING = "personwithloads234567", "refusedperson234567", "waitingperson234567"
FINGERPRINT = "ab" * 32
RUN = "20260101T000000-abcdef"
DEMOGRAPHICS = Demographics("M", "dicom", 50.0, "dicom", 1.84, "subjects", 92.0, "subjects")
AREAS_CM2 = {"multifidus": 6.5, "erector_spinae": 17.0, "psoas": 15.0, "quadratus_lumborum": 7.0}
PLACES_MM = {
    "multifidus": (18.0, 55.0),
    "erector_spinae": (40.0, 58.0),
    "psoas": (45.0, 4.0),
    "quadratus_lumborum": (70.0, 25.0),
}
"""Muscle -> distance from the midline and behind the disc."""


def measured_rows() -> dict[str, list]:
    common = {"exam_id": EXAM, "status": "ok"}
    body = {
        "level_confidence": 1.0,
        "volume_cm3": 30.0,
        "slices_seen": 9,
        "slices_expected": 9,
        "touches_border": False,
    }
    at = ("x_mm", "y_mm", "z_mm")
    x, y, z = FLAT_DISCS_MM["L3-L4"]
    return {
        "vertebrae": [
            VertebraRow(ordinal=k, level=name, level_evidence="", **dict(zip(at, place, strict=True)), **common, **body)
            for k, (name, place) in enumerate(FLAT_VERTEBRAE_MM.items())
        ],
        "discs": [
            DiscRow(ordinal=k, level=name, central_slice=4, **dict(zip(at, place, strict=True)), **common, **body)
            for k, (name, place) in enumerate(FLAT_DISCS_MM.items(), start=1)
        ],
        "muscle_levels": [
            MuscleLevelRow(
                level="L3-L4", muscle=muscle, side=side, stack=1, slice=3, distance_mm=0.0, angle_deg=0.0, csa_cm2=area,
                csa_corrected_cm2=area, x_mm=x + sign * PLACES_MM[muscle][0], y_mm=y + PLACES_MM[muscle][1], z_mm=z,
                **common,
            )
            for side, sign, share in (("left", 1.0, 0.8), ("right", -1.0, 1.0))
            for muscle, area in ((name, share * area) for name, area in AREAS_CM2.items())
        ],
        "quality": [],
    }  # fmt: skip


def exam_row(exam_id: str, **values: object) -> ExamRow:
    known = {name: getattr(DEMOGRAPHICS, name) for name in Demographics.__dataclass_fields__}
    return ExamRow(exam_id=exam_id, subject_id=f"subjectof{exam_id}", **known, **values)


def write_store(store: Path, config: RunConfig, demographics: Demographics) -> Path:
    """Three exams as a run leaves them: one with loads, one refused by the load stage, one not begun."""
    models = {code: model.path for code, model in store_base_models(store, config.load).items()}
    measured = measure_path(store, EXAM, FINGERPRINT)
    write_rows(measured, measured_rows())
    path = str(measured.relative_to(store))
    task = LoadTask(
        store, path, demographics, config.load.all_tasks, models, with_opensim=False, opensim_timeout_s=60.0,
        use=config.load.personalise, impute=config.load.impute, assumptions=config.load.assumptions,
    )  # fmt: skip
    outcomes = [
        Outcome(EXAM, "measure", FINGERPRINT, "ok", 1.0, path=path),
        guarded(load, WorkItem(EXAM, "load", FINGERPRINT, task)),
        Outcome(REFUSED, "load", FINGERPRINT, "refused", 1.0, reason="lumbar_variant"),
    ]
    assert outcomes[1].status == "flagged"
    commit_outcomes(store, RUN, outcomes)
    counts = {name: 0 for name in RunRow.__dataclass_fields__ if name.startswith("n_")}
    run = RunRow(run_id=RUN, started_at="", seconds=1.0, version="0.0.9", device="cpu", stages_run=1,
                 opensim_checked=0, status="ok", command="run", ended="complete", **counts)  # fmt: skip
    exams = [
        replace(exam_row(EXAM, status="flagged"), weight_kg=demographics.weight_kg),
        exam_row(REFUSED, status="refused", reason="lumbar_variant"),
        exam_row(WAITING, status="pending"),
    ]
    commit(store, RUN, {"exams": exams, "runs": [run]}, touched={})
    (store / "runs" / RUN).mkdir(parents=True)
    (store / "runs" / RUN / "config.toml").write_text(resolved_toml(config))
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("Geheimrat") / "store", RunConfig(), DEMOGRAPHICS)


@pytest.fixture
def own_store(store: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(store, tmp_path / "own"))


def ask(store: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["export", "osim", "--store", str(store), *arguments])


def exported(store: Path, folder: Path, task: str = "flexion60_5kg") -> Path:
    result = ask(store, EXAM, "--task", task, "--output", str(folder))
    assert result.exit_code == 0, result.output
    return folder


def loads(store: Path, task: str) -> list[LoadRow]:
    return [row for row in read_objects(store, "loads") if row.task == task]


def first_row(path: Path) -> dict[str, float]:
    table = opensim.TimeSeriesTable(str(path))
    return dict(zip(table.getColumnLabels(), table.getRowAtIndex(0).to_numpy().tolist(), strict=True))


@pytest.mark.parametrize("task", ["standing", "standing_5kg", "flexion60_5kg"])
def test_a_folder_copied_elsewhere_gives_the_loads_of_the_table_as_its_readme_says(
    store: Path, tmp_path: Path, task: str
) -> None:
    folder = Path(shutil.move(exported(store, tmp_path / "first", task), tmp_path / "an other place"))
    text = (folder / "README.txt").read_text()
    code = "\n".join(line.strip() for line in re.findall(r"^    .*(?:import|run\(\)).*$", text, re.MULTILINE))
    assert code.count("\n") == 3
    child = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, timeout=300, check=False)
    assert child.returncode == 0, child.stderr
    reaction = first_row(folder / "results" / "joint_reaction_JointReaction_ReactionLoads.sto")
    claims = re.findall(r"^(L\d) (\w+) +(\S.*?) += +(-?[\d.]+)$", text, re.MULTILINE)
    claimed = {(level, convention): eval(formula, dict(reaction)) for level, convention, formula, _ in claims}
    assert len(claimed) == 10
    for row in loads(store, task):
        assert claimed[row.level, row.convention] == pytest.approx(row.axial_n, rel=1e-3)


def test_inverse_dynamics_gives_the_moments_of_gravity_and_hand_loads(store: Path, tmp_path: Path) -> None:
    folder = exported(store, tmp_path / "out")
    posed, difference = rebuild(store, EXAM, "flexion60_5kg")
    assert difference < 1e-9
    code = 'import opensim; opensim.InverseDynamicsTool("inverse_dynamics.xml", True).run()'
    subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, timeout=300, check=True)
    moment = first_row(folder / "results" / "inverse_dynamics.sto")
    load = gravity_wrenches(posed.base, posed.models, posed.found.pose, hand_kg=(5.0, 5.0))[0]
    for joint, name in enumerate(("L5_S1", "L4_L5", "L3_L4", "L2_L3", "L1_L2", "T12_L1")):
        assert moment[f"{name}_FE_moment"] == pytest.approx(-load[joint, 5], rel=1e-5)


def test_the_model_is_the_persons_and_hands_keep_their_own_mass(store: Path, tmp_path: Path) -> None:
    folder = exported(store, tmp_path / "out")
    model, statics = (opensim.Model(str(folder / name)) for name in ("model.osim", "model_statics.osim"))
    state = model.initSystem()
    assert model.getTotalMass(state) == pytest.approx(92.0)
    assert model.getMuscles().getSize() > 200
    assert statics.getMuscles().getSize() == 0
    assert statics.getTotalMass(statics.initSystem()) == pytest.approx(92.0)
    model.realizePosition(state)
    up = model.getBodySet().get("thorax").expressVectorInGround(state, opensim.Vec3(0, 1, 0))
    assert up.get(1) > np.cos(np.radians(LEAN_LIMIT_DEG))
    generic = opensim.Model(str(next((store / "models").glob("*.osim"))))
    moments = [one.getBodySet().get("head").getInertia().getMoments().get(1) for one in (model, generic)]
    assert moments[0] == pytest.approx(moments[1] * 92.0 / 75.0 * (1.84 / 1.75) ** 2)


def test_files_name_no_path_and_nobody(store: Path, tmp_path: Path) -> None:
    folder = exported(store, tmp_path / "Musterfrau")
    needles = ["Geheimrat", "Musterfrau", str(tmp_path), str(Path.home()), str(Path.cwd()), "subjectof", "0123456789ab"]
    assert len(list(folder.iterdir())) == 11
    for path in folder.iterdir():
        content = path.read_bytes()
        for needle in needles:
            assert needle.encode() not in content, (path.name, needle)


def test_the_motion_says_its_unit_and_has_the_rows_that_opensim_needs(store: Path, tmp_path: Path) -> None:
    head, _, body = (exported(store, tmp_path / "out") / "posture.mot").read_text().partition("endheader\n")
    names, *rows = [line.split("\t") for line in body.splitlines()]
    assert "inDegrees=yes" in head
    assert len(rows) >= 6
    assert float(rows[0][names.index("L4_L5_FE")]) == pytest.approx(-0.26 * 45.0)


def test_the_readme_has_the_rows_of_the_table_with_what_raised_doubts(own_store: Path, tmp_path: Path) -> None:
    rows = [replace(row, status="flagged", reasons="upstream_untrusted") for row in read_objects(own_store, "loads")]
    commit(own_store, RUN, {"loads": rows}, touched={})
    text = (exported(own_store, tmp_path / "out") / "README.txt").read_text()
    assert "status flagged, reasons upstream_untrusted\n" in text
    for row in loads(own_store, "flexion60_5kg"):
        assert re.search(rf"^{row.level} +{row.convention} +{row.axial_n:.1f} ", text, re.MULTILINE)


def test_json_says_what_was_written(store: Path, tmp_path: Path) -> None:
    result = ask(store, EXAM, "--task", "standing", "--output", str(tmp_path / "out"), "--json")
    found = json.loads(result.stdout)
    assert found["exam_id"] == EXAM
    assert found["files"] == sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(found["loads"]) == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["personwithloads23456"], f"did you mean '{EXAM}'"),
        (["personwi"], f"did you mean '{EXAM}'"),
        (["zzzz"], "it has 3 exams"),
        ([REFUSED], "refused in stage load: lumbar_variant"),
        ([WAITING], "it is pending"),
        ([EXAM, "--task", "flying"], "it has: flexion30, flexion60_5kg, standing, standing_5kg"),
    ],
)
def test_what_cannot_be_exported_is_said(store: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    result = ask(store, *arguments, "--output", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert not any(tmp_path.iterdir())


def test_a_folder_with_something_in_it_is_left_alone(store: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    result = ask(store, EXAM, "--output", str(tmp_path))
    assert result.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_table_that_other_inputs_have_made_is_not_explained_by_a_model(own_store: Path, tmp_path: Path) -> None:
    commit(own_store, RUN, {"exams": [replace(exam_row(EXAM, status="ok"), weight_kg=80.0)]}, touched={})
    result = ask(own_store, EXAM, "--output", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert re.search(r"axial_n of L\d .* is \d+\.\d N, in the table \d+\.\d N", " ".join(result.output.split()))
    assert "version 0.0.9" in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def test_the_base_model_is_the_one_that_gives_the_table(own_store: Path) -> None:
    (used,) = (own_store / "models").glob("male-*.osim")
    newer = opensim.Model(str(used))
    newer.getBodySet().get("thorax").setMass(40.0)
    newer.printToXML(str(own_store / "models" / "male-ba9876543210.osim"))
    posed, _ = rebuild(own_store, EXAM, "standing")
    assert posed.base.osim_path == used
    assert posed.base.total_mass_kg == pytest.approx(read_base_model(used).total_mass_kg)


def test_what_the_run_did_without_or_filled_in_is_done_again(tmp_path: Path) -> None:
    config = RunConfig(load=LoadConfig(personalise=Personalisation(strength=False), impute=True))
    store = write_store(tmp_path / "store", config, replace(DEMOGRAPHICS, weight_kg=None, weight_source=None))
    posed, difference = rebuild(store, EXAM, "standing")
    assert difference < 1e-9
    assert (posed.rows[0].strength_source, posed.rows[0].mass_source) == ("default", "imputed")


def test_a_model_of_the_users_with_wrap_surfaces_is_exported_too(tmp_path: Path) -> None:
    names = ModelNames(height_m=1.75, carried={"Abdomen": "L2"})
    own = BaseModelsConfig(male=write_foreign_model(tmp_path / "mine.osim"), names=names)
    config = RunConfig(load=LoadConfig(tasks=("flexion60_5kg",), base_models=own))
    store = write_store(tmp_path / "store", config, DEMOGRAPHICS)
    assert {(row.base_model, row.geometry) for row in loads(store, "flexion60_5kg")} == {("foreign", "opensim")}
    folder = exported(store, tmp_path / "folder")
    assert "base model foreign" in (folder / "README.txt").read_text()
    assert imread(folder / "posture.png").size > 0


def test_the_picture_shows_hand_loads_where_there_are_some(store: Path, tmp_path: Path) -> None:
    shown = {}
    for task in ("standing", "standing_5kg"):
        page = imread(exported(store, tmp_path / task, task) / "posture.png")[..., :3].astype(int)
        shown[task] = int((np.abs(page - (0x1F, 0x5F, 0xBF)).max(axis=2) < 8).sum())
    assert shown["standing"] == 0
    assert shown["standing_5kg"] > 200
