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
from stackgan_dist.classifiers.labelled_pictures import LabelledBatch, LabelledPictures
from stackgan_dist.distributed.collectives import sum_over_ranks, with_progress
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.overlap import made_ahead
from stackgan_dist.randomness import Stream, permutation

_WEIGHT_DECAY = 0.01
FIRST_VIEW = 1_000
"""Number of the pictures' views in the first epoch: none that the last layer was fitted to."""


@dataclass(frozen=True)
class _Piece:
    """What a rank computes at once of its share of a batch."""

    numbers: Tensor
    """(n,), int64: of its pictures; n is 0 where a rank has none of a batch."""
    views: LabelledBatch | None
    """Of these pictures; None where there are none."""
    of: int
    """Pictures of all ranks in the batch."""
    progress: float
    """Share of the training that is over, in [0, 1)."""
    is_last: bool
    """Whether the weights are to be changed after it."""


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
        optimizer.zero_grad()
        pieces = made_ahead(self._pieces(pictures, learned, ranks), ranks.device)
        for piece in with_progress(pieces, "fine-tuning", total, ranks):
            if piece.views is not None:
                images, labels = (t.to(classifier.device) for t in (piece.views.images, piece.views.labels))
                logits = classifier.network(classifier.prepared(images)).logits
                (F.cross_entropy(logits, labels, reduction="sum") / piece.of).backward()
            if piece.is_last:
                optimizer.param_groups[0]["lr"] = self.learning_rate * (1 + math.cos(math.pi * piece.progress)) / 2
                _add_up_gradients(weights, ranks)
                optimizer.step()
                optimizer.zero_grad()
        classifier.module.requires_grad_(False)

    def _pieces(self, pictures: LabelledPictures, learned: Tensor, ranks: Ranks) -> Iterator[_Piece]:
        count = len(learned)
        for epoch in range(self.epochs):
            order = learned[torch.from_numpy(permutation(count, self.seed, Stream.FINE_TUNING_ORDER, epoch))]
            for begin in range(0, count, self.batch_size):
                batch = order[begin : begin + self.batch_size]
                progress = (epoch + begin / count) / self.epochs
                own = batch[ranks.rank :: ranks.world_size].split(BATCH_SIZE)  # one, of none, where there are none
                for numbers in own:
                    views = pictures.batch(numbers.tolist(), FIRST_VIEW + epoch) if len(numbers) else None
                    yield _Piece(numbers, views, len(batch), progress, is_last=numbers is own[-1])


def _add_up_gradients(weights: list[nn.Parameter], ranks: Ranks) -> None:
    """Sums over the ranks, in place; a rank without pictures, or a layer without use, adds zeros."""
    if not ranks.distributed:
        return
    gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    sum_over_ranks(flat, ranks)
    for weight, gradient in zip(weights, flat.split([weight.numel() for weight in weights]), strict=True):
        weight.grad = gradient.view_as(weight)
