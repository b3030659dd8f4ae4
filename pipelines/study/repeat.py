"""The configuration of a whole study: the sections of a run's, and a table [study] with what is trained and compared.

Each split has a store of its own beside the one that its networks learn from. A report can then never rest on the masks
of another split's networks, no change of weights has to be accepted, and what is done stays done in any order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final, cast, get_args

import pyarrow.parquet as pq

from cluster.config import check
from cluster.resources import resolve_device
from cohort.annotations.classes import read_classes
from cohort.annotations.store import AUTOMATIC
from cohort.errors import ConfigurationError
from cohort.rows import RunRow
from cohort.store.publish import replacing
from cohort.tables.buckets import objects_of, table_dataset
from pipelines.annotate import FORMATS, parse_readers
from pipelines.config import NETWORKS as SHIPPED
from pipelines.config import RunConfig, parse_config, parse_section, read_toml, resolved_toml
from pipelines.study.annotated_store import AnnotatedStore
from pipelines.study.split import KINDS, NETWORKS, Kind, Network
from pipelines.study.train import Start, StudySettings, study_config

DEVICES: Final = ("auto", "cpu", "cuda")
WITHOUT_TABLE: Final = ("mdai", "dicom-seg")
"""Formats that say themselves which exam they are of."""


@dataclass(frozen=True, kw_only=True)
class StudySection:
    """Table [study]; each key is an argument or option of the command that it goes to."""

    archive: Path
    """DICOM of the study's exams."""
    annotations: Path
    """File or folder."""
    format: str
    table: Path | None = None
    classes: Path | None = None
    readers: tuple[str, ...] = ()
    subjects: Path | None = None
    """Height, weight and more, without which there are no loads."""
    splits: tuple[str, ...] = ()
    """Without the key: standard, and shared where there is a holdout."""
    holdout: int | None = None
    seed: int = 0
    start: str = "default"
    licence: str = ""
    configs: Path | None = None
    device: str = "auto"
    """Of training; that of a run is [cluster] device."""

    def __post_init__(self) -> None:
        for key, known in (("format", FORMATS), ("start", get_args(Start)), ("device", DEVICES)):
            value = getattr(self, key)
            check(value in known, f"study.{key} is one of {', '.join(known)}, not {value!r}")
        check(set(self.splits) <= set(KINDS), f"study.splits are of {', '.join(KINDS)}, not {', '.join(self.splits)}")
        check(self.holdout is None or self.holdout >= 1, f"study.holdout is at least 1, not {self.holdout}")
        check(self.seed >= 0, f"study.seed is 0 or more, not {self.seed}")
        has_number = self.holdout is not None or "shared" not in self.splits
        check(has_number, "study.splits has shared, which needs study.holdout: a number of patients")
        ready = self.format in WITHOUT_TABLE or self.table is not None
        check(ready, f"study.format {self.format} needs study.table: which exam and reader each file is of")

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Splits to train on and to report, in the order of `KINDS`."""
        wanted = self.splits or (KINDS if self.holdout else KINDS[:1])
        return tuple(kind for kind in KINDS if kind in wanted)

    @property
    def settings(self) -> StudySettings:
        """Of the training."""
        return StudySettings(cast(Start, self.start), self.licence, self.configs, self.seed)


@dataclass(frozen=True)
class Study:
    """A whole configuration file."""

    section: StudySection
    run: RunConfig
    """Of the first run; a split's has other networks."""


def read_study_file(path: Path) -> Study:
    """Read STUDY.toml and try all that can be tried before any work; relative paths are relative to the file.

    Raises
    ------
    ConfigurationError
        for a file that cannot be read, an unknown or missing key, a value that cannot be, a file that is not there, a
        training configuration, class table or device that cannot be used
    """
    content = read_toml(path)
    table = content.pop("study", None)
    check(isinstance(table, dict), f"{path.name} has no table [study]: cohort study repeat --help shows one")
    section = parse_section(StudySection, cast(dict[str, object], table), where="study", folder=path.parent)
    run = parse_config(content, folder=path.parent)
    shipped = run.segment.networks == SHIPPED
    check(shipped, "[segment.networks] is not for a study, which trains its own: see start and configs of [study]")
    _require_usable(section)
    return Study(section, run)


def _require_usable(section: StudySection) -> None:
    for one in fields(section):
        value = getattr(section, one.name)
        if isinstance(value, Path):
            check(value.exists(), f"study.{one.name}: {value.name} does not exist")
            folder = one.name in ("archive", "configs")
            check(not folder or value.is_dir(), f"study.{one.name}: {value.name} is no folder")
    parse_readers(section.readers)
    read_classes(section.classes)
    resolve_device(section.device)
    for kind in section.kinds:
        for network in NETWORKS:
            study_config(network, kind, section.settings)


@dataclass(frozen=True)
class StudyFolder:
    """Where everything of a study lies."""

    path: Path

    @property
    def splits(self) -> Path:
        """Who is in which part."""
        return self.path / "splits.csv"

    @property
    def annotated(self) -> Path:
        """The store that is split and learned from; its masks are those of the shipped networks."""
        return self.path / "stores" / "shipped"

    def store(self, kind: Kind) -> Path:
        """The store with the masks of a split's networks."""
        return self.path / "stores" / kind

    def networks(self, kind: Kind) -> Path:
        """Weights, contracts and model cards of a split."""
        return self.path / "networks" / kind

    def report(self, kind: Kind) -> Path:
        """Tables and page of a split."""
        return self.path / "report" / kind

    def write_config(self, name: str, config: RunConfig) -> Path:
        """Write the configuration of a run, with every default; returns its path."""
        path = self.path / "config" / f"{name}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(resolved_toml(config), encoding="utf-8")
        return path


def untrained(study: Study, folder: StudyFolder, kind: Kind) -> dict[Network, str]:
    """Networks that a split cannot train, and why."""
    exams = AnnotatedStore(folder.annotated, folder.splits, kind)
    found = {
        network: exams.divided(study_config(network, kind, study.section.settings)).cannot_train()
        for network in NETWORKS
    }
    return {network: why for network, why in found.items() if why}


def trained_config(study: Study, folder: StudyFolder, kind: Kind, left_out: Mapping[Network, str]) -> RunConfig:
    """Configuration of the run with a split's own networks; those that were left out are the shipped ones."""
    own = {network: folder.networks(kind) / f"{network}.json" for network in NETWORKS if network not in left_out}
    names = {network: str(path.absolute()) for network, path in own.items()}
    return replace(study.run, segment=replace(study.run.segment, networks={**study.run.segment.networks, **names}))


def require_complete(store: Path) -> None:
    """Refuse to go on after a run that was stopped before its end, or whose numbers wait for acceptance.

    Raises
    ------
    ConfigurationError
        if the latest run is not through
    """
    rows: list[RunRow] = objects_of("runs", table_dataset(store, "runs").to_table())
    latest = max(rows, key=lambda row: row.run_id)
    if latest.ended != "complete" or latest.change == "held":
        raise ConfigurationError("the run was stopped before its end: the same command goes on")


def require_networks_compared(report: Path) -> None:
    """Refuse to call a report done in which no mask of the networks is compared.

    Raises
    ------
    ConfigurationError
        if there is no row of `overlaps` with the networks
    """
    readers = pq.read_table(report / "overlaps.parquet", columns=["first_reader", "second_reader"])
    if AUTOMATIC not in {*readers["first_reader"].to_pylist(), *readers["second_reader"].to_pylist()}:
        raise ConfigurationError(
            "no exam of the test part has masks of the networks: see the report of the latest run in the split's store"
        )
