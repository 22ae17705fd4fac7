"""What a model family is: a generator and a discriminator of a configuration, and the loss that they play for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn

from stackgan_dist.models.adversarial import AdversarialLoss
from stackgan_dist.models.config import ModelConfig
from stackgan_dist.models.outputs import Logits


class Generator(nn.Module):
    """forward(text, z, eps[, place]) -> Fakes.

    For text embeddings (N, text_dim); z (N, noise_dim) and eps (N, augmentations, condition_dim), both from N(0, 1).
    The place comes only where the configuration has a placement. All that is random comes in: what a generator makes
    of its input is always the same.
    """

    def discriminator_condition(self, text: Tensor) -> Tensor:
        """What the discriminator is to judge an image against, given text (N, text_dim): the text itself.

        For discriminators with a layer of their own for it.
        """
        return text


class Discriminator(nn.Module):
    """forward(image, condition[, place]) -> Logits, in two parts: the features of an image serve several conditions."""

    features: Callable[[Tensor], Tensor]
    """The part that knows no text, of images (N, 3, S, S) in [-1, 1]: (N, ...)."""

    score: Callable[..., Logits]
    """(features, condition[, place]) -> Logits, by the generator's `discriminator_condition` of a text."""

    def forward(self, image: Tensor, condition: Tensor, *place: Tensor) -> Logits:
        """Score image (N, 3, S, S) in [-1, 1] against the generator's `discriminator_condition`, at its place."""
        return self.score(self.features(image), condition, *place)


class Family(Protocol):
    """Two players with fresh weights, from torch's global random numbers, and their game.

    A class that is called with `--model.options` as keyword arguments.
    """

    loss: AdversarialLoss

    def generator(self, config: ModelConfig, text_dim: int) -> Generator:
        """The generator of `config` for text embeddings of `text_dim`."""
        ...

    def discriminator(self, config: ModelConfig, text_dim: int) -> Discriminator:
        """Its discriminator."""
        ...
