"""Runs that are hit by what hits runs: killed processes, poison, hanging, full and read-only disks, clocks, damage.

Every test uses real processes and ends with the same proof: store, ledger and tables agree, and all rows are those of a
run that nothing happened to.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fault_injection import (
    IN_STAGE,
    N_EXAMS,
    SOURCE,
    Fault,
    Place,
    assert_as_if_nothing_had_happened,
    fill,
    go_on,
    nothing_wrong,
    place_of,
    standing,
    wait_for,
    write_archive,
)

from cluster.folder import ClusterFolder
from cohort.tables.buckets import bucket_count, bucket_file, bucket_of
from cohort.tables.fsck import fsck
from cohort.tables.ledger import read_ledger
from cohort.tables.stages import STAGES

pytestmark = pytest.mark.slow

COMMIT_ALWAYS = {"pipelines.chain:COMMIT_EVERY_S": 0.0}

Expected = dict[str, list[str]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, Expected]]:
    """A place where nothing happened, and its rows."""
    folder = tmp_path_factory.mktemp("faults")
    write_archive(folder / "archive")
    with place_of(folder / "archive", folder / "key", folder) as place:
        place.run("--strict")
        assert [row.ended for row in place.run_rows()] == ["complete"]
        expected = standing(place.store)
        assert len(expected["loads"]) == 10 * N_EXAMS
        assert_as_if_nothing_had_happened(place.store, expected)
        yield place, expected


@pytest.fixture
def expected(finished: tuple[Place, Expected]) -> Expected:
    return finished[1]


@pytest.fixture
def place(finished: tuple[Place, Expected], tmp_path: Path) -> Iterator[Place]:
    """The same archive, and no store yet."""
    with place_of(finished[0].archive, finished[0].key, tmp_path) as place:
        yield place


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here (needs root)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_worker_killed_in_each_stage_costs_nothing(place: Place, expected: Expected) -> None:
    flags = {stage: place.flag(stage) for stage in STAGES}
    faults = [Fault(IN_STAGE[stage], place.exam(k), "pause", flags[stage]) for k, stage in enumerate(STAGES)]
    run = place.start("--strict", faults=faults)
    waiting = set(flags.values())
    while waiting:  # who shared a task with a killed exam comes last, so the stages come in any order
        flag = run.reached_one(waiting)
        waiting.remove(flag)
        pid = run.reached(flag)
        assert pid != run.process.pid
        os.kill(pid, signal.SIGKILL)
    assert run.end() == 0, run.said
    assert len(read_ledger(place.store)) == 4 * N_EXAMS
    assert_as_if_nothing_had_happened(place.store, expected)


def test_exactly_the_exams_that_kill_hang_and_eat_memory_are_blamed(place: Place, expected: Expected) -> None:
    poison, endless, hungry, large, _ = place.exams
    faults = [
        Fault(IN_STAGE["measure"], poison, "die"),
        Fault(IN_STAGE["convert"], endless, "hang"),
        Fault(IN_STAGE["load"], hungry, "grow"),
        Fault(IN_STAGE["segment"], large, "out_of_memory"),
    ]
    limits = {"[load]": "[convert]\ntime_limit_s = 8\n[load]", "workers = 1": 'workers = 1\nmemory_limit = "1500MiB"'}
    said = place.run("--strict", code=1, faults=faults, changes=limits)
    assert "Traceback" not in said
    outcomes = place.outcomes()
    assert {key: one for key, one in outcomes.items() if one[0] not in ("ok", "flagged")} == {
        (poison, "measure"): ("failed", "worker_killed"),
        (endless, "convert"): ("failed", "timed_out"),
        (hungry, "load"): ("failed", "worker_killed"),
        (large, "segment"): ("failed", "internal_error"),
    }
    assert read_ledger(place.store)[large, "segment"].error_type == "OutOfMemoryError"
    assert len(outcomes) == 3 + 1 + 4 + 2 + 4
    assert fsck(place.store, deep=True) == []
    assert "Nothing to do" in place.run()
    place.run("--strict", "--retry-failed")
    assert place.run_rows()[-1].stages_run == 2 + 4 + 1 + 3
    assert_as_if_nothing_had_happened(place.store, expected)


@pytest.mark.parametrize("table", ["ledger", "loads"])
def test_a_client_killed_in_the_midst_of_a_commit_is_taken_over(place: Place, expected: Expected, table: str) -> None:
    # the first file of a table is the empty one of a new store
    run = place.start(faults=[Fault("os:replace", f"tables/{table}/", "pause", place.flag("commit"), skip=1)],
                      constants={"pipelines.chain:COMMIT_EVERY_S": 1.0})  # fmt: skip
    assert run.reached(place.flag("commit")) == run.process.pid
    os.kill(run.process.pid, signal.SIGKILL)
    assert run.end() == -signal.SIGKILL
    assert nothing_wrong(place.store)
    done = sum(status in ("ok", "flagged") for status, _ in place.outcomes().values())
    said = place.run("--strict")
    assert "ended without letting go" in said
    assert place.run_rows()[-1].stages_run == 4 * N_EXAMS - done
    assert_as_if_nothing_had_happened(place.store, expected)


def test_a_killed_scheduler_ends_the_run_and_the_next_goes_on(place: Place, expected: Expected) -> None:
    folder = ClusterFolder(place.folder / "cluster")
    folder.prepare()
    env = {name: value for name, value in os.environ.items() if not name.startswith("DASK")}
    env |= {"DASK_CONFIG": str(folder.config), "PYTHONPATH": str(SOURCE)}
    shared = ("--scheduler-file", str(folder.scheduler_file))
    worker = ("distributed.cli.dask_worker", "--nthreads", "1", "--no-dashboard", "--memory-limit", "2GiB", *shared)
    commands = (
        ("distributed.cli.dask_scheduler", "--port", "0", "--dashboard-address", "127.0.0.1:0", *shared),
        (*worker, "--resources", "CPU=1", "--name", "cpu"),
        (*worker, "--resources", "GPU=1", "--name", "gpu"),
    )
    with (place.folder / "dask.log").open("wb") as log:
        dask = [subprocess.Popen([sys.executable, "-m", *words], env=env, stdout=log, stderr=log) for words in commands]
    try:
        wait_for(folder.scheduler_file.exists)
        joined = f'profile = "scheduler"\nscheduler_file = "{folder.scheduler_file}"'
        run = place.start(
            faults=[Fault("pipelines.chain:Chain.flush", "", "pause", place.flag("flush"))],
            constants=COMMIT_ALWAYS,
            changes={'workers = 1\ndevice = "cpu"': joined},
        )
        run.reached(place.flag("flush"))
        dask[0].kill()
        go_on(place.flag("flush"))
        assert run.end() == 2, run.said
        # Dask logs its own vain attempts to reconnect above it
        assert run.said.splitlines()[-1].startswith("Error: the scheduler is gone; what was committed is kept")
        for process in dask[1:]:
            process.wait(60)
    finally:
        for process in dask:
            process.kill()
            process.wait()
    assert nothing_wrong(place.store)
    assert place.outcomes()
    place.run("--strict")
    assert_as_if_nothing_had_happened(place.store, expected)


def test_a_second_run_is_refused_and_sigterm_ends_the_first_in_order(place: Place, expected: Expected) -> None:
    flag = place.flag("measure")
    run = place.start(faults=[Fault(IN_STAGE["measure"], "", "pause", flag)])
    run.reached(flag)
    said = place.run(code=2)
    assert f"process {run.process.pid}" in said
    assert "wait for it to end" in said
    assert "Traceback" not in said
    run.process.terminate()
    time.sleep(0.5)
    go_on(flag)
    assert run.end() == 0, run.said
    assert "asked to stop" in run.said
    (row,) = place.run_rows()
    assert (row.ended, row.n_pending > 0) == ("stopped", True)
    lines = (place.store / "runs" / row.run_id / "outcomes.jsonl").read_text().splitlines()
    assert len(lines) == len(read_ledger(place.store)) == row.stages_run
    assert nothing_wrong(place.store)
    place.run("--strict")
    assert place.run_rows()[-1].stages_run == 4 * N_EXAMS - row.stages_run
    assert_as_if_nothing_had_happened(place.store, expected)


def test_ctrl_c_ends_at_once_and_keeps_what_was_done(place: Place, expected: Expected) -> None:
    flag = place.flag("measure")
    run = place.start(faults=[Fault(IN_STAGE["measure"], "", "pause", flag)])
    run.reached(flag)
    os.killpg(run.process.pid, signal.SIGINT)  # as a terminal does: to all that work for it
    assert run.end() == 1, run.said
    assert "Traceback" not in run.said
    assert "Aborted!" in run.said
    done = place.outcomes()
    assert {stage for _, stage in done} >= {"convert", "segment"}
    assert nothing_wrong(place.store)
    place.run("--strict")
    assert place.run_rows()[-1].stages_run == 4 * N_EXAMS - len(done)
    assert_as_if_nothing_had_happened(place.store, expected)


def test_a_full_disk_ends_the_run_in_one_line_and_the_next_goes_on(
    place: Place, disk: Path, expected: Expected
) -> None:
    place = replace(place, store=disk / "store")
    flag = place.flag("measure")
    run = place.start(faults=[Fault(IN_STAGE["measure"], "", "pause", flag)])
    run.reached(flag)
    other = fill(disk)
    go_on(flag)
    assert run.end() == 2, run.said
    assert "Traceback" not in run.said
    assert "the disk is full" in run.said
    assert nothing_wrong(place.store)
    other.unlink()
    place.run("--strict")
    assert_as_if_nothing_had_happened(place.store, expected)


def test_a_read_only_store_is_refused_in_one_line(finished: tuple[Place, Expected], disk: Path, tmp_path: Path) -> None:
    whole, expected = finished
    shutil.copytree(whole.store, disk / "store")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with place_of(whole.archive, whole.key, tmp_path, disk / "store") as place:
        for words in ((), ("fsck",)):
            said = place.run(*words, code=2)
            assert "Traceback" not in said
            assert "read-only" in said.lower()
        assert_as_if_nothing_had_happened(place.store, expected)


def test_clocks_that_jump_change_nothing(place: Place, expected: Expected) -> None:
    clock = place.folder / "clock"
    clock.write_text("-4e6")
    flag = place.flag("measure")
    run = place.start("--strict", faults=[Fault(IN_STAGE["measure"], "", "pause", flag)], clock=clock)
    run.reached(flag)
    clock.write_text("3e5")
    time.sleep(0.5)
    go_on(flag)
    assert run.end() == 0, run.said
    clock.write_text("-3e8")
    assert "Nothing to do" in place.run("--strict", clock=clock)
    assert len(place.run_rows()) == 2
    assert_as_if_nothing_had_happened(place.store, expected)


@pytest.mark.parametrize("days", [-400, 400])
def test_a_lock_and_leftovers_of_another_time_do_not_stop_a_run(
    finished: tuple[Place, Expected], tmp_path: Path, days: int
) -> None:
    whole, expected = finished
    shutil.copytree(whole.store, tmp_path / "store")
    then = time.time() + 86_400 * days
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(then))
    lock = tmp_path / "store" / ".lock.json"
    lock.write_text(
        f'{{"command": "run", "host": "{socket.gethostname()}", "pid": {os.getpid()}, "started_at": "{stamp}", '
        f'"heartbeat_at": "{stamp}", "beats": 7}}'
    )
    left = tmp_path / "store" / "exams" / ".tmp-left"
    left.mkdir()
    for path in (lock, left):
        os.utime(path, (then, then))
    with place_of(whole.archive, whole.key, tmp_path) as place:
        said = place.run("--strict")
        assert "this run takes over" in said
        assert "Nothing to do" in said
        assert not lock.exists()
        assert left.exists() == (days > 0)
        assert_as_if_nothing_had_happened(place.store, expected)


def test_buckets_damaged_by_hand_are_found_and_done_again(finished: tuple[Place, Expected], tmp_path: Path) -> None:
    whole, expected = finished
    shutil.copytree(whole.store, tmp_path / "store")
    with place_of(whole.archive, whole.key, tmp_path) as place:
        paths = {
            table: bucket_file(place.store, table, bucket_of(place.exam(k), bucket_count(place.store)))
            for k, table in enumerate(("loads", "discs", "ledger", "exams"))
        }
        content = bytearray(paths["loads"].read_bytes())
        third = len(content) // 3
        content[third : third + 64] = bytes(one ^ 0xFF for one in content[third : third + 64])
        paths["loads"].write_bytes(content)
        paths["discs"].write_bytes(paths["discs"].read_bytes()[:-20])
        paths["ledger"].write_bytes(b"")
        paths["exams"].unlink()
        said = place.run("fsck", code=1)
        assert {table for table in paths if f"in {table}, bucket" in said} == {"loads", "discs", "ledger"}
        said = place.run(code=2)
        assert "fsck --repair" in said
        assert "Traceback" not in said
        place.run("fsck", "--repair")
        place.run("--strict")
        assert_as_if_nothing_had_happened(place.store, expected)
