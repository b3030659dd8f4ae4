"""The network: shapes, the paper's stages, losses and their gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.losses import dice_and_cross_entropy, dice_coefficient, dice_sigmoid
from models.vnet import VNet, VNetConfig, n_parameters


@pytest.mark.parametrize(("levels", "base", "classes"), [(4, 8, 1), (3, 4, 2), (2, 4, 4)])
def test_output_has_one_channel_a_class_on_the_input_grid(levels: int, base: int, classes: int) -> None:
    network = VNet(VNetConfig(classes, levels=levels, base_channels=base)).eval()
    with torch.inference_mode():
        assert network(torch.zeros(2, 1, 64, 48)).shape == (2, classes, 64, 48)


def test_stages_have_one_two_three_three_convolutions_of_five_by_five() -> None:
    network = VNet(VNetConfig(1, levels=4, base_channels=2))
    kernels = [[m.kernel_size for m in stage.modules() if isinstance(m, torch.nn.Conv2d)] for stage in network.encoder]
    assert [len(stage) for stage in kernels] == [1, 2, 3, 3]
    assert {kernel for stage in kernels for kernel in stage} == {(5, 5)}


def test_number_of_parameters_is_that_of_the_published_layout() -> None:
    # 2.25 million at 4 levels and 8 base channels; PReLU adds a slope a channel
    assert n_parameters(VNet(VNetConfig(1, levels=4, base_channels=8))) == pytest.approx(2.25e6, rel=0.01)


def test_perfect_and_opposite_predictions() -> None:
    target = torch.zeros(1, 1, 8, 8)
    target[..., :4, :] = 1
    assert float(dice_sigmoid((target * 2 - 1) * 50, target)) == pytest.approx(0, abs=1e-4)
    assert float(dice_sigmoid((1 - target * 2) * 50, target)) == pytest.approx(1, abs=0.05)


def test_an_empty_slice_with_an_empty_prediction_costs_nothing() -> None:
    empty = torch.zeros(2, 3, 8, 8)
    logits = torch.full((2, 3, 8, 8), -40.0, requires_grad=True)
    loss = dice_and_cross_entropy(logits, empty)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(logits.grad).all()
    assert dice_coefficient(logits, empty).tolist() == [1, 1, 1]


def test_class_weights_shift_the_loss_towards_their_class() -> None:
    target = torch.ones(1, 2, 4, 4)
    logits = torch.stack([torch.full((4, 4), 20.0), torch.full((4, 4), -20.0)])[None]
    easy = dice_sigmoid(logits, target, class_weights=torch.tensor([10.0, 1.0]))
    hard = dice_sigmoid(logits, target, class_weights=torch.tensor([1.0, 10.0]))
    assert float(easy) < float(dice_sigmoid(logits, target)) < float(hard)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_gradient_of_the_loss_agrees_with_finite_differences(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, 2, 3, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    target = (torch.rand(1, 2, 3, 3, generator=generator) > 0.5).double()
    assert torch.autograd.gradcheck(lambda x: dice_and_cross_entropy(x, target), (logits,))
