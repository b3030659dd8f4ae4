"""Strength in the posture against OpenSim's own Thelen muscles."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import opensim
import pytest

from cohort.loading.base_model import SPINAL_JOINTS, read_base_model
from cohort.loading.equilibrium import fascicle_lengths, pose_models
from cohort.loading.force_length import LEAST_STRENGTH, stretch_fibres
from cohort.loading.personalise import personalise
from cohort.loading.subject import LoadingSubject
from cohort.loading.tasks import FLEXION60_5KG, STANDING, Task
from models.musculoskeletal.build import build_base_model


@pytest.mark.parametrize("sex", ["male", "female"])
@pytest.mark.parametrize(
    "task",
    [STANDING, FLEXION60_5KG, Task(name="bent", lateral_bend_deg=25.0, axial_turn_deg=10.0)],
    ids=lambda t: t.name,
)
def test_strength_in_the_posture_is_that_of_opensims_muscles(
    tmp_path: Path, sex: Literal["male", "female"], task: Task
) -> None:
    path = build_base_model(sex, tmp_path / "model.osim")
    base = read_base_model(path)
    subject = LoadingSubject(
        exam_id="x", sex="M" if sex == "male" else "F", height_m=base.height_m, mass_kg=base.total_mass_kg
    )
    models = personalise(base, [subject])
    fibres = stretch_fibres(base, models, fascicle_lengths(base, models, pose_models(base, models, task)))
    model = opensim.Model(str(path))
    state = model.initSystem()
    for joint, angles in zip(SPINAL_JOINTS, task.joint_angles_rad, strict=True):
        for axis, angle in zip(("FE", "LB", "AR"), angles, strict=True):
            model.getCoordinateSet().get(f"{joint}_{axis}").setValue(state, float(angle), False)
    model.realizeVelocity(state)
    n_floored = 0
    for number, name in enumerate(base.fascicles):
        theirs = model.getMuscles().get(name).calcInextensibleTendonActiveFiberForce(state, 1.0)
        ratio = theirs / model.getMuscles().get(name).getMaxIsometricForce()
        n_floored += ratio < LEAST_STRENGTH
        assert fibres.strength[0, number] == pytest.approx(max(ratio, LEAST_STRENGTH), rel=1e-6)
    assert n_floored < 5
    assert np.median(fibres.strength) > 0.8


def test_slack_and_overstretched_fascicles_keep_a_little_strength_and_are_counted(tmp_path: Path) -> None:
    base = read_base_model(build_base_model("male", tmp_path / "model.osim"))
    models = personalise(base, [LoadingSubject(exam_id="x", sex="M", height_m=1.75, mass_kg=75.0)])
    for length in (0.5 * models.tendon_slack_m, models.tendon_slack_m + 5.0 * models.optimal_fibre_m):
        fibres = stretch_fibres(base, models, length)
        np.testing.assert_array_equal(fibres.strength, LEAST_STRENGTH)
        assert fibres.out_of_range.all()
