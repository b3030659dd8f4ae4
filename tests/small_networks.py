"""Small exam stores of many shapes and orientations, and small networks that misbehave, for tests of the stage
segment."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from network_contracts import SMALL_CONTRACT
from torch import Tensor

from cohort.geometry import StackGeometry
from cohort.stacks import ImageStack, Plane
from cohort.store.exam import write_exam
from models.inference import Network
from models.vnet import VNet
from pipelines.outcome import Outcome, WorkItem
from pipelines.segment import NETWORK_CLASSES, SegmentTask, segment_exams

POISON = 60_000
"""A slice that is this bright in its only bright pixels is what poisoned networks die of."""

Shape = tuple[int, int, int]


def random_stack(
    plane: Plane, index: int, shape: Shape, spacing_mm: float, seed: int, *, head_down: bool = False
) -> ImageStack:
    """Coarse random blobs on slices 4 mm apart."""
    n, rows, columns = shape
    coarse = torch.from_numpy(np.random.default_rng(seed).random((n, 1, 6, 6), np.float32))
    smooth = torch.nn.functional.interpolate(coarse, size=(rows, columns), mode="bilinear")[:, 0]
    return stack_of((1000 * smooth).numpy().astype(np.uint16), plane, index, spacing_mm, head_down=head_down)


def stack_of(
    image: npt.NDArray[np.uint16], plane: Plane, index: int = 0, spacing_mm: float = 1.5, *, head_down: bool = False
) -> ImageStack:
    """Slices 4 mm apart, in standing order or with their rows reversed."""
    positions = np.zeros((len(image), 3))
    positions[:, 0 if plane == "sagittal" else 2] = 4.0 * np.arange(len(image))
    down, right = {
        "sagittal": (np.array([0.0, 0, -1]), np.array([0.0, 1, 0])),
        "axial": (np.array([0.0, 1, 0]), np.array([1.0, 0, 0])),
    }[plane]
    down = -down if head_down else down
    return ImageStack(
        plane, index, image, StackGeometry(positions, right, down, (spacing_mm,) * 2, image.shape[1:], 4.0), None
    )


def random_exam(seed: int) -> list[ImageStack]:
    """One sagittal and none to three axial stacks, of few different shapes so that some exams share them."""
    rng = np.random.default_rng(seed)
    sagittal = (int(rng.integers(1, 7)), *rng.choice([(60, 60), (75, 52)]).tolist())
    stacks = [random_stack("sagittal", 0, sagittal, 1.5, seed, head_down=bool(seed % 2))]
    for k in range(int(rng.integers(0, 4))):
        shape = (int(rng.integers(1, 6)), *rng.choice([(48, 48), (40, 66)]).tolist())
        stacks.append(random_stack("axial", k, shape, 1.2, 100 * seed + k))
    return stacks


def work_item(store: Path, exam_id: str, stacks: Sequence[ImageStack], *, batch_slices: int = 4) -> WorkItem:
    """An exam store, and the task of segmenting it."""
    write_exam(store / f"stores/{exam_id}", stacks, {})
    task = SegmentTask(store, f"stores/{exam_id}", {}, batch_slices, "cpu")
    return WorkItem(exam_id, "segment", "0" * 64, task)


def small_networks(kind: Callable[..., VNet] = VNet, *, device: str = "cpu") -> dict[str, Network]:
    """Label array -> network with random weights, the same in every process, that finds each class in half of all
    pixels."""
    networks = {}
    blobs = random_stack("sagittal", 0, (4, 64, 64), 1.5, 0).image.astype(np.float32) / 900
    for k, (label, (plane, classes)) in enumerate(NETWORK_CLASSES.items()):
        torch.manual_seed(k)
        contract = dataclasses.replace(SMALL_CONTRACT, name=label, plane=plane, classes=classes)
        network = kind(contract.config).eval()
        with torch.no_grad():
            logits = VNet.forward(network, torch.from_numpy(blobs)[:, None])
            network.head.bias -= logits.transpose(0, 1).flatten(1).median(dim=1).values
        network.to(device, memory_format=torch.channels_last)
        networks[label] = Network(network, contract, device, "fp32")
    return networks


def poisoned_exam() -> list[ImageStack]:
    """Looks like no other: of what is visible every pixel but two is dark."""
    image = np.full((2, 60, 60), 1300, np.uint16)
    image[:, 30, 30:32] = POISON
    return [stack_of(image, "sagittal")]


def is_poisoned(batch: Tensor) -> bool:
    """Normalised to fat, poison stands out; resampling dims it."""
    return bool((batch.amax((1, 2, 3)) > 1.9).any())


class Memory(VNet):
    """Has memory for `limit` slices of a batch, and says what it was given."""

    limit = 1000

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self.batches: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(len(x))
        if len(x) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().forward(x)


class RaisesOnPoison(VNet):
    """Cannot compute the poisoned exam."""

    def forward(self, x: Tensor) -> Tensor:
        if is_poisoned(x):
            raise RuntimeError("Sizes of tensors must match")
        return super().forward(x)


class LosesItsGpu(VNet):
    """Does what a kernel with an illegal access does: on a GPU by one, on a CPU by raising the same error."""

    def forward(self, x: Tensor) -> Tensor:
        if is_poisoned(x):
            if x.is_cuda:
                return x[torch.full((1,), 10**6, device=x.device)]
            kind = getattr(torch, "AcceleratorError", RuntimeError)
            raise kind("CUDA error: an illegal memory access was encountered")
        return super().forward(x)


class Slow(VNet):
    """Gives the reading threads time to run ahead."""

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.02)
        return super().forward(x)


def segment_and_lose_gpu(items: Sequence[WorkItem], *, device: str) -> list[Outcome]:
    """`run` of a stage whose networks lose their GPU over a poisoned exam."""
    return segment_exams(small_networks(LosesItsGpu, device=device), items)
