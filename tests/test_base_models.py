"""Base models of a run: shipped ones and the user's own in the store, made once, redone when they change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import opensim
import pytest
from foreign_model import write_foreign_model

from cohort.errors import ConfigurationError
from cohort.loading.base_model import read_base_model
from cohort.loading.model_names import READY, ModelNames
from models.musculoskeletal.build import base_model_sha256
from pipelines.base_models import store_base_models
from pipelines.config import BaseModelsConfig, LoadConfig

NAMES = ModelNames(height_m=1.75, carried={"Abdomen": "L2"})


def files(store: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (store / "models").iterdir()}


def test_without_own_models_the_shipped_ones_are_in_the_store(tmp_path: Path) -> None:
    found = store_base_models(tmp_path, LoadConfig())
    assert {code: model.sha256 for code, model in found.items()} == {
        "M": base_model_sha256("male"),
        "F": base_model_sha256("female"),
    }
    assert {model.origin for model in found.values()} == {"shipped"}
    assert len(files(tmp_path)) == 2


def test_an_own_model_is_adopted_once_and_again_when_it_or_its_names_change(tmp_path: Path) -> None:
    file = write_foreign_model(tmp_path / "my model.osim")
    own = LoadConfig(base_models=BaseModelsConfig(male=file, names=NAMES))
    first, before = store_base_models(tmp_path / "store", own), files(tmp_path / "store")
    assert first["M"].origin == "my model.osim"
    assert first["F"].origin == "shipped"
    assert read_base_model(first["M"].path).name == "foreign"
    assert store_base_models(tmp_path / "store", own) == first
    assert files(tmp_path / "store") == before
    taller = replace(own, base_models=replace(own.base_models, names=replace(NAMES, height_m=1.8)))
    other = store_base_models(tmp_path / "store", taller)
    assert other["M"].sha256 != first["M"].sha256
    assert other["M"].path != first["M"].path
    assert other["F"] == first["F"]


def test_nothing_of_the_users_folders_is_in_the_store(tmp_path: Path) -> None:
    secret = tmp_path / "Geheimrat"
    secret.mkdir()
    own = BaseModelsConfig(female=write_foreign_model(secret / "her.osim"), names=NAMES)
    stored = store_base_models(tmp_path / "store", LoadConfig(base_models=own))["F"]
    assert b"Geheimrat" not in stored.path.read_bytes()
    assert "Geheimrat" not in stored.origin


def test_a_model_that_cannot_be_used_leaves_nothing_behind(tmp_path: Path) -> None:
    file = write_foreign_model(tmp_path / "mine.osim")
    with pytest.raises(ConfigurationError, match=r"'mine\.osim' has no joint 'L2_L3_IVD_jnt'"):
        store_base_models(tmp_path / "store", LoadConfig(base_models=BaseModelsConfig(male=file, names=READY["lfb"])))
    assert files(tmp_path / "store") == {}
    missing = BaseModelsConfig(male=tmp_path / "none.osim")
    with pytest.raises(ConfigurationError, match=r"'none\.osim' cannot be read"):
        store_base_models(tmp_path / "store", LoadConfig(base_models=missing))


def test_the_female_model_of_a_table_for_both_has_its_own_stature(tmp_path: Path) -> None:
    file = write_foreign_model(tmp_path / "both.osim")
    own = BaseModelsConfig(male=file, female=file, names=READY["bidmc"])
    found = store_base_models(tmp_path / "store", LoadConfig(base_models=own))
    assert [read_base_model(found[code].path).height_m for code in "MF"] == pytest.approx([1.75, 1.63])


def edited(path: Path, what: str, value: float) -> Path:
    """The foreign model with one number set in a muscle or a body."""
    model = opensim.Model(str(write_foreign_model(path)))
    muscle: Any = model.getMuscles().get("IL_R10_l")
    vertebra: Any = model.getBodySet().get("lumbar3")
    setters = {
        "strength": muscle.setMaxIsometricForce,
        "optimal fibre length": muscle.setOptimalFiberLength,
        "tendon slack length": muscle.setTendonSlackLength,
        "places": lambda x: vertebra.setMassCenter(opensim.Vec3(x, 0.0, 0.0)),
    }
    setters[what](value)
    model.finalizeConnections()
    model.printToXML(str(path))
    return path


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("strength", -100.0),
        ("strength", 0.0),
        ("strength", float("nan")),
        ("strength", float("inf")),
        ("optimal fibre length", float("nan")),
        ("tendon slack length", -0.05),
        ("places", float("nan")),
    ],
)
def test_numbers_that_opensim_lets_pass_and_no_engine_can_use_are_refused(
    tmp_path: Path, what: str, value: float
) -> None:
    file = edited(tmp_path / "mine.osim", what, value)
    with pytest.raises(ConfigurationError, match=rf"'mine\.osim'.*{what}") as refusal:
        store_base_models(tmp_path / "store", LoadConfig(base_models=BaseModelsConfig(male=file, names=NAMES)))
    assert str(tmp_path) not in str(refusal.value)
    assert files(tmp_path / "store") == {}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (replace(NAMES, height_m=175.0), "stature of 175 m"),
        (replace(NAMES, centres_m={"L3_L4": (0.3, 0.02, 0.0)}), "joint centres are out of order"),
    ],
)
def test_an_own_model_that_is_no_persons_is_refused(tmp_path: Path, names: ModelNames, message: str) -> None:
    file = write_foreign_model(tmp_path / "mine.osim")
    with pytest.raises(ConfigurationError, match=message):
        store_base_models(tmp_path / "store", LoadConfig(base_models=BaseModelsConfig(male=file, names=names)))
    assert files(tmp_path / "store") == {}


def test_an_own_model_without_legs_is_refused(tmp_path: Path) -> None:
    model = opensim.Model(str(write_foreign_model(tmp_path / "trunk.osim")))
    for side in "rl":
        model.getBodySet().get(f"femur_{side}").setMass(0.1)
    model.finalizeConnections()
    model.printToXML(str(tmp_path / "trunk.osim"))
    own = BaseModelsConfig(male=tmp_path / "trunk.osim", names=NAMES)
    with pytest.raises(ConfigurationError, match="are legs missing"):
        store_base_models(tmp_path / "store", LoadConfig(base_models=own))
