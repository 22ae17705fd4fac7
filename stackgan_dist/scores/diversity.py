"""How different the pictures of one sentence are, by their pixels and by what the judges see in them.

A generator that overlooks its noise makes one picture of a sentence. What the sentence leaves open, such as pose, size
and background, differs among real pictures of a class, whose figure stands beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stackgan_dist.data.pictures import PicturesOfClasses
from stackgan_dist.distributed.collectives import sum_over_ranks
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.scores.judges import Judges
from stackgan_dist.scores.picture_files import PictureFiles
from stackgan_dist.scores.subject import OpenSubject


def pixel_deviation(pictures: Tensor) -> Tensor:
    """Of each group: the standard deviation of a pixel's colour among its pictures, a mean over pixels and channels.

    `pictures` (G, K, 3, S, S) in [-1, 1], K at least 2; returns (G,), float64. It is unbiased: half of the mean squared
    difference of two pictures is the square of the deviation. Pictures that are all alike have 0.
    """
    return pictures.double().clamp(-1, 1).std(1).mean((1, 2, 3))


def pairwise_distance(features: Tensor) -> Tensor:
    """Of each group: the mean distance of two of its pictures in a feature space.

    `features` (G, K, width), K at least 2; returns (G,), float64. With LPIPS in their place this is the diversity of
    Zhu et al. (arXiv 1711.11586, section 5.2).
    """
    x = features.double()
    k = x.shape[1]
    differences = x[:, :, None] - x[:, None]
    return differences.square().sum(-1).sqrt().sum((1, 2)) / (k * (k - 1))


def measured(images: Tensor, per_group: int, judges: Judges | None = None) -> Tensor:
    """(G, 1 + spaces), float64, of images (G x per_group, 3, S, S) in [-1, 1], one group after the other.

    The deviation of pixels, then the distances in the spaces of the `judges`.
    """
    found = [pixel_deviation(images.unflatten(0, (-1, per_group))).cpu()]
    for features in judges.look(images).features if judges is not None else ():
        found.append(pairwise_distance(features.unflatten(0, (-1, per_group))).cpu())
    return torch.stack(found, dim=1)


@dataclass(frozen=True)
class Diversity:
    """Of groups of pictures."""

    values: Tensor
    """(groups, 1 + spaces), see `measured`; of real groups only their mean, (1, 1 + spaces), or (0, 1 + spaces)."""

    @property
    def mean(self) -> float | None:
        """The mean deviation of a group's pixels; None where there was no group."""
        return self.of(0)

    def of(self, column: int) -> float | None:
        """The mean of a column of `values`."""
        return self.values[:, column].mean().item() if len(self.values) else None


def diversity_of_generated(
    subject: OpenSubject, sentences: int, pictures: int, ranks: Ranks, judges: Judges | None = None
) -> Diversity:
    """Of so many pictures of each of so many of the subject's captions; every rank takes part and gets it."""
    values = torch.zeros(sentences, 1 + (len(judges.spaces) if judges is not None else 0), dtype=torch.float64)
    generated = subject.generated(sentences * pictures, ranks, per_caption=pictures)
    for batch in generated.batches(ranks.rank, ranks.world_size):
        values[batch.numbers.cpu()[::pictures] // pictures] = measured(batch.images, pictures, judges)
    sum_over_ranks(values, ranks)
    return Diversity(values)


def diversity_of_files(
    pictures: PictureFiles, groups: Sequence[Sequence[int]], ranks: Ranks, judges: Judges
) -> Diversity:
    """Of groups of a system's pictures, by their numbers; all of a group are of one sentence."""
    values = torch.zeros(len(groups), 1 + len(judges.spaces), dtype=torch.float64)
    for number in range(ranks.rank, len(groups), ranks.world_size):
        values[number] = measured(pictures.images(groups[number]), len(groups[number]), judges)[0]
    sum_over_ranks(values, ranks)
    return Diversity(values)


def diversity_of_real(
    subject: OpenSubject, groups: int, pictures: int, ranks: Ranks, judges: Judges | None = None
) -> Diversity:
    """Of groups of real pictures of one class, at most so many, of the data set with the subject's captions."""
    settings, size = subject.subject, subject.trained.config.model.image_size
    real = PicturesOfClasses(subject.captions.captions(), size, groups, pictures, settings.batch_size, settings.seed)
    return diversity_of_classes(real, ranks, judges)


def diversity_of_classes(real: PicturesOfClasses, ranks: Ranks, judges: Judges | None = None) -> Diversity:
    """The same, of these groups."""
    sums = torch.zeros(2 + (len(judges.spaces) if judges is not None else 0), dtype=torch.float64)
    for images in real.batches(ranks.rank, ranks.world_size):
        found = measured(images, real.per_group, judges)
        sums += torch.cat([torch.tensor([len(found)], dtype=torch.float64), found.sum(0)])
    sum_over_ranks(sums, ranks)
    return Diversity(sums[None, 1:] / sums[0] if sums[0] else sums.new_zeros(0, len(sums) - 1))
