"""Run a network over slices: standing order, training spacing, batches over stacks and exams, probabilities and their
arg-max on the native grid.

A batch is made of pieces: consecutive slices of one stack. Pieces of any exams share a batch when the network is given
them in one shape, which depends on the stack alone; so what a slice becomes does not depend on what else is waiting.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from cohort.anatomy.orientation import Orientation, standing_order
from cohort.errors import ConfigurationError, RefusedError
from cohort.stacks import ImageStack
from models.forward import Arithmetic, logits, usable_arithmetic
from models.preprocessing import normalise
from models.registry import NetworkContract
from models.vnet import VNet

logger = logging.getLogger(__name__)

MAX_EXTENT_MM = 800.0
"""A larger field of view is not a lumbar scan, or its pixel spacing is wrong."""
MAX_COARSENING = 2.0
"""Pixels, acquired or given to the network, may be so many times those it has learned from (working value)."""
GRID_PX: Final = 32
"""On a GPU slices are padded to whole steps of so many pixels, so that few shapes occur and exams share batches (own
choice); on a CPU, which gains nothing from it, to whole down-samplings alone."""

Size = tuple[int, int]
"""Rows, columns."""


@dataclass(frozen=True, eq=False)
class Network:
    """A network on its device, and how it is given slices."""

    module: VNet
    contract: NetworkContract
    device: str
    """cpu, cuda, cuda:0, ..."""
    arithmetic: Arithmetic

    @property
    def on_gpu(self) -> bool:
        """Whether its memory is not the main memory."""
        return self.device != "cpu"

    @property
    def step_px(self) -> int:
        """Rows and columns are padded to whole steps."""
        down_samplings: int = 2**self.contract.levels
        return max(down_samplings, GRID_PX) if self.on_gpu else down_samplings

    def input_shape(self, size: Size) -> Size:
        """Padded rows and columns of slices of a size."""
        return size[0] + -size[0] % self.step_px, size[1] + -size[1] % self.step_px


@dataclass(frozen=True, eq=False)
class Piece:
    """Consecutive slices of one stack on their way through a network."""

    owner: tuple[int, ...]
    """Whose slices they are: whatever the caller numbers stacks by."""
    first: int
    """Number of the first slice in standing order."""
    image: Tensor
    """[slice, row, column] float32, normalised, on the native grid in standing order, in main memory."""
    size: Size
    """Rows and columns at the network's spacing."""

    def __len__(self) -> int:
        return len(self.image)

    def by_itself(self) -> Piece:
        """The same, not holding the memory of slices that it was cut from."""
        if self.image.untyped_storage().nbytes() == self.image.nbytes:
            return self
        image = self.image.clone()
        return replace(self, image=image.pin_memory() if self.image.is_pinned() else image)


@dataclass(frozen=True, eq=False)
class Found:
    """What a network says of a piece."""

    winner: Tensor
    """[slice, row, column] uint8: 1 + the class of highest probability where any is above one half, else 0."""
    bits: Tensor
    """[slice, class] float64: sum of the binary entropy inside the class's mask."""
    n_pixels: Tensor
    """[slice, class] int64: size of the mask."""
    masks: Tensor | None = None
    """[slice, class, row, column] bool: probability above one half, where it was asked for."""

    def in_main_memory(self) -> Found:
        """The same in main memory; from a GPU it is there when the GPU has come so far (`Launched.wait`)."""
        winner, bits, n_pixels = (x.to("cpu", non_blocking=True) for x in (self.winner, self.bits, self.n_pixels))
        masks = None if self.masks is None else self.masks.to("cpu", non_blocking=True)
        return Found(winner, bits, n_pixels, masks)


@dataclass(frozen=True, eq=False)
class Launched:
    """Results of a batch, on a GPU still to come."""

    found: list[tuple[Piece, Found]]
    done: torch.cuda.Event | None

    def wait(self) -> list[tuple[Piece, Found]]:
        """Pieces, cut where batches ended, and what was found in them."""
        if self.done is not None:
            self.done.synchronize()
        return self.found


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Labels of one stack in its native order."""

    winner: npt.NDArray[np.uint8]
    """[slice, row, column] 1 + the class of highest probability where any is above one half, else 0."""
    entropy: dict[str, float]
    """Class -> mean binary entropy (bit) inside its mask; 1 where the mask is empty."""
    masks: npt.NDArray[np.bool_] | None = None
    """[class, slice, row, column] probability above one half, where it was asked for."""


# -- before the network ------------------------------------------------------------------------------------------------


class TakesSlices(Protocol):
    """How a network, trained or to be trained, is given slices."""

    @property
    def name(self) -> str: ...
    @property
    def plane(self) -> str: ...
    @property
    def spacing_mm(self) -> float: ...
    @property
    def max_side_px(self) -> int: ...


def network_size(stack: ImageStack, contract: TakesSlices) -> Size:
    """Rows and columns of a stack's slices at the contract's spacing, in standing order; coarser where the longer side
    would exceed the contract's.

    Raises
    ------
    ConfigurationError
        if the network is for another plane
    RefusedError
        `inconsistent_series` if the field of view is absurdly large; `network_misfit` if its pixels, or those that a
        field of view of its size would leave, are too coarse for the network
    """
    if contract.plane != stack.plane:
        raise ConfigurationError(
            f"network {contract.name!r} is for {contract.plane} slices, not {stack.plane} ones; choose another network"
        )
    geometry = standing_order(stack.geometry, stack.plane).geometry(stack.geometry)
    spacing_mm = geometry.spacing_mm
    extent_mm = (geometry.shape[0] * spacing_mm[0], geometry.shape[1] * spacing_mm[1])
    if max(extent_mm) > MAX_EXTENT_MM:
        raise RefusedError("inconsistent_series", f"field of view of {max(extent_mm):.0f} mm")
    pixel_mm = max(contract.spacing_mm, max(extent_mm) / contract.max_side_px)
    coarsest_mm = max(pixel_mm, *spacing_mm)
    if coarsest_mm > MAX_COARSENING * contract.spacing_mm:
        raise RefusedError(
            "network_misfit",
            f"pixels of {max(spacing_mm):.2f} mm on a field of view of {max(extent_mm):.0f} mm leave the network "
            f"{contract.name} {coarsest_mm:.2f} mm a pixel; it has learned from {contract.spacing_mm:.2f} mm",
        )
    return max(round(extent_mm[0] / pixel_mm), 16), max(round(extent_mm[1] / pixel_mm), 16)


def normalised_slices(stack: ImageStack, n: int, *, pinned: bool) -> Iterator[tuple[int, Tensor]]:
    """Number of the first slice and `Piece.image` of n slices after the other.

    Parameters
    ----------
    pinned : page-locked memory, which a GPU reads while the processor goes on
    """
    image = standing_order(stack.geometry, stack.plane).apply(stack.image)
    for first in range(0, len(image), n):
        slices = torch.from_numpy(np.stack([normalise(slice_) for slice_ in image[first : first + n]]))
        yield first, slices.pin_memory() if pinned else slices


def cut(pieces: Iterable[Piece], n: int) -> Iterator[list[Piece]]:
    """Batches of n slices, and one of what is left; pieces are cut where a batch ends."""
    batch: list[Piece] = []
    room = n
    for piece in pieces:
        done = 0
        while done < len(piece):
            part = piece.image[done : done + room]
            batch.append(replace(piece, first=piece.first + done, image=part))
            done, room = done + len(part), room - len(part)
            if room == 0:
                yield batch
                batch, room = [], n
    if batch:
        yield batch


# -- the network -------------------------------------------------------------------------------------------------------

_safe_slices: WeakKeyDictionary[VNet, dict[tuple[str, Size], int]] = WeakKeyDictionary()
"""Network -> device and shape -> slices of a batch for which the memory was enough, where it once was not."""


def safe_slices(network: Network, shape: Size, batch_slices: int) -> int:
    """Slices of a batch: as wanted, or fewer where this process has run out of memory with as many."""
    return min(batch_slices, _safe_slices.get(network.module, {}).get((network.device, shape), batch_slices))


def launch(network: Network, pieces: Sequence[Piece], *, batch_slices: int, with_masks: bool = False) -> Launched:
    """Run a network over pieces that it is given in one shape, `batch_slices` at once.

    Out of memory, the batch is halved until it fits, and the size remembered for this network, shape and device as long
    as the process lives. On a GPU every batch is filled with empty slices to its full size, so that one shape is one
    computation, whatever is in it; the results are on their way to main memory when this returns.

    Raises
    ------
    torch.OutOfMemoryError
        if the memory is not enough for one slice
    ValueError
        if the pieces are of more than one shape
    """
    shapes = {network.input_shape(piece.size) for piece in pieces}
    if len(shapes) != 1:
        raise ValueError(f"a batch has one shape, not {sorted(shapes)}")
    (shape,) = shapes
    while (found := _attempt(network, pieces, shape, batch_slices, with_masks=with_masks)) is None:
        torch.cuda.empty_cache()  # nothing where there is no GPU
    if not network.on_gpu:
        return Launched(found, None)
    done = torch.cuda.Event()  # type: ignore[no-untyped-call]
    done.record(torch.cuda.current_stream(network.device))
    return Launched(found, done)


def _attempt(
    network: Network, pieces: Sequence[Piece], shape: Size, batch_slices: int, *, with_masks: bool
) -> list[tuple[Piece, Found]] | None:
    """None if the memory was not enough, after which a batch is half as large. What was allocated is free by then: the
    exception, which holds it, does not outlive this function."""
    n = safe_slices(network, shape, batch_slices)
    try:
        return [one for part in cut(pieces, n) for one in _forward(network, part, shape, n, with_masks=with_masks)]
    except torch.OutOfMemoryError:
        if n == 1:
            raise
    _safe_slices.setdefault(network.module, {})[network.device, shape] = n // 2
    size = "x".join(map(str, shape))
    logger.warning("%s: %d slices of %s fill the memory of %s; %d from now on",
                   network.contract.name, n, size, network.device, n // 2)  # fmt: skip
    return None


@torch.inference_mode()
def _forward(
    network: Network, pieces: Sequence[Piece], shape: Size, n: int, *, with_masks: bool
) -> list[tuple[Piece, Found]]:
    filled = n if network.on_gpu else sum(map(len, pieces))
    batch = torch.zeros(filled, 1, *shape, device=network.device)
    for piece, part in _parts(pieces, batch):
        image = piece.image.to(network.device, non_blocking=True)[:, None]
        part.copy_(interpolate(image, size=piece.size, mode="bilinear", antialias=True, align_corners=False))
    out = logits(network.module, batch, network.arithmetic)
    return [
        (piece, _found(part.sigmoid(), piece.image.shape[1:], with_masks=with_masks).in_main_memory())
        for piece, part in _parts(pieces, out)
    ]


def _parts(pieces: Sequence[Piece], batch: Tensor) -> Iterator[tuple[Piece, Tensor]]:
    """Each piece with its slices of a batch, without the padding."""
    start = 0
    for piece in pieces:
        yield piece, batch[start : start + len(piece), :, : piece.size[0], : piece.size[1]]
        start += len(piece)


def _found(small: Tensor, native: Sequence[int], *, with_masks: bool) -> Found:
    """Probabilities [slice, class, row, column], not masks, are resampled to the native grid."""
    probability = interpolate(small, size=list(native), mode="bilinear", align_corners=False)
    masks = probability > 0.5
    bits, n_pixels = _tally(probability, masks)
    return Found(_winner(probability, masks), bits, n_pixels, masks if with_masks else None)


def _winner(probability: Tensor, masks: Tensor) -> Tensor:
    """`Found.winner`; of equally likely classes the first. Class by class, for which a CPU needs less time than for
    `Tensor.max` over classes."""
    winner, best = masks[:, 0].to(torch.uint8), probability[:, 0]
    for k in range(1, masks.shape[1]):
        winner.masked_fill_(masks[:, k] & (probability[:, k] > best), k + 1)
        best = torch.maximum(best, probability[:, k])
    return winner


def _tally(probability: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """`Found.bits` and `Found.n_pixels`."""
    if probability.is_cuda:  # to gather the few pixels inside, one would have to wait for the GPU
        return torch.where(masks, _entropy(probability), 0.0).sum((2, 3), dtype=torch.float64), masks.sum((2, 3))
    # few calls of torch: each lets go of the interpreter, and waits for the threads that read and write to get it back
    n_pixels = [np.count_nonzero(mask) for mask in masks.flatten(0, 1).numpy()]
    bits = _entropy(probability[masks].double()).numpy()
    sums = np.bincount(np.repeat(np.arange(len(n_pixels)), n_pixels), weights=bits, minlength=len(n_pixels))
    return torch.from_numpy(sums).reshape(masks.shape[:2]), torch.tensor(n_pixels).reshape(masks.shape[:2])


def _entropy(probability: Tensor) -> Tensor:
    """Binary entropy, bit."""
    p = probability.clamp(1e-6, 1 - 1e-6)
    return -(p * p.log2() + (1 - p) * (1 - p).log2())


# -- after the network -------------------------------------------------------------------------------------------------


def joined(found: Sequence[Found], orientation: Orientation, classes: Sequence[str]) -> Segmentation:
    """Results of all pieces of a stack in the order of their slices, in the stack's native order."""
    bits, n_pixels = (torch.cat(parts).numpy() for parts in zip(*((x.bits, x.n_pixels) for x in found), strict=True))
    masks = [x.masks for x in found if x.masks is not None]
    return Segmentation(
        winner=orientation.restore(torch.cat([x.winner for x in found]).numpy()),
        entropy={
            name: float(bits[:, k].sum() / n_pixels[:, k].sum()) if n_pixels[:, k].any() else 1.0
            for k, name in enumerate(classes)
        },
        masks=np.stack([orientation.restore(m) for m in torch.cat(masks).numpy().swapaxes(0, 1)]) if masks else None,
    )


def segment_stack(
    network: VNet,
    contract: NetworkContract,
    stack: ImageStack,
    *,
    batch_slices: int,
    device: str,
    arithmetic: Arithmetic | None = None,
    with_masks: bool = False,
) -> Segmentation:
    """Segment all slices of one stack, as the stage segment does it for many exams.

    Slices are turned into standing order (head up, anterior left; or anterior up, patient's right on the left),
    normalised one by one, resampled to the contract's spacing and padded. Probabilities, not masks, are resampled back.
    Slices know nothing of each other, and `batch_slices` does not change the result.

    Parameters
    ----------
    device : where the network is: cpu, cuda, ...
    arithmetic : None for the fastest that the device has (`models.forward.usable_arithmetic`)
    with_masks : the masks of all classes, too, which may overlap

    Raises
    ------
    ConfigurationError, RefusedError
        as `network_size`
    """
    chosen = Network(network, contract, device, arithmetic or usable_arithmetic(device)[0])
    size = network_size(stack, contract)
    found: list[Found] = []
    for first, image in normalised_slices(stack, batch_slices, pinned=chosen.on_gpu):
        piece = Piece((0,), first, image, size)
        found += [one for _, one in launch(chosen, [piece], batch_slices=batch_slices, with_masks=with_masks).wait()]
    return joined(found, standing_order(stack.geometry, stack.plane), contract.classes)
