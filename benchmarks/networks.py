"""Slices and training iterations per second of the networks, in every arithmetic of this machine, beside MONAI's V-Net
and nnU-Net's U-Net, in one run.

python benchmarks/networks.py [--quick] [--compile] [--device cpu] [--json]

Shapes are those of Hess et al. 2023 (disc, vertebral body, muscle) and that of the networks in the package; weights are
random, which changes no time. A batch is one slice on a CPU and eight on a GPU. Ways take turns, the best of three
counts (of twenty on a GPU). The roofline is the longer of two times: FLOP of the network (torch.utils.flop_counter) at
the rate of a large matrix product, and bytes that its operations read and write at the rate of a large copy, both
measured on the same device. Bytes are counted operation by operation, weights and their casts included, as if nothing
stayed in a cache and nothing were fused: what beats this bound fuses.

Training is forward, loss, backward and Adam under bf16 autocast where the device has bf16, as `cohort train` does it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from math import inf
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from models.forward import has_bf16, logits, usable_arithmetic
from models.losses import dice_and_cross_entropy
from models.vnet import VNet, VNetConfig, n_parameters

RIVALS: Final = {"monai": "monai", "dynamic_network_architectures": "dynamic-network-architectures"}
"""Module -> package; the extra `benchmark` installs both."""


@dataclass(frozen=True)
class Shape:
    """A network and the slices that it is given."""

    name: str
    side_px: int
    config: VNetConfig


SHAPES: Final = (
    Shape("disc, 512 L4 b16", 512, VNetConfig(1, 4, 16)),
    Shape("vertebral body, 512 L3 b16", 512, VNetConfig(1, 3, 16)),
    Shape("muscle, 256 L4 b16", 256, VNetConfig(4, 4, 16)),
    Shape("shipped, 256 L4 b8 ReLU", 256, VNetConfig(4, 4, 8, activation="relu")),
)


@dataclass(frozen=True, eq=False)
class Way:
    """One network run in one way."""

    tool: str
    arithmetic: str
    network: nn.Module
    infer: Callable[[], Tensor] | None
    """One batch; None in training."""
    train: Callable[[], Tensor] | None = None
    """One iteration."""


# -- networks ----------------------------------------------------------------------------------------------------------


def missing_rivals() -> list[str]:
    """Packages of rivals that are not installed."""
    return [package for module, package in RIVALS.items() if not find_spec(module)]


def rivals(shape: Shape) -> dict[str, nn.Module]:
    """Networks of other libraries for slices and classes of this shape."""
    found = {}
    if find_spec("monai"):
        found["MONAI VNet"] = _monai_vnet(shape.config.n_classes)
    if find_spec("dynamic_network_architectures"):
        found["nnU-Net PlainConvUNet"] = _nnunet(shape.config.n_classes, shape.side_px)
    return found


def _monai_vnet(n_classes: int) -> nn.Module:
    """Four levels, 16 base channels, 5x5 kernels: fixed in MONAI."""
    from monai.networks.nets import VNet as MonaiVNet

    network: nn.Module = MonaiVNet(spatial_dims=2, in_channels=1, out_channels=n_classes, dropout_dim=2)
    return network


def _nnunet(n_classes: int, side_px: int) -> nn.Module:
    """As nnU-Net plans 2D networks: 32 to 512 channels, two 3x3 convolutions a stage, stages down to 4x4 pixels."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    n_stages = side_px.bit_length() - 2
    network: nn.Module = PlainConvUNet(
        input_channels=1,
        n_stages=n_stages,
        features_per_stage=[min(32 << stage, 512) for stage in range(n_stages)],
        conv_op=nn.Conv2d,
        kernel_sizes=3,
        strides=[1] + [2] * (n_stages - 1),
        n_conv_per_stage=2,
        num_classes=n_classes,
        n_conv_per_stage_decoder=2,
        conv_bias=True,
        norm_op=nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )
    return network


# -- ways --------------------------------------------------------------------------------------------------------------


def ways(shape: Shape, device: str, *, compiled: bool) -> list[Way]:
    """Inference by this library in every arithmetic, and by the rivals in those that torch has."""
    batch = torch.rand(batch_size(device), 1, shape.side_px, shape.side_px, device=device)
    plain = VNet(shape.config).to(device).eval()
    network = _channels_last(VNet(shape.config), device)
    found = [Way("this library", "fp32", plain, partial(torch_pass, plain, batch, bf16=False))]
    for arithmetic in reversed(usable_arithmetic(device)):
        name = arithmetic if arithmetic == "openvino" else f"{arithmetic} channels_last"
        found.append(Way("this library", name, network, partial(logits, network, batch, arithmetic)))
    if compiled:
        quick = torch.compile(network)
        found.append(
            Way("this library", "torch.compile", network, partial(torch_pass, quick, batch, bf16=has_bf16(device)))
        )
    for tool, other in rivals(shape).items():
        rival = _channels_last(other, device)
        for bf16 in (False, True)[: 1 + has_bf16(device)]:
            run = partial(torch_pass, rival, batch.contiguous(memory_format=torch.channels_last), bf16=bf16)
            found.append(Way(tool, f"{'bf16' if bf16 else 'fp32'} channels_last", rival, run))
    return found


def training_ways(shape: Shape, device: str) -> list[Way]:
    """One training iteration of this library's network and of the rivals'."""
    arithmetic = "bf16" if has_bf16(device) else "fp32"
    networks = {"this library": VNet(shape.config), **rivals(shape)}
    return [Way(tool, arithmetic, one, None, _iteration(one, shape, device)) for tool, one in networks.items()]


def _iteration(network: nn.Module, shape: Shape, device: str) -> Callable[[], Tensor]:
    network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    sides = (shape.side_px, shape.side_px)
    images = torch.rand(training_batch(device), 1, *sides, device=device).contiguous(memory_format=torch.channels_last)
    target = (torch.rand(len(images), shape.config.n_classes, *sides, device=device) > 0.5).float()

    def run() -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=has_bf16(device)):
            out = network(images)
        loss = dice_and_cross_entropy(out.float(), target)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        return loss.detach()

    return run


def _channels_last(network: nn.Module, device: str) -> Any:
    return network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


@torch.inference_mode()
def torch_pass(network: Any, batch: Tensor, *, bf16: bool) -> Tensor:
    """Logits of a network of any library."""
    with torch.autocast(batch.device.type, torch.bfloat16, enabled=bf16):
        out: Tensor = network(batch)
    return out.float()


def batch_size(device: str) -> int:
    """Slices of a batch in inference."""
    return 1 if device == "cpu" else 8


def training_batch(device: str) -> int:
    """Slices of a batch in training; a CPU is given few, so that the benchmark ends."""
    return 2 if device == "cpu" else 8


# -- measuring ---------------------------------------------------------------------------------------------------------


def best_seconds(runs: Sequence[Callable[[], Tensor]], device: str, repetitions: int) -> list[float]:
    """Shortest time of each, taking turns, after one run that does not count."""
    best = [inf] * len(runs)
    for turn in range(repetitions + 1):
        for k, run in enumerate(runs):
            seconds = _seconds(run, device)
            best[k] = min(best[k], seconds) if turn else inf
    return best


def _seconds(run: Callable[[], Tensor], device: str) -> float:
    _wait(device)
    started = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


class Traffic(TorchDispatchMode):
    """Bytes that operations read and write; views move none."""

    n_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Run the operation and count its tensors."""
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [one for one in tree_leaves((args, kwargs, out)) if isinstance(one, Tensor)]
            self.n_bytes += sum(one.numel() * one.element_size() for one in tensors)
        return out


@dataclass(frozen=True)
class Device:
    """Measured rates of the device."""

    flop_per_s: Mapping[str, float]
    """bf16 and fp32: a large matrix product."""
    bytes_per_s: float
    """Read and written by a large copy."""


def measure_device(device: str) -> Device:
    """Rates of a product of square matrices and of a copy far beyond the caches."""
    side, n_bytes = (2048, 2**28) if device == "cpu" else (8192, 2**31)
    kinds = {"fp32": torch.float32, **({"bf16": torch.bfloat16} if has_bf16(device) else {})}
    rates = {}
    for name, kind in kinds.items():
        a = torch.rand(side, side, device=device).to(kind)
        rates[name] = 2 * side**3 / best_seconds([partial(torch.mm, a, a)], device, 5)[0]
    source = torch.zeros(n_bytes, dtype=torch.uint8, device=device)
    target = torch.ones_like(source)
    return Device(rates, 2 * n_bytes / best_seconds([partial(target.copy_, source)], device, 5)[0])


def roofline(way: Way, batch: Tensor, rates: Device) -> dict[str, Any]:
    """FLOP and bytes of a batch, and the shortest time that the device's rates allow."""
    kind = "bf16" if way.arithmetic.startswith("bf16") else "fp32"
    autocast = partial(torch.autocast, batch.device.type, torch.bfloat16, enabled=kind == "bf16")
    # Not in inference mode, in which composite operations reach the counters whole
    with torch.no_grad(), autocast(), FlopCounterMode(display=False) as flop, Traffic() as traffic:
        way.network(batch)
    compute_s = flop.get_total_flops() / rates.flop_per_s[kind]
    traffic_s = traffic.n_bytes / rates.bytes_per_s
    return {
        "gflop": flop.get_total_flops() / 1e9,
        "gbyte": traffic.n_bytes / 1e9,
        "bound_s": max(compute_s, traffic_s),
        "bound": "arithmetic" if compute_s > traffic_s else "memory",
    }


def measure_shape(shape: Shape, device: str, rates: Device, repetitions: int, *, compiled: bool) -> dict[str, Any]:
    """Inference and training of one shape in all ways."""
    torch.manual_seed(0)
    inference, training = ways(shape, device, compiled=compiled), training_ways(shape, device)
    seconds = best_seconds([way.infer for way in inference if way.infer], device, repetitions)
    step_s = best_seconds([way.train for way in training if way.train], device, repetitions)
    return {
        "shape": shape.name,
        "inference": [_inference_row(way, shape, s, device, rates) for way, s in zip(inference, seconds, strict=True)],
        "training": [
            {"tool": way.tool, "arithmetic": way.arithmetic, "iterations_per_s": 1 / s, "batch": training_batch(device)}
            for way, s in zip(training, step_s, strict=True)
        ],
    }


def _inference_row(way: Way, shape: Shape, seconds: float, device: str, rates: Device) -> dict[str, Any]:
    row = {
        "tool": way.tool,
        "arithmetic": way.arithmetic,
        "parameters": n_parameters(way.network),
        "batch_s": seconds,
        "slices_per_s": batch_size(device) / seconds,
    }
    if way.arithmetic in ("openvino", "torch.compile"):  # their operations are not torch's
        return row
    batch = torch.zeros(batch_size(device), 1, shape.side_px, shape.side_px, device=device)
    limit = roofline(way, batch.contiguous(memory_format=torch.channels_last), rates)
    return {**row, **limit, "share_of_roofline": limit["bound_s"] / seconds}


def measure(shapes: Sequence[Shape], device: str, repetitions: int, *, compiled: bool) -> dict[str, Any]:
    """Everything, as one object of plain values."""
    load = os.getloadavg()[0]
    rates = measure_device(device)
    found = [measure_shape(shape, device, rates, repetitions, compiled=compiled) for shape in shapes]
    return {
        "device": torch.cuda.get_device_name() if device != "cpu" else "cpu",
        "threads": torch.get_num_threads(),
        "load_before": load,
        "torch": torch.__version__,
        "repetitions": repetitions,
        **asdict(rates),
        "shapes": found,
        "ratios": {one["shape"]: {what: ratios(one[what]) for what in ("inference", "training")} for one in found},
        "missing_rivals": missing_rivals(),
    }


def ratios(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """How many times as fast this library is as each rival, the fastest way of either."""
    best: dict[str, float] = {}
    for row in rows:
        speed = row.get("slices_per_s") or row["iterations_per_s"]
        best[row["tool"]] = max(best.get(row["tool"], 0.0), speed)
    return {tool: best["this library"] / speed for tool, speed in best.items() if tool != "this library"}


# -- printing ----------------------------------------------------------------------------------------------------------


def print_tables(found: Mapping[str, Any]) -> None:
    """The same for people, in Markdown."""
    rates = ", ".join(f"{kind} {rate / 1e12:.2f} TFLOP/s" for kind, rate in found["flop_per_s"].items())
    print(f"{found['device']}, {found['threads']} threads, torch {found['torch']}, best of {found['repetitions']};")
    print(f"matrix product {rates}, copy {found['bytes_per_s'] / 1e9:.0f} GB/s;")
    print(f"load of the machine before the start {found['load_before']:.1f}\n")
    print("| shape | tool | arithmetic | parameters | slices/s | GFLOP | GB | bound | share of the roofline |")
    print("|---|---|---|---|---|---|---|---|---|")
    for one in found["shapes"]:
        for row in one["inference"]:
            print(_inference_line(one["shape"], row))
    print("\n| shape | tool | arithmetic | batch | training iterations/s |\n|---|---|---|---|---|")
    for one in found["shapes"]:
        for row in one["training"]:
            print(
                f"| {one['shape']} | {row['tool']} | {row['arithmetic']} | {row['batch']} |"
                f" {row['iterations_per_s']:.2f} |"
            )
    print()
    for shape, kinds in found["ratios"].items():
        for what, against in kinds.items():
            for tool, ratio in against.items():
                print(f"- {shape}, {what}: {ratio:.2f} x as fast as {tool}")
    if found["missing_rivals"]:
        print(f"\nNot compared; to compare: pip install {' '.join(found['missing_rivals'])}")


def _inference_line(shape: str, row: Mapping[str, Any]) -> str:
    start = (
        f"| {shape} | {row['tool']} | {row['arithmetic']} | {row['parameters'] / 1e6:.2f} M | {row['slices_per_s']:.1f}"
    )
    if "bound" not in row:
        return f"{start} | - | - | - | - |"
    return f"{start} | {row['gflop']:.1f} | {row['gbyte']:.2f} | {row['bound']} | {row['share_of_roofline']:.0%} |"


def main() -> None:
    """Print tables, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="slices of 256 x 256 alone, best of two")
    parser.add_argument("--compile", action="store_true", help="torch.compile too (a minute or more to compile)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    shapes = [shape for shape in SHAPES if shape.side_px == 256 or not options.quick]
    repetitions = 2 if options.quick else 3 if options.device == "cpu" else 20
    found = measure(shapes, options.device, repetitions, compiled=options.compile)
    print(json.dumps(found)) if options.json else print_tables(found)


if __name__ == "__main__":
    main()
