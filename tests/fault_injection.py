"""Real runs of a small archive, in processes of their own, with faults at chosen places; and the proof that a store is
as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
import pyarrow.parquet as pq
from pydicom import dcmread

from cohort.archive.pseudonym import Pseudonyms
from cohort.rows import TABLES
from cohort.tables.buckets import read_objects
from cohort.tables.fsck import fsck, wrong
from cohort.tables.ledger import read_ledger
from cohort.tables.stages import STAGES
from models.phantom.dicom import ROOT, write_exam
from models.phantom.exam import ExamPlan, make_exam

SOURCE = Path(__file__).parents[1]
HOOK = Path(__file__).parent / "fault_hook"
SEED = 9100
N_EXAMS = 5
DEADLINE_S = 240.0
"""Generous: it only ends tests that would wait for ever."""

CONFIG = """
[privacy]
key_file = "{key}"
[cluster]
workers = 1
device = "cpu"
[segment]
batch_exams = 2
[load]
tasks = ["standing"]
opensim_timeout_s = 0.01
[review]
overlays = false
"""
"""OpenSim's child is ended at once: which exam it checks depends on who comes first, so its rows are not compared."""

IN_STAGE = {
    "convert": "cohort.store.publish:_rename",
    "segment": "pipelines.segment_io:publish_labels",
    "measure": "pipelines.measure:write_rows",
    "load": "pipelines.load:_result",
}
"""Functions in the midst of each stage, after most of the work and before its result is there."""

_PROGRAM: Final = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from pipelines.cli import main; main()"
)
"""As in a terminal: where tests run in the background of a shell Ctrl-C is ignored, and would be by all they start.
Done by the program itself, because a fork that runs Python (`preexec_fn`) can hang in a process with threads."""

_VOLATILE = ("run_id", "seconds", "worker", "finished_at", "rss_mib")
_FEATURES = ("vertebrae", "discs", "muscles", "muscle_levels", "curvature", "loads")


def write_archive(folder: Path) -> None:
    """One phantom exam with the fewest slices that are accepted, and copies of it under other identifiers."""
    plan = ExamPlan(SEED, "M", 40, 1.76, 70.0, "none", 5)
    files = write_exam(folder / "e0", make_exam(plan), patient_name="A", patient_id="0")
    for k in range(1, N_EXAMS):
        for path in files:
            data = dcmread(path)
            for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
                setattr(data, name, f"{data[name].value}.{k}")
            data.PatientID = str(k)
            target = folder / f"e{k}" / path.relative_to(folder / "e0")
            target.parent.mkdir(parents=True, exist_ok=True)
            data.save_as(target)


@dataclass(frozen=True)
class Fault:
    """What happens where; `match` is a text in the arguments of the function, for example an exam."""

    where: str
    match: str
    do: str
    """pause, die, hang, grow or out_of_memory (tests/fault_hook/sitecustomize.py)."""
    flag: Path | None = None
    """Where a process that pauses leaves its number."""
    skip: int = 0
    """So many times nothing happens."""


@dataclass
class Run:
    """`cohort ...` in a session of its own."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        """All that it has printed."""
        return self.log.read_text()

    def session(self) -> set[int]:
        """Its living processes; one that has ended and waits for its parent is not alive."""
        return {pid for pid in psutil.pids() if _session_of(pid) == self.process.pid and _is_alive(pid)}

    def reached(self, flag: Path) -> int:
        """Number of the process that pauses at a fault, as soon as one does."""
        return int(self.reached_one({flag}).read_text())

    def reached_one(self, flags: Collection[Path]) -> Path:
        """One of several faults at which a process pauses, as soon as one does."""
        wait_for(lambda: any(flag.exists() for flag in flags) or self.process.poll() is not None)
        found = [flag for flag in flags if flag.exists()]
        assert found, self.said
        return found[0]

    def end(self) -> int:
        """Exit code; nothing of the session may live on."""
        try:
            code = self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            raise AssertionError(f"the run does not end:\n{self.said}") from None
        wait_for(lambda: not self.session())
        return code


def wait_for(condition: Any) -> None:
    """Until it is true; an error after the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def fill(disk: Path) -> Path:
    """Leave no room on a disk; the file that takes it."""
    with (disk / "other").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 12))
    return disk / "other"


def go_on(flag: Path) -> None:
    """Let a process that pauses continue."""
    flag.with_name(f"{flag.name}.go").touch()


@dataclass(frozen=True)
class Place:
    """An archive that tests share, and a folder of a test's own for store and configuration."""

    archive: Path
    key: Path
    folder: Path
    store: Path
    running: list[Run] = field(default_factory=list)

    def exam(self, k: int) -> str:
        """Pseudonym of an exam of the archive."""
        uid = f"{ROOT}.{SEED}" + (f".{k}" if k else "")
        return Pseudonyms(self.key.read_bytes()).exam_id(uid)

    @property
    def exams(self) -> list[str]:
        return [self.exam(k) for k in range(N_EXAMS)]

    def flag(self, name: str) -> Path:
        """Path for a fault that pauses."""
        return self.folder / f"flag-{name}"

    def configure(self, changes: Mapping[str, str] | None = None) -> Path:
        """A configuration file; `changes` maps lines to what stands in their place."""
        text = CONFIG.format(key=self.key)
        for old, new in (changes or {}).items():
            assert old in text
            text = text.replace(old, new)
        path = self.folder / "cohort.toml"
        path.write_text(text)
        return path

    def start(
        self,
        *words: str,
        faults: Sequence[Fault] = (),
        constants: Mapping[str, object] | None = None,
        clock: Path | None = None,
        changes: Mapping[str, str] | None = None,
    ) -> Run:
        """Begin `cohort run ARCHIVE --store STORE` with more words, or another command that begins with `words`."""
        told: dict[str, Any] = {"set": constants or {}, "faults": [asdict(fault) for fault in faults]}
        told |= {} if clock is None else {"clock": clock}
        ours = os.pathsep.join([str(HOOK), str(SOURCE)])
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DASK")}
        environment |= {"PYTHONPATH": ours, "COHORT_TEST_FAULTS": json.dumps(told, default=str)}
        command = words if words and not words[0].startswith("-") else ("run", str(self.archive), *words)
        config = () if command[0] == "fsck" else ("--config", str(self.configure(changes)))
        log = self.folder / f"log-{len(self.running)}"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, *command, "--store", str(self.store), *config],
                cwd=self.folder,
                env=environment,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self.running.append(Run(process, log))
        return self.running[-1]

    def run(self, *words: str, code: int = 0, **options: Any) -> str:
        """Run to the end; all that was printed."""
        run = self.start(*words, **options)
        assert run.end() == code, run.said
        return run.said

    def outcomes(self) -> dict[tuple[str, str], tuple[str, str | None]]:
        """Exam, stage -> status and reason, as the ledger says."""
        return {key: (row.status, row.reason) for key, row in read_ledger(self.store).items()}

    def run_rows(self) -> list[Any]:
        """Rows of the table `runs`, oldest first."""
        return sorted(read_objects(self.store, "runs"), key=lambda row: row.started_at)


@contextmanager
def place_of(archive: Path, key: Path, folder: Path, store: Path | None = None) -> Iterator[Place]:
    """A place whose processes are ended at the end, however a test ends."""
    place = Place(archive, key, folder, store or folder / "store")
    try:
        yield place
    finally:
        for run in place.running:
            for pid in run.session():
                os.kill(pid, signal.SIGKILL)
            run.process.wait()


def nothing_wrong(store: Path) -> bool:
    """Whether all that `cohort fsck` finds is mended by the next run, and every row of features is vouched for."""
    return not wrong(fsck(store, deep=True))


def _plain(rows: Sequence[Any]) -> list[str]:
    kept = ({name: value for name, value in asdict(row).items() if name not in _VOLATILE} for row in rows)
    return sorted(json.dumps(row, sort_keys=True) for row in kept)


def standing(store: Path) -> dict[str, list[str]]:
    """Rows of every table but `runs`, without what differs from one run to another, and without OpenSim's check."""
    found = {table: read_objects(store, table) for table in TABLES if table != "runs"}
    found["quality"] = [row for row in found["quality"] if not (row.structure or "").startswith("opensim")]
    return {table: _plain(rows) for table, rows in found.items()}


def history(store: Path) -> dict[str, set[str]]:
    """All rows of features that any run ever wrote."""
    found = {}
    for table in _FEATURES:
        paths = sorted((store / "history" / table).glob("run=*/part-*.parquet"))
        rows = [TABLES[table](**row) for path in paths for row in pq.ParquetFile(path).read().to_pylist()]
        found[table] = set(_plain(rows))
    return found


def assert_as_if_nothing_had_happened(store: Path, expected: Mapping[str, list[str]]) -> None:
    """Nothing lost, nothing twice, no number that a run without faults would not have found."""
    assert fsck(store, deep=True) == []
    assert {stage for _, stage in read_ledger(store)} == set(STAGES)
    found = standing(store)
    for table in expected:
        assert found[table] == expected[table], table
    for table, rows in history(store).items():
        assert rows <= set(expected[table]), table
