"""The training step as the paper's readers write it: the same function as train/step.py, with nothing saved.

Up-sampling and convolution are two layers, the real pictures pass D once for each text, D's weights get gradients in
G's step too, batch normalisation and Adam are torch's own as they come.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stackgan_dist.config import TrainingConfig
from stackgan_dist.data.batch import Batch
from stackgan_dist.models import Judgement, ModelConfig, build_discriminator, build_generator
from stackgan_dist.models.build import open_family
from stackgan_dist.models.upsampling import UpsampleConv
from stackgan_dist.train.ema import MovingAverage
from stackgan_dist.train.losses import kl_divergence
from stackgan_dist.train.precision import Precision


class PlainStep:
    """Both networks, fresh, with their optimizers; calling it takes one step and returns (D's loss, G's loss)."""

    def __init__(
        self, model: ModelConfig, text_dim: int, training: TrainingConfig, device: torch.device, precision: Precision
    ) -> None:
        torch.manual_seed(training.seed)  # the weights of a run
        generator, discriminator = build_generator(model, text_dim), build_discriminator(model, text_dim)
        with_two_layers(generator)
        self.generator: Any = generator.to(device, precision.weights)
        self.discriminator: Any = discriminator.to(device, precision.weights)
        self._average = MovingAverage(generator, training.ema_half_life_images)
        self._adam_g, self._adam_d = (
            torch.optim.Adam(
                [p for p in network.parameters() if p.requires_grad],
                lr=training.learning_rate,
                betas=(training.adam_beta1, training.adam_beta2),
            )
            for network in (generator, discriminator)
        )
        self._training, self._precision, self._steps = training, precision, 0
        self._loss = open_family(model).loss

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """One update of both networks on `batch`; the losses of D and of G."""
        precision = self._precision
        real = batch.images.to(precision.weights) / 127.5 - 1
        text, wrong_text, z, eps = (t.to(precision.weights) for t in (batch.text, batch.wrong_text, batch.z, batch.eps))
        with precision.autocast():
            fakes = self.generator(text, z, eps)
            condition = self.generator.discriminator_condition(text)
            wrong_condition = self.generator.discriminator_condition(wrong_text)
            real_scores = self.discriminator(real, condition)
            wrong_scores = self.discriminator(real, wrong_condition)
            fake_scores = self.discriminator(fakes.image.detach(), condition)
        d_loss = self._loss.discriminator(Judgement(real_scores, wrong_scores, fake_scores, texts=None))
        self._adam_d.zero_grad()
        d_loss.backward()
        self._adam_d.step()

        with precision.autocast():
            scores = self.discriminator(fakes.image, condition)
        g_loss = self._loss.generator(scores, fakes, real)
        self._adam_g.zero_grad()
        (g_loss + self._training.kl_weight * kl_divergence(fakes.mu, fakes.log_sigma)).backward()
        self._adam_g.step()

        self._steps += 1
        rows = len(batch.images)
        self._average.update(self.generator, self._steps * rows, rows)
        return d_loss.detach(), g_loss.detach()


def with_two_layers(network: nn.Module) -> None:
    """Replace every UpsampleConv in `network` by nn.Upsample and a 3x3 convolution with the same weight."""
    for name, child in list(network.named_children()):
        if isinstance(child, UpsampleConv):
            convolution = nn.Conv2d(child.in_channels, child.out_channels, 3, padding=1, bias=False)
            convolution.weight = child.weight
            setattr(network, name, nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), convolution))
        else:
            with_two_layers(child)
