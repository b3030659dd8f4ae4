"""The forward pass of a network: which arithmetic a machine is fastest in, and the pass itself.

Every arithmetic reads the same single-precision weights; a test compares their masks.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final, Literal

import torch
from torch import Tensor

from models.vnet import VNet

Arithmetic = Literal["openvino", "bf16", "fp32"]
"""bf16: convolutions multiply bfloat16 and add in single precision (torch.autocast). openvino: the same network in
OpenVINO, in bfloat16 where the processor has it."""


def usable_arithmetic(device: str) -> tuple[Arithmetic, ...]:
    """What can be used on a device (cpu, cuda, cuda:0, ...), the fastest first (`benchmarks/networks.py`)."""
    found: list[Arithmetic] = ["openvino"] if device == "cpu" and find_spec("openvino") else []
    return (*found, "bf16", "fp32") if has_bf16(device) else (*found, "fp32")


def has_bf16(device: str) -> bool:
    """Say if the device multiplies bfloat16 in hardware; emulated, it gains nothing."""
    if device != "cpu":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    read = getattr(torch.cpu, "get_capabilities", dict)  # torch before 2.11 cannot say: single precision then
    return bool({"avx512_bf16", "amx_bf16"} & {name for name, has in read().items() if has is True})


_LOST: Final = ("CUDA error", "CUDA driver error", "cuDNN error", "CUBLAS_STATUS", "CUDNN_STATUS")
"""How torch begins, or what it quotes, when a call of CUDA or of its libraries has failed (`c10/cuda/CUDAException.h`,
`aten/src/ATen/cuda/Exceptions.h`)."""


def is_device_lost(error: BaseException) -> bool:
    """Say if an error is one after which a process can do nothing more with its GPU: any of CUDA but out of memory.

    CUDA reports errors late and then again with every call, until the process ends.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return False
    accelerator_error = getattr(torch, "AcceleratorError", None)  # torch 2.8 and later
    if accelerator_error is not None and isinstance(error, accelerator_error):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _LOST)


@torch.inference_mode()
def logits(network: VNet, batch: Tensor, arithmetic: Arithmetic) -> Tensor:
    """Run a network in evaluation mode.

    Parameters
    ----------
    batch : [slice, 1, row, column] float32 on the network's device; rows and columns multiples of 2**levels
    arithmetic : one of `usable_arithmetic(device)`

    Returns
    -------
    [slice, class, row, column] float32 on the same device
    """
    if arithmetic == "openvino":
        from models.openvino_vnet import openvino_logits  # an optional extra

        return openvino_logits(network, batch)
    with torch.autocast(batch.device.type, torch.bfloat16, enabled=arithmetic == "bf16"):
        out: Tensor = network(batch.contiguous(memory_format=torch.channels_last))
    return out.float()
