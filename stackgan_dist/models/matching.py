"""The discriminator with the three pairs of an update: matching-aware training (arXiv 1605.05396, section 4.2)."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from stackgan_dist.models.blocks import without_autocast
from stackgan_dist.models.contrastive import ContrastiveHead
from stackgan_dist.models.family import Discriminator
from stackgan_dist.models.outputs import Judgement, Logits


class MatchingAware(nn.Module):
    """A discriminator that judges the three pairs of an update in one forward pass.

    The features of the real pictures are computed once, for the matching and for the mismatched text, and for the
    contrastive head where there is one.

    Args:
        discriminator: judges one pair.
        contrastive: picks the own text of a picture out of many, by the discriminator's features.
        steepness: also measure how steep the discriminator is at real pictures with their texts.
    """

    def __init__(
        self, discriminator: Discriminator, contrastive: ContrastiveHead | None = None, *, steepness: bool = False
    ) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.contrastive = contrastive
        self.steepness = steepness

    def compile(self, *args: Any, **options: Any) -> None:
        """As of any module, and what the generator's update calls as well."""
        super().compile(*args, **options)
        self.judge = torch.compile(self.judge, *args, **options)  # type: ignore[method-assign]

    def forward(
        self,
        real: Tensor,
        fake: Tensor,
        condition: Tensor,
        wrong_condition: Tensor,
        place: Tensor | None = None,
        text: Tensor | None = None,
        pool: Tensor | None = None,
    ) -> Judgement:
        """Judge (real, matching text), (real, mismatched text) and (fake, matching text), N rows each, at one place.

        With a contrastive head real pictures also pick their `text` (N, text_dim) out of it and the `pool`
        (P, text_dim).
        """
        told = condition
        if self.steepness:
            # Views: torch.utils.flop_counter hooks inputs, and autograd.grad can do that with no leaf.
            real, told = (given.detach().requires_grad_().view_as(given) for given in (real, condition))
        # A slope is differentiated twice, for which half precision is too coarse.
        with without_autocast(real.device) if self.steepness else nullcontext():
            features = self.discriminator.features(real)
            of_real = self._score(features, told, place)
            of_wrong = self._score(features, wrong_condition, place)
            squared_slopes = _squared_slopes(of_real, real, told) if self.steepness else None
        return Judgement(
            real=of_real,
            wrong=of_wrong,
            fake=self._score(self.discriminator.features(fake), condition, place),
            texts=self._pick(features, text, pool),
            squared_slopes=squared_slopes,
        )

    def judge(
        self,
        image: Tensor,
        condition: Tensor,
        place: Tensor | None = None,
        text: Tensor | None = None,
        pool: Tensor | None = None,
    ) -> tuple[Logits, Tensor | None]:
        """What the generator learns from: logits of images with their texts, and those by which the images pick `text`.

        The images of the first n rows do, where there are n texts.
        """
        features = self.discriminator.features(image)
        return self._score(features, condition, place), self._pick(features, text, pool)

    def _score(self, features: Tensor, condition: Tensor, place: Tensor | None) -> Logits:
        return self.discriminator.score(features, condition, *(() if place is None else (place,)))

    def _pick(self, features: Tensor, text: Tensor | None, pool: Tensor | None) -> Tensor | None:
        if self.contrastive is None or text is None or pool is None:
            return None
        picked: Tensor = self.contrastive(features[: len(text)], text, pool)
        return picked


def _squared_slopes(scores: Logits, *inputs: Tensor) -> Tensor:
    """(N,): of the conditional logits by `inputs`, N rows each, together; no row may depend on another's inputs."""
    gradients = torch.autograd.grad(scores.conditional.sum(), inputs, create_graph=True)
    return torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients]).sum(0)
