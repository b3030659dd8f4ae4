"""Turn tissue into magnitude MR images, a batch at a time and on any device.

Water and fat make separate images, and fat is shifted along the frequency axis. Everything that happens to a slice
as a whole was drawn with its `Contrast` and `Scanner`; only fields and noise come from the generator here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from models.phantom.fields import Array
from models.phantom.mri import Contrast, Scanner
from models.phantom.sampling import TissueSlice
from models.phantom.tissues import N_TISSUES, Tissue

_SATURATION_BEHIND_BACK_MM = 100.0
"""The middle of the spine lies about this deep, a working value; saturation bands are placed against it."""


@dataclass(frozen=True, eq=False)
class TissueBatch:
    """Slices of equal size, ready to be imaged."""

    tissue: Tensor
    """[n, sub-sample, row, column] uint8 values of `Tissue`."""
    depth_mm: Tensor
    """[n, row, column] float32 depth below the skin of the back, negative outside."""


def depth_plane(slice_: TissueSlice, back_y_mm: float) -> tuple[float, float, float]:
    """Depth below the skin of the back (LPS y = `back_y_mm`) at the first pixel and its step per row and column; mm."""
    y = slice_.points_mm[..., 1]
    return back_y_mm - float(y[0, 0]), float(y[0, 0] - y[1, 0]), float(y[0, 0] - y[0, 1])


def tissue_batch(tissue: Tensor, planes: Tensor) -> TissueBatch:
    """Batch from tissue [n, sub-sample, row, column] and `depth_plane`s [n, 3]."""
    rows, columns = (torch.arange(size, device=tissue.device, dtype=torch.float32) for size in tissue.shape[-2:])
    first, down, across = planes.to(torch.float32).unbind(dim=1)
    depth = first[:, None, None] + down[:, None, None] * rows[:, None] + across[:, None, None] * columns
    return TissueBatch(tissue, depth)


def acquire(
    batch: TissueBatch, contrasts: Sequence[Contrast], scanners: Sequence[Scanner], generator: torch.Generator
) -> Tensor:
    """Magnitude images [n, row, column] float32 in units of the contrasts' signal.

    Parameters
    ----------
    contrasts, scanners : one per slice
    generator : on the device of the batch; the only source of randomness
    """
    noise = _Fields(batch.depth_mm, generator)
    scan = {name: _column(scanners, name, batch.depth_mm) for name in _SCALARS}
    image = _echo(batch, contrasts, scanners, scan, noise)
    image = image * _sensitivity(batch.depth_mm, scan, noise)
    image = _ghosts(image, scanners)
    level = _signal_level(image, batch.tissue[:, 0])
    return _through_k_space(image, scanners, level / scan["snr"], noise)


def acquire_slices(
    slices: Sequence[TissueSlice], contrast: Contrast, scanner: Scanner, *, seed: Sequence[int], back_y_mm: float
) -> Array:
    """Images [slice, row, column] of one stack in one acquisition, the same for the same seed.

    Parameters
    ----------
    back_y_mm : LPS y of the skin of the back, from which the surface coil's sensitivity falls off
    """
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
    tissue = torch.from_numpy(np.stack([slice_.tissue for slice_ in slices]))
    planes = torch.tensor([depth_plane(slice_, back_y_mm) for slice_ in slices])
    n = len(slices)
    return np.asarray(acquire(tissue_batch(tissue, planes), [contrast] * n, [scanner] * n, generator).numpy())


_SCALARS = (
    "snr", "coil_decay_mm", "coil_floor", "bias", "roll_off", "roll_centre", "roll_power", "saturation",
    "saturation_edge_mm", "saturation_width_mm", "blur_px",
)  # fmt: skip


def _column(scanners: Sequence[Scanner], name: str, like: Tensor) -> Tensor:
    """[n, 1, 1] one number of every scanner."""
    return torch.tensor([float(getattr(s, name)) for s in scanners], device=like.device)[:, None, None]


@dataclass(frozen=True, eq=False)
class _Fields:
    """Random fields of the shape of a batch."""

    like: Tensor
    generator: torch.Generator

    def white(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.like.device)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.like.device)

    def smooth(self, cells: int) -> Tensor:
        """[n, row, column] standard normal, with about `cells` bumps along each axis."""
        n, rows, columns = self.like.shape
        knots = self.white(n, 1, cells + 3, cells + 3)
        size = (-(-(cells + 3) * rows // cells), -(-(cells + 3) * columns // cells))
        mode = "bilinear" if cells > 24 else "bicubic"
        field = interpolate(knots, size=size, mode=mode, align_corners=True)[:, 0, :rows, :columns]
        return field / (field.std(dim=(1, 2), keepdim=True) + 1e-6)


def _echo(
    batch: TissueBatch,
    contrasts: Sequence[Contrast],
    scanners: Sequence[Scanner],
    scan: dict[str, Tensor],
    noise: _Fields,
) -> Tensor:
    """Water and shifted fat with their partial volume and texture, before the coil."""
    tissue = batch.tissue.long()
    n = torch.arange(len(tissue), device=tissue.device)
    water, fat = (
        torch.from_numpy(np.stack(signal)).to(tissue.device)[n[:, None, None, None], tissue].mean(dim=1)
        for signal in ([c.water for c in contrasts], [c.fat for c in contrasts])
    )
    # texture at four scales, its strength drawn per tissue (a measured 20 % in marrow, coil included)
    fine = 0.05 * sum((noise.smooth(cells) for cells in (6, 24, 64, 128)), start=torch.zeros_like(water))
    strength = 0.3 + 1.2 * noise.uniform(len(tissue), N_TISSUES)
    texture = 1 + fine * strength[n[:, None, None], tissue[:, 0]]
    shifted = [_shift(image, s.shift_px, s.frequency_axis) for image, s in zip(fat * texture, scanners, strict=True)]
    return (_blur(water * texture, scan["blur_px"]) + torch.stack(shifted)).clamp(min=0)


def _shift(image: Tensor, pixels: float, axis: int) -> Tensor:
    """Shift by a fraction of pixels, linear interpolation."""
    whole = int(np.floor(pixels))
    share = pixels - whole
    return (1 - share) * image.roll(whole, axis) + share * image.roll(whole + 1, axis)


def _blur(image: Tensor, sigma_px: Tensor) -> Tensor:
    """Three-point kernel of that variance along both axes; for sigma below 0.7 px."""
    side = sigma_px**2 / 2
    for axis in (1, 2):
        image = (1 - 2 * side) * image + side * (image.roll(1, axis) + image.roll(-1, axis))
    return image


def _sensitivity(depth_mm: Tensor, scan: dict[str, Tensor], noise: _Fields) -> Tensor:
    """Surface coil, bias field, roll-off towards the ends of the field of view, anterior saturation band."""
    coil = torch.exp(-depth_mm.clamp(min=0) / scan["coil_decay_mm"]) * (1 - scan["coil_floor"]) + scan["coil_floor"]
    field = torch.exp(scan["bias"] * noise.smooth(4))
    along = torch.linspace(-1, 1, depth_mm.shape[1], device=depth_mm.device)[None, :, None] - scan["roll_centre"]
    ends = (1 - scan["roll_off"] * along.abs().clamp(max=1.2) ** scan["roll_power"]).clamp(min=0.02)
    before = depth_mm - _SATURATION_BEHIND_BACK_MM - scan["saturation_edge_mm"]
    band = 1 - scan["saturation"] * torch.sigmoid(before / scan["saturation_width_mm"])
    return coil * field * ends * band


def _ghosts(image: Tensor, scanners: Sequence[Scanner]) -> Tensor:
    """Copies along the phase axis."""

    def one(slice_: Tensor, scanner: Scanner) -> Tensor:
        if not scanner.ghost:
            return slice_
        axis = 1 - scanner.frequency_axis
        offset = int(scanner.ghost_offset * slice_.shape[axis])
        return slice_ + scanner.ghost * (slice_.roll(offset, axis) + slice_.roll(-offset, axis))

    return torch.stack([one(slice_, scanner) for slice_, scanner in zip(image, scanners, strict=True)])


def _signal_level(image: Tensor, tissue: Tensor) -> Tensor:
    """[n, 1, 1] median signal of marrow and muscle, against which the noise is measured."""
    levels = []
    for slice_, kind in zip(image, tissue, strict=True):
        inside = slice_[(kind == Tissue.MARROW) | (kind == Tissue.MUSCLE)]
        levels.append(inside.median() if len(inside) else slice_.quantile(0.7))
    return torch.stack(levels)[:, None, None]


def _through_k_space(image: Tensor, scanners: Sequence[Scanner], sigma: Tensor, noise: _Fields) -> Tensor:
    """Crop k-space to the acquired matrix (Gibbs ringing), add complex noise of that band, take the magnitude
    (Rician)."""
    window = torch.stack([_window(scanner, image) for scanner in scanners])
    acquired = (window > 0).to(image.dtype)
    n_pixels = image.shape[1] * image.shape[2]
    # white noise of this spread in the acquired part of k-space has the spread sigma in each part of the image
    spread = sigma * n_pixels / acquired.sum(dim=(1, 2), keepdim=True).sqrt()
    grain = torch.complex(noise.white(*image.shape), noise.white(*image.shape))
    magnitude: Tensor = torch.fft.ifft2(torch.fft.fft2(image) * window + grain * (spread * acquired)).abs()
    return magnitude


def _window(scanner: Scanner, like: Tensor) -> Tensor:
    """[row, column] weight of every spatial frequency."""

    def profile(size: int, resolution: float) -> Tensor:
        k, limit = torch.fft.fftfreq(size, device=like.device).abs() * 2, 1 / resolution
        kept: Tensor = (k <= limit).to(like.dtype)
        return kept * (0.5 + 0.5 * torch.cos(torch.pi * (k / limit).clamp(0, 1) * 0.6)) if scanner.apodised else kept

    rows, columns = (profile(like.shape[axis + 1], scanner.resolution[axis]) for axis in (0, 1))
    return rows[:, None] * columns
