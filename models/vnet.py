"""Two-dimensional V-Net (Milletari, Navab, Ahmadi 2016, arXiv:1606.04797) as Hess et al. 2023 use it.

Residual stages of 1, 2, 3, 3 convolutions of 5x5, PReLU, 2x2 convolutions of stride 2 down and up, dropout. Not in
the paper: batch normalisation after every convolution (Ioffe & Szegedy 2015); a convolution before the first stage,
where the paper adds the one image to all channels; decoder stages of as many channels as the encoder's at their
level, around which the up-sampled half is added, where the paper keeps both halves.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cohort.errors import ConfigurationError

ACTIVATIONS = ("prelu", "relu")
MAX_LEVELS = 7
"""Inputs are padded to whole 2**levels: one level more, and 256 pixels would be a single one at the bottom."""
CONVOLUTIONS = (1, 2, 3, 3)
"""Convolutions of the encoder and decoder stages; deeper stages repeat the last number."""


@dataclass(frozen=True)
class VNetConfig:
    """Shape of a network."""

    n_classes: int
    """Independent sigmoid channels."""
    levels: int = 4
    """Down-samplings; the input's sides must be multiples of 2**levels."""
    base_channels: int = 16
    kernel: int = 5
    dropout: float = 0.05
    activation: str = "prelu"
    """prelu as in the paper, or relu: on a CPU, PReLU takes about a third of the training time."""

    def __post_init__(self) -> None:
        """Raise `ConfigurationError` for a shape that no network can have."""
        _check_whole("n_classes", self.n_classes, 1, 255)
        _check_whole("levels", self.levels, 1, MAX_LEVELS)
        _check_whole("base_channels", self.base_channels, 1, 1024)
        _check_whole("kernel", self.kernel, 1, 15)
        if self.kernel % 2 == 0:
            raise ConfigurationError(f"a kernel of {self.kernel} has no middle and would shift the output; use 3 or 5")
        if not 0 <= self.dropout < 1:
            raise ConfigurationError(f"dropout is a share from 0 to below 1, not {self.dropout}")
        if self.activation not in ACTIVATIONS:
            raise ConfigurationError(f"activation is one of {', '.join(ACTIVATIONS)}, not {self.activation!r}")


def _check_whole(name: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise ConfigurationError(f"{name} of a network is a whole number from {low} to {high}, not {value!r}")


class ResidualStage(nn.Module):
    """[batch, c_in, h, w] -> [batch, c, h, w]: n convolutions, to which `skip` [batch, c, h, w] is added."""

    def __init__(self, c_in: int, c: int, n: int, config: VNetConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(n):
            layers.append(nn.Conv2d(c_in if i == 0 else c, c, config.kernel, padding=config.kernel // 2, bias=False))
            layers.append(nn.BatchNorm2d(c))
            if i < n - 1:
                layers.append(_activation(c, config))
            layers.append(nn.Dropout2d(config.dropout))
        self.body = nn.Sequential(*layers)
        self.activation = _activation(c, config)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        out: Tensor = self.activation(self.body(x) + skip)
        return out


def _activation(c: int, config: VNetConfig) -> nn.Module:
    return nn.PReLU(c) if config.activation == "prelu" else nn.ReLU()


def _down(c: int, config: VNetConfig) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c, 2 * c, 2, stride=2), nn.BatchNorm2d(2 * c), _activation(2 * c, config))


def _up(c: int, config: VNetConfig) -> nn.Sequential:
    return nn.Sequential(nn.ConvTranspose2d(2 * c, c, 2, stride=2), nn.BatchNorm2d(c), _activation(c, config))


class VNet(nn.Module):
    """[batch, 1, row, column] normalised slices -> [batch, class, row, column] logits.

    Rows and columns are multiples of 2**levels.
    """

    def __init__(self, config: VNetConfig) -> None:
        super().__init__()
        self.config = config
        c, k = config.base_channels, config.kernel
        n = [CONVOLUTIONS[min(level, 3)] for level in range(config.levels)]
        self.stem = nn.Sequential(nn.Conv2d(1, c, k, padding=k // 2), nn.BatchNorm2d(c), _activation(c, config))
        self.encoder = nn.ModuleList(ResidualStage(c << i, c << i, n[i], config) for i in range(config.levels))
        self.down = nn.ModuleList(_down(c << i, config) for i in range(config.levels))
        self.bottom = ResidualStage(c << config.levels, c << config.levels, 3, config)
        self.up = nn.ModuleList(_up(c << i, config) for i in reversed(range(config.levels)))
        self.decoder = nn.ModuleList(
            ResidualStage(2 * c << i, c << i, n[i], config) for i in reversed(range(config.levels))
        )
        self.head = nn.Conv2d(c, config.n_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)  # [b, c, h, w]
        skips = []
        for stage, down in zip(self.encoder, self.down, strict=True):
            x = stage(x, x)  # [b, c * 2**i, h / 2**i, w / 2**i]
            skips.append(x)
            x = down(x)
        x = self.bottom(x, x)  # [b, c * 2**levels, h / 2**levels, w / 2**levels]
        for up, stage in zip(self.up, self.decoder, strict=True):
            x = up(x)  # [b, c * 2**i, h / 2**i, w / 2**i]
            x = stage(torch.cat([x, skips.pop()], dim=1), x)  # 2 c * 2**i channels in, c * 2**i out
        logits: Tensor = self.head(x)  # [b, class, h, w]
        return logits


def n_parameters(network: nn.Module) -> int:
    """Number of trained numbers."""
    return sum(p.numel() for p in network.parameters())


def tensor_shapes(config: VNetConfig) -> dict[str, tuple[int, ...]]:
    """Tensor of a network's state -> its shape, without the memory that they would take."""
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in VNet(config).state_dict().items()}
