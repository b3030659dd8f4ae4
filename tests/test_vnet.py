"""The network: shapes and the paper's stages."""

from __future__ import annotations

import pytest
import torch

from cohort.errors import ConfigurationError
from models.vnet import VNet, VNetConfig, n_parameters, tensor_shapes


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


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"levels": 0}, "levels of a network is a whole number from 1"),
        ({"levels": 2.0}, "levels of a network is a whole number"),
        ({"n_classes": 0}, "n_classes"),
        ({"base_channels": -8}, "base_channels"),
        ({"kernel": 4}, "has no middle"),
        ({"dropout": 1.0}, "dropout"),
        ({"activation": "gelu"}, "activation is one of prelu, relu"),
    ],
)
def test_impossible_shapes_are_refused_in_words(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        VNetConfig(**{"n_classes": 1, **values})  # type: ignore[arg-type]


def test_activation_is_the_one_that_was_asked_for() -> None:
    kinds = {"prelu": torch.nn.PReLU, "relu": torch.nn.ReLU}
    for name, kind in kinds.items():
        found = {type(m) for m in VNet(VNetConfig(1, 2, 2, activation=name)).modules()} & set(kinds.values())
        assert found == {kind}


def test_the_shapes_of_a_network_are_known_without_building_it() -> None:
    config = VNetConfig(2, levels=2, base_channels=2)
    assert tensor_shapes(config) == {name: tuple(value.shape) for name, value in VNet(config).state_dict().items()}
    largest = tensor_shapes(VNetConfig(1, levels=7, base_channels=1024))  # of some ten terabytes
    assert largest["bottom.body.0.weight"] == (2**17, 2**17, 5, 5)
