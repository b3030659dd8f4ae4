"""`cohort agreement`: readers' masks of the same exams compared, in pairs, and the statistics of all of them.

A reader is a person whose annotations are in the store, `automatic` (the networks' masks that the tables rest on) or
`candidate` (those of a changed model that wait for acceptance).
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from cohort.agreement.common_slices import automatic_reading
from cohort.agreement.compare import compare
from cohort.agreement.overlap_summary import overlap_summary_rows
from cohort.agreement.pairs import Loads, load_pairs
from cohort.agreement.rows import AGREEMENT_TABLES, OverlapRow, PairRow, Readers, agreement_table
from cohort.agreement.statistics import agreement_rows
from cohort.anatomy.measure import Measurements
from cohort.annotations.store import AUTOMATIC, CANDIDATE, Annotation, read_annotation, readers_of
from cohort.archive.demographics import VertebraCount
from cohort.errors import ConfigurationError, RefusedError, StoreError
from cohort.processes import process_pool
from cohort.rows import ExamRow
from cohort.store.exam import StoredExam, read_exam
from cohort.store.labels import read_labels
from cohort.store.layout import candidate_path
from cohort.store.publish import replacing
from cohort.tables.buckets import read_objects
from cohort.tables.ledger import read_ledger
from pipelines.base_models import store_base_models
from pipelines.config import LoadConfig, read_config
from pipelines.load import LoadTask, person_of, solve_people, tried
from pipelines.measure import is_t2_axial, measure_labelled, measured_rows
from pipelines.outcome import Result
from pipelines.read_exams import demographics_of

PROGRESS_EVERY: Final = 10

NETWORKS_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "disc_height_mm": ("disc",),
    "disc_centroid_distance_mm": ("disc",),
    "vertebra_centroid_distance_mm": ("vertebral_body",),
    "csa_cm2": ("muscle",),
    "muscle_centroid_distance_mm": ("muscle",),
    "compression_n": ("vertebral_body", "disc", "muscle"),
}
"""Quantity -> networks whose masks it is measured on; curvature, which is not here, on those of vertebral bodies."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class ExamTask:
    """Readings of one exam to compare."""

    store: Path
    exam: ExamRow
    labels: Mapping[str, str]
    """`automatic` and `candidate` -> label store relative to STORE."""
    readers: tuple[tuple[str, str], ...]
    loads: LoadTask
    """Settings of the loads; `measured_path` is not read, the rows are at hand."""
    problem: str | None = None
    """Why the readings are not to be compared."""


@dataclass(frozen=True)
class ExamAgreement:
    """What the readings of one exam gave."""

    pairs: list[PairRow] = field(default_factory=list)
    overlaps: list[OverlapRow] = field(default_factory=list)
    problem: str | None = None
    """Why the exam could not be read."""


@dataclass(frozen=True)
class Agreement:
    """Rows of all tables, by table, and the exams that could not be compared."""

    rows: Mapping[str, Sequence[Any]]
    n_exams: int
    problems: Mapping[str, str]
    """Exam -> why it could not be read."""


def agree(
    store: Path,
    *,
    first: str | None,
    second: str | None,
    config: Path | None,
    test_part: Mapping[str, frozenset[str]] | None,
    processes: int,
    report: Report,
    exams: Collection[str] | None = None,
) -> Agreement:
    """Compare all exams that two readers have read; every pair of readers where none is named.

    Parameters
    ----------
    first, second : codes of readers; None: any
    config : for loads; None: that of the store's latest run
    test_part : of `read_test_part`; None: every exam counts
    exams : only these; None: all

    Raises
    ------
    ConfigurationError
        if no exam has been read by two such readers
    """
    if first is not None and first == second:
        raise ConfigurationError("a reader is compared with another one; for intra-reader agreement import the second "
                                 "reading under a code of its own, for example anna-2")  # fmt: skip
    if exams is None and test_part is not None:
        exams = frozenset().union(*test_part.values())
    tasks = _tasks(store, first, second, read_config(config or _latest_config(store)).load, exams)
    if not tasks:
        wanted = " and ".join(name for name in (first, second) if name) or "two readers"
        raise ConfigurationError(f"no exam has been read by {wanted}; cohort annotations import brings readings in")
    pairs: list[PairRow] = []
    overlaps: list[OverlapRow] = []
    problems: dict[str, str] = {}
    for number, (task, found) in enumerate(zip(tasks, _compared(tasks, processes), strict=True), start=1):
        pairs += found.pairs
        overlaps += found.overlaps
        if found.problem:
            problems[task.exam.exam_id] = found.problem
        if number % PROGRESS_EVERY == 0 or number == len(tasks):
            report(f"{number} of {len(tasks)} exams compared")
    if test_part is not None:
        pairs = [row for row in pairs if _is_tested(row.exam_id, NETWORKS_OF.get(row.quantity), test_part)]
        overlaps = [row for row in overlaps if _is_tested(row.exam_id, (row.kind,), test_part)]
    rows = {"pairs": pairs, "overlaps": overlaps, "agreement": agreement_rows(pairs),
            "overlap_summary": overlap_summary_rows(overlaps)}  # fmt: skip
    return Agreement(rows, len(tasks) - len(problems), problems)


def _is_tested(exam_id: str, networks: Sequence[str] | None, test_part: Mapping[str, frozenset[str]]) -> bool:
    return all(exam_id in test_part.get(network, ()) for network in networks or ("vertebral_body",))


def read_test_part(path: Path, kind: str) -> dict[str, frozenset[str]]:
    """Network -> exams of its test part, from splits.csv of `cohort study split`.

    Parameters
    ----------
    kind : standard or shared

    Raises
    ------
    ConfigurationError
        if the file has not these columns, or no test part of this split
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = list(csv.DictReader(file))
    try:
        tested = [
            (line["network"], line["exam_id"]) for line in lines if (line["split"], line["part"]) == (kind, "test")
        ]
    except KeyError as error:
        raise ConfigurationError(f"{path.name} has no column {error}; cohort study split writes such files") from error
    if not tested:
        raise ConfigurationError(f"{path.name} has no test part of the {kind} split")
    return {network: frozenset(exam for name, exam in tested if name == network) for network in dict(tested)}


def _latest_config(store: Path) -> Path | None:
    """Configuration of the latest run that left one."""
    return max((store / "runs").glob("*/config.toml"), default=None)


def _tasks(
    store: Path, first: str | None, second: str | None, config: LoadConfig, exams: Collection[str] | None
) -> list[ExamTask]:
    """Exams with readings to compare, in alphabetic order."""
    sources = {AUTOMATIC: store} | ({CANDIDATE: candidate_path(store)} if CANDIDATE in (first, second) else {})
    ledgers = {code: read_ledger(folder, exams) for code, folder in sources.items()}
    waiting = (
        {row.exam_id: row for row in read_objects(sources[CANDIDATE], "exams", exams)} if CANDIDATE in sources else {}
    )
    chosen = []
    for exam in sorted(read_objects(store, "exams", exams), key=lambda row: row.exam_id):
        made = {code: ledger.get((exam.exam_id, "segment")) for code, ledger in ledgers.items()}
        labels = {code: row.path for code, row in made.items() if row is not None and row.path}
        readers = tuple(_reader_pairs([*readers_of(store, exam.exam_id), *labels], first, second))
        if readers and exam.store_path:
            chosen.append((exam, labels, readers))
    if not chosen:
        return []
    base_models = {sex: model.path for sex, model in store_base_models(store, config).items()}
    return [
        ExamTask(store, exam, labels, readers, _load_task(store, exam, config, base_models),
                 _other_images(exam, waiting.get(exam.exam_id, exam)))
        for exam, labels, readers in chosen
    ]  # fmt: skip


def _other_images(exam: ExamRow, waiting: ExamRow) -> str | None:
    """Masks of a changed model whose images were converted anew lie on those: another grid, or another series."""
    same = waiting.store_path in (None, exam.store_path)
    return None if same else "the candidate's masks are of images that were converted anew"


def _reader_pairs(readers: Sequence[str], first: str | None, second: str | None) -> Iterator[tuple[str, str]]:
    """Pairs of readers of one exam: persons before networks, so that differences are those from a person."""
    if first is not None and second is not None:
        if {first, second} <= set(readers):
            yield first, second
        return
    for one, other in combinations(readers, 2):
        if first in (None, one) and second in (None, other):
            yield one, other
        elif (first is None or first == other) and (second is None or second == one):
            yield other, one


def _load_task(store: Path, exam: ExamRow, config: LoadConfig, base_models: Mapping[str, Path]) -> LoadTask:
    return LoadTask(
        store=store,
        measured_path="",
        demographics=demographics_of(exam),
        tasks=config.all_tasks,
        base_models=base_models,
        with_opensim=False,
        opensim_timeout_s=config.opensim_timeout_s,
        use=config.personalise,
        impute=config.impute,
        assumptions=config.assumptions,
    )


def _compared(tasks: Sequence[ExamTask], processes: int) -> Iterable[ExamAgreement]:
    if processes == 1 or len(tasks) == 1:
        yield from map(compare_exam, tasks)
        return
    with process_pool(processes) as pool:
        yield from pool.map(compare_exam, tasks)


def compare_exam(task: ExamTask) -> ExamAgreement:
    """Compare the readings of one exam: overlaps, pairs of measurements, and pairs of loads.

    Nothing is raised: what cannot be read, or an unexpected error, is the exam's own problem.
    """
    if task.problem:
        return ExamAgreement(problem=task.problem)
    try:
        return _compared_exam(task)
    except StoreError as error:
        return ExamAgreement(problem=str(error))
    except Exception as error:  # one exam must not end the others; its text may name a path
        return ExamAgreement(problem=f"internal_error, {type(error).__name__}")


def _compared_exam(task: ExamTask) -> ExamAgreement:
    exam = read_exam(task.store / (task.exam.store_path or ""))
    codes = dict.fromkeys(code for pair in task.readers for code in pair)
    readings = {code: _reading(task, exam, code) for code in codes}
    found = ExamAgreement()
    for first, second in task.readers:
        pairs, overlaps = _compared_readings(task, exam, readings[first], readings[second])
        found.pairs.extend(pairs)
        found.overlaps.extend(overlaps)
    return found


def _reading(task: ExamTask, exam: StoredExam, code: str) -> Annotation:
    if code in task.labels:
        return automatic_reading(task.exam.exam_id, code, read_labels(task.store / task.labels[code], exam))
    return read_annotation(task.store, exam, task.exam.exam_id, code)


def _compared_readings(
    task: ExamTask, exam: StoredExam, first: Annotation, second: Annotation
) -> tuple[list[PairRow], list[OverlapRow]]:
    row = task.exam
    vertebrae = VertebraCount(row.lumbar_vertebrae, row.thoracic_vertebrae)
    found = compare(
        first,
        second,
        lambda labelled: measure_labelled(row.exam_id, labelled, vertebrae, t2_axial=is_t2_axial(exam)),
        subject_id=row.subject_id,
    )
    who = Readers(
        exam_id=row.exam_id, subject_id=row.subject_id, first_reader=first.reader, second_reader=second.reader
    )
    ours, theirs = _loads(task, (found.first, found.second))
    tasks = [one.name for one in task.loads.tasks]
    loads = load_pairs(ours, theirs, tasks=tasks, blocked=found.no_loads, who=who)
    return found.pairs + loads, found.overlaps


def _loads(task: ExamTask, measured: Sequence[Measurements]) -> list[Loads]:
    """Loads by each reader's masks, or why there are none: as stage load computes them from measured rows."""
    exam_id = task.exam.exam_id
    people = [tried(person_of, exam_id, task.loads, measured_rows(found)) for found in measured]
    return [_rows_or_reason(answer) for answer in solve_people(people)]


def _rows_or_reason(answer: Result | Exception) -> Loads:
    if isinstance(answer, RefusedError):
        return answer.reason
    if isinstance(answer, Exception):
        raise answer
    return list(answer.rows["loads"])


def write_agreement(folder: Path, rows: Mapping[str, Sequence[Any]]) -> None:
    """Write each table of `AGREEMENT_TABLES` as Parquet and as CSV; a file that is there is replaced as a whole."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in AGREEMENT_TABLES:
        table = agreement_table(name, rows[name])
        with replacing(folder / f"{name}.parquet") as path:
            pq.write_table(table, path, compression="zstd")
        with replacing(folder / f"{name}.csv") as path:
            pa_csv.write_csv(table, path)


def reasons(rows: Sequence[PairRow | OverlapRow]) -> Counter[str]:
    """Reason code -> number of rows that carry it."""
    return Counter(code for row in rows if row.reason for code in row.reason.split("+"))
