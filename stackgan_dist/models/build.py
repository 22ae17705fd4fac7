"""The networks of a configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from stackgan_dist.errors import UserError
from stackgan_dist.models.baselines.deconvolution import initialise_convolutions
from stackgan_dist.models.baselines.gan_int_cls import GanIntClsDiscriminator, GanIntClsGenerator
from stackgan_dist.models.baselines.gawwn import (
    GawwnBoxDiscriminator,
    GawwnBoxGenerator,
    GawwnKeypointDiscriminator,
    GawwnKeypointGenerator,
)
from stackgan_dist.models.blocks import initialise
from stackgan_dist.models.config import STAGE1_IMAGE_SIZE, Family, ModelConfig
from stackgan_dist.models.discriminator import Discriminator as StackganDiscriminator
from stackgan_dist.models.stage1 import Stage1Generator
from stackgan_dist.models.stage2 import Stage2Generator
from stackgan_dist.models.text_layers import initialise_text_layers

Generator = Stage1Generator | Stage2Generator | GanIntClsGenerator | GawwnBoxGenerator | GawwnKeypointGenerator
"""(text, z, eps[, place]) -> Fakes; and `discriminator_condition(text)`. The place only where the configuration has a
placement."""

Discriminator = StackganDiscriminator | GanIntClsDiscriminator | GawwnBoxDiscriminator | GawwnKeypointDiscriminator
"""(image, condition[, place]) -> Logits, in two parts: `features(image)` and `score(features, condition[, place])`."""

_BASELINES: dict[
    Family, tuple[Callable[[ModelConfig, int], Generator], Callable[[ModelConfig, int], Discriminator]]
] = {
    "gan-int-cls": (GanIntClsGenerator, GanIntClsDiscriminator),
    "gawwn-box": (GawwnBoxGenerator, GawwnBoxDiscriminator),
    "gawwn-keypoints": (GawwnKeypointGenerator, GawwnKeypointDiscriminator),
}


def build_generator(config: ModelConfig, text_dim: int, stage1_config: ModelConfig | None = None) -> Generator:
    """The generator of `config` for text embeddings of `text_dim`, with fresh weights.

    `stage1_config` says what the frozen Stage-I inside a Stage-II generator is made of, normally what it was trained
    with; None takes the same settings as `config`. Its weights are fresh too: load trained ones into `.stage1`.

    Raises UserError where the two stages cannot share their noise.
    """
    if config.family in _BASELINES:
        baseline = _BASELINES[config.family][0](config, text_dim)
        initialise_convolutions(baseline)
        return baseline
    generator: Stage1Generator | Stage2Generator
    if config.stage == 1:
        generator = Stage1Generator(config, text_dim)
    else:
        stage1_config = stage1_config or replace(config, stage=1, image_size=STAGE1_IMAGE_SIZE)
        _check_stage1(config, stage1_config)
        generator = Stage2Generator(config, text_dim, stage1_config)
    initialise(generator, config.recipe)
    initialise_text_layers(generator)
    return generator


def build_discriminator(config: ModelConfig, text_dim: int) -> Discriminator:
    """The discriminator of `config` for text embeddings of `text_dim`, with fresh weights."""
    if config.family in _BASELINES:
        baseline = _BASELINES[config.family][1](config, text_dim)
        initialise_convolutions(baseline)
        return baseline
    discriminator = StackganDiscriminator(config, text_dim)
    initialise(discriminator, config.recipe)
    return discriminator


def _check_stage1(config: ModelConfig, stage1: ModelConfig) -> None:
    if stage1.family != config.family:
        raise UserError(f"stage 2 was given a {stage1.family} generator to start from; it needs a StackGAN of stage 1")
    if stage1.stage != 1 or stage1.image_size != STAGE1_IMAGE_SIZE:
        raise UserError(
            f"stage 2 was given a stage-{stage1.stage} generator of {stage1.image_size} pixels to start from; it "
            f"needs a stage-1 generator of {STAGE1_IMAGE_SIZE} pixels"
        )
    for field in ("noise_dim", "condition_dim"):
        if (found := getattr(config, field)) != (needed := getattr(stage1, field)):
            raise UserError(
                f"{field} is {found} in stage 2 and {needed} in the stage-1 generator it starts from; both draw from "
                f"the same noise, so set {field} to {needed}"
            )
