"""How different the pictures of one sentence are, from float64 sums that ranks can add up.

A generator that overlooks its noise makes one picture of a sentence. What the sentence leaves open, such as pose, size
and background, differs among real pictures of a class, whose figure stands beside.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stackgan_dist.data.pictures import PicturesOfClasses
from stackgan_dist.distributed.collectives import sum_over_ranks
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.scores.subject import OpenSubject


def pixel_deviation(pictures: Tensor) -> Tensor:
    """Of each group: the standard deviation of a pixel's colour among its pictures, a mean over pixels and channels.

    `pictures` (G, K, 3, S, S) in [-1, 1], K at least 2; returns (G,), float64. It is unbiased: half of the mean squared
    difference of two pictures is the square of the deviation. Pictures that are all alike have 0.
    """
    return pictures.double().clamp(-1, 1).std(1).mean((1, 2, 3))


class DiversitySums:
    """The sum of the deviations of groups of pictures, and how many groups there were.

    Args:
        tensor: sums that were made before.
    """

    tensor: Tensor
    """(2,), float64: all-reduce it with SUM, in place."""

    def __init__(self, tensor: Tensor | None = None) -> None:
        self.tensor = torch.zeros(2, dtype=torch.float64) if tensor is None else tensor

    def add(self, images: Tensor, per_group: int) -> None:
        """Add whole groups: images (G x per_group, 3, S, S) in [-1, 1], one group after the other."""
        found = pixel_deviation(images.unflatten(0, (-1, per_group))).cpu()
        self.tensor += torch.tensor([found.sum(), len(found)], dtype=torch.float64)

    @property
    def mean(self) -> float | None:
        """The mean deviation of a group; None where there was none."""
        total, groups = self.tensor.tolist()
        return total / groups if groups else None


def diversity_of_generated(subject: OpenSubject, sentences: int, pictures: int, ranks: Ranks) -> DiversitySums:
    """Of so many pictures of each of so many of the subject's captions; every rank takes part and gets it."""
    sums = DiversitySums()
    generated = subject.generated(sentences * pictures, ranks, per_caption=pictures)
    for batch in generated.batches(ranks.rank, ranks.world_size):
        sums.add(batch.images, pictures)
    sum_over_ranks(sums.tensor, ranks)
    return sums


def diversity_of_real(subject: OpenSubject, groups: int, pictures: int, ranks: Ranks) -> DiversitySums:
    """Of groups of real pictures of one class, at most so many, of the data set with the subject's captions."""
    sums, settings = DiversitySums(), subject.subject
    size = subject.trained.config.model.image_size
    real = PicturesOfClasses(subject.captions.captions(), size, groups, pictures, settings.batch_size, settings.seed)
    for images in real.batches(ranks.rank, ranks.world_size):
        sums.add(images, pictures)
    sum_over_ranks(sums.tensor, ranks)
    return sums
