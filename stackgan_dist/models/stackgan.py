"""StackGAN as a family: the generators of its two stages, and its discriminator (arXiv 1612.03242)."""

from __future__ import annotations

from dataclasses import replace

from stackgan_dist.errors import UserError
from stackgan_dist.models.adversarial import NonSaturating
from stackgan_dist.models.blocks import initialise
from stackgan_dist.models.config import STAGE1_IMAGE_SIZE, ModelConfig
from stackgan_dist.models.discriminator import StackGANDiscriminator
from stackgan_dist.models.stage1 import Stage1Generator
from stackgan_dist.models.stage2 import Stage2Generator
from stackgan_dist.models.text_layers import initialise_text_layers


class StackGAN:
    """See Family."""

    loss = NonSaturating()

    def generator(
        self, config: ModelConfig, text_dim: int, stage1_config: ModelConfig | None = None
    ) -> Stage1Generator | Stage2Generator:
        """See Family, and build_generator for `stage1_config`."""
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

    def discriminator(self, config: ModelConfig, text_dim: int) -> StackGANDiscriminator:
        """See Family."""
        discriminator = StackGANDiscriminator(config, text_dim)
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
                f"the same noise, so give --model.{field.replace('_', '-')} {needed}"
            )
