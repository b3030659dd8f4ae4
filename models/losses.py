"""Losses of the paper, Dice on sigmoid outputs, plain and weighted by class; and Dice with cross-entropy."""

from __future__ import annotations

from typing import Final, Protocol

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


def dice_sigmoid(
    logits: Tensor, target: Tensor, *, class_weights: Tensor | None = None, known: Tensor | None = None
) -> Tensor:
    """One minus the soft Dice coefficient with squared denominator (Milletari et al. 2016, eq. 4), mean over classes.

    Sums run over the whole batch, so that a slice without a structure is judged together with those that have it; the
    added one makes an empty target with an empty prediction a perfect score.

    Parameters
    ----------
    logits, target : [batch, class, row, column]; target 0 or 1
    class_weights : [class], any positive numbers; None for equal weights
    known : as `target`, 1 where the target is known; pixels with 0 do not count
    """
    p = logits.sigmoid()
    if known is not None:
        p, target = p * known, target * known
    overlap = (p * target).sum((0, 2, 3))
    size = (p * p + target * target).sum((0, 2, 3))
    loss = 1 - (2 * overlap + 1) / (size + 1)  # [class]
    if class_weights is None:
        return loss.mean()
    return (loss * class_weights).sum() / class_weights.sum()


def dice_and_cross_entropy(
    logits: Tensor, target: Tensor, *, class_weights: Tensor | None = None, known: Tensor | None = None
) -> Tensor:
    """Dice plus binary cross-entropy, which keeps gradients alive where Dice saturates; parameters as there."""
    dice = dice_sigmoid(logits, target, class_weights=class_weights, known=known)
    entropy = binary_cross_entropy_with_logits(logits, target, weight=known, reduction="sum")
    return dice + entropy / (target.numel() if known is None else known.sum().clamp(min=1.0))


class Loss(Protocol):
    """Parameters as in `dice_sigmoid`; a scalar."""

    def __call__(
        self, logits: Tensor, target: Tensor, *, class_weights: Tensor | None = None, known: Tensor | None = None
    ) -> Tensor: ...


LOSSES: Final[dict[str, Loss]] = {
    "dice": dice_sigmoid,
    "weighted_dice": dice_sigmoid,
    "dice_and_cross_entropy": dice_and_cross_entropy,
}
"""Losses by the name that a training configuration gives them; `weighted_dice` is the one that demands weights."""


@torch.no_grad()
def overlap_and_size(logits: Tensor, target: Tensor, *, known: Tensor | None = None) -> Tensor:
    """[2, class] pixels in both the thresholded output and the target, and the sum of those in each, float64.

    Parts of a data set add up, which Dice coefficients do not.
    """
    p = (logits > 0).to(target.dtype)
    if known is not None:
        p, target = p * known, target * known
    return torch.stack([(p * target).double().sum((0, 2, 3)), (p + target).double().sum((0, 2, 3))])


def dice_of(counts: Tensor) -> Tensor:
    """[class] Dice of `overlap_and_size`; 1 where both are empty."""
    return (2 * counts[0] + 1e-6) / (counts[1] + 1e-6)
