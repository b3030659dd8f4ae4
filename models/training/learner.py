"""What learns: a network, the average of its weights, its optimiser; and one step of it in mixed precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cohort.errors import ConfigurationError
from models.losses import LOSSES
from models.training.config import TrainingConfig, network_config
from models.training.data import Batch
from models.vnet import VNet, tensor_shapes


@dataclass(frozen=True, eq=False)
class Learner:
    """What changes while a network learns."""

    network: VNet
    average: dict[str, Tensor]
    """Exponential moving average of the network's state."""
    optimiser: torch.optim.Optimizer


def fitting_weights(config: TrainingConfig, start: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of `start` that have a place in the network of a configuration.

    Raises
    ------
    ConfigurationError
        if not one of them does
    """
    shapes = tensor_shapes(network_config(config))
    kept = {name: value for name, value in start.items() if tuple(value.shape) == shapes.get(name) and value.dim()}
    if not kept:
        raise ConfigurationError(f"no weight of start_from = {config.start_from!r} has the shape it has here")
    return kept


def new_learner(
    config: TrainingConfig, device: str, start: dict[str, Tensor] | None, report: Callable[[str], None]
) -> Learner:
    """A network with random weights, or with those of `start` that fit (`fitting_weights`)."""
    network = VNet(network_config(config)).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if start is not None:
        kept = fitting_weights(config, start)
        network.load_state_dict(kept, strict=False)
        n = sum(value.dim() > 0 for value in network.state_dict().values())
        report(f"{config.name}: starts with {len(kept)} of {n} tensors of {config.start_from}")
    average = {name: value.detach().clone() for name, value in network.state_dict().items()}
    return Learner(network, average, torch.optim.Adam(network.parameters(), lr=config.learning_rate))


def step(config: TrainingConfig, batch: Batch, iteration: int, learner: Learner, device: str) -> Tensor:
    """One step of the optimiser and of the average; the loss stays on the device, so that nothing waits for it."""
    images, masks, known = (part.contiguous(memory_format=torch.channels_last) for part in batch)
    for group in learner.optimiser.param_groups:
        group["lr"] = learning_rate(iteration, config)
    learner.network.train()
    torch.manual_seed(config.seed * 1_000_003 + iteration)  # dropout
    with torch.autocast(device.split(":")[0], dtype=torch.bfloat16):
        logits = learner.network(images)
    weights = torch.tensor(config.class_weights, device=device) if config.class_weights else None
    loss = LOSSES[config.loss](logits.float(), masks, class_weights=weights, known=known)
    learner.optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(learner.network.parameters(), 5.0)
    learner.optimiser.step()
    _update_average(learner, min(config.averaging, (1 + iteration) / (10 + iteration)))
    return loss.detach()


def learning_rate(iteration: int, config: TrainingConfig) -> float:
    """Constant; or linear warm-up over 100 iterations, then half a cosine to zero."""
    if config.schedule == "constant":
        return config.learning_rate
    warm = min(1.0, (iteration + 1) / 100)
    return config.learning_rate * warm * (0.5 + 0.5 * float(np.cos(np.pi * iteration / config.iterations))) + 1e-6


@torch.no_grad()
def _update_average(learner: Learner, decay: float) -> None:
    for name, value in learner.network.state_dict().items():
        if value.dtype.is_floating_point:
            learner.average[name].mul_(decay).add_(value, alpha=1 - decay)
        else:
            learner.average[name].copy_(value)
