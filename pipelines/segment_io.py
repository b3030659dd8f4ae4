"""What the stage segment reads and writes: exam stores into normalised slices, winners into label stores.

Both run in threads beside the networks.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from cohort.anatomy.orientation import standing_order
from cohort.anatomy.sides import split_sides
from cohort.stacks import ImageStack, LabelledStack
from cohort.store.exam import read_exam
from cohort.store.labels import write_labels
from cohort.store.layout import label_store_path
from cohort.terms import DISC, SACRAL_BODY, VERTEBRAL_BODY
from models.inference import Found, Network, Segmentation, Size, joined, network_size, normalised_slices
from pipelines.outcome import Result, WorkItem


@dataclass(frozen=True)
class SegmentTask:
    """Which exam, which networks, how."""

    store: Path
    exam_path: str
    """Exam store relative to STORE."""
    networks: Mapping[str, tuple[str, str]]
    """Label array -> (name, path or URL of the network, sha256 of its weights)."""
    batch_slices: int
    device: str


# -- reading -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class StackUnderWay:
    """One stack of an exam whose slices are under way."""

    stack: ImageStack
    """Without its pixels."""
    sizes: dict[str, Size]
    """Label array of the plane -> rows and columns that its network is given."""
    found: dict[str, list[tuple[int, Found]]] = field(default_factory=lambda: defaultdict(list))
    """Label array -> first slice, results."""


@dataclass(frozen=True, eq=False)
class Opened:
    """The slices of an exam come next."""

    number: int
    """Of the exam in its batch."""
    stacks: list[StackUnderWay]
    seconds: float


@dataclass(frozen=True, eq=False)
class Slices:
    """Slices in front of the networks."""

    number: int
    stack: int
    first: int
    image: Tensor
    """As `Piece.image`."""
    seconds: float


@dataclass(frozen=True, eq=False)
class Unreadable:
    """An exam that cannot be read, or that no network may be given."""

    number: int
    error: Exception
    seconds: float


Message = Opened | Slices | Unreadable


def n_slices(message: Message) -> int:
    """Slices that a message holds."""
    return len(message.image) if isinstance(message, Slices) else 0


def read_slices(
    numbered: Sequence[tuple[int, WorkItem]], networks: Mapping[str, Network], batch_slices: int
) -> Iterator[Message]:
    """Read one exam after another, at most `batch_slices` of a stack at once."""
    for number, item in numbered:
        started = time.perf_counter()
        try:
            stacks = read_exam(item.task.store / item.task.exam_path).stacks
            under_way = [StackUnderWay(_without_pixels(stack), _sizes(stack, networks)) for stack in stacks]
            yield Opened(number, under_way, time.perf_counter() - started)
            yield from _slices(number, stacks, networks, batch_slices)
        except Exception as error:  # becomes the exam's outcome
            yield Unreadable(number, error, time.perf_counter() - started)


def _sizes(stack: ImageStack, networks: Mapping[str, Network]) -> dict[str, Size]:
    """Label arrays of the stack's plane."""
    there = {label: network.contract for label, network in networks.items() if network.contract.plane == stack.plane}
    return {label: network_size(stack, contract) for label, contract in there.items()}


def _without_pixels(stack: ImageStack) -> ImageStack:
    """All that is asked of the image from here on is its shape."""
    return replace(stack, image=np.broadcast_to(np.uint16(0), stack.image.shape))


def _slices(
    number: int, stacks: Sequence[ImageStack], networks: Mapping[str, Network], batch_slices: int
) -> Iterator[Slices]:
    pinned = any(network.on_gpu for network in networks.values())
    for k, stack in enumerate(stacks):
        started = time.perf_counter()
        for first, image in normalised_slices(stack, batch_slices, pinned=pinned):
            yield Slices(number, k, first, image, time.perf_counter() - started)
            started = time.perf_counter()


# -- writing -----------------------------------------------------------------------------------------------------------


def publish_labels(item: WorkItem, *, stacks: Sequence[StackUnderWay], networks: Mapping[str, Network]) -> Result:
    """Label store of one exam, in a thread."""
    task: SegmentTask = item.task
    target = label_store_path(task.store, item.exam_id, item.fingerprint)
    weights = {label: sha256 for label, (_, sha256) in task.networks.items()}
    about = {"weights_sha256": weights, "arithmetic": next(iter(networks.values())).arithmetic}
    labelled = [_labelled(stack, networks) for stack in stacks]
    write_labels(target, labelled, {"exam_id": item.exam_id, "fingerprint": item.fingerprint, **about})
    return Result(path=str(target.relative_to(task.store)))


def _labelled(one: StackUnderWay, networks: Mapping[str, Network]) -> LabelledStack:
    labels: dict[str, npt.NDArray[np.uint8]] = {}
    uncertainty: dict[str, float] = {}
    orientation = standing_order(one.stack.geometry, one.stack.plane)
    for label in one.sizes:
        classes = networks[label].contract.classes
        in_order = [found for _, found in sorted(one.found[label], key=lambda pair: pair[0])]
        segmentation = joined(in_order, orientation, classes)
        labels[label] = _label_array(label, segmentation, classes, one.stack)
        uncertainty |= segmentation.entropy
    return LabelledStack(one.stack, labels, uncertainty)


def _label_array(label: str, found: Segmentation, classes: Sequence[str], stack: ImageStack) -> npt.NDArray[np.uint8]:
    """Values of `cohort.terms` from the classes of the network."""
    if label == "muscle":
        return split_sides(found.winner, stack.geometry)
    values = {"vertebral_body": VERTEBRAL_BODY, "sacral_body": SACRAL_BODY, "disc": DISC}
    table = np.array([0, *(values[name] for name in classes)], np.uint8)
    return table[found.winner]
