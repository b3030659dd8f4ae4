"""Archives of many exams: throughput, overhead, planning and tables, each beside a rival in the same run.

python benchmarks/scale.py [--exams 24] [--workers 1 2] [--plan 100000 1000000] [--only PART ...] [--json]

Parts, and what stands beside each:

- chain: a synthetic archive end to end through `cohort run` with CPU workers and a network worker; beside it the same
  stages one after another in one process, without Dask. A second run with nothing to do.
- overhead: stages that do nothing, for exams that are read from a real file index, planned, scheduled, and committed to
  real tables; beside it the same number of tasks through Dask's own `Client.map`, with neither.
- plan: wanted fingerprints against the ledger; beside it the same comparison with Python objects and dictionaries.
- nightly: a nightly run of 100,000 exams of which none has changed, all but the listing of the file system.
- upsert: rows of 1 % of 100,000 exams replaced; beside it pandas: read the table, replace, write it again.
- networks: arithmetic operations of the shipped networks for one exam, from which docs/scale.md estimates GPUs.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import duckdb
import numpy as np
import pandas as pd
import psutil
import pyarrow.parquet as pq
import torch
from pydicom import dcmread
from synthetic_tables import exam_ids, filled_row, phantom_rows, write_done, write_files, write_filled
from torch.utils.flop_counter import FlopCounterMode

from cluster.local import local_cluster
from cohort.tables.buckets import bucket_files, create_tables, read_objects
from cohort.tables.commit import commit
from cohort.tables.ledger import read_ledger
from cohort.tables.stages import STAGES
from models.phantom.dicom import write_exam
from models.phantom.exam import ExamPlan, make_exam
from models.registry import load_network, read_contract
from pipelines.chain import Chain, chain_stages
from pipelines.config import ClusterConfig, PrivacyConfig, RunConfig
from pipelines.index import Listing
from pipelines.job import Job, Workers, prepare
from pipelines.outcome import Result, WorkItem, each
from pipelines.plan import make_plan
from pipelines.progress import Progress
from pipelines.run import plan_run, run
from pipelines.run_log import RunLog
from pipelines.wanted import archive_states
from pipelines.window import DaskExecutor, SerialExecutor, Stage, run_window

UPSERT_EXAMS: Final = 100_000
NIGHTLY_EXAMS: Final = 100_000
OVERHEAD_EXAMS: Final = 2_000
DISTINCT_EXAMS: Final = 6
"""Phantom exams of an archive; the others are copies under other identifiers."""
SERIAL_EXAMS: Final = 3
EXAM_SLICES: Final = {"sagittal": 15, "axial": 36}
"""Of a usual clinical exam (working value)."""
PLANS: Final = (("M", "block"), ("F", "per_disc"), ("M", "none"), ("F", "block"), ("M", "per_disc"), ("F", "none"))


def seconds(work: Callable[[], Any]) -> float:
    """Wall time."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def write_archive(folder: Path, n: int) -> None:
    """DICOM files of `n` exams, of which `DISTINCT_EXAMS` are different."""
    originals = []
    for k, (sex, axial) in enumerate(PLANS[: min(n, DISTINCT_EXAMS)]):
        plan = ExamPlan(7000 + k, sex, 40 + k, 1.7, 70.0, axial, 11)
        originals.append(write_exam(folder / f"e{k}", make_exam(plan), patient_name="A", patient_id=str(k)))
    for k in range(len(originals), n):
        for path in originals[k % len(originals)]:
            data = dcmread(path)
            for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
                setattr(data, name, f"{data[name].value}.{k}")
            data.PatientID = str(k)
            target = folder / f"e{k}" / path.relative_to(path.parents[1])
            target.parent.mkdir(parents=True, exist_ok=True)
            data.save_as(target)


def configuration(folder: Path, workers: int) -> RunConfig:
    """Defaults, with a key beside the archive."""
    return RunConfig(cluster=ClusterConfig(workers=workers), privacy=PrivacyConfig(key_file=folder / "key"))


@contextmanager
def watched_memory() -> Iterator[list[float]]:
    """Resident memory of this process, MiB, every half second."""
    found: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        process = psutil.Process()
        while not ended.wait(0.5):
            found.append(process.memory_info().rss / 2**20)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def chain(folder: Path, n: int, workers: Sequence[int]) -> dict[str, Any]:
    """Exams per minute end to end."""
    archive = folder / "archive"
    write_archive(archive, n)
    found: dict[str, Any] = {"exams": n, "by_workers": {}}
    for number in workers:
        store = folder / f"store{number}"
        config = configuration(folder, number)
        with Progress() as progress, watched_memory() as memory:
            first_s = seconds(lambda: run(archive, store, config=config, progress=progress))  # noqa: B023
        rows = read_ledger(store).values()
        of_stage = {stage: [row.seconds for row in rows if row.stage == stage] for stage in STAGES}
        half = len(memory) // 2
        found["by_workers"][number] = {
            "exams_per_min": 60 * n / first_s,
            "s_per_exam": {stage: float(np.mean(values)) for stage, values in of_stage.items() if values},
            "client_mib": [float(np.median(memory[half // 2 : half])), float(np.median(memory[-half // 2 :]))],
        }
        with Progress(quiet=True) as progress:
            found["second_run_s"] = seconds(lambda: run(archive, store, config=config, progress=progress))  # noqa: B023
    found["exams_per_min"] = max(one["exams_per_min"] for one in found["by_workers"].values())
    found["serial_exams_per_min"] = _serial(folder, archive, min(n, SERIAL_EXAMS))
    found["ratio"] = found["exams_per_min"] / found["serial_exams_per_min"]
    return found


def _serial(folder: Path, archive: Path, n: int) -> float:
    """Exams per minute of the same stages in one process."""
    part = folder / "part"
    for k in range(n):
        shutil.copytree(archive / f"e{k}", part / f"e{k}")

    class InThisProcess(Workers):
        def executor(self) -> SerialExecutor:  # type: ignore[override]
            return SerialExecutor()

    with patch("pipelines.run.Workers", InThisProcess), Progress(quiet=True) as progress:
        taken = seconds(lambda: run(part, folder / "serial", config=configuration(folder, 1), progress=progress))
    return 60 * n / taken


def _nothing(item: WorkItem) -> Result:
    """As many rows as a real exam has, and no work."""
    rows = {"measure": {"discs": 6, "vertebrae": 7, "muscles": 200, "muscle_levels": 48}, "load": {"loads": 30}}
    made = rows.get(item.stage, {})
    return Result(rows={table: [filled_row(table, item.exam_id)] * n for table, n in made.items()}, path="exams/x")


def overhead(folder: Path, n: int = OVERHEAD_EXAMS) -> dict[str, float]:
    """Milliseconds an exam that are not work: reading what was chosen, scheduling, sending rows, committing.

    The stages do nothing but return rows. Client, scheduler and workers share this machine's cores.
    """
    job = _job(folder)
    write_files(job.store, exam_ids(n), phantom_rows())
    listing = _listing(job.store)
    with patch("pipelines.index.list_archive", lambda *_: listing):
        planned = plan_run(job, _NoWorkers(), retry_failed=False)
    if planned.plan.todo.num_rows != n:
        raise RuntimeError("exams are missing from the plan")
    stages = tuple(
        Stage(stage.name, stage.resource, partial(each, _nothing), stage.batch_size)
        for stage in chain_stages(job, n_exams=n, cpu_slots=2)
    )
    with local_cluster(2, device="cpu") as client:
        executor = _Counting(client)
        run_window(_warm_up(), stages, executor=executor, on_outcome=lambda outcome: ())
        with RunLog(job.store, job.run_id) as log:
            parts = Chain(job, planned.plan, planned.index, ledgers=planned.ledgers, root=job.store, log=log)
            executor.n_tasks = 0
            used = time.process_time()
            ours = seconds(lambda: run_window(parts.items(), stages, executor=executor, on_outcome=parts.on_outcome))
            ours += seconds(parts.flush)
            used = time.process_time() - used
        items = [WorkItem(f"e{k}", stage, "f") for k in range(n) for stage in STAGES]
        bare = seconds(lambda: client.gather(client.map(_nothing, items, pure=False, batch_size=1000)))
    return {
        "exams": n,
        "overhead_ms_per_exam": 1e3 * ours / n,
        "client_cpu_ms_per_exam": 1e3 * used / n,
        "tasks_per_exam": executor.n_tasks / n,
        "dask_map_ms_per_exam": 1e3 * bare / n,
        "ratio": ours / bare,
    }


class _Counting(DaskExecutor):
    """Counts the tasks of Dask."""

    n_tasks = 0

    def submit(self, stage: Stage, items: tuple[WorkItem, ...]) -> None:
        self.n_tasks += 1
        super().submit(stage, items)


def _warm_up() -> list[WorkItem]:
    return [WorkItem(f"w{k}", stage, "f") for k in range(20) for stage in STAGES]


class _NoWorkers:
    """For a plan that must start none."""

    def executor(self) -> SerialExecutor:
        return SerialExecutor()


def _job(folder: Path) -> Job:
    (folder / "archive").mkdir(parents=True, exist_ok=True)
    with Progress(quiet=True) as progress:
        job = prepare(folder / "archive", folder / "store", configuration(folder, 1), None, progress)
    create_tables(job.store)
    return job


def _listing(store: Path) -> Listing:
    """What listing the archive would find: the files of the index, unchanged."""
    columns = ["file_id", "size_bytes", "mtime_ns"]
    tables = [pq.ParquetFile(path).read(columns) for path in bucket_files(store, "files")]
    ids = [one for table in tables for one in table["file_id"].to_pylist()]
    size, mtime = (np.concatenate([table[name].to_numpy() for table in tables]) for name in columns[1:])
    return Listing(ids, np.array(ids, "S"), size, mtime)


def plan(folder: Path, n: int) -> dict[str, float]:
    """Seconds to find out what `n` exams need, when nothing and when everything does."""
    job = _job(folder)
    ids = exam_ids(n)
    write_done(job.store, ids, phantom_rows(), job.artefacts, dict.fromkeys(ids, ("", "")))
    nothing = min(seconds(lambda: make_plan([job.store], job.store)) for _ in range(3))
    everything = seconds(lambda: make_plan([folder / "empty"], job.store)) if _empty(folder / "empty") else 0.0
    found = {"exams": n, "nothing_to_do_s": nothing, "all_to_do_s": everything}
    if n <= 100_000:
        found["objects_s"] = seconds(lambda: _plan_objects(job.store))
        found["ratio"] = found["objects_s"] / nothing
    return found


def _empty(store: Path) -> bool:
    create_tables(store)
    return True


def _plan_objects(store: Path) -> int:
    ledger = read_ledger(store)
    rows = read_objects(store, "wanted")
    return sum(ledger[row.exam_id, stage].fingerprint != getattr(row, stage) for row in rows for stage in STAGES)


def nightly(folder: Path, n: int = NIGHTLY_EXAMS) -> dict[str, float]:
    """Seconds of a nightly run when nothing has changed, without the listing of the file system; and of `cohort status`
    on the same store, start of the program included."""
    job = _job(folder)
    ids, rows = exam_ids(n), phantom_rows()
    n_files = write_files(job.store, ids, rows)
    with duckdb.connect(":memory:") as connection:
        states = {
            row["exam_id"]: (row["index_digest"], row["selection_digest"])
            for row in archive_states(job, connection).to_pylist()
        }
    write_done(job.store, ids, rows, job.artefacts, states)
    listing = _listing(job.store)
    with patch("pipelines.index.list_archive", lambda *_: listing), Progress(quiet=True) as progress:
        begun = time.perf_counter()
        summary = run(folder / "archive", job.store, config=job.config, progress=progress, command="nightly")
        taken = time.perf_counter() - begun
    if not summary.did_nothing:
        raise RuntimeError("an unchanged archive was not left alone")
    command = [Path(sys.executable).with_name("cohort"), "status", "--store", job.store]
    status = seconds(lambda: subprocess.run(command, check=True, capture_output=True))
    return {"exams": n, "files": n_files, "nightly_nochange_s": taken, "status_s": status}


def upsert(folder: Path, n: int = UPSERT_EXAMS) -> dict[str, float]:
    """Seconds to replace the rows of 1 % of the exams in three tables, and of pandas for one of them."""
    store = folder / "store"
    create_tables(store)
    ids = exam_ids(n)
    counts = {"discs": 6, "loads": 10, "ledger": 4}
    for table, per_exam in counts.items():
        write_filled(store, table, ids, per_exam)
    some = ids[::100]
    rows = {table: [filled_row(table, one) for one in some for _ in range(k)] for table, k in counts.items()}
    ours = seconds(lambda: commit(store, "run", {"discs": rows["discs"]}, touched={}))
    all_three = seconds(lambda: commit(store, "run", rows, touched={}))

    def pandas_upsert() -> None:
        old = pd.read_parquet(store / "tables" / "discs")
        new = pd.concat([old[~old.exam_id.isin(some)], pd.DataFrame([vars(row) for row in rows["discs"]])])
        new.to_parquet(folder / "discs.parquet", compression="zstd")

    rival = seconds(pandas_upsert)
    return {
        "exams": n,
        "upsert_1pct_discs_s": ours,
        "upsert_1pct_s": all_three,
        "pandas_discs_s": rival,
        "ratio": rival / ours,
    }


def networks() -> dict[str, float]:
    """GFLOP of the shipped networks for one exam of `EXAM_SLICES`, counted by torch."""
    found = {}
    for name in ("vertebral_body", "disc", "muscle"):
        contract = read_contract(name)
        network = load_network(name, contract.weights_sha256, "cpu")
        side = contract.max_side_px
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, 1, side, side))
        found[name] = counter.get_total_flops() * EXAM_SLICES[contract.plane] / 1e9
    return {"gflop_per_exam": sum(found.values()), **{f"gflop_{name}": value for name, value in found.items()}}


PARTS: Final = ("chain", "overhead", "plan", "nightly", "upsert", "networks")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run the parts that were asked for, each in a folder of its own."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        root = Path(name)
        if "chain" in options.only:
            found["chain"] = chain(root / "chain", options.exams, options.workers)
        if "overhead" in options.only:
            found["overhead"] = overhead(root / "overhead")
        if "plan" in options.only:
            found["plan"] = {n: plan(root / f"plan{n}", n) for n in options.plan}
        if "nightly" in options.only:
            found["nightly"] = nightly(root / "nightly")
        if "upsert" in options.only:
            found["upsert"] = upsert(root / "upsert")
        if "networks" in options.only:
            found["networks"] = networks()
    return found


def headline(found: dict[str, Any]) -> dict[str, float]:
    """The figures that are tracked, of the parts that were run."""
    named = {
        "exams_per_min": ("chain", "exams_per_min"),
        "second_run_s": ("chain", "second_run_s"),
        "overhead_ms_per_exam": ("overhead", "overhead_ms_per_exam"),
        "nightly_nochange_1e5_s": ("nightly", "nightly_nochange_s"),
        "upsert_1pct_of_1e5_s": ("upsert", "upsert_1pct_s"),
    }
    figures = {name: found[part][key] for name, (part, key) in named.items() if part in found}
    for n, one in found.get("plan", {}).items():
        figures[f"plan_1e{round(np.log10(n))}_s"] = max(one["nothing_to_do_s"], one["all_to_do_s"])
    return figures


def print_table(found: dict[str, Any]) -> None:
    """One line a figure."""
    for part, figures in found.items():
        for name, value in _flat(figures):
            print(
                f"{part:9} {name:44} {value:>12.4g}" if isinstance(value, float) else f"{part:9} {name:44} {value:>12}"
            )


def _flat(figures: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield from ((f"{prefix}{name}.{k}", one) for k, one in enumerate(value))
        else:
            yield f"{prefix}{name}", value


def main() -> None:
    """Print a table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exams", type=int, default=24, help="of the synthetic archive")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="CPU workers, beside the network worker")
    parser.add_argument("--plan", type=int, nargs="+", default=[100_000, 1_000_000], help="exams to plan")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--folder", type=Path, help="where to work; the system's temporary folder if not given")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    logging.getLogger("distributed").setLevel(logging.ERROR)
    found = measure(options)
    print(json.dumps(headline(found) | {"parts": found})) if options.json else print_table(found)


if __name__ == "__main__":
    main()
