"""One step of matching-aware adversarial training, as the paper has it (arXiv 1612.03242, sections 3.2 to 3.4).

The only place that knows the three kinds of pairs and what is frozen when. It knows nothing of ranks, files or logs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stackgan_dist.data.batch import Batch
from stackgan_dist.engines import Engine
from stackgan_dist.models import Discriminator, Fakes, Generator, Scores
from stackgan_dist.runs.metrics import metric
from stackgan_dist.train.losses import (
    LossWeights,
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

    discriminator_loss: Tensor = metric("loss", "of the three pairs: real + (wrong + fake) / 2", "D {:.3f}")
    real: Tensor = metric("discriminator", "probability that D gives to real pictures with their text", "(real {:.2f}")
    wrong: Tensor = metric("discriminator", "... with a text of another class; low where D reads texts", "wrong {:.2f}")
    fake: Tensor = metric("discriminator", "... to fakes before D's update; near 0 for long: D has won", "fake {:.2f})")
    generator_loss: Tensor = metric("loss", "how far fakes are from being called real, without other terms", "G {:.3f}")
    kl: Tensor = metric("loss", "of the conditioning augmentation, unweighted: how much text gets through", "KL {:.3f}")
    discriminator_gradient: Tensor = metric("gradient_norm", "of D, over the global batch, before its update")
    generator_gradient: Tensor = metric("gradient_norm", "of G, over the global batch, before its update")


@dataclass(frozen=True)
class StepSettings:
    """How the two updates of a step are made."""

    learning_rate: float
    """Of Adam, for both networks."""
    weights: LossWeights
    precision: Precision
    share: float
    """This rank's rows x ranks / global batch: 1 when all ranks have equally many. It makes the mean over ranks of
    their losses the mean over the rows of the global batch."""
    generator_share: float
    """The same for the generator's rows, which are more where texts are interpolated."""


class Rows(NamedTuple):
    """A batch as the networks take it: n rows, and m more for the generator alone where texts are interpolated."""

    real: Tensor
    """(n, 3, S, S) in [-1, 1]."""
    text: Tensor
    """(n + m, dim)."""
    z: Tensor
    """(n + m, noise_dim)."""
    eps: Tensor
    """(n + m, stages, condition_dim)."""
    condition: Tensor
    """(n + m, ...): what the discriminator is told of the matching texts."""
    wrong_condition: Tensor
    """(n, ...): the same of the mismatched texts."""
    place: tuple[Tensor, ...]
    """(n + m, *placement.shape), for models that are told where the object is; else empty."""


def train_step(generator: Engine, discriminator: Engine, batch: Batch, settings: StepSettings) -> StepReport:
    """Update the discriminator and then the generator on one batch.

    Args:
        generator: engine of a Generator.
        discriminator: engine of a MatchingAware.
        batch: this rank's rows, on its device.
        settings: of this step.
    """
    rows = _rows(batch, generator, settings.precision)

    # Fakes, one set for both updates.
    with settings.precision.autocast():
        pictures = (rows.real,) if settings.weights.reconstruction else ()
        fakes = generator(rows.text, rows.z, rows.eps, *rows.place, *pictures)

    judged = discriminator_step(discriminator, rows, fakes, settings)
    fooled = generator_step(generator, discriminator, rows, fakes, settings)
    return StepReport(**judged, **fooled)


def discriminator_step(discriminator: Engine, rows: Rows, fakes: Fakes, settings: StepSettings) -> dict[str, Tensor]:
    """Update D: matching pairs are real; mismatched texts and fakes are not. Returns its part of the StepReport."""
    n = len(rows.real)
    with settings.precision.autocast():
        real, wrong, fake = discriminator(
            rows.real,
            fakes.image[:n].detach(),
            rows.condition[:n],
            rows.wrong_condition,
            *(place[:n] for place in rows.place),
        )
    loss = discriminator_loss(real, wrong, fake)
    gradient = discriminator.update(loss * settings.share, settings.learning_rate)
    return {
        "discriminator_loss": loss.detach(),
        "real": _probability(real),
        "wrong": _probability(wrong),
        "fake": _probability(fake),
        "discriminator_gradient": gradient.detach(),
    }


def generator_step(
    generator: Engine, discriminator: Engine, rows: Rows, fakes: Fakes, settings: StepSettings
) -> dict[str, Tensor]:
    """Update G: fool the updated D, also with texts between two, and keep the conditioning close to a standard normal.

    Returns its part of the StepReport.
    """
    weights = settings.weights
    with _frozen(discriminator.module):
        with settings.precision.autocast():
            scores = _discriminator(discriminator)(fakes.image, rows.condition, *rows.place)
        adversarial = generator_loss(scores)
        kl = kl_divergence(fakes.mu, fakes.log_sigma)
        loss = adversarial + weights.kl * kl
        if weights.colour and fakes.low_resolution is not None:
            loss = loss + weights.colour * colour_difference(fakes.image, fakes.low_resolution)
        if weights.reconstruction and fakes.rebuilt is not None:
            loss = loss + weights.reconstruction * reconstruction_error(fakes.rebuilt, rows.real)
        gradient = generator.update(loss * settings.generator_share, settings.learning_rate)
    as_reported = settings.generator_share / settings.share
    return {
        "generator_loss": adversarial.detach() * as_reported,
        "kl": kl.detach() * as_reported,
        "generator_gradient": gradient.detach(),
    }


def _rows(batch: Batch, generator: Engine, precision: Precision) -> Rows:
    real = batch.images.to(precision.weights) / 127.5 - 1
    text, wrong_text, z, eps = (t.to(precision.weights) for t in (batch.text, batch.wrong_text, batch.z, batch.eps))
    with precision.autocast(), torch.no_grad():
        condition = _generator(generator).discriminator_condition(text)
        wrong_condition = _generator(generator).discriminator_condition(wrong_text)
    place = () if batch.place is None else (batch.place.to(precision.weights),)
    return Rows(real, text, z, eps, condition, wrong_condition, place)


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
