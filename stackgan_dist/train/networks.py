"""The networks of a run, with what its terms of the loss add to them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stackgan_dist.config import Config
from stackgan_dist.errors import UserError
from stackgan_dist.importable import describe_failure
from stackgan_dist.models import Generator, ModelConfig, build_discriminator, build_generator
from stackgan_dist.models.adversarial import AdversarialLoss, open_loss
from stackgan_dist.models.build import open_family
from stackgan_dist.models.contrastive import ContrastiveHead
from stackgan_dist.models.matching import MatchingAware
from stackgan_dist.models.outputs import Fakes, Judgement, Logits
from stackgan_dist.models.reader import Reader, ReadingGenerator
from stackgan_dist.models.stage1 import Stage1Generator


class Networks(NamedTuple):
    """Both players, with fresh weights."""

    generator: Generator
    """What pictures are generated with."""
    trained: nn.Module
    """What is trained as the generator: itself, or with its reader, in a ReadingGenerator."""
    discriminator: MatchingAware
    loss: AdversarialLoss
    """What they play for."""


def build_networks(config: Config, text_dim: int, stage1: ModelConfig | None = None) -> Networks:
    """Those of `config` for text embeddings of `text_dim`, from torch's global random numbers: seed them first.

    Args:
        config: a run that was validated.
        text_dim: width of the text embeddings.
        stage1: for Stage-II: what the frozen Stage-I inside is made of.
    """
    model, training = config.model, config.training
    generator = build_generator(model, text_dim, stage1)
    loss = open_family(model).loss if training.loss is None else open_loss(training.loss)
    discriminator = MatchingAware(build_discriminator(model, text_dim), steepness=loss.penalty is not None)
    if loss.penalty is not None:
        _check_penalised(discriminator, config)
    # After both, whose first weights are the same with and without them.
    if training.contrastive_weight:
        discriminator.contrastive = ContrastiveHead(model.discriminator_features, text_dim)
    trained: nn.Module = generator
    if training.reading_weight:
        assert isinstance(generator, Stage1Generator)  # Config.validate refuses others
        trained = ReadingGenerator(generator, Reader(model, text_dim))
    return Networks(generator, trained, discriminator, loss)


def _check_penalised(discriminator: nn.Module, config: Config) -> None:
    """Refuse a penalty that cannot be computed row by row, or not be differentiated."""
    if any(isinstance(layer, _BatchNorm) for layer in discriminator.modules()):
        raise UserError(
            f"the loss of this run makes D pay for its slope at each row, but the discriminator of {config.model.title}"
            " has batch normalisation, by which a row's logit depends on all others; choose another --training.loss"
        )
    if config.training.compile:
        raise UserError(
            "--training.compile cannot differentiate twice, which the penalty in this run's loss needs; leave it out"
        )


def check_networks(config: Config, text_dim: int, stage1: ModelConfig | None = None) -> None:
    """Build what `build_networks` does without memory; where it is a user's own, also see two rows through it.

    Raises UserError for what cannot be built, or returns something else than it must.
    """
    own = " with ".join(config.own_parts)
    with torch.device("meta"):
        networks = build_networks(config, text_dim, stage1)
        if not own:
            return
        try:
            _try(networks, config.model, text_dim)
        except UserError as error:
            raise UserError(f"{own}, tried on two rows: {error} (docs/extending.md)") from error
        except Exception as error:  # whatever is wrong in it is the user's to mend
            raise UserError(f"{own} failed when tried on two rows: {describe_failure(error)}") from error


def _try(networks: Networks, model: ModelConfig, text_dim: int) -> None:
    real = torch.zeros(2, 3, model.image_size, model.image_size)
    text = torch.zeros(2, text_dim)
    given = text, torch.zeros(2, model.noise_dim), torch.zeros(2, model.augmentations, model.condition_dim)
    place = () if model.placement is None else (torch.zeros(2, *model.placement.shape),)
    fakes = networks.generator(*given, *place)
    if not isinstance(fakes, Fakes):
        raise UserError(f"the generator returned a {type(fakes).__name__}; it must be Fakes")
    _check_shape(fakes.image, (2, 3, model.image_size, model.image_size), "Fakes.image")
    _check_shape(fakes.log_sigma, tuple(fakes.mu.shape), "Fakes.log_sigma beside mu")
    condition = networks.generator.discriminator_condition(text)
    judged: Judgement = networks.discriminator(real, fakes.image, condition, condition, *place)
    for what, scores in (("real", judged.real), ("wrong", judged.wrong), ("fake", judged.fake)):
        if not isinstance(scores, Logits):
            raise UserError(f"the discriminator's score returned a {type(scores).__name__}; it must be Logits")
        _check_shape(scores.conditional, (2,), f"Logits.conditional of {what} pairs")
    _check_shape(networks.loss.discriminator(judged), (), "what the discriminator loses")
    _check_shape(networks.loss.generator(judged.fake, fakes, real), (), "what the generator loses")


def _check_shape(found: Tensor, needed: tuple[int, ...], what: str) -> None:
    if tuple(found.shape) != needed:
        raise UserError(f"{what} is of shape {tuple(found.shape)}; it must be {needed}")
