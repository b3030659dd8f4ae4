"""Numbers that wait for acceptance: out of sight while they are held, current as a whole once accepted, whatever
crashes in between."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from changed_stores import (
    AFTER,
    BEFORE,
    EXAMS,
    NEW,
    NEWCOMER,
    attempt,
    changed_store,
    exam_row,
    want,
    write,
)

from cohort.errors import ConfigurationError
from cohort.loading.tasks import STANDING
from cohort.rows import LedgerRow, WantedRow
from cohort.tables.buckets import create_tables, read_rows, remove_exams
from cohort.tables.commit import commit
from cohort.tables.ledger import read_ledger
from cohort.tables.stages import STAGES
from pipelines.candidate import (
    StageChange,
    candidate_path,
    changed_stages,
    discard,
    finish_promotion,
    has_candidate,
    open_candidate,
    promote,
    waiting_change,
    withdraw_from_candidate,
)
from pipelines.exams import Artefacts
from pipelines.fingerprint import STAGE_VERSIONS
from pipelines.maintenance import compact

FEATURE_TABLES = ("vertebrae", "discs", "muscle_levels", "curvature", "loads")


def table(store: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(store / "tables" / name)


def state(store: Path) -> dict[str, list[tuple[object, ...]]]:
    """Rows of every current table that a promotion may touch, in an order of their own."""
    names = (*FEATURE_TABLES, "exams", "series", "quality", "ledger")
    return {name: sorted(map(repr, read_rows(store, name).to_pylist())) for name in names}


@pytest.fixture
def expected(tmp_path: Path) -> dict[str, list[tuple[object, ...]]]:
    """What tables should hold after acceptance: the new generation alone."""
    write(tmp_path / "expected", [*EXAMS, NEWCOMER], AFTER)
    return state(tmp_path / "expected")


def test_readers_see_old_numbers_while_held_and_new_ones_afterwards(tmp_path: Path, expected: object) -> None:
    store = changed_store(tmp_path / "store", new=[NEWCOMER])
    before = table(store, "discs")
    assert set(before["exam_id"]) == set(EXAMS)
    assert before["height_mm"].min() == pytest.approx(8.0)
    assert promote(store, NEW) == 13
    assert table(store, "discs")["height_mm"].min() == pytest.approx(8.3)
    assert state(store) == expected
    assert not candidate_path(store).exists()
    assert len(table(store, "runs")) == 2
    assert len(table(store, "wanted")) == 13


def test_the_history_of_the_accepting_run_has_every_row_that_became_current(tmp_path: Path) -> None:
    store = changed_store(tmp_path)
    promote(store, "accepting")
    for name in (*FEATURE_TABLES, "ledger", "exams", "quality"):
        parts = list((store / "history" / name / "run=accepting").glob("part-*.parquet"))
        assert sum(len(pd.read_parquet(part)) for part in parts) == len(table(store, name))


def test_rows_that_the_new_version_no_longer_gives_leave_the_tables(tmp_path: Path) -> None:
    refused = replace(AFTER, refused=(EXAMS[2],))
    store = changed_store(tmp_path, refused)
    promote(store, NEW)
    for name in FEATURE_TABLES:
        assert set(table(store, name)["exam_id"]) == set(EXAMS) - {EXAMS[2]}
    attempts = {stage: row.status for (exam_id, stage), row in read_ledger(store).items() if exam_id == EXAMS[2]}
    assert attempts == {"convert": "ok", "segment": "ok", "measure": "refused"}


def test_exams_that_the_change_has_not_reached_keep_their_numbers(tmp_path: Path) -> None:
    write(tmp_path, EXAMS, BEFORE)
    write(open_candidate(tmp_path, "change", note=str), EXAMS[:4], AFTER)
    promote(tmp_path, NEW)
    heights = table(tmp_path, "discs").groupby("exam_id")["height_mm"].min()
    assert [round(heights[exam_id] - 8.0 - k / 10, 3) for k, exam_id in enumerate(EXAMS)] == [0.3] * 4 + [0.0] * 8


def test_pictures_of_new_masks_become_current_with_the_numbers(tmp_path: Path) -> None:
    store = changed_store(tmp_path)
    for folder, text in ((store, "old"), (candidate_path(store), "new")):
        (folder / "review" / "ab" / "abc").mkdir(parents=True)
        ((folder / "review" / "ab" / "abc") / "sagittal.jpg").write_text(text)
    ((store / "review" / "ab" / "abc") / "note.txt").write_text("kept")
    promote(store, NEW)
    shown = {path.name: path.read_text() for path in (store / "review" / "ab" / "abc").iterdir()}
    assert shown == {"sagittal.jpg": "new", "note.txt": "kept"}


def test_gone_exams_do_not_come_back(tmp_path: Path) -> None:
    store = changed_store(tmp_path)
    remove_exams(store, [EXAMS[0], EXAMS[1]])
    gone = [exam_row(exam_id, "gone") for exam_id in EXAMS[:2]]
    commit(store, "later", {"exams": gone}, touched={})
    withdraw_from_candidate(store, [EXAMS[1]])  # a run that was killed before it came to the other one
    promote(store, NEW)
    for name in (*FEATURE_TABLES, "ledger"):
        assert set(table(store, name)["exam_id"]) == set(EXAMS[2:])
    statuses = dict(zip(*(table(store, "exams")[column] for column in ("exam_id", "status")), strict=True))
    assert [statuses[exam_id] for exam_id in EXAMS[:3]] == ["gone", "gone", "ok"]


def test_an_exam_that_came_back_meanwhile_is_current_again(tmp_path: Path) -> None:
    store = changed_store(tmp_path)
    remove_exams(store, [EXAMS[0]])
    commit(store, "later", {"exams": [exam_row(EXAMS[0], "gone")]}, touched={})
    want(store, [EXAMS[0]], AFTER)
    promote(store, NEW)
    assert set(table(store, "discs")["exam_id"]) == set(EXAMS)


KILLED = """
import os, signal, sys
from pathlib import Path
import cohort.tables.buckets as buckets
from pipelines.candidate import promote

moved, replace = 0, os.replace

def counted(source, target):
    global moved
    if ".parquet" in str(target):
        moved += 1
        if moved == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

buckets.os.replace = counted
promote(Path(sys.argv[1]), "accepting")
"""


@pytest.mark.parametrize("moves", [1, 3, 10, 25, 38])
def test_a_promotion_killed_in_the_middle_is_finished_by_the_next_command(
    tmp_path: Path, expected: object, moves: int
) -> None:
    store = changed_store(tmp_path / "store", new=[NEWCOMER])
    process = subprocess.run([sys.executable, "-c", KILLED, str(store), str(moves)], check=False)
    assert process.returncode == -signal.SIGKILL
    assert has_candidate(store)
    vouched = {exam_id for exam_id, stage in read_ledger(store) if stage == "load"}
    assert vouched <= set(table(store, "loads")["exam_id"])  # the ledger never promises what is not there
    assert finish_promotion(store)
    assert state(store) == expected
    assert not candidate_path(store).exists()
    assert not finish_promotion(store)
    parts = list((store / "history" / "discs" / "run=accepting").glob("part-*.parquet"))
    assert sum(len(pd.read_parquet(part)) for part in parts) == 5 * 13


def test_compaction_after_an_interrupted_promotion_doubles_no_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: object
) -> None:
    store = changed_store(tmp_path / "store", new=[NEWCOMER])

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pipelines.candidate.decide", killed)
        with pytest.raises(KeyboardInterrupt):
            promote(store, "accepting")
    compact(store)
    finish_promotion(store)
    assert state(store) == expected
    (part,) = (store / "history" / "discs" / "run=accepting").iterdir()
    assert len(pd.read_parquet(part)) == len(table(store, "discs"))


def test_promotion_of_nothing_is_an_error(tmp_path: Path) -> None:
    create_tables(tmp_path)
    with pytest.raises(ConfigurationError, match="no numbers wait"):
        promote(tmp_path, NEW)


def test_a_dropped_candidate_leaves_no_trace(tmp_path: Path) -> None:
    store = changed_store(tmp_path)
    before = state(store)
    discard(store)
    assert state(store) == before
    assert not has_candidate(store)
    assert not list(store.glob(".tmp-*"))
    discard(store)


def test_the_same_change_goes_on_and_another_one_starts_anew(tmp_path: Path) -> None:
    notes: list[str] = []
    write(tmp_path, EXAMS, BEFORE)
    folder = open_candidate(tmp_path, "one", note=notes.append)
    write(folder, EXAMS[:3], AFTER)
    assert open_candidate(tmp_path, "one", note=notes.append) == folder
    assert len(read_ledger(folder)) == 3 * len(STAGES)
    assert notes == []
    assert waiting_change(tmp_path) == "one"
    open_candidate(tmp_path, "another", note=notes.append)
    assert read_ledger(folder) == {}
    assert len(notes) == 1
    assert str(tmp_path) not in notes[0]


def test_the_run_that_held_numbers_says_so_when_another_change_drops_them(tmp_path: Path) -> None:
    store = changed_store(tmp_path)
    assert table(store, "runs").set_index("run_id")["change"][NEW] == "held"
    open_candidate(store, "another", note=str)
    assert table(store, "runs").set_index("run_id")["change"][NEW] == "discarded"


def artefacts(weights: str = "w", male: str = "m") -> Artefacts:
    return Artefacts({"disc": weights}, {"M": male, "F": "f"}, (STANDING,))


def made_with(used: Artefacts, exam_id: str, sex: str | None) -> list[LedgerRow]:
    """Attempts at all stages of an exam, as this software makes them with these artefacts."""
    parts = {stage: used.parts(stage, "i", sex) for stage in STAGES}
    return [
        replace(attempt(exam_id, stage, BEFORE), stage_version=one.version, artefacts=one.artefacts)
        for stage, one in parts.items()
    ]


def test_new_weights_and_base_models_are_changes_and_new_demographics_are_not(tmp_path: Path) -> None:
    people = zip(EXAMS[:3], ("M", "F", None), strict=True)
    rows = [row for exam_id, sex in people for row in made_with(artefacts(), exam_id, sex)]
    commit(tmp_path, "old", {"ledger": rows}, touched={})
    assert changed_stages(tmp_path, artefacts()) == ()
    assert changed_stages(tmp_path, artefacts(weights="v")) == (StageChange("segment", 3),)
    assert changed_stages(tmp_path, artefacts(male="n")) == (StageChange("load", 1),)
    assert changed_stages(tmp_path, replace(artefacts(), tasks=())) == ()


def test_new_code_is_a_change_where_a_sound_result_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = [replace(row, status="refused", reason="no_discs") for row in made_with(artefacts(), EXAMS[1], "M")]
    commit(tmp_path, "old", {"ledger": made_with(artefacts(), EXAMS[0], "M") + refused}, touched={})
    monkeypatch.setitem(STAGE_VERSIONS, "measure", 99)
    assert changed_stages(tmp_path, artefacts()) == (StageChange("measure", 1),)


def test_a_store_without_wanted_rows_still_promotes(tmp_path: Path) -> None:
    """Planning rewrites `wanted` whole; a promotion between must not take its absence for a sign."""
    store = changed_store(tmp_path)
    rows: list[WantedRow] = []
    commit(store, "x", {"wanted": rows}, touched={"wanted": [(exam_id,) for exam_id in EXAMS]})
    promote(store, NEW)
    assert table(store, "discs")["height_mm"].min() == pytest.approx(8.3)
