"""The scheduling function with the serial executor and with an in-process Dask cluster; outcomes and their commit."""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import dask
import pytest
from distributed import Client, Scheduler, SpecCluster, Worker

from cohort.errors import ConfigurationError, RefusedError
from cohort.rows import CurvatureRow, LedgerRow, QualityRow
from cohort.tables.buckets import read_rows
from cohort.tables.ledger import read_ledger
from cohort.tables.schema import rows_to_table
from pipelines.outcome import Outcome, Result, WorkItem, commit_outcomes, each, guarded, success
from pipelines.window import DaskExecutor, Executor, Finished, SerialExecutor, Stage, run_batch, run_window

CHAIN = {"convert": "segment", "segment": "measure", "measure": "load"}


def items(n: int, stage: str = "convert") -> list[WorkItem]:
    return [WorkItem(f"e{i}", stage, "f") for i in range(n)]


def finish(item: WorkItem) -> Result:
    return Result(path=f"{item.stage}-{item.exam_id}")


def finish_slowly(item: WorkItem) -> Result:
    time.sleep(0.02)
    return Result()


def refuse_odd(item: WorkItem) -> Result:
    if int(item.exam_id[1:]) % 2:
        raise RefusedError("no_t1_sagittal")
    return Result()


def break_batch_of_two(batch: Sequence[WorkItem]) -> Iterable[Outcome]:
    """A batch that breaks as a whole because of one of its members."""
    if any(item.exam_id == "e2" for item in batch):
        raise ZeroDivisionError("Smith^John")
    return each(finish, batch)


def forget_one(batch: Sequence[WorkItem]) -> list[Outcome]:
    return list(each(finish, batch))[1:]


def chain_stages() -> list[Stage]:
    run = partial(each, finish)
    return [
        Stage("convert", "CPU", run),
        Stage("segment", "GPU", run, batch_size=4),
        Stage("measure", "CPU", run),
        Stage("load", "CPU", run),
    ]


class Collected:
    """Remembers outcomes and sends each exam to its next stage."""

    def __init__(self, chain: dict[str, str] | None = None) -> None:
        self.chain = chain or {}
        self.outcomes: list[Outcome] = []

    def __call__(self, outcome: Outcome) -> list[WorkItem]:
        self.outcomes.append(outcome)
        sound = outcome.status in ("ok", "flagged")
        return (
            [WorkItem(outcome.exam_id, self.chain[outcome.stage], "f")] if sound and outcome.stage in self.chain else []
        )

    def by_exam(self) -> dict[str, str]:
        return {outcome.exam_id: outcome.status for outcome in self.outcomes}


class Watched(SerialExecutor):
    """A serial executor that notes its batches and the most that were in flight."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple[str, int]] = []
        self.most = 0

    def submit(self, stage: Stage, items: tuple[WorkItem, ...]) -> None:
        super().submit(stage, items)
        self.batches.append((stage.name, len(items)))
        self.most = max(self.most, len(self._batches))


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """An in-process cluster with two CPU workers and one GPU worker."""
    options = {"nthreads": 1, "dashboard": False, "dashboard_address": None, "host": "127.0.0.1"}
    resources = {"cpu-0": {"CPU": 1}, "cpu-1": {"CPU": 1}, "gpu-0": {"GPU": 1}}
    workers = {name: {"cls": Worker, "options": {**options, "resources": r}} for name, r in resources.items()}
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}}
    with (
        SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.CRITICAL) as cluster,
        Client(cluster) as connected,
    ):
        connected.wait_for_workers(3)
        yield connected


@pytest.fixture(params=["serial", "dask"])
def executor(request: pytest.FixtureRequest) -> Executor:
    """Both executors: every property holds for both."""
    return SerialExecutor() if request.param == "serial" else DaskExecutor(request.getfixturevalue("client"))


def test_every_exam_goes_through_the_whole_chain(executor: Executor) -> None:
    seen = Collected(CHAIN)
    run_window(items(9), chain_stages(), executor=executor, on_outcome=seen)
    stages_of = {f"e{i}": [o.stage for o in seen.outcomes if o.exam_id == f"e{i}"] for i in range(9)}
    assert all(stages == ["convert", "segment", "measure", "load"] for stages in stages_of.values())
    assert all(o.status == "ok" and o.path == f"{o.stage}-{o.exam_id}" for o in seen.outcomes)


def test_items_with_a_queue_of_their_own_run_alone_and_stay_of_their_stage(executor: Executor) -> None:
    """One of them breaks its task: it is run again in that queue, and blamed as of its stage."""
    seen = Collected()
    slow = Stage("load, checked", "CPU", break_batch_of_two, time_limit_s=60.0)
    stages = [*chain_stages()[:3], Stage("load", "CPU", partial(each, finish), batch_size=8), slow]
    work = [replace(item, queue="load, checked" if number in (2, 3) else None) for number, item in enumerate(items(8))]
    work = [replace(item, stage="load") for item in work]
    run_window(work, stages, executor=executor, on_outcome=seen)
    assert sorted(o.exam_id for o in seen.outcomes) == [f"e{i}" for i in range(8)]
    assert {o.stage for o in seen.outcomes} == {"load"}
    assert {o.exam_id: o.error_type for o in seen.outcomes if o.status != "ok"} == {"e2": "ZeroDivisionError"}


def test_refused_exams_end_there_with_their_reason(executor: Executor) -> None:
    seen = Collected(CHAIN)
    stages = [replace(chain_stages()[0], run=partial(each, refuse_odd)), *chain_stages()[1:]]
    run_window(items(4), stages, executor=executor, on_outcome=seen)
    refused = [o for o in seen.outcomes if o.status == "refused"]
    assert sorted((o.exam_id, o.stage, o.reason, o.error_type) for o in refused) == [
        ("e1", "convert", "no_t1_sagittal", None),
        ("e3", "convert", "no_t1_sagittal", None),
    ]
    assert sorted(o.exam_id for o in seen.outcomes if o.stage == "load") == ["e0", "e2"]


def test_batch_that_breaks_as_a_whole_blames_only_the_guilty_exam(executor: Executor) -> None:
    seen = Collected()
    stage = Stage("convert", "CPU", break_batch_of_two, batch_size=3)
    run_window(items(6), [stage], executor=executor, on_outcome=seen)
    assert {exam for exam, status in seen.by_exam().items() if status == "failed"} == {"e2"}
    assert len(seen.outcomes) == 6
    (failed,) = [o for o in seen.outcomes if o.status == "failed"]
    assert (failed.reason, failed.error_type) == ("internal_error", "ZeroDivisionError")
    assert "Smith" not in repr(seen.outcomes)


def test_nothing_of_a_broken_batch_is_logged_but_class_and_place(
    executor: Executor, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    stage = Stage("convert", "CPU", break_batch_of_two)
    secret = WorkItem("e2", "convert", "f", Path("/archive/secret"))
    run_window([secret], [stage], executor=executor, on_outcome=Collected())
    everything = caplog.text + "".join(capfd.readouterr())
    assert "a batch of convert failed: ZeroDivisionError at test_window:" in everything
    assert "Smith" not in everything
    assert "secret" not in everything


def test_outcome_that_is_missing_becomes_a_failure(executor: Executor) -> None:
    seen = Collected()
    run_window(items(2), [Stage("convert", "CPU", forget_one)], executor=executor, on_outcome=seen)
    assert seen.by_exam() == {"e0": "failed", "e1": "failed"}


def test_exception_in_the_client_cancels_and_is_raised(executor: Executor) -> None:
    def interrupt(outcome: Outcome) -> list[WorkItem]:
        raise KeyboardInterrupt

    stage = Stage("convert", "CPU", partial(each, finish_slowly))
    with pytest.raises(KeyboardInterrupt):
        run_window(items(50), [stage], executor=executor, on_outcome=interrupt)
    seen = Collected()
    run_window(items(2), [stage], executor=executor, on_outcome=seen)  # the same cluster still works
    assert seen.by_exam() == {"e0": "ok", "e1": "ok"}


def test_no_items_is_no_work(executor: Executor) -> None:
    run_window([], chain_stages(), executor=executor, on_outcome=Collected())


def test_workers_are_named_and_lanes_kept_apart(client: Client) -> None:
    seen = Collected(CHAIN)
    run_window(items(6), chain_stages(), executor=DaskExecutor(client), on_outcome=seen)
    assert {o.worker for o in seen.outcomes if o.stage == "segment"} == {"gpu-0"}
    assert {o.worker for o in seen.outcomes if o.stage != "segment"} <= {"cpu-0", "cpu-1"}


def test_nothing_stays_on_the_cluster(client: Client) -> None:
    run_window(items(20), chain_stages(), executor=DaskExecutor(client), on_outcome=Collected(CHAIN))
    deadline = time.monotonic() + 5
    while client.futures and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not client.futures


def test_missing_resource_is_an_error_before_anything_runs(client: Client) -> None:
    seen = Collected()
    with pytest.raises(ConfigurationError, match="no worker offers TPU"):
        run_window(
            items(1),
            [Stage("convert", "TPU", partial(each, finish))],  # type: ignore[arg-type]
            executor=DaskExecutor(client),
            on_outcome=seen,
        )
    assert not seen.outcomes


def test_window_stays_at_two_batches_per_slot() -> None:
    executor = Watched()
    run_window(items(100), chain_stages(), executor=executor, on_outcome=Collected(CHAIN))
    assert executor.most == 4  # two of the CPU lane and two of the GPU lane


def test_batches_fill_up_and_the_rest_is_not_left_waiting() -> None:
    executor = Watched()
    stages = [Stage("convert", "CPU", partial(each, finish), batch_size=4)]
    run_window(items(10), stages, executor=executor, on_outcome=Collected())
    assert executor.batches == [("convert", 4), ("convert", 4), ("convert", 2)]


def test_items_are_taken_as_workers_become_free() -> None:
    taken: list[str] = []
    ahead: list[int] = []

    def source() -> Iterator[WorkItem]:
        for item in items(200):
            taken.append(item.exam_id)
            yield item

    def on_outcome(outcome: Outcome) -> tuple[WorkItem, ...]:
        ended.append(outcome.exam_id)
        ahead.append(len(taken) - len(ended))
        return ()

    ended: list[str] = []
    run_window(source(), chain_stages(), executor=SerialExecutor(), on_outcome=on_outcome)
    assert len(ended) == 200
    assert max(ahead) < 20


def test_once_stopped_nothing_new_begins_and_what_runs_is_reported(executor: Executor) -> None:
    seen = Collected(CHAIN)
    run_window(items(50), chain_stages(), executor=executor, on_outcome=seen, stop=lambda: len(seen.outcomes) >= 5)
    assert 5 <= len(seen.outcomes) < 20
    again = Collected()
    run_window(items(2), chain_stages(), executor=executor, on_outcome=again)  # nothing is left over
    assert len(again.outcomes) == 2


def test_a_run_that_is_stopped_from_the_start_takes_nothing() -> None:
    source = iter(items(3))
    run_window(source, chain_stages(), executor=SerialExecutor(), on_outcome=Collected(), stop=lambda: True)
    assert len(list(source)) == 3


def test_exams_are_finished_before_new_ones_begin() -> None:
    executor = Watched()
    stages = [stage for stage in chain_stages() if stage.resource == "CPU"]
    run_window(items(30), stages, executor=executor, on_outcome=Collected({"convert": "measure", "measure": "load"}))
    order = [name for name, _ in executor.batches]
    assert order.index("load") < 8  # not after thirty conversions


class SlowNetworks(Watched):
    """The GPU lane answers only when nothing else is running."""

    def wait(self) -> Finished:
        while self._batches[0][0].resource == "GPU" and any(stage.resource == "CPU" for stage, _ in self._batches):
            self._batches.rotate(-1)
        return super().wait()


def test_slow_lane_gets_full_batches() -> None:
    executor = SlowNetworks()
    run_window(items(40), chain_stages(), executor=executor, on_outcome=Collected(CHAIN))
    sizes = [n for name, n in executor.batches if name == "segment"]
    assert sum(sizes) == 40
    assert sizes[0] == 1  # an idle worker does not wait for a full batch
    assert all(n == 4 for n in sizes[1:-1])


def test_the_time_of_each_exam_begins_with_it_where_outcomes_come_one_by_one() -> None:
    heard: list[str] = []

    def convert(item: WorkItem) -> Result:
        heard.append(item.exam_id)
        return Result()

    def watch(n_items: int) -> None:
        heard.append(f"watch {n_items}")

    run_batch(Stage("convert", "CPU", partial(each, convert)), tuple(items(2)), worker="here", watch=watch)
    assert heard == ["watch 2", "watch 1", "e0", "watch 1", "e1", "watch 1"]
    heard.clear()
    as_one = Stage("convert", "CPU", lambda batch: list(each(convert, batch)))
    run_batch(as_one, tuple(items(2)), worker="here", watch=watch)
    assert heard[:3] == ["watch 2", "e0", "e1"]


def test_outcomes_travel_with_rows_that_equal_those_sent() -> None:
    flags = [QualityRow(exam_id="e1", stage="measure", reason="thin_muscle", value=float(k)) for k in range(3)]
    sent = success(WorkItem("e1", "measure", "f"), Result(rows={"quality": flags, "discs": []}), seconds=1.0)
    got = pickle.loads(pickle.dumps(sent))
    assert all(got.rows[table].equals(sent.rows[table], check_metadata=True) for table in ("quality", "discs"))
    assert replace(got, rows={}) == replace(sent, rows={})
    assert b"description" not in pickle.dumps(sent)  # the schema stays at home


def nan_row(item: WorkItem) -> Result:
    return Result(rows={"curvature": [CurvatureRow(exam_id=item.exam_id, sacral_slope_deg=float("nan"), status="ok")]})


def broken(item: WorkItem) -> Result:
    raise KeyError("Smith^John /archive/secret")


def test_rows_with_nan_fail_their_own_exam() -> None:
    outcome = guarded(nan_row, items(1, "measure")[0])
    assert (outcome.status, outcome.reason, outcome.error_type) == ("failed", "internal_error", "ValueError")
    assert not outcome.rows


def test_text_of_exceptions_is_neither_kept_nor_logged(caplog: pytest.LogCaptureFixture) -> None:
    outcome = guarded(broken, items(1)[0])
    assert (outcome.status, outcome.error_type) == ("failed", "KeyError")
    assert "Smith" not in repr(outcome)
    assert "Smith" not in caplog.text
    assert "convert of e0 failed: KeyError at test_window:" in caplog.text


def test_undeclared_reason_is_an_error() -> None:
    with pytest.raises(KeyError, match="not declared"):
        Outcome("e", "load", "f", "flagged", 0.0, reason="because")


def measured(slope_deg: float, status: str = "ok") -> Outcome:
    rows = {
        "curvature": [CurvatureRow(exam_id="e1", sacral_slope_deg=slope_deg, status="ok")],
        "quality": [QualityRow(exam_id="e1", stage="measure", reason="low_contrast")],
    }
    content = {table: rows_to_table(table, new) for table, new in rows.items()}
    return Outcome("e1", "measure", f"m{slope_deg}", status, 1.0, rows=content)  # type: ignore[arg-type]


def test_commit_of_outcomes_takes_away_what_rested_on_them(tmp_path: Path) -> None:
    flag = QualityRow(exam_id="e1", stage="load", reason="muscle_saturated")
    loaded = Outcome(
        "e1", "load", "l1", "flagged", 1.0, reason="muscle_saturated",
        rows={"quality": rows_to_table("quality", [flag])},
    )  # fmt: skip
    commit_outcomes(tmp_path, "r1", [measured(40.0), loaded])
    assert read_rows(tmp_path, "quality").num_rows == 2
    commit_outcomes(tmp_path, "r2", [replace(measured(41.0), worker="cpu-1")])
    assert read_rows(tmp_path, "curvature")["sacral_slope_deg"].to_pylist() == [41.0]
    assert read_rows(tmp_path, "quality")["stage"].to_pylist() == ["measure"]
    expected = LedgerRow(
        exam_id="e1", stage="measure", fingerprint="m41.0", status="ok", seconds=1.0, worker="cpu-1", run_id="r2"
    )
    found = read_ledger(tmp_path)
    assert {key: replace(row, finished_at=None) for key, row in found.items()} == {("e1", "measure"): expected}
    commit_outcomes(tmp_path, "r3", [Outcome("e1", "convert", "c2", "refused", 0.1, reason="no_t1_sagittal")])
    assert read_rows(tmp_path, "curvature").num_rows == 0
    assert set(read_ledger(tmp_path)) == {("e1", "convert")}


def test_finished_batch_keeps_its_items() -> None:
    executor = SerialExecutor()
    executor.submit(Stage("convert", "CPU", partial(each, finish)), tuple(items(2)))
    finished = executor.wait()
    assert isinstance(finished, Finished)
    assert [o.worker for o in finished.outcomes] == ["serial", "serial"]


def test_work_that_no_worker_is_left_for_ends_the_run_and_blames_no_exam() -> None:
    options = {"nthreads": 1, "dashboard": False, "dashboard_address": None, "host": "127.0.0.1"}
    workers = {"cpu-0": {"cls": Worker, "options": {**options, "resources": {"CPU": 1}}}}
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}}
    seen = Collected()
    with (
        dask.config.set({"distributed.scheduler.no-workers-timeout": "100 ms"}),
        SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.CRITICAL) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(1)
        executor = DaskExecutor(client)
        cluster.scale(0)
        while client.scheduler_info()["workers"]:
            time.sleep(0.01)
        stage = Stage("convert", "CPU", partial(each, finish))
        with pytest.raises(ConfigurationError, match=r"no worker that offers CPU was left for 0\.1 s.*run again"):
            run_window(items(3), [stage], executor=executor, on_outcome=seen)
    assert seen.outcomes == []
