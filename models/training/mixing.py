"""Fine-tuning that does not forget: the weights between those of the start and those learned (WiSE-FT).

Wortsman et al. 2022 (Robust fine-tuning of zero-shot models) found that weights on the straight line between a network
and its fine-tuned copy keep more of what the first could do on other data than the copy does, and are often better on
the new data, too. The place on the line is chosen by Dice on the validation slices; the start and the end of the line
are among the candidates, so the choice says as well whether the fine-tuning was of any use. Their networks had no
batch normalisation: means and variances measured with either weights are wrong for those between, so they are
measured again there (`torch.optim.swa_utils.update_bn`), as stochastic weight averaging does.

The weights learned are an exponential moving average already (`models.training.learner`). This is not used in its
place: an average over the last iterations of a fine-tuning knows the start no more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import update_bn

from cohort.errors import ConfigurationError
from models.training.config import TrainingConfig, network_config
from models.training.data import Batch
from models.training.validate import validate
from models.vnet import VNet, tensor_shapes

SHARES: Final = tuple(k / 10 for k in range(11))
"""Of the learned weights in a candidate (own choice; Wortsman et al. vary theirs in such steps, from memory)."""
SLICES_MEASURED: Final = 256
"""Training slices that means and variances are measured on, evenly among those there are (working value)."""


@dataclass(frozen=True, eq=False)
class Mixed:
    """The best weights on the line from start to learned."""

    share: float
    """Of the learned weights: 0 is the start, 1 what was learned."""
    weights: dict[str, Tensor]
    dice: Mapping[float, float]
    """Share -> Dice on the validation slices, mean over the classes that they show."""


def require_same_shape(config: TrainingConfig, start: Mapping[str, Tensor]) -> None:
    """Raise `ConfigurationError` unless the start has every tensor of the network that a configuration trains."""
    wanted = tensor_shapes(network_config(config))
    found = {name: tuple(value.shape) for name, value in start.items()}
    if found != wanted:
        n = sum(found.get(name) != shape for name, shape in wanted.items())
        raise ConfigurationError(
            f"mix_with_start: {n} of {len(wanted)} tensors of start_from = {config.start_from!r} have another shape "
            "here; give levels, base_channels, activation and classes as that network has them"
        )


def mix_with_start(
    config: TrainingConfig,
    start: Mapping[str, Tensor],
    learned: Mapping[str, Tensor],
    images: Tensor,
    validation: Sequence[Batch],
    device: str,
    report: Callable[[str], None],
) -> Mixed:
    """Choose the share of the learned weights by Dice on validation slices; of equal ones that nearest to the start.

    Parameters
    ----------
    start, learned : weights of one shape, with buffers
    images : [n, 1, row, column] training slices as the network is given them, for means and variances
    validation : batches of the validation part

    Raises
    ------
    ConfigurationError
        if the shapes differ, or the validation slices show no class
    """
    require_same_shape(config, start)
    ends = {name: value.to(device) for name, value in start.items()}, {k: v.to(device) for k, v in learned.items()}
    found: dict[float, float] = {}
    best: dict[str, Tensor] = {}
    for share in SHARES:
        weights = weights_between(config, *ends, share, images, device)
        found[share] = _mean(validate(config, weights, validation, device))
        if found[share] > max((dice for other, dice in found.items() if other < share), default=-1.0):
            best = weights
    chosen = max(found, key=lambda share: (found[share], -share))
    curve = ", ".join(f"{share:g} {dice:.4f}" for share, dice in found.items())
    report(f"{config.name}: Dice on validation slices by the share of the learned weights: {curve}; {chosen:g} it is")
    return Mixed(chosen, best, found)


@torch.no_grad()
def weights_between(
    config: TrainingConfig,
    start: Mapping[str, Tensor],
    learned: Mapping[str, Tensor],
    share: float,
    images: Tensor,
    device: str,
) -> dict[str, Tensor]:
    """Weights on the line, share 0 to 1 of the way from start to learned; parameters as of `mix_with_start`."""
    if share in (0.0, 1.0):
        return dict(learned if share else start)
    mixed = {
        name: torch.lerp(value, learned[name], share) if value.dtype.is_floating_point else learned[name]
        for name, value in start.items()
    }
    shape = replace(network_config(config), dropout=0.0)  # as in use: dropout changes variances
    network = VNet(shape).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.load_state_dict(mixed)
    n = len(images)
    measured = images[np.linspace(0, n - 1, min(n, SLICES_MEASURED)).round().astype(np.int64)]
    update_bn((measured[first : first + config.batch] for first in range(0, len(measured), config.batch)), network)
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def _mean(dice: Mapping[str, float]) -> float:
    if not dice:
        raise ConfigurationError("the validation slices show no class: there is nothing to choose a mixture by")
    return round(sum(dice.values()) / len(dice), 4)
