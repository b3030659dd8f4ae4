"""Losses against numerical gradients, and what they make of empty slices, weights and unknown pixels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.losses import LOSSES, dice_of, dice_sigmoid, overlap_and_size


def _case(seed: int, *, classes: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, target and known [2, classes, 4, 4] in double precision."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 4, 4, dtype=torch.float64, generator=generator)
    target, known = ((torch.rand(logits.shape, generator=generator) > 0.4).double() for _ in range(2))
    return logits, target, known


@pytest.mark.parametrize("name", sorted(LOSSES))
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_gradients_agree_with_finite_differences(name: str, seed: int) -> None:
    logits, target, known = _case(seed)
    weights = torch.tensor([1.0, 3.0], dtype=torch.float64)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: LOSSES[name](x, target, class_weights=weights, known=known), (logits,), raise_exception=False
    )


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_an_empty_slice_with_an_empty_prediction_costs_nothing_and_has_finite_gradients(name: str) -> None:
    empty = torch.zeros(2, 3, 8, 8)
    right = torch.full_like(empty, -40.0, requires_grad=True)
    wrong = torch.zeros_like(empty, requires_grad=True)
    for logits in (right, wrong):
        LOSSES[name](logits, empty).backward()
        assert torch.isfinite(logits.grad).all()
    assert (wrong.grad > 0).all()  # what is wrongly there is pushed away
    assert float(LOSSES[name](right.detach(), empty)) == pytest.approx(0, abs=1e-6)
    assert float(LOSSES[name](wrong.detach(), empty)) > 0.1


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_an_empty_slice_in_a_batch_does_not_hide_the_others(name: str) -> None:
    logits, target, _ = _case(1)
    target[0] = 0
    perfect = (target * 2 - 1) * 40
    assert float(LOSSES[name](perfect, target)) == pytest.approx(0, abs=1e-6)
    assert float(LOSSES[name](logits, target)) > 0.1


@pytest.mark.parametrize("name", sorted(LOSSES))
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), heavy=st.floats(2, 50))
def test_a_weight_moves_the_loss_towards_the_class_that_has_it(name: str, seed: int, heavy: float) -> None:
    logits, target, _ = _case(seed)
    logits[:, 0] = (target[:, 0] * 2 - 1) * 40  # the first class is learned, the second is not
    first, second = (
        float(LOSSES[name](logits, target, class_weights=torch.tensor(weights, dtype=torch.float64)))
        for weights in ((heavy, 1.0), (1.0, heavy))
    )
    assert first < float(LOSSES[name](logits, target)) < second


@pytest.mark.parametrize("name", sorted(LOSSES))
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_nothing_flows_from_unknown_pixels(name: str, seed: int) -> None:
    logits, target, known = _case(seed)
    logits.requires_grad_()
    loss = LOSSES[name](logits, target, known=known)
    loss.backward()
    loss = loss.detach()
    assert not logits.grad[known == 0].any()
    assert logits.grad[known == 1].any()
    other = torch.where(known > 0, target, 1 - target)
    assert float(LOSSES[name](logits.detach(), other, known=known)) == float(loss)


def test_a_slice_of_which_nothing_is_known_costs_nothing() -> None:
    logits, target, _ = _case(2)
    for loss in LOSSES.values():
        assert float(loss(logits, target, known=torch.zeros_like(target))) == 0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_dice_of_a_data_set_is_that_of_its_parts_counted_together(seed: int) -> None:
    logits, target, known = _case(seed)
    parts = [overlap_and_size(logits[k : k + 1], target[k : k + 1], known=known[k : k + 1]) for k in range(2)]
    together = dice_of(overlap_and_size(logits, target, known=known))
    assert torch.allclose(dice_of(parts[0] + parts[1]), together)
    p, t = (logits > 0) & (known > 0), (target > 0) & (known > 0)
    size = p.sum((0, 2, 3)) + t.sum((0, 2, 3))
    assert torch.allclose(together, 2 * (p & t).sum((0, 2, 3)).double() / size, atol=1e-6)


def test_dice_is_one_where_nothing_is_and_nothing_was_found() -> None:
    empty = torch.zeros(2, 3, 8, 8)
    assert dice_of(overlap_and_size(empty - 40, empty)).tolist() == [1, 1, 1]


def test_the_opposite_of_the_target_costs_one() -> None:
    target = torch.zeros(1, 1, 8, 8)
    target[..., :4, :] = 1
    assert float(dice_sigmoid((1 - target * 2) * 50, target)) == pytest.approx(1, abs=0.05)
