"""How every exam stands, and what a run did: the tables `exams`, `series`, `runs`, and the summary that people read."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds

from cohort.archive.select import Choice
from cohort.rows import ExamRow, QualityRow, RunRow
from cohort.stacks import Plane
from cohort.tables.buckets import Key, read_objects, row_key, table_dataset
from cohort.tables.commit import commit
from cohort.tables.ledger import Ledger
from pipelines.exams import Exam, ExamPlan

SEVERITY = ("ok", "flagged", "pending", "refused", "failed")


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
        """Nothing had changed; a run that was stopped does not know."""
        run = self.run
        return run.ended == "complete" and run.stages_run == 0 and run.n_files_read == 0 and run.n_gone == 0

    def to_json(self) -> str:
        """One JSON object in one line, so that the summaries of many nights are JSON Lines."""
        return json.dumps(
            {**dataclasses.asdict(self.run), "reasons": self.reasons, "unusable_files": self.unusable_files}
        )


def exam_row(selected: ExamRow, plan: ExamPlan | None, ledger: Ledger) -> ExamRow:
    """How an exam stands: the worst of its selection, its demographics and its stages.

    It is `pending` if a stage has not been tried yet on what is wanted of it now.

    Parameters
    ----------
    selected : of `selected_row`
    plan : None if nothing was chosen, or if the chosen files have not been hashed yet
    """
    status, reason = _worst([(selected.status, selected.reason), *_stage_states(selected, plan, ledger)])
    converted = ledger.get((selected.exam_id, "convert")) if plan else None
    return replace(selected, status=status, reason=reason, store_path=converted.path if converted else None)


def selected_row(exam: Exam) -> ExamRow:
    """How an exam stands before any stage."""
    status, reason = _worst([("ok", None), *_selection_states(exam)])
    sagittal, axial = exam.selection.sagittal, exam.selection.axial
    chosen = {row.plane: row for row in exam.selection.series if row.role}
    return ExamRow(
        exam_id=exam.exam_id,
        subject_id=exam.subject_id,
        status=status,
        reason=reason,
        **_choice_columns("sagittal", sagittal),
        sagittal_reason=exam.selection.sagittal_reason,
        **_choice_columns("axial", axial),
        axial_weighting=exam.axial_weighting,
        axial_reason=exam.selection.axial_reason,
        **dataclasses.asdict(exam.demographics),
        lumbar_vertebrae=exam.vertebrae.lumbar,
        thoracic_vertebrae=exam.vertebrae.thoracic,
        vendor=exam.vendor,
        field_t=exam.field_t,
        n_sagittal_slices=chosen["sagittal"].n_slices if sagittal else None,
        n_axial_slices=chosen["axial"].n_slices if axial else None,
        n_axial_stacks=chosen["axial"].n_stacks if axial else None,
    )


def _worst(states: Iterable[tuple[str, str | None]]) -> tuple[str, str | None]:
    """The first of the worst."""
    return max(states, key=lambda state: SEVERITY.index(state[0]))


def _choice_columns(plane: Plane, choice: Choice | None) -> dict[str, Any]:
    """Columns of the table `exams` that tell what was chosen and what came next."""
    if choice is None:
        return {}
    return {
        f"{plane}_series_id": choice.series_id,
        f"{plane}_part": choice.part,
        f"{plane}_score": choice.score,
        f"{plane}_runner_up_id": choice.runner_up_id,
        f"{plane}_runner_up_score": choice.runner_up_score,
    }


def _selection_states(exam: Exam) -> list[tuple[str, str | None]]:
    """Without sagittal images there is no exam; all else that selection finds is flagged."""
    states: list[tuple[str, str | None]] = [
        ("refused" if flag.structure == "sagittal" else "flagged", flag.reason) for flag in _flags_of_choice(exam)
    ]
    return states + [("flagged", flag.reason) for flag in exam.flags]


def _flags_of_choice(exam: Exam) -> list[QualityRow]:
    """Flags of selection, that of the sagittal plane first."""
    t2 = "t2_axial" if exam.axial_weighting == "t2" else None
    found = {"sagittal": exam.selection.sagittal_reason, "axial": exam.selection.axial_reason or t2}
    return [
        QualityRow(exam_id=exam.exam_id, stage="select", reason=reason, structure=plane)
        for plane, reason in found.items()
        if reason
    ]


def _stage_states(selected: ExamRow, plan: ExamPlan | None, ledger: Ledger) -> list[tuple[str, str | None]]:
    if plan is None:
        return [("pending", None)] if selected.sagittal_series_id else []
    attempts = [(fingerprint, ledger.get((plan.exam_id, stage))) for stage, fingerprint in plan.fingerprints.items()]
    current = [row for fingerprint, row in attempts if row and row.fingerprint == fingerprint]
    untried: list[tuple[str, str | None]] = [("pending", None)] * (len(current) < len(attempts))
    return [(row.status, row.reason) for row in current] + untried


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
        "quality": [flag for exam in exams for flag in selection_flags(exam)],
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


def selection_flags(exam: Exam) -> list[QualityRow]:
    """Flags of demographics, vertebrae and the choice of series."""
    return [*exam.flags, *_flags_of_choice(exam)]


def _selection_part(table: str, rows: Iterable[Any]) -> list[Any]:
    """Of `quality` only the flags of scan and select are kept here; stages keep their own."""
    return [row for row in rows if table != "quality" or row.stage in ("scan", "select")]


def _by_key(table: str, rows: Iterable[Any]) -> Mapping[Key, list[Any]]:
    groups: defaultdict[Key, list[Any]] = defaultdict(list)
    for row in rows:
        groups[row_key(table, row)].append(row)
    return groups


def count_exams(store: Path) -> tuple[Counter[str], dict[str, int]]:
    """Status -> exams in the archive; reason code -> exams that carry it as their status' reason, most frequent
    first."""
    exams = table_dataset(store, "exams").to_table(columns=["status", "reason"], filter=ds.field("status") != "gone")
    reasons = Counter(exams["reason"].drop_null().to_pylist())
    return Counter(exams["status"].to_pylist()), dict(reasons.most_common())


def mark_gone(store: Path, run_id: str, gone: Collection[str]) -> None:
    """Write `gone` as the status of exams that left the archive; an exam that no row knows gets none."""
    if not gone:
        return
    found = table_dataset(store, "exams").to_table(filter=ds.field("exam_id").isin(list(gone)))
    rows = [ExamRow(**values | {"status": "gone", "reason": "gone"}) for values in found.to_pylist()]
    commit(store, run_id, {"exams": rows}, touched={})
