"""The whole chain on phantom exams with known truth: DICOM in, numbers out, compared with what the phantom is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from cohort.archive.demographics import VertebraCount
from cohort.archive.listing import list_files
from cohort.archive.pseudonym import Pseudonyms
from cohort.archive.scan import read_file_rows
from cohort.archive.source import FileSource
from cohort.errors import RefusedError
from cohort.loading.assumptions import Assumptions
from cohort.loading.tasks import DEFAULT_TASKS, TASKS
from cohort.stacks import ImageStack, LabelledStack
from cohort.store.exam import read_exam
from cohort.store.labels import write_labels
from cohort.terms import SACRAL_BODY, VERTEBRAL_BODY
from models.musculoskeletal.build import build_base_model
from models.phantom.dicom import write_exam
from models.phantom.exam import (
    ExamPlan,
    PhantomExam,
    make_exam,
    true_csa_cm2,
    true_disc_centroids,
    true_disc_height_mm,
    true_vertebra_centroids,
)
from models.phantom.sampling import tissue_at, voxel_centres
from pipelines.convert import ConvertTask, convert, image_sources
from pipelines.exams import group_exams
from pipelines.load import LoadTask, load
from pipelines.measure import MeasureTask, measure, read_rows
from pipelines.outcome import Result, WorkItem

PLANS = (
    ExamPlan(501, "F", 44, 1.64, 61.0, "per_disc", 13),
    ExamPlan(502, "M", 58, 1.79, 84.0, "block", 13, reversed_order=True),
)
FINGERPRINT = "ab" * 32


@dataclass(frozen=True, eq=False)
class Measured:
    """One exam that went through the chain with true masks."""

    exam: PhantomExam
    rows: dict[str, list]
    loads: Result
    loads_of_unknown: Result
    """With neither height nor mass, and leave to impute them."""
    stacks: list[ImageStack]


def _true_labels(exam: PhantomExam, stack: ImageStack) -> LabelledStack:
    """Masks evaluated on the grid that came out of the DICOM files, not on the grid that went in."""
    body, disc, muscle = [], [], []
    for k in range(stack.geometry.n_slices):
        points = voxel_centres(stack.geometry, k)
        _, b, d, m = (a.reshape(stack.geometry.shape) for a in tissue_at(exam.subject, points.reshape(-1, 3)))
        body.append(b)
        disc.append(d)
        muscle.append(m)
    if stack.plane == "axial":
        return LabelledStack(stack, {"muscle": np.stack(muscle)}, {})
    values = [0, *(SACRAL_BODY if one.sacral else VERTEBRAL_BODY for one in exam.anatomy.bodies)]
    labels = {
        "vertebral_body": np.array(values, np.uint8)[np.stack(body)],
        "disc": (np.stack(disc) > 0).astype(np.uint8),
    }
    return LabelledStack(stack, labels, {})


@pytest.fixture(scope="module", params=PLANS, ids=["per_disc", "block"])
def measured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    plan: ExamPlan = request.param
    folder = tmp_path_factory.mktemp("chain")
    archive, store = folder / "archive", folder / "store"
    exam = make_exam(plan)
    write_exam(archive, exam, patient_name="Nobody", patient_id="1")
    key = folder / "key"
    key.write_bytes(bytes(32))
    key.chmod(0o600)
    pseudonyms = Pseudonyms(bytes(32))
    files = {pseudonyms.file_id(relative): FileSource(relative) for relative, _, _ in list_files(archive)}
    rows = [row for listed in list_files(archive) for row in read_file_rows(archive, *listed, pseudonyms)]
    (found,) = group_exams(rows, None)
    images = [image_sources(rows, lambda row: files[row.file_id]) for rows in (found.sagittal, found.axial)]
    task = ConvertTask(store, archive, key, *images, {})
    converted = convert(WorkItem(found.exam_id, "convert", FINGERPRINT, task))
    stored = read_exam(store / converted.path)
    labels = store / "labels.zarr"
    write_labels(labels, [_true_labels(exam, stack) for stack in stored.stacks], {})
    item = WorkItem(
        found.exam_id,
        "measure",
        FINGERPRINT,
        MeasureTask(store, converted.path, "labels.zarr", VertebraCount(), review=store),
    )
    result = measure(item)
    base = {sex: build_base_model(name, folder / f"{name}.osim") for sex, name in (("M", "male"), ("F", "female"))}
    loading = LoadTask(
        store=store,
        measured_path=result.path,
        demographics=found.demographics,
        tasks=tuple(TASKS[name] for name in DEFAULT_TASKS),
        assumptions=Assumptions(),
        base_models=base,
        with_opensim=False,
        opensim_timeout_s=60,
    )
    loads = load(WorkItem(found.exam_id, "load", FINGERPRINT, loading))
    unknown = replace(loading, demographics=replace(found.demographics, height_m=None, weight_kg=None))
    with pytest.raises(RefusedError, match="height_m, weight_kg unknown"):
        load(WorkItem(found.exam_id, "load", FINGERPRINT, unknown))
    imputed = load(WorkItem(found.exam_id, "load", FINGERPRINT, replace(unknown, impute=True)))
    assert len(list((store / "review").rglob("*.png"))) >= 2
    return Measured(exam, read_rows(store / result.path), loads, imputed, stored.stacks)


def test_disc_heights_are_true_to_a_millimetre(measured: Measured) -> None:
    truth = true_disc_centroids(measured.exam)
    discs = {row.level: row for row in measured.rows["discs"] if row.level}
    assert {"L5-S1", "L4-L5", "L3-L4", "L2-L3", "L1-L2"} <= discs.keys()
    for disc in measured.exam.anatomy.discs[:6]:
        row = discs[disc.name]
        assert row.height_mm == pytest.approx(true_disc_height_mm(measured.exam, disc, truth[disc.name]), abs=1.0)


def test_centroids_are_true_to_three_millimetres(measured: Measured) -> None:
    for table, truth in (
        ("vertebrae", true_vertebra_centroids(measured.exam)),
        ("discs", true_disc_centroids(measured.exam)),
    ):
        rows = {row.level: row for row in measured.rows[table] if row.level and not row.touches_border}
        lumbar = [name for name in truth if name.startswith("L")]
        assert len(lumbar) == 5
        for name in lumbar:
            row = rows[name]
            assert np.linalg.norm(np.array([row.x_mm, row.y_mm, row.z_mm]) - truth[name]) < 3.0, name


def test_muscle_areas_are_true_to_a_tenth(measured: Measured) -> None:
    exam = measured.exam
    rows = [row for row in measured.rows["muscle_levels"] if row.level == "L3-L4"]
    assert len(rows) == 8
    acquired = {one.index: one for one in measured.stacks if one.plane == "axial"}
    for row in rows:
        position = acquired[row.stack].geometry.position_mm[row.slice]
        matches = [
            (s, k)
            for s, grid in enumerate(exam.axial)
            for k, corner in enumerate(grid.position_mm)
            if np.allclose(corner, position, atol=0.01)
        ]
        assert len(matches) == 1
        assert row.csa_cm2 == pytest.approx(true_csa_cm2(exam, *matches[0])[row.muscle, row.side], rel=0.1)


def test_left_is_left(measured: Measured) -> None:
    for row in measured.rows["muscle_levels"]:
        centre = next(r for r in measured.rows["discs"] if r.level == row.level).x_mm
        assert (row.x_mm > centre) == (row.side == "left")


def test_loads_rest_on_what_was_measured(measured: Measured) -> None:
    rows = [
        row for row in measured.loads.rows["loads"] if row.task == "flexion60_5kg" and row.convention == "vertebra_mean"
    ]
    assert [row.level for row in sorted(rows, key=lambda row: row.level)] == ["L1", "L2", "L3", "L4", "L5"]
    assert all(1000 < row.axial_n < 6000 for row in rows)
    assert {(row.height_source, row.mass_source, row.curvature_source, row.strength_source) for row in rows} == {
        ("measured",) * 4
    }


def test_a_typical_height_and_mass_stand_in_and_flag_the_loads(measured: Measured) -> None:
    rows = measured.loads_of_unknown.rows["loads"]
    assert {(row.height_source, row.mass_source) for row in rows} == {("imputed", "imputed")}
    assert all("imputed_demographics" in str(row.reasons) for row in rows)
    assert {row.reason for row in measured.loads_of_unknown.rows["quality"]} >= {"imputed_demographics"}


def test_muscles_are_about_where_those_of_a_typical_person_are(measured: Measured) -> None:
    rows = measured.loads.rows["loads"]
    assert {row.position_source for row in rows} == {"measured"}
    assert not any("implausible_position" in str(row.reasons) for row in rows)


def test_standing_loads_are_those_of_a_person(measured: Measured) -> None:
    standing = [row.axial_n for row in measured.loads.rows["loads"] if row.task == "standing"]
    assert min(standing) > 50
