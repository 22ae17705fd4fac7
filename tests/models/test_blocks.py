"""Tiling; weights start as the authors' do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from distributed.tiny import tiny_model
from torch import Tensor, nn

from stackgan_dist.models import ModelConfig, build_discriminator, build_generator
from stackgan_dist.models.blocks import layout_of, tile
from stackgan_dist.models.config import RecipeName


def test_tile_appends_the_vector_everywhere() -> None:
    tiled = tile(torch.tensor([[7.0, 8.0]]), torch.zeros(1, 1, 2, 3))
    assert tiled.shape == (1, 3, 2, 3)
    assert tiled[0, :, 1, 2].tolist() == [0.0, 7.0, 8.0]


@pytest.mark.parametrize("recipe", ["paper", "pytorch"])
def test_initial_weights(recipe: RecipeName) -> None:
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


@pytest.mark.parametrize("recipe", ["paper", "pytorch"])
@pytest.mark.parametrize("stage", [1, 2])
def test_pictures_lie_as_the_kernels_want_them(recipe: RecipeName, stage: int) -> None:
    """As on CUDA, where every picture that lies otherwise costs a kernel that copies it."""
    model = tiny_model(recipe=recipe, stage=stage, image_size=64 * stage)
    stage1 = tiny_model(recipe=recipe) if stage == 2 else None
    generator, discriminator = build_generator(model, 6, stage1), build_discriminator(model, 6)
    found: list[str] = []

    def note(layer: nn.Module, given: Any) -> None:
        assert isinstance(layer, nn.Conv2d)
        picture = given[0]
        if not picture.is_contiguous(memory_format=torch.channels_last):
            found.append(f"{layer} of {tuple(picture.shape)}")

    for network in (generator, discriminator):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_pre_hook(note)
    assert layout_of(generator) is torch.channels_last
    text, z, eps = torch.randn(2, 6), torch.randn(2, model.noise_dim), torch.randn(2, stage, model.condition_dim)
    fakes = generator(text, z, eps)
    discriminator(fakes.image, generator.discriminator_condition(text))
    assert not found
