"""`cohort run`: bring the tables of a store up to date with an archive, redoing only what changed."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa

from cohort import __version__
from cohort.errors import CohortError, StoreError
from cohort.rows import RunRow
from cohort.store.layout import candidate_path
from cohort.store.publish import sweep_temporary
from cohort.tables.buckets import table_dataset
from cohort.tables.commit import commit
from pipelines.candidate import (
    StageChange,
    changed_stages,
    drop,
    finish_promotion,
    has_candidate,
    open_candidate,
    promote,
    waiting_change,
    withdraw_from_candidate,
)
from pipelines.chain import Chain, chain_stages
from pipelines.config import RunConfig, resolved_toml
from pipelines.gate import accepts
from pipelines.index import FileIndex, update_index
from pipelines.job import Job, Workers, prepare
from pipelines.load import AGREEMENT_LIMIT
from pipelines.lock import only_run
from pipelines.plan import Plan, make_plan, why
from pipelines.progress import Progress
from pipelines.report import write_report
from pipelines.run_facts import record_software
from pipelines.run_log import RunLog, run_folder
from pipelines.summary import Summary, count_exams, mark_gone
from pipelines.survey import note_unmatched_subjects, withdraw
from pipelines.wanted import refresh_wanted, settle_statuses
from pipelines.window import NEVER, run_window


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
    accept: bool = False,
    allow_gone: bool = False,
) -> Summary:
    """Process an archive into a store.

    Parameters
    ----------
    subjects : CSV or Parquet with sex, age, height and weight (see `cohort.archive.demographics.read_subjects`)
    retry_failed : try stages again that failed with the same fingerprint, and open unreadable files again
    command : name of the command, for the table `runs`
    stop : asked before each batch of work, of files too; once true the run ends when what it has begun is done
    accept : let numbers that new weights, code or base models changed become current, whatever the limits say
    allow_gone : believe it when more than half of the files or exams are gone

    Raises
    ------
    ConfigurationError
        for what would make the whole run fail: archive, networks, device, subject table, another run in progress
    """
    with only_run(store, command, progress.note), ExitStack() as resources:
        sweep_temporary(store)
        job = prepare(archive.resolve(), store.resolve(), config, subjects, progress)
        log = resources.enter_context(RunLog(job.store, job.run_id))
        progress.keep_notes(log.note)
        resources.callback(progress.keep_notes, None)  # before the log is closed
        _record(job, command)
        workers = Workers(job, resources)
        planned = plan_run(job, workers, retry_failed=retry_failed, allow_gone=allow_gone, stop=stop)
        chain = Chain(job, planned.plan, planned.index, ledgers=planned.ledgers, root=planned.root, log=log)
        if planned.is_complete and planned.plan.todo.num_rows:
            progress.plan(planned.plan.stages)
            executor = workers.executor()
            stages = chain_stages(job, n_exams=planned.plan.todo.num_rows, cpu_slots=executor.slots("CPU"))
            try:
                run_window(
                    chain.items(),
                    stages,
                    executor=executor,
                    on_outcome=chain.on_outcome,
                    stop=stop,
                )
            finally:
                chain.flush()
        return _finish(job, planned, chain, command, accept=accept)


def _record(job: Job, command: str) -> None:
    """Write what the run works with, before it works: a run that is killed leaves that, too."""
    (run_folder(job.store, job.run_id) / "config.toml").write_text(resolved_toml(job.config))
    record_software(
        job.store,
        job.run_id,
        command=command,
        device=job.device,
        networks=job.networks,
        base_models=job.artefacts.base_models,
    )


@dataclass(frozen=True, eq=False)
class Planned:
    """What a run found and will do."""

    index: FileIndex
    n_exams: int
    """In the archive."""
    n_gone: int
    changed: tuple[StageChange, ...]
    """Stages whose numbers new weights, code or base models change; where there are any, the run is gated."""
    ledgers: tuple[Path, ...]
    """Folders of tables with the attempts that the plan has considered."""
    plan: Plan
    is_complete: bool
    """Whether all files were read and all series chosen: else the time was over, and nothing may be judged."""

    @property
    def root(self) -> Path:
        """Folder whose tables get the results: the store, or its candidate in a gated run."""
        return self.ledgers[-1]


@contextmanager
def _damage_in_words() -> Iterator[None]:
    """Tables are read in columns here, past `read_bucket`: what Arrow and DuckDB say of damaged files names paths."""
    try:
        yield
    except (pa.ArrowException, duckdb.Error, OSError) as error:
        if isinstance(error, CohortError) or (isinstance(error, OSError) and error.errno is not None):
            raise
        raise StoreError(f"a table cannot be read ({type(error).__name__}): see cohort fsck --repair") from error


@_damage_in_words()
def plan_run(
    job: Job,
    workers: Workers,
    *,
    retry_failed: bool,
    dry: bool = False,
    allow_gone: bool = False,
    stop: Callable[[], bool] = NEVER,
) -> Planned:
    """Bring the file index and the choice of series up to date, withdraw what is gone, and plan the rest.

    Parameters
    ----------
    dry : leave numbers that wait for acceptance as they are
    allow_gone : believe it when more than half of the files or exams are gone
    stop : asked before each batch of files; where it leaves some unread, the plan is that of the last run's archive

    Raises
    ------
    StoreError
        if a file of the tables is damaged
    """
    if finish_promotion(job.store):
        job.progress.note("an acceptance of new numbers that had been interrupted is finished")
    index = update_index(job, workers, retry_failed=retry_failed, allow_gone=allow_gone, stop=stop)
    note_unmatched_subjects(job)
    if index.n_unread:  # exams are there in part, or seem to be gone because their files are known by new names
        n_exams = table_dataset(job.store, "wanted").count_rows()
        plan = make_plan((job.store,), job.store, retry_failed=retry_failed)
        return Planned(index, n_exams, 0, (), (job.store,), plan, is_complete=False)
    here = refresh_wanted(job, workers, index, stop=stop)
    gone = withdraw(job.store, here.exam_ids, here.unchosen, allow_gone=allow_gone)
    mark_gone(job.store, job.run_id, gone)
    withdraw_from_candidate(job.store, [*gone, *here.unchosen])
    changed = changed_stages(job.store, job.artefacts)
    ledgers = _ledgers(job, changed, dry=dry)
    plan = make_plan(ledgers, job.store, retry_failed=retry_failed)
    if not (changed or here.n_left or dry):
        settle_statuses(job, plan.exam_ids)
    return Planned(index, len(here.exam_ids), len(gone), changed, ledgers, plan, is_complete=not here.n_left)


def _ledgers(job: Job, changed: Sequence[StageChange], *, dry: bool) -> tuple[Path, ...]:
    """The store; in a gated run also the folder where numbers wait, made or gone on with."""
    if dry:
        waits = changed and waiting_change(job.store) == job.artefacts.models
        return (job.store, candidate_path(job.store)) if waits else (job.store,)
    if changed:
        stages = ", ".join(f"{one.stage} ({one.n_exams} exams)" for one in changed)
        job.progress.note(f"weights, code or base models changed: {stages}. New numbers wait until they are accepted")
        return (job.store, open_candidate(job.store, job.artefacts.models, note=job.progress.note))
    if has_candidate(job.store):
        job.progress.note("numbers that waited for acceptance are dropped: weights, code and base models are the old")
        drop(job.store)
    return (job.store,)


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
    allow_gone: bool = False,
) -> Preview:
    """Plan a run and say why: the file index and the choice of series are brought up to date, nothing is processed.

    Raises ConfigurationError as `run` does.
    """
    with only_run(store, "dry run", progress.note), ExitStack() as resources:
        job = prepare(archive.resolve(), store.resolve(), config, subjects, progress)
        workers = Workers(job, resources)
        planned = plan_run(job, workers, retry_failed=retry_failed, dry=True, allow_gone=allow_gone)
        rows = why(planned.ledgers, job.store, job.artefacts, planned.plan).to_pylist()
    exams: dict[str, list[str]] = {exam_id: [] for exam_id in planned.plan.exam_ids}
    for row in rows:
        exams[row["exam_id"]].append(f"{row['stage']}: {row['why']}")
    counts = Counter((row["stage"], row["why"], row["replaces"]) for row in rows)
    reasons = tuple(Reason(*key, n) for key, n in counts.most_common())
    return Preview(planned.n_exams, len(exams), dict(planned.plan.stages), reasons, exams)


def _finish(job: Job, planned: Planned, chain: Chain, command: str, *, accept: bool) -> Summary:
    """Judge a change, record the run in the table `runs`, and write its summary and report."""
    n_pending = planned.plan.todo.num_rows - chain.n_ended
    stopped = n_pending > 0 or not planned.is_complete
    change = _judge(job, accept=accept, stopped=stopped) if planned.changed else None
    disagree = chain.largest_difference is not None and chain.largest_difference > AGREEMENT_LIMIT
    reason = "engines_disagree" if disagree else "change_held" if change == "held" else None
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
        ended="stopped" if stopped else "complete",
        change=change,
        status="flagged" if reason else "ok",
        reason=reason,
        opensim_checked=chain.n_checked,
        opensim_max_difference=chain.largest_difference,
    )
    summary = Summary(run_row, reasons, planned.index.unusable_files(), job.store)
    commit(job.store, job.run_id, {"runs": [run_row]}, touched={})
    (run_folder(job.store, job.run_id) / "summary.json").write_text(summary.to_json() + "\n")
    write_report(job.store, job.run_id)
    return summary


def _judge(job: Job, *, accept: bool, stopped: bool) -> str:
    """Compare waiting numbers with the current ones, and let them become current where the gate is open: held or
    accepted. While exams are left to be redone nothing is judged."""
    if stopped:
        return "held"
    from pipelines.change import compare_change  # plots and statistics: not for runs without a change
    from pipelines.change_masks import with_masks
    from pipelines.change_report import write_change_report

    run = run_folder(job.store, job.run_id)
    folder = run / "change"
    report = with_masks(
        compare_change(job.store), job.store, folder, config=run / "config.toml", note=job.progress.note
    )
    write_change_report(report, job.config.gate, folder)
    if report.exams.n_waiting or not (accept or accepts(report, job.config.gate)):
        return "held"
    promote(job.store, job.run_id)
    return "accepted"
