"""STORE/candidate: what new weights, new code or new base models computed, until somebody or the limits accept it.

The folder is laid out like a store (candidate/tables, candidate/history, candidate/review with pictures of the new
masks) and holds rows only of exams that were redone, or came in, since the change. Current tables stay as they are
until `promote`. A run that is stopped leaves the folder for the next one; a folder for another change is dropped, which
loses nothing but computing time.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cohort.errors import ConfigurationError
from cohort.rows import RunRow
from cohort.store.layout import candidate_path
from cohort.store.publish import TEMPORARY_PREFIX, replacing
from cohort.tables.buckets import Key, create_tables, key_columns, read_objects, read_rows, remove_exams, replace_rows
from cohort.tables.commit import commit
from cohort.tables.promotion import promote_rows
from cohort.tables.stages import STAGE_TABLES, STAGES, later_stages
from pipelines.exams import Artefacts
from pipelines.fingerprint import NOTHING

_MARKER: Final = "change.json"
_SOUND: Final = pa.array(["ok", "flagged"])


@dataclass(frozen=True)
class StageChange:
    """A stage of which sound results stand in the tables that another version, network or base model made."""

    stage: str
    n_exams: int
    """Exams whose result will be made anew."""


def has_candidate(store: Path) -> bool:
    """Say if numbers wait for acceptance."""
    return (candidate_path(store) / _MARKER).exists()


def waiting_change(store: Path) -> str | None:
    """The change (`Artefacts.models`) whose numbers wait; None where none do."""
    found = _marker(store).get("change")
    return None if found is None else str(found)


def require_candidate(store: Path) -> None:
    """Raise `ConfigurationError` where no numbers wait."""
    if not has_candidate(store):
        raise ConfigurationError("no numbers wait for acceptance in this store")


def changed_stages(store: Path, artefacts: Artefacts) -> tuple[StageChange, ...]:
    """Stages with sound results, in the current tables, that this software, networks or base models did not make.

    A run that finds any is gated. A new parameter, new images or new demographics are no change in this sense: they are
    what the user asked for. `StoreError` when the store has no tables.
    """
    rows = read_rows(store, "ledger").select(["stage", "status", "stage_version", "artefacts"])
    sound = rows.filter(pc.is_in(rows["status"], value_set=_SOUND))
    groups = sound.group_by(["stage", "stage_version", "artefacts"]).aggregate([([], "count_all")]).to_pylist()
    changed: defaultdict[str, int] = defaultdict(int)
    for group in groups:
        if (group["stage_version"], group["artefacts"]) not in _made_by(artefacts, group["stage"]):
            changed[group["stage"]] += group["count_all"]
    return tuple(StageChange(stage, changed[stage]) for stage in STAGES if stage in changed)


def _made_by(artefacts: Artefacts, stage: str) -> set[tuple[int, str]]:
    """Version and digest of artefacts that results of today can have; load's differ between the sexes."""
    parts = [artefacts.parts(stage, NOTHING, sex) for sex in (None, *artefacts.base_models)]
    return {(one.version, one.artefacts) for one in parts}


def open_candidate(store: Path, what: str, *, note: Callable[[str], None]) -> Path:
    """The folder for the change `what` (`Artefacts.models`): as an earlier run left it, or new.

    A folder for another change is dropped, and said so with `note`.
    """
    folder = candidate_path(store)
    if folder.exists() and waiting_change(store) != what:
        note("numbers that waited for acceptance are dropped: they belong to another change of weights or code")
        drop(store)
    create_tables(folder)
    if not has_candidate(store):
        _write_marker(store, {"change": what})
    return folder


def held_run(store: Path) -> str | None:
    """The latest run that held the numbers which wait now; None where no run has, or nothing waits."""
    if not has_candidate(store):
        return None
    first = min(read_rows(candidate_path(store), "ledger")["run_id"].to_pylist(), default="")
    rows: list[RunRow] = read_objects(store, "runs")
    return max((row.run_id for row in rows if row.change == "held" and row.run_id >= first), default=None)


def decide(store: Path, run_id: str, decision: str) -> None:
    """Say in the row of a held run what became of its numbers; nothing where there is no such row."""
    rows: list[RunRow] = [row for row in read_objects(store, "runs") if row.run_id == run_id and row.change == "held"]
    if rows:
        commit(store, run_id, {"runs": [replace(row, change=decision) for row in rows]}, touched={})


def withdraw_from_candidate(store: Path, exam_ids: Collection[str]) -> None:
    """Take exams out of the candidate that left the archive, so that accepting it does not bring them back."""
    if not has_candidate(store):
        return
    folder = candidate_path(store)
    remove_exams(folder, exam_ids)
    replace_rows(folder, "exams", [(exam_id,) for exam_id in exam_ids], [])


def promote(store: Path, run_id: str) -> int:
    """Make all rows of the candidate current, then remove it; returns the number of exams.

    Killed at any point, it is finished by `finish_promotion`, which the next command calls before anything else. Until
    then readers see whole files, of which some may be old and some new.

    Parameters
    ----------
    run_id : run that accepts, whose history gets the rows; its row in `runs`, where it says held, says accepted then

    Raises
    ------
    ConfigurationError
        when nothing waits
    """
    require_candidate(store)
    _write_marker(store, {**_marker(store), "accepted_by": run_id})
    touched = _touched(store)
    promote_rows(candidate_path(store), store, run_id, touched)
    _move_pictures(store)
    decide(store, run_id, "accepted")
    discard(store)
    return len({key[0] for keys in touched.values() for key in keys})


def finish_promotion(store: Path) -> bool:
    """Finish a promotion that a crash interrupted; says whether there was one."""
    accepted_by = _marker(store).get("accepted_by") if has_candidate(store) else None
    if accepted_by is None:
        return False
    promote(store, accepted_by)
    return True


def drop(store: Path) -> None:
    """Remove the candidate, and say in the row of the run that held the numbers that they are gone."""
    if run_id := held_run(store):
        decide(store, run_id, "discarded")
    discard(store)


def discard(store: Path) -> None:
    """Remove the candidate; renamed first, so that what is half removed is never taken for one."""
    folder = candidate_path(store)
    if folder.exists():
        leaving = store / f"{TEMPORARY_PREFIX}candidate-{uuid.uuid4().hex}"  # swept later if this is killed
        os.rename(folder, leaving)
        shutil.rmtree(leaving)


def _move_pictures(store: Path) -> None:
    """Pictures of the new masks take the place of the old ones, each in one step."""
    waiting = candidate_path(store) / "review"
    for picture in sorted(path for path in waiting.rglob("*") if path.is_file()):
        target = store / "review" / picture.relative_to(waiting)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(picture, target)


def _touched(store: Path) -> dict[str, set[Key]]:
    """Table -> keys that the candidate's rows take the place of, with all that later stages had written.

    Rows of the choice of series are replaced where the candidate has any. Exams that left the archive stay out.
    """
    folder = candidate_path(store)
    exams = read_rows(store, "exams")
    gone = _ids(exams.filter(pc.equal(exams["status"], "gone"))) - _ids(read_rows(store, "wanted"))
    touched: defaultdict[str, set[Key]] = defaultdict(set)
    for table in ("exams", "series"):
        touched[table] = {(exam_id,) for exam_id in _ids(read_rows(folder, table)) - gone}
    touched["quality"] = {key for key in _keys(folder, "quality") if key[0] not in gone and key[1] not in STAGES}
    for exam_id, stage in _keys(folder, "ledger"):
        for redone in (stage, *later_stages(stage)) if exam_id not in gone else ():
            for table in ("quality", "ledger"):
                touched[table].add((exam_id, redone))
            for table in STAGE_TABLES.get(redone, ()):
                touched[table].add((exam_id,))
    return touched


def _keys(folder: Path, table: str) -> set[Key]:
    rows = read_rows(folder, table)
    return set(zip(*(rows[column].to_pylist() for column in key_columns(table)), strict=True))


def _ids(rows: pa.Table) -> set[str]:
    return set(rows["exam_id"].to_pylist())


def _marker(store: Path) -> dict[str, Any]:
    path = candidate_path(store) / _MARKER
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _write_marker(store: Path, content: dict[str, Any]) -> None:
    with replacing(candidate_path(store) / _MARKER) as path:
        path.write_text(json.dumps(content) + "\n")
