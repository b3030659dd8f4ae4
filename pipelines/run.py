"""`cohort run`: bring the tables of a store up to date with an archive, redoing only what changed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from cohort import __version__
from cohort.rows import ExamRow, RunRow
from cohort.store.publish import sweep_temporary
from cohort.tables.commit import commit
from cohort.tables.ledger import read_ledger
from pipelines.chain import Chain, chain_stages
from pipelines.config import RunConfig, resolved_toml
from pipelines.exams import plan_exam
from pipelines.index import FileIndex, update_index, with_hashes
from pipelines.job import Job, Workers, prepare
from pipelines.load import AGREEMENT_LIMIT
from pipelines.lock import only_run
from pipelines.plan import make_plan
from pipelines.progress import Progress
from pipelines.summary import Summary, count_reasons, exam_row, update_exam_tables
from pipelines.survey import archive_exams, withdraw
from pipelines.window import run_window


def run(
    archive: Path,
    store: Path,
    *,
    config: RunConfig,
    progress: Progress,
    subjects: Path | None = None,
    retry_failed: bool = False,
) -> Summary:
    """Process an archive into a store.

    Parameters
    ----------
    subjects : CSV or Parquet with sex, age, height and weight (see `cohort.archive.demographics.read_subjects`)
    retry_failed : try stages again that failed with the same fingerprint, and open unreadable files again

    Raises
    ------
    ConfigurationError
        for what would make the whole run fail: archive, networks, device, subject table, another run in progress
    """
    with only_run(store), ExitStack() as resources:
        sweep_temporary(store)
        job = prepare(archive.resolve(), store.resolve(), config, subjects, progress)
        workers = Workers(job, resources)
        index = update_index(job, workers, retry_failed=retry_failed)
        exams = with_hashes(job, workers, index, archive_exams(job, index))
        plans = {exam.exam_id: plan_exam(exam, job.artefacts) for exam in exams if exam.sagittal}
        ledger = read_ledger(store)
        wanted = [one for plan in plans.values() for one in plan.wanted]
        plan = make_plan(wanted, ledger, retry_failed=retry_failed)
        chain = Chain(job, plans, plan, ledger, index)
        if plan.todo:
            progress.plan(Counter(one.stage for one in plan.todo))
            run_window(chain.first_items(), chain_stages(job), executor=workers.executor(), on_outcome=chain.on_outcome)
        chain.flush()
        gone = withdraw(store, exams, chain.ledger)
        rows = [exam_row(exam, plans.get(exam.exam_id), chain.ledger) for exam in exams]
        update_exam_tables(store, job.run_id, exams, rows, gone)
        return _finish(job, index, rows, chain, n_gone=len(gone))


def _finish(job: Job, index: FileIndex, rows: Sequence[ExamRow], chain: Chain, *, n_gone: int) -> Summary:
    """Record the run in the table `runs` and in STORE/runs/<run_id>/."""
    statuses = Counter(row.status for row in rows)
    disagree = chain.largest_difference is not None and chain.largest_difference > AGREEMENT_LIMIT
    run_row = RunRow(
        run_id=job.run_id,
        command="run",
        started_at=datetime.fromtimestamp(job.started, UTC).isoformat(timespec="seconds"),
        seconds=round(time.time() - job.started, 2),
        version=__version__,
        device=job.device,
        n_files=index.n_files,
        n_files_read=index.n_read,
        n_exams=len(rows),
        n_ok=statuses["ok"],
        n_flagged=statuses["flagged"],
        n_refused=statuses["refused"],
        n_failed=statuses["failed"],
        n_gone=n_gone,
        n_pending=statuses["pending"],
        stages_run=chain.n_executed,
        ended="complete",
        status="flagged" if disagree else "ok",
        reason="engines_disagree" if disagree else None,
        opensim_checked=chain.n_checked,
        opensim_max_difference=chain.largest_difference,
    )
    summary = Summary(run_row, count_reasons(rows), index.unusable_files(), job.store)
    commit(job.store, job.run_id, {"runs": [run_row]}, touched={})
    folder = job.store / "runs" / job.run_id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(resolved_toml(job.config))
    (folder / "summary.json").write_text(summary.to_json() + "\n")
    return summary
