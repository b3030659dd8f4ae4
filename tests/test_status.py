"""How a store stands: work left, runs, locks, room on the disk."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_report import run_row

from cohort.rows import ExamRow, LedgerRow, QualityRow, WantedRow
from cohort.tables.commit import commit
from cohort.tables.stages import STAGES
from pipelines.cli import main
from pipelines.disk_use import disk_use
from pipelines.status import store_status, who_works

RUN = "20260101T220000-aaaaaa"


def wanted(exam_id: str, **fingerprints: str | None) -> WantedRow:
    texts = {one.name: "x" for one in fields(WantedRow) if one.type == "str"}
    stages = {stage: f"new-{stage}" for stage in STAGES}
    return WantedRow(**{**texts, "exam_id": exam_id, "newest_ns": 1, **stages, **fingerprints})


def attempts(exam_id: str, last: str = "load", old: str = "load", **changes: object) -> list[LedgerRow]:
    """Attempts until the stage `last`, which has the `changes`; those after the stage `old` have an old fingerprint."""
    rows = []
    for k, stage in enumerate(STAGES[: STAGES.index(last) + 1]):
        age = "new" if k <= STAGES.index(old) else "old"
        own = changes if stage == last else {}
        values = {
            "status": "ok",
            "seconds": 1.0,
            "worker": "w",
            "run_id": RUN,
            "finished_at": "2026-02-03T04:05:06+00:00",
        }
        rows.append(LedgerRow(exam_id=exam_id, stage=stage, fingerprint=f"{age}-{stage}", **{**values, **own}))
    return rows


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """One exam for each way in which an exam can stand."""
    store = tmp_path / "store"
    ledger = [
        *attempts("done"),
        *attempts("weights", old="convert"),  # segment, measure and load are to be done again
        *attempts("refused", last="measure", status="refused", reason="truncated"),
        *attempts("failed", last="segment", status="failed", reason="internal_error"),
        *attempts("full", last="measure", status="failed", reason="disk_full"),
    ]
    ids = ("done", "weights", "refused", "failed", "full", "fresh", "nothing")
    statuses = ("ok", "ok", "refused", "failed", "failed", "pending", "refused")
    exams = [
        ExamRow(exam_id=one, subject_id="s", status=status, reason="truncated" if status == "refused" else None)
        for one, status in zip((*ids, "gone"), (*statuses, "gone"), strict=True)
    ]
    flags = [QualityRow(exam_id=one, stage=stage, reason="t2_axial") for one in ids[:2] for stage in ("select", "load")]
    wants = [wanted(one) for one in ids[:6]] + [wanted("nothing", **dict.fromkeys(STAGES))]
    rows = {"exams": exams, "ledger": ledger, "wanted": wants, "quality": flags, "runs": [run_row(RUN)]}
    commit(store, RUN, rows, touched={})
    return store


def test_work_left_is_what_the_next_run_would_do(store: Path) -> None:
    """`weights` from segment on, `full` from measure on, `fresh` all; what was refused or failed bars what follows."""
    assert store_status(store).pending == {"convert": 1, "segment": 2, "measure": 3, "load": 3}


def test_numbers_that_are_held_back_are_not_work_left(store: Path) -> None:
    rows = attempts("weights") + attempts("failed", last="segment", status="failed", reason="internal_error")
    commit(store / "candidate", RUN, {"ledger": rows}, touched={})
    found = store_status(store)
    assert found.held_exams == 1
    assert found.pending == {"convert": 1, "segment": 1, "measure": 2, "load": 2}


def test_exams_months_and_flags_are_counted(store: Path) -> None:
    found = store_status(store)
    assert found.n_exams == 7
    assert [(one.status, one.reason, one.exams) for one in found.exams][:2] == [("failed", None, 2), ("ok", None, 2)]
    assert found.by_month == {"2026-02": 2}
    (flag,) = found.flags
    assert (flag.reason, flag.exams, flag.share) == ("t2_axial", 2, 2 / 7)


def test_runs_are_listed_with_those_that_left_no_record(store: Path) -> None:
    (store / "runs" / "20260102T220000-bbbbbb").mkdir(parents=True)
    killed, stopped = store_status(store).runs
    assert (killed.run_id, killed.ended) == ("20260102T220000-bbbbbb", "no record")
    assert (stopped.run_id, stopped.ended, stopped.change) == (RUN, "stopped", "held")
    lock(store, pid=os.getpid(), host=socket.gethostname())
    assert store_status(store).runs[0].ended == "working"


def lock(store: Path, *, pid: int, host: str, age_s: float = 0.0) -> None:
    beat = (datetime.now(UTC) - timedelta(seconds=age_s)).isoformat(timespec="seconds")
    content = {"command": "nightly", "host": host, "pid": pid, "started_at": beat, "heartbeat_at": beat, "beats": 3}
    (store / ".lock.json").write_text(json.dumps(content))


def test_a_lock_tells_who_works_hangs_or_died(tmp_path: Path) -> None:
    here = socket.gethostname()
    assert who_works(tmp_path).state == "none"
    lock(tmp_path, pid=os.getpid(), host=here)
    assert who_works(tmp_path).state == "working"
    lock(tmp_path, pid=os.getpid(), host=here, age_s=3600)
    assert who_works(tmp_path).state == "silent"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    lock(tmp_path, pid=ended.pid, host=here)
    assert who_works(tmp_path).state == "dead"
    lock(tmp_path, pid=ended.pid, host="elsewhere")
    assert who_works(tmp_path).state == "working"
    (tmp_path / ".lock.json").write_text('{"host": ')
    assert who_works(tmp_path).state == "unknown"


def test_room_is_counted_and_estimated_where_time_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(20):
        folder = tmp_path / "exams" / f"a{k % 4}" / f"exam{k}"
        folder.mkdir(parents=True)
        (folder / "chunk").write_bytes(bytes(range(256)) * 64)
    (tmp_path / "history").mkdir()
    exact = disk_use(tmp_path, 20)
    assert exact["exams"].exact
    assert exact["exams"].bytes == 20 * (tmp_path / "exams" / "a0" / "exam0" / "chunk").stat().st_blocks * 512
    assert exact["history"].bytes == 0
    monkeypatch.setattr("pipelines.disk_use.FOLDER_S", 0.0)
    estimated = disk_use(tmp_path, 20)["exams"]
    assert not estimated.exact
    assert estimated.bytes == exact["exams"].bytes


def test_the_command_prints_tables_or_one_object(store: Path) -> None:
    result = CliRunner().invoke(main, ["status", "--store", str(store), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["pending"]["load"] == 3
    assert found["working"]["state"] == "none"
    assert found["disk"]["tables"]["bytes"] > 0
    text = CliRunner().invoke(main, ["status", "--store", str(store)]).output
    for part in ("No run works in this store now.", RUN, "Work left", "t2_axial", "28.6%", "free"):
        assert part in text, part


def test_a_store_without_tables_is_refused_in_words(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["status", "--store", str(tmp_path)])
    assert result.exit_code == 2
    assert "no tables yet" in result.output


@pytest.mark.parametrize("command", ["status", "gc", "fsck", "compact", "migrate", "report"])
def test_a_mistyped_store_is_refused_and_not_made(command: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [command, "--store", str(tmp_path / "stroe")])
    assert result.exit_code == 2
    assert "folder stroe does not exist" in result.output
    assert not (tmp_path / "stroe").exists()
