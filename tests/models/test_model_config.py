"""A configuration that has no network is refused with what to change."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch

from stackgan_dist.errors import UserError
from stackgan_dist.models import ModelConfig, Stage1Generator, build_generator


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recipe": "tensorflow"}, "--model.recipe is 'tensorflow', it must be one of paper, pytorch"),
        ({"stage": 3}, "--model.stage is 3, it must be one of 1, 2"),
        ({"image_size": 96}, "--model.image-size is 96, it must be one of 64, 128, 256"),
        ({"generator_width": 0}, "--model.generator-width is 0, it must be from 1"),
        ({"discriminator_width": -4}, "--model.discriminator-width is -4, it must be from 1"),
        ({"condition_dim": 0}, "--model.condition-dim is 0, it must be from 1"),
        ({"noise_dim": 0}, "--model.noise-dim is 0, it must be from 1"),
        ({"stage": 2, "image_size": 256, "residual_blocks": 0}, "--model.residual-blocks is 0, it must be from 1"),
        ({"stage": 2, "image_size": 128, "stage1_coarse": 65}, "--model.stage1-coarse is 65, it must be from 1 to 64"),
        ({"stage": 2, "image_size": 128, "stage1_coarse": 0}, "--model.stage1-coarse is 0, it must be from 1"),
        ({"family": "gan-int-cls", "stage1_coarse": 8}, "--model.stage1-coarse is 8, but it is StackGAN's"),
        ({"stage": 2}, "set --model.image-size to 128 or 256"),
        ({"recipe": "pytorch", "generator_width": 7}, "make it a multiple of 2"),
        ({"stage": 2, "image_size": 256, "generator_width": 6}, "make it a multiple of 4"),
    ],
)
def test_nonsense_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ModelConfig(**settings)


@pytest.mark.parametrize(("recipe", "detail_layer"), [("paper", False), ("paper", True), ("pytorch", False)])
@pytest.mark.parametrize(("stage", "image_size"), [(1, 64), (1, 128), (1, 256), (2, 128), (2, 256)])
def test_every_width_is_refused_or_scales_evenly(recipe: Any, detail_layer: bool, stage: Any, image_size: Any) -> None:
    def channels(width: int) -> list[int]:
        config = ModelConfig(
            recipe=recipe, stage=stage, image_size=image_size, generator_width=width, detail_layer=detail_layer
        )
        with torch.device("meta"):
            generator = build_generator(config, 2, ModelConfig(generator_width=2))
        own = generator.body if isinstance(generator, Stage1Generator) else generator.decode
        return [layer.num_features for layer in own.modules() if isinstance(layer, torch.nn.BatchNorm2d)]

    accepted = []
    for width in range(1, 9):
        with contextlib.suppress(UserError):
            assert channels(width) == [c * width // 8 for c in channels(8)]
            assert all(c * width % 8 == 0 for c in channels(8))
            accepted.append(width)
    assert accepted == [w for w in range(1, 9) if min(channels(8)) * w % 8 == 0]


@pytest.mark.parametrize(("image_size", "given", "blocks"), [(128, None, 2), (256, None, 4), (256, 2, 2)])
def test_number_of_residual_blocks(image_size: Any, given: int | None, blocks: int) -> None:
    config = ModelConfig(stage=2, image_size=image_size, residual_blocks=given)
    assert config.stage2_residual_blocks == blocks


@pytest.mark.parametrize(
    ("stage1", "message"),
    [
        (ModelConfig(noise_dim=7), "give --model.noise-dim 7"),
        (ModelConfig(condition_dim=7), "give --model.condition-dim 7"),
        (ModelConfig(image_size=128), "it needs a stage-1 generator of 64 pixels"),
        (ModelConfig(stage=2, image_size=128), "given a stage-2 generator"),
    ],
)
def test_stages_that_do_not_fit_together(stage1: ModelConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_generator(ModelConfig(stage=2, image_size=128), 10, stage1)
