"""The V-Net in OpenVINO (optional extra `openvino`), built operation by operation from the torch network.

OpenVINO's own converter is not used: it leans on parts of torch that are deprecated. Its usage statistics, which it
sends from the import on without asking, are switched off.
"""

from __future__ import annotations

import sys
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from models.vnet import ResidualStage, VNet

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # cannot be imported from here on
import openvino  # noqa: E402
from openvino import opset13 as ops  # noqa: E402

Node = Any
_compiled: WeakKeyDictionary[VNet, tuple[tuple[int, ...], Any]] = WeakKeyDictionary()
"""Network -> state of its weights when it was compiled, compiled network."""


def openvino_logits(network: VNet, batch: Tensor) -> Tensor:
    """[slice, 1, row, column] float32 -> [slice, class, row, column] float32, both on the CPU."""
    state = tuple(value._version for value in network.state_dict(keep_vars=True).values())
    if network not in _compiled or _compiled[network][0] != state:
        _compiled[network] = (state, compile_network(network))
    (output,) = _compiled[network][1](np.ascontiguousarray(batch.numpy())).values()
    return torch.from_numpy(np.array(output))


def compile_network(network: VNet) -> Any:
    """Compile for any batch and size, in bfloat16 where the processor has it, in as many threads as torch uses.

    Threads may run on any core: by default OpenVINO ties them to the first ones, those of every process on the machine
    to the same.
    """
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,
    }
    return openvino.Core().compile_model(build(network), "CPU", settings)


def build(network: VNet) -> openvino.Model:
    """The graph of `VNet.forward` in evaluation mode."""
    image = ops.parameter([-1, 1, -1, -1], np.float32, name="image")
    x = _sequence(network.stem, image)
    skips = []
    for stage, down in zip(network.encoder, network.down, strict=True):
        x = _stage(stage, x, x)
        skips.append(x)
        x = _sequence(down, x)
    x = _stage(network.bottom, x, x)
    for up, stage in zip(network.up, network.decoder, strict=True):
        x = _sequence(up, x)
        x = _stage(stage, ops.concat([x, skips.pop()], 1), x)
    return openvino.Model([_layer(network.head, x)], [image], "vnet")


def _stage(stage: nn.Module, x: Node, skip: Node) -> Node:
    assert isinstance(stage, ResidualStage)
    return _layer(stage.activation, ops.add(_sequence(stage.body, x), skip))


def _sequence(layers: nn.Module, x: Node) -> Node:
    for layer in layers.children():
        x = _layer(layer, x)
    return x


def _layer(layer: nn.Module, x: Node) -> Node:
    match layer:
        case nn.Conv2d() | nn.ConvTranspose2d():
            return _convolution(layer, x)
        case nn.BatchNorm2d():
            return ops.batch_norm_inference(
                x,
                *(_array(part) for part in (layer.weight, layer.bias, layer.running_mean, layer.running_var)),
                layer.eps,
            )
        case nn.PReLU():
            return ops.prelu(x, _array(layer.weight))
        case nn.ReLU():
            return ops.relu(x)
        case nn.Dropout2d():
            return x
    raise NotImplementedError(f"{type(layer).__name__} has no counterpart here")


def _convolution(layer: nn.Conv2d | nn.ConvTranspose2d, x: Node) -> Node:
    make = ops.convolution if isinstance(layer, nn.Conv2d) else ops.convolution_backprop_data
    stride, pad = list(layer.stride), [int(p) for p in layer.padding]
    if isinstance(layer, nn.Conv2d):
        out = make(x, _array(layer.weight), stride, pad, pad, [1, 1])
    else:
        out = make(x, _array(layer.weight), stride, pads_begin=pad, pads_end=pad, dilations=[1, 1])
    return out if layer.bias is None else ops.add(out, _array(layer.bias).reshape(1, -1, 1, 1))


def _array(value: Any) -> Any:
    return value.detach().float().cpu().numpy()
