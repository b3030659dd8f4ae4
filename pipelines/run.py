"""`cohort run`: bring the tables of a store up to date with an archive, redoing only what changed."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cohort import __version__
from cohort.rows import RunRow
from cohort.store.publish import sweep_temporary
from cohort.tables.commit import commit
from pipelines.chain import Chain, chain_stages
from pipelines.config import RunConfig, resolved_toml
from pipelines.index import FileIndex, update_index
from pipelines.job import Job, Workers, prepare
from pipelines.load import AGREEMENT_LIMIT
from pipelines.lock import only_run
from pipelines.plan import Plan, make_plan, why
from pipelines.progress import Progress
from pipelines.summary import Summary, count_exams, mark_gone
from pipelines.survey import note_unmatched_subjects, withdraw
from pipelines.wanted import refresh_wanted
from pipelines.window import run_window

NEVER: Final[Callable[[], bool]] = lambda: False  # noqa: E731


def run(
    archive: Path,
    store: Path,
    *,
    config: RunConfig,
    progress: Progress,
    subjects: Path | None = None,
    retry_failed: bool = False,
    command: str = "run",
    stop: Callable[[], bool] = NEVER,
) -> Summary:
    """Process an archive into a store.

    Parameters
    ----------
    subjects : CSV or Parquet with sex, age, height and weight (see `cohort.archive.demographics.read_subjects`)
    retry_failed : try stages again that failed with the same fingerprint, and open unreadable files again
    command : name of the command, for the table `runs`
    stop : asked before each batch of work; once true the run ends when what it has begun is done

    Raises
    ------
    ConfigurationError
        for what would make the whole run fail: archive, networks, device, subject table, another run in progress
    """
    with only_run(store, command, progress.note), ExitStack() as resources:
        sweep_temporary(store)
        job = prepare(archive.resolve(), store.resolve(), config, subjects, progress)
        workers = Workers(job, resources)
        planned = plan_run(job, workers, retry_failed=retry_failed)
        chain = Chain(job, planned.plan, planned.index, ledgers=planned.ledgers, root=job.store)
        if planned.plan.todo.num_rows:
            progress.plan(planned.plan.stages)
            try:
                run_window(
                    chain.items(),
                    chain_stages(job),
                    executor=workers.executor(),
                    on_outcome=chain.on_outcome,
                    stop=stop,
                )
            finally:
                chain.flush()
        return _finish(job, planned, chain, command)


@dataclass(frozen=True, eq=False)
class Planned:
    """What a run found and will do."""

    index: FileIndex
    n_exams: int
    """In the archive."""
    n_gone: int
    plan: Plan
    ledgers: Sequence[Path]
    """Folders of tables with the attempts that the plan has considered."""


def plan_run(job: Job, workers: Workers, *, retry_failed: bool) -> Planned:
    """Bring the file index and the choice of series up to date, withdraw what is gone, and plan the rest."""
    index = update_index(job, workers, retry_failed=retry_failed)
    note_unmatched_subjects(job)
    here = refresh_wanted(job, workers, index)
    gone = withdraw(job.store, here.exam_ids, here.unchosen)
    mark_gone(job.store, job.run_id, gone)
    ledgers = (job.store,)
    return Planned(
        index, len(here.exam_ids), len(gone), make_plan(ledgers, job.store, retry_failed=retry_failed), ledgers
    )


@dataclass(frozen=True)
class Reason:
    """Why a stage of some exams would be done."""

    stage: str
    why: str
    replaces: bool
    """Whether sound results are replaced."""
    n: int
    """Exams."""


@dataclass(frozen=True)
class Preview:
    """What a run would do."""

    n_exams: int
    """In the archive."""
    n_todo: int
    stages: dict[str, int]
    """Stage -> exams that it would work on."""
    reasons: tuple[Reason, ...]
    """Most frequent first."""
    exams: dict[str, list[str]]
    """Exam, newest first -> stage and reason."""

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps(asdict(self), indent=1)


def preview(
    archive: Path,
    store: Path,
    *,
    config: RunConfig,
    progress: Progress,
    subjects: Path | None = None,
    retry_failed: bool = False,
) -> Preview:
    """Plan a run and say why: the file index and the choice of series are brought up to date, nothing is processed.

    Raises ConfigurationError as `run` does.
    """
    with only_run(store, "dry run", progress.note), ExitStack() as resources:
        job = prepare(archive.resolve(), store.resolve(), config, subjects, progress)
        planned = plan_run(job, Workers(job, resources), retry_failed=retry_failed)
        rows = why(planned.ledgers, job.store, job.artefacts, planned.plan).to_pylist()
    exams: dict[str, list[str]] = {exam_id: [] for exam_id in planned.plan.exam_ids}
    for row in rows:
        exams[row["exam_id"]].append(f"{row['stage']}: {row['why']}")
    counts = Counter((row["stage"], row["why"], row["replaces"]) for row in rows)
    reasons = tuple(Reason(*key, n) for key, n in counts.most_common())
    return Preview(planned.n_exams, len(exams), dict(planned.plan.stages), reasons, exams)


def _finish(job: Job, planned: Planned, chain: Chain, command: str) -> Summary:
    """Record the run in the table `runs` and in STORE/runs/<run_id>/."""
    n_pending = planned.plan.todo.num_rows - chain.n_ended
    disagree = chain.largest_difference is not None and chain.largest_difference > AGREEMENT_LIMIT
    statuses, reasons = count_exams(job.store)
    run_row = RunRow(
        run_id=job.run_id,
        command=command,
        started_at=datetime.fromtimestamp(job.started, UTC).isoformat(timespec="seconds"),
        seconds=round(time.time() - job.started, 2),
        version=__version__,
        device=job.device,
        n_files=planned.index.n_files,
        n_files_read=planned.index.n_read,
        n_exams=planned.n_exams,
        n_ok=statuses["ok"],
        n_flagged=statuses["flagged"],
        n_refused=statuses["refused"],
        n_failed=statuses["failed"],
        n_gone=planned.n_gone,
        n_pending=n_pending,
        stages_run=chain.n_executed,
        ended="stopped" if n_pending else "complete",
        status="flagged" if disagree else "ok",
        reason="engines_disagree" if disagree else None,
        opensim_checked=chain.n_checked,
        opensim_max_difference=chain.largest_difference,
    )
    summary = Summary(run_row, reasons, planned.index.unusable_files(), job.store)
    commit(job.store, job.run_id, {"runs": [run_row]}, touched={})
    folder = job.store / "runs" / job.run_id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(resolved_toml(job.config))
    (folder / "summary.json").write_text(summary.to_json() + "\n")
    return summary
