"""What happens to a slice before a network sees it, in training and in inference alike."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def normalise(image: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Scale so that the 95th percentile of what is not air is 1, clipped to 0..2.

    Air is everything below 2 % of the maximum. The 95th percentile is subcutaneous or visceral fat on T1 images; the
    maximum would be the skin next to the coil.
    """
    values = np.asarray(image, dtype=np.float32)
    visible = values[values > 0.02 * values.max(initial=0.0)]
    scale = float(np.percentile(visible, 95)) if visible.size > 100 else 1.0
    return np.asarray(np.clip(values / max(scale, 1e-6), 0.0, 2.0), dtype=np.float32)


def normalise_batch(images: Tensor) -> Tensor:
    """`normalise` of a batch [n, row, column], each slice by itself, on the batch's device."""

    def scale(image: Tensor) -> Tensor:
        visible = image[image > 0.02 * image.max()]
        return visible.quantile(0.95) if visible.numel() > 100 else torch.ones_like(image[0, 0])

    scales = torch.stack([scale(image) for image in images])[:, None, None]
    return (images / scales.clamp(min=1e-6)).clamp(0.0, 2.0)
