"""The default base models: their tables and what the builder makes of them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import opensim
import pytest

from models.musculoskeletal.build import FOLDER, TABLES, base_model_sha256, build_base_model

LUMBAR = ("L5", "L4", "L3", "L2", "L1")


@pytest.fixture(scope="module")
def male(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_base_model("male", tmp_path_factory.mktemp("models") / "male.osim")


@pytest.fixture(scope="module")
def female(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_base_model("female", tmp_path_factory.mktemp("models") / "female.osim")


def opened(path: Path) -> tuple[opensim.Model, opensim.State]:
    opensim.Logger.setLevelString("Off")
    model = opensim.Model(str(path))
    state = model.initSystem()
    model.realizePosition(state)
    return model, state


@pytest.mark.parametrize("table", TABLES)
def test_every_number_names_its_source(table: str) -> None:
    with (FOLDER / f"{table}.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert rows
    assert all(row["source"] for row in rows)


def test_same_tables_give_the_same_bytes(male: Path, tmp_path: Path) -> None:
    assert build_base_model("male", tmp_path / "again.osim").read_bytes() == male.read_bytes()


def test_fingerprint_tells_the_sexes_apart() -> None:
    assert base_model_sha256("male") == base_model_sha256("male") != base_model_sha256("female")


def test_unknown_sex_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no base model for sex"):
        build_base_model("O", tmp_path / "x.osim")  # type: ignore[arg-type]


def test_masses_add_up(male: Path, female: Path) -> None:
    for path, mass in ((male, 75.0), (female, 62.0)):
        model, state = opened(path)
        assert model.getTotalMass(state) == pytest.approx(mass)


def test_female_is_smaller_and_weaker(male: Path, female: Path) -> None:
    strength = [
        sum(m.getMuscles().get(i).getMaxIsometricForce() for i in range(m.getMuscles().getSize()))
        for m, _ in (opened(male), opened(female))
    ]
    assert strength[1] / strength[0] == pytest.approx(0.73)


def test_lumbar_axes_point_to_the_next_joint(male: Path) -> None:
    model, state = opened(male)
    for lower, upper in zip(LUMBAR, (*LUMBAR[1:], "thorax"), strict=True):
        frame, above = model.getBodySet().get(lower), model.getBodySet().get(upper)
        offset = above.findStationLocationInAnotherFrame(state, opensim.Vec3(0), frame)
        assert [offset.get(0), offset.get(2)] == pytest.approx([0.0, 0.0], abs=1e-9)
        assert 0.028 < offset.get(1) < 0.040


def test_lordosis_is_that_of_an_adult(male: Path) -> None:
    model, state = opened(male)
    tilt = [
        np.arctan2(r.get(1, 0), r.get(0, 0))
        for r in (model.getBodySet().get(level).getTransformInGround(state).R() for level in ("L1", "L5"))
    ]
    assert 25.0 < np.degrees(tilt[0] - tilt[1]) < 60.0


def test_210_fascicles_in_mirrored_pairs(male: Path) -> None:
    model, _ = opened(male)
    muscles = [model.getMuscles().get(i) for i in range(model.getMuscles().getSize())]
    strength = {muscle.getName(): muscle.getMaxIsometricForce() for muscle in muscles}
    assert len(strength) == 210
    right = {name[:-2]: force for name, force in strength.items() if name.endswith("_r")}
    assert right == {name[:-2]: force for name, force in strength.items() if name.endswith("_l")}


def test_trunk_muscles_flex_and_extend_as_they_should(male: Path) -> None:
    model, state = opened(male)
    joint = model.getCoordinateSet().get("L3_L4_FE")
    arm = {
        name: model.getMuscles().get(name).computeMomentArm(state, joint)
        for name in ("LTpL_L1_r", "LTpT_T9_r", "IL_R10_r", "MF_m1t_2_r", "RA_r", "IO1_r")
    }
    assert all(0.04 < arm[name] < 0.08 for name in ("LTpL_L1_r", "LTpT_T9_r", "IL_R10_r", "MF_m1t_2_r"))
    assert all(-0.12 < arm[name] < -0.04 for name in ("RA_r", "IO1_r"))
