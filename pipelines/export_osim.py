"""`cohort export osim`: rebuild the model that the load stage used for an exam, make sure of it, and write it out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from cohort.errors import ConfigurationError, StoreError
from cohort.loading.base_model import BaseModel, read_base_model
from cohort.loading.osim_folder import PICTURE, write_osim_folder
from cohort.loading.posed_subject import PosedSubject, solve_posed
from cohort.reasons import REASONS
from cohort.review.posed_model import draw_posture
from cohort.rows import ExamRow, LedgerRow, LoadRow, RunRow
from cohort.store.publish import publishing
from cohort.tables.buckets import read_objects
from cohort.tables.ledger import Ledger, read_ledger
from cohort.tables.stages import STAGES
from pipelines.config import LoadConfig, RunConfig, read_config
from pipelines.loading_inputs import impute_demographics, loading_inputs
from pipelines.measure import read_rows
from pipelines.read_exams import demographics_of, exam_row

SAME_LOAD: Final = 1e-4
"""Largest relative difference between a load in the table and the same load solved again: another machine's rounding
is far below it."""
SMALLEST_LOAD_N: Final = 10.0
"""Differences are relative to the load, or to this where the load is smaller."""
COLUMNS: Final = ("axial_n", "shear_ap_n", "shear_lateral_n")


@dataclass(frozen=True)
class Exported:
    """What was written."""

    posed: PosedSubject
    folder: Path
    max_difference: float
    """Largest relative difference to the table."""


def export_osim(store: Path, exam_id: str, task: str, output: Path | None) -> Exported:
    """Write one exam's model in one task to a new folder.

    Raises
    ------
    ConfigurationError
        for an unknown exam or task, an exam without loads (with the reason), and a folder that is not empty
    StoreError
        if what the loads rest on is gone, or gives other loads than those in the table
    """
    folder = output or Path(f"osim-{exam_id[:8]}-{task}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(f"{folder.name!r} exists and is not empty; name another folder with --output")
    posed, difference = rebuild(store, exam_id, task)
    if folder.exists():
        folder.rmdir()
    with publishing(folder) as building:
        write_osim_folder(building, posed)
        draw_posture(posed, building / PICTURE)
    return Exported(posed, folder, difference)


def rebuild(store: Path, exam_id: str, task: str) -> tuple[PosedSubject, float]:
    """Solve an exam again from what its loads rest on; its rows are those of the table, and the number is the largest
    relative difference between both.

    Raises as `export_osim` does.
    """
    exam = exam_row(read_objects(store, "exams"), exam_id)
    ledger = read_ledger(store)
    attempt = _finished_load(exam, ledger)
    stored = _stored_loads(store, exam_id, task)
    measured = _measured_rows(store, exam_id, ledger)
    config = _config(store, attempt).load
    solved = [
        (posed, _differences(stored, posed))
        for base in _base_models(store, stored[0].base_model)
        for posed in [_solve(base, exam, measured, config, task)]
    ]
    if not solved:
        raise StoreError(f"the base model {stored[0].base_model!r} of these loads is no longer in the store")
    posed, differences = min(solved, key=lambda one: max(one[1].values()))
    worst = max(differences, key=lambda name: differences[name])
    if differences[worst] > SAME_LOAD:
        raise StoreError(_other_loads(store, attempt, posed, stored, worst))
    return replace(posed, rows=tuple(stored)), differences[worst]


def _finished_load(exam: ExamRow, ledger: Ledger) -> LedgerRow:
    """The ledger's row of the load stage, or an error that says why there is none to be used."""
    attempts = [ledger.get((exam.exam_id, stage)) for stage in STAGES]
    ended = next((row for row in attempts if row and row.status in ("refused", "failed")), None)
    load = ledger.get((exam.exam_id, "load"))
    if ended is None and load is not None:
        return load
    status, reason = (ended.status, ended.reason) if ended else (exam.status, exam.reason)
    where = f" in stage {ended.stage}" if ended else ""
    why = f": {reason} ({REASONS[reason]})" if reason in REASONS else ""
    raise ConfigurationError(f"exam {exam.exam_id!r} has no loads: it is {status}{where}{why}")


def _stored_loads(store: Path, exam_id: str, task: str) -> list[LoadRow]:
    rows: list[LoadRow] = [
        row for row in read_objects(store, "loads") if row.exam_id == exam_id and row.engine == "batch"
    ]
    found = [row for row in rows if row.task == task]
    if not found:
        tasks = ", ".join(sorted({row.task for row in rows})) or "none"
        raise ConfigurationError(f"the table has no loads of this exam in task {task!r}; it has: {tasks}")
    if any(row.status == "refused" for row in found):
        raise ConfigurationError(f"the loads of this exam in task {task!r} were refused: {found[0].reasons}")
    return found


def _measured_rows(store: Path, exam_id: str, ledger: Ledger) -> dict[str, list[Any]]:
    measured = ledger.get((exam_id, "measure"))
    if measured is None or measured.path is None or not (store / measured.path).is_file():
        raise StoreError("the measured rows of this exam are no longer in the store")
    return read_rows(store / measured.path)


def _config(store: Path, attempt: LedgerRow) -> RunConfig:
    """Configuration of the run that computed the loads; of the latest run that ended, where that one was stopped."""
    runs: list[RunRow] = read_objects(store, "runs")
    ended = sorted((row.run_id for row in runs), reverse=True)
    for run_id in (attempt.run_id, *ended):
        path = store / "runs" / run_id / "config.toml"
        if path.is_file():
            return read_config(path)
    raise StoreError("the configuration of the run that computed these loads is not in the store")


def _solve(
    base: BaseModel, exam: ExamRow, measured: Mapping[str, Sequence[Any]], config: LoadConfig, task: str
) -> PosedSubject:
    """What `pipelines.load.load` does, for one task."""
    tasks = {one.name: one for one in config.all_tasks}
    if task not in tasks:
        raise StoreError(f"task {task!r} is not in the configuration of the run that computed these loads")
    demographics = demographics_of(exam)
    if config.impute:
        demographics = impute_demographics(demographics, base)
    subject = loading_inputs(exam.exam_id, demographics, measured, use=config.personalise).subject
    return solve_posed(base, subject, tasks[task], use=config.personalise, assumptions=config.assumptions)


def _base_models(store: Path, name: str) -> Iterator[BaseModel]:
    """Base models of the store that have this name, the newest first: one for each version of their tables."""
    for path in sorted((store / "models").glob("*.osim"), key=lambda path: path.stat().st_mtime_ns, reverse=True):
        with suppress(ConfigurationError):  # of another version of this software, which this one cannot have used
            base = read_base_model(path)
            if base.name == name:
                yield base


def _differences(stored: Sequence[LoadRow], posed: PosedSubject) -> dict[str, float]:
    """Load, as level, convention and column -> difference relative to the axial load."""
    return {
        f"{row.level} {row.convention} {column}": abs(getattr(row, column) - getattr(now, column))
        / max(abs(row.axial_n), SMALLEST_LOAD_N)
        for row in stored
        for now in [posed.load(row.level, row.convention)]
        for column in COLUMNS
    }


def _other_loads(store: Path, attempt: LedgerRow, posed: PosedSubject, stored: Sequence[LoadRow], worst: str) -> str:
    level, convention, column = worst.split(" ")
    before = next(getattr(row, column) for row in stored if (row.level, row.convention) == (level, convention))
    version = next((row.version for row in read_objects(store, "runs") if row.run_id == attempt.run_id), "unknown")
    return (
        f"solved again, {column} of {level} ({convention}) is {getattr(posed.load(level, convention), column):.1f} N, "
        f"in the table {before:.1f} N: the table is of version {version} or of another configuration, and a model "
        "written now would not be the one behind it; `cohort run` brings the table up to date"
    )
