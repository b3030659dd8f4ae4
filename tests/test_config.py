"""The configuration file: defaults, errors that help, and the resolved file that gives the same configuration again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cohort.archive.candidates import SelectRules
from cohort.errors import ConfigurationError
from cohort.loading.assumptions import Assumptions, Personalisation
from cohort.loading.model_names import READY
from cohort.loading.tasks import STANDING, TASKS, Task
from pipelines.config import LoadConfig, RunConfig, read_config, resolved_toml


def written(folder: Path, text: str) -> Path:
    path = folder / "cohort.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_no_file_and_an_empty_file_are_the_defaults(tmp_path: Path) -> None:
    assert read_config(None) == read_config(written(tmp_path, "")) == RunConfig()
    assert RunConfig().load.opensim_sample == 0.01
    assert RunConfig().review.overlays is True
    assert RunConfig().cluster.device == "auto"
    assert RunConfig().select == SelectRules(accept_t2_axial=False, accept_post_contrast=False, accept_in_phase=True)


def test_key_file_is_in_the_users_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert RunConfig().privacy.key_file == tmp_path / "lumbar-cohort" / "pseudonym.key"


def test_values_are_read_with_their_types(tmp_path: Path) -> None:
    text = """
    [cluster]
    workers = 3
    memory_limit = "4GiB"
    device = "cpu"
    [select]
    accept_t2_axial = true
    accept_in_phase = false
    [segment]
    networks = { disc = "mine.json" }
    batch_slices = 8
    batch_exams = 12
    time_limit_s = 90
    [load]
    tasks = ["standing"]
    opensim_sample = 1
    [review]
    overlays = false
    [privacy]
    key_file = "keys/pseudonym"
    """
    config = read_config(written(tmp_path, text))
    assert (config.cluster.workers, config.cluster.memory_limit, config.cluster.device) == (3, "4GiB", "cpu")
    assert config.select == SelectRules(accept_t2_axial=True, accept_post_contrast=False, accept_in_phase=False)
    assert config.segment.networks == {
        "disc": str(tmp_path / "mine.json"),
        "vertebral_body": "vertebral_body",
        "muscle": "muscle",
    }
    assert (config.segment.batch_slices, config.segment.batch_exams, config.segment.time_limit_s) == (8, 12, 90.0)
    assert config.load == LoadConfig(tasks=("standing",), opensim_sample=1.0)
    assert config.load.all_tasks == (STANDING,)
    assert isinstance(config.load.opensim_sample, float)
    assert config.review.overlays is False
    assert config.privacy.key_file == tmp_path / "keys" / "pseudonym"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[clutser]", r"unknown key 'clutser', did you mean 'cluster'\?; valid keys: cluster, select, convert"),
        ("[cluster]\nworker = 2", r"unknown key 'worker' in \[cluster\], did you mean 'workers'\?"),
        ("[select]\naccept_t2 = true", r"unknown key 'accept_t2' in \[select\], did you mean 'accept_t2_axial'\?"),
        ("[select]\naccept_t2_axial = 'yes'", "select.accept_t2_axial must be true or false"),
        ("[segment.networks]\ndisk = 'x'", r"unknown key 'disk' in \[segment.networks\], did you mean 'disc'\?"),
        ("[load]\nqqq = 1", r"unknown key 'qqq' in \[load\]; valid keys: tasks, own_tasks"),
        ("[cluster]\nworkers = '2'", "cluster.workers must be a whole number"),
        ("[cluster]\nworkers = true", "cluster.workers must be a whole number"),
        ("[cluster]\nworkers = 0", "cluster.workers is at least 1, not 0"),
        ("[cluster]\nmemory_limit = 'lots'", "cluster.memory_limit"),
        ("[cluster]\ndevice = 'tpu'", "cluster.device is auto, cpu or cuda, not 'tpu'"),
        ("[load]\nopensim_sample = true", "load.opensim_sample must be a number"),
        ("[load]\nopensim_sample = 2", "load.opensim_sample is between 0 and 1"),
        ("[load]\nopensim_sample = nan", "load.opensim_sample is between 0 and 1"),
        ("[load]\nspecific_tension_n_per_cm2 = 0", "load.specific_tension_n_per_cm2 is between 10 and 300"),
        ("[load]\ntasks = 'standing'", "load.tasks must be a list of texts"),
        ("[load]\ntasks = []", "load.tasks names no task"),
        ("[load]\ntasks = ['standin']", "no task 'standin', did you mean 'standing'"),
        ("[load]\ntasks = ['standing', 'standing']", "names 'standing' more than once"),
        ("[load.own_tasks]\nbow = 30", r"load.own_tasks.bow must be a table"),
        (
            "[load.own_tasks.standing]\ntrunk_flexion_deg = 3",
            "load.own_tasks.standing has the name of a task that ships",
        ),
        (
            "[load.own_tasks.bow]\ntrunk_flexion = 3",
            r"'trunk_flexion' in \[load.own_tasks.bow\], did you mean 'trunk_fl",
        ),
        ("[load.own_tasks.bow]\nname = 'x'", r"unknown key 'name' in \[load.own_tasks.bow\]"),
        ("[load.own_tasks.bow]\nlateral_bend_deg = '3'", "load.own_tasks.bow.lateral_bend_deg must be a number"),
        ("[load.own_tasks.bow]\nlateral_bend_deg = 90", "task 'bow': lateral_bend_deg is between -40 and 40, not 90"),
        ("[load.own_tasks.'a b']\n", "name of a task is small letters"),
        ("[load]\nmin_activation = 1.0", "load.min_activation is from 0 to below 1, not 1.0"),
        ("[load]\nforce_length = 1", "load.force_length must be true or false"),
        ("[segment]\nnetworks = ['disc']", "segment.networks must be names"),
        ("[load.base_models]\nmale = 1", "load.base_models.male must be a path"),
        ("[load.base_models]\nman = 'a.osim'", r"unknown key 'man' in \[load.base_models\], did you mean 'male'"),
        ("[load.base_models]\nnames = 'lfbs'", "load.base_models.names: no table 'lfbs', did you mean 'lfb'"),
        ("[load.base_models]\nnames = 3", "load.base_models.names must be a table or one of bidmc, lfb, fbls"),
        ("[load.base_models.names]\njoint = []", "unknown key 'joint' .* did you mean 'joints'"),
        ("[load.base_models.names]\njoints = ['a']", "joints are six"),
        ("[load.base_models.names]\nheight_m = 'x'", "names.height_m must be a number"),
        ("[load.base_models.names.carried]\nAbdomen = 3", "names.carried must be names"),
        ("[load.base_models.names.carried]\nAbdomen = 'L9'", "no body 'L9'"),
        ("[load.base_models.names.centres_m]\nT12_L1 = ['a']", "centres_m.T12_L1 must be a list of numbers"),
        ("cluster = 3", "cluster must be a table"),
        ("[review]\noverlays = 1", "review.overlays must be true or false"),
        ("[privacy]\nkey_file = 1", "privacy.key_file must be a path"),
        ("[convert]\ntime_limit_s = 0", "convert.time_limit_s is positive"),
        ("[gate]\naccept = 'maybe'", "gate.accept is within_limits, always or never, not 'maybe'"),
        ("[gate]\nlength_bias = 1", r"unknown key 'length_bias' in \[gate\], did you mean 'length_bias_mm'"),
        ("[gate]\nlength_bias_mm = -1", "gate.length_bias_mm is 0 or more"),
        ("[gate]\nlean_width = nan", "gate.lean_width is 0 or more"),
        ("[gate]\nlost_exams = 2", "gate.lost_exams is a share, at most 1"),
        ("[gate]\nleast_dice = 77", "gate.least_dice is a share, at most 1"),
        ("[gate]\nleast_persons = 1", "gate.least_persons is at least 2"),
        ("[measure]\ntime_limit_s = 0", "measure.time_limit_s is positive"),
        ("[load]\ntime_limit_s = -1", "load.time_limit_s is positive"),
        ("[segment]\nbatch_slices = 0", "segment.batch_slices is at least 1, not 0"),
        ("[segment]\nbatch_exams = 0", "segment.batch_exams is at least 1, not 0"),
        ("[segment]\ntime_limit_s = 0", "segment.time_limit_s is positive"),
        ("[cluster", "not TOML"),
    ],
)
def test_errors_say_what_and_where(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_config(written(tmp_path, text))


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        read_config(tmp_path / "none.toml")


OWN_NAMES = """
[load.base_models]
male = "own/man.osim"
[load.base_models.names]
pelvis = "Becken"
hands = ["right hand", "left hand"]
height_m = 1.8
sacral_slope_deg = 35
carried = { "Abdomen 1" = "L2" }
[load.base_models.names.groups]
psoas = 'Ps\\d+_".*'
[load.base_models.names.centres_m]
T12_L1 = [-0.01, 0.03, 0]
"""


def test_own_base_models_with_a_table_of_names(tmp_path: Path) -> None:
    found = read_config(written(tmp_path, OWN_NAMES)).load.base_models
    assert (found.male, found.female) == (tmp_path / "own/man.osim", None)
    assert found.names.pelvis == "Becken"
    assert found.names.joints == READY["bidmc"].joints
    assert found.names.groups == {"psoas": 'Ps\\d+_".*'}
    assert found.names.centres_m == {"T12_L1": (-0.01, 0.03, 0.0)}
    assert (found.names.height_m, found.names.sacral_slope_deg) == (1.8, 35.0)


def test_ready_tables_of_names_are_told_by_name(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, '[load.base_models]\nfemale = "w.osim"\nnames = "lfb"\n'))
    assert config.load.base_models.names == READY["lfb"]
    assert 'names = "lfb"' in resolved_toml(config)


OWN_TASKS = """
[load]
tasks = ["standing", "wilke_sitting"]
min_activation = 0.01
passive_stiffness = true
[load.own_tasks.bow]
trunk_flexion_deg = 45
lumbar_share = 0.6
right_hand_kg = 2.5
[load.own_tasks.turn-left]
axial_turn_deg = 10
"""


def test_tasks_of_ones_own_are_run_beside_those_that_ship(tmp_path: Path) -> None:
    load = read_config(written(tmp_path, OWN_TASKS)).load
    assert load.all_tasks == (
        TASKS["standing"],
        TASKS["wilke_sitting"],
        Task(name="bow", trunk_flexion_deg=45.0, lumbar_share=0.6, right_hand_kg=2.5),
        Task(name="turn-left", axial_turn_deg=10.0),
    )
    assert load.assumptions == Assumptions(min_activation=0.01, passive_stiffness=True)
    only = read_config(written(tmp_path, "[load]\ntasks = []\n[load.own_tasks.bow]\ntrunk_flexion_deg = 45")).load
    assert [task.name for task in only.all_tasks] == ["bow"]


@pytest.mark.parametrize(
    "text",
    [
        OWN_NAMES,
        '[load.base_models]\nfemale = "w.osim"\nnames = "fbls"\n',
        "",
        "[cluster]\nworkers = 2\n[select]\naccept_t2_axial = true\n[load]\ntasks = ['standing']\n",
        OWN_TASKS,
    ],
)
def test_resolved_file_gives_the_same_configuration(tmp_path: Path, text: str) -> None:
    config = read_config(written(tmp_path, text))
    assert read_config(written(tmp_path, resolved_toml(config))) == config


def test_resolved_text_keeps_awkward_characters(tmp_path: Path) -> None:
    text = '[privacy]\nkey_file = "/a \\"quoted\\" \\u007f höhle/key"\n'
    config = read_config(written(tmp_path, text))
    assert read_config(written(tmp_path, resolved_toml(config))) == config


def test_parts_of_the_personalisation_are_switched_off_one_by_one(tmp_path: Path) -> None:
    text = "[load]\nimpute = true\n[load.personalise]\nstrength = false\n"
    config = read_config(written(tmp_path, text))
    assert config.load.personalise == Personalisation(curvature=True, strength=False, position=True)
    assert config.load.impute is True
    assert read_config(written(tmp_path, resolved_toml(config))) == config
    with pytest.raises(ConfigurationError, match=r"unknown key 'strenght' in \[load.personalise\]"):
        read_config(written(tmp_path, "[load.personalise]\nstrenght = false\n"))


def test_demonstration_has_its_own_key_outside_its_store(tmp_path: Path) -> None:
    config = RunConfig.demo(tmp_path)
    assert config.privacy.key_file.parent == tmp_path
    assert config.load == RunConfig().load


def test_the_url_of_a_network_is_kept_as_it_is(tmp_path: Path) -> None:
    url = "https://example.org/disc.json#sha256=" + "0" * 64
    path = tmp_path / "cohort.toml"
    path.write_text(f'[segment.networks]\ndisc = "{url}"\nmuscle = "https://example.org/muscle.json"\n')
    networks = read_config(path).segment.networks
    assert (networks["disc"], networks["muscle"]) == (url, "https://example.org/muscle.json")


@pytest.mark.parametrize("page", ["configuration.md", "base-models.md", "loads.md"])
def test_examples_of_the_documentation_are_configurations(tmp_path: Path, page: str) -> None:
    text = (Path(__file__).parents[1] / "docs" / page).read_text(encoding="utf-8")
    examples = re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL)
    assert examples
    for example in examples:
        config = read_config(written(tmp_path, example))
        assert read_config(written(tmp_path, resolved_toml(config))) == config
