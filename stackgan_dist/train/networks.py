"""The networks of a run, with what its terms of the loss add to them."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from stackgan_dist.config import Config
from stackgan_dist.models import Generator, ModelConfig, build_discriminator, build_generator
from stackgan_dist.models.contrastive import ContrastiveHead
from stackgan_dist.models.matching import MatchingAware
from stackgan_dist.models.reader import Reader, ReadingGenerator
from stackgan_dist.models.stage1 import Stage1Generator


class Networks(NamedTuple):
    """Both players, with fresh weights."""

    generator: Generator
    """What pictures are generated with."""
    trained: nn.Module
    """What is trained as the generator: itself, or with its reader, in a ReadingGenerator."""
    discriminator: MatchingAware


def build_networks(config: Config, text_dim: int, stage1: ModelConfig | None = None) -> Networks:
    """Those of `config` for text embeddings of `text_dim`, from torch's global random numbers: seed them first.

    Args:
        config: a run that was validated.
        text_dim: width of the text embeddings.
        stage1: for Stage-II: what the frozen Stage-I inside is made of.
    """
    model, training = config.model, config.training
    generator = build_generator(model, text_dim, stage1)
    discriminator = MatchingAware(build_discriminator(model, text_dim))
    # After both, whose first weights are the same with and without them.
    if training.contrastive_weight:
        discriminator.contrastive = ContrastiveHead(model.discriminator_features, text_dim)
    trained: nn.Module = generator
    if training.reading_weight:
        assert isinstance(generator, Stage1Generator)  # Config.validate refuses others
        trained = ReadingGenerator(generator, Reader(model, text_dim))
    return Networks(generator, trained, discriminator)
