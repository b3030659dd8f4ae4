"""How every exam stands, and what a run did: the tables `exams`, `series`, `runs`, and the summary that people read."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cohort.rows import ExamRow, QualityRow, RunRow
from cohort.tables.buckets import Key, read_objects, row_key
from cohort.tables.commit import commit
from cohort.tables.ledger import Ledger
from pipelines.exams import Exam, ExamPlan

SEVERITY = ("ok", "flagged", "refused", "failed")


@dataclass(frozen=True)
class Summary:
    """What one run did and how the archive stands now."""

    run: RunRow
    reasons: dict[str, int]
    """Reason code -> exams that carry it as their status' reason."""
    unusable_files: dict[str, int]
    """Reason code -> files."""
    store: Path

    @property
    def did_nothing(self) -> bool:
        """Nothing had changed."""
        return self.run.stages_run == 0 and self.run.n_files_read == 0 and self.run.n_gone == 0

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps(
            {**dataclasses.asdict(self.run), "reasons": self.reasons, "unusable_files": self.unusable_files}, indent=1
        )


def exam_row(exam: Exam, plan: ExamPlan | None, ledger: Ledger) -> ExamRow:
    """How an exam stands: the worst of its selection, its demographics and its stages."""
    states = [("ok", None), *_selection_states(exam), *_stage_states(plan, ledger)]
    status, reason = max(states, key=lambda state: SEVERITY.index(state[0]))  # the first of the worst
    demographics = exam.demographics
    converted = ledger.get((exam.exam_id, "convert")) if plan else None
    return ExamRow(
        exam_id=exam.exam_id,
        subject_id=exam.subject_id,
        status=status,
        reason=reason,
        sagittal_series_id=exam.selection.sagittal_series_id,
        axial_series_id=exam.selection.axial_series_id,
        **dataclasses.asdict(demographics),
        vendor=exam.vendor,
        field_t=exam.field_t,
        n_sagittal_slices=len(exam.sagittal) or None,
        n_axial_slices=len(exam.axial) or None,
        n_axial_stacks=next((row.n_stacks for row in exam.selection.series if row.role == "axial_t1"), None),
        store_path=converted.path if converted else None,
    )


def _selection_states(exam: Exam) -> list[tuple[str, str | None]]:
    states: list[tuple[str, str | None]] = []
    if exam.selection.sagittal_series_id is None:
        states.append(("refused", exam.selection.reason))
    elif exam.selection.reason:
        states.append(("flagged", exam.selection.reason))
    return states + [("flagged", flag.reason) for flag in exam.flags]


def _stage_states(plan: ExamPlan | None, ledger: Ledger) -> list[tuple[str, str | None]]:
    if plan is None:
        return []
    attempts = [ledger.get((one.exam_id, one.stage)) for one in plan.wanted]
    current = [
        row for row, one in zip(attempts, plan.wanted, strict=True) if row and row.fingerprint == one.fingerprint
    ]
    return [(row.status, row.reason) for row in current]


def update_exam_tables(
    store: Path, run_id: str, exams: Sequence[Exam], rows: Sequence[ExamRow], gone: Iterable[str]
) -> None:
    """Commit `exams`, `series` and the flags of selection, but only of exams for which they differ from what stands."""
    leaving = set(gone)
    gone_rows = [
        replace(row, status="gone", reason="gone") for row in read_objects(store, "exams") if row.exam_id in leaving
    ]
    new: dict[str, list[Any]] = {
        "exams": [*rows, *gone_rows],
        "series": [row for exam in exams for row in exam.selection.series],
        "quality": [flag for exam in exams for flag in _selection_flags(exam)],
    }
    changed: dict[str, list[Any]] = {}
    touched: dict[str, set[Key]] = {}
    for table, table_rows in new.items():
        before = _by_key(table, _selection_part(table, read_objects(store, table)))
        after = _by_key(table, table_rows)
        keys = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        if keys:
            touched[table] = keys
            changed[table] = [row for key in sorted(keys) for row in after.get(key, ())]
    if touched:
        commit(store, run_id, changed, touched=touched)


def _selection_flags(exam: Exam) -> list[QualityRow]:
    flags = list(exam.flags)
    if exam.selection.reason:
        flags.append(QualityRow(exam_id=exam.exam_id, stage="select", reason=exam.selection.reason))
    return flags


def _selection_part(table: str, rows: Iterable[Any]) -> list[Any]:
    """Of `quality` only the flags of scan and select are kept here; stages keep their own."""
    return [row for row in rows if table != "quality" or row.stage in ("scan", "select")]


def _by_key(table: str, rows: Iterable[Any]) -> Mapping[Key, list[Any]]:
    groups: defaultdict[Key, list[Any]] = defaultdict(list)
    for row in rows:
        groups[row_key(table, row)].append(row)
    return groups


def count_reasons(rows: Iterable[ExamRow]) -> dict[str, int]:
    """Reason code -> number of exams, most frequent first."""
    return dict(Counter(row.reason for row in rows if row.reason).most_common())
