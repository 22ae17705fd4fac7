"""The training pictures nearest to drawn ones: did the generator learn, or learn by heart?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stackgan_dist.figures.figures import Figure, Painter, Sentence
from stackgan_dist.generation.generate import draw
from stackgan_dist.generation.grid import labelled_grid, to_pictures

_NEAREST = 5

Features = Callable[[Tensor], Tensor]
"""Images (n, 3, S, S) in [-1, 1] -> (n, width)."""


def nearest_training(
    painter: Painter,
    sentences: Sequence[Sentence],
    training: Callable[[], Iterable[Tensor]],
    unseen: Tensor,
    features: Features,
) -> Figure:
    """A picture of each sentence, then the training pictures most like it by `features`.

    As many pictures are drawn as there are real ones in `unseen` (n, 3, S, S), which were not trained on, and both
    are compared with the batches of `training`: whoever learned by heart is nearer to them than unseen ones are.
    """
    count = max(len(unseen), len(sentences))
    text = np.stack([sentences[number % len(sentences)].embedding for number in range(count)])
    drawn = draw(painter.generator, painter.model, text, range(count), painter.seed).image.cpu()
    mean = mean_features(training(), features)
    similarity, images = nearest(torch.cat([drawn, unseen]), training(), features, mean, _NEAREST, len(sentences))
    of_drawn, of_unseen = similarity[:count, 0].mean(), similarity[count:, 0].mean()
    rows = [to_pictures(torch.stack([drawn[row], *found])) for row, found in enumerate(images)]
    labels = [f"{sentence.words} (nearest: {similarity[row, 0]:.2f})" for row, sentence in enumerate(sentences)]
    return Figure(
        "nearest",
        "The nearest training pictures",
        "To the right of each drawn picture: the training pictures whose discriminator features are most like its own. "
        f"The cosine with the nearest one is {of_drawn:.3f} on average for {count} drawn pictures and {of_unseen:.3f} "
        f"for {len(unseen)} real ones that were not trained on. Copies would be near 1 and look like their neighbour.",
        labelled_grid(rows, labels, ["drawn", *(f"training {n + 1}" for n in range(len(images[0])))], painter.cell),
    )


@torch.no_grad()
def nearest(
    queries: Tensor, many: Iterable[Tensor], features: Features, mean: Tensor, k: int, shown: int
) -> tuple[Tensor, list[list[Tensor]]]:
    """Cosines (N, k) of each of `queries` (N, 3, S, S) with the `k` nearest of `many`, nearest first, and those
    pictures (3, S, S) for the first `shown` queries.

    Cosines are taken of what differs from `mean` (width,), which all pictures share. The batches of `many`
    (n, 3, S, S) are read once and not kept.
    """
    own = F.normalize(features(queries) - mean, dim=1)
    best = own.new_empty(len(queries), 0)
    images: list[list[Tensor]] = [[] for _ in range(shown)]
    for batch in many:
        similarity = torch.cat([best, own @ F.normalize(features(batch) - mean, dim=1).T], dim=1)
        kept = best.shape[1]
        best, chosen = similarity.topk(min(k, similarity.shape[1]), dim=1)
        for row, places in enumerate(chosen[:shown].tolist()):
            images[row] = [images[row][p] if p < kept else batch[p - kept].clone() for p in places]
    return best, images


@torch.no_grad()
def mean_features(many: Iterable[Tensor], features: Features) -> Tensor:
    """The mean (width,) of the features of all pictures of the batches `many`; ValueError when there are none."""
    total: Tensor | None = None
    count = 0
    for batch in many:
        found = features(batch).sum(dim=0)
        total = found if total is None else total + found
        count += len(batch)
    if total is None:
        raise ValueError("there are no pictures to take the mean of")
    return total / count
