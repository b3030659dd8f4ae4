"""What one run is given and keeps: paths, configuration, artefacts, workers."""

from __future__ import annotations

import time
import uuid
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cluster.checks import require
from cluster.links import links
from cluster.preflight import Needs, inspect
from cluster.profiles import device_of, open_cluster
from cluster.resources import Device
from cohort.archive.demographics import SubjectTable, read_subjects
from cohort.archive.pseudonym import Pseudonyms, load_or_create_key
from cohort.tables.buckets import create_tables
from models.registry import read_contract, weights_path
from pipelines.base_models import store_base_models
from pipelines.config import RunConfig
from pipelines.exams import Artefacts
from pipelines.progress import Progress
from pipelines.run_facts import record_cluster
from pipelines.run_log import run_folder
from pipelines.segment import check_networks
from pipelines.window import DaskExecutor, Executor


def _new_run_id() -> str:
    """Time-ordered and unique."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"


@dataclass(frozen=True)
class Job:
    """One run; nothing here changes while it works."""

    archive: Path
    store: Path
    config: RunConfig
    subjects: SubjectTable | None
    key_file: Path
    pseudonyms: Pseudonyms
    device: Device
    networks: dict[str, tuple[str, str]]
    """Label array -> (name, sha256 of the weights)."""
    base_models: dict[str, Path]
    """Sex -> .osim."""
    artefacts: Artefacts
    progress: Progress
    run_id: str = field(default_factory=_new_run_id)
    started: float = field(default_factory=time.time)

    @property
    def needs(self) -> Needs:
        """What workers must have for this run."""
        weights = {f"weights of {label}": weights_path(name) for label, (name, _) in self.networks.items()}
        bases = {f"base model {sex}": path for sex, path in self.base_models.items()}
        return Needs(self.device, weights | bases, self.store, self.archive)


def prepare(archive: Path, store: Path, config: RunConfig, subjects: Path | None, progress: Progress) -> Job:
    """Check everything that can be wrong with the whole run before any work starts.

    Raises
    ------
    ConfigurationError
        for the key, the device, the networks, the base models or the subject table
    """
    key_file = config.privacy.key_file
    pseudonyms = Pseudonyms(load_or_create_key(key_file, store=store))
    create_tables(store)
    device = device_of(config.cluster)
    networks = check_networks(config.segment.networks)
    base_models = store_base_models(store, config.load)
    names = ", ".join(Path(name).name for name, _ in networks.values())
    bases = ", ".join(f"{model.origin} ({code})" for code, model in base_models.items())
    progress.note(f"device {device}; networks {names}; base models {bases}")
    return Job(
        archive=archive,
        store=store,
        config=config,
        subjects=read_subjects(subjects, pseudonyms) if subjects else None,
        key_file=key_file,
        pseudonyms=pseudonyms,
        device=device,
        networks=networks,
        base_models={code: model.path for code, model in base_models.items()},
        artefacts=Artefacts(
            weights={label: read_contract(name).sha256 for label, (name, _) in networks.items()},
            base_models={code: model.sha256 for code, model in base_models.items()},
            tasks=config.load.all_tasks,
            assumptions=config.load.assumptions,
            personalise=config.load.personalise,
            impute=config.load.impute,
        ),
        progress=progress,
    )


class Workers:
    """Starts or joins the cluster when the first work appears, and checks it: a run with nothing to do starts none."""

    def __init__(self, job: Job, resources: ExitStack) -> None:
        self._job, self._resources = job, resources
        self._executor: Executor | None = None

    def executor(self) -> Executor:
        """The executor on the cluster."""
        if self._executor is None:
            job = self._job
            client = self._resources.enter_context(open_cluster(job.config.cluster, note=job.progress.note))
            checks = inspect(client, job.needs)
            require(checks)
            addresses = links(client)
            job.progress.note("; ".join(f"{what} {url}" for what, url in addresses.items()))
            if run_folder(job.store, job.run_id).is_dir():  # a scan or a dry run has none, and is no run
                record_cluster(job.store, job.run_id, client, addresses)
            for one in checks:
                if one.state == "warning":
                    job.progress.note(f"{one.what}: {one.detail}; {one.remedy}")
            self._executor = DaskExecutor(client)
        return self._executor
