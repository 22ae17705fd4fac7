"""All layers of a classifier, trained on from a fitted last layer to a data set's classes, on any number of ranks.

The last layer first and then everything, since gradients through a random last layer would spoil what the network knows
(Kumar et al., arXiv 2202.10054). Batch normalisation keeps its statistics, so a batch's gradient is a sum over its
pictures: ranks divide every batch and add up what they have.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stackgan_dist.classifiers.classifier import BATCH_SIZE, NetworkClassifier
from stackgan_dist.classifiers.labelled_pictures import LabelledPictures
from stackgan_dist.distributed.collectives import sum_over_ranks, with_progress
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.randomness import Stream, permutation

_WEIGHT_DECAY = 0.01
FIRST_VIEW = 1_000
"""Number of the pictures' views in the first epoch: none that the last layer was fitted to."""


@dataclass(frozen=True)
class _Share:
    """A rank's part of a batch."""

    numbers: Tensor
    """(n,), int64: of its pictures; n may be 0."""
    of: int
    """Pictures of all ranks."""
    epoch: int
    progress: float
    """Share of the training that is over, in [0, 1)."""


@dataclass(frozen=True)
class FineTuning:
    """AdamW on all layers, its rate falling from `learning_rate` to 0 along half a cosine.

    Not SGD: a last layer fitted to few pictures has weights, and by them gradients, of any size.
    """

    epochs: int
    learning_rate: float
    batch_size: int
    """Pictures of all ranks together."""
    seed: int
    """Orders the pictures."""

    def run(self, classifier: NetworkClassifier, pictures: LabelledPictures, learned: Tensor, ranks: Ranks) -> None:
        """Change the weights of `classifier`, whose last layer is fitted to the classes, in place, alike on all ranks.

        learned: numbers (N,) of the pictures to learn from, the same on all ranks.
        """
        weights = list(classifier.module.requires_grad_(True).parameters())
        optimizer = torch.optim.AdamW(weights, self.learning_rate, weight_decay=_WEIGHT_DECAY, foreach=True)
        total = self.epochs * len(learned)
        for share in with_progress(self._shares(learned, ranks), "fine-tuning", total, ranks):
            optimizer.param_groups[0]["lr"] = self.learning_rate * (1 + math.cos(math.pi * share.progress)) / 2
            optimizer.zero_grad()
            for numbers in share.numbers.split(BATCH_SIZE):
                batch = pictures.batch(numbers.tolist(), FIRST_VIEW + share.epoch)
                logits = classifier.network(classifier.prepared(batch.images.to(classifier.device))).logits
                loss = F.cross_entropy(logits, batch.labels.to(classifier.device), reduction="sum")
                (loss / share.of).backward()
            _add_up_gradients(weights, ranks)
            optimizer.step()
        classifier.module.requires_grad_(False)

    def _shares(self, learned: Tensor, ranks: Ranks) -> Iterator[_Share]:
        count = len(learned)
        for epoch in range(self.epochs):
            order = learned[torch.from_numpy(permutation(count, self.seed, Stream.FINE_TUNING_ORDER, epoch))]
            for begin in range(0, count, self.batch_size):
                batch = order[begin : begin + self.batch_size]
                progress = (epoch + begin / count) / self.epochs
                yield _Share(batch[ranks.rank :: ranks.world_size], len(batch), epoch, progress)


def _add_up_gradients(weights: list[nn.Parameter], ranks: Ranks) -> None:
    """Sums over the ranks, in place; a rank without pictures, or a layer without use, adds zeros."""
    if not ranks.distributed:
        return
    gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    sum_over_ranks(flat, ranks)
    for weight, gradient in zip(weights, flat.split([weight.numel() for weight in weights]), strict=True):
        weight.grad = gradient.view_as(weight)
