"""Exams per minute of the stage segment: one exam after another against batches of exams, in the same run.

python benchmarks/segment.py [--exams 8] [--device cpu] [--quick] [--json]

An exam is a slice of a phantom 13 times in 512 x 512 pixels, sagittal, and one 36 times in 384 x 384, axial, each time
with other noise. One by one: an exam is read, every network run over every stack, the label store written, and the next
exam begun. Batched: `segment_batch`, as `cohort run` calls it. Both take turns, the best of two counts, and their
labels are compared. Memory is the peak of the process after a batch of 4 exams, and after one of 16.

On a GPU also: the rate of the forward passes against the rate of a large bf16 matrix product on the same GPU (FLOP by
torch.utils.flop_counter, empty slices of a batch included; time by CUDA events around each pass), and the share of the
time in which the GPU runs nothing (torch.profiler, in a pass of its own, which is slower for being watched).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any, Final

import numpy as np
import torch
import zarr
from networks import measure_device  # beside this file
from scipy.ndimage import zoom
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cohort.agreement.overlap import dice
from cohort.geometry import StackGeometry
from cohort.stacks import ImageStack
from cohort.store.exam import read_exam, write_exam
from models.inference import Network, Piece, launch, network_size, normalised_slices
from models.phantom.exam import ExamPlan, make_exam, stack_image, t1_contrast
from models.phantom.sampling import cut
from pipelines.config import NETWORKS, SegmentConfig
from pipelines.outcome import Outcome, Result, WorkItem, guarded
from pipelines.segment import SegmentTask, check_networks, open_networks, segment_batch
from pipelines.segment_io import StackUnderWay, publish_labels

SLICES = {"sagittal": (13, 512), "axial": (36, 384)}
"""Plane -> slices, rows and columns of an exam."""


# -- exams -------------------------------------------------------------------------------------------------------------


def write_exams(store: Path, n: int) -> list[str]:
    """Exam stores; the exams' names."""
    exam = make_exam(ExamPlan(503, "F", 40, 1.68, 64.0, "per_disc", 3))
    planes = {"sagittal": (exam.sagittal, 1), "axial": (exam.axial[2], 2)}
    slices = {
        plane: (stack_image(exam, (cut(exam.subject, grid, k),), t1_contrast(exam))[0], grid)
        for plane, (grid, k) in planes.items()
    }
    rng = np.random.default_rng(0)
    names = [f"exam{chr(97 + k // 26)}{chr(97 + k % 26)}" for k in range(n)]
    for name in names:
        stacks = [clinical_stack(plane, image, grid, rng) for plane, (image, grid) in slices.items()]
        write_exam(store / "stores" / name, stacks, {})
    return names


def clinical_stack(plane: str, slice_: Any, geometry: StackGeometry, rng: np.random.Generator) -> ImageStack:
    """A slice again and again, interpolated to as many pixels as scanners give, with noise of its own each time."""
    n, side = SLICES[plane]
    factor = side / max(slice_.shape)
    large = zoom(slice_.astype(np.float32), factor, order=1)
    image = large + rng.normal(0, 8, (n, *large.shape))
    grid = StackGeometry(
        geometry.position_mm[0] + np.arange(n)[:, None] * 4.0 * geometry.normal,
        geometry.row_dir,
        geometry.col_dir,
        (geometry.spacing_mm[0] / factor, geometry.spacing_mm[1] / factor),
        image.shape[1:],
        4.0,
    )
    return ImageStack(plane, 0, np.clip(image, 0, 65535).astype(np.uint16), grid, None)  # type: ignore[arg-type]


# -- ways --------------------------------------------------------------------------------------------------------------


def one_by_one(items: Sequence[WorkItem]) -> list[Outcome]:
    """An exam at a time, a network at a time, nothing beside it."""
    return [guarded(_one, item) for item in items]


def _one(item: WorkItem) -> Result:
    task: SegmentTask = item.task
    networks = open_networks(task)
    stacks = [_one_stack(stack, networks, task) for stack in read_exam(task.store / task.exam_path).stacks]
    return publish_labels(item, stacks=stacks, networks=networks)


def _one_stack(stack: ImageStack, networks: Mapping[str, Network], task: SegmentTask) -> StackUnderWay:
    mine = {label: network for label, network in networks.items() if network.contract.plane == stack.plane}
    done = StackUnderWay(stack, {label: network_size(stack, network.contract) for label, network in mine.items()})
    for label, network in mine.items():
        for first, image in normalised_slices(stack, task.batch_slices, pinned=network.on_gpu):
            piece = Piece((0,), first, image, done.sizes[label])
            found = launch(network, [piece], batch_slices=task.batch_slices).wait()
            done.found[label] += [(one.first, result) for one, result in found]
    return done


WAYS: Final = {"one_by_one": one_by_one, "batched": segment_batch}


class Exams:
    """Exam stores, and tasks of segmenting them that have not been done before."""

    def __init__(self, store: Path, names: Sequence[str], device: str) -> None:
        self._store, self._names, self._device = store, names, device
        self._networks = check_networks(NETWORKS)
        self._n_made = 0

    def items(self, n: int) -> list[WorkItem]:
        """n exams, from the first again where there are fewer."""
        self._n_made += 1
        made = []
        for k in range(n):
            name = self._names[k % len(self._names)]
            task = SegmentTask(
                self._store, f"stores/{name}", self._networks, SegmentConfig().batch_slices, self._device
            )
            made.append(WorkItem(name, "segment", f"{self._n_made:04d}{k:08d}", task))
        return made

    def run(self, way: str, n: int) -> tuple[float, float, list[Path]]:
        """Seconds, seconds of the processor, label stores."""
        items = self.items(n)
        started, cpu = time.perf_counter(), time.process_time()
        outcomes = WAYS[way](items)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        if bad := [outcome.error_type or outcome.reason for outcome in outcomes if outcome.status != "ok"]:
            raise RuntimeError(f"{len(bad)} exams were not segmented: {bad[0]}")
        return seconds, cpu, [self._store / str(outcome.path) for outcome in outcomes]


def peak_mib() -> float:
    """Most memory that this process has held."""
    return getrusage(RUSAGE_SELF).ru_maxrss / 1024


def least_dice(one: Sequence[Path], other: Sequence[Path]) -> float:
    """Of the labels of two ways, the worst label array."""
    return min(
        dice(np.asarray(first[...]) > 0, np.asarray(second[...]) > 0)
        for a, b in zip(one, other, strict=True)
        for first, second in zip(_arrays(a), _arrays(b), strict=True)
    )


def _arrays(store: Path) -> list[Any]:
    root = zarr.open_group(store, mode="r")
    return [
        x for _, plane in sorted(root.groups()) for _, one in sorted(plane.groups()) for _, x in sorted(one.arrays())
    ]


# -- the GPU -----------------------------------------------------------------------------------------------------------


class ForwardPasses:
    """Events around every pass of the networks of a run, and their FLOP."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        self._events: list[tuple[Any, Any]] = []
        self._batches: list[tuple[nn.Module, torch.Size]] = []
        self._handles = [one.register_forward_pre_hook(self._before) for one in networks]
        self._handles += [one.register_forward_hook(self._after) for one in networks]

    def _before(self, network: nn.Module, arguments: tuple[Tensor]) -> None:
        self._batches.append((network, arguments[0].shape))
        self._events.append((torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)))
        self._events[-1][0].record()

    def _after(self, network: nn.Module, arguments: tuple[Tensor], out: Tensor) -> None:
        self._events[-1][1].record()

    def finish(self) -> tuple[float, float]:
        """Seconds of the GPU, FLOP."""
        torch.cuda.synchronize()
        for handle in self._handles:
            handle.remove()
        seconds = sum(before.elapsed_time(after) for before, after in self._events) / 1000
        known: dict[tuple[nn.Module, torch.Size], int] = {}
        for batch in set(self._batches):
            known[batch] = _flop(*batch)
        return seconds, float(sum(known[batch] for batch in self._batches))


def _flop(network: nn.Module, shape: torch.Size) -> int:
    device = next(network.parameters()).device
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(shape, device=device))
    return int(counter.get_total_flops())


def measure_gpu(exams: Exams, n: int, device: str) -> dict[str, Any]:
    """Rate of the forward passes, and idle time."""
    opened = open_networks(exams.items(1)[0].task)
    rates = measure_device(device).flop_per_s
    kind = "bf16" if "bf16" in rates else "fp32"
    passes = ForwardPasses([network.module for network in opened.values()])
    wall_s, _, _ = exams.run("batched", n)
    forward_s, flop = passes.finish()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        watched_s, _, _ = exams.run("batched", n)
        torch.cuda.synchronize()
    busy_s = sum(event.self_device_time_total for event in profile.key_averages()) / 1e6
    return {
        "name": torch.cuda.get_device_name(device),
        "arithmetic": kind,
        "matrix_product_flop_per_s": rates[kind],
        "forward_flop_per_s": flop / forward_s,
        "share_of_matrix_product": flop / forward_s / rates[kind],
        "forward_share_of_time": forward_s / wall_s,
        "idle_share_of_time": max(0.0, 1 - busy_s / watched_s),
    }


# -- measuring ---------------------------------------------------------------------------------------------------------


def measure(device: str, n_exams: int, *, quick: bool) -> dict[str, Any]:
    """Everything, as one object of plain values."""
    with tempfile.TemporaryDirectory() as folder:
        exams = Exams(Path(folder), write_exams(Path(folder), n_exams), device)
        load = os.getloadavg()[0]
        memory = {}
        for n in (1, 2) if quick else (4, 16):  # the first is the warm-up, too
            exams.run("batched", n)
            memory[str(n)] = round(peak_mib())
        best: dict[str, tuple[float, float]] = {}
        for _ in range(1 if quick else 2):
            stores = {}
            for way in WAYS:
                seconds, cpu, stores[way] = exams.run(way, n_exams)
                best[way] = min(best.get(way, (inf, inf)), (seconds, cpu))
        return {
            "device": device,
            "threads": torch.get_num_threads(),
            "load_before": load,
            "torch": torch.__version__,
            "n_exams": n_exams,
            "slices": {plane: n for plane, (n, _) in SLICES.items()},
            "batch_slices": SegmentConfig().batch_slices,
            "exams_per_min": {way: 60 * n_exams / seconds for way, (seconds, _) in best.items()},
            "cpu_s_per_exam": {way: cpu / n_exams for way, (_, cpu) in best.items()},
            "ratio": best["one_by_one"][0] / best["batched"][0],
            "least_dice": least_dice(stores["one_by_one"], stores["batched"]),
            "peak_mib_after_exams": memory,
            "gpu": measure_gpu(exams, n_exams, device) if device != "cpu" else None,
        }


def print_tables(found: dict[str, Any]) -> None:
    """The same for people, in Markdown."""
    print(f"{found['device']}, {found['threads']} threads, torch {found['torch']}, {found['n_exams']} exams of")
    print(f"{found['slices']} slices, batches of {found['batch_slices']};")
    print(f"load of the machine before the start {found['load_before']:.1f}\n")
    print("| way | exams/min | processor, s per exam |\n|---|---|---|")
    for way, rate in found["exams_per_min"].items():
        print(f"| {way} | {rate:.1f} | {found['cpu_s_per_exam'][way]:.2f} |")
    print(f"\nbatched is {found['ratio']:.2f} x as fast; Dice between the labels at least {found['least_dice']:.5f}")
    peaks = ", ".join(f"{mib} MiB after a batch of {n} exams" for n, mib in found["peak_mib_after_exams"].items())
    print(f"peak memory of the process: {peaks}")
    if found["gpu"] is None:
        print("no GPU here: neither its rate nor its idle time were measured")
        return
    gpu = found["gpu"]
    print(f"\n{gpu['name']}: forward passes at {gpu['forward_flop_per_s'] / 1e12:.1f} TFLOP/s, ")
    print(f"{gpu['share_of_matrix_product']:.0%} of a {gpu['arithmetic']} matrix product;")
    print(f"they fill {gpu['forward_share_of_time']:.0%} of the time; the GPU is idle {gpu['idle_share_of_time']:.0%}")


def main() -> None:
    """Print tables, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exams", type=int, default=8)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="counted once, memory after 1 and 2 exams")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.device, options.exams, quick=options.quick)
    print(json.dumps(found)) if options.json else print_tables(found)


if __name__ == "__main__":
    main()
