"""Stage segment: exam stores -> label stores, by the networks for discs, vertebral bodies and muscles.

Threads read exams and normalise slices, this thread runs the networks over slices of many exams at once, and threads
write the label store of an exam as soon as its last slice is done (`pipelines.segment_io`). What waits between them is
bounded in slices, so the memory of a worker does not grow with the number of exams in a batch.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Final

from distributed import get_worker

from cohort.errors import ConfigurationError, RefusedError
from cohort.terms import MUSCLES
from models.forward import is_device_lost, usable_arithmetic
from models.inference import Found, Launched, Network, Piece, Size, cut, launch
from models.registry import load_network, read_contract
from pipelines.outcome import Outcome, WorkItem, failure, guarded, log_failure
from pipelines.read_ahead import read_ahead
from pipelines.segment_io import (
    Message,
    Opened,
    SegmentTask,
    Slices,
    StackUnderWay,
    Unreadable,
    n_slices,
    publish_labels,
    read_slices,
)

NETWORK_CLASSES = {
    "vertebral_body": ("sagittal", ("vertebral_body", "sacral_body")),
    "disc": ("sagittal", ("disc",)),
    "muscle": ("axial", MUSCLES),
}
"""Label array -> plane, and the classes that its network must have, in this order."""

BATCHES_READ_AHEAD: Final = 2
"""Slices that wait for the networks, in batches (own choice: one is taken while the next is made)."""
BATCHES_WAITING: Final = 4
"""Slices that wait for others of their shape, in batches; with more, the oldest go on alone (own choice)."""
THREADS_BESIDE_CPU: Final = 1
"""Threads that read, and as many that write: one of each keeps up with networks on a CPU."""
THREADS_BESIDE_GPU: Final = 4
"""Working value: how many keep up with a GPU has not been measured."""
DEVICE_LOST_EXIT: Final = 70
"""Exit status of a worker that has lost its GPU: EX_SOFTWARE of sysexits.h."""


def check_networks(networks: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Read the contracts of all networks before a run starts; label array -> (name, sha256 of the weights).

    Raises
    ------
    ConfigurationError
        if a network is missing, or its plane or classes are not those of the label array it is meant for
    """
    checked = {}
    for label, (plane, classes) in NETWORK_CLASSES.items():
        contract = read_contract(networks[label])
        if (contract.plane, contract.classes) != (plane, classes):
            raise ConfigurationError(
                f"network {contract.name!r} gives {', '.join(contract.classes)} on {contract.plane} slices; as {label} "
                f"network this version takes {', '.join(classes)}, in this order, on {plane} slices"
            )
        checked[label] = (networks[label], contract.weights_sha256)
    return checked


def segment_batch(items: Sequence[WorkItem]) -> list[Outcome]:
    """Publish the label stores of a batch of exams; outcomes in the order of the items.

    An error of one exam is its outcome, and the others go on. After an error of CUDA other than out of memory the
    process can do nothing more on its GPU: a Dask worker ends, its nanny starts another, and the window runs the
    members of the batch again one by one.
    """
    try:
        networks = open_networks(items[0].task)
    except Exception as error:  # weights that are missing or damaged
        _end_worker_if_lost(error)
        return [_failure(item, error, seconds=0.0) for item in items]
    return segment_exams(networks, items)


def open_networks(task: SegmentTask) -> dict[str, Network]:
    """Label array -> network on the task's device, in the fastest arithmetic that the device has."""
    arithmetic = usable_arithmetic(task.device)[0]
    return {
        label: Network(load_network(name, sha256, task.device), read_contract(name), task.device, arithmetic)
        for label, (name, sha256) in task.networks.items()
    }


def segment_exams(networks: Mapping[str, Network], items: Sequence[WorkItem]) -> list[Outcome]:
    """`segment_batch` by networks that are there; they, and `batch_slices`, are those of the first item's task."""
    n_threads = THREADS_BESIDE_GPU if any(network.on_gpu for network in networks.values()) else THREADS_BESIDE_CPU
    batch_slices: int = items[0].task.batch_slices
    numbered = list(enumerate(items))
    sources = [read_slices(numbered[k::n_threads], networks, batch_slices) for k in range(min(n_threads, len(items)))]
    with (
        ThreadPoolExecutor(n_threads) as writers,
        read_ahead(sources, capacity=BATCHES_READ_AHEAD * batch_slices, size=n_slices) as messages,
    ):
        work = _Work(networks, items, writers, batch_slices, n_threads)
        for message in messages:
            work.take(message)
        return work.outcomes()


# -- the networks ------------------------------------------------------------------------------------------------------

Waiting = tuple[str, Size]
"""Label array, shape that its network is given."""


class _Work:
    """Slices that wait for a full batch, the batch that a GPU computes while the next is prepared, and exams on their
    way to their outcome."""

    def __init__(
        self,
        networks: Mapping[str, Network],
        items: Sequence[WorkItem],
        writers: ThreadPoolExecutor,
        batch_slices: int,
        n_writers: int,
    ) -> None:
        self._networks, self._items, self._batch_slices = networks, items, batch_slices
        self._writers, self._writes = writers, deque[Future[Outcome]]()
        self._n_writers = n_writers
        self._waiting: dict[Waiting, list[Piece]] = {}
        self._launched: deque[tuple[str, Launched, float]] = deque()
        self._stacks: dict[int, list[StackUnderWay]] = {}
        self._n_left: dict[int, int] = {}
        """Exam -> slices, counted once for each network, that are not done."""
        self._seconds: defaultdict[int, float] = defaultdict(float)
        """Exam -> time spent on it: its reading, its share of the batches."""
        self._done: dict[int, Outcome | Future[Outcome]] = {}

    def take(self, message: Message) -> None:
        """Go on with what has been read."""
        self._seconds[message.number] += message.seconds
        match message:
            case Opened():
                self._open(message)
            case Slices():
                self._add(message)
            case Unreadable():
                self._fail(message.number, message.error)

    def outcomes(self) -> list[Outcome]:
        """Finish everything."""
        while self._waiting:
            self._launch_oldest()
        while self._launched:
            self._collect()
        done = (self._done[number] for number in range(len(self._items)))
        return [self._timed(k, one if isinstance(one, Outcome) else one.result()) for k, one in enumerate(done)]

    def _timed(self, number: int, outcome: Outcome) -> Outcome:
        return replace(outcome, seconds=round(outcome.seconds + self._seconds[number], 3))

    def _open(self, exam: Opened) -> None:
        self._stacks[exam.number] = exam.stacks
        self._n_left[exam.number] = sum(len(one.stack.image) * len(one.sizes) for one in exam.stacks)
        if not self._n_left[exam.number]:
            self._write(exam.number)

    def _add(self, slices: Slices) -> None:
        if slices.number in self._done:  # it has failed
            return
        owner = (slices.number, slices.stack)
        for label, size in self._stacks[slices.number][slices.stack].sizes.items():
            key = label, self._networks[label].input_shape(size)
            self._waiting.setdefault(key, []).append(Piece(owner, slices.first, slices.image, size))
            if _total(self._waiting[key]) >= self._batch_slices:
                self._launch_full(key)
        while sum(map(_total, self._waiting.values())) > BATCHES_WAITING * self._batch_slices:
            self._launch_oldest()

    def _launch_full(self, key: Waiting) -> None:
        for batch in cut(self._waiting.pop(key), self._batch_slices):
            if _total(batch) == self._batch_slices:
                self._launch(key[0], batch)
            else:
                self._waiting[key] = [piece.by_itself() for piece in batch]

    def _launch_oldest(self) -> None:
        """The shape whose first slices have waited longest; a dict keeps the order in which it was filled."""
        key = next(iter(self._waiting))
        self._launch(key[0], self._waiting.pop(key))

    def _launch(self, label: str, pieces: Sequence[Piece]) -> None:
        pieces = [piece for piece in pieces if piece.owner[0] not in self._done]
        if not pieces:
            return
        started = time.perf_counter()
        try:
            launched = launch(self._networks[label], pieces, batch_slices=self._batch_slices)
        except Exception as error:
            _end_worker_if_lost(error)
            self._blame(label, pieces, error)
            return
        self._launched.append((label, launched, time.perf_counter() - started))
        if len(self._launched) > 1:
            self._collect()

    def _blame(self, label: str, pieces: Sequence[Piece], error: Exception) -> None:
        """The error is that of one exam; which, shows when each runs alone."""
        exams = list(dict.fromkeys(piece.owner[0] for piece in pieces))
        if len(exams) == 1:
            self._fail(exams[0], error)
            return
        for number in exams:
            self._launch(label, [piece for piece in pieces if piece.owner[0] == number])

    def _collect(self) -> None:
        """Results of the batch launched longest ago."""
        label, launched, seconds = self._launched.popleft()
        started = time.perf_counter()
        try:
            found = launched.wait()
        except Exception as error:
            _end_worker_if_lost(error)
            raise
        seconds += time.perf_counter() - started
        n_slices = sum(len(piece) for piece, _ in found)
        for piece, one in found:
            self._seconds[piece.owner[0]] += seconds * len(piece) / n_slices
            self._keep(label, piece, one)

    def _keep(self, label: str, piece: Piece, found: Found) -> None:
        number, stack = piece.owner
        if number in self._done:
            return
        self._stacks[number][stack].found[label].append((piece.first, found))
        self._n_left[number] -= len(piece)
        if not self._n_left[number]:
            self._write(number)

    def _write(self, number: int) -> None:
        """Hand an exam to the writers; wait first where they are behind."""
        while len(self._writes) > self._n_writers:
            self._writes.popleft().exception()
        publish = partial(publish_labels, stacks=self._stacks.pop(number), networks=self._networks)
        future = self._writers.submit(guarded, publish, self._items[number])
        self._writes.append(future)
        self._done[number] = future

    def _fail(self, number: int, error: Exception) -> None:
        _end_worker_if_lost(error)
        self._stacks.pop(number, None)
        self._done[number] = _failure(self._items[number], error, seconds=0.0)


def _total(pieces: Sequence[Piece]) -> int:
    return sum(map(len, pieces))


def _failure(item: WorkItem, error: Exception, *, seconds: float) -> Outcome:
    if not isinstance(error, RefusedError):
        log_failure(f"{item.stage} of {item.exam_id}", error)
    return failure(item, error, seconds=seconds)


def _end_worker_if_lost(error: Exception) -> None:
    """End this process if it is a Dask worker whose GPU is lost to it. Elsewhere the error goes on as any other."""
    if not is_device_lost(error):
        return
    try:
        get_worker()
    except ValueError:
        return
    log_failure("the GPU of a worker, which ends", error)
    os._exit(DEVICE_LOST_EXIT)
