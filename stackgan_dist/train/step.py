"""One step of matching-aware adversarial training, as the paper has it (arXiv 1612.03242, sections 3.2 to 3.4).

The only place that knows the three kinds of pairs and what is frozen when. It knows nothing of ranks, files or logs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from stackgan_dist.data.batch import Batch
from stackgan_dist.engines import Engine
from stackgan_dist.models import Fakes, Generator, Logits
from stackgan_dist.models.adversarial import AdversarialLoss
from stackgan_dist.models.blocks import layout_of
from stackgan_dist.models.matching import MatchingAware
from stackgan_dist.models.outputs import Judgement
from stackgan_dist.runs.metrics import metric
from stackgan_dist.train.losses import (
    LossWeights,
    colour_difference,
    kl_divergence,
    own_text_error,
    own_text_excess,
    own_text_share,
    reading_divergence,
    reconstruction_error,
    redrawing_error,
)
from stackgan_dist.train.precision import Precision


@dataclass
class StepReport:
    """What a step measured on this rank's rows: scalars on the device, means over the rows.

    Weighted by the ranks' rows of the global batch they add up to means over all rows, the generator's own two also
    where it has more rows than pictures, and those of rows that are read to means over these. None belongs to a term
    that the run has not.
    """

    discriminator_loss: Tensor = metric("loss", "of the three pairs: real + (wrong + fake) / 2", "D {:.3f}")
    real: Tensor = metric("discriminator", "probability that D gives to real pictures with their text", "(real {:.2f}")
    wrong: Tensor = metric("discriminator", "... with a text of another class; low where D reads texts", "wrong {:.2f}")
    fake: Tensor = metric("discriminator", "... to fakes before D's update; near 0 for long: D has won", "fake {:.2f})")
    generator_loss: Tensor = metric("loss", "how far fakes are from being called real, without other terms", "G {:.3f}")
    kl: Tensor = metric("loss", "of the conditioning augmentation, unweighted: how much text gets through", "KL {:.3f}")
    discriminator_gradient: Tensor = metric("gradient_norm", "of D, over the global batch, before its update")
    generator_gradient: Tensor = metric("gradient_norm", "of G, over the global batch, before its update")

    penalty: Tensor | None = metric(
        "loss", "what D pays for being steep at real pictures with their text", "steep {:.3f}", term="penalty"
    )
    contrastive: Tensor | None = metric(
        "loss",
        "how hard real pictures find it to pick their own text out of the pool of P; ln(P + 1) is chance",
        term="contrastive",
    )
    own_text_real: Tensor | None = metric(
        "discriminator", "share of real pictures that pick their own text", "own text {:.0%}", term="contrastive"
    )
    own_text_fake: Tensor | None = metric(
        "discriminator", "... of fakes, by the updated D", "(fakes {:.0%})", term="contrastive"
    )
    redrawing: Tensor | None = metric(
        "loss", "mean absolute difference of redrawn pictures and real ones", "redrawn {:.3f}", term="reading"
    )
    reading_kl: Tensor | None = metric(
        "loss", "of z as it is read from the normal one, summed over z: how much is read", term="reading"
    )


@dataclass(frozen=True)
class StepSettings:
    """How the two updates of a step are made, in all steps of a run."""

    learning_rate: Tensor
    """Of G's Adam: 0-dim, set anew before a step."""
    discriminator_learning_rate: Tensor
    """The same of D's."""
    adversarial: AdversarialLoss
    weights: LossWeights
    precision: Precision
    share: float
    """This rank's rows x ranks / global batch: 1 when all ranks have equally many. It makes the mean over ranks of
    their losses the mean over the rows of the global batch."""
    generator_share: float
    """The same for the generator's rows, which are more where texts are interpolated."""
    read_first: int = 0
    """Where rows are read: this rank's first of them, after which every other one is."""
    read_share: float = 0.0
    """The same as `share`, for the rows that are read; a rank may have none."""


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
    place: Tensor | None
    """(n + m, *placement.shape), for models that are told where the object is."""
    pool: Tensor | None
    """(P, dim): texts that a picture has to pick its own out of; None without the contrastive term."""
    excluded: Tensor | None
    """(n, P): those of the pool that a row is not compared with."""


def train_step(generator: Engine, discriminator: Engine, batch: Batch, settings: StepSettings) -> StepReport:
    """Update the discriminator and then the generator on one batch.

    Args:
        generator: engine of a Generator.
        discriminator: engine of a MatchingAware.
        batch: this rank's rows, on its device.
        settings: of the run.
    """
    rows = _rows(batch, generator, settings.precision)

    # Fakes, one set for both updates.
    with settings.precision.autocast():
        fakes = generator(rows.text, rows.z, rows.eps, *_more_for_generator(rows, settings))

    judged, real_error = discriminator_step(discriminator, rows, fakes, settings)
    fooled = generator_step(generator, discriminator, rows, fakes, real_error, settings)
    return StepReport(**judged, **fooled)


@record_function("discriminator step")
def discriminator_step(
    discriminator: Engine, rows: Rows, fakes: Fakes, settings: StepSettings
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Update D: matching pairs are real; mismatched texts and fakes are not. Real pictures pick their own texts.

    Returns its part of the StepReport, and how hard each real picture found that, (n,), with the contrastive term.
    """
    n = len(rows.real)
    with settings.precision.autocast():
        judged: Judgement = discriminator(
            rows.real,
            fakes.image[:n].detach(),
            rows.condition[:n],
            rows.wrong_condition,
            None if rows.place is None else rows.place[:n],
            rows.text[:n],
            rows.pool,
        )
    of_pairs = loss = settings.adversarial.discriminator(judged)
    measured, error = {}, None
    if settings.adversarial.penalty is not None and judged.squared_slopes is not None:
        penalty = settings.adversarial.penalty(judged.squared_slopes)
        loss = loss + penalty
        measured["penalty"] = penalty.detach()
    if judged.texts is not None and rows.excluded is not None:
        error = own_text_error(judged.texts, rows.excluded)
        loss = loss + settings.weights.contrastive * error.mean()
        measured["contrastive"] = error.detach().mean()
        measured["own_text_real"] = own_text_share(judged.texts.detach(), rows.excluded)
    gradient = discriminator.update(loss * settings.share, settings.discriminator_learning_rate)
    return {
        "discriminator_loss": of_pairs.detach(),
        "real": _probability(judged.real),
        "wrong": _probability(judged.wrong),
        "fake": _probability(judged.fake),
        "discriminator_gradient": gradient.detach(),
        **measured,
    }, error


@record_function("generator step")
def generator_step(
    generator: Engine,
    discriminator: Engine,
    rows: Rows,
    fakes: Fakes,
    real_error: Tensor | None,
    settings: StepSettings,
) -> dict[str, Tensor]:
    """Update G: fool the updated D, also with texts between two, and keep the conditioning close to a standard normal.

    With the contrastive term fakes pick their own texts, as well as real pictures do by `real_error` (n,); rows that
    are read redraw their pictures. Returns its part of the StepReport.
    """
    weights, n = settings.weights, len(rows.real)
    measured = {}
    with _frozen(discriminator.module):
        with settings.precision.autocast():
            scores, texts = _judge(discriminator).judge(
                fakes.image, rows.condition, rows.place, rows.text[:n], rows.pool
            )
        adversarial = settings.adversarial.generator(scores, fakes, rows.real)
        kl = kl_divergence(fakes.mu, fakes.log_sigma)
        loss = adversarial + weights.kl * kl
        if weights.colour and fakes.low_resolution is not None:
            loss = loss + weights.colour * colour_difference(fakes.image, fakes.low_resolution)
        if weights.reconstruction and fakes.rebuilt is not None:
            loss = loss + weights.reconstruction * reconstruction_error(fakes.rebuilt, rows.real)
        loss = loss * settings.generator_share
        if texts is not None and rows.excluded is not None and real_error is not None:
            excess = own_text_excess(own_text_error(texts, rows.excluded), real_error)
            loss = loss + settings.share * weights.generator_contrastive * excess
            measured["own_text_fake"] = own_text_share(texts.detach(), rows.excluded)
        if fakes.reading is not None:
            read = slice(settings.read_first, n, 2)
            redrawing = redrawing_error(fakes.image[read], rows.real[read])
            divergence = reading_divergence(*fakes.reading)
            loss = loss + settings.read_share * (weights.reading * redrawing + weights.reading_kl * divergence)
            of_read = settings.read_share / settings.share  # as the rows are weighed that are not all of the rank's
            measured |= {"redrawing": redrawing.detach() * of_read, "reading_kl": divergence.detach() * of_read}
        gradient = generator.update(loss, settings.learning_rate)
    as_reported = settings.generator_share / settings.share
    return {
        "generator_loss": adversarial.detach() * as_reported,
        "kl": kl.detach() * as_reported,
        "generator_gradient": gradient.detach(),
        **measured,
    }


def _rows(batch: Batch, generator: Engine, precision: Precision) -> Rows:
    real = batch.images.to(precision.weights, memory_format=layout_of(generator.module)) / 127.5 - 1
    text, wrong_text, z, eps = (t.to(precision.weights) for t in (batch.text, batch.wrong_text, batch.z, batch.eps))
    with precision.autocast(), torch.no_grad():
        condition = _generator(generator).discriminator_condition(text)
        wrong_condition = _generator(generator).discriminator_condition(wrong_text)
    place, pool = (None if t is None else t.to(precision.weights) for t in (batch.place, batch.pool))
    return Rows(real, text, z, eps, condition, wrong_condition, place, pool, batch.excluded)


def _more_for_generator(rows: Rows, settings: StepSettings) -> tuple[Any, ...]:
    """What it is given beside text and noise: the place; pictures to rebuild; pictures to read z off, and where."""
    if rows.place is not None:
        return (rows.place,)
    if settings.weights.reading:
        return rows.real, settings.read_first
    return (rows.real,) if settings.weights.reconstruction else ()


def _generator(engine: Engine) -> Generator:
    return engine.module  # type: ignore[return-value]


def _judge(engine: Engine) -> MatchingAware:
    return engine.module  # type: ignore[return-value]


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


def _probability(scores: Logits) -> Tensor:
    return scores.conditional.detach().float().sigmoid().mean()
