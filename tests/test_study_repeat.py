"""A whole study from one configuration: exams and annotations in, networks of two splits, a report of each."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from reader_studies import QUICK_RUN
from test_report import run_row

from cohort.errors import ConfigurationError
from cohort.tables.commit import commit
from models.registry import read_contract
from pipelines.cli import main
from pipelines.config import read_config
from pipelines.study.example import write_study_example
from pipelines.study.repeat import StudySection, read_study_file, require_complete, require_networks_compared
from pipelines.study.split import KINDS, NETWORKS, read_split

DOCS = Path(__file__).parents[1] / "docs" / "study-training.md"
STUDY = f"""
[study]
archive = "archive"
annotations = "annotations.json"
format = "mdai"
readers = ["A=anna"]
holdout = 1
seed = 2
configs = "own"
device = "cpu"{QUICK_RUN}"""
CLASSES = {
    "vertebral_body": ["vertebral_body", "sacral_body"],
    "disc": ["disc"],
    "muscle": ["multifidus", "erector_spinae", "psoas", "quadratus_lumborum"],
}


def _repeat(folder: Path) -> Result:
    return CliRunner().invoke(main, ["study", "repeat", str(folder / "study.toml"), "-o", str(folder / "out")])


def _write_configs(folder: Path) -> None:
    """One step from the shipped weights: what is trained still finds spines."""
    folder.mkdir()
    for network, classes in CLASSES.items():
        shape = read_contract(network)
        values = {
            "name": network,
            "start_from": network,
            "plane": "axial" if network == "muscle" else "sagittal",
            "classes": classes,
            "levels": shape.levels,
            "base_channels": shape.base_channels,
            "activation": shape.activation,
            "spacing_mm": shape.spacing_mm,
            "size_px": 256,
            "crop_px": 128,
            **{"batch": 1, "iterations": 1, "validate_every": 1, "learning_rate": 1e-6},
            **{"pool_subjects": 0, "annotated_share": 1.0, "annotated_credit": "drawn by a test"},
        }
        text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
        (folder / f"{network}.toml").write_text(text)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three exams of three patients, two of them with muscles, drawn by one reader; and the configuration."""
    folder = tmp_path_factory.mktemp("study")
    export = write_study_example(folder, n_exams=3, processes=1, report=print).export
    drawn = json.loads(export.read_text())
    for dataset in drawn["datasets"]:
        dataset["annotations"] = [one for one in dataset["annotations"] if one["createdById"] == "A"]
    export.write_text(json.dumps(drawn))
    _write_configs(folder / "own")
    (folder / "study.toml").write_text(STUDY)
    return folder


@pytest.fixture(scope="module")
def done(study: Path) -> Result:
    """The command, once."""
    return _repeat(study)


def _typed(done: Result) -> list[list[str]]:
    return [shlex.split(line)[2:] for line in done.output.splitlines() if line.startswith("$ cohort ")]


SPLIT_STEPS = ("study train", "run", "annotations import", "agreement")


@pytest.mark.slow
def test_one_command_goes_from_exams_and_annotations_to_a_report_for_each_split(study: Path, done: Result) -> None:
    assert done.exit_code == 0, done.output
    typed = [" ".join(words) for words in _typed(done)]
    steps = ("run", "annotations import", "study split", *SPLIT_STEPS, *SPLIT_STEPS)
    for words, step in zip(typed, steps, strict=True):
        assert words.startswith(f"{step} ")
    out = study / "out"
    for kind in KINDS:
        networks = read_config(out / "config" / f"{kind}.toml").segment.networks
        assert networks["muscle"] == "muscle"
        for network in ("vertebral_body", "disc"):
            assert networks[network] == str(out / "networks" / kind / f"{network}.json")
            assert read_contract(networks[network]).study["split"].startswith(f"{kind}, seed 2, ")
        overlaps = pq.read_table(out / "report" / kind / "overlaps.parquet").to_pylist()
        for network in NETWORKS:
            test = {row.exam_id for row in read_split(out / "splits.csv", kind, network) if row.part == "test"}
            assert {row["exam_id"] for row in overlaps if row["kind"] == network} == test
        of_networks = [row for row in overlaps if row["second_reader"] == "automatic"]
        assert {row["first_reader"] for row in of_networks} == {"anna"}
        assert max(row["dice"] or 0 for row in of_networks if row["kind"] == "vertebral_body") > 0.5


@pytest.mark.slow
def test_a_network_that_could_not_be_trained_is_named_at_the_end_and_on_the_page(study: Path, done: Result) -> None:
    end = done.output.split("Where everything lies:")[1]
    for kind in KINDS:
        why = f"NOT TRAINED: muscle, its {kind} split has no exam for training: "
        assert why in end
        page = (study / "out" / "report" / kind / "report.html").read_text()
        assert f"<b>muscles, {kind} split: nothing was trained</b>" in page
        assert page.count("nothing was trained") == 1
    for place in re.findall(r"^  [a-z].* {2,}(\S+)$", end, re.MULTILINE):
        assert Path(place).exists()


@pytest.mark.slow
def test_the_same_command_goes_on_with_what_is_missing(study: Path, done: Result) -> None:
    assert done.exit_code == 0
    out = study / "out"
    (out / "networks" / "shared" / "disc.json").unlink()  # stopped between weights and contract
    (out / "report" / "shared" / "report.html").unlink()
    kept = [out / "splits.csv", *(out / "networks").rglob("*.json"), *(out / "networks").rglob("*.pt")]
    before = {path: path.read_bytes() for path in kept}
    again = _repeat(study)
    assert again.exit_code == 0, again.output
    assert _typed(again) == _typed(done)
    assert again.output.count("Nothing to do: 3 exams are up to date") == 3
    assert again.output.count("is trained already") == 3
    assert before == {path: path.read_bytes() for path in kept}
    assert (out / "networks" / "shared" / "disc.json").is_file()
    assert (out / "report" / "shared" / "report.html").is_file()
    (study / "study.toml").write_text(STUDY.replace("seed = 2", "seed = 3"))
    refused = _repeat(study)
    assert refused.exit_code == 2
    assert "splits.csv is there already, of another seed or hold-out set" in " ".join(refused.output.split())
    assert (out / "splits.csv").read_bytes() == before[out / "splits.csv"]


@pytest.mark.slow
def test_a_split_of_which_nothing_can_be_trained_is_not_called_done(study: Path, done: Result) -> None:
    """One annotated exam: the store is that of the study, with the annotations of two exams removed."""
    assert done.exit_code == 0
    few = study / "few"
    shutil.copytree(study / "out" / "stores" / "shipped", few / "stores" / "shipped")
    one, *others = sorted((few / "stores" / "shipped" / "annotations").glob("??/*"))
    for exam in others:
        shutil.rmtree(exam)
    of_one = json.loads((study / "annotations.json").read_text())
    of_one["datasets"][0]["annotations"] = []
    (study / "none.json").write_text(json.dumps(of_one))
    text = STUDY.replace("holdout = 1\n", "").replace("annotations.json", "none.json")
    (study / "few.toml").write_text(text)
    result = CliRunner().invoke(main, ["study", "repeat", str(study / "few.toml"), "-o", str(few)])
    assert result.exit_code == 2
    assert "no network of the standard split can be trained: the lines above say why" in result.output
    assert "disc is left out, its standard split has no exam for training: too_few_patients 1" in result.output
    assert "Done" not in result.output
    assert _typed(result)[-1][:2] == ["study", "train"]
    assert one.is_dir()


def test_nothing_rests_on_a_run_that_was_stopped(tmp_path: Path) -> None:
    for run_id, ended in (("1", "complete"), ("2", "stopped")):
        commit(tmp_path, run_id, {"runs": [run_row(run_id=run_id, ended=ended, change=None)]}, touched={})
        if ended == "complete":
            require_complete(tmp_path)
    with pytest.raises(ConfigurationError, match="stopped before its end: the same command goes on"):
        require_complete(tmp_path)


def test_a_report_without_masks_of_the_networks_is_not_called_done(tmp_path: Path) -> None:
    for second in ("automatic", "berta"):
        readers = pa.table({"first_reader": ["anna"], "second_reader": [second]})
        pq.write_table(readers, tmp_path / "overlaps.parquet")
        if second == "automatic":
            require_networks_compared(tmp_path)
    with pytest.raises(ConfigurationError, match="no exam of the test part has masks of the networks"):
        require_networks_compared(tmp_path)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with all that the configuration of the tests and that of the docs name, but without content."""
    for name in ("archive", "dicom"):
        (tmp_path / name).mkdir()
    for name in ("annotations.json", "subjects.csv"):
        (tmp_path / name).touch()
    return tmp_path


def _study_file(folder: Path, text: str) -> Path:
    path = folder / "study.toml"
    path.write_text(text)
    return path


PLAIN = STUDY.replace('configs = "own"', 'licence = "ours"')


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[study]", "[stduy]", "study.toml has no table [study]"),
        ("holdout = 1", "holdouts = 1", "unknown key 'holdouts' in [study], did you mean 'holdout'?"),
        ('archive = "archive"', "", "study.archive is missing"),
        ('archive = "archive"', 'archive = "gone"', "study.archive: gone does not exist"),
        ('archive = "archive"', 'archive = "annotations.json"', "study.archive: annotations.json is no folder"),
        ('annotations = "annotations.json"', "annotations = 3", "study.annotations must be a path"),
        ('"mdai"', '"md.ai"', "study.format is one of mdai, dicom-seg, nifti, mha, png, not 'md.ai'"),
        ('"mdai"', '"nifti"', "study.format nifti needs study.table"),
        ("seed = 2", 'seed = "2"', "study.seed must be a whole number"),
        ("seed = 2", "seed = -1", "study.seed is 0 or more"),
        ("holdout = 1", "holdout = 0", "study.holdout is at least 1"),
        ("holdout = 1", 'splits = ["shared"]', "needs study.holdout"),
        ("holdout = 1", 'splits = ["half"]', "study.splits are of standard, shared, not half"),
        ("holdout = 1", 'start = "paper"', "study.start is one of default, scratch"),
        ("holdout = 1", 'device = "gpu"', "study.device is one of auto, cpu, cuda"),
        ("holdout = 1", 'configs = "gone"', "study.configs: gone does not exist"),
        ('licence = "ours"', "", "--licence (licence in [study]): source and licence"),
        ('"A=anna"', '"A=Anna Berg"', "names of people are not stored"),
        ("[cluster]", '[segment.networks]\ndisc = "own.json"\n[cluster]', "[segment.networks] is not for a study"),
        ("[cluster]", "[clusters]", "unknown key 'clusters', did you mean 'cluster'?"),
        ("[cluster]", "[cluster", "not TOML"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused_before_any_work(
    old: str, new: str, words: str, files: Path
) -> None:
    text = PLAIN.replace('device = "cpu"\n', "", 1) if "device" in new else PLAIN
    _study_file(files, text.replace(old, new))
    before = sorted(files.rglob("*"))
    result = _repeat(files)
    assert result.exit_code == 2, result.output
    assert words in result.output
    assert sorted(files.rglob("*")) == before


def test_splits_are_both_where_patients_are_held_out(files: Path) -> None:
    for text, kinds in (
        (PLAIN, ("standard", "shared")),
        (PLAIN.replace("holdout = 1\n", ""), ("standard",)),
        (PLAIN.replace("holdout = 1\n", 'holdout = 1\nsplits = ["shared"]\n'), ("shared",)),
    ):
        assert read_study_file(_study_file(files, text)).section.kinds == kinds


def test_the_example_of_the_docs_is_a_configuration(files: Path) -> None:
    example = DOCS.read_text().split("```toml\n")[1].split("```")[0]
    study = read_study_file(_study_file(files, example))
    assert (study.section.archive, study.section.holdout) == (files / "dicom", 20)
    names = {one.name for one in fields(StudySection)}
    assert names == set(re.findall(r"^(?:# )?(\w+) = ", example.split("[privacy]")[0], re.MULTILINE))
