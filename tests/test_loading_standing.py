"""How people with a spine of their own stand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scanned_people import scanned_chain, subject

from cohort.loading.base_model import BaseModel, Floats, read_base_model
from cohort.loading.equilibrium import gravity_wrenches, pose_models
from cohort.loading.personalise import PersonalModels, personalise
from cohort.loading.tasks import STANDING
from models.musculoskeletal.build import Sex, build_base_model

SEXES: tuple[Sex, ...] = ("male", "female")


@pytest.fixture(scope="module", params=SEXES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return read_base_model(build_base_model(request.param, tmp_path_factory.mktemp("models") / "base.osim"))


def weight_forward_m(base: BaseModel, models: PersonalModels) -> Floats:
    """How far before L5/S1 the weight above it acts in standing, [subject]."""
    load = gravity_wrenches(base, models, pose_models(base, models, STANDING), hand_kg=(0.0, 0.0))[:, 0]
    return np.asarray(load[:, 5] / load[:, 1])


@settings(max_examples=20, deadline=None)
@given(bend=st.lists(st.floats(-6.0, 6.0), min_size=6, max_size=6), height_m=st.floats(1.4, 2.1))
def test_the_trunk_weighs_where_it_does_in_the_base_model(base: BaseModel, bend: list[float], height_m: float) -> None:
    people = [
        subject(height_m=base.height_m, mass_kg=base.total_mass_kg),
        subject(height_m=height_m, mass_kg=70.0, **scanned_chain(base, np.array(bend))),
    ]
    generic, person = weight_forward_m(base, personalise(base, people))
    assert person == pytest.approx(generic * height_m / base.height_m, abs=1e-6)


def test_a_flat_back_stands_with_the_pelvis_tilted_back(base: BaseModel) -> None:
    flat, hollow = personalise(
        base, [subject(**scanned_chain(base, np.full(6, bend))) for bend in (-4.0, 4.0)]
    ).rest_tilt_rad
    assert np.degrees(flat) > 10.0
    assert np.degrees(hollow) < -10.0


def test_a_spine_that_stands_only_with_a_leaning_thorax_is_doubted(base: BaseModel) -> None:
    bends = np.array([[0.0] * 6, [-15.0, -15.0, 15.0, 15.0, 15.0, 15.0]])
    sound, bent = personalise(base, [subject(**scanned_chain(base, bend)) for bend in bends]).reasons
    assert "implausible_posture" not in sound
    assert "implausible_posture" in bent
