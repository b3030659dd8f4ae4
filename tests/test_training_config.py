"""Training configurations: the shipped ones, the paper's, and what is refused in which words."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cohort.errors import ConfigurationError
from models.training.config import TrainingConfig, described_configs, named_configs, read_config
from pipelines.cli import main

LEAST = {"name": "own", "plane": "sagittal", "classes": ["disc"], "spacing_mm": 1.0, "iterations": 10}


def _toml(values: dict[str, Any]) -> str:
    def text(value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, list):
            return f"[{', '.join(map(text, value))}]"
        return f'"{value}"' if isinstance(value, str) else repr(value)

    return "".join(f"{key} = {text(value)}\n" for key, value in values.items())


def _read(folder: Path, **changes: Any) -> TrainingConfig:
    path = folder / "own.toml"
    path.write_text(_toml({**LEAST, **changes}))
    return read_config(str(path))


@pytest.mark.parametrize(
    ("name", "size", "levels", "dropout", "loss"),
    [
        ("paper_disc", 512, 4, 0.2, "weighted_dice"),
        ("paper_vertebral_body", 512, 3, 0.05, "dice"),
        ("paper_muscle", 256, 3, 0.2, "weighted_dice"),
        ("paper_muscle_shared", 256, 4, 0.2, "weighted_dice"),
    ],
)
def test_table_2_of_the_paper_is_shipped(name: str, size: int, levels: int, dropout: float, loss: str) -> None:
    config = read_config(name)
    assert (config.size_px, config.levels, config.dropout, config.loss) == (size, levels, dropout, loss)
    assert (config.learning_rate, config.schedule) == (1e-4, "constant")
    assert (config.activation, config.base_channels) == ("prelu", 16)
    assert config.batch in (8, 32)


def test_shipped_configurations_are_read_and_listed_with_a_line_each() -> None:
    listed = CliRunner().invoke(main, ["train", "--list"])
    assert listed.exit_code == 0
    assert len(listed.output.splitlines()) == len(named_configs()) >= 7
    for name, text in described_configs().items():
        assert read_config(name).classes
        assert text.endswith(".")
        assert f"{name} " in listed.output


def test_numbers_lists_and_defaults_are_read(tmp_path: Path) -> None:
    config = _read(tmp_path, spacing_mm=1, classes=["disc", "vertebral_body"], class_weights=[1, 2.5])
    assert config.spacing_mm == 1.0
    assert config.classes == ("disc", "vertebral_body")
    assert config.class_weights == (1.0, 2.5)
    assert config.loss == "dice_and_cross_entropy"
    assert config.sha256 != dataclasses.replace(config, seed=1).sha256


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 3}, "unknown key 'epochs'"),
        ({"iteration": 3}, "did you mean 'iterations'"),
        ({"iterations": "many"}, "iterations = 'many': give a whole number"),
        ({"iterations": 10.5}, "iterations = 10.5: give a whole number"),
        ({"batch": True}, "batch = True: give a whole number"),
        ({"dropout": "0.2"}, "dropout = '0.2': give a number"),
        ({"name": 7}, "name = 7: give text"),
        ({"classes": "disc"}, "classes = 'disc': give a list"),
        ({"classes": [1]}, "classes = 1: give text"),
        ({"plane": "coronal"}, "plane = 'coronal': give one of 'sagittal', 'axial'"),
        ({"loss": "jaccard"}, "loss = 'jaccard': give one of 'dice', 'weighted_dice'"),
        ({"schedule": ["cosine"]}, "schedule = .*give one of"),
        ({"name": "../own"}, "name = '../own' names files"),
        ({"iterations": 0}, "iterations = 0: give at least 1"),
        ({"spacing_mm": -1.0}, "spacing_mm = -1.0: give a positive"),
        ({"learning_rate": float("nan")}, "learning_rate = nan: give a positive"),
        ({"dropout": 1.0}, "dropout = 1.0: give a number from 0 to below 1"),
        ({"pool_subjects": -1}, "pool_subjects = -1: give at least 1 and at most 100000, or 0 for no phantom"),
        ({"pool_subjects": 100_001}, "pool_subjects = 100001: give at least 1 and at most 100000"),
        ({"pool_subjects": 0}, "pool_subjects = 0 without annotated_share = 1"),
        ({"mix_with_start": True}, "mix_with_start needs start_from"),
        ({"mix_with_start": "yes"}, "mix_with_start = 'yes': give true or false"),
        ({"levels": 8, "crop_px": 256}, "levels of a network is a whole number from 1 to 7, not 8"),
        ({"base_channels": 2000}, "base_channels of a network is a whole number from 1 to 1024"),
        ({"base_channels": 256}, "base_channels = 256 are 4096 channels at the bottom.*at most 2048"),
        ({"seed": -1}, "seed = -1: give 0 or more"),
        ({"classes": []}, r"classes = \[\]: name each"),
        ({"classes": ["disc", "disc"]}, "classes = .*once"),
        ({"classes": ["psoas"]}, "psoas.*sagittal slices do not have: choose among.*disc"),
        ({"loss": "dice", "class_weights": [1.0]}, "class_weights beside loss"),
        ({"loss": "weighted_dice"}, "weighted_dice.*without class_weights: give 1"),
        ({"class_weights": [1.0, 2.0]}, "class_weights has 2 numbers: give 1"),
        ({"class_weights": [0.0]}, r"class_weights = \[0.0\]: give positive"),
        ({"crop_px": 100}, r"crop_px = 100 is no multiple of 16 \(2\*\*levels\): give 96 or 112"),
        ({"size_px": 260}, "size_px = 260 is no multiple of 8: give 264"),
        ({"crop_px": 272}, "crop_px = 272 is more than size_px = 256"),
        ({"annotated_share": 1.5}, "annotated_share = 1.5: give a number from 0 to 1"),
        ({"annotated_share": 0.01}, "annotated_share = 0.01 of batch = 8 is no slice: give at least 0.125"),
        ({"annotated_share": 0.5}, "without annotated_credit"),
    ],
)
def test_what_cannot_be_is_refused_with_key_value_and_remedy(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=words) as error:
        _read(tmp_path, **changes)
    assert "own.toml" in str(error.value)
    assert str(tmp_path) not in str(error.value)


def test_missing_keys_files_that_are_no_toml_and_unknown_names_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('name = "own"\n')
    with pytest.raises(ConfigurationError, match="missing keys: add plane, classes, spacing_mm, iterations"):
        read_config(str(path))
    path.write_text("name = \n")
    with pytest.raises(ConfigurationError, match="not TOML"):
        read_config(str(path))
    with pytest.raises(ConfigurationError, match="'liver'; shipped ones are disc"):
        read_config("liver")
