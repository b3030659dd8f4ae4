"""The training loop: the same seed, curves, checkpoints that are damaged or another's, losses that are not finite."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from test_training import SMALL

from cohort.errors import ConfigurationError
from models.training.annotated import BODY, DISC, Annotated, AnnotatedSlices
from models.training.config import TrainingConfig
from models.training.curve import Curve, read_curve
from models.training.data import AnnotatedData, draw_batch, load_phantom
from models.training.loop import Trained, train
from models.training.pool import PoolPlan, make_pool

SHORT = dataclasses.replace(SMALL, validate_every=3)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    make_pool(folder, PoolPlan("sagittal", 2), processes=1, report=lambda _: None)
    return folder


def _train(config: TrainingConfig, pool: Path, folder: Path, lines: list[str] | None = None) -> Trained:
    return train(config, pool, folder, device="cpu", report=(lines if lines is not None else []).append)


def _flat(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in weights.values()])


@pytest.mark.parametrize("loss", ["dice", "weighted_dice", "dice_and_cross_entropy"])
def test_the_same_seed_gives_the_same_weights_and_another_does_not(loss: str, pool: Path, tmp_path: Path) -> None:
    weights = () if loss == "dice" else (1.0, 2.0)
    config = dataclasses.replace(SHORT, loss=loss, class_weights=weights, schedule="constant")
    first, second = (_flat(_train(config, pool, tmp_path / name).weights) for name in ("a", "b"))
    assert torch.equal(first, second)
    assert not torch.equal(first, _flat(_train(dataclasses.replace(config, seed=1), pool, tmp_path / "c").weights))


def test_class_weights_reach_the_weights(pool: Path, tmp_path: Path) -> None:
    even, uneven = (
        dataclasses.replace(SHORT, loss="weighted_dice", class_weights=weights) for weights in ((1.0, 1.0), (1.0, 9.0))
    )
    assert not torch.equal(
        _flat(_train(even, pool, tmp_path / "a").weights), _flat(_train(uneven, pool, tmp_path / "b").weights)
    )


def test_curves_and_lines_say_how_it_goes(pool: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    trained = _train(SHORT, pool, tmp_path, lines)
    with (tmp_path / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["iteration"] for row in rows] == ["0", "3", "6"]
    assert list(rows[0]) == [
        "iteration", "loss", "learning_rate", "seconds", "phantom_dice_vertebral_body", "phantom_dice_disc",
    ]  # fmt: skip
    assert float(rows[-1]["phantom_dice_disc"]) == pytest.approx(trained.validation_dice["disc"])
    assert min(cv2.imread(str(tmp_path / "curve.png")).shape[:2]) > 300
    said = "\n".join(lines)
    for words in ("bf16 mixed precision on cpu", "phantom version", "starts", "3/6, loss", "left, ends", "held back"):
        assert words in said
    again: list[str] = []
    assert torch.equal(_flat(_train(SHORT, pool, tmp_path, again).weights), _flat(trained.weights))
    assert any("goes on after iteration 6" in line for line in again)
    assert [row["iteration"] for row in read_curve(tmp_path)] == [0, 3, 6]


def test_rows_that_a_kill_left_after_the_checkpoint_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    curve = Curve(tmp_path, ["phantom_dice_disc"], iteration=0)
    for iteration in (25, 50, 75):
        curve.add({"iteration": iteration, "loss": 1 / iteration, "learning_rate": 1e-4, "seconds": 1.0})
    with path.open("a") as file:
        file.write("10")  # cut short
    resumed = Curve(tmp_path, ["phantom_dice_disc"], iteration=50)
    assert [row["iteration"] for row in resumed.rows] == [25, 50]
    assert [row["iteration"] for row in read_curve(tmp_path)] == [25, 50]
    assert path.read_text().splitlines()[1] == "25,0.04000,1.000e-04,1.0,"
    Curve(tmp_path, ["phantom_dice_disc"], iteration=0)
    assert read_curve(tmp_path) == []


@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "another file"])
def test_a_damaged_checkpoint_is_refused_in_words(damage: str, pool: Path, tmp_path: Path) -> None:
    _train(SHORT, pool, tmp_path)
    path = tmp_path / "checkpoint.pt"
    whole = path.read_bytes()
    if damage == "another file":
        torch.save({"weights": torch.zeros(3)}, path)
    else:
        path.write_bytes({"cut": whole[: len(whole) // 2], "noise": b"noise" * 99, "empty": b""}[damage])
    with pytest.raises(ConfigurationError, match=r"checkpoint\.pt cannot be read .*: delete it to start"):
        _train(SHORT, pool, tmp_path)


def test_a_checkpoint_of_another_configuration_or_other_data_is_refused(pool: Path, tmp_path: Path) -> None:
    _train(SHORT, pool, tmp_path / "run")
    with pytest.raises(ConfigurationError, match=r"another configuration \(dropout, iterations differ\)"):
        _train(dataclasses.replace(SHORT, dropout=0.1, iterations=9), pool, tmp_path / "run")
    other = tmp_path / "pool"
    make_pool(other, PoolPlan("sagittal", 1), processes=1, report=lambda _: None)
    with pytest.raises(ConfigurationError, match=r"other data \(4 slices of phantom.*now 2 slices"):
        _train(SHORT, other, tmp_path / "run")


def test_a_loss_that_is_not_finite_ends_the_training_and_keeps_the_checkpoint(pool: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(SHORT, learning_rate=1e30, schedule="constant", validate_every=1)
    with pytest.raises(ConfigurationError, match=r"the loss of iteration 2 is nan.*lower learning_rate"):
        _train(config, pool, tmp_path)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["iteration"] == 1


def test_start_weights_are_counted_and_must_fit(pool: Path, tmp_path: Path) -> None:
    start = _train(SHORT, pool, tmp_path / "first").weights
    lines: list[str] = []
    config = dataclasses.replace(SHORT, classes=("disc",), start_from="first")
    train(config, pool, tmp_path / "second", device="cpu", report=lines.append, start_weights=start)
    taken, n = next(line for line in lines if "starts with" in line).split("starts with ")[1].split(" of ")[:2]
    assert int(n.split()[0]) - int(taken) == 2  # weights and bias of the head, for one class instead of two
    strange = {"liver": torch.zeros(3)}
    with pytest.raises(ConfigurationError, match="start_from = 'first'"):
        train(config, pool, tmp_path / "third", device="cpu", report=lines.append, start_weights=strange)


def _real(patient: str, *, discs: int = 12) -> AnnotatedSlices:
    regions = np.zeros((2, 256, 256), np.uint8)
    regions[:, 60:100, 80:120], regions[:, 104 : 104 + discs, 80:120] = BODY, DISC
    return AnnotatedSlices((regions > 0).astype(np.float16), regions, (patient, patient))


def test_corrected_labels_other_patients_and_other_start_weights_are_other_data(pool: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(SHORT, annotated_share=0.5, annotated_credit="a test", iterations=1, validate_every=1)

    def again(annotated: Annotated, start_sha256: str = "") -> Trained:
        return train(
            config, pool, tmp_path, device="cpu", report=lambda _: None, annotated=annotated, start_sha256=start_sha256
        )

    again(Annotated(_real("1"), _real("2")))
    for other in (Annotated(_real("1", discs=11), _real("2")), Annotated(_real("1"), _real("3"))):
        with pytest.raises(ConfigurationError, match=r"other data \(2 slices of 1 real patients, .*now 2 slices"):
            again(other)
    with pytest.raises(ConfigurationError, match=r"\(no start weights, now start weights 0123"):
        again(Annotated(_real("1"), _real("2")), "0123")


def test_slices_of_other_subjects_are_other_data(pool: Path, tmp_path: Path) -> None:
    _train(SHORT, pool, tmp_path / "run")
    make_pool(tmp_path / "pool", PoolPlan("sagittal", 2, seed=1), processes=1, report=lambda _: None)
    with pytest.raises(ConfigurationError, match=r"other data \(4 slices of phantom.*now 4 slices"):
        _train(SHORT, tmp_path / "pool", tmp_path / "run")


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_a_batch_may_be_larger_than_the_pool(share: float, pool: Path) -> None:
    config = dataclasses.replace(SHORT, batch=16, crop_px=256, annotated_share=share, annotated_credit="a test")
    real = AnnotatedData.of(_real("1"), config.classes, "cpu") if share else None
    images, masks, known = draw_batch(3, config, load_phantom(config, pool), real, "cpu")
    n_real = round(16 * share)
    assert images.shape == (16, 1, 256, 256)
    assert masks.shape == known.shape == (16, 2, 256, 256)
    assert known[: 16 - n_real].all()
    assert all(not one.all() for one in known[16 - n_real :])  # above the topmost label nothing is known


def test_an_axial_batch_may_be_larger_than_the_pool(tmp_path: Path) -> None:
    make_pool(tmp_path, PoolPlan("axial", 1), processes=1, report=lambda _: None)
    config = dataclasses.replace(SHORT, plane="axial", classes=("psoas",), batch=8)
    images, masks, known = draw_batch(0, config, load_phantom(config, tmp_path), None, "cpu")
    assert images.shape == masks.shape == known.shape == (8, 1, 64, 64)


def test_weights_that_are_not_finite_are_never_a_checkpoint(pool: Path, tmp_path: Path) -> None:
    start = dict(_train(SHORT, pool, tmp_path / "first").weights)
    name = next(name for name in start if name.endswith("running_mean"))  # no loss of a training depends on it
    start[name] = torch.full_like(start[name], torch.inf)
    with pytest.raises(ConfigurationError, match=rf"not finite at iteration 3 \({name}\)"):
        train(SHORT, pool, tmp_path / "second", device="cpu", report=lambda _: None, start_weights=start)
    assert not (tmp_path / "second" / "checkpoint.pt").exists()


def test_a_curve_with_words_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "curve.csv").write_text("iteration,loss\n25,0.5\n50,good\n")
    with pytest.raises(ConfigurationError, match=r"curve\.csv has something else than numbers .* iteration 50: delete"):
        read_curve(tmp_path)
