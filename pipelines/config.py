"""The configuration of a run: one TOML file into frozen dataclasses, and back into the file written beside each run.

Unknown keys are errors that name the key and the nearest valid one. Everything has a default, so an empty file, or
none, is a valid configuration.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from cluster.config import ClusterConfig, check
from cohort.archive.candidates import SelectRules
from cohort.errors import ConfigurationError
from cohort.loading.assumptions import Assumptions, Personalisation
from cohort.loading.model_names import READY, ModelNames
from cohort.loading.tasks import DEFAULT_TASKS, TASK_KEYS, TASKS, Task

NETWORKS: Final[dict[str, str]] = {"disc": "disc", "vertebral_body": "vertebral_body", "muscle": "muscle"}
"""Label array -> shipped network."""

S = TypeVar("S")


def _default_key_file() -> Path:
    """Beside the user's other settings (XDG base directory specification), never in the store."""
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return settings / "lumbar-cohort" / "pseudonym.key"


@dataclass(frozen=True)
class ConvertConfig:
    """Section [convert]."""

    time_limit_s: float = 600.0
    """Per exam; a decoder that hangs is ended with its worker."""

    def __post_init__(self) -> None:
        check(self.time_limit_s > 0, f"convert.time_limit_s is positive, not {self.time_limit_s}")


@dataclass(frozen=True)
class SegmentConfig:
    """Section [segment]."""

    networks: Mapping[str, str] = field(default_factory=NETWORKS.copy)
    """Label array -> name of a shipped network, or path or URL of your own's JSON file; those not given keep theirs."""
    batch_slices: int = 16
    """Slices of one forward pass."""
    batch_exams: int | None = None
    """Exams of one task, whose slices share forward passes; 8 on a CPU and 32 on a GPU when not given."""
    time_limit_s: float = 600.0
    """Per exam; a worker whose task takes as long as its exams together may is ended."""

    def __post_init__(self) -> None:
        _reject_unknown(self.networks, NETWORKS, "segment.networks")
        object.__setattr__(self, "networks", {**NETWORKS, **self.networks})
        check(self.batch_slices >= 1, f"segment.batch_slices is at least 1, not {self.batch_slices}")
        check(
            self.batch_exams is None or self.batch_exams >= 1,
            f"segment.batch_exams is at least 1, not {self.batch_exams}",
        )
        check(self.time_limit_s > 0, f"segment.time_limit_s is positive, not {self.time_limit_s}")

    def exams_per_task(self, device: str) -> int:
        """So many that a task lasts some ten seconds on a CPU (measured) and some seconds on a GPU (an estimate)."""
        return self.batch_exams or (8 if device == "cpu" else 32)


@dataclass(frozen=True)
class MeasureConfig:
    """Section [measure]."""

    time_limit_s: float = 300.0
    """Per exam; a measurement that hangs is ended with its worker."""

    def __post_init__(self) -> None:
        check(self.time_limit_s > 0, f"measure.time_limit_s is positive, not {self.time_limit_s}")


@dataclass(frozen=True)
class BaseModelsConfig:
    """Table [load.base_models]: own base models; sexes not given keep the shipped one."""

    male: Path | None = None
    """An .osim file."""
    female: Path | None = None
    names: ModelNames = READY["bidmc"]
    """Name of a ready table, or a table of its own: what joints, bodies and muscles are called in the files."""


@dataclass(frozen=True)
class LoadConfig:
    """Section [load]."""

    tasks: tuple[str, ...] = DEFAULT_TASKS
    """Names from `cohort.loading.tasks.TASKS`."""
    own_tasks: Mapping[str, Task] = field(default_factory=dict)
    """Tables [load.own_tasks.NAME]: tasks of your own, all of which are run beside `tasks`."""
    min_activation: float = 0.0
    """Least activation of every muscle fascicle."""
    force_length: bool = False
    """Whether a fascicle's strength depends on its length in the posture."""
    passive_stiffness: bool = False
    """Whether discs and ligaments resist bending."""
    opensim_sample: float = 0.01
    """Share of exams, at least one a run, that OpenSim solves again."""
    opensim_timeout_s: float = 600.0
    """Per task of one exam."""
    time_limit_s: float = 120.0
    """Per exam, without OpenSim's time; a solver that hangs is ended with its worker."""
    personalise: Personalisation = field(default_factory=Personalisation)
    """Which measurements of a person change the base model; stature and mass always do."""
    impute: bool = False
    """Whether a typical height or mass stands in for an unknown one; sex is never imputed."""
    specific_tension_n_per_cm2: float = 100.0
    """Muscle force per physiological cross-sectional area in the default base models; published values span 46 to
    100."""
    base_models: BaseModelsConfig = field(default_factory=BaseModelsConfig)

    def __post_init__(self) -> None:
        check(bool(self.tasks or self.own_tasks), "load.tasks names no task, and there is none in load.own_tasks")
        for task in self.tasks:
            check(task in TASKS, f"load.tasks: no task {task!r}{_nearest(task, TASKS)}; tasks: {', '.join(TASKS)}")
            check(self.tasks.count(task) == 1, f"load.tasks names {task!r} more than once")
        for task in self.own_tasks:
            check(task not in TASKS, f"load.own_tasks.{task} has the name of a task that ships; choose another")
        check(0 <= self.min_activation < 1, f"load.min_activation is from 0 to below 1, not {self.min_activation}")
        check(0 <= self.opensim_sample <= 1, f"load.opensim_sample is between 0 and 1, not {self.opensim_sample}")
        check(self.opensim_timeout_s > 0, f"load.opensim_timeout_s is positive, not {self.opensim_timeout_s}")
        check(self.time_limit_s > 0, f"load.time_limit_s is positive, not {self.time_limit_s}")
        tension = self.specific_tension_n_per_cm2
        check(10 <= tension <= 300, f"load.specific_tension_n_per_cm2 is between 10 and 300, not {tension}")

    @property
    def all_tasks(self) -> tuple[Task, ...]:
        """Tasks to run: those that ship, then the user's own."""
        return (*(TASKS[name] for name in self.tasks), *self.own_tasks.values())

    @property
    def assumptions(self) -> Assumptions:
        """What the computation takes for granted."""
        return Assumptions(
            min_activation=self.min_activation,
            force_length=self.force_length,
            passive_stiffness=self.passive_stiffness,
        )


@dataclass(frozen=True)
class ReviewConfig:
    """Section [review]."""

    overlays: bool = True
    """Write pictures of the masks on the images."""


@dataclass(frozen=True)
class GateConfig:
    """Section [gate]: which changes of numbers, by new weights, new code or new base models, need nobody's look.

    Limits of lengths follow the mean error of automatic against manual disc heights in Hess et al. 2023, 1.45 mm: a
    bias of a third of it, and limits of agreement as far apart as the error below and the error above. The others are
    our own choice. Widths are upper minus lower limit of agreement; per cent are of the mean old value.
    """

    accept: str = "within_limits"
    """within_limits; always: report alone; never: wait for `cohort changes accept` whatever the numbers say."""
    length_bias_mm: float = 0.5
    """Heights of discs and vertebrae, and the coronal deviation."""
    length_width_mm: float = 2.9
    angle_bias_deg: float = 1.0
    """Lordosis, sacral slope, wedging of discs."""
    angle_width_deg: float = 10.0
    area_bias_percent: float = 3.0
    """Cross-sectional areas of muscles."""
    area_width_percent: float = 20.0
    lean_bias: float = 0.02
    """Lean fraction, of 1."""
    lean_width: float = 0.1
    load_bias_percent: float = 2.0
    """Axial loads and shear, both in per cent of the axial load."""
    load_width_percent: float = 20.0
    lost_exams: float = 0.01
    """Share of compared exams with results that are now refused or failed."""
    lost_numbers: float = 0.02
    """Share of the sound numbers of a feature that are not there any more, or refused."""
    renamed_exams: float = 0.01
    """Share of compared exams in which a vertebra or disc has another name."""
    least_dice: float = 0.77
    """Mean Dice of old and new masks in the exams that are compared, each kind as one mask; 0 judges none. Working
    value: the lowest between networks and people in Hess et al. 2023."""
    least_persons: int = 20
    """A single level, or the exams of one vendor, are judged from this number of persons; all together always are."""

    def __post_init__(self) -> None:
        choices = ("within_limits", "always", "never")
        check(self.accept in choices, f"gate.accept is {', '.join(choices[:2])} or {choices[2]}, not {self.accept!r}")
        for one in fields(self):
            if one.type == "float":
                value = getattr(self, one.name)
                check(value >= 0, f"gate.{one.name} is 0 or more, not {value}")
        for name in ("lost_exams", "lost_numbers", "renamed_exams", "least_dice"):
            check(getattr(self, name) <= 1, f"gate.{name} is a share, at most 1, not {getattr(self, name)}")
        check(self.least_persons >= 2, f"gate.least_persons is at least 2, not {self.least_persons}")


@dataclass(frozen=True)
class PrivacyConfig:
    """Section [privacy]."""

    key_file: Path = field(default_factory=_default_key_file)
    """Key of the pseudonyms, outside the store; made by the first run."""


@dataclass(frozen=True)
class RunConfig:
    """A whole configuration file."""

    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    select: SelectRules = field(default_factory=SelectRules)
    convert: ConvertConfig = field(default_factory=ConvertConfig)
    segment: SegmentConfig = field(default_factory=SegmentConfig)
    measure: MeasureConfig = field(default_factory=MeasureConfig)
    load: LoadConfig = field(default_factory=LoadConfig)
    review: ReviewConfig = field(default_factory=ReviewConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)

    @classmethod
    def demo(cls, folder: Path) -> RunConfig:
        """Configuration of the demonstration: the defaults, with a key of its own beside its synthetic archive."""
        return cls(privacy=PrivacyConfig(key_file=folder.absolute() / "pseudonym.key"))


def read_config(path: Path | None) -> RunConfig:
    """Read a TOML file; all defaults when there is none.

    Relative paths in the file are relative to the file. Raises `ConfigurationError` for a file that cannot be read, an
    unknown key, a value of another type and a value out of range.
    """
    return RunConfig() if path is None else parse_config(read_toml(path), folder=path.parent)


def read_toml(path: Path) -> dict[str, Any]:
    """Content of a configuration file; `ConfigurationError` where it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"the configuration file cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the configuration file is not TOML: {error}") from error


def parse_config(content: Mapping[str, Any], *, folder: Path) -> RunConfig:
    """Build a configuration from parsed TOML; relative paths are relative to `folder`."""
    return parse_section(RunConfig, content, where="", folder=folder)


def parse_section(section: type[S], content: Mapping[str, Any], *, where: str, folder: Path) -> S:
    """Build a frozen dataclass from a table of TOML that is called `where`; as `read_config`, and a key without a
    default must be there."""
    kinds = typing.get_type_hints(section)
    _reject_unknown(content, kinds, where)
    for one in fields(section):  # type: ignore[arg-type]
        needed = one.default is MISSING and one.default_factory is MISSING
        check(not needed or one.name in content, f"{where}.{one.name} is missing")
    values = {
        key: _value(kinds[key], value, where=f"{where}.{key}".lstrip("."), folder=folder)
        for key, value in content.items()
    }
    return section(**values)


def _value(kind: Any, value: Any, *, where: str, folder: Path) -> Any:
    """Check one value against the type of its field, and convert it."""
    if isinstance(kind, types.UnionType):
        kind = next(one for one in typing.get_args(kind) if one is not type(None))
    if kind is ModelNames:
        return _model_names(value, where=where, folder=folder)
    if is_dataclass(kind):
        _expect(isinstance(value, dict), "a table", where)
        return parse_section(typing.cast(type, kind), value, where=where, folder=folder)
    if kind is Path:
        _expect(isinstance(value, str), "a path", where)
        return folder.absolute() / Path(value).expanduser()
    if kind is float:
        _expect(isinstance(value, int | float) and not isinstance(value, bool), "a number", where)
        return float(value)
    if kind in (int, bool, str):
        _expect(type(value) is kind, {int: "a whole number", bool: "true or false", str: "text"}[kind], where)
        return value
    if typing.get_origin(kind) is tuple:
        _expect(isinstance(value, list) and all(isinstance(item, str) for item in value), "a list of texts", where)
        return tuple(value)
    if kind == Mapping[str, Task]:
        _expect(isinstance(value, dict), "a table of tables", where)
        return {name: _task(name, keys, f"{where}.{name}") for name, keys in value.items()}
    _expect(isinstance(value, dict) and all(isinstance(item, str) for item in value.values()), "names", where)
    return {key: _network(name, folder) for key, name in value.items()}


def _model_names(value: Any, *, where: str, folder: Path) -> ModelNames:
    """The name of a ready table, or a table: keys not given are those of Bruno et al. 2015."""
    if isinstance(value, str):
        check(value in READY, f"{where}: no table {value!r}{_nearest(value, READY)}; tables: {', '.join(READY)}")
        return READY[value]
    _expect(isinstance(value, dict), f"a table or one of {', '.join(READY)}", where)
    kinds = typing.get_type_hints(ModelNames)
    _reject_unknown(value, kinds, where)
    found = {key: one for key, one in value.items() if key != "centres_m"}
    found = {key: _value(kinds[key], one, where=f"{where}.{key}", folder=folder) for key, one in found.items()}
    if "centres_m" in value:
        found["centres_m"] = _places(value["centres_m"], f"{where}.centres_m")
    return ModelNames(**found)


def _places(value: Any, where: str) -> dict[str, tuple[float, ...]]:
    _expect(isinstance(value, dict), "a table of places", where)
    for name, place in value.items():
        numbers = isinstance(place, list) and all(type(one) in (int, float) for one in place)
        _expect(numbers, "a list of numbers", f"{where}.{name}")
    return {name: tuple(map(float, place)) for name, place in value.items()}


def _task(name: str, keys: Any, where: str) -> Task:
    _expect(isinstance(keys, dict), "a table", where)
    _reject_unknown(keys, TASK_KEYS, where)
    return Task(
        name=name, **{key: _value(float, number, where=f"{where}.{key}", folder=Path()) for key, number in keys.items()}
    )


def _network(name: str, folder: Path) -> str:
    """A shipped network's name or a URL as it is; the path of a network's own JSON file made absolute."""
    if "://" in name:
        return name
    return str(folder.absolute() / Path(name).expanduser()) if name.endswith(".json") else name


def _expect(ok: bool, what: str, where: str) -> None:
    check(ok, f"{where} must be {what}")


def _reject_unknown(found: Iterable[str], valid: Iterable[str], where: str) -> None:
    for key in found:
        if key not in valid:
            place = f" in [{where}]" if where else ""
            raise ConfigurationError(
                f"unknown key {key!r}{place}{_nearest(key, valid)}; valid keys: {', '.join(valid)}"
            )


def _nearest(word: str, valid: Iterable[str]) -> str:
    matches = difflib.get_close_matches(word, list(valid), n=1, cutoff=0.5)
    return f", did you mean {matches[0]!r}?" if matches else ""


def resolved_toml(config: RunConfig) -> str:
    """TOML text of a configuration with every default written out; reading it back gives an equal configuration."""
    sections = []
    for section in fields(config):
        values = getattr(config, section.name)
        pairs = [(one.name, getattr(values, one.name)) for one in fields(values)]
        lines = [f"{name} = {_toml(value)}" for name, value in pairs if value is not None]
        sections.append("\n".join([f"[{section.name}]", *lines]))
    return "\n\n".join(sections) + "\n"


def _toml(value: Any) -> str:
    """One value; JSON's notation of text, numbers, booleans and lists is valid TOML."""
    if value in READY.values():
        return _toml(next(name for name, table in READY.items() if table == value))
    if isinstance(value, Task):
        return _toml({key: getattr(value, key) for key in TASK_KEYS})
    if is_dataclass(value):
        pairs = {one.name: getattr(value, one.name) for one in fields(value)}
        return _toml({name: item for name, item in pairs.items() if item is not None})
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(name)} = {_toml(item)}" for name, item in value.items()) + " }"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, Path):
        return _toml(str(value.absolute()))
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if re.fullmatch("[A-Za-z0-9_-]+", name) else _toml(name)
