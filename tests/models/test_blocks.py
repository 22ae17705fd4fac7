"""The folded up-sampling convolution is the plain one; weights start as the authors' do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stackgan_dist.models import ModelConfig, build_discriminator, build_generator
from stackgan_dist.models.blocks import UpsampleConv, tile
from stackgan_dist.models.config import Recipe


def plain(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 8), (9, 11)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_upsample_conv_equals_nearest_and_3x3(height: int, width: int, memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    layer = UpsampleConv(5, 3).double().to(memory_format=memory_format)  # type: ignore[call-overload]
    x = torch.randn(2, 5, height, width, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(2, 3, 2 * height, 2 * width, dtype=torch.float64)

    expected = plain(x, layer.weight)
    found = layer(x.to(memory_format=memory_format))

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    for found_grad, expected_grad in zip(
        torch.autograd.grad(found, (x, layer.weight), upstream),
        torch.autograd.grad(expected, (x, layer.weight), upstream),
        strict=True,
    ):
        torch.testing.assert_close(found_grad, expected_grad, rtol=0, atol=1e-12)


def test_upsample_conv_keeps_a_3x3_weight() -> None:
    assert {name: tuple(w.shape) for name, w in UpsampleConv(5, 3).state_dict().items()} == {"weight": (3, 5, 3, 3)}


def test_tile_appends_the_vector_everywhere() -> None:
    tiled = tile(torch.tensor([[7.0, 8.0]]), torch.zeros(1, 1, 2, 3))
    assert tiled.shape == (1, 3, 2, 3)
    assert tiled[0, :, 1, 2].tolist() == [0.0, 7.0, 8.0]


@pytest.mark.parametrize("recipe", ["paper", "pytorch"])
def test_initial_weights(recipe: Recipe) -> None:
    torch.manual_seed(0)
    config = ModelConfig(recipe=recipe, stage=2, image_size=128, generator_width=16, discriminator_width=16)
    for network in (build_generator(config, 32), build_discriminator(config, 32)):
        weights: dict[type[nn.Module], list[Tensor]] = {nn.Conv2d: [], nn.Linear: [], nn.BatchNorm2d: []}
        for layer in network.modules():
            for kind, found in weights.items():
                if isinstance(layer, kind):
                    found.append(layer.get_parameter("weight").detach().flatten())
            if isinstance(layer, nn.Linear) and layer.bias is not None:
                assert not layer.bias.any()
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                assert not layer.bias.any()
        conv = torch.cat(weights[nn.Conv2d])
        if recipe == "paper":  # cut off at two standard deviations, which leaves 0.88 of the spread
            assert conv.abs().max() <= 0.04
            assert conv.std().item() == pytest.approx(0.88 * 0.02, rel=0.01)
        else:
            assert conv.abs().max() > 0.06
            assert conv.std().item() == pytest.approx(0.02, rel=0.01)
        if weights[nn.Linear]:
            assert torch.cat(weights[nn.Linear]).std().item() == pytest.approx(0.02, rel=0.03)
        gamma = torch.cat(weights[nn.BatchNorm2d])
        assert gamma.mean().item() == pytest.approx(1.0, abs=0.005)
        assert gamma.std().item() == pytest.approx(0.02, rel=0.15)


def test_the_callers_seed_decides_the_weights() -> None:
    config = ModelConfig(generator_width=4)
    made = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        made.append(build_generator(config, 8).state_dict())
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    assert not torch.equal(made[0]["body.1.0.weight"], made[2]["body.1.0.weight"])
