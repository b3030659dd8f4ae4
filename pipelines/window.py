"""The scheduling of all work: lanes by resource, a bounded window of batches, and exact blame for lost workers.

Everything that runs goes through `run_window`. The client keeps the queues: Dask itself does not queue tasks that ask
for resources (dask/distributed#9164), so submitting a whole archive would fill the scheduler and suspect innocent exams
when a worker dies.
"""

from __future__ import annotations

import faulthandler
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from resource import RUSAGE_SELF, getrusage
from typing import Any, Final, Protocol

from distributed import CancelledError, Client, Future, as_completed, get_worker
from distributed.protocol.pickle import dumps, loads
from distributed.scheduler import KilledWorker, NoValidWorkerError, NoWorkerError

from cluster.resources import Resource, offered, preflight
from cohort.errors import ConfigurationError
from pipelines.outcome import Outcome, WorkItem, failed, log_failure

WINDOW_PER_SLOT: Final = 2
"""Batches in flight per slot of a lane: one runs, one waits on the worker, so that no worker waits for the client."""

COUNT_EVERY_S: Final = 20.0
"""Workers of a batch system join one by one."""

NEVER: Final[Callable[[], bool]] = lambda: False  # noqa: E731
"""For `stop`."""
SCHEDULER_LOST: Final = (
    "the scheduler is gone; what was committed is kept, so start it again, or another, and run again"
)

OnOutcome = Callable[[Outcome], Iterable[WorkItem]]
"""Receives every outcome once, in the client, and returns the items that can start now (the exam's next stage)."""


@dataclass(frozen=True)
class Stage:
    """How the items of one stage are run."""

    name: str
    resource: Resource
    run: Callable[[Sequence[WorkItem]], Iterable[Outcome]]
    """Top-level function (or `functools.partial` of one): a batch of items -> one outcome each. It catches per exam."""
    batch_size: int = 1
    """Items of one task; choose it so that a task lasts 10 to 60 s."""
    time_limit_s: float | None = None
    """Per item. A worker process that takes longer is ended, with the batch: longer for one item where outcomes are
    yielded one by one, else for all items of the batch together."""


@dataclass(frozen=True)
class Finished:
    """A batch that came back, with its outcomes or with what ended it."""

    stage: Stage
    items: tuple[WorkItem, ...]
    seconds: float
    outcomes: tuple[Outcome, ...] = ()
    error_type: str | None = None
    """Class name of the exception that ended the whole batch; None when there are outcomes."""
    attempts: int = 1
    """How often the batch was tried; several times where workers died."""
    last_worker: str = ""


@dataclass(frozen=True)
class Broken:
    """Comes back from a batch that raised as a whole."""

    error_type: str


class Executor(Protocol):
    """Where batches run."""

    def slots(self, resource: Resource) -> int:
        """Tasks of this resource that run at once; `ConfigurationError` when none can."""

    def submit(self, stage: Stage, items: tuple[WorkItem, ...]) -> None:
        """Start a batch."""

    def wait(self) -> Finished:
        """Wait for any batch that was submitted."""

    def cancel(self) -> None:
        """Drop everything that was submitted."""


def _unwatched(n_items: int) -> None:
    """Where time limits do not apply."""


def run_batch(
    stage: Stage, items: tuple[WorkItem, ...], *, worker: str, watch: Callable[[int], None] = _unwatched
) -> tuple[Outcome, ...] | Broken:
    """Run one batch and check that every item has its outcome.

    Nothing is raised: Dask would log the text of the exception and the arguments of the task.

    Parameters
    ----------
    watch : told of how many items the time begins to run
    """
    try:
        watch(len(items))
        answers = iter(stage.run(items))
        outcomes: list[Outcome] = []
        while (outcome := _next(answers, watch)) is not None:
            outcomes.append(outcome)
        if [outcome.exam_id for outcome in outcomes] != [item.exam_id for item in items]:
            raise RuntimeError("outcomes are not those of the items")  # noqa: TRY301
        peak_mib = getrusage(RUSAGE_SELF).ru_maxrss / 1024  # Linux counts KiB
        return tuple(replace(outcome, worker=worker, rss_mib=round(peak_mib, 1)) for outcome in outcomes)
    except Exception as error:  # becomes the outcome of the one exam that raises it alone
        log_failure(f"a batch of {stage.name}", error)
        return Broken(type(error).__name__)


def _next(outcomes: Iterator[Outcome], watch: Callable[[int], None]) -> Outcome | None:
    watch(1)
    return next(outcomes, None)


def finished_batch(
    stage: Stage, items: tuple[WorkItem, ...], seconds: float, answer: tuple[Outcome, ...] | Broken
) -> Finished:
    """A batch with what `run_batch` answered."""
    if isinstance(answer, Broken):
        return Finished(stage, items, seconds, error_type=answer.error_type)
    return Finished(stage, items, seconds, outcomes=answer)


class SerialExecutor:
    """Runs batches in this process, one after another: for tests and debugging. Time limits do not apply."""

    def __init__(self) -> None:
        self._batches: deque[tuple[Stage, tuple[WorkItem, ...]]] = deque()

    def slots(self, resource: Resource) -> int:
        """One of each."""
        return 1

    def submit(self, stage: Stage, items: tuple[WorkItem, ...]) -> None:
        """Remember a batch until `wait` runs it."""
        self._batches.append((stage, items))

    def wait(self) -> Finished:
        """Run the batch that waits longest."""
        stage, items = self._batches.popleft()
        started = time.perf_counter()
        answer = run_batch(stage, items, worker="serial")
        return finished_batch(stage, items, time.perf_counter() - started, answer)

    def cancel(self) -> None:
        """Forget the batches that did not run."""
        self._batches.clear()


def _run_on_worker(batch: bytes) -> tuple[Outcome, ...] | Broken:
    """Task of a Dask worker, given a pickled stage and its items.

    The watchdog is a C thread: it ends the process even where a library holds the GIL.
    """
    try:
        stage, items = loads(batch)
    except Exception as error:  # raised, Dask would log it with the bytes, which hold paths
        log_failure("the unpacking of a batch", error)
        return Broken(type(error).__name__)

    def watch(n_items: int) -> None:
        if stage.time_limit_s is not None:
            faulthandler.dump_traceback_later(stage.time_limit_s * n_items, exit=True)

    try:
        return run_batch(stage, items, worker=str(get_worker().name), watch=watch)
    finally:
        faulthandler.cancel_dump_traceback_later()


class DaskExecutor:
    """Runs batches on the workers of a Dask cluster that offer the stage's resource.

    Make one executor per cluster. Workers may join while it works: they are counted again now and then. A worker that
    leaves is counted on, for most are just being restarted.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._offered = Counter(offered(client))
        self._counted = time.monotonic()
        self._done = as_completed(loop=client.loop)
        self._ready: deque[tuple[Future[Any], BaseException | None, Any]] = deque()
        """Batches that are back: future, what ended it, its answer."""
        self._flying: dict[Future[Any], tuple[Stage, tuple[WorkItem, ...], float]] = {}

    def slots(self, resource: Resource) -> int:
        """Sum of what the workers offer, or have offered."""
        if time.monotonic() - self._counted > COUNT_EVERY_S:
            try:
                self._offered |= Counter(offered(self._client))
            except OSError as lost:
                raise ConfigurationError(SCHEDULER_LOST) from lost
            self._counted = time.monotonic()
        preflight(self._offered, [resource])
        return self._offered[resource]

    def submit(self, stage: Stage, items: tuple[WorkItem, ...]) -> None:
        """Send a batch to the scheduler, as bytes: objects it would unpack, measure and pack again, all in the client's
        own process where the cluster is local."""
        batch = dumps((stage, items))
        future = self._client.submit(_run_on_worker, batch, resources={stage.resource: 1}, pure=False)
        self._flying[future] = (stage, items, time.perf_counter())
        self._done.add(future)

    def wait(self) -> Finished:
        """Wait for any batch; its future is released, so that its rows leave the worker.

        Raises
        ------
        ConfigurationError
            if no worker was left for the batch for as long as `cluster/dask.yaml` allows, or the scheduler is gone: the
            exams are not to blame
        """
        if not self._ready:
            self._fetch()
        future, error, answer = self._ready.popleft()
        stage, items, started = self._flying.pop(future)
        seconds = time.perf_counter() - started
        if isinstance(error, NoWorkerError | NoValidWorkerError):
            raise ConfigurationError(
                f"no worker that offers {stage.resource} was left for {error.timeout:g} s: their jobs ended or their "
                "hosts are gone; what was committed is kept, so start workers and run again"
            )
        future.release()
        finished = finished_batch(stage, items, seconds, answer)
        if isinstance(error, KilledWorker):
            worker = str(error.last_worker.name)
            return replace(finished, attempts=error.allowed_failures + 1, last_worker=worker)
        return finished

    def _fetch(self) -> None:
        """Wait for a batch, and fetch the answers of all that are back by then at once."""
        futures = self._done.next_batch(block=True)
        sound = [future for future in futures if future.status == "finished"]
        try:
            answers = self._answers(sound)
            errors = {future: future.exception() for future in futures if future not in answers}
        except (CancelledError, OSError) as lost:  # nobody else cancels what is waited for; no batch raises (run_batch)
            raise ConfigurationError(SCHEDULER_LOST) from lost
        if any(isinstance(error, CancelledError) for error in errors.values()):
            raise ConfigurationError(SCHEDULER_LOST)
        for future in futures:
            error = errors.get(future)
            self._ready.append((future, error, answers.get(future, Broken(type(error).__name__))))

    def _answers(self, futures: Sequence[Future[Any]]) -> dict[Future[Any], Any]:
        try:
            return dict(zip(futures, self._client.gather(futures), strict=True))
        except KilledWorker:  # who still held one of them died just now, and so did who made it again
            return {future: future.result() for future in futures if future.exception() is None}

    def cancel(self) -> None:
        """Cancel what did not start; what runs ends with the cluster."""
        if self._client.status == "running":
            self._client.cancel(list(self._flying))
        self._flying.clear()
        self._ready.clear()
        self._done = as_completed(loop=self._client.loop)  # the old one would still hand out what was cancelled


def run_window(
    items: Iterable[WorkItem],
    stages: Sequence[Stage],
    *,
    executor: Executor,
    on_outcome: OnOutcome,
    stop: Callable[[], bool] = NEVER,
) -> None:
    """Run items, and the items that their outcomes lead to, until nothing is left.

    Stages are given in the order of the chain. An exam moves on as soon as its own stage is done, so conversion,
    networks, measurement and loads of different exams overlap. Members of a batch that was lost with its worker are run
    again one by one when all else is done: an exam that is alone when a worker dies is the one that killed it.

    On any exception, Ctrl-C included, outstanding work is cancelled and the exception raised.

    Parameters
    ----------
    items : taken one by one as workers become free, so that a generator over an archive needs little memory
    stop : asked before each batch; once true nothing more is started, what runs is waited for
    """
    window = _Window(items, stages, executor, on_outcome, stop)
    try:
        window.run()
    except BaseException:
        executor.cancel()
        raise


class _Window:
    """Queues by stage, and the number of batches in flight."""

    def __init__(
        self,
        items: Iterable[WorkItem],
        stages: Sequence[Stage],
        executor: Executor,
        on_outcome: OnOutcome,
        stop: Callable[[], bool],
    ) -> None:
        self._source: Iterator[WorkItem] | None = iter(items)
        """Items that nobody has asked for yet; None when there are no more."""
        self._stages = {stage.name: stage for stage in stages}
        self._resources = tuple(dict.fromkeys(stage.resource for stage in stages))
        self._executor = executor
        self._on_outcome = on_outcome
        self._stop = stop
        self._waiting: dict[str, deque[WorkItem]] = {stage.name: deque() for stage in stages}
        self._in_stage: Counter[str] = Counter()
        self._in_lane: Counter[Resource] = Counter()
        self._suspects: deque[WorkItem] = deque()
        self._enough = sum(WINDOW_PER_SLOT * executor.slots(stage.resource) * stage.batch_size for stage in stages)

    def run(self) -> None:
        while not self._stop():
            self._run_lanes()
            self._run_suspects_alone()
            if not (self._source or self._suspects or any(self._waiting.values())):
                break

    def _add(self, items: Iterable[WorkItem]) -> None:
        for item in items:
            self._waiting[item.queue or item.stage].append(item)

    def _run_lanes(self) -> None:
        self._fill()
        while self._in_lane.total():
            finished = self._executor.wait()
            self._in_stage[finished.stage.name] -= 1
            self._in_lane[finished.stage.resource] -= 1
            if finished.error_type is None:
                self._report(finished.outcomes)
            else:
                self._suspects.extend(finished.items)
            self._fill()

    def _run_suspects_alone(self) -> None:
        while self._suspects and not self._stop():
            item = self._suspects.popleft()
            self._executor.submit(self._stages[item.queue or item.stage], (item,))
            finished = self._executor.wait()
            self._report(finished.outcomes if finished.error_type is None else (blamed(finished),))

    def _report(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            self._add(self._on_outcome(outcome))

    def _fill(self) -> None:
        for resource in self._resources:
            while self._has_room(resource) and not self._stop():
                stage = self._next_stage(resource)
                while stage is None and self._take_one():
                    stage = self._next_stage(resource)
                stage = stage or self._next_stage(resource, partial=True)
                if stage is None:
                    break
                self._submit(stage)

    def _has_room(self, resource: Resource) -> bool:
        return self._in_lane[resource] < WINDOW_PER_SLOT * self._executor.slots(resource)

    def _take_one(self) -> bool:
        """Take an item from the source unless more than enough are waiting already."""
        if self._source is None or sum(map(len, self._waiting.values())) > self._enough:
            return False
        item = next(self._source, None)
        if item is None:
            self._source = None
            return False
        self._add([item])
        return True

    def _submit(self, stage: Stage) -> None:
        queue = self._waiting[stage.name]
        batch = tuple(queue.popleft() for _ in range(min(stage.batch_size, len(queue))))
        self._executor.submit(stage, batch)
        self._in_stage[stage.name] += 1
        self._in_lane[stage.resource] += 1

    def _next_stage(self, resource: Resource, *, partial: bool = False) -> Stage | None:
        """Stage with a full batch, or with any that should not wait longer.

        Finish exams before beginning new ones, unless another lane has too little to do: then feed it first.
        """
        ready = [
            stage for stage in self._stages.values() if stage.resource == resource and self._is_ready(stage, partial)
        ]
        if not ready:
            return None
        hungry = any(self._has_room(other) for other in self._resources if other != resource)
        return ready[0] if hungry else ready[-1]

    def _is_ready(self, stage: Stage, partial: bool) -> bool:
        """A full batch, or a smaller one where waiting would leave a worker idle or cannot make it grow."""
        n_waiting = len(self._waiting[stage.name])
        if n_waiting >= stage.batch_size:
            return True
        if n_waiting == 0 or not partial:
            return False
        return self._in_lane[stage.resource] < self._executor.slots(stage.resource) or not self._may_grow(stage)

    def _may_grow(self, stage: Stage) -> bool:
        names = list(self._stages)
        return self._source is not None or any(
            self._waiting[name] or self._in_stage[name] for name in names[: names.index(stage.name)]
        )


def blamed(finished: Finished) -> Outcome:
    """Outcome of the only item of a batch that ended with an error rather than with an outcome."""
    (item,) = finished.items
    limit_s = finished.stage.time_limit_s
    reason = "internal_error"
    if finished.error_type == KilledWorker.__name__:
        # every attempt of a hanging item lasts as long as the limit
        timed_out = limit_s is not None and finished.seconds >= finished.attempts * limit_s
        reason = "timed_out" if timed_out else "worker_killed"
    outcome = failed(item, str(finished.error_type), seconds=finished.seconds, reason=reason)
    return replace(outcome, worker=finished.last_worker)
