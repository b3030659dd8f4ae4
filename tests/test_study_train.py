"""The networks of a study: what they read, how they go on, what they start from, and what their cards say."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from annotated_stores import annotation, exam_of, spine, subject_of, trunk, write_annotated_store
from click.testing import CliRunner
from network_contracts import SMALL_CONTRACT
from test_training import SMALL

from cohort.annotations.store import write_annotation
from cohort.errors import ConfigurationError
from models.losses import dice_and_cross_entropy
from models.registry import read_contract, save_network
from models.training import mixing
from models.training.config import TrainingConfig, network_config
from models.training.data import AnnotatedData, Batch, annotated_batches
from models.training.drawn import DrawnSlices, ExamSource, read_drawn
from models.training.mixing import SHARES, mix_with_start
from models.training.validate import validate
from models.vnet import VNet
from pipelines.cli import main
from pipelines.study.annotated_exams import study_exams
from pipelines.study.annotated_store import AnnotatedStore
from pipelines.study.split import NETWORKS, Kind, read_split, split_shared, split_standard, write_splits
from pipelines.study.train import StudySettings, study_config, train_study

CLASSES = {
    "vertebral_body": ["vertebral_body", "sacral_body"],
    "disc": ["disc"],
    "muscle": ["multifidus", "erector_spinae", "psoas", "quadratus_lumborum"],
}


def _write_configs(folder: Path, **changes: str) -> Path:
    """Tiny configurations of the three networks."""
    folder.mkdir(parents=True, exist_ok=True)
    for network, classes in CLASSES.items():
        values = {
            "name": f'"{network}"',
            "plane": '"axial"' if network == "muscle" else '"sagittal"',
            "classes": json.dumps(classes),
            **{
                "spacing_mm": "2.0",
                "size_px": "64",
                "crop_px": "64",
                "levels": "1",
                "base_channels": "2",
                "batch": "2",
            },
            **{"iterations": "3", "validate_every": "2", "pool_subjects": "0", "annotated_share": "1.0"},
            **{"annotated_credit": '"drawn by a test, no licence"'},
            **changes,
        }
        (folder / f"{network}.toml").write_text("".join(f"{key} = {value}\n" for key, value in values.items()))
    return folder


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of ten annotated exams and its splits."""
    folder = tmp_path_factory.mktemp("study")
    write_annotated_store(folder / "store", 10)
    exams = study_exams(folder / "store", lambda _: None)
    write_splits(folder / "splits.csv", split_standard(exams, 2) + split_shared(exams, 2, 2))
    return folder


def _divided(folder: Path, kind: Kind = "standard") -> AnnotatedStore:
    return AnnotatedStore(folder / "store", folder / "splits.csv", kind)


def _train(folder: Path, output: Path, settings: StudySettings, **options: object) -> tuple[list[str], list[str]]:
    """Names of the networks, and what was said."""
    lines: list[str] = []
    found = train_study(_divided(folder), output, settings, device="cpu", processes=1, report=lines.append, **options)  # type: ignore[arg-type]
    return [contract.name for contract in found], lines


def test_three_networks_are_trained_from_one_command_and_the_test_part_is_not_read(
    annotated: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(annotated, folder)
    split = {network: read_split(folder / "splits.csv", "shared", network) for network in NETWORKS}
    (test,) = {frozenset(row.exam_id for row in rows if row.part == "test") for rows in split.values()}
    for exam_id in test:
        for path in (folder / "store").glob(f"*/??/{exam_id}"):
            shutil.rmtree(path)
    arguments = ["study", "train", str(folder / "store"), "--split", str(folder / "splits.csv"), "--kind", "shared"]
    arguments += ["-o", str(tmp_path / "out"), "--configs", str(_write_configs(tmp_path / "own")), "--device", "cpu"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    for network, rows in split.items():
        contract = read_contract(str(tmp_path / "out" / f"{network}.json"))
        for part in ("training", "validation"):
            assert set(contract.annotated_patients[part]) == {row.subject_id for row in rows if row.part == part}
        assert contract.study["split"].startswith("shared, seed 2, ")
        assert contract.study["test part"] == "2 exams of 2 patients, not read"
        assert contract.annotated_dice.keys() == set(CLASSES[network])
        assert contract.phantom_dice == {}
        card = (tmp_path / "out" / f"{network}.md").read_text()
        n = len(contract.annotated_patients["training"])
        assert f"| training part | {2 * n} slices of {n} exams of {n} patients (by reader: A {2 * n}) |" in card
        assert "| licence of the annotated exams | drawn by a test, no licence |" in card
        assert "phantom" not in card
        assert not any(subject in card for subject in contract.annotated_patients["training"])
        assert json.loads((tmp_path / "out" / f"{network}-training.json").read_text())["iterations"] == 3


def test_a_study_goes_on_where_it_stopped_and_leaves_what_is_trained_alone(annotated: Path, tmp_path: Path) -> None:
    own = StudySettings(configs=_write_configs(tmp_path / "own"))
    names, _ = _train(annotated, tmp_path / "out", own, networks=("disc",))
    assert names == ["disc"]
    weights = tmp_path / "out" / "disc.safetensors"
    before = weights.stat().st_mtime_ns
    (tmp_path / "out" / "disc.md").unlink()  # killed before the card
    (tmp_path / "out" / "disc.safetensors").touch()
    names, said = _train(annotated, tmp_path / "out", own)
    assert names == list(NETWORKS)
    assert "study, standard split, network 2 of 3: disc is trained already" in said
    assert (tmp_path / "out" / "disc.md").is_file()
    assert weights.stat().st_mtime_ns > before
    (tmp_path / "out" / "muscle.json").unlink()  # killed between weights and contract
    _, said = _train(annotated, tmp_path / "out", own)
    assert "muscle: goes on after iteration 3, ends at 3; curves and checkpoint in" in "\n".join(said)
    other = StudySettings(configs=_write_configs(tmp_path / "other", iterations="4"))
    with pytest.raises(ConfigurationError, match="of another split or configuration"):
        _train(annotated, tmp_path / "out", other)


@pytest.mark.parametrize("part", ["training", "test"])
def test_a_network_of_other_drawings_is_not_taken_for_one_of_these(part: str, annotated: Path, tmp_path: Path) -> None:
    folder, own = tmp_path / "copy", StudySettings(configs=_write_configs(tmp_path / "own"))
    shutil.copytree(annotated, folder)
    _train(folder, tmp_path / "out", own, networks=("disc",))
    rows = read_split(folder / "splits.csv", "standard", "disc")
    exam_id = next(row.exam_id for row in rows if row.part == part)
    number = next(k for k in range(10) if exam_of(k) == exam_id)
    redrawn = annotation(exam_id, [spine(number, head_down=number % 3 == 0), trunk(number)], slices=(1,))
    assert write_annotation(folder / "store", redrawn)
    if part == "test":
        assert _train(folder, tmp_path / "out", own, networks=("disc",))[0] == ["disc"]
    else:
        with pytest.raises(ConfigurationError, match="or of other annotations"):
            _train(folder, tmp_path / "out", own, networks=("disc",))


def test_training_by_the_command_train_is_the_same(annotated: Path, tmp_path: Path) -> None:
    own = _write_configs(tmp_path / "own")
    _train(annotated, tmp_path / "out", StudySettings(configs=own), networks=("disc",))
    arguments = ["train", str(own / "disc.toml"), "--annotations", str(annotated / "store"), "--device", "cpu"]
    places = ["--folder", str(tmp_path / "runs"), "--output", str(tmp_path / "weights")]
    result = CliRunner().invoke(main, [*arguments, *places])
    assert result.exit_code == 2
    assert "give both" in result.output
    result = CliRunner().invoke(main, [*arguments, *places, "--split", str(annotated / "splits.csv")])
    assert result.exit_code == 0, result.output
    networks = [read_contract(str(folder / "disc.json")) for folder in (tmp_path / "out", tmp_path / "weights")]
    assert networks[0].weights_sha256 == networks[1].weights_sha256
    result = CliRunner().invoke(main, [*arguments, "--split", str(annotated / "splits.csv"), "--slices", "."])
    assert "a training learns from one of them" in result.output


def test_table_2_is_what_networks_are_trained_with() -> None:
    scratch = StudySettings(start="scratch", licence="ours", seed=5)
    found = {
        (network, kind): study_config(network, kind, scratch) for network in NETWORKS for kind in ("standard", "shared")
    }
    for config in found.values():
        assert (config.base_channels, config.activation, config.learning_rate) == (16, "prelu", 1e-4)
        assert (config.pool_subjects, config.annotated_per_batch, config.seed) == (0, config.batch, 5)
        assert not config.start_from
    assert [found["muscle", kind].levels for kind in ("standard", "shared")] == [3, 4]
    assert found["vertebral_body", "standard"].levels == 3
    for network in NETWORKS:
        config, contract = study_config(network, "standard", StudySettings(licence="ours")), read_contract(network)
        table_2 = found[network, "standard"]
        for key in ("loss", "class_weights", "dropout", "learning_rate", "schedule", "batch", "iterations"):
            assert getattr(config, key) == getattr(table_2, key)
        assert (config.start_from, config.mix_with_start) == (network, True)
        assert config.max_side_px == contract.max_side_px
        mixing.require_same_shape(config, VNet(contract.config).state_dict())
    with pytest.raises(ConfigurationError, match="--licence"):
        study_config("disc", "standard", StudySettings())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": '"discs"'}, "is of 'discs'"),
        ({"classes": '["vertebral_body"]', "plane": '"sagittal"'}, "with ['vertebral_body'], not of disc"),
        ({"annotated_share": "0.0", "pool_subjects": "2"}, "learns from no annotated slices"),
    ],
)
def test_a_configuration_of_ones_own_is_of_its_network(changes: dict[str, str], words: str, tmp_path: Path) -> None:
    own = StudySettings(configs=_write_configs(tmp_path, **changes))
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        study_config("disc", "standard", own)


def test_a_start_that_has_seen_a_test_patient_is_refused(annotated: Path, tmp_path: Path) -> None:
    rows = read_split(annotated / "splits.csv", "standard", "disc")
    seen = next(row.subject_id for row in rows if row.part == "test")
    base = dataclasses.replace(SMALL_CONTRACT, levels=1, base_channels=2, activation="relu", spacing_mm=2.0)
    contract = dataclasses.replace(base, annotated_patients={"training": [seen]})
    save_network(tmp_path, contract, VNet(contract.config).state_dict())
    own = _write_configs(tmp_path / "own", start_from=json.dumps(str(tmp_path / "own.json")))
    with pytest.raises(ConfigurationError, match="has seen 1 of 1 patients of the test part"):
        _train(annotated, tmp_path / "out", StudySettings(configs=own), networks=("disc",))


def test_networks_that_cannot_be_trained_are_left_out_and_a_lost_exam_is_refused(
    annotated: Path, tmp_path: Path
) -> None:
    own = StudySettings(configs=_write_configs(tmp_path / "own"))
    few, said = tmp_path / "few.csv", list[str]()
    exams = study_exams(annotated / "store", lambda _: None)
    write_splits(few, split_standard(exams[:2], 0))
    divided = AnnotatedStore(annotated / "store", few, "standard")
    with pytest.raises(ConfigurationError, match="no network of the standard split can be trained"):
        train_study(divided, tmp_path / "out", own, device="cpu", processes=1, report=said.append)
    assert said[1].startswith("study: disc is left out, its standard split has no exam for training: too_few_patients")
    some = [dataclasses.replace(exam, slices={"disc": 2}) for exam in exams]
    write_splits(few, split_standard(some, 0))
    found = train_study(divided, tmp_path / "discs", own, device="cpu", processes=1, report=said.append)
    assert [contract.name for contract in found] == ["disc"]
    assert "study: muscle is left out, its standard split has no exam for training: not_annotated 10" in said
    left = split_standard([dataclasses.replace(exam, exam_id=f"gone{k}") for k, exam in enumerate(exams)], 0)
    write_splits(few, left)
    with pytest.raises(ConfigurationError, match="have left the store since it was split"):
        train_study(divided, tmp_path / "out", own, device="cpu", processes=1, report=print, networks=("disc",))


def _disc_config() -> TrainingConfig:
    return dataclasses.replace(
        SMALL, name="disc", classes=("disc",), spacing_mm=2.0, size_px=64, crop_px=64, levels=1, start_from="x"
    )


def _slices(store: Path, numbers: range) -> DrawnSlices:
    paths = {k: next((store / "exams").glob(f"??/{exam_of(k)}/exam-*")) for k in numbers}
    sources = [ExamSource(exam_of(k), subject_of(k), path) for k, path in paths.items()]
    return read_drawn(store, sources, _disc_config(), print)


def _network(seed: int) -> VNet:
    torch.manual_seed(seed)
    return VNet(network_config(_disc_config()))


def _fitted(batches: Sequence[Batch]) -> VNet:
    """A network that finds the discs of these slices."""
    network = _network(0)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    for images, masks, known in (*batches,) * 12:
        loss = dice_and_cross_entropy(network(images), masks, known=known)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network.eval()


def test_the_mixture_is_the_best_of_the_line_on_the_validation_slices(annotated: Path) -> None:
    config = _disc_config()
    training, validation = _slices(annotated / "store", range(6)), _slices(annotated / "store", range(6, 10))
    data = AnnotatedData.of(training, ("disc",), "cpu")
    batches = list(annotated_batches(config, validation, "cpu"))
    good = _fitted(list(annotated_batches(config, training, "cpu"))).state_dict()
    bad = _network(1).state_dict()
    said: list[str] = []
    for start, learned, end in ((good, bad, 0.0), (bad, good, 1.0)):
        mixed = mix_with_start(config, start, learned, data.images, batches, "cpu", said.append)
        assert list(mixed.dice) == list(SHARES)
        assert mixed.dice[mixed.share] == max(mixed.dice.values()) >= mixed.dice[end] > 0.3 > mixed.dice[1 - end]
        assert mixed.share == min(share for share, dice in mixed.dice.items() if dice == mixed.dice[mixed.share])
        assert validate(config, mixed.weights, batches, "cpu")["disc"] == mixed.dice[mixed.share]
        assert mixed.dice[0.0] == validate(config, start, batches, "cpu")["disc"]
        assert mixed.dice[1.0] == validate(config, learned, batches, "cpu")["disc"]
        assert said[-1].startswith(f"disc: {mixed.share:.0%} of the learned weights are shipped")


def test_between_the_ends_means_and_variances_are_measured_again(annotated: Path) -> None:
    """With the averaged ones a layer would see other values than it was normalised for."""
    config, training = _disc_config(), _slices(annotated / "store", range(6))
    data = AnnotatedData.of(training, ("disc",), "cpu")
    start, learned = (_network(seed).state_dict() for seed in (0, 1))
    found = mixing.weights_between(config, start, learned, 0.25, data.images, "cpu")
    kernel = "stem.0.weight"
    assert torch.allclose(found[kernel], 0.75 * start[kernel] + 0.25 * learned[kernel])
    stem = torch.nn.functional.conv2d(data.images, found[kernel], found["stem.0.bias"], padding=2)
    assert torch.allclose(found["stem.1.running_mean"], stem.mean((0, 2, 3)), atol=1e-5)


def test_a_fine_tuned_network_is_mixed_with_its_start_when_it_goes_on_too(annotated: Path, tmp_path: Path) -> None:
    base = dataclasses.replace(
        SMALL_CONTRACT, name="base", levels=1, base_channels=2, activation="relu", spacing_mm=2.0, credit="earlier"
    )
    torch.manual_seed(3)
    save_network(tmp_path, base, VNet(base.config).state_dict())
    start_from = {"start_from": json.dumps(str(tmp_path / "base.json")), "mix_with_start": "true"}
    own = StudySettings(configs=_write_configs(tmp_path / "own", **start_from))
    _train(annotated, tmp_path / "out", own, networks=("disc",))
    first = read_contract(str(tmp_path / "out" / "disc.json"))
    assert first.credit == "earlier; drawn by a test, no licence"
    assert "learned weights, the rest those of the start; mean Dice" in first.study["weight averaging"]
    assert "are mixed with the weights before" in first.training_data
    for name in ("disc.json", "disc.safetensors"):
        (tmp_path / "out" / name).unlink()
    _, said = _train(annotated, tmp_path / "out", own, networks=("disc",))
    assert "goes on after iteration 3" in "\n".join(said)
    assert read_contract(str(tmp_path / "out" / "disc.json")).weights_sha256 == first.weights_sha256
    (tmp_path / "out" / "disc.json").unlink()
    next((tmp_path / "out" / "train").glob("disc-*/start.safetensors")).write_bytes(b"half")
    with pytest.raises(ConfigurationError, match=r"start\.safetensors beside the checkpoint cannot be read"):
        _train(annotated, tmp_path / "out", own, networks=("disc",))


def test_a_start_of_another_shape_cannot_be_mixed_in(annotated: Path, tmp_path: Path) -> None:
    own = _write_configs(tmp_path / "own", start_from='"disc"', mix_with_start="true")
    with pytest.raises(ConfigurationError, match="tensors of start_from = 'disc' have another shape here"):
        _train(annotated, tmp_path / "out", StudySettings(configs=own), networks=("disc",))
