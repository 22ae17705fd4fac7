"""One step of matching-aware adversarial training, as the paper has it (arXiv 1612.03242, sections 3.2 to 3.4).

The only place that knows the three kinds of pairs and what is frozen when. It knows nothing of ranks, files or logs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stackgan_dist.data.batch import Batch
from stackgan_dist.engines import Engine
from stackgan_dist.models import Discriminator, Generator, Scores
from stackgan_dist.train.losses import (
    colour_difference,
    discriminator_loss,
    generator_loss,
    kl_divergence,
    reconstruction_error,
)
from stackgan_dist.train.precision import Precision


@dataclass
class StepReport:
    """What a step measured on this rank's rows: scalars on the device, means over the rows.

    Weighted by the ranks' rows of the global batch they add up to means over all rows, the generator's own two also
    where it has more rows than pictures.
    """

    discriminator_loss: Tensor
    generator_loss: Tensor
    """Without the KL term."""
    kl: Tensor
    """KL divergence of the conditioning augmentation, before its weight; 0 without one."""
    real: Tensor
    """Mean probability that D gives to real pictures with their text."""
    wrong: Tensor
    """... to real pictures with a mismatched text."""
    fake: Tensor
    """... to fakes, before D's update."""
    discriminator_gradient: Tensor
    """Norm of D's gradient over the global batch."""
    generator_gradient: Tensor
    """Norm of G's gradient over the global batch."""


def train_step(
    generator: Engine,
    discriminator: Engine,
    batch: Batch,
    *,
    learning_rate: float,
    kl_weight: float,
    colour_weight: float,
    reconstruction_weight: float,
    share: float,
    generator_share: float,
    precision: Precision,
) -> StepReport:
    """Update the discriminator and then the generator on one batch.

    Args:
        generator: engine of a Generator.
        discriminator: engine of a MatchingAware.
        batch: this rank's rows, on its device.
        share: this rank's rows x ranks / global batch: 1 when all ranks have equally many. It makes the mean over
            ranks of their losses the mean over the rows of the global batch.
        generator_share: the same for the generator's rows, which are more where texts are interpolated.
    """
    real = batch.images.to(precision.weights) / 127.5 - 1
    text, wrong_text, z, eps = (t.to(precision.weights) for t in (batch.text, batch.wrong_text, batch.z, batch.eps))
    place = () if batch.place is None else (batch.place.to(precision.weights),)
    n = len(real)  # of the rows, which are more where texts are interpolated

    # Fakes, one set for both updates.
    with precision.autocast():
        fakes = generator(text, z, eps, *place, *((real,) if reconstruction_weight else ()))

    # Discriminator: matching pairs are real; mismatched texts and fakes are not.
    with precision.autocast():
        with torch.no_grad():
            condition = _generator(generator).discriminator_condition(text)
            wrong_condition = _generator(generator).discriminator_condition(wrong_text)
        real_scores, wrong_scores, fake_scores = discriminator(
            real, fakes.image[:n].detach(), condition[:n], wrong_condition, *(where[:n] for where in place)
        )
    d_loss = discriminator_loss(real_scores, wrong_scores, fake_scores)
    d_gradient = discriminator.update(d_loss * share, learning_rate)

    # Generator: fool the updated discriminator, also with texts between two; keep the conditioning close to a standard
    # normal.
    with _frozen(discriminator.module):
        with precision.autocast():
            scores = _discriminator(discriminator)(fakes.image, condition, *place)
        g_loss = generator_loss(scores)
        kl = kl_divergence(fakes.mu, fakes.log_sigma)
        loss = g_loss + kl_weight * kl
        if colour_weight and fakes.low_resolution is not None:
            loss = loss + colour_weight * colour_difference(fakes.image, fakes.low_resolution)
        if reconstruction_weight and fakes.rebuilt is not None:
            loss = loss + reconstruction_weight * reconstruction_error(fakes.rebuilt, real)
        g_gradient = generator.update(loss * generator_share, learning_rate)

    return StepReport(
        discriminator_loss=d_loss.detach(),
        generator_loss=g_loss.detach() * (generator_share / share),
        kl=kl.detach() * (generator_share / share),
        real=_probability(real_scores),
        wrong=_probability(wrong_scores),
        fake=_probability(fake_scores),
        discriminator_gradient=d_gradient.detach(),
        generator_gradient=g_gradient.detach(),
    )


def _generator(engine: Engine) -> Generator:
    return engine.module  # type: ignore[return-value]


def _discriminator(engine: Engine) -> Discriminator:
    return engine.module.discriminator  # type: ignore[return-value]


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """No gradients for the weights of `network`: half of its backward pass is not needed then."""
    trainable = [p for p in network.parameters() if p.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def _probability(scores: Scores) -> Tensor:
    return scores.conditional.detach().float().sigmoid().mean()
